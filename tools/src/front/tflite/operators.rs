//! TensorFlow Lite's operators as the graph's: fused activations, flattening and weight orders become nodes of their own.

use super::Reader;
use super::flatbuffer::Table;
use super::schema::{self, TensorType};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Node, Operator, Padding, Sliding, Value, ValueId};

/// More inputs or outputs than any operator here has.
const MAX_VALUES: usize = 64;

/// An operator as the file has it.
struct Call<'a> {
    name: String,
    kind: &'a str,
    /// How messages name it.
    place: String,
    options: Options<'a>,
    inputs: Vec<Option<ValueId>>,
    output: ValueId,
}

/// An operator's settings; without them all have their defaults.
struct Options<'a>(Option<Table<'a>>);

impl Options<'_> {
    fn byte(&self, slot: usize) -> Result<u8, Refusal> {
        self.0.as_ref().map_or(Ok(0), |table| table.byte(slot))
    }

    fn flag(&self, slot: usize) -> Result<bool, Refusal> {
        Ok(self.byte(slot)? != 0)
    }

    fn integer(&self, slot: usize, default: i32) -> Result<i32, Refusal> {
        self.0.as_ref().map_or(Ok(default), |table| table.integer(slot, default))
    }

    fn axis(&self, slot: usize) -> Result<i64, Refusal> {
        self.integer(slot, 0).map(i64::from)
    }

    fn float(&self, slot: usize) -> Result<f32, Refusal> {
        self.0.as_ref().map_or(Ok(0.0), |table| table.float(slot))
    }

    fn integers(&self, slot: usize) -> Result<Vec<i64>, Refusal> {
        let values = self.0.as_ref().map_or(Ok(&[][..]), |table| table.numbers(slot))?;
        Ok(values.iter().take(MAX_VALUES).map(|&value| i32::from_le_bytes(value).into()).collect())
    }
}

impl Call<'_> {
    fn refuse(&self, kind: ErrorKind, reason: impl Into<String>) -> Refusal {
        Refusal::new(kind, &self.place, reason)
    }

    fn input(&self, index: usize) -> Result<ValueId, Refusal> {
        let input = self.inputs.get(index).copied().flatten();
        input.ok_or_else(|| self.refuse(ErrorKind::Damaged, format!("its input {index} is missing")))
    }

    /// The window's steps: settings in the order padding, horizontal stride, vertical stride.
    fn sliding(&self, kernel: Vec<usize>, dilations: Option<[usize; 2]>) -> Result<Sliding, Refusal> {
        let size = |slot: usize, default: i32| -> Result<usize, Refusal> {
            let size = self.options.integer(slot, default)?;
            let possible = usize::try_from(size).ok().filter(|&size| size <= usize::from(u16::MAX));
            possible.ok_or_else(|| self.refuse(ErrorKind::Damaged, format!("has {size} among its settings")))
        };
        let dilations = match dilations {
            Some([vertical, horizontal]) => vec![size(vertical, 1)?, size(horizontal, 1)?],
            None => Vec::new(),
        };
        let padding = match self.options.byte(0)? {
            schema::SAME => Padding::Same { upper: true },
            _ => Padding::Explicit(Vec::new()),
        };
        let strides = vec![size(2, 0)?, size(1, 0)?];
        Ok(Sliding { kernel, strides, dilations, padding, ceil: false })
    }
}

impl<'a> Reader<'a> {
    /// Adds the nodes of an operator.
    pub(super) fn operator(&mut self, kind: &str, operator: Table<'a>) -> Result<(), Refusal> {
        let inputs = self.values(&operator, schema::operator::INPUTS, kind)?;
        let outputs = self.values(&operator, schema::operator::OUTPUTS, kind)?;
        let Some(&Some(output)) = outputs.first() else {
            return Err(Refusal::new(ErrorKind::Damaged, kind, "has no output"));
        };
        let name = self.name(kind, &inputs, output);
        let place = if name.is_empty() { kind.to_string() } else { format!("node '{name}' ({kind})") };
        if inputs.len().max(outputs.len()) > MAX_VALUES {
            let reason = format!("has {} inputs and {} outputs", inputs.len(), outputs.len());
            return Err(Refusal::new(ErrorKind::Operator, place, reason));
        }
        if self.element_type(output)? == TensorType::INT16 {
            let reason = "its result has 16 bits, activations here have 8";
            return Err(Refusal::new(ErrorKind::Operator, place, reason)
                .help("convert with int8 activations, or give the float model with --calibrate"));
        }
        self.charge(512 * (1 + inputs.len()) + 8 * place.len())?;
        let options = Options(operator.table(schema::operator::OPTIONS)?);
        let call = Call { name, kind, place, options, inputs, output };
        self.call(&call, &outputs)
    }

    /// What an operator is called, as it has no name itself.
    fn name(&self, kind: &str, inputs: &[Option<ValueId>], output: ValueId) -> String {
        let weighty = matches!(kind, "CONV_2D" | "DEPTHWISE_CONV_2D" | "FULLY_CONNECTED");
        let weights = inputs.get(1).copied().flatten().filter(|_| weighty);
        // Weights are named by the layer that they belong to, or are numbered constants.
        let weights = weights.map(|id| &*self.graph.values[id].name).filter(|name| name.contains('/'));
        module(weights.unwrap_or(&self.graph.values[output].name)).to_string()
    }

    fn call(&mut self, call: &Call<'_>, outputs: &[Option<ValueId>]) -> Result<(), Refusal> {
        let options = &call.options;
        match call.kind {
            "CONV_2D" | "DEPTHWISE_CONV_2D" => self.convolution(call)?,
            "FULLY_CONNECTED" => self.dense(call)?,
            "ADD" => self.activated(call, Operator::Add, call.inputs.clone(), options.byte(0)?)?,
            "SUB" => self.activated(call, Operator::Subtract, call.inputs.clone(), options.byte(0)?)?,
            "MUL" => self.activated(call, Operator::Multiply, call.inputs.clone(), options.byte(0)?)?,
            "DIV" => self.activated(call, Operator::Divide, call.inputs.clone(), options.byte(0)?)?,
            "AVERAGE_POOL_2D" | "MAX_POOL_2D" => {
                let size = |slot| options.integer(slot, 0).map(|size| usize::try_from(size).unwrap_or(0));
                let sliding = call.sliding(vec![size(4)?, size(3)?], None)?;
                let operator = match call.kind {
                    "MAX_POOL_2D" => Operator::MaxPool(sliding),
                    _ => Operator::AveragePool { sliding, count_include_pad: false },
                };
                self.activated(call, operator, call.inputs.clone(), options.byte(5)?)?;
            }
            "CONCATENATION" => {
                let operator = Operator::Concat { axis: options.axis(0)? };
                self.activated(call, operator, call.inputs.clone(), options.byte(1)?)?;
            }
            "RELU" => self.clip(call, call.input(0)?, 1, call.output)?,
            "RELU_N1_TO_1" => self.clip(call, call.input(0)?, 2, call.output)?,
            "RELU6" => self.clip(call, call.input(0)?, 3, call.output)?,
            "PAD" | "PADV2" => self.pad(call)?,
            "RESHAPE" => {
                let mut inputs = call.inputs.clone();
                if inputs.len() < 2 {
                    let target = Constant::integers(options.integers(0)?);
                    inputs = vec![Some(call.input(0)?), Some(self.constant(target))];
                }
                self.node(call, Operator::Reshape { allow_zero: true }, inputs, call.output);
            }
            "SQUEEZE" => {
                let axes = options.integers(0)?;
                let axes = (!axes.is_empty()).then(|| self.constant(Constant::integers(axes)));
                self.node(call, Operator::Squeeze, vec![Some(call.input(0)?), axes], call.output);
            }
            "PACK" => {
                let axis = options.axis(1)?;
                let mut inputs = Vec::new();
                for &input in &call.inputs {
                    let axes = self.constant(Constant::integers(vec![axis]));
                    inputs.push(Some(self.temporary()));
                    let raised = inputs[inputs.len() - 1].unwrap_or(call.output);
                    self.node(call, Operator::Unsqueeze, vec![input, Some(axes)], raised);
                }
                self.node(call, Operator::Concat { axis }, inputs, call.output);
            }
            "STRIDED_SLICE" => self.strided_slice(call)?,
            "SLICE" => {
                let [starts, sizes] = [self.integers(call, 1)?, self.integers(call, 2)?];
                let end = |(&start, &size): (&i64, &i64)| {
                    if size < 0 { i64::MAX } else { start.saturating_add(size) }
                };
                let ends = starts.iter().zip(&sizes).map(end).collect();
                let [starts, ends] = [starts, ends].map(|list| Some(self.constant(Constant::integers(list))));
                self.node(call, Operator::Slice, vec![Some(call.input(0)?), starts, ends], call.output);
            }
            _ => {
                let operator = self.plain(call)?;
                let inputs = match operator {
                    Operator::Transpose { .. } | Operator::Identity => vec![Some(call.input(0)?)],
                    _ => call.inputs.clone(),
                };
                let kind = call.kind.to_string();
                let (name, outputs) = (call.name.clone(), outputs.to_vec());
                self.graph.nodes.push(Node { name, kind, operator, inputs, outputs });
            }
        }
        Ok(())
    }

    /// Operators that are one node with the same inputs.
    fn plain(&mut self, call: &Call<'_>) -> Result<Operator, Refusal> {
        let options = &call.options;
        Ok(match call.kind {
            "MEAN" => Operator::ReduceMean { keep: options.flag(0)? },
            "SOFTMAX" if options.float(0)? != 1.0 => {
                let reason = format!("has beta {}; here it is 1", options.float(0)?);
                return Err(call.refuse(ErrorKind::Operator, reason));
            }
            "SOFTMAX" | "LOG_SOFTMAX" => Operator::Softmax { axis: -1, logarithm: call.kind != "SOFTMAX" },
            "MINIMUM" => Operator::Minimum,
            "MAXIMUM" => Operator::Maximum,
            "MIRROR_PAD" => Operator::Pad { constant: false },
            "QUANTIZE" | "DEQUANTIZE" => {
                let input = call.input(0)?;
                let known = self.graph.quantizations.get(&input).cloned();
                // A constant stays what it is, whatever type it is given.
                if let Some(quantization) = known.filter(|_| self.graph.values[input].constant.is_some()) {
                    self.graph.quantizations.insert(call.output, quantization);
                }
                Operator::Identity
            }
            "CAST" => Operator::Cast { integer: !self.element_type(call.output)?.is_float() },
            "TRANSPOSE" => {
                let axes = self.integers(call, 1)?;
                let axes = axes.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>();
                Operator::Transpose { permutation: Some(axes.unwrap_or_default()) }
            }
            "EXPAND_DIMS" => Operator::Unsqueeze,
            "SHAPE" => Operator::Shape { start: 0, end: i64::MAX },
            "GATHER" if options.integer(1, 0)? == 0 => Operator::Gather { axis: options.axis(0)? },
            "BROADCAST_TO" => Operator::Expand,
            kind => Operator::Unsupported { help: advice(kind).into() },
        })
    }

    fn node(&mut self, call: &Call<'_>, operator: Operator, inputs: Vec<Option<ValueId>>, output: ValueId) {
        let (name, kind) = (call.name.clone(), call.kind.to_string());
        self.graph.nodes.push(Node { name, kind, operator, inputs, outputs: vec![Some(output)] });
    }

    /// A value that the file does not have, between two nodes of one operator.
    fn temporary(&mut self) -> ValueId {
        self.graph.values.push(Value::default());
        self.graph.values.len() - 1
    }

    fn constant(&mut self, constant: Constant) -> ValueId {
        self.graph.values.push(Value { name: String::new(), constant: Some(constant) });
        self.graph.values.len() - 1
    }

    /// The integers that an input holds in the file.
    fn integers(&self, call: &Call<'_>, index: usize) -> Result<Vec<i64>, Refusal> {
        match &self.graph.values[call.input(index)?].constant {
            Some(Constant { data: Data::Integer(values), .. }) if values.len() <= MAX_VALUES => {
                Ok(values.clone())
            }
            _ => {
                let reason = format!("its input {index} is not a short constant");
                Err(call.refuse(ErrorKind::Operator, reason).help("convert with fixed sizes"))
            }
        }
    }

    /// A node and, if it has one, its fused activation.
    fn activated(
        &mut self,
        call: &Call<'_>,
        operator: Operator,
        inputs: Vec<Option<ValueId>>,
        activation: u8,
    ) -> Result<(), Refusal> {
        if activation == 0 {
            self.node(call, operator, inputs, call.output);
            return Ok(());
        }
        let sum = self.temporary();
        self.node(call, operator, inputs, sum);
        self.clip(call, sum, activation, call.output)
    }

    fn clip(
        &mut self,
        call: &Call<'_>,
        input: ValueId,
        activation: u8,
        output: ValueId,
    ) -> Result<(), Refusal> {
        let Some((_, kind, bounds)) = schema::CLAMPS.iter().find(|(number, ..)| *number == activation) else {
            let reason = format!("has the fused activation number {activation}");
            return Err(call
                .refuse(ErrorKind::Operator, reason)
                .help("activations are ReLU and ReLU6: train with one of them"));
        };
        let [low, high] = bounds.map(|bound| Some(self.constant(Constant::scalar(bound))));
        let node = Node {
            name: call.name.clone(),
            kind: (*kind).into(),
            operator: Operator::Clip,
            inputs: vec![Some(input), low, high],
            outputs: vec![Some(output)],
        };
        self.graph.nodes.push(node);
        Ok(())
    }

    /// Weights in the graph's order: a node that is folded.
    fn transposed(&mut self, call: &Call<'_>, weights: ValueId, permutation: [usize; 4]) -> ValueId {
        let output = self.temporary();
        self.graph.values[output].name = self.graph.values[weights].name.clone();
        if let Some(mut quantization) = self.graph.quantizations.get(&weights).cloned() {
            let axis = permutation.iter().position(|&axis| axis == quantization.axis);
            quantization.axis = axis.unwrap_or(0);
            self.graph.quantizations.insert(output, quantization);
        }
        let operator = Operator::Transpose { permutation: Some(permutation.to_vec()) };
        self.node(call, operator, vec![Some(weights)], output);
        output
    }

    fn convolution(&mut self, call: &Call<'_>) -> Result<(), Refusal> {
        let (image, weights) = (call.input(0)?, call.input(1)?);
        let size = |sizes: Vec<i32>| sizes.get(3).and_then(|&size| usize::try_from(size).ok()).unwrap_or(0);
        let channels = size(self.dims(image)?);
        let depthwise = call.kind == "DEPTHWISE_CONV_2D";
        // OHWI, or 1HWO when depthwise
        let (permutation, groups, [activation, vertical, horizontal]) = match depthwise {
            true => ([3, 0, 1, 2], channels, [4, 6, 5]),
            false => {
                let groups = channels.checked_div(size(self.dims(weights)?)).unwrap_or(0);
                ([0, 3, 1, 2], groups, [3, 5, 4])
            }
        };
        self.charge(2 * self.graph.values[weights].name.len())?;
        let sliding = call.sliding(Vec::new(), Some([vertical, horizontal]))?;
        let weights = self.transposed(call, weights, permutation);
        let bias = call.inputs.get(2).copied().flatten();
        let inputs = vec![Some(image), Some(weights), bias];
        let activation = call.options.byte(activation)?;
        self.activated(call, Operator::Convolution(sliding, groups), inputs, activation)
    }

    fn dense(&mut self, call: &Call<'_>) -> Result<(), Refusal> {
        let (mut input, weights) = (call.input(0)?, call.input(1)?);
        if call.options.byte(1)? != 0 {
            let reason = "its weights are shuffled for a certain processor";
            return Err(call.refuse(ErrorKind::Operator, reason).help("convert without shuffled weights"));
        }
        let (keeps_rank, sizes) = (call.options.flag(2)?, self.dims(input)?);
        let features = self.dims(weights)?.get(1).copied().unwrap_or(0);
        if !keeps_rank && (sizes.len() != 2 || sizes[1] != features) {
            let flat = self.temporary();
            let target = self.constant(Constant::integers(vec![-1, features.into()]));
            if let Some(quantization) = self.graph.quantizations.get(&input).cloned() {
                self.graph.quantizations.insert(flat, quantization);
            }
            let inputs = vec![Some(input), Some(target)];
            self.node(call, Operator::Reshape { allow_zero: true }, inputs, flat);
            input = flat;
        }
        let gemm = Operator::Gemm { alpha: 1.0, beta: 1.0, transpose_left: false, transpose_right: true };
        let inputs = vec![Some(input), Some(weights), call.inputs.get(2).copied().flatten()];
        self.activated(call, gemm, inputs, call.options.byte(0)?)
    }

    /// Counts come as a pair for each axis; the graph has all beginnings, then all ends.
    fn pad(&mut self, call: &Call<'_>) -> Result<(), Refusal> {
        let (pairs, counts) = (self.temporary(), self.temporary());
        let operator = Operator::Transpose { permutation: Some(vec![1, 0]) };
        self.node(call, operator, vec![Some(call.input(1)?)], pairs);
        let flat = self.constant(Constant::integers(vec![-1]));
        self.node(call, Operator::Reshape { allow_zero: true }, vec![Some(pairs), Some(flat)], counts);
        let inputs = vec![Some(call.input(0)?), Some(counts), call.inputs.get(2).copied().flatten()];
        self.node(call, Operator::Pad { constant: true }, inputs, call.output);
        Ok(())
    }

    fn strided_slice(&mut self, call: &Call<'_>) -> Result<(), Refusal> {
        let mask = |slot| call.options.integer(slot, 0);
        let (begin, end, shrink) = (mask(0)?, mask(1)?, mask(4)?);
        if mask(2)? != 0 || mask(3)? != 0 {
            let reason = "slices with an ellipsis or new axes";
            return Err(call.refuse(ErrorKind::Operator, reason).help("name every axis in the slice"));
        }
        let [mut starts, mut ends, mut steps] =
            [self.integers(call, 1)?, self.integers(call, 2)?, self.integers(call, 3)?];
        let mut gone = Vec::new();
        let axes = starts.len().min(ends.len()).min(steps.len()).min(32);
        for axis in 0..axes {
            let bit = |mask: i32| mask >> axis & 1 != 0;
            let backwards = steps[axis] < 0;
            if bit(shrink) {
                // One position; the last is -1.
                (ends[axis], steps[axis]) =
                    (if starts[axis] == -1 { i64::MAX } else { starts[axis].saturating_add(1) }, 1);
                gone.push(axis as i64);
                continue;
            }
            if bit(begin) {
                starts[axis] = if backwards { i64::MAX } else { 0 };
            }
            if bit(end) {
                ends[axis] = if backwards { i64::MIN } else { i64::MAX };
            }
        }
        let sliced = if gone.is_empty() { call.output } else { self.temporary() };
        let axes = Constant::integers((0..starts.len() as i64).collect());
        let [starts, ends, steps] = [starts, ends, steps].map(Constant::integers);
        let mut inputs = vec![Some(call.input(0)?)];
        inputs.extend([starts, ends, axes, steps].map(|list| Some(self.constant(list))));
        self.node(call, Operator::Slice, inputs, sliced);
        if !gone.is_empty() {
            let axes = self.constant(Constant::integers(gone));
            self.node(call, Operator::Squeeze, vec![Some(sliced), Some(axes)], call.output);
        }
        Ok(())
    }
}

/// The module that made a tensor: `conv2d` of `model/conv2d/Conv2D;model/conv2d/BiasAdd`.
fn module(name: &str) -> &str {
    let first = name.split(';').next().unwrap_or(name);
    let inner = first.rsplit_once('/').map_or(first, |(module, _)| module);
    inner.split_once('/').map_or(inner, |(_, module)| module)
}

/// The help for an unsupported operator.
fn advice(kind: &str) -> &'static str {
    match kind {
        "LSTM"
        | "RNN"
        | "SVDF"
        | "WHILE"
        | "IF"
        | "CALL"
        | "CALL_ONCE"
        | "UNIDIRECTIONAL_SEQUENCE_LSTM"
        | "UNIDIRECTIONAL_SEQUENCE_RNN"
        | "BIDIRECTIONAL_SEQUENCE_LSTM"
        | "VAR_HANDLE"
        | "READ_VARIABLE" => "recurrence and control flow are not supported; use a convolutional network",
        "LOGISTIC" | "TANH" | "HARD_SWISH" | "LEAKY_RELU" | "PRELU" | "ELU" | "GELU" => {
            "activations are ReLU and ReLU6: train with one of them"
        }
        "BATCH_TO_SPACE_ND" | "SPACE_TO_BATCH_ND" => {
            "dilated convolutions are not supported: train with dilation 1, or a stride instead"
        }
        "TRANSPOSE_CONV" | "RESIZE_BILINEAR" | "RESIZE_NEAREST_NEIGHBOR" | "DEPTH_TO_SPACE" => {
            "layers that enlarge their input are not supported; classifiers are"
        }
        "ARG_MAX" | "TOPK_V2" => "end the network at the scores: the best classes are picked at run time",
        "REDUCE_MAX" => "use global average pooling, or a max pooling of a fixed size",
        "SUM" => "use the mean: global average pooling",
        "BATCH_MATMUL" => "use a dense layer with constant weights",
        _ => {
            "supported are convolution, depthwise convolution, dense, max and average pooling, \
             residual addition, ReLU, ReLU6 and softmax"
        }
    }
}
