//! Weights that their file has quantized already, kept as they are.

use super::{MAX_WEIGHT, Parameters, QuantizeError};
use crate::network::{LayerScales, TensorScale};

/// The integers that a layer's filters are made of in its file, and its biases, with `input` for what it
/// reads there.
pub(super) fn kept_filters(
    layer: &str,
    filters: impl Iterator<Item = Vec<f32>>,
    scales: &LayerScales,
    input: TensorScale,
) -> Result<Parameters, QuantizeError> {
    let mut parameters = Parameters { weights: Vec::new(), bias: Vec::new(), scales: Vec::new() };
    // 1, unless the input has another scale than in the file
    let bias_step = f64::from(scales.input.scale) / f64::from(input.scale);
    for (channel, (filter, bias)) in filters.zip(&scales.bias).enumerate() {
        let scale = f64::from(scales.weights[channel.min(scales.weights.len() - 1)]);
        let (mut sum, mut magnitudes) = (0, 0);
        let products = filter.len() as i64;
        for weight in filter {
            // an integer of 8 bits times a scale, rounded to 24 bits, is near no other integer's product
            let quantized = (f64::from(weight) / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT);
            sum += quantized as i64;
            magnitudes += quantized.abs() as i64;
            parameters.weights.push(quantized as i8);
        }
        let bias = (f64::from(*bias) * bias_step).round() as i64;
        let bias = bias.saturating_sub(i64::from(input.zero_point) * sum);
        let bound = bias.saturating_abs().saturating_add(magnitudes * 128);
        let room = i64::from(i32::MAX) - products * 128 * 128;
        if bound > i64::from(i32::MAX) || bias.saturating_abs() > room {
            return Err(QuantizeError::Accumulator { layer: layer.into(), channel, bound });
        }
        parameters.bias.push(bias as i32);
        parameters.scales.push(f64::from(input.scale) * scale);
    }
    Ok(parameters)
}
