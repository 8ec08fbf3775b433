//! Convolution: its parameters, and the list of ways to compute it.

use crate::base::clamp::Clamp;
use crate::base::quantization::Requantize;
use crate::base::shape::{Shape, Window};

/// How a convolution is computed. Every way gives the same bits; they differ in speed, flash and RAM, and
/// in how the weights lie in flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Algorithm {
    /// The obvious loops; weights OHWI, of a depthwise convolution HWC.
    Reference,
    /// Four pixels and two channels at a time; weights as [`pack_weights`](crate::pack_weights) packs them, of a
    /// depthwise convolution HWC.
    Direct,
    /// Winograd's way, 3x3 windows of stride 1 or 2 in tiles of 2x2 outputs; weights transformed beforehand
    /// ([`transform_weights`](crate::transform_weights)), 16/9 or 25/9 times as many, of 16 bits.
    Winograd,
    /// The same; weights OHWI, transformed at run time in scratch memory.
    WinogradAtRunTime,
    /// Winograd's way, 3x3 windows of stride 1 in tiles of 4x4 outputs; weights transformed beforehand
    /// ([`transform_weights`](crate::transform_weights)), 36/9 times as many, of 16 bits.
    Winograd4,
    /// The same; weights OHWI, transformed at run time in scratch memory.
    Winograd4AtRunTime,
}

impl Algorithm {
    /// All of them, by their number in the blob.
    pub const ALL: [Algorithm; 6] = [
        Algorithm::Reference,
        Algorithm::Direct,
        Algorithm::Winograd,
        Algorithm::WinogradAtRunTime,
        Algorithm::Winograd4,
        Algorithm::Winograd4AtRunTime,
    ];

    /// Strip heights worth trying.
    pub const fn strips(self) -> &'static [u8] {
        match self {
            Algorithm::Reference | Algorithm::Direct => &[1],
            Algorithm::Winograd => &[2],
            Algorithm::WinogradAtRunTime => &[2, 4, 6],
            Algorithm::Winograd4 | Algorithm::Winograd4AtRunTime => &[4],
        }
    }

    /// The algorithm with this number in the blob.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number in the blob.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Convolution, full or depthwise; batch norm is folded into weights and bias, the activation is the
/// clamp of its requantization.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d<'a> {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) window: Window,
    pub(crate) depthwise: bool,
    pub(crate) algorithm: Algorithm,
    /// As the algorithm wants them, words as bytes.
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

    /// Bytes of the weights, as the algorithm wants them.
    pub const fn weight_len(&self) -> usize {
        self.weights.len()
    }

    /// How the layer is computed.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Number of weights, however they lie in flash.
    pub const fn weight_count(&self) -> usize {
        self.taps() * self.output.channels as usize
    }

    /// Products of a sum.
    pub(crate) const fn taps(&self) -> usize {
        let channels = if self.depthwise { 1 } else { self.input.channels as usize };
        self.window.positions() * channels
    }
}
