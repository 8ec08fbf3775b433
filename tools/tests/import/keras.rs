//! Keras' files: the answers are Keras', through each of its formats and through tf2onnx; every refusal by name.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use skipstone_tools::data::Dataset;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ErrorKind, ImportError, ImportOptions, import, import_bytes};
use skipstone_tools::ir::{Activation, Operation};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Random, assert_answers, fixture, has_softmax, imported, outline, root};

/// Networks, the files that they are saved in, and their stages.
const NETWORKS: [(&str, &[&str], &str); 6] = [
    (
        "residual-keras",
        &["residual-keras2.h5", "residual-keras3.keras", "residual-tf2onnx.onnx"],
        "conv identity2 projection2 depthwise conv global dense softmax",
    ),
    (
        "sequential-keras",
        &["sequential-keras2.keras", "sequential-keras3.h5"],
        "conv max average dense dense softmax",
    ),
    (
        "mobilenet",
        &["mobilenet.h5", "mobilenet-tf2onnx.onnx"],
        "conv depthwise conv depthwise conv depthwise conv global dense softmax",
    ),
    ("ds-cnn", &["ds-cnn.keras", "ds-cnn-tf2onnx.onnx"], "conv depthwise conv global dense softmax"),
    ("autoencoder", &["autoencoder.h5", "autoencoder-tf2onnx.onnx"], "dense dense dense dense dense dense"),
    (
        "inverted-residual",
        &["inverted-residual.keras", "inverted-residual-tf2onnx.onnx"],
        "conv identity3 conv depthwise conv global dense",
    ),
];

#[test]
fn every_format_answers_as_keras_does() {
    for (name, files, stages) in NETWORKS {
        for file in files {
            println!("{file}");
            let network = imported(&fixture(file)).network;
            assert_eq!(outline(&network), stages, "{file}");
            assert_answers(&network, &fixture(&format!("{name}.npz")));
        }
    }
}

#[test]
fn keras_2_and_3_give_the_same_network() {
    let [two, three] = ["residual-keras2.h5", "residual-keras3.keras"].map(|file| {
        let mut network = imported(&fixture(file)).network;
        network.name = String::new();
        network
    });
    assert!(two == three);
    let stem = &two.layers[0];
    assert_eq!((&*stem.name, stem.activation), ("stem", Activation::RELU6));
    let blocks = skipstone_tools::ir::blocks(&two);
    let window = two.layers[blocks[1].path[0]].operation.window().unwrap();
    assert_eq!((window.stride, window.padding), ([2, 2], [0, 0, 1, 1]));
}

#[test]
fn notes_say_what_was_recognised() {
    let notes = |file: &str| imported(&fixture(file)).notes;
    let has = |file: &str, line: &str| {
        let notes = notes(file);
        assert!(notes.iter().any(|note| note.contains(line)), "{file}: {notes:#?}");
    };
    has("residual-keras2.h5", "input 'image': 8x8x3 (NHWC)");
    has("residual-keras2.h5", "the model normalises pixels of 0..255 itself");
    has("ds-cnn.keras", "global average pooling of the first 24x5, beyond which nothing is computed");
    has("autoencoder.h5", "40 numbers, one byte for each");
    has("inverted-residual.keras", "three convolutions (1x1, depthwise 3x3, 1x1)");
}

/// A pooling that leaves rows out: the padding that only they need is gone.
#[test]
fn rows_that_no_window_reads_are_not_computed() {
    for file in ["ds-cnn.keras", "ds-cnn-tf2onnx.onnx"] {
        let network = imported(&fixture(file)).network;
        let Operation::Conv2d { window, depthwise: true, .. } = network.layers[1].operation else {
            panic!("{file}")
        };
        assert_eq!(window.padding, [1, 1, 0, 1], "{file}");
    }
}

/// MLPerf Tiny's ResNet-8, where the measuring data are.
#[test]
fn mlperf_tinys_resnet_answers_as_tensorflow_lite_does() {
    let folder = std::env::var_os("SKIPSTONE_DATA").map_or(root().join("../shared/data"), Into::into);
    let model = folder.join("mlperf-tiny/pretrainedResnet.h5");
    if !model.exists() {
        println!("skipped: {} is not there", model.display());
        return;
    }
    let options = ImportOptions {
        mean: Some(vec![0.0]),
        std: Some(vec![1.0 / 255.0]), // pixels of 0..255
        ..ImportOptions::default()
    };
    let network = import(&model, &options).unwrap().network;
    assert_eq!(outline(&network), "conv identity2 projection2 projection2 global dense softmax");
    let golden = fs::read(folder.join("golden/resnet8_float_tflite.f32")).unwrap();
    let golden: Vec<f32> = golden.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let sheet = image::open(folder.join("cifar10/test.webp")).unwrap().to_rgb8();
    let evaluator = Evaluator::new(&network).unwrap();
    let mut largest = 0f32;
    for (index, expected) in golden.chunks_exact(10).take(200).enumerate() {
        let (left, top) = (index as u32 % 100 * 32, index as u32 / 100 * 32);
        let image = image::imageops::crop_imm(&sheet, left, top, 32, 32).to_image();
        let found = evaluator.run(image.as_raw(), &mut |_, _| {});
        for (found, expected) in found[0].iter().zip(expected) {
            largest = largest.max((found - expected).abs());
        }
    }
    println!("largest difference of a probability over 200 images: {largest:e}");
    assert!(largest < 1e-4);
}

/// A `.keras` file with its configuration changed.
fn configured(file: &str, change: impl Fn(&str) -> String) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(fs::read(fixture(file)).unwrap())).unwrap();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        let name = member.name().unwrap().into_owned();
        if name == "config.json" {
            let text = String::from_utf8(content).unwrap();
            content = change(&text).into_bytes();
            assert_ne!(text.as_bytes(), content, "nothing is changed");
        }
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        writer.start_file(name, options).unwrap();
        writer.write_all(&content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn refused(bytes: Vec<u8>) -> ImportError {
    import_bytes(bytes, Path::new("model.keras"), &ImportOptions::default()).unwrap_err()
}

#[test]
fn layers_that_cannot_be_represented_are_refused_by_name() {
    let residual = [
        (
            r#""padding": "same""#,
            r#""padding": "causal""#,
            ErrorKind::Operator,
            "layer 'stem' (Conv2D): has padding 'causal'",
        ),
        (
            r#""data_format": "channels_last""#,
            r#""data_format": "channels_first""#,
            ErrorKind::Operator,
            "layer 'stem' (Conv2D): has its channels first",
        ),
        (
            r#""class_name": "ReLU""#,
            r#""class_name": "LeakyReLU""#,
            ErrorKind::Operator,
            "unsupported operator LeakyReLU",
        ),
        (
            r#""negative_slope": 0.0"#,
            r#""negative_slope": 0.1"#,
            ErrorKind::Operator,
            "unsupported operator ReLU",
        ),
        (r#""max_value": 6.0"#, r#""max_value": 4.0"#, ErrorKind::Operator, "clamps to 0 .. 4"),
        (
            r#""activation": "softmax""#,
            r#""activation": "sigmoid""#,
            ErrorKind::Operator,
            "its activation is sigmoid",
        ),
        (
            r#""class_name": "Add""#,
            r#""class_name": "Multiply""#,
            ErrorKind::Operator,
            "gates (squeeze-and-excitation",
        ),
        (
            r#""class_name": "Dropout""#,
            r#""class_name": "Lambda""#,
            ErrorKind::Operator,
            "what it computes is Python",
        ),
        (
            r#""axis": -1, "momentum""#,
            r#""axis": 1, "momentum""#,
            ErrorKind::Operator,
            "normalises axis 1 of 4",
        ),
        (
            r#""use_bias": false"#,
            r#""use_bias": true"#,
            ErrorKind::Damaged,
            "layer 'stem' (Conv2D): has 1 weights in the file, not 2",
        ),
        (
            r#""batch_shape": [null, 8, 8, 3]"#,
            r#""batch_shape": [null, null, 8, 3]"#,
            ErrorKind::DynamicShape,
            "its height is not fixed",
        ),
        (
            r#""keras_history": ["stem", 0, 0]"#,
            r#""keras_history": ["stem", 3, 0]"#,
            ErrorKind::Topology,
            "reads a result of 'stem' that no layer makes",
        ),
        (
            r#""output_layers": ["dense", 0, 0]"#,
            r#""output_layers": ["dance", 0, 0]"#,
            ErrorKind::Damaged,
            "output 'dance': is not produced by any layer",
        ),
        (
            r#""class_name": "Functional""#,
            r#""class_name": "MyModel""#,
            ErrorKind::Operator,
            "the model is a MyModel",
        ),
    ];
    for (from, to, kind, message) in residual {
        let error = refused(configured("residual-keras3.keras", |text| text.replace(from, to)));
        assert_eq!(error.refusal.kind, kind, "{to}\n{error}");
        assert!(error.to_string().contains(message), "{to}\n{error}");
    }
    let sequential = [
        (r#""invert": false"#, r#""invert": true"#, ErrorKind::Operator, "not inverted"),
        (
            r#""strides": [2, 2]"#,
            r#""strides": [2, 2.5]"#,
            ErrorKind::Damaged,
            "unusable setting strides = [2,2.5]",
        ),
        (
            r#""pool_size""#,
            r#""dilation_rate": [1, 1, 1], "pool_size""#,
            ErrorKind::Damaged,
            "unusable setting dilation_rate",
        ),
        (r#""batch_input_shape""#, r#""other""#, ErrorKind::DynamicShape, "has no usable shape"),
    ];
    for (from, to, kind, message) in sequential {
        let error = refused(configured("sequential-keras2.keras", |text| text.replace(from, to)));
        assert_eq!(error.refusal.kind, kind, "{to}\n{error}");
        assert!(error.to_string().contains(message), "{to}\n{error}");
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    // What save_weights writes: the member of the zip file.
    let mut archive = ZipArchive::new(Cursor::new(fs::read(fixture("ds-cnn.keras")).unwrap())).unwrap();
    let mut weights = Vec::new();
    archive.by_name("model.weights.h5").unwrap().read_to_end(&mut weights).unwrap();
    let error = refused(weights.clone());
    assert_eq!(error.refusal.kind, ErrorKind::Format);
    assert!(error.refusal.help.contains("save the whole model"), "{error}");

    let error = refused(weights[..100].to_vec());
    assert_eq!(error.refusal.kind, ErrorKind::Damaged);
    assert!(error.refusal.help.contains("cut short"), "{error}");
    let whole = |text: &str| refused(configured("ds-cnn.keras", |_| text.to_string()));
    assert!(whole("{").refusal.reason.contains("its configuration"));
    assert!(whole("{}").refusal.reason.contains("has no settings"));
    assert!(whole(r#"{"class_name": "Functional", "config": {}}"#).refusal.reason.contains("has no layers"));
    let deep = "[".repeat(10_000);
    assert!(whole(&deep).refusal.reason.contains("recursion"));
    // A small file that unfolds to a large one.
    let bomb = whole(&" ".repeat(5_000_000));
    assert!(bomb.refusal.reason.contains("unfolds to many times the file's size"), "{bomb}");
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random(3);
    for name in ["residual-keras2.h5", "sequential-keras3.h5", "sequential-keras2.keras"] {
        let whole = fs::read(fixture(name)).unwrap();
        let try_bytes =
            |bytes: Vec<u8>| import_bytes(bytes, Path::new(name), &ImportOptions::default()).is_ok();
        for _ in 0..100 {
            try_bytes(whole[..random.below(whole.len())].to_vec());
            let mut flipped = whole.clone();
            for _ in 0..1 + random.below(8) {
                let at = random.below(flipped.len());
                flipped[at] ^= 1 << random.below(8);
            }
            try_bytes(flipped);
            let mut extreme = whole.clone();
            let at = random.below(extreme.len());
            let run = (at + random.below(10)).min(extreme.len());
            extreme[at..run].fill(if random.below(2) == 0 { 0xff } else { 0x00 });
            try_bytes(extreme);
        }
        // Damage to what the configuration says, past the zip file's checksum.
        if name.ends_with(".keras") {
            for _ in 0..100 {
                let (at, with) = (random.below(1000), b"0[]{}\",-9e"[random.below(10)]);
                try_bytes(configured(name, |text| {
                    let mut text = text.as_bytes().to_vec();
                    let at = at * 7 % text.len();
                    text[at] = if text[at] == with { b'~' } else { with };
                    String::from_utf8(text).unwrap()
                }));
            }
        }
    }
}

/// What the small networks lose when they are converted: the runtime's own answers beside the float network's.
#[test]
fn int8_answers_are_near_the_float_networks() {
    for (name, files, _) in NETWORKS {
        for file in files {
            let network = imported(&fixture(file)).network;
            let images =
                Dataset::open_for_calibration(&fixture(&format!("{name}.npz")), network.input, 4).unwrap();
            let blob = skipstone_tools::convert::convert(
                &network,
                Some(&images),
                skipstone_tools::convert::Method::default(),
                skipstone_tools::assemble::Wishes::default(),
                &|_| {},
            )
            .unwrap()
            .blob;
            let evaluator = Evaluator::new(&network).unwrap();
            let (mut signal, mut noise) = (0.0, 0.0);
            for index in 0..images.len() {
                let mut arena = Box::new(skipstone::Arena::<{ 64 * 1024 }>::new());
                let model = skipstone::Model::parse(&blob).unwrap();
                let mut int8: skipstone::Network = skipstone::Network::new(model, &mut arena[..]).unwrap();
                let scores = int8.run(images.image(index)).unwrap();
                let found: Vec<f32> = match has_softmax(&network) {
                    true => scores.probabilities().collect(),
                    false => scores.values().to_vec(),
                };
                let expected = evaluator.run(images.image(index), &mut |_, _| {}).remove(0);
                for (found, expected) in found.iter().zip(expected) {
                    signal += f64::from(expected).powi(2);
                    noise += f64::from(found - expected).powi(2);
                }
            }
            let decibel = 10.0 * (signal / noise).log10();
            println!("{file}: {decibel:.1} dB");
            assert!(decibel > 25.0, "{file}: {decibel:.1} dB");
        }
    }
}
