//! Affines (batch norm, arithmetic with constants) into the convolution or dense layer before them, or into the preprocessing.

use super::{Edit, Remarks, refuse};
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{Affine, FloatNetwork, INPUT, Operation, TensorId, Weights};

/// Folds all affines. Those at the input are returned, taken together.
///
/// Weights are rounded to f32 here, after everything was folded into them.
pub(super) fn fold(network: &mut FloatNetwork, remarks: &mut Remarks) -> Result<Option<Affine>, Refusal> {
    let mut edit = Edit::new(network);
    let normalization = at_the_input(&mut edit);
    for index in 0..edit.len() {
        match edit[index].operation {
            Operation::Conv2d { .. } | Operation::Dense { .. } => fold_into(&mut edit, index, remarks)?,
            Operation::Affine { norm } if !edit.is_replaced(index) => {
                let reason = format!("{norm} that follows no convolution or dense layer cannot be folded");
                return Err(refuse(ErrorKind::Topology, &edit[index], reason).help(
                    "put batch norm directly after each convolution, as in the original ResNet; \
                     pre-activation networks (batch norm and ReLU before the convolution) are not supported",
                ));
            }
            Operation::Affine { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => {}
        }
    }
    edit.finish();
    Ok(normalization)
}

/// The affines that follow a tensor, each read by the next one alone.
fn chain(edit: &Edit<'_>, tensor: TensorId) -> Vec<usize> {
    let next = |tensor: TensorId| edit.only_reader(tensor).filter(|&layer| affine(edit, layer).is_some());
    std::iter::successors(next(tensor), |layer| next(layer + 1)).collect()
}

fn affine<'e>(edit: &'e Edit<'_>, layer: usize) -> Option<&'e Affine> {
    match &edit[layer].parameters.weights {
        Weights::Affine(affine) => Some(affine),
        Weights::None | Weights::Real { .. } | Weights::Integers(_) => None,
    }
}

/// Several affines, one after the other.
fn product(edit: &Edit<'_>, layers: &[usize], channels: usize) -> Affine {
    let affines = layers.iter().filter_map(|&layer| affine(edit, layer));
    affines.fold(Affine::identity(channels), |product, affine| product.then(affine))
}

fn at_the_input(edit: &mut Edit<'_>) -> Option<Affine> {
    let layers = chain(edit, INPUT);
    let (&first, rest) = layers.split_first()?;
    let first = affine(edit, first)?;
    let affine = first.then(&product(edit, rest, first.scale.len()));
    let last = layers[layers.len() - 1];
    let scale = edit[last].parameters.scale;
    edit.set_input_scale(scale);
    layers.iter().for_each(|layer| edit.replace(layer + 1, INPUT));
    Some(affine)
}

fn fold_into(edit: &mut Edit<'_>, index: usize, remarks: &mut Remarks) -> Result<(), Refusal> {
    let layers = chain(edit, index + 1);
    // A file's integers stay, unless a batch norm makes other weights of them.
    if layers.is_empty() && matches!(edit[index].parameters.weights, Weights::Integers(_)) {
        return Ok(());
    }
    let layer = &edit[index];
    let (weights, bias) = layer.parameters.weights.real(&layer.operation);
    let affine = product(edit, &layers, bias.len());
    let channel_of = |weight| layer.operation.channel_of(weight, weights.len());
    let (weights, bias) = affine.fold(&weights, &bias, channel_of).map_err(|channel| {
        let reason =
            format!("with its batch norm folded in, channel {channel} has an infinite weight or bias");
        refuse(ErrorKind::Value, layer, reason)
            .help("a variance near 0 or a giant scale: check the batch norm's parameters")
    })?;
    let bias = bias.into_iter().map(f64::from).collect();
    for &layer in &layers {
        if let Operation::Affine { norm } = edit[layer].operation {
            remarks.add(&edit[index], &format!(", {norm}"));
        }
    }
    if let Some(&last) = layers.last() {
        edit[index].parameters.scale = edit[last].parameters.scale;
    }
    edit[index].parameters.weights = Weights::Real { weights, bias };
    layers.iter().for_each(|layer| edit.replace(layer + 1, index + 1));
    Ok(())
}
