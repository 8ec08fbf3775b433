//! Subsampling into the stride of the 1x1 convolution behind it; several subsamplings into one.

use super::Edit;
use crate::ir::{FloatNetwork, Operation, stride_product};

/// Folds subsampling where it can; what is left is a padded shortcut's, or becomes a max pooling.
pub(super) fn fold(network: &mut FloatNetwork) {
    let mut edit = Edit::new(network);
    for index in 0..edit.len() {
        let Some(before) = edit.private_producer(index) else { continue };
        let Operation::Subsample { stride: first } = edit[before].operation else { continue };
        let name = edit[before].name.clone();
        let layer = &mut edit[index];
        match &mut layer.operation {
            Operation::Conv2d { window, depthwise: false, .. } if window.is_point() => {
                window.stride = stride_product(first, window.stride);
            }
            Operation::Subsample { stride } => {
                *stride = stride_product(first, *stride);
                layer.name = name;
            }
            Operation::Conv2d { .. }
            | Operation::Dense { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => continue,
        }
        edit.absorb(index, before);
    }
    edit.finish();
}
