//! A blob taken apart, to be changed and put together again with its checksum repaired.

use serde::Serialize;
use skipstone::host::format::{HEADER_BYTES, Header, Layer, Manifest, Plan, WEIGHTS_ALIGN};
use skipstone::host::{SECTION_ALIGN, checksum};
use skipstone_tools::blob::Blob;

/// What a blob is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts<'b> {
    /// Its lengths and checksum are written anew.
    pub(crate) header: Header,
    pub(crate) manifest: Manifest<'b>,
    pub(crate) layers: Vec<Layer<'b>>,
    pub(crate) weights: Vec<u8>,
}

impl<'b> Parts<'b> {
    pub(crate) fn of(blob: &'b [u8]) -> Self {
        let header = Header::read(blob).unwrap();
        let manifest_end = HEADER_BYTES + header.manifest_bytes as usize;
        let (manifest, mut rest): (Manifest<'_>, _) =
            postcard::take_from_bytes(&blob[HEADER_BYTES..manifest_end]).unwrap();
        let mut layers = Vec::new();
        while !rest.is_empty() {
            let (layer, after) = postcard::take_from_bytes(rest).unwrap();
            layers.push(layer);
            rest = after;
        }
        let weights = blob[manifest_end.next_multiple_of(WEIGHTS_ALIGN)..].to_vec();
        Parts { header, manifest, layers, weights }
    }

    /// The manifest's bytes, followed by the layers' records.
    pub(crate) fn records(&self) -> Vec<u8> {
        self.layers.iter().fold(encode(&self.manifest), |bytes, layer| [bytes, encode(layer)].concat())
    }

    pub(crate) fn blob(&self) -> Blob {
        assemble(&self.header, &self.records(), &self.weights)
    }

    /// The plan for a frame in the arena, or for an input fed by rows.
    pub(crate) fn plan(&mut self, frame: bool) -> &mut Plan {
        if frame { &mut self.manifest.frame } else { &mut self.manifest.rows }
    }

    /// The size of its arena.
    pub(crate) fn arena_bytes(&mut self, frame: bool) -> &mut u32 {
        if frame { &mut self.header.arena_bytes } else { &mut self.header.arena_bytes_rows }
    }

    /// Appends a section to the weights: others may share the one that it replaces.
    pub(crate) fn section<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> u32 {
        self.weights.resize(self.weights.len().next_multiple_of(SECTION_ALIGN), 0);
        let offset = self.weights.len() as u32;
        self.weights.extend(bytemuck::cast_slice::<T, u8>(values));
        offset
    }
}

/// A blob of a manifest and weights; the header's lengths become theirs.
pub(crate) fn assemble(header: &Header, manifest: &[u8], weights: &[u8]) -> Blob {
    let weights_start = (HEADER_BYTES + manifest.len()).next_multiple_of(WEIGHTS_ALIGN);
    let (total, manifest_bytes) = ((weights_start + weights.len()) as u32, manifest.len() as u32);
    let mut bytes = Header { total, manifest_bytes, ..*header }.write().to_vec();
    bytes.extend(manifest);
    bytes.resize(weights_start, 0);
    bytes.extend(weights);
    repaired(bytes)
}

/// The same bytes with the checksum that they should have.
pub(crate) fn repaired(mut bytes: Vec<u8>) -> Blob {
    let crc = checksum(&bytes).to_le_bytes();
    if let Some(field) = bytes.get_mut(Header::CRC_OFFSET..Header::CRC_OFFSET + 4) {
        field.copy_from_slice(&crc);
    }
    Blob::from(&bytes[..])
}

fn encode(record: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(record).unwrap()
}
