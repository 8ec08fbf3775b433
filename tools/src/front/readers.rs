//! What detects and reads each of the [formats](FORMATS).

use std::path::{Path, PathBuf};

use super::checkpoint::family;
use super::error::{ErrorKind, ImportError, Refusal};
use super::formats::{self, FORMATS};
use super::graph::Graph;
use super::options::{Draft, ImportOptions, InputSize};
use super::{checkpoint, description, keras, lower, onnx, tflite};

/// A file that is read.
pub(super) struct Source<'a> {
    pub(super) bytes: Vec<u8>,
    /// Files with weights are looked for beside it.
    pub(super) path: &'a Path,
    pub(super) options: &'a ImportOptions,
}

/// How a format is detected and read.
struct Reader {
    /// Whether the bytes are of this format, whole or damaged.
    detects: fn(&[u8]) -> bool,
    read: fn(Source<'_>) -> Result<Draft, ImportError>,
}

/// In the order of [`FORMATS`].
const READERS: [Reader; FORMATS.len()] = [
    Reader {
        detects: onnx::is_onnx,
        read: |source| {
            let folder = source.folder();
            let graph = |bytes| onnx::read(bytes, &folder);
            let draft = source.graph(graph)?;
            // A float input is normalized pixels; that the model rounds them does not say how.
            let input_scale = draft.input_scale.filter(|_| draft.integer_input);
            Ok(Draft { input_scale, ..draft })
        },
    },
    Reader {
        detects: tflite::is_tflite,
        read: |source| source.graph(|bytes| Ok((tflite::read(&bytes)?, bytes.len()))),
    },
    Reader { detects: keras::is_keras, read: |source| source.graph(keras::read) },
    Reader { detects: checkpoint::is_pytorch, read: |source| source.checkpoint(checkpoint::read_pytorch) },
    Reader {
        detects: checkpoint::is_safetensors,
        read: |source| source.checkpoint(checkpoint::read_safetensors),
    },
    Reader { detects: description::is_text, read: |source| description::read(&source.bytes, source.path) },
];

/// The formats by how sure their detection is: a `.keras` file is also a zip archive, as PyTorch's
/// checkpoints are, and almost any bytes may be ONNX.
const ORDER: [&str; FORMATS.len()] = ["keras", "safetensors", "torch", "description", "tflite", "onnx"];

/// Reads a file of any format.
pub(super) fn read(source: Source<'_>) -> Result<Draft, ImportError> {
    if source.bytes.starts_with(&skipstone::host::format::MAGIC) {
        let reason = "is a skipstone blob, not a model";
        return Err(source.refuse(
            Refusal::new(ErrorKind::Format, "", reason)
                .help("it is converted already: pass it to `inspect`, `eval` or `run`"),
        ));
    }
    let known = |target: &&str| FORMATS.iter().position(|format| format.target == *target);
    let detects = |&index: &usize| (READERS[index].detects)(&source.bytes);
    match ORDER.iter().filter_map(known).find(detects) {
        Some(index) => (READERS[index].read)(source),
        None => Err(source.refuse(
            Refusal::new(ErrorKind::Format, "", "unknown model format")
                .help(format!("known formats are {}", formats::known())),
        )),
    }
}

impl Source<'_> {
    fn folder(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).to_path_buf()
    }

    fn refuse(&self, refusal: Refusal) -> ImportError {
        ImportError { file: self.path.to_path_buf(), refusal }
    }

    /// Lowers a graph; `read` also returns the size of the files with the weights.
    fn graph(
        self,
        read: impl FnOnce(Vec<u8>) -> Result<(Graph, usize), Refusal>,
    ) -> Result<Draft, ImportError> {
        let Source { bytes, path, options } = self;
        let lowered = read(bytes).and_then(|(graph, length)| lower::lower(graph, length, &options.outputs));
        let lowered = lowered.map_err(|refusal| ImportError { file: path.to_path_buf(), refusal })?;
        Ok(Draft {
            input_scale: lowered.network.input_scale,
            network: lowered.network,
            name: None,
            labels: Vec::new(),
            mean: None,
            std: None,
            integer_input: lowered.integer_input,
            unknown_outputs: Some(lowered.unknown),
            notes: vec![lowered.note],
        })
    }

    /// Recognizes the network that a checkpoint is of.
    fn checkpoint(
        self,
        read: impl FnOnce(&[u8]) -> Result<checkpoint::Checkpoint, Refusal>,
    ) -> Result<Draft, ImportError> {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        let draft = read(&self.bytes)
            .and_then(|checkpoint| recognized(checkpoint, self.bytes.len(), &file, self.options.input));
        draft.map_err(|refusal| self.refuse(refusal))
    }
}

/// The network that a checkpoint without a description is of: its tensors' names tell.
fn recognized(
    mut checkpoint: checkpoint::Checkpoint,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> Refusal {
        let options = ImportOptions::default();
        read(Source { bytes: bytes.to_vec(), path: Path::new("model"), options: &options })
            .err()
            .unwrap()
            .refusal
    }

    #[test]
    fn unknown_formats_are_refused_with_the_known_ones() {
        let refusal = refusal(b"");
        assert_eq!(refusal.reason, "unknown model format");
        for format in &FORMATS {
            assert!(refusal.help.contains(format.name) && refusal.help.contains(format.extensions[0]));
        }
    }

    #[test]
    fn blobs_are_named() {
        assert_eq!(refusal(b"SKIP\x04\0").reason, "is a skipstone blob, not a model");
    }

    #[test]
    fn every_format_is_looked_for() {
        let mut targets = FORMATS.each_ref().map(|format| format.target);
        let mut order = ORDER;
        targets.sort_unstable();
        order.sort_unstable();
        assert_eq!(targets, order);
    }

    #[test]
    fn formats_are_told_apart_by_content() {
        let detected = |bytes: &[u8]| {
            ORDER.iter().find(|&&target| {
                let index = FORMATS.iter().position(|format| format.target == target).unwrap();
                (READERS[index].detects)(bytes)
            })
        };
        assert_eq!(detected(b"\x08\x07"), Some(&"onnx"));
        assert_eq!(detected(b"\0\0\0\0TFL3"), Some(&"tflite"));
        assert_eq!(detected(b"\x89HDF\r\n\x1a\n"), Some(&"keras"));
        assert_eq!(detected(b"PK\x03\x04"), Some(&"torch"));
        assert_eq!(detected(b"\x80\x02"), Some(&"torch"));
        assert_eq!(detected(b"\x02\0\0\0\0\0\0\0{}"), Some(&"safetensors"));
        assert_eq!(detected(b"weights = 'w'"), Some(&"description"));
    }
}
