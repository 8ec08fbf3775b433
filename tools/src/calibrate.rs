//! Calibration: the range of every activation tensor over real images.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::float::Evaluator;
use crate::ir::TensorId;

/// Bins of a tensor's histogram.
const BINS: usize = 2048;

/// Clipped ranges that are tried for a tensor, from its whole range down.
const CANDIDATES: usize = 100;

/// Power of the error that is summed up. Squares alone clip the few largest values, which decide a score,
/// more than the scores like; `docs/quantization.md` has the figures.
const NORM: f64 = 2.4;

/// The real range that a tensor's int8 values cover; it holds zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest value, at most 0.
    pub min: f32,
    /// Largest value, at least 0.
    pub max: f32,
}

/// The range of every activation tensor.
pub type Ranges = BTreeMap<TensorId, Range>;

/// How the range of a tensor is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RangeChoice {
    /// From the smallest to the largest value that was seen.
    MinMax,
    /// The part of it that loses least when values are rounded to 256 steps and clipped: outliers are
    /// clipped where finer steps for all others are worth more.
    #[default]
    LeastError,
}

/// What calibration found out about one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// All values that were seen lie in it.
    pub extremes: Range,
    /// How many values fell into each of equally wide parts of the extremes.
    pub histogram: Vec<u64>,
    /// The range that was chosen.
    pub range: Range,
}

/// Finds the range of every tensor of `evaluator`'s network over `images` (raw HWC bytes). `done` is called
/// after each image, twice for each.
pub fn calibrate(
    evaluator: &Evaluator<'_>,
    images: &[&[u8]],
    choice: RangeChoice,
    done: &(dyn Fn() + Sync),
) -> BTreeMap<TensorId, Observed> {
    let extremes = observe(evaluator, images, done, |range: &mut Range, values, _| {
        for value in values {
            // what is not a number passes `min` and `max` by; it comes of infinities
            let value = if value.is_nan() { f32::INFINITY } else { *value };
            range.min = range.min.min(value);
            range.max = range.max.max(value);
        }
    });
    let mut histograms = observe(evaluator, images, done, |histogram: &mut Histogram, values, tensor| {
        let Some(range) = extremes.get(&tensor) else { return };
        histogram.counts.resize(BINS, 0);
        let per_unit = BINS as f32 / (range.max - range.min).max(f32::MIN_POSITIVE);
        for value in values {
            let bin = ((value - range.min) * per_unit) as usize; // saturates
            histogram.counts[bin.min(BINS - 1)] += 1;
        }
    });
    let observed = extremes.into_iter().map(|(tensor, extremes)| {
        let histogram = histograms.remove(&tensor).unwrap_or_default();
        let range = match choice {
            RangeChoice::MinMax => extremes,
            RangeChoice::LeastError => histogram.best_range(extremes),
        };
        (tensor, Observed { extremes, histogram: histogram.counts, range })
    });
    observed.collect()
}

impl Default for Range {
    fn default() -> Self {
        Range { min: 0.0, max: 0.0 }
    }
}

/// What can be gathered from different images and put together.
trait Gather: Default + Send {
    fn merge(&mut self, other: Self);
}

impl Gather for Range {
    fn merge(&mut self, other: Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// How often a tensor's values fall into each of [`BINS`] equal parts of its range.
#[derive(Default)]
struct Histogram {
    counts: Vec<u64>,
}

impl Gather for Histogram {
    fn merge(&mut self, other: Self) {
        if self.counts.is_empty() {
            self.counts = other.counts;
        } else {
            for (sum, count) in self.counts.iter_mut().zip(other.counts) {
                *sum += count;
            }
        }
    }
}

/// Gathers something from every tensor over all images, on all cores.
fn observe<T: Gather>(
    evaluator: &Evaluator<'_>,
    images: &[&[u8]],
    done: &(dyn Fn() + Sync),
    gather: impl Fn(&mut T, &[f32], TensorId) + Sync,
) -> BTreeMap<TensorId, T> {
    images
        .par_iter()
        .fold(BTreeMap::<TensorId, T>::new, |mut gathered, image| {
            evaluator.run(image, &mut |tensor, values| {
                gather(gathered.entry(tensor).or_default(), values, tensor);
            });
            done();
            gathered
        })
        .reduce(BTreeMap::new, |mut gathered, others| {
            for (tensor, other) in others {
                gathered.entry(tensor).or_default().merge(other);
            }
            gathered
        })
}

impl Histogram {
    /// The range, clipped at the far end(s), with the least error.
    fn best_range(&self, whole: Range) -> Range {
        let candidate = |part: usize| {
            let part = 1.0 - part as f32 / CANDIDATES as f32;
            Range { min: whole.min * part, max: whole.max * part }
        };
        (0..CANDIDATES)
            .map(candidate)
            .map(|range| (self.error(whole, range), range))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(whole, |(_, range)| range)
    }

    /// Sum over all values of |error|^[`NORM`] when `range` is rounded to 256 steps.
    fn error(&self, whole: Range, range: Range) -> f64 {
        let half_step = f64::from(range.max - range.min) / 255.0 / 2.0;
        // the mean over errors that are spread evenly from -half_step to half_step
        let rounding = half_step.powf(NORM) / (NORM + 1.0);
        let width = f64::from(whole.max - whole.min) / BINS as f64;
        let bins = self.counts.iter().enumerate().map(|(bin, count)| {
            let value = f64::from(whole.min) + (bin as f64 + 0.5) * width;
            let clipped = value.clamp(f64::from(range.min), f64::from(range.max));
            let error = if value == clipped { rounding } else { (value - clipped).abs().powf(NORM) };
            error * *count as f64
        });
        bins.sum()
    }
}
