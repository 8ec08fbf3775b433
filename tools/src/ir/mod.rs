//! The one representation of a network between a model file and a blob: a flat list of layers.
//!
//! Layer *i* makes tensor *i* + 1; tensor 0 is the input. A layer names the tensors it reads, all of them made
//! before it, so any acyclic graph is a list of layers. Activations are NHWC.
//!
//! The list is generic over what its layers carry:
//!
//! | form | parameters | made by |
//! |---|---|---|
//! | [`FloatNetwork`] | [`Real`]: float weights, or a quantized file's integers | front ends, then `passes` |
//! | [`IntegerNetwork`] | [`Integer`]: int8 weights, biases, multipliers | `quantize` |
//!
//! Front ends emit every operation, one layer each. The passes fuse them, until only
//! [operations that the runtime has](Operation::is_final) are left: batch norm is folded into the weights,
//! activations become a property of the layer before, and the addition of a residual shortcut a property of
//! the convolution that completes the sum. Residual blocks are a *view* of the list: see [`blocks()`].
//!
//! # Adding an operation
//! A variant of [`Operation`], and what the compiler then asks for: its shape and weights in `shapes.rs`, its
//! float kernel in `float.rs`, its note in `front/notes.rs`, its line in `quantize`. A front end emits it from
//! the operator's file in `front/lower`.

mod affine;
mod blocks;
mod build;
mod problem;
mod shapes;
mod weights;
mod window;

use skipstone::Shape;

pub use affine::{Affine, BatchNorm, VarianceError};
pub use blocks::{Block, BlockKind, blocks};
pub(crate) use problem::checked_shape;
pub use problem::{MAX_TENSOR_LENGTH, ShapeError, ShapeProblem};
pub use shapes::{check, check_weights, output_shape};
pub use window::Window;
pub(crate) use window::stride_product;

/// Index of a tensor: 0 is the input, *i* + 1 is what layer *i* makes.
pub type TensorId = usize;

/// The network's input, after preprocessing.
pub const INPUT: TensorId = 0;

/// A network with float weights (or a quantized file's integers).
pub type FloatNetwork = Network<Real>;

/// A quantized network.
pub type IntegerNetwork = Network<Integer>;

/// A network: layers in order of execution.
#[derive(Debug, Clone, PartialEq)]
pub struct Network<P> {
    /// Short name, shown by `inspect` and on the board.
    pub name: String,
    /// Shape of one input image.
    pub input: Shape,
    /// How raw pixel bytes become the network's real input.
    pub preprocessing: Preprocessing,
    /// How the file has quantized the input; `None` if it has not.
    pub input_scale: Option<TensorScale>,
    /// The layers, each after those it reads.
    pub layers: Vec<Layer<P>>,
    /// The tensors that the caller receives, in order of their layers. At least one.
    pub outputs: Vec<Output>,
    /// One label per class; empty if unknown.
    pub labels: Vec<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer<P> {
    /// Name in the source model, for messages, reports and the blob.
    pub name: String,
    /// How messages name the layer's origin in the file, for example `node 'conv1' (Conv)`.
    pub place: String,
    /// The tensors it reads: two for an [`Operation::Add`], else one.
    pub inputs: Vec<TensorId>,
    /// The residual shortcut that is added to the layer's sum, before its activation.
    pub shortcut: Option<Shortcut>,
    /// What it computes.
    pub operation: Operation,
    /// What follows the sum (after the shortcut's addition).
    pub activation: Activation,
    /// Shape of what it makes.
    pub shape: Shape,
    /// Weights and whatever else the form carries.
    pub parameters: P,
}

/// A tensor that is added to a convolution's sum: a residual block's other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// The tensor that is added.
    pub tensor: TensorId,
    /// Vertical and horizontal stride: every n-th row and column is added, from the first.
    pub stride: [usize; 2],
    /// Zero channels in front of the tensor's own; missing channels after them are zero too ("option A").
    pub channels_before: usize,
}

/// What a layer computes, without its weights.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Convolution. Weights are OHWI (output channel, kernel row, kernel column, input channel); HWC if
    /// `depthwise`: one filter for each channel.
    Conv2d {
        /// Kernel, stride and padding.
        window: Window,
        /// Output channels.
        outputs: usize,
        /// Each channel has one filter of its own.
        depthwise: bool,
    },
    /// Fully connected layer over the whole tensor, flattened in HWC order; weights are output by input.
    Dense {
        /// Number of outputs.
        outputs: usize,
    },
    /// Maximum over windows; padding never wins.
    MaxPool(Window),
    /// Mean over windows.
    AveragePool {
        /// Kernel, stride and padding.
        window: Window,
        /// Padded positions count in the divisor.
        count_include_pad: bool,
    },
    /// Mean over height and width: H x W x C becomes 1 x 1 x C.
    GlobalAveragePool,
    /// A scale and a shift per channel, as batch norm has them; removed by the passes.
    Affine {
        /// How a message calls it, for example `batch norm`.
        norm: &'static str,
    },
    /// min(max(x, low), high); removed by the passes.
    Clamp {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Sum of two tensors; removed by the passes.
    Add,
    /// Every n-th row and column, from the first; removed by the passes.
    Subsample {
        /// Vertical and horizontal stride.
        stride: [usize; 2],
    },
    /// Constant rows and columns (top, left, bottom, right) and channels (in front, after); removed by the
    /// passes.
    Pad {
        /// Rows and columns.
        padding: [usize; 4],
        /// Channels.
        channels: [usize; 2],
        /// The constant.
        value: f64,
    },
    /// Softmax over the channels; the passes turn it into a property of the output.
    Softmax {
        /// The file takes its logarithm.
        logarithm: bool,
    },
}

/// What follows a layer's sum: min(max(x, low), high).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation {
    /// Smallest value, at most 0; `-inf` if there is none.
    pub low: f64,
    /// Largest value, at least 0; `inf` if there is none.
    pub high: f64,
}

/// A tensor that the caller receives.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name: the file's, or what the user asked for.
    pub name: String,
    /// The tensor.
    pub tensor: TensorId,
    /// What normalizes it if it holds class scores.
    pub softmax: skipstone::host::Softmax,
}

/// What the layers of a [`FloatNetwork`] carry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Real {
    /// The weights.
    pub weights: Weights,
    /// How the file has quantized what the layer makes.
    pub scale: Option<TensorScale>,
    /// How the file has quantized the layer's own result, before the shortcut is added to it.
    pub sum_scale: Option<TensorScale>,
}

/// The weights of a layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Weights {
    /// Pooling, clamps and the like have none.
    #[default]
    None,
    /// Float weights.
    Real {
        /// In the operation's order.
        weights: Vec<f32>,
        /// One bias for each output.
        bias: Vec<f64>,
    },
    /// Integers, as a quantized file has them.
    Integers(IntegerWeights),
    /// Of [`Operation::Affine`].
    Affine(Affine),
}

/// Weights that their file has quantized, symmetrically.
#[derive(Debug, Clone, PartialEq)]
pub struct IntegerWeights {
    /// -127 to 127, in the operation's order.
    pub weights: Vec<i8>,
    /// Real value of one step of the weights: one, or one per output.
    pub scales: Vec<f32>,
    /// One bias for each output, in steps of the input's scale times the weights'.
    pub bias: Vec<i32>,
    /// The same biases as real numbers, by the scale that the file gives them: what the float network adds.
    pub real_bias: Vec<f32>,
    /// What the integers of the tensor that the layer reads stand for, in the file.
    pub input: TensorScale,
}

/// What the layers of an [`IntegerNetwork`] carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Integer {
    /// In the operation's order; empty for pooling.
    pub weights: Vec<i8>,
    /// One for each output, with the input's zero point folded in; empty for pooling.
    pub bias: Vec<i32>,
    /// Value of a padded position, one for each input channel; convolutions only.
    pub padding_pixel: Vec<i8>,
    /// What becomes of the sums.
    pub finish: Finish,
    /// How the shortcut is added.
    pub addition: Option<skipstone::host::Addition>,
    /// What the int8 values of the result stand for. Class scores: scale 1, zero point 0.
    pub scale: TensorScale,
    /// Zero point of the input, for [`Operation::GlobalAveragePool`] and padded average pooling.
    pub input_zero_point: i8,
}

/// What becomes of a layer's sums.
#[derive(Debug, Clone, PartialEq)]
pub enum Finish {
    /// Pooling over windows: int8 values as they are.
    Keep,
    /// int8 values.
    Requantize(Requantize),
    /// int8 mean of a global average pooling, as TensorFlow Lite rounds it.
    Mean(skipstone::host::Clamp),
    /// f32 class scores: sum times scale; one scale, or one for each output.
    Scores(Vec<f32>),
    /// f32 class scores of int8 values, as TensorFlow Lite has them.
    RoundedScores {
        /// From sums to int8 values.
        requantize: Requantize,
        /// Score of one step.
        scale: f32,
    },
}

/// From sums to int8 values.
#[derive(Debug, Clone, PartialEq)]
pub struct Requantize {
    /// One, or one for each output.
    pub multipliers: Vec<i32>,
    /// How often a value is rounded.
    pub rounding: Rounding,
    /// Zero point and range of the output.
    pub clamp: skipstone::host::Clamp,
}

/// How often a value is rounded.
#[derive(Debug, Clone, PartialEq)]
pub enum Rounding {
    /// Once, by multiplier / 2^shift.
    Once {
        /// 1 to 56.
        shift: u8,
    },
    /// Twice, as TensorFlow Lite's reference kernels do; one shift for each multiplier.
    Twice {
        /// -31 to 30.
        shifts: Vec<i8>,
    },
}

/// What the int8 values of a tensor stand for: real = scale * (q - zero_point).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorScale {
    /// Real value of one step; finite and above zero.
    pub scale: f32,
    /// The int8 value of real zero.
    pub zero_point: i8,
}

/// real = (pixel / 255 - mean\[channel\]) / std\[channel\], for a pixel in 0..=255.
///
/// One value per channel, or a single one for all channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// Mean per channel, in units of pixel / 255.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, in units of pixel / 255; finite and above zero.
    pub std: Vec<f32>,
}

impl Integer {
    /// The parameters of a layer without weights.
    pub fn without_weights(finish: Finish, scale: TensorScale, input_zero_point: i8) -> Self {
        let (weights, bias, padding_pixel) = (Vec::new(), Vec::new(), Vec::new());
        Integer { weights, bias, padding_pixel, finish, addition: None, scale, input_zero_point }
    }
}

impl<P> Network<P> {
    /// Shape of a tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn shape(&self, tensor: TensorId) -> Shape {
        match tensor {
            INPUT => self.input,
            _ => self.layers[tensor - 1].shape,
        }
    }

    /// The layer that makes a tensor; `None` for the input.
    pub fn producer(&self, tensor: TensorId) -> Option<&Layer<P>> {
        tensor.checked_sub(1).map(|layer| &self.layers[layer])
    }

    /// For each tensor, how many layers and outputs read it (a shortcut counts as a read).
    pub fn read_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.layers.len() + 1];
        for layer in &self.layers {
            layer.reads().for_each(|tensor| counts[tensor] += 1);
        }
        self.outputs.iter().for_each(|output| counts[output.tensor] += 1);
        counts
    }
}

impl<P> Layer<P> {
    /// All tensors that the layer reads: its inputs, then its shortcut.
    pub fn reads(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.inputs.iter().copied().chain(self.shortcut.map(|shortcut| shortcut.tensor))
    }
}

impl<P> Layer<P> {
    /// Whether the layer is a convolution.
    pub fn is_convolution(&self) -> bool {
        matches!(self.operation, Operation::Conv2d { .. })
    }
}

impl Operation {
    /// The window that slides over the image; `None` if there is none.
    pub fn window(&self) -> Option<Window> {
        match self {
            Operation::Conv2d { window, .. }
            | Operation::MaxPool(window)
            | Operation::AveragePool { window, .. } => Some(*window),
            Operation::Dense { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => None,
        }
    }

    /// Whether the runtime has the operation, so that no pass needs to remove it.
    pub fn is_final(&self) -> bool {
        match self {
            Operation::Conv2d { .. }
            | Operation::Dense { .. }
            | Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool => true,
            Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => false,
        }
    }
}

impl Activation {
    /// Nothing.
    pub const NONE: Self = Activation { low: f64::NEG_INFINITY, high: f64::INFINITY };
    /// max(x, 0).
    pub const RELU: Self = Activation { low: 0.0, high: f64::INFINITY };
    /// min(max(x, 0), 6).
    pub const RELU6: Self = Activation { low: 0.0, high: 6.0 };
}
