//! The float network: layers and residual blocks in order, batch norm folded, as every importer delivers it.
//!
//! Activations are NHWC. A network is a chain of [`Stage`]s; what branches is inside a [`Block`].

use std::collections::BTreeMap;

use skipstone::Shape;

/// A float network, ready to be evaluated, calibrated and quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct FloatNetwork {
    /// Short name, shown by `inspect` and on the board.
    pub name: String,
    /// Shape of one input image.
    pub input: Shape,
    /// How raw pixel bytes become the network's real input.
    pub preprocessing: Preprocessing,
    /// The stages, in order of execution.
    pub stages: Vec<Stage>,
    /// One label per class; empty when unknown.
    pub labels: Vec<String>,
    /// What the file has quantized already; empty for a float model.
    pub quantized: Quantized,
}

/// Names one activation tensor of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId {
    /// Index of the stage in [`FloatNetwork::stages`].
    pub stage: usize,
    /// Which of the stage's tensors.
    pub part: Part,
}

/// Which tensor of a stage a [`TensorId`] names, in the order in which a run makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The network's input after preprocessing; in [`TensorId::INPUT`] only.
    Input,
    /// Output of a block's path convolution with this index, after its activation. The path's last
    /// convolution has a tensor of its own in [`Quantized`] alone: elsewhere its sum is completed by
    /// the shortcut.
    Path(usize),
    /// Output of a block's projection.
    Projection,
    /// The stage's output; for a block, after the addition and the activation.
    Output,
}

impl TensorId {
    /// The network's input after preprocessing.
    pub const INPUT: TensorId = TensorId { stage: 0, part: Part::Input };
}

/// What a file that is quantized already fixes; the network's float weights are what its integers stand
/// for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quantized {
    /// Scales and zero points of activation tensors.
    pub tensors: BTreeMap<TensorId, TensorScale>,
    /// What is known of a layer's weights, by the tensor that the layer makes.
    pub layers: BTreeMap<TensorId, LayerScales>,
}

/// What the int8 values of a tensor stand for: real = scale * (q - zero_point).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorScale {
    /// Real value of one step; finite and above zero.
    pub scale: f32,
    /// The int8 value of real zero.
    pub zero_point: i8,
}

/// How a layer's weights are quantized, symmetrically: its float weights are whole multiples, from -127 to
/// 127, of their scale.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerScales {
    /// Of the tensor that the layer reads.
    pub input: TensorScale,
    /// Real value of one step of the weights: one, or one per output.
    pub weights: Vec<f32>,
    /// Bias per output, in steps of the input's scale times the weights'.
    pub bias: Vec<i32>,
}

/// real = (pixel / 255 - mean\[channel\]) / std\[channel\], for a pixel in 0..=255.
///
/// One value per channel, or a single one that serves all channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    /// Mean per channel, in units of pixel / 255.
    pub mean: Vec<f32>,
    /// Standard deviation per channel, in units of pixel / 255; finite and above zero.
    pub std: Vec<f32>,
}

/// One step of the chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// Convolution.
    Conv2d(Conv2d),
    /// Maximum over windows; padding never wins.
    MaxPool2d(Pool2d),
    /// Mean over windows.
    AveragePool2d(Pool2d),
    /// Mean over height and width: H x W x C becomes 1 x 1 x C.
    GlobalAveragePool {
        /// Name of the layer in the source model.
        name: String,
    },
    /// Fully connected layer over the whole tensor, flattened in HWC order.
    Dense(Dense),
    /// Softmax over the channels; only as the last stage.
    Softmax,
    /// Residual block: identity, convolutional or padded, by its shortcut.
    Block(Block),
}

/// What follows a layer's sum, as a clamp.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
}

/// Convolution with bias; batch norm is folded already.
#[derive(Debug, Clone, PartialEq)]
pub struct Conv2d {
    /// Name of the layer in the source model, for messages and reports.
    pub name: String,
    /// Input channels.
    pub input_channels: usize,
    /// Output channels (equal to the input channels in a depthwise convolution).
    pub output_channels: usize,
    /// One filter per channel, channel multiplier 1.
    pub depthwise: bool,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding with real zeros: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Weights, OHWI (output channel, kernel row, kernel column, input channel); HWC when depthwise.
    pub weights: Vec<f32>,
    /// Bias per output channel.
    pub bias: Vec<f32>,
    /// Activation; `None` on the last convolution of a block's path, whose block has its own.
    pub activation: Activation,
}

/// Pooling over windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool2d {
    /// Name of the layer in the source model.
    pub name: String,
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Average pooling only: padded positions count in the divisor.
    pub count_include_pad: bool,
}

/// Fully connected layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Name of the layer in the source model.
    pub name: String,
    /// Length of the flattened input.
    pub inputs: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// Weights, output by input; inputs in HWC order.
    pub weights: Vec<f32>,
    /// Bias per output.
    pub bias: Vec<f32>,
    /// Activation.
    pub activation: Activation,
}

/// Residual block: activation(path(x) + shortcut(x)).
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Name of the block in the source model (for example `layer2.0`).
    pub name: String,
    /// Two or three convolutions.
    pub path: Vec<Conv2d>,
    /// What is added to the path's result.
    pub shortcut: Shortcut,
    /// Activation after the addition.
    pub activation: Activation,
}

/// A block's other way from input to output.
#[derive(Debug, Clone, PartialEq)]
pub enum Shortcut {
    /// The input itself (identity block).
    Identity,
    /// A 1 x 1 convolution, possibly strided, without activation (convolutional block).
    Projection(Conv2d),
    /// Strided subsampling, zero channels around ("option A").
    Padded {
        /// Vertical and horizontal stride.
        stride: [usize; 2],
        /// Zero channels in front of the input's channels; what is missing behind them is zero too.
        channels_before: usize,
    },
}
