//! Additions into the convolution that completes the sum, whose shortcut the other operand becomes.
//!
//! ```text
//!       .--> conv --> conv --.                      .--> conv --> conv + shortcut --> ReLU
//! fork -|                    + --> ReLU   becomes   fork ----------------^
//!       '--> subsample, pad -'
//! ```

use super::{Edit, refuse};
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{Activation, FloatNetwork, Operation, Shortcut, TensorId, stride_product};

/// Fuses all additions.
pub(super) fn fuse(network: &mut FloatNetwork) -> Result<(), Refusal> {
    let mut edit = Edit::new(network);
    // Convolutions on the way from the input to each tensor.
    let mut depths = vec![0; edit.len() + 1];
    for index in 0..edit.len() {
        if edit[index].operation == Operation::Add {
            fuse_one(&mut edit, index, &depths)?;
        }
        let layer = &edit[index];
        depths[index + 1] = depths[layer.inputs[0]] + usize::from(layer.is_convolution());
    }
    edit.finish();
    Ok(())
}

fn fuse_one(edit: &mut Edit<'_>, add: usize, depths: &[usize]) -> Result<(), Refusal> {
    let operands = [edit[add].inputs[0], edit[add].inputs[1]];
    let [left, right] = operands.map(|tensor| completes_sums(edit, tensor));
    let [other, conv] = match (left, right) {
        // The path is the operand with more convolutions since the fork: both have the same number before.
        (Some(left), Some(right)) => {
            let rank = |layer: usize| (depths[layer + 1], layer);
            if rank(left) > rank(right) { [operands[1], left] } else { [operands[0], right] }
        }
        (Some(left), None) => [operands[1], left],
        (None, Some(right)) => [operands[0], right],
        (None, None) => return Err(refusal(edit, add, operands)),
    };
    let shortcut = shortcut(edit, other);
    let parameters = &mut edit[add].parameters;
    let scale = parameters.scale.take();
    // The convolution moves to the addition's place, where all that it reads is made.
    edit.swap(add, conv);
    let fused = &mut edit[add];
    fused.shortcut = Some(shortcut);
    fused.parameters.sum_scale = fused.parameters.scale;
    fused.parameters.scale = scale;
    Ok(())
}

/// The layer that makes an operand, if it is a convolution that can add the other one to its sums.
fn completes_sums(edit: &Edit<'_>, operand: TensorId) -> Option<usize> {
    let layer = edit.only_reader(operand).and(operand.checked_sub(1))?;
    let plain = edit[layer].shortcut.is_none() && edit[layer].activation == Activation::NONE;
    (edit[layer].is_convolution() && plain).then_some(layer)
}

/// The tensor that an operand is made from by subsampling and zero channels alone.
fn shortcut(edit: &Edit<'_>, operand: TensorId) -> Shortcut {
    let mut shortcut = Shortcut { tensor: operand, stride: [1; 2], channels_before: 0 };
    while let Some(layer) = shortcut.tensor.checked_sub(1) {
        match edit[layer].operation {
            Operation::Subsample { stride } => shortcut.stride = stride_product(shortcut.stride, stride),
            Operation::Pad { channels: [before, _], .. } => shortcut.channels_before += before,
            Operation::Conv2d { .. }
            | Operation::Dense { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Softmax { .. } => break,
        }
        shortcut.tensor = edit[layer].inputs[0];
    }
    shortcut
}

fn refusal(edit: &Edit<'_>, add: usize, operands: [TensorId; 2]) -> Refusal {
    // A convolution whose activation only this addition reads.
    let activated = operands.iter().filter_map(|&operand| {
        let clamp = edit.only_reader(operand).and(operand.checked_sub(1))?;
        let conv = edit.private_producer(clamp)?;
        let is_clamp = matches!(edit[clamp].operation, Operation::Clamp { .. });
        (is_clamp && edit[conv].is_convolution()).then_some(clamp)
    });
    if let Some(clamp) = activated.max() {
        let reason = "an activation between the path's last convolution and the addition";
        return refuse(ErrorKind::Topology, &edit[clamp], reason)
            .help("move the activation after the addition, as in ResNet");
    }
    let name = |tensor: TensorId| match tensor.checked_sub(1) {
        Some(layer) => edit[layer].place.clone(),
        None => "the input".into(),
    };
    let [left, right] = operands.map(name);
    let reason = format!(
        "adds {left} and {right}; neither is a convolution without activation whose result nothing else reads"
    );
    refuse(ErrorKind::Topology, &edit[add], reason).help(
        "an addition is done by the convolution before it: let one of the two operands be a convolution \
         (with batch norm) that is only used here, and add two tensors at a time",
    )
}
