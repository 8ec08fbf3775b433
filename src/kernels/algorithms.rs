//! The trait that every convolution algorithm implements, one file each.
//!
//! The list is `for_each_algorithm!` in `ops/algorithm.rs`; `dispatch` generates an exhaustive match from it. To add an
//! algorithm, add a line there and a file here with its implementation.

use crate::base::quantization::Addition;
use crate::base::shape::Window;
use crate::ops::Conv2d;

/// The sizes on which the packing of weights depends. They may come from an untrusted blob and have any value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filters {
    /// A valid window.
    pub(crate) window: Window,
    pub(crate) depthwise: bool,
    /// Input and output channels.
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
}

impl Filters {
    /// Bytes of plain weights, saturating: no section of a blob is that large.
    pub(crate) const fn plain_bytes(&self) -> usize {
        let taps = if self.depthwise { 1 } else { self.channels };
        (self.window.positions() * taps).saturating_mul(self.outputs)
    }
}

/// A way to compute convolutions.
pub(crate) trait Convolution {
    /// Its name in `skipstone inspect`.
    const NAME: &'static str;

    /// Its bit among [`Kernels`](super::Kernels); algorithms that share their code share the bit.
    const KERNELS: u16;

    /// Strip heights worth trying.
    const STRIPS: &'static [u8];

    /// Whether it can compute the layer. Of the weights, only the alignment is checked.
    fn supports(layer: &Conv2d<'_>) -> bool;

    /// Bytes of the weights in its packing, for any sizes.
    fn weight_bytes(filters: &Filters) -> usize {
        filters.plain_bytes()
    }

    /// Packs plain weights (OHWI, depthwise HWC) into `packed`, which has [`Convolution::weight_bytes`] and is zero;
    /// `false` if it uses them unpacked. Only the host calls this.
    fn pack(_plain: &[i8], _filters: &Filters, _packed: &mut [u32]) -> bool {
        false
    }

    /// Words of scratch memory for a strip of `strip` rows.
    fn scratch_words(_layer: &Conv2d<'_>, _strip: usize) -> usize {
        0
    }

    /// Predicted cycles of a whole layer in strips of `strip` rows on a Cortex-M4 without flash wait states, without
    /// rounding and storing its outputs. Only the host calls this.
    fn cycles(layer: &Conv2d<'_>, strip: usize) -> u64;

    /// Computes a strip of output rows; see the head of [`kernels`](super).
    fn run(
        layer: &Conv2d<'_>,
        addition: Option<&Addition>,
        input: &[&[i8]],
        output: &mut [&mut [i8]],
        scratch: &mut [u32],
    );
}
