//! Limits of shapes, and what does not fit.

use skipstone::Shape;
use thiserror::Error;

/// Most values that one tensor may hold (512 x 512 x 64).
///
/// Far beyond any microcontroller; it keeps a hostile file from asking for all of the host's memory, and
/// products of sizes from overflowing.
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
    NoLayers,
    #[error("the network has no outputs")]
    NoOutputs,
    #[error("a tensor of {}x{}x{} has a side of zero", .0[0], .0[1], .0[2])]
    Empty([usize; 3]),
    #[error(
        "a tensor of {}x{}x{} is too large: sides go to 65535, all values together to {MAX_TENSOR_LENGTH}",
        .0[0], .0[1], .0[2]
    )]
    TooLarge([usize; 3]),
    #[error(
        "preprocessing has {mean} means and {std} standard deviations; \
         expected one value of each, or one per input channel ({channels})"
    )]
    PreprocessingLength { mean: usize, std: usize, channels: u16 },
    #[error("preprocessing needs finite means and finite standard deviations above zero")]
    PreprocessingValue,
    #[error("reads {found} tensors, expected {expected}")]
    Inputs { expected: usize, found: usize },
    #[error("reads a tensor that no layer before it makes")]
    Order,
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
        "kernel {}x{} does not fit into the padded input of {}x{}",
        .kernel[0], .kernel[1], .padded[0], .padded[1]
    )]
    Kernel { kernel: [usize; 2], padded: [usize; 2] },
    #[error("some of its windows lie wholly in the padding and have no value")]
    EmptyWindow,
    #[error("expected {expected} {what} for an input of {input}, found {found}")]
    Parameters { what: &'static str, expected: usize, found: usize, input: Shape },
    #[error("has no weights")]
    NoWeights,
    #[error("has weights, but only convolutions, dense layers and affines may")]
    UnexpectedWeights,
    #[error("adds a tensor of {} to one of {}", .0[1], .0[0])]
    Addition([Shape; 2]),
    #[error("a stride of 0")]
    ZeroStride,
    #[error("has a shortcut, but only convolutions may")]
    UnexpectedShortcut,
    #[error("adds a shortcut of {shortcut} at stride {}x{} to {sum}", .stride[0], .stride[1])]
    ShortcutSize { shortcut: Shape, stride: [usize; 2], sum: Shape },
    #[error(
        "its shortcut puts {before} zero channels before {} channels; its own result has only {}",
        .shortcut.channels, .sum.channels
    )]
    ShortcutChannels { before: usize, shortcut: Shape, sum: Shape },
    #[error("clamps to {low} .. {high}, a range without zero")]
    Activation { low: f64, high: f64 },
    #[error("says that it makes {says}, but makes {makes}")]
    Shape { says: Shape, makes: Shape },
    #[error("the passes have not removed it; the runtime has no such layer")]
    NotFinal,
}

impl ShapeProblem {
    pub(super) fn of(self, layer: &str) -> ShapeError {
        ShapeError { layer: layer.to_string(), problem: self }
    }
}

/// A shape with these sides.
///
/// # Errors
/// If a side is 0 or above 65535, or the tensor has more than [`MAX_TENSOR_LENGTH`] values.
pub(crate) fn checked_shape(height: usize, width: usize, channels: usize) -> Result<Shape, ShapeProblem> {
    let sides = [height, width, channels];
    if sides.contains(&0) {
        return Err(ShapeProblem::Empty(sides));
    }
    let side = |side: usize| u16::try_from(side).map_err(|_| ShapeProblem::TooLarge(sides));
    let shape = Shape::new(side(height)?, side(width)?, side(channels)?);
    let values = sides.iter().map(|&side| side as u64).product::<u64>();
    if values > MAX_TENSOR_LENGTH as u64 { Err(ShapeProblem::TooLarge(sides)) } else { Ok(shape) }
}
