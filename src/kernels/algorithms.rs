//! What every algorithm for convolutions has to say, and the dispatch to the one that a layer names.
//!
//! The list is `for_each_algorithm!` in `ops/algorithm.rs`; from it the dispatch below is generated, without a wildcard
//! arm. Adding an algorithm is a line there, and a file here with its implementation.

use super::dsp::depthwise::Depthwise;
use super::dsp::direct::Direct;
use super::dsp::winograd::{Winograd, Winograd4, Winograd4AtRunTime, WinogradAtRunTime};
use super::reference::Reference;
use crate::base::quantization::Addition;
use crate::base::shape::Window;
use crate::ops::algorithm::for_each_algorithm;
use crate::ops::{Algorithm, Conv2d};

/// The sizes on which the packing of weights depends. They may come from a blob and be any.
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
    /// Bytes of plain weights; what 32 bits cannot count is too large for every section.
    pub(crate) const fn plain_bytes(&self) -> usize {
        let taps = if self.depthwise { 1 } else { self.channels };
        (self.window.positions() * taps).saturating_mul(self.outputs)
    }
}

/// A way to compute convolutions.
pub(crate) trait Convolution {
    /// What `skipstone inspect` calls it.
    const NAME: &'static str;

    /// Its bit among [`Kernels`](super::Kernels); algorithms that share their code share the bit.
    const KERNELS: u16;

    /// Strip heights worth trying.
    const STRIPS: &'static [u8];

    /// Whether it can compute the layer. Weights are not looked at, except for their alignment.
    fn supports(layer: &Conv2d<'_>) -> bool;

    /// Bytes of the weights as it needs them, of any sizes.
    fn weight_bytes(filters: &Filters) -> usize {
        filters.plain_bytes()
    }

    /// Packs plain weights (OHWI, depthwise HWC) into `packed`, which has [`Convolution::weight_bytes`] and is zero;
    /// `false` if it takes them as they are. Only the host calls this.
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

macro_rules! dispatch {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl Algorithm {
            /// What `skipstone inspect` calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Algorithm::$name => <$name as Convolution>::NAME,)* }
            }

            /// Its bit among [`Kernels`](super::Kernels).
            pub const fn kernels(self) -> u16 {
                match self { $(Algorithm::$name => <$name as Convolution>::KERNELS,)* }
            }

            /// Strip heights worth trying.
            pub const fn strips(self) -> &'static [u8] {
                match self { $(Algorithm::$name => <$name as Convolution>::STRIPS,)* }
            }
        }

        /// Whether a layer's algorithm can compute it.
        pub(crate) fn supports(layer: &Conv2d<'_>) -> bool {
            match layer.algorithm { $(Algorithm::$name => $name::supports(layer),)* }
        }

        /// Bytes of weights for an algorithm; 0 if the window is not valid.
        pub(crate) fn weight_bytes(algorithm: Algorithm, filters: &Filters) -> usize {
            if !filters.window.is_valid() {
                return 0;
            }
            match algorithm { $(Algorithm::$name => $name::weight_bytes(filters),)* }
        }

        /// Packs plain weights for an algorithm: see [`Convolution::pack`].
        pub(crate) fn pack(algorithm: Algorithm, plain: &[i8], filters: &Filters, packed: &mut [u32]) -> bool {
            match algorithm { $(Algorithm::$name => $name::pack(plain, filters, packed),)* }
        }

        /// Bytes of scratch memory that a layer's algorithm needs for a strip of `strip` rows.
        pub(crate) fn scratch_bytes(layer: &Conv2d<'_>, strip: usize) -> usize {
            let words = match layer.algorithm { $(Algorithm::$name => $name::scratch_words(layer, strip),)* };
            words.saturating_mul(size_of::<u32>())
        }

        /// Predicted cycles of a layer: see [`Convolution::cycles`].
        pub(crate) fn cycles(layer: &Conv2d<'_>, strip: usize) -> u64 {
            match layer.algorithm { $(Algorithm::$name => $name::cycles(layer, strip),)* }
        }

        /// Computes a strip of output rows by the layer's algorithm, which is one of `KERNELS`: the network rejects a
        /// model that needs others.
        pub(crate) fn run<const KERNELS: u16>(
            layer: &Conv2d<'_>,
            addition: Option<&Addition>,
            input: &[&[i8]],
            output: &mut [&mut [i8]],
            scratch: &mut [u32],
        ) {
            debug_assert!(layer.algorithm.kernels() & !KERNELS == 0, "a kernel that is not linked");
            match layer.algorithm {
                $(Algorithm::$name => {
                    if KERNELS & <$name as Convolution>::KERNELS != 0 {
                        $name::run(layer, addition, input, output, scratch);
                    }
                })*
            }
        }
    };
}
for_each_algorithm!(dispatch);
