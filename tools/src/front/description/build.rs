//! From a description's plans to layers, with the checkpoint's tensors as weights.

use super::stages::{Activation, Conv, NORM, Plan, Pool, Way};
use crate::front::arrangement::Axis;
use crate::front::builder::NetworkBuilder;
use crate::front::checkpoint::Checkpoint;
use crate::front::error::{ErrorKind, Refusal};
use crate::front::order;
use crate::ir::{Affine, BatchNorm, Operation, TensorId, Weights, Window};

/// Adds a description's stages to the layers.
pub(super) struct Builder<'a> {
    pub(super) network: &'a mut NetworkBuilder,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) epsilon: f64,
}

impl Builder<'_> {
    /// Adds a stage behind `input`; the layer that it ends with is returned.
    pub(super) fn build(&mut self, input: TensorId, plan: &Plan, place: &str) -> Result<TensorId, Refusal> {
        match plan {
            Plan::Convolution(conv) => self.convolution(input, conv, place),
            Plan::Block { name, path, shortcut, stride, activation } => {
                let mut end = input;
                for conv in path {
                    end = self.convolution(end, conv, place)?;
                }
                let short = self.shortcut(input, end, shortcut, *stride, place)?;
                let sum = self.network.add(name, place, &[end, short], Operation::Add)?;
                self.activation(sum, name, place, *activation)
            }
            Plan::Pool { kind, kernel, stride, padding, count_include_pad } => {
                let padding = padding.sizes(self.size(input), *kernel, *stride);
                let window = Window { kernel: *kernel, stride: *stride, padding };
                let operation = match kind {
                    Pool::Max => Operation::MaxPool(window),
                    Pool::Average => Operation::AveragePool { window, count_include_pad: *count_include_pad },
                    Pool::GlobalAverage => Operation::GlobalAveragePool,
                };
                self.network.add(format!("{}-pool", kind.name()), place, &[input], operation)
            }
            Plan::Dense { name, norm, activation } => {
                let dense = self.dense(input, name, place)?;
                let dense = self.norm(dense, norm, place)?;
                self.activation(dense, name, place, *activation)
            }
            Plan::Softmax => {
                self.network.add("softmax", place, &[input], Operation::Softmax { logarithm: false })
            }
        }
    }

    fn size(&self, layer: TensorId) -> [usize; 2] {
        let shape = self.network.shape(layer);
        [shape.height.into(), shape.width.into()]
    }

    fn convolution(&mut self, input: TensorId, conv: &Conv, place: &str) -> Result<TensorId, Refusal> {
        let name = format!("{}.weight", conv.name);
        let tensor = self.checkpoint.get(&name)?;
        let &[outputs, inputs, height, width] = &tensor.dims[..] else {
            let reason =
                format!("tensor '{name}' has sizes {:?}; a convolution's weights have four", tensor.dims);
            return Err(Refusal::new(ErrorKind::Shape, place, reason));
        };
        let shape = self.network.shape(input);
        let needed = if conv.depthwise { 1 } else { shape.channels.into() };
        if inputs != needed {
            let reason =
                format!("tensor '{name}' of sizes {:?} does not fit an input of {shape}", tensor.dims);
            return Err(Refusal::new(ErrorKind::Shape, place, reason));
        }
        let kernel = [height, width];
        let padding = match conv.padding {
            // A 1 x 1 convolution has nothing to pad for.
            Some(padding) if kernel != [1, 1] => padding.sizes(self.size(input), kernel, conv.stride),
            _ => [height / 2, width / 2, height / 2, width / 2],
        };
        let weights = tensor.finite(&format!("tensor '{name}'"))?;
        let weights = order::convolution(&weights, [outputs, inputs, height, width], conv.depthwise);
        let window = Window { kernel, stride: conv.stride, padding };
        let operation = Operation::Conv2d { window, outputs, depthwise: conv.depthwise };
        let weights = Weights::Real { weights, bias: self.bias(&conv.name, outputs)? };
        let layer = self.network.add_weighted(&conv.name, place, &[input], operation, weights)?;
        let layer = self.norm(layer, &conv.norm, place)?;
        self.activation(layer, &conv.name, place, conv.activation)
    }

    fn dense(&mut self, input: TensorId, name: &str, place: &str) -> Result<TensorId, Refusal> {
        let tensor_name = format!("{name}.weight");
        let tensor = self.checkpoint.get(&tensor_name)?;
        let shape = self.network.shape(input);
        let outputs = match tensor.dims[..] {
            [outputs, inputs] if inputs == shape.len() => outputs,
            _ => {
                let reason = format!(
                    "tensor '{tensor_name}' of sizes {:?} does not fit an input of {shape}",
                    tensor.dims
                );
                return Err(Refusal::new(ErrorKind::Shape, place, reason));
            }
        };
        let weights = tensor.finite(&format!("tensor '{tensor_name}'"))?;
        let sources = order::features(&[Axis::Channel, Axis::Height, Axis::Width], shape);
        let weights = order::dense(&weights, &sources, outputs, true);
        let weights = Weights::Real { weights, bias: self.bias(name, outputs)? };
        self.network.add_weighted(name, place, &[input], Operation::Dense { outputs }, weights)
    }

    fn bias(&self, name: &str, outputs: usize) -> Result<Vec<f64>, Refusal> {
        let name = format!("{name}.bias");
        if !self.checkpoint.has(&name) {
            return Ok(vec![0.0; outputs]);
        }
        let values = self.checkpoint.get(&name)?.finite(&format!("tensor '{name}'"))?;
        Ok(values.iter().map(|&value| value.into()).collect())
    }

    fn norm(&mut self, input: TensorId, norm: &Option<String>, place: &str) -> Result<TensorId, Refusal> {
        let Some(norm) = norm else { return Ok(input) };
        let channels = usize::from(self.network.shape(input).channels);
        let mut vectors = Vec::new();
        for part in NORM {
            let name = format!("{norm}.{part}");
            let values = self.checkpoint.get(&name)?.finite(&format!("tensor '{name}'"))?;
            if values.len() != channels {
                let reason = format!("tensor '{name}' has {} elements for {channels} channels", values.len());
                return Err(Refusal::new(ErrorKind::Shape, place, reason));
            }
            vectors.push(values);
        }
        let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|index| &vectors[index][..]);
        let norm_of = BatchNorm { gamma, beta, mean, variance, epsilon: self.epsilon };
        let affine = Affine::batch_norm(&norm_of)
            .map_err(|error| Refusal::variance(&error, &format!("{norm}.running_var")))?;
        let (operation, weights) = (Operation::Affine { norm: "batch norm" }, Weights::Affine(affine));
        self.network.add_weighted(norm, place, &[input], operation, weights)
    }

    fn activation(
        &mut self,
        input: TensorId,
        name: &str,
        place: &str,
        activation: Activation,
    ) -> Result<TensorId, Refusal> {
        let high = match activation {
            Activation::None => return Ok(input),
            Activation::Relu => f64::INFINITY,
            Activation::Relu6 => 6.0,
        };
        self.network.add(name, place, &[input], Operation::Clamp { low: 0.0, high })
    }

    /// The layer to add to the path's result.
    fn shortcut(
        &mut self,
        input: TensorId,
        end: TensorId,
        shortcut: &Way,
        stride: [usize; 2],
        place: &str,
    ) -> Result<TensorId, Refusal> {
        let same = self.network.shape(input) == self.network.shape(end);
        let channels_before = match shortcut {
            Way::Identity => return Ok(input),
            Way::ByShape if same => return Ok(input),
            Way::Projection(conv) => return self.convolution(input, conv, place),
            Way::ByShape => None,
            Way::Padded { channels_before } => *channels_before,
        };
        let [from, to] = [input, end].map(|layer| usize::from(self.network.shape(layer).channels));
        let Some(added) = to.checked_sub(from) else {
            let reason = format!("a padded shortcut cannot go from {from} to {to} channels");
            return Err(Refusal::new(ErrorKind::Shape, place, reason).help(
                "is the projection's name other than `downsample.0` or `shortcut.0`? Give `projection`",
            ));
        };
        let before = channels_before.unwrap_or(added / 2);
        let Some(after) = added.checked_sub(before) else {
            let reason = format!("`channels_before` is {before} where {added} channels are added");
            return Err(Refusal::new(ErrorKind::Shape, place, reason));
        };
        let mut short = input;
        if stride != [1, 1] {
            short = self.network.add("shortcut", place, &[short], Operation::Subsample { stride })?;
        }
        if added > 0 {
            let pad = Operation::Pad { padding: [0; 4], channels: [before, after], value: 0.0 };
            short = self.network.add("shortcut", place, &[short], pad)?;
        }
        Ok(short)
    }
}
