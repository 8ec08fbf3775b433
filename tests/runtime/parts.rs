//! A blob taken apart, to be changed and put together again with its checksum repaired.

use serde::Serialize;
use skipstone::schema::{Manifest, Plan, Stage};
use skipstone::{HEADER_BYTES, Kernels, MAGIC, SECTION_ALIGN, VERSION, WEIGHTS_ALIGN, checksum};
use skipstone_tools::blob::Blob;

/// What a blob is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts<'b> {
    pub(crate) manifest: Manifest<'b>,
    pub(crate) stages: Vec<Stage<'b>>,
    pub(crate) weights: Vec<u8>,
}

impl<'b> Parts<'b> {
    pub(crate) fn of(blob: &'b [u8]) -> Self {
        let manifest_end = HEADER_BYTES + u32::from_le_bytes(*blob[16..].first_chunk().unwrap()) as usize;
        let (manifest, mut rest): (Manifest<'_>, _) =
            postcard::take_from_bytes(&blob[HEADER_BYTES..manifest_end]).unwrap();
        let mut stages = Vec::new();
        while !rest.is_empty() {
            let (stage, behind) = postcard::take_from_bytes(rest).unwrap();
            stages.push(stage);
            rest = behind;
        }
        let weights = blob[manifest_end.next_multiple_of(WEIGHTS_ALIGN)..].to_vec();
        Parts { manifest, stages, weights }
    }

    /// The manifest's bytes, the stages' records behind it.
    pub(crate) fn records(&self) -> Vec<u8> {
        self.stages.iter().fold(encode(&self.manifest), |bytes, stage| [bytes, encode(stage)].concat())
    }

    pub(crate) fn blob(&self) -> Blob {
        assemble(&self.records(), &self.weights)
    }

    /// The plan for a frame in the arena, or for an input fed by rows.
    pub(crate) fn plan(&mut self, frame: bool) -> &mut Plan {
        if frame { &mut self.manifest.frame } else { &mut self.manifest.rows }
    }

    /// Appends a section to the weights: others may share the one that it replaces.
    pub(crate) fn section<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> u32 {
        self.weights.resize(self.weights.len().next_multiple_of(SECTION_ALIGN), 0);
        let offset = self.weights.len() as u32;
        self.weights.extend(bytemuck::cast_slice::<T, u8>(values));
        offset
    }
}

/// A blob of a manifest and weights.
pub(crate) fn assemble(manifest: &[u8], weights: &[u8]) -> Blob {
    let weights_start = (HEADER_BYTES + manifest.len()).next_multiple_of(WEIGHTS_ALIGN);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(Kernels::ALL.to_le_bytes());
    bytes.extend(((weights_start + weights.len()) as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((manifest.len() as u32).to_le_bytes());
    bytes.extend(manifest);
    bytes.resize(weights_start, 0);
    bytes.extend(weights);
    repaired(bytes)
}

/// The same bytes with the checksum that they should have.
pub(crate) fn repaired(mut bytes: Vec<u8>) -> Blob {
    let crc = checksum(&bytes).to_le_bytes();
    if let Some(field) = bytes.get_mut(12..16) {
        field.copy_from_slice(&crc);
    }
    Blob::from(&bytes[..])
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(record).unwrap()
}
