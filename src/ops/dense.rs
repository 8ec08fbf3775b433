//! Fully connected layer: its parameters.

use super::checks::{check_accumulators, check_length};
use super::finish::Finish;
use crate::base::error::LayerError;
use crate::base::shape::Shape;

/// Fully connected layer over a whole tensor, flattened in HWC order.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    pub(crate) input: Shape,
    pub(crate) weights: &'a [i8],
    pub(crate) bias: &'a [i32],
    pub(crate) finish: Finish<'a>,
}

impl<'a> Dense<'a> {
    /// A dense layer over `input`: `weights` output by input, one `bias` for each output (as in
    /// [`Conv2d::new`]).
    ///
    /// # Errors
    /// [`LayerError`] if shapes, lengths or ranges do not fit, or a sum could overflow 32 bits.
    pub fn new(
        input: Shape,
        weights: &'a [i8],
        bias: &'a [i32],
        finish: Finish<'a>,
    ) -> Result<Self, LayerError> {
        if input.is_empty() || bias.is_empty() || u16::try_from(bias.len()).is_err() {
            return Err(LayerError::Geometry);
        }
        if matches!(finish, Finish::Mean(_)) {
            return Err(LayerError::Requantization);
        }
        check_length(weights.len(), input.len().saturating_mul(bias.len()))?;
        check_accumulators(bias, input.len())?;
        finish.check(bias.len())?;
        Ok(Dense { input, weights, bias, finish })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }
}
