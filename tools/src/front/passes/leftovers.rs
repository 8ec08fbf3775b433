//! What the other passes have left: subsampling becomes a max pooling of one position, zero channels are refused.

use super::refuse;
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{FloatNetwork, Operation, Window};

/// Replaces or refuses all operations that the runtime does not have.
pub(super) fn replace(network: &mut FloatNetwork) -> Result<(), Refusal> {
    for layer in &mut network.layers {
        match layer.operation {
            Operation::Subsample { stride } => {
                layer.operation = Operation::MaxPool(Window { stride, ..Window::POINT });
            }
            Operation::Pad { .. } => {
                let reason = "adds zero channels outside of a block's shortcut";
                return Err(refuse(ErrorKind::Topology, layer, reason)
                    .help("zero channels are possible where the result is only added to a convolution's"));
            }
            Operation::Conv2d { .. }
            | Operation::Dense { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool => {}
            Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Softmax { .. } => {
                let reason = "was not fused with the layers around it; this is a defect of the tool";
                return Err(refuse(ErrorKind::Topology, layer, reason).help("report it with the model"));
            }
        }
    }
    Ok(())
}
