//! Residual blocks in the oracle's terms, and the oracle's parameters as the runtime has them.

use alloc::vec;
use alloc::vec::Vec;

use skipstone::Shape;
use skipstone::block::{Block, Clamp, Conv2d, Requantize, Residual, Shortcut, Subsample, Window};

use crate::layers;
use crate::naive::{self, Tensor};
use crate::random::Random;

/// A block in the oracle's terms, with an input.
pub(crate) struct NaiveBlock {
    pub(crate) input: Tensor,
    pub(crate) path: Vec<naive::Conv2d>,
    pub(crate) residual: naive::Residual,
    pub(crate) shortcut: NaiveShortcut,
}

pub(crate) enum NaiveShortcut {
    Identity,
    Projection(naive::Conv2d),
    Padded { stride: [usize; 2], channels_before: usize, channels: usize },
}

impl NaiveBlock {
    pub(crate) fn random(random: &mut Random) -> Self {
        let [height, width, channels] = [random.size(1, 9), random.size(1, 9), random.size(1, 6)];
        let stride = [random.size(1, 3), random.size(1, 3)];
        let outputs = random.size(1, 8);
        let (stride, outputs, shortcut) = match random.size(0, 2) {
            0 => ([1; 2], channels, NaiveShortcut::Identity),
            1 => {
                let kernel = if random.one_in(2) { [1; 2] } else { [random.size(1, 3), random.size(1, 3)] };
                let window = same(random, kernel, stride);
                let layer = layers::conv2d(random, window, false, channels, outputs);
                (stride, outputs, NaiveShortcut::Projection(layer))
            }
            _ => {
                let (before, after) = (random.size(0, 3), random.size(0, 3));
                let channels = before + channels + after;
                (stride, channels, NaiveShortcut::Padded { stride, channels_before: before, channels })
            }
        };
        let path = path(random, channels, outputs, stride);
        let residual = layers::residual(random, path.last().unwrap().requantize.shift);
        let input = Tensor::new(height, width, channels, random.int8s(height * width * channels));
        NaiveBlock { input, path, residual, shortcut }
    }

    /// The shortcut's values.
    pub(crate) fn shortcut(&self) -> Tensor {
        match &self.shortcut {
            NaiveShortcut::Identity => self.input.clone(),
            NaiveShortcut::Projection(layer) => layer.run(&self.input, None),
            NaiveShortcut::Padded { stride, channels_before, channels } => {
                subsample(&self.input, *stride, *channels_before, *channels, self.residual.zero_point)
            }
        }
    }

    pub(crate) fn run(&self) -> Tensor {
        let (last, inner) = self.path.split_last().unwrap();
        let tensor = inner.iter().fold(self.input.clone(), |tensor, layer| layer.run(&tensor, None));
        last.run(&tensor, Some((&self.residual, &self.shortcut())))
    }

    /// The block as the runtime has it.
    pub(crate) fn checked(&self) -> Block<'_> {
        let mut from = shape(&self.input);
        let mut path = Vec::new();
        for layer in &self.path {
            path.push(convolution(layer, from));
            from = path.last().unwrap().output();
        }
        let naive::Residual { zero_point, multiplier, shift } = self.residual;
        let residual = Residual::new(zero_point, multiplier, shift).unwrap();
        let shortcut = match &self.shortcut {
            NaiveShortcut::Identity => Shortcut::Identity,
            NaiveShortcut::Projection(layer) => Shortcut::Projection(convolution(layer, shape(&self.input))),
            NaiveShortcut::Padded { stride, channels_before, .. } => Shortcut::Padded(Subsample {
                stride: stride.map(|stride| stride as u8),
                channels_before: *channels_before as u16,
            }),
        };
        Block::new(&path, residual, shortcut).unwrap()
    }
}

/// A window of this kernel under which a tensor shrinks by its stride alone.
fn same(random: &mut Random, kernel: [usize; 2], stride: [usize; 2]) -> naive::Window {
    let [top, left] = kernel.map(|kernel| random.size(0, kernel - 1));
    let padding = [top, left, kernel[0] - 1 - top, kernel[1] - 1 - left];
    naive::Window { kernel, stride, padding }
}

/// A path of one to four convolutions over tensors of `inputs` channels that ends in `outputs` channels
/// and shrinks by `stride`.
fn path(random: &mut Random, inputs: usize, outputs: usize, stride: [usize; 2]) -> Vec<naive::Conv2d> {
    let length = random.size(1, 4);
    let strided = random.size(0, length - 1);
    let mut channels = inputs;
    let mut path = vec![];
    for index in 0..length {
        let kernel = [random.size(1, 4), random.size(1, 4)];
        let window = same(random, kernel, if index == strided { stride } else { [1; 2] });
        let to = if index + 1 == length { outputs } else { random.size(1, 6) };
        let depthwise = random.one_in(4) && (index + 1 < length || channels == outputs);
        let layer = layers::conv2d(random, window, depthwise, channels, to);
        channels = layer.bias.len();
        path.push(layer);
    }
    path
}

/// Every `stride`-th pixel of the input, between channels of `zero_point`.
fn subsample(
    input: &Tensor,
    stride: [usize; 2],
    channels_before: usize,
    channels: usize,
    zero_point: i8,
) -> Tensor {
    let one = naive::Window { kernel: [1; 2], stride, padding: [0; 4] };
    one.each(input, channels, |y, x, channel| {
        let from = channel.checked_sub(channels_before).filter(|channel| *channel < input.channels);
        from.map_or(zero_point, |channel| {
            input.at((y * stride[0]) as i64, (x * stride[1]) as i64, channel).unwrap()
        })
    })
}

pub(crate) fn convolution(layer: &naive::Conv2d, input: Shape) -> Conv2d<'_> {
    let requantize = requantization(&layer.requantize);
    let new = if layer.depthwise { Conv2d::depthwise } else { Conv2d::new };
    let window = windowed(&layer.window);
    new(input, window, &layer.weights, &layer.bias, &layer.padding_pixel, requantize).unwrap()
}

pub(crate) fn shape(tensor: &Tensor) -> Shape {
    Shape::new(tensor.height as u16, tensor.width as u16, tensor.channels as u16)
}

pub(crate) fn windowed(window: &naive::Window) -> Window {
    Window {
        kernel: window.kernel.map(|size| size as u8),
        stride: window.stride.map(|size| size as u8),
        padding: window.padding.map(|size| size as u8),
    }
}

pub(crate) fn requantization(naive: &naive::Requantize) -> Requantize<'_> {
    let clamp = Clamp { zero_point: naive.zero_point, min: naive.min, max: naive.max };
    Requantize::new(&naive.multipliers, naive.shift, clamp).unwrap()
}
