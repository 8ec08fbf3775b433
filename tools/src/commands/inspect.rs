//! `skipstone inspect`: what a blob holds and what it needs, as a table or as JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use skipstone_tools::blob::Blob;

use super::occupancy::Occupancy;
use super::report::{BlockReport, LayerReport, OutputReport, Report, report};
use super::text::{grouped, lines, printable, shortened, table};
use super::{parse, print, print_json};

const NOTES: &str = "\
Examples:
  skipstone inspect resnet8.skip
  skipstone inspect resnet8.skip --json | jq .arena_bytes

Columns: params is weights and biases; + marks the layer that adds the shortcut; scale is the real value of \
one step of the output; flash is the layer's bytes in the blob (weights as its algorithm needs them, biases, \
multipliers); winograd 2x2 and 4x4 compute tiles of that size, with a * they transform their weights at run \
time; rows is the height of a strip; cycles is a prediction for a Cortex-M4 without flash wait states \
(measured: 1.15 times as many); seg is the segment, a run of layers that stream through each other; alive is \
the number of the output's rows in memory at the peak. Two numbers with | between them: frame in the arena | \
fed by rows.

JSON keys: name, format_version, input, classes, labels, softmax, outputs (name, layer, shape, scores, \
softmax, scale, zero_point), blob_bytes (flash), arena_bytes (RAM with the input frame in it), \
arena_bytes_rows (RAM if the input is fed row by row), macs, parameters, cycles (predicted, Cortex-M4), \
frame and rows (the two memory plans: segments, peak), blocks, layers (with block, algorithm, weight_bytes, \
flash_bytes, cycles, rows_alive at the peak).";

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
    let report = report(model, &blob).with_context(|| arguments.blob.display().to_string())?;
    if arguments.json { print_json(&report) } else { print(&describe(&report, arguments.clock)) }
}

fn describe(report: &Report, clock: f64) -> String {
    let Report { name, input, classes, format_version, .. } = report;
    let gives = match (*classes, report.softmax) {
        (0, _) => "no class scores".to_owned(),
        (classes, false) => format!("{classes} classes"),
        (classes, true) => format!("{classes} classes, softmax"),
    };
    let sections = [
        format!("{}: {input} in, {gives}, blob format version {format_version}\n", printable(name)),
        layers(report),
        costs(report, clock),
        outputs(report),
        requirements(report),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A line for each layer, and one above the layers of each block.
fn layers(report: &Report) -> String {
    let mut table = table(&["layer", "kind", "output", "MACs", "params", "scale"], "<<>>>>");
    table.add_row(["input", "pixels", &report.input.to_string(), "", "", ""]);
    by_blocks(
        &report.layers,
        |layer| layer.block,
        |block, layer| {
            if let Some(block) = block.and_then(|block| report.blocks.get(block)) {
                table.add_row(block_row(block));
            }
            table.add_row(layer_row(layer));
        },
    );
    table.add_row(["total", "", "", &grouped(report.macs), &grouped(report.parameters), ""]);
    lines(&table)
}

/// What each layer costs.
fn costs(report: &Report, clock: f64) -> String {
    let header = ["layer", "computed by", "rows", "flash", "cycles", "seg", "alive"];
    let mut table = table(&header, "<<>>>>>");
    let alive = alive(report.frame.input_rows_alive, report.rows.input_rows_alive, report.input.height);
    table.add_row(["input", "", "", "", "", "", &alive]);
    by_blocks(
        &report.layers,
        |layer| layer.block,
        |block, layer| {
            if let Some(block) = block.and_then(|block| report.blocks.get(block)) {
                table.add_row([shortened(&block.name)]);
            }
            table.add_row(cost_row(layer));
        },
    );
    let flash: usize = report.layers.iter().map(|layer| layer.flash_bytes).sum();
    table.add_row(["total", "", "", &grouped(flash as u64), &grouped(report.cycles), "", ""]);
    let cycles = report.cycles as f64;
    let per_mac = cycles / report.macs.max(1) as f64;
    let ms = cycles / clock / 1e3;
    format!("{}predicted: {per_mac:.2} cycles per MAC, {ms:.2} ms at {clock} MHz\n", lines(&table))
}

/// Calls `row` with each layer, and with the index of its block if that begins.
pub(super) fn by_blocks<L>(
    layers: &[L],
    block_of: impl Fn(&L) -> Option<usize>,
    mut row: impl FnMut(Option<usize>, &L),
) {
    let mut above = None;
    for layer in layers {
        let block = block_of(layer);
        row(block.filter(|_| block != above), layer);
        above = block;
    }
}

/// A layer's name, indented in a block.
pub(super) fn indented(name: &str, block: Option<usize>) -> String {
    let name = shortened(name);
    if block.is_some() { format!("  {name}") } else { name }
}

fn cost_row(layer: &LayerReport) -> [String; 7] {
    let (frame, rows) = (layer.frame, layer.rows);
    let both = |a: usize, b: usize| if a == b { a.to_string() } else { format!("{a}|{b}") };
    [
        indented(&layer.name, layer.block),
        layer.algorithm.map_or(String::new(), |algorithm| algorithm.name().to_owned()),
        both(frame.strip.into(), rows.strip.into()),
        if layer.flash_bytes > 0 { grouped(layer.flash_bytes as u64) } else { String::new() },
        grouped(layer.cycles),
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
        indented(&layer.name, layer.block),
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

/// What a layer is, in a column's width.
pub(super) fn short_kind(kind: &str) -> String {
    kind.replace("depthwise convolution", "depthwise")
        .replace("convolution", "conv")
        .replace("average pooling", "avg pool")
        .replace("pooling", "pool")
}

/// What the layer does, with kernel size and stride: `conv 3x3 /2 +` adds the block's shortcut.
fn kind(layer: &LayerReport) -> String {
    let mut text = short_kind(layer.kind);
    if let Some(window) = &layer.window {
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

/// The outputs, unless class scores are the only one.
fn outputs(report: &Report) -> String {
    if let [output] = &report.outputs[..]
        && output.scores
    {
        return String::new();
    }
    let mut table = table(&["output", "made by", "shape", "values", "scale", "zero"], "<<><>>");
    for output in &report.outputs {
        let OutputReport { name, layer, shape, scores, softmax, .. } = output;
        let layer = report.layers.get(*layer).map_or("", |layer| layer.name.as_str());
        let values = match (scores, softmax) {
            (true, true) => "f32 probabilities",
            (true, false) => "f32 class scores",
            (false, _) => "int8",
        };
        table.add_row([
            shortened(name),
            shortened(layer),
            shape.to_string(),
            values.to_owned(),
            output.scale.map_or(String::new(), scale),
            output.zero_point.map_or(String::new(), |zero_point| zero_point.to_string()),
        ]);
    }
    lines(&table)
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
    format!("{count} segment{plural}, at most {tensors} tensors; peak {peak} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_fit_their_column() {
        let kinds = [
            ("depthwise convolution", "depthwise"),
            ("convolution", "conv"),
            ("global average pooling", "global avg pool"),
            ("average pooling", "avg pool"),
            ("max pooling", "max pool"),
            ("dense", "dense"),
        ];
        for (kind, short) in kinds {
            assert_eq!(short_kind(kind), short);
        }
    }

    #[test]
    fn a_block_begins_where_the_layer_above_is_not_in_it() {
        let mut found = Vec::new();
        by_blocks(&[None, Some(0), Some(0), Some(1), None], |block| *block, |begins, _| found.push(begins));
        assert_eq!(found, [None, Some(0), None, Some(1), None]);
    }
}
