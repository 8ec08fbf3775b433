//! A layer's weights as real numbers, whatever form they have.

use std::borrow::Cow;

use super::{IntegerWeights, Operation, Weights};

impl Operation {
    /// The output channel that the weight at `index`, of `count` in all, belongs to.
    pub fn channel_of(&self, index: usize, count: usize) -> usize {
        match self {
            Operation::Conv2d { outputs, depthwise: true, .. } => index % outputs,
            Operation::Conv2d { outputs, depthwise: false, .. } | Operation::Dense { outputs } => {
                index / (count / outputs).max(1)
            }
            Operation::Affine { .. } => index,
            Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => 0,
        }
    }
}

impl Weights {
    /// Weights and biases as real numbers; both empty if there are none (pooling and affines).
    pub fn real(&self, operation: &Operation) -> (Cow<'_, [f32]>, Cow<'_, [f64]>) {
        match self {
            Weights::Real { weights, bias } => (weights.into(), bias.into()),
            Weights::Integers(integers) => {
                let count = integers.weights.len();
                let weight = |(index, &weight): (usize, &i8)| {
                    let scale = integers.scale(operation.channel_of(index, count));
                    (f64::from(weight) * f64::from(scale)) as f32
                };
                let weights = integers.weights.iter().enumerate().map(weight).collect::<Vec<_>>();
                let bias = integers.real_bias.iter().map(|&bias| bias.into()).collect::<Vec<_>>();
                (weights.into(), bias.into())
            }
            Weights::None | Weights::Affine(_) => (Cow::default(), Cow::default()),
        }
    }

    /// Bytes that the weights take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Weights::None => 0,
            Weights::Real { weights, bias } => weights.len() * 4 + bias.len() * 8,
            Weights::Integers(integers) => integers.weights.len() + integers.bias.len() * 12,
            Weights::Affine(affine) => affine.scale.len() * 16,
        }
    }
}

impl IntegerWeights {
    /// Real value of one step of an output channel's weights.
    pub fn scale(&self, channel: usize) -> f32 {
        self.scales[channel.min(self.scales.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{TensorScale, Window};

    #[test]
    fn integers_are_steps_of_their_channels_scale() {
        let integers = |scales: &[f32]| {
            Weights::Integers(IntegerWeights {
                weights: vec![1, 2, -3, 127],
                scales: scales.to_vec(),
                bias: vec![4, 5],
                real_bias: vec![0.5, 0.25],
                input: TensorScale { scale: 0.5, zero_point: 0 },
            })
        };
        let conv = |depthwise| Operation::Conv2d { window: Window::POINT, outputs: 2, depthwise };
        let (weights, bias) = (integers(&[0.25, 0.125]), [0.5, 0.25]);
        assert_eq!(weights.real(&conv(false)).0[..], [0.25, 0.5, -0.375, 15.875]);
        assert_eq!(weights.real(&conv(true)).0[..], [0.25, 0.25, -0.75, 15.875]);
        assert_eq!(integers(&[2.0]).real(&Operation::Dense { outputs: 2 }).0[..], [2.0, 4.0, -6.0, 254.0]);
        assert_eq!(weights.real(&conv(false)).1[..], bias);
    }
}
