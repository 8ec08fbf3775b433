//! From layers to the graph: each call of a layer in an order in which what it reads is there, and the weights by their roles.

use std::collections::HashMap;

use super::archive::{Archive, Key};
use super::config::{INPUT, Layer, Model, Reference};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Graph, Input, Layout, Node, Operator, Value, ValueId};

/// The role of a weight that is an integer, and not read.
pub(super) const COUNT: &str = "count";

/// A call's result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensor {
    pub(super) value: ValueId,
    /// Number of axes, the batch's among them.
    pub(super) rank: usize,
}

/// The graph as it grows.
pub(super) struct Builder {
    archive: Archive,
    graph: Graph,
    results: HashMap<Reference, Tensor>,
    /// Weights that were read, by their layer's name: several calls share them.
    weights: HashMap<String, Vec<ValueId>>,
}

/// The model's graph.
pub(super) fn graph(model: &Model<'_>, archive: Archive) -> Result<Graph, Refusal> {
    let graph = Graph { layout: Layout::Nhwc, ..Graph::default() };
    let mut builder = Builder { archive, graph, results: HashMap::new(), weights: HashMap::new() };
    let mut waiting: Vec<(&Layer<'_>, u64, &Vec<Reference>)> = Vec::new();
    for layer in &model.layers {
        waiting.extend((0..).zip(&layer.calls).map(|(call, reads)| (layer, call, reads)));
    }
    // Layers are listed in order; but one that is called again is listed once.
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut later = Vec::new();
        for (layer, call, reads) in waiting {
            let inputs: Option<Vec<Tensor>> =
                reads.iter().map(|reference| builder.results.get(reference).copied()).collect();
            match inputs {
                Some(inputs) => {
                    let output = builder.call(layer, &inputs)?;
                    builder.results.insert((layer.name.clone(), call, 0), output);
                }
                None => later.push((layer, call, reads)),
            }
        }
        waiting = later;
        if waiting.len() == before {
            let (layer, _, reads) = waiting[0];
            let missing = reads.iter().find(|reference| !builder.results.contains_key(*reference));
            let name = missing.map_or("", |(name, ..)| name);
            let reason = format!("reads a result of '{name}' that no layer makes");
            return Err(Refusal::new(ErrorKind::Topology, layer.place(), reason)
                .help("layers with several results, and loops, are not supported"));
        }
    }
    for (name, ..) in &model.outputs {
        if !model.layers.iter().any(|layer| layer.name == *name) {
            let reason = "is not produced by any layer";
            return Err(Refusal::new(ErrorKind::Damaged, format!("output '{name}'"), reason));
        }
    }
    let results = &builder.results;
    builder.graph.outputs = model.outputs.iter().filter_map(|o| results.get(o)).map(|t| t.value).collect();
    Ok(builder.graph)
}

impl Builder {
    /// The result of a call of a layer.
    fn call(&mut self, layer: &Layer<'_>, inputs: &[Tensor]) -> Result<Tensor, Refusal> {
        match (layer.class, inputs) {
            (INPUT, _) => self.input(layer),
            (_, [input, ..]) => self.operators(layer, *input, inputs),
            (_, []) => Err(Refusal::new(ErrorKind::Damaged, layer.place(), "reads nothing")),
        }
    }

    fn input(&mut self, layer: &Layer<'_>) -> Result<Tensor, Refusal> {
        let value = self.value(&layer.name, None);
        let dims = layer.input_dims()?;
        let rank = dims.len();
        let integer = layer.text("dtype").is_some_and(|name| name.contains("int"));
        self.graph.inputs.push(Input { value, dims, integer });
        Ok(Tensor { value, rank })
    }

    fn value(&mut self, name: &str, constant: Option<Constant>) -> ValueId {
        self.graph.values.push(Value { name: name.to_string(), constant });
        self.graph.values.len() - 1
    }

    /// A setting that the graph has as an input.
    pub(super) fn constant(&mut self, constant: Constant) -> ValueId {
        self.value("", Some(constant))
    }

    /// A setting of one number or of one for each channel.
    pub(super) fn floats(&mut self, numbers: &[f64]) -> ValueId {
        let values: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
        let dims = if values.len() == 1 { Vec::new() } else { vec![values.len()] };
        self.constant(Constant { dims, data: Data::Float(values) })
    }

    /// A setting of sizes or axes.
    pub(super) fn integers(&mut self, numbers: Vec<i64>) -> ValueId {
        self.constant(Constant::integers(numbers))
    }

    /// Adds an operator of a layer; its result has `rank` axes.
    pub(super) fn node(
        &mut self,
        layer: &Layer<'_>,
        operator: Operator,
        inputs: &[ValueId],
        rank: usize,
    ) -> Tensor {
        let value = self.value(&layer.name, None);
        self.named_node(layer, layer.name.clone(), operator, inputs, value);
        Tensor { value, rank }
    }

    /// As [`Builder::node`], for one of several layers that a Keras layer is.
    pub(super) fn part(
        &mut self,
        layer: &Layer<'_>,
        part: &str,
        operator: Operator,
        inputs: &[ValueId],
    ) -> Tensor {
        let name = format!("{}/{part}", layer.name);
        let value = self.value(&name, None);
        self.named_node(layer, name, operator, inputs, value);
        Tensor { value, rank: 4 }
    }

    fn named_node(
        &mut self,
        layer: &Layer<'_>,
        name: String,
        operator: Operator,
        inputs: &[ValueId],
        output: ValueId,
    ) {
        let inputs = inputs.iter().map(|&input| Some(input)).collect();
        let kind = layer.class.to_string();
        self.graph.nodes.push(Node { name, kind, operator, inputs, outputs: vec![Some(output)] });
    }

    /// A layer's weights, which have these roles in this order, but for [`COUNT`].
    pub(super) fn weights(&mut self, layer: &Layer<'_>, roles: &[&str]) -> Result<Vec<ValueId>, Refusal> {
        if let Some(weights) = self.weights.get(&layer.name) {
            return Ok(weights.clone());
        }
        let weights = self.archive.weights(Key { name: &layer.name, number: &layer.number })?;
        if weights.len() != roles.len() {
            let (found, wanted) = (weights.len(), roles.len());
            let reason = format!("has {found} weights in the file, not {wanted} ({})", roles.join(", "));
            return Err(Refusal::new(ErrorKind::Damaged, layer.place(), reason).help(
                "layers that are quantized, or changed by LoRA, are saved otherwise: save the plain model",
            ));
        }
        let mut values = Vec::new();
        for (weight, role) in weights.iter().zip(roles) {
            let place = format!("tensor '{}'", weight.name);
            let last = weight.name.rsplit('/').next().unwrap_or_default();
            // Some weights have numbers for names; `depthwise_kernel` is a kernel too.
            if !last.ends_with(role) && last.parse::<usize>().is_err() {
                let reason = format!("stands where {role} is expected");
                return Err(Refusal::new(ErrorKind::Damaged, place, reason));
            }
            if *role == COUNT {
                continue;
            }
            let constant = self.archive.read(weight)?;
            constant.finite(&place)?;
            values.push(self.value(&weight.name, Some(constant)));
        }
        self.weights.insert(layer.name.clone(), values.clone());
        Ok(values)
    }

    /// Number of elements of a weight.
    pub(super) fn len(&self, weight: ValueId) -> usize {
        self.graph.values[weight].constant.as_ref().map_or(0, Constant::len)
    }

    /// A weight's elements.
    pub(super) fn values(&self, weight: ValueId) -> Vec<f64> {
        match self.graph.values[weight].constant.as_ref().map(|constant| &constant.data) {
            Some(Data::Float(values)) => values.iter().map(|&value| value.into()).collect(),
            _ => Vec::new(),
        }
    }

    /// Sizes of a weight.
    pub(super) fn dims(&self, weight: ValueId) -> &[usize] {
        self.graph.values[weight].constant.as_ref().map_or(&[], |constant| &constant.dims)
    }

    /// A weight with its axes in another order, and under its name.
    pub(super) fn transposed(&mut self, layer: &Layer<'_>, weight: ValueId, order: [usize; 4]) -> ValueId {
        let name = self.graph.values[weight].name.clone();
        let value = self.value(&name, None);
        let operator = Operator::Transpose { permutation: Some(order.to_vec()) };
        self.named_node(layer, layer.name.clone(), operator, &[weight], value);
        value
    }

    /// A weight with other sizes, and under its name.
    pub(super) fn reshaped(&mut self, layer: &Layer<'_>, weight: ValueId, sizes: Vec<i64>) -> ValueId {
        let name = self.graph.values[weight].name.clone();
        let value = self.value(&name, None);
        let sizes = self.integers(sizes);
        let operator = Operator::Reshape { allow_zero: true };
        self.named_node(layer, layer.name.clone(), operator, &[weight, sizes], value);
        value
    }
}
