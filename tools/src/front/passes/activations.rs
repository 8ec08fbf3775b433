//! Clamps into the activation of the layer before them, also across max pooling: both are monotone.

use super::{Edit, refuse};
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{Activation, FloatNetwork, Layer, Operation, Real};

/// Fuses all clamps.
pub(super) fn fuse(network: &mut FloatNetwork) -> Result<(), Refusal> {
    let mut edit = Edit::new(network);
    for index in 0..edit.len() {
        edit.resolve(index);
        let Some(mut bounds) = bounds(&edit[index]) else { continue };
        if let Some(before) = edit.private_producer(index)
            && let Some(first) = self::bounds(&edit[before])
        {
            bounds = merge(first, bounds);
            let [low, high] = bounds;
            edit[index].operation = Operation::Clamp { low, high };
            edit.absorb(index, before);
        }
        let goes_on = edit.only_reader(index + 1).is_some_and(|next| self::bounds(&edit[next]).is_some());
        if !goes_on {
            place(&mut edit, index, bounds)?;
        }
    }
    edit.finish();
    Ok(())
}

fn bounds(layer: &Layer<Real>) -> Option<[f64; 2]> {
    match layer.operation {
        Operation::Clamp { low, high } => Some([low, high]),
        _ => None,
    }
}

/// Puts the clamp of a layer where it belongs.
fn place(edit: &mut Edit<'_>, index: usize, bounds: [f64; 2]) -> Result<(), Refusal> {
    let activation = activation(&edit[index], bounds)?;
    let input = edit[index].inputs[0];
    if activation != Activation::NONE {
        let target = target(edit, index)?;
        let before = edit[target].activation;
        let [low, high] = merge([before.low, before.high], bounds);
        edit[target].activation = self::activation(&edit[index], [low, high])?;
        if target + 1 == input {
            edit[target].parameters.scale = edit[index].parameters.scale;
        }
    } else if let Some(layer) = edit.private_producer(index) {
        edit[layer].parameters.scale = edit[index].parameters.scale;
    }
    edit.replace(index + 1, input);
    Ok(())
}

/// The layer whose activation a clamp becomes.
fn target(edit: &Edit<'_>, index: usize) -> Result<usize, Refusal> {
    let mut at = index;
    loop {
        let layer = edit.producer(at);
        match layer.map(|layer| (&edit[layer].operation, layer)) {
            Some((Operation::Conv2d { .. }, layer)) if is_private(edit, at) => return Ok(layer),
            Some((Operation::Dense { .. }, layer)) if is_private(edit, at) => return Ok(layer),
            Some((Operation::MaxPool(_) | Operation::Subsample { .. }, layer)) if is_private(edit, at) => {
                at = layer;
            }
            Some((Operation::Conv2d { .. } | Operation::Dense { .. }, layer)) => {
                let place = &edit[layer].place;
                let reason = format!("an activation of {place}, whose result is also used without it");
                return Err(refuse(ErrorKind::Topology, &edit[index], reason)
                    .help("activations are fused into the layer before them: let all readers, and the outputs, take the result of the activation"));
            }
            _ => {
                let reason = "an activation that follows no convolution, dense layer or addition";
                return Err(refuse(ErrorKind::Topology, &edit[index], reason)
                    .help("activations are fused into the layer before them"));
            }
        }
    }
}

fn is_private(edit: &Edit<'_>, layer: usize) -> bool {
    edit.private_producer(layer).is_some()
}

fn activation(layer: &Layer<Real>, bounds: [f64; 2]) -> Result<Activation, Refusal> {
    let [low, high] = bounds;
    let activation = Activation { low, high };
    if [Activation::NONE, Activation::RELU, Activation::RELU6].contains(&activation) {
        return Ok(activation);
    }
    let reason = format!("clamps to {low} .. {high}");
    Err(refuse(ErrorKind::Operator, layer, reason)
        .help("activations are ReLU and ReLU6: train with one of them"))
}

/// The second clamp applied to what the first leaves.
fn merge(first: [f64; 2], second: [f64; 2]) -> [f64; 2] {
    first.map(|bound| bound.max(second[0]).min(second[1]))
}
