//! Quantization: a float network and the ranges of its tensors become int8 stages.
//!
//! Weights are symmetric per output channel, activations per tensor. What an input value means is folded
//! into the weights that read it, so that `acc * weight_scale` is the real sum whatever the input's scale
//! is; so raw pixels, whose scale and zero point differ by channel, need no case of their own.

use skipstone::{Addition, Algorithm, Clamp, Pooling, Residual, Softmax, Window, schema};
use thiserror::Error;

use crate::blob::{Unplanned, Weights};
use crate::calibrate::{Range, Ranges};
use crate::float::{Part, ShapeError, TensorId, shapes};
use crate::network::{Activation, Block, Conv2d, Dense, FloatNetwork, Pool2d, Shortcut, Stage};

/// Largest weight.
const MAX_WEIGHT: f64 = 127.0;

/// A network that cannot be quantized.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the message beside each variant says what its numbers are")]
pub enum QuantizeError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("{layer}: {what} number {index} is {value}; train or export the network again")]
    NotFinite { layer: String, what: &'static str, index: usize, value: f32 },
    #[error(
        "{layer}: the activations range to {value}, which is not a finite number; check the weights and the preprocessing (--mean, --std)"
    )]
    Range { layer: String, value: f32 },
    #[error("{layer}: {products} products in one sum could leave 32 bits; at most 65,000 are allowed")]
    Products { layer: String, products: usize },
    #[error(
        "{layer}: the sum of output channel {channel} could leave 32 bits (|bias| + sum |w| * 128 = {bound})"
    )]
    Accumulator { layer: String, channel: usize, bound: i64 },
    #[error(
        "{layer}: reads raw pixels whose mean is not a whole pixel value or differs by channel; put a convolution before it"
    )]
    RawInput { layer: String },
    #[error("{layer}: a window of {0}x{1} with stride {2}x{3}; kernels go to 15x15, strides to 7, padding must be smaller than the kernel", .window[0], .window[1], .window[2], .window[3])]
    Window { layer: String, window: [usize; 4] },
    #[error(
        "the last layer, {layer}, gives no class scores: a network must end in a dense layer or global average pooling, with or without softmax"
    )]
    NoScores { layer: String },
}

/// What the int8 values of a tensor mean: real = scale * (q - zero_point), with one or with a scale and
/// zero point per channel.
#[derive(Debug, Clone, PartialEq)]
struct Meaning {
    scale: Vec<f64>,
    zero_point: Vec<f64>,
}

impl Meaning {
    fn of(channel: usize, values: &[f64]) -> f64 {
        values[channel.min(values.len() - 1)]
    }

    /// The one scale and int8 zero point, if all channels have the same and it is a whole number.
    fn uniform(&self) -> Option<(f64, i8)> {
        let same = |values: &[f64]| values.iter().all(|value| *value == values[0]);
        let zero_point = self.zero_point[0].round();
        let whole = (zero_point - self.zero_point[0]).abs() < 1e-6 && (-128.0..=127.0).contains(&zero_point);
        (same(&self.scale) && same(&self.zero_point) && whole).then_some((self.scale[0], zero_point as i8))
    }

    /// What stands in a padded position: the int8 value nearest to real zero.
    fn padding_pixel(&self, channels: usize) -> Vec<i8> {
        let zero = |channel| Self::of(channel, &self.zero_point).round().clamp(-128.0, 127.0) as i8;
        (0..channels).map(zero).collect()
    }
}

/// Scale and clamp of a tensor with `range`, as `activation` leaves it.
fn quantization(range: Range, activation: Activation, layer: &str) -> Result<(f64, Clamp), QuantizeError> {
    for value in [range.min, range.max] {
        if !value.is_finite() {
            return Err(QuantizeError::Range { layer: layer.into(), value });
        }
    }
    let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
    // a tensor that is always zero has any scale
    let scale = if max - min > f64::from(f32::MIN_POSITIVE) { (max - min) / 255.0 } else { 1.0 };
    let zero_point = (-128.0 - min / scale).round().clamp(-128.0, 127.0);
    let mut clamp = Clamp::none(zero_point as i8);
    if activation != Activation::None {
        clamp.min = clamp.zero_point;
    }
    if activation == Activation::Relu6 {
        clamp.max = (zero_point + 6.0 / scale).round().clamp(zero_point, 127.0) as i8;
    }
    Ok((scale, clamp))
}

/// Per-channel int8 weights and biases.
struct Parameters {
    weights: Vec<i8>,
    bias: Vec<i32>,
    /// Real value of one step of each channel's sum.
    scales: Vec<f64>,
}

/// Quantizes filters, one slice of weights for each output channel: `input_channel` tells which channel
/// of the input the weight at an index reads.
fn quantize_filters<'w>(
    layer: &str,
    filters: impl Iterator<Item = Vec<f32>> + 'w,
    bias: &[f32],
    input: &Meaning,
    input_channel: impl Fn(usize, usize) -> usize,
) -> Result<Parameters, QuantizeError> {
    let mut parameters = Parameters { weights: Vec::new(), bias: Vec::new(), scales: Vec::new() };
    for (channel, (filter, bias)) in filters.zip(bias).enumerate() {
        let products = filter.len();
        let not_finite =
            |what, index, value| QuantizeError::NotFinite { layer: layer.into(), what, index, value };
        if let Some(index) = filter.iter().position(|weight| !weight.is_finite()) {
            return Err(not_finite("weight", channel * products + index, filter[index]));
        }
        if !bias.is_finite() {
            return Err(not_finite("bias", channel, *bias));
        }
        // room for the bias beside the largest sum of products, as the runtime's own check has it
        let room = i64::from(i32::MAX) - products as i64 * 128 * 128;
        let folded_zero = products as f64 * MAX_WEIGHT * 128.0;
        if room as f64 <= folded_zero {
            return Err(QuantizeError::Products { layer: layer.into(), products });
        }
        let real: Vec<(f64, f64)> = filter
            .iter()
            .enumerate()
            .map(|(index, weight)| {
                let from = input_channel(channel, index);
                (f64::from(*weight) * Meaning::of(from, &input.scale), Meaning::of(from, &input.zero_point))
            })
            .collect();
        let largest = real.iter().map(|(weight, _)| weight.abs()).fold(0.0, f64::max);
        // a channel of tiny weights gets coarser ones rather than a bias that does not fit
        let for_bias = f64::from(*bias).abs() / (room as f64 - folded_zero);
        let scale = (largest / MAX_WEIGHT).max(for_bias).max(f64::MIN_POSITIVE.sqrt());
        let mut zero_sum = 0.0;
        let first = parameters.weights.len();
        for (weight, zero_point) in real {
            let quantized = (weight / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT);
            zero_sum += quantized * zero_point;
            parameters.weights.push(quantized as i8);
        }
        let bias = (f64::from(*bias) / scale - zero_sum).round();
        let magnitudes: i64 = parameters.weights[first..].iter().map(|weight| i64::from(weight.abs())).sum();
        let bound = (bias.abs() as i64).saturating_add(magnitudes * 128);
        if bound > i64::from(i32::MAX) || bias.abs() > room as f64 {
            return Err(QuantizeError::Accumulator { layer: layer.into(), channel, bound });
        }
        parameters.bias.push(bias as i32);
        parameters.scales.push(scale);
    }
    Ok(parameters)
}

/// `ratios[i] = multipliers[i] / 2^shift`, the shift as large as the largest ratio (and `max_shift`) lets it.
fn multipliers(ratios: &[f64], max_shift: u8) -> (Vec<i32>, u8) {
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    // the largest multiplier has 31 bits
    let fits = 30.0 - largest.max(f64::MIN_POSITIVE).log2().floor();
    let mut shift = fits.clamp(1.0, f64::from(max_shift)) as u8;
    let scaled = |ratio: f64, shift: u8| (ratio * f64::from(shift).exp2()).round();
    if scaled(largest, shift) > f64::from(i32::MAX) && shift > 1 {
        shift -= 1; // rounded up to 2^31
    }
    let multiplier = |ratio: &f64| scaled(*ratio, shift).min(f64::from(i32::MAX)) as i32;
    (ratios.iter().map(multiplier).collect(), shift)
}

/// Quantizes `network` with the ranges of its tensors.
///
/// # Errors
/// [`QuantizeError`] names the layer and what is wrong with it.
pub fn quantize(network: &FloatNetwork, ranges: &Ranges) -> Result<Unplanned, QuantizeError> {
    let shapes = shapes(network)?;
    let preprocessing = &network.preprocessing;
    let (mean, std) = (&preprocessing.mean, &preprocessing.std);
    // real = (p / 255 - mean) / std and p = q + 128
    let mut input = Meaning {
        scale: std.iter().map(|std| 1.0 / (255.0 * f64::from(*std))).collect(),
        zero_point: mean.iter().map(|mean| 255.0 * f64::from(*mean) - 128.0).collect(),
    };
    let mut quantizer = Quantizer { ranges, weights: Weights::default() };
    let (mut names, mut operations) = (Vec::new(), Vec::new());
    let softmax = match network.stages.last() {
        Some(Stage::Softmax) => Softmax::Float,
        _ => Softmax::None,
    };
    let stages = network.stages.len() - usize::from(softmax != Softmax::None);
    for (index, (stage, shapes)) in network.stages.iter().zip(&shapes).take(stages).enumerate() {
        let tensor = |part| TensorId { stage: index, part };
        let output = tensor(Part::Output);
        let last = index + 1 == stages;
        let operation = match stage {
            Stage::Conv2d(layer) => {
                let (record, meaning) = quantizer.conv2d(layer, &input, output, layer.activation, None)?;
                input = meaning;
                schema::Operation::Conv2d(record)
            }
            Stage::MaxPool2d(layer) => schema::Operation::Pool2d(pool2d(layer, Pooling::Max)?),
            Stage::AveragePool2d(layer) => {
                let padded = layer.count_include_pad && layer.padding != [0; 4];
                let kind = match (padded, input.uniform()) {
                    (false, _) => Pooling::Average,
                    (true, Some((_, zero_point))) => Pooling::AveragePadded { zero_point },
                    (true, None) => return Err(QuantizeError::RawInput { layer: layer.name.clone() }),
                };
                schema::Operation::Pool2d(pool2d(layer, kind)?)
            }
            Stage::GlobalAveragePool { name } => {
                let (scale, zero_point) =
                    input.uniform().ok_or_else(|| QuantizeError::RawInput { layer: name.clone() })?;
                let positions = f64::from(shapes.input.height) * f64::from(shapes.input.width);
                let finish = match last {
                    true => quantizer.scores(&[scale / positions]),
                    false => {
                        let (finish, meaning) =
                            quantizer.requantize(name, &[scale / positions], output, Activation::None)?;
                        input = meaning;
                        finish
                    }
                };
                schema::Operation::GlobalAveragePool(schema::GlobalAveragePool { zero_point, finish })
            }
            Stage::Dense(layer) => {
                let channels = usize::from(shapes.input.channels);
                let scores = last && layer.activation == Activation::None;
                let (record, meaning) = quantizer.dense(layer, channels, &input, output, scores)?;
                input = meaning;
                schema::Operation::Dense(record)
            }
            Stage::Block(block) => {
                let (record, meaning) = quantizer.block(block, &input, &tensor)?;
                input = meaning;
                schema::Operation::Block(record)
            }
            // `shapes` lets it be the last stage only
            Stage::Softmax => continue,
        };
        let gives_scores = match &operation {
            schema::Operation::Dense(dense) => matches!(dense.finish, schema::Finish::Scores { .. }),
            schema::Operation::GlobalAveragePool(pool) => {
                matches!(pool.finish, schema::Finish::Scores { .. })
            }
            _ => false,
        };
        if last && !gives_scores {
            return Err(QuantizeError::NoScores { layer: stage_name(stage).into() });
        }
        names.push(stage_name(stage).to_owned());
        operations.push(operation);
    }
    Ok(Unplanned {
        name: network.name.clone(),
        input: network.input,
        softmax,
        labels: network.labels.clone(),
        names,
        operations,
        weights: quantizer.weights,
    })
}

/// Name of a stage in the model that was converted.
pub fn stage_name(stage: &Stage) -> &str {
    match stage {
        Stage::Conv2d(layer) => &layer.name,
        Stage::MaxPool2d(layer) | Stage::AveragePool2d(layer) => &layer.name,
        Stage::GlobalAveragePool { name } => name,
        Stage::Dense(layer) => &layer.name,
        Stage::Softmax => "softmax",
        Stage::Block(block) => &block.name,
    }
}

struct Quantizer<'r> {
    ranges: &'r Ranges,
    weights: Weights,
}

impl Quantizer<'_> {
    /// Scale, clamp and meaning of a tensor.
    fn tensor(
        &self,
        tensor: TensorId,
        activation: Activation,
        layer: &str,
    ) -> Result<(f64, Clamp, Meaning), QuantizeError> {
        let range = self.ranges.get(&tensor).copied().unwrap_or_default();
        let (scale, clamp) = quantization(range, activation, layer)?;
        let meaning = Meaning { scale: vec![scale], zero_point: vec![f64::from(clamp.zero_point)] };
        Ok((scale, clamp, meaning))
    }

    /// A convolution whose output is `tensor`; with the shortcut's scale where it completes a block.
    fn conv2d(
        &mut self,
        layer: &Conv2d,
        input: &Meaning,
        tensor: TensorId,
        activation: Activation,
        shortcut_scale: Option<f64>,
    ) -> Result<(schema::Conv2d, Meaning), QuantizeError> {
        let window = window(&layer.name, layer.kernel, layer.stride, layer.padding)?;
        let (inputs, outputs) = (layer.input_channels, layer.output_channels);
        let parameters = if layer.depthwise {
            // HWC: a channel's filter is every `outputs`-th weight
            let filter =
                |channel: usize| layer.weights.iter().skip(channel).step_by(outputs).copied().collect();
            quantize_filters(&layer.name, (0..outputs).map(filter), &layer.bias, input, |channel, _| channel)?
        } else {
            let filters = layer.weights.chunks_exact(window.positions() * inputs).map(<[f32]>::to_vec);
            quantize_filters(&layer.name, filters, &layer.bias, input, |_, index| index % inputs)?
        };
        let weights = if layer.depthwise {
            // back to HWC
            let positions = window.positions();
            let at = |index: usize| parameters.weights[index % outputs * positions + index / outputs];
            (0..parameters.weights.len()).map(at).collect()
        } else {
            parameters.weights
        };
        let (scale, clamp, meaning) = self.tensor(tensor, activation, &layer.name)?;
        let ratios: Vec<f64> = parameters.scales.iter().map(|sum| sum / scale).collect();
        let max_shift = shortcut_scale.map_or(MAX_SHIFT, |shortcut| max_shift(shortcut / scale));
        let record = schema::Conv2d {
            channels: outputs as u16,
            depthwise: layer.depthwise,
            algorithm: Algorithm::Reference,
            window,
            weights: self.weights.section(&weights),
            bias: self.weights.section(&parameters.bias),
            padding_pixel: self.weights.section(&input.padding_pixel(inputs)),
            requantize: self.rounded_once(&ratios, max_shift, clamp).0,
            scale: scale as f32,
        };
        Ok((record, meaning))
    }

    fn block(
        &mut self,
        block: &Block,
        input: &Meaning,
        tensor: &dyn Fn(Part) -> TensorId,
    ) -> Result<(schema::Block, Meaning), QuantizeError> {
        let mut meaning = input.clone();
        let mut path = heapless::Vec::new();
        let (shortcut, shortcut_meaning) = match &block.shortcut {
            Shortcut::Identity => (schema::Shortcut::Identity, input.clone()),
            Shortcut::Projection(layer) => {
                let output = tensor(Part::Projection);
                let (record, meaning) = self.conv2d(layer, input, output, layer.activation, None)?;
                (schema::Shortcut::Projection(record), meaning)
            }
            Shortcut::Padded { stride, channels_before } => {
                let stride = window(&block.name, [1; 2], *stride, [0; 4])?.stride;
                let subsample = skipstone::Subsample { stride, channels_before: *channels_before as u16 };
                (schema::Shortcut::Padded(subsample), input.clone())
            }
        };
        let (shortcut_scale, zero_point) = shortcut_meaning
            .uniform()
            .ok_or_else(|| QuantizeError::RawInput { layer: block.name.clone() })?;
        for (index, layer) in block.path.iter().enumerate() {
            let last = index + 1 == block.path.len();
            let (output, activation) = match last {
                true => (tensor(Part::Output), block.activation),
                false => (tensor(Part::Path(index)), layer.activation),
            };
            let added = last.then_some(shortcut_scale);
            let (record, next) = self.conv2d(layer, &meaning, output, activation, added)?;
            meaning = next;
            // `shapes` has seen two or three
            let _ = path.push(record);
        }
        let shift = match path.last().map(|record: &schema::Conv2d| record.requantize.rounding) {
            Some(schema::Rounding::Once { shift }) => shift,
            _ => 1, // not made here
        };
        let (multiplier, left) = residual(shortcut_scale / meaning.scale[0], shift);
        let addition = Addition::Fused(Residual { zero_point, multiplier, shift: left });
        let scale = meaning.scale[0] as f32;
        Ok((schema::Block { path, addition, shortcut, scale }, meaning))
    }

    fn dense(
        &mut self,
        layer: &Dense,
        channels: usize,
        input: &Meaning,
        tensor: TensorId,
        scores: bool,
    ) -> Result<(schema::Dense, Meaning), QuantizeError> {
        let filters = layer.weights.chunks_exact(layer.inputs).map(<[f32]>::to_vec);
        let parameters =
            quantize_filters(&layer.name, filters, &layer.bias, input, |_, index| index % channels)?;
        let (finish, meaning) = match scores {
            true => (self.scores(&parameters.scales), input.clone()),
            false => self.requantize(&layer.name, &parameters.scales, tensor, layer.activation)?,
        };
        let record = schema::Dense {
            outputs: layer.outputs as u16,
            weights: self.weights.section(&parameters.weights),
            bias: self.weights.section(&parameters.bias),
            finish,
        };
        Ok((record, meaning))
    }

    /// The finish of a reduction to int8, its sums being worth `scales`.
    fn requantize(
        &mut self,
        layer: &str,
        scales: &[f64],
        tensor: TensorId,
        activation: Activation,
    ) -> Result<(schema::Finish, Meaning), QuantizeError> {
        let (scale, clamp, meaning) = self.tensor(tensor, activation, layer)?;
        let ratios: Vec<f64> = scales.iter().map(|sum| sum / scale).collect();
        let (requantize, count) = self.rounded_once(&ratios, MAX_SHIFT, clamp);
        let finish = schema::Finish::Requantize { count, requantize, scale: scale as f32 };
        Ok((finish, meaning))
    }

    /// One rounding by `ratios`, and their number.
    fn rounded_once(&mut self, ratios: &[f64], max_shift: u8, clamp: Clamp) -> (schema::Requantize, u16) {
        let (multipliers, shift) = multipliers(ratios, max_shift);
        let rounding = schema::Rounding::Once { shift };
        let requantize =
            schema::Requantize { multipliers: self.weights.section(&multipliers), rounding, clamp };
        (requantize, multipliers.len() as u16)
    }

    /// The finish of a reduction to class scores.
    fn scores(&mut self, scales: &[f64]) -> schema::Finish {
        let scales: Vec<f32> = scales.iter().map(|scale| (*scale as f32).max(f32::MIN_POSITIVE)).collect();
        schema::Finish::Scores { scales: self.weights.section(&scales), count: scales.len() as u16 }
    }
}

const MAX_SHIFT: u8 = skipstone::Requantize::MAX_SHIFT;

/// Bits to the left of a ratio's binary point when its multiplier has 31 bits.
fn integer_bits(ratio: f64) -> i32 {
    ratio.max(f64::MIN_POSITIVE).log2().floor() as i32 + 1
}

/// Largest shift of a layer at which the shortcut's ratio still has a multiplier.
fn max_shift(ratio: f64) -> u8 {
    let fits = i32::from(Residual::MAX_SHIFT) + 30 - integer_bits(ratio);
    fits.clamp(1, i32::from(MAX_SHIFT)) as u8
}

/// Multiplier and left shift: `multiplier * 2^left / 2^shift` is `ratio`.
fn residual(ratio: f64, shift: u8) -> (i32, u8) {
    // as few bits of the left shift as the multiplier's 31 bits leave
    let left = (i32::from(shift) + integer_bits(ratio) - 30).clamp(0, i32::from(Residual::MAX_SHIFT));
    let multiplier = (ratio * f64::from(i32::from(shift) - left).exp2()).round();
    (multiplier.min(f64::from(i32::MAX)) as i32, left as u8)
}

fn pool2d(layer: &Pool2d, kind: Pooling) -> Result<schema::Pool2d, QuantizeError> {
    Ok(schema::Pool2d { window: window(&layer.name, layer.kernel, layer.stride, layer.padding)?, kind })
}

fn window(
    layer: &str,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
) -> Result<Window, QuantizeError> {
    let error = || QuantizeError::Window {
        layer: layer.into(),
        window: [kernel[0], kernel[1], stride[0], stride[1]],
    };
    let byte = |size: usize| u8::try_from(size).map_err(|_| error());
    let [top, left, bottom, right] = padding;
    let window = Window {
        kernel: [byte(kernel[0])?, byte(kernel[1])?],
        stride: [byte(stride[0])?, byte(stride[1])?],
        padding: [byte(top)?, byte(left)?, byte(bottom)?, byte(right)?],
    };
    if window.is_valid() { Ok(window) } else { Err(error()) }
}
