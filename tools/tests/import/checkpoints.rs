//! PyTorch's checkpoints: files that torch.save wrote, and ResNets recognized by their tensors' names.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use skipstone_tools::assemble::Wishes;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ErrorKind, ImportError, ImportOptions, Imported, import, import_bytes};
use skipstone_tools::ir::FloatNetwork;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{Random, TINY, assert_answers, block, describe, fixture, imported, nameless, outline, root};

fn tiny(input: &str) -> ImportOptions {
    ImportOptions {
        name: Some("tiny".into()),
        mean: Some(vec![0.5, 0.4, 0.3]),
        std: Some(vec![0.25, 0.2, 0.3]),
        input: Some(input.parse().unwrap()),
        ..ImportOptions::default()
    }
}

const TINY_FILES: [&str; 7] = [
    "tiny-f32.safetensors",
    "tiny.pt",
    "tiny.th",
    "tiny-f16.pt",
    "tiny-bf16.pt",
    "tiny-strided.pt",
    "tiny-f64.th",
];

fn blob(network: &FloatNetwork) -> Vec<u8> {
    let data = Dataset::open_for_calibration(&fixture("tiny.npz"), network.input, 4).unwrap();
    convert(network, Some(&data), Method::default(), Wishes::default(), &|_| {}).unwrap().blob.to_vec()
}

#[test]
fn the_same_network_gives_the_same_blob_through_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let options = ImportOptions { input: None, labels: Some(vec![]), ..tiny("8x8") };
    let described =
        |weights: &str| import(&describe(folder.path(), weights, TINY), &options).unwrap().network;
    let expected = nameless(described("tiny-f32.safetensors"));
    assert_answers(&expected, &fixture("tiny.npz"));
    let expected_blob = blob(&expected);
    for name in TINY_FILES {
        let bare = import(&fixture(name), &tiny("8x8x3")).unwrap_or_else(|error| panic!("{error}")).network;
        let bare = nameless(bare);
        assert!(bare == expected, "{name}: other weights");
        assert!(nameless(described(name)) == expected, "{name}: other weights through the description");
        assert!(blob(&bare) == expected_blob, "{name}: another blob");
    }
    let graph = nameless(import(&fixture("tiny.onnx"), &options).unwrap().network);
    assert!(graph == expected, "tiny.onnx: other weights");
    assert!(blob(&graph) == expected_blob, "tiny.onnx: another blob");
}

#[test]
fn notes_say_where_the_weights_were_and_what_was_recognized() {
    let notes = |name: &str| imported(&fixture(name)).notes;
    let option_a = notes("option-a.th");
    assert_eq!(
        option_a[..4],
        [
            "PyTorch checkpoint: the state dict under 'state_dict'",
            "'module.' in front of all names is left out",
            "recognised by its tensors' names: CIFAR ResNet-10: 3 stages of 1/2/1 basic blocks, 4/8/16 channels, \
             option A shortcuts; stride 2 at the head of all stages but the first",
            "input: 32x32x3, as networks with a 3x3 stem have it; --input gives another",
        ]
    );
    let torchvision = notes("torchvision.pt");
    assert_eq!(
        torchvision[..3],
        [
            "PyTorch checkpoint: a state dict",
            "recognised by its tensors' names: ResNet-17: 4 stages of 1/2/1/1 bottleneck blocks, 8/16/32/64 \
             channels, projection shortcuts; stride 2 at the head of all stages but the first",
            "input: 224x224x3, as networks with a 7x7 stem have it; --input gives another",
        ]
    );
    assert_eq!(notes("tiny.pt")[0], "PyTorch checkpoint: the state dict under 'net'");
    assert_eq!(notes("tiny-bf16.pt")[0], "PyTorch checkpoint: the state dict under 'model.state_dict'");
}

#[test]
fn recognised_networks_answer_as_pytorch_does() {
    let sized = |name: &str, input: &str| {
        let input = Some(input.parse().unwrap());
        import(&fixture(name), &ImportOptions { input, ..ImportOptions::default() }).unwrap().network
    };
    let option_a = sized("option-a.th", "8x8");
    assert_eq!(outline(&option_a), "conv identity2 padded identity2 padded global dense");
    assert_answers(&option_a, &fixture("resnet-option-a.npz"));
    let torchvision = sized("torchvision.pt", "32x32");
    assert_eq!(
        outline(&torchvision),
        "conv max projection3 projection3 identity3 projection3 projection3 global dense"
    );
    assert_answers(&torchvision, &fixture("torchvision.npz"));
    let block = block(&torchvision, "layer2.0");
    let window = |layer: usize| torchvision.layers[layer].operation.window().unwrap();
    assert_eq!(block.path.iter().map(|&layer| window(layer).stride[0]).collect::<Vec<_>>(), [1, 2, 1]);
    let [projection] = block.shortcut[..] else { panic!("{block:?}") };
    assert_eq!(torchvision.layers[projection].name, "layer2.0.downsample.0");
    assert_eq!(window(projection).stride, [2, 2]);
}

fn refused(path: &Path, bytes: Vec<u8>) -> ImportError {
    import_bytes(bytes, path, &ImportOptions::default()).unwrap_err()
}

#[test]
fn what_torch_writes_besides_weights_is_refused_with_help() {
    let cases = [
        ("whole-model.pt", ErrorKind::Code, "object of the class `torch.nn.modules.container.Sequential`"),
        ("torchscript.pt", ErrorKind::Format, "is a TorchScript archive"),
    ];
    for (name, kind, message) in cases {
        let path = fixture(name);
        let error = import(&path, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.refusal.kind, kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.refusal.help.contains("state_dict()"), "{error}");
    }
}

#[test]
fn weights_that_do_not_fit_come_with_the_description_that_their_names_suggest() {
    // A dense layer on its side, and weights that are not finite.
    let change = |from: &[u8], to: &[u8]| {
        let mut bytes = fs::read(fixture("tiny-f32.safetensors")).unwrap();
        let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let grouped = change(
        br#""fc.weight":{"dtype":"F32","shape":[3,4]"#,
        br#""fc.weight":{"dtype":"F32","shape":[4,3]"#,
    );
    let error = refused(Path::new("w.safetensors"), grouped);
    assert_eq!(error.refusal.kind, ErrorKind::Shape, "{error}");
    assert!(error.to_string().contains("tensor 'fc.weight' of sizes [4, 3] does not fit"), "{error}");
    assert!(error.refusal.help.contains("weights = \"w.safetensors\""), "{error}");
    let mut nan = fs::read(fixture("tiny-f32.safetensors")).unwrap();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = refused(Path::new("w.safetensors"), nan);
    assert_eq!(error.refusal.kind, ErrorKind::Value, "{error}");
    let mut nan = fs::read(fixture("tiny.th")).unwrap();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let error = refused(Path::new("tiny.th"), nan);
    assert_eq!(error.refusal.kind, ErrorKind::Value, "{error}");
    assert!(error.refusal.place.starts_with("tensor '"), "{error}");
}

#[test]
fn an_input_that_does_not_fit_the_stem_is_refused() {
    let error = import(&fixture("tiny.th"), &tiny("8x8x1")).unwrap_err();
    assert_eq!(error.refusal.kind, ErrorKind::Shape);
    assert_eq!(error.refusal.reason, "takes 3 channels, not 1");
    for text in ["32", "32x", "0x32", "32x32x3x1", "70000x1", "-1x4", "a x b"] {
        assert!(text.parse::<skipstone_tools::front::InputSize>().is_err(), "{text}");
    }
}

/// The archive's files, changed, renamed (`None`: left out), and compressed.
fn archive(
    name: &str,
    change: impl Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>,
    compression: CompressionMethod,
) -> Vec<u8> {
    let mut old = ZipArchive::new(Cursor::new(fs::read(fixture(name)).unwrap())).unwrap();
    let mut new = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..old.len() {
        let mut file = old.by_index(index).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let (folder, inner) =
            file.name().unwrap().split_once('/').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        if let Some((inner, bytes)) = change(&inner, bytes) {
            let options = SimpleFileOptions::default().compression_method(compression);
            new.start_file(format!("{folder}/{inner}"), options).unwrap();
            new.write_all(&bytes).unwrap();
        }
    }
    new.finish().unwrap().into_inner()
}

#[test]
fn archives_that_torch_does_not_write_are_refused() {
    let stored = CompressionMethod::Stored;
    let case = |bytes: Vec<u8>, kind: ErrorKind, message: &str| {
        let error = refused(Path::new("a.pt"), bytes);
        assert_eq!(error.refusal.kind, kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.refusal.help.is_empty(), "{error}");
    };
    let keep = |name: &str, bytes| Some((name.to_string(), bytes));
    let whole = archive("tiny-f16.pt", keep, stored);
    assert!(import_bytes(whole, Path::new("a.pt"), &ImportOptions::default()).is_ok());
    let without = |left_out: &'static str| {
        archive(
            "tiny-f16.pt",
            move |name, bytes| if name == left_out { None } else { keep(name, bytes) },
            stored,
        )
    };
    case(without("data/0"), ErrorKind::Damaged, "'data/0' in the archive");
    case(without("data.pkl"), ErrorKind::Format, "is a zip archive, but no checkpoint of PyTorch");
    let short = |name: &str, mut bytes: Vec<u8>| {
        bytes.truncate(if name == "data/0" { 6 } else { usize::MAX });
        keep(name, bytes)
    };
    case(
        archive("tiny-f16.pt", short, stored),
        ErrorKind::Damaged,
        "tensor 'bn1.bias': its storage of 4 float16 elements has 6 bytes",
    );
    let big = |name: &str, bytes| keep(name, if name == "byteorder" { b"big".to_vec() } else { bytes });
    case(archive("tiny-f16.pt", big, stored), ErrorKind::Format, "big-endian");
    // A zip bomb: a storage of a gigabyte would be unpacked before anybody sees that it is too long.
    let bomb = |name: &str, bytes| keep(name, if name == "data/0" { vec![0; 1 << 24] } else { bytes });
    case(
        archive("tiny-f16.pt", bomb, CompressionMethod::Deflated),
        ErrorKind::Format,
        "in the archive: is compressed, as torch.save never does",
    );
    // Other programs' archives.
    case(fs::read(fixture("tiny.npz")).unwrap(), ErrorKind::Format, "it holds 'images.npy', 'input.npy'");
    // The checksum is compared.
    let mut flipped = fs::read(fixture("tiny-f16.pt")).unwrap();
    let mut zip = ZipArchive::new(Cursor::new(flipped.clone())).unwrap();
    let at = zip.by_name("tiny-f16/data/0").unwrap().data_start().unwrap();
    flipped[at as usize] ^= 1;
    case(flipped, ErrorKind::Damaged, "'data/0' in the archive: Invalid checksum");
}

#[test]
fn files_in_each_other_are_no_more_than_the_archive() {
    let grown = |name: &str, bytes: Vec<u8>| {
        Some((name.to_string(), if name == "data/0" { vec![0; 1 << 16] } else { bytes }))
    };
    let mut bytes = archive("tiny-f16.pt", grown, CompressionMethod::Stored);
    assert!(import_bytes(bytes.clone(), Path::new("a.pt"), &ImportOptions::default()).is_ok());
    // Every other storage is made data/0 again: checksum, sizes and place of its entry in the directory.
    let entry = |bytes: &[u8], name: &str| {
        let end = bytes.windows(name.len()).rposition(|part| part == name.as_bytes()).unwrap();
        (0..end).rev().find(|&at| bytes[at..].starts_with(b"PK\x01\x02")).unwrap()
    };
    let first = entry(&bytes, "/data/0");
    for index in 1..10 {
        let other = entry(&bytes, &format!("/data/{index}"));
        for field in [16..28, 42..46] {
            let copied = bytes[first..][field.clone()].to_vec();
            bytes[other..][field].copy_from_slice(&copied);
        }
    }
    let error = refused(Path::new("a.pt"), bytes);
    assert_eq!(error.refusal.kind, ErrorKind::Damaged, "{error}");
    assert!(error.refusal.reason.contains("lie in each other"), "{error}");
}

#[test]
fn checkpoints_cut_short_are_refused_at_every_length() {
    for name in ["tiny.th", "tiny-f16.pt"] {
        let whole = fs::read(fixture(name)).unwrap();
        for length in 0..whole.len() {
            let error = refused(&fixture(name), whole[..length].to_vec());
            let kind = error.refusal.kind;
            // The first bytes alone are of no format, or text.
            assert!(kind == ErrorKind::Damaged || length < 4, "{length} bytes: {error}");
        }
    }
}

#[test]
fn damaged_pytorch_checkpoints_never_panic() {
    let mut random = Random(3);
    for name in ["tiny.th", "tiny.pt", "tiny-strided.pt", "whole-model.pt"] {
        let whole = fs::read(fixture(name)).unwrap();
        for _ in 0..400 {
            let mut damaged = whole.clone();
            let at = random.below(damaged.len());
            let run = (at + 1 + random.below(8)).min(damaged.len());
            match random.below(3) {
                0 => damaged[at] ^= 1 << random.below(8),
                1 => damaged[at..run].fill(0xff),
                _ => damaged[at] = b"(.)]}aceghijqrstuX\x85\x86\x93\x94"[random.below(21)],
            }
            let _ = import_bytes(damaged, &fixture(name), &ImportOptions::default());
        }
    }
}

/// The folder of measuring data beside the project, if it is there.
fn measuring_data() -> Option<PathBuf> {
    let folder = std::env::var_os("SKIPSTONE_DATA").map_or(root().join("../shared/data"), PathBuf::from);
    folder.join("pytorch-cifar").exists().then_some(folder)
}

#[test]
fn cifar_resnets_from_the_wild_answer_as_pytorch_does() {
    const IMAGES: usize = 100;
    let Some(folder) = measuring_data() else {
        println!("SKIPPED: no checkpoints beside the project (../shared/data or SKIPSTONE_DATA)");
        return;
    };
    let sheet = image::open(folder.join("cifar10/test.webp")).unwrap().to_rgb8();
    let options = ImportOptions {
        mean: Some(vec![0.485, 0.456, 0.406]),
        std: Some(vec![0.229, 0.224, 0.225]),
        ..ImportOptions::default()
    };
    for (name, depth) in
        [("resnet20-12fca82f", "20: 3 stages of 3"), ("resnet56-4bfd9763", "56: 3 stages of 9")]
    {
        let path = folder.join(format!("pytorch-cifar/{name}.th"));
        let Imported { network, notes } = import(&path, &options).unwrap_or_else(|error| panic!("{error}"));
        let expected = format!("CIFAR ResNet-{depth} basic blocks, 16/32/64 channels, option A shortcuts");
        assert!(notes.iter().any(|note| note.contains(&expected)), "{notes:#?}");
        let golden = folder.join(format!("golden/{}_float_logits.f32", &name[..8]));
        let golden = fs::read(golden).unwrap();
        let golden: Vec<f32> = golden.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let evaluator = Evaluator::new(&network).unwrap();
        let mut largest = 0.0f32;
        for index in 0..IMAGES {
            // The sheet's first row of images.
            let rows = (0..32).map(|row| &sheet.as_raw()[(row * 3200 + index * 32) * 3..][..96]);
            let logits = evaluator.run(&rows.collect::<Vec<_>>().concat(), &mut |_, _| {});
            for (found, expected) in logits[0].iter().zip(&golden[index * 10..][..10]) {
                largest = largest.max((found - expected).abs());
            }
        }
        println!("{name}: largest difference of {IMAGES} images' logits {largest:.1e}");
        assert!(largest <= 1e-3, "{name}: {largest}");
    }
}
