//! The manifest's records as postcard encodes them; `docs/format.md` is the normative page.
//!
//! Offsets are bytes from the start of the blob's weights, multiples of 4. How long a section is
//! follows from the shapes.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::base::clamp::Clamp;
use crate::base::codec::outlined;
use crate::base::quantization::Addition;
use crate::base::shape::{Shape, Window};
use crate::net::block::{MAX_PATH, Subsample};
use crate::ops::Softmax;
use crate::ops::{Algorithm, Pooling};

/// First record of the manifest; [`Manifest::stages`] records of [`Stage`] follow it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// Shape of an image; its bytes are raw pixels.
    pub input: Shape,
    /// Number of stages.
    #[serde(deserialize_with = "outlined")]
    pub stages: u16,
    /// What normalizes the scores.
    pub softmax: Softmax,
    /// Offset of the class labels: UTF-8, each ended by a zero byte.
    #[serde(deserialize_with = "outlined")]
    pub labels: u32,
    /// Bytes of the labels; 0 where there are none.
    #[serde(deserialize_with = "outlined")]
    pub labels_len: u32,
    /// Plan for an input fed row by row.
    #[serde(deserialize_with = "outlined")]
    pub rows: Plan,
    /// Plan for an input frame that lies in the arena.
    #[serde(deserialize_with = "outlined")]
    pub frame: Plan,
}

/// A memory plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Bytes of the arena.
    #[serde(deserialize_with = "outlined")]
    pub arena_bytes: u32,
    /// Offset of the row table: a u16 for each row of each tensor, the input's first, and for the scratch
    /// memory of each step behind its tensor's rows.
    #[serde(deserialize_with = "outlined")]
    pub rows: u32,
    /// Entries of the row table.
    #[serde(deserialize_with = "outlined")]
    pub row_count: u32,
    /// Offset of the strip heights: a u8 for each layer.
    #[serde(deserialize_with = "outlined")]
    pub strips: u32,
    /// Offset of the segments: a u8 for each segment, its number of stages.
    #[serde(deserialize_with = "outlined")]
    pub segments: u32,
    /// Number of segments.
    #[serde(deserialize_with = "outlined")]
    pub segment_count: u16,
}

/// A stage: a layer or a residual block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage<'a> {
    /// Name in the model that was converted.
    pub name: &'a str,
    /// What it does.
    pub operation: Operation,
}

/// What a stage does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant)] // no heap to box it on; one record is decoded at a time
pub enum Operation {
    /// Convolution.
    Conv2d(Conv2d),
    /// Pooling over windows.
    Pool2d(Pool2d),
    /// Fully connected layer.
    Dense(Dense),
    /// Mean over height and width.
    GlobalAveragePool(GlobalAveragePool),
    /// Residual block.
    Block(Block),
}

/// An [`Operation`]'s number, which stands before its record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum OperationKind {
    Conv2d,
    Pool2d,
    Dense,
    GlobalAveragePool,
    Block,
}

/// Convolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Output channels.
    #[serde(deserialize_with = "outlined")]
    pub channels: u16,
    /// A kernel for each channel.
    pub depthwise: bool,
    /// How it is computed, and so how its weights lie.
    #[serde(deserialize_with = "outlined")]
    pub algorithm: Algorithm,
    /// Kernel, stride, padding.
    #[serde(deserialize_with = "outlined")]
    pub window: Window,
    /// Offset of the weights, as the algorithm wants them.
    #[serde(deserialize_with = "outlined")]
    pub weights: u32,
    /// Offset of the biases: i32 for each output channel.
    #[serde(deserialize_with = "outlined")]
    pub bias: u32,
    /// Offset of the padding pixel: i8 for each input channel.
    #[serde(deserialize_with = "outlined")]
    pub padding_pixel: u32,
    /// From sums to int8 values.
    #[serde(deserialize_with = "outlined")]
    pub requantize: Requantize,
    /// Real value of one step of the output.
    #[serde(deserialize_with = "outlined")]
    pub scale: f32,
}

/// From sums to int8 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requantize {
    /// Offset of the multipliers: i32 for each output.
    #[serde(deserialize_with = "outlined")]
    pub multipliers: u32,
    /// How often a value is rounded.
    #[serde(deserialize_with = "outlined")]
    pub rounding: Rounding,
    /// Zero point and range of the output.
    #[serde(deserialize_with = "outlined")]
    pub clamp: Clamp,
}

/// How often a value is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// Once.
    Once {
        /// The shift.
        shift: u8,
    },
    /// Twice, as TensorFlow Lite's reference kernels do.
    Twice {
        /// Offset of the shifts: i8 for each output.
        #[serde(deserialize_with = "outlined")]
        shifts: u32,
    },
}

/// Pooling over windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pool2d {
    /// Kernel, stride, padding.
    #[serde(deserialize_with = "outlined")]
    pub window: Window,
    /// What is made of a window.
    pub kind: Pooling,
}

/// Fully connected layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dense {
    /// Number of outputs.
    #[serde(deserialize_with = "outlined")]
    pub outputs: u16,
    /// Offset of the weights: i8, output by input.
    #[serde(deserialize_with = "outlined")]
    pub weights: u32,
    /// Offset of the biases: i32 for each output.
    #[serde(deserialize_with = "outlined")]
    pub bias: u32,
    /// What becomes of the sums.
    pub finish: Finish,
}

/// Mean over height and width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GlobalAveragePool {
    /// Zero point of the input.
    pub zero_point: i8,
    /// What becomes of the sums.
    pub finish: Finish,
}

/// What becomes of a reduction's sums; `count` parameters, one for each output or one for all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Finish {
    /// int8 values.
    Requantize {
        /// Number of multipliers, and of shifts.
        #[serde(deserialize_with = "outlined")]
        count: u16,
        /// From sums to int8 values.
        #[serde(deserialize_with = "outlined")]
        requantize: Requantize,
        /// Real value of one step of the output.
        #[serde(deserialize_with = "outlined")]
        scale: f32,
    },
    /// f32 class scores.
    Scores {
        /// Offset of the scales: f32.
        #[serde(deserialize_with = "outlined")]
        scales: u32,
        /// Number of scales.
        #[serde(deserialize_with = "outlined")]
        count: u16,
    },
    /// int8 mean of a global average pooling, as TensorFlow Lite rounds it.
    Mean {
        /// Zero point and range of the output.
        #[serde(deserialize_with = "outlined")]
        clamp: Clamp,
        /// Real value of one step of the output.
        #[serde(deserialize_with = "outlined")]
        scale: f32,
    },
    /// f32 class scores of int8 values, as TensorFlow Lite has them.
    RoundedScores {
        /// Number of multipliers, and of shifts.
        #[serde(deserialize_with = "outlined")]
        count: u16,
        /// From sums to int8 values.
        #[serde(deserialize_with = "outlined")]
        requantize: Requantize,
        /// Score of one step.
        #[serde(deserialize_with = "outlined")]
        scale: f32,
    },
}

/// Residual block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Two or three convolutions; a fused addition has the last one's clamp.
    pub path: Vec<Conv2d, MAX_PATH>,
    /// How the shortcut is added.
    pub addition: Addition,
    /// The other way.
    pub shortcut: Shortcut,
    /// Real value of one step of the output.
    #[serde(deserialize_with = "outlined")]
    pub scale: f32,
}

/// A block's other way from its input to its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Shortcut {
    /// The input itself.
    Identity,
    /// A convolution.
    Projection(Conv2d),
    /// Strided subsampling, zero channels around.
    Padded(Subsample),
}

/// A [`Shortcut`]'s number, which stands before its record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum ShortcutKind {
    Identity,
    Projection,
    Padded,
}

/// A [`Finish`]'s number, which stands before its record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum FinishKind {
    Requantize,
    Scores,
    Mean,
    RoundedScores,
}
