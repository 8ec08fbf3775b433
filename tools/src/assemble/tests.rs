//! Plans of deep networks, and what they need.

use skipstone::host::{Addition, Clamp, Residual, Softmax};
use skipstone::{Model, Network, Shape};

use super::{Goal, Target, Wishes, assemble};
use crate::ir::{
    Activation, Finish, INPUT, Integer, IntegerNetwork, Layer, Operation, Output, Preprocessing, Requantize,
    Rounding, Shortcut, TensorId, TensorScale, Window,
};

const CHANNELS: usize = 16;
const SIDE: u16 = 16;

fn requantize(count: usize) -> Finish {
    let rounding = Rounding::Once { shift: 40 };
    Finish::Requantize(Requantize { multipliers: vec![1 << 27; count], rounding, clamp: Clamp::relu(-128) })
}

fn layer(
    name: String,
    input: TensorId,
    operation: Operation,
    shape: Shape,
    parameters: Integer,
) -> Layer<Integer> {
    let (place, activation) = (String::new(), Activation::RELU);
    Layer { name, place, inputs: vec![input], shortcut: None, operation, activation, shape, parameters }
}

fn convolution(index: usize, input: TensorId, channels: usize) -> Layer<Integer> {
    let window = Window { kernel: [3; 2], stride: [1; 2], padding: [1; 4] };
    let parameters = Integer {
        weights: (0..9 * channels * CHANNELS).map(|weight| (weight * 7 % 15) as i8 - 7).collect(),
        bias: vec![index as i32; CHANNELS],
        padding_pixel: vec![-128; channels],
        finish: requantize(CHANNELS),
        addition: None,
        scale: TensorScale { scale: 1.0, zero_point: -128 },
        input_zero_point: -128,
    };
    let operation = Operation::Conv2d { window, outputs: CHANNELS, depthwise: false };
    layer(format!("conv{index}"), input, operation, Shape::new(SIDE, SIDE, CHANNELS as u16), parameters)
}

/// A chain of `count` convolutions, every second of which adds the tensor two layers before it if `blocks`.
fn deep(count: usize, blocks: bool) -> IntegerNetwork {
    let mut layers = vec![convolution(0, INPUT, 3)];
    for index in 1..count {
        let mut conv = convolution(index, index, CHANNELS);
        if blocks && index % 2 == 0 {
            conv.shortcut = Some(Shortcut { tensor: index - 1, stride: [1; 2], channels_before: 0 });
            conv.parameters.addition =
                Some(Addition::Fused(Residual { zero_point: -128, multiplier: 1 << 30, shift: 8 }));
        }
        layers.push(conv);
    }
    let pool = Integer {
        weights: Vec::new(),
        bias: Vec::new(),
        padding_pixel: Vec::new(),
        finish: Finish::Scores(vec![0.01]),
        addition: None,
        scale: TensorScale { scale: 1.0, zero_point: 0 },
        input_zero_point: -128,
    };
    layers.push(layer(
        "pool".into(),
        count,
        Operation::GlobalAveragePool,
        Shape::new(1, 1, CHANNELS as u16),
        pool,
    ));
    IntegerNetwork {
        name: "deep".into(),
        input: Shape::new(SIDE, SIDE, 3),
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        input_scale: None,
        layers,
        outputs: vec![Output { name: "scores".into(), tensor: count + 1, softmax: Softmax::None }],
        labels: Vec::new(),
    }
}

/// The arena of a network's blob, in which it runs.
fn arena_bytes(network: &IntegerNetwork, goal: Goal) -> usize {
    let wishes = Wishes { target: Target::CortexM4, goal, ram: None, flash: None };
    let blob = assemble(network, &wishes, 16).unwrap();
    let model = Model::parse(&blob).unwrap();
    let mut arena = vec![0u128; model.arena_bytes().div_ceil(16)];
    let mut network: Network<'_, 16> =
        Network::with_frame(model, bytemuck::cast_slice_mut(&mut arena)).unwrap();
    assert_eq!(network.run_frame().unwrap().values().len(), CHANNELS);
    model.arena_bytes()
}

#[test]
fn depth_costs_no_ram() {
    for goal in [Goal::Speed, Goal::Balanced, Goal::Memory] {
        let shallow = arena_bytes(&deep(21, true), goal);
        assert_eq!(arena_bytes(&deep(401, true), goal), shallow, "200 blocks, {goal:?}");
    }
}

#[test]
fn two_thousand_layers_are_planned() {
    let shallow = arena_bytes(&deep(20, false), Goal::Balanced);
    assert_eq!(arena_bytes(&deep(2000, false), Goal::Balanced), shallow);
}
