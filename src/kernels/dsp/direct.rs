//! Direct convolution of any window over packed int8 weights.
//!
//! ```text
//! for each output row:
//!     for each four pixels of it:
//!         values = the four windows, as pairs of int16          (widen)
//!         for each two output channels:
//!             sums = biases; sums += values . weights           (products::packed)
//!             round, and store what lies inside the row
//! ```
//!
//! A row of the kernel is one run of bytes in the input's row, width x channels of them, and goes four
//! bytes at a time: `SXTB16` gives bytes 0 and 2 as a pair of taps, `SXTB16 ROR #8` bytes 1 and 3. A run
//! that is no multiple of four bytes is filled up with taps that weigh nothing. Where the window hangs
//! over the row's ends, its run is put together from pixels and padding first.

use super::epilogue::{Any, Epilogue, with_epilogue};
use super::primitives::{sxtb16, sxtb16_ror8};
use super::products::{COLUMNS, Sums, packed};
use crate::layer::Conv2d;
use crate::quantization::Addition;
use crate::shape::Window;

/// Words of a run of the kernel's width, for `channels` input channels.
const fn run_words(window: &Window, channels: usize) -> usize {
    (window.kernel[1] as usize * channels).div_ceil(4)
}

/// Pairs of taps of a window.
pub(crate) const fn pairs(window: &Window, channels: usize) -> usize {
    2 * window.kernel[0] as usize * run_words(window, channels)
}

/// Words of packed weights.
pub(crate) const fn weight_words(window: &Window, channels: usize, outputs: usize) -> usize {
    pairs(window, channels) * outputs.div_ceil(2)
}

/// Words of scratch memory: the values of four pixels, and a run.
pub(crate) const fn scratch_words(window: &Window, channels: usize) -> usize {
    COLUMNS * pairs(window, channels) + run_words(window, channels)
}

/// Packs OHWI `weights` of `outputs` filters: for each two channels a word for each pair of taps, in
/// the order in which runs are widened. `packed` has [`weight_words`] words, all zero.
pub fn pack(weights: &[i8], window: &Window, channels: usize, packed: &mut [u32]) {
    let run = (window.kernel[1] as usize * channels).max(1);
    let height = (window.kernel[0] as usize).max(1);
    let (words, pairs) = (run_words(window, channels), pairs(window, channels).max(1));
    for (index, weights) in weights.chunks_exact(run).enumerate() {
        let (output, row) = (index / height, index % height);
        for (tap, weight) in weights.iter().enumerate() {
            // bytes 0, 1, 2, 3 of a word are taps (0, 2) of the first pair and (1, 3) of the second
            let pair = 2 * (row * words + tap / 4) + tap % 2;
            let byte = 2 * (tap % 4 / 2) + output % 2;
            if let Some(word) = packed.get_mut(output / 2 * pairs + pair) {
                *word |= u32::from(weight.cast_unsigned()) << (8 * byte);
            }
        }
    }
}

/// A strip of output rows; see the module's head.
pub(crate) fn conv2d(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    with_epilogue!(layer, addition, 0, |epilogue| {
        strip(layer, addition, epilogue, input, output, scratch);
    });
}

#[inline(never)]
fn strip<E: Epilogue>(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    epilogue: &E,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let channels = usize::from(layer.input.channels);
    let outputs = usize::from(layer.output.channels).max(1);
    let pairs = pairs(&layer.window, channels).max(1);
    let Some((values, run)) = scratch.split_at_mut_checked(COLUMNS * pairs) else { return };
    let weights: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    let stride = usize::from(layer.window.stride[0]);
    for (y, row) in output.iter_mut().enumerate() {
        let rows = input.get(y * stride..).unwrap_or_default();
        for (tile, pixels) in row.chunks_mut(COLUMNS * outputs).enumerate() {
            for column in 0..pixels.len() / outputs {
                widen(layer, rows, COLUMNS * tile + column, values, column, run);
            }
            let biases = layer.bias.chunks(2);
            for ((channel, weights), bias) in (0..).step_by(2).zip(weights.chunks_exact(pairs)).zip(biases) {
                let (first, second) = (bias.first().copied(), bias.get(1).copied());
                let bias = [first.unwrap_or(0), second.unwrap_or(0)];
                let mut sums: Sums = [bias[0], bias[1], bias[0], bias[1], bias[0], bias[1], bias[0], bias[1]];
                packed(values, weights, &mut sums);
                if pixels.len() == COLUMNS * outputs && channel + 1 < outputs {
                    store(epilogue, &sums, channel, pixels, outputs);
                } else {
                    store_part(&Any { layer, addition, scale_bits: 0 }, &sums, channel, pixels, outputs);
                }
            }
        }
    }
}

/// Rounds and stores the sums of four whole pixels and two channels.
#[inline(never)]
fn store<E: Epilogue>(epilogue: &E, sums: &Sums, channel: usize, pixels: &mut [i8], outputs: usize) {
    let parameters = [epilogue.channel(channel), epilogue.channel(channel + 1)];
    if pixels.len() < COLUMNS * outputs || channel + 1 >= outputs {
        return;
    }
    // SAFETY: two channels of four pixels, which lie inside `pixels`.
    #[allow(unsafe_code)]
    unsafe {
        let mut y = pixels.as_mut_ptr().add(channel);
        for sums in sums.as_chunks::<2>().0 {
            y.write(epilogue.finish(sums[0], parameters[0], y.read()));
            let second = y.add(1);
            second.write(epilogue.finish(sums[1], parameters[1], second.read()));
            y = y.wrapping_add(outputs);
        }
    }
}

/// As [`store`], for the pixels and channels that there are at the ends.
#[inline(never)]
fn store_part(epilogue: &Any<'_, '_>, sums: &Sums, channel: usize, pixels: &mut [i8], outputs: usize) {
    for (pixel, sums) in pixels.chunks_exact_mut(outputs).zip(sums.chunks_exact(2)) {
        for ((y, sum), channel) in pixel.iter_mut().skip(channel).zip(sums).zip(channel..) {
            *y = epilogue.finish(*sum, channel, *y);
        }
    }
}

/// Widens the window of output column `x` into column `column` of `values`.
#[inline(never)]
fn widen(layer: &Conv2d<'_>, rows: &[&[i8]], x: usize, values: &mut [u32], column: usize, run: &mut [u32]) {
    let channels = usize::from(layer.input.channels);
    let run_bytes = usize::from(layer.window.kernel[1]) * channels;
    let words = run_words(&layer.window, channels);
    let left = layer.window.first_column(x);
    let kernel_height = usize::from(layer.window.kernel[0]);
    let columns = values.get_mut(column..).unwrap_or_default();
    for (row, values) in rows.iter().take(kernel_height).zip(columns.chunks_mut(2 * COLUMNS * words.max(1))) {
        let start = usize::try_from(left).ok().map(|left| left * channels);
        // as many whole words, where they lie inside the row
        let inside = start.and_then(|start| row.get(start..start + 4 * words));
        match inside {
            Some(bytes) => spread(bytes, values),
            None => {
                let run = bytemuck::cast_slice_mut(run);
                let pixels = run.get_mut(..run_bytes).unwrap_or_default().chunks_exact_mut(channels.max(1));
                for (column, to) in (left..).zip(pixels) {
                    let inside = usize::try_from(column)
                        .ok()
                        .and_then(|column| row.get(column * channels..(column + 1) * channels));
                    let from = inside.unwrap_or(layer.padding_pixel);
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = *from;
                    }
                }
                spread(run, values);
            }
        }
    }
}

/// Bytes as pairs of int16, four bytes to words 0 and 4 of eight.
#[inline(always)]
fn spread(bytes: &[i8], values: &mut [u32]) {
    let words = bytes.len() / 4;
    if words == 0 || values.len() < 2 * COLUMNS * words - COLUMNS + 1 {
        return;
    }
    // SAFETY: `words` words are read, and of as many eights words 0 and 4 are written.
    #[allow(unsafe_code)]
    unsafe {
        let (mut from, mut to) = (bytes.as_ptr().cast::<u32>(), values.as_mut_ptr());
        let end = from.add(words);
        let one = |from: *const u32, to: *mut u32| {
            let word = from.read_unaligned();
            to.write(sxtb16(word));
            to.add(COLUMNS).write(sxtb16_ror8(word));
        };
        for _ in 0..words / 4 {
            one(from, to);
            one(from.add(1), to.add(2 * COLUMNS));
            one(from.add(2), to.add(4 * COLUMNS));
            one(from.add(3), to.add(6 * COLUMNS));
            (from, to) = (from.add(4), to.wrapping_add(8 * COLUMNS));
        }
        while from != end {
            one(from, to);
            (from, to) = (from.add(1), to.wrapping_add(2 * COLUMNS));
        }
    }
}
