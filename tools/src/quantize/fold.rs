//! Weights and biases as integers, with what the input's values stand for folded in.

use super::QuantizeError;
use super::meaning::Meaning;
use crate::fit::{Filters, MAX_WEIGHT, Rounded};

/// Part of the room for biases that the float network's may take; the rest is for their correction.
const BIAS_ROOM: f64 = 0.98;

/// Filters with the input's meaning folded in, one slice of weights for each output channel.
pub(super) struct Folded {
    /// Each weight in units of what it reads, and the zero point of that.
    filters: Vec<Vec<(f64, f64)>>,
    /// Real value of one step of each channel's sum.
    pub(super) scales: Vec<f64>,
    /// What a bias may reach, beside the largest sum of products.
    room: i64,
}

/// Per-channel int8 weights and biases.
pub(super) struct Parameters {
    /// In the order of the operation.
    pub(super) weights: Vec<i8>,
    pub(super) bias: Vec<i32>,
    /// Real value of one step of each channel's sum.
    pub(super) scales: Vec<f64>,
}

/// Folds the input's meaning into filters.
pub(super) fn fold(layer: &str, filters: &Filters<'_>, input: &Meaning) -> Result<Folded, QuantizeError> {
    let mut folded = Folded { filters: Vec::new(), scales: Vec::new(), room: 0 };
    let products = filters.depth();
    for (channel, bias) in filters.bias.iter().enumerate() {
        let not_finite =
            |what, index, value| QuantizeError::NotFinite { layer: layer.into(), what, index, value };
        let unusual = filters.filter(channel).enumerate().find(|(_, weight)| !weight.is_finite());
        if let Some((index, weight)) = unusual {
            return Err(not_finite("weight", channel * products + index, weight));
        }
        if !bias.is_finite() {
            return Err(not_finite("bias", channel, *bias));
        }
        // room for the bias beside the largest sum of products, as the runtime's own check has it
        let room = i64::from(i32::MAX) - products as i64 * 128 * 128;
        let folded_zero = products as f64 * MAX_WEIGHT * 128.0;
        if room as f64 <= folded_zero {
            return Err(QuantizeError::Products { layer: layer.into(), products });
        }
        let real: Vec<(f64, f64)> = filters
            .filter(channel)
            .enumerate()
            .map(|(index, weight)| {
                let from = filters.input_channel(channel, index);
                (f64::from(weight) * Meaning::at(from, &input.scale), Meaning::at(from, &input.zero_point))
            })
            .collect();
        let largest = real.iter().map(|(weight, _)| weight.abs()).fold(0.0, f64::max);
        // a channel of tiny weights gets coarser ones rather than a bias that does not fit
        let for_bias = f64::from(*bias).abs() / (BIAS_ROOM * (room as f64 - folded_zero));
        folded.scales.push((largest / MAX_WEIGHT).max(for_bias).max(f64::MIN_POSITIVE.sqrt()));
        folded.filters.push(real);
        folded.room = room;
    }
    Ok(folded)
}

impl Folded {
    /// Each weight rounded to the nearest integer, the biases as they are.
    pub(super) fn nearest(&self, bias: &[f32]) -> Rounded {
        let weights = self.filters.iter().zip(&self.scales).flat_map(|(filter, scale)| {
            filter
                .iter()
                .map(move |(weight, _)| (weight / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT) as i8)
        });
        Rounded { weights: weights.collect(), bias: bias.iter().copied().map(f64::from).collect() }
    }

    /// The integers with the zero points folded into the biases; they are proved to stay in 32 bits.
    /// A corrected bias that does not fit, because all weights are tiny or zero, is replaced by the
    /// network's own.
    pub(super) fn parameters(
        self,
        layer: &str,
        rounded: Rounded,
        filters: &Filters<'_>,
    ) -> Result<Parameters, QuantizeError> {
        let mut biases = Vec::with_capacity(self.scales.len());
        let mut weights = rounded.weights.as_slice();
        for (channel, (filter, scale)) in self.filters.iter().zip(&self.scales).enumerate() {
            let (own, rest) = weights.split_at(filter.len());
            weights = rest;
            let zero_sum: f64 =
                own.iter().zip(filter).map(|(weight, (_, zero_point))| f64::from(*weight) * zero_point).sum();
            let steps = |bias: f64| (bias / scale - zero_sum).round();
            let mut bias = steps(rounded.bias[channel]);
            if bias.abs() > self.room as f64 {
                bias = steps(filters.bias[channel].into());
            }
            let magnitudes: i64 = own.iter().map(|weight| i64::from(weight.abs())).sum();
            let bound = (bias.abs() as i64).saturating_add(magnitudes * 128);
            if bound > i64::from(i32::MAX) || bias.abs() > self.room as f64 {
                return Err(QuantizeError::Accumulator { layer: layer.into(), channel, bound });
            }
            biases.push(bias as i32);
        }
        Ok(Parameters { weights: filters.in_order(rounded.weights), bias: biases, scales: self.scales })
    }
}
