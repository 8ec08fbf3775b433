//! Conversion: calibrate, quantize, plan, assemble, and measure what the rounding cost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use rayon::prelude::*;
use skipstone::host::Softmax;
use skipstone::{Model, Shape};

use crate::assemble::{Wishes, assemble};
use crate::blob::Blob;
use crate::calibrate::{Observed, RangeChoice, calibrate};
use crate::data::Dataset;
use crate::fit::{Fit, WeightChoice};
use crate::float::Evaluator;
use crate::ir::{Block, Finish, FloatNetwork, INPUT, IntegerNetwork, TensorId, blocks};
use crate::layerwise::{self, Values};
use crate::quantize::{Rounding, gives_scores, is_quantized, is_zero, quantize_fitted};

/// Maximum number of tensors in a segment, unless the network has a longer block: the runtime's default.
pub const MAX_TENSORS: usize = 16;

/// A layer with a smaller signal-to-noise ratio, in decibel, is worth a warning: its noise has a third of
/// the signal's amplitude.
pub const MIN_SIGNAL_TO_NOISE_DB: f64 = 10.0;

/// Images over which the error of each layer is measured.
const MEASURED_IMAGES: usize = 32;

/// How a network is quantized; see `docs/quantization.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Method {
    /// How ranges are chosen.
    pub ranges: RangeChoice,
    /// How weights are rounded.
    pub weights: WeightChoice,
    /// How values are rounded.
    pub rounding: Rounding,
}

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Observing activations.
    Calibrating {
        /// Passes over an image that are done.
        done: usize,
        /// Passes altogether.
        total: usize,
    },
    /// Fitting weights and biases.
    Fitting {
        /// Layers that are done.
        done: usize,
        /// Layers altogether.
        total: usize,
    },
    /// Finding an address for every row.
    Planning,
    /// Measuring the error of each layer.
    Measuring {
        /// Images that are done.
        done: usize,
        /// Images altogether.
        total: usize,
    },
}

/// A converted network.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The blob.
    pub blob: Blob,
    /// What became of each layer.
    pub layers: Vec<LayerReport>,
    /// The residual blocks, of which [`LayerReport::block`] is an index.
    pub blocks: Vec<Block>,
    /// What calibration found out about each tensor.
    pub observed: BTreeMap<TensorId, Observed>,
    /// What may cost accuracy; each begins with the name of its layer.
    pub warnings: Vec<String>,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Name in the model that was converted.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Index of the residual block that it belongs to.
    pub block: Option<usize>,
    /// Shape of the output.
    pub output: Shape,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Bytes of weights in the blob.
    pub weights: usize,
    /// Real value of one step of the output; `None` for class scores and raw pixels.
    pub scale: Option<f32>,
    /// Power of the float output over that of the difference, in decibel; `None` if the float output is
    /// zero, if there is no difference, or if the output is raw pixels.
    pub signal_to_noise_db: Option<f64>,
}

/// Converts a network, calibrated on all images of `calibration`; one that its file has already quantized
/// needs none.
///
/// # Errors
/// If there are no images but some are needed, or the network cannot be quantized or planned; the message
/// names the layer.
pub fn convert(
    network: &FloatNetwork,
    calibration: Option<&Dataset>,
    method: Method,
    wishes: Wishes,
    progress: &(dyn Fn(Progress) + Sync),
) -> anyhow::Result<Converted> {
    let evaluator = Evaluator::new(network)?;
    let images: Vec<&[u8]> =
        calibration.iter().flat_map(|data| (0..data.len()).map(|index| data.image(index))).collect();

    let (done, total) = (AtomicUsize::new(0), 2 * images.len());
    let observed = calibrate(&evaluator, &images, method.ranges, &|| {
        let done = 1 + done.fetch_add(1, Ordering::Relaxed);
        progress(Progress::Calibrating { done, total });
    });
    let ranges = observed.iter().map(|(tensor, observed)| (*tensor, observed.range)).collect();
    let fitted = method.weights != WeightChoice::Nearest && !is_quantized(network);
    let fit = fitted.then(|| Fit::new(network, &evaluator, &images, method.weights));
    let integers = quantize_fitted(network, &ranges, method.rounding, fit, &|layer| {
        progress(Progress::Fitting { done: layer + 1, total: network.layers.len() });
    })?;

    progress(Progress::Planning);
    let blob = assemble(&integers, &wishes, MAX_TENSORS)?;

    // everything is checked here, as on the board
    let model =
        Model::parse(&blob).context("the converted blob is rejected; this is a defect of the tool")?;
    let measured = &images[..images.len().min(MEASURED_IMAGES)];
    let squares = measure(network, &integers, &evaluator, measured, progress)?;
    let blocks = blocks(&integers);
    let layers = reports(&model, &integers, &blocks, &squares)?;
    let warnings = zeros(network, &observed).chain(layers.iter().filter_map(noise)).collect();
    Ok(Converted { blob, layers, blocks, observed, warnings })
}

/// Warns about layers whose output is zero in every calibration image.
fn zeros<'a>(
    network: &'a FloatNetwork,
    observed: &'a BTreeMap<TensorId, Observed>,
) -> impl Iterator<Item = String> + 'a {
    let layers = network.layers.iter().enumerate().filter(move |(index, layer)| {
        let silent = observed.get(&(index + 1)).is_some_and(|observed| is_zero(observed.extremes));
        let needs_scale = layer.parameters.scale.is_none() && !gives_scores(network, index + 1);
        // pooling has nothing of its own
        silent && needs_scale && crate::fit::has_weights(&layer.operation)
    });
    layers.map(|(_, layer)| {
        format!(
            "{}: its output is zero in every calibration image, so its scale is derived from the layers \
             that read it; check the images and the preprocessing (--mean, --std)",
            layer.name
        )
    })
}

/// Warns about a layer whose noise is large.
fn noise(layer: &LayerReport) -> Option<String> {
    let ratio = layer.signal_to_noise_db.filter(|ratio| *ratio < MIN_SIGNAL_TO_NOISE_DB)?;
    Some(format!(
        "{}: a signal-to-noise ratio of {ratio:.1} dB, below {MIN_SIGNAL_TO_NOISE_DB} dB; measure the accuracy \
         with 'skipstone eval', try more calibration images",
        layer.name
    ))
}

/// Sums of squares over all values of a layer's output.
#[derive(Debug, Clone, Copy, Default)]
struct Squares {
    signal: f64,
    noise: f64,
}

impl Squares {
    fn signal_to_noise_db(self) -> Option<f64> {
        (self.signal > 0.0 && self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// Compares the output of every layer with the float network's.
fn measure(
    network: &FloatNetwork,
    integers: &IntegerNetwork,
    evaluator: &Evaluator<'_>,
    images: &[&[u8]],
    progress: &(dyn Fn(Progress) + Sync),
) -> anyhow::Result<Vec<Squares>> {
    let tensors = network.layers.len() + 1;
    let done = AtomicUsize::new(0);
    let squares = images
        .par_iter()
        .map(|image| {
            let mut floats = vec![Vec::new(); tensors];
            evaluator.run(image, &mut |tensor, values| {
                if let Some(float) = floats.get_mut(tensor) {
                    float.extend_from_slice(values);
                }
            });
            let mut squares = vec![Squares::default(); tensors];
            let outputs = layerwise::run(integers, image, &mut |tensor, values| {
                let Some(layer) = integers.producer(tensor) else { return };
                if is_raw(integers, tensor) || is_scored(&layer.parameters.finish) {
                    return;
                }
                let (scale, zero_point) =
                    (layer.parameters.scale.scale, i16::from(layer.parameters.scale.zero_point));
                let real = values.iter().map(|value| scale * f32::from(i16::from(*value) - zero_point));
                squares[tensor] = compare(&floats[tensor], real);
            })?;
            for (output, values) in integers.outputs.iter().zip(outputs) {
                if let Values::Scores(scores) = values {
                    let unit = score_unit(network, output.tensor, output.softmax);
                    let real = scores.iter().map(|score| score * unit);
                    squares[output.tensor] = compare(&floats[output.tensor], real);
                }
            }
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress(Progress::Measuring { done, total: images.len() });
            Ok(squares)
        })
        .try_reduce(
            || vec![Squares::default(); tensors],
            |mut sums, others| {
                for (sum, other) in sums.iter_mut().zip(others) {
                    sum.signal += other.signal;
                    sum.noise += other.noise;
                }
                Ok::<_, anyhow::Error>(sums)
            },
        )?;
    Ok(squares.into_iter().skip(1).collect())
}

/// Real value of a class score of 1: a fixed-point softmax takes whole steps.
fn score_unit(network: &FloatNetwork, tensor: TensorId, softmax: Softmax) -> f32 {
    match softmax {
        Softmax::Fixed(_) => {
            let known = network.producer(tensor).and_then(|layer| layer.parameters.scale);
            known.map_or(1.0, |known| known.scale)
        }
        Softmax::None | Softmax::Float => 1.0,
    }
}

fn compare(float: &[f32], real: impl Iterator<Item = f32>) -> Squares {
    let mut squares = Squares::default();
    for (float, real) in float.iter().zip(real) {
        squares.signal += f64::from(*float).powi(2);
        squares.noise += f64::from(float - real).powi(2);
    }
    squares
}

/// What became of each layer.
fn reports(
    model: &Model<'_>,
    network: &IntegerNetwork,
    blocks: &[Block],
    squares: &[Squares],
) -> anyhow::Result<Vec<LayerReport>> {
    let entries = model.layers().collect::<Result<Vec<_>, _>>()?;
    let reports = entries.iter().zip(&network.layers).zip(squares).enumerate();
    let reports = reports.map(|(index, ((entry, layer), squares))| {
        let real = !is_raw(network, index + 1) && !is_scored(&layer.parameters.finish);
        let kind = entry.layer.kind();
        LayerReport {
            name: layer.name.clone(),
            // without the shortcut that it adds
            kind: kind.split_once(',').map_or(kind, |(kind, _)| kind),
            block: blocks.iter().position(|block| block.layers().any(|layer| layer == index)),
            output: layer.shape,
            macs: entry.layer.macs(),
            weights: entry.layer.weights().len(),
            scale: real.then_some(layer.parameters.scale.scale),
            signal_to_noise_db: squares.signal_to_noise_db(),
        }
    });
    Ok(reports.collect())
}

/// Whether a tensor is raw pixels: the input, or pooled from it.
fn is_raw(network: &IntegerNetwork, tensor: TensorId) -> bool {
    match network.producer(tensor) {
        Some(layer) => layer.parameters.finish == Finish::Keep && is_raw(network, layer.inputs[0]),
        None => tensor == INPUT,
    }
}

/// Whether a layer gives class scores.
fn is_scored(finish: &Finish) -> bool {
    match finish {
        Finish::Scores(_) | Finish::RoundedScores { .. } => true,
        Finish::Keep | Finish::Requantize(_) | Finish::Mean(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Range;
    use crate::quantize::tests::{conv2d, network, scores};

    fn observed(max: f32) -> Observed {
        let range = Range { min: 0.0, max };
        Observed { extremes: range, histogram: Vec::new(), range }
    }

    #[test]
    fn layers_whose_output_is_always_zero_are_named() {
        let network =
            network(vec![conv2d("stem", 0, 1, 4), conv2d("dead", 1, 4, 4), scores("fc", 2, 256, 3)]);
        let tensors = [0.0, 1.0, 0.0, 0.0].map(observed);
        let tensors: BTreeMap<_, _> = tensors.into_iter().enumerate().collect();
        let warnings: Vec<_> = zeros(&network, &tensors).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("dead: its output is zero in every calibration image"));
    }

    #[test]
    fn noisy_layers_are_named_with_their_ratio() {
        let report = |signal, noise| LayerReport {
            name: "conv1".into(),
            kind: "convolution",
            block: None,
            output: Shape::new(1, 1, 1),
            macs: 0,
            weights: 0,
            scale: None,
            signal_to_noise_db: Squares { signal, noise }.signal_to_noise_db(),
        };
        assert_eq!(noise(&report(100.0, 1.0)), None);
        assert_eq!(noise(&report(100.0, 0.0)), None);
        let warning = noise(&report(5.0, 1.0)).unwrap();
        assert!(warning.starts_with("conv1: a signal-to-noise ratio of 7.0 dB, below 10 dB;"), "{warning}");
    }
}
