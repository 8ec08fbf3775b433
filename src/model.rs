//! The blob, checked once: container, manifest, every stage's shapes and parameters.

use core::ops::Range;

use crate::block::{Block, Shortcut};
use crate::error::{LayerError, ParseError};
use crate::kernels::Kernels;
use crate::layer::{Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Reduction, Windowed, check_scale};
use crate::plan::Plan;
use crate::quantization::{Requantize, Rounding};
use crate::schema;
use crate::scores::Softmax;
use crate::shape::Shape;
use crate::stage::Stage;

#[cfg(target_endian = "big")]
compile_error!("skipstone reads little-endian weights in place: big-endian targets are not supported");

/// First bytes of a blob.
pub const MAGIC: [u8; 4] = *b"SKIP";

/// Format version that this library reads.
pub const VERSION: u16 = 2;

/// Bytes before the manifest: magic, version, reserved, total length, CRC-32, manifest length.
pub const HEADER_BYTES: usize = 20;

/// The header's CRC-32 field, which the checksum leaves out.
const CRC_FIELD: Range<usize> = 12..16;

/// Alignment of the weights within the blob, in bytes.
pub const WEIGHTS_ALIGN: usize = 16;

/// Alignment of the blob in memory and of each section in the weights, in bytes.
pub const SECTION_ALIGN: usize = 4;

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
    manifest: schema::Manifest<'a>,
    /// The stages' records.
    stages: &'a [u8],
    weights: &'a [u8],
    blob_bytes: usize,
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
        let (total, stored, manifest_len) = (word(8) as usize, word(12), word(16) as usize);
        let blob = bytes.get(..total).ok_or(truncated(total))?;
        if bytes.as_ptr().align_offset(SECTION_ALIGN) != 0 {
            return Err(ParseError::Misaligned);
        }
        let computed = checksum(blob);
        if computed != stored {
            return Err(ParseError::Checksum { stored, computed });
        }
        let manifest_end = HEADER_BYTES.checked_add(manifest_len).ok_or(ParseError::Header)?;
        let weights_start = manifest_end.checked_next_multiple_of(WEIGHTS_ALIGN).ok_or(ParseError::Header)?;
        let manifest_bytes = blob.get(HEADER_BYTES..manifest_end).ok_or(ParseError::Header)?;
        let weights = blob.get(weights_start..).ok_or(ParseError::Header)?;
        let padding = blob.get(manifest_end..weights_start).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            return Err(ParseError::Header);
        }

        let (manifest, stages) = postcard::take_from_bytes::<schema::Manifest<'_>>(manifest_bytes)
            .map_err(|_| ParseError::Manifest)?;
        let mut model =
            Model { manifest, stages, weights, blob_bytes: total, kernels, classes: 0, layers: 0 };
        model.check()?;
        Ok(model)
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
        let (mut scores, mut misplaced) = (false, None);
        let (mut index, mut classes, mut layers, mut needed) = (0, 0, 0usize, 0);
        while let Some(outcome) = stages.visit(&mut |_, stage| {
            if scores {
                misplaced = misplaced.or(Some(index));
            }
            index += 1;
            scores = stage.gives_scores();
            classes = stage.output().channels;
            stage.each_layer(0, 1, &mut |layer| {
                layers += 1;
                needed |= Kernels::of(&layer);
            });
        }) {
            outcome?;
        }
        if let Some(stage) = misplaced.or(if scores { None } else { Some(index - 1) }) {
            return Err(ParseError::Output { stage });
        }
        if !stages.rest.is_empty() {
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
        self.blob_bytes
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

/// A stage as it stands in the blob and as it runs.
#[derive(Debug, Clone)]
pub struct StageEntry<'a> {
    /// Its record: name, scales, offsets.
    pub record: schema::Stage<'a>,
    /// Its layers.
    pub stage: Stage<'a>,
}

/// Iterates over a blob's stages, decoding one at a time.
#[derive(Debug, Clone)]
pub struct Stages<'a> {
    rest: &'a [u8],
    weights: &'a [u8],
    index: u16,
    count: u16,
    shape: Shape,
}

impl<'a> Iterator for Stages<'a> {
    type Item = Result<StageEntry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entry = Err(ParseError::Manifest);
        let outcome = self.visit(&mut |record, stage| {
            entry = Ok(StageEntry { record: record.clone(), stage: stage.clone() });
        })?;
        Some(outcome.and(entry))
    }
}

impl<'a> Stages<'a> {
    /// The `count` stages whose records lie in `records`, one behind the other, over an input of shape
    /// `input`: for a planner, which must know the layers before there is a blob. `weights` must be
    /// aligned to [`SECTION_ALIGN`].
    pub const fn new(records: &'a [u8], count: u16, weights: &'a [u8], input: Shape) -> Self {
        Stages { rest: records, weights, index: 0, count, shape: input }
    }

    /// Calls `take` with the next stage, its record and what it resolves to; `None` after the last.
    ///
    /// A stage takes some hundred bytes: it is shown where it lies, so that the board's stack holds it
    /// once.
    pub(crate) fn visit(
        &mut self,
        take: &mut dyn FnMut(&schema::Stage<'a>, &Stage<'a>),
    ) -> Option<Result<(), ParseError>> {
        if self.index >= self.count {
            return None;
        }
        let outcome = self.decode(take);
        self.index += 1;
        if outcome.is_err() {
            self.count = self.index; // what follows cannot be found
        }
        Some(outcome)
    }

    fn decode(&mut self, take: &mut dyn FnMut(&schema::Stage<'a>, &Stage<'a>)) -> Result<(), ParseError> {
        let (record, rest) = postcard::take_from_bytes::<schema::Stage<'_>>(self.rest)
            .map_err(|_| ParseError::Stage { stage: self.index })?;
        let stage = Resolver { weights: self.weights }
            .stage(&record.operation, self.shape)
            .map_err(|error| error.at(self.index))?;
        self.shape = stage.output();
        self.rest = rest;
        take(&record, &stage);
        Ok(())
    }
}

/// `count` elements at `offset` of the weights; `None` where they lie outside or are not aligned.
fn section<T: bytemuck::AnyBitPattern>(weights: &[u8], offset: u32, count: usize) -> Option<&[T]> {
    let start = usize::try_from(offset).ok().filter(|start| start.is_multiple_of(SECTION_ALIGN))?;
    let end = start.checked_add(count.checked_mul(size_of::<T>())?)?;
    bytemuck::try_cast_slice(weights.get(start..end)?).ok()
}

/// Turns a stage's records into layers over slices of the weights.
struct Resolver<'a> {
    weights: &'a [u8],
}

/// Why a record does not resolve; the stage is known further out.
enum Unresolved {
    Section { offset: u32, length: usize },
    Layer(LayerError),
}

impl From<LayerError> for Unresolved {
    fn from(error: LayerError) -> Self {
        Unresolved::Layer(error)
    }
}

impl Unresolved {
    fn at(self, stage: u16) -> ParseError {
        match self {
            Unresolved::Section { offset, length } => ParseError::Section { stage, offset, length },
            Unresolved::Layer(error) => ParseError::Layer { stage, error },
        }
    }
}

impl<'a> Resolver<'a> {
    fn stage(&self, operation: &schema::Operation, input: Shape) -> Result<Stage<'a>, Unresolved> {
        Ok(match operation {
            schema::Operation::Conv2d(record) => {
                Stage::Windowed(Windowed::Conv2d(self.conv2d(record, input)?))
            }
            schema::Operation::Pool2d(record) => {
                let layer = Pool2d::new(input, record.window, record.kind);
                Stage::Windowed(Windowed::Pool2d(layer?))
            }
            schema::Operation::Dense(record) => {
                let outputs = usize::from(record.outputs);
                let layer = Dense::new(
                    input,
                    self.section(record.weights, outputs.saturating_mul(input.len()))?,
                    self.section(record.bias, outputs)?,
                    self.finish(&record.finish)?,
                );
                Stage::Reduction(Reduction::Dense(layer?))
            }
            schema::Operation::GlobalAveragePool(record) => {
                let layer = GlobalAveragePool::new(input, record.zero_point, self.finish(&record.finish)?);
                Stage::Reduction(Reduction::GlobalAveragePool(layer?))
            }
            schema::Operation::Block(record) => Stage::Block(self.block(record, input)?),
        })
    }

    fn block(&self, record: &schema::Block, input: Shape) -> Result<Block<'a>, Unresolved> {
        let mut path = heapless::Vec::<Conv2d<'a>, { crate::block::MAX_PATH }>::new();
        let mut shape = input;
        for record in &record.path {
            let layer = self.conv2d(record, shape)?;
            shape = layer.output();
            path.push(layer).map_err(|_| LayerError::Block)?;
        }
        let shortcut = match &record.shortcut {
            schema::Shortcut::Identity => Shortcut::Identity,
            schema::Shortcut::Projection(record) => Shortcut::Projection(self.conv2d(record, input)?),
            schema::Shortcut::Padded(subsample) => Shortcut::Padded(*subsample),
        };
        check_scale(record.scale)?;
        Ok(Block::new(&path, record.addition, shortcut)?)
    }

    fn conv2d(&self, record: &schema::Conv2d, input: Shape) -> Result<Conv2d<'a>, Unresolved> {
        check_scale(record.scale)?;
        let channels = usize::from(record.channels);
        let requantize = self.requantize(&record.requantize, channels);
        let new = if record.depthwise { Conv2d::depthwise_with } else { Conv2d::with_algorithm };
        let bytes =
            Conv2d::weight_bytes(&record.window, input, record.channels, record.depthwise, record.algorithm);
        let layer = new(
            input,
            record.window,
            record.algorithm,
            self.section(record.weights, bytes)?,
            self.section(record.bias, channels)?,
            self.section(record.padding_pixel, usize::from(input.channels))?,
            requantize?,
        )?;
        Ok(layer)
    }

    fn requantize(&self, record: &schema::Requantize, count: usize) -> Result<Requantize<'a>, Unresolved> {
        let rounding = match record.rounding {
            schema::Rounding::Once { shift } => Rounding::Once { shift },
            schema::Rounding::Twice { shifts } => Rounding::Twice { shifts: self.section(shifts, count)? },
        };
        let multipliers = self.section(record.multipliers, count)?;
        Ok(Requantize::with_rounding(multipliers, rounding, record.clamp)?)
    }

    fn finish(&self, record: &schema::Finish) -> Result<Finish<'a>, Unresolved> {
        Ok(match *record {
            schema::Finish::Requantize { count, requantize, scale } => {
                check_scale(scale)?;
                Finish::Requantize(self.requantize(&requantize, usize::from(count))?)
            }
            schema::Finish::Mean { clamp, scale } => {
                check_scale(scale)?;
                Finish::Mean(clamp)
            }
            schema::Finish::RoundedScores { count, requantize, scale } => {
                Finish::RoundedScores { requantize: self.requantize(&requantize, usize::from(count))?, scale }
            }
            schema::Finish::Scores { scales, count } => {
                Finish::Scores(self.section(scales, usize::from(count))?)
            }
        })
    }

    fn section<T: bytemuck::AnyBitPattern>(&self, offset: u32, count: usize) -> Result<&'a [T], Unresolved> {
        let length = count.saturating_mul(size_of::<T>());
        section(self.weights, offset, count).ok_or(Unresolved::Section { offset, length })
    }
}
