//! Checkpoints (PyTorch's and safetensors): named tensors without a graph, and which of them were asked for.

pub(super) mod family;
mod pickle;
mod safetensors;
mod tensors;

use super::error::Refusal;

pub(crate) use tensors::Checkpoint;
#[cfg(test)]
pub(crate) use tensors::Entry;

pub(super) use pickle::is_pytorch;
pub(super) use pickle::read as read_pytorch;
pub(super) use safetensors::is_safetensors;
pub(super) use safetensors::read as read_safetensors;

/// The tensors of a checkpoint of either format; `None` if the bytes are neither.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Checkpoint, Refusal>> {
    if is_safetensors(bytes) {
        Some(read_safetensors(bytes))
    } else {
        is_pytorch(bytes).then(|| read_pytorch(bytes))
    }
}
