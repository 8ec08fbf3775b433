//! What was recognized of a network, as lines for a person: one for each block and each layer outside of blocks.

use super::passes::Findings;
use crate::ir::{Activation, Block, BlockKind, FloatNetwork, Layer, Operation, Real, Weights, blocks};

/// The lines about a network after the passes.
pub(super) fn notes(network: &FloatNetwork, findings: &Findings) -> Vec<String> {
    let blocks = blocks(network);
    let mut inside = vec![false; network.layers.len()];
    blocks.iter().flat_map(Block::layers).for_each(|layer| inside[layer] = true);
    let mut ends = blocks.iter().peekable();
    let mut notes = Vec::new();
    if findings.normalization.is_some() {
        notes.push("normalisation at the input, folded into mean and standard deviation".into());
    }
    for (index, layer) in network.layers.iter().enumerate() {
        if let Some(block) = ends.next_if(|block| block.output() == index) {
            notes.push(block_note(network, block));
        } else if !inside[index] {
            notes.push(layer_note(network, layer, findings.remarks.get(layer)));
        }
    }
    for output in &network.outputs {
        if output.softmax != skipstone::host::Softmax::None {
            let mut note = String::from("softmax");
            if network.outputs.len() > 1 {
                note.push_str(&format!(" of output '{}'", output.name));
            }
            if findings.logarithms.contains(&output.name) {
                note.push_str(" (the model has its logarithm; the scores here are the probabilities)");
            }
            notes.push(note);
        }
    }
    if let [_, _, ..] = network.outputs[..] {
        let names = network.outputs.iter().map(|output| format!("'{}'", output.name));
        notes.push(format!("outputs: {}", names.collect::<Vec<_>>().join(", ")));
    }
    notes
}

/// How much of a quantized file stays as it is; `None` for a float network.
pub(super) fn kept(network: &FloatNetwork) -> Option<String> {
    let (mut kept, mut all) = (0, 0);
    for layer in &network.layers {
        match layer.parameters.weights {
            Weights::Integers(_) => (kept, all) = (kept + 1, all + 1),
            Weights::Real { .. } => all += 1,
            Weights::None | Weights::Affine(_) => {}
        }
    }
    let weights =
        if kept == all { "weights".into() } else { format!("the weights of {kept} of {all} layers") };
    (kept > 0).then(|| format!("quantized in the file: its scales and {weights} stay"))
}

fn layer_note(network: &FloatNetwork, layer: &Layer<Real>, remark: &str) -> String {
    let (name, activation) = (&layer.name, activation(layer.activation));
    let input = network.shape(layer.inputs[0]);
    match &layer.operation {
        Operation::Conv2d { outputs, .. } => {
            let (kernel, inputs) = (kernel(&layer.operation), input.channels);
            format!("{name}: convolution {kernel}, {inputs} -> {outputs}{remark}{activation}")
        }
        Operation::Dense { outputs } => {
            format!("{name}: dense, {} -> {outputs}{remark}{activation}", input.len())
        }
        Operation::MaxPool(window) if window.is_point() => {
            format!("{name}: subsampling {}", square(window.stride))
        }
        Operation::MaxPool(window) => {
            format!("{name}: max pooling {}, stride {}", square(window.kernel), square(window.stride))
        }
        Operation::AveragePool { window, .. } => {
            format!("{name}: average pooling {}, stride {}", square(window.kernel), square(window.stride))
        }
        Operation::GlobalAveragePool => format!("{name}: global average pooling{remark}"),
        Operation::Affine { .. }
        | Operation::Clamp { .. }
        | Operation::Add
        | Operation::Subsample { .. }
        | Operation::Pad { .. }
        | Operation::Softmax { .. } => format!("{name}: not fused"),
    }
}

fn block_note(network: &FloatNetwork, block: &Block) -> String {
    let last = &network.layers[block.output()];
    let kernels = |layers: &[usize]| {
        let convs = layers.iter().map(|&layer| &network.layers[layer]).filter(|layer| layer.is_convolution());
        convs.map(|layer| kernel(&layer.operation)).collect::<Vec<_>>()
    };
    let path = kernels(&block.path);
    let (kind, shortcut) = match (block.kind, last.shortcut) {
        (BlockKind::Identity, _) | (BlockKind::Padded, None) => ("identity block", String::new()),
        (BlockKind::Convolutional, _) => {
            let projection = kernels(&block.shortcut).join(", ");
            let projection = if projection.is_empty() { "pooled".into() } else { projection };
            ("convolutional block", format!(", projection {projection}"))
        }
        (BlockKind::Padded, Some(shortcut)) => (
            "block with padded shortcut (option A)",
            format!(
                ", subsampled {}, {} zero channels in front",
                square(shortcut.stride),
                shortcut.channels_before
            ),
        ),
    };
    let (name, activation) = (&block.name, activation(last.activation));
    let count = match path.len() {
        1 => "one convolution".into(),
        2 => "two convolutions".into(),
        3 => "three convolutions".into(),
        count => format!("{count} convolutions"),
    };
    format!("{name}: {kind}, {count} ({}){shortcut}{activation}", path.join(", "))
}

/// `3x3`, `3x3/2` with its stride, `depthwise 3x3`.
fn kernel(operation: &Operation) -> String {
    let Some(window) = operation.window() else { return String::new() };
    let kernel = square(window.kernel);
    let depthwise = matches!(operation, Operation::Conv2d { depthwise: true, .. });
    let kernel = if depthwise { format!("depthwise {kernel}") } else { kernel };
    match window.stride {
        [1, 1] => kernel,
        [vertical, horizontal] if vertical == horizontal => format!("{kernel}/{vertical}"),
        stride => format!("{kernel}/{}", square(stride)),
    }
}

fn square([vertical, horizontal]: [usize; 2]) -> String {
    format!("{vertical}x{horizontal}")
}

fn activation(activation: Activation) -> String {
    match activation {
        Activation::NONE => String::new(),
        Activation::RELU => ", ReLU".into(),
        Activation::RELU6 => ", ReLU6".into(),
        Activation { low, high } => format!(", clamped to {low} .. {high}"),
    }
}
