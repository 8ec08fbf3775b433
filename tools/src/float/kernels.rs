//! The float layers, one function each: NHWC slices in, a resized buffer out.
//!
//! Every function relies on [`check`](crate::ir::check) having accepted the network.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use skipstone::Shape;

use crate::ir::{Activation, Shortcut, Window};

/// Values of the im2col buffer: 256 KiB, so that a strip of columns stays in the second-level cache.
const COLUMNS: usize = 64 * 1024;

/// The weights of a convolution and how they slide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filters<'a> {
    /// Kernel, stride and padding.
    pub(crate) window: Window,
    /// Each channel has one filter of its own.
    pub(crate) depthwise: bool,
    /// OHWI; HWC if depthwise.
    pub(crate) weights: &'a [f32],
    /// One for each output channel.
    pub(crate) bias: &'a [f32],
}

/// Convolution, without activation. Unless it is depthwise, it is a product of matrices: strips of gathered
/// windows (im2col) times the filters.
pub(crate) fn conv2d(
    filters: Filters<'_>,
    [from, to]: [Shape; 2],
    input: &[f32],
    columns: &mut Vec<f32>,
    output: &mut Vec<f32>,
) {
    let Filters { window, depthwise, weights, bias } = filters;
    if depthwise {
        return depthwise_conv2d(filters, [from, to], input, output);
    }
    let depth = window.kernel[0] * window.kernel[1] * usize::from(from.channels);
    let filters = matrix(weights, depth);
    fill(bias, to.len(), output);
    if window == Window::POINT {
        return add_product(input, filters, output);
    }
    let strip = (COLUMNS / depth).max(1);
    for (index, sums) in output.chunks_mut(strip * bias.len()).enumerate() {
        let positions = sums.len() / bias.len();
        columns.resize(positions * depth, 0.0);
        for (offset, column) in columns.chunks_exact_mut(depth).enumerate() {
            gather(window, [from, to], input, index * strip + offset, column);
        }
        add_product(columns, filters, sums);
    }
}

/// Copies the window of one output position, in the order of the filters' weights; padding is zero.
pub(crate) fn gather(
    window: Window,
    [from, to]: [Shape; 2],
    input: &[f32],
    position: usize,
    column: &mut [f32],
) {
    let channels = usize::from(from.channels);
    let width = usize::from(from.width);
    let [top, left, ..] = window.padding;
    let (row, x) = (position / usize::from(to.width), position % usize::from(to.width));
    let taps = overlap(x * window.stride[1], left, window.kernel[1], width);
    for (ky, line) in column.chunks_exact_mut(window.kernel[1] * channels).enumerate() {
        // Positions count from the first padded row and column.
        let y = row * window.stride[0] + ky;
        if taps.is_empty() || y < top || y >= top + usize::from(from.height) {
            line.fill(0.0);
            continue;
        }
        let start = ((y - top) * width + x * window.stride[1] + taps.start - left) * channels;
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

/// Depthwise convolution, without activation: each channel has a filter of its own.
pub(crate) fn depthwise_conv2d(
    filters: Filters<'_>,
    [from, to]: [Shape; 2],
    input: &[f32],
    output: &mut Vec<f32>,
) {
    fill(filters.bias, to.len(), output);
    let channels = usize::from(from.channels);
    for_each_window(filters.window, [from, to], output, |sums, position, tap| {
        let values = &input[position * channels..][..channels];
        let weights = &filters.weights[tap * channels..][..channels];
        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
            *sum += value * weight;
        }
    });
}

/// Maximum over windows; padding never wins.
pub(crate) fn max_pool2d(window: Window, [from, to]: [Shape; 2], input: &[f32], output: &mut Vec<f32>) {
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
    window: Window,
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
    let Window { kernel, stride, padding: [top, left, ..] } = window;
    for (index, sums) in output.chunks_exact_mut(channels).enumerate() {
        let (y, x) = (index / usize::from(to.width), index % usize::from(to.width));
        let count = if count_include_pad {
            kernel[0] * kernel[1]
        } else {
            overlap(y * stride[0], top, kernel[0], from.height.into()).len()
                * overlap(x * stride[1], left, kernel[1], from.width.into()).len()
        };
        sums.iter_mut().for_each(|sum| *sum /= count as f32);
    }
}

/// Calls `visit` with each window's output values, each real input position in it and that position's tap.
fn for_each_window(
    Window { kernel, stride, padding: [top, left, ..] }: Window,
    [from, to]: [Shape; 2],
    output: &mut [f32],
    mut visit: impl FnMut(&mut [f32], usize, usize),
) {
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

/// Fully connected layer, without activation.
pub(crate) fn dense(weights: &[f32], bias: &[f32], input: &[f32], output: &mut Vec<f32>) {
    fill(bias, bias.len(), output);
    add_product(input, matrix(weights, input.len()), output);
}

/// Softmax over the channels of each position, in place.
pub(crate) fn softmax(channels: usize, scores: &mut [f32]) {
    for scores in scores.chunks_exact_mut(channels) {
        // Without the maximum the exponentials could overflow; the quotient is the same.
        let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|score| *score = (*score - maximum).exp());
        let sum: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// Adds a shortcut to a layer's sums.
pub(crate) fn add_shortcut(shortcut: Shortcut, [from, to]: [Shape; 2], input: &[f32], sums: &mut [f32]) {
    match from == to {
        true => add(sums, input),
        false => add_padded(shortcut.stride, shortcut.channels_before, [from, to], input, sums),
    }
}

/// Adds a padded shortcut: every `stride`-th position, its channels after `channels_before` zeros.
fn add_padded(
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
fn add(sums: &mut [f32], values: &[f32]) {
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
    ArrayView2::from_shape((rows, columns), values).expect("check() has counted the values")
}

/// sums += inputs * filters^T, all of them stored row by row.
fn add_product(inputs: &[f32], filters: ArrayView2<'_, f32>, sums: &mut [f32]) {
    let inputs = matrix(inputs, filters.ncols());
    let mut sums = ArrayViewMut2::from_shape((inputs.nrows(), filters.nrows()), sums)
        .expect("there is one sum for each input row and filter");
    general_mat_mul(1.0, &inputs, &filters.t(), 1.0, &mut sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic values in -1..1 (a linear congruential generator).
    fn noise(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// The weights and biases of a convolution, all noise.
    struct Conv {
        window: Window,
        depthwise: bool,
        weights: Vec<f32>,
        bias: Vec<f32>,
    }

    impl Conv {
        fn filters(&self) -> Filters<'_> {
            let Conv { window, depthwise, weights, bias } = self;
            Filters { window: *window, depthwise: *depthwise, weights, bias }
        }
    }

    /// A convolution of noise and the shape that it gives: depth 1 if depthwise.
    fn conv(input: Shape, outputs: usize, depth: usize, window: Window) -> (Conv, Shape) {
        let conv = Conv {
            window,
            depthwise: depth != usize::from(input.channels),
            weights: noise(outputs as u64, outputs * window.kernel[0] * window.kernel[1] * depth),
            bias: noise(7, outputs),
        };
        let [height, width] = window.output(input).unwrap();
        let to = Shape::new(height as u16, width as u16, outputs as u16);
        (conv, to)
    }

    /// The real value at a position of the padded input, or `None` in the padding.
    fn at(
        input: &[f32],
        shape: Shape,
        padding: [usize; 4],
        y: usize,
        x: usize,
        channel: usize,
    ) -> Option<f32> {
        let (y, x) = (y.checked_sub(padding[0])?, x.checked_sub(padding[1])?);
        let (height, width) = (usize::from(shape.height), usize::from(shape.width));
        let channels = usize::from(shape.channels);
        (y < height && x < width).then(|| input[(y * width + x) * channels + channel])
    }

    /// The definition, in f64: the sum over kernel rows, kernel columns and channels.
    fn naive(conv: &Conv, [from, to]: [Shape; 2], input: &[f32]) -> Vec<f64> {
        let channels = usize::from(from.channels);
        let Window { kernel, stride, padding } = conv.window;
        let mut output = Vec::new();
        for y in 0..usize::from(to.height) {
            for x in 0..usize::from(to.width) {
                for o in 0..usize::from(to.channels) {
                    let mut sum = f64::from(conv.bias[o]);
                    for ky in 0..kernel[0] {
                        for kx in 0..kernel[1] {
                            for c in if conv.depthwise { o..o + 1 } else { 0..channels } {
                                let (iy, ix) = (y * stride[0] + ky, x * stride[1] + kx);
                                let value = at(input, from, padding, iy, ix, c).unwrap_or(0.0);
                                let tap = ky * kernel[1] + kx;
                                let weight = if conv.depthwise {
                                    conv.weights[tap * channels + c]
                                } else {
                                    conv.weights[(o * kernel[0] * kernel[1] + tap) * channels + c]
                                };
                                sum += f64::from(value) * f64::from(weight);
                            }
                        }
                    }
                    output.push(sum);
                }
            }
        }
        output
    }

    fn assert_close(found: &[f32], expected: &[f64], case: &str) {
        assert_eq!(found.len(), expected.len(), "{case}");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-4,
                "{case}: [{index}] is {found}, not {expected}"
            );
        }
    }

    const fn window(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4]) -> Window {
        Window { kernel, stride, padding }
    }

    /// Kernel, stride and padding (top, left, bottom, right) of every kind, on an input of 9 x 7.
    const WINDOWS: [Window; 10] = [
        window([1, 1], [1, 1], [0, 0, 0, 0]),
        window([1, 1], [2, 2], [0, 0, 0, 0]),
        window([1, 1], [2, 3], [1, 0, 2, 1]),
        window([3, 3], [1, 1], [1, 1, 1, 1]),
        // TensorFlow's SAME at stride 2, as in MLPerf Tiny's ResNet-8: below and to the right only.
        window([3, 3], [2, 2], [0, 0, 1, 1]),
        window([3, 3], [2, 2], [1, 1, 1, 1]),
        window([2, 5], [3, 1], [0, 2, 1, 3]),
        window([7, 7], [2, 1], [3, 3, 2, 4]),
        window([9, 7], [1, 1], [0, 0, 0, 0]),
        // Windows wholly in the padding, on every side.
        window([2, 2], [1, 2], [4, 3, 5, 6]),
    ];

    #[test]
    fn conv2d_equals_its_definition() {
        // Stale values in the buffers must not matter.
        let (mut columns, mut output) = (vec![f32::NAN; 77], vec![f32::NAN; 5]);
        for channels in [1, 3, 8] {
            let from = Shape::new(9, 7, channels);
            let input = noise(3, from.len());
            for window in WINDOWS {
                for outputs in [1, 5, 16] {
                    let (conv, to) = conv(from, outputs, channels.into(), window);
                    conv2d(conv.filters(), [from, to], &input, &mut columns, &mut output);
                    let case = format!("{channels} channels, {outputs} outputs, {window:?}");
                    assert_close(&output, &naive(&conv, [from, to], &input), &case);
                }
            }
        }
    }

    #[test]
    fn conv2d_of_several_strips_equals_its_definition() {
        let from = Shape::new(20, 19, 40);
        let (conv, to) = conv(from, 3, 40, window([3, 3], [1, 1], [1; 4]));
        assert!(to.len() / 3 > COLUMNS / (9 * 40), "one strip would hold all of it");
        let input = noise(5, from.len());
        let mut output = Vec::new();
        conv2d(conv.filters(), [from, to], &input, &mut Vec::new(), &mut output);
        assert_close(&output, &naive(&conv, [from, to], &input), "strips");
    }

    #[test]
    fn depthwise_conv2d_equals_its_definition() {
        let mut output = vec![f32::NAN; 5];
        for channels in [1, 6] {
            let from = Shape::new(9, 7, channels);
            let input = noise(4, from.len());
            for window in WINDOWS {
                let (conv, to) = conv(from, channels.into(), 1, window);
                depthwise_conv2d(conv.filters(), [from, to], &input, &mut output);
                let case = format!("{channels} channels, {window:?}");
                assert_close(&output, &naive(&conv, [from, to], &input), &case);
            }
        }
    }

    #[test]
    fn pools_equal_their_definition() {
        let from = Shape::new(9, 7, 2);
        // All below zero: a padding that took part as zero would win every maximum.
        let input: Vec<f32> = noise(6, from.len()).iter().map(|value| value - 1.5).collect();
        let (mut maxima, mut means) = (vec![f32::NAN; 5], vec![f32::NAN; 5]);
        for window in &WINDOWS[3..9] {
            let Window { kernel, stride, padding } = *window;
            let to = conv(from, 2, 1, *window).1;
            for count_include_pad in [false, true] {
                max_pool2d(*window, [from, to], &input, &mut maxima);
                average_pool2d(*window, count_include_pad, [from, to], &input, &mut means);
                let mut expected = (Vec::new(), Vec::new());
                for y in 0..usize::from(to.height) {
                    for x in 0..usize::from(to.width) {
                        for c in 0..2 {
                            let values: Vec<f64> = (0..kernel[0] * kernel[1])
                                .map(|tap| (y * stride[0] + tap / kernel[1], x * stride[1] + tap % kernel[1]))
                                .filter_map(|(y, x)| at(&input, from, padding, y, x, c))
                                .map(f64::from)
                                .collect();
                            let count = if count_include_pad { kernel[0] * kernel[1] } else { values.len() };
                            expected.0.push(values.iter().copied().fold(f64::MIN, f64::max));
                            expected.1.push(values.iter().sum::<f64>() / count as f64);
                        }
                    }
                }
                assert_close(&maxima, &expected.0, &format!("{window:?}, {count_include_pad}"));
                assert_close(&means, &expected.1, &format!("{window:?}, {count_include_pad}"));
            }
        }
    }

    #[test]
    fn dense_takes_its_input_in_storage_order() {
        let mut output = vec![f32::NAN; 9];
        let weights = [1.0, 10.0, 100.0, -1.0, 0.0, 1.0];
        dense(&weights, &[0.5, -9.0], &[1.0, 2.0, 3.0], &mut output);
        assert_eq!(output, [321.5, -7.0]);
    }

    #[test]
    fn softmax_sums_to_one_and_does_not_overflow() {
        let mut output = [1000.0, 1000.0, -1000.0, 0.0, 2f32.ln(), 5f32.ln()];
        softmax(3, &mut output);
        assert_close(&output, &[0.5, 0.5, 0.0, 0.125, 0.25, 0.625], "softmax");
    }

    #[test]
    fn a_nan_is_not_hidden_by_an_activation() {
        for activation in [Activation::NONE, Activation::RELU, Activation::RELU6] {
            let mut values = [f32::NAN, -1.0, 7.0];
            activate(activation, &mut values);
            assert!(values[0].is_nan());
        }
    }
}
