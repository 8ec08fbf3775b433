//! Multipliers and shifts: real ratios as the integers that the runtime multiplies by.

use skipstone::host;

pub(super) const MAX_SHIFT: u8 = host::Requantize::MAX_SHIFT;

/// `ratios[i] = multipliers[i] / 2^shift`, the shift as large as the largest ratio and `max_shift` allow.
pub(super) fn multipliers(ratios: &[f64], max_shift: u8) -> (Vec<i32>, u8) {
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    // the largest multiplier has 31 bits
    let fits = 30.0 - largest.max(f64::MIN_POSITIVE).log2().floor();
    let mut shift = fits.clamp(1.0, f64::from(max_shift)) as u8;
    let scaled = |ratio: f64, shift: u8| (ratio * f64::from(shift).exp2()).round();
    if scaled(largest, shift) > f64::from(i32::MAX) && shift > 1 {
        shift -= 1; // rounded up to 2^31
    }
    let multiplier = |ratio: &f64| scaled(*ratio, shift).min(f64::from(i32::MAX)) as i32;
    (ratios.iter().map(multiplier).collect(), shift)
}

/// Bits to the left of a ratio's binary point when its multiplier has 31 bits.
fn integer_bits(ratio: f64) -> i32 {
    ratio.max(f64::MIN_POSITIVE).log2().floor() as i32 + 1
}

/// Largest shift of a layer at which the shortcut's ratio still has a multiplier.
pub(super) fn max_shift(ratio: f64) -> u8 {
    let fits = i32::from(host::Residual::MAX_SHIFT) + 30 - integer_bits(ratio);
    fits.clamp(1, i32::from(MAX_SHIFT)) as u8
}

/// Multiplier and left shift: `multiplier * 2^left / 2^shift` is `ratio`.
pub(super) fn residual(ratio: f64, shift: u8) -> (i32, u8) {
    // as few bits of the left shift as the multiplier's 31 bits leave
    let left = (i32::from(shift) + integer_bits(ratio) - 30).clamp(0, i32::from(host::Residual::MAX_SHIFT));
    let multiplier = (ratio * f64::from(i32::from(shift) - left).exp2()).round();
    (multiplier.min(f64::from(i32::MAX)) as i32, left as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_multiplier_has_31_bits() {
        for largest in [1e-6, 0.3, 1.0 - f64::EPSILON, 1.0, 7.5, 1e5] {
            let (found, shift) = multipliers(&[largest / 3.0, largest], MAX_SHIFT);
            assert!((1 << 30..=i32::MAX).contains(&found[1]) || shift == MAX_SHIFT, "{found:?}, {shift}");
            for (multiplier, ratio) in found.iter().zip([largest / 3.0, largest]) {
                let real = f64::from(*multiplier) / f64::from(shift).exp2();
                assert!((real / ratio - 1.0).abs() < 1e-8, "{real} {ratio}");
            }
        }
    }

    #[test]
    fn a_shortcut_shares_the_shift_of_its_layer() {
        for ratio in [1e-3, 0.5, 1.0, 3.0, 200.0] {
            let shift = max_shift(ratio).min(40);
            let (multiplier, left) = residual(ratio, shift);
            let real = f64::from(multiplier) * f64::from(i32::from(left) - i32::from(shift)).exp2();
            assert!((real / ratio - 1.0).abs() < 1e-6, "{real} {ratio}");
        }
    }
}
