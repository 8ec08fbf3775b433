//! Errors: one small enum for each operation, with the numbers that explain it.

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
        /// Elements that the shapes require.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// A multiplier, shift, zero point, clamp or scale is out of range.
    Requantization,
    /// The sum of a channel could exceed 32 bits.
    Accumulator {
        /// Output channel.
        channel: usize,
    },
    /// The algorithm does not support the layer's window, channels or biases, or its weights are not aligned to 4
    /// bytes, or the library does not have it.
    Algorithm,
    /// A block has no convolutions or too many, their shapes do not follow each other, or its shortcut does not
    /// have the shape of its output.
    Block,
    /// A layer that is not a convolution adds a shortcut, or a shortcut does not have the shape of the output.
    Shortcut,
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
                write!(f, "the sum of output channel {channel} could exceed 32 bits")
            }
            LayerError::Algorithm => {
                f.write_str("the algorithm is unknown, or does not support the window, channels, biases or alignment")
            }
            LayerError::Block => f.write_str(
                "a block needs convolutions whose shapes follow each other and a shortcut of its output's shape",
            ),
            LayerError::Shortcut => {
                f.write_str("only a convolution can add a shortcut, which needs the shape of its output")
            }
        }
    }
}

impl core::error::Error for LayerError {}

/// A blob that [`Model::parse`](crate::Model::parse) rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ParseError {
    /// The blob is not aligned to 4 bytes (use [`include_model!`](crate::include_model)).
    Misaligned,
    /// Fewer bytes than the header has, or than it states for the blob.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The first four bytes are not those of a blob.
    NotABlob,
    /// The blob has a format version that this library does not read.
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
    /// The manifest does not decode.
    Manifest,
    /// The record of a layer does not decode.
    Record {
        /// Index of the layer.
        layer: u16,
    },
    /// A parameter section is outside the blob or misaligned.
    Section {
        /// Index of the layer.
        layer: u16,
        /// Offset in the weights.
        offset: u32,
        /// Bytes needed there.
        length: usize,
    },
    /// A layer's shapes or parameters are inconsistent.
    Layer {
        /// Index of the layer.
        layer: u16,
        /// The inconsistency.
        error: LayerError,
    },
    /// A layer reads a tensor that does not exist before it, is too far back, or holds class scores.
    Tensor {
        /// Index of the layer.
        layer: u16,
        /// The tensor: 0 is the input, layer i makes tensor i + 1.
        tensor: u16,
    },
    /// The network has no output or too many, or an output's softmax is invalid or does not follow class scores.
    Output,
    /// The layers share too many parameters to check in reasonable time.
    Work {
        /// Index of the layer at which the limit was reached.
        layer: u16,
    },
    /// Class labels are not UTF-8, or not one for each class.
    Labels,
    /// A plan's strips or segments do not fit the layers.
    Plan,
    /// The header names kernels that this library does not have, or omits one that a layer needs.
    Kernels {
        /// Kernels in the header, as bits.
        found: u16,
        /// Kernels that the layers need.
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
                write!(f, "the blob is truncated: it needs {needed} bytes, {given} given")
            }
            ParseError::NotABlob => f.write_str("not a skipstone blob (wrong magic bytes)"),
            ParseError::Version { found, supported } => {
                let advice = if found > supported { "update skipstone" } else { "convert the model again" };
                write!(f, "blob format version {found}, this library reads version {supported}: {advice}")
            }
            ParseError::Checksum { stored, computed } => {
                write!(f, "the blob is damaged: its CRC-32 is {computed:08x}, expected {stored:08x}")
            }
            ParseError::Header => f.write_str("the blob's header contradicts itself"),
            ParseError::Manifest => f.write_str("the blob's manifest does not decode"),
            ParseError::Record { layer } => write!(f, "layer {layer}: its record does not decode"),
            ParseError::Section { layer, offset, length } => {
                write!(
                    f,
                    "layer {layer}: {length} bytes at offset {offset} of the weights are out of bounds or misaligned"
                )
            }
            ParseError::Layer { layer, error } => write!(f, "layer {layer}: {error}"),
            ParseError::Tensor { layer, tensor } => {
                write!(
                    f,
                    "layer {layer}: cannot read tensor {tensor}, which is missing or holds class scores"
                )
            }
            ParseError::Output => f.write_str(
                "the network has no output or too many, or a softmax that follows no class scores",
            ),
            ParseError::Work { layer } => {
                write!(f, "layer {layer}: too many layers share parameters to check them in reasonable time")
            }
            ParseError::Labels => f.write_str("class labels are not UTF-8 or not one for each class"),
            ParseError::Kernels { found, needed } => {
                write!(
                    f,
                    "the header names kernels {found:#b}, the layers need {needed:#b}: convert the model again"
                )
            }
            ParseError::Plan => f.write_str("a plan's strips or segments do not fit the layers"),
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
    /// The blob has no signature after it.
    Unsigned,
    /// The public key is not a point of the curve, or a weak one, for which anyone can forge signatures.
    Key,
    /// The blob was not signed by this key, or a byte has changed since.
    Mismatch,
    /// The bytes are not a blob, the signature is truncated, or the signed blob does not parse.
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

/// A network that [`Network::set_up`](crate::Network::set_up) rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SetUpError {
    /// The arena is too small.
    Arena {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The arena is not aligned to 4 bytes (use [`Arena`](crate::Arena)).
    Misaligned,
    /// A segment has more tensors than the network's `TENSORS` parameter.
    Tensors {
        /// Tensors of the largest segment: [`tensors`](crate::tensors) gives it at compile time.
        needed: usize,
        /// `TENSORS`.
        given: usize,
    },
    /// The model needs kernels that the network's `KERNELS` parameter omits.
    Kernels {
        /// Kernels that the model needs: [`kernels`](crate::kernels) gives them at compile time.
        needed: u16,
        /// `KERNELS`.
        given: u16,
    },
    /// A row is outside the arena, or is overwritten or cut off from a layer before it is read for the last time: do
    /// not trust the blob.
    Plan {
        /// Tensor of the misplaced row: 0 is the input, layer i makes tensor i + 1.
        tensor: u16,
        /// The row.
        row: u16,
    },
    /// The plan cannot be proved in reasonable time: a run has too many rows, or rows that are too long.
    Rows {
        /// Maximum number of words that the proof may visit.
        limit: u32,
    },
    /// The blob no longer reads as it did in [`Model::parse`](crate::Model::parse).
    Changed,
    /// The network has no arena yet: call [`Network::set_up`](crate::Network::set_up) before
    /// [`Network::swap`](crate::Network::swap).
    NoArena,
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetUpError::Arena { needed, given } => write!(f, "the arena needs {needed} bytes, {given} given"),
            SetUpError::Misaligned => {
                f.write_str("the arena is not aligned to 4 bytes; use skipstone::Arena")
            }
            SetUpError::Tensors { needed, given } => {
                write!(
                    f,
                    "a segment has {needed} tensors, Network has room for {given}: give it a larger TENSORS"
                )
            }
            SetUpError::Kernels { needed, given } => {
                write!(
                    f,
                    "the model needs kernels {needed:#b}, Network has {given:#b}: give it skipstone::kernels(MODEL)"
                )
            }
            SetUpError::Plan { tensor, row } => {
                write!(f, "the plan misplaces row {row} of tensor {tensor}: convert the model again")
            }
            SetUpError::Rows { limit } => {
                write!(
                    f,
                    "the rows of a run have too many words to prove the plan, more than {limit}: use smaller images"
                )
            }
            SetUpError::Changed => f.write_str("the blob has changed since it was parsed"),
            SetUpError::NoArena => f.write_str("the network has no arena: call set_up first"),
        }
    }
}

impl core::error::Error for SetUpError {}

/// A run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RunError {
    /// The image or row has the wrong number of bytes.
    Input {
        /// Bytes of an image (height x width x channels) or of a row (width x channels).
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The blob has changed since it was parsed (failing flash).
    Changed,
    /// The network has no model: it was not set up, or rejected the last one.
    Empty,
    /// The network takes its input row by row: its arena has no frame to run on.
    NoFrame,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Input { needed, given } => write!(f, "the input needs {needed} bytes, {given} given"),
            RunError::Changed => f.write_str("the blob has changed since it was parsed"),
            RunError::Empty => f.write_str("the network has no model: call set_up first"),
            RunError::NoFrame => {
                f.write_str("the arena has no frame: set the network up with set_up_with_frame")
            }
        }
    }
}

impl core::error::Error for RunError {}
