//! The page that `convert --report` writes: one HTML file that needs nothing else, for light, dark and narrow screens.
//!
//! Everything that is put into it passes through maud, which escapes it: names come from untrusted models.

mod activations;
mod bars;
mod memory;
mod words;

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use skipstone::Model;
use skipstone_tools::convert::{Converted, LayerReport, MIN_SIGNAL_TO_NOISE_DB};
use skipstone_tools::ir::FloatNetwork;

use super::evaluation::Evaluation;
use super::report::Report;
use super::text::{grouped, printable};
use words::significant;

const STYLE: &str = include_str!("page/style.css");

/// Largest signal-to-noise ratio that the chart has room for, in decibel.
const MAX_DECIBEL: f64 = 60.0;

/// What the page shows.
pub(crate) struct Content<'a> {
    pub(crate) network: &'a FloatNetwork,
    pub(crate) converted: &'a Converted,
    pub(crate) report: &'a Report,
    /// How the network was quantized, in words.
    pub(crate) method: String,
    pub(crate) calibration_images: usize,
    pub(crate) accuracy: Option<Accuracy>,
}

/// The accuracy before and after, and on what.
pub(crate) struct Accuracy {
    pub(crate) evaluation: Evaluation,
    /// The images, in words.
    pub(crate) images: String,
    /// They are those that calibration saw.
    pub(crate) seen: bool,
}

/// The page's text.
pub(crate) fn page(content: &Content<'_>) -> Result<String> {
    let Content { network, converted, report, .. } = content;
    let model = Model::parse(&converted.blob)?;
    let name = printable(&report.name);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (name) " in int8" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (name) " in int8" }
                    p.quiet {
                        "Converted by skipstone " (env!("CARGO_PKG_VERSION")) ", calibrated on "
                        (grouped(content.calibration_images as u64)) " images; " (content.method) "."
                    }
                }
                main {
                    (summary(content))
                    (warnings(&converted.warnings))
                    (noise(&converted.layers, report))
                    (activations::section(network, &converted.observed))
                    (bars::weights(network))
                    (memory::section(&model, report)?)
                    (bars::flash(report))
                }
            }
        }
    };
    Ok(page.into_string())
}

/// The figures that matter most, in tiles.
fn summary(content: &Content<'_>) -> Markup {
    let report = content.report;
    let bytes = |bytes: usize| grouped(bytes as u64);
    html! {
        section.tiles {
            @if let Some(Accuracy { evaluation, seen, .. }) = &content.accuracy {
                @let caption = if *seen { "right, on images that calibration saw" } else { "right" };
                @if let (Some(float), Some(int8)) = (evaluation.float_top1(), evaluation.top1()) {
                    (tile(&format!("{float:.2} %"), &format!("float {caption}")))
                    (tile(&format!("{int8:.2} %"), &format!("int8 {caption}")))
                }
                @if let Some(agreement) = evaluation.agreement() {
                    (tile(&format!("{agreement:.2} %"), "int8 and float give the same answer"))
                }
            }
            (tile(&format!("{} B", bytes(report.blob_bytes)), "flash for the blob"))
            (tile(&format!("{} B", bytes(report.arena_bytes_rows)), "RAM, fed by rows"))
            (tile(&format!("{} B", bytes(report.arena_bytes)), "RAM, frame in the arena"))
            (tile(&grouped(report.macs), "multiply-accumulates"))
            (tile(&grouped(report.parameters), "parameters"))
        }
        @match &content.accuracy {
            Some(Accuracy { images, seen: false, .. }) => p.quiet { "Accuracy on " (printable(images)) "." },
            Some(Accuracy { images, seen: true, .. }) => p.quiet {
                "Accuracy on " (printable(images)) ", the calibration images themselves. For other images use "
                code { "--evaluate" } " or " code { "skipstone eval" } "."
            },
            None => p.quiet {
                "No accuracy: no labelled images were given. " code { "--evaluate" } " takes them."
            },
        }
    }
}

fn tile(figure: &str, caption: &str) -> Markup {
    html! { div.tile { strong { (figure) } span { (caption) } } }
}

/// What may cost accuracy.
fn warnings(warnings: &[String]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            section {
                h2 { "Warnings" }
                ul { @for warning in warnings { li { (printable(warning)) } } }
            }
        }
    }
}

/// Signal-to-noise ratio of every layer, as bars in a table.
fn noise(layers: &[LayerReport], report: &Report) -> Markup {
    html! {
        section {
            h2 { "Signal to noise, layer by layer" }
            p.quiet {
                "Power of the float network's output over that of the difference, after each layer; 6 dB are \
                 one bit. Errors of earlier layers are included. Below " (MIN_SIGNAL_TO_NOISE_DB)
                " dB the conversion warns."
            }
            div.wide {
                table {
                    thead {
                        tr { th { "layer" } th.more { "kind" } th.more { "block" } th.more { "output" } th.number.more { "step" } th.number { "dB" } th.chart {} }
                    }
                    tbody {
                        @for layer in layers {
                            tr {
                                td.name { (printable(&layer.name)) }
                                td.more { (layer.kind) }
                                td.more { @if let Some(block) = layer.block.and_then(|block| report.blocks.get(block)) { (printable(&block.name)) } }
                                td.more { (layer.output) }
                                td.number.more { @if let Some(scale) = layer.scale { (significant(scale.into())) } }
                                @if let Some(decibel) = layer.signal_to_noise_db {
                                    td.number { (format!("{decibel:.1}")) }
                                    td.chart { (bars::bar(0.0, decibel / MAX_DECIBEL)) }
                                } @else {
                                    td.number { "exact" }
                                    td.chart {}
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
