//! TensorFlow Lite's reference arithmetic, for models that must give its bits: every value rounded twice.
//!
//! A scale is a `multiplier` of 31 bits and a `shift`: multiplier * 2^(shift - 31). The functions
//! follow TensorFlow Lite's reference kernels (`kernels/internal/common.h`, `reference/integer_ops`,
//! `reference/softmax.h`) and gemmlowp's `fixedpoint.h`, and keep their names; where overflow is undefined
//! there, the sums wrap.

use crate::base::clamp::Clamp;
use crate::base::error::LayerError;

/// A scale: multiplier * 2^(shift - 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scaling {
    /// Not negative.
    pub multiplier: i32,
    /// -31 to 30.
    pub shift: i8,
}

impl Scaling {
    pub(crate) fn check(self) -> Result<(), LayerError> {
        let fits = self.multiplier >= 0 && (-31..=30).contains(&self.shift);
        if fits { Ok(()) } else { Err(LayerError::Requantization) }
    }

    /// `MultiplyByQuantizedMultiplier`: value times the scale, rounded twice.
    pub fn apply(self, value: i32) -> i32 {
        let left = value.wrapping_shl(self.shift.max(0).unsigned_abs().into());
        let product = saturating_rounding_doubling_high_mul(left, self.multiplier);
        rounding_divide_by_pot(product, self.shift.min(0).unsigned_abs().into())
    }
}

/// Addition of two int8 values of different scales, rounded to int8 (`AddElementwise`): in a block, of
/// the last convolution's rounded output and the shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sum {
    /// Scale of the path's values.
    pub path: Scaling,
    /// Scale of the shortcut's values.
    pub shortcut: Scaling,
    /// The shortcut's value that represents zero.
    pub shortcut_zero_point: i8,
    /// Scale of the sum.
    pub output: Scaling,
    /// Zero point and range of the sum.
    pub clamp: Clamp,
}

impl Sum {
    /// Bits to the left of both terms.
    const LEFT_SHIFT: u32 = 20;

    pub(crate) fn check(&self) -> Result<(), LayerError> {
        self.path.check()?;
        self.shortcut.check()?;
        self.output.check()?;
        self.clamp.check()
    }

    /// The sum of `path`, whose zero point is `path_zero_point`, and `shortcut`.
    pub fn apply(&self, path: i8, path_zero_point: i8, shortcut: i8) -> i8 {
        let term = |value: i8, zero_point: i8, scaling: Scaling| {
            scaling.apply((i32::from(value) - i32::from(zero_point)) << Self::LEFT_SHIFT)
        };
        let path = term(path, path_zero_point, self.path);
        let sum = path.wrapping_add(term(shortcut, self.shortcut_zero_point, self.shortcut));
        self.clamp.apply(self.output.apply(sum).into())
    }
}

/// Softmax over int8 values: scale 1/256 and zero point -128 at the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FixedSoftmax {
    /// Multiplier of the input's scale, not negative.
    pub multiplier: i32,
    /// Left shift of the input's scale, 0 to 31.
    pub left_shift: u8,
}

impl FixedSoftmax {
    /// Bits before the binary point of a scaled difference, and of the sum of exponentials.
    const DIFFERENCE_BITS: u32 = 5;
    const SUM_BITS: u32 = 12;

    pub(crate) const fn is_valid(&self) -> bool {
        self.multiplier >= 0 && self.left_shift <= 31
    }

    /// Replaces `values`, which are whole numbers of -255 to 255 (for others, which only an untrusted blob
    /// has, the results are between 0 and 1), by their probabilities, whole multiples of 1/256.
    pub(crate) fn apply(&self, values: &mut [f32]) {
        let max = values.iter().fold(-256, |max, value| max.max(*value as i32));
        let mut sum = 0i32;
        for value in values.iter() {
            if let Some(exp) = self.exp((*value as i32).saturating_sub(max)) {
                sum = sum.wrapping_add(rounding_divide_by_pot(exp, Self::SUM_BITS));
            }
        }
        // the largest value's exponential is in the sum, so it is not zero
        let headroom = sum.leading_zeros();
        let fraction = (sum.cast_unsigned().wrapping_shl(headroom)).wrapping_sub(1 << 31);
        let reciprocal = one_over_one_plus_x(fraction.cast_signed());
        let bits_over_unit = Self::SUM_BITS.wrapping_sub(headroom);
        for value in values {
            let probability = self.exp((*value as i32).saturating_sub(max)).map_or(0, |exp| {
                let product = saturating_rounding_doubling_high_mul(reciprocal, exp);
                rounding_divide_by_pot(product, bits_over_unit.wrapping_add(31 - 8)).clamp(0, 255)
            });
            *value = probability as f32 / 256.0;
        }
    }

    /// exp(difference * scale) as a fraction of 2^31; `None` if it is too small to matter.
    fn exp(&self, difference: i32) -> Option<i32> {
        let least = ((31i64 << (31 - Self::DIFFERENCE_BITS)) >> self.left_shift.min(63)) as i32;
        (difference >= -least).then(|| {
            let left = difference.wrapping_shl(self.left_shift.into());
            exp_on_negative_values(saturating_rounding_doubling_high_mul(left, self.multiplier))
        })
    }
}

/// a * b / 2^31, rounded to nearest, halves up.
fn saturating_rounding_doubling_high_mul(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = i64::from(a) * i64::from(b);
    // the original divides, rounding towards zero, after a nudge of 2^30 or 1 - 2^30; that is this
    ((product + (1 << 30)) >> 31) as i32
}

/// value / 2^exponent, rounded to nearest, halves away from zero.
fn rounding_divide_by_pot(value: i32, exponent: u32) -> i32 {
    let exponent = exponent.min(31);
    let mask = (1i64 << exponent) - 1;
    let remainder = i64::from(value) & mask;
    let threshold = (mask >> 1) + i64::from(value < 0);
    (value >> exponent) + i32::from(remainder > threshold)
}

/// value * 2^exponent, held at the ends of 32 bits.
fn saturating_multiply_by_pot(value: i32, exponent: u32) -> i32 {
    (i64::from(value) << exponent).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// exp of a number at most 0 with 5 bits before the binary point, as a fraction of 2^31.
fn exp_on_negative_values(value: i32) -> i32 {
    const FRACTION_BITS: u32 = 26;
    const QUARTER: i32 = 1 << (FRACTION_BITS - 2);
    /// exp(-1/4), exp(-1/2), exp(-1), ... as fractions of 2^31.
    const FACTORS: [i32; 7] = [1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242];
    if value == 0 {
        return i32::MAX;
    }
    let part = (value & (QUARTER - 1)) - QUARTER;
    let mut result = exp_near_zero(saturating_multiply_by_pot(part, 5));
    let remainder = part.wrapping_sub(value);
    for (bit, factor) in (FRACTION_BITS - 2..).zip(FACTORS) {
        if remainder & (1 << bit) != 0 {
            result = saturating_rounding_doubling_high_mul(result, factor);
        }
    }
    result
}

/// exp of a number from -1/4 on and below 0, both as fractions of 2^31: a polynomial around -1/8.
fn exp_near_zero(value: i32) -> i32 {
    const EXP_OF_MINUS_EIGHTH: i32 = 1895147668;
    const THIRD: i32 = 715827883;
    let times = saturating_rounding_doubling_high_mul;
    let x = value.wrapping_add(1 << 28);
    let x2 = times(x, x);
    let x3 = times(x2, x);
    let x4 = times(x2, x2);
    let x4_over_4 = rounding_divide_by_pot(x4, 2);
    let higher = times(x4_over_4.wrapping_add(x3), THIRD).wrapping_add(x2);
    let terms = x.wrapping_add(rounding_divide_by_pot(higher, 1));
    EXP_OF_MINUS_EIGHTH.wrapping_add(times(EXP_OF_MINUS_EIGHTH, terms))
}

/// 1 / (1 + x) for x from 0 to 1, both as fractions of 2^31: Newton's method.
fn one_over_one_plus_x(x: i32) -> i32 {
    const ONE: i32 = 1 << 29;
    const FORTY_EIGHT_SEVENTEENTHS: i32 = 1515870810;
    const MINUS_THIRTY_TWO_SEVENTEENTHS: i32 = -1010580540;
    let times = saturating_rounding_doubling_high_mul;
    // (x + 1) / 2, rounded up
    let half_denominator = ((i64::from(x) + i64::from(i32::MAX) + 1) >> 1) as i32;
    let start = times(half_denominator, MINUS_THIRTY_TWO_SEVENTEENTHS);
    let mut inverse = FORTY_EIGHT_SEVENTEENTHS.wrapping_add(start);
    for _ in 0..3 {
        let error = ONE.wrapping_sub(times(half_denominator, inverse));
        inverse = inverse.wrapping_add(saturating_multiply_by_pot(times(inverse, error), 2));
    }
    saturating_multiply_by_pot(inverse, 1)
}

/// Results of gemmlowp itself (`tools/train/gemmlowp_vectors.cpp`); returns the number of values.
#[cfg(any(test, feature = "self-test"))]
pub(crate) fn check_golden_values() -> usize {
    let (records, rest) = include_bytes!("../kernels/tests/gemmlowp.bin").as_chunks::<20>();
    assert!(rest.is_empty());
    for record in records {
        let [function, value, multiplier, shift, expected] = bytemuck::pod_read_unaligned::<[i32; 5]>(record);
        let found = match function {
            0 => Scaling { multiplier, shift: shift as i8 }.apply(value),
            1 => exp_on_negative_values(value),
            _ => one_over_one_plus_x(value),
        };
        assert_eq!(found, expected, "function {function} of {value}, {multiplier}, {shift}");
    }
    records.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_gemmlowp() {
        assert_eq!(check_golden_values(), 800);
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        assert_eq!(
            [5, 3, 1, -1, -3, -5].map(|value| rounding_divide_by_pot(value, 1)),
            [3, 2, 1, -1, -2, -3]
        );
        assert_eq!(rounding_divide_by_pot(i32::MIN, 31), -1);
        let half = Scaling { multiplier: 1 << 30, shift: 0 };
        assert_eq!([3, -3, i32::MAX, i32::MIN].map(|value| half.apply(value)), [2, -1, 1 << 30, -(1 << 30)]);
        assert_eq!(saturating_rounding_doubling_high_mul(i32::MIN, i32::MIN), i32::MAX);
    }

    /// Every shift, the ends of all ranges: as in whole numbers, but for what a left shift loses.
    #[test]
    fn any_scaling_of_any_value() {
        for shift in -31..=30 {
            for multiplier in [0, 1, 1 << 30, i32::MAX] {
                for value in [i32::MIN, i32::MIN + 1, -1, 0, 1, 1 << 20, i32::MAX] {
                    let left = (i64::from(value) << shift.max(0)) as i32;
                    let product = (i64::from(left) * i64::from(multiplier) + (1 << 30)) >> 31;
                    let power = 1i64 << (-shift).max(0);
                    let rounded = (product.abs() + power / 2) / power * product.signum();
                    let scaling = Scaling { multiplier, shift: shift as i8 };
                    assert_eq!(i64::from(scaling.apply(value)), rounded, "{value} by {scaling:?}");
                    let end = if value < 0 { i8::MIN } else { i8::MAX };
                    let clamp = Clamp::none(-1);
                    let sum = Sum {
                        path: scaling,
                        shortcut: scaling,
                        shortcut_zero_point: !end,
                        output: scaling,
                        clamp,
                    };
                    sum.apply(end, !end, end); // wraps, as the page on the format says
                }
            }
        }
    }

    #[test]
    fn softmax_of_what_is_no_int8_value_stays_between_zero_and_one() {
        let softmax = FixedSoftmax { multiplier: i32::MAX, left_shift: 31 };
        let mut values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e9, -3e9, 0.5];
        softmax.apply(&mut values);
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)), "{values:?}");
    }

    #[test]
    fn exponentials_are_close() {
        for value in [0, -1, -(1 << 20), -(1 << 26), -(5 << 25), -(31 << 26), i32::MIN] {
            let expected = (f64::from(value) / f64::from(1 << 26)).exp() * 2f64.powi(31);
            let error = f64::from(exp_on_negative_values(value)) - expected;
            assert!(error.abs() < 1024.0, "{value}: {error}");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_follows_the_formula() {
        // input scale 0.1: 0.1 * 2^26 = multiplier * 2^(left_shift - 31)
        let softmax = FixedSoftmax { multiplier: 1717986918, left_shift: 23 };
        let inputs = [12i16, -40, 7, 100, 95, -128];
        let mut values = inputs.map(f32::from);
        softmax.apply(&mut values);
        let exps = inputs.map(|value| (0.1 * f64::from(value)).exp());
        let sum: f64 = exps.iter().sum();
        for (value, exp) in values.iter().zip(exps) {
            assert!((f64::from(*value) - exp / sum).abs() <= 1.0 / 256.0, "{values:?}");
            assert_eq!((value * 256.0).fract(), 0.0);
        }
    }
    /// Found by fuzzing: a blob whose scores have other steps than one.
    #[test]
    fn softmax_of_what_are_no_whole_steps_ends() {
        let softmax = FixedSoftmax { multiplier: i32::MAX, left_shift: 31 };
        for inputs in [[f32::MAX, f32::MIN, 0.0], [f32::NAN, f32::INFINITY, -1.0], [f32::NEG_INFINITY; 3]] {
            let mut values = inputs;
            softmax.apply(&mut values);
            assert!(values.iter().all(|value| (0.0..=1.0).contains(value)), "{inputs:?}: {values:?}");
        }
    }
}
