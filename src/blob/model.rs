//! The blob, checked once: container, manifest, every stage's shapes and parameters.

use core::ops::Range;

use crate::base::error::ParseError;
use crate::base::section::{SECTION_ALIGN, section};
use crate::base::shape::Shape;
use crate::blob::format;
use crate::blob::reader::Stages;
use crate::kernels::Kernels;
use crate::net::plan::Plan;
use crate::ops::Softmax;

#[cfg(target_endian = "big")]
compile_error!("skipstone reads little-endian weights in place: big-endian targets are not supported");

/// First bytes of a blob.
pub const MAGIC: [u8; 4] = *b"SKIP";

/// Format version that this library reads.
pub const VERSION: u16 = 3;

/// Bytes before the manifest: magic, version, reserved, total length, CRC-32, manifest length.
pub const HEADER_BYTES: usize = 20;

/// The header's CRC-32 field, which the checksum leaves out.
const CRC_FIELD: Range<usize> = 12..16;

/// Alignment of the weights within the blob, in bytes.
pub const WEIGHTS_ALIGN: usize = 16;

/// CRC-32 (ISO-HDLC, as in zip and Ethernet) of a blob, its checksum field left out.
///
/// ```
/// // the check value of the CRC catalogue, for "123456789"; these bytes are shorter than a header
/// assert_eq!(skipstone::checksum(b"123456789"), 0xCBF4_3926);
/// ```
pub fn checksum(blob: &[u8]) -> u32 {
    let before = blob.get(..CRC_FIELD.start).unwrap_or(blob);
    let after = blob.get(CRC_FIELD.end..).unwrap_or_default();
    !before.iter().chain(after).fold(!0, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        crc_nibble(crc_nibble(crc))
    })
}

/// Whether a blob's checksum is what its header says.
#[inline(never)]
fn check_sum(blob: &[u8]) -> Result<(), ParseError> {
    let field = blob.get(CRC_FIELD).and_then(|field| field.first_chunk());
    let stored = field.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let computed = checksum(blob);
    if computed == stored { Ok(()) } else { Err(ParseError::Checksum { stored, computed }) }
}

/// Takes four bits into the CRC: a table of 16 costs 64 bytes of flash, one for whole bytes a kilobyte.
fn crc_nibble(crc: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320; // reflected
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let (mut value, mut bit) = (index as u32, 0);
            while bit < 4 {
                value = (value >> 1) ^ (POLYNOMIAL * (value & 1));
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    (crc >> 4) ^ TABLE.get((crc & 15) as usize).copied().unwrap_or(0)
}

/// A checked network in flash.
///
/// A model is a view of the blob: nothing is copied but a few numbers, weights are read in place.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    manifest: format::Manifest<'a>,
    /// The stages' records.
    stages: &'a [u8],
    weights: &'a [u8],
    blob: &'a [u8],
    kernels: u16,
    classes: u16,
    /// Layers of the whole network.
    layers: usize,
}

impl<'a> Model<'a> {
    /// Checks a blob. Bytes behind the length that its header states are ignored, so that a whole
    /// flash slot can be given.
    ///
    /// # Errors
    /// [`ParseError`] for anything but a blob of this format version whose checksum, shapes and
    /// parameters all agree. No bytes whatsoever make this panic. The plans' row tables are proved in
    /// [`Network::new`](crate::Network::new).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = |needed| ParseError::Truncated { needed, given: bytes.len() };
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(truncated(HEADER_BYTES))?;
        let word = |at: usize| match header.get(at..at + 4) {
            Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => 0, // every `at` below lies in the header
        };
        if !header.starts_with(&MAGIC) {
            return Err(ParseError::NotABlob);
        }
        let (found, kernels) = (word(4) as u16, (word(4) >> 16) as u16);
        if found != VERSION {
            return Err(ParseError::Version { found, supported: VERSION });
        }
        let (total, manifest_len) = (word(8) as usize, word(16) as usize);
        let blob = bytes.get(..total).ok_or(truncated(total))?;
        if bytes.as_ptr().align_offset(SECTION_ALIGN) != 0 {
            return Err(ParseError::Misaligned);
        }
        if blob.len() < HEADER_BYTES {
            return Err(ParseError::Header);
        }
        check_sum(blob)?;
        let manifest_end = HEADER_BYTES.checked_add(manifest_len).ok_or(ParseError::Header)?;
        let weights_start = manifest_end.checked_next_multiple_of(WEIGHTS_ALIGN).ok_or(ParseError::Header)?;
        let manifest_bytes = blob.get(HEADER_BYTES..manifest_end).ok_or(ParseError::Header)?;
        let weights = blob.get(weights_start..).ok_or(ParseError::Header)?;
        let padding = blob.get(manifest_end..weights_start).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Err(ParseError::Header);
        }

        let (manifest, stages) = postcard::take_from_bytes::<format::Manifest<'_>>(manifest_bytes)
            .map_err(|_| ParseError::Manifest)?;
        let mut model = Model { manifest, stages, weights, blob, kernels, classes: 0, layers: 0 };
        model.check()?;
        Ok(model)
    }

    /// Checks again that no byte of the blob has changed since it was written, weights included: for flash
    /// that wears or is radiated, as often as it is worth a pass over the blob (`cargo xtask bench` prints
    /// what that takes). A run of a changed blob gives wrong scores or [`RunError::Changed`], no worse.
    ///
    /// ```
    /// # use skipstone::Model;
    /// # static MODEL: &[u8] = skipstone::include_model!("../../models/digits.skip");
    /// let model = Model::parse(MODEL)?;
    /// // ... and before a decision that matters, or once a day:
    /// model.verify()?;
    /// # Ok::<(), skipstone::ParseError>(())
    /// ```
    ///
    /// # Errors
    /// [`ParseError::Checksum`] where a byte has changed.
    ///
    /// [`RunError::Changed`]: crate::RunError::Changed
    pub fn verify(&self) -> Result<(), ParseError> {
        // the bytes are read again, whatever the compiler knows of them
        check_sum(core::hint::black_box(self.blob))
    }

    /// Walks over the stages once: shapes follow each other, sections exist, scores come last.
    fn check(&mut self) -> Result<(), ParseError> {
        let softmax = match self.manifest.softmax {
            Softmax::None | Softmax::Float => true,
            Softmax::Fixed(fixed) => fixed.is_valid(),
        };
        if self.manifest.input.is_empty() || self.manifest.stages == 0 || !softmax {
            return Err(ParseError::Manifest);
        }
        let mut stages = self.stages();
        let (mut classes, mut layers, mut needed) = (None, 0usize, 0);
        for stage in 0..self.manifest.stages {
            let early = classes.is_some();
            let visited = stages.visit(0, 1, &mut |layer| {
                layers += 1;
                needed |= Kernels::of(layer);
                classes = layer.gives_scores().then_some(layer.output().channels);
            });
            visited.unwrap_or(Err(ParseError::Manifest))?;
            if early {
                return Err(ParseError::Output { stage });
            }
        }
        let stage = self.manifest.stages - 1;
        let classes = classes.ok_or(ParseError::Output { stage })?;
        if !stages.rest().is_empty() {
            return Err(ParseError::Manifest);
        }
        if self.kernels & !Kernels::ALL != 0 || needed & !self.kernels != 0 {
            return Err(ParseError::Kernels { found: self.kernels, needed });
        }
        (self.classes, self.layers) = (classes, layers);
        for frame in [false, true] {
            let plan = self.memory_plan(frame).ok_or(ParseError::Plan)?;
            let stages: usize = plan.segments.iter().map(|stages| usize::from(*stages)).sum();
            if stages != usize::from(self.manifest.stages)
                || plan.segments.contains(&0)
                || plan.strips.contains(&0)
            {
                return Err(ParseError::Plan);
            }
        }
        let bytes: usize = self.labels().map(|label| label.len() + 1).sum();
        let labels = self.labels().count();
        let fits = labels == 0 || labels == usize::from(self.classes);
        let whole = bytes == self.manifest.labels_len as usize;
        if fits && whole { Ok(()) } else { Err(ParseError::Labels) }
    }

    /// Name of the network.
    pub const fn name(&self) -> &'a str {
        self.manifest.name
    }

    /// Shape of an image: height x width x channels raw pixel bytes (HWC).
    pub const fn input(&self) -> Shape {
        self.manifest.input
    }

    /// Number of class scores.
    pub const fn classes(&self) -> usize {
        self.classes as usize
    }

    /// What normalizes the scores in the network itself.
    pub const fn softmax(&self) -> Softmax {
        self.manifest.softmax
    }

    /// Bytes of the arena with the input frame in it ([`Network::with_frame`](crate::Network::with_frame)).
    pub const fn arena_bytes(&self) -> usize {
        self.manifest.frame.arena_bytes as usize
    }

    /// Bytes of the arena when the input is fed row by row ([`Network::new`](crate::Network::new)).
    pub const fn arena_bytes_rows(&self) -> usize {
        self.manifest.rows.arena_bytes as usize
    }

    /// Kernels that the network needs, as [`Kernels`]' bits.
    pub const fn kernels(&self) -> u16 {
        self.kernels
    }

    /// Bytes of the blob.
    pub const fn blob_bytes(&self) -> usize {
        self.blob.len()
    }

    /// The class labels; none where the blob has none.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let labels = section(self.weights, self.manifest.labels, self.manifest.labels_len as usize);
        let mut labels: &[u8] = labels.unwrap_or_default();
        core::iter::from_fn(move || {
            let end = labels.iter().position(|byte| *byte == 0)?;
            let label = labels.get(..end).and_then(|label| core::str::from_utf8(label).ok());
            labels = labels.get(end + 1..).unwrap_or_default();
            label
        })
    }

    /// The label of a class.
    pub fn label(&self, class: usize) -> Option<&'a str> {
        self.labels().nth(class)
    }

    /// The stages, in order of execution.
    pub fn stages(&self) -> Stages<'a> {
        Stages::new(self.stages, self.manifest.stages, self.weights, self.manifest.input)
    }

    /// The plan for an input frame in the arena, or for an input fed by rows; `None` where the blob
    /// has changed since it was parsed.
    pub fn memory_plan(&self, frame: bool) -> Option<Plan<'a>> {
        let plan = if frame { self.manifest.frame } else { self.manifest.rows };
        Some(Plan {
            arena_bytes: usize::try_from(plan.arena_bytes).ok()?,
            rows: section(self.weights, plan.rows, usize::try_from(plan.row_count).ok()?)?,
            strips: section(self.weights, plan.strips, self.layers)?,
            segments: section(self.weights, plan.segments, usize::from(plan.segment_count))?,
        })
    }
}
