//! Conversion: calibrate, quantize, plan, assemble, and measure what the rounding cost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use rayon::prelude::*;
use skipstone::stage::Stage;
use skipstone::{Addition, Model, Shape, Softmax, schema};

use crate::blob::Blob;
use crate::calibrate::{Observed, RangeChoice, calibrate};
use crate::data::Dataset;
use crate::fit::{Fit, WeightChoice};
use crate::float::{Evaluator, Part, TensorId};
use crate::layerwise;
use crate::network::{FloatNetwork, Quantized};
use crate::optimize::{self, Wishes};
use crate::quantize::{Rounding, quantize_fitted};

/// Most tensors of a segment, unless the network has a longer block: the runtime's default.
pub const MAX_TENSORS: usize = 16;

/// Images over which the error of each stage is measured.
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
        /// Stages that are done.
        done: usize,
        /// Stages altogether.
        total: usize,
    },
    /// Finding an address for every row.
    Planning,
    /// Measuring the error of each stage.
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
    /// What became of each stage.
    pub layers: Vec<LayerReport>,
    /// What calibration found out about each tensor.
    pub observed: BTreeMap<TensorId, Observed>,
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Name in the model that was converted.
    pub name: String,
    /// What it is.
    pub kind: &'static str,
    /// Shape of the output.
    pub output: Shape,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Bytes of weights.
    pub weights: usize,
    /// Real value of one step of the output; `None` for class scores.
    pub scale: Option<f32>,
    /// Power of the float output over that of the difference, in decibel; `None` where the float output
    /// is zero or there is no difference.
    pub signal_to_noise_db: Option<f64>,
}

/// Converts a network, calibrated on all images of `calibration`; one whose file has quantized it already
/// needs none.
///
/// # Errors
/// Where there are no images but some are needed, or the network cannot be quantized or planned; the message names the layer.
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
    let fitted = method.weights != WeightChoice::Nearest && network.quantized == Quantized::default();
    let fit = fitted.then(|| Fit::new(&evaluator, &images, method.weights));
    let unplanned = quantize_fitted(network, &ranges, method.rounding, fit, &|stage| {
        progress(Progress::Fitting { done: stage + 1, total: network.stages.len() });
    })?;
    // what a softmax over whole steps takes is no real number
    let score = match (unplanned.softmax, network.stages.len().checked_sub(2)) {
        (Softmax::Fixed(_), Some(stage)) => {
            network.quantized.tensors.get(&TensorId { stage, part: Part::Output }).map_or(1.0, |t| t.scale)
        }
        _ => 1.0,
    };

    progress(Progress::Planning);
    let blob = optimize::assemble(&unplanned, &wishes, MAX_TENSORS)?;

    // everything is checked here, as on the board
    let model = Model::parse(&blob).context("the converted blob is refused; this is a defect of the tool")?;
    let measured = &images[..images.len().min(MEASURED_IMAGES)];
    let layers = measure(&model, &evaluator, measured, score, progress)?;
    Ok(Converted { blob, layers, observed })
}

/// Sums of squares over all values of a stage's output.
#[derive(Debug, Clone, Copy, Default)]
struct Squares {
    signal: f64,
    noise: f64,
}

/// Compares every stage's int8 output, and the scores in units of `score`, with the float network's.
fn measure(
    model: &Model<'_>,
    evaluator: &Evaluator<'_>,
    images: &[&[u8]],
    score: f32,
    progress: &(dyn Fn(Progress) + Sync),
) -> anyhow::Result<Vec<LayerReport>> {
    let entries = model.stages().collect::<Result<Vec<_>, _>>()?;
    let stages: Vec<Stage<'_>> = entries.iter().map(|entry| entry.stage.clone()).collect();
    let meanings: Vec<_> = entries
        .iter()
        .scan(None, |before, entry| {
            // pooling keeps the meaning of its input
            *before = meaning(&entry.record.operation).or(*before);
            Some(*before)
        })
        .collect();

    let done = AtomicUsize::new(0);
    let squares = images
        .par_iter()
        .map(|image| {
            let mut outputs = vec![Vec::new(); stages.len()];
            evaluator.run(image, &mut |tensor, values| {
                if let TensorId { stage, part: Part::Output } = tensor
                    && let Some(output) = outputs.get_mut(stage)
                {
                    output.extend_from_slice(values);
                }
            });
            let mut squares = vec![Squares::default(); stages.len()];
            let scores = layerwise::run(&stages, image, &mut |stage, values| {
                let Some((scale, zero_point)) = meanings[stage] else { return };
                let real =
                    values.iter().map(|value| scale * f32::from(i16::from(*value) - i16::from(zero_point)));
                squares[stage] = compare(&outputs[stage], real);
            })?;
            if let (Some(last), Some(output)) = (squares.last_mut(), outputs.last()) {
                *last = compare(output, scores.iter().map(|value| value * score));
            }
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress(Progress::Measuring { done, total: images.len() });
            Ok(squares)
        })
        .try_reduce(
            || vec![Squares::default(); stages.len()],
            |mut sums, others| {
                for (sum, other) in sums.iter_mut().zip(others) {
                    sum.signal += other.signal;
                    sum.noise += other.noise;
                }
                Ok::<_, anyhow::Error>(sums)
            },
        )?;

    let reports = entries.iter().zip(squares).map(|(entry, squares)| LayerReport {
        name: entry.record.name.to_owned(),
        kind: entry.record.operation.kind(),
        output: entry.stage.output(),
        macs: entry.stage.macs(),
        weights: entry.stage.weight_bytes(),
        scale: meaning(&entry.record.operation).map(|(scale, _)| scale),
        signal_to_noise_db: (squares.signal > 0.0 && squares.noise > 0.0)
            .then(|| 10.0 * (squares.signal / squares.noise).log10()),
    });
    Ok(reports.collect())
}

fn compare(float: &[f32], real: impl Iterator<Item = f32>) -> Squares {
    let mut squares = Squares::default();
    for (float, real) in float.iter().zip(real) {
        squares.signal += f64::from(*float).powi(2);
        squares.noise += f64::from(float - real).powi(2);
    }
    squares
}

/// Scale and zero point of an operation's int8 output; `None` where it has those of its input, or gives
/// class scores.
pub fn meaning(operation: &schema::Operation) -> Option<(f32, i8)> {
    let finish = |finish: &schema::Finish| match finish {
        schema::Finish::Requantize { requantize, scale, .. } => Some((*scale, requantize.clamp.zero_point)),
        schema::Finish::Mean { clamp, scale } => Some((*scale, clamp.zero_point)),
        schema::Finish::Scores { .. } | schema::Finish::RoundedScores { .. } => None,
    };
    match operation {
        schema::Operation::Conv2d(layer) => Some((layer.scale, layer.requantize.clamp.zero_point)),
        schema::Operation::Pool2d(_) => None,
        schema::Operation::Dense(layer) => finish(&layer.finish),
        schema::Operation::GlobalAveragePool(layer) => finish(&layer.finish),
        schema::Operation::Block(block) => {
            let zero_point = match block.addition {
                Addition::Fused(_) => block.path.last()?.requantize.clamp.zero_point,
                Addition::Separate(sum) => sum.clamp.zero_point,
            };
            Some((block.scale, zero_point))
        }
    }
}
