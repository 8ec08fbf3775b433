//! `skipstone inspect`: what a blob holds and what it needs, as a table or as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use skipstone::Algorithm;
use skipstone_tools::blob::Blob;

use super::occupancy::Occupancy;
use super::report::{BlockReport, LayerReport, Report, report};
use super::text::{grouped, lines, printable, shortened, table};
use super::{parse, print, print_json};

const NOTES: &str = "\
Examples:
  skipstone inspect resnet8.skip
  skipstone inspect resnet8.skip --json | jq .arena_bytes

Columns: params is weights and biases, scale the real value of one step of the output, flash the bytes of \
the weights as the way of computing wants them, rows the height of a strip, cycles a prediction for a \
Cortex-M4 without flash wait states (silicon measured 1.15 times such models), seg the segment (a run of \
layers that stream through each other), alive the rows of the output that are in memory at the peak, when \
most bytes are. Two numbers with | between them: frame in the arena | fed by rows.

JSON keys: name, format_version, input, classes, labels, softmax, blob_bytes (flash), arena_bytes (RAM \
with the input frame in it), arena_bytes_rows (RAM when the input is fed row by row), macs, parameters, \
cycles (predicted, Cortex-M4), frame and rows (the two memory plans: segments, peak), blocks, layers (with \
algorithm, weight_bytes, cycles, rows_alive at the peak).";

/// Show a blob's layers and blocks, its totals and its RAM plan
///
/// The blob is checked and both of its memory plans are proved, as the firmware does it.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The blob (.skip)
    blob: PathBuf,

    /// Clock of the core in MHz, for the predicted milliseconds
    #[arg(long, value_name = "MHZ", default_value_t = 120.0, value_parser = clock)]
    clock: f64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn clock(text: &str) -> Result<f64, String> {
    let refusal = || format!("'{text}' is not a clock in MHz; give one like 64 or 120");
    text.parse().ok().filter(|clock: &f64| clock.is_finite() && *clock > 0.0).ok_or_else(refusal)
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let blob = Blob::read(&arguments.blob)?;
    let model = parse(&blob, &arguments.blob)?;
    let report = report(model).with_context(|| arguments.blob.display().to_string())?;
    if arguments.json { print_json(&report) } else { print(&describe(&report, arguments.clock)) }
}

fn describe(report: &Report, clock: f64) -> String {
    let Report { name, input, classes, format_version, .. } = report;
    let softmax = if report.softmax { ", softmax" } else { "" };
    let name = printable(name);
    format!(
        "{name}: {input} in, {classes} classes{softmax}, blob format version {format_version}\n\n{}\n{}\n{}",
        layers(report),
        costs(report, clock),
        requirements(report)
    )
}

/// A line for each layer, and one above the layers of each block.
fn layers(report: &Report) -> String {
    let mut table = table(&["layer", "kind", "output", "MACs", "params", "scale"], "<<>>>>");
    table.add_row(["input", "pixels", &report.input.to_string(), "", "", ""]);
    by_blocks(report, |block, layer| {
        if let Some(block) = block {
            table.add_row(block_row(block));
        }
        table.add_row(layer_row(layer));
    });
    table.add_row(["total", "", "", &grouped(report.macs), &grouped(report.parameters), ""]);
    lines(&table)
}

/// What each layer costs.
fn costs(report: &Report, clock: f64) -> String {
    let ms = format!("ms @{clock}");
    let header = ["layer", "computed by", "rows", "flash", "cycles", "per MAC", &ms, "seg", "alive"];
    let mut table = table(&header, "<<>>>>>>>");
    let alive = alive(report.frame.input_rows_alive, report.rows.input_rows_alive, report.input.height);
    table.add_row(["input", "", "", "", "", "", "", "", &alive]);
    by_blocks(report, |block, layer| {
        if let Some(block) = block {
            table.add_row([shortened(&block.name)]);
        }
        table.add_row(cost_row(layer, clock));
    });
    let flash: usize = report.layers.iter().map(|layer| layer.weight_bytes).sum();
    let [cycles, per_mac, ms] = cycles(report.cycles, report.macs, clock);
    table.add_row(["total", "", "", &grouped(flash as u64), &cycles, &per_mac, &ms, "", ""]);
    lines(&table)
}

/// Calls `row` with each layer, and with its block where that begins.
fn by_blocks(report: &Report, mut row: impl FnMut(Option<&BlockReport>, &LayerReport)) {
    let mut above = None;
    for layer in &report.layers {
        let begins = if layer.block == above { None } else { layer.block };
        above = layer.block;
        row(begins.and_then(|index| report.blocks.get(index)), layer);
    }
}

/// Cycles, cycles per MAC and milliseconds.
fn cycles(cycles: u64, macs: u64, clock: f64) -> [String; 3] {
    let per_mac = if macs == 0 { String::new() } else { format!("{:.2}", cycles as f64 / macs as f64) };
    [grouped(cycles), per_mac, format!("{:.2}", cycles as f64 / clock / 1e3)]
}

fn indented(layer: &LayerReport) -> String {
    let name = shortened(&layer.name);
    if layer.block.is_some() { format!("  {name}") } else { name }
}

fn cost_row(layer: &LayerReport, clock: f64) -> [String; 9] {
    let (frame, rows) = (layer.frame, layer.rows);
    let both = |a: usize, b: usize| if a == b { a.to_string() } else { format!("{a}|{b}") };
    let algorithm = match layer.algorithm {
        Some(Algorithm::Reference) => "reference",
        Some(Algorithm::Direct) => "direct",
        Some(Algorithm::Winograd) => "Winograd",
        Some(Algorithm::WinogradAtRunTime) => "Winograd, int8",
        Some(Algorithm::Winograd4) => "Winograd 4x4",
        Some(Algorithm::Winograd4AtRunTime) => "Winograd 4x4, int8",
        None => "",
    };
    let [cycles, per_mac, ms] = cycles(layer.cycles, layer.macs, clock);
    let has_weights = layer.weight_bytes > 0;
    [
        indented(layer),
        algorithm.to_owned(),
        both(frame.strip.into(), rows.strip.into()),
        if has_weights { grouped(layer.weight_bytes as u64) } else { String::new() },
        cycles,
        per_mac,
        ms,
        both(frame.segment, rows.segment),
        alive(frame.rows_alive, rows.rows_alive, layer.output.height),
    ]
}

fn block_row(block: &BlockReport) -> [String; 3] {
    [shortened(&block.name), block.kind.into(), String::new()]
}

fn layer_row(layer: &LayerReport) -> [String; 6] {
    let has_weights = layer.parameters > 0;
    [
        indented(layer),
        kind(layer),
        layer.output.to_string(),
        if has_weights { grouped(layer.macs) } else { String::new() },
        if has_weights { grouped(layer.parameters) } else { String::new() },
        layer.scale.map_or(String::new(), scale),
    ]
}

/// The real value of one step, in about five characters.
pub(super) fn scale(scale: f32) -> String {
    if scale >= 0.001 { format!("{scale:.4}") } else { format!("{scale:.1e}") }
}

/// What the layer does, with kernel size and stride: `conv2d 3x3 /2, +` adds the block's shortcut.
fn kind(layer: &LayerReport) -> String {
    let mut text = layer.kind.replace("depthwise convolution", "depthwise");
    if let Some(window) = layer.window {
        let ([height, width], [down, right]) = (window.kernel, window.stride);
        text += &format!(" {height}x{width}");
        match (down, right) {
            (1, 1) => {}
            _ if down == right => text += &format!(" /{down}"),
            _ => text += &format!(" /{down}x{right}"),
        }
    }
    text + if layer.adds_shortcut { " +" } else { "" }
}

/// Rows alive with the frame in the arena and fed by rows, of all rows.
fn alive(frame: u16, fed: u16, of: u16) -> String {
    match (frame, fed) {
        (0, 0) => String::new(),
        _ if frame == fed => format!("{frame} of {of}"),
        _ => format!("{frame}|{fed} of {of}"),
    }
}

/// Flash and RAM that the network needs.
pub(super) fn requirements(report: &Report) -> String {
    let mut table = table(&["needs", "bytes", ""], "<><");
    table.add_row(["flash (blob)", &grouped(report.blob_bytes as u64), ""]);
    for (name, plan) in [("arena, frame in it", &report.frame), ("arena, fed by rows", &report.rows)] {
        table.add_row([name, &grouped(plan.arena_bytes as u64), &segments(plan)]);
    }
    lines(&table)
}

fn segments(plan: &Occupancy) -> String {
    let count = plan.segments.len();
    let plural = if count == 1 { "" } else { "s" };
    let tensors = plan.segments.iter().map(|segment| segment.tensors).max().unwrap_or(0);
    let peak = grouped(plan.peak_bytes as u64);
    format!("{count} segment{plural} of at most {tensors} tensors, {peak} bytes alive at the peak")
}
