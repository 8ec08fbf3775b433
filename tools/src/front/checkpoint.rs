//! Checkpoints (PyTorch's and safetensors): named tensors without a graph, and which of them were asked for.

mod family;
mod pickle;
mod safetensors;
mod tensors;

use super::error::{ErrorKind, Refusal};
use super::{Draft, InputSize, description};

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

/// The network that a checkpoint without a description is of: its tensors' names tell.
pub(super) fn recognized(
    mut checkpoint: Checkpoint,
    length: usize,
    file: &str,
    input: Option<InputSize>,
) -> Result<Draft, Refusal> {
    let family = family::recognize(&mut checkpoint, file, input)?;
    let description = description::parse(family.description.as_bytes())?;
    let network = description.network(&checkpoint, length).map_err(|refusal| {
        let help = family::describe(&family.description);
        if refusal.kind == ErrorKind::Value { refusal } else { refusal.help(help) }
    })?;
    let notes = checkpoint.notes.into_iter().chain(family.notes).collect();
    Ok(description.draft(network, notes))
}
