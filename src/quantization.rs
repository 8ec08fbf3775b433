//! Requantization: from 32-bit sums back to int8, with exactly one rounding.
//!
//! ```text
//! y = clamp(zero_point + floor((acc * multiplier + residual + 2^(shift-1)) / 2^shift), min, max)
//! residual = ((shortcut - shortcut_zero_point) << residual_shift) * residual_multiplier
//! ```
//!
//! The sum is 64 bits wide, so that a block's addition costs no rounding of its own. `shift` serves a
//! whole layer, a multiplier each output channel. With `shift` of 33 or more this is one `SMMLA` and
//! one shift with saturation on a Cortex-M with the DSP extension, because the lower 32 bits of the
//! product cannot change the floor. Ranges (checked by [`Requantize::new`] and [`Residual::new`])
//! keep every sum inside an i64: |acc * multiplier| <= 2^62, |residual| <= 2^59, half <= 2^55.

use serde::{Deserialize, Serialize};

use crate::error::LayerError;

/// How a tensor's int8 values stand for real numbers, and where they are clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Clamp {
    /// The int8 value that stands for the real number zero.
    pub zero_point: i8,
    /// Smallest value: `zero_point` after a ReLU, else -128.
    pub min: i8,
    /// Largest value: that of the real number 6 after a ReLU6, else 127.
    pub max: i8,
}

impl Clamp {
    /// No activation: the whole int8 range.
    pub const fn none(zero_point: i8) -> Self {
        Clamp { zero_point, min: i8::MIN, max: i8::MAX }
    }

    /// ReLU: nothing below the zero point.
    pub const fn relu(zero_point: i8) -> Self {
        Clamp { zero_point, min: zero_point, max: i8::MAX }
    }

    /// The int8 value nearest to `zero_point + scaled` within the clamp.
    pub fn apply(self, scaled: i64) -> i8 {
        let low = i64::from(self.min) - i64::from(self.zero_point);
        let high = i64::from(self.max) - i64::from(self.zero_point);
        // in range after the clamp, whose bounds are int8 values less the zero point
        (scaled.max(low).min(high) + i64::from(self.zero_point)) as i8
    }
}

/// Per-channel requantization of a layer's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requantize<'a> {
    multipliers: &'a [i32],
    shift: u8,
    clamp: Clamp,
}

impl<'a> Requantize<'a> {
    /// Largest shift.
    pub const MAX_SHIFT: u8 = 56;

    /// Requantization by `multipliers[channel] / 2^shift`.
    ///
    /// # Errors
    /// [`LayerError::Requantization`] where a multiplier is negative, the shift is not in 1..=56, or
    /// the clamp is empty or does not hold its zero point.
    pub fn new(multipliers: &'a [i32], shift: u8, clamp: Clamp) -> Result<Self, LayerError> {
        let clamp_holds = clamp.min <= clamp.zero_point && clamp.zero_point <= clamp.max;
        if !(1..=Self::MAX_SHIFT).contains(&shift) || !clamp_holds || multipliers.iter().any(|m| *m < 0) {
            return Err(LayerError::Requantization);
        }
        Ok(Requantize { multipliers, shift, clamp })
    }

    /// One multiplier per output channel.
    pub const fn multipliers(&self) -> &'a [i32] {
        self.multipliers
    }

    /// The output's zero point and range.
    pub const fn clamp(&self) -> Clamp {
        self.clamp
    }

    /// The output value for the sum `acc` of a channel with `multiplier`; `residual` is the
    /// shortcut's term ([`Residual::term`]), 0 without a shortcut.
    pub fn apply(&self, acc: i32, multiplier: i32, residual: i64) -> i8 {
        let half = 1i64 << (self.shift - 1);
        self.clamp.apply((i64::from(acc) * i64::from(multiplier) + residual + half) >> self.shift)
    }
}

/// How a shortcut's int8 values enter the 64-bit sum of the block's last convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Residual {
    /// Zero point of the shortcut's tensor.
    pub zero_point: i8,
    /// Multiplier: `multiplier * 2^shift / 2^requantize_shift` is the shortcut's scale over the output's.
    pub multiplier: i32,
    /// Left shift, 0 to [`Residual::MAX_SHIFT`], that lets the multiplier keep its 31 bits.
    pub shift: u8,
}

impl Residual {
    /// Largest left shift.
    pub const MAX_SHIFT: u8 = 20;

    /// A shortcut with `zero_point` that enters as `(value - zero_point) << shift) * multiplier`.
    ///
    /// # Errors
    /// [`LayerError::Requantization`] where the multiplier is negative or the shift is above 20.
    pub fn new(zero_point: i8, multiplier: i32, shift: u8) -> Result<Self, LayerError> {
        let residual = Residual { zero_point, multiplier, shift };
        residual.check()?;
        Ok(residual)
    }

    pub(crate) fn check(&self) -> Result<(), LayerError> {
        if self.multiplier < 0 || self.shift > Self::MAX_SHIFT {
            return Err(LayerError::Requantization);
        }
        Ok(())
    }

    /// The term of one shortcut value in the 64-bit sum.
    pub fn term(&self, value: i8) -> i64 {
        ((i64::from(value) - i64::from(self.zero_point)) << self.shift) * i64::from(self.multiplier)
    }
}
