//! Front ends: trained models in the formats that frameworks write, as a [`FloatNetwork`].
//!
//! ```text
//! .onnx, .tflite, .h5, .keras ------------> graph --lower--.
//!                                                          +--> every operation --passes--> fused
//! .toml -------------------------.                         |        a FloatNetwork, both
//!                                +--> description ---------'
//! .safetensors, .pt, .pth, .th --'
//! ```
//!
//! ONNX weights may be in a file beside the model. Checkpoints have tensors by name and no graph: a
//! description, explained in [`description`], names their layers; for ResNets it is made from the
//! tensors' names.
//!
//! A reader per format fills the operator graph, or takes tensors by name; everything after that
//! is shared. Formats are told apart by content, never by name. Untrusted bytes never panic, and
//! memory stays within a small multiple of the file's size.
//!
//! # Adding a format
//! A file or folder here, and a line each in `formats.rs` (names, help) and `readers.rs` (detection, reader).
//!
//! # Pixels
//! A network sees (pixel / 255 - mean) / std. Mean and standard deviation come from the options, else
//! from the description; neither: mean 0, std 1, so that the model is fed 0..1. A model that
//! normalizes its own input (arithmetic or batch norm before its first layer) is taken to want
//! pixels of 0..255, unless its numbers only make sense for 0..1: no mean above 1 and no scale below
//! 1, as in (x - 0.485) / 0.229. Either way its own normalization is folded into mean and std. A note
//! says which was taken. A model whose int8 input has a scale and zero point is fed pixel - 128.

mod arrangement;
mod builder;
mod checkpoint;
pub mod description;
mod error;
mod file;
mod fold;
pub mod formats;
mod graph;
mod keras;
mod lower;
mod notes;
mod onnx;
mod options;
mod order;
mod outputs;
mod passes;
mod preprocessing;
mod readers;
#[cfg(test)]
mod tests;
mod tflite;

use std::path::Path;

use file::read_file;
use options::Draft;
use readers::Source;

use crate::ir::FloatNetwork;

pub use error::{ErrorKind, ImportError, Refusal};
pub use formats::{FORMATS, Format};
pub use options::{ImportOptions, Imported, InputSize};

/// Reads a model in any of the [`FORMATS`].
///
/// Weights are looked for beside the file, where it names them.
///
/// # Errors
/// [`ImportError`] names the file, the node or tensor, the reason and what would help.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let in_file = |refusal| ImportError { file: path.to_path_buf(), refusal };
    import_bytes(read_file(path).map_err(in_file)?, path, options)
}

/// As [`import`], for a model that was read already; `path` is where it came from, and beside which
/// files with its weights are looked for.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: Vec<u8>, path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    let draft = readers::read(Source { bytes, path, options })?;
    draft.finish(path, options).map_err(|refusal| ImportError { file: path.to_path_buf(), refusal })
}

impl Draft {
    fn finish(self, path: &Path, options: &ImportOptions) -> Result<Imported, Refusal> {
        let Draft { mut network, mut notes, .. } = self;
        let findings = passes::run(&mut network)?;
        let unknown = self.unknown_outputs.as_ref().unwrap_or(&options.outputs);
        outputs::select(&mut network, options, unknown)?;
        let (mean, std) = (options.mean.clone().or(self.mean), options.std.clone().or(self.std));
        let (preprocessing, note) = preprocessing::preprocessing(
            [mean, std],
            findings.normalization.as_ref(),
            self.input_scale,
            self.integer_input,
            network.input.channels.into(),
        )?;
        network.preprocessing = preprocessing;
        notes.push(note);
        notes.extend(notes::notes(&network, &findings));
        network.labels = options.labels.clone().unwrap_or(self.labels);
        match check_labels(&network) {
            // The file's labels are for its own outputs.
            Err(_) if options.labels.is_none() && !options.outputs.is_empty() => network.labels.clear(),
            checked => checked?,
        }
        let stem = || path.file_stem().map_or("network".into(), |stem| stem.to_string_lossy().into_owned());
        network.name = options.name.clone().or(self.name).unwrap_or_else(stem);
        notes.extend(notes::kept(&network));
        Ok(Imported { network, notes })
    }
}

/// There is a label for each value of an output, or none at all.
fn check_labels(network: &FloatNetwork) -> Result<(), Refusal> {
    let labels = network.labels.len();
    let mut lengths = network.outputs.iter().map(|output| network.shape(output.tensor).len());
    if labels == 0 || lengths.clone().any(|length| length == labels) {
        return Ok(());
    }
    let expected = lengths.next().unwrap_or(0);
    let reason = format!("expected {expected} labels, one for each output, found {labels}");
    Err(Refusal::new(ErrorKind::Labels, "", reason).help("give one label for each class, or none"))
}
