//! 3x3 convolution in fewer products: Winograd's F(2x2, 3x3) and F(4x4, 3x3) for stride 1, a polyphase form for
//! stride 2.
//!
//! ```text
//! for each strip:
//!     for each group of four adjacent tiles (2x2 or 4x4 outputs each):
//!         for each sixteen channels:
//!             lines = B^T patch, of each column under them         (tiles.rs)
//!             values[slot][pair][tile] = lines B
//!     for each two output channels:
//!         weights[slot][pair][channel] = G g G^T                   (filters.rs; from flash, or transformed here)
//!         for each group:
//!             sums[slot] = values[slot] . weights[slot]            (products::wide)
//!             outputs = A^T sums A + bias                          (outputs.rs)
//!             round, and store the outputs inside the rows         (Epilogue::store)
//! ```
//!
//! Everything is exact in integers:
//! 1. F(2x2): with G doubled, transformed weights have 12 bits, values 11; the outputs are four times
//!    the convolution's sums, a factor that the rounding's shift removes. 16 products instead of 36.
//! 2. F(4x4): the rows of G are multiplied by 6, 4, 4, 24, 24 and 12, so that weights have 16 bits and values 15, and
//!    A compensates for the differences: the outputs are 576 times the sums, modulo 2^32. 576 is 64 x 9, and 9 has an
//!    inverse modulo 2^32: 64 times the sums remain, exact as long as that fits 32 bits. 36 products instead of 144.
//! 3. Stride 2: even and odd rows and columns are separate convolutions of stride 1, with two taps for the
//!    kernel's even ones: F(2, 2), whose matrices contain only 0, 1 and -1. 25 products instead of 36, no
//!    factor. Slots whose sums are added anyway form one group of products.
//! 4. A padded position holds the input's zero point, which is already folded into the biases, so the
//!    transform treats it as any value.
//! 5. On both sides, channels are in the order in which `SXTB16` and `SXTB16 ROR #8` produce them.

mod filters;
mod form;
mod outputs;
mod tiles;

use super::epilogue::Epilogue;
use super::products::{COLUMNS, ROUND, wide};
use crate::base::quantization::Addition;
use crate::kernels::algorithms::{Convolution, Filters};
use crate::kernels::set::Kernels;
use crate::ops::Conv2d;

use form::{Form, Kind};

/// Winograd's algorithm, with large tiles or not, with filters transformed at run time or in advance.
pub(in crate::kernels) struct Tiles<const LARGE_TILES: bool, const AT_RUN_TIME: bool>;

pub(in crate::kernels) type Winograd = Tiles<false, false>;
pub(in crate::kernels) type WinogradAtRunTime = Tiles<false, true>;
pub(in crate::kernels) type Winograd4 = Tiles<true, false>;
pub(in crate::kernels) type Winograd4AtRunTime = Tiles<true, true>;

impl<const LARGE_TILES: bool, const AT_RUN_TIME: bool> Convolution for Tiles<LARGE_TILES, AT_RUN_TIME> {
    const NAME: &'static str = match (LARGE_TILES, AT_RUN_TIME) {
        (false, false) => "winograd 2x2",
        (false, true) => "winograd 2x2*",
        (true, false) => "winograd 4x4",
        (true, true) => "winograd 4x4*",
    };
    const KERNELS: u16 = Kernels::WINOGRAD;
    const STRIPS: &'static [u8] = match (LARGE_TILES, AT_RUN_TIME) {
        (false, false) => &[2],
        (false, true) => &[2, 4, 6],
        (true, _) => &[4],
    };

    /// 3x3, stride 1 or 2 (large tiles: 1), a multiple of 16 input channels, an even number of output channels, and
    /// sums that fit 32 bits with their factor.
    fn supports(layer: &Conv2d<'_>) -> bool {
        supports(layer, LARGE_TILES)
    }

    fn weight_bytes(filters: &Filters) -> usize {
        if AT_RUN_TIME {
            return filters.plain_bytes();
        }
        // for two outputs
        let two = Form::of(&filters.window, LARGE_TILES).weight_words(filters.channels);
        two.saturating_mul(filters.outputs / 2).saturating_mul(4)
    }

    fn pack(plain: &[i8], filters: &Filters, packed: &mut [u32]) -> bool {
        if !AT_RUN_TIME {
            Form::of(&filters.window, LARGE_TILES).transform_weights(plain, filters.channels, packed);
        }
        !AT_RUN_TIME
    }

    fn scratch_words(layer: &Conv2d<'_>, strip: usize) -> usize {
        scratch_words(layer, Form::of(&layer.window, LARGE_TILES), AT_RUN_TIME, strip)
    }

    fn cycles(layer: &Conv2d<'_>, strip: usize) -> u64 {
        cycles(layer, Form::of(&layer.window, LARGE_TILES), AT_RUN_TIME, strip)
    }

    fn run(
        layer: &Conv2d<'_>,
        addition: Option<&Addition>,
        input: &[&[i8]],
        output: &mut [&mut [i8]],
        scratch: &mut [u32],
    ) {
        conv2d(layer, Form::of(&layer.window, LARGE_TILES), AT_RUN_TIME, addition, input, output, scratch);
    }
}

fn supports(layer: &Conv2d<'_>, large: bool) -> bool {
    let (window, channels) = (&layer.window, layer.input.channels);
    let form = Form::of(window, large);
    let room = (i64::from(i32::MAX) >> form.scale_bits) - 9 * i64::from(channels) * 128 * 128;
    !layer.depthwise
        && layer.weights.as_ptr().align_offset(4) == 0
        && window.kernel == [3; 2]
        && (window.stride == [1; 2] || window.stride == [2; 2] && !large)
        && channels.is_multiple_of(2 * ROUND as u16)
        && layer.output.channels.is_multiple_of(2)
        && layer.bias.iter().all(|bias| i64::from(*bias).abs() <= room)
}

/// Words of scratch memory for strips of `strip` rows: the values of a group of tiles (of all groups if filters are
/// transformed at run time), and a region for lines first, then for sums, outputs and transformed filters.
fn scratch_words(layer: &Conv2d<'_>, form: &Form, at_run_time: bool, strip: usize) -> usize {
    let channels = usize::from(layer.input.channels);
    let (groups, weights) = match at_run_time {
        true => (groups_across(layer, form) * form.tiles(strip), form.weight_words(channels)),
        false => (1, 0),
    };
    groups.saturating_mul(form.value_words(channels)).saturating_add(form.beside_words(weights))
}

fn cycles(layer: &Conv2d<'_>, form: &Form, at_run_time: bool, strip: usize) -> u64 {
    let [channels, outputs] = [layer.input.channels, layer.output.channels].map(usize::from);
    let (height, width) = (usize::from(layer.output.height), usize::from(layer.output.width));
    let strip = strip.max(1);
    // an odd last row takes as long as a row of tiles
    let tile_rows = (height / strip) * strip.div_ceil(form.tile) + (height % strip).div_ceil(form.tile);
    let groups = tile_rows * width.div_ceil(COLUMNS * form.tile);
    // of the values of sixteen channels, the outputs of two, and the weights of two
    let (transform, sums, filter) = match form.kind {
        Kind::Large => (15_500, 2300, 360),
        Kind::Small => (7200, 440, 165),
        Kind::Polyphase => (12_800, 440, 165),
    };
    let rounds = channels / 16;
    let products = form.groups.slots() * (128 * rounds + 12 * rounds.saturating_sub(1))
        + form.sums() / (2 * COLUMNS) * 17;
    let strips = height.div_ceil(strip);
    let filters = if at_run_time { strips * outputs * channels / 2 * filter } else { 0 };
    // rows that are not whole groups are stored value by value
    let part = if width.is_multiple_of(COLUMNS * form.tile) { 0 } else { 480 * form.tile * form.tile };
    (groups * (rounds * transform + outputs / 2 * (products + sums + part + 500)) + filters) as u64
}

/// Groups of tiles in a row of tiles.
fn groups_across(layer: &Conv2d<'_>, form: &Form) -> usize {
    form.tiles(layer.output.width.into()).div_ceil(COLUMNS)
}

/// A strip of output rows; see the module's head.
#[inline(never)]
fn conv2d(
    layer: &Conv2d<'_>,
    form: &Form,
    at_run_time: bool,
    addition: Option<&Addition>,
    input: &[&[i8]],
    output: &mut [&mut [i8]],
    scratch: &mut [u32],
) {
    let epilogue = Epilogue::new(layer, addition, form.scale_bits);
    let channels = usize::from(layer.input.channels);
    let groups = groups_across(layer, form).max(1) * form.tiles(output.len());
    let two = form.weight_words(channels).max(1);
    let value_words = form.value_words(channels).max(1);

    let here = if at_run_time { two } else { 0 };
    let Some((beside, values)) = scratch.split_at_mut_checked(form.beside_words(here)) else {
        debug_assert!(false, "scratch memory is too short for lines and outputs");
        return;
    };
    let weights: &[u32] = bytemuck::try_cast_slice(layer.weights).unwrap_or_default();
    // filters transformed at run time are used for all groups; otherwise, a group's values are used for all channels
    let batch = if at_run_time { groups } else { 1 };
    let next = |place: Place| place.next(form.tile, usize::from(layer.output.width));
    let mut first = Place { x: 0, y: 0 };
    while first.y < output.len() {
        let (mut place, mut rest) = (first, &mut *values);
        for _ in 0..batch {
            let Some((here, later)) = rest.split_at_mut_checked(value_words) else {
                debug_assert!(false, "scratch memory is too short for the values");
                return;
            };
            let rows = input.get(place.y * form.stride..).unwrap_or_default();
            form.transform(layer, rows, place.x, beside, here);
            (place, rest) = (next(place), later);
        }
        let Some((weights_here, sums)) = beside.split_at_mut_checked(here) else {
            debug_assert!(false, "scratch memory is too short for the weights");
            return;
        };
        let Some((sums, outputs)) = bytemuck::cast_slice_mut(sums).split_at_mut_checked(form.sums()) else {
            debug_assert!(false, "scratch memory is too short for the sums");
            return;
        };
        let mut weights = weights;
        for (pair, bias) in layer.bias.as_chunks::<2>().0.iter().enumerate() {
            if at_run_time {
                let filters = layer.weights.chunks_exact((9 * channels).max(1));
                for (channel, filter) in filters.skip(2 * pair).take(2).enumerate() {
                    form.transform_filter(filter, channels, channel, weights_here);
                }
                weights = weights_here;
            }
            let (mut place, mut values) = (first, &*values);
            for _ in 0..batch {
                wide(&form.groups, channels / 2, values, weights, sums);
                form.outputs(sums, bias, outputs);
                let end = output.len().min(place.y + form.tile);
                let rows = output.get_mut(place.y..end).unwrap_or_default();
                epilogue.store(outputs, rows, [place.x, form.tile], 2 * pair, 2);
                place = next(place);
                values = values.get(value_words..).unwrap_or_default();
            }
            weights = weights.get(two..).unwrap_or_default();
        }
        for _ in 0..batch.max(1) {
            first = next(first);
        }
    }
}

/// The position of a group of tiles in a strip: its first output column and row.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
}

impl Place {
    /// The next group's position.
    #[inline(always)]
    fn next(self, tile: usize, width: usize) -> Self {
        let x = self.x + COLUMNS * tile;
        if x < width { Place { x, ..self } } else { Place { x: 0, y: self.y + tile } }
    }
}
