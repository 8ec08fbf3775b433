//! Operators with weights: convolution, dense, batch norm, arithmetic with constants, clamps; every weight is checked to be finite.

use std::borrow::Cow;

use super::{At, Lowering, State, Tensor, layer_name};
use crate::front::arrangement::{Arrangement, Axis};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Operator, Sliding};
use crate::front::order;
use crate::ir::{Affine, BatchNorm, IntegerWeights, Operation, Weights};

impl Lowering {
    /// A required constant's elements, all finite.
    fn weights<'s>(
        &self,
        at: At<'_>,
        inputs: &'s [Option<State>],
        index: usize,
    ) -> Result<(&'s Constant, Cow<'s, [f32]>), Refusal> {
        let name = self.input_name(at.node, index);
        match inputs.get(index) {
            Some(Some(State::Constant(constant))) => {
                let tensor = if name.is_empty() { at.place.to_string() } else { format!("tensor '{name}'") };
                Ok((constant, constant.finite(&tensor)?))
            }
            // The error that says why there is no constant.
            _ => {
                self.constant(at, inputs, index)?;
                let reason = format!("its input {index} is missing");
                Err(Refusal::new(ErrorKind::Damaged, at.place, reason))
            }
        }
    }

    pub(super) fn convolution(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        sliding: &Sliding,
        groups: usize,
    ) -> Result<Tensor, Refusal> {
        let input = self.image(at, inputs)?.clone();
        let shape = self.network.shape(input.id);
        let channels = usize::from(shape.channels);
        let (constant, weights) = self.weights(at, inputs, 1)?;
        let [outputs, group_inputs, height, width] = match constant.dims[..] {
            [o, i, h, w] => [o, i, h, w],
            _ => {
                let reason = format!("its weights have sizes {:?}", constant.dims);
                return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                    .help("convolutions over height and width are possible; give 1-d ones a height of 1"));
            }
        };
        let depthwise = groups == channels && groups > 1;
        if groups != 1 && !(depthwise && outputs == channels && group_inputs == 1) {
            let reason = if depthwise {
                format!("makes {outputs} channels from {channels} by a channel multiplier")
            } else {
                format!("has {groups} groups for {channels} channels")
            };
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("groups = 1, or as many groups, inputs and outputs as channels (depthwise)"));
        }
        if groups == 1 && group_inputs != channels {
            let reason = format!("its weights are for {group_inputs} channels, its input is {shape}");
            return Err(Refusal::new(ErrorKind::Shape, at.place, reason));
        }
        if !sliding.kernel.is_empty() && sliding.kernel != [height, width] {
            let reason = format!("says a kernel of {:?}, its weights {height} x {width}", sliding.kernel);
            return Err(Refusal::new(ErrorKind::Damaged, at.place, reason));
        }
        let window = self.window(at, sliding, [height, width], shape)?.window;
        let bias = match self.constant(at, inputs, 2)? {
            Some(_) => self.weights(at, inputs, 2)?.1.iter().map(|&b| b.into()).collect(),
            None => vec![0.0; outputs],
        };
        let dims = [outputs, group_inputs, height, width];
        let weights = match self.integer_weights(at, outputs, &bias) {
            Some(integers) => Weights::Integers(IntegerWeights {
                weights: order::convolution(&integers.weights, dims, depthwise),
                ..integers
            }),
            None => Weights::Real { weights: order::convolution(&weights, dims, depthwise), bias },
        };
        let name = layer_name(&self.graph, at.node, Some(&self.input_name(at.node, 1)));
        let operation = Operation::Conv2d { window, outputs, depthwise };
        let id = self.network.add_weighted(name, at.place, &[input.id], operation, weights)?;
        Ok(self.as_image(id, &input))
    }

    pub(super) fn dense(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        let (alpha, beta, transposed) = match at.node.operator {
            Operator::Gemm { alpha, beta, transpose_left: false, transpose_right } => {
                (alpha, beta, transpose_right)
            }
            Operator::Gemm { .. } => {
                return Err(Refusal::new(ErrorKind::Operator, at.place, "transposes its input"));
            }
            _ => (1.0, 0.0, false),
        };
        let axes = self.features(at, &input.arrangement)?;
        let (constant, weights) = self.weights(at, inputs, 1)?;
        let [rows, columns] = match constant.dims[..] {
            [rows, columns] => [rows, columns],
            _ => {
                let reason = format!("its weights have sizes {:?}", constant.dims);
                return Err(Refusal::new(ErrorKind::Shape, at.place, reason));
            }
        };
        let (outputs, features) = if transposed { (rows, columns) } else { (columns, rows) };
        let shape = self.network.shape(input.id);
        if features != shape.len() {
            let reason = format!("its weights are for {features} inputs, its input is {shape}");
            return Err(Refusal::new(ErrorKind::Shape, at.place, reason));
        }
        let sources = order::features(&axes, shape);
        let bias = match self.constant(at, inputs, 2)? {
            Some(_) => {
                let (_, bias) = self.weights(at, inputs, 2)?;
                if bias.len() != outputs && bias.len() != 1 {
                    let reason = format!("has {} biases for {outputs} outputs", bias.len());
                    return Err(Refusal::new(ErrorKind::Shape, at.place, reason));
                }
                (0..outputs).map(|o| f64::from(bias[o % bias.len()]) * beta).collect()
            }
            None => vec![0.0; outputs],
        };
        let name = layer_name(&self.graph, at.node, Some(&self.input_name(at.node, 1)));
        let (operation, integers) = (Operation::Dense { outputs }, self.integer_weights(at, outputs, &bias));
        let weights = match integers {
            Some(integers) => Weights::Integers(IntegerWeights {
                weights: order::dense(&integers.weights, &sources, outputs, transposed),
                ..integers
            }),
            None => {
                let mut weights = order::dense(&weights, &sources, outputs, transposed);
                weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * alpha) as f32);
                Weights::Real { weights, bias }
            }
        };
        let id = self.network.add_weighted(name, at.place, &[input.id], operation, weights)?;
        Ok(Tensor { id, arrangement: input.arrangement.dense(self.network.shape(id)) })
    }

    /// The order in which a dense layer's inputs run through the image.
    fn features(&self, at: At<'_>, arrangement: &Arrangement) -> Result<Vec<Axis>, Refusal> {
        let rank = arrangement.rank();
        let mut others = (0..rank.saturating_sub(1)).flat_map(|dim| arrangement.parts(dim));
        let last = if rank == 0 { Vec::new() } else { arrangement.parts(rank - 1) };
        if others.any(|axis| axis != Axis::Batch) || last.contains(&Axis::Batch) {
            let reason =
                format!("multiplies a tensor of sizes {:?} position by position", arrangement.dims());
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("flatten before a dense layer, or use a 1 x 1 convolution"));
        }
        Ok(last)
    }

    pub(super) fn batch_norm(
        &mut self,
        at: At<'_>,
        inputs: &[Option<State>],
        epsilon: f64,
    ) -> Result<Tensor, Refusal> {
        let input = self.tensor(at, inputs, 0)?.clone();
        let layout = self.graph.layout;
        let is_image = input.arrangement.layout(layout) == Some(layout);
        let is_vector = input.arrangement.rank() == 2 && input.arrangement.parts(1) == [Axis::Channel];
        if !is_image && !is_vector {
            let reason = format!("normalises axis 1 of sizes {:?}", input.arrangement.dims());
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("batch norm over the channels is folded into the layer before it"));
        }
        let channels = usize::from(self.network.shape(input.id).channels);
        let mut vectors = Vec::new();
        for index in 1..=4 {
            let (_, values) = self.weights(at, inputs, index)?;
            if values.len() != channels {
                let reason = format!("has {} parameters for {channels} channels", values.len());
                return Err(Refusal::new(ErrorKind::Shape, at.place, reason));
            }
            vectors.push(values);
        }
        let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|index| &vectors[index][..]);
        let norm = BatchNorm { gamma, beta, mean, variance, epsilon };
        let affine = Affine::batch_norm(&norm)
            .map_err(|error| Refusal::variance(&error, &self.input_name(at.node, 4)))?;
        self.affine(at, &input, affine, "batch norm")
    }

    pub(super) fn arithmetic(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let operator = &at.node.operator;
        if let (Some(Some(State::Tensor(left))), Some(Some(State::Tensor(right)))) =
            (inputs.first(), inputs.get(1))
        {
            return self.addition(at, left, right);
        }
        let (tensor, constant) = match inputs.first() {
            Some(Some(State::Tensor(_))) => (0, 1),
            _ => (1, 0),
        };
        let input = self.tensor(at, inputs, tensor)?.clone();
        let (values, _) = self.weights(at, inputs, constant)?;
        let values = self.per_channel(at, values, &input)?;
        let channels = values.len();
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        let (scale, shift): (Vec<f64>, Vec<f64>) = match (operator, constant) {
            (Operator::Add, _) => (ones, values),
            (Operator::Subtract, 1) => (ones, values.iter().map(|v| -v).collect()),
            (Operator::Subtract, _) => (vec![-1.0; channels], values),
            (Operator::Multiply, _) => (values, zeros),
            (_, 1) => (values.iter().map(|v| 1.0 / v).collect(), zeros),
            _ => {
                let reason = "divides a constant by the image's data";
                return Err(Refusal::new(ErrorKind::Operator, at.place, reason));
            }
        };
        if let Some(channel) = scale.iter().position(|s| !s.is_finite()) {
            let reason = format!("divides channel {channel} by 0");
            return Err(Refusal::new(ErrorKind::Value, at.place, reason));
        }
        let norm = match operator {
            Operator::Add | Operator::Subtract => "an added constant",
            _ => "a constant factor",
        };
        self.affine(at, &input, Affine { scale, shift }, norm)
    }

    fn affine(
        &mut self,
        at: At<'_>,
        input: &Tensor,
        affine: Affine,
        norm: &'static str,
    ) -> Result<Tensor, Refusal> {
        let name = layer_name(&self.graph, at.node, None);
        let (operation, weights) = (Operation::Affine { norm }, Weights::Affine(affine));
        let id = self.network.add_weighted(name, at.place, &[input.id], operation, weights)?;
        Ok(self.kept(id, input))
    }

    fn addition(&mut self, at: At<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor, Refusal> {
        if at.node.operator != Operator::Add {
            let reason = "combines two tensors that both depend on the image, other than by adding";
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("blocks add; gates (squeeze-and-excitation, attention) are not supported"));
        }
        if !left.arrangement.same(&right.arrangement) {
            let reason = format!(
                "adds tensors of sizes {:?} and {:?}",
                left.arrangement.dims(),
                right.arrangement.dims()
            );
            return Err(Refusal::new(ErrorKind::Shape, at.place, reason)
                .help("a block's path and shortcut have the same shape"));
        }
        let name = layer_name(&self.graph, at.node, None);
        let id = self.network.add(name, at.place, &[left.id, right.id], Operation::Add)?;
        Ok(Tensor { id, arrangement: left.arrangement.clone() })
    }

    /// A constant that is spread over the image, as one value per channel.
    fn per_channel(&self, at: At<'_>, constant: &Constant, input: &Tensor) -> Result<Vec<f64>, Refusal> {
        let channels = usize::from(self.network.shape(input.id).channels);
        let values = match &constant.data {
            Data::Float(values) => values.iter().map(|&v| v.into()).collect(),
            Data::Integer(values) => values.iter().map(|&v| v as f64).collect::<Vec<f64>>(),
        };
        let rank = input.arrangement.rank();
        let offset = rank.checked_sub(constant.dims.len());
        if let (&[value], Some(_)) = (&values[..], offset) {
            return Ok(vec![value; channels]);
        }
        let long = constant.dims.iter().enumerate().filter(|(_, size)| **size != 1);
        let long: Vec<usize> = long.map(|(dim, _)| dim).collect();
        let fits = match (&long[..], offset) {
            (&[dim], Some(offset)) => {
                input.arrangement.parts(dim + offset) == [Axis::Channel] && values.len() == channels
            }
            _ => false,
        };
        if fits {
            return Ok(values);
        }
        let dims = input.arrangement.dims();
        let reason = format!("combines {dims:?} with a constant of {:?}", constant.dims);
        Err(Refusal::new(ErrorKind::Operator, at.place, reason)
            .help("constants of one value, or of one per channel, can be folded into a layer"))
    }

    pub(super) fn clamp(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let index = usize::from(!matches!(inputs.first(), Some(Some(State::Tensor(_)))));
        let input = self.tensor(at, inputs, index)?.clone();
        let bound = |index: usize| -> Result<Option<f64>, Refusal> {
            let Some((constant, name)) = self.constant(at, inputs, index)? else { return Ok(None) };
            let value = match (&constant.data, constant.len()) {
                (Data::Float(values), 1) => f64::from(values[0]),
                (Data::Integer(values), 1) => values[0] as f64,
                _ => {
                    let reason = format!("its bound '{name}' is not a single number");
                    return Err(Refusal::new(ErrorKind::Operator, at.place, reason));
                }
            };
            if value.is_nan() {
                let reason = format!("its bound '{name}' is not a number");
                return Err(Refusal::new(ErrorKind::Value, at.place, reason));
            }
            // Exporters write "no bound" as the largest f32.
            Ok(Some(if value.abs() >= f32::MAX.into() { value.signum() * f64::INFINITY } else { value }))
        };
        let (low, high) = match at.node.operator {
            Operator::Minimum => (None, bound(1 - index)?),
            Operator::Maximum => (bound(1 - index)?, None),
            _ => (bound(1)?, bound(2)?),
        };
        let (low, high) = (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
        self.keep(at, &input, Operation::Clamp { low, high })
    }
}
