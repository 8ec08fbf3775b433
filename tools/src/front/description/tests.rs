//! Descriptions of small checkpoints that are made up here: names that are found, settings, defaults.

use super::*;
use crate::front::checkpoint::Entry;
use crate::front::graph::{Constant, Data, elements};
use crate::front::tests::{Understood, block, joined, weighted};
use crate::ir::{Activation, FloatNetwork, Layer, Operation, Real, Shortcut, Window};

/// A checkpoint of tensors of ones.
fn checkpoint(tensors: &[(&str, &[usize])]) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for (name, dims) in tensors {
        let values = Data::Float(vec![1.0; elements(dims).unwrap()]);
        checkpoint.insert(*name, Entry::Float(Constant::new(dims.to_vec(), values).unwrap()));
    }
    checkpoint
}

/// The network of a description over an input of 8 x 8 x 2.
fn network(tensors: &[(&str, &[usize])], stages: &str) -> Result<FloatNetwork, Refusal> {
    let text = format!("weights = 'w'\ninput = {{ height = 8, width = 8, channels = 2 }}\n{stages}");
    let network = parse(text.as_bytes())?.network(&checkpoint(tensors), 1 << 16)?;
    Ok(Understood::new(network)?.network)
}

/// The network of a single stage.
fn of_stage(tensors: &[(&str, &[usize])], stage: &str) -> FloatNetwork {
    network(tensors, &format!("stage = [{{ {stage} }}]")).unwrap()
}

fn conv(tensors: &[(&str, &[usize])], stage: &str) -> Layer<Real> {
    let mut network = of_stage(tensors, stage);
    assert_eq!(network.layers.len(), 1);
    network.layers.remove(0)
}

fn window(layer: &Layer<Real>) -> Window {
    layer.operation.window().unwrap()
}

#[test]
fn the_examples_are_descriptions() {
    let source = include_str!("../description.rs");
    let example = source.split("```toml\n").nth(1).and_then(|rest| rest.split("//! ```").next()).unwrap();
    let example: Vec<&str> =
        example.lines().map(|line| line.trim_start_matches("//!").trim_start()).collect();
    let description = parse(example.join("\n").as_bytes()).unwrap();
    assert_eq!(
        (description.name(), description.weights()),
        (Some("cifar10-resnet8"), "cifar10-resnet8.safetensors")
    );
    assert_eq!(description.lines.len(), 6);
    for stage in &description.text.stage {
        stage.get_ref().kind("the example").unwrap();
    }
    let template = TEMPLATE.split_once('\n').unwrap().1;
    assert_eq!(parse(template.as_bytes()).unwrap().text.stage.len(), 5);
}

#[test]
fn convolutions_have_sensible_defaults() {
    let tensors: &[(&str, &[usize])] = &[("c.weight", &[4, 2, 3, 5])];
    let plain = conv(tensors, "conv = 'c'");
    let slides = Window { kernel: [3, 5], stride: [1, 1], padding: [1, 2, 1, 2] };
    assert_eq!((window(&plain), plain.activation), (slides, Activation::RELU));
    assert_eq!(weighted(&plain).bias, [0.0; 4]);
    let set = conv(tensors, "conv = 'c', stride = [2, 1], padding = [0, 1, 2, 3], activation = 'relu6'");
    let slides = Window { kernel: [3, 5], stride: [2, 1], padding: [0, 1, 2, 3] };
    assert_eq!((window(&set), set.activation), (slides, Activation::RELU6));
    let same = conv(tensors, "conv = 'c', stride = 2, padding = 'same', activation = 'none'");
    assert_eq!((window(&same).padding, same.activation), ([0, 1, 1, 2], Activation::NONE));
    let depthwise = weighted(&conv(&[("d.weight", &[2, 1, 3, 3]), ("d.bias", &[2])], "depthwise = 'd'"));
    assert_eq!((depthwise.depthwise, depthwise.outputs, depthwise.bias), (true, 2, vec![1.0; 2]));
    let refusal = network(tensors, "stage = [{ depthwise = 'c' }]").unwrap_err();
    assert!(refusal.reason.contains("'c.weight' of sizes [4, 2, 3, 5] does not fit"));
}

#[test]
fn batch_norm_is_found_beside_its_convolution() {
    let norm = |conv: &str, norm: &str| {
        let mut tensors = vec![(format!("{conv}.weight"), vec![4, 2, 1, 1])];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{norm}.{part}"), vec![4]));
        }
        tensors
    };
    let bias = |conv_name: &str, norm_name: &str, settings: &str| {
        let tensors = norm(conv_name, norm_name);
        let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|(n, d)| (&**n, &**d)).collect();
        weighted(&conv(&tensors, &format!("conv = '{conv_name}'{settings}"))).bias[0]
    };
    // 1 - 1 / sqrt(1 + 1e-5): small, but not the 0 of a convolution without a bias.
    let folded = bias("conv1", "bn1", "");
    assert!(folded > 4e-6 && folded < 6e-6, "{folded}");
    assert_eq!(bias("stem.conv", "stem.bn", ""), folded);
    assert_eq!(bias("features.0", "features.1", ""), folded);
    assert_eq!(bias("conv2", "norm2", ""), folded);
    assert_eq!(bias("a", "b", ", batch_norm = 'b'"), folded);
    let tensors: &[(&str, &[usize])] = &[("conv1.weight", &[4, 2, 1, 1]), ("bn1.running_mean", &[4])];
    let refusal = network(tensors, "stage = [{ conv = 'conv1' }]").unwrap_err();
    assert_eq!(refusal.reason, "has no tensor 'bn1.weight', 'bn1.bias', 'bn1.running_var'");
    let left_out = "ignore = ['bn']\nstage = [{ conv = 'conv1', batch_norm = false }]";
    assert!(network(tensors, left_out).is_ok());
}

const BASIC: [(&str, &[usize]); 2] = [("b.conv1.weight", &[4, 2, 3, 3]), ("b.conv2.weight", &[4, 4, 3, 3])];

#[test]
fn shortcuts_are_found_or_named() {
    let padded = of_stage(&BASIC, "block = 'b', stride = 2");
    let shortcut = |channels_before| Shortcut { tensor: 0, stride: [2, 2], channels_before };
    assert_eq!(joined(&padded).0, shortcut(1));
    assert_eq!(window(&padded.layers[0]).stride, [2, 2]);
    let in_front = of_stage(&BASIC, "block = 'b', stride = 2, channels_before = 2");
    assert_eq!(joined(&in_front).0, shortcut(2));
    for (name, settings) in [
        ("b.downsample.0.weight", ""),
        ("b.shortcut.0.weight", ""),
        ("b.skip.weight", ", projection = 'skip'"),
    ] {
        let mut tensors = BASIC.to_vec();
        tensors.push((name, &[4, 2, 1, 1]));
        let found = of_stage(&tensors, &format!("block = 'b', stride = 2{settings}"));
        let [projection] = block(&found).shortcut[..] else { panic!("{name} is not found") };
        let projection = &found.layers[projection];
        assert_eq!(window(projection), Window { stride: [2, 2], ..Window::POINT });
        assert_eq!((&*projection.name, projection.activation), (&name[..name.len() - 7], Activation::NONE));
    }
    let refused =
        |settings: &str| network(&BASIC, &format!("stage = [{{ block = 'b'{settings} }}]")).unwrap_err();
    assert!(refused(", shortcut = 'identity'").reason.contains("adds a tensor of 8x8x2 to one of 8x8x4"));
    assert!(refused(", shortcut = 'projection'").reason.contains("no tensor 'b.downsample.0.weight'"));
    assert!(refused(", channels_before = 3").reason.contains("where 2 channels are added"));
    assert!(refused(", shortcut = 'padded', projection = 'p'").reason.contains("`projection` is for"));
    assert!(
        refused(", shortcut = 'identity', channels_before = 1").reason.contains("`channels_before` is for")
    );
    assert!(refused(", convolutions = []").reason.contains("is empty"));
}

#[test]
fn three_convolutions_have_their_stride_where_torchvision_has_it() {
    let tensors: &[(&str, &[usize])] = &[
        ("b.conv1.weight", &[2, 2, 1, 1]),
        ("b.conv2.weight", &[2, 2, 3, 3]),
        ("b.conv3.weight", &[8, 2, 1, 1]),
        ("b.downsample.0.weight", &[8, 2, 1, 1]),
    ];
    let strides = |stage: &str| {
        let network = of_stage(tensors, stage);
        let path = block(&network).path;
        path.iter().map(|&layer| window(&network.layers[layer]).stride[0]).collect::<Vec<_>>()
    };
    assert_eq!(strides("block = 'b', stride = 2"), [1, 2, 1]);
    assert_eq!(strides("block = 'b', stride = 2, stride_on = 'conv1'"), [2, 1, 1]);
    let inner = of_stage(tensors, "block = 'b', activation = 'relu6'");
    let block = block(&inner);
    let activations: Vec<Activation> = block.layers().map(|layer| inner.layers[layer].activation).collect();
    assert_eq!(activations[..3], [Activation::RELU6; 3], "the last is the block's");
    assert_eq!(activations[3], Activation::NONE);
}

#[test]
fn pools_and_dense_layers_follow_pytorch() {
    let tensors: &[(&str, &[usize])] = &[("fc.weight", &[3, 32]), ("fc.bias", &[3])];
    let text = "stage = [{ pool = 'max', kernel = 3, stride = 2, padding = 1 }, { dense = 'fc' }, { softmax = true }]";
    let found = network(tensors, text).unwrap();
    let [pool, dense] = &found.layers[..] else { panic!("{:?}", found.layers) };
    let slides = Window { kernel: [3, 3], stride: [2, 2], padding: [1; 4] };
    assert_eq!(pool.operation, Operation::MaxPool(slides));
    assert_eq!(dense.operation, Operation::Dense { outputs: 3 });
    assert_eq!((weighted(dense).weights.len(), dense.activation), (96, Activation::NONE));
    let [output] = &found.outputs[..] else { panic!("{:?}", found.outputs) };
    assert_eq!((&*output.name, output.softmax), ("softmax", skipstone::host::Softmax::Float));
    let average = |stage: &str| match of_stage(&[], stage).layers[0].operation {
        Operation::AveragePool { window, count_include_pad } => (window, count_include_pad),
        ref other => panic!("{other:?}"),
    };
    let slides = Window { kernel: [2, 4], stride: [2, 4], padding: [0; 4] };
    assert_eq!(average("pool = 'average', kernel = [2, 4]"), (slides, false));
    assert!(average("pool = 'average', kernel = 2, padding = 1").1);
}
