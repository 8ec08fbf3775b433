//! A card for each activation tensor: its values' histogram and the range that was chosen.

use std::collections::BTreeMap;
use std::fmt::Write;

use maud::{Markup, html};
use skipstone_tools::calibrate::Observed;
use skipstone_tools::ir::{FloatNetwork, Operation, TensorId};
use skipstone_tools::quantize::gives_scores;

use super::words::significant;
use crate::commands::text::printable;

/// Columns of a histogram.
const COLUMNS: usize = 64;

/// Height of a histogram, in the same units as a column's width.
const HEIGHT: f64 = 24.0;

pub(super) fn section(network: &FloatNetwork, observed: &BTreeMap<TensorId, Observed>) -> Markup {
    let shown = observed.iter().filter(|(tensor, _)| is_quantized(network, **tensor));
    html! {
        section {
            h2 { "Activations" }
            p.quiet {
                "How often each value occurs in the calibration images (logarithmic), and the range that the \
                 256 int8 steps cover (shaded). What lies outside is clipped to its ends. The dashed line is zero."
            }
            div.cards {
                @for (tensor, observed) in shown { (card(name(network, *tensor), observed)) }
            }
        }
    }
}

/// Whether the tensor has an int8 range of its own.
fn is_quantized(network: &FloatNetwork, tensor: TensorId) -> bool {
    let Some(layer) = network.producer(tensor) else { return false };
    let pooled = matches!(layer.operation, Operation::MaxPool(_) | Operation::AveragePool { .. });
    !pooled && !gives_scores(network, tensor)
}

fn name(network: &FloatNetwork, tensor: TensorId) -> &str {
    network.producer(tensor).map_or("input", |layer| &layer.name)
}

fn card(name: &str, observed: &Observed) -> Markup {
    let Observed { extremes, histogram, range } = observed;
    let (min, max) = (f64::from(extremes.min), f64::from(extremes.max));
    let width = (max - min).max(f64::MIN_POSITIVE);
    let at = |value: f32| ((f64::from(value) - min) / width).clamp(0.0, 1.0) * COLUMNS as f64;
    let (low, high) = (at(range.min), at(range.max));
    let (all, clipped) = clipped(observed);
    let step = (f64::from(range.max) - f64::from(range.min)) / 255.0;
    html! {
        figure {
            svg.histogram viewBox=(format!("0 0 {COLUMNS} {HEIGHT}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("histogram of {}", printable(name))) {
                rect.range x=(decimal(low)) y="0" width=(decimal(high - low)) height=(HEIGHT) {}
                @for (class, path) in columns(histogram, low, high) {
                    path class=(class) d=(path) {}
                }
                line.zero x1=(decimal(at(0.0))) x2=(decimal(at(0.0))) y1="0" y2=(HEIGHT) {}
            }
            figcaption {
                strong title=(printable(name)) { (printable(name)) }
                "range " (significant(range.min.into())) " to " (significant(range.max.into()))
                br;
                "seen " (significant(min)) " to " (significant(max))
                br;
                "step " (significant(step))
                @if clipped > 0 {
                    ", clipped " (clipped_part(clipped as f64 / all as f64))
                }
            }
        }
    }
}

fn decimal(value: f64) -> String {
    format!("{value:.2}")
}

fn clipped_part(part: f64) -> String {
    if part < 1e-5 { "< 0.01 ‰".into() } else { format!("{:.2} ‰", 1000.0 * part) }
}

/// How many values there are, and how many lie outside of the range (to the width of a bin).
fn clipped(observed: &Observed) -> (u64, u64) {
    let Observed { extremes, histogram, range } = observed;
    let bins = histogram.len().max(1) as f64;
    let width = f64::from(extremes.max - extremes.min) / bins;
    let outside = histogram.iter().enumerate().filter(|(bin, _)| {
        let centre = f64::from(extremes.min) + (*bin as f64 + 0.5) * width;
        centre < f64::from(range.min) || centre > f64::from(range.max)
    });
    (histogram.iter().sum::<u64>().max(1), outside.map(|(_, count)| count).sum())
}

/// Columns inside of the range and outside, as two paths.
fn columns(histogram: &[u64], low: f64, high: f64) -> [(&'static str, String); 2] {
    let bins = histogram.len().div_ceil(COLUMNS).max(1);
    let sums: Vec<u64> = histogram.chunks(bins).map(|bins| bins.iter().sum()).collect();
    let height = |count: u64| ((count + 1) as f64).log2();
    let tallest = sums.iter().copied().map(height).fold(1.0, f64::max);
    let mut paths = [("inside", String::new()), ("outside", String::new())];
    for (column, count) in sums.iter().enumerate().filter(|(_, count)| **count > 0) {
        let centre = column as f64 + 0.5;
        let path = &mut paths[usize::from(centre < low || centre > high)].1;
        let height = (HEIGHT - 1.0) * height(*count) / tallest;
        // writing to a string does not fail
        let _ = write!(path, "M{column} {HEIGHT}v-{height:.1}h.9v{height:.1}z");
    }
    paths
}
