//! Networks whose parts do not fit: refused by layer, before anything uses them.

use super::*;
use crate::ir::{Affine, INPUT, Output, TensorId, Window};

fn window(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4]) -> Window {
    Window { kernel, stride, padding }
}

fn conv_with(window: Window, outputs: usize, depthwise: bool) -> Operation {
    Operation::Conv2d { window, outputs, depthwise }
}

fn conv3(outputs: usize, stride: usize) -> Operation {
    conv_with(window([3; 2], [stride; 2], [1; 4]), outputs, false)
}

fn weights(count: usize, outputs: usize) -> Weights {
    Weights::Real { weights: vec![0.5; count], bias: vec![0.0; outputs] }
}

fn network() -> FloatNetwork {
    let mut network = FloatNetwork::new("test", Shape::new(32, 24, 3));
    network.preprocessing = Preprocessing { mean: vec![0.5], std: vec![0.25; 3] };
    network
}

/// Adds a layer with as many weights as it needs.
fn push(network: &mut FloatNetwork, input: TensorId, operation: Operation) -> TensorId {
    let shape = network.shape(input);
    let weights = match &operation {
        Operation::Conv2d { window, outputs, .. } => {
            weights(window.kernel[0] * window.kernel[1] * usize::from(shape.channels) * outputs, *outputs)
        }
        Operation::Dense { outputs } => weights(shape.len() * outputs, *outputs),
        _ => Weights::None,
    };
    network.push("layer", &[input], operation, weights).unwrap()
}

#[test]
fn every_layer_of_a_residual_network_has_its_shape() {
    let mut n = network();
    let stem = push(&mut n, INPUT, conv_with(window([7, 5], [2, 2], [3, 2, 3, 2]), 8, false));
    let pool = push(&mut n, stem, Operation::MaxPool(window([3, 3], [2, 2], [1, 1, 0, 0])));
    let inner = push(&mut n, pool, conv3(8, 1));
    let sum = push(&mut n, inner, conv3(8, 1));
    n.layers[sum - 1].shortcut = Some(Shortcut { tensor: pool, stride: [1; 2], channels_before: 0 });
    let inner = push(&mut n, sum, conv3(32, 2));
    let padded = push(&mut n, inner, conv3(32, 1));
    n.layers[padded - 1].shortcut = Some(Shortcut { tensor: sum, stride: [2; 2], channels_before: 8 });
    let mean = push(&mut n, padded, Operation::GlobalAveragePool);
    let scores = push(&mut n, mean, Operation::Dense { outputs: 10 });
    let softmax = skipstone::host::Softmax::Float;
    n.outputs.push(Output { name: "scores".into(), tensor: scores, softmax });
    check(&n).unwrap();
    let shapes: Vec<String> = n.layers.iter().map(|layer| layer.shape.to_string()).collect();
    assert_eq!(shapes, ["16x12x8", "8x6x8", "8x6x8", "8x6x8", "4x3x32", "4x3x32", "1x1x32", "1x1x10"]);
}

#[test]
fn operations_that_the_passes_remove_have_shapes_too() {
    let shape = |operation: Operation| output_shape(&operation, &[Shape::new(5, 4, 2)]).unwrap().to_string();
    assert_eq!(shape(Operation::Subsample { stride: [2, 3] }), "3x2x2");
    assert_eq!(shape(Operation::Pad { padding: [1, 2, 3, 4], channels: [5, 6], value: 0.0 }), "9x10x13");
    assert_eq!(shape(Operation::Clamp { low: 0.0, high: 6.0 }), "5x4x2");
}

/// The message about the one layer of a network that does not fit its input.
fn refusal(operation: Operation, weights: Weights) -> String {
    network().push("conv", &[INPUT], operation, weights).unwrap_err().to_string()
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let conv = |kernel, stride, padding| conv_with(window(kernel, stride, padding), 8, false);
    let cases = [
        (refusal(conv3(8, 1), weights(215, 8)), "expected 216 weights for an input of 32x24x3, found 215"),
        (refusal(conv3(8, 1), weights(216, 9)), "expected 8 biases for an input of 32x24x3, found 9"),
        (refusal(conv3(8, 1), Weights::None), "has no weights"),
        (
            refusal(conv([3, 3], [1, 0], [1; 4]), Weights::None),
            "kernel 3x3 with stride 1x0: all of them must be at least 1",
        ),
        (
            refusal(conv([0, 3], [1, 1], [1; 4]), Weights::None),
            "kernel 0x3 with stride 1x1: all of them must be at least 1",
        ),
        (
            refusal(conv([3, 27], [1, 1], [1; 4]), Weights::None),
            "kernel 3x27 does not fit into the padded input of 34x26",
        ),
        (
            refusal(conv([3, 3], [1, 1], [usize::MAX, 1, 1, 1]), Weights::None),
            "a tensor of 18446744073709551615x26x3 is too large",
        ),
        (
            refusal(conv([3, 3], [1, 1], [9000; 4]), Weights::None),
            "a tensor of 18030x18022x8 is too large: sides go to 65535",
        ),
        (refusal(conv3(0, 1), weights(0, 0)), "a tensor of 32x24x0 has a side of zero"),
        (
            refusal(conv_with(window([3; 2], [1; 2], [1; 4]), 8, true), Weights::None),
            "is depthwise but makes 8 channels from 3",
        ),
        (
            refusal(Operation::MaxPool(window([2, 2], [2, 2], [2, 0, 0, 0])), Weights::None),
            "some of its windows lie wholly in the padding",
        ),
        (refusal(Operation::MaxPool(window([33, 1], [1, 1], [0; 4])), Weights::None), "kernel 33x1 does not"),
        (refusal(Operation::GlobalAveragePool, weights(1, 1)), "has weights, but only"),
        (
            refusal(Operation::Dense { outputs: 1 }, weights(10, 1)),
            "expected 2304 weights for an input of 32x24x3, found 10",
        ),
        (
            refusal(Operation::Affine { norm: "batch norm" }, Weights::Affine(Affine::identity(2))),
            "expected 3 factors for an input of 32x24x3, found 2",
        ),
        (refusal(Operation::Add, Weights::None), "reads 1 tensors, expected 2"),
        (refusal(Operation::Subsample { stride: [1, 0] }, Weights::None), "a stride of 0"),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
    }
    let shapes = [Shape::new(8, 8, 2), Shape::new(8, 8, 4)];
    let message = output_shape(&Operation::Add, &shapes).unwrap_err().to_string();
    assert_eq!(message, "adds a tensor of 8x8x4 to one of 8x8x2");
}

/// The message about a network of two convolutions after a change.
fn refused(change: &dyn Fn(&mut FloatNetwork)) -> String {
    let mut network = network();
    let inner = push(&mut network, INPUT, conv3(3, 1));
    let sum = push(&mut network, inner, conv3(3, 1));
    network.layers[sum - 1].shortcut = Some(Shortcut { tensor: INPUT, stride: [1; 2], channels_before: 0 });
    network.layers[sum - 1].activation = Activation::RELU;
    let softmax = skipstone::host::Softmax::None;
    network.outputs.push(Output { name: "scores".into(), tensor: sum, softmax });
    check(&network).unwrap();
    change(&mut network);
    check(&network).unwrap_err().to_string()
}

#[test]
fn networks_that_do_not_fit_are_refused_by_layer() {
    let cases = [
        (refused(&|n| n.layers.clear()), "input: the network has no layers"),
        (refused(&|n| n.outputs.clear()), "input: the network has no outputs"),
        (refused(&|n| n.outputs[0].tensor = 3), "scores: reads a tensor that no layer before it makes"),
        (refused(&|n| n.layers[0].inputs = vec![1]), "layer: reads a tensor that no layer before it makes"),
        (refused(&|n| n.layers[0].inputs.clear()), "layer: reads 0 tensors, expected 1"),
        (refused(&|n| n.input.height = 16), "layer: says that it makes 32x24x3, but makes 16x24x3"),
        (refused(&|n| n.layers[0].activation.low = 1.0), "layer: clamps to 1 .. inf, a range without zero"),
        (
            refused(&|n| n.layers[0].operation = Operation::Clamp { low: 0.0, high: 1.0 }),
            "layer: the passes have not removed it",
        ),
        (
            refused(&|n| {
                n.layers[1].shortcut = Some(Shortcut { tensor: 0, stride: [2, 1], channels_before: 0 })
            }),
            "layer: adds a shortcut of 32x24x3 at stride 2x1 to 32x24x3",
        ),
        (
            refused(&|n| {
                n.layers[1].shortcut = Some(Shortcut { tensor: 0, stride: [1, 1], channels_before: 1 })
            }),
            "layer: its shortcut puts 1 zero channels before 3 channels; its own result has only 3",
        ),
        (
            refused(&|n| {
                n.layers[1].shortcut = Some(Shortcut { tensor: 2, stride: [1, 1], channels_before: 0 })
            }),
            "layer: reads a tensor that no layer before it makes",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
    }
}

#[test]
fn input_and_preprocessing_are_checked() {
    let problem = |change: &dyn Fn(&mut FloatNetwork)| {
        let mut network = network();
        push(&mut network, INPUT, conv3(8, 1));
        change(&mut network);
        check(&network).unwrap_err().problem
    };
    assert_eq!(problem(&|n| n.input = Shape::new(0, 24, 3)), ShapeProblem::Empty([0, 24, 3]));
    assert_eq!(
        problem(&|n| n.input = Shape::new(u16::MAX, u16::MAX, 3)),
        ShapeProblem::TooLarge([65535, 65535, 3])
    );
    assert_eq!(
        problem(&|n| n.preprocessing.mean = vec![0.5; 2]),
        ShapeProblem::PreprocessingLength { mean: 2, std: 3, channels: 3 }
    );
    for std in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(problem(&|n| n.preprocessing.std = vec![std]), ShapeProblem::PreprocessingValue);
    }
    assert_eq!(problem(&|n| n.preprocessing.mean = vec![f32::NAN]), ShapeProblem::PreprocessingValue);
}
