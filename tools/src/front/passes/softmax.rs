//! A softmax at the end becomes a property of the output.

use skipstone::host::Softmax;

use super::{Edit, refuse};
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{FloatNetwork, Operation};

/// Removes softmax from the layers. The names of outputs that are logarithms in the file go to `logarithms`.
pub(super) fn remove(network: &mut FloatNetwork, logarithms: &mut Vec<String>) -> Result<(), Refusal> {
    for layer in &network.layers {
        let softmax = |tensor: usize| {
            network.producer(tensor).is_some_and(|layer| matches!(layer.operation, Operation::Softmax { .. }))
        };
        if layer.reads().any(softmax) {
            let reason = "follows a softmax, which can only be the last layer";
            return Err(refuse(ErrorKind::Topology, layer, reason)
                .help("convert the network up to the softmax, and run what follows on its scores"));
        }
    }
    for output in &mut network.outputs {
        let Some(layer) = output.tensor.checked_sub(1).map(|layer| &network.layers[layer]) else { continue };
        if let Operation::Softmax { logarithm } = layer.operation {
            output.softmax = Softmax::Float;
            output.tensor = layer.inputs[0];
            if logarithm {
                logarithms.push(output.name.clone());
            }
        }
    }
    Edit::new(network).finish();
    Ok(())
}
