//! Global average pooling: its parameters.

use super::finish::Finish;
use crate::base::error::LayerError;
use crate::base::shape::Shape;

/// Mean over height and width: H x W x C becomes 1 x 1 x C, with 32-bit sums and one rounding.
#[derive(Debug, Clone, Copy)]
pub struct GlobalAveragePool<'a> {
    pub(crate) input: Shape,
    pub(crate) zero_point: i8,
    pub(crate) finish: Finish<'a>,
}

impl<'a> GlobalAveragePool<'a> {
    /// Global average pooling over `input`, whose real zero is `zero_point`; the multipliers (or scales)
    /// of `finish` include the division by height x width.
    ///
    /// # Errors
    /// [`LayerError`] if shapes, lengths or ranges do not fit, or a sum could overflow 32 bits.
    pub fn new(input: Shape, zero_point: i8, finish: Finish<'a>) -> Result<Self, LayerError> {
        if input.is_empty() {
            return Err(LayerError::Geometry);
        }
        // every position adds at most |x - zero_point| <= 255
        let positions = i64::from(input.height) * i64::from(input.width);
        if positions * 256 > i64::from(i32::MAX) {
            return Err(LayerError::Accumulator { channel: 0 });
        }
        finish.check(usize::from(input.channels))?;
        if matches!(finish, Finish::Mean(_)) && zero_point != 0 {
            return Err(LayerError::Requantization);
        }
        Ok(GlobalAveragePool { input, zero_point, finish })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }
}

/// sum / count, rounded half away from zero, as TensorFlow Lite does; 0 if `count` is 0.
pub(crate) fn mean(sum: i32, count: i32) -> i32 {
    let half = if sum > 0 { count / 2 } else { -(count / 2) };
    (sum + half).checked_div(count).unwrap_or(0)
}
