//! The operators' parameters as plain structs over slices, checked once when they are constructed; one file each.
//!
//! There are two kinds. A *windowed* layer computes an output row from the input rows under its window
//! ([`Conv2d`], [`Pool2d`]). A *reduction* adds its input row by row to 32-bit sums, over any time, and
//! has one output row at the end ([`Dense`], [`GlobalAveragePool`]). Tensors are NHWC, rows are
//! slices of width x channels int8 values.

pub(crate) mod algorithm;
pub(crate) mod checks;
pub(crate) mod conv2d;
pub(crate) mod dense;
pub(crate) mod finish;
pub(crate) mod global_average_pool;
pub(crate) mod pool2d;
pub(crate) mod reduction;
pub(crate) mod softmax;
pub(crate) mod subsample;

pub use algorithm::Algorithm;
pub use conv2d::Conv2d;
pub use dense::Dense;
pub use finish::Finish;
pub(crate) use finish::Finished;
pub use global_average_pool::GlobalAveragePool;
pub use pool2d::{Pool2d, Pooling};
pub use reduction::Reduction;
pub use softmax::Softmax;
pub use subsample::Subsample;

use crate::base::shape::{Shape, Window};

/// A layer that computes an output row from the input rows under its window.
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

    /// Its name in reports.
    pub const fn kind(&self) -> &'static str {
        match self {
            Windowed::Conv2d(layer) if layer.depthwise => "depthwise convolution",
            Windowed::Conv2d(_) => "convolution",
            Windowed::Pool2d(layer) => match layer.kind {
                Pooling::Max => "max pooling",
                Pooling::Average | Pooling::AveragePadded { .. } => "average pooling",
            },
        }
    }
}
