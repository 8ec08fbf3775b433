//! Float inference of a network's list of layers: the reference for calibration and for `eval --against`.

pub(crate) mod kernels;

use skipstone::host::Softmax;

use crate::ir::{FloatNetwork, INPUT, Layer, Operation, Real, ShapeError, TensorId, Weights};

/// Most values that one activation tensor may hold (512 x 512 x 64).
pub const MAX_TENSOR_LENGTH: usize = 1 << 24;

/// Runs a float network, one image at a time; share it between threads to run many.
#[derive(Debug)]
pub struct Evaluator<'n> {
    network: &'n FloatNetwork,
}

impl<'n> Evaluator<'n> {
    /// Checks the network.
    pub fn new(network: &'n FloatNetwork) -> Result<Self, ShapeError> {
        Ok(Evaluator { network })
    }

    /// Runs the network on one image, raw bytes in HWC order, and returns each output.
    ///
    /// `observe` is called with every activation tensor (NHWC) in the order of execution.
    ///
    /// # Panics
    ///
    /// If the image has not exactly one byte for each value of the network's input.
    pub fn run(&self, image: &[u8], observe: &mut dyn FnMut(TensorId, &[f32])) -> Vec<Vec<f32>> {
        let mut tensors = vec![Vec::new()];
        self.preprocess(image, &mut tensors[INPUT]);
        observe(INPUT, &tensors[INPUT]);
        for (index, layer) in self.network.layers.iter().enumerate() {
            let output = self.layer(layer, &tensors);
            observe(index + 1, &output);
            tensors.push(output);
        }
        let outputs = self.network.outputs.iter().map(|output| match output.softmax {
            Softmax::None => tensors[output.tensor].clone(),
            Softmax::Float | Softmax::Fixed(_) => {
                let (values, mut scores) = (&tensors[output.tensor], Vec::new());
                kernels::softmax(values.len(), values, &mut scores);
                scores
            }
        });
        outputs.collect()
    }

    fn layer(&self, layer: &Layer<Real>, tensors: &[Vec<f32>]) -> Vec<f32> {
        let (network, mut output) = (self.network, Vec::new());
        let (from, to) = (network.shape(layer.inputs[0]), layer.shape);
        let input = &tensors[layer.inputs[0]];
        let (weights, bias): (Vec<f32>, Vec<f32>) = match &layer.parameters.weights {
            Weights::None | Weights::Affine(_) => (Vec::new(), Vec::new()),
            Weights::Real { weights, bias } => {
                (weights.clone(), bias.iter().map(|bias| *bias as f32).collect())
            }
            Weights::Integers(integers) => {
                let (weights, bias) = crate::fit::reals(integers, &layer.operation);
                (weights.into_owned(), bias)
            }
        };
        match &layer.operation {
            Operation::Conv2d { window, outputs, depthwise } => {
                let conv = kernels::Conv2d {
                    window: *window,
                    depthwise: *depthwise,
                    inputs: from.channels.into(),
                    outputs: *outputs,
                    weights: &weights,
                    bias: &bias,
                };
                kernels::conv2d(&conv, [from, to], input, &mut Vec::new(), &mut output);
            }
            Operation::Dense { .. } => kernels::dense(&weights, &bias, input, &mut output),
            Operation::MaxPool(window) => kernels::max_pool2d(window, [from, to], input, &mut output),
            Operation::AveragePool { window, count_include_pad } => {
                kernels::average_pool2d(window, *count_include_pad, [from, to], input, &mut output);
            }
            Operation::GlobalAveragePool => kernels::global_average_pool(from, input, &mut output),
            _ => {}
        }
        if let Some(shortcut) = layer.shortcut {
            let sides = [network.shape(shortcut.tensor), to];
            kernels::add_padded(
                shortcut.stride,
                shortcut.channels_before,
                sides,
                &tensors[shortcut.tensor],
                &mut output,
            );
        }
        kernels::activate(layer.activation, &mut output);
        output
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
