//! A checkpoint's tensors from the state dict and the storages.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::state_dict::StateDict;
use super::values::Pickle;
use crate::front::builder::allowance;
use crate::front::checkpoint::tensors::{Checkpoint, Entry};
use crate::front::error::{ErrorKind, Refusal};

/// The elements of storages, by key.
pub(super) type Storages<'a> = BTreeMap<&'a str, Cow<'a, [u8]>>;

/// The state dict's tensors, from storages that are all there.
pub(super) fn checkpoint(
    pickle: &Pickle<'_>,
    found: &StateDict,
    storages: &Storages<'_>,
    file_bytes: usize,
) -> Result<Checkpoint, Refusal> {
    let mut left = allowance(file_bytes);
    let mut checkpoint = Checkpoint::default();
    for (name, tensor) in found.tensors(pickle) {
        let refuse = |reason: String| {
            Refusal::new(ErrorKind::Damaged, format!("tensor '{name}'"), reason)
                .help("the file is damaged, or torch.save did not write it")
        };
        let dtype = tensor.storage.dtype;
        let entry = if !dtype.is_float() {
            Entry::Other(dtype.name().into())
        } else {
            let elements = tensor.check().map_err(refuse)?;
            left = left.checked_sub(elements.saturating_mul(4)).ok_or_else(|| {
                refuse("its elements, shared by many tensors, unfold to many times the file's size".into())
            })?;
            let storage = storages.get(pickle.text(tensor.storage.key));
            let storage = storage.ok_or_else(|| refuse("has no storage".into()))?;
            Entry::Float(tensor.constant(storage).map_err(refuse)?)
        };
        checkpoint.insert(name, entry);
    }
    checkpoint.notes.push(found.note.clone());
    Ok(checkpoint.without_wrappers())
}
