//! The filters of convolutions and dense layers, output channel by output channel.

use std::borrow::Cow;

use skipstone::Shape;

use crate::float::kernels;
use crate::ir::{Layer, Operation, Real, Window};

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
        let (weights, bias) = layer.parameters.weights.real(&layer.operation);
        if bias.len() != outputs {
            return None;
        }
        // a bias has f32 precision everywhere, in the float network too
        let bias = bias.iter().map(|bias| *bias as f32).collect();
        Some(Filters { window, depthwise, inputs: from.channels.into(), outputs, weights, bias })
    }

    /// A convolution of these sizes.
    pub(crate) fn with<'a>(&self, weights: &'a [f32], bias: &'a [f32]) -> kernels::Filters<'a> {
        kernels::Filters { window: self.window, depthwise: self.depthwise, weights, bias }
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
