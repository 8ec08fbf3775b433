//! The filters of convolutions and dense layers, output channel by output channel.

use std::borrow::Cow;

use skipstone::Shape;

use crate::ir::{IntegerWeights, Layer, Operation, Real, Weights, Window};

/// The filters of a convolution. A dense layer is a convolution whose kernel is as large as its input.
pub(crate) struct Filters<'n> {
    pub(crate) window: Window,
    /// Each channel has one filter of its own.
    pub(crate) depthwise: bool,
    /// Input channels.
    pub(crate) inputs: usize,
    /// Output channels.
    pub(crate) outputs: usize,
    /// OHWI; HWC if depthwise.
    pub(crate) weights: Cow<'n, [f32]>,
    /// One for each output channel.
    pub(crate) bias: Vec<f32>,
}

impl<'n> Filters<'n> {
    /// Of a layer whose input has shape `from`; `None` if the layer has no weights.
    pub(crate) fn of(layer: &'n Layer<Real>, from: Shape) -> Option<Self> {
        let (window, outputs, depthwise) = match layer.operation {
            Operation::Conv2d { window, outputs, depthwise } => (window, outputs, depthwise),
            Operation::Dense { outputs } => {
                let kernel = [from.height.into(), from.width.into()];
                (Window { kernel, stride: [1; 2], padding: [0; 4] }, outputs, false)
            }
            Operation::MaxPool(_)
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => return None,
        };
        let (weights, bias) = match &layer.parameters.weights {
            // a bias has f32 precision everywhere, in the float network too
            Weights::Real { weights, bias } => {
                (Cow::Borrowed(&weights[..]), bias.iter().map(|bias| *bias as f32).collect())
            }
            Weights::Integers(integers) => reals(integers, &layer.operation),
            Weights::None | Weights::Affine(_) => return None,
        };
        Some(Filters { window, depthwise, inputs: from.channels.into(), outputs, weights, bias })
    }

    /// Number of weights in an output channel's filter.
    pub(crate) fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * if self.depthwise { 1 } else { self.inputs }
    }

    /// Position in the weights of the weight at `index` of an output channel's filter.
    pub(crate) fn at(&self, channel: usize, index: usize) -> usize {
        if self.depthwise { index * self.outputs + channel } else { channel * self.depth() + index }
    }

    /// The input channel that this weight reads.
    pub(crate) fn input_channel(&self, channel: usize, index: usize) -> usize {
        if self.depthwise { channel } else { index % self.inputs }
    }

    /// An output channel's filter.
    pub(crate) fn filter(&self, channel: usize) -> impl Iterator<Item = f32> + '_ {
        (0..self.depth()).map(move |index| self.weights[self.at(channel, index)])
    }

    /// Weights that lie filter by filter, in the order of the operation.
    pub(crate) fn in_order(&self, by_filter: Vec<i8>) -> Vec<i8> {
        if !self.depthwise {
            return by_filter;
        }
        let (outputs, depth) = (self.outputs, self.depth());
        (0..by_filter.len()).map(|index| by_filter[index % outputs * depth + index / outputs]).collect()
    }
}

/// Whether an operation has weights.
pub(crate) const fn has_weights(operation: &Operation) -> bool {
    matches!(operation, Operation::Conv2d { .. } | Operation::Dense { .. })
}

/// Real value of one step of an output channel's weights.
pub(crate) fn weight_step(integers: &IntegerWeights, channel: usize) -> f64 {
    f64::from(integers.scales[channel.min(integers.scales.len() - 1)])
}

/// The real weights and biases that a layer's integers stand for.
pub(crate) fn reals<'n>(integers: &IntegerWeights, operation: &Operation) -> (Cow<'n, [f32]>, Vec<f32>) {
    let outputs = integers.bias.len().max(1);
    let filter = (integers.weights.len() / outputs).max(1);
    let last = matches!(operation, Operation::Conv2d { depthwise: true, .. });
    let weights = integers.weights.iter().enumerate().map(|(index, weight)| {
        let channel = if last { index % outputs } else { index / filter };
        (f64::from(*weight) * weight_step(integers, channel)) as f32
    });
    let bias = integers.bias.iter().enumerate().map(|(channel, bias)| {
        // single precision, as a file has the scale of biases
        let step = integers.input.scale * weight_step(integers, channel) as f32;
        (f64::from(*bias) * f64::from(step)) as f32
    });
    (weights.collect(), bias.collect())
}
