//! The obvious loops: the oracle for every other backend, and the fallback.
//!
//! No size of a checked layer is zero; `.max(1)` tells the compiler so, which removes the panic paths.

use super::algorithms::Convolution;
use super::set::Kernels;
use crate::base::quantization::Addition;
use crate::ops::global_average_pool::mean;
use crate::ops::{Conv2d, Dense, GlobalAveragePool, Pool2d, Pooling};

/// Convolutions of any kind.
pub(super) struct Reference;

impl Convolution for Reference {
    const NAME: &'static str = "reference";
    const KERNELS: u16 = Kernels::REFERENCE;
    const STRIPS: &'static [u8] = &[1];

    fn supports(_: &Conv2d<'_>) -> bool {
        true
    }

    fn cycles(layer: &Conv2d<'_>, _strip: usize) -> u64 {
        10 * layer.macs() + 60 * layer.output.len() as u64
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

/// A strip of output rows; with `addition`, `output` holds the shortcut's values on entry.
fn conv2d(layer: &Conv2d<'_>, addition: Option<&Addition>, input: &[&[i8]], output: &mut [&mut [i8]]) {
    let channels = usize::from(layer.output.channels).max(1);
    for (rows, output) in strips(input, layer.window.stride[0]).zip(output) {
        for (x, pixel) in output.chunks_exact_mut(channels).enumerate() {
            let left = layer.window.first_column(x);
            let parameters = layer.bias.iter().zip(layer.requantize.scalings());
            for (channel, (y, (bias, scaling))) in pixel.iter_mut().zip(parameters).enumerate() {
                let products = match layer.depthwise {
                    false => full_window(layer, channel, rows, left),
                    true => depthwise_window(layer, channel, rows, left),
                };
                let addition = addition.map(|addition| (addition, *y));
                *y = layer.requantize.apply(bias + products, scaling, addition);
            }
        }
    }
}

/// For each output row of a strip, the input rows from the first one under its window on.
fn strips<'r, 's>(input: &'r [&'s [i8]], stride: u8) -> impl Iterator<Item = &'r [&'s [i8]]> {
    (0..input.len()).step_by(usize::from(stride).max(1)).map(|first| input.get(first..).unwrap_or_default())
}

/// Sum of products of one output channel over the window that starts at column `left` of `rows`.
fn full_window(layer: &Conv2d<'_>, channel: usize, rows: &[&[i8]], left: isize) -> i32 {
    let channels = usize::from(layer.input.channels).max(1);
    let row_len = usize::from(layer.window.kernel[1]).max(1) * channels;
    let weights = layer.weights.chunks_exact(row_len);
    let kernel_height = usize::from(layer.window.kernel[0]);
    let mut sum = 0;
    for (weights, row) in weights.skip(channel * kernel_height).zip(rows.iter().take(kernel_height)) {
        // if the whole width is inside the row: one run of bytes
        let inside = usize::try_from(left).ok().and_then(|left| row.get(left * channels..)?.get(..row_len));
        sum += match inside {
            Some(pixels) => dot(pixels, weights),
            None => (left..)
                .zip(weights.chunks_exact(channels))
                .map(|(column, weights)| dot(pixel(row, column, layer.padding_pixel), weights))
                .sum(),
        };
    }
    sum
}

/// Sum of products of one channel over the window that starts at column `left` of `rows`.
fn depthwise_window(layer: &Conv2d<'_>, channel: usize, rows: &[&[i8]], left: isize) -> i32 {
    let channels = usize::from(layer.input.channels).max(1);
    let row_len = usize::from(layer.window.kernel[1]).max(1) * channels;
    let mut sum = 0;
    for (weights, row) in layer.weights.chunks_exact(row_len).zip(rows) {
        for (column, weights) in (left..).zip(weights.chunks_exact(channels)) {
            let pixel = pixel(row, column, layer.padding_pixel);
            if let (Some(x), Some(w)) = (pixel.get(channel), weights.get(channel)) {
                sum += i32::from(*x) * i32::from(*w);
            }
        }
    }
    sum
}

/// The pixel of `row` at `column`, or `padding` outside the row.
fn pixel<'r>(row: &'r [i8], column: isize, padding: &'r [i8]) -> &'r [i8] {
    let inside = usize::try_from(column).ok().and_then(|column| {
        let start = column.checked_mul(padding.len())?;
        row.get(start..start.checked_add(padding.len())?)
    });
    inside.unwrap_or(padding)
}

fn dot(x: &[i8], w: &[i8]) -> i32 {
    x.iter().zip(w).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum()
}

/// A strip of output rows.
pub(crate) fn pool2d(layer: &Pool2d, input: &[&[i8]], output: &mut [&mut [i8]]) {
    let channels = usize::from(layer.input.channels).max(1);
    let [height, width] = layer.window.kernel.map(usize::from);
    for (rows, output) in strips(input, layer.window.stride[0]).zip(output) {
        for (x, pixel) in output.chunks_exact_mut(channels).enumerate() {
            let left = layer.window.first_column(x);
            for (channel, y) in pixel.iter_mut().enumerate() {
                let columns = (left..).take(width);
                let inside = rows.iter().take(height).flat_map(move |row| {
                    columns.clone().filter_map(move |column| {
                        let start = usize::try_from(column).ok()?.checked_mul(channels)?;
                        row.get(start + channel).copied()
                    })
                });
                *y = match layer.kind {
                    Pooling::Max => inside.max().unwrap_or(i8::MIN),
                    Pooling::Average => average(inside, None),
                    Pooling::AveragePadded { zero_point } => {
                        average(inside, Some((zero_point, height * width)))
                    }
                };
            }
        }
    }
}

/// Mean of `values`; with `padding` (a value and a number of positions), missing positions count as that value.
fn average(values: impl Iterator<Item = i8>, padding: Option<(i8, usize)>) -> i8 {
    let (mut sum, mut count) = (0i32, 0i32);
    for value in values {
        sum += i32::from(value);
        count += 1;
    }
    if let Some((value, positions)) = padding {
        let positions = positions as i32;
        sum += (positions - count) * i32::from(value);
        count = positions;
    }
    mean(sum, count) as i8 // a mean of int8 values fits int8
}

/// Adds the products of input row `row` to the sums, one for each output.
#[cfg_attr(not(any(test, feature = "self-test")), allow(dead_code))] // only tests use this oracle
pub(crate) fn dense(layer: &Dense<'_>, row: u16, input: &[i8], sums: &mut [i32]) {
    let row_len = layer.input.row_len().max(1);
    let rows = usize::from(layer.input.height);
    let weights = layer.weights.chunks_exact(row_len).skip(usize::from(row)).step_by(rows.max(1));
    for (sum, weights) in sums.iter_mut().zip(weights) {
        *sum += dot(input, weights);
    }
}

/// Adds an input row to the sums, one for each channel.
pub(crate) fn global_average_pool(layer: &GlobalAveragePool<'_>, input: &[i8], sums: &mut [i32]) {
    for pixel in input.chunks_exact(usize::from(layer.input.channels).max(1)) {
        for (sum, x) in sums.iter_mut().zip(pixel) {
            *sum += i32::from(*x) - i32::from(layer.zero_point);
        }
    }
}
