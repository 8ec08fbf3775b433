//! Direct convolution of any window over packed int8 weights.
//!
//! ```text
//! for each output row:
//!     for each four pixels of it:
//!         sums = biases, of all output channels
//!         for each part of the window:                          (as many kernel rows as fit)
//!             values = the part of four windows, as pairs of int16         (widen)
//!             for each two output channels: sums += values . weights       (products::packed)
//!         round, and store what lies inside the row
//! ```
//!
//! A part is one run of bytes, kernel row by kernel row, and goes four bytes at a time: `SXTB16` gives
//! bytes 0 and 2 as a pair of taps, `SXTB16 ROR #8` bytes 1 and 3. Where pixels are not whole words, the
//! run is put together first and filled up with taps that weigh nothing.

use super::epilogue::Epilogue;
use super::primitives::{sxtb16, sxtb16_ror8};
use super::products::{COLUMNS, packed};
use crate::layer::Conv2d;
use crate::quantization::Addition;
use crate::shape::Window;

/// Words of a run that a part may have, if it has more than one kernel row.
const MAX_PART_WORDS: usize = 48;

/// Kernel rows of a part.
const fn part_rows(window: &Window, channels: usize) -> usize {
    let row = window.kernel[1] as usize * channels;
    match ((4 * MAX_PART_WORDS).checked_div(row), window.kernel[0] as usize) {
        (None | Some(0), _) | (_, 0) => 1,
        (Some(rows), height) if rows < height => rows,
        (Some(_), height) => height,
    }
}

/// Words of a run of `rows` kernel rows.
const fn run_words(window: &Window, channels: usize, rows: usize) -> usize {
    (rows * window.kernel[1] as usize * channels).div_ceil(4)
}

/// Pairs of taps of all parts.
pub(crate) const fn pairs(window: &Window, channels: usize) -> usize {
    let (height, rows) = (window.kernel[0] as usize, part_rows(window, channels));
    let parts = 2 * (height / rows) * run_words(window, channels, rows);
    parts + 2 * run_words(window, channels, height % rows)
}

/// Words of packed weights.
pub(crate) const fn weight_words(window: &Window, channels: usize, outputs: usize) -> usize {
    pairs(window, channels).saturating_mul(outputs.div_ceil(2))
}

/// Words of scratch memory: the sums of four pixels, a part of their windows, and a run with a
/// word to spare.
pub(crate) const fn scratch_words(window: &Window, channels: usize, outputs: usize) -> usize {
    let words = run_words(window, channels, part_rows(window, channels));
    let run = if channels.is_multiple_of(4) { 0 } else { words + 1 };
    2 * COLUMNS * outputs.div_ceil(2) + 2 * COLUMNS * words + run
}

/// Packs OHWI `weights`: for each part, for each two channels a word for each pair of taps, in the order
/// in which runs are widened. `packed` has as many words as
/// [`Conv2d::weight_bytes`] says, all zero.
pub fn pack(weights: &[i8], window: &Window, channels: usize, packed: &mut [u32]) {
    let height = (window.kernel[0] as usize).max(1);
    let row_len = (window.kernel[1] as usize * channels).max(1);
    let outputs = weights.len() / (height * row_len);
    let rows = part_rows(window, channels);
    for (index, weights) in weights.chunks_exact(row_len).enumerate() {
        let (output, row) = (index / height, index % height);
        let (part, row_of_part) = (row / rows, row % rows);
        let pairs = 2 * run_words(window, channels, rows.min(height - part * rows));
        let before = 2 * run_words(window, channels, rows) * part * outputs.div_ceil(2);
        for (tap, weight) in (row_of_part * row_len..).zip(weights) {
            // bytes 0, 1, 2, 3 of a word are taps (0, 2) of the first pair and (1, 3) of the second
            let pair = 2 * (tap / 4) + tap % 2;
            let byte = 2 * (tap % 4 / 2) + output % 2;
            if let Some(word) = packed.get_mut(before + output / 2 * pairs + pair) {
                *word |= u32::from(weight.cast_unsigned()) << (8 * byte);
            }
        }
    }
}

/// A strip of output rows; see the module's head.
#[inline(never)]
pub(crate) fn conv2d(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let epilogue = Epilogue::new(layer, addition, 0);
    let window = &layer.window;
    let (channels, outputs) = (usize::from(layer.input.channels), usize::from(layer.output.channels));
    let height = usize::from(window.kernel[0]);
    let rows_of_part = part_rows(window, channels);
    let twos = outputs.div_ceil(2);
    let Some((sums, rest)) = scratch.split_at_mut_checked(2 * COLUMNS * twos) else { return };
    let values_len = 2 * COLUMNS * run_words(window, channels, rows_of_part);
    let Some((values, run)) = rest.split_at_mut_checked(values_len) else { return };
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
    let weights: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    for (y, row) in output.iter_mut().enumerate() {
        let rows = input.get(y * usize::from(window.stride[0])..).unwrap_or_default();
        let rows = rows.get(..height).unwrap_or_default();
        for x in (0..usize::from(layer.output.width)).step_by(COLUMNS) {
            begin(layer.bias, sums);
            let mut weights = weights;
            for rows in rows.chunks(rows_of_part) {
                let pairs = 2 * run_words(window, channels, rows.len());
                if channels.is_multiple_of(4) {
                    widen(layer, rows, x, values);
                } else {
                    gather(layer, rows, x, values, run);
                }
                packed(values, weights, sums, pairs);
                weights = weights.get(pairs * twos..).unwrap_or_default();
            }
            epilogue.store(sums, &mut [&mut **row], [x, 1], 0, outputs);
        }
    }
}

/// Sets the sums of four pixels to the biases.
#[inline(never)]
fn begin(bias: &[i32], sums: &mut [i32]) {
    for (sums, bias) in sums.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(bias) {
        let [a, b, c, d] = sums;
        (*a, *b, *c, *d) = (*bias, *bias, *bias, *bias);
    }
}

/// Widens a part of the windows of four pixels from `x` on; pixels are whole words.
#[inline(never)]
fn widen(layer: &Conv2d<'_>, rows: &[&[i8]], x: usize, values: &mut [u32]) {
    let channels = layer.padding_pixel.len();
    let width = usize::from(layer.window.kernel[1]);
    let (pixel_words, words) = (channels / 4, width * channels / 4);
    if values.len() < 2 * COLUMNS * words * rows.len() {
        return;
    }
    let first = layer.window.first_column(x);
    // SAFETY: `words` words are widened of each row, inside it or from the padding pixel, into as many
    // eights of values for each of four columns.
    #[allow(unsafe_code)]
    unsafe {
        let mut to = values.as_mut_ptr();
        for row in rows {
            let mut left = first;
            for column in 0..COLUMNS {
                let start = left.wrapping_mul(channels as isize);
                if left >= 0 && start.cast_unsigned() + 4 * words <= row.len() {
                    spread(row.as_ptr().offset(start), words, to.add(column));
                } else {
                    let mut to = to.add(column);
                    for column in (left..).take(width) {
                        let start = column.wrapping_mul(channels as isize);
                        let inside = column >= 0 && start.cast_unsigned() + channels <= row.len();
                        let from =
                            if inside { row.as_ptr().offset(start) } else { layer.padding_pixel.as_ptr() };
                        spread(from, pixel_words, to);
                        to = to.wrapping_add(2 * COLUMNS * pixel_words);
                    }
                }
                left += isize::from(layer.window.stride[1]);
            }
            to = to.wrapping_add(2 * COLUMNS * words);
        }
    }
}

/// As [`widen`], of any number of channels: each window's part is put together in `run` first.
#[inline(never)]
fn gather(layer: &Conv2d<'_>, rows: &[&[i8]], x: usize, values: &mut [u32], run: &mut [u32]) {
    let channels = layer.padding_pixel.len();
    let width = usize::from(layer.window.kernel[1]);
    let words = (rows.len() * width * channels).div_ceil(4);
    if values.len() < 2 * COLUMNS * words || run.len() < words {
        return;
    }
    let row_len = width * channels;
    let row_words = row_len.div_ceil(4);
    let mut left = layer.window.first_column(x);
    for column in 0..COLUMNS {
        let mut rest: &mut [i8] = bytemuck::cast_slice_mut(run);
        for row in rows {
            let start = left.cast_unsigned().wrapping_mul(channels);
            if left >= 0 && start + 4 * row_words <= row.len() && 4 * row_words <= rest.len() {
                // SAFETY: both slices hold as many words. The last bytes may be one to three too many; the
                // next row is laid over them.
                #[allow(unsafe_code)]
                unsafe {
                    let (from, to) = (row.as_ptr().add(start).cast::<u32>(), rest.as_mut_ptr().cast::<u32>());
                    for word in 0..row_words {
                        to.add(word).write_unaligned(from.add(word).read_unaligned());
                    }
                }
            } else {
                for (column, to) in (left..).zip(rest.chunks_exact_mut(channels.max(1)).take(width)) {
                    let start = usize::try_from(column).ok().map(|column| column * channels);
                    let from = start.and_then(|start| row.get(start..start + channels));
                    for (to, from) in to.iter_mut().zip(from.unwrap_or(layer.padding_pixel)) {
                        *to = *from;
                    }
                }
            }
            rest = rest.get_mut(row_len..).unwrap_or_default();
        }
        // SAFETY: both have as many words.
        #[allow(unsafe_code)]
        unsafe {
            spread(run.as_ptr().cast(), words, values.as_mut_ptr().add(column));
        }
        left += isize::from(layer.window.stride[1]);
    }
}

/// Bytes of `words` words as pairs of int16, four bytes to words 0 and 4 of eight.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn spread(from: *const i8, words: usize, to: *mut u32) {
    // SAFETY: the caller's.
    unsafe {
        let (mut from, mut to) = (from.cast::<u32>(), to);
        for _ in 0..words / 4 {
            let (a, b) = (from.read_unaligned(), from.add(1).read_unaligned());
            let (c, d) = (from.add(2).read_unaligned(), from.add(3).read_unaligned());
            to.write(sxtb16(a));
            to.add(4).write(sxtb16_ror8(a));
            to.add(8).write(sxtb16(b));
            to.add(12).write(sxtb16_ror8(b));
            to.add(16).write(sxtb16(c));
            to.add(20).write(sxtb16_ror8(c));
            to.add(24).write(sxtb16(d));
            to.add(28).write(sxtb16_ror8(d));
            (from, to) = (from.add(4), to.wrapping_add(8 * COLUMNS));
        }
        for _ in 0..words % 4 {
            let word = from.read_unaligned();
            to.write(sxtb16(word));
            to.add(COLUMNS).write(sxtb16_ror8(word));
            (from, to) = (from.add(1), to.wrapping_add(2 * COLUMNS));
        }
    }
}
