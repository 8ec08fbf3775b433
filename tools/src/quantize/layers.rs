//! One operation each: its integers, and what becomes of its sums.

use skipstone::host;
use skipstone::host::tflite::{Scaling, Sum};
use skipstone::host::{Addition, Residual};

use super::fold::{Parameters, fold};
use super::kept::kept;
use super::meaning::{Meaning, Target, finite};
use super::requantize::{MAX_SHIFT, max_shift, multipliers, residual};
use super::{QuantizeError, Quantizer, gives_scores, not_exact, tflite};
use crate::calibrate::Range;
use crate::fit::Filters;
use crate::ir::{Activation, Finish, Integer, Real, Requantize, Rounding, TensorScale, Weights, Window};

/// What class scores stand for.
pub(super) const SCORES: TensorScale = TensorScale { scale: 1.0, zero_point: 0 };

impl<'n> Quantizer<'n> {
    /// A convolution; its shortcut's addition shares its one rounding, or comes after it as TensorFlow
    /// Lite has it.
    pub(super) fn conv2d(&mut self, index: usize) -> Result<(Integer, Meaning), QuantizeError> {
        let layer = &self.network.layers[index];
        let (input, filters) = self.filters(index)?;
        check_window(&layer.name, &filters.window)?;
        let shortcut = match layer.shortcut {
            Some(shortcut) => {
                let one = Window { kernel: [1; 2], stride: shortcut.stride, padding: [0; 4] };
                check_window(&layer.name, &one)?;
                let raw = || QuantizeError::RawInput { layer: layer.name.clone() };
                Some(self.meanings[shortcut.tensor].uniform().ok_or_else(raw)?)
            }
            None => None,
        };
        let parameters = self.parameters(index, &filters, &input)?;
        let Real { scale: known, sum_scale, .. } = layer.parameters;
        // the sum's own scale and range, before a separate addition
        let sum = match self.exact && shortcut.is_some() {
            true => self.target(index, Activation::NONE, sum_scale)?,
            false => self.target(index, layer.activation, known)?,
        };
        if let Some(fit) = &mut self.fit {
            fit.finish(index, sum.scale, sum.clamp);
        }
        let ratios: Vec<f64> = parameters.scales.iter().map(|step| step / sum.scale).collect();
        let fused = shortcut.filter(|_| !self.exact);
        let max_shift = fused.map_or(MAX_SHIFT, |(scale, _)| max_shift(scale / sum.scale));
        let requantize = self.requantize(&ratios, max_shift, sum);
        let (addition, output) = match (shortcut, &requantize.rounding) {
            (None, _) => (None, sum),
            (Some((scale, zero_point)), Rounding::Once { shift }) => {
                let (multiplier, shift) = residual(scale / sum.scale, *shift);
                (Some(Addition::Fused(Residual { zero_point, multiplier, shift })), sum)
            }
            (Some((scale, shortcut_zero_point)), Rounding::Twice { .. }) => {
                let output = self.target(index, layer.activation, known)?;
                let [path, shortcut, scaling] = tflite::addition([sum.scale, scale, output.scale]);
                let clamp = output.clamp;
                let sum = Sum { path, shortcut, shortcut_zero_point, output: scaling, clamp };
                (Some(Addition::Separate(sum)), output)
            }
        };
        let integer = Integer {
            weights: parameters.weights,
            bias: parameters.bias,
            padding_pixel: input.padding_pixel(filters.inputs),
            finish: Finish::Requantize(requantize),
            addition,
            scale: output.tensor(),
            input_zero_point: 0,
        };
        Ok((integer, output.meaning()))
    }

    pub(super) fn dense(&mut self, index: usize) -> Result<(Integer, Meaning), QuantizeError> {
        let (input, filters) = self.filters(index)?;
        let parameters = self.parameters(index, &filters, &input)?;
        let (finish, meaning, scale) = match gives_scores(self.network, index + 1) {
            true => (self.scores(index, &parameters.scales)?, Meaning::of(SCORES), SCORES),
            false => self.reduction(index, &parameters.scales)?,
        };
        let integer = Integer {
            weights: parameters.weights,
            bias: parameters.bias,
            padding_pixel: Vec::new(),
            finish,
            addition: None,
            scale,
            input_zero_point: 0,
        };
        Ok((integer, meaning))
    }

    /// Pooling over windows, which keeps the scale of its input. `pads` if padded positions count as zeros.
    pub(super) fn pool2d(
        &mut self,
        index: usize,
        window: &Window,
        pads: bool,
    ) -> Result<(Integer, Meaning), QuantizeError> {
        let layer = &self.network.layers[index];
        let input = self.meanings[layer.inputs[0]].clone();
        check_window(&layer.name, window)?;
        if self.exact && layer.parameters.scale != input.tensor() {
            return Err(not_exact(&layer.name, "it changes the scale in the file"));
        }
        let uniform = input.uniform();
        if let Some(fit) = &mut self.fit {
            fit.pool(index, uniform);
        }
        let is_output = self.network.outputs.iter().any(|output| output.tensor == index + 1);
        let input_zero_point = match uniform {
            Some((_, zero_point)) if pads => zero_point,
            None if pads || is_output => return Err(QuantizeError::RawInput { layer: layer.name.clone() }),
            Some(_) | None => 0,
        };
        Ok((Integer::without_weights(Finish::Keep, input.first_channel(), input_zero_point), input))
    }

    pub(super) fn global_average_pool(&mut self, index: usize) -> Result<(Integer, Meaning), QuantizeError> {
        let layer = &self.network.layers[index];
        let input = self.meanings[layer.inputs[0]].clone();
        let raw = || QuantizeError::RawInput { layer: layer.name.clone() };
        let (scale, zero_point) = input.uniform().ok_or_else(raw)?;
        if let Some(fit) = &mut self.fit {
            fit.pool(index, Some((scale, zero_point)));
        }
        let from = self.network.shape(layer.inputs[0]);
        let positions = u32::from(from.height) * u32::from(from.width);
        if gives_scores(self.network, index + 1) {
            let finish = self.scores(index, &[scale / f64::from(positions)])?;
            return Ok((Integer::without_weights(finish, SCORES, zero_point), Meaning::of(SCORES)));
        }
        self.mean(index, &input, (scale, zero_point), positions)
    }

    /// What the layer reads, and its filters.
    fn filters(&self, index: usize) -> Result<(Meaning, Filters<'n>), QuantizeError> {
        let layer = &self.network.layers[index];
        let input = layer.inputs[0];
        let missing = || QuantizeError::Unsupported { layer: layer.name.clone(), what: "a lack of weights" };
        let filters = Filters::of(layer, self.network.shape(input)).ok_or_else(missing)?;
        Ok((self.meanings[input].clone(), filters))
    }

    /// Integers of a convolution or dense layer: those of the file, fitted, or rounded to the nearest.
    fn parameters(
        &mut self,
        index: usize,
        filters: &Filters<'_>,
        input: &Meaning,
    ) -> Result<Parameters, QuantizeError> {
        let layer = &self.network.layers[index];
        let known = match &layer.parameters.weights {
            Weights::Integers(integers) => Some(integers),
            Weights::None | Weights::Real { .. } | Weights::Affine(_) => None,
        };
        if self.exact && known.is_none_or(|integers| *input != Meaning::of(integers.input)) {
            let reason = "its weights or its input are not those of an int8 layer in the file";
            return Err(not_exact(&layer.name, reason));
        }
        if let Some((integers, input)) = known.zip(input.tensor()) {
            return kept(&layer.name, filters, integers, input);
        }
        let folded = fold(&layer.name, filters, input)?;
        let rounded = match &mut self.fit {
            Some(fit) => fit.round(index, filters, &|channel, index| {
                folded.scales[channel] / Meaning::at(filters.input_channel(channel, index), &input.scale)
            }),
            None => folded.nearest(&filters.bias),
        };
        folded.parameters(&layer.name, rounded, filters)
    }

    /// From sums to int8 values by these ratios.
    fn requantize(&self, ratios: &[f64], max_shift: u8, Target { clamp, .. }: Target) -> Requantize {
        if self.exact {
            let scalings: Vec<Scaling> = ratios.iter().copied().map(tflite::scaling).collect();
            return tflite::rounded_twice(&scalings, clamp);
        }
        let (multipliers, shift) = multipliers(ratios, max_shift);
        Requantize { multipliers, rounding: Rounding::Once { shift }, clamp }
    }

    /// The finish of a reduction to int8 whose sums are worth `scales`, with the scale that the file or
    /// the range of its output gives.
    pub(super) fn reduction(
        &mut self,
        index: usize,
        scales: &[f64],
    ) -> Result<(Finish, Meaning, TensorScale), QuantizeError> {
        let layer = &self.network.layers[index];
        let target = self.target(index, layer.activation, layer.parameters.scale)?;
        self.reduction_to(index, scales, target)
    }

    pub(super) fn reduction_to(
        &mut self,
        index: usize,
        scales: &[f64],
        target: Target,
    ) -> Result<(Finish, Meaning, TensorScale), QuantizeError> {
        if let Some(fit) = &mut self.fit {
            fit.finish(index, target.scale, target.clamp);
        }
        let ratios: Vec<f64> = scales.iter().map(|step| step / target.scale).collect();
        let requantize = match self.exact {
            true => tflite::rounded_in_double(&self.network.layers[index].name, &ratios, target.clamp)?,
            false => self.requantize(&ratios, MAX_SHIFT, target),
        };
        Ok((Finish::Requantize(requantize), target.meaning(), target.tensor()))
    }

    /// The finish of a reduction to class scores whose sums are worth `scales`.
    fn scores(&mut self, index: usize, scales: &[f64]) -> Result<Finish, QuantizeError> {
        if self.exact {
            return self.rounded_scores(index, scales);
        }
        let layer = &self.network.layers[index].name;
        self.ranges.get(&(index + 1)).map_or(Ok(Range::default()), |range| finite(*range, layer))?;
        let scales: Vec<f32> = scales.iter().map(|scale| (*scale as f32).max(f32::MIN_POSITIVE)).collect();
        // the runtime lets no score be infinite
        let largest = scales.iter().fold(0.0, |max, scale| scale.max(max)) * 2f32.powi(31);
        finite(Range { min: 0.0, max: largest }, layer)?;
        Ok(Finish::Scores(scales))
    }
}

/// Whether the runtime has such a window.
fn check_window(layer: &str, window: &Window) -> Result<(), QuantizeError> {
    let Window { kernel, stride, padding } = *window;
    let bytes =
        |sizes: &[usize]| sizes.iter().map(|size| u8::try_from(*size).ok()).collect::<Option<Vec<_>>>();
    let valid = match (bytes(&kernel).as_deref(), bytes(&stride).as_deref(), bytes(&padding).as_deref()) {
        (Some(&[kh, kw]), Some(&[sh, sw]), Some(&[top, left, bottom, right])) => {
            host::Window { kernel: [kh, kw], stride: [sh, sw], padding: [top, left, bottom, right] }
                .is_valid()
        }
        _ => false, // a size above 255
    };
    let window = [kernel[0], kernel[1], stride[0], stride[1]];
    if valid { Ok(()) } else { Err(QuantizeError::Window { layer: layer.into(), window }) }
}
