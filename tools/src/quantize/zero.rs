//! The scale of a tensor that is zero in every calibration image.
//!
//! Its values do not say which scale it needs, but the biases of the layers that read it do: they are
//! rounded to multiples of the tensor's scale times the weights'. With a scale of 1, say, every bias of
//! a network with small activations becomes zero, and its answer is noise.

use crate::fit::{Filters, MAX_WEIGHT};
use crate::ir::{FloatNetwork, Operation, TensorId};

/// How many steps the largest bias of a reader has at least, 16 for each of its int8 output: the error
/// of a bias is then well below the output's own rounding, and the tensor can still hold values that
/// change the reader's output.
const BIAS_STEPS: f64 = 4096.0;

/// Scales that leave room for products and quotients in f32.
const LEAST: f64 = 1e-30;
const MOST: f64 = 1e28;

/// The largest scale at which the biases of every reader keep their resolution; 1 if there is none that
/// depends on it.
pub(super) fn scale(network: &FloatNetwork, tensor: TensorId) -> f64 {
    let scale = largest(network, tensor);
    if scale.is_finite() { scale.clamp(LEAST, MOST) } else { 1.0 }
}

fn largest(network: &FloatNetwork, tensor: TensorId) -> f64 {
    let readers = network.layers.iter().enumerate().filter(|(_, layer)| layer.inputs.contains(&tensor));
    let scales = readers.map(|(index, layer)| match layer.operation {
        // these keep the scale of what they read
        Operation::MaxPool(_) | Operation::AveragePool { .. } => largest(network, index + 1),
        Operation::Conv2d { .. } | Operation::Dense { .. } => {
            let Some(filters) = Filters::of(layer, network.shape(tensor)) else { return f64::INFINITY };
            let largest = |values: &[f32]| {
                let finite = values.iter().filter(|value| value.is_finite());
                finite.fold(0.0, |largest: f64, value| largest.max(f64::from(value.abs())))
            };
            match (largest(&filters.bias), largest(&filters.weights)) {
                (0.0, _) | (_, 0.0) => f64::INFINITY,
                (bias, weight) => bias / (weight / MAX_WEIGHT) / BIAS_STEPS,
            }
        }
        Operation::GlobalAveragePool
        | Operation::Affine { .. }
        | Operation::Clamp { .. }
        | Operation::Add
        | Operation::Subsample { .. }
        | Operation::Pad { .. }
        | Operation::Softmax { .. } => f64::INFINITY,
    });
    scales.fold(f64::INFINITY, f64::min)
}
