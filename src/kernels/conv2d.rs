//! Convolutions, checked for what their kernel needs.

use crate::base::error::LayerError;
use crate::base::quantization::Requantize;
use crate::base::shape::{Shape, Window};
use crate::kernels;
use crate::ops::checks::{check_accumulators, check_length};
use crate::ops::{Algorithm, Conv2d};

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

    /// Bytes of the weights if `algorithm` computes the layer.
    pub fn packed_bytes(&self, algorithm: Algorithm) -> usize {
        let channels = usize::from(self.output.channels);
        kernels::weight_bytes(&self.window, self.input, channels, self.depthwise, algorithm)
    }

    /// Packs plain weights for `algorithm` into as many words as [`Conv2d::packed_bytes`] says, all zero; `false` if it
    /// takes them as they are.
    pub fn pack(&self, plain: &[i8], algorithm: Algorithm, packed: &mut [u32]) -> bool {
        let channels = usize::from(self.input.channels);
        match algorithm {
            Algorithm::Direct if !self.depthwise => {
                kernels::dsp::direct::pack(plain, &self.window, channels, packed);
                true
            }
            Algorithm::Winograd | Algorithm::Winograd4 => {
                kernels::dsp::winograd::transform_weights(plain, &self.window, algorithm, channels, packed);
                true
            }
            Algorithm::Direct
            | Algorithm::Reference
            | Algorithm::WinogradAtRunTime
            | Algorithm::Winograd4AtRunTime => false,
        }
    }

    /// The layer as `algorithm` would compute it, for planning: its weights are not packed.
    pub fn planned_as(&self, algorithm: Algorithm) -> Self {
        Conv2d { algorithm, ..*self }
    }

    /// Whether `algorithm` can compute the layer.
    pub fn is_served_by(&self, algorithm: Algorithm) -> bool {
        kernels::serves(&Conv2d { algorithm, ..*self })
    }

    /// Bytes of scratch memory, a multiple of 4, for a strip of `strip` rows.
    pub fn scratch_bytes(&self, strip: u8) -> usize {
        kernels::scratch_bytes(self, usize::from(strip))
    }
}
