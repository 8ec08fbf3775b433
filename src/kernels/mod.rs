//! The kernels: they compute rows from rows.
//!
//! | function | computes |
//! |---|---|
//! | `strip` | a strip of output rows of a convolution, with or without a residual addition, or of a pooling layer |
//! | `dense` | the products of one input row, added to a dense layer's sums |
//! | `global_average_pool` | one input row, added to the pooling sums |
//!
//! Kernels see slices and plain parameter structs, never blobs, arenas or models. Input rows come as slices; an *empty*
//! slice is a row of padding. Output rows of a strip are `stride` input rows apart: output row i reads
//! `input[i * stride..][..kernel]`. With an addition, an output row holds the shortcut's values on entry.
//!
//! `reference` consists of the obvious loops, the oracle that all others match bit for bit. `dsp` targets cores with
//! the DSP extension (Cortex-M4, M7, M33) and runs everywhere: where the instructions are missing, portable twins
//! replace them, so the host tests the same loops. The plan names an algorithm for each convolution
//! ([`Algorithm`](crate::ops::Algorithm)), which implements the trait in `algorithms`; `dispatch` calls it.

mod algorithms;
pub(crate) mod conv2d;
mod dispatch;
pub(crate) mod dsp;
mod reference;
mod set;
#[cfg(any(test, feature = "self-test"))]
pub(crate) mod tests;

use crate::base::quantization::Addition;
use crate::ops::softmax::softmax;
use crate::ops::{Softmax, Windowed};

pub(crate) use algorithms::Filters;
pub(crate) use dispatch::{cycles, pack, scratch_bytes, supports, weight_bytes};
pub(crate) use dsp::dense;
pub(crate) use reference::global_average_pool;
use reference::pool2d;
pub use set::Kernels;

impl Softmax {
    /// The kernel that it needs.
    pub const fn kernels(&self) -> u16 {
        match self {
            Softmax::None | Softmax::Float => 0,
            Softmax::Fixed(_) => Kernels::FIXED_SOFTMAX,
        }
    }

    /// Normalizes class scores in place; `KERNELS` are linked.
    pub(crate) fn apply<const KERNELS: u16>(self, scores: &mut [f32]) {
        debug_assert!(self.kernels() & !KERNELS == 0, "a kernel that is not linked");
        match self {
            Softmax::None => {}
            Softmax::Float => softmax(scores),
            Softmax::Fixed(fixed) => {
                if KERNELS & Kernels::FIXED_SOFTMAX != 0 {
                    fixed.apply(scores);
                }
            }
        }
    }
}

impl Windowed<'_> {
    /// The kernel that the layer needs.
    pub const fn kernels(&self) -> u16 {
        match self {
            Windowed::Conv2d(layer) => layer.algorithm.kernels(),
            Windowed::Pool2d(_) => Kernels::POOLING,
        }
    }
}

/// Computes a strip of output rows with one of `KERNELS`, which include the layer's; an empty input row is padding.
/// With `addition`, `output` holds the shortcut's values on entry. `scratch` has [`scratch_bytes`].
pub(crate) fn strip<const KERNELS: u16>(
    layer: &Windowed<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    match layer {
        Windowed::Conv2d(layer) => dispatch::run::<KERNELS>(layer, addition, input, output, scratch),
        Windowed::Pool2d(layer) => {
            debug_assert!(KERNELS & Kernels::POOLING != 0, "a kernel that is not linked");
            if KERNELS & Kernels::POOLING != 0 {
                pool2d(layer, input, output);
            }
        }
    }
}
