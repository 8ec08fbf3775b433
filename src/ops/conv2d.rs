//! Convolution: its parameters.

use crate::base::clamp::Clamp;
use crate::base::quantization::Requantize;
use crate::base::shape::{Shape, Window};
use crate::ops::algorithm::Algorithm;

/// Convolution, full or depthwise. Batch norm is folded into weights and bias; the activation is the clamp of its
/// requantization.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d<'a> {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) window: Window,
    pub(crate) depthwise: bool,
    pub(crate) algorithm: Algorithm,
    /// Packed for the algorithm, words as bytes.
    pub(crate) weights: &'a [i8],
    pub(crate) bias: &'a [i32],
    pub(crate) padding_pixel: &'a [i8],
    pub(crate) requantize: Requantize<'a>,
}

impl<'a> Conv2d<'a> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        self.output
    }

    /// Zero point and range of the output.
    pub const fn clamp(&self) -> Clamp {
        self.requantize.clamp()
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub const fn macs(&self) -> u64 {
        let positions = (self.output.height as u64) * (self.output.width as u64);
        positions * self.output.channels as u64 * self.taps() as u64
    }

    /// Bytes of the weights in the algorithm's packing.
    pub const fn weight_len(&self) -> usize {
        self.weights.len()
    }

    /// How the layer is computed.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Number of weights, independent of their packing.
    pub const fn weight_count(&self) -> usize {
        self.taps() * self.output.channels as usize
    }

    /// Products of a sum.
    pub(crate) const fn taps(&self) -> usize {
        let channels = if self.depthwise { 1 } else { self.input.channels as usize };
        self.window.positions() * channels
    }
}
