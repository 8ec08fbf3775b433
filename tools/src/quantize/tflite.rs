//! What only networks have that their file has quantized: TensorFlow Lite's rounding, and pooling without a
//! scale of its own.
//!
//! The multipliers follow TensorFlow Lite's `kernels/internal/quantization_util.cc` and the kernels'
//! `Prepare`: in double precision, from scales that are stored in single.

use skipstone::host::Clamp;
use skipstone::host::tflite::{FixedSoftmax, Scaling};

use super::meaning::{Meaning, Target};
use super::requantize::{MAX_SHIFT, multipliers};
use super::{QuantizeError, Quantizer, not_exact};
use crate::ir::{Activation, Finish, Integer, Requantize, Rounding, TensorScale};

/// Bits to the left of an addition's terms.
const ADDITION_SHIFT: i32 = 20;

/// Bits before the binary point of a softmax's scaled differences.
const SOFTMAX_INTEGER_BITS: i32 = 5;

impl Quantizer<'_> {
    /// A global average pooling to int8.
    pub(super) fn mean(
        &mut self,
        index: usize,
        input: &Meaning,
        (scale, zero_point): (f64, i8),
        positions: u32,
    ) -> Result<(Integer, Meaning), QuantizeError> {
        let layer = &self.network.layers[index];
        let activation = layer.activation;
        let per_step = [scale / f64::from(positions)];
        let shared = layer.parameters.scale.is_some_and(|known| Meaning::of(known) == *input);
        let (finish, meaning, output) = match (self.exact, shared) {
            // AVERAGE_POOL_2D keeps the scale of its input
            (true, true) => {
                let output = TensorScale { scale: scale as f32, zero_point };
                let Target { clamp, .. } = Target::known(output, activation);
                return Ok((Integer::without_weights(Finish::Mean(clamp), output, 0), input.clone()));
            }
            (true, false) => {
                let target = self.target(index, activation, layer.parameters.scale)?;
                let requantize = rounded_twice(&[mean(scale, target.scale, positions)], target.clamp);
                (Finish::Requantize(requantize), target.meaning(), target.tensor())
            }
            (false, true) => {
                // the mean of many values needs a finer scale than theirs; that of a whole image does not
                // reach half of their range, unless images show otherwise
                let target = match self.ranges.get(&(index + 1)) {
                    Some(_) => self.target(index, activation, None)?,
                    None => {
                        let half = TensorScale { scale: (scale / 2.0) as f32, zero_point };
                        Target::known(half, activation)
                    }
                };
                self.reduction_to(index, &per_step, target)?
            }
            (false, false) => self.reduction(index, &per_step)?,
        };
        Ok((Integer::without_weights(finish, output, zero_point), meaning))
    }

    /// Class scores that are rounded to int8 first.
    pub(super) fn rounded_scores(&self, index: usize, scales: &[f64]) -> Result<Finish, QuantizeError> {
        let layer = &self.network.layers[index];
        let Target { scale, clamp } = self.target(index, Activation::NONE, layer.parameters.scale)?;
        let ratios: Vec<f64> = scales.iter().map(|sum| sum / scale).collect();
        let requantize = rounded_in_double(&layer.name, &ratios, clamp)?;
        // a softmax takes whole steps
        let scale = if self.is_normalized(index + 1) { 1.0 } else { scale as f32 };
        Ok(Finish::RoundedScores { requantize, scale })
    }

    /// `PreprocessSoftmaxScaling`, with a beta of 1.
    pub(super) fn softmax(input: f32) -> FixedSoftmax {
        let one = f64::from(31 - SOFTMAX_INTEGER_BITS).exp2();
        let Scaling { multiplier, shift } = scaling((f64::from(input) * one).min(f64::from(i32::MAX)));
        FixedSoftmax { multiplier, left_shift: shift.max(0).unsigned_abs() }
    }
}

/// Requantization of a dense layer by these ratios: LiteRT's reference kernel rounds once, in double
/// precision.
pub(super) fn rounded_in_double(
    layer: &str,
    ratios: &[f64],
    clamp: Clamp,
) -> Result<Requantize, QuantizeError> {
    let (mut multipliers, shift) = multipliers(ratios, MAX_SHIFT);
    for (multiplier, ratio) in multipliers.iter_mut().zip(ratios) {
        let near = [*multiplier, multiplier.saturating_add(1), *multiplier - 1];
        let same = near.into_iter().find(|multiplier| rounds_as_double(*multiplier, shift, *ratio));
        *multiplier = same.ok_or_else(|| not_exact(layer, "it scales its outputs too differently"))?;
    }
    Ok(Requantize { multipliers, rounding: Rounding::Once { shift }, clamp })
}

/// Requantization by these scales.
pub(super) fn rounded_twice(scalings: &[Scaling], clamp: Clamp) -> Requantize {
    let (multipliers, shifts) = scalings.iter().map(|scaling| (scaling.multiplier, scaling.shift)).unzip();
    Requantize { multipliers, rounding: Rounding::Twice { shifts }, clamp }
}

/// Whether sums times multiplier / 2^shift round to the same int8 values as times `ratio` in double precision,
/// halves away from zero. Both grow with the sum, so that they are equal everywhere if they are around each
/// sum at which the second changes.
fn rounds_as_double(multiplier: i32, shift: u8, ratio: f64) -> bool {
    if multiplier < 0 || ratio <= 0.0 {
        return multiplier == 0;
    }
    let same = |sum: i64| {
        let once = (i128::from(sum) * i128::from(multiplier) + (1 << (shift - 1))) >> shift;
        once == (sum as f64 * ratio).round() as i128
    };
    let least = (f64::from(i32::MIN) * ratio).max(-256.0) as i32;
    let largest = (f64::from(i32::MAX) * ratio).min(256.0) as i32;
    (least..=largest).all(|value| {
        let change = ((f64::from(value) - 0.5) / ratio).round() as i64;
        (change - 2..=change + 2).all(same)
    })
}

/// `QuantizeMultiplier`: the scale nearest to `real`, which is not negative.
pub(super) fn scaling(real: f64) -> Scaling {
    if real <= 0.0 {
        return Scaling { multiplier: 0, shift: 0 };
    }
    // frexp: a fraction of 0.5 or more, below 1, times a power of two
    let mut shift = real.log2().floor() as i32 + 1;
    let fraction = |shift: i32| real * f64::from(-shift).exp2();
    if fraction(shift) >= 1.0 {
        shift += 1;
    } else if fraction(shift) < 0.5 {
        shift -= 1;
    }
    let mut multiplier = (fraction(shift) * f64::from(1u32 << 31)).round() as i64;
    if multiplier == 1 << 31 {
        multiplier /= 2;
        shift += 1;
    }
    match shift {
        ..-31 => Scaling { multiplier: 0, shift: 0 },
        31.. => Scaling { multiplier: i32::MAX, shift: 30 },
        _ => Scaling { multiplier: multiplier as i32, shift: shift as i8 },
    }
}

/// The scalings of an addition's terms and of its result (`add.cc`), from the scales of the three.
pub(super) fn addition([path, shortcut, output]: [f64; 3]) -> [Scaling; 3] {
    let twice_max = 2.0 * path.max(shortcut);
    let one = f64::from(ADDITION_SHIFT).exp2();
    [scaling(path / twice_max), scaling(shortcut / twice_max), scaling(twice_max / (one * output))]
}

/// The scale of a mean over `count` values' sum (`QuantizedMeanOrSum`).
fn mean(input: f64, output: f64, count: u32) -> Scaling {
    let Scaling { multiplier, shift } = scaling(input / output);
    let bits = i32::from(count.max(1).ilog2() as u8).min(31 + i32::from(shift)).max(0);
    let multiplier = (i64::from(multiplier) << bits) / i64::from(count.max(1));
    Scaling { multiplier: multiplier as i32, shift: (i32::from(shift) - bits) as i8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(Scaling { multiplier, shift }: Scaling) -> f64 {
        f64::from(multiplier) * f64::from(i32::from(shift) - 31).exp2()
    }

    #[test]
    fn multipliers_have_31_bits() {
        assert_eq!(scaling(0.5), Scaling { multiplier: 1 << 30, shift: 0 });
        assert_eq!(scaling(1.0), Scaling { multiplier: 1 << 30, shift: 1 });
        assert_eq!(scaling(0.0), Scaling { multiplier: 0, shift: 0 });
        // rounded up to the next power of two
        assert_eq!(scaling(1.0 - f64::EPSILON / 2.0), Scaling { multiplier: 1 << 30, shift: 1 });
        assert_eq!(scaling(f64::from(-40).exp2()), Scaling { multiplier: 0, shift: 0 });
        for value in [1e-9, 0.022592034071161442, 0.3, 7.5, 1e6] {
            let found = scaling(value);
            assert!((1 << 30..=i32::MAX).contains(&found.multiplier), "{found:?}");
            assert!((real(found) / value - 1.0).abs() < 1e-9, "{value}: {found:?}");
        }
    }

    #[test]
    fn additions_and_means_have_the_scales_of_their_terms() {
        let [path, shortcut, output] = addition([0.1, 0.05, 0.2]).map(real);
        assert_eq!([path, shortcut], [0.5, 0.25]);
        let one = f64::from(ADDITION_SHIFT).exp2();
        assert!((output * one / (0.2 / 0.2) - 1.0).abs() < 1e-9, "{output}");
        for count in [1, 9, 49, 64] {
            let found = real(mean(0.03, 0.01, count)) * f64::from(count);
            assert!((found - 3.0).abs() < 1e-6, "{count}: {found}");
        }
        // the runtime's own test has this softmax
        assert_eq!(Quantizer::softmax(0.1), FixedSoftmax { multiplier: 1717986944, left_shift: 23 });
    }

    #[test]
    fn what_rounds_otherwise_than_double_precision_is_seen() {
        let (multipliers, shift) = multipliers(&[0.022592034071161442], MAX_SHIFT);
        assert!(rounds_as_double(multipliers[0], shift, 0.022592034071161442));
        assert!(!rounds_as_double(multipliers[0] + (1 << 16), shift, 0.022592034071161442));
        // halves below zero are rounded away from it there, up here
        assert!(!rounds_as_double(1 << 29, 31, 0.25));
    }
}
