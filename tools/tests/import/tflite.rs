//! TensorFlow Lite's files, as its converter wrote them, against LiteRT's reference kernels.

use skipstone::{Arena, Model, Network};
use skipstone_tools::assemble::Wishes;
use skipstone_tools::blob::Blob;
use skipstone_tools::calibrate::Ranges;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::front::{ErrorKind, ImportOptions, import, import_bytes};
use skipstone_tools::ir::{FloatNetwork, Operation, Preprocessing, TensorScale, Weights, blocks};
use skipstone_tools::layerwise::{Values, run_layers};
use skipstone_tools::quantize::{Rounding, is_quantized, quantize};

use super::{assert_answers, fixture, has_softmax, imported, npz, outline};

/// A network that is fed pixels of 0..255, which its file does not say.
fn raw(name: &str) -> FloatNetwork {
    let options = ImportOptions { mean: Some(vec![0.0]), std: Some(vec![1.0 / 255.0]), ..Default::default() };
    import(&fixture(&format!("{name}.tflite")), &options).unwrap_or_else(|error| panic!("{error}")).network
}

fn own(name: &str) -> FloatNetwork {
    imported(&fixture(&format!("{name}.tflite"))).network
}

const RESIDUAL: &str = "conv identity2 projection2 projection2 global dense softmax";
const MOBILE: &str = "conv depthwise conv max conv global dense dense";
const OPTION_A: &str = "conv padded average dense";

#[test]
fn float_files_answer_as_litert_does() {
    let cases = [
        (raw("tflite-residual"), "tflite-residual", RESIDUAL),
        (raw("tflite-residual-f16"), "tflite-residual-f16", RESIDUAL),
        (own("tflite-mobile"), "tflite-mobile", MOBILE),
        (raw("tflite-option-a"), "tflite-option-a", OPTION_A),
    ];
    for (network, name, stages) in cases {
        assert_eq!((outline(&network), &*network.name), (stages.into(), name));
        assert!(!is_quantized(&network));
        assert_answers(&network, &fixture(&format!("{name}.npz")));
    }
}

#[test]
fn int8_weights_under_float_activations_are_taken_as_floats() {
    let [float, weights] = ["tflite-residual", "tflite-residual-weights"].map(raw);
    assert_eq!(outline(&weights), RESIDUAL);
    let kept = |network: &FloatNetwork| {
        network.layers.iter().any(|layer| matches!(layer.parameters.weights, Weights::Integers(_)))
    };
    assert!(!kept(&weights));
    assert!(weights.layers != float.layers, "nothing in the file is quantized");
    let image = &npz::images(&fixture("tflite-residual.npz"))[..192];
    let [a, b] = [&float, &weights].map(|network| super::oracle::evaluate(network, image).logits);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.05), "{a:?} {b:?}");
}

fn blob(network: &FloatNetwork, rounding: Rounding) -> Result<Blob, String> {
    let method = Method { rounding, ..Method::default() };
    let converted = convert(network, None, method, Wishes::default(), &|_| {});
    converted.map(|converted| converted.blob).map_err(|error| format!("{error:#}"))
}

/// The scores before a softmax, for each of the four images.
fn scores(blob: &Blob, images: &[u8]) -> Vec<f32> {
    let model = Model::parse(blob).unwrap();
    let layers: Vec<_> = model.layers().map(|entry| entry.unwrap().layer).collect();
    let images = images.chunks_exact(images.len() / 4);
    let scores = |image| match run_layers(&layers, image).unwrap().pop() {
        Some(Values::Scores(scores)) => scores,
        other => panic!("no scores: {other:?}"),
    };
    images.flat_map(scores).collect()
}

const INT8: [(&str, &str); 4] = [
    ("tflite-residual-int8", RESIDUAL),
    ("tflite-mobile-int8", MOBILE),
    ("tflite-mean-int8", MOBILE),
    ("tflite-option-a-int8", OPTION_A),
];

#[test]
fn int8_files_are_converted_without_images_and_stay_near_litert() {
    for (name, stages) in INT8 {
        let network = own(name);
        assert_eq!(outline(&network), stages, "{name}");
        let answers = fixture(&format!("{name}.npz"));
        let expected = npz::floats(&answers, "logits").unwrap();
        let found = scores(&blob(&network, Rounding::Fused).unwrap(), &npz::images(&answers));
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 0.05 * largest, "{name}: {found:?}, {expected:?}");
        }
    }
}

#[test]
fn tflite_exact_is_litert_bit_for_bit() {
    for name in ["tflite-residual-int8", "tflite-mean-int8", "tflite-option-a-int8"] {
        let (network, answers) = (own(name), fixture(&format!("{name}.npz")));
        let blob = blob(&network, Rounding::TfliteExact).unwrap();
        let images = npz::images(&answers);
        let TensorScale { scale, zero_point } = network.layers.last().unwrap().parameters.scale.unwrap();
        let softmax = has_softmax(&network);
        // steps where a softmax follows, else real numbers
        let unit = if softmax { 1.0 } else { scale };
        let found = scores(&blob, &images);
        let found: Vec<i8> = found.iter().map(|s| (s / unit + f32::from(zero_point)).round() as i8).collect();
        assert_eq!(found, npz::integers(&answers, "scores"), "{name}");
        if softmax {
            let model = Model::parse(&blob).unwrap();
            let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
            let mut runner: Network = Network::new(model, &mut arena[..]).unwrap();
            let mut found = Vec::new();
            for image in images.chunks_exact(images.len() / 4) {
                let probabilities = runner.run(image).unwrap().values();
                found.extend(probabilities.iter().map(|p| (p * 256.0 - 128.0) as i8));
            }
            assert_eq!(found, npz::integers(&answers, "output"), "{name}");
        }
    }
}

#[test]
fn tflite_exact_needs_what_the_file_has() {
    // its input is scaled in int8, with roundings of their own
    let message = blob(&own("tflite-mobile-int8"), Rounding::TfliteExact).unwrap_err();
    assert!(message.contains("conv2d") && message.contains("--rounding tflite-exact"), "{message}");
    // other pixels than the file's
    let mut network = own("tflite-residual-int8");
    network.preprocessing = Preprocessing { mean: vec![0.5], std: vec![0.25] };
    let message = blob(&network, Rounding::TfliteExact).unwrap_err();
    assert!(message.contains("not those of an int8 layer"), "{message}");
    assert!(blob(&network, Rounding::Fused).is_ok(), "its first layer's weights are quantized again");
    // a tensor without a scale
    let mut network = own("tflite-residual-int8");
    let inner = blocks(&network)[0].path[0];
    network.layers[inner].parameters.scale = None;
    let message = blob(&network, Rounding::TfliteExact).unwrap_err();
    assert!(message.contains("its output is not int8 in the file"), "{message}");
    let message = blob(&network, Rounding::Fused).unwrap_err();
    assert!(message.contains("--calibrate"), "{message}");
    // a pooling that changes the scale
    let mut network = own("tflite-mean-int8");
    let pool = network.layers.iter_mut().find(|layer| matches!(layer.operation, Operation::MaxPool(_)));
    pool.unwrap().parameters.scale = Some(TensorScale { scale: 0.5, zero_point: 0 });
    let message = blob(&network, Rounding::TfliteExact).unwrap_err();
    assert!(message.contains("changes the scale"), "{message}");
}

#[test]
fn pixels_are_what_the_file_says_of_its_input() {
    let pixels = |name: &str| {
        let found = imported(&fixture(&format!("{name}.tflite")));
        let note = found.notes.iter().find(|note| note.starts_with("pixels")).unwrap().clone();
        let Preprocessing { mean, std } = found.network.preprocessing;
        (mean[0], std[0], note)
    };
    let notes = imported(&fixture("tflite-residual-int8.tflite")).notes;
    assert_eq!(notes.last().unwrap(), "quantized in the file: its scales and weights stay");
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    let (mean, std, note) = pixels("tflite-residual-int8");
    assert!(near(mean, 0.0) && near(std, 1.0 / 255.0) && note.contains("of 0 to 255"), "{note}");
    let (mean, std, note) = pixels("tflite-mean-int8");
    assert!(near(mean, 0.0) && near(std, 1.0) && note.contains("of 0 to 1"), "{note}");
    // pixels of 0..255 are scaled to -1..1 by the network
    for name in ["tflite-mobile", "tflite-mobile-int8"] {
        let (mean, std, note) = pixels(name);
        assert!((mean - 0.5).abs() < 2e-3 && (std - 0.5).abs() < 2e-3, "{mean} {std}");
        assert!(note.contains("0..255 itself"), "{note}");
    }
}

#[test]
fn files_that_cannot_be_represented_are_refused_by_name() {
    let cases = [
        ("tflite-int16", ErrorKind::Operator, "has 16 bits, activations here have 8"),
        ("tflite-gated", ErrorKind::Operator, "unsupported operator LOGISTIC"),
        ("tflite-nan-weight", ErrorKind::Value, "is NaN"),
    ];
    for (name, kind, message) in cases {
        let path = fixture(&format!("{name}.tflite"));
        let error = import(&path, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.refusal.kind, kind, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&path.display().to_string()) && text.contains(message), "{error}");
        assert!(!error.refusal.help.is_empty() && !error.refusal.place.is_empty(), "{error}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = super::Random(3);
    for name in ["tflite-residual-int8.tflite", "tflite-mobile-int8.tflite", "tflite-option-a.tflite"] {
        let path = fixture(name);
        let whole = std::fs::read(&path).unwrap();
        let mut read = 0;
        let mut try_bytes = |bytes: Vec<u8>| {
            let Ok(imported) = import_bytes(bytes, &path, &ImportOptions::default()) else { return };
            // Whatever the numbers are, they are quantized or refused.
            let _ = quantize(&imported.network, &Ranges::new(), Rounding::Fused);
            let _ = quantize(&imported.network, &Ranges::new(), Rounding::TfliteExact);
            read += 1;
        };
        for _ in 0..500 {
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
        assert!((100..1000).contains(&read), "{name}: {read} of 1500 are read");
    }
}
