//! From a description's plans to layers, with the checkpoint's tensors as weights.

use super::stages::{Activation, Conv, NORM, Plan, Pool, Way};
use crate::import::affine::{Affine, BatchNorm};
use crate::import::arrangement::Axis;
use crate::import::checkpoint::Checkpoint;
use crate::import::error::{ErrorKind, Refusal};
use crate::import::layers::{Convolution, LayerId, Layers, Operation, Window};
use crate::import::order;

/// Adds a description's stages to the layers.
pub(super) struct Builder<'a> {
    pub(super) layers: &'a mut Layers,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) epsilon: f64,
}

impl Builder<'_> {
    /// Adds a stage behind `input`; the layer that it ends with is returned.
    pub(super) fn build(&mut self, input: LayerId, plan: &Plan, place: &str) -> Result<LayerId, Refusal> {
        match plan {
            Plan::Convolution(conv) => self.convolution(input, conv, place),
            Plan::Block { name, path, shortcut, stride, activation } => {
                let mut end = input;
                for conv in path {
                    end = self.convolution(end, conv, place)?;
                }
                let short = self.shortcut(input, end, shortcut, *stride, place)?;
                let sum = self.layers.add(name, place, &[end, short], Operation::Add)?;
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
                self.layers.add(format!("{}-pool", kind.name()), place, &[input], operation)
            }
            Plan::Dense { name, norm, activation } => {
                let dense = self.dense(input, name, place)?;
                let dense = self.norm(dense, norm, place)?;
                self.activation(dense, name, place, *activation)
            }
            Plan::Softmax => {
                self.layers.add("softmax", place, &[input], Operation::Softmax { logarithm: false })
            }
        }
    }

    fn size(&self, layer: LayerId) -> [usize; 2] {
        let shape = self.layers.shape(layer);
        [shape.height.into(), shape.width.into()]
    }

    fn convolution(&mut self, input: LayerId, conv: &Conv, place: &str) -> Result<LayerId, Refusal> {
        let name = format!("{}.weight", conv.name);
        let tensor = self.checkpoint.get(&name)?;
        let &[outputs, inputs, height, width] = &tensor.dims[..] else {
            let reason = format!("tensor '{name}' has sizes {:?}: no convolution's weights", tensor.dims);
            return Err(Refusal::new(ErrorKind::Shape, place, reason));
        };
        let shape = self.layers.shape(input);
        let needed = if conv.depthwise { 1 } else { shape.channels.into() };
        if inputs != needed {
            let reason =
                format!("tensor '{name}' of sizes {:?} does not fit to an input of {shape}", tensor.dims);
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
        let operation = Operation::Convolution(Convolution {
            window: Window { kernel, stride: conv.stride, padding },
            outputs,
            depthwise: conv.depthwise,
            weights,
            bias: self.bias(&conv.name, outputs)?,
        });
        let layer = self.layers.add(&conv.name, place, &[input], operation)?;
        let layer = self.norm(layer, &conv.norm, place)?;
        self.activation(layer, &conv.name, place, conv.activation)
    }

    fn dense(&mut self, input: LayerId, name: &str, place: &str) -> Result<LayerId, Refusal> {
        let tensor_name = format!("{name}.weight");
        let tensor = self.checkpoint.get(&tensor_name)?;
        let shape = self.layers.shape(input);
        let outputs = match tensor.dims[..] {
            [outputs, inputs] if inputs == shape.len() => outputs,
            _ => {
                let reason = format!(
                    "tensor '{tensor_name}' of sizes {:?} does not fit to an input of {shape}",
                    tensor.dims
                );
                return Err(Refusal::new(ErrorKind::Shape, place, reason));
            }
        };
        let weights = tensor.finite(&format!("tensor '{tensor_name}'"))?;
        let sources = order::features(&[Axis::Channel, Axis::Height, Axis::Width], shape);
        let rows = weights.chunks_exact(sources.len());
        let weights = rows.flat_map(|row| sources.iter().map(|&index| row[index])).collect();
        let operation = Operation::Dense { weights, bias: self.bias(name, outputs)? };
        self.layers.add(name, place, &[input], operation)
    }

    fn bias(&self, name: &str, outputs: usize) -> Result<Vec<f64>, Refusal> {
        let name = format!("{name}.bias");
        if !self.checkpoint.has(&name) {
            return Ok(vec![0.0; outputs]);
        }
        let values = self.checkpoint.get(&name)?.finite(&format!("tensor '{name}'"))?;
        Ok(values.iter().map(|&value| value.into()).collect())
    }

    fn norm(&mut self, input: LayerId, norm: &Option<String>, place: &str) -> Result<LayerId, Refusal> {
        let Some(norm) = norm else { return Ok(input) };
        let channels = usize::from(self.layers.shape(input).channels);
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
        let affine = Affine::batch_norm(&norm_of, &format!("{norm}.running_var"))?;
        self.layers.add(norm, place, &[input], Operation::Affine { affine, norm: "batch norm" })
    }

    fn activation(
        &mut self,
        input: LayerId,
        name: &str,
        place: &str,
        activation: Activation,
    ) -> Result<LayerId, Refusal> {
        let high = match activation {
            Activation::None => return Ok(input),
            Activation::Relu => f64::INFINITY,
            Activation::Relu6 => 6.0,
        };
        self.layers.add(name, place, &[input], Operation::Clamp { low: 0.0, high })
    }

    /// The layer to add to the path's result.
    fn shortcut(
        &mut self,
        input: LayerId,
        end: LayerId,
        shortcut: &Way,
        stride: [usize; 2],
        place: &str,
    ) -> Result<LayerId, Refusal> {
        let same = self.layers.shape(input) == self.layers.shape(end);
        let channels_before = match shortcut {
            Way::Identity => return Ok(input),
            Way::ByShape if same => return Ok(input),
            Way::Projection(conv) => return self.convolution(input, conv, place),
            Way::ByShape => None,
            Way::Padded { channels_before } => *channels_before,
        };
        let [from, to] = [input, end].map(|layer| usize::from(self.layers.shape(layer).channels));
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
            short = self.layers.add("shortcut", place, &[short], Operation::Subsample { stride })?;
        }
        if added > 0 {
            let pad = Operation::Pad { padding: [0; 4], channels: [before, after], value: 0.0 };
            short = self.layers.add("shortcut", place, &[short], pad)?;
        }
        Ok(short)
    }
}
