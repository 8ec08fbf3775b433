//! What can be wrong with a float network: which layer, and what does not fit.

use skipstone::Shape;
use thiserror::Error;

/// Most values that one activation tensor may hold (512 x 512 x 64).
///
/// Far beyond any microcontroller; it keeps a hostile file from asking for all of the host's memory.
pub const MAX_TENSOR_LENGTH: usize = 1 << 24;

/// A network whose parts do not fit each other.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{layer}: {problem}")]
pub struct ShapeError {
    /// Name of the layer in the source model; `input` for what precedes the first.
    pub layer: String,
    /// What does not fit.
    pub problem: ShapeProblem,
}

/// What does not fit in a [`ShapeError`].
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the message beside each variant says what its numbers are")]
pub enum ShapeProblem {
    #[error("the network has no layers")]
    NoStages,
    #[error("shape {0} has a side of zero")]
    Empty(Shape),
    #[error(
        "a tensor of {}x{}x{} is too large: sides go to 65535, all values together to {MAX_TENSOR_LENGTH}",
        .0[0], .0[1], .0[2]
    )]
    TooLarge([usize; 3]),
    #[error(
        "preprocessing has {mean} means and {std} standard deviations; \
         each must be one value, or one per input channel ({channels})"
    )]
    PreprocessingLength { mean: usize, std: usize, channels: u16 },
    #[error("preprocessing needs finite means and finite standard deviations above zero")]
    PreprocessingValue,
    #[error("takes {takes} channels but its input {input} has {}", .input.channels)]
    Channels { takes: usize, input: Shape },
    #[error("takes {takes} values but its input {input} has {}", .input.len())]
    DenseInputs { takes: usize, input: Shape },
    #[error(
        "is depthwise but makes {outputs} channels from {inputs}; only one per input channel is supported"
    )]
    ChannelMultiplier { inputs: usize, outputs: usize },
    #[error(
        "kernel {}x{} with stride {}x{}: all of them must be at least 1",
        .kernel[0], .kernel[1], .stride[0], .stride[1]
    )]
    ZeroWindow { kernel: [usize; 2], stride: [usize; 2] },
    #[error(
        "kernel {}x{} does not fit in the padded input {}x{}",
        .kernel[0], .kernel[1], .padded[0], .padded[1]
    )]
    Kernel { kernel: [usize; 2], padded: [usize; 2] },
    #[error("some of its windows lie wholly in the padding and have no value")]
    EmptyWindow,
    #[error("has {found} weights where its shape needs {expected}")]
    Weights { expected: usize, found: usize },
    #[error("has {found} biases where it has {expected} outputs")]
    Bias { expected: usize, found: usize },
    #[error("softmax is supported as the last layer only")]
    SoftmaxNotLast,
    #[error("the path has {0} convolutions; blocks have two or three")]
    PathLength(usize),
    #[error("has an activation before the block's addition; only the block itself may have one there")]
    ActivationBeforeAddition,
    #[error("a projection shortcut is a 1x1 convolution without padding")]
    Projection,
    #[error("the path gives {path} and the shortcut {shortcut}; they cannot be added")]
    Addition { path: Shape, shortcut: Shape },
    #[error(
        "the padded shortcut puts {before} zero channels before {} input channels; the path has only {}",
        .input.channels, .path.channels
    )]
    ShortcutChannels { before: usize, input: Shape, path: Shape },
}

impl ShapeProblem {
    pub(super) fn of(self, layer: &str) -> ShapeError {
        ShapeError { layer: layer.to_string(), problem: self }
    }
}
