//! Quantization: a float network and the ranges of its tensors become an integer network.
//!
//! Weights are symmetric per output channel, activations per tensor. What an input value stands for is
//! folded into the weights that read it, so that `acc * weight_scale` is the real sum whatever the input's
//! scale is; raw pixels, whose scale and zero point differ by channel, need no special case.
//!
//! What a file has already quantized is kept: scales and zero points, weights and biases.

mod error;
mod fold;
mod kept;
mod layers;
mod meaning;
mod requantize;
#[cfg(test)]
pub(crate) mod tests;
mod tflite;
mod zero;

use skipstone::host::Softmax;

use crate::calibrate::{Range, Ranges};
use crate::fit::Fit;
use crate::float::Evaluator;
use crate::ir::{
    Activation, FloatNetwork, INPUT, Integer, IntegerNetwork, Layer, Operation, Output, TensorId,
    TensorScale, Weights,
};
pub use error::QuantizeError;
use error::not_exact;
use meaning::{Meaning, Target, finite};

/// How values are rounded on their way back to int8: a property of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Once for each layer, and once for a residual addition together with its convolution.
    #[default]
    Fused,
    /// As TensorFlow Lite's reference kernels do, bit for bit; for networks that their file has quantized.
    TfliteExact,
}

/// Whether its file has quantized the network, wholly or in part.
pub fn is_quantized(network: &FloatNetwork) -> bool {
    network.input_scale.is_some()
        || network.layers.iter().any(|layer| {
            let parameters = &layer.parameters;
            parameters.scale.is_some()
                || parameters.sum_scale.is_some()
                || matches!(parameters.weights, Weights::Integers(_))
        })
}

/// Whether a tensor is zero in all images that showed its range, so that its scale is derived from the
/// layers that read it.
pub fn is_zero(range: Range) -> bool {
    meaning::is_zero(range)
}

/// Quantizes `network` with the ranges of those of its tensors that are not quantized in its file, every
/// weight to the nearest integer.
///
/// # Errors
/// [`QuantizeError`] names the layer and what is wrong with it.
pub fn quantize(
    network: &FloatNetwork,
    ranges: &Ranges,
    rounding: Rounding,
) -> Result<IntegerNetwork, QuantizeError> {
    quantize_fitted(network, ranges, rounding, None, &|_| {})
}

/// As [`quantize`], with weights and biases fitted to images (not those of a file that is already
/// quantized). `done` is called with the index of each layer after it.
///
/// # Errors
/// [`QuantizeError`] names the layer and what is wrong with it.
pub fn quantize_fitted(
    network: &FloatNetwork,
    ranges: &Ranges,
    rounding: Rounding,
    fit: Option<Fit<'_>>,
    done: &dyn Fn(usize),
) -> Result<IntegerNetwork, QuantizeError> {
    Evaluator::new(network)?; // checks the shapes
    let exact = rounding == Rounding::TfliteExact;
    let meanings = vec![Meaning::of_input(network)];
    let mut quantizer = Quantizer { network, ranges, exact, fit, meanings };
    let outputs = quantizer.outputs()?;
    let mut layers = Vec::with_capacity(network.layers.len());
    for (index, layer) in network.layers.iter().enumerate() {
        let (parameters, meaning) = quantizer.layer(index)?;
        quantizer.meanings.push(meaning);
        if let Some(fit) = &mut quantizer.fit {
            fit.drop_unread(index);
        }
        layers.push(Layer {
            name: layer.name.clone(),
            place: layer.place.clone(),
            inputs: layer.inputs.clone(),
            shortcut: layer.shortcut,
            operation: layer.operation.clone(),
            activation: layer.activation,
            shape: layer.shape,
            parameters,
        });
        done(index);
    }
    Ok(IntegerNetwork {
        name: network.name.clone(),
        input: network.input,
        preprocessing: network.preprocessing.clone(),
        input_scale: quantizer.meanings[INPUT].tensor(),
        layers,
        // labels name class scores: int8 values have none
        labels: match outputs.iter().any(|output| gives_scores(network, output.tensor)) {
            true => network.labels.clone(),
            false => Vec::new(),
        },
        outputs,
    })
}

/// The walk over the layers.
struct Quantizer<'n> {
    network: &'n FloatNetwork,
    ranges: &'n Ranges,
    /// TensorFlow Lite's rounding.
    exact: bool,
    /// `None` if weights are rounded to the nearest.
    fit: Option<Fit<'n>>,
    /// What the int8 values of each tensor stand for, as far as the walk has come.
    meanings: Vec<Meaning>,
}

impl Quantizer<'_> {
    /// The network's outputs, with the softmax that the runtime computes.
    fn outputs(&self) -> Result<Vec<Output>, QuantizeError> {
        let network = self.network;
        let output = |output: &Output| {
            let Some(layer) = network.producer(output.tensor) else {
                return Err(QuantizeError::InputAsOutput { output: output.name.clone() });
            };
            if output.softmax != Softmax::None && !gives_scores(network, output.tensor) {
                return Err(QuantizeError::Softmax { layer: layer.name.clone() });
            }
            let softmax = match (&output.softmax, self.exact) {
                (Softmax::None, _) => Softmax::None,
                (Softmax::Float | Softmax::Fixed(_), false) => Softmax::Float,
                (Softmax::Float | Softmax::Fixed(_), true) => match layer.parameters.scale {
                    Some(scores) => Softmax::Fixed(Self::softmax(scores.scale)),
                    None => return Err(not_exact("softmax", "it is not int8 in the file")),
                },
            };
            Ok(Output { softmax, ..output.clone() })
        };
        network.outputs.iter().map(output).collect()
    }

    /// Whether a softmax follows the class scores in this tensor.
    fn is_normalized(&self, tensor: TensorId) -> bool {
        let mut outputs = self.network.outputs.iter();
        outputs.any(|output| output.tensor == tensor && output.softmax != Softmax::None)
    }

    /// Scale and range of what a layer makes; `known` if its file has quantized it.
    fn target(
        &self,
        index: usize,
        activation: Activation,
        known: Option<TensorScale>,
    ) -> Result<Target, QuantizeError> {
        let layer = &self.network.layers[index].name;
        match (known, self.ranges.get(&(index + 1))) {
            (Some(known), _) => Ok(Target::known(known, activation)),
            (None, _) if self.exact => Err(not_exact(layer, "its output is not int8 in the file")),
            (None, Some(range)) => {
                let if_zero = || zero::scale(self.network, index + 1);
                Ok(Target::of_range(finite(*range, layer)?, activation, if_zero))
            }
            (None, None) => Err(QuantizeError::NoRange { layer: layer.clone() }),
        }
    }

    /// A layer's integers, and what its int8 values stand for.
    fn layer(&mut self, index: usize) -> Result<(Integer, Meaning), QuantizeError> {
        let layer = &self.network.layers[index];
        let unsupported = |what| Err(QuantizeError::Unsupported { layer: layer.name.clone(), what });
        if layer.shortcut.is_some() && !matches!(layer.operation, Operation::Conv2d { .. }) {
            return unsupported("an addition after anything but a convolution");
        }
        match layer.operation {
            Operation::Conv2d { .. } => self.conv2d(index),
            Operation::Dense { .. } => self.dense(index),
            Operation::MaxPool(_) | Operation::AveragePool { .. } if layer.activation != Activation::NONE => {
                unsupported("an activation after pooling")
            }
            Operation::MaxPool(window) => self.pool2d(index, &window, false),
            Operation::AveragePool { window, count_include_pad } => {
                self.pool2d(index, &window, count_include_pad && window.padding != [0; 4])
            }
            Operation::GlobalAveragePool => self.global_average_pool(index),
            Operation::Affine { norm } => unsupported(norm),
            Operation::Clamp { .. } => unsupported("an activation of its own"),
            Operation::Add => unsupported("an addition of its own"),
            Operation::Subsample { .. } => unsupported("subsampling"),
            Operation::Pad { .. } => unsupported("padding of its own"),
            Operation::Softmax { .. } => unsupported("a softmax between layers"),
        }
    }
}

/// Whether a tensor is received as f32 class scores: the sums of a dense layer or the means of a global
/// average pooling, if the caller alone reads them. Every other output is received as int8 values.
pub fn gives_scores<P>(network: &crate::ir::Network<P>, tensor: TensorId) -> bool {
    let Some(layer) = network.producer(tensor) else { return false };
    matches!(layer.operation, Operation::Dense { .. } | Operation::GlobalAveragePool)
        && layer.activation == Activation::NONE
        && network.outputs.iter().any(|output| output.tensor == tensor)
        && network.layers.iter().all(|layer| layer.reads().all(|read| read != tensor))
}
