//! Constructors of convolutions, which check the requirements of their kernels.

use crate::base::error::LayerError;
use crate::base::quantization::Requantize;
use crate::base::shape::{Shape, Window};
use crate::kernels::{self, Filters};
use crate::ops::checks::{check_accumulators, check_length};
use crate::ops::{Algorithm, Conv2d};

impl<'a> Conv2d<'a> {
    /// A convolution over `input`; every output channel depends on every input channel.
    ///
    /// * `weights`: OHWI (output channel, kernel row, kernel column, input channel), -127..=127.
    /// * `bias`: one for each output channel, at scale input_scale x weight_scale, with the input's zero
    ///   point folded in: bias - zero_point * sum(weights). Their number is the number of output channels.
    /// * `padding_pixel`: the value of a padded position, one for each input channel: the input's zero point
    ///   (which differs per channel if the input is raw camera bytes).
    ///
    /// # Errors
    /// [`LayerError`] if shapes, lengths or ranges do not fit, or a sum could overflow 32 bits.
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

    /// As [`Conv2d::new`], computed by `algorithm`, with `weights` packed as [`Algorithm`] documents, words as bytes.
    ///
    /// # Errors
    /// As [`Conv2d::new`], and [`LayerError::Algorithm`] if the algorithm does not support this window,
    /// these channels or biases, or `weights` is not aligned to 4 bytes.
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

    /// A depthwise convolution over `input`, with one kernel per channel: as
    /// [`Conv2d::new`], but with `weights` HWC (kernel row, kernel column, channel).
    ///
    /// # Errors
    /// [`LayerError`] if shapes, lengths or ranges do not fit, or a sum could overflow 32 bits.
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

    /// As [`Conv2d::depthwise`], computed by `algorithm`, such as [`Algorithm::Depthwise`], with the same weights.
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

    /// Checks that the output is not empty, the parameters fit the shapes and the algorithm, and no sum can overflow
    /// 32 bits.
    pub(crate) fn check(&self) -> Result<(), LayerError> {
        if self.output.is_empty() {
            return Err(LayerError::Geometry);
        }
        let channels = usize::from(self.output.channels);
        let taps = self.taps();
        check_length(self.bias.len(), channels)?;
        check_length(self.weights.len(), self.packed_bytes(self.algorithm))?;
        if !kernels::supports(self) {
            return Err(LayerError::Algorithm);
        }
        check_length(self.padding_pixel.len(), usize::from(self.input.channels))?;
        check_length(self.requantize.multipliers().len(), channels)?;
        check_accumulators(self.bias, taps)
    }

    /// Bytes of the weights of a convolution over `input` with `outputs` output channels.
    pub fn weight_bytes(
        window: &Window,
        input: Shape,
        outputs: u16,
        depthwise: bool,
        algorithm: Algorithm,
    ) -> usize {
        let (channels, outputs) = (input.channels.into(), outputs.into());
        kernels::weight_bytes(algorithm, &Filters { window: *window, depthwise, channels, outputs })
    }

    const fn filters(&self) -> Filters {
        let [channels, outputs] = [self.input.channels as usize, self.output.channels as usize];
        Filters { window: self.window, depthwise: self.depthwise, channels, outputs }
    }

    /// Bytes of the weights if `algorithm` computes the layer.
    pub fn packed_bytes(&self, algorithm: Algorithm) -> usize {
        kernels::weight_bytes(algorithm, &self.filters())
    }

    /// Packs plain weights for `algorithm` into `packed`, all zero, of [`Conv2d::packed_bytes`]; `false` if it uses
    /// them unpacked.
    pub fn pack(&self, plain: &[i8], algorithm: Algorithm, packed: &mut [u32]) -> bool {
        kernels::pack(algorithm, plain, &self.filters(), packed)
    }

    /// The layer as `algorithm` would compute it, for planning: its weights are not packed.
    pub fn planned_as(&self, algorithm: Algorithm) -> Self {
        Conv2d { algorithm, ..*self }
    }

    /// Whether `algorithm` can compute the layer.
    pub fn is_supported_by(&self, algorithm: Algorithm) -> bool {
        kernels::supports(&self.planned_as(algorithm))
    }

    /// Bytes of scratch memory, a multiple of 4, for a strip of `strip` rows.
    pub fn scratch_bytes(&self, strip: u8) -> usize {
        kernels::scratch_bytes(self, usize::from(strip))
    }
}
