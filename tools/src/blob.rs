//! The blob on the host: its aligned bytes, and how they are put together; see `docs/format.md`.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use skipstone::{
    HEADER_BYTES, Kernels, MAGIC, SECTION_ALIGN, Shape, Softmax, VERSION, WEIGHTS_ALIGN, checksum, schema,
};

use crate::planner::Plan;

/// Bytes aligned to 16, as a blob must lie in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob {
    words: Vec<u128>,
    len: usize,
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        let mut words = vec![0u128; bytes.len().div_ceil(size_of::<u128>())];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Blob { words, len: bytes.len() }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl Blob {
    /// Reads a file.
    ///
    /// # Errors
    /// Where the file cannot be read; its content is not looked at.
    pub fn read(path: &Path) -> anyhow::Result<Blob> {
        let bytes =
            std::fs::read(path).with_context(|| format!("{}: cannot read the blob", path.display()))?;
        Ok(Blob::from(&bytes[..]))
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// Where the folder of `path` does not exist or cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_atomically(path, self)
    }
}

/// Writes a file whole or not at all: a temporary file beside it, then a rename.
///
/// # Errors
/// Where the folder of `path` does not exist or cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{}: is a folder; name a file to write", path.display());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = || format!("{}: cannot write there; does the folder exist?", path.display());
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

/// The weights of a blob as they grow: aligned sections, equal ones stored once.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Weights {
    /// Appends a section and gives its offset. Values are stored little-endian.
    pub fn section<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> u32 {
        // the runtime, and so this tool, exists on little-endian machines only
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if let Some(offset) = self.known.get(bytes) {
            return *offset;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTION_ALIGN), 0);
        let offset = self.bytes.len() as u32;
        self.bytes.extend(bytes);
        self.known.insert(bytes.to_vec(), offset);
        offset
    }
}

/// A network of quantized stages, before it has a plan.
#[derive(Debug, Clone)]
pub struct Unplanned {
    /// Name of the network.
    pub name: String,
    /// Shape of an image.
    pub input: Shape,
    /// What normalizes the scores.
    pub softmax: Softmax,
    /// Class labels; empty or one for each class.
    pub labels: Vec<String>,
    /// Names of the stages.
    pub names: Vec<String>,
    /// What the stages do, over `weights`.
    pub operations: Vec<schema::Operation>,
    /// Weights, biases, multipliers.
    pub weights: Weights,
}

impl Unplanned {
    /// The stages' records, as postcard encodes them, and the weights, aligned.
    pub fn encode(&self) -> anyhow::Result<(Vec<u8>, Blob)> {
        let mut records = Vec::new();
        for (name, operation) in self.names.iter().zip(&self.operations) {
            let stage = schema::Stage { name, operation: operation.clone() };
            records.extend(encode(&stage)?);
        }
        Ok((records, Blob::from(&self.weights.bytes[..])))
    }

    /// The blob with its plans for an input fed by rows and for a frame in the arena.
    ///
    /// # Errors
    /// Where the network is too large for the format.
    pub fn assemble(mut self, rows: &Plan, frame: &Plan) -> anyhow::Result<Blob> {
        let mut plan = |plan: &Plan| {
            Ok::<_, anyhow::Error>(schema::Plan {
                arena_bytes: u32::try_from(plan.arena_bytes)?,
                rows: self.weights.section(&plan.rows),
                row_count: u32::try_from(plan.rows.len())?,
                strips: self.weights.section(&plan.strips),
                segments: self.weights.section(&plan.segments),
                segment_count: u16::try_from(plan.segments.len())?,
            })
        };
        let (rows, frame) = (plan(rows)?, plan(frame)?);
        let mut labels = String::new();
        for label in &self.labels {
            if label.contains('\0') {
                bail!("the class label {label:?} contains a zero byte");
            }
            labels.push_str(label);
            labels.push('\0');
        }
        let manifest = schema::Manifest {
            name: &self.name,
            input: self.input,
            stages: u16::try_from(self.names.len()).context("a network has at most 65535 stages")?,
            softmax: self.softmax,
            labels: self.weights.section(labels.as_bytes()),
            labels_len: labels.len() as u32,
            rows,
            frame,
        };
        let mut manifest = encode(&manifest)?;
        let (records, weights) = self.encode()?;
        let mut kernels = 0;
        for entry in skipstone::Stages::new(&records, self.names.len() as u16, &weights, self.input) {
            // what is wrong with a stage, parsing will say
            let Ok(entry) = entry else { break };
            kernels |= entry.stage.layers(0, 1).fold(0, |kernels, layer| kernels | Kernels::of(&layer));
        }
        manifest.extend(records);

        let weights_start = (HEADER_BYTES + manifest.len()).next_multiple_of(WEIGHTS_ALIGN);
        let total =
            u32::try_from(weights_start + self.weights.bytes.len()).context("a blob has at most 4 GiB")?;
        let mut bytes = Vec::with_capacity(total as usize);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(kernels.to_le_bytes());
        bytes.extend(total.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((manifest.len() as u32).to_le_bytes());
        bytes.extend(&manifest);
        bytes.resize(weights_start, 0);
        bytes.extend(&self.weights.bytes);
        let crc = checksum(&bytes).to_le_bytes();
        bytes[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&crc);
        Ok(Blob::from(&bytes[..]))
    }
}

fn encode(record: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    postcard::to_allocvec(record).context("a record of the manifest does not encode")
}
