//! 3x3 convolution in fewer products: Winograd's F(2x2, 3x3) for stride 1, its polyphase form for stride 2.
//!
//! ```text
//! for each strip:
//!     for each group of four tiles (2x2 outputs each):
//!         for each sixteen channels:
//!             lines = B^T patch, of each column under them         (Columns::transform)
//!             values[slot][pair][tile] = lines B                   (transform_rows_1, _2)
//!     for each two output channels:
//!         weights[slot][pair][channel] = G g G^T                   (from flash, or transformed here)
//!         for each group:
//!             sums[slot] = values[slot] . weights[slot]            (products::wide)
//!             outputs = A^T sums A + bias                      (Form::outputs)
//!             round, and store what lies inside the rows           (Epilogue::store)
//! ```
//!
//! Everything is exact in integers:
//! 1. Stride 1: with G doubled, transformed weights have 12 bits, values 11; the outputs are four times
//!    the convolution's sums, a factor that the rounding takes back. 16 products instead of 36.
//! 2. Stride 2: even and odd rows and columns are convolutions of stride 1 of their own, with two taps
//!    where the kernel has even ones: F(2, 2), whose matrices hold nothing but 0 and 1. 25 products
//!    instead of 36, no factor. Slots whose sums are added anyway are one group of products.
//! 3. A padded position holds the input's zero point, which is folded into the biases already, so the
//!    transform need not know it.
//! 4. Channels stand in the order in which `SXTB16` and `SXTB16 ROR #8` give them, on both sides.

use super::epilogue::Epilogue;
use super::primitives::{sadd16, ssub16, sxtb16, sxtb16_ror8};
use super::products::{COLUMNS, Groups, ROUND, wide};
use crate::layer::{Algorithm, Conv2d};
use crate::quantization::Addition;
use crate::shape::{Shape, Window};

/// Output rows and columns of a tile.
const TILE: usize = 2;

/// Outputs of four tiles and two channels in a row.
const ROW_OUTPUTS: usize = 2 * COLUMNS * TILE;

/// Pairs of channels that are transformed at a time.
const PAIRS: usize = ROUND;

/// What the two strides differ in.
#[derive(Debug, Clone, Copy)]
struct Form {
    stride: usize,
    /// Input rows under a tile, input columns under four tiles.
    rows: usize,
    columns: usize,
    /// Products of a tile, and which of them add up.
    groups: Groups,
    /// Outputs are 2^this times too large.
    scale_bits: u8,
}

const STRIDE_1: Form =
    Form { stride: 1, rows: 4, columns: 10, groups: Groups::new(&[(16, 1)]), scale_bits: 2 };
const STRIDE_2: Form =
    Form { stride: 2, rows: 5, columns: 17, groups: Groups::new(&[(1, 1), (4, 2), (4, 4)]), scale_bits: 0 };

impl Form {
    fn of(window: &Window) -> Self {
        Self::of_stride(usize::from(window.stride[0]))
    }

    const fn of_stride(stride: usize) -> Self {
        if stride == 1 { STRIDE_1 } else { STRIDE_2 }
    }

    /// Words of the values of a group of tiles.
    const fn value_words(&self, channels: usize) -> usize {
        self.groups.slots() * channels / 2 * COLUMNS
    }

    /// Words of the transformed weights of two output channels.
    const fn weight_words(&self, channels: usize) -> usize {
        self.groups.slots() * channels
    }

    /// Words of the lines of sixteen channels.
    const fn line_words(&self) -> usize {
        PAIRS * self.rows * self.columns
    }

    const fn sums(&self) -> usize {
        self.groups.sums()
    }
}

/// Sizes by which the cost is predicted.
pub(crate) struct Sizes {
    /// Products of a tile, and the groups they add up in.
    pub(crate) slots: usize,
    pub(crate) groups: usize,
}

/// The sizes of a window's form.
pub(crate) fn shape(window: &Window) -> Sizes {
    let form = Form::of(window);
    Sizes { slots: form.groups.slots(), groups: form.sums() / (2 * COLUMNS) }
}

/// Whether a convolution can be computed this way: 3x3, stride 1 or 2, input channels in sixteens,
/// output channels in pairs, and sums that keep to 32 bits with their factor.
pub(crate) fn serves(window: &Window, input: Shape, output: Shape, bias: &[i32]) -> bool {
    let channels = input.channels;
    let room = (i64::from(i32::MAX) >> Form::of(window).scale_bits) - 9 * i64::from(channels) * 128 * 128;
    window.kernel == [3; 2]
        && (window.stride == [1; 2] || window.stride == [2; 2])
        && channels.is_multiple_of(2 * ROUND as u16)
        && output.channels.is_multiple_of(2)
        && bias.iter().all(|bias| i64::from(*bias).abs() <= room)
}

/// Words of transformed weights.
pub(crate) fn weight_words(window: &Window, channels: usize, outputs: usize) -> usize {
    // of two outputs at a time
    Form::of(window).weight_words(channels).saturating_mul(outputs / 2)
}

/// Words of scratch memory for strips of `strip` rows: lines, values and sums of a group of tiles; at
/// run time the values of all groups and two channels' weights.
pub(crate) fn scratch_words(layer: &Conv2d<'_>, strip: usize, at_run_time: bool) -> usize {
    let (form, channels) = (Form::of(&layer.window), usize::from(layer.input.channels));
    let (groups, weights) = match at_run_time {
        true => (groups_of(layer, strip), form.weight_words(channels)),
        false => (1, 0),
    };
    let values = groups.saturating_mul(form.value_words(channels));
    values.saturating_add(form.line_words() + weights + form.sums() + TILE * ROW_OUTPUTS)
}

/// Groups of tiles in a row of tiles.
fn groups_across(layer: &Conv2d<'_>) -> usize {
    usize::from(layer.output.width).div_ceil(TILE * COLUMNS)
}

/// Groups of tiles in a strip.
fn groups_of(layer: &Conv2d<'_>, strip: usize) -> usize {
    groups_across(layer) * strip.div_ceil(TILE)
}

/// Transforms OHWI `weights` of a 3x3 window, filter by filter. `transformed` has
/// as many words as [`Conv2d::weight_bytes`] says.
pub fn transform_weights(weights: &[i8], window: &Window, channels: usize, transformed: &mut [u32]) {
    let form = Form::of(window);
    let filters = weights.chunks_exact((9 * channels).max(1));
    let two = transformed.chunks_exact_mut(form.weight_words(channels).max(1));
    let mut filters = filters.peekable();
    for transformed in two {
        for channel in 0..2 {
            if let Some(filter) = filters.next() {
                transform_filter(filter, &form, channels, channel, transformed);
            }
        }
    }
}

/// Transforms one filter into its places, `channel` 0 or 1, among two channels' weights.
#[inline(never)]
fn transform_filter(filter: &[i8], form: &Form, channels: usize, channel: usize, transformed: &mut [u32]) {
    if filter.len() < 9 * channels || transformed.len() < form.weight_words(channels) || channel > 1 {
        return;
    }
    for quad in 0..channels / 4 {
        // SAFETY: of each of nine taps with `channels` channels four are read from 4 * quad on; words
        // channel + 4 * quad and two behind it are written of each slot's `channels` words.
        #[allow(unsafe_code)]
        unsafe {
            let taps = filter.as_ptr().add(4 * quad);
            let to = transformed.as_mut_ptr().add(4 * quad + channel);
            match form.stride {
                1 => {
                    transform_taps::<false>(taps, channels, to);
                    transform_taps::<true>(taps, channels, to.add(2));
                }
                _ => {
                    transform_taps_polyphase::<false>(taps, channels, to);
                    transform_taps_polyphase::<true>(taps, channels, to.add(2));
                }
            }
        }
    }
}

/// A row of taps, two channels of four: bytes 0 and 2, or 1 and 3.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn taps<const ODD: bool>(from: *const i8, channels: usize, row: usize) -> [u32; 3] {
    let tap = |column: usize| {
        // SAFETY: the caller's: nine taps, `channels` bytes apart.
        let word = unsafe { from.add((3 * row + column) * channels).cast::<u32>().read_unaligned() };
        if ODD { sxtb16_ror8(word) } else { sxtb16(word) }
    };
    [tap(0), tap(1), tap(2)]
}

/// (2 G) g (2 G)^T of two channels at once: 16 words, `channels` apart.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_taps<const ODD: bool>(from: *const i8, channels: usize, to: *mut u32) {
    let put = |row: usize, [a, b, c]: [u32; 3]| {
        let outer = sadd16(a, c);
        // SAFETY: the caller's: 16 words, `channels` apart.
        unsafe {
            let to = to.add(4 * row * channels);
            to.write(sadd16(a, a));
            to.add(channels).write(sadd16(outer, b));
            to.add(2 * channels).write(ssub16(outer, b));
            to.add(3 * channels).write(sadd16(c, c));
        }
    };
    // SAFETY: the caller's: nine taps, `channels` bytes apart.
    unsafe {
        let first = taps::<ODD>(from, channels, 0);
        put(0, each(first, first, sadd16));
        let third = taps::<ODD>(from, channels, 2);
        put(3, each(third, third, sadd16));
        let (outer, second) = (each(first, third, sadd16), taps::<ODD>(from, channels, 1));
        put(1, each(outer, second, sadd16));
        put(2, each(outer, second, ssub16));
    }
}

/// The taps for stride 2: 25 words, `channels` apart, in the order of [`SLOTS`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_taps_polyphase<const ODD: bool>(from: *const i8, channels: usize, to: *mut u32) {
    let put = |slots: [u8; 5], [a, b, c]: [u32; 3]| {
        let put = |slot: u8, word: u32| {
            // SAFETY: the caller's: slots are below 25.
            unsafe { to.add(usize::from(slot) * channels).write(word) }
        };
        let [first, both, third, odd, odd_again] = slots;
        put(first, a);
        put(both, sadd16(a, c));
        put(third, c);
        put(odd, b);
        put(odd_again, b);
    };
    // SAFETY: the caller's: nine taps, `channels` bytes apart.
    unsafe {
        let [first_slots, both_slots, third_slots, odd_slots, odd_slots_again] = SLOTS;
        let first = taps::<ODD>(from, channels, 0);
        put(first_slots, first);
        let third = taps::<ODD>(from, channels, 2);
        put(third_slots, third);
        put(both_slots, each(first, third, sadd16));
        let second = taps::<ODD>(from, channels, 1);
        put(odd_slots, second);
        put(odd_slots_again, second);
    }
}

#[inline(always)]
fn each(a: [u32; 3], b: [u32; 3], f: impl Fn(u32, u32) -> u32) -> [u32; 3] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2])]
}

/// Stride 2: the slot of each product, by what it takes of rows and of columns: with d0 to d4 under a
/// tile, d0 - d2, d2, d4 - d2 (even taps of F(2, 2)), d1, d3 (the odd tap of the first and second
/// output). The first group holds d2 x d2, which all four outputs take; the next four d2 times what
/// two of them take; the last four what one takes.
const SLOTS: [[u8; 5]; 5] =
    [[9, 1, 13, 10, 14], [5, 0, 7, 6, 8], [17, 3, 21, 18, 22], [11, 2, 15, 12, 16], [19, 4, 23, 20, 24]];

/// A strip of output rows; see the module's head.
#[inline(never)]
pub(crate) fn conv2d(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let form = Form::of(&layer.window);
    let epilogue = Epilogue::new(layer, addition, form.scale_bits);
    let channels = usize::from(layer.input.channels);
    let at_run_time = layer.algorithm == Algorithm::WinogradAtRunTime;
    let across = groups_across(layer).max(1);
    let groups = across * output.len().div_ceil(TILE);
    let two = form.weight_words(channels).max(1);
    let value_words = form.value_words(channels).max(1);

    let Some((sums, rest)) = scratch.split_at_mut_checked(form.sums()) else { return };
    let Some((outputs, rest)) = rest.split_at_mut_checked(TILE * ROW_OUTPUTS) else { return };
    let Some((lines, rest)) = rest.split_at_mut_checked(form.line_words()) else { return };
    let here = if at_run_time { two } else { 0 };
    let Some((weights_here, values)) = rest.split_at_mut_checked(here) else { return };
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
    let outputs: &mut [i32] = bytemuck::cast_slice_mut(outputs);
    let weights: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    // at run time the weights of two channels serve all groups, else a group's values all channels
    let batch = if at_run_time { groups } else { 1 };
    let width = usize::from(layer.output.width);
    let mut first = Place { x: 0, y: 0 };
    while first.y < output.len() {
        let (mut place, mut rest) = (first, &mut *values);
        for _ in 0..batch {
            let Some((here, later)) = rest.split_at_mut_checked(value_words) else { return };
            let rows = input.get(place.y * form.stride..).unwrap_or_default();
            transform(layer, &form, rows, place.x, lines, here);
            (place, rest) = (place.next(width), later);
        }
        let mut weights = weights;
        for (pair, bias) in layer.bias.as_chunks::<2>().0.iter().enumerate() {
            if at_run_time {
                let filters = layer.weights.chunks_exact((9 * channels).max(1));
                for (channel, filter) in filters.skip(2 * pair).take(2).enumerate() {
                    transform_filter(filter, &form, channels, channel, weights_here);
                }
                weights = weights_here;
            }
            let (mut place, mut values) = (first, &*values);
            for _ in 0..batch {
                wide(&form.groups, channels / 2, values, weights, sums);
                form.outputs(sums, *bias, outputs);
                let end = output.len().min(place.y + TILE);
                let rows = output.get_mut(place.y..end).unwrap_or_default();
                epilogue.store::<TILE>(outputs, rows, place.x, 2 * pair, 2);
                place = place.next(width);
                values = values.get(value_words..).unwrap_or_default();
            }
            weights = weights.get(two..).unwrap_or_default();
        }
        for _ in 0..batch.max(1) {
            first = first.next(width);
        }
    }
}

/// Where a group of tiles lies in a strip.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
}

impl Place {
    /// The next group's.
    #[inline(always)]
    fn next(self, width: usize) -> Self {
        let x = self.x + COLUMNS * TILE;
        if x < width { Place { x, ..self } } else { Place { x: 0, y: self.y + TILE } }
    }
}

/// B^T patch B of the four tiles from output column `x` on, for all channels.
#[inline(never)]
fn transform(
    layer: &Conv2d<'_>,
    form: &Form,
    rows: &[&[i8]],
    x: usize,
    lines: &mut [u32],
    values: &mut [u32],
) {
    let channels = usize::from(layer.input.channels);
    let width = usize::from(layer.input.width);
    let left = layer.window.first_column(x);
    let fits = lines.len() >= form.line_words() && values.len() >= form.value_words(channels);
    if !fits || layer.padding_pixel.len() != channels {
        return;
    }
    for chunk in 0..channels / (2 * PAIRS) {
        let padding = layer.padding_pixel.as_ptr().wrapping_add(2 * PAIRS * chunk);
        // where each row's chunk of the first pixel lies, and how far it is to the next pixel's
        let mut patch = [(padding, 0); MAX_ROWS];
        for (line, row) in patch.iter_mut().zip(rows).take(form.rows) {
            if row.len() >= width * channels {
                *line = (row.as_ptr().wrapping_add(2 * PAIRS * chunk), channels);
            }
        }
        let step = COLUMNS * channels / 2;
        // SAFETY: a row of `width` pixels, or a padding pixel, is read at a chunk of a pixel inside it; lines
        // and values have the lengths that the form asks for.
        #[allow(unsafe_code)]
        unsafe {
            let to = values.as_mut_ptr().add(COLUMNS * PAIRS * chunk);
            let columns = Columns { patch, padding, left, width };
            match form.stride {
                1 => {
                    columns.transform::<4>(form.columns, lines.as_mut_ptr(), columns_stride_1);
                    transform_rows_1(lines.as_ptr(), to, step);
                }
                _ => {
                    columns.transform::<5>(form.columns, lines.as_mut_ptr(), columns_stride_2);
                    transform_rows_2(lines.as_ptr(), to, step);
                }
            }
        }
    }
}

/// Most rows under a tile.
const MAX_ROWS: usize = 5;

/// Where sixteen channels of the input under a group of tiles lie.
struct Columns {
    /// The first pixel of each row, and how far it is to the next.
    patch: [(*const i8, usize); MAX_ROWS],
    padding: *const i8,
    left: isize,
    width: usize,
}

impl Columns {
    /// B^T patch: for each column, for each pair of channels, the rows.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn transform<const ROWS: usize>(
        &self,
        columns: usize,
        mut to: *mut u32,
        column: unsafe fn([*const u32; MAX_ROWS], *mut u32),
    ) {
        for x in (self.left..).take(columns) {
            let inside = (0..self.width.cast_signed()).contains(&x);
            let at = |row: usize| match self.patch.get(row) {
                Some((start, step)) if inside => start.wrapping_add(x.cast_unsigned() * step).cast(),
                _ => self.padding.cast(),
            };
            // SAFETY: the caller's.
            unsafe { column([at(0), at(1), at(2), at(3), at(4)], to) };
            to = to.wrapping_add(PAIRS * ROWS);
        }
    }
}

/// Stride 1: four rows of sixteen channels, each word twice two channels.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn columns_stride_1([mut d0, mut d1, mut d2, mut d3, _]: [*const u32; MAX_ROWS], mut to: *mut u32) {
    let put = |to: *mut u32, d0, d1, d2, d3| {
        // SAFETY: the caller's.
        unsafe {
            to.write(ssub16(d0, d2));
            to.add(1).write(sadd16(d1, d2));
            to.add(2).write(ssub16(d2, d1));
            to.add(3).write(ssub16(d1, d3));
        }
    };
    for _ in 0..PAIRS / 2 {
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (d0.read_unaligned(), d1.read_unaligned());
            let (c, d) = (d2.read_unaligned(), d3.read_unaligned());
            put(to, sxtb16(a), sxtb16(b), sxtb16(c), sxtb16(d));
            put(to.add(4), sxtb16_ror8(a), sxtb16_ror8(b), sxtb16_ror8(c), sxtb16_ror8(d));
        }
        (d0, d1, d2, d3) = (d0.wrapping_add(1), d1.wrapping_add(1), d2.wrapping_add(1), d3.wrapping_add(1));
        to = to.wrapping_add(8);
    }
}

/// Stride 2: five rows of sixteen channels, each word twice two channels.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn columns_stride_2(from: [*const u32; MAX_ROWS], mut to: *mut u32) {
    let put = |to: *mut u32, d0, d1, d2, d3, d4| {
        // SAFETY: the caller's.
        unsafe {
            to.write(ssub16(d0, d2));
            to.add(1).write(d2);
            to.add(2).write(ssub16(d4, d2));
            to.add(3).write(d1);
            to.add(4).write(d3);
        }
    };
    for word in 0..PAIRS / 2 {
        // SAFETY: the caller's.
        unsafe {
            let read = |from: *const u32| from.add(word).read_unaligned();
            let [a, b, c, d, e] = from;
            let (a, b, c, d, e) = (read(a), read(b), read(c), read(d), read(e));
            put(to, sxtb16(a), sxtb16(b), sxtb16(c), sxtb16(d), sxtb16(e));
            let to = to.add(5);
            put(to, sxtb16_ror8(a), sxtb16_ror8(b), sxtb16_ror8(c), sxtb16_ror8(d), sxtb16_ror8(e));
        }
        to = to.wrapping_add(10);
    }
}

/// Stride 1: 10 columns of lines become 16 slots of four tiles, `step` words apart.
#[inline(never)]
#[allow(unsafe_code)]
unsafe fn transform_rows_1(lines: *const u32, to: *mut u32, step: usize) {
    const ROWS: usize = 4;
    for row in 0..ROWS {
        // SAFETY: the caller's: columns are below 10, slots below 16.
        unsafe {
            let (mut from, mut to) = (lines.add(row), to.add(4 * row * step));
            for _ in 0..PAIRS {
                let at = |column: usize| from.add(PAIRS * ROWS * column).read();
                let [to0, to1, to2, to3] = [to, to.add(step), to.add(2 * step), to.add(3 * step)];
                let tile = |tile: usize, c0, c1| {
                    let (c2, c3) = (at(2 * tile + 2), at(2 * tile + 3));
                    to0.add(tile).write(ssub16(c0, c2));
                    to1.add(tile).write(sadd16(c1, c2));
                    to2.add(tile).write(ssub16(c2, c1));
                    to3.add(tile).write(ssub16(c1, c3));
                    (c2, c3)
                };
                let (c0, c1) = tile(0, at(0), at(1));
                let (c0, c1) = tile(1, c0, c1);
                let (c0, c1) = tile(2, c0, c1);
                tile(3, c0, c1);
                (from, to) = (from.add(ROWS), to.wrapping_add(COLUMNS));
            }
        }
    }
}

/// Stride 2: 17 columns of lines become 25 slots of four tiles, `step` words apart.
#[inline(never)]
#[allow(unsafe_code)]
unsafe fn transform_rows_2(lines: *const u32, to: *mut u32, step: usize) {
    const ROWS: usize = 5;
    for (row, slots) in SLOTS.iter().enumerate() {
        // SAFETY: the caller's: columns are below 17, slots below 25.
        unsafe {
            let mut from = lines.add(row);
            let mut to = slots.map(|slot| to.add(usize::from(slot) * step));
            for _ in 0..PAIRS {
                let at = |column: usize| from.add(PAIRS * ROWS * column).read();
                let tile = |tile: usize, c0| {
                    let (c1, c2) = (at(4 * tile + 1), at(4 * tile + 2));
                    to[0].add(tile).write(ssub16(c0, c2));
                    to[1].add(tile).write(c2);
                    to[3].add(tile).write(c1);
                    let (c3, c4) = (at(4 * tile + 3), at(4 * tile + 4));
                    to[2].add(tile).write(ssub16(c4, c2));
                    to[4].add(tile).write(c3);
                    c4
                };
                tile(3, tile(2, tile(1, tile(0, at(0)))));
                from = from.add(ROWS);
                for to in &mut to {
                    *to = to.wrapping_add(COLUMNS);
                }
            }
        }
    }
}

impl Form {
    /// A^T sums A + bias of four tiles and two channels: for both rows, for both channels eight outputs.
    #[inline(never)]
    fn outputs(&self, sums: &[i32], bias: [i32; 2], outputs: &mut [i32]) {
        if sums.len() < self.sums() || outputs.len() < TILE * ROW_OUTPUTS {
            return;
        }
        // SAFETY: a word of each slot is read, two beside each other are written in both rows.
        #[allow(unsafe_code)]
        unsafe {
            let put = |[a, b, c, d]: [i32; 4], to: *mut i32| {
                to.write(a);
                to.add(1).write(b);
                to.add(ROW_OUTPUTS).write(c);
                to.add(ROW_OUTPUTS + 1).write(d);
            };
            let (mut sums, mut to) = (sums.as_ptr(), outputs.as_mut_ptr());
            for bias in bias {
                let end = sums.add(COLUMNS);
                if self.stride == 1 {
                    while sums != end {
                        put(outputs_stride_1(sums, bias << STRIDE_1.scale_bits), to);
                        (sums, to) = (sums.add(1), to.add(TILE));
                    }
                } else {
                    while sums != end {
                        put(outputs_stride_2(|slot| sums.add(8 * slot).read(), bias), to);
                        (sums, to) = (sums.add(1), to.add(TILE));
                    }
                }
            }
        }
    }
}

/// The four outputs of a tile, row by row, four times too large; `sums` are the slots' words, eight apart.
#[cfg(skipstone_dsp)]
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn outputs_stride_1(sums: *const i32, bias: i32) -> [i32; 4] {
    let [y0, y1, y2, y3]: [i32; 4];
    // SAFETY: the caller's: sixteen words are read.
    unsafe {
        core::arch::asm!(
            "ldr {a}, [{sums}, #128]", "ldr {b}, [{sums}, #160]", "ldr {c}, [{sums}, #192]", "ldr {d}, [{sums}, #224]",
            "add {a}, {a}, {bias}",
            "add {a}, {a}, {b}", "add {a}, {a}, {c}", // the second row: both columns in a and b
            "add {b}, {b}, {bias}",
            "sub {b}, {b}, {c}", "sub {b}, {b}, {d}",
            "ldr {c}, [{sums}, #256]", "ldr {d}, [{sums}, #288]", "ldr {y0}, [{sums}, #320]", "ldr {y1}, [{sums}, #352]",
            "add {c}, {c}, {d}", "add {c}, {c}, {y0}", // the third: c and d
            "sub {d}, {d}, {y0}", "sub {d}, {d}, {y1}",
            "add {y0}, {a}, {c}", "add {y1}, {b}, {d}", "sub {y2}, {a}, {c}", "sub {y3}, {b}, {d}",
            "ldr {a}, [{sums}]", "ldr {b}, [{sums}, #32]", "ldr {c}, [{sums}, #64]", "ldr {d}, [{sums}, #96]",
            "add {y0}, {y0}, {a}", "add {y0}, {y0}, {b}", "add {y0}, {y0}, {c}",
            "add {y1}, {y1}, {b}", "sub {y1}, {y1}, {c}", "sub {y1}, {y1}, {d}",
            "ldr {a}, [{sums}, #384]", "ldr {b}, [{sums}, #416]", "ldr {c}, [{sums}, #448]", "ldr {d}, [{sums}, #480]",
            "sub {y2}, {y2}, {a}", "sub {y2}, {y2}, {b}", "sub {y2}, {y2}, {c}",
            "sub {y3}, {y3}, {b}", "add {y3}, {y3}, {c}", "add {y3}, {y3}, {d}",
            sums = in(reg) sums, bias = in(reg) bias,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            y0 = out(reg) y0, y1 = out(reg) y1, y2 = out(reg) y2, y3 = out(reg) y3,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [y0, y1, y2, y3]
}

/// The four outputs of a tile, row by row, four times too large; `sums` are the slots' words, eight apart.
#[cfg(not(skipstone_dsp))]
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn outputs_stride_1(sums: *const i32, bias: i32) -> [i32; 4] {
    // SAFETY: the caller's: sixteen words are read.
    let at = |slot: usize| unsafe { sums.add(8 * slot).read() };
    let row = |row: usize| {
        let (a, b, c, d) = (at(4 * row), at(4 * row + 1), at(4 * row + 2), at(4 * row + 3));
        [a.wrapping_add(b).wrapping_add(c), b.wrapping_sub(c).wrapping_sub(d)]
    };
    let [s0, s1, s2, s3] = [row(0), row(1), row(2), row(3)];
    let top = |column: usize| s0[column].wrapping_add(s1[column]).wrapping_add(s2[column]).wrapping_add(bias);
    let bottom =
        |column: usize| s1[column].wrapping_sub(s2[column]).wrapping_sub(s3[column]).wrapping_add(bias);
    [top(0), top(1), bottom(0), bottom(1)]
}

/// The four outputs of a tile, row by row.
#[inline(always)]
fn outputs_stride_2(at: impl Fn(usize) -> i32, bias: i32) -> [i32; 4] {
    let center = at(0).wrapping_add(bias);
    let (top, bottom) = (at(1).wrapping_add(center), at(2).wrapping_add(center));
    let (left, right) = (at(3), at(4));
    [
        at(5).wrapping_add(top).wrapping_add(left),
        at(6).wrapping_add(top).wrapping_add(right),
        at(7).wrapping_add(bottom).wrapping_add(left),
        at(8).wrapping_add(bottom).wrapping_add(right),
    ]
}
