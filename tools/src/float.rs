//! Float inference of a network: the reference for calibration and for `eval --against`.

pub(crate) mod kernels;

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use skipstone::host::Softmax;

use crate::ir::{FloatNetwork, INPUT, Operation, ShapeError, TensorId, check};
use kernels::Filters;

/// Runs a float network after the passes, one image at a time; share it between threads to run many.
///
/// ```
/// # use skipstone_tools::{float::Evaluator, ir::*};
/// # use skipstone::{Shape, host::Softmax};
/// # let mut network = FloatNetwork::new("mean", Shape::new(1, 2, 1));
/// # let tensor = network.push("mean", &[INPUT], Operation::GlobalAveragePool, Weights::None)?;
/// # network.outputs.push(Output { name: "scores".into(), tensor, softmax: Softmax::None });
/// use rayon::prelude::*;
///
/// let evaluator = Evaluator::new(&network)?;
/// let images = [[0, 255], [51, 51]];
/// let scores: Vec<Vec<Vec<f32>>> =
///     images.par_iter().map(|image| evaluator.run(image, &mut |_, _| {})).collect();
/// assert_eq!(scores, [[[0.5]], [[0.2]]]); // one output, one value
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
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Evaluator<'n> {
    network: &'n FloatNetwork,
    /// Each layer's weights and biases; both empty if it has none.
    parameters: Vec<(Cow<'n, [f32]>, Vec<f32>)>,
    /// For each layer, the tensors that nothing reads after it.
    ended: Vec<Vec<TensorId>>,
    /// Buffers of runs that have ended, for the next ones: as many as ever ran at the same time.
    idle: Mutex<Vec<Buffers>>,
}

/// The tensors that one run needs at a time.
#[derive(Debug, Default)]
struct Buffers {
    /// Empty before a tensor is made and after its last reader.
    tensors: Vec<Vec<f32>>,
    spare: Vec<Vec<f32>>,
    columns: Vec<f32>,
}

impl<'n> Evaluator<'n> {
    /// An evaluator of a network that [`check`] accepts.
    ///
    /// # Errors
    /// As [`check`].
    pub fn new(network: &'n FloatNetwork) -> Result<Self, ShapeError> {
        check(network)?;
        let parameters = network.layers.iter().map(|layer| {
            let (weights, bias) = layer.parameters.weights.real(&layer.operation);
            (weights, bias.iter().map(|&bias| bias as f32).collect())
        });
        let mut last: Vec<usize> = (0..=network.layers.len()).map(|tensor| tensor.max(1) - 1).collect();
        for (index, layer) in network.layers.iter().enumerate() {
            layer.reads().for_each(|tensor| last[tensor] = index);
        }
        let mut ended = vec![Vec::new(); network.layers.len()];
        for (tensor, last) in last.into_iter().enumerate() {
            if network.outputs.iter().all(|output| output.tensor != tensor) {
                ended[last].push(tensor);
            }
        }
        Ok(Evaluator { network, parameters: parameters.collect(), ended, idle: Mutex::default() })
    }

    /// The network.
    pub fn network(&self) -> &'n FloatNetwork {
        self.network
    }

    /// Runs the network on one image, raw bytes in HWC order, and returns its outputs in order, softmax
    /// applied.
    ///
    /// `observe` is called with every tensor (NHWC) in order: the input, then what each layer makes.
    ///
    /// # Panics
    /// If the image does not have exactly one byte for each value of the network's input.
    pub fn run(&self, image: &[u8], observe: &mut dyn FnMut(TensorId, &[f32])) -> Vec<Vec<f32>> {
        let mut buffers = self.lock().pop().unwrap_or_default();
        let Buffers { tensors, spare, columns } = &mut buffers;
        tensors.resize(self.network.layers.len() + 1, Vec::new());
        let mut input = spare.pop().unwrap_or_default();
        self.preprocess(image, &mut input);
        observe(INPUT, &input);
        tensors[INPUT] = input;
        for (index, ended) in self.ended.iter().enumerate() {
            let mut output = spare.pop().unwrap_or_default();
            self.run_layer(index, tensors, columns, &mut output);
            observe(index + 1, &output);
            tensors[index + 1] = output;
            spare.extend(ended.iter().map(|&tensor| std::mem::take(&mut tensors[tensor])));
        }
        let outputs = self.network.outputs.iter().map(|output| {
            let mut values = tensors[output.tensor].clone();
            match output.softmax {
                Softmax::None => {}
                Softmax::Float | Softmax::Fixed(_) => {
                    kernels::softmax(self.network.shape(output.tensor).channels.into(), &mut values);
                }
            }
            values
        });
        let outputs = outputs.collect();
        spare.extend(tensors.iter_mut().map(std::mem::take).filter(|tensor| !tensor.is_empty()));
        self.lock().push(buffers);
        outputs
    }

    fn run_layer(&self, index: usize, tensors: &[Vec<f32>], columns: &mut Vec<f32>, output: &mut Vec<f32>) {
        let layer = &self.network.layers[index];
        let input = &tensors[layer.inputs[0]];
        let (from, to) = (self.network.shape(layer.inputs[0]), layer.shape);
        let (weights, bias) = &self.parameters[index];
        match layer.operation {
            Operation::Conv2d { window, depthwise, .. } => {
                let filters = Filters { window, depthwise, weights, bias };
                kernels::conv2d(filters, [from, to], input, columns, output);
            }
            Operation::Dense { .. } => kernels::dense(weights, bias, input, output),
            Operation::MaxPool(window) => kernels::max_pool2d(window, [from, to], input, output),
            Operation::AveragePool { window, count_include_pad } => {
                kernels::average_pool2d(window, count_include_pad, [from, to], input, output);
            }
            Operation::GlobalAveragePool => kernels::global_average_pool(from, input, output),
            Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => unreachable!("check() has refused what the passes remove"),
        }
        if let Some(shortcut) = layer.shortcut {
            let from = self.network.shape(shortcut.tensor);
            kernels::add_shortcut(shortcut, [from, to], &tensors[shortcut.tensor], output);
        }
        kernels::activate(layer.activation, output);
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

#[cfg(test)]
mod tests {
    use skipstone::Shape;

    use super::*;
    use crate::ir::{Activation, Output, Preprocessing, Shortcut, Weights, Window};

    fn network(input: Shape) -> FloatNetwork {
        let preprocessing = Preprocessing { mean: vec![0.5], std: vec![0.25] };
        FloatNetwork { preprocessing, ..FloatNetwork::new("test", input) }
    }

    /// Adds a convolution with padding whose every weight is `weight` and whose every bias is `bias`.
    fn conv(
        network: &mut FloatNetwork,
        from: TensorId,
        outputs: usize,
        [kernel, stride]: [usize; 2],
        [weight, bias]: [f32; 2],
    ) -> TensorId {
        let inputs = usize::from(network.shape(from).channels);
        let weights = vec![weight; outputs * kernel * kernel * inputs];
        let weights = Weights::Real { weights, bias: vec![bias.into(); outputs] };
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], padding: [kernel / 2; 4] };
        let operation = Operation::Conv2d { window, outputs, depthwise: false };
        network.push("conv", &[from], operation, weights).unwrap()
    }

    fn layer(network: &mut FloatNetwork, from: TensorId, operation: Operation) -> TensorId {
        network.push("layer", &[from], operation, Weights::None).unwrap()
    }

    /// Adds a shortcut to the layer that makes `sum`, before its activation.
    fn add(network: &mut FloatNetwork, sum: TensorId, shortcut: Shortcut, activation: Activation) {
        network.layers[sum - 1].shortcut = Some(shortcut);
        network.layers[sum - 1].activation = activation;
    }

    fn identity(tensor: TensorId) -> Shortcut {
        Shortcut { tensor, stride: [1; 2], channels_before: 0 }
    }

    fn output(network: &mut FloatNetwork, tensor: TensorId, softmax: Softmax) {
        network.outputs.push(Output { name: "output".into(), tensor, softmax });
    }

    /// Every tensor of a run, in order. The last one is the only output.
    fn trace(network: &FloatNetwork, image: &[u8]) -> Vec<Vec<f32>> {
        let mut network = network.clone();
        let last = network.layers.len();
        output(&mut network, last, Softmax::None);
        let mut tensors = Vec::new();
        let evaluator = Evaluator::new(&network).unwrap();
        let outputs = evaluator.run(image, &mut |id, values| {
            assert_eq!(id, tensors.len());
            tensors.push(values.to_vec());
        });
        assert_eq!(outputs, tensors[last..]);
        tensors
    }

    fn image(shape: Shape) -> Vec<u8> {
        (0..shape.len()).map(|index| (index * 97 % 256) as u8).collect()
    }

    #[test]
    fn a_block_with_zero_weights_is_relu_of_its_shortcut() {
        let shape = Shape::new(5, 4, 3);
        for count in [1, 2, 3] {
            let mut network = network(shape);
            let sum = (0..count).fold(INPUT, |at, _| conv(&mut network, at, 3, [3, 1], [0.0, 0.0]));
            add(&mut network, sum, identity(INPUT), Activation::RELU);
            let tensors = trace(&network, &image(shape));
            let relu: Vec<f32> = tensors[0].iter().map(|value| value.max(0.0)).collect();
            assert!(tensors[0].iter().any(|value| *value < 0.0), "the input must have something to clamp");
            assert_eq!(tensors[count], relu);
        }
    }

    #[test]
    fn a_padded_shortcut_takes_every_second_position_between_zero_channels() {
        let shape = Shape::new(3, 4, 2);
        let mut network = network(shape);
        let inner = conv(&mut network, INPUT, 5, [3, 2], [0.0, 0.0]);
        let sum = conv(&mut network, inner, 5, [3, 1], [0.0, 0.0]);
        let shortcut = Shortcut { tensor: INPUT, stride: [2, 2], channels_before: 1 };
        add(&mut network, sum, shortcut, Activation::NONE);
        let tensors = trace(&network, &image(shape));
        let input = &tensors[0];
        let expected: Vec<f32> = [[0, 0], [0, 2], [2, 0], [2, 2]]
            .into_iter()
            .flat_map(|[y, x]| {
                let at = (y * 4 + x) * 2;
                [0.0, input[at], input[at + 1], 0.0, 0.0]
            })
            .collect();
        assert_eq!(tensors[2], expected);
    }

    #[test]
    fn a_projection_is_added_before_the_activation() {
        let shape = Shape::new(2, 2, 1);
        let mut network = network(shape);
        let inner = conv(&mut network, INPUT, 1, [3, 2], [0.0, -1.0]);
        let projection = conv(&mut network, INPUT, 1, [1, 2], [-2.0, 1.0]);
        let sum = conv(&mut network, inner, 1, [3, 1], [0.0, -1.0]);
        add(&mut network, sum, identity(projection), Activation::RELU);
        // Preprocessed: (0/255 - 0.5) / 0.25 = -2 and 2; projected: -2 * -2 + 1 = 5 and -3; path: -1.
        let last = |pixel| trace(&network, &[pixel, 9, 9, 9]).pop().unwrap();
        assert_eq!(last(0), [4.0]);
        assert_eq!(last(255), [0.0]);
    }

    #[test]
    fn padding_is_zero_after_preprocessing() {
        // Byte 255 is 2 everywhere, and only real positions add to the sum.
        let mut network = network(Shape::new(3, 3, 1));
        conv(&mut network, INPUT, 1, [3, 1], [1.0, 0.0]);
        let tensors = trace(&network, &[255; 9]);
        assert_eq!(tensors[1], [8.0, 12.0, 8.0, 12.0, 18.0, 12.0, 8.0, 12.0, 8.0]);
    }

    #[test]
    fn each_channel_has_its_own_mean_and_standard_deviation() {
        let mut network = network(Shape::new(1, 2, 3));
        layer(&mut network, INPUT, Operation::GlobalAveragePool);
        network.preprocessing = Preprocessing { mean: vec![0.0, 0.5, 1.0], std: vec![1.0, 0.5, 2.0] };
        let tensors = trace(&network, &[255, 255, 255, 0, 0, 0]);
        assert_eq!(tensors[0], [1.0, 1.0, 0.0, 0.0, -1.0, -0.5]);
        assert_eq!(tensors[1], [0.5, 0.0, -0.25]);
    }

    #[test]
    fn every_output_is_returned_with_its_softmax() {
        let shape = Shape::new(4, 4, 2);
        let mut network = network(shape);
        let stem = conv(&mut network, INPUT, 2, [3, 1], [1.0, 0.0]);
        network.layers[stem - 1].activation = Activation::RELU6;
        let inner = conv(&mut network, stem, 3, [3, 1], [0.1, 0.0]);
        let projection = conv(&mut network, stem, 3, [1, 1], [1.0, 0.0]);
        let sum = conv(&mut network, inner, 3, [3, 1], [0.1, 0.0]);
        add(&mut network, sum, identity(projection), Activation::RELU);
        let mean = layer(&mut network, sum, Operation::GlobalAveragePool);
        let tensors = trace(&network, &image(shape));
        let lengths: Vec<usize> = tensors.iter().map(Vec::len).collect();
        assert_eq!(lengths, [32, 32, 48, 48, 48, 3]);
        assert!(tensors[stem].iter().all(|value| (0.0..=6.0).contains(value)));
        for (tensor, softmax) in [(stem, Softmax::None), (mean, Softmax::None), (mean, Softmax::Float)] {
            output(&mut network, tensor, softmax);
        }
        let outputs = Evaluator::new(&network).unwrap().run(&image(shape), &mut |_, _| {});
        assert_eq!(outputs[..2], [tensors[stem].clone(), tensors[mean].clone()]);
        assert!((outputs[2].iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn buffers_left_by_one_run_do_not_change_the_next() {
        let shape = Shape::new(4, 4, 2);
        let mut network = network(shape);
        let inner = conv(&mut network, INPUT, 4, [3, 2], [0.3, 0.1]);
        let sum = conv(&mut network, inner, 4, [3, 1], [-0.2, 0.0]);
        let shortcut = Shortcut { tensor: INPUT, stride: [2, 2], channels_before: 0 };
        add(&mut network, sum, shortcut, Activation::RELU);
        output(&mut network, sum, Softmax::None);
        let evaluator = Evaluator::new(&network).unwrap();
        let first = evaluator.run(&image(shape), &mut |_, _| {});
        evaluator.run(&[255; 32], &mut |_, _| {});
        assert_eq!(evaluator.run(&image(shape), &mut |_, _| {}), first);
        let buffers = evaluator.lock().pop().unwrap();
        assert_eq!(buffers.spare.len(), 3, "the input, the inner tensor and the sum are alive at once");
    }

    #[test]
    fn tensors_end_with_their_last_reader() {
        let mut network = network(Shape::new(4, 4, 2));
        let mut at = INPUT;
        for _ in 0..20 {
            at = layer(&mut network, at, Operation::MaxPool(Window::POINT));
        }
        output(&mut network, at, Softmax::None);
        let evaluator = Evaluator::new(&network).unwrap();
        evaluator.run(&[0; 32], &mut |_, _| {});
        assert_eq!(evaluator.lock()[0].spare.len(), 2);
    }

    #[test]
    #[should_panic(expected = "bytes of an image")]
    fn an_image_of_another_size_is_a_programming_error() {
        let mut network = network(Shape::new(4, 4, 2));
        let mean = layer(&mut network, INPUT, Operation::GlobalAveragePool);
        output(&mut network, mean, Softmax::None);
        Evaluator::new(&network).unwrap().run(&[0; 31], &mut |_, _| {});
    }
}
