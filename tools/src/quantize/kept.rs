//! Weights that their file has quantized, kept as they are.

use super::QuantizeError;
use super::fold::Parameters;
use crate::fit::{Filters, MAX_WEIGHT};
use crate::ir::{IntegerWeights, TensorScale};

/// The integers of a layer in its file, and its biases; `input` is what the layer reads here.
pub(super) fn kept(
    layer: &str,
    filters: &Filters<'_>,
    integers: &IntegerWeights,
    input: TensorScale,
) -> Result<Parameters, QuantizeError> {
    // 1, unless the input has another scale than in the file
    let bias_step = f64::from(integers.input.scale) / f64::from(input.scale);
    let weights = integers.weights.iter().map(|weight| (*weight).max(-(MAX_WEIGHT as i8)));
    let mut parameters = Parameters { weights: weights.collect(), bias: Vec::new(), scales: Vec::new() };
    let products = filters.depth();
    for (channel, bias) in integers.bias.iter().enumerate() {
        let own = (0..products).map(|index| i64::from(parameters.weights[filters.at(channel, index)]));
        let (sum, magnitudes) =
            own.fold((0, 0), |(sum, magnitudes), weight| (sum + weight, magnitudes + weight.abs()));
        let bias = (f64::from(*bias) * bias_step).round() as i64;
        let bias = bias.saturating_sub(i64::from(input.zero_point) * sum);
        let bound = bias.saturating_abs().saturating_add(magnitudes * 128);
        let room = i64::from(i32::MAX) - products as i64 * 128 * 128;
        if bound > i64::from(i32::MAX) || bias.saturating_abs() > room {
            return Err(QuantizeError::Accumulator { layer: layer.into(), channel, bound });
        }
        parameters.bias.push(bias as i32);
        parameters.scales.push(f64::from(input.scale) * f64::from(integers.scale(channel)));
    }
    Ok(parameters)
}
