//! The importers against files that the frameworks wrote: same answers, and every refusal by name.

mod checkpoints;
mod keras;
mod npz;
mod oracle;
mod quantized;
mod tflite;

use std::fs;
use std::path::{Path, PathBuf};

use skipstone::host::Softmax;
use skipstone_tools::front::{ErrorKind, ImportOptions, Imported, import, import_bytes};
use skipstone_tools::ir::{Activation, Block, BlockKind, FloatNetwork, Operation, Shortcut, blocks};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/data").join(name)
}

fn imported(path: &Path) -> Imported {
    import(path, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A word for each layer outside of a block, and for each block.
fn outline(network: &FloatNetwork) -> String {
    let blocks = blocks(network);
    let convolutions =
        |block: &Block| block.path.iter().filter(|&&layer| network.layers[layer].is_convolution()).count();
    let mut words = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        if let Some(block) = blocks.iter().find(|block| block.output() == index) {
            words.push(match block.kind {
                BlockKind::Identity => format!("identity{}", convolutions(block)),
                BlockKind::Convolutional => format!("projection{}", convolutions(block)),
                BlockKind::Padded => "padded".into(),
            });
        } else if !blocks.iter().flat_map(Block::layers).any(|inside| inside == index) {
            words.push(String::from(match layer.operation {
                Operation::Conv2d { depthwise: true, .. } => "depthwise",
                Operation::Conv2d { depthwise: false, .. } => "conv",
                Operation::MaxPool(_) => "max",
                Operation::AveragePool { .. } => "average",
                Operation::GlobalAveragePool => "global",
                Operation::Dense { .. } => "dense",
                ref other => panic!("the passes have left {other:?}"),
            }));
        }
    }
    words.extend(has_softmax(network).then(|| "softmax".into()));
    words.join(" ")
}

fn has_softmax(network: &FloatNetwork) -> bool {
    network.outputs.iter().any(|output| output.softmax != Softmax::None)
}

/// The block of this name and the layer that it ends with.
#[track_caller]
fn block(network: &FloatNetwork, name: &str) -> Block {
    let blocks = blocks(network);
    let names: Vec<String> = blocks.iter().map(|block| block.name.clone()).collect();
    blocks.into_iter().find(|block| block.name == name).unwrap_or_else(|| panic!("{name} in {names:?}"))
}

/// The network without what each format calls otherwise: pooling, outputs and places in the file.
fn nameless(mut network: FloatNetwork) -> FloatNetwork {
    for layer in &mut network.layers {
        layer.place.clear();
        if layer.operation == Operation::GlobalAveragePool {
            layer.name = "pool".into();
        }
    }
    network.outputs.iter_mut().for_each(|output| output.name = "scores".into());
    network
}

/// How many weights all layers have.
fn weights(network: &FloatNetwork) -> usize {
    network.layers.iter().map(|layer| layer.parameters.weights.real(&layer.operation).0.len()).sum()
}

/// Compares the oracle's answers with the framework's, relative to the largest.
fn assert_answers(network: &FloatNetwork, answers: &Path) {
    let images = npz::images(answers);
    let logits = npz::floats(answers, "logits").unwrap();
    let probabilities = npz::floats(answers, "probabilities");
    let classes = logits.len() / 4;
    assert_eq!(probabilities.is_some(), has_softmax(network));
    for (index, image) in images.chunks_exact(images.len() / 4).enumerate() {
        let answer = oracle::evaluate(network, image);
        let same = |found: &[f64], expected: &[f32]| {
            let row = &expected[index * classes..][..classes];
            let scale = row.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            assert_eq!(found.len(), row.len());
            for (a, &b) in found.iter().zip(row) {
                let error = (a - f64::from(b)).abs();
                assert!(error <= 1e-4 * f64::from(scale), "image {index}: {a} is not {b}");
            }
        };
        same(&answer.logits, &logits);
        if let Some(probabilities) = &probabilities {
            same(&answer.output, probabilities);
        }
    }
}

#[test]
fn onnx_files_answer_as_onnx_runtime_does() {
    let cases = [
        ("digits-torchscript", "conv identity2 projection2 identity2 global dense"),
        ("digits-torchscript-folded", "conv identity2 projection2 identity2 global dense"),
        ("digits-dynamo", "conv identity2 projection2 identity2 global dense"),
        ("resnet-option-a", "conv identity2 padded identity2 padded global dense"),
        ("resnet-option-a-dynamo", "conv identity2 padded identity2 padded global dense"),
        ("bottleneck", "conv max projection3 identity3 projection3 global dense"),
        ("depthwise", "conv depthwise conv depthwise conv average dense dense softmax"),
        ("keywords", "conv depthwise conv global dense softmax"),
        ("autoencoder-torch", "dense dense dense dense dense dense"),
        ("inverted-torch", "conv identity3 identity3 global dense"),
        ("keras-like", "conv identity2 projection2 global dense softmax"),
    ];
    for (name, stages) in cases {
        let Imported { network, notes } = imported(&fixture(&format!("{name}.onnx")));
        assert_eq!(outline(&network), stages, "{name}");
        assert_eq!(network.name, name);
        // A line for the input, one for the pixels, one for each word, at most one for arithmetic.
        assert!((2..=3).contains(&(notes.len() - stages.split(' ').count())), "{name}: {notes:#?}");
        assert_answers(&network, &fixture(&format!("{name}.npz")));
    }
}

#[test]
fn names_and_notes_are_the_models() {
    for name in ["digits-torchscript", "digits-torchscript-folded", "digits-dynamo"] {
        let Imported { network, notes } = imported(&fixture(&format!("{name}.onnx")));
        assert_eq!(network.layers[0].name, "conv1", "{name}");
        let block = block(&network, "layer2.0");
        let names = |layers: &[usize]| {
            layers.iter().map(|&layer| network.layers[layer].name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&block.path), ["layer2.0.conv1", "layer2.0.conv2"]);
        assert_eq!(names(&block.shortcut), ["layer2.0.downsample.0"]);
        assert_eq!(network.layers[block.output()].activation, Activation::RELU);
        let expected = "layer2.0: convolutional block, two convolutions (3x3/2, 3x3), projection 1x1/2, ReLU";
        assert!(notes.iter().any(|note| note == expected), "{name}: {notes:#?}");
    }
    let Imported { network, notes } = imported(&fixture("resnet-option-a.onnx"));
    let block = block(&network, "layer2.0");
    let shortcut = network.layers[block.output()].shortcut.unwrap();
    assert_eq!(shortcut, Shortcut { tensor: block.fork, stride: [2, 2], channels_before: 2 });
    assert!(notes.iter().any(|note| note.contains("layer2.0: block with padded shortcut (option A)")));
    let Imported { notes, .. } = imported(&fixture("keras-like.onnx"));
    assert!(notes.iter().any(|note| note.contains("the model normalises pixels of 0..255 itself")));
}

#[test]
fn options_override_what_the_file_says() {
    let options = ImportOptions {
        name: Some("zahlen".into()),
        mean: Some(vec![0.5]),
        std: Some(vec![0.25]),
        labels: Some((0..10).map(|digit| digit.to_string()).collect()),
        input: None,
        outputs: Vec::new(),
    };
    let network = import(&root().join("models/digits.toml"), &options).unwrap().network;
    assert_eq!((&*network.name, network.labels.len()), ("zahlen", 10));
    assert_eq!((network.preprocessing.mean, network.preprocessing.std), (vec![0.5], vec![0.25]));

    let labels = Some(vec!["one".into()]);
    let few = ImportOptions { labels, ..ImportOptions::default() };
    let error = import(&fixture("digits-dynamo.onnx"), &few).unwrap_err();
    assert_eq!(error.refusal.kind, ErrorKind::Labels);
    let mean = Some(vec![0.5; 2]);
    let two = ImportOptions { mean, ..ImportOptions::default() };
    let error = import(&fixture("bottleneck.onnx"), &two).unwrap_err();
    assert_eq!(error.refusal.kind, ErrorKind::Preprocessing);
}

#[test]
fn shipped_descriptions_fit_their_checkpoints() {
    let digits = imported(&root().join("models/digits.toml")).network;
    assert_eq!(outline(&digits), "conv identity2 projection2 identity2 global dense");
    assert_eq!(digits.labels.len(), 10);
    assert_answers(&digits, &fixture("digits-dynamo.npz"));

    let cifar = imported(&root().join("models/cifar10-resnet8.toml")).network;
    assert_eq!(outline(&cifar), "conv identity2 projection2 projection2 global dense");
    assert_eq!((&*cifar.name, &*cifar.labels[3]), ("cifar10-resnet8", "cat"));
    assert_eq!(cifar.preprocessing.mean, [0.4914, 0.4822, 0.4465]);
    assert_eq!(weights(&cifar), 77_360);
}

#[test]
fn the_same_network_has_the_same_weights_through_every_format() {
    let checkpoint = imported(&root().join("models/digits.toml")).network;
    let graph = imported(&fixture("digits-torchscript.onnx")).network;
    assert!(nameless(checkpoint).layers == nameless(graph).layers);
}

/// A description of the tiny checkpoints in a folder of its own.
fn describe(folder: &Path, weights: &str, stages: &str) -> PathBuf {
    let weights = fixture(weights);
    let text = format!(
        "weights = '{}'\n\
         labels = ['stone', 'scissors', 'paper']\n\
         input = {{ height = 8, width = 8, channels = 3, mean = [0.5, 0.4, 0.3], std = [0.25, 0.2, 0.3] }}\n\
         {stages}",
        weights.display()
    );
    let path = folder.join("tiny.toml");
    fs::write(&path, text).unwrap();
    path
}

const TINY: &str = "stage = [{ conv = 'conv1' }, { blocks = 'layer1' }, \
                    { pool = 'global-average' }, { dense = 'fc' }]";

#[test]
fn checkpoints_of_every_float_type_answer_as_pytorch_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut networks = ["tiny-f32.safetensors", "tiny-f16.safetensors", "tiny-bf16.safetensors"]
        .map(|weights| imported(&describe(folder.path(), weights, TINY)).network);
    assert_eq!(outline(&networks[0]), "conv identity2 global dense");
    assert_eq!(networks[0].name, "tiny");
    assert_answers(&networks[0], &fixture("tiny.npz"));
    // The checkpoints' values are exact in all three types.
    networks.sort_by_key(|network| network.name.clone());
    assert!(networks[0] == networks[1] && networks[1] == networks[2]);
}

#[test]
fn models_that_cannot_be_represented_are_refused_by_name() {
    let cases = [
        ("unsupported-lstm", ErrorKind::Operator, "node '/lstm/LSTM' (LSTM): unsupported operator LSTM"),
        ("concat", ErrorKind::Operator, "node '/Concat' (Concat): joins tensors"),
        ("grouped", ErrorKind::Operator, "node '/conv2/Conv' (Conv): has 2 groups for 4 channels"),
        ("dynamic-shape", ErrorKind::DynamicShape, "input 'input': its height is not fixed"),
        ("nan-weight", ErrorKind::Value, "tensor 'conv2.weight': the element at [1, 2, 0, 1] is NaN"),
        (
            "external-data",
            ErrorKind::ExternalData,
            "tensor 'conv2.weight': its elements are in another file, 'external-data.bin', which cannot be read",
        ),
    ];
    for (name, kind, message) in cases {
        let path = fixture(&format!("{name}.onnx"));
        let error = import(&path, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.refusal.kind, kind, "{error}");
        assert!(error.to_string().starts_with(&format!("{}: {message}", path.display())), "{error}");
        assert!(!error.refusal.help.is_empty(), "{error}");
    }
}

#[test]
fn descriptions_are_refused_by_line_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("stage = [{ conv = 'conv1', strid = 2 }]", ErrorKind::Description, "line 4: unknown field `strid`"),
        ("stages = []", ErrorKind::Description, "line 4: unknown field `stages`"),
        (
            "[[stage]]\nconv = 'conv1'\n\n[[stage]]\nstride = 2",
            ErrorKind::Description,
            "line 7: a stage has exactly one of",
        ),
        (
            "[[stage]]\nconv = 'conv1'\n[[stage]]\npool = 'max'\nstride = 2",
            ErrorKind::Description,
            "needs a `kernel`",
        ),
        ("[[stage]]\npool = 'mean'", ErrorKind::Description, "unknown variant `mean`"),
        ("[[stage]]\nconv = 'conv1'\nkernel = 3", ErrorKind::Description, "`kernel` does not belong"),
        ("[[stage]]\nconv = 'conv1'\nstride = -1", ErrorKind::Description, "expected a number or"),
        ("[[stage]]\nconv = 'conv1'\nblock = 'layer1.0'", ErrorKind::Description, "exactly one of"),
        ("[[stage]]\nblock = 'layer1.0'\nstride_on = 'conv9'", ErrorKind::Description, "conv9"),
        ("[[stage]]\nsoftmax = false", ErrorKind::Description, "`softmax` is true"),
        ("epsilon = -1.0\nstage = [{ conv = 'conv1' }]", ErrorKind::Description, "epsilon is -1"),
        ("stage = []", ErrorKind::Description, "has no stages"),
        ("[[stage]]\nconv = 'conv1'\nstride = 0", ErrorKind::Shape, "line 4 (conv 'conv1')"),
        ("[[stage]]\nblock = 'layer1.0'", ErrorKind::Shape, "'layer1.0.conv1.weight'"),
        ("[[stage]]\nconv = 'conv1'\n[[stage]]\ndense = 'fc'", ErrorKind::Shape, "'fc.weight'"),
        (
            "[[stage]]\nconv = 'conv1'\n[[stage]]\nblock = 'layer1.0'\nstride = 2\nshortcut = 'identity'",
            ErrorKind::Shape,
            "adds a tensor",
        ),
        ("[[stage]]\nconv = 'conv2'", ErrorKind::MissingTensor, "no tensor 'conv2.weight'"),
        ("[[stage]]\nblocks = 'layer9'", ErrorKind::MissingTensor, "'layer9.0.conv1.weight'"),
        (
            "stage = [{ conv = 'conv1' }, { pool = 'global-average' }, { dense = 'fc' }]",
            ErrorKind::UnusedTensor,
            "'layer1.0.bn1.bias'",
        ),
    ];
    for (stages, kind, message) in cases {
        let path = describe(folder.path(), "tiny-f32.safetensors", stages);
        let error = import(&path, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.refusal.kind, kind, "{stages}\n{error}");
        assert!(error.to_string().contains(message), "{stages}\n{error}");
    }
}

#[test]
fn close_names_are_suggested() {
    let folder = tempfile::tempdir().unwrap();
    let stages = TINY.replace("'fc'", "'fcc'");
    let path = describe(folder.path(), "tiny-f32.safetensors", &stages);
    let error = import(&path, &ImportOptions::default()).unwrap_err();
    assert!(error.file.ends_with("tiny-f32.safetensors"));
    assert_eq!(error.refusal.help, "close names that it has: 'fc.weight'");
    let stages = format!("ignore = ['layer1']\n{}", TINY.replace("{ blocks = 'layer1' }, ", ""));
    assert_eq!(
        outline(&imported(&describe(folder.path(), "tiny-f32.safetensors", &stages)).network),
        "conv global dense"
    );
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        import(&path, &ImportOptions::default()).unwrap_err()
    };
    assert_eq!(refused("empty.onnx", b"").refusal.kind, ErrorKind::Format);
    assert_eq!(refused("noise.onnx", &[0xff; 64]).refusal.kind, ErrorKind::Format);
    assert_eq!(refused("text.onnx", b"hello, world").refusal.kind, ErrorKind::Description);
    assert_eq!(refused("keras.onnx", b"\x89HDF\r\n\x1a\n....").refusal.kind, ErrorKind::Damaged);
    let missing = import(&folder.path().join("none.onnx"), &ImportOptions::default()).unwrap_err();
    assert_eq!(missing.refusal.kind, ErrorKind::File);
    let folder_itself = import(folder.path(), &ImportOptions::default()).unwrap_err();
    assert_eq!(folder_itself.refusal.reason, "is not a file");
    let nowhere = refused(
        "nowhere.toml",
        b"weights = 'none.safetensors'\nstage = [{ softmax = true }]\n[input]\nheight = 8\nwidth = 8\nchannels = 3",
    );
    assert!(nowhere.file.ends_with("none.safetensors") && nowhere.refusal.kind == ErrorKind::File);
    let text = refused(
        "text.toml",
        b"weights = 'text.onnx'\nstage = [{ softmax = true }]\n[input]\nheight = 8\nwidth = 8\nchannels = 3",
    );
    assert_eq!(text.refusal.kind, ErrorKind::Format);
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random(1);
    for name in
        ["keras-like.onnx", "resnet-option-a.onnx", "bottleneck.onnx", "qdq-int8.onnx", "qoperator.onnx"]
    {
        let path = fixture(name);
        let whole = fs::read(&path).unwrap();
        let try_bytes = |bytes: Vec<u8>| import_bytes(bytes, &path, &ImportOptions::default()).is_ok();
        for _ in 0..300 {
            let length = random.below(whole.len());
            assert!(!try_bytes(whole[..length].to_vec()), "{name} of {length} bytes is whole");
            let mut flipped = whole.clone();
            for _ in 0..1 + random.below(8) {
                let at = random.below(flipped.len());
                flipped[at] ^= 1 << random.below(8);
            }
            try_bytes(flipped);
            // Numbers at the ends of their ranges where lengths, sizes and axes are.
            let mut extreme = whole.clone();
            let at = random.below(extreme.len());
            let run = (at + random.below(10)).min(extreme.len());
            extreme[at..run].fill(if random.below(2) == 0 { 0xff } else { 0x00 });
            try_bytes(extreme);
        }
    }
}

#[test]
fn damaged_checkpoints_and_descriptions_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let weights = fs::read(fixture("tiny-f16.safetensors")).unwrap();
    let description = describe(folder.path(), "tiny-f16.safetensors", TINY);
    let text = fs::read_to_string(&description).unwrap();
    let local = text.replace(&fixture("tiny-f16.safetensors").display().to_string(), "w.safetensors");
    let mut random = Random(2);
    for _ in 0..300 {
        let mut damaged = weights.clone();
        let at = random.below(damaged.len());
        damaged[at] ^= 1 << random.below(8);
        damaged.truncate(damaged.len() - random.below(4) / 3);
        fs::write(folder.path().join("w.safetensors"), &damaged).unwrap();
        let _ = import_bytes(local.clone().into_bytes(), &description, &ImportOptions::default());
        let mut words = text.clone().into_bytes();
        let at = random.below(words.len());
        words[at] = b" =[]{}'\"9-.\n"[random.below(12)];
        let _ = import_bytes(words, &description, &ImportOptions::default());
    }
}
