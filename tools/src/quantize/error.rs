//! Reasons why a network cannot be quantized.

use thiserror::Error;

use crate::ir::ShapeError;

/// A network that cannot be quantized.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the message beside each variant says what its numbers are")]
pub enum QuantizeError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("the output '{output}' is the network's input; name a layer")]
    InputAsOutput { output: String },
    #[error("{layer}: {what} number {index} is {value}; train or export the network again")]
    NotFinite { layer: String, what: &'static str, index: usize, value: f32 },
    #[error(
        "{layer}: the activations range to {value}, which is not a finite number; check the weights and the preprocessing (--mean, --std)"
    )]
    Range { layer: String, value: f32 },
    #[error(
        "{layer}: the range of its activations is not known; give a few hundred real images with --calibrate (only a model that is already quantized needs none)"
    )]
    NoRange { layer: String },
    #[error(
        "{layer}: {reason}, so its output cannot equal TensorFlow Lite's bit for bit; leave --rounding tflite-exact out"
    )]
    NotExact { layer: String, reason: &'static str },
    #[error("{layer}: {products} products in one sum could overflow 32 bits; at most 65,000 are allowed")]
    Products { layer: String, products: usize },
    #[error(
        "{layer}: the sum of output channel {channel} could overflow 32 bits (|bias| + sum |w| * 128 = {bound})"
    )]
    Accumulator { layer: String, channel: usize, bound: i64 },
    #[error(
        "{layer}: reads raw pixels whose mean is not a whole pixel value or differs by channel; put a convolution before it"
    )]
    RawInput { layer: String },
    #[error("{layer}: a window of {0}x{1} with stride {2}x{3}; kernels go to 15x15, strides to 7, padding must be smaller than the kernel", .window[0], .window[1], .window[2], .window[3])]
    Window { layer: String, window: [usize; 4] },
    #[error("{layer}: {what} is not supported by the runtime")]
    Unsupported { layer: String, what: &'static str },
    #[error(
        "{layer}: softmax is supported only for class scores, the result of a dense layer or of global average pooling that no other layer reads; remove the softmax"
    )]
    Softmax { layer: String },
}

pub(super) fn not_exact(layer: &str, reason: &'static str) -> QuantizeError {
    QuantizeError::NotExact { layer: layer.into(), reason }
}
