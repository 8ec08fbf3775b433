//! Networks of few layers, and the integers that they become.

use skipstone::Shape;
use skipstone::host::{Addition, Softmax};

use super::*;
use crate::ir::{Finish, IntegerWeights, Preprocessing, Real, Shortcut, Window};

/// Deterministic values in -1..1 (a linear congruential generator).
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some((*state >> 33) as f32 / (1u32 << 30) as f32 - 1.0)
    };
    std::iter::repeat_n((), count).scan(seed, |state, ()| next(state)).collect()
}

fn layer(name: &str, input: TensorId, operation: Operation, shape: Shape, weights: Weights) -> Layer<Real> {
    Layer {
        name: name.into(),
        place: String::new(),
        inputs: vec![input],
        shortcut: None,
        operation,
        activation: Activation::NONE,
        shape,
        parameters: Real { weights, ..Real::default() },
    }
}

/// A 3x3 convolution over 8x8 pixels, with ReLU.
pub(crate) fn conv2d(name: &str, input: TensorId, inputs: usize, outputs: usize) -> Layer<Real> {
    let window = Window { kernel: [3; 2], stride: [1; 2], padding: [1; 4] };
    let operation = Operation::Conv2d { window, outputs, depthwise: false };
    let weights = Weights::Real { weights: noise(1, outputs * 9 * inputs), bias: vec![0.25; outputs] };
    let layer = layer(name, input, operation, Shape::new(8, 8, outputs as u16), weights);
    Layer { activation: Activation::RELU, ..layer }
}

pub(crate) fn scores(name: &str, input: TensorId, inputs: usize, outputs: usize) -> Layer<Real> {
    let weights = Weights::Real { weights: noise(2, outputs * inputs), bias: vec![0.5; outputs] };
    let shape = Shape::new(1, 1, outputs as u16);
    layer(name, input, Operation::Dense { outputs }, shape, weights)
}

/// A network over 8x8 pixels whose last layer is its output.
pub(crate) fn network(layers: Vec<Layer<Real>>) -> FloatNetwork {
    FloatNetwork {
        name: "test".into(),
        input: Shape::new(8, 8, 1),
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        input_scale: None,
        outputs: vec![Output { name: "scores".into(), tensor: layers.len(), softmax: Softmax::None }],
        layers,
        labels: Vec::new(),
    }
}

/// Every tensor ranges from `min` to 2.
fn ranges(network: &FloatNetwork, min: f32) -> Ranges {
    (0..=network.layers.len()).map(|tensor| (tensor, Range { min, max: 2.0 })).collect()
}

fn fused(network: &FloatNetwork, ranges: &Ranges) -> IntegerNetwork {
    quantize(network, ranges, Rounding::Fused).unwrap()
}

/// The real biases that a layer's integers stand for, without what the input's zero point adds to them.
fn biases(network: &IntegerNetwork, index: usize) -> Vec<f64> {
    let layer = &network.layers[index];
    let parameters = &layer.parameters;
    let input = match network.producer(layer.inputs[0]) {
        Some(producer) => producer.parameters.scale,
        None => network.input_scale.unwrap(),
    };
    let steps: Vec<f64> = match &parameters.finish {
        Finish::Scores(scales) => scales.iter().map(|scale| f64::from(*scale)).collect(),
        Finish::Requantize(requantize) => {
            let crate::ir::Rounding::Once { shift } = requantize.rounding else { panic!() };
            let scale = f64::from(parameters.scale.scale) / f64::from(shift).exp2();
            requantize.multipliers.iter().map(|multiplier| f64::from(*multiplier) * scale).collect()
        }
        other => panic!("{other:?}"),
    };
    let filter = parameters.weights.len() / parameters.bias.len();
    let bias = parameters.bias.iter().zip(&steps).zip(parameters.weights.chunks(filter));
    bias.map(|((bias, step), weights)| {
        let sum: i32 = weights.iter().map(|weight| i32::from(*weight)).sum();
        f64::from(bias + sum * i32::from(input.zero_point)) * step
    })
    .collect()
}

/// Found by an attack: such a tensor had the scale 1, in steps of which the next layer's biases vanished.
#[test]
fn biases_keep_their_resolution_behind_a_tensor_of_zeros() {
    for size in [1.0, 1e-4, 1e6] {
        let mut scores = scores("fc", 2, 256, 10);
        let Weights::Real { weights, bias } = &mut scores.parameters.weights else { panic!() };
        *bias = noise(7, 10).iter().map(|bias| f64::from(*bias) * size).collect();
        weights.iter_mut().for_each(|weight| *weight *= 3.0);
        let bias = bias.clone();
        let network = network(vec![conv2d("stem", 0, 1, 4), conv2d("dead", 1, 4, 4), scores]);
        let mut ranges = ranges(&network, 0.0);
        ranges.insert(2, Range::default());
        let integers = fused(&network, &ranges);
        let found = biases(&integers, 2);
        for (found, bias) in found.iter().zip(&bias) {
            assert!((found - bias).abs() < 1e-3 * size, "{size}: {found} {bias}");
        }
        // the tensor can still hold values that move a score by as much as a bias
        assert!(f64::from(integers.layers[1].parameters.scale.scale) * 255.0 * 3.0 > size);
    }
}

#[test]
fn a_tensor_of_zeros_is_seen_through_pooling_and_has_any_scale_if_nothing_depends_on_it() {
    let pool = Window { kernel: [2; 2], stride: [2; 2], padding: [0; 4] };
    let pool = layer("pool", 1, Operation::MaxPool(pool), Shape::new(4, 4, 4), Weights::None);
    let scale = |network: &FloatNetwork| {
        let mut ranges = ranges(network, 0.0);
        ranges.insert(1, Range::default());
        fused(network, &ranges).layers[0].parameters.scale.scale
    };
    let direct = scale(&network(vec![conv2d("stem", 0, 1, 4), scores("fc", 1, 256, 10)]));
    let pooled = scale(&network(vec![conv2d("stem", 0, 1, 4), pool, scores("fc", 2, 64, 10)]));
    assert!((direct / pooled - 1.0).abs() < 0.1, "{direct} {pooled}");
    assert!(direct < 0.1, "{direct}");
    let mut unbiased = scores("fc", 1, 256, 10);
    let Weights::Real { bias, .. } = &mut unbiased.parameters.weights else { panic!() };
    bias.fill(0.0);
    assert_eq!(scale(&network(vec![conv2d("stem", 0, 1, 4), unbiased])), 1.0);
}

#[test]
fn a_layer_may_read_any_tensor_before_it() {
    let mut last = conv2d("last", 2, 4, 4);
    last.shortcut = Some(Shortcut { tensor: 1, stride: [1; 2], channels_before: 0 });
    let network = network(vec![conv2d("stem", 0, 1, 4), conv2d("inner", 1, 4, 4), last]);
    let integers = fused(&network, &ranges(&network, -1.0));
    let [stem, _, last] = &integers.layers[..] else { panic!() };
    let Some(Addition::Fused(residual)) = last.parameters.addition else { panic!() };
    assert_eq!(residual.zero_point, stem.parameters.scale.zero_point);
    let Finish::Requantize(requantize) = &last.parameters.finish else { panic!() };
    let crate::ir::Rounding::Once { shift } = requantize.rounding else { panic!() };
    let ratio =
        f64::from(residual.multiplier) * f64::from(i32::from(residual.shift) - i32::from(shift)).exp2();
    let expected = f64::from(stem.parameters.scale.scale) / f64::from(last.parameters.scale.scale);
    assert!((ratio / expected - 1.0).abs() < 1e-6, "{ratio} {expected}");
    // ReLU clamps at the zero point
    assert_eq!(requantize.clamp.min, requantize.clamp.zero_point);
}

#[test]
fn only_class_scores_that_no_layer_reads_leave_the_last_layer_wide() {
    let scored = |network: &FloatNetwork| {
        let integers = fused(network, &ranges(network, -1.0));
        let scored = integers.layers.iter().map(|layer| matches!(layer.parameters.finish, Finish::Scores(_)));
        scored.collect::<Vec<_>>()
    };
    let mut network = network(vec![conv2d("stem", 0, 1, 4), scores("fc", 1, 256, 10)]);
    assert_eq!(scored(&network), [false, true]);
    // int8 values if there is an activation
    network.layers[1].activation = Activation::RELU;
    assert_eq!(scored(&network), [false, false]);
    network.layers[1].activation = Activation::NONE;
    // or if another layer reads them
    network.layers.push(scores("more", 2, 10, 3));
    network.outputs.push(Output { name: "more".into(), tensor: 3, softmax: Softmax::None });
    assert_eq!(scored(&network), [false, false, true]);
    // a convolution always gives int8 values, with their scale
    network.outputs.insert(0, Output { name: "features".into(), tensor: 1, softmax: Softmax::None });
    let integers = fused(&network, &ranges(&network, -1.0));
    assert_eq!(integers.outputs.len(), 3);
    assert_eq!(integers.layers[0].parameters.scale, TensorScale { scale: 3.0 / 255.0, zero_point: -43 });
}

#[test]
fn a_softmax_needs_class_scores() {
    let mut network = network(vec![conv2d("stem", 0, 1, 4), scores("fc", 1, 256, 10)]);
    network.outputs[0].softmax = Softmax::Float;
    assert_eq!(fused(&network, &ranges(&network, -1.0)).outputs[0].softmax, Softmax::Float);
    // nor are there labels without class scores
    network.labels = vec!["label".into(); 10];
    assert_eq!(fused(&network, &ranges(&network, -1.0)).labels, network.labels);
    network.outputs[0] = Output { name: "stem".into(), tensor: 1, softmax: Softmax::None };
    assert_eq!(fused(&network, &ranges(&network, -1.0)).labels, [""; 0]);
    network.outputs[0].softmax = Softmax::Float;
    let error = quantize(&network, &ranges(&network, -1.0), Rounding::Fused).unwrap_err();
    assert_eq!(error, QuantizeError::Softmax { layer: "stem".into() });
    network.outputs[0].tensor = INPUT;
    let error = quantize(&network, &ranges(&network, -1.0), Rounding::Fused).unwrap_err();
    assert_eq!(error, QuantizeError::InputAsOutput { output: "stem".into() });
}

#[test]
fn integers_of_a_file_are_kept_and_bounded() {
    let mut network = network(vec![conv2d("stem", 0, 1, 4), scores("fc", 1, 256, 2)]);
    let input = TensorScale { scale: 1.0 / 255.0, zero_point: -128 };
    network.input_scale = Some(input);
    let weights: Vec<i8> = (0..36).map(|index| (index * 7 - 126) as i8).collect();
    let integers = IntegerWeights {
        weights,
        scales: vec![0.5],
        bias: vec![10, -20, 30, 40],
        real_bias: vec![0.0; 4],
        input,
    };
    network.layers[0].parameters.weights = Weights::Integers(integers.clone());
    assert!(is_quantized(&network));
    let found = fused(&network, &ranges(&network, -1.0));
    let parameters = &found.layers[0].parameters;
    assert_eq!(parameters.weights, integers.weights);
    // bias - zero point * sum of the weights
    let sum: i32 = integers.weights[..9].iter().map(|weight| i32::from(*weight)).sum();
    assert_eq!(parameters.bias[0], 10 + 128 * sum);

    let too_large = IntegerWeights { bias: vec![0, 0, i32::MAX, 0], ..integers };
    network.layers[0].parameters.weights = Weights::Integers(too_large);
    let error = quantize(&network, &ranges(&network, -1.0), Rounding::Fused).unwrap_err();
    assert!(matches!(error, QuantizeError::Accumulator { channel: 2, .. }), "{error}");
}

#[test]
fn raw_pixels_whose_channels_differ_need_a_convolution_first() {
    let pool = Window { kernel: [2; 2], stride: [2; 2], padding: [0; 4] };
    let pooled = layer("pool", 0, Operation::MaxPool(pool), Shape::new(4, 4, 2), Weights::None);
    let mut network = network(vec![pooled, scores("fc", 1, 32, 3)]);
    network.input = Shape::new(8, 8, 2);
    network.preprocessing.mean = vec![0.25, 0.5];
    // a maximum does not mind, and what reads it knows the channels
    fused(&network, &ranges(&network, -1.0));
    // but an output has one scale
    network.outputs.insert(0, Output { name: "pool".into(), tensor: 1, softmax: Softmax::None });
    let error = quantize(&network, &ranges(&network, -1.0), Rounding::Fused).unwrap_err();
    assert_eq!(error, QuantizeError::RawInput { layer: "pool".into() });
}
