//! What only networks have that their file has quantized: TensorFlow Lite's rounding, pooling without a scale of its own.
//!
//! The multipliers follow TensorFlow Lite's `kernels/internal/quantization_util.cc` and the kernels'
//! `Prepare`: in double precision, from scales that are stored in single.

use skipstone::tflite::{FixedSoftmax, Scaling};
use skipstone::{Clamp, Softmax, schema};

use super::{MAX_SHIFT, Meaning, QuantizeError, Quantizer, multipliers, quantization};
use crate::float::{Part, TensorId};
use crate::network::Activation;

/// Bits to the left of an addition's terms.
const ADDITION_SHIFT: i32 = 20;

/// Bits before the binary point of a softmax's scaled differences.
const SOFTMAX_INTEGER_BITS: i32 = 5;

pub(super) fn not_exact(layer: &str, reason: &'static str) -> QuantizeError {
    QuantizeError::NotExact { layer: layer.into(), reason }
}

impl Quantizer<'_> {
    /// What normalizes the scores of a network of so many stages before its softmax.
    pub(super) fn softmax(&self, stages: usize) -> Result<Softmax, QuantizeError> {
        if !self.normalized {
            return Ok(Softmax::None);
        }
        if !self.exact {
            return Ok(Softmax::Float);
        }
        let output = |stage| self.known.tensors.get(&TensorId { stage, part: Part::Output });
        match (stages.checked_sub(1).and_then(output), output(stages)) {
            (Some(scores), Some(_)) => Ok(Softmax::Fixed(softmax(scores.scale))),
            _ => Err(not_exact("softmax", "is not int8 in the file")),
        }
    }

    /// Checks that a pooling whose output has its input's scale here has it in the file as well.
    pub(super) fn keeps_scale(
        &self,
        layer: &str,
        input: &Meaning,
        output: TensorId,
    ) -> Result<(), QuantizeError> {
        let same = self.known.tensors.get(&output).copied() == input.tensor();
        if same || !self.exact { Ok(()) } else { Err(not_exact(layer, "changes the scale in the file")) }
    }

    /// Zero point, finish and meaning of a global average pooling that is not the last layer.
    pub(super) fn mean(
        &mut self,
        layer: &str,
        input: &Meaning,
        (scale, zero_point): (f64, i8),
        positions: u32,
        output: TensorId,
    ) -> Result<(i8, schema::Finish, Meaning), QuantizeError> {
        let shared = self.known.tensors.get(&output).is_some_and(|known| Meaning::of(*known) == *input);
        let per_step = [scale / f64::from(positions)];
        if !shared {
            let target = self.tensor(output, Activation::None, layer)?;
            let (finish, meaning) = match self.exact {
                true => self.quantized_mean(scale, positions, target),
                false => self.requantize(layer, &per_step, output, Activation::None, target)?,
            };
            return Ok((zero_point, finish, meaning));
        }
        let clamp = Clamp::none(zero_point);
        if self.exact {
            let finish = schema::Finish::Mean { clamp, scale: scale as f32 };
            return Ok((0, finish, input.clone()));
        }
        // AVERAGE_POOL_2D has no scale of its own, and the mean of many values needs a finer one; that of
        // a whole image does not reach half of their range, unless images show another one
        let (scale, clamp) = match self.ranges.get(&output) {
            Some(range) => quantization(*range, Activation::None, layer)?,
            None => (scale / 2.0, clamp),
        };
        let meaning = Meaning { scale: vec![scale], zero_point: vec![clamp.zero_point.into()] };
        let target = (scale, clamp, meaning);
        let (finish, meaning) = self.requantize(layer, &per_step, output, Activation::None, target)?;
        Ok((zero_point, finish, meaning))
    }

    /// MEAN over int8 values.
    fn quantized_mean(
        &mut self,
        input: f64,
        positions: u32,
        (scale, clamp, meaning): (f64, Clamp, Meaning),
    ) -> (schema::Finish, Meaning) {
        let (requantize, count) = self.rounded_twice(&[mean(input, scale, positions)], clamp);
        (schema::Finish::Requantize { count, requantize, scale: scale as f32 }, meaning)
    }

    /// Class scores that are rounded to int8 first.
    pub(super) fn rounded_scores(
        &mut self,
        layer: &str,
        scales: &[f64],
        output: TensorId,
    ) -> Result<schema::Finish, QuantizeError> {
        let (scale, clamp, _) = self.tensor(output, Activation::None, layer)?;
        let ratios: Vec<f64> = scales.iter().map(|sum| sum / scale).collect();
        let (requantize, count) = self.rounded_in_double(layer, &ratios, clamp)?;
        // a softmax takes whole steps
        let scale = if self.normalized { 1.0 } else { scale as f32 };
        Ok(schema::Finish::RoundedScores { count, requantize, scale })
    }

    /// Requantization by these ratios, and their number, of a dense layer: LiteRT's reference kernel rounds
    /// once, in double precision.
    pub(super) fn rounded_in_double(
        &mut self,
        layer: &str,
        ratios: &[f64],
        clamp: Clamp,
    ) -> Result<(schema::Requantize, u16), QuantizeError> {
        let (mut multipliers, shift) = multipliers(ratios, MAX_SHIFT);
        for (multiplier, ratio) in multipliers.iter_mut().zip(ratios) {
            let near = [*multiplier, multiplier.saturating_add(1), *multiplier - 1];
            let same = near.into_iter().find(|multiplier| rounds_as_double(*multiplier, shift, *ratio));
            *multiplier = same.ok_or_else(|| not_exact(layer, "scales its outputs too differently"))?;
        }
        let rounding = schema::Rounding::Once { shift };
        let count = multipliers.len() as u16;
        let multipliers = self.weights.section(&multipliers);
        Ok((schema::Requantize { multipliers, rounding, clamp }, count))
    }

    /// Requantization by these scales, and their number.
    pub(super) fn rounded_twice(&mut self, scalings: &[Scaling], clamp: Clamp) -> (schema::Requantize, u16) {
        let (multipliers, shifts): (Vec<i32>, Vec<i8>) =
            scalings.iter().map(|scaling| (scaling.multiplier, scaling.shift)).unzip();
        let rounding = schema::Rounding::Twice { shifts: self.weights.section(&shifts) };
        let multipliers = self.weights.section(&multipliers);
        (schema::Requantize { multipliers, rounding, clamp }, scalings.len() as u16)
    }
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

/// `PreprocessSoftmaxScaling`, with a beta of 1.
fn softmax(input: f32) -> FixedSoftmax {
    let one = f64::from(31 - SOFTMAX_INTEGER_BITS).exp2();
    let Scaling { multiplier, shift } = scaling((f64::from(input) * one).min(f64::from(i32::MAX)));
    FixedSoftmax { multiplier, left_shift: shift.max(0).unsigned_abs() }
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
        assert_eq!(softmax(0.1), FixedSoftmax { multiplier: 1717986944, left_shift: 23 });
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
