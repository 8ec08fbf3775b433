//! The two containers: where a model's configuration and each layer's weights lie.

use std::io::{Cursor, Read};

use half::f16;
use hdf5_reader::error::ByteOrder;
use hdf5_reader::{Datatype, Hdf5File, OpenOptions};
use serde_json::Value;
use zip::ZipArchive;

use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, MAX_RANK, elements};

const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
const ZIP: &[u8] = b"PK\x03\x04";

/// The members of a `.keras` file that are read.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.weights.h5";

/// How many times the file's size its weights and single parts of it may unfold to.
const EXPANSION: usize = 8;

/// How many times the weights in a zip file may; Keras does not compress them.
const MEMBER_EXPANSION: usize = 4;

/// Bytes for which a file's size does not count: small HDF5 files are mostly zeros.
const SMALL: usize = 1 << 20;

/// More weights than any layer has.
const MAX_WEIGHTS: usize = 64;

/// A file that was opened.
pub(super) struct Archive {
    file: Hdf5File,
    /// The configuration of a `.keras` file; in a `.h5` file it is an attribute.
    config: Option<String>,
    /// Elements that weights may still have.
    budget: usize,
}

/// A layer's place in its model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'k> {
    /// The layer's own name: what its weights are filed under in a `.h5` file.
    pub(super) name: &'k str,
    /// Its kind and number, as `conv2d_3`: what they are filed under in a `.keras` file.
    pub(super) number: &'k str,
}

/// A weight that can be read.
pub(super) struct Weight {
    /// Its name for messages; in a `.keras` file its layer's and a number.
    pub(super) name: String,
    path: String,
}

/// Whether the bytes begin as a `.h5` or `.keras` file does.
pub(crate) fn is_keras(bytes: &[u8]) -> bool {
    let has_members = || {
        let archive = ZipArchive::new(Cursor::new(bytes)).ok();
        archive.is_some_and(|archive| archive.index_for_name(CONFIG).is_some())
    };
    bytes.starts_with(HDF5) || bytes.starts_with(ZIP) && has_members()
}

/// Opens a file that [`is_keras`].
pub(super) fn open(bytes: Vec<u8>) -> Result<Archive, Refusal> {
    let length = bytes.len().saturating_add(SMALL);
    let (hdf5, config) = if bytes.starts_with(HDF5) {
        (bytes, None)
    } else {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        let config = String::from_utf8(member(&mut archive, CONFIG, length)?).map_err(damaged)?;
        let most = length.saturating_mul(MEMBER_EXPANSION);
        (member(&mut archive, WEIGHTS, most)?, Some(config))
    };
    let bound = length.saturating_mul(EXPANSION);
    let options = OpenOptions::default()
        .with_chunk_cache_bytes(0)
        .with_max_read_bytes(bound)
        .with_max_chunk_bytes(bound)
        .with_max_object_header_bytes(hdf5.len());
    let file = Hdf5File::from_vec_with_options(hdf5, options).map_err(damaged)?;
    Ok(Archive { file, config, budget: bound / size_of::<f32>() })
}

/// A member of the zip file, which is `most` bytes long at most.
fn member(archive: &mut ZipArchive<Cursor<Vec<u8>>>, name: &str, most: usize) -> Result<Vec<u8>, Refusal> {
    let member = archive.by_name(name).map_err(|error| damaged(format!("'{name}': {error}")))?;
    let mut content = Vec::new();
    member.take(most as u64 + 1).read_to_end(&mut content).map_err(damaged)?;
    if content.len() > most {
        return Err(damaged(format!("'{name}' unfolds to many times the file's size")));
    }
    Ok(content)
}

fn damaged(reason: impl ToString) -> Refusal {
    Refusal::new(ErrorKind::Damaged, "", format!("is a damaged Keras file: {}", reason.to_string()))
        .help("the file may be cut short: compare its size with the original's")
}

impl Archive {
    /// The model's configuration.
    pub(super) fn config(&self) -> Result<Value, Refusal> {
        let text = match &self.config {
            Some(text) => text.clone(),
            None => {
                let root = self.file.root_group().map_err(damaged)?;
                let attributes = root.attributes().map_err(damaged)?;
                let config = attributes.iter().find(|attribute| attribute.name == "model_config");
                let config = config.ok_or_else(|| {
                    let reason = "is an HDF5 file without a Keras model's configuration";
                    Refusal::new(ErrorKind::Format, "", reason).help(
                        "weights alone carry no graph: save the whole model, model.save('model.keras') \
                         rather than save_weights",
                    )
                })?;
                config.read_string().map_err(damaged)?
            }
        };
        serde_json::from_str(&text).map_err(|error| damaged(format!("its configuration: {error}")))
    }

    /// The weights of a layer in their order; none if it has none.
    pub(super) fn weights(&self, layer: Key<'_>) -> Result<Vec<Weight>, Refusal> {
        let weight = |prefix: &str, own: &str, path: String| Weight {
            // TensorFlow's variables end in `:0`.
            name: format!("{own}{}", path.trim_end_matches(":0")),
            path: format!("{prefix}/{path}"),
        };
        match self.config {
            None => {
                let group = format!("model_weights/{}", layer.name);
                Ok(self.named(&group)?.into_iter().map(|path| weight(&group, "", path)).collect())
            }
            Some(_) => {
                let group = format!("layers/{}/vars", layer.number);
                let own = format!("{}/", layer.name);
                Ok(self.numbered(&group)?.into_iter().map(|path| weight(&group, &own, path)).collect())
            }
        }
    }

    /// The weights that a group of a `.h5` file lists.
    fn named(&self, group: &str) -> Result<Vec<String>, Refusal> {
        // A layer without weights may have no group.
        let Ok(group) = self.file.group(group) else { return Ok(Vec::new()) };
        let attributes = group.attributes().map_err(damaged)?;
        let Some(names) = attributes.iter().find(|attribute| attribute.name == "weight_names") else {
            return Ok(Vec::new());
        };
        if names.num_elements().map_err(damaged)? == 0 {
            return Ok(Vec::new());
        }
        bounded(names.read_strings().map_err(damaged)?)
    }

    /// The weights that a group of a `.keras` file has: 0, 1, 2 and so on.
    fn numbered(&self, group: &str) -> Result<Vec<String>, Refusal> {
        let Ok(group) = self.file.group(group) else { return Ok(Vec::new()) };
        let (_, mut names) = group.member_names().map_err(damaged)?;
        names.sort_by_key(|name| name.parse::<usize>().unwrap_or(usize::MAX));
        bounded(names)
    }

    /// A weight's elements.
    pub(super) fn read(&mut self, weight: &Weight) -> Result<Constant, Refusal> {
        let place = || format!("tensor '{}'", weight.name);
        let dataset = self.file.dataset(&weight.path).map_err(damaged)?;
        let sizes: Option<Vec<usize>> =
            dataset.shape().iter().map(|&size| usize::try_from(size).ok()).collect();
        let sizes = sizes.filter(|sizes| sizes.len() <= MAX_RANK);
        let count = sizes.as_ref().and_then(|sizes| elements(sizes));
        let (Some(sizes), Some(count)) = (sizes, count) else {
            let reason = format!("has sizes {:?}, which are not possible", dataset.shape());
            return Err(Refusal::new(ErrorKind::Damaged, place(), reason));
        };
        self.budget = self.budget.checked_sub(count).ok_or_else(|| {
            Refusal::new(ErrorKind::Damaged, place(), "has many times as many elements as the file")
        })?;
        let &Datatype::FloatingPoint { size, byte_order } = dataset.dtype() else {
            let reason = "has elements that are not floating-point numbers";
            return Err(Refusal::new(ErrorKind::Operator, place(), reason)
                .help("give the float model: it is quantized here, with calibration images"));
        };
        let bytes = dataset.read_raw_bytes().map_err(damaged)?;
        let values = floats(&bytes, size, byte_order).ok_or_else(|| {
            let reason = format!("has floating-point numbers of {size} bytes");
            Refusal::new(ErrorKind::Operator, place(), reason).help("save the model's weights as float32")
        })?;
        Constant::new(sizes, Data::Float(values))
            .ok_or_else(|| Refusal::new(ErrorKind::Damaged, place(), "does not fill its shape"))
    }
}

fn bounded(names: Vec<String>) -> Result<Vec<String>, Refusal> {
    if names.len() > MAX_WEIGHTS {
        return Err(damaged(format!("a layer has {} weights", names.len())));
    }
    Ok(names)
}

/// `None` for sizes that floating-point numbers do not have.
fn floats(bytes: &[u8], size: u8, order: ByteOrder) -> Option<Vec<f32>> {
    fn read<const N: usize>(bytes: &[u8], order: ByteOrder, convert: fn([u8; N]) -> f32) -> Vec<f32> {
        let number = |mut number: [u8; N]| {
            if let ByteOrder::BigEndian = order {
                number.reverse();
            }
            convert(number)
        };
        bytes.as_chunks().0.iter().map(|&chunk| number(chunk)).collect()
    }
    match size {
        2 => Some(read(bytes, order, |number| f16::from_le_bytes(number).to_f32())),
        4 => Some(read(bytes, order, f32::from_le_bytes)),
        8 => Some(read(bytes, order, |number| f64::from_le_bytes(number) as f32)),
        _ => None,
    }
}
