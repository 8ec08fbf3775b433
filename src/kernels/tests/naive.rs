//! The oracle: whole tensors, plain index arithmetic in 64 and 128 bits, written from the formulas of
//! `docs` and `src/quantization.rs`, sharing nothing with the kernels, not even a type.

use alloc::vec;
use alloc::vec::Vec;

/// An activation tensor, HWC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) values: Vec<i8>,
}

/// Kernel and stride, rows before columns; padding at the top, left, bottom and right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 4],
}

/// y = clamp(zero_point + round((sum * multiplier + residual) / 2^shift)).
#[derive(Debug, Clone)]
pub(crate) struct Requantize {
    pub(crate) multipliers: Vec<i32>,
    pub(crate) shift: u8,
    pub(crate) zero_point: i8,
    pub(crate) min: i8,
    pub(crate) max: i8,
}

/// residual = ((shortcut - zero_point) << shift) * multiplier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual {
    pub(crate) zero_point: i8,
    pub(crate) multiplier: i32,
    pub(crate) shift: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct Conv2d {
    pub(crate) window: Window,
    pub(crate) depthwise: bool,
    /// OHWI; HWC when depthwise.
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<i32>,
    pub(crate) padding_pixel: Vec<i8>,
    pub(crate) requantize: Requantize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pooling {
    Max,
    Average,
    AveragePadded { zero_point: i8 },
}

impl Tensor {
    pub(crate) fn new(height: usize, width: usize, channels: usize, values: Vec<i8>) -> Self {
        assert_eq!(values.len(), height * width * channels);
        Tensor { height, width, channels, values }
    }

    /// The value at a position, `None` in the padding.
    pub(crate) fn at(&self, y: i64, x: i64, channel: usize) -> Option<i8> {
        let inside = (0..self.height as i64).contains(&y) && (0..self.width as i64).contains(&x);
        inside.then(|| self.values[(y as usize * self.width + x as usize) * self.channels + channel])
    }
}

impl Window {
    /// Height and width of the output; `None` if the window does not fit.
    pub(crate) fn output(&self, input: &Tensor) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.padding;
        let height = (input.height + top + bottom).checked_sub(self.kernel[0])? / self.stride[0] + 1;
        let width = (input.width + left + right).checked_sub(self.kernel[1])? / self.stride[1] + 1;
        Some([height, width])
    }

    /// Input position under kernel position (`i`, `j`) of the output at (`y`, `x`).
    fn under(&self, y: usize, x: usize, i: usize, j: usize) -> (i64, i64) {
        let row = (y * self.stride[0] + i) as i64 - self.padding[0] as i64;
        let column = (x * self.stride[1] + j) as i64 - self.padding[1] as i64;
        (row, column)
    }

    /// Computes every output value from its position and channel.
    pub(crate) fn each(
        &self,
        input: &Tensor,
        channels: usize,
        mut value: impl FnMut(usize, usize, usize) -> i8,
    ) -> Tensor {
        let [height, width] = self.output(input).unwrap();
        let mut values = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for channel in 0..channels {
                    values.push(value(y, x, channel));
                }
            }
        }
        Tensor::new(height, width, channels, values)
    }
}

/// floor(numerator / denominator + 1/2), exactly.
pub(crate) fn round_half_up(numerator: i128, denominator: i128) -> i128 {
    (2 * numerator + denominator).div_euclid(2 * denominator)
}

impl Requantize {
    /// The one rounding of the exact rational number.
    pub(crate) fn apply(&self, sum: i64, channel: usize, residual: i128) -> i8 {
        let multiplier = self.multipliers[channel % self.multipliers.len()];
        let exact = i128::from(sum) * i128::from(multiplier) + residual;
        let rounded = i128::from(self.zero_point) + round_half_up(exact, 1 << self.shift);
        rounded.max(i128::from(self.min)).min(i128::from(self.max)) as i8
    }
}

impl Residual {
    pub(crate) fn term(&self, shortcut: i8) -> i128 {
        (i128::from(shortcut) - i128::from(self.zero_point))
            * (1i128 << self.shift)
            * i128::from(self.multiplier)
    }
}

impl Conv2d {
    /// The sum of an output position, which must fit 32 bits.
    fn sum(&self, input: &Tensor, y: usize, x: usize, channel: usize) -> i64 {
        let [height, width] = self.window.kernel;
        let mut sum = i64::from(self.bias[channel]);
        for i in 0..height {
            for j in 0..width {
                let (row, column) = self.window.under(y, x, i, j);
                for c in 0..input.channels {
                    let weight = match self.depthwise {
                        true if c != channel => continue,
                        true => self.weights[(i * width + j) * input.channels + channel],
                        false => self.weights[((channel * height + i) * width + j) * input.channels + c],
                    };
                    let x = input.at(row, column, c).unwrap_or(self.padding_pixel[c]);
                    sum += i64::from(x) * i64::from(weight);
                }
            }
        }
        assert!(i32::try_from(sum).is_ok(), "a sum of {sum} leaves 32 bits");
        sum
    }

    /// The output; with a residual, of which `shortcut` holds the values.
    pub(crate) fn run(&self, input: &Tensor, shortcut: Option<(&Residual, &Tensor)>) -> Tensor {
        self.window.each(input, self.bias.len(), |y, x, channel| {
            let term = shortcut.map_or(0, |(residual, shortcut)| {
                residual.term(shortcut.at(y as i64, x as i64, channel).unwrap())
            });
            self.requantize.apply(self.sum(input, y, x, channel), channel, term)
        })
    }
}

pub(crate) fn pool2d(window: &Window, kind: Pooling, input: &Tensor) -> Tensor {
    window.each(input, input.channels, |y, x, channel| {
        let mut values = Vec::new();
        for i in 0..window.kernel[0] {
            for j in 0..window.kernel[1] {
                let (row, column) = window.under(y, x, i, j);
                values.push(input.at(row, column, channel));
            }
        }
        let inside = values.iter().copied().flatten();
        let mean = |values: Vec<i8>| {
            let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
            let half_away = round_half_up(sum.abs(), values.len() as i128);
            (sum.signum() * half_away) as i8
        };
        match kind {
            Pooling::Max => inside.max().unwrap(),
            Pooling::Average => mean(inside.collect()),
            Pooling::AveragePadded { zero_point } => {
                mean(values.iter().map(|value| value.unwrap_or(zero_point)).collect())
            }
        }
    })
}

/// The sums of a dense layer: `weights` output by input, the input flattened in HWC order.
pub(crate) fn dense(input: &Tensor, weights: &[i8], bias: &[i32]) -> Vec<i64> {
    let mut sums = vec![0; bias.len()];
    for (output, sum) in sums.iter_mut().enumerate() {
        *sum = i64::from(bias[output]);
        for (index, x) in input.values.iter().enumerate() {
            *sum += i64::from(*x) * i64::from(weights[output * input.values.len() + index]);
        }
    }
    sums
}

/// The sums of global average pooling: of each channel's distances from the zero point.
pub(crate) fn global_average_pool(input: &Tensor, zero_point: i8) -> Vec<i64> {
    let mut sums = vec![0; input.channels];
    for (index, x) in input.values.iter().enumerate() {
        sums[index % input.channels] += i64::from(*x) - i64::from(zero_point);
    }
    sums
}
