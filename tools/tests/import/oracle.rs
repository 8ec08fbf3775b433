//! A float network evaluated by the obvious loops in f64: the oracle that importers' logits are compared by.
//!
//! It shares nothing with the tool's own float inference, so that a mistake in how the layer list is
//! read cannot hide in both.

use skipstone::host::Softmax;
use skipstone_tools::ir::{Activation, FloatNetwork, Layer, Operation, Real, Shortcut, Window};

/// Rows, columns, channels.
#[derive(Clone)]
struct Image {
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<f64>,
}

impl Image {
    fn new(height: usize, width: usize, channels: usize) -> Self {
        Image { height, width, channels, values: vec![0.0; height * width * channels] }
    }

    fn at(&mut self, row: usize, column: usize, channel: usize) -> &mut f64 {
        &mut self.values[(row * self.width + column) * self.channels + channel]
    }

    /// `None` outside of the image.
    fn get(&self, row: isize, column: isize, channel: usize) -> Option<f64> {
        let inside = (0..self.height as isize).contains(&row) && (0..self.width as isize).contains(&column);
        inside.then(|| self.values[(row as usize * self.width + column as usize) * self.channels + channel])
    }

    fn activate(mut self, activation: Activation) -> Self {
        for value in &mut self.values {
            *value = value.max(activation.low).min(activation.high);
        }
        self
    }
}

/// The only output: with a softmax at the end, logits and probabilities.
pub(crate) struct Answer {
    /// Before the softmax, if there is one.
    pub(crate) logits: Vec<f64>,
    /// After it.
    pub(crate) output: Vec<f64>,
}

/// What the network answers for an image of raw bytes, rows first, channels last.
pub(crate) fn evaluate(network: &FloatNetwork, pixels: &[u8]) -> Answer {
    let shape = network.input;
    let mut x = Image::new(shape.height.into(), shape.width.into(), shape.channels.into());
    assert_eq!(pixels.len(), x.values.len());
    let parameter = |list: &[f32], channel: usize| f64::from(list[if list.len() == 1 { 0 } else { channel }]);
    for (index, (value, &pixel)) in x.values.iter_mut().zip(pixels).enumerate() {
        let channel = index % x.channels;
        let mean = parameter(&network.preprocessing.mean, channel);
        let std = parameter(&network.preprocessing.std, channel);
        *value = (f64::from(pixel) / 255.0 - mean) / std;
    }
    let mut tensors = vec![x];
    for layer in &network.layers {
        let mut y = run(layer, &tensors[layer.inputs[0]]);
        if let Some(shortcut) = layer.shortcut {
            add(shortcut, &tensors[shortcut.tensor], &mut y);
        }
        tensors.push(y.activate(layer.activation));
    }
    let [output] = &network.outputs[..] else { panic!("one output: {:?}", network.outputs) };
    let logits = tensors.swap_remove(output.tensor).values;
    let mut probabilities = logits.clone();
    if output.softmax != Softmax::None {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|v| (v - largest).exp()).sum();
        for value in &mut probabilities {
            *value = (*value - largest).exp() / sum;
        }
    }
    Answer { logits, output: probabilities }
}

fn run(layer: &Layer<Real>, x: &Image) -> Image {
    let (weights, bias) = layer.parameters.weights.real(&layer.operation);
    match layer.operation {
        Operation::Conv2d { window, depthwise, .. } => convolve(window, depthwise, &weights, &bias, x),
        Operation::MaxPool(window) => {
            slide(window, x, |values, _| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        }
        Operation::AveragePool { window, count_include_pad } => slide(window, x, |values, positions| {
            let count = if count_include_pad { positions } else { values.len() };
            values.iter().sum::<f64>() / count as f64
        }),
        Operation::GlobalAveragePool => {
            let mut y = Image::new(1, 1, x.channels);
            for (index, value) in x.values.iter().enumerate() {
                y.values[index % x.channels] += value / (x.height * x.width) as f64;
            }
            y
        }
        Operation::Dense { .. } => connect(&weights, &bias, x),
        ref other => panic!("the passes have left {other:?}"),
    }
}

fn convolve(window: Window, depthwise: bool, weights: &[f32], bias: &[f64], x: &Image) -> Image {
    let Window { kernel: [kernel_height, kernel_width], stride, padding } = window;
    let depth = if depthwise { 1 } else { x.channels };
    assert_eq!(weights.len(), kernel_height * kernel_width * depth * bias.len());
    let [top, left, bottom, right] = padding;
    let height = (x.height + top + bottom - kernel_height) / stride[0] + 1;
    let width = (x.width + left + right - kernel_width) / stride[1] + 1;
    let mut y = Image::new(height, width, bias.len());
    for row in 0..height {
        for column in 0..width {
            for (output, bias) in bias.iter().enumerate() {
                let mut sum = *bias;
                for i in 0..kernel_height {
                    for j in 0..kernel_width {
                        let from_row = (row * stride[0] + i) as isize - top as isize;
                        let from_column = (column * stride[1] + j) as isize - left as isize;
                        let position = i * kernel_width + j;
                        if depthwise {
                            let weight = weights[position * x.channels + output];
                            sum += f64::from(weight) * x.get(from_row, from_column, output).unwrap_or(0.0);
                            continue;
                        }
                        for input in 0..x.channels {
                            let filter = output * kernel_height * kernel_width + position;
                            let weight = weights[filter * x.channels + input];
                            sum += f64::from(weight) * x.get(from_row, from_column, input).unwrap_or(0.0);
                        }
                    }
                }
                *y.at(row, column, output) = sum;
            }
        }
    }
    y
}

fn slide(window: Window, x: &Image, reduce: impl Fn(&[f64], usize) -> f64) -> Image {
    let Window { kernel, stride, padding: [top, left, bottom, right] } = window;
    let height = (x.height + top + bottom - kernel[0]) / stride[0] + 1;
    let width = (x.width + left + right - kernel[1]) / stride[1] + 1;
    let mut y = Image::new(height, width, x.channels);
    for row in 0..height {
        for column in 0..width {
            for channel in 0..x.channels {
                let mut values = Vec::new();
                for i in 0..kernel[0] {
                    for j in 0..kernel[1] {
                        let from_row = (row * stride[0] + i) as isize - top as isize;
                        let from_column = (column * stride[1] + j) as isize - left as isize;
                        values.extend(x.get(from_row, from_column, channel));
                    }
                }
                *y.at(row, column, channel) = reduce(&values, kernel[0] * kernel[1]);
            }
        }
    }
    y
}

fn connect(weights: &[f32], bias: &[f64], x: &Image) -> Image {
    assert_eq!(weights.len(), bias.len() * x.values.len());
    let mut y = Image::new(1, 1, bias.len());
    for (output, value) in y.values.iter_mut().enumerate() {
        let row = &weights[output * x.values.len()..][..x.values.len()];
        let products = row.iter().zip(&x.values).map(|(w, v)| f64::from(*w) * v);
        *value = bias[output] + products.sum::<f64>();
    }
    y
}

fn add(shortcut: Shortcut, x: &Image, sum: &mut Image) {
    for row in 0..sum.height {
        for column in 0..sum.width {
            for channel in 0..x.channels {
                let from = ((row * shortcut.stride[0]) as isize, (column * shortcut.stride[1]) as isize);
                *sum.at(row, column, shortcut.channels_before + channel) +=
                    x.get(from.0, from.1, channel).unwrap();
            }
        }
    }
}
