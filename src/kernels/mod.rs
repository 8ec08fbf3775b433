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

pub(crate) mod dsp;
mod reference;
#[cfg(test)]
mod tests;

use crate::layer::{Algorithm, Conv2d};
use crate::quantization::Addition;
use crate::shape::{Shape, Window};

pub(crate) use dsp::dense;
pub(crate) use reference::{global_average_pool, pool2d};

/// A strip of output rows; with `addition`, `output` holds the shortcut's values on entry. `scratch`
/// has [`scratch_bytes`].
pub(crate) fn conv2d(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    match layer.algorithm {
        Algorithm::Reference => reference::conv2d(layer, addition, input, output),
        Algorithm::Direct if layer.depthwise => dsp::depthwise::conv2d(layer, addition, input, output),
        Algorithm::Direct => dsp::direct::conv2d(layer, addition, input, output, scratch),
        Algorithm::Winograd | Algorithm::WinogradAtRunTime => {
            dsp::winograd::conv2d(layer, addition, input, output, scratch);
        }
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
    match algorithm {
        _ if depthwise => window.positions() * outputs,
        Algorithm::Reference | Algorithm::WinogradAtRunTime => window.positions() * channels * outputs,
        Algorithm::Direct => 4 * dsp::direct::weight_words(window, channels, outputs),
        Algorithm::Winograd => 4 * dsp::winograd::weight_words(window, channels, outputs),
    }
}

/// Whether a convolution's algorithm can compute it.
pub(crate) fn serves(layer: &Conv2d<'_>) -> bool {
    let aligned = layer.weights.as_ptr().align_offset(4) == 0;
    match layer.algorithm {
        Algorithm::Reference => true,
        Algorithm::Direct => layer.depthwise || aligned,
        Algorithm::Winograd | Algorithm::WinogradAtRunTime => {
            let serves = dsp::winograd::serves(&layer.window, layer.input, layer.output, layer.bias);
            aligned && serves && !layer.depthwise
        }
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
        Algorithm::Winograd => dsp::winograd::scratch_words(layer, strip, false),
        Algorithm::WinogradAtRunTime => dsp::winograd::scratch_words(layer, strip, true),
    };
    4 * words
}
