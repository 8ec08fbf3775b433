//! From the operator graph to layers: what the output needs is walked in order, constants are folded, reshaping becomes bookkeeping.
//!
//! Each value is either a constant or a layer's result in some arrangement of its axes. Operators
//! over positions and channels are in `lower/windows.rs`, those with weights in
//! `lower/weights.rs`; what is quantized in the file in `lower/quantized.rs`.

mod quantized;
mod weights;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::arrangement::{Arrangement, Axis};
use super::builder::{NetworkBuilder, allowance};
use super::error::{ErrorKind, Refusal, enumerate};
use super::fold::{self, Budget};
use super::graph::{Constant, Data, Graph, Input, Layout, Node, Operator, Quantization, ValueId};
use crate::ir::{FloatNetwork, INPUT, Operation, TensorId};

/// A network and what the graph says beside it.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// Unfused: every operation is a layer.
    pub(crate) network: FloatNetwork,
    /// The input's elements are integers: raw pixels.
    pub(crate) integer_input: bool,
    /// What was recognised of the input.
    pub(crate) note: String,
    /// Names of outputs that are no tensor and no node of the graph: perhaps they are layers.
    pub(crate) unknown: Vec<String>,
}

/// What is known of a value.
#[derive(Debug, Clone)]
enum State {
    Constant(Rc<Constant>),
    Tensor(Tensor),
}

/// A layer's result.
#[derive(Debug, Clone)]
struct Tensor {
    id: TensorId,
    arrangement: Arrangement,
}

/// A node and how messages name it.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    place: &'a str,
}

struct Lowering {
    graph: Graph,
    states: Vec<Option<State>>,
    network: NetworkBuilder,
    budget: Budget,
    /// The values that are the output but for a softmax.
    scores: BTreeSet<ValueId>,
    /// What follows a layer whose quantization cuts off what is below zero.
    rectified: BTreeMap<TensorId, TensorId>,
}

/// The network of a graph that was read from a file of this size, up to the outputs of these names, or to the
/// graph's own.
pub(crate) fn lower(mut graph: Graph, file_bytes: usize, names: &[String]) -> Result<Lowered, Refusal> {
    let Outputs { known: outputs, unknown } = outputs(&graph, names);
    if outputs.is_empty() {
        return Err(Refusal::new(ErrorKind::Topology, "", "has no output"));
    }
    graph.nodes = needed(&mut graph, &outputs);
    refuse_unsupported(&graph)?;
    let input = only_input(&mut graph)?;
    let place = format!("input '{}'", graph.values[input.value].name);
    let layout = input_layout(&graph, &input);
    let (sizes, axes) = image(&input, layout, &place)?;
    let network = NetworkBuilder::new(&place, sizes, allowance(file_bytes))?;
    let batch = input.dims[0].unwrap_or(1);
    if batch > usize::from(u16::MAX) {
        return Err(Refusal::new(ErrorKind::Shape, place, format!("has a batch of {batch}")));
    }
    let shape = network.shape(INPUT);
    let arrangement = Arrangement::of(axes, batch, shape);
    let names = axes.iter().map(|axis| match axis {
        Axis::Batch => "N",
        Axis::Height => "H",
        Axis::Width => "W",
        Axis::Channel => "C",
    });
    let mut note = format!("{place}: {shape} ({})", names.collect::<String>());
    if let [Axis::Batch, Axis::Channel] = axes {
        let count = shape.channels;
        note.push_str(&format!(
            ": {count} numbers, one byte for each; mean and std say what 0 and 255 stand for, -mean / std and \
             (1 - mean) / std"
        ));
    }

    let constants = graph.values.iter_mut().map(|value| value.constant.take());
    let states = constants.map(|c| c.map(|c| State::Constant(Rc::new(c)))).collect();
    // Small sizes and axes cost nothing in the file; a megabyte serves all of them.
    let budget = Budget(file_bytes.saturating_add(1 << 20));
    let scores = scores(&graph.nodes, &outputs);
    let mut lowering = Lowering { graph, states, network, budget, scores, rectified: BTreeMap::new() };
    lowering.set(input.value, State::Tensor(Tensor { id: INPUT, arrangement }));
    lowering.walk()?;
    let mut tensors = Vec::new();
    for (name, output) in outputs {
        match &lowering.states[output] {
            Some(State::Tensor(tensor)) if tensor.arrangement.batch() == batch => {
                tensors.push((name, tensor.id));
            }
            _ => {
                let reason = "does not depend on the input";
                return Err(Refusal::new(ErrorKind::Topology, format!("output '{name}'"), reason)
                    .help("name another output"));
            }
        }
    }
    // In the order of their layers.
    tensors.sort_by_key(|(_, tensor)| *tensor);
    let network = lowering.network.finish(tensors);
    Ok(Lowered { network, integer_input: input.integer, note, unknown })
}

/// The graph's outputs, or those that were asked for.
struct Outputs {
    /// With the names that they are called by.
    known: Vec<(String, ValueId)>,
    /// Names that the graph does not have.
    unknown: Vec<String>,
}

/// Finds outputs by the names of tensors, then of nodes. The graph's own outputs stay if a name is unknown:
/// the layer of that name must be there to be found.
fn outputs(graph: &Graph, names: &[String]) -> Outputs {
    let mut outputs = Outputs { known: Vec::new(), unknown: Vec::new() };
    let made = |id: &ValueId| graph.values[*id].constant.is_none();
    let by_value = |name: &String| graph.values.iter().position(|value| value.name == *name).filter(made);
    let by_node = |name: &String| {
        let node = graph.nodes.iter().find(|node| node.name == *name)?;
        node.outputs.first().copied().flatten()
    };
    for name in names {
        match by_value(name).or_else(|| by_node(name)) {
            Some(value) => outputs.known.push((name.clone(), value)),
            None => outputs.unknown.push(name.clone()),
        }
    }
    if names.is_empty() || !outputs.unknown.is_empty() {
        let own = graph.outputs.iter().map(|&id| (graph.values[id].name.clone(), id));
        outputs.known.extend(own);
    }
    outputs.known.sort_by_key(|(_, value)| *value);
    outputs.known.dedup_by_key(|(_, value)| *value);
    outputs
}

/// The nodes that the outputs depend on, in order.
fn needed(graph: &mut Graph, outputs: &[(String, ValueId)]) -> Vec<Node> {
    let mut wanted = vec![false; graph.values.len()];
    outputs.iter().for_each(|(_, output)| wanted[*output] = true);
    let mut kept = Vec::new();
    // In reverse order every reader comes before what it reads.
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if node.outputs.iter().flatten().any(|&id| wanted[id]) {
            node.inputs.iter().flatten().for_each(|&id| wanted[id] = true);
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

/// All unsupported operators at once: to change a network takes the whole list.
fn refuse_unsupported(graph: &Graph) -> Result<(), Refusal> {
    let mut found = graph.nodes.iter().filter_map(|node| match &node.operator {
        Operator::Unsupported { help } => Some((node, help)),
        _ => None,
    });
    let Some((node, help)) = found.next() else { return Ok(()) };
    let mut kinds: Vec<String> = found.map(|(node, _)| node.kind.clone()).collect();
    kinds.sort();
    kinds.dedup();
    let mut reason = format!("unsupported operator {}", node.kind);
    if !kinds.is_empty() {
        reason.push_str(&format!("; later nodes are not supported either: {}", enumerate(&kinds)));
    }
    Err(Refusal::new(ErrorKind::Operator, node.place(graph), reason).help(help))
}

/// The one input that the remaining nodes read.
fn only_input(graph: &mut Graph) -> Result<Input, Refusal> {
    let inputs = std::mem::take(&mut graph.inputs);
    let read = |input: &Input| graph.nodes.iter().any(|n| n.inputs.contains(&Some(input.value)));
    let mut inputs: Vec<Input> = inputs.into_iter().filter(read).collect();
    match (inputs.pop(), inputs.is_empty()) {
        (Some(input), true) => Ok(input),
        (None, _) => {
            Err(Refusal::new(ErrorKind::Topology, "the graph", "has no input that its outputs need"))
        }
        (Some(last), false) => {
            inputs.push(last);
            let names = inputs.iter().map(|input| graph.values[input.value].name.clone());
            let names = enumerate(&names.collect::<Vec<_>>());
            Err(Refusal::new(ErrorKind::Topology, "the graph", format!("reads the inputs {names}"))
                .help("a network reads one image: export with the others as constants"))
        }
    }
}

/// Whether the input's channels come first or last.
///
/// The first operator that cares tells: convolutions want the graph's layout, and a transposition
/// before them (as tf2onnx writes it) says that the input has the other one.
fn input_layout(graph: &Graph, input: &Input) -> Layout {
    let other = if graph.layout == Layout::Nchw { Layout::Nhwc } else { Layout::Nchw };
    let transposes_to_graph = match graph.layout {
        Layout::Nchw => [0, 3, 1, 2],
        Layout::Nhwc => [0, 2, 3, 1],
    };
    let mut value = input.value;
    for node in &graph.nodes {
        if !node.inputs.contains(&Some(value)) {
            continue;
        }
        match &node.operator {
            Operator::Identity
            | Operator::Quantize
            | Operator::Cast { .. }
            | Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Clip => match node.outputs.first() {
                Some(&Some(output)) => value = output,
                _ => break,
            },
            Operator::Transpose { permutation: Some(permutation) } if *permutation == transposes_to_graph => {
                return other;
            }
            Operator::Reshape { .. } | Operator::Flatten { .. } => break,
            _ => return graph.layout,
        }
    }
    if graph.layout == Layout::Nhwc {
        return graph.layout; // the format has but this one
    }
    // Nothing tells (dense layers alone): pictures have one, three or four channels.
    let is_channels = |dim: usize| matches!(input.dims.get(dim), Some(Some(1 | 3 | 4)));
    match (is_channels(1), is_channels(3)) {
        (false, true) => Layout::Nhwc,
        (true, false) => Layout::Nchw,
        _ => graph.layout,
    }
}

/// Height, width and channels of the input, and which of its axes is which.
fn image(input: &Input, layout: Layout, place: &str) -> Result<([usize; 3], &'static [Axis]), Refusal> {
    use Axis::{Batch, Channel, Height, Width};
    let axes: &[Axis] = match (input.dims.len(), layout) {
        (4, Layout::Nchw) => &[Batch, Channel, Height, Width],
        (4, Layout::Nhwc) => &[Batch, Height, Width, Channel],
        (3, _) => &[Batch, Height, Width],
        (2, _) => &[Batch, Channel],
        (rank, _) => {
            let reason = format!("has {rank} axes; images have batch, height, width and channels");
            return Err(Refusal::new(ErrorKind::Shape, place, reason));
        }
    };
    let mut sizes = [1; 3];
    for (axis, &dim) in axes.iter().zip(&input.dims) {
        let (index, name) = match axis {
            Batch => continue,
            Height => (0, "height"),
            Width => (1, "width"),
            Channel => (2, "number of channels"),
        };
        sizes[index] = dim.ok_or_else(|| {
            let reason = format!("its {name} is not fixed, but the board's memory is planned ahead");
            Refusal::new(ErrorKind::DynamicShape, place, reason)
                .help("export with fixed sizes; only the batch (axis 0) may be dynamic")
        })?;
    }
    Ok((sizes, axes))
}

impl Lowering {
    fn walk(&mut self) -> Result<(), Refusal> {
        for node in std::mem::take(&mut self.graph.nodes) {
            let place = node.place(&self.graph);
            let state = self.node(At { node: &node, place: &place })?;
            if let Some(&Some(output)) = node.outputs.first() {
                self.set(output, state);
            }
        }
        Ok(())
    }

    /// What is known of a value from here on.
    fn set(&mut self, value: ValueId, state: State) {
        let scale = self.graph.quantizations.get(&value).and_then(Quantization::uniform);
        if let (State::Tensor(tensor), Some(scale)) = (&state, scale) {
            self.network.set_scale(tensor.id, scale);
        }
        self.states[value] = Some(state);
    }

    fn node(&mut self, at: At<'_>) -> Result<State, Refusal> {
        let mut inputs = Vec::new();
        for &input in &at.node.inputs {
            inputs.push(match input {
                None => None,
                Some(id) => Some(self.states[id].clone().ok_or_else(|| {
                    let name = &self.graph.values[id].name;
                    let reason = format!("reads '{name}', a second result, which is not supported");
                    Refusal::new(ErrorKind::Operator, at.place, reason)
                })?),
            });
        }
        self.read_as_reals(at, &mut inputs)?;
        if let (Operator::CastLike, [Some(_), Some(like)]) = (&at.node.operator, &inputs[..]) {
            // Only the type of the second input matters; what depends on the image is float.
            let integer = matches!(like, State::Constant(c) if matches!(c.data, Data::Integer(_)));
            let cast = Node { operator: Operator::Cast { integer }, ..at.node.clone() };
            inputs.truncate(1);
            return self.compute(At { node: &cast, place: at.place }, inputs);
        }
        self.compute(at, inputs)
    }

    fn compute(&mut self, at: At<'_>, inputs: Vec<Option<State>>) -> Result<State, Refusal> {
        let constants = inputs.iter().flatten().all(|input| matches!(input, State::Constant(_)));
        if !constants {
            return self.layer(at, &inputs);
        }
        match (&at.node.operator, inputs.first()) {
            (Operator::Identity, Some(Some(state))) => return Ok(state.clone()),
            (Operator::Quantize, Some(Some(State::Constant(constant)))) => {
                return self.quantize_constant(at, constant);
            }
            _ => {}
        }
        let values: Vec<Option<&Constant>> = inputs
            .iter()
            .map(|input| match input {
                Some(State::Constant(constant)) => Some(&**constant),
                _ => None,
            })
            .collect();
        let result = fold::evaluate(&at.node.operator, &values, &mut self.budget, at.place)?;
        result.map(|constant| State::Constant(Rc::new(constant))).ok_or_else(|| {
            Refusal::new(ErrorKind::Operator, at.place, "computes on constants, which is not folded")
                .help("'onnxsim' folds constants: python -m onnxsim model.onnx simple.onnx")
        })
    }

    /// A node of which at least one input depends on the image.
    fn layer(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<State, Refusal> {
        let tensor = match &at.node.operator {
            Operator::Shape { start, end } => {
                let dims = self.tensor(at, inputs, 0)?.arrangement.dims();
                let dims = fold::part(&dims, *start, *end).iter().map(|&size| size as i64);
                return Ok(State::Constant(Rc::new(Constant::integers(dims.collect()))));
            }
            Operator::Identity | Operator::Cast { integer: false } => self.tensor(at, inputs, 0)?.clone(),
            Operator::Quantize => self.quantize(at, inputs)?,
            Operator::Reshape { .. }
            | Operator::Flatten { .. }
            | Operator::Squeeze
            | Operator::Unsqueeze
            | Operator::Transpose { .. } => self.rearrange(at, inputs)?,
            Operator::Convolution(sliding, groups) => self.convolution(at, inputs, sliding, *groups)?,
            Operator::Gemm { .. } | Operator::MatMul => self.dense(at, inputs)?,
            Operator::BatchNormalization { epsilon } => self.batch_norm(at, inputs, *epsilon)?,
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide => {
                self.arithmetic(at, inputs)?
            }
            Operator::Clip | Operator::Minimum | Operator::Maximum => self.clamp(at, inputs)?,
            Operator::MaxPool(sliding) => self.max_pool(at, inputs, sliding)?,
            Operator::AveragePool { sliding, count_include_pad } => {
                self.average_pool(at, inputs, sliding, *count_include_pad)?
            }
            Operator::GlobalAveragePool => self.global_average_pool(at, inputs)?,
            Operator::ReduceMean { keep } => self.mean(at, inputs, *keep)?,
            Operator::Softmax { axis, logarithm } => self.softmax(at, inputs, *axis, *logarithm)?,
            Operator::Pad { constant } => self.pad(at, inputs, *constant)?,
            Operator::Slice => self.slice(at, inputs)?,
            Operator::Concat { axis } => self.concat(at, inputs, *axis)?,
            Operator::Cast { integer: true }
            | Operator::CastLike
            | Operator::Gather { .. }
            | Operator::ConstantOfShape { .. }
            | Operator::Expand
            | Operator::Unsupported { .. } => {
                let reason =
                    format!("unsupported operator {} on data that depends on the image", at.node.kind);
                return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                    .help("move this step out of the network, before or after it"));
            }
        };
        Ok(State::Tensor(tensor))
    }

    /// The input that depends on the image.
    fn tensor<'s>(
        &self,
        at: At<'_>,
        inputs: &'s [Option<State>],
        index: usize,
    ) -> Result<&'s Tensor, Refusal> {
        match inputs.get(index) {
            Some(Some(State::Tensor(tensor))) => Ok(tensor),
            Some(Some(State::Constant(_))) => {
                let reason = format!("its input {index} is constant, and another depends on the image");
                Err(Refusal::new(ErrorKind::Operator, at.place, reason))
            }
            _ => {
                let reason = format!("its input {index} is missing");
                Err(Refusal::new(ErrorKind::Damaged, at.place, reason))
            }
        }
    }

    /// An optional constant input and its name for messages.
    fn constant(
        &self,
        at: At<'_>,
        inputs: &[Option<State>],
        index: usize,
    ) -> Result<Option<(Rc<Constant>, String)>, Refusal> {
        match inputs.get(index) {
            None | Some(None) => Ok(None),
            Some(Some(State::Constant(constant))) => {
                Ok(Some((constant.clone(), self.input_name(at.node, index))))
            }
            Some(Some(State::Tensor(_))) => {
                let reason = format!("its input {index} depends on the image; weights must be constant");
                Err(Refusal::new(ErrorKind::Operator, at.place, reason))
            }
        }
    }

    /// A constant input of integers: sizes, axes and the like.
    fn integers(
        &self,
        at: At<'_>,
        inputs: &[Option<State>],
        index: usize,
    ) -> Result<Option<Vec<i64>>, Refusal> {
        let constant = self.constant(at, inputs, index)?;
        let values = constant.map(|(constant, _)| fold::integers(&constant)).transpose();
        values.map_err(|reason| Refusal::new(ErrorKind::Damaged, at.place, reason))
    }

    fn input_name(&self, node: &Node, index: usize) -> String {
        let id = node.inputs.get(index).copied().flatten();
        id.map_or(String::new(), |id| self.graph.values[id].name.clone())
    }

    /// Adds a layer that keeps its input's axes where they are.
    fn keep(&mut self, at: At<'_>, input: &Tensor, operation: Operation) -> Result<Tensor, Refusal> {
        let name = layer_name(&self.graph, at.node, None);
        let id = self.network.add(name, at.place, &[input.id], operation)?;
        Ok(self.kept(id, input))
    }

    /// A layer's result, with its axes where those of its input are.
    fn kept(&self, id: TensorId, input: &Tensor) -> Tensor {
        Tensor { id, arrangement: input.arrangement.grown(self.network.shape(id), self.graph.layout) }
    }

    fn rearrange(&self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let Tensor { id, arrangement } = self.tensor(at, inputs, 0)?;
        let dims = arrangement.dims();
        let damaged = |reason| Refusal::new(ErrorKind::Damaged, at.place, reason);
        if let Operator::Transpose { permutation } = &at.node.operator {
            let permutation = fold::checked_permutation(permutation.as_deref(), dims.len());
            let arrangement = arrangement.transpose(&permutation.map_err(damaged)?);
            let arrangement = arrangement.ok_or_else(|| damaged("transposes other axes".into()))?;
            return Ok(Tensor { id: *id, arrangement });
        }
        let axes = self.integers(at, inputs, 1)?;
        let target = match (&at.node.operator, axes) {
            (Operator::Reshape { allow_zero }, Some(target)) => fold::reshaped(&dims, &target, *allow_zero),
            (Operator::Reshape { .. }, None) => Err("no sizes".into()),
            (operator, axes) => fold::regrouped(operator, &dims, axes.as_deref()),
        };
        let target = target.map_err(damaged)?;
        let arrangement = arrangement.reshape(&target).ok_or_else(|| {
            let reason = format!("regroups {dims:?} as {target:?}, across rows, columns or channels");
            Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("flattening before a dense layer is possible, other regrouping is not")
        })?;
        Ok(Tensor { id: *id, arrangement })
    }
}

/// A layer's name in the network: its module in the source, as far as the file tells.
fn layer_name(graph: &Graph, node: &Node, weights: Option<&str>) -> String {
    // ONNX Runtime adds to the names of what it quantizes.
    let weights = weights.map(|name| name.strip_suffix("_DequantizeLinear_Output").unwrap_or(name));
    if let Some(module) = weights.and_then(|name| name.strip_suffix(".weight")) {
        return module.to_string();
    }
    if node.name.is_empty() {
        let output = node.outputs.iter().flatten().next();
        return output.map_or(node.kind.clone(), |&id| graph.values[id].name.clone());
    }
    let mut segments: Vec<&str> = node.name.split('/').filter(|s| !s.is_empty()).collect();
    // PyTorch writes `/layer1/layer1.0/conv1/Conv`: the operator last, and each module's path in full.
    // tf2onnx keeps TensorFlow's operator last: `model/conv2d/BiasAdd`.
    const TENSORFLOW: [&str; 6] = ["AvgPool", "BiasAdd", "Conv2D", "MatMul", "MaxPool", "Mean"];
    let is_operator = |last: &&str| last.starts_with(&*node.kind) || TENSORFLOW.contains(last);
    if segments.len() > 1 && segments.last().is_some_and(is_operator) {
        segments.pop();
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in segments {
        let extends = |last: &&str| segment.strip_prefix(*last).is_some_and(|rest| rest.starts_with('.'));
        if kept.last().is_some_and(extends) {
            kept.pop();
        }
        kept.push(segment);
    }
    kept.join(if node.name.starts_with('/') { "." } else { "/" })
}

/// The values that the outputs are made of by nothing but a softmax and changes of their sizes.
fn scores(nodes: &[Node], outputs: &[(String, ValueId)]) -> BTreeSet<ValueId> {
    let mut scores: BTreeSet<ValueId> = outputs.iter().map(|(_, value)| *value).collect();
    for node in nodes.iter().rev() {
        let passes = matches!(
            node.operator,
            Operator::Identity
                | Operator::Quantize
                | Operator::Softmax { .. }
                | Operator::Reshape { .. }
                | Operator::Flatten { .. }
                | Operator::Squeeze
        );
        if passes && node.outputs.iter().flatten().any(|id| scores.contains(id)) {
            scores.extend(node.inputs.first().copied().flatten());
        }
    }
    scores
}
