//! Descriptions of small checkpoints that are made up here: names that are found, settings, defaults.

use super::*;
use crate::front::checkpoint::Entry;
use crate::front::graph::{Constant, Data, elements};
use crate::front::recognize::recognize;
use crate::network::{Activation, Block, Conv2d, Shortcut, Stage};

/// A checkpoint of tensors of ones.
fn checkpoint(tensors: &[(&str, &[usize])]) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for (name, dims) in tensors {
        let values = Data::Float(vec![1.0; elements(dims).unwrap()]);
        checkpoint.insert(*name, Entry::Float(Constant::new(dims.to_vec(), values).unwrap()));
    }
    checkpoint
}

/// The stages of a description over an input of 8 x 8 x 2.
fn stages(tensors: &[(&str, &[usize])], stages: &str) -> Result<Vec<Stage>, Refusal> {
    let text = format!("weights = 'w'\ninput = {{ height = 8, width = 8, channels = 2 }}\n{stages}");
    let (layers, output) = parse(text.as_bytes())?.layers(&checkpoint(tensors), 1 << 16)?;
    Ok(recognize(&layers, output)?.stages)
}

fn conv(tensors: &[(&str, &[usize])], stage: &str) -> Conv2d {
    match &stages(tensors, &format!("stage = [{{ {stage} }}]")).unwrap()[..] {
        [Stage::Conv2d(conv)] => conv.clone(),
        other => panic!("{other:?}"),
    }
}

fn block(tensors: &[(&str, &[usize])], stage: &str) -> Block {
    match &stages(tensors, &format!("stage = [{{ {stage} }}]")).unwrap()[..] {
        [Stage::Block(block)] => block.clone(),
        other => panic!("{other:?}"),
    }
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
    assert_eq!((plain.stride, plain.padding, plain.activation), ([1, 1], [1, 2, 1, 2], Activation::Relu));
    assert_eq!((plain.kernel, plain.bias), ([3, 5], vec![0.0; 4]));
    let set = conv(tensors, "conv = 'c', stride = [2, 1], padding = [0, 1, 2, 3], activation = 'relu6'");
    assert_eq!((set.stride, set.padding, set.activation), ([2, 1], [0, 1, 2, 3], Activation::Relu6));
    let same = conv(tensors, "conv = 'c', stride = 2, padding = 'same', activation = 'none'");
    assert_eq!((same.padding, same.activation), ([0, 1, 1, 2], Activation::None));
    let depthwise = conv(&[("d.weight", &[2, 1, 3, 3]), ("d.bias", &[2])], "depthwise = 'd'");
    assert_eq!((depthwise.output_channels, depthwise.bias), (2, vec![1.0; 2]));
    let refusal = stages(tensors, "stage = [{ depthwise = 'c' }]").unwrap_err();
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
        conv(&tensors, &format!("conv = '{conv_name}'{settings}")).bias[0]
    };
    // 1 - 1 / sqrt(1 + 1e-5): small, but not the 0 of a convolution without a bias.
    let folded = bias("conv1", "bn1", "");
    assert!(folded > 4e-6 && folded < 6e-6, "{folded}");
    assert_eq!(bias("stem.conv", "stem.bn", ""), folded);
    assert_eq!(bias("features.0", "features.1", ""), folded);
    assert_eq!(bias("conv2", "norm2", ""), folded);
    assert_eq!(bias("a", "b", ", batch_norm = 'b'"), folded);
    let tensors: &[(&str, &[usize])] = &[("conv1.weight", &[4, 2, 1, 1]), ("bn1.running_mean", &[4])];
    let refusal = stages(tensors, "stage = [{ conv = 'conv1' }]").unwrap_err();
    assert_eq!(refusal.reason, "has no tensor 'bn1.weight', 'bn1.bias', 'bn1.running_var'");
    let left_out = "ignore = ['bn']\nstage = [{ conv = 'conv1', batch_norm = false }]";
    assert!(stages(tensors, left_out).is_ok());
}

const BASIC: [(&str, &[usize]); 2] = [("b.conv1.weight", &[4, 2, 3, 3]), ("b.conv2.weight", &[4, 4, 3, 3])];

#[test]
fn shortcuts_are_found_or_named() {
    let padded = block(&BASIC, "block = 'b', stride = 2");
    assert_eq!(padded.shortcut, Shortcut::Padded { stride: [2, 2], channels_before: 1 });
    assert_eq!(padded.path[0].stride, [2, 2]);
    let in_front = block(&BASIC, "block = 'b', stride = 2, channels_before = 2");
    assert_eq!(in_front.shortcut, Shortcut::Padded { stride: [2, 2], channels_before: 2 });
    for (name, settings) in [
        ("b.downsample.0.weight", ""),
        ("b.shortcut.0.weight", ""),
        ("b.skip.weight", ", projection = 'skip'"),
    ] {
        let mut tensors = BASIC.to_vec();
        tensors.push((name, &[4, 2, 1, 1]));
        let found = block(&tensors, &format!("block = 'b', stride = 2{settings}"));
        let Shortcut::Projection(conv) = found.shortcut else { panic!("{name} is not found") };
        assert_eq!((conv.stride, conv.padding, conv.activation), ([2, 2], [0; 4], Activation::None));
    }
    let refused =
        |settings: &str| stages(&BASIC, &format!("stage = [{{ block = 'b'{settings} }}]")).unwrap_err();
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
    let strides = |block: Block| block.path.iter().map(|conv| conv.stride[0]).collect::<Vec<_>>();
    assert_eq!(strides(block(tensors, "block = 'b', stride = 2")), [1, 2, 1]);
    assert_eq!(strides(block(tensors, "block = 'b', stride = 2, stride_on = 'conv1'")), [2, 1, 1]);
    let inner = block(tensors, "block = 'b', activation = 'relu6'");
    assert_eq!((inner.activation, inner.path[0].activation), (Activation::Relu6, Activation::Relu6));
    assert_eq!(inner.path[2].activation, Activation::None);
}

#[test]
fn pools_and_dense_layers_follow_pytorch() {
    let tensors: &[(&str, &[usize])] = &[("fc.weight", &[3, 32]), ("fc.bias", &[3])];
    let text = "stage = [{ pool = 'max', kernel = 3, stride = 2, padding = 1 }, { dense = 'fc' }, { softmax = true }]";
    let found = stages(tensors, text).unwrap();
    let [Stage::MaxPool2d(pool), Stage::Dense(dense), Stage::Softmax] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((pool.kernel, pool.stride, pool.padding), ([3, 3], [2, 2], [1; 4]));
    assert_eq!((dense.inputs, dense.outputs, dense.activation), (32, 3, Activation::None));
    let found = stages(&[], "stage = [{ pool = 'average', kernel = [2, 4] }]").unwrap();
    let [Stage::AveragePool2d(pool)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((pool.kernel, pool.stride, pool.count_include_pad), ([2, 4], [2, 4], false));
    let padded = "stage = [{ pool = 'average', kernel = 2, padding = 1 }]";
    let Stage::AveragePool2d(pool) = &stages(&[], padded).unwrap()[0] else { panic!() };
    assert!(pool.count_include_pad);
}
