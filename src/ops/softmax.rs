//! Softmax over class scores.

use micromath::F32Ext;

use crate::base::tflite::FixedSoftmax;

/// The normalization of class scores by the network itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Softmax {
    /// Nothing: scores are unbounded.
    None,
    /// exp(x - max) / sum(exp(x - max)), in f32.
    Float,
    /// TensorFlow Lite's, over whole steps of the last layer's int8 output.
    Fixed(FixedSoftmax),
}

/// Softmax in place: exp(x - max) / sum(exp(x - max)).
pub(crate) fn softmax(values: &mut [f32]) {
    let (max, sum) = denominator(values);
    for value in values {
        *value = F32Ext::exp(*value - max) / sum;
    }
}

/// The largest value, which keeps exp in range, and the sum of exp(x - max), which is at least 1.
pub(crate) fn denominator(values: &[f32]) -> (f32, f32) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, values.iter().map(|value| F32Ext::exp(value - max)).sum())
}
