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
//! the builder's [`allowance`](crate::front::builder::allowance).

mod calls;
mod containers;
mod elements;
mod globals;
mod machine;
mod span;
mod state_dict;
mod storage;
#[cfg(test)]
mod tests;
mod values;

use super::tensors::Checkpoint;
use crate::front::error::Refusal;
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
