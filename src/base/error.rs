//! What can go wrong, one small enum per operation; each carries the numbers that a person needs.

use core::fmt;

/// A layer or block whose parameters do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LayerError {
    /// A shape has a zero dimension, or the window does not fit into the padded input.
    Geometry,
    /// A parameter slice (weights, bias, multipliers, padding pixel) has the wrong length.
    Length {
        /// Elements that the shapes ask for.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// A multiplier, shift, zero point, clamp or scale is out of range.
    Requantization,
    /// The sum of a channel could leave 32 bits.
    Accumulator {
        /// Output channel.
        channel: usize,
    },
    /// The algorithm does not serve the layer's window, channels or biases, or its weights do not lie at
    /// a multiple of 4.
    Algorithm,
    /// A block has fewer than two or more than three convolutions, or their shapes do not follow
    /// each other, or its shortcut does not have the shape of its output.
    Block,
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayerError::Geometry => f.write_str("a dimension is zero or the window does not fit into the padded input"),
            LayerError::Length { needed, given } => {
                write!(f, "a parameter needs {needed} elements, {given} given")
            }
            LayerError::Requantization => f.write_str("a multiplier, shift, zero point, clamp or scale is out of range"),
            LayerError::Accumulator { channel } => {
                write!(f, "the sum of output channel {channel} could leave 32 bits")
            }
            LayerError::Algorithm => {
                f.write_str("the algorithm does not serve the window, channels or biases, or weights are not aligned")
            }
            LayerError::Block => f.write_str(
                "a block needs two or three convolutions that follow each other and a shortcut of its output's shape",
            ),
        }
    }
}

impl core::error::Error for LayerError {}

/// A blob that [`Model::parse`](crate::Model::parse) refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ParseError {
    /// The blob's first byte does not lie at a multiple of 4 (use [`include_model!`](crate::include_model)).
    Misaligned,
    /// Fewer bytes than the header has, or than it says the blob has.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The first four bytes are not those of a blob.
    NotABlob,
    /// The blob was written in a format version that this library does not read.
    Version {
        /// Version of the blob.
        found: u16,
        /// Version that this library reads.
        supported: u16,
    },
    /// A byte has changed since the blob was written.
    Checksum {
        /// CRC-32 in the header.
        stored: u32,
        /// CRC-32 of the bytes.
        computed: u32,
    },
    /// Header fields contradict each other.
    Header,
    /// The manifest's header does not decode.
    Manifest,
    /// The description of a stage does not decode.
    Stage {
        /// Index of the stage.
        stage: u16,
    },
    /// A parameter section lies outside the blob or is not aligned.
    Section {
        /// Index of the stage.
        stage: u16,
        /// Offset in the weights.
        offset: u32,
        /// Bytes needed there.
        length: usize,
    },
    /// A stage's shapes or parameters are inconsistent.
    Layer {
        /// Index of the stage.
        stage: u16,
        /// What is wrong.
        error: LayerError,
    },
    /// The last stage does not give class scores, or a stage before it does, or softmax is not last.
    Output {
        /// Index of the stage.
        stage: u16,
    },
    /// Class labels are not UTF-8 or not one for each class.
    Labels,
    /// A plan's row table or segments do not fit the stages.
    Plan,
    /// The header names kernels that this library does not have, or leaves out one that a stage needs.
    Kernels {
        /// Kernels of the header, as [`Kernels`](crate::Kernels)' bits.
        found: u16,
        /// Kernels that the stages need.
        needed: u16,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Misaligned => {
                f.write_str("the blob is not aligned to 4 bytes; embed it with include_model!")
            }
            ParseError::Truncated { needed, given } => {
                write!(f, "the blob needs {needed} bytes, {given} given: it is cut off")
            }
            ParseError::NotABlob => f.write_str("this is not a skipstone blob (wrong magic bytes)"),
            ParseError::Version { found, supported } => {
                let advice = if found > supported { "update skipstone" } else { "convert the model again" };
                write!(f, "blob format version {found}, this library reads version {supported}: {advice}")
            }
            ParseError::Checksum { stored, computed } => {
                write!(f, "CRC-32 is {computed:08x}, should be {stored:08x}: the blob is damaged")
            }
            ParseError::Header => f.write_str("the blob's header contradicts itself"),
            ParseError::Manifest => f.write_str("the blob's manifest does not decode"),
            ParseError::Stage { stage } => write!(f, "stage {stage}: its description does not decode"),
            ParseError::Section { stage, offset, length } => {
                write!(
                    f,
                    "stage {stage}: {length} bytes at offset {offset} of the weights lie outside or unaligned"
                )
            }
            ParseError::Layer { stage, error } => write!(f, "stage {stage}: {error}"),
            ParseError::Output { stage } => {
                write!(
                    f,
                    "stage {stage}: class scores must come from the last dense or global pooling layer, softmax after it"
                )
            }
            ParseError::Labels => f.write_str("class labels are not UTF-8 or not one for each class"),
            ParseError::Kernels { found, needed } => {
                write!(
                    f,
                    "the header names kernels {found:#b}, the stages need {needed:#b}: convert the model again"
                )
            }
            ParseError::Plan => f.write_str("a plan's row table or segments do not fit the stages"),
        }
    }
}

impl core::error::Error for ParseError {}

/// Bytes that [`Model::parse_signed`](crate::Model::parse_signed) refuses.
#[cfg(feature = "signature")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SignatureError {
    /// No signature stands behind the blob.
    Unsigned,
    /// The public key is no point of the curve, or one for which anybody can sign.
    Key,
    /// The blob was not signed by this key, or a byte has changed since.
    Mismatch,
    /// There is no blob, its signature is cut off, or what was signed does not parse.
    Blob(ParseError),
}

#[cfg(feature = "signature")]
impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignatureError::Unsigned => f.write_str("the blob is not signed: `skipstone sign` signs it"),
            SignatureError::Key => {
                f.write_str("the public key is none that can be trusted: `skipstone keygen` makes one")
            }
            SignatureError::Mismatch => f.write_str(
                "the signature is not this key's for these bytes: sign the blob with the key that belongs to it",
            ),
            SignatureError::Blob(error) => error.fmt(f),
        }
    }
}

#[cfg(feature = "signature")]
impl core::error::Error for SignatureError {}

/// A model that cannot be set up in the arena given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NewError {
    /// The arena is too small.
    Arena {
        /// Bytes that the plan needs.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The arena's first byte does not lie at a multiple of 4 (use [`Arena`](crate::Arena)).
    Misaligned,
    /// A segment has more tensors than the network's `TENSORS` parameter.
    Tensors {
        /// `TENSORS`: too few for the segment, by at least one.
        given: usize,
    },
    /// The model needs kernels that the network's `KERNELS` parameter leaves out.
    Kernels {
        /// What the model needs, as [`Kernels`](crate::Kernels)' bits.
        needed: u16,
        /// `KERNELS`.
        given: u16,
    },
    /// A row lies outside the arena or is overwritten before it is read for the last time: the blob is not to be trusted.
    Plan {
        /// Tensor whose row is misplaced: 0 is the input, others in the order of the layers.
        tensor: u16,
        /// The row.
        row: u16,
    },
    /// The plan cannot be proved in reasonable time: the rows of a run are too many or too long.
    Rows {
        /// Words of rows that the proof may visit.
        limit: u32,
    },
    /// A stage no longer reads as it did in [`Model::parse`](crate::Model::parse).
    Changed,
}

impl fmt::Display for NewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewError::Arena { needed, given } => write!(f, "the arena needs {needed} bytes, {given} given"),
            NewError::Misaligned => f.write_str("the arena is not aligned to 4 bytes; use skipstone::Arena"),
            NewError::Tensors { given } => {
                write!(f, "a segment has more than {given} tensors: give Network a larger TENSORS")
            }
            NewError::Kernels { needed, given } => {
                write!(f, "the model needs kernels {needed:#b}, Network has {given:#b}: give it Kernels::ALL")
            }
            NewError::Plan { tensor, row } => {
                write!(f, "the plan misplaces row {row} of tensor {tensor}: convert the model again")
            }
            NewError::Rows { limit } => {
                write!(
                    f,
                    "a run's rows have more words than the proof may visit, {limit}: give it smaller images"
                )
            }
            NewError::Changed => f.write_str("the blob has changed since it was parsed"),
        }
    }
}

impl core::error::Error for NewError {}

/// A run that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The image has the wrong number of bytes.
    Input {
        /// Bytes of an image: height x width x channels.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The blob has changed since it was parsed (failing flash).
    Changed,
    /// The network has no model: it was not set up, or refused what it was given.
    Empty,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Input { needed, given } => write!(f, "the image needs {needed} bytes, {given} given"),
            RunError::Changed => f.write_str("the blob has changed since it was parsed"),
            RunError::Empty => f.write_str("the network has no model: call set_up first"),
        }
    }
}

impl core::error::Error for RunError {}
