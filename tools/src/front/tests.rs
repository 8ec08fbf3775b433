//! Small graphs built by hand, through lowering and passes: what becomes which layer, and every refusal.

mod operators;
mod outputs;
mod topology;

use super::error::{ErrorKind, Refusal};
use super::graph::{Constant, Data, Graph, Input, Layout, Node, Operator, Padding, Sliding, Value, ValueId};
use super::lower::lower;
use super::{notes, passes};
use crate::ir::{
    Activation, Affine, Block, BlockKind, FloatNetwork, Layer, Operation, Real, Shortcut, Window, blocks,
};

/// A graph as it is drawn, node by node.
struct Sketch(Graph);

impl Sketch {
    /// An input of these sizes; 0 is an open one.
    fn new(dims: &[usize]) -> (Self, ValueId) {
        let mut sketch = Sketch(Graph::default());
        let value = sketch.value("input");
        let dims = dims.iter().map(|&size| (size > 0).then_some(size)).collect();
        sketch.0.inputs.push(Input { value, dims, integer: false });
        (sketch, value)
    }

    fn value(&mut self, name: &str) -> ValueId {
        self.0.values.push(Value { name: name.into(), constant: None });
        self.0.values.len() - 1
    }

    fn floats(&mut self, dims: &[usize], values: Vec<f32>) -> ValueId {
        let id = self.value("weights");
        self.0.values[id].constant = Some(Constant::new(dims.to_vec(), Data::Float(values)).unwrap());
        id
    }

    fn integers(&mut self, values: &[i64]) -> ValueId {
        let id = self.value("integers");
        self.0.values[id].constant = Some(Constant::integers(values.to_vec()));
        id
    }

    /// A node that is named after its result.
    fn node(&mut self, kind: &str, operator: Operator, inputs: &[ValueId]) -> ValueId {
        let output = self.value(kind);
        let name = format!("{kind}{output}");
        let inputs = inputs.iter().map(|&id| Some(id)).collect();
        let node = Node { name, kind: kind.into(), operator, inputs, outputs: vec![Some(output)] };
        self.0.nodes.push(node);
        output
    }

    /// A convolution with weights of 1, 2, 3 and so on.
    fn conv(&mut self, x: ValueId, channels: [usize; 2], kernel: usize, stride: usize) -> ValueId {
        let dims = [channels[1], channels[0], kernel, kernel];
        let count = dims.iter().product::<usize>();
        let weights = self.floats(&dims, (1..=count).map(|i| i as f32).collect());
        self.node("Conv", Operator::Convolution(sliding(kernel, stride, kernel / 2), 1), &[x, weights])
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        let zero = self.floats(&[], vec![0.0]);
        self.node("Relu", Operator::Clip, &[x, zero])
    }

    fn clip(&mut self, x: ValueId, low: f32, high: f32) -> ValueId {
        let bounds = [low, high].map(|bound| self.floats(&[], vec![bound]));
        self.node("Clip", Operator::Clip, &[x, bounds[0], bounds[1]])
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.node("Add", Operator::Add, &[a, b])
    }

    /// Batch norm of two channels: doubles the second, adds 1 to the first.
    fn norm(&mut self, x: ValueId) -> ValueId {
        let vectors = [[1.0, 2.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]];
        let [scale, shift, mean, variance] = vectors.map(|v: [f32; 2]| self.floats(&[2], v.to_vec()));
        let inputs = [x, scale, shift, mean, variance];
        self.node("BatchNormalization", Operator::BatchNormalization { epsilon: 0.0 }, &inputs)
    }

    /// Pads rows and columns at the end by one.
    fn pad(&mut self, x: ValueId, value: f32) -> ValueId {
        let counts = self.integers(&[0, 0, 0, 0, 0, 0, 1, 1]);
        let value = self.floats(&[], vec![value]);
        self.node("Pad", Operator::Pad { constant: true }, &[x, counts, value])
    }

    fn subsample(&mut self, x: ValueId) -> ValueId {
        let [zeros, ends, axes, steps] = [[0, 0], [i64::MAX; 2], [2, 3], [2, 2]].map(|v| self.integers(&v));
        self.node("Slice", Operator::Slice, &[x, zeros, ends, axes, steps])
    }

    fn understood(mut self, output: ValueId) -> Result<Understood, Refusal> {
        self.0.outputs.push(output);
        Understood::new(lower(self.0, 1 << 16, &[])?.network)
    }

    #[track_caller]
    fn network(self, output: ValueId) -> FloatNetwork {
        self.understood(output).unwrap_or_else(|refusal| panic!("{refusal}")).network
    }

    #[track_caller]
    fn refused(self, output: ValueId, kind: ErrorKind, place: &str, reason: &str) {
        let refusal = self.understood(output).unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.place.contains(place), "{refusal}");
        assert!(refusal.reason.contains(reason), "{refusal}");
    }
}

fn sliding(kernel: usize, stride: usize, padding: usize) -> Sliding {
    Sliding {
        kernel: vec![kernel; 2],
        strides: vec![stride; 2],
        dilations: Vec::new(),
        padding: Padding::Explicit(vec![padding; 4]),
        ceil: false,
    }
}

/// An 8 x 8 image of two channels.
fn sketch() -> (Sketch, ValueId) {
    Sketch::new(&[1, 2, 8, 8])
}

/// A network after the passes.
#[derive(Debug)]
pub(super) struct Understood {
    pub(super) network: FloatNetwork,
    pub(super) normalization: Option<Affine>,
    pub(super) notes: Vec<String>,
}

impl Understood {
    pub(super) fn new(mut network: FloatNetwork) -> Result<Self, Refusal> {
        let findings = passes::run(&mut network)?;
        crate::ir::check(&network).unwrap();
        let notes = notes::notes(&network, &findings);
        Ok(Understood { network, normalization: findings.normalization, notes })
    }
}

/// The only block.
#[track_caller]
pub(super) fn block(network: &FloatNetwork) -> Block {
    let mut blocks = blocks(network);
    assert_eq!(blocks.len(), 1);
    blocks.remove(0)
}

/// The shortcut of the only block, and its activation.
#[track_caller]
pub(super) fn joined(network: &FloatNetwork) -> (Shortcut, Activation) {
    let last = &network.layers[block(network).output()];
    (last.shortcut.unwrap(), last.activation)
}

/// A convolution or dense layer.
#[derive(Debug, PartialEq)]
pub(super) struct Weighted {
    pub(super) window: Window,
    pub(super) depthwise: bool,
    pub(super) outputs: usize,
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f64>,
}

#[track_caller]
pub(super) fn weighted(layer: &Layer<Real>) -> Weighted {
    let (window, depthwise, outputs) = match layer.operation {
        Operation::Conv2d { window, depthwise, outputs } => (window, depthwise, outputs),
        Operation::Dense { outputs } => (Window::POINT, false, outputs),
        ref other => panic!("no weights: {other:?}"),
    };
    let (weights, bias) = layer.parameters.weights.real(&layer.operation);
    Weighted { window, depthwise, outputs, weights: weights.into_owned(), bias: bias.into_owned() }
}

#[track_caller]
fn last(network: &FloatNetwork) -> &Layer<Real> {
    network.layers.last().unwrap()
}

/// The last layer, a convolution.
#[track_caller]
fn conv(network: &FloatNetwork) -> Weighted {
    assert!(last(network).is_convolution(), "{:?}", last(network).operation);
    weighted(last(network))
}

/// The window of the last layer, a pooling.
#[track_caller]
fn pool(network: &FloatNetwork) -> Window {
    match last(network).operation {
        Operation::MaxPool(window) | Operation::AveragePool { window, .. } => window,
        ref other => panic!("no pooling: {other:?}"),
    }
}
