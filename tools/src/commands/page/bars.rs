//! Bars in tables: what the weights range over, and where the flash goes.

use maud::{Markup, html};
use skipstone_tools::ir::{FloatNetwork, Operation};

use super::words::{layer_names, significant};
use crate::commands::report::Report;
use crate::commands::text::{grouped, percent, printable};

/// A bar between two parts of the track's length.
pub(super) fn bar(from: f64, to: f64) -> Markup {
    html! { span.track { i style=(place(from, to)) {} } }
}

fn place(from: f64, to: f64) -> String {
    let part = |value: f64| if value.is_finite() { 100.0 * value.clamp(0.0, 1.0) } else { 0.0 };
    format!("left:{:.2}%;width:{:.2}%", part(from), (part(to) - part(from)).max(0.0))
}

/// A layer's weights: what they range over.
struct Spread<'n> {
    name: &'n str,
    min: f32,
    max: f32,
    /// Largest magnitude in each output channel, the smallest first.
    channels: Vec<f32>,
}

/// Weights of each layer before they are rounded.
pub(super) fn weights(network: &FloatNetwork) -> Markup {
    let layers = spreads(network);
    let ends = layers.iter().flat_map(|layer| [-layer.min, layer.max]);
    let end = f64::from(ends.fold(f32::MIN_POSITIVE, f32::max));
    let part = |value: f32| 0.5 + 0.5 * f64::from(value) / end;
    html! {
        section {
            h2 { "Weights" }
            p.quiet {
                "Batch norm is folded in. Light: from the smallest to the largest weight. Dark: what the \
                 middle one of the output channels reaches; each channel has a step of its own, a 127th of \
                 its largest weight. The ends of the scale are ±" (significant(end)) "."
            }
            div.wide {
                table {
                    thead {
                        tr {
                            th { "layer" } th.number.more { "smallest" } th.number { "largest" }
                            th.number.more { "channels' largest" } th.chart {}
                        }
                    }
                    tbody {
                        @for layer in &layers {
                            @let middle = layer.channels.get(layer.channels.len() / 2).copied().unwrap_or(0.0);
                            @let least = layer.channels.first().copied().unwrap_or(0.0);
                            @let most = layer.channels.last().copied().unwrap_or(0.0);
                            tr {
                                td.name { (printable(layer.name)) }
                                td.number.more { (significant(layer.min.into())) }
                                td.number { (significant(layer.max.into())) }
                                td.number.more { (significant(least.into())) " – " (significant(most.into())) }
                                td.chart {
                                    span.track {
                                        i.soft style=(place(part(layer.min), part(layer.max))) {}
                                        i style=(place(part(-middle), part(middle))) {}
                                        b style="left:50%" {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn spreads<'n>(network: &'n FloatNetwork) -> Vec<Spread<'n>> {
    let mut layers = Vec::new();
    // depthwise filters are interleaved, others are stored consecutively
    let mut push = |name: &'n str, weights: &[f32], channels: usize, depthwise: bool| {
        let mut largest = vec![0.0f32; channels];
        let filter = weights.len() / channels.max(1);
        for (index, weight) in weights.iter().enumerate() {
            let channel = if depthwise { index % channels } else { index / filter };
            largest[channel] = largest[channel].max(weight.abs());
        }
        largest.sort_by(f32::total_cmp);
        let min = weights.iter().copied().fold(0.0, f32::min);
        let max = weights.iter().copied().fold(0.0, f32::max);
        layers.push(Spread { name, min, max, channels: largest });
    };
    for layer in &network.layers {
        let (weights, bias) = layer.parameters.weights.real(&layer.operation);
        if weights.is_empty() {
            continue;
        }
        let depthwise = matches!(layer.operation, Operation::Conv2d { depthwise: true, .. });
        push(&layer.name, &weights, bias.len(), depthwise);
    }
    layers
}

/// Flash by layer.
pub(super) fn flash(report: &Report) -> Markup {
    let sizes = report.layers.iter().map(|layer| layer.flash_bytes as u64);
    let mut rows: Vec<(String, u64)> = layer_names(report).zip(sizes).collect();
    rows.retain(|(_, bytes)| *bytes > 0);
    let whole = report.blob_bytes as u64;
    let layers: u64 = rows.iter().map(|(_, bytes)| bytes).sum();
    rows.push(("names, shapes, memory plans".into(), whole.saturating_sub(layers)));
    let largest = rows.iter().map(|(_, bytes)| *bytes).max().unwrap_or(1).max(1) as f64;
    html! {
        section {
            h2 { "Flash" }
            p.quiet { "The blob's " (grouped(whole)) " bytes. The runtime's code is not in them." }
            div.wide {
                table {
                    thead { tr { th { "layer" } th.number { "bytes" } th.number { "%" } th.chart {} } }
                    tbody {
                        @for (name, bytes) in &rows {
                            tr {
                                td.name { (printable(name)) }
                                td.number { (grouped(*bytes)) }
                                td.number { (format!("{:.1}", percent(*bytes, whole))) }
                                td.chart { (bar(0.0, *bytes as f64 / largest)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
