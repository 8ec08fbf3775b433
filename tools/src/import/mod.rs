//! Importers: trained float models in the formats that frameworks write, as a [`FloatNetwork`].
//!
//! ```text
//! .onnx, .tflite, .h5, .keras ------------> graph --lower--.
//!                                                          +--> layers --recognize--> network
//! .toml -------------------------.                         |
//!                                +--> description ---------'
//! .safetensors, .pt, .pth, .th --'
//! ```
//!
//! ONNX weights may lie in a file beside the model. Checkpoints have tensors by name and no graph: a
//! description, explained in [`description`], names their layers; for ResNets it is made from the
//! tensors' names.
//!
//! A reader per format fills the operator graph, or takes tensors by name; everything after that
//! is shared. Formats are told apart by content, never by name. Untrusted bytes never panic, and
//! memory stays within a small multiple of the file's size.
//!
//! # Pixels
//! A network sees (pixel / 255 - mean) / std. Mean and standard deviation come from the options, else
//! from the description; neither: mean 0, std 1, so that the model is fed 0..1. A model that
//! normalises its own input (arithmetic or batch norm before its first layer) is taken to want
//! pixels of 0..255, unless its numbers only make sense for 0..1: no mean above 1 and no scale below
//! 1, as in (x - 0.485) / 0.229. Either way its own normalisation is folded into mean and std. A note
//! says which was taken. A model whose int8 input has a scale and zero point is fed pixel - 128.

mod affine;
mod arrangement;
mod checkpoint;
pub mod description;
mod error;
mod family;
mod fold;
mod graph;
mod keras;
mod layers;
mod lower;
mod onnx;
mod order;
mod pickle;
mod preprocessing;
mod recognize;
mod safetensors;
#[cfg(test)]
mod tests;
mod tflite;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use checkpoint::Checkpoint;
use description::Description;
use graph::Graph;
use layers::{INPUT, LayerId, Layers, Operation};
use recognize::Recognized;

use crate::network::{FloatNetwork, Quantized, TensorScale};

pub use error::{ErrorKind, ImportError, Refusal};

/// What the importing person knows beside the file; everything may be left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// Name of the network, instead of the model's or the file's.
    pub name: Option<String>,
    /// Mean of pixel / 255: one value, or one per channel.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of pixel / 255: one value, or one per channel.
    pub std: Option<Vec<f32>>,
    /// Labels, one for each output.
    pub labels: Option<Vec<String>>,
    /// Size of the input, where the file does not say it: a checkpoint without a description.
    pub input: Option<InputSize>,
}

/// Size of the images that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
    /// Values of a pixel; the weights tell them too.
    pub channels: Option<u16>,
}

impl FromStr for InputSize {
    type Err = String;

    /// Reads `HEIGHTxWIDTH` or `HEIGHTxWIDTHxCHANNELS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Option<Vec<u16>> =
            text.split('x').map(|size| size.parse().ok().filter(|&size| size > 0)).collect();
        match sizes.as_deref() {
            Some(&[height, width]) => Ok(InputSize { height, width, channels: None }),
            Some(&[height, width, channels]) => Ok(InputSize { height, width, channels: Some(channels) }),
            _ => Err(format!("'{text}' is no size; give it as 32x32 or 32x32x3")),
        }
    }
}

/// An imported network.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The network.
    pub network: FloatNetwork,
    /// What was recognised, and what was assumed: lines for a person.
    pub notes: Vec<String>,
}

/// Larger files are refused: no network for a microcontroller is near.
const MAX_BYTES: u64 = 1 << 29;

/// What a reader delivers.
struct Draft {
    layers: Layers,
    output: LayerId,
    name: Option<String>,
    labels: Vec<String>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    /// The input's elements are integers: pixels of 0..255.
    integer_input: bool,
    /// What the integers of the input stand for, where they are the pixels.
    input_scale: Option<TensorScale>,
    notes: Vec<String>,
}

/// Reads a model: an ONNX, TensorFlow Lite or Keras file, a checkpoint (safetensors, or PyTorch's) of a
/// ResNet, or a TOML description that names its checkpoint.
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
    let in_file = |refusal| ImportError { file: path.to_path_buf(), refusal };
    let draft = if keras::is_keras(&bytes) {
        keras::read(bytes).and_then(from_graph).map_err(in_file)
    } else if let Some(checkpoint) = read_checkpoint(&bytes) {
        checkpoint
            .and_then(|checkpoint| from_checkpoint(checkpoint, bytes.len(), path, options.input))
            .map_err(in_file)
    } else if description::is_text(&bytes) {
        from_description(path, &bytes)
    } else if let Some(refusal) = other_format(&bytes) {
        Err(in_file(refusal))
    } else if tflite::is_tflite(&bytes) {
        tflite::read(&bytes).and_then(|graph| from_graph((graph, bytes.len()))).map_err(in_file)
    } else if onnx::is_onnx(&bytes) {
        let folder = path.parent().unwrap_or(Path::new(""));
        from_onnx(bytes, folder).map_err(in_file)
    } else {
        Err(in_file(unknown_format()))
    }?;
    draft.finish(path, options).map_err(in_file)
}

fn from_onnx(bytes: Vec<u8>, folder: &Path) -> Result<Draft, Refusal> {
    let draft = onnx::read(bytes, folder).and_then(from_graph)?;
    // A float input is normalised pixels; that the model rounds them says nothing of how.
    let input_scale = draft.input_scale.filter(|_| draft.integer_input);
    Ok(Draft { input_scale, ..draft })
}

/// `length` is that of the file, or files, with the weights.
fn from_graph((graph, length): (Graph, usize)) -> Result<Draft, Refusal> {
    let lowered = lower::lower(graph, length)?;
    Ok(Draft {
        input_scale: lowered.layers.get(INPUT).scale,
        layers: lowered.layers,
        output: lowered.output,
        name: None,
        labels: Vec::new(),
        mean: None,
        std: None,
        integer_input: lowered.integer_input,
        notes: vec![lowered.note],
    })
}

fn from_description(path: &Path, bytes: &[u8]) -> Result<Draft, ImportError> {
    let in_description = |refusal| ImportError { file: path.to_path_buf(), refusal };
    let description = description::parse(bytes).map_err(in_description)?;
    let file = path.parent().unwrap_or(Path::new("")).join(description.weights());
    let in_weights = |refusal| ImportError { file: file.clone(), refusal };
    let weights = read_file(&file).map_err(in_weights)?;
    let Some(checkpoint) = read_checkpoint(&weights) else {
        let reason = "is no checkpoint (safetensors, or PyTorch's), as the description's weights are";
        return Err(in_weights(Refusal::new(ErrorKind::Format, "", reason)));
    };
    let mut checkpoint = checkpoint.map_err(in_weights)?;
    let notes = std::mem::take(&mut checkpoint.notes);
    let (layers, output) =
        description.layers(&checkpoint, weights.len()).map_err(|refusal| match refusal.kind {
            ErrorKind::MissingTensor | ErrorKind::UnusedTensor | ErrorKind::Value => in_weights(refusal),
            _ => in_description(refusal),
        })?;
    let input = format!("input: {}", layers.shape(INPUT));
    Ok(description.draft(layers, output, [notes, vec![input]].concat()))
}

/// The tensors of a checkpoint; `None` for bytes that are none.
fn read_checkpoint(bytes: &[u8]) -> Option<Result<Checkpoint, Refusal>> {
    if safetensors::is_safetensors(bytes) {
        Some(safetensors::read(bytes))
    } else if pickle::is_zip(bytes) {
        Some(pickle::read_zip(bytes))
    } else if pickle::is_pickle(bytes) {
        Some(pickle::read_legacy(bytes))
    } else {
        None
    }
}

/// A checkpoint without a description: its tensors' names say what it is.
fn from_checkpoint(
    mut checkpoint: Checkpoint,
    length: usize,
    path: &Path,
    input: Option<InputSize>,
) -> Result<Draft, Refusal> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let family = family::recognize(&mut checkpoint, &file, input)?;
    let description = description::parse(family.description.as_bytes())?;
    let (layers, output) = description.layers(&checkpoint, length).map_err(|refusal| {
        let help = family::describe(&family.description);
        if refusal.kind == ErrorKind::Value { refusal } else { refusal.help(help) }
    })?;
    let notes = checkpoint.notes.into_iter().chain(family.notes).collect();
    Ok(description.draft(layers, output, notes))
}

impl Description {
    fn draft(&self, layers: Layers, output: LayerId, notes: Vec<String>) -> Draft {
        let (mean, std) = self.preprocessing();
        Draft {
            layers,
            output,
            name: self.name().map(str::to_string),
            labels: self.labels().to_vec(),
            mean,
            std,
            integer_input: false,
            input_scale: None,
            notes,
        }
    }
}

/// A regular file's bytes.
fn read_file(path: &Path) -> Result<Vec<u8>, Refusal> {
    let refuse = |reason: String| Refusal::new(ErrorKind::File, "", reason);
    let failed = |error: std::io::Error| refuse(format!("cannot be read: {error}"));
    // Before it is opened: opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(refuse("is not a file".into()).help("give a model file"));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!(
            "is larger than {} MB, as no network for a microcontroller is",
            MAX_BYTES >> 20
        )));
    }
    Ok(bytes)
}

/// Formats that are recognised but not read.
fn other_format(bytes: &[u8]) -> Option<Refusal> {
    let reason = "is a skipstone blob, which is not read";
    let refusal = Refusal::new(ErrorKind::Format, "", reason)
        .help("it is converted already: `inspect`, `eval` and `run` take it");
    bytes.starts_with(&skipstone::MAGIC).then_some(refusal)
}

fn unknown_format() -> Refusal {
    Refusal::new(ErrorKind::Format, "", "is of no format that is known here").help(
        "models are ONNX, TensorFlow Lite or Keras files, checkpoints (safetensors, or PyTorch's), or TOML \
         descriptions of checkpoints",
    )
}

impl Draft {
    fn finish(self, path: &Path, options: &ImportOptions) -> Result<Imported, Refusal> {
        let recognized = recognize::recognize(&self.layers, self.output)?;
        let mut notes = self.notes;
        let shape = self.layers.shape(INPUT);
        let (mean, std) = (options.mean.clone().or(self.mean), options.std.clone().or(self.std));
        let (preprocessing, note) = preprocessing::preprocessing(
            [mean, std],
            recognized.normalisation.as_ref(),
            self.input_scale,
            self.integer_input,
            shape.channels.into(),
        )?;
        notes.push(note);
        notes.extend(recognized.notes);
        let labels = options.labels.clone().unwrap_or(self.labels);
        let outputs = self.layers.shape(self.output).len();
        if !labels.is_empty() && labels.len() != outputs {
            let reason = format!("has {outputs} outputs, but {} labels are given", labels.len());
            return Err(Refusal::new(ErrorKind::Labels, "", reason));
        }
        let stem = || path.file_stem().map_or("network".into(), |stem| stem.to_string_lossy().into_owned());
        let name = options.name.clone().or(self.name).unwrap_or_else(stem);
        let Recognized { stages, quantized, .. } = recognized;
        notes.extend(kept(&quantized, &self.layers));
        let network = FloatNetwork { name, input: shape, preprocessing, stages, labels, quantized };
        Ok(Imported { network, notes })
    }
}

/// How much of a quantized file stays as it is.
fn kept(quantized: &Quantized, layers: &Layers) -> Option<String> {
    let weighty =
        |id: &usize| matches!(layers.get(*id).operation, Operation::Convolution(_) | Operation::Dense { .. });
    let (kept, all) = (quantized.layers.len(), (0..layers.len()).filter(weighty).count());
    let weights =
        if kept == all { "weights".into() } else { format!("the weights of {kept} of {all} layers") };
    (kept > 0).then(|| format!("quantized in the file: its scales and {weights} stay"))
}

#[cfg(test)]
mod formats {
    use super::*;

    #[test]
    fn formats_of_other_tools_are_named() {
        let named = |bytes: &[u8]| other_format(bytes).map(|refusal| refusal.reason).unwrap_or_default();
        assert!(named(b"").is_empty());
    }
}
