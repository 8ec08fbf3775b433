//! Depthwise convolution, four channels at a time.
//!
//! ```text
//! for each output row, pixel, four channels:
//!     for each position of the window:
//!         sums[channel] += value[channel] * weight[channel]
//! ```
//!
//! A word of the input and a word of the weights (HWC) hold the same four channels, so nothing has to be
//! rearranged; `SXTB16` widens two of them at a time and `SMLABB`, `SMLATT` (which the compiler knows)
//! multiply the halves. The last channels, if fewer than four, are padded with zeros.

use super::epilogue::Epilogue;
use super::primitives::{high, low, sxtb16, sxtb16_ror8};
use crate::base::quantization::Addition;
use crate::kernels::algorithms::Convolution;
use crate::kernels::set::Kernels;
use crate::ops::Conv2d;

/// Depthwise convolutions.
pub(in crate::kernels) struct Depthwise;

impl Convolution for Depthwise {
    const NAME: &'static str = "depthwise";
    const KERNELS: u16 = Kernels::DEPTHWISE;
    const STRIPS: &'static [u8] = &[1];

    fn supports(layer: &Conv2d<'_>) -> bool {
        layer.depthwise
    }

    fn cycles(layer: &Conv2d<'_>, _strip: usize) -> u64 {
        6 * layer.macs() + 20 * layer.output.len() as u64
    }

    fn run(
        layer: &Conv2d<'_>,
        addition: Option<&Addition>,
        input: &[&[i8]],
        output: &mut [&mut [i8]],
        _scratch: &mut [u32],
    ) {
        conv2d(layer, addition, input, output);
    }
}

/// A strip of output rows; see the module's head.
#[inline(never)]
fn conv2d(layer: &Conv2d<'_>, addition: Option<&Addition>, input: &[&[i8]], output: &mut [&mut [i8]]) {
    let epilogue = Epilogue::new(layer, addition, 0);
    let channels = usize::from(layer.input.channels).max(1);
    let stride = usize::from(layer.window.stride[0]);
    for (y, row) in output.iter_mut().enumerate() {
        let rows = input.get(y * stride..).unwrap_or_default();
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            let left = layer.window.first_column(x);
            for first in (0..channels).step_by(4) {
                let sums = sums(layer, rows, left, first);
                for (channel, (y, sum)) in (first..).zip(pixel.iter_mut().skip(first).zip(sums)) {
                    *y = epilogue.finish(sum, channel, *y);
                }
            }
        }
    }
}

/// The sums of four channels from `first` on, over the window that starts at column `left`; those
/// beyond the last channel are not used.
#[inline(always)]
fn sums(layer: &Conv2d<'_>, rows: &[&[i8]], left: isize, first: usize) -> [i32; 4] {
    let channels = usize::from(layer.input.channels).max(1);
    let [kernel_height, kernel_width] = layer.window.kernel.map(usize::from);
    let mut sums = [0; 4];
    for (sum, bias) in sums.iter_mut().zip(layer.bias.iter().skip(first)) {
        *sum = *bias;
    }
    let weights = layer.weights.chunks_exact((kernel_width * channels).max(1));
    for (row, weights) in rows.iter().take(kernel_height).zip(weights) {
        for (column, weights) in (left..).zip(weights.chunks_exact(channels)) {
            let inside = usize::try_from(column)
                .ok()
                .and_then(|column| row.get(column * channels..(column + 1) * channels));
            let (x, w) = (four(inside.unwrap_or(layer.padding_pixel), first), four(weights, first));
            let [a, b, c, d] = &mut sums;
            let (x_even, w_even, x_odd, w_odd) = (sxtb16(x), sxtb16(w), sxtb16_ror8(x), sxtb16_ror8(w));
            *a += low(x_even) * low(w_even);
            *b += low(x_odd) * low(w_odd);
            *c += high(x_even) * high(w_even);
            *d += high(x_odd) * high(w_odd);
        }
    }
    sums
}

/// Four bytes from `first` on, padded with zeros.
#[inline(always)]
fn four(bytes: &[i8], first: usize) -> u32 {
    let bytes = bytes.get(first..).unwrap_or_default();
    match bytes.first_chunk::<4>() {
        Some(bytes) => u32::from_le_bytes(bytes.map(i8::cast_unsigned)),
        None => (0..)
            .zip(bytes)
            .fold(0, |word, (byte, value)| word | u32::from(value.cast_unsigned()) << (8 * byte)),
    }
}
