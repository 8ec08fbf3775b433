//! Float inference of a network's layer list: the reference for calibration and for `eval --against`.

mod error;
pub(crate) mod kernels;
mod shapes;

use std::mem::swap;
use std::sync::{Mutex, PoisonError};

pub use error::{MAX_TENSOR_LENGTH, ShapeError, ShapeProblem};
pub use shapes::{StageShapes, shapes};

use crate::network::{Block, FloatNetwork, Shortcut, Stage};
pub use crate::network::{Part, TensorId};

/// Runs a float network, one image at a time; share it between threads to run many.
///
/// ```
/// # use skipstone_tools::{float::Evaluator, network::*};
/// # use skipstone::Shape;
/// # let network = FloatNetwork {
/// #     name: "mean".into(),
/// #     input: Shape::new(1, 2, 1),
/// #     preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
/// #     stages: vec![Stage::GlobalAveragePool { name: "mean".into() }],
/// #     labels: Vec::new(),
/// #     quantized: Quantized::default(),
/// # };
/// use rayon::prelude::*;
///
/// let evaluator = Evaluator::new(&network)?;
/// let images = [[0, 255], [51, 51]];
/// let scores: Vec<Vec<f32>> =
///     images.par_iter().map(|image| evaluator.run(image, &mut |_, _| {})).collect();
/// assert_eq!(scores, [[0.5], [0.2]]);
///
/// // Calibration: every thread folds its images, then the threads' results are merged.
/// let largest = images
///     .par_iter()
///     .fold(|| 0.0, |mut largest: f32, image| {
///         evaluator.run(image, &mut |_tensor, values| {
///             largest = values.iter().copied().fold(largest, f32::max);
///         });
///         largest
///     })
///     .reduce(|| 0.0, f32::max);
/// assert_eq!(largest, 1.0);
/// # Ok::<(), skipstone_tools::float::ShapeError>(())
/// ```
#[derive(Debug)]
pub struct Evaluator<'n> {
    network: &'n FloatNetwork,
    shapes: Vec<StageShapes>,
    /// Buffers of runs that have ended, for the next ones: as many as ever ran at the same time.
    idle: Mutex<Vec<Buffers>>,
}

/// The tensors that one run needs at a time.
#[derive(Debug, Default)]
struct Buffers {
    input: Vec<f32>,
    output: Vec<f32>,
    /// A block's path, between its convolutions.
    path: Vec<f32>,
    next: Vec<f32>,
    projection: Vec<f32>,
    columns: Vec<f32>,
}

impl<'n> Evaluator<'n> {
    /// Checks the network with [`shapes`].
    pub fn new(network: &'n FloatNetwork) -> Result<Self, ShapeError> {
        Ok(Evaluator { network, shapes: shapes(network)?, idle: Mutex::default() })
    }

    /// The shapes of each stage, in order.
    pub fn shapes(&self) -> &[StageShapes] {
        &self.shapes
    }

    /// Runs the network on one image, raw bytes in HWC order, and returns the last stage's output.
    ///
    /// `observe` is called with every activation tensor (NHWC) in the order of execution: first
    /// [`TensorId::INPUT`], then for each stage its output; for a block first each of its path's
    /// tensors, then its projection's, then its output.
    ///
    /// # Panics
    ///
    /// If the image has not exactly one byte for each value of the network's input.
    pub fn run(&self, image: &[u8], observe: &mut dyn FnMut(TensorId, &[f32])) -> Vec<f32> {
        let mut buffers = self.lock().pop().unwrap_or_default();
        self.preprocess(image, &mut buffers.input);
        observe(TensorId::INPUT, &buffers.input);
        for (index, (stage, shapes)) in self.network.stages.iter().zip(&self.shapes).enumerate() {
            let Buffers { input, output, columns, .. } = &mut buffers;
            let sides = [shapes.input, shapes.output];
            match stage {
                Stage::Conv2d(conv) => kernels::conv2d(conv, sides, input, columns, output),
                Stage::MaxPool2d(pool) => kernels::max_pool2d(pool, sides, input, output),
                Stage::AveragePool2d(pool) => kernels::average_pool2d(pool, sides, input, output),
                Stage::GlobalAveragePool { .. } => kernels::global_average_pool(shapes.input, input, output),
                Stage::Dense(dense) => kernels::dense(dense, input, output),
                Stage::Softmax => kernels::softmax(shapes.input.channels.into(), input, output),
                Stage::Block(block) => buffers.run_block(block, shapes, &mut |part, values| {
                    observe(TensorId { stage: index, part }, values);
                }),
            }
            observe(TensorId { stage: index, part: Part::Output }, &buffers.output);
            swap(&mut buffers.input, &mut buffers.output);
        }
        let scores = buffers.input.clone();
        self.lock().push(buffers);
        scores
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffers>> {
        // A panic elsewhere leaves nothing half done here: buffers are overwritten before they are read.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pixel bytes to the network's real input.
    pub(crate) fn preprocess(&self, image: &[u8], input: &mut Vec<f32>) {
        let shape = self.network.input;
        assert_eq!(image.len(), shape.len(), "bytes of an image of {shape}");
        let preprocessing = &self.network.preprocessing;
        let channel = |values: &[f32], channel: usize| values[channel.min(values.len() - 1)];
        input.clear();
        for pixel in image.chunks_exact(shape.channels.into()) {
            input.extend(pixel.iter().enumerate().map(|(index, value)| {
                let (mean, std) = (channel(&preprocessing.mean, index), channel(&preprocessing.std, index));
                (f32::from(*value) / 255.0 - mean) / std
            }));
        }
    }
}

impl Buffers {
    /// activation(path(input) + shortcut(input)), from `input` to `output`.
    fn run_block(&mut self, block: &Block, shapes: &StageShapes, observe: &mut dyn FnMut(Part, &[f32])) {
        let Buffers { input, output, path, next, projection, columns } = self;
        let last = block.path.len() - 1;
        let mut from = shapes.input;
        for (index, (conv, to)) in block.path.iter().zip(&shapes.path).enumerate() {
            let source = if index == 0 { &*input } else { &*path };
            let target = if index == last { &mut *output } else { &mut *next };
            kernels::conv2d(conv, [from, *to], source, columns, target);
            if index < last {
                observe(Part::Path(index), next);
                swap(path, next);
            }
            from = *to;
        }
        let sides = [shapes.input, shapes.output];
        match &block.shortcut {
            Shortcut::Identity => kernels::add(output, input),
            Shortcut::Projection(conv) => {
                kernels::conv2d(conv, sides, input, columns, projection);
                observe(Part::Projection, projection);
                kernels::add(output, projection);
            }
            Shortcut::Padded { stride, channels_before } => {
                kernels::add_padded(*stride, *channels_before, sides, input, output);
            }
        }
        kernels::activate(block.activation, output);
    }
}

#[cfg(test)]
mod tests {
    use skipstone::Shape;

    use super::*;
    use crate::network::{Activation, Conv2d, Dense, Preprocessing, Quantized};

    fn network(input: Shape, stages: Vec<Stage>) -> FloatNetwork {
        let preprocessing = Preprocessing { mean: vec![0.5], std: vec![0.25] };
        let quantized = Quantized::default();
        FloatNetwork { name: "test".into(), input, preprocessing, stages, labels: Vec::new(), quantized }
    }

    /// A 3x3 convolution whose every weight is `weight` and whose every bias is `bias`.
    fn conv(inputs: usize, outputs: usize, stride: usize, weight: f32, bias: f32) -> Conv2d {
        Conv2d {
            name: "conv".into(),
            input_channels: inputs,
            output_channels: outputs,
            depthwise: false,
            kernel: [3, 3],
            stride: [stride; 2],
            padding: [1; 4],
            weights: vec![weight; outputs * 9 * inputs],
            bias: vec![bias; outputs],
            activation: Activation::None,
        }
    }

    fn block(path: Vec<Conv2d>, shortcut: Shortcut, activation: Activation) -> Stage {
        Stage::Block(Block { name: "block".into(), path, shortcut, activation })
    }

    /// Every tensor of a run, in order.
    fn trace(network: &FloatNetwork, image: &[u8]) -> Vec<(TensorId, Vec<f32>)> {
        let mut tensors = Vec::new();
        let evaluator = Evaluator::new(network).unwrap();
        let scores = evaluator.run(image, &mut |id, values| tensors.push((id, values.to_vec())));
        assert_eq!(scores, tensors.last().unwrap().1);
        tensors
    }

    fn image(shape: Shape) -> Vec<u8> {
        (0..shape.len()).map(|index| (index * 97 % 256) as u8).collect()
    }

    #[test]
    fn a_block_with_zero_weights_is_relu_of_its_shortcut() {
        let shape = Shape::new(5, 4, 3);
        for count in [2, 3] {
            let path = vec![conv(3, 3, 1, 0.0, 0.0); count];
            let network = network(shape, vec![block(path, Shortcut::Identity, Activation::Relu)]);
            let tensors = trace(&network, &image(shape));
            let relu: Vec<f32> = tensors[0].1.iter().map(|value| value.max(0.0)).collect();
            assert!(
                tensors[0].1.iter().any(|value| *value < 0.0),
                "the input has to have something to clamp"
            );
            assert_eq!(tensors.last().unwrap().1, relu);
        }
    }

    #[test]
    fn a_padded_shortcut_takes_every_second_position_between_zero_channels() {
        let shape = Shape::new(3, 4, 2);
        let path = vec![conv(2, 5, 2, 0.0, 0.0), conv(5, 5, 1, 0.0, 0.0)];
        let shortcut = Shortcut::Padded { stride: [2, 2], channels_before: 1 };
        let network = network(shape, vec![block(path, shortcut, Activation::None)]);
        let tensors = trace(&network, &image(shape));
        let input = &tensors[0].1;
        let expected: Vec<f32> = [[0, 0], [0, 2], [2, 0], [2, 2]]
            .into_iter()
            .flat_map(|[y, x]| {
                let at = (y * 4 + x) * 2;
                [0.0, input[at], input[at + 1], 0.0, 0.0]
            })
            .collect();
        assert_eq!(tensors.last().unwrap().1, expected);
    }

    #[test]
    fn a_projection_is_added_before_the_activation() {
        let shape = Shape::new(2, 2, 1);
        let path = vec![conv(1, 1, 2, 0.0, -1.0), conv(1, 1, 1, 0.0, -1.0)];
        let projection = Conv2d {
            kernel: [1, 1],
            padding: [0; 4],
            weights: vec![-2.0],
            bias: vec![1.0],
            ..conv(1, 1, 2, 0.0, 0.0)
        };
        let shortcut = Shortcut::Projection(projection);
        let network = network(shape, vec![block(path, shortcut, Activation::Relu)]);
        // Preprocessed: (0/255 - 0.5) / 0.25 = -2 and 2; projected: -2 * -2 + 1 = 5 and -3; path: -1.
        let last = |pixel| trace(&network, &[pixel, 9, 9, 9]).pop().unwrap().1;
        assert_eq!(last(0), [4.0]);
        assert_eq!(last(255), [0.0]);
    }

    #[test]
    fn padding_is_zero_after_preprocessing() {
        // Byte 255 is 2 everywhere, and only real positions add to the sum.
        let shape = Shape::new(3, 3, 1);
        let network = network(shape, vec![Stage::Conv2d(conv(1, 1, 1, 1.0, 0.0))]);
        let tensors = trace(&network, &[255; 9]);
        assert_eq!(tensors[1].1, [8.0, 12.0, 8.0, 12.0, 18.0, 12.0, 8.0, 12.0, 8.0]);
    }

    #[test]
    fn each_channel_has_its_own_mean_and_standard_deviation() {
        let shape = Shape::new(1, 2, 3);
        let mut network = network(shape, vec![Stage::GlobalAveragePool { name: "mean".into() }]);
        network.preprocessing = Preprocessing { mean: vec![0.0, 0.5, 1.0], std: vec![1.0, 0.5, 2.0] };
        let tensors = trace(&network, &[255, 255, 255, 0, 0, 0]);
        assert_eq!(tensors[0].1, [1.0, 1.0, 0.0, 0.0, -1.0, -0.5]);
        assert_eq!(tensors[1].1, [0.5, 0.0, -0.25]);
    }

    #[test]
    fn tensors_are_observed_in_the_documented_order() {
        let shape = Shape::new(4, 4, 2);
        let projection =
            Conv2d { kernel: [1, 1], padding: [0; 4], weights: vec![1.0; 6], ..conv(2, 3, 1, 0.0, 0.0) };
        let dense = Dense {
            name: "fc".into(),
            inputs: 3,
            outputs: 2,
            weights: vec![1.0; 6],
            bias: vec![0.0; 2],
            activation: Activation::None,
        };
        let stages = vec![
            Stage::Conv2d(Conv2d { activation: Activation::Relu6, ..conv(2, 2, 1, 1.0, 0.0) }),
            block(
                vec![conv(2, 3, 1, 0.1, 0.0), conv(3, 3, 1, 0.1, 0.0), conv(3, 3, 1, 0.1, 0.0)],
                Shortcut::Projection(projection),
                Activation::Relu,
            ),
            Stage::GlobalAveragePool { name: "mean".into() },
            Stage::Dense(dense),
            Stage::Softmax,
        ];
        let tensors = trace(&network(shape, stages), &image(shape));
        let order: Vec<(usize, Part, usize)> =
            tensors.iter().map(|(id, values)| (id.stage, id.part, values.len())).collect();
        assert_eq!(
            order,
            [
                (0, Part::Input, 32),
                (0, Part::Output, 32),
                (1, Part::Path(0), 48),
                (1, Part::Path(1), 48),
                (1, Part::Projection, 48),
                (1, Part::Output, 48),
                (2, Part::Output, 3),
                (3, Part::Output, 2),
                (4, Part::Output, 2),
            ]
        );
        assert!(tensors.is_sorted_by_key(|(id, _)| *id), "the ids sort in the order of execution");
        assert!(tensors[1].1.iter().all(|value| (0.0..=6.0).contains(value)));
        assert!((tensors[8].1.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn buffers_left_by_one_run_do_not_change_the_next() {
        let shape = Shape::new(4, 4, 2);
        let shortcut = Shortcut::Padded { stride: [2, 2], channels_before: 0 };
        let path = vec![conv(2, 4, 2, 0.3, 0.1), conv(4, 4, 1, -0.2, 0.0)];
        let network = network(shape, vec![block(path, shortcut, Activation::Relu)]);
        let evaluator = Evaluator::new(&network).unwrap();
        let first = evaluator.run(&image(shape), &mut |_, _| {});
        evaluator.run(&[255; 32], &mut |_, _| {});
        assert_eq!(evaluator.run(&image(shape), &mut |_, _| {}), first);
    }

    #[test]
    #[should_panic(expected = "bytes of an image")]
    fn an_image_of_another_size_is_a_programming_error() {
        let network = network(Shape::new(4, 4, 2), vec![Stage::GlobalAveragePool { name: "mean".into() }]);
        Evaluator::new(&network).unwrap().run(&[0; 31], &mut |_, _| {});
    }
}
