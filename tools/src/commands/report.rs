//! What there is to know about a blob: layers, blocks, totals and both memory plans.

use anyhow::{Context, Result};
use serde::Serialize;
use skipstone::schema::{self, Operation, Shortcut};
use skipstone::{Algorithm, Model, Shape, Softmax, VERSION, Window, predicted_cycles};
use skipstone_tools::convert::meaning;

use super::host;
use super::occupancy::{Occupancy, Placement, occupancy};

/// A blob's report; its JSON form is what `inspect --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) format_version: u16,
    pub(crate) input: Shape,
    pub(crate) classes: usize,
    pub(crate) labels: Vec<String>,
    pub(crate) softmax: bool,
    pub(crate) blob_bytes: usize,
    /// Arena with the input frame in it.
    pub(crate) arena_bytes: usize,
    /// Arena when the input is fed row by row.
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

/// A residual block.
#[derive(Debug, Serialize)]
pub(crate) struct BlockReport {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) input: Shape,
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
    pub(crate) window: Option<Window>,
    /// The block's shortcut is added in this layer.
    pub(crate) adds_shortcut: bool,
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    pub(crate) macs: u64,
    /// Weights and biases.
    pub(crate) parameters: u64,
    /// How a convolution is computed.
    pub(crate) algorithm: Option<Algorithm>,
    /// Flash that the weights take.
    pub(crate) weight_bytes: usize,
    /// Predicted cycles on a Cortex-M4, frame in the arena.
    pub(crate) cycles: u64,
    /// Real value of one step of the output; none where it is class scores or raw pixels.
    pub(crate) scale: Option<f32>,
    pub(crate) zero_point: Option<i8>,
    /// The layer in the plan for a frame in the arena.
    pub(crate) frame: Placement,
    /// The layer in the plan for an input fed by rows.
    pub(crate) rows: Placement,
}

/// Gathers the report; proves both memory plans on the way.
pub(crate) fn report(model: Model<'_>) -> Result<Report> {
    host::prove(model)?;
    let (frame, rows) = (occupancy(&model, true)?, occupancy(&model, false)?);
    let mut placements = frame.layers.iter().zip(&rows.layers);
    let (mut blocks, mut layers) = (Vec::new(), Vec::<LayerReport>::new());
    let mut output_meaning = None;
    for entry in model.stages() {
        let entry = entry?;
        let first = layers.len();
        for ((name, operation), layer) in parts(&entry.record).into_iter().zip(entry.stage.layers(0, 1)) {
            let (frame, rows) = placements.next().context("the plan has too few layers")?;
            if !matches!(operation, Operation::Pool2d(_)) {
                output_meaning = meaning(&operation); // pooling keeps its input's
            }
            layers.push(LayerReport {
                name: name.to_owned(),
                block: entry.stage.block().map(|_| blocks.len()),
                kind: operation.kind(),
                window: (!layer.node.reduction).then_some(layer.node.window),
                adds_shortcut: layer.node.shortcut.is_some(),
                input: layer.input(),
                output: layer.output(),
                macs: layer.macs(),
                parameters: parameters(layer.weight_count(), layer.output()),
                algorithm: layer.convolution().map(|layer| layer.algorithm()),
                weight_bytes: layer.weights().len(),
                cycles: predicted_cycles(&layer, frame.strip),
                scale: output_meaning.map(|(scale, _)| scale),
                zero_point: output_meaning.map(|(_, zero_point)| zero_point),
                frame: *frame,
                rows: *rows,
            });
        }
        if entry.stage.block().is_some() {
            let own = layers.get(first..).unwrap_or_default();
            blocks.push(BlockReport {
                name: entry.record.name.to_owned(),
                kind: entry.record.operation.kind(),
                input: entry.stage.input(),
                output: entry.stage.output(),
                macs: own.iter().map(|layer| layer.macs).sum(),
                parameters: own.iter().map(|layer| layer.parameters).sum(),
                layers: own.len(),
            });
        }
    }
    Ok(Report {
        name: model.name().to_owned(),
        format_version: VERSION,
        input: model.input(),
        classes: model.classes(),
        labels: model.labels().map(str::to_owned).collect(),
        softmax: model.softmax() != Softmax::None,
        blob_bytes: model.blob_bytes(),
        arena_bytes: model.arena_bytes(),
        arena_bytes_rows: model.arena_bytes_rows(),
        macs: layers.iter().map(|layer| layer.macs).sum(),
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        cycles: layers.iter().map(|layer| layer.cycles).sum(),
        frame,
        rows,
        blocks,
        layers,
    })
}

/// The layers of a stage by name, each as an operation of its own, in the order in which they run.
fn parts<'a>(stage: &schema::Stage<'a>) -> Vec<(&'a str, Operation)> {
    let Operation::Block(block) = &stage.operation else {
        return vec![(stage.name, stage.operation.clone())];
    };
    let path = block.path.iter().map(|record| Operation::Conv2d(record.clone()));
    let mut parts: Vec<_> = ["conv1", "conv2", "conv3"].into_iter().zip(path).collect();
    if let Shortcut::Projection(projection) = &block.shortcut {
        // it runs before the convolution to whose sum it is added
        parts.insert(parts.len().saturating_sub(1), ("projection", Operation::Conv2d(projection.clone())));
    }
    parts
}

/// A layer's weights and the bias of each of its outputs.
fn parameters(weights: usize, output: Shape) -> u64 {
    if weights == 0 { 0 } else { weights as u64 + u64::from(output.channels) }
}
