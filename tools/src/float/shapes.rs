//! The shape of every tensor of a float network, proved to fit its neighbours before anything uses it.

use skipstone::Shape;

use super::{MAX_TENSOR_LENGTH, ShapeError, ShapeProblem};
use crate::network::{Activation, Block, Conv2d, FloatNetwork, Pool2d, Preprocessing, Shortcut, Stage};

/// Shapes of one stage: what goes in, what comes out and, for a block, what lies between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShapes {
    /// The stage's input.
    pub input: Shape,
    /// The stage's output.
    pub output: Shape,
    /// Output of each of a block's path convolutions; empty for every other stage.
    pub path: Vec<Shape>,
}

/// Checks the whole network and returns the shapes of each stage, in order.
///
/// After this, every weight and bias count matches its layer, every window has at least one real
/// position, no side is zero and every tensor has at most [`MAX_TENSOR_LENGTH`] values.
pub fn shapes(network: &FloatNetwork) -> Result<Vec<StageShapes>, ShapeError> {
    let input = network.input;
    check_input(&network.preprocessing, input).map_err(|problem| problem.of("input"))?;
    if network.stages.is_empty() {
        return Err(ShapeProblem::NoStages.of("input"));
    }
    let mut stages: Vec<StageShapes> = Vec::with_capacity(network.stages.len());
    for (index, stage) in network.stages.iter().enumerate() {
        let input = stages.last().map_or(input, |previous| previous.output);
        let mut path = Vec::new();
        let output = match stage {
            Stage::Conv2d(conv) => conv2d(conv, input)?,
            Stage::MaxPool2d(pool) | Stage::AveragePool2d(pool) => {
                pool2d(pool, input).map_err(|problem| problem.of(&pool.name))?
            }
            Stage::GlobalAveragePool { .. } => Shape::new(1, 1, input.channels),
            Stage::Dense(layer) => dense(layer.inputs, layer.outputs, &layer.weights, &layer.bias, input)
                .map_err(|problem| problem.of(&layer.name))?,
            Stage::Softmax if index + 1 < network.stages.len() => {
                return Err(ShapeProblem::SoftmaxNotLast.of("softmax"));
            }
            Stage::Softmax => input,
            Stage::Block(layer) => {
                path = block(layer, input)?;
                path[path.len() - 1]
            }
        };
        stages.push(StageShapes { input, output, path });
    }
    Ok(stages)
}

fn check_input(preprocessing: &Preprocessing, input: Shape) -> Result<(), ShapeProblem> {
    tensor(input.height.into(), input.width.into(), input.channels.into())?;
    let Preprocessing { mean, std } = preprocessing;
    let fits = |values: &[f32]| values.len() == 1 || values.len() == usize::from(input.channels);
    if !fits(mean) || !fits(std) {
        let (mean, std) = (mean.len(), std.len());
        return Err(ShapeProblem::PreprocessingLength { mean, std, channels: input.channels });
    }
    if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err(ShapeProblem::PreprocessingValue);
    }
    Ok(())
}

/// A shape with these sides, if it is a legal tensor.
fn tensor(height: usize, width: usize, channels: usize) -> Result<Shape, ShapeProblem> {
    let too_large = ShapeProblem::TooLarge([height, width, channels]);
    let side = |side: usize| u16::try_from(side).map_err(|_| too_large.clone());
    let shape = Shape::new(side(height)?, side(width)?, side(channels)?);
    match shape.len() {
        0 => Err(ShapeProblem::Empty(shape)),
        1..=MAX_TENSOR_LENGTH => Ok(shape),
        _ => Err(too_large),
    }
}

fn conv2d(conv: &Conv2d, input: Shape) -> Result<Shape, ShapeError> {
    let (inputs, outputs) = (conv.input_channels, conv.output_channels);
    if conv.depthwise && inputs != outputs {
        return Err(ShapeProblem::ChannelMultiplier { inputs, outputs }.of(&conv.name));
    }
    let depth = if conv.depthwise { 1 } else { inputs };
    filters(conv, depth, input).map_err(|problem| problem.of(&conv.name))
}

/// Shape after a convolution whose filters are `depth` channels deep.
fn filters(conv: &Conv2d, depth: usize, input: Shape) -> Result<Shape, ShapeProblem> {
    if conv.input_channels != usize::from(input.channels) {
        return Err(ShapeProblem::Channels { takes: conv.input_channels, input });
    }
    let output = window(conv.kernel, conv.stride, conv.padding, input, conv.output_channels)?;
    let taps = conv.kernel[0].saturating_mul(conv.kernel[1]).saturating_mul(depth);
    parameters(&conv.weights, &conv.bias, conv.output_channels, taps)?;
    Ok(output)
}

fn pool2d(pool: &Pool2d, input: Shape) -> Result<Shape, ShapeProblem> {
    let output = window(pool.kernel, pool.stride, pool.padding, input, input.channels.into())?;
    let [top, left, ..] = pool.padding;
    // The last window's first position, counted from the first padded one: `window` has bounded the product.
    let last =
        [(usize::from(output.height) - 1) * pool.stride[0], (usize::from(output.width) - 1) * pool.stride[1]];
    let empty_before = top >= pool.kernel[0] || left >= pool.kernel[1];
    let empty_after =
        last[0] >= top + usize::from(input.height) || last[1] >= left + usize::from(input.width);
    if empty_before || empty_after {
        return Err(ShapeProblem::EmptyWindow);
    }
    Ok(output)
}

fn dense(
    inputs: usize,
    outputs: usize,
    weights: &[f32],
    bias: &[f32],
    input: Shape,
) -> Result<Shape, ShapeProblem> {
    if inputs != input.len() {
        return Err(ShapeProblem::DenseInputs { takes: inputs, input });
    }
    let output = tensor(1, 1, outputs)?;
    parameters(weights, bias, outputs, inputs)?;
    Ok(output)
}

/// Shapes after each of the path's convolutions; the last is the block's own.
fn block(block: &Block, input: Shape) -> Result<Vec<Shape>, ShapeError> {
    if !(2..=3).contains(&block.path.len()) {
        return Err(ShapeProblem::PathLength(block.path.len()).of(&block.name));
    }
    let last = &block.path[block.path.len() - 1];
    if last.activation != Activation::None {
        return Err(ShapeProblem::ActivationBeforeAddition.of(&last.name));
    }
    let mut shapes = Vec::with_capacity(block.path.len());
    let mut path = input;
    for conv in &block.path {
        path = conv2d(conv, path)?;
        shapes.push(path);
    }
    let shortcut = match &block.shortcut {
        Shortcut::Identity => input,
        Shortcut::Projection(conv) => projection(conv, input)?,
        Shortcut::Padded { stride, channels_before } => {
            padded(*stride, *channels_before, input, path).map_err(|problem| problem.of(&block.name))?
        }
    };
    if path != shortcut {
        return Err(ShapeProblem::Addition { path, shortcut }.of(&block.name));
    }
    Ok(shapes)
}

fn projection(conv: &Conv2d, input: Shape) -> Result<Shape, ShapeError> {
    if conv.kernel != [1, 1] || conv.padding != [0; 4] || conv.depthwise {
        return Err(ShapeProblem::Projection.of(&conv.name));
    }
    if conv.activation != Activation::None {
        return Err(ShapeProblem::ActivationBeforeAddition.of(&conv.name));
    }
    conv2d(conv, input)
}

/// Shape of a padded shortcut, which always has the path's channels: zeros fill what is missing.
fn padded(stride: [usize; 2], before: usize, input: Shape, path: Shape) -> Result<Shape, ShapeProblem> {
    if before.saturating_add(input.channels.into()) > usize::from(path.channels) {
        return Err(ShapeProblem::ShortcutChannels { before, input, path });
    }
    window([1, 1], stride, [0; 4], input, path.channels.into())
}

/// Shape after windows of `kernel` have moved over the padded input by `stride`.
fn window(
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
    input: Shape,
    channels: usize,
) -> Result<Shape, ShapeProblem> {
    if kernel.contains(&0) || stride.contains(&0) {
        return Err(ShapeProblem::ZeroWindow { kernel, stride });
    }
    let [top, left, bottom, right] = padding;
    let padded = [
        usize::from(input.height).saturating_add(top).saturating_add(bottom),
        usize::from(input.width).saturating_add(left).saturating_add(right),
    ];
    // Bounding the padded sides keeps every later position far from overflow.
    if padded.iter().any(|side| *side > usize::from(u16::MAX)) {
        return Err(ShapeProblem::TooLarge([padded[0], padded[1], input.channels.into()]));
    }
    if kernel[0] > padded[0] || kernel[1] > padded[1] {
        return Err(ShapeProblem::Kernel { kernel, padded });
    }
    tensor((padded[0] - kernel[0]) / stride[0] + 1, (padded[1] - kernel[1]) / stride[1] + 1, channels)
}

fn parameters(weights: &[f32], bias: &[f32], outputs: usize, taps: usize) -> Result<(), ShapeProblem> {
    let expected = outputs.saturating_mul(taps);
    if weights.len() != expected {
        return Err(ShapeProblem::Weights { expected, found: weights.len() });
    }
    if bias.len() != outputs {
        return Err(ShapeProblem::Bias { expected: outputs, found: bias.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Dense, Quantized};

    fn conv(
        name: &str,
        channels: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> Conv2d {
        Conv2d {
            name: name.to_string(),
            input_channels: channels[0],
            output_channels: channels[1],
            depthwise: false,
            kernel,
            stride,
            padding,
            weights: vec![0.5; channels[0] * channels[1] * kernel[0] * kernel[1]],
            bias: vec![0.0; channels[1]],
            activation: Activation::None,
        }
    }

    fn conv3(name: &str, inputs: usize, outputs: usize, stride: usize) -> Conv2d {
        conv(name, [inputs, outputs], [3, 3], [stride, stride], [1; 4])
    }

    fn pool(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4]) -> Pool2d {
        Pool2d { name: "pool".into(), kernel, stride, padding, count_include_pad: false }
    }

    fn block(path: Vec<Conv2d>, shortcut: Shortcut) -> Stage {
        Stage::Block(Block { name: "block".into(), path, shortcut, activation: Activation::Relu })
    }

    fn network(stages: Vec<Stage>) -> FloatNetwork {
        FloatNetwork {
            name: "test".into(),
            input: Shape::new(32, 24, 3),
            preprocessing: Preprocessing { mean: vec![0.5], std: vec![0.25, 0.25, 0.25] },
            stages,
            labels: Vec::new(),
            quantized: Quantized::default(),
        }
    }

    #[test]
    fn every_stage_of_a_residual_network_has_its_shape() {
        let stages = vec![
            Stage::Conv2d(conv("conv", [3, 8], [7, 5], [2, 2], [3, 2, 3, 2])),
            Stage::MaxPool2d(pool([3, 3], [2, 2], [1, 1, 0, 0])),
            block(vec![conv3("a", 8, 8, 1), conv3("b", 8, 8, 1)], Shortcut::Identity),
            block(
                vec![conv3("c", 8, 4, 2), conv3("d", 4, 4, 1), conv("e", [4, 16], [1, 1], [1, 1], [0; 4])],
                Shortcut::Projection(conv("f", [8, 16], [1, 1], [2, 2], [0; 4])),
            ),
            block(
                vec![conv3("g", 16, 32, 2), conv3("h", 32, 32, 1)],
                Shortcut::Padded { stride: [2, 2], channels_before: 8 },
            ),
            Stage::GlobalAveragePool { name: "mean".into() },
            Stage::Dense(Dense {
                name: "fc".into(),
                inputs: 32,
                outputs: 10,
                weights: vec![0.0; 320],
                bias: vec![0.0; 10],
                activation: Activation::None,
            }),
            Stage::Softmax,
        ];
        let shapes = shapes(&network(stages)).unwrap();
        let outputs: Vec<String> = shapes.iter().map(|stage| stage.output.to_string()).collect();
        assert_eq!(outputs, ["16x12x8", "8x6x8", "8x6x8", "4x3x16", "2x2x32", "1x1x32", "1x1x10", "1x1x10"]);
        let path: Vec<String> = shapes[3].path.iter().map(|shape| shape.to_string()).collect();
        assert_eq!(path, ["4x3x4", "4x3x4", "4x3x16"]);
        assert!(shapes.windows(2).all(|pair| pair[0].output == pair[1].input));
    }

    /// The message of the one error that this network must give.
    fn refusal(stages: Vec<Stage>) -> String {
        shapes(&network(stages)).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let good = conv3("conv", 3, 8, 1);
        let changed = |change: &dyn Fn(&mut Conv2d)| {
            let mut conv = good.clone();
            change(&mut conv);
            refusal(vec![Stage::Conv2d(conv)])
        };
        let cases = [
            (refusal(vec![]), "input: the network has no layers"),
            (
                refusal(vec![Stage::Conv2d(conv3("conv", 4, 8, 1))]),
                "conv: takes 4 channels but its input 32x24x3 has 3",
            ),
            (changed(&|conv| conv.weights.truncate(215)), "conv: has 215 weights where its shape needs 216"),
            (changed(&|conv| conv.bias.push(0.0)), "conv: has 9 biases where it has 8 outputs"),
            (
                changed(&|conv| conv.stride[1] = 0),
                "conv: kernel 3x3 with stride 1x0: all of them must be at least 1",
            ),
            (
                changed(&|conv| conv.kernel = [0, 3]),
                "conv: kernel 0x3 with stride 1x1: all of them must be at least 1",
            ),
            (
                changed(&|conv| conv.kernel = [3, 27]),
                "conv: kernel 3x27 does not fit in the padded input 34x26",
            ),
            (
                changed(&|conv| conv.padding[0] = usize::MAX),
                "conv: a tensor of 18446744073709551615x26x3 is too large",
            ),
            (changed(&|conv| conv.padding = [9000; 4]), "conv: a tensor of 18030x18022x8 is too large"),
            (changed(&|conv| conv.output_channels = 0), "conv: shape 32x24x0 has a side of zero"),
            (changed(&|conv| conv.depthwise = true), "conv: is depthwise but makes 8 channels from 3"),
            (
                refusal(vec![Stage::MaxPool2d(pool([2, 2], [2, 2], [2, 0, 0, 0]))]),
                "pool: some of its windows lie wholly in the padding",
            ),
            (
                refusal(vec![Stage::AveragePool2d(pool([2, 2], [2, 2], [0, 0, 0, 2]))]),
                "pool: some of its windows lie wholly in the padding",
            ),
            (
                refusal(vec![Stage::Softmax, Stage::Conv2d(good.clone())]),
                "softmax: softmax is supported as the last layer only",
            ),
            (
                refusal(vec![Stage::Dense(Dense {
                    name: "fc".into(),
                    inputs: 10,
                    outputs: 1,
                    weights: vec![0.0; 10],
                    bias: vec![0.0],
                    activation: Activation::None,
                })]),
                "fc: takes 10 values but its input 32x24x3 has 2304",
            ),
            (
                refusal(vec![block(vec![conv3("a", 3, 3, 1)], Shortcut::Identity)]),
                "block: the path has 1 convolutions",
            ),
            (
                refusal(vec![block(vec![conv3("a", 3, 3, 2), conv3("b", 3, 3, 1)], Shortcut::Identity)]),
                "block: the path gives 16x12x3 and the shortcut 32x24x3; they cannot be added",
            ),
            (
                refusal(vec![block(
                    vec![conv3("a", 3, 8, 1), Conv2d { activation: Activation::Relu, ..conv3("b", 8, 3, 1) }],
                    Shortcut::Identity,
                )]),
                "b: has an activation before the block's addition",
            ),
            (
                refusal(vec![block(
                    vec![conv3("a", 3, 8, 1), conv3("b", 8, 8, 1)],
                    Shortcut::Projection(conv3("p", 3, 8, 1)),
                )]),
                "p: a projection shortcut is a 1x1 convolution without padding",
            ),
            (
                refusal(vec![block(
                    vec![conv3("a", 3, 8, 1), conv3("b", 8, 8, 1)],
                    Shortcut::Padded { stride: [1, 1], channels_before: 6 },
                )]),
                "block: the padded shortcut puts 6 zero channels before 3 input channels; the path has",
            ),
            (
                refusal(vec![block(
                    vec![conv3("a", 3, 8, 2), conv3("b", 8, 8, 1)],
                    Shortcut::Padded { stride: [2, 1], channels_before: 0 },
                )]),
                "block: the path gives 16x12x8 and the shortcut 16x24x8; they cannot be added",
            ),
        ];
        for (message, expected) in cases {
            assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
        }
    }

    #[test]
    fn input_and_preprocessing_are_checked() {
        let good = || network(vec![Stage::Conv2d(conv3("conv", 3, 8, 1))]);
        let refusal = |change: &dyn Fn(&mut FloatNetwork)| {
            let mut network = good();
            change(&mut network);
            shapes(&network).unwrap_err().problem
        };
        assert!(shapes(&good()).is_ok());
        let empty = Shape::new(0, 24, 3);
        assert_eq!(refusal(&|network| network.input = empty), ShapeProblem::Empty(empty));
        assert_eq!(
            refusal(&|network| network.input = Shape::new(u16::MAX, u16::MAX, 3)),
            ShapeProblem::TooLarge([65535, 65535, 3])
        );
        assert_eq!(
            refusal(&|network| network.preprocessing.mean = vec![0.5; 2]),
            ShapeProblem::PreprocessingLength { mean: 2, std: 3, channels: 3 }
        );
        for std in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(
                refusal(&|network| network.preprocessing.std = vec![std]),
                ShapeProblem::PreprocessingValue
            );
        }
        assert_eq!(
            refusal(&|network| network.preprocessing.mean = vec![f32::NAN]),
            ShapeProblem::PreprocessingValue
        );
    }
}
