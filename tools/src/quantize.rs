//! Quantization: a float network and the ranges of its tensors become int8 stages.
//!
//! Weights are symmetric per output channel, activations per tensor. What an input value means is folded
//! into the weights that read it, so that `acc * weight_scale` is the real sum whatever the input's scale
//! is; so raw pixels, whose scale and zero point differ by channel, need no case of their own.
//!
//! What a file has quantized already ([`Quantized`]) stays: scales and zero points, weights and biases.

mod kept;
mod tflite;

use skipstone::tflite::{Scaling, Sum};
use skipstone::{Addition, Algorithm, Clamp, Pooling, Residual, Shape, Window, schema};
use thiserror::Error;

use crate::blob::{Unplanned, Weights};
use crate::calibrate::{Range, Ranges};
use crate::fit::{Fit, Place, Pool, Rounded, Source};
use crate::float::{Part, ShapeError, StageShapes, TensorId, shapes};
use crate::network::{
    Activation, Block, Conv2d, Dense, FloatNetwork, Pool2d, Quantized, Shortcut, Stage, TensorScale,
};
use kept::kept_filters;
use tflite::not_exact;

/// Largest weight.
const MAX_WEIGHT: f64 = 127.0;

/// How values are rounded on their way back to int8: a property of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Once for each layer, and once for a block's addition together with its last convolution.
    #[default]
    Fused,
    /// As TensorFlow Lite's reference kernels do, bit for bit; for networks that their file has quantized.
    TfliteExact,
}

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
    #[error(
        "{layer}: the range of its activations is not known; give some hundred real images with --calibrate (only a model that is quantized already needs none)"
    )]
    NoRange { layer: String },
    #[error(
        "{layer}: {reason}, so that TensorFlow Lite's bits are not possible; leave --rounding tflite-exact out"
    )]
    NotExact { layer: String, reason: &'static str },
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
    fn at(channel: usize, values: &[f64]) -> f64 {
        values[channel.min(values.len() - 1)]
    }

    /// The one scale and int8 zero point, if all channels have the same and it is a whole number.
    fn uniform(&self) -> Option<(f64, i8)> {
        let same = |values: &[f64]| values.iter().all(|value| *value == values[0]);
        let zero_point = self.zero_point[0].round();
        let whole = (zero_point - self.zero_point[0]).abs() < 1e-6 && (-128.0..=127.0).contains(&zero_point);
        (same(&self.scale) && same(&self.zero_point) && whole).then_some((self.scale[0], zero_point as i8))
    }

    /// The one scale and zero point, as a file has them.
    fn tensor(&self) -> Option<TensorScale> {
        self.uniform().map(|(scale, zero_point)| TensorScale { scale: scale as f32, zero_point })
    }

    fn of(TensorScale { scale, zero_point }: TensorScale) -> Self {
        Meaning { scale: vec![scale.into()], zero_point: vec![zero_point.into()] }
    }

    /// Whether the values are those of `tensor`, but for the rounding of mean and standard deviation.
    fn is_near(&self, tensor: TensorScale) -> bool {
        let near = |scale: &f64| (scale / f64::from(tensor.scale) - 1.0).abs() < 1e-6;
        let nearby = |zero_point: &f64| (zero_point - f64::from(tensor.zero_point)).abs() < 1e-4;
        self.scale.iter().all(near) && self.zero_point.iter().all(nearby)
    }

    /// What stands in a padded position: the int8 value nearest to real zero.
    fn padding_pixel(&self, channels: usize) -> Vec<i8> {
        let zero = |channel| Self::at(channel, &self.zero_point).round().clamp(-128.0, 127.0) as i8;
        (0..channels).map(zero).collect()
    }
}

/// The range, where it is finite.
fn finite(range: Range, layer: &str) -> Result<Range, QuantizeError> {
    match [range.min, range.max].into_iter().find(|value| !value.is_finite()) {
        Some(value) => Err(QuantizeError::Range { layer: layer.into(), value }),
        None => Ok(range),
    }
}

/// Scale and clamp of a tensor with `range`, as `activation` leaves it.
fn quantization(range: Range, activation: Activation, layer: &str) -> Result<(f64, Clamp), QuantizeError> {
    let range = finite(range, layer)?;
    let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
    // a tensor that is always zero has any scale
    let scale = if max - min > f64::from(f32::MIN_POSITIVE) { (max - min) / 255.0 } else { 1.0 };
    let zero_point = (-128.0 - min / scale).round().clamp(-128.0, 127.0);
    Ok((scale, clamp(scale, zero_point as i8, activation)))
}

/// What an activation leaves of the int8 values.
fn clamp(scale: f64, zero_point: i8, activation: Activation) -> Clamp {
    let mut clamp = Clamp::none(zero_point);
    if activation != Activation::None {
        clamp.min = zero_point;
    }
    if activation == Activation::Relu6 {
        let zero_point = f64::from(zero_point);
        clamp.max = (zero_point + 6.0 / scale).round().clamp(zero_point, 127.0) as i8;
    }
    clamp
}

/// Filters with the input's meaning folded in, one slice of weights for each output channel.
struct Folded {
    /// Each weight in units of what it reads, and the zero point of that.
    filters: Vec<Vec<(f64, f64)>>,
    /// Real value of one step of each channel's sum.
    scales: Vec<f64>,
    /// What a bias may reach, beside the largest sum of products.
    room: i64,
}

/// Folds the input's meaning into filters: `input_channel` tells which channel of the input the weight at
/// an index of a channel's filter reads.
fn fold(
    layer: &str,
    filters: impl Iterator<Item = Vec<f32>>,
    bias: &[f32],
    input: &Meaning,
    input_channel: impl Fn(usize, usize) -> usize,
) -> Result<Folded, QuantizeError> {
    let mut folded = Folded { filters: Vec::new(), scales: Vec::new(), room: 0 };
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
                (f64::from(*weight) * Meaning::at(from, &input.scale), Meaning::at(from, &input.zero_point))
            })
            .collect();
        let largest = real.iter().map(|(weight, _)| weight.abs()).fold(0.0, f64::max);
        // a channel of tiny weights gets coarser ones rather than a bias that does not fit
        let for_bias = f64::from(*bias).abs() / (BIAS_ROOM * (room as f64 - folded_zero));
        folded.scales.push((largest / MAX_WEIGHT).max(for_bias).max(f64::MIN_POSITIVE.sqrt()));
        folded.filters.push(real);
        folded.room = room;
    }
    Ok(folded)
}

/// Part of the room for biases that the float network's may take; the rest is for their correction.
const BIAS_ROOM: f64 = 0.98;

/// Per-channel int8 weights and biases.
struct Parameters {
    weights: Vec<i8>,
    bias: Vec<i32>,
    /// Real value of one step of each channel's sum.
    scales: Vec<f64>,
}

impl Folded {
    /// Each weight rounded to the nearest integer, the biases as they are.
    fn nearest(&self, bias: &[f32]) -> Rounded {
        let weights = self.filters.iter().zip(&self.scales).flat_map(|(filter, scale)| {
            filter
                .iter()
                .map(move |(weight, _)| (weight / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT) as i8)
        });
        Rounded { weights: weights.collect(), bias: bias.iter().copied().map(f64::from).collect() }
    }

    /// The integers with the zero points folded into the biases, proved to stay in 32 bits. A corrected bias that
    /// tiny weights leave no room for, or zeros, is the `given` one.
    fn parameters(self, layer: &str, rounded: Rounded, given: &[f32]) -> Result<Parameters, QuantizeError> {
        let mut biases = Vec::with_capacity(self.scales.len());
        let mut weights = rounded.weights.as_slice();
        for (channel, (filter, scale)) in self.filters.iter().zip(&self.scales).enumerate() {
            let (own, rest) = weights.split_at(filter.len());
            weights = rest;
            let zero_sum: f64 =
                own.iter().zip(filter).map(|(weight, (_, zero_point))| f64::from(*weight) * zero_point).sum();
            let steps = |bias: f64| (bias / scale - zero_sum).round();
            let mut bias = steps(rounded.bias[channel]);
            if bias.abs() > self.room as f64 {
                bias = steps(given[channel].into());
            }
            let magnitudes: i64 = own.iter().map(|weight| i64::from(weight.abs())).sum();
            let bound = (bias.abs() as i64).saturating_add(magnitudes * 128);
            if bound > i64::from(i32::MAX) || bias.abs() > self.room as f64 {
                return Err(QuantizeError::Accumulator { layer: layer.into(), channel, bound });
            }
            biases.push(bias as i32);
        }
        Ok(Parameters { weights: rounded.weights, bias: biases, scales: self.scales })
    }
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

/// Quantizes `network` with the ranges of those of its tensors that are not quantized in its file, every
/// weight to the nearest integer.
///
/// # Errors
/// [`QuantizeError`] names the layer and what is wrong with it.
pub fn quantize(
    network: &FloatNetwork,
    ranges: &Ranges,
    rounding: Rounding,
) -> Result<Unplanned, QuantizeError> {
    quantize_fitted(network, ranges, rounding, None, &|_| {})
}

/// As [`quantize`], with weights and biases that are fitted to images (not those of a file that is quantized
/// already); `done` is called with the index of
/// each stage when that is done.
///
/// # Errors
/// [`QuantizeError`] names the layer and what is wrong with it.
pub fn quantize_fitted(
    network: &FloatNetwork,
    ranges: &Ranges,
    rounding: Rounding,
    fit: Option<Fit>,
    done: &dyn Fn(usize),
) -> Result<Unplanned, QuantizeError> {
    let shapes = shapes(network)?;
    let preprocessing = &network.preprocessing;
    let (mean, std) = (&preprocessing.mean, &preprocessing.std);
    // real = (p / 255 - mean) / std and p = q + 128
    let mut input = Meaning {
        scale: std.iter().map(|std| 1.0 / (255.0 * f64::from(*std))).collect(),
        zero_point: mean.iter().map(|mean| 255.0 * f64::from(*mean) - 128.0).collect(),
    };
    let known = &network.quantized;
    if let Some(tensor) = known.tensors.get(&TensorId::INPUT).filter(|tensor| input.is_near(**tensor)) {
        input = Meaning::of(*tensor);
    }
    let normalized = network.stages.last() == Some(&Stage::Softmax);
    let exact = rounding == Rounding::TfliteExact;
    let mut quantizer = Quantizer { ranges, known, exact, normalized, fit, weights: Weights::default() };
    let mut from = TensorId::INPUT;
    let (mut names, mut operations) = (Vec::new(), Vec::new());
    let stages = network.stages.len() - usize::from(normalized);
    let softmax = quantizer.softmax(stages)?;
    for (index, (stage, shapes)) in network.stages.iter().zip(&shapes).take(stages).enumerate() {
        let tensor = |part| TensorId { stage: index, part };
        let output = tensor(Part::Output);
        let last = index + 1 == stages;
        let sides = [shapes.input, shapes.output];
        let operation = match stage {
            Stage::Conv2d(layer) => {
                let place = Place { from, to: output, shapes: sides, shortcut: None };
                let (record, meaning) =
                    quantizer.conv2d(layer, &input, output, &place, layer.activation, None)?;
                input = meaning;
                schema::Operation::Conv2d(record)
            }
            Stage::MaxPool2d(layer) => {
                quantizer.keeps_scale(&layer.name, &input, output)?;
                quantizer.pool(Pool::Max(layer), from, output, sides);
                schema::Operation::Pool2d(pool2d(layer, Pooling::Max)?)
            }
            Stage::AveragePool2d(layer) => {
                quantizer.keeps_scale(&layer.name, &input, output)?;
                quantizer.pool(Pool::Average(layer, input.uniform()), from, output, sides);
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
                quantizer.pool(Pool::GlobalAverage, from, output, sides);
                let positions = u32::from(shapes.input.height) * u32::from(shapes.input.width);
                let per_step = [scale / f64::from(positions)];
                let (zero_point, finish) = match last {
                    true => (zero_point, quantizer.scores(name, &per_step, output)?),
                    false => {
                        let (zero_point, finish, meaning) =
                            quantizer.mean(name, &input, (scale, zero_point), positions, output)?;
                        input = meaning;
                        (zero_point, finish)
                    }
                };
                schema::Operation::GlobalAveragePool(schema::GlobalAveragePool { zero_point, finish })
            }
            Stage::Dense(layer) => {
                let scores = last && layer.activation == Activation::None;
                let place = Place { from, to: output, shapes: sides, shortcut: None };
                let (record, meaning) = quantizer.dense(layer, &input, &place, scores)?;
                input = meaning;
                schema::Operation::Dense(record)
            }
            Stage::Block(block) => {
                let (record, meaning) = quantizer.block(block, &input, from, shapes, &tensor)?;
                input = meaning;
                schema::Operation::Block(record)
            }
            // `shapes` lets it be the last stage only
            Stage::Softmax => continue,
        };
        let gives_scores = match &operation {
            schema::Operation::Dense(schema::Dense { finish, .. })
            | schema::Operation::GlobalAveragePool(schema::GlobalAveragePool { finish, .. }) => {
                matches!(finish, schema::Finish::Scores { .. } | schema::Finish::RoundedScores { .. })
            }
            _ => false,
        };
        if last && !gives_scores {
            return Err(QuantizeError::NoScores { layer: stage_name(stage).into() });
        }
        if let Some(fit) = &mut quantizer.fit {
            fit.keep(output);
        }
        from = output;
        done(index);
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
    known: &'r Quantized,
    /// TensorFlow Lite's rounding.
    exact: bool,
    /// A softmax follows the scores.
    normalized: bool,
    /// None where weights are rounded to the nearest.
    fit: Option<Fit>,
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
        let (scale, clamp) = match (self.known.tensors.get(&tensor), self.ranges.get(&tensor)) {
            (Some(known), _) => {
                let scale = f64::from(known.scale);
                (scale, clamp(scale, known.zero_point, activation))
            }
            (None, _) if self.exact => return Err(not_exact(layer, "its output is not int8 in the file")),
            (None, Some(range)) => quantization(*range, activation, layer)?,
            (None, None) => return Err(QuantizeError::NoRange { layer: layer.into() }),
        };
        let meaning = Meaning { scale: vec![scale], zero_point: vec![f64::from(clamp.zero_point)] };
        Ok((scale, clamp, meaning))
    }

    /// A convolution, whose own result is `own`; with the shortcut's scale where it completes a block, whose
    /// output it makes.
    fn conv2d(
        &mut self,
        layer: &Conv2d,
        input: &Meaning,
        own: TensorId,
        place: &Place,
        activation: Activation,
        shortcut_scale: Option<f64>,
    ) -> Result<(schema::Conv2d, Meaning), QuantizeError> {
        let window = window(&layer.name, layer.kernel, layer.stride, layer.padding)?;
        let (inputs, outputs) = (layer.input_channels, layer.output_channels);
        let parameters = self.parameters(layer, input, own, place)?;
        let (scale, clamp, meaning) = self.tensor(place.to, activation, &layer.name)?;
        if let Some(fit) = &mut self.fit {
            fit.finish(place.to, activation, scale, clamp);
        }
        let weights = if layer.depthwise {
            // back to HWC
            let positions = window.positions();
            let at = |index: usize| parameters.weights[index % outputs * positions + index / outputs];
            (0..parameters.weights.len()).map(at).collect()
        } else {
            parameters.weights
        };
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
            requantize: self.rounded(&ratios, max_shift, clamp).0,
            scale: scale as f32,
        };
        Ok((record, meaning))
    }

    /// Integers of a convolution: those of the file, fitted, or rounded to the nearest.
    fn parameters(
        &mut self,
        layer: &Conv2d,
        input: &Meaning,
        own: TensorId,
        place: &Place,
    ) -> Result<Parameters, QuantizeError> {
        let (inputs, outputs) = (layer.input_channels, layer.output_channels);
        let input_channel = |channel, index| if layer.depthwise { channel } else { index % inputs };
        let length = layer.kernel[0] * layer.kernel[1] * if layer.depthwise { 1 } else { inputs };
        let filter = |channel: usize| -> Vec<f32> {
            match layer.depthwise {
                // HWC: a channel's filter is every `outputs`-th weight
                true => layer.weights.iter().skip(channel).step_by(outputs).copied().collect(),
                false => layer.weights[channel * length..][..length].to_vec(),
            }
        };
        let filters = (0..outputs).map(filter);
        let known = self.known.layers.get(&own);
        if self.exact && known.is_none_or(|scales| *input != Meaning::of(scales.input)) {
            let reason = "its weights or its input are not those of an int8 layer in the file";
            return Err(not_exact(&layer.name, reason));
        }
        if let Some((scales, input)) = known.zip(input.tensor()) {
            return kept_filters(&layer.name, filters, scales, input);
        }
        let folded = fold(&layer.name, filters, &layer.bias, input, input_channel)?;
        let rounded = match &mut self.fit {
            Some(fit) => fit.conv2d(layer, place, &|channel, index| {
                folded.scales[channel] / Meaning::at(input_channel(channel, index), &input.scale)
            }),
            None => folded.nearest(&layer.bias),
        };
        folded.parameters(&layer.name, rounded, &layer.bias)
    }

    /// Takes the fit over a pooling layer.
    fn pool(&mut self, pool: Pool<'_>, from: TensorId, to: TensorId, shapes: [Shape; 2]) {
        if let Some(fit) = &mut self.fit {
            fit.pool(pool, from, to, shapes);
        }
    }

    fn block(
        &mut self,
        block: &Block,
        input: &Meaning,
        from: TensorId,
        shapes: &StageShapes,
        tensor: &dyn Fn(Part) -> TensorId,
    ) -> Result<(schema::Block, Meaning), QuantizeError> {
        let mut meaning = input.clone();
        let mut records = heapless::Vec::new();
        let mut source = Source { tensor: from, shape: shapes.input, padded: None };
        let (shortcut, shortcut_meaning) = match &block.shortcut {
            Shortcut::Identity => (schema::Shortcut::Identity, input.clone()),
            Shortcut::Projection(layer) => {
                let to = tensor(Part::Projection);
                let sides = [shapes.input, shapes.output];
                source = Source { tensor: to, shape: shapes.output, padded: None };
                let place = Place { from, to, shapes: sides, shortcut: None };
                let (record, meaning) = self.conv2d(layer, input, to, &place, layer.activation, None)?;
                (schema::Shortcut::Projection(record), meaning)
            }
            Shortcut::Padded { stride, channels_before } => {
                source.padded = Some((*stride, *channels_before));
                let stride = window(&block.name, [1; 2], *stride, [0; 4])?.stride;
                let subsample = skipstone::Subsample { stride, channels_before: *channels_before as u16 };
                (schema::Shortcut::Padded(subsample), input.clone())
            }
        };
        let (shortcut_scale, zero_point) = shortcut_meaning
            .uniform()
            .ok_or_else(|| QuantizeError::RawInput { layer: block.name.clone() })?;
        let (mut reads, mut reads_shape, mut source) = (from, shapes.input, Some(source));
        for (index, layer) in block.path.iter().enumerate() {
            let fused = index + 1 == block.path.len() && !self.exact;
            let own = tensor(Part::Path(index));
            let (to, activation) = match fused {
                true => (tensor(Part::Output), block.activation),
                false => (own, layer.activation),
            };
            let added = fused.then_some(shortcut_scale);
            let shortcut = if fused { source.take() } else { None };
            let place = Place { from: reads, to, shapes: [reads_shape, shapes.path[index]], shortcut };
            let (record, next) = self.conv2d(layer, &meaning, own, &place, activation, added)?;
            (meaning, reads, reads_shape) = (next, to, shapes.path[index]);
            // `shapes` has seen two or three
            let _ = records.push(record);
        }
        let addition = match records.last().map(|record: &schema::Conv2d| record.requantize.rounding) {
            Some(schema::Rounding::Once { shift }) => {
                let (multiplier, left) = residual(shortcut_scale / meaning.scale[0], shift);
                Addition::Fused(Residual { zero_point, multiplier, shift: left })
            }
            _ => {
                let (scale, clamp, output) =
                    self.tensor(tensor(Part::Output), block.activation, &block.name)?;
                let terms = [meaning.scale[0], shortcut_scale, scale];
                meaning = output;
                let [path, shortcut, output] = tflite::addition(terms);
                Addition::Separate(Sum { path, shortcut, shortcut_zero_point: zero_point, output, clamp })
            }
        };
        let scale = meaning.scale[0] as f32;
        Ok((schema::Block { path: records, addition, shortcut, scale }, meaning))
    }

    fn dense(
        &mut self,
        layer: &Dense,
        input: &Meaning,
        place: &Place,
        scores: bool,
    ) -> Result<(schema::Dense, Meaning), QuantizeError> {
        let parameters = self.parameters(&convolution(layer, place.shapes[0]), input, place.to, place)?;
        let (finish, meaning) = match scores {
            true => (self.scores(&layer.name, &parameters.scales, place.to)?, input.clone()),
            false => {
                let target = self.tensor(place.to, layer.activation, &layer.name)?;
                self.requantize(&layer.name, &parameters.scales, place.to, layer.activation, target)?
            }
        };
        let record = schema::Dense {
            outputs: layer.outputs as u16,
            weights: self.weights.section(&parameters.weights),
            bias: self.weights.section(&parameters.bias),
            finish,
        };
        Ok((record, meaning))
    }

    /// The finish of a reduction to int8, its sums being worth `scales`, with what [`Self::tensor`] gives.
    fn requantize(
        &mut self,
        layer: &str,
        scales: &[f64],
        tensor: TensorId,
        activation: Activation,
        (scale, clamp, meaning): (f64, Clamp, Meaning),
    ) -> Result<(schema::Finish, Meaning), QuantizeError> {
        if let Some(fit) = &mut self.fit {
            fit.finish(tensor, activation, scale, clamp);
        }
        let ratios: Vec<f64> = scales.iter().map(|sum| sum / scale).collect();
        let (requantize, count) = match self.exact {
            true => self.rounded_in_double(layer, &ratios, clamp)?,
            false => self.rounded(&ratios, MAX_SHIFT, clamp),
        };
        Ok((schema::Finish::Requantize { count, requantize, scale: scale as f32 }, meaning))
    }

    /// Requantization by `ratios`, and their number.
    fn rounded(&mut self, ratios: &[f64], max_shift: u8, clamp: Clamp) -> (schema::Requantize, u16) {
        if self.exact {
            let scalings: Vec<Scaling> = ratios.iter().copied().map(tflite::scaling).collect();
            return self.rounded_twice(&scalings, clamp);
        }
        let (multipliers, shift) = multipliers(ratios, max_shift);
        let rounding = schema::Rounding::Once { shift };
        let requantize =
            schema::Requantize { multipliers: self.weights.section(&multipliers), rounding, clamp };
        (requantize, multipliers.len() as u16)
    }

    /// The finish of a reduction to class scores, its sums being worth `scales`.
    fn scores(
        &mut self,
        layer: &str,
        scales: &[f64],
        tensor: TensorId,
    ) -> Result<schema::Finish, QuantizeError> {
        if self.exact {
            return self.rounded_scores(layer, scales, tensor);
        }
        self.ranges.get(&tensor).map_or(Ok(Range::default()), |range| finite(*range, layer))?;
        let scales: Vec<f32> = scales.iter().map(|scale| (*scale as f32).max(f32::MIN_POSITIVE)).collect();
        // the runtime lets no score be infinite
        finite(
            Range { min: 0.0, max: scales.iter().fold(0.0, |max, scale| scale.max(max)) * 2f32.powi(31) },
            layer,
        )?;
        Ok(schema::Finish::Scores { scales: self.weights.section(&scales), count: scales.len() as u16 })
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

/// A dense layer as the convolution that it is, its kernel as large as its input.
fn convolution(layer: &Dense, input: Shape) -> Conv2d {
    Conv2d {
        name: layer.name.clone(),
        input_channels: input.channels.into(),
        output_channels: layer.outputs,
        depthwise: false,
        kernel: [input.height.into(), input.width.into()],
        stride: [1; 2],
        padding: [0; 4],
        weights: layer.weights.clone(),
        bias: layer.bias.clone(),
        activation: Activation::None,
    }
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
