//! Layers as plain parameter structs over slices, checked once when they are made.
//!
//! There are two kinds. A *windowed* layer makes an output row from the input rows under its window
//! ([`Conv2d`], [`Pool2d`]). A *reduction* takes its input row by row, in any
//! amount of time, into 32-bit sums, and has one output row at the end ([`Dense`],
//! [`GlobalAveragePool`]). Tensors are NHWC, rows are slices of width x channels int8 values.

use serde::{Deserialize, Serialize};

use crate::error::LayerError;
use crate::kernels;
use crate::quantization::{Clamp, Requantize};
use crate::shape::{Shape, Window};

/// Largest |x * w| of an int8 input and an int8 weight.
const MAX_PRODUCT: i64 = 128 * 128;

/// Refuses a bias from which `taps` products could leave an i32, whatever the weights and inputs are.
fn check_accumulators(bias: &[i32], taps: usize) -> Result<(), LayerError> {
    let products = i64::try_from(taps).unwrap_or(i64::MAX).saturating_mul(MAX_PRODUCT);
    let room = i64::from(i32::MAX).saturating_sub(products);
    match bias.iter().position(|b| i64::from(*b).abs() > room) {
        Some(channel) => Err(LayerError::Accumulator { channel }),
        None => Ok(()),
    }
}

fn check_length(given: usize, needed: usize) -> Result<(), LayerError> {
    if given == needed { Ok(()) } else { Err(LayerError::Length { needed, given }) }
}

/// The real value of a step: finite and above zero.
pub(crate) fn check_scale(scale: f32) -> Result<(), LayerError> {
    if scale.is_finite() && scale > 0.0 { Ok(()) } else { Err(LayerError::Requantization) }
}

/// The score of a step: so that every sum's score is finite as well.
fn check_score_scale(scale: f32) -> Result<(), LayerError> {
    check_scale(scale * (1u32 << 31) as f32)
}

/// One value for each output, or one that serves them all.
fn check_per_output(given: usize, outputs: usize) -> Result<(), LayerError> {
    if given == 1 { Ok(()) } else { check_length(given, outputs) }
}

/// How a convolution is computed. Every way gives the same bits; they differ in speed, flash and RAM, and
/// in how the weights lie in flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// A convolution over `input`, every output channel of which sees every input channel.
    ///
    /// * `weights`: OHWI (output channel, kernel row, kernel column, input channel), -127..=127.
    /// * `bias`: one for each output channel, at scale input_scale x weight_scale, with the input's zero
    ///   point folded in: bias - zero_point * sum(weights). Their number is the number of output channels.
    /// * `padding_pixel`: what stands in a padded position, one value for each input channel: the
    ///   input's zero point (per channel where raw camera bytes go in).
    ///
    /// # Errors
    /// [`LayerError`] where shapes, lengths or ranges do not fit, or a sum could leave 32 bits.
    pub fn new(
        input: Shape,
        window: Window,
        weights: &'a [i8],
        bias: &'a [i32],
        padding_pixel: &'a [i8],
        requantize: Requantize<'a>,
    ) -> Result<Self, LayerError> {
        Self::with_algorithm(input, window, Algorithm::Reference, weights, bias, padding_pixel, requantize)
    }

    /// As [`Conv2d::new`], computed in another way, with `weights` as [`Algorithm`] says, words as bytes.
    ///
    /// # Errors
    /// As [`Conv2d::new`], and [`LayerError::Algorithm`] where the algorithm does not serve this window,
    /// these channels or biases, or words do not lie at multiples of 4.
    pub fn with_algorithm(
        input: Shape,
        window: Window,
        algorithm: Algorithm,
        weights: &'a [i8],
        bias: &'a [i32],
        padding_pixel: &'a [i8],
        requantize: Requantize<'a>,
    ) -> Result<Self, LayerError> {
        let channels = u16::try_from(bias.len()).map_err(|_| LayerError::Geometry)?;
        let output = window.output(input, channels).ok_or(LayerError::Geometry)?;
        let depthwise = false;
        let layer =
            Conv2d { input, output, window, depthwise, algorithm, weights, bias, padding_pixel, requantize };
        layer.check()?;
        Ok(layer)
    }

    /// A depthwise convolution over `input`, every channel of which has a kernel of its own: as
    /// [`Conv2d::new`], but with `weights` HWC (kernel row, kernel column, channel).
    ///
    /// # Errors
    /// [`LayerError`] where shapes, lengths or ranges do not fit, or a sum could leave 32 bits.
    pub fn depthwise(
        input: Shape,
        window: Window,
        weights: &'a [i8],
        bias: &'a [i32],
        padding_pixel: &'a [i8],
        requantize: Requantize<'a>,
    ) -> Result<Self, LayerError> {
        Self::depthwise_with(input, window, Algorithm::Reference, weights, bias, padding_pixel, requantize)
    }

    /// As [`Conv2d::depthwise`], computed in another way: [`Algorithm::Direct`], with the same weights.
    ///
    /// # Errors
    /// As [`Conv2d::with_algorithm`].
    pub fn depthwise_with(
        input: Shape,
        window: Window,
        algorithm: Algorithm,
        weights: &'a [i8],
        bias: &'a [i32],
        padding_pixel: &'a [i8],
        requantize: Requantize<'a>,
    ) -> Result<Self, LayerError> {
        let output = window.output(input, input.channels).ok_or(LayerError::Geometry)?;
        let depthwise = true;
        let layer =
            Conv2d { input, output, window, depthwise, algorithm, weights, bias, padding_pixel, requantize };
        layer.check()?;
        Ok(layer)
    }

    /// There is an output, the parameters fit the shapes and the algorithm, and no sum can leave 32 bits.
    pub(crate) fn check(&self) -> Result<(), LayerError> {
        if self.output.is_empty() {
            return Err(LayerError::Geometry);
        }
        let channels = usize::from(self.output.channels);
        let taps = self.taps();
        check_length(self.bias.len(), channels)?;
        let bytes = kernels::weight_bytes(&self.window, self.input, channels, self.depthwise, self.algorithm);
        check_length(self.weights.len(), bytes)?;
        if !kernels::serves(self) {
            return Err(LayerError::Algorithm);
        }
        check_length(self.padding_pixel.len(), usize::from(self.input.channels))?;
        check_length(self.requantize.multipliers().len(), channels)?;
        check_accumulators(self.bias, taps)
    }

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

    /// Bytes of the weights of a convolution over `input` with `outputs` output channels.
    pub fn weight_bytes(
        window: &Window,
        input: Shape,
        outputs: u16,
        depthwise: bool,
        algorithm: Algorithm,
    ) -> usize {
        kernels::weight_bytes(window, input, outputs.into(), depthwise, algorithm)
    }

    /// Bytes of the weights, as the algorithm wants them.
    pub const fn weight_len(&self) -> usize {
        self.weights.len()
    }

    /// Whether `algorithm` can compute the layer.
    pub fn is_served_by(&self, algorithm: Algorithm) -> bool {
        kernels::serves(&Conv2d { algorithm, ..*self })
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
    const fn taps(&self) -> usize {
        let channels = if self.depthwise { 1 } else { self.input.channels as usize };
        self.window.positions() * channels
    }

    /// Bytes of scratch memory, a multiple of 4, for a strip of `strip` rows.
    pub fn scratch_bytes(&self, strip: u8) -> usize {
        kernels::scratch_bytes(self, usize::from(strip))
    }
}

/// Pooling over windows; the output keeps the input's scale and zero point.
#[derive(Debug, Clone, Copy)]
pub struct Pool2d {
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) window: Window,
    pub(crate) kind: Pooling,
}

/// What a pooling layer makes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// The largest value; padded positions never win.
    Max,
    /// The mean of the positions inside the tensor, rounded half away from zero.
    Average,
    /// The mean of all positions of the window, padded ones counting as real zeros.
    AveragePadded {
        /// The int8 value that stands for the real number zero.
        zero_point: i8,
    },
}

impl Pool2d {
    /// Pooling of `kind` over `input`.
    ///
    /// # Errors
    /// [`LayerError::Geometry`] where the window does not fit.
    pub fn new(input: Shape, window: Window, kind: Pooling) -> Result<Self, LayerError> {
        let output = window.output(input, input.channels).ok_or(LayerError::Geometry)?;
        Ok(Pool2d { input, output, window, kind })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        self.output
    }
}

/// What becomes of a reduction's 32-bit sums; multipliers and scales are one for each output, or one
/// that serves them all.
#[derive(Debug, Clone, Copy)]
pub enum Finish<'a> {
    /// int8 values for the next layer.
    Requantize(Requantize<'a>),
    /// f32 class scores, sum * scale, not squeezed through int8; scales are above zero and below 2^97, so that
    /// no score is infinite.
    Scores(&'a [f32]),
    /// int8 values: of a global average pooling, the mean rounded half away from zero, as TensorFlow
    /// Lite does. The pooling's zero point is 0 then.
    Mean(Clamp),
    /// f32 class scores, (value - zero_point) * scale of int8 values, as TensorFlow Lite has them.
    RoundedScores {
        /// How sums become int8 values.
        requantize: Requantize<'a>,
        /// Score of one step, above zero and below 2^97.
        scale: f32,
    },
}

/// What a reduction's sum has become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finished {
    Value(i8),
    Score(f32),
}

impl Finish<'_> {
    fn check(&self, outputs: usize) -> Result<(), LayerError> {
        match self {
            Finish::Requantize(requantize) => check_per_output(requantize.multipliers().len(), outputs),
            Finish::Scores(scales) => {
                check_per_output(scales.len(), outputs)?;
                scales.iter().try_for_each(|scale| check_score_scale(*scale))
            }
            Finish::Mean(clamp) => clamp.check(),
            Finish::RoundedScores { requantize, scale } => {
                check_per_output(requantize.multipliers().len(), outputs)?;
                check_score_scale(*scale)
            }
        }
    }

    /// Whether the outputs are f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        matches!(self, Finish::Scores(_) | Finish::RoundedScores { .. })
    }
}

/// Fully connected layer over a whole tensor, flattened in HWC order.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    pub(crate) input: Shape,
    pub(crate) weights: &'a [i8],
    pub(crate) bias: &'a [i32],
    pub(crate) finish: Finish<'a>,
}

impl<'a> Dense<'a> {
    /// A dense layer over `input`: `weights` output by input, one `bias` for each output (as in
    /// [`Conv2d::new`]).
    ///
    /// # Errors
    /// [`LayerError`] where shapes, lengths or ranges do not fit, or a sum could leave 32 bits.
    pub fn new(
        input: Shape,
        weights: &'a [i8],
        bias: &'a [i32],
        finish: Finish<'a>,
    ) -> Result<Self, LayerError> {
        if input.is_empty() || bias.is_empty() || u16::try_from(bias.len()).is_err() {
            return Err(LayerError::Geometry);
        }
        if matches!(finish, Finish::Mean(_)) {
            return Err(LayerError::Requantization);
        }
        check_length(weights.len(), input.len().saturating_mul(bias.len()))?;
        check_accumulators(bias, input.len())?;
        finish.check(bias.len())?;
        Ok(Dense { input, weights, bias, finish })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }
}

/// Mean over height and width: H x W x C becomes 1 x 1 x C, with 32-bit sums until its one rounding.
#[derive(Debug, Clone, Copy)]
pub struct GlobalAveragePool<'a> {
    pub(crate) input: Shape,
    pub(crate) zero_point: i8,
    pub(crate) finish: Finish<'a>,
}

impl<'a> GlobalAveragePool<'a> {
    /// Global average pooling over `input`, whose real zero is `zero_point`; the multipliers (or scales)
    /// of `finish` hold the division by height x width.
    ///
    /// # Errors
    /// [`LayerError`] where shapes, lengths or ranges do not fit, or a sum could leave 32 bits.
    pub fn new(input: Shape, zero_point: i8, finish: Finish<'a>) -> Result<Self, LayerError> {
        if input.is_empty() {
            return Err(LayerError::Geometry);
        }
        // every position adds at most |x - zero_point| <= 255
        let positions = i64::from(input.height) * i64::from(input.width);
        if positions * 256 > i64::from(i32::MAX) {
            return Err(LayerError::Accumulator { channel: 0 });
        }
        finish.check(usize::from(input.channels))?;
        if matches!(finish, Finish::Mean(_)) && zero_point != 0 {
            return Err(LayerError::Requantization);
        }
        Ok(GlobalAveragePool { input, zero_point, finish })
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.input
    }
}

/// A layer that makes an output row from the input rows under its window.
#[derive(Debug, Clone, Copy)]
pub enum Windowed<'a> {
    /// Convolution.
    Conv2d(Conv2d<'a>),
    /// Pooling.
    Pool2d(Pool2d),
}

impl Windowed<'_> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match self {
            Windowed::Conv2d(layer) => layer.input(),
            Windowed::Pool2d(layer) => layer.input(),
        }
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        match self {
            Windowed::Conv2d(layer) => layer.output(),
            Windowed::Pool2d(layer) => layer.output(),
        }
    }

    /// Kernel, stride and padding.
    pub const fn window(&self) -> Window {
        match self {
            Windowed::Conv2d(layer) => layer.window,
            Windowed::Pool2d(layer) => layer.window,
        }
    }
}

/// A layer that takes its input row by row into 32-bit sums and has one output row at the end.
#[derive(Debug, Clone, Copy)]
pub enum Reduction<'a> {
    /// Fully connected layer.
    Dense(Dense<'a>),
    /// Mean over height and width.
    GlobalAveragePool(GlobalAveragePool<'a>),
}

impl<'a> Reduction<'a> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match self {
            Reduction::Dense(layer) => layer.input(),
            Reduction::GlobalAveragePool(layer) => layer.input(),
        }
    }

    /// Number of sums, which is the number of outputs.
    pub const fn outputs(&self) -> u16 {
        match self {
            Reduction::Dense(layer) => layer.bias.len() as u16,
            Reduction::GlobalAveragePool(layer) => layer.input.channels,
        }
    }

    /// What becomes of the sums.
    pub const fn finish(&self) -> Finish<'a> {
        match self {
            Reduction::Dense(layer) => layer.finish,
            Reduction::GlobalAveragePool(layer) => layer.finish,
        }
    }

    /// Whether the output is f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        match self {
            Reduction::Dense(layer) => layer.finish.gives_scores(),
            Reduction::GlobalAveragePool(layer) => layer.finish.gives_scores(),
        }
    }

    /// Zero point and range of the int8 output; `None` where the output is class scores.
    pub const fn clamp(&self) -> Option<Clamp> {
        match self.finish() {
            Finish::Requantize(requantize) => Some(requantize.clamp()),
            Finish::Mean(clamp) => Some(clamp),
            Finish::Scores(_) | Finish::RoundedScores { .. } => None,
        }
    }

    /// What output `index` is whose sum is `sum`.
    pub(crate) fn finished(&self, index: usize, sum: i32) -> Finished {
        let value = |requantize: &Requantize<'_>| match requantize.scaling(index) {
            Some(scaling) => requantize.apply(sum, scaling, None),
            None => 0, // there is one for each output
        };
        match self.finish() {
            Finish::Requantize(requantize) => Finished::Value(value(&requantize)),
            Finish::Scores(scales) => {
                let scale = scales.get(if scales.len() == 1 { 0 } else { index });
                Finished::Score(sum as f32 * scale.copied().unwrap_or(0.0))
            }
            Finish::Mean(clamp) => {
                let positions = i32::from(self.input().height) * i32::from(self.input().width);
                // `clamp` of the standard library would panic on an empty one
                Finished::Value(mean(sum, positions).max(clamp.min.into()).min(clamp.max.into()) as i8)
            }
            Finish::RoundedScores { requantize, scale } => {
                let value = i32::from(value(&requantize)) - i32::from(requantize.clamp().zero_point);
                Finished::Score(value as f32 * scale)
            }
        }
    }
}

/// sum / count, rounded half away from zero, as TensorFlow Lite does; 0 of nothing.
pub(crate) fn mean(sum: i32, count: i32) -> i32 {
    let half = if sum > 0 { count / 2 } else { -(count / 2) };
    (sum + half).checked_div(count).unwrap_or(0)
}
