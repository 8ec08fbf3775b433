//! A float network evaluated by the obvious loops in f64: the oracle that importers' logits are compared by.
//!
//! It shares nothing with the tool's own float inference, so that a mistake in how the layer list is
//! read cannot hide in both.

use skipstone_tools::network::{Activation, Block, Conv2d, Dense, FloatNetwork, Pool2d, Shortcut, Stage};

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
            *value = match activation {
                Activation::None => *value,
                Activation::Relu => value.max(0.0),
                Activation::Relu6 => value.clamp(0.0, 6.0),
            };
        }
        self
    }
}

/// The last two tensors: with a softmax at the end, logits and probabilities.
pub(crate) struct Answer {
    /// Before the softmax, if there is one.
    pub(crate) logits: Vec<f64>,
    /// After the last stage.
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
    let mut logits = None;
    for stage in &network.stages {
        if *stage == Stage::Softmax {
            logits = Some(x.values.clone());
        }
        x = run(stage, &x);
    }
    Answer { logits: logits.unwrap_or_else(|| x.values.clone()), output: x.values }
}

fn run(stage: &Stage, x: &Image) -> Image {
    match stage {
        Stage::Conv2d(conv) => convolve(conv, x).activate(conv.activation),
        Stage::MaxPool2d(pool) => {
            slide(pool, x, |values, _| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        }
        Stage::AveragePool2d(pool) => slide(pool, x, |values, positions| {
            let count = if pool.count_include_pad { positions } else { values.len() };
            values.iter().sum::<f64>() / count as f64
        }),
        Stage::GlobalAveragePool { .. } => {
            let mut y = Image::new(1, 1, x.channels);
            for (index, value) in x.values.iter().enumerate() {
                y.values[index % x.channels] += value / (x.height * x.width) as f64;
            }
            y
        }
        Stage::Dense(dense) => connect(dense, x),
        Stage::Softmax => {
            let mut y = x.clone();
            let largest = x.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.values.iter().map(|v| (v - largest).exp()).sum();
            for value in &mut y.values {
                *value = (*value - largest).exp() / sum;
            }
            y
        }
        Stage::Block(block) => residual(block, x),
    }
}

fn convolve(conv: &Conv2d, x: &Image) -> Image {
    assert_eq!(conv.input_channels, x.channels);
    let [kernel_height, kernel_width] = conv.kernel;
    let [top, left, bottom, right] = conv.padding;
    let height = (x.height + top + bottom - kernel_height) / conv.stride[0] + 1;
    let width = (x.width + left + right - kernel_width) / conv.stride[1] + 1;
    let mut y = Image::new(height, width, conv.output_channels);
    for row in 0..height {
        for column in 0..width {
            for output in 0..conv.output_channels {
                let mut sum = f64::from(conv.bias[output]);
                for i in 0..kernel_height {
                    for j in 0..kernel_width {
                        let from_row = (row * conv.stride[0] + i) as isize - top as isize;
                        let from_column = (column * conv.stride[1] + j) as isize - left as isize;
                        let position = i * kernel_width + j;
                        if conv.depthwise {
                            let weight = conv.weights[position * x.channels + output];
                            sum += f64::from(weight) * x.get(from_row, from_column, output).unwrap_or(0.0);
                            continue;
                        }
                        for input in 0..x.channels {
                            let filter = output * kernel_height * kernel_width + position;
                            let weight = conv.weights[filter * x.channels + input];
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

fn slide(pool: &Pool2d, x: &Image, reduce: impl Fn(&[f64], usize) -> f64) -> Image {
    let [top, left, bottom, right] = pool.padding;
    let height = (x.height + top + bottom - pool.kernel[0]) / pool.stride[0] + 1;
    let width = (x.width + left + right - pool.kernel[1]) / pool.stride[1] + 1;
    let mut y = Image::new(height, width, x.channels);
    for row in 0..height {
        for column in 0..width {
            for channel in 0..x.channels {
                let mut values = Vec::new();
                for i in 0..pool.kernel[0] {
                    for j in 0..pool.kernel[1] {
                        let from_row = (row * pool.stride[0] + i) as isize - top as isize;
                        let from_column = (column * pool.stride[1] + j) as isize - left as isize;
                        values.extend(x.get(from_row, from_column, channel));
                    }
                }
                *y.at(row, column, channel) = reduce(&values, pool.kernel[0] * pool.kernel[1]);
            }
        }
    }
    y
}

fn connect(dense: &Dense, x: &Image) -> Image {
    assert_eq!(dense.inputs, x.values.len());
    let mut y = Image::new(1, 1, dense.outputs);
    for (output, value) in y.values.iter_mut().enumerate() {
        let row = &dense.weights[output * dense.inputs..][..dense.inputs];
        let products = row.iter().zip(&x.values).map(|(w, v)| f64::from(*w) * v);
        *value = f64::from(dense.bias[output]) + products.sum::<f64>();
    }
    y.activate(dense.activation)
}

fn residual(block: &Block, x: &Image) -> Image {
    assert_eq!(block.path.last().unwrap().activation, Activation::None);
    let mut sum = x.clone();
    for conv in &block.path {
        sum = convolve(conv, &sum).activate(conv.activation);
    }
    let shortcut = match &block.shortcut {
        Shortcut::Identity => x.clone(),
        Shortcut::Projection(conv) => convolve(conv, x),
        Shortcut::Padded { stride, channels_before } => {
            let mut y = Image::new(sum.height, sum.width, sum.channels);
            for row in 0..sum.height {
                for column in 0..sum.width {
                    for channel in 0..x.channels {
                        let from = ((row * stride[0]) as isize, (column * stride[1]) as isize);
                        *y.at(row, column, channels_before + channel) =
                            x.get(from.0, from.1, channel).unwrap();
                    }
                }
            }
            y
        }
    };
    assert_eq!((sum.height, sum.width, sum.channels), (shortcut.height, shortcut.width, shortcut.channels));
    for (value, other) in sum.values.iter_mut().zip(&shortcut.values) {
        *value += other;
    }
    sum.activate(block.activation)
}
