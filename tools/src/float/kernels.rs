//! The float layers, one function each: NHWC slices in, a resized buffer out.
//!
//! Every function relies on checked shapes: the number of weights and biases, windows that have a value.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use skipstone::Shape;

use crate::ir::{Activation, Window};

/// Values of the im2col buffer: 256 KiB, so that a strip of columns stays in the second-level cache.
const COLUMNS: usize = 64 * 1024;

/// Parameters of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv2d<'a> {
    /// Kernel, stride and padding.
    pub(crate) window: Window,
    /// Each channel has one filter of its own.
    pub(crate) depthwise: bool,
    /// Input channels.
    pub(crate) inputs: usize,
    /// Output channels.
    pub(crate) outputs: usize,
    /// OHWI; HWC if depthwise.
    pub(crate) weights: &'a [f32],
    /// One for each output channel.
    pub(crate) bias: &'a [f32],
}

/// Convolution; not depthwise, as a product of matrices: strips of gathered windows (im2col) times the
/// filters.
pub(crate) fn conv2d(
    conv: &Conv2d<'_>,
    [from, to]: [Shape; 2],
    input: &[f32],
    columns: &mut Vec<f32>,
    output: &mut Vec<f32>,
) {
    if conv.depthwise {
        return depthwise_conv2d(conv, [from, to], input, output);
    }
    let depth = conv.window.kernel[0] * conv.window.kernel[1] * conv.inputs;
    let filters = matrix(conv.weights, depth);
    fill(conv.bias, to.len(), output);
    let pointwise =
        conv.window.kernel == [1, 1] && conv.window.stride == [1, 1] && conv.window.padding == [0; 4];
    if pointwise {
        add_product(input, filters, output);
    } else {
        let strip = (COLUMNS / depth).max(1);
        for (index, sums) in output.chunks_mut(strip * conv.outputs).enumerate() {
            let positions = sums.len() / conv.outputs;
            columns.resize(positions * depth, 0.0);
            for (offset, column) in columns.chunks_exact_mut(depth).enumerate() {
                gather(conv, [from, to], input, index * strip + offset, column);
            }
            add_product(columns, filters, sums);
        }
    }
}

/// Copies the window of one output position, in the order of the filters' weights; padding is zero.
pub(crate) fn gather(
    conv: &Conv2d<'_>,
    [from, to]: [Shape; 2],
    input: &[f32],
    position: usize,
    column: &mut [f32],
) {
    let channels = conv.inputs;
    let width = usize::from(from.width);
    let [top, left, ..] = conv.window.padding;
    let (row, x) = (position / usize::from(to.width), position % usize::from(to.width));
    let taps = overlap(x * conv.window.stride[1], left, conv.window.kernel[1], width);
    for (ky, line) in column.chunks_exact_mut(conv.window.kernel[1] * channels).enumerate() {
        // Positions count from the first padded row and column.
        let y = row * conv.window.stride[0] + ky;
        if taps.is_empty() || y < top || y >= top + usize::from(from.height) {
            line.fill(0.0);
            continue;
        }
        let start = ((y - top) * width + x * conv.window.stride[1] + taps.start - left) * channels;
        line[..taps.start * channels].fill(0.0);
        line[taps.start * channels..taps.end * channels]
            .copy_from_slice(&input[start..start + taps.len() * channels]);
        line[taps.end * channels..].fill(0.0);
    }
}

/// The taps of a window, of `kernel` in all, that lie on real positions rather than on padding.
///
/// `start` is the window's first position, counted from the first padded one.
fn overlap(start: usize, padding: usize, kernel: usize, size: usize) -> std::ops::Range<usize> {
    let end = (padding + size).saturating_sub(start).min(kernel);
    padding.saturating_sub(start).min(end)..end
}

/// Depthwise convolution: each channel has a filter of its own.
pub(crate) fn depthwise_conv2d(
    conv: &Conv2d<'_>,
    [from, to]: [Shape; 2],
    input: &[f32],
    output: &mut Vec<f32>,
) {
    fill(conv.bias, to.len(), output);
    let channels = conv.inputs;
    for_each_window(&conv.window, [from, to], output, |sums, position, tap| {
        let values = &input[position * channels..][..channels];
        let weights = &conv.weights[tap * channels..][..channels];
        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
            *sum += value * weight;
        }
    });
}

/// Maximum over windows; padding never wins.
pub(crate) fn max_pool2d(window: &Window, [from, to]: [Shape; 2], input: &[f32], output: &mut Vec<f32>) {
    let channels = usize::from(to.channels);
    output.clear();
    output.resize(to.len(), f32::NEG_INFINITY);
    for_each_window(window, [from, to], output, |maxima, position, _| {
        for (maximum, value) in maxima.iter_mut().zip(&input[position * channels..][..channels]) {
            *maximum = maximum.max(*value);
        }
    });
}

/// Mean over windows; padded positions are zeros that count, or do not count, in the divisor.
pub(crate) fn average_pool2d(
    window: &Window,
    count_include_pad: bool,
    [from, to]: [Shape; 2],
    input: &[f32],
    output: &mut Vec<f32>,
) {
    let channels = usize::from(to.channels);
    output.clear();
    output.resize(to.len(), 0.0);
    for_each_window(window, [from, to], output, |sums, position, _| {
        for (sum, value) in sums.iter_mut().zip(&input[position * channels..][..channels]) {
            *sum += value;
        }
    });
    for (index, sums) in output.chunks_exact_mut(channels).enumerate() {
        let (y, x) = (index / usize::from(to.width), index % usize::from(to.width));
        let [top, left, ..] = window.padding;
        let count = if count_include_pad {
            window.kernel[0] * window.kernel[1]
        } else {
            overlap(y * window.stride[0], top, window.kernel[0], from.height.into()).len()
                * overlap(x * window.stride[1], left, window.kernel[1], from.width.into()).len()
        };
        sums.iter_mut().for_each(|sum| *sum /= count as f32);
    }
}

/// Calls `visit` with each window's output values, each real input position in it and that position's tap.
fn for_each_window(
    &Window { kernel, stride, padding }: &Window,
    [from, to]: [Shape; 2],
    output: &mut [f32],
    mut visit: impl FnMut(&mut [f32], usize, usize),
) {
    let [top, left, ..] = padding;
    let width = usize::from(from.width);
    for (index, values) in output.chunks_exact_mut(to.channels.into()).enumerate() {
        let y = index / usize::from(to.width) * stride[0];
        let x = index % usize::from(to.width) * stride[1];
        for ky in overlap(y, top, kernel[0], from.height.into()) {
            for kx in overlap(x, left, kernel[1], width) {
                let position = (y + ky - top) * width + x + kx - left;
                visit(values, position, ky * kernel[1] + kx);
            }
        }
    }
}

/// Mean over height and width.
pub(crate) fn global_average_pool(from: Shape, input: &[f32], output: &mut Vec<f32>) {
    let channels = usize::from(from.channels);
    output.clear();
    output.resize(channels, 0.0);
    for values in input.chunks_exact(channels) {
        for (sum, value) in output.iter_mut().zip(values) {
            *sum += value;
        }
    }
    let count = (input.len() / channels) as f32;
    output.iter_mut().for_each(|sum| *sum /= count);
}

/// Fully connected layer.
pub(crate) fn dense(weights: &[f32], bias: &[f32], input: &[f32], output: &mut Vec<f32>) {
    fill(bias, bias.len(), output);
    add_product(input, matrix(weights, input.len()), output);
}

/// Softmax over the channels of each position.
pub(crate) fn softmax(channels: usize, input: &[f32], output: &mut Vec<f32>) {
    output.clear();
    output.extend_from_slice(input);
    for scores in output.chunks_exact_mut(channels) {
        // Without the maximum the exponentials could overflow; the quotient is the same.
        let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|score| *score = (*score - maximum).exp());
        let sum: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Adds a padded shortcut: every `stride`-th position, its channels put behind `channels_before` zeros.
pub(crate) fn add_padded(
    stride: [usize; 2],
    channels_before: usize,
    [from, to]: [Shape; 2],
    input: &[f32],
    output: &mut [f32],
) {
    let channels = usize::from(from.channels);
    for (index, sums) in output.chunks_exact_mut(to.channels.into()).enumerate() {
        let y = index / usize::from(to.width) * stride[0];
        let x = index % usize::from(to.width) * stride[1];
        let values = &input[(y * usize::from(from.width) + x) * channels..][..channels];
        add(&mut sums[channels_before..], values);
    }
}

/// Adds `values` to the first of `sums`.
pub(crate) fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Applies an activation in place. A NaN stays one: the reference must not hide it.
pub(crate) fn activate(activation: Activation, values: &mut [f32]) {
    if activation != Activation::NONE {
        let (low, high) = (activation.low as f32, activation.high as f32);
        values.iter_mut().for_each(|value| *value = value.clamp(low, high));
    }
}

/// Makes `output` of `length` values, each position starting from its channels' biases.
fn fill(bias: &[f32], length: usize, output: &mut Vec<f32>) {
    output.resize(length, 0.0);
    output.chunks_exact_mut(bias.len()).for_each(|sums| sums.copy_from_slice(bias));
}

/// `values` as a matrix of rows of `columns`.
fn matrix(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    let rows = values.len() / columns;
    ArrayView2::from_shape((rows, columns), values).expect("shapes() has counted the values")
}

/// sums += inputs * filters^T, all of them stored row by row.
fn add_product(inputs: &[f32], filters: ArrayView2<'_, f32>, sums: &mut [f32]) {
    let inputs = matrix(inputs, filters.ncols());
    let mut sums = ArrayViewMut2::from_shape((inputs.nrows(), filters.nrows()), sums)
        .expect("there is one sum for each input row and filter");
    general_mat_mul(1.0, &inputs, &filters.t(), 1.0, &mut sums);
}
