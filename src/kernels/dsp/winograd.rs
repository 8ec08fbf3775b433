//! 3x3 convolution in fewer products: Winograd's F(2x2, 3x3) for stride 1, its polyphase form for stride 2.
//!
//! ```text
//! for each strip:
//!     for each group of four tiles (2x2 outputs each):
//!         patch = the input under them, padding in place
//!         values[slot][pair][tile] = B^T patch B                   (transform)
//!     for each two output channels:
//!         weights[slot][pair][channel] = G g G^T                   (from flash, or transformed here)
//!         for each group:
//!             sums[slot] = values[slot] . weights[slot]            (products::wide)
//!             outputs = A^T sums A + bias; round, and store what lies inside the rows
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

use super::epilogue::{Any, Epilogue, with_epilogue};
use super::primitives::{sadd16, ssub16, sxtb16, sxtb16_ror8};
use super::products::{COLUMNS, ROUND, wide};
use crate::layer::Conv2d;
use crate::quantization::Addition;
use crate::shape::{Shape, Window};

/// Output rows and columns of a tile.
const TILE: usize = 2;

/// What the two strides differ in.
#[derive(Debug, Clone, Copy)]
struct Form {
    stride: usize,
    /// Input rows under a tile, input columns under four tiles.
    rows: usize,
    columns: usize,
    /// Products of a tile, and the groups they add up in: (groups, slots of each).
    slots: usize,
    groups: &'static [(usize, usize)],
    /// Outputs are 2^this times too large.
    scale_bits: u8,
}

const STRIDE_1: Form = Form { stride: 1, rows: 4, columns: 10, slots: 16, groups: &[(16, 1)], scale_bits: 2 };
const STRIDE_2: Form =
    Form { stride: 2, rows: 5, columns: 17, slots: 25, groups: &[(1, 1), (4, 2), (4, 4)], scale_bits: 0 };

impl Form {
    fn of(window: &Window) -> Self {
        Self::of_stride(usize::from(window.stride[0]))
    }

    const fn of_stride(stride: usize) -> Self {
        if stride == 1 { STRIDE_1 } else { STRIDE_2 }
    }

    /// Words of the values of a group of tiles.
    const fn value_words(&self, channels: usize) -> usize {
        self.slots * channels / 2 * COLUMNS
    }

    /// Words of the transformed weights of two output channels.
    const fn weight_words(&self, channels: usize) -> usize {
        self.slots * channels
    }

    const fn patch_words(&self, channels: usize) -> usize {
        self.rows * self.columns * channels / 4
    }

    fn sums(&self) -> usize {
        8 * self.groups.iter().map(|(groups, _)| groups).sum::<usize>()
    }
}

/// Sizes by which the cost is predicted.
pub(crate) struct Sizes {
    /// Places under a group of tiles.
    pub(crate) patch_positions: usize,
    /// Products of a tile, and the groups they add up in.
    pub(crate) slots: usize,
    pub(crate) groups: usize,
}

/// The sizes of a window's form.
pub(crate) fn shape(window: &Window) -> Sizes {
    let form = Form::of(window);
    Sizes { patch_positions: form.rows * form.columns, slots: form.slots, groups: form.sums() / 8 }
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
    Form::of(window).weight_words(channels) * outputs / 2
}

/// Words of scratch memory for strips of `strip` rows: a patch, values and sums of a group of tiles; at
/// run time the values of all groups and two channels' weights.
pub(crate) fn scratch_words(layer: &Conv2d<'_>, strip: usize, at_run_time: bool) -> usize {
    let (form, channels) = (Form::of(&layer.window), usize::from(layer.input.channels));
    let (groups, weights) = match at_run_time {
        true => (groups_of(layer, strip), form.weight_words(channels)),
        false => (1, 0),
    };
    form.patch_words(channels) + groups * form.value_words(channels) + weights + form.sums()
}

/// Groups of tiles in a row of tiles.
fn groups_across(layer: &Conv2d<'_>) -> usize {
    usize::from(layer.output.width).div_ceil(TILE * COLUMNS)
}

/// Groups of tiles in a strip.
fn groups_of(layer: &Conv2d<'_>, strip: usize) -> usize {
    groups_across(layer) * strip.div_ceil(TILE)
}

/// Transforms OHWI `weights` of a 3x3 window, filter by filter. `transformed` has [`weight_words`] words.
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
            for half in 0..2 {
                let tap = |row: usize, column: usize| {
                    let word = taps.add((3 * row + column) * channels).cast::<u32>().read_unaligned();
                    if half == 0 { sxtb16(word) } else { sxtb16_ror8(word) }
                };
                let row = |row: usize| [tap(row, 0), tap(row, 1), tap(row, 2)];
                let to = to.add(2 * half);
                match form.stride {
                    1 => transform_taps(row, channels, to),
                    _ => transform_taps_polyphase(row, channels, to),
                }
            }
        }
    }
}

/// (2 G) g (2 G)^T of two channels at once: 16 words, `channels` apart.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_taps(row: impl Fn(usize) -> [u32; 3], channels: usize, mut to: *mut u32) {
    let [first, second, third] = [row(0), row(1), row(2)];
    let outer = each(first, third, sadd16);
    let rows = [
        each(first, first, sadd16),
        each(outer, second, sadd16),
        each(outer, second, ssub16),
        each(third, third, sadd16),
    ];
    for [a, b, c] in rows {
        let outer = sadd16(a, c);
        for word in [sadd16(a, a), sadd16(outer, b), ssub16(outer, b), sadd16(c, c)] {
            // SAFETY: the caller's: 16 words, `channels` apart.
            unsafe {
                to.write(word);
                to = to.wrapping_add(channels);
            }
        }
    }
}

/// The taps for stride 2: 25 words, `channels` apart, in the order of [`SLOTS`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_taps_polyphase(row: impl Fn(usize) -> [u32; 3], channels: usize, to: *mut u32) {
    let [first, second, third] = [row(0), row(1), row(2)];
    let rows = [first, each(first, third, sadd16), third, second, second];
    for ([a, b, c], slots) in rows.into_iter().zip(SLOTS) {
        for (word, slot) in [a, sadd16(a, c), c, b, b].into_iter().zip(slots) {
            // SAFETY: the caller's: slots are below 25.
            unsafe { to.add(usize::from(slot) * channels).write(word) };
        }
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
pub(crate) fn conv2d(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let form = Form::of(&layer.window);
    with_epilogue!(layer, addition, form.scale_bits, |epilogue| {
        strip(layer, addition, &form, epilogue, input, output, scratch);
    });
}

#[inline(never)]
fn strip<E: Epilogue>(
    layer: &Conv2d<'_>,
    addition: Option<&Addition>,
    form: &Form,
    epilogue: &E,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let any = Any { layer, addition, scale_bits: form.scale_bits };
    let channels = usize::from(layer.input.channels);
    let outputs = usize::from(layer.output.channels);
    let at_run_time = layer.algorithm == crate::layer::Algorithm::WinogradAtRunTime;
    let across = groups_across(layer);
    let groups = across * output.len().div_ceil(TILE);
    let filters: &[i8] = if at_run_time { layer.weights } else { &[] };
    let transformed: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    let two = form.weight_words(channels).max(1);

    let Some((sums, rest)) = scratch.split_at_mut_checked(form.sums()) else { return };
    let Some((patch, rest)) = rest.split_at_mut_checked(form.patch_words(channels)) else { return };
    let Some((weights_here, rest)) = rest.split_at_mut_checked(if at_run_time { two } else { 0 }) else {
        return;
    };
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
    let value_words = form.value_words(channels).max(1);
    // at run time the weights of two channels serve all groups, else a group's values all channels
    let batch = if at_run_time { groups } else { 1 };
    for first in (0..groups).step_by(batch.max(1)) {
        for (group, values) in (first..groups.min(first + batch)).zip(rest.chunks_exact_mut(value_words)) {
            let (down, right) = (group / across.max(1), group % across.max(1));
            let rows = input.get(down * TILE * form.stride..).unwrap_or_default();
            lay_patch(layer, form, rows, right * COLUMNS * TILE, patch);
            transform(form, patch, channels, values);
        }
        for (pair, bias) in layer.bias.as_chunks::<2>().0.iter().enumerate() {
            let weights = if at_run_time {
                for (channel, filter) in
                    filters.chunks_exact((9 * channels).max(1)).skip(2 * pair).take(2).enumerate()
                {
                    transform_filter(filter, form, channels, channel, weights_here);
                }
                &*weights_here
            } else {
                transformed.get(two * pair..two * (pair + 1)).unwrap_or_default()
            };
            for (group, values) in (first..groups.min(first + batch)).zip(rest.chunks_exact(value_words)) {
                multiply(form, values, weights, channels, sums);
                let (down, right) = (group / across.max(1), group % across.max(1));
                let start = right * COLUMNS * TILE * outputs + 2 * pair;
                let two = Two { channel: 2 * pair, bias: *bias, start, outputs };
                let rows = output.get_mut(down * TILE..).unwrap_or_default();
                let whole = match rows {
                    [top, bottom, ..] if form.stride == 1 => {
                        store::<E, 1>(epilogue, sums, &two, [top, bottom])
                    }
                    [top, bottom, ..] => store::<E, 2>(epilogue, sums, &two, [top, bottom]),
                    _ => false,
                };
                if !whole {
                    let rows = rows.get_mut(..TILE.min(rows.len())).unwrap_or_default();
                    store_part(form, &any, sums, &two, rows);
                }
            }
        }
    }
}

/// All groups of products of four tiles and two output channels.
#[inline(always)]
fn multiply(form: &Form, values: &[u32], weights: &[u32], channels: usize, sums: &mut [i32]) {
    let (mut values, mut weights, mut sums) = (values, weights, sums);
    for (groups, slots) in form.groups {
        let pairs = slots * channels / 2;
        let Some((now, later)) = core::mem::take(&mut sums).split_at_mut_checked(8 * groups) else { return };
        wide(values, weights, now, pairs);
        sums = later;
        values = values.get(COLUMNS * pairs * groups..).unwrap_or_default();
        weights = weights.get(2 * pairs * groups..).unwrap_or_default();
    }
}

/// Lays the input under four tiles, from output column `x` on, padding in place: for each four
/// channels the rows of their words.
#[inline(never)]
fn lay_patch(layer: &Conv2d<'_>, form: &Form, rows: &[&[i8]], x: usize, patch: &mut [u32]) {
    let channels = usize::from(layer.input.channels);
    let left = layer.window.first_column(x);
    let step = form.rows * form.columns;
    if patch.len() < form.patch_words(channels) || layer.padding_pixel.len() != channels {
        return;
    }
    let mut place = 0;
    for row in 0..form.rows {
        let row = rows.get(row).copied().unwrap_or_default();
        for column in (left..).take(form.columns) {
            let inside = usize::try_from(column)
                .ok()
                .and_then(|column| row.get(column * channels..(column + 1) * channels));
            let pixel = inside.unwrap_or(layer.padding_pixel);
            // SAFETY: `pixel` has `channels` bytes, a multiple of sixteen; of each `step` words of
            // `patch`, as many as there are words in a pixel, the one at `place` is written.
            #[allow(unsafe_code)]
            unsafe {
                let mut from = pixel.as_ptr().cast::<u32>();
                let mut to = patch.as_mut_ptr().add(place);
                for _ in 0..channels / 16 {
                    let words: [u32; 4] = core::array::from_fn(|word| from.add(word).read_unaligned());
                    for word in words {
                        to.write(word);
                        to = to.wrapping_add(step);
                    }
                    from = from.add(4);
                }
            }
            place += 1;
        }
    }
}

/// B^T patch B of four tiles, for all channels.
#[inline(never)]
fn transform(form: &Form, patch: &[u32], channels: usize, values: &mut [u32]) {
    let quads = patch.chunks_exact((form.rows * form.columns).max(1));
    let step = COLUMNS * channels / 2;
    if values.len() < form.value_words(channels) {
        return;
    }
    for (quad, patch) in quads.take(channels / 4).enumerate() {
        // SAFETY: of each slot's `step` words, eight are written from 8 * quad on; `values` has as many
        // slots, and `patch` rows and columns, as the form says.
        #[allow(unsafe_code)]
        unsafe {
            let to = values.as_mut_ptr().add(2 * COLUMNS * quad);
            let later = to.add(COLUMNS);
            match form.stride {
                1 => {
                    transform_stride_1::<false>(patch.as_ptr(), step, to);
                    transform_stride_1::<true>(patch.as_ptr(), step, later);
                }
                _ => {
                    transform_stride_2::<false>(patch.as_ptr(), step, to);
                    transform_stride_2::<true>(patch.as_ptr(), step, later);
                }
            }
        }
    }
}

/// Two of four channels: bytes 0 and 2, or 1 and 3.
#[inline(always)]
fn half<const ODD: bool>(word: u32) -> u32 {
    if ODD { sxtb16_ror8(word) } else { sxtb16(word) }
}

/// Stride 1: 4 rows of 10 words become 16 slots of four tiles, `step` words apart.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_stride_1<const ODD: bool>(patch: *const u32, step: usize, to: *mut u32) {
    // SAFETY: the caller's: columns are below 10, slots below 16.
    unsafe {
        let column = |column: usize| {
            let row = |row: usize| half::<ODD>(patch.add(10 * row + column).read());
            let (d0, d1, d2, d3) = (row(0), row(1), row(2), row(3));
            [ssub16(d0, d2), sadd16(d1, d2), ssub16(d2, d1), ssub16(d1, d3)]
        };
        let (mut c0, mut c1) = (column(0), column(1));
        for tile in 0..COLUMNS {
            let (c2, c3) = (column(2 * tile + 2), column(2 * tile + 3));
            let mut to = to.add(tile);
            for row in 0..4 {
                let slots = [
                    ssub16(c0[row], c2[row]),
                    sadd16(c1[row], c2[row]),
                    ssub16(c2[row], c1[row]),
                    ssub16(c1[row], c3[row]),
                ];
                for word in slots {
                    to.write(word);
                    to = to.wrapping_add(step);
                }
            }
            (c0, c1) = (c2, c3);
        }
    }
}

/// Stride 2: 5 rows of 17 words become 25 slots of four tiles, `step` words apart.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn transform_stride_2<const ODD: bool>(patch: *const u32, step: usize, to: *mut u32) {
    // SAFETY: the caller's: columns are below 17, slots below 25.
    unsafe {
        let column = |column: usize| {
            let row = |row: usize| half::<ODD>(patch.add(17 * row + column).read());
            let d2 = row(2);
            [ssub16(row(0), d2), d2, ssub16(row(4), d2), row(1), row(3)]
        };
        let mut c0 = column(0);
        for tile in 0..COLUMNS {
            let c2 = column(4 * tile + 2);
            let put = |slot: u8, word: u32| to.add(tile + usize::from(slot) * step).write(word);
            for (row, slots) in SLOTS.iter().enumerate() {
                put(slots[0], ssub16(c0[row], c2[row]));
                put(slots[1], c2[row]);
            }
            let c4 = column(4 * tile + 4);
            for (row, slots) in SLOTS.iter().enumerate() {
                put(slots[2], ssub16(c4[row], c2[row]));
            }
            for (offset, slot) in [(1, 3), (3, 4)] {
                let odd = column(4 * tile + offset);
                for (row, slots) in SLOTS.iter().enumerate() {
                    put(slots[slot], odd[row]);
                }
            }
            c0 = c4;
        }
    }
}

/// A^T sums A, rounded and stored: the outputs of four tiles and two channels, whose first lies at
/// `start` in both rows.
#[inline(never)]
fn store<E: Epilogue, const STRIDE: usize>(
    epilogue: &E,
    sums: &[i32],
    two: &Two,
    rows: [&mut [i8]; 2],
) -> bool {
    let outputs = two.outputs;
    let [top, bottom] = rows;
    let needed = two.start + (2 * COLUMNS * TILE / 2 - 1) * outputs + 2;
    if sums.len() < Form::of_stride(STRIDE).sums() || top.len() < needed || bottom.len() < needed {
        return false;
    }
    for side in 0..2 {
        let (parameters, bias) = (epilogue.channel(two.channel + side), two.bias[side]);
        // SAFETY: eight pixels from `start` on lie inside both rows, and `sums` has all groups.
        #[allow(unsafe_code)]
        unsafe {
            let mut sums = sums.as_ptr().add(side);
            let (mut top, mut bottom) =
                (top.as_mut_ptr().add(two.start + side), bottom.as_mut_ptr().add(two.start + side));
            for _ in 0..COLUMNS {
                let at = |slot: usize| sums.add(8 * slot).read();
                let values = match STRIDE {
                    1 => outputs_stride_1(at, bias),
                    _ => outputs_stride_2(at, bias),
                };
                let put = |y: *mut i8, acc: i32| y.write(epilogue.finish(acc, parameters, y.read()));
                put(top, values[0]);
                put(top.add(outputs), values[1]);
                put(bottom, values[2]);
                put(bottom.add(outputs), values[3]);
                sums = sums.add(2);
                top = top.wrapping_add(TILE * outputs);
                bottom = bottom.wrapping_add(TILE * outputs);
            }
        }
    }
    true
}

/// As [`store`], for what lies inside the rows at their ends.
#[inline(never)]
fn store_part(form: &Form, epilogue: &Any<'_, '_>, sums: &[i32], two: &Two, rows: &mut [&mut [i8]]) {
    for (tile, side) in (0..COLUMNS).flat_map(|tile| [(tile, 0), (tile, 1)]) {
        let at = |slot: usize| sums.get(8 * slot + 2 * tile + side).copied().unwrap_or(0);
        let [a, b, c, d] = match form.stride {
            1 => outputs_stride_1(at, two.bias[side]),
            _ => outputs_stride_2(at, two.bias[side]),
        };
        let place = two.start + TILE * tile * two.outputs + side;
        for (row, values) in rows.iter_mut().zip([[a, b], [c, d]]) {
            for (value, place) in values.into_iter().zip([place, place + two.outputs]) {
                if let Some(y) = row.get_mut(place) {
                    *y = epilogue.finish(value, two.channel + side, *y);
                }
            }
        }
    }
}

/// Two output channels, and where they lie.
struct Two {
    channel: usize,
    bias: [i32; 2],
    /// The first tile's first value in its rows.
    start: usize,
    /// Output channels: from a pixel to the next.
    outputs: usize,
}

/// The four outputs of a tile, row by row, four times too large.
#[inline(always)]
fn outputs_stride_1(at: impl Fn(usize) -> i32, bias: i32) -> [i32; 4] {
    let row = |row: usize| {
        let (a, b, c, d) = (at(4 * row), at(4 * row + 1), at(4 * row + 2), at(4 * row + 3));
        [a.wrapping_add(b).wrapping_add(c), b.wrapping_sub(c).wrapping_sub(d)]
    };
    let bias = bias << 2;
    let [s1, s2] = [row(1), row(2)];
    let sum = [s1[0].wrapping_add(s2[0]).wrapping_add(bias), s1[1].wrapping_add(s2[1]).wrapping_add(bias)];
    let difference =
        [s1[0].wrapping_sub(s2[0]).wrapping_add(bias), s1[1].wrapping_sub(s2[1]).wrapping_add(bias)];
    let (s0, s3) = (row(0), row(3));
    [
        sum[0].wrapping_add(s0[0]),
        sum[1].wrapping_add(s0[1]),
        difference[0].wrapping_sub(s3[0]),
        difference[1].wrapping_sub(s3[1]),
    ]
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
