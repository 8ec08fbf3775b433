//! Direct convolution of any window over packed int8 weights.
//!
//! ```text
//! for each output row:
//!     for each four pixels of it:
//!         sums = biases, of all output channels
//!         for each part of the window:                          (as many kernel rows as fit)
//!             values = the part of four windows, as pairs of int16         (widen)
//!             for each two output channels: sums += values . weights       (products::packed)
//!         round, and store the pixels inside the row
//! ```
//!
//! The bytes under a kernel row go four at a time: `SXTB16` gives bytes 0 and 2 as a pair of taps, `SXTB16 ROR #8`
//! bytes 1 and 3. Where they are not whole words, the bytes after them are loaded too: the following pixels of the row,
//! or zeros. Packed weights are zero there; if an untrusted blob has others, its outputs still depend on its image
//! alone.

use super::epilogue::Epilogue;
#[cfg(skipstone_dsp)]
use super::primitives::assembly;
use super::products::{COLUMNS, packed};
use crate::base::quantization::Addition;
use crate::base::shape::Window;
use crate::kernels::algorithms::{Convolution, Filters};
use crate::kernels::set::Kernels;
use crate::ops::Conv2d;

/// Words that a part may have, if it has more than one kernel row.
const MAX_PART_WORDS: usize = 48;

/// Words of a kernel row.
const fn row_words(window: &Window, channels: usize) -> usize {
    (window.kernel[1] as usize * channels).div_ceil(4)
}

/// Kernel rows of a part.
const fn part_rows(window: &Window, channels: usize) -> usize {
    match (MAX_PART_WORDS.checked_div(row_words(window, channels)), window.kernel[0] as usize) {
        (None | Some(0), _) | (_, 0) => 1,
        (Some(rows), height) if rows < height => rows,
        (Some(_), height) => height,
    }
}

/// Pairs of taps of all parts.
const fn pairs(window: &Window, channels: usize) -> usize {
    2 * window.kernel[0] as usize * row_words(window, channels)
}

/// Words of packed weights.
const fn weight_words(window: &Window, channels: usize, outputs: usize) -> usize {
    pairs(window, channels).saturating_mul(outputs.div_ceil(2))
}

/// Pixels under four windows.
const fn span(window: &Window) -> usize {
    (COLUMNS - 1) * window.stride[1] as usize + window.kernel[1] as usize
}

/// Words of the copy of the pixels under four windows, needed where pixels are not whole words; one is spare, because
/// the last window's last word may reach beyond the pixels.
const fn edge_words(window: &Window, channels: usize) -> usize {
    if channels.is_multiple_of(4) { 0 } else { (span(window) * channels).div_ceil(4) + 1 }
}

/// Words of scratch memory: the sums of four pixels, a part of their windows, and the pixels under them in a row.
const fn scratch_words(window: &Window, channels: usize, outputs: usize) -> usize {
    let values = 2 * COLUMNS * row_words(window, channels) * part_rows(window, channels);
    2 * COLUMNS * outputs.div_ceil(2) + values + edge_words(window, channels)
}

/// Packs OHWI `weights`: for each part, for each two channels a word for each pair of taps, in the order
/// in which kernel rows are widened. `packed` has as many words as
/// [`Conv2d::weight_bytes`] says, all zero.
fn pack(weights: &[i8], window: &Window, channels: usize, packed: &mut [u32]) {
    let height = (window.kernel[0] as usize).max(1);
    let row_len = (window.kernel[1] as usize * channels).max(1);
    let outputs = weights.len() / (height * row_len);
    let (rows, row_pairs) = (part_rows(window, channels), 2 * row_words(window, channels));
    for (index, weights) in weights.chunks_exact(row_len).enumerate() {
        let (output, row) = (index / height, index % height);
        let (part, row_of_part) = (row / rows, row % rows);
        let part_pairs = row_pairs * rows.min(height - part * rows);
        let before = row_pairs * rows * part * outputs.div_ceil(2) + output / 2 * part_pairs;
        for (tap, weight) in weights.iter().enumerate() {
            // bytes 0, 1, 2, 3 of a word are taps (0, 2) of the first pair and (1, 3) of the second
            let pair = row_pairs * row_of_part + 2 * (tap / 4) + tap % 2;
            let byte = 2 * (tap % 4 / 2) + output % 2;
            if let Some(word) = packed.get_mut(before + pair) {
                *word |= u32::from(weight.cast_unsigned()) << (8 * byte);
            }
        }
    }
}

/// Convolutions that are not depthwise.
pub(in crate::kernels) struct Direct;

impl Convolution for Direct {
    const NAME: &'static str = "direct";
    const KERNELS: u16 = Kernels::DIRECT;
    const STRIPS: &'static [u8] = &[1];

    fn supports(layer: &Conv2d<'_>) -> bool {
        !layer.depthwise && layer.weights.as_ptr().align_offset(4) == 0
    }

    fn weight_bytes(filters: &Filters) -> usize {
        weight_words(&filters.window, filters.channels, filters.outputs).saturating_mul(4)
    }

    fn pack(plain: &[i8], filters: &Filters, packed: &mut [u32]) -> bool {
        pack(plain, &filters.window, filters.channels, packed);
        true
    }

    fn scratch_words(layer: &Conv2d<'_>, _strip: usize) -> usize {
        scratch_words(&layer.window, layer.input.channels.into(), layer.output.channels.into())
    }

    fn cycles(layer: &Conv2d<'_>, _strip: usize) -> u64 {
        let [channels, outputs] = [layer.input.channels, layer.output.channels].map(usize::from);
        let tiles = usize::from(layer.output.height) * usize::from(layer.output.width).div_ceil(COLUMNS);
        let pairs = pairs(&layer.window, channels);
        // of four windows, row by row; if pixels are not whole words, the edges are copied first
        let edges = if channels.is_multiple_of(4) { 0 } else { 300 };
        let widen = 12 * pairs + 100 * usize::from(layer.window.kernel[0]) + edges;
        let parts = pairs.div_ceil(96);
        (tiles * (widen + outputs.div_ceil(2) * (173 * pairs / 10 + 60 * parts))) as u64
    }

    fn run(
        layer: &Conv2d<'_>,
        addition: Option<&Addition>,
        input: &[&[i8]],
        output: &mut [&mut [i8]],
        scratch: &mut [u32],
    ) {
        conv2d(layer, addition, input, output, scratch);
    }
}

/// A strip of output rows; see the module's head.
#[inline(never)]
fn conv2d(
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
    let Some((sums, rest)) = scratch.split_at_mut_checked(2 * COLUMNS * twos) else {
        debug_assert!(false, "scratch memory is too short for the sums");
        return;
    };
    let row_words = row_words(window, channels);
    let values_len = 2 * COLUMNS * row_words * rows_of_part;
    let Some((values, edge)) = rest.split_at_mut_checked(values_len) else {
        debug_assert!(false, "scratch memory is too short for the values");
        return;
    };
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
    let weights: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    for (y, row) in output.iter_mut().enumerate() {
        let rows = input.get(y * usize::from(window.stride[0])..).unwrap_or_default();
        let rows = rows.get(..height).unwrap_or_default();
        for x in (0..usize::from(layer.output.width)).step_by(COLUMNS) {
            let mut bias = layer.bias.as_chunks::<2>();
            if !bias.1.is_empty() {
                begin(layer.bias, sums);
                bias.0 = &[];
            }
            let mut weights = weights;
            for rows in rows.chunks(rows_of_part) {
                let pairs = 2 * row_words * rows.len();
                widen(layer, rows, x, values, edge);
                packed(values, weights, bias.0, sums, pairs);
                bias.0 = &[];
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

/// Widens a part of the windows of four pixels, the first at column `x`; see [`widen_edge`] for `edge`.
#[inline(never)]
fn widen(layer: &Conv2d<'_>, rows: &[&[i8]], x: usize, values: &mut [u32], edge: &mut [u32]) {
    let channels = layer.padding_pixel.len();
    let words = row_words(&layer.window, channels);
    // empty where pixels are whole words, whatever the length of the rest of the scratch memory
    let Some(edge) = edge.get_mut(..edge_words(&layer.window, channels)) else {
        debug_assert!(false, "scratch memory is too short for the edge");
        return;
    };
    if words == 0 || values.len() < 2 * COLUMNS * words * rows.len() {
        debug_assert!(false, "no channels, or values too short for a part");
        return;
    }
    let left = layer.window.first_column(x);
    let step = usize::from(layer.window.stride[1]) * channels;
    let start = left.cast_unsigned().wrapping_mul(channels);
    let end = start.wrapping_add((COLUMNS - 1) * step + 4 * words);
    let mut to = values.as_mut_ptr();
    for row in rows {
        // SAFETY: `values` has `2 * COLUMNS * words` words for each of `rows` (checked above) and `to` is this row's
        // first; `words` is at least 1. `end`, the end of the last window's words, is inside the row where it is read;
        // `edge` has `edge_words` words where it is not.
        #[allow(unsafe_code)]
        unsafe {
            if left >= 0 && end <= row.len() {
                let from = row.as_ptr().add(start);
                spread(from, from.add(step), words, to, from.add(2 * step), from.add(3 * step));
            } else {
                widen_edge(layer, row, left, edge, to);
            }
        }
        to = to.wrapping_add(2 * COLUMNS * words);
    }
}

/// As [`widen`], for a row whose ends the windows overlap, the first from column `left` on. Windows are read pixel by
/// pixel; where pixels are not whole words, those under the windows are copied to `edge` first.
///
/// # Safety
/// `to` is aligned and writable for `2 * COLUMNS * row_words` words, which neither `row` nor `edge` overlaps. `edge`
/// has [`edge_words`] words. The layer has at least one channel.
#[inline(never)]
#[allow(unsafe_code)]
unsafe fn widen_edge(layer: &Conv2d<'_>, row: &[i8], left: isize, edge: &mut [u32], mut to: *mut u32) {
    let channels = layer.padding_pixel.len();
    let stride = usize::from(layer.window.stride[1]);
    // The pixels end in these two words, of which the last window reads: its bytes after the last pixel must not depend
    // on earlier steps, because an untrusted blob can have weights for them.
    if let [.., last, spare] = edge {
        (*last, *spare) = (0, 0);
    }
    // SAFETY: `to` has `2 * COLUMNS` words for each of the `row_words` words of a window (contract), of which there is
    // one at least. With an edge, the last window begins `kernel[1]` pixels before the end of the span that `edge`
    // holds, and rounding that up to whole words stays within its spare word. Without one, channels are a multiple of
    // 4, so that a pixel is `channels / 4` words, and `start` is at least a pixel before the row's end, or the padding
    // pixel is read.
    unsafe {
        if !edge.is_empty() {
            lay_edge(layer, row, left, bytemuck::cast_slice_mut(edge));
            let at = |window: usize| edge.as_ptr().cast::<i8>().wrapping_add(window * stride * channels);
            return spread(at(0), at(1), row_words(&layer.window, channels), to, at(2), at(3));
        }
        for column in (left..).take(layer.window.kernel[1].into()) {
            let at = |window: usize| {
                let start =
                    (column.wrapping_add_unsigned(window * stride)).cast_unsigned().wrapping_mul(channels);
                // a column before the row wraps to more than any length
                if start < (row.len() + 1).saturating_sub(channels) {
                    row.as_ptr().wrapping_add(start)
                } else {
                    layer.padding_pixel.as_ptr()
                }
            };
            spread(at(0), at(1), channels / 4, to, at(2), at(3));
            to = to.wrapping_add(2 * COLUMNS * (channels / 4));
        }
    }
}

/// Copies the pixels of a row under four windows, the first from column `left` on, and the padding around them.
fn lay_edge(layer: &Conv2d<'_>, row: &[i8], left: isize, edge: &mut [i8]) {
    let channels = layer.padding_pixel.len().max(1);
    let mut copy = |pixel: usize, from: &[i8]| {
        let to = edge.get_mut(pixel * channels..).unwrap_or_default();
        debug_assert!(from.len() <= to.len(), "a pixel beyond the edge");
        if from.len() <= to.len() {
            // SAFETY: `to` is at least as long as `from` (checked above), and borrowed mutably, so that they do not
            // overlap.
            #[allow(unsafe_code)]
            unsafe {
                core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), from.len());
            }
        }
    };
    let (before, span) = (left.min(0).unsigned_abs(), span(&layer.window));
    let row = row.get(left.max(0).cast_unsigned() * channels..).unwrap_or_default();
    let row = row.get(..span.saturating_sub(before) * channels).unwrap_or(row);
    let inside = before..before + row.len() / channels;
    copy(before, row);
    for pixel in (0..span).filter(|pixel| !inside.contains(pixel)) {
        copy(pixel, layer.padding_pixel);
    }
}

/// `words` words of each of four windows as pairs of int16: bytes 0 and 2 of all four, then bytes 1 and 3.
///
/// # Safety
/// `words` is at least 1. `a`, `b`, `c` and `d` are readable for `words` words, of any alignment. `to` is aligned and
/// writable for `2 * COLUMNS * words` words, which overlap none of those read.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn spread(a: *const i8, b: *const i8, words: usize, to: *mut u32, c: *const i8, d: *const i8) {
    use super::primitives::{sxtb16, sxtb16_ror8};
    for word in 0..words {
        for (column, from) in [a, b, c, d].into_iter().enumerate() {
            // SAFETY: `word` is below `words`, for which all windows are readable, `column` below COLUMNS: `to` has
            // `2 * COLUMNS` words for this `word` (contract).
            unsafe {
                let bytes = from.cast::<u32>().add(word).read_unaligned();
                to.add(2 * COLUMNS * word + column).write(sxtb16(bytes));
                to.add(2 * COLUMNS * word + COLUMNS + column).write(sxtb16_ror8(bytes));
            }
        }
    }
}

/// The same: its portable twin is above.
///
/// # Safety
/// `words` is at least 1. `a`, `b`, `c` and `d` are readable for `words` words, of any alignment. `to` is aligned and
/// writable for `2 * COLUMNS * words` words, which overlap none of those read.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn spread(
    a: *const i8,
    b: *const i8,
    words: usize,
    to: *mut u32,
    c: *const i8,
    d: *const i8,
) {
    assembly!(
        "push {{r4-r11, lr}}",
        "ldrd r12, lr, [sp, #36]",
        "1:",
        "ldr r4, [r0], #4",
        "ldr r5, [r1], #4",
        "ldr r6, [r12], #4",
        "ldr r7, [lr], #4",
        "sxtb16 r8, r4, ror #8",
        "sxtb16 r9, r5, ror #8",
        "sxtb16 r10, r6, ror #8",
        "sxtb16 r11, r7, ror #8",
        "sxtb16 r4, r4",
        "sxtb16 r5, r5",
        "sxtb16 r6, r6",
        "sxtb16 r7, r7",
        "stmia r3!, {{r4-r11}}",
        "subs r2, r2, #1",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}
