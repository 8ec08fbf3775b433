//! The kernels: what makes rows out of rows.
//!
//! | function | makes |
//! |---|---|
//! | `conv2d` | a strip of output rows of a convolution, with or without a block's addition |
//! | `pool2d` | a strip of output rows of a pooling layer |
//! | `dense` | the products of one input row, added to a dense layer's sums |
//! | `global_average_pool` | one input row, added to the pooling sums |
//!
//! Kernels see slices and plain parameter structs, never blobs, arenas or models. Input rows come as
//! slices; an *empty* slice is a row of padding. Output rows of a strip are `stride` input rows apart:
//! output row i reads `input[i * stride..][..kernel]`. With a block's addition, an output row holds the
//! shortcut's values on entry.
//!
//! `reference` is the obvious loops: the oracle that all others equal bit for bit. `dsp` is made for
//! cores with the DSP extension (Cortex-M4, M7, M33) and runs everywhere: where the instructions are
//! missing, their portable twins stand in for them, so that the same loops are tested on the host. The
//! plan says for each convolution which it is ([`Algorithm`]).

pub(crate) mod conv2d;
pub(crate) mod dsp;
mod reference;
#[cfg(any(test, feature = "self-test"))]
pub(crate) mod tests;

use crate::base::quantization::Addition;
use crate::base::shape::{Shape, Window};
use crate::ops::{Algorithm, Conv2d, Windowed};

pub(crate) use dsp::dense;
pub(crate) use reference::global_average_pool;
use reference::pool2d;

/// Kernels that a network needs or a program has, as a set of bits: a program that says which it needs
/// is linked without the others ([`Network`](crate::Network), [`kernels`](crate::kernels)).
#[derive(Debug)]
pub struct Kernels;

impl Kernels {
    /// Convolutions by the obvious loops ([`Algorithm::Reference`]).
    pub const REFERENCE: u16 = 1;
    /// [`Algorithm::Direct`].
    pub const DIRECT: u16 = 1 << 1;
    /// [`Algorithm::Winograd`] and its like.
    pub const WINOGRAD: u16 = 1 << 2;
    /// Depthwise convolutions by [`Algorithm::Direct`].
    pub const DEPTHWISE: u16 = 1 << 3;
    /// Pooling over windows.
    pub const POOLING: u16 = 1 << 4;
    /// All that there are.
    pub const ALL: u16 = (1 << 5) - 1;
}

/// A strip of output rows by one of `KERNELS`, among which the layer's is; an empty input row is
/// padding. With `addition`, `output` holds the shortcut's values on entry. `scratch` has
/// [`scratch_bytes`].
pub(crate) fn strip<const KERNELS: u16>(
    layer: &Windowed<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    match layer {
        Windowed::Conv2d(layer) => conv2d::<KERNELS>(layer, addition, input, output, scratch),
        Windowed::Pool2d(layer) if KERNELS & Kernels::POOLING != 0 => pool2d(layer, input, output),
        Windowed::Pool2d(_) => {}
    }
}

fn conv2d<const KERNELS: u16>(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let has = |kernels: u16| KERNELS & kernels != 0;
    match layer.algorithm {
        Algorithm::Reference if has(Kernels::REFERENCE) => reference::conv2d(layer, addition, input, output),
        Algorithm::Direct if layer.depthwise && has(Kernels::DEPTHWISE) => {
            dsp::depthwise::conv2d(layer, addition, input, output);
        }
        Algorithm::Direct if !layer.depthwise && has(Kernels::DIRECT) => {
            dsp::direct::conv2d(layer, addition, input, output, scratch);
        }
        Algorithm::Winograd
        | Algorithm::WinogradAtRunTime
        | Algorithm::Winograd4
        | Algorithm::Winograd4AtRunTime
            if has(Kernels::WINOGRAD) =>
        {
            dsp::winograd::conv2d(layer, addition, input, output, scratch);
        }
        _ => {} // `Network::new` refuses a model whose kernels are not there
    }
}

/// Bytes of a convolution's weights.
pub(crate) fn weight_bytes(
    window: &Window,
    input: Shape,
    outputs: usize,
    depthwise: bool,
    algorithm: Algorithm,
) -> usize {
    let channels = usize::from(input.channels);
    if !window.is_valid() {
        return 0; // no layer has such a window
    }
    // shapes come from a blob: what 32 bits cannot count is too large for every section
    match algorithm {
        _ if depthwise => window.positions() * outputs,
        Algorithm::Reference | Algorithm::WinogradAtRunTime | Algorithm::Winograd4AtRunTime => {
            (window.positions() * channels).saturating_mul(outputs)
        }
        Algorithm::Direct => dsp::direct::weight_words(window, channels, outputs).saturating_mul(4),
        Algorithm::Winograd | Algorithm::Winograd4 => {
            dsp::winograd::weight_words(window, algorithm, channels, outputs).saturating_mul(4)
        }
    }
}

/// Whether a convolution's algorithm can compute it.
pub(crate) fn serves(layer: &Conv2d<'_>) -> bool {
    let aligned = layer.weights.as_ptr().align_offset(4) == 0;
    match layer.algorithm {
        Algorithm::Reference => true,
        Algorithm::Direct => layer.depthwise || aligned,
        _ => aligned && !layer.depthwise && dsp::winograd::serves(layer),
    }
}

/// Bytes of scratch memory for a strip of `strip` rows.
pub(crate) fn scratch_bytes(layer: &Conv2d<'_>, strip: usize) -> usize {
    let words = match layer.algorithm {
        Algorithm::Reference => 0,
        Algorithm::Direct if layer.depthwise => 0,
        Algorithm::Direct => dsp::direct::scratch_words(
            &layer.window,
            layer.input.channels.into(),
            layer.output.channels.into(),
        ),
        _ => dsp::winograd::scratch_words(layer, strip),
    };
    words.saturating_mul(4)
}
