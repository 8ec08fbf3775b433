//! PyTorch's checkpoints, read without Python: the pickle that names the tensors, and the storages that hold their elements.
//!
//! ```text
//! .pt, .pth  zip archive: data.pkl, and a file for each storage      --.
//!                                                                      +--machine--> values --> tensors by name
//! .th        four pickles, a list of storages' keys, the storages    --'
//! ```
//!
//! A pickle is a program for a stack machine. Nothing of it is executed: [`machine`] knows the few
//! instructions that `torch.save` writes, and [`globals`] the few functions and classes that build
//! tensors, dictionaries and plain data. Whatever else is called is refused by its name. What no
//! weight needs (an optimizer's settings, numbers of NumPy) is skipped.
//!
//! Memory: values refer to each other by index, and text by its place in the file, so that no memo
//! can multiply them; an instruction makes at most 128 bytes, and [`machine::MAX_INSTRUCTIONS`] are
//! read. Storages are never larger together than the file, and the tensors' elements stay within
//! [`allowance`].

mod calls;
mod containers;
mod globals;
mod machine;
mod state_dict;
mod storage;
#[cfg(test)]
mod tests;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::tensors::{Checkpoint, Entry};
use crate::front::builder::allowance;
use crate::front::error::{ErrorKind, Refusal};
use state_dict::StateDict;
use values::Pickle;

use containers::{read_legacy, read_zip};

/// Whether the bytes begin like a zip archive or a binary pickle.
pub(crate) fn is_pytorch(bytes: &[u8]) -> bool {
    is_zip(bytes) || matches!(bytes, [0x80, 2..=5, ..])
}

fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

/// The file's tensors.
pub(crate) fn read(bytes: &[u8]) -> Result<Checkpoint, Refusal> {
    if is_zip(bytes) { read_zip(bytes) } else { read_legacy(bytes) }
}

/// The help for a file that holds more than weights.
const SAVE_WEIGHTS: &str = "save the weights alone, in Python: torch.save(model.state_dict(), 'weights.pth')";

/// The elements of storages, by key.
type Storages<'a> = BTreeMap<&'a str, Cow<'a, [u8]>>;

/// The state dict's tensors, from storages that are all there.
fn checkpoint(
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
