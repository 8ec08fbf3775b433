//! What there is to know about a blob: layers, blocks, outputs, totals and both memory plans.

use anyhow::{Context, Result};
use serde::Serialize;
use skipstone::host::format::VERSION;
use skipstone::host::{Algorithm, Entry, Kind, Layer, Softmax, Span, predicted_cycles, span};
use skipstone::{Model, Shape};

use super::flash::flash_bytes;
use super::host;
use super::json::{ShapeJson, WindowJson};
use super::occupancy::{Occupancy, Placement, occupancy};

/// A blob's report; its JSON form is what `inspect --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) format_version: u16,
    #[serde(serialize_with = "shape")]
    pub(crate) input: Shape,
    /// Number of class scores; 0 if there are none.
    pub(crate) classes: usize,
    pub(crate) labels: Vec<String>,
    /// A softmax follows the class scores.
    pub(crate) softmax: bool,
    pub(crate) outputs: Vec<OutputReport>,
    pub(crate) blob_bytes: usize,
    /// Arena with the input frame in it.
    pub(crate) arena_bytes: usize,
    /// Arena if the input is fed row by row.
    pub(crate) arena_bytes_rows: usize,
    pub(crate) macs: u64,
    pub(crate) parameters: u64,
    /// Predicted cycles on a Cortex-M4, frame in the arena.
    pub(crate) cycles: u64,
    /// The plan for a frame in the arena.
    pub(crate) frame: Occupancy,
    /// The plan for an input fed by rows.
    pub(crate) rows: Occupancy,
    pub(crate) blocks: Vec<BlockReport>,
    pub(crate) layers: Vec<LayerReport>,
}

/// What the caller receives.
#[derive(Debug, Serialize)]
pub(crate) struct OutputReport {
    pub(crate) name: String,
    /// Index of the layer that makes it.
    pub(crate) layer: usize,
    #[serde(serialize_with = "shape")]
    pub(crate) shape: Shape,
    /// f32 class scores; otherwise int8 values.
    pub(crate) scores: bool,
    pub(crate) softmax: bool,
    /// Real value of one step of int8 values.
    pub(crate) scale: Option<f32>,
    pub(crate) zero_point: Option<i8>,
}

/// A residual block.
#[derive(Debug, Serialize)]
pub(crate) struct BlockReport {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    #[serde(serialize_with = "shape")]
    pub(crate) input: Shape,
    #[serde(serialize_with = "shape")]
    pub(crate) output: Shape,
    pub(crate) macs: u64,
    pub(crate) parameters: u64,
    /// Number of layers.
    pub(crate) layers: usize,
}

/// A layer, alone or in a block.
#[derive(Debug, Serialize)]
pub(crate) struct LayerReport {
    pub(crate) name: String,
    /// Index of the block that the layer belongs to.
    pub(crate) block: Option<usize>,
    pub(crate) kind: &'static str,
    pub(crate) window: Option<WindowJson>,
    /// The block's shortcut is added in this layer.
    pub(crate) adds_shortcut: bool,
    #[serde(serialize_with = "shape")]
    pub(crate) input: Shape,
    #[serde(serialize_with = "shape")]
    pub(crate) output: Shape,
    pub(crate) macs: u64,
    /// Weights and biases.
    pub(crate) parameters: u64,
    /// How a convolution is computed.
    #[serde(serialize_with = "algorithm_name")]
    pub(crate) algorithm: Option<Algorithm>,
    /// Bytes of flash that the weights take.
    pub(crate) weight_bytes: usize,
    /// Bytes of flash that the layer takes: weights, biases, multipliers.
    pub(crate) flash_bytes: usize,
    /// Predicted cycles on a Cortex-M4, frame in the arena.
    pub(crate) cycles: u64,
    /// Real value of one step of the output; `None` for class scores and raw pixels.
    pub(crate) scale: Option<f32>,
    pub(crate) zero_point: Option<i8>,
    /// The layer in the plan for a frame in the arena.
    pub(crate) frame: Placement,
    /// The layer in the plan for an input fed by rows.
    pub(crate) rows: Placement,
}

fn shape<S: serde::Serializer>(shape: &Shape, serializer: S) -> Result<S::Ok, S::Error> {
    ShapeJson::from(*shape).serialize(serializer)
}

fn algorithm_name<S: serde::Serializer>(
    chosen: &Option<Algorithm>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    chosen.map(|algorithm| format!("{algorithm:?}")).serialize(serializer)
}

/// Gathers the report of the model in `blob`; proves both memory plans on the way.
pub(crate) fn report(model: Model<'_>, blob: &[u8]) -> Result<Report> {
    host::prove(model)?;
    let entries = model.layers().collect::<Result<Vec<_>, _>>()?;
    let (frame, rows) = (occupancy(&model, true)?, occupancy(&model, false)?);
    let flash = flash_bytes(blob, &entries)?;
    let spans = blocks(&entries);
    let mut layers = Vec::new();
    for (index, (entry, flash_bytes)) in entries.iter().zip(flash).enumerate() {
        let placement =
            |plan: &Occupancy| plan.layers.get(index).copied().context("the plan has too few layers");
        let (frame, rows) = (placement(&frame)?, placement(&rows)?);
        let layer = &entry.layer;
        let real = !layer.gives_scores() && !is_raw(&entries, index);
        layers.push(LayerReport {
            name: entry.name.to_owned(),
            block: spans.iter().position(|block| block.layers.contains(&index)),
            kind: kind(layer),
            window: (!layer.node.reduction).then(|| layer.node.window.into()),
            adds_shortcut: layer.node.shortcut.is_some(),
            input: layer.input(),
            output: layer.output(),
            macs: layer.macs(),
            parameters: parameters(layer.weight_count(), layer.output()),
            algorithm: layer.convolution().map(|layer| layer.algorithm()),
            weight_bytes: layer.weights().len(),
            flash_bytes,
            cycles: predicted_cycles(layer, frame.strip),
            scale: real.then_some(entry.scale),
            zero_point: real.then_some(entry.zero_point),
            frame,
            rows,
        });
    }
    let blocks = spans.iter().map(|block| {
        let own = || block.layers.iter().filter_map(|index| layers.get(*index));
        BlockReport {
            name: block_name(own().map(|layer| layer.name.as_str())),
            kind: block.kind.name(),
            input: own().next().map_or(Shape::new(0, 0, 0), |layer| layer.input),
            output: own().next_back().map_or(Shape::new(0, 0, 0), |layer| layer.output),
            macs: own().map(|layer| layer.macs).sum(),
            parameters: own().map(|layer| layer.parameters).sum(),
            layers: block.layers.len(),
        }
    });
    let outputs: Vec<OutputReport> = entries.iter().enumerate().filter_map(output).collect();
    Ok(Report {
        name: model.name().to_owned(),
        format_version: VERSION,
        input: model.input(),
        classes: model.classes(),
        labels: model.labels().map(str::to_owned).collect(),
        softmax: outputs.iter().any(|output| output.softmax),
        outputs,
        blob_bytes: model.blob_bytes(),
        arena_bytes: model.arena_bytes(),
        arena_bytes_rows: model.arena_bytes_rows(),
        macs: layers.iter().map(|layer| layer.macs).sum(),
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        cycles: layers.iter().map(|layer| layer.cycles).sum(),
        frame,
        rows,
        blocks: blocks.collect(),
        layers,
    })
}

/// The output that a layer makes.
fn output((index, entry): (usize, &Entry<'_>)) -> Option<OutputReport> {
    let (name, softmax) = entry.output?;
    let scores = entry.layer.gives_scores();
    Some(OutputReport {
        name: name.to_owned(),
        layer: index,
        shape: entry.layer.output(),
        scores,
        softmax: softmax != Softmax::None,
        scale: (!scores).then_some(entry.scale),
        zero_point: (!scores).then_some(entry.zero_point),
    })
}

/// What a layer does, without the shortcut that it adds.
pub(crate) fn kind(layer: &Layer<'_>) -> &'static str {
    let kind = layer.kind();
    kind.split_once(',').map_or(kind, |(kind, _)| kind)
}

/// Whether a layer makes raw pixels: those of the input, pooled.
fn is_raw(entries: &[Entry<'_>], layer: usize) -> bool {
    let Some(entry) = entries.get(layer) else { return false };
    let pools = !entry.layer.node.reduction && entry.layer.convolution().is_none();
    pools && usize::from(entry.layer.node.reads).checked_sub(1).is_none_or(|layer| is_raw(entries, layer))
}

/// A residual block in a list of layers.
#[derive(Debug, PartialEq, Eq)]
struct Members {
    kind: Kind,
    /// Indices of its layers, in order.
    layers: Vec<usize>,
}

/// The residual blocks, in order of their last layers. A layer belongs to one block at most.
fn blocks(entries: &[Entry<'_>]) -> Vec<Members> {
    let layers: Vec<Layer<'_>> = entries.iter().map(|entry| entry.layer).collect();
    let mut taken = vec![false; layers.len()];
    let mut blocks = Vec::new();
    for last in 0..layers.len() as u16 {
        let Some(Span { path, kind, .. }) = span(&layers, last) else { continue };
        let mut at = last;
        let mut members = Vec::new();
        for _ in 0..path {
            members.push(usize::from(at));
            let Some(layer) = layers.get(usize::from(at)) else { break };
            at = layer.node.reads.saturating_sub(1);
        }
        if let Kind::Convolutional(projection) = kind {
            members.push(projection.into());
        }
        members.retain(|layer| !std::mem::replace(&mut taken[*layer], true));
        members.sort_unstable();
        blocks.push(Members { kind, layers: members });
    }
    blocks
}

/// Name of a block: what the names of its layers begin with, up to a separator; the last layer's name if
/// they have nothing in common.
pub(crate) fn block_name<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return String::new() };
    let is_separator = |character: char| matches!(character, '.' | '/' | ':');
    let ends = first.char_indices().filter(|(_, character)| is_separator(*character)).map(|(at, _)| at);
    let shared = ends.filter(|end| names.iter().all(|name| name.get(..=*end) == first.get(..=*end)));
    let prefix = shared.max().and_then(|end| first.get(..end)).filter(|prefix| !prefix.is_empty());
    prefix.unwrap_or(last).to_owned()
}

/// A layer's weights and the bias of each of its outputs.
fn parameters(weights: usize, output: Shape) -> u64 {
    if weights == 0 { 0 } else { weights as u64 + u64::from(output.channels) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_called_what_its_layers_names_have_in_common() {
        let cases: [(&[&str], &str); 6] = [
            (&["layer1.0.conv1", "layer1.0.conv2"], "layer1.0"),
            (&["layer2.0.conv1", "layer2.0.downsample.0", "layer2.0.conv2"], "layer2.0"),
            (&["/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/conv2/Conv"], "/layer1/layer1.0"),
            (&["conv2d_3", "conv2d_4"], "conv2d_4"),
            (&["é.a", "è.b"], "è.b"),
            (&[], ""),
        ];
        for (names, expected) in cases {
            assert_eq!(block_name(names.iter().copied()), expected);
        }
    }
}
