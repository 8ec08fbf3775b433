//! The int8 range of a tensor.

use crate::base::error::LayerError;

/// Zero point and range of a tensor's int8 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Clamp {
    /// The int8 value that represents the real number zero.
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

    pub(crate) fn check(self) -> Result<(), LayerError> {
        let holds = self.min <= self.zero_point && self.zero_point <= self.max;
        if holds { Ok(()) } else { Err(LayerError::Requantization) }
    }

    /// The int8 value nearest to `zero_point + scaled` within the clamp.
    pub fn apply(self, scaled: i64) -> i8 {
        let low = i64::from(self.min) - i64::from(self.zero_point);
        let high = i64::from(self.max) - i64::from(self.zero_point);
        // in range after the clamp, whose bounds are int8 values less the zero point
        (scaled.max(low).min(high) + i64::from(self.zero_point)) as i8
    }
}
