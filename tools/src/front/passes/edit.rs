//! What a pass changes a network with: who reads a tensor, one tensor in place of another, unread layers dropped.

use std::ops::{Index, IndexMut};

use skipstone::Shape;

use crate::ir::{FloatNetwork, INPUT, Layer, Real, Shortcut, TensorId, TensorScale};

/// A network while a pass goes over its layers in order. Indexed by layer.
pub(super) struct Edit<'n> {
    network: &'n mut FloatNetwork,
    /// The only layer that reads each tensor; `None` also if an output does.
    only_reader: Vec<Option<usize>>,
    /// The tensor that stands for each.
    instead: Vec<TensorId>,
}

impl<'n> Edit<'n> {
    pub(super) fn new(network: &'n mut FloatNetwork) -> Self {
        let counts = network.read_counts();
        let mut only_reader = vec![None; counts.len()];
        for (index, layer) in network.layers.iter().enumerate() {
            for tensor in layer.reads().filter(|&tensor| counts[tensor] == 1) {
                only_reader[tensor] = Some(index);
            }
        }
        let instead = (0..counts.len()).collect();
        Edit { network, only_reader, instead }
    }

    pub(super) fn len(&self) -> usize {
        self.network.layers.len()
    }

    pub(super) fn shape(&self, tensor: TensorId) -> Shape {
        self.network.shape(tensor)
    }

    pub(super) fn set_input_scale(&mut self, scale: Option<TensorScale>) {
        self.network.input_scale = scale;
    }

    /// The only layer that reads a tensor; `None` if several do, or if the tensor is an output.
    pub(super) fn only_reader(&self, tensor: TensorId) -> Option<usize> {
        self.only_reader[tensor]
    }

    /// Whether an output reads the tensor.
    pub(super) fn is_output(&self, tensor: TensorId) -> bool {
        self.network.outputs.iter().any(|output| output.tensor == tensor)
    }

    /// The layer that makes the first tensor that a layer reads.
    pub(super) fn producer(&self, layer: usize) -> Option<usize> {
        self[layer].inputs[0].checked_sub(1)
    }

    /// As [`Edit::producer`], if no other layer reads that tensor.
    pub(super) fn private_producer(&self, layer: usize) -> Option<usize> {
        self.producer(layer).filter(|_| self.only_reader(self[layer].inputs[0]).is_some())
    }

    /// Applies replacements to what a layer reads. Passes that replace tensors do this for each layer when
    /// they come to it.
    pub(super) fn resolve(&mut self, layer: usize) {
        let Edit { network, instead, .. } = self;
        let Layer { inputs, shortcut, .. } = &mut network.layers[layer];
        let shortcut = shortcut.as_mut().map(|Shortcut { tensor, .. }| tensor);
        for tensor in inputs.iter_mut().chain(shortcut) {
            *tensor = instead[*tensor];
        }
    }

    /// Puts a tensor in place of a later one.
    pub(super) fn replace(&mut self, tensor: TensorId, by: TensorId) {
        let reader = self.only_reader[tensor];
        self.only_reader[by] = self.only_reader[by].and(reader);
        self.instead[tensor] = self.instead[by];
    }

    /// Whether another tensor stands for what a layer makes.
    pub(super) fn is_replaced(&self, layer: usize) -> bool {
        self.instead[layer + 1] != layer + 1
    }

    /// Makes a layer read what its only producer reads, which then is unread.
    pub(super) fn absorb(&mut self, layer: usize, producer: usize) {
        let source = self[producer].inputs[0];
        self[layer].inputs[0] = source;
        if self.only_reader[source].is_some() {
            self.only_reader[source] = Some(layer);
        }
    }

    /// Exchanges two layers; the tensor of one of them must be unread.
    pub(super) fn swap(&mut self, a: usize, b: usize) {
        self.network.layers.swap(a, b);
    }

    /// Applies all replacements, and removes the layers that no output needs.
    pub(super) fn finish(mut self) {
        for layer in 0..self.len() {
            self.resolve(layer);
        }
        let Edit { network, instead, .. } = self;
        network.outputs.iter_mut().for_each(|output| output.tensor = instead[output.tensor]);
        let mut needed = vec![false; network.layers.len() + 1];
        network.outputs.iter().for_each(|output| needed[output.tensor] = true);
        for (index, layer) in network.layers.iter().enumerate().rev() {
            if needed[index + 1] {
                layer.reads().for_each(|tensor| needed[tensor] = true);
            }
        }
        needed[INPUT] = true;
        let mut moved = vec![INPUT; needed.len()];
        for tensor in 1..needed.len() {
            moved[tensor] = moved[tensor - 1] + usize::from(needed[tensor]);
        }
        let mut tensor = INPUT;
        network.layers.retain_mut(|layer| {
            tensor += 1;
            layer.inputs.iter_mut().for_each(|input| *input = moved[*input]);
            if let Some(shortcut) = &mut layer.shortcut {
                shortcut.tensor = moved[shortcut.tensor];
            }
            needed[tensor]
        });
        network.outputs.iter_mut().for_each(|output| output.tensor = moved[output.tensor]);
    }
}

impl Index<usize> for Edit<'_> {
    type Output = Layer<Real>;

    fn index(&self, layer: usize) -> &Layer<Real> {
        &self.network.layers[layer]
    }
}

impl IndexMut<usize> for Edit<'_> {
    fn index_mut(&mut self, layer: usize) -> &mut Layer<Real> {
        &mut self.network.layers[layer]
    }
}
