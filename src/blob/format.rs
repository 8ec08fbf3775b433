//! Blob format 4: the header and the manifest's records, as postcard encodes them. `docs/format.md` is normative.
//!
//! These are wire types: the runtime's own types and the host tool's JSON can change without them. They are
//! public to the host tool, which writes them. Offsets are bytes from the start of the blob's weights,
//! multiples of [`SECTION_ALIGN`](crate::base::section::SECTION_ALIGN); the length of a section follows from
//! the shapes.

use serde::{Deserialize, Deserializer, Serialize};

use crate::base::clamp;
use crate::base::quantization as numbers;
use crate::base::shape;
use crate::base::tflite;
use crate::net::layer::{self, Join};
use crate::ops;

/// First bytes of a blob.
pub const MAGIC: [u8; 4] = *b"SKIP";

/// Format version that this library reads.
pub const VERSION: u16 = 4;

/// Bytes before the manifest.
pub const HEADER_BYTES: usize = 32;

/// Alignment of the weights within the blob, in bytes.
pub const WEIGHTS_ALIGN: usize = 16;

/// Maximum number of tensors in a segment: its input and an output for each layer.
pub const MAX_TENSORS: usize = 48;

/// Maximum number of outputs of a network.
pub const MAX_OUTPUTS: usize = 8;

/// The header: fixed positions, little-endian, so that firmware can read it in constant expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Kernels that the layers need, a set of bits.
    pub kernels: u16,
    /// Bytes of the whole blob.
    pub total: u32,
    /// CRC-32 of the blob without this field.
    pub crc: u32,
    /// Bytes of the arena with the input frame in it.
    pub arena_bytes: u32,
    /// Bytes of the arena if the input is fed row by row.
    pub arena_bytes_rows: u32,
    /// Maximum number of tensors in a segment of either plan.
    pub tensors: u16,
    /// Bytes of the manifest.
    pub manifest_bytes: u32,
}

impl Header {
    /// Offset of [`Header::crc`].
    pub const CRC_OFFSET: usize = 12;

    /// The version of a blob; `None` if the bytes are not one.
    pub const fn version(bytes: &[u8]) -> Option<u16> {
        match bytes {
            [b'S', b'K', b'I', b'P', low, high, ..] => Some(u16::from_le_bytes([*low, *high])),
            _ => None,
        }
    }

    /// Reads the header; `None` if the bytes are too few, or not a blob of this version.
    pub const fn read(bytes: &[u8]) -> Option<Self> {
        let (Some(VERSION), Some(header)) = (Self::version(bytes), bytes.first_chunk::<HEADER_BYTES>())
        else {
            return None;
        };
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            k0,
            k1,
            t0,
            t1,
            t2,
            t3,
            c0,
            c1,
            c2,
            c3,
            f0,
            f1,
            f2,
            f3,
            r0,
            r1,
            r2,
            r3,
            n0,
            n1,
            _,
            _,
            m0,
            m1,
            m2,
            m3,
        ] = *header;
        Some(Header {
            kernels: u16::from_le_bytes([k0, k1]),
            total: u32::from_le_bytes([t0, t1, t2, t3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            arena_bytes: u32::from_le_bytes([f0, f1, f2, f3]),
            arena_bytes_rows: u32::from_le_bytes([r0, r1, r2, r3]),
            tensors: u16::from_le_bytes([n0, n1]),
            manifest_bytes: u32::from_le_bytes([m0, m1, m2, m3]),
        })
    }

    /// The header's bytes.
    pub fn write(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields = MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain(self.kernels.to_le_bytes())
            .chain(self.total.to_le_bytes())
            .chain(self.crc.to_le_bytes())
            .chain(self.arena_bytes.to_le_bytes())
            .chain(self.arena_bytes_rows.to_le_bytes())
            .chain(self.tensors.to_le_bytes())
            .chain([0; 2])
            .chain(self.manifest_bytes.to_le_bytes());
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        bytes
    }
}

/// Decodes a field in a function of its own: inlined for every field, numbers would be most of the reader's
/// code.
#[inline(never)]
fn outlined<'de, T: Deserialize<'de>, D: Deserializer<'de>>(decoder: D) -> Result<T, D::Error> {
    T::deserialize(decoder)
}

/// First record of the manifest; [`Manifest::layers`] records of [`Layer`] follow it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Manifest<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// Shape of an image; its bytes are raw pixels.
    #[serde(deserialize_with = "outlined")]
    pub input: Shape,
    /// Number of layers.
    #[serde(deserialize_with = "outlined")]
    pub layers: u16,
    /// Offset of the class labels: UTF-8, each ended by a zero byte.
    #[serde(deserialize_with = "outlined")]
    pub labels: u32,
    /// Bytes of the labels; 0 if there are none.
    #[serde(deserialize_with = "outlined")]
    pub labels_len: u32,
    /// Plan for an input fed row by row.
    #[serde(deserialize_with = "outlined")]
    pub rows: Plan,
    /// Plan for an input frame in the arena.
    #[serde(deserialize_with = "outlined")]
    pub frame: Plan,
}

/// A memory plan; the header has its arena's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Offset of the row table: a u16 for each row of each tensor, the input's first, and for the scratch
    /// memory of each step after its tensor's rows. A contiguous tensor (the frame, an output) has one entry.
    #[serde(deserialize_with = "outlined")]
    pub rows: u32,
    /// Entries of the row table.
    #[serde(deserialize_with = "outlined")]
    pub row_count: u32,
    /// Offset of the strip heights: a u8 for each layer.
    #[serde(deserialize_with = "outlined")]
    pub strips: u32,
    /// Offset of the segments: a u8 for each segment, its number of layers.
    #[serde(deserialize_with = "outlined")]
    pub segments: u32,
    /// Number of segments.
    #[serde(deserialize_with = "outlined")]
    pub segment_count: u16,
}

/// A layer. Layer *i* makes tensor *i* + 1; tensor 0 is the input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Layer<'a> {
    /// Name in the model that was converted.
    pub name: &'a str,
    /// Set if the caller receives what the layer makes.
    pub output: Option<Output<'a>>,
    /// Tensor that the layer reads; one that an earlier layer makes, or the input.
    #[serde(deserialize_with = "outlined")]
    pub reads: u16,
    /// What the int8 values of the result stand for (class scores: scale 1, zero point 0).
    #[serde(deserialize_with = "outlined")]
    pub quantization: Quantization,
    /// The residual shortcut; only convolutions have one.
    pub shortcut: Option<Shortcut>,
    /// What the layer computes.
    pub operation: Operation,
}

/// What makes a layer's result one of the network's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Output<'a> {
    /// Its name.
    pub name: &'a str,
    /// What normalizes class scores; of int8 values: none.
    #[serde(deserialize_with = "outlined")]
    pub softmax: Softmax,
}

/// real = scale * (q - zero_point).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// Real value of one step; finite and above zero.
    #[serde(deserialize_with = "outlined")]
    pub scale: f32,
    /// The int8 value of real zero.
    pub zero_point: i8,
}

/// A tensor that is added to a convolution's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortcut {
    /// The tensor.
    #[serde(deserialize_with = "outlined")]
    pub tensor: u16,
    /// Vertical and horizontal stride.
    pub stride: [u8; 2],
    /// Zero channels in front of the tensor's own.
    #[serde(deserialize_with = "outlined")]
    pub channels_before: u16,
    /// How its values are added.
    pub addition: Addition,
}

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Convolution.
    Conv2d(Conv2d),
    /// Pooling over windows.
    Pool2d(Pool2d),
    /// Fully connected layer.
    Dense(Dense),
    /// Mean over height and width.
    GlobalAveragePool(GlobalAveragePool),
}

/// An [`Operation`]'s number, which precedes its record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum OperationKind {
    Conv2d,
    Pool2d,
    Dense,
    GlobalAveragePool,
}

/// Convolution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Output channels.
    #[serde(deserialize_with = "outlined")]
    pub channels: u16,
    /// Each channel has one filter of its own.
    pub depthwise: bool,
    /// How it is computed, and so how its weights are packed: the number of an
    /// [`Algorithm`](crate::ops::Algorithm).
    pub algorithm: u8,
    /// Kernel, stride, padding.
    #[serde(deserialize_with = "outlined")]
    pub window: Window,
    /// Offset of the weights, packed for the algorithm.
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

/// A [`Rounding`]'s number, which precedes its fields.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum RoundingKind {
    Once,
    Twice,
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

/// What a pooling layer makes of a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pooling {
    /// The largest value.
    Max,
    /// The mean of the positions inside the tensor.
    Average,
    /// The mean of all positions, padded ones counting as real zeros.
    AveragePadded {
        /// The int8 value of real zero.
        zero_point: i8,
    },
}

/// A [`Pooling`]'s number, which precedes its fields.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum PoolingKind {
    Max,
    Average,
    AveragePadded,
}

/// Fully connected layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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

/// A [`Finish`]'s number, which precedes its record.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum FinishKind {
    Requantize,
    Scores,
    Mean,
    RoundedScores,
}

/// Height, width, channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape(
    #[serde(deserialize_with = "outlined")] pub u16,
    #[serde(deserialize_with = "outlined")] pub u16,
    #[serde(deserialize_with = "outlined")] pub u16,
);

/// Kernel height and width; vertical and horizontal stride; padding at the top, left, bottom and right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window(pub [u8; 2], pub [u8; 2], pub [u8; 4]);

/// Zero point and range of int8 values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamp {
    /// The int8 value of real zero.
    pub zero_point: i8,
    /// Smallest value.
    pub min: i8,
    /// Largest value.
    pub max: i8,
}

/// How a shortcut is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Addition {
    /// In the convolution's 64-bit sum.
    Fused {
        /// Zero point of the shortcut's tensor.
        zero_point: i8,
        /// Multiplier of its values.
        #[serde(deserialize_with = "outlined")]
        multiplier: i32,
        /// Left shift of its values.
        shift: u8,
    },
    /// Of two int8 values, as TensorFlow Lite's reference kernels do.
    Separate {
        /// Scale of the convolution's values.
        #[serde(deserialize_with = "outlined")]
        path: Scaling,
        /// Scale of the shortcut's values.
        #[serde(deserialize_with = "outlined")]
        shortcut: Scaling,
        /// Zero point of the shortcut's tensor.
        shortcut_zero_point: i8,
        /// Scale of the sum.
        #[serde(deserialize_with = "outlined")]
        output: Scaling,
        /// Zero point and range of the sum.
        #[serde(deserialize_with = "outlined")]
        clamp: Clamp,
    },
}

/// An [`Addition`]'s number, which precedes its fields.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum AdditionKind {
    Fused,
    Separate,
}

/// multiplier * 2^(shift - 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling(#[serde(deserialize_with = "outlined")] pub i32, pub i8);

/// What normalizes class scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Softmax {
    /// Nothing.
    None,
    /// Softmax in f32.
    Float,
    /// TensorFlow Lite's.
    Fixed {
        /// Multiplier of the input's scale.
        #[serde(deserialize_with = "outlined")]
        multiplier: i32,
        /// Left shift of the input's scale.
        left_shift: u8,
    },
}

/// A [`Softmax`]'s number, which precedes its fields.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) enum SoftmaxKind {
    None,
    Float,
    Fixed,
}

/// Stores parameters in the weights, and returns their offset.
pub type Store<'s> = dyn FnMut(&[u8]) -> u32 + 's;

impl Operation {
    /// The record of an operation whose packed weights are at offset `weights`; `store` takes its other parameters.
    pub fn new(operation: &layer::Operation<'_>, weights: u32, store: &mut Store<'_>) -> Self {
        match operation {
            layer::Operation::Windowed(windowed) | layer::Operation::Addition(windowed, _) => {
                match windowed {
                    ops::Windowed::Conv2d(layer) => Operation::Conv2d(Conv2d {
                        channels: layer.output.channels,
                        depthwise: layer.depthwise,
                        algorithm: layer.algorithm.number(),
                        window: layer.window.into(),
                        weights,
                        bias: store(bytemuck::cast_slice(layer.bias)),
                        padding_pixel: store(bytemuck::cast_slice(layer.padding_pixel)),
                        requantize: Requantize::new(&layer.requantize, store),
                    }),
                    ops::Windowed::Pool2d(layer) => {
                        Operation::Pool2d(Pool2d { window: layer.window.into(), kind: layer.kind.into() })
                    }
                }
            }
            layer::Operation::Reduction(reduction) => match reduction {
                ops::Reduction::Dense(layer) => Operation::Dense(Dense {
                    outputs: reduction.outputs(),
                    weights,
                    bias: store(bytemuck::cast_slice(layer.bias)),
                    finish: Finish::new(&layer.finish, store),
                }),
                ops::Reduction::GlobalAveragePool(layer) => {
                    let finish = Finish::new(&layer.finish, store);
                    Operation::GlobalAveragePool(GlobalAveragePool { zero_point: layer.zero_point, finish })
                }
            },
        }
    }
}

impl Shortcut {
    /// The record of the shortcut that an operation adds, which is this tensor.
    pub fn new(operation: &layer::Operation<'_>, tensor: u16) -> Option<Self> {
        match operation {
            layer::Operation::Addition(_, Join { addition, subsample, .. }) => Some(Shortcut {
                tensor,
                stride: subsample.stride,
                channels_before: subsample.channels_before,
                addition: (*addition).into(),
            }),
            layer::Operation::Windowed(_) | layer::Operation::Reduction(_) => None,
        }
    }
}

impl Requantize {
    fn new(requantize: &numbers::Requantize<'_>, store: &mut Store<'_>) -> Self {
        let multipliers = store(bytemuck::cast_slice(requantize.multipliers()));
        let rounding = match requantize.rounding() {
            numbers::Rounding::Once { shift } => Rounding::Once { shift },
            numbers::Rounding::Twice { shifts } => {
                Rounding::Twice { shifts: store(bytemuck::cast_slice(shifts)) }
            }
        };
        Requantize { multipliers, rounding, clamp: requantize.clamp().into() }
    }
}

impl Finish {
    fn new(finish: &ops::Finish<'_>, store: &mut Store<'_>) -> Self {
        let count = |requantize: &numbers::Requantize<'_>| requantize.multipliers().len() as u16;
        match finish {
            ops::Finish::Requantize(record) => {
                Finish::Requantize { count: count(record), requantize: Requantize::new(record, store) }
            }
            ops::Finish::Scores(scales) => {
                Finish::Scores { scales: store(bytemuck::cast_slice(scales)), count: scales.len() as u16 }
            }
            ops::Finish::Mean(clamp) => Finish::Mean { clamp: (*clamp).into() },
            ops::Finish::RoundedScores { requantize: record, scale } => Finish::RoundedScores {
                count: count(record),
                requantize: Requantize::new(record, store),
                scale: *scale,
            },
        }
    }
}

impl From<Shape> for shape::Shape {
    fn from(Shape(height, width, channels): Shape) -> Self {
        shape::Shape { height, width, channels }
    }
}

impl From<shape::Shape> for Shape {
    fn from(shape::Shape { height, width, channels }: shape::Shape) -> Self {
        Shape(height, width, channels)
    }
}

impl From<Window> for shape::Window {
    fn from(Window(kernel, stride, padding): Window) -> Self {
        shape::Window { kernel, stride, padding }
    }
}

impl From<shape::Window> for Window {
    fn from(shape::Window { kernel, stride, padding }: shape::Window) -> Self {
        Window(kernel, stride, padding)
    }
}

impl From<clamp::Clamp> for Clamp {
    fn from(clamp::Clamp { zero_point, min, max }: clamp::Clamp) -> Self {
        Clamp { zero_point, min, max }
    }
}

impl From<tflite::Scaling> for Scaling {
    fn from(tflite::Scaling { multiplier, shift }: tflite::Scaling) -> Self {
        Scaling(multiplier, shift)
    }
}

impl From<ops::Pooling> for Pooling {
    fn from(kind: ops::Pooling) -> Self {
        match kind {
            ops::Pooling::Max => Pooling::Max,
            ops::Pooling::Average => Pooling::Average,
            ops::Pooling::AveragePadded { zero_point } => Pooling::AveragePadded { zero_point },
        }
    }
}

impl From<numbers::Addition> for Addition {
    fn from(addition: numbers::Addition) -> Self {
        match addition {
            numbers::Addition::Fused(numbers::Residual { zero_point, multiplier, shift }) => {
                Addition::Fused { zero_point, multiplier, shift }
            }
            numbers::Addition::Separate(sum) => Addition::Separate {
                path: sum.path.into(),
                shortcut: sum.shortcut.into(),
                shortcut_zero_point: sum.shortcut_zero_point,
                output: sum.output.into(),
                clamp: sum.clamp.into(),
            },
        }
    }
}

impl From<ops::Softmax> for Softmax {
    fn from(softmax: ops::Softmax) -> Self {
        match softmax {
            ops::Softmax::None => Softmax::None,
            ops::Softmax::Float => Softmax::Float,
            ops::Softmax::Fixed(tflite::FixedSoftmax { multiplier, left_shift }) => {
                Softmax::Fixed { multiplier, left_shift }
            }
        }
    }
}
