//! Layers that make an output row from the input rows under a window.

use super::conv2d::Conv2d;
use super::pool2d::Pool2d;
use crate::base::shape::{Shape, Window};

/// A layer that makes an output row from the input rows under its window.
#[derive(Debug, Clone, Copy)]
pub enum Windowed<'a> {
    /// Convolution.
    Conv2d(Conv2d<'a>),
    /// Pooling.
    Pool2d(Pool2d),
}

impl Windowed<'_> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match self {
            Windowed::Conv2d(layer) => layer.input(),
            Windowed::Pool2d(layer) => layer.input(),
        }
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        match self {
            Windowed::Conv2d(layer) => layer.output(),
            Windowed::Pool2d(layer) => layer.output(),
        }
    }

    /// Kernel, stride and padding.
    pub const fn window(&self) -> Window {
        match self {
            Windowed::Conv2d(layer) => layer.window,
            Windowed::Pool2d(layer) => layer.window,
        }
    }
}
