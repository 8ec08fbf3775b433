//! Calls the implementation of the algorithm that a layer names, without a wildcard arm.

use super::algorithms::{Convolution, Filters};
use super::dsp::depthwise::Depthwise;
use super::dsp::direct::Direct;
use super::dsp::winograd::{Winograd, Winograd4, Winograd4AtRunTime, WinogradAtRunTime};
use super::reference::Reference;
use crate::base::quantization::Addition;
use crate::ops::algorithm::for_each_algorithm;
use crate::ops::{Algorithm, Conv2d};

macro_rules! dispatch {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl Algorithm {
            /// Its name in `skipstone inspect`.
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
