//! Pooling over windows: its parameters.

use crate::base::error::LayerError;
use crate::base::shape::{Shape, Window};

/// Pooling over windows; the output keeps the input's scale and zero point.
#[derive(Debug, Clone, Copy)]
pub struct Pool2d {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) window: Window,
    pub(crate) kind: Pooling,
}

/// The kind of a pooling layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The largest value; padded positions never win.
    Max,
    /// The mean of the positions inside the tensor, rounded half away from zero.
    Average,
    /// The mean of all positions of the window, padded ones counting as real zeros.
    AveragePadded {
        /// The int8 value that stands for the real number zero.
        zero_point: i8,
    },
}

impl Pool2d {
    /// Pooling of `kind` over `input`.
    ///
    /// # Errors
    /// [`LayerError::Geometry`] if the window does not fit.
    pub fn new(input: Shape, window: Window, kind: Pooling) -> Result<Self, LayerError> {
        let output = window.output(input, input.channels).ok_or(LayerError::Geometry)?;
        Ok(Pool2d { input, output, window, kind })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        self.output
    }
}
