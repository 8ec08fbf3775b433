//! Requantization: from 32-bit sums back to int8, with exactly one rounding (or, for models imported from
//! TensorFlow Lite that must keep its bits, with the several roundings of its reference kernels).
//!
//! ```text
//! y = clamp(zero_point + floor((acc * multiplier + residual + 2^(shift-1)) / 2^shift), min, max)
//! residual = ((shortcut - shortcut_zero_point) << residual_shift) * residual_multiplier
//! ```
//!
//! The sum is 64 bits wide, so that a block's addition needs no separate rounding. `shift` applies to
//! the whole layer, a multiplier to one output channel. With `shift` of 33 or more this is one `SMMLA` and
//! one shift with saturation on a Cortex-M with the DSP extension, because the lower 32 bits of the
//! product cannot change the floor. Ranges (checked by [`Requantize::new`] and [`Residual::new`])
//! keep every sum inside an i64: |acc * multiplier| <= 2^62, |residual| <= 2^59, half <= 2^55.

use crate::base::clamp::Clamp;
use crate::base::error::LayerError;
use crate::base::tflite::{Scaling, Sum};

/// How often a value is rounded on its way back to int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding<'a> {
    /// Once, by multiplier / 2^shift.
    Once {
        /// 1 to [`Requantize::MAX_SHIFT`].
        shift: u8,
    },
    /// Twice, as TensorFlow Lite's reference kernels do, by multiplier * 2^(shift - 31).
    Twice {
        /// One for each multiplier, -31 to 30.
        shifts: &'a [i8],
    },
}

/// Per-channel requantization of a layer's sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requantize<'a> {
    multipliers: &'a [i32],
    rounding: Rounding<'a>,
    clamp: Clamp,
}

impl<'a> Requantize<'a> {
    /// Largest shift.
    pub const MAX_SHIFT: u8 = 56;

    /// Requantization by `multipliers[channel] / 2^shift`, rounded once.
    ///
    /// # Errors
    /// [`LayerError::Requantization`] if a multiplier is negative, the shift is not in 1..=56, or
    /// the clamp is empty or does not contain its zero point.
    pub fn new(multipliers: &'a [i32], shift: u8, clamp: Clamp) -> Result<Self, LayerError> {
        Self::with_rounding(multipliers, Rounding::Once { shift }, clamp)
    }

    /// Requantization by `multipliers[channel]`, rounded as `rounding` says.
    ///
    /// # Errors
    /// As [`Requantize::new`]; [`LayerError::Length`] if there is not one shift for each multiplier.
    pub fn with_rounding(
        multipliers: &'a [i32],
        rounding: Rounding<'a>,
        clamp: Clamp,
    ) -> Result<Self, LayerError> {
        clamp.check()?;
        match rounding {
            Rounding::Once { shift } if (1..=Self::MAX_SHIFT).contains(&shift) => {}
            Rounding::Once { .. } => return Err(LayerError::Requantization),
            Rounding::Twice { shifts } if shifts.len() != multipliers.len() => {
                return Err(LayerError::Length { needed: multipliers.len(), given: shifts.len() });
            }
            Rounding::Twice { shifts } if shifts.iter().all(|shift| (-31..=30).contains(shift)) => {}
            Rounding::Twice { .. } => return Err(LayerError::Requantization),
        }
        if multipliers.iter().any(|multiplier| *multiplier < 0) {
            return Err(LayerError::Requantization);
        }
        Ok(Requantize { multipliers, rounding, clamp })
    }

    /// One multiplier per output channel.
    pub const fn multipliers(&self) -> &'a [i32] {
        self.multipliers
    }

    /// How often a value is rounded.
    pub const fn rounding(&self) -> Rounding<'a> {
        self.rounding
    }

    /// The output's zero point and range.
    pub const fn clamp(&self) -> Clamp {
        self.clamp
    }

    /// The scale of each channel: multiplier and shift, as [`Requantize::apply`] takes them.
    pub fn scalings(&self) -> impl Iterator<Item = Scaling> + use<'a> {
        let requantize = *self;
        (0..self.multipliers.len()).map_while(move |channel| requantize.scaling(channel))
    }

    /// The scale of a channel, or the one for all channels.
    pub fn scaling(&self, channel: usize) -> Option<Scaling> {
        let channel = if self.multipliers.len() == 1 { 0 } else { channel };
        let shift = match self.rounding {
            Rounding::Once { shift } => shift as i8, // at most 56
            Rounding::Twice { shifts } => *shifts.get(channel)?,
        };
        Some(Scaling { multiplier: *self.multipliers.get(channel)?, shift })
    }

    /// The output value for the sum `acc` of a channel with this scale; in a block's last convolution
    /// with its addition and the shortcut's value.
    pub fn apply(&self, acc: i32, scaling: Scaling, addition: Option<(&Addition, i8)>) -> i8 {
        let once = |residual: i64| {
            let shift = scaling.shift.unsigned_abs().clamp(1, Self::MAX_SHIFT);
            let sum = i64::from(acc) * i64::from(scaling.multiplier) + residual + (1 << (shift - 1));
            self.clamp.apply(sum >> shift)
        };
        match (self.rounding, addition) {
            (Rounding::Once { .. }, None) => once(0),
            (Rounding::Once { .. }, Some((Addition::Fused(residual), shortcut))) => {
                once(residual.term(shortcut))
            }
            (_, addition) => {
                let value = match self.rounding {
                    Rounding::Once { .. } => once(0),
                    Rounding::Twice { .. } => self.clamp.apply(scaling.apply(acc).into()),
                };
                match addition {
                    Some((Addition::Separate(sum), shortcut)) => {
                        sum.apply(value, self.clamp.zero_point, shortcut)
                    }
                    _ => value, // `Block::new` lets a fused addition follow one rounding only
                }
            }
        }
    }
}

/// A block's addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Addition {
    /// In the last convolution's 64-bit sum: one rounding.
    Fused(Residual),
    /// Of two int8 values, as TensorFlow Lite's reference kernels do: three more roundings.
    Separate(Sum),
}

impl Addition {
    pub(crate) fn check(&self) -> Result<(), LayerError> {
        match self {
            Addition::Fused(residual) => residual.check(),
            Addition::Separate(sum) => sum.check(),
        }
    }

    /// Zero point of the shortcut's tensor.
    pub const fn shortcut_zero_point(&self) -> i8 {
        match self {
            Addition::Fused(residual) => residual.zero_point,
            Addition::Separate(sum) => sum.shortcut_zero_point,
        }
    }
}

impl From<Residual> for Addition {
    fn from(residual: Residual) -> Self {
        Addition::Fused(residual)
    }
}

/// How a shortcut's int8 values enter the 64-bit sum of the block's last convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// [`LayerError::Requantization`] if the multiplier is negative or the shift is above 20.
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
