//! Residual blocks, as a view of the list: a layer with a shortcut, and the layers back to where the two ways fork.
//!
//! ```text
//!          .--> layer --> layer --> ... --> convolution --.
//! fork ----|                                              +--> activation
//!          '--> nothing | subsampling | convolution ------'
//!               identity   padded     convolutional
//! ```

use std::collections::BTreeSet;

use super::{Network, TensorId};

/// A residual block. Indices are those of [`Network::layers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The module that its path's layers have in common (`layer1.0`), if that tells all blocks apart; else
    /// `block1`, `block2` and so on.
    pub name: String,
    /// By its shortcut.
    pub kind: BlockKind,
    /// The tensor that both ways begin at.
    pub fork: TensorId,
    /// The layers of the path, in order; the last one adds the shortcut and makes the block's output.
    pub path: Vec<usize>,
    /// The layers on the shortcut, in order: the projection of a convolutional block.
    pub shortcut: Vec<usize>,
}

/// What is added to a block's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// The block's input.
    Identity,
    /// What layers make of the block's input, as a rule a 1x1 convolution (projection shortcut).
    Convolutional,
    /// The block's input, subsampled or between zero channels ("option A").
    Padded,
}

impl Block {
    /// The layer that makes the block's output.
    pub fn output(&self) -> usize {
        self.path[self.path.len() - 1]
    }

    /// All layers of the block, those of the path first.
    pub fn layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.path.iter().chain(&self.shortcut).copied()
    }
}

/// The residual blocks of a network, in order of their outputs.
pub fn blocks<P>(network: &Network<P>) -> Vec<Block> {
    let mut blocks: Vec<Block> =
        (0..network.layers.len()).filter_map(|layer| block(network, layer)).collect();
    let names: BTreeSet<&str> = blocks.iter().map(|block| &*block.name).collect();
    if names.len() < blocks.len() || names.contains("") {
        for (index, block) in blocks.iter_mut().enumerate() {
            block.name = format!("block{}", index + 1);
        }
    }
    blocks
}

/// The block that ends with a layer, if that has a shortcut.
fn block<P>(network: &Network<P>, last: usize) -> Option<Block> {
    let layer = &network.layers[last];
    let added = layer.shortcut?;
    let before = |tensor: TensorId| tensor.checked_sub(1).map(|layer| network.layers[layer].inputs[0]);
    let (mut path, mut shortcut) = (vec![last], Vec::new());
    let (mut from, mut other) = (layer.inputs[0], added.tensor);
    // Both ways lead back to the input. The later tensor cannot be the earlier one's ancestor.
    while from != other {
        let (way, layers) = if from > other { (&mut from, &mut path) } else { (&mut other, &mut shortcut) };
        layers.push(*way - 1);
        *way = before(*way)?;
    }
    path.reverse();
    shortcut.reverse();
    let whole = network.shape(added.tensor) == layer.shape && added.stride == [1, 1];
    let kind = match (shortcut.is_empty(), whole) {
        (false, _) => BlockKind::Convolutional,
        (true, true) => BlockKind::Identity,
        (true, false) => BlockKind::Padded,
    };
    let names: Vec<&str> = path.iter().map(|&layer| &*network.layers[layer].name).collect();
    Some(Block { name: common_module(&names), kind, fork: from, path, shortcut })
}

/// The module that names have in common: `layer1.0` of `layer1.0.conv1` and `layer1.0.conv2`.
fn common_module(names: &[&str]) -> String {
    let Some(first) = names.first() else { return String::new() };
    let ends = first.char_indices().filter(|(_, c)| matches!(c, '.' | '/')).map(|(index, _)| index);
    let shared = |end: &usize| names.iter().all(|name| name.starts_with(&first[..=*end]));
    first[..ends.rev().find(shared).unwrap_or(0)].to_string()
}

#[cfg(test)]
mod tests {
    use skipstone::Shape;

    use super::*;
    use crate::ir::{FloatNetwork, INPUT, Operation, Shortcut, Weights, Window};

    fn conv(network: &mut FloatNetwork, name: &str, from: TensorId, outputs: usize) -> TensorId {
        let weights = vec![0.0; usize::from(network.shape(from).channels) * outputs];
        let weights = Weights::Real { weights, bias: vec![0.0; outputs] };
        let operation = Operation::Conv2d { window: Window::POINT, outputs, depthwise: false };
        network.push(name, &[from], operation, weights).unwrap()
    }

    fn add(network: &mut FloatNetwork, sum: TensorId, tensor: TensorId, channels_before: usize) {
        network.layers[sum - 1].shortcut = Some(Shortcut { tensor, stride: [1; 2], channels_before });
    }

    #[test]
    fn blocks_are_found_behind_their_shortcuts() {
        let mut network = FloatNetwork::new("test", Shape::new(4, 4, 2));
        let stem = conv(&mut network, "stem", INPUT, 2);
        let a = conv(&mut network, "layer1.0.conv1", stem, 3);
        let b = conv(&mut network, "layer1.0.conv2", a, 2);
        add(&mut network, b, stem, 0);
        let c = conv(&mut network, "layer2.0.conv1", b, 4);
        let p = conv(&mut network, "layer2.0.downsample", b, 4);
        let d = conv(&mut network, "layer2.0.conv2", c, 4);
        add(&mut network, d, p, 0);
        let e = conv(&mut network, "layer3.0.conv", d, 6);
        add(&mut network, e, d, 1);
        let found = blocks(&network);
        let block = |name: &str, kind, fork, path: &[usize], shortcut: &[usize]| {
            let (path, shortcut) = (path.to_vec(), shortcut.to_vec());
            Block { name: name.into(), kind, fork, path, shortcut }
        };
        let expected = [
            block("layer1.0", BlockKind::Identity, 1, &[1, 2], &[]),
            block("layer2.0", BlockKind::Convolutional, 3, &[3, 5], &[4]),
            block("layer3.0", BlockKind::Padded, 6, &[6], &[]),
        ];
        assert_eq!(found, expected);
        assert_eq!((found[1].output(), found[1].layers().collect::<Vec<_>>()), (5, vec![3, 5, 4]));
    }

    #[test]
    fn names_that_do_not_tell_blocks_apart_become_numbers() {
        let mut network = FloatNetwork::new("test", Shape::new(4, 4, 2));
        let mut at = INPUT;
        for _ in 0..2 {
            let sum = conv(&mut network, "model/conv", at, 2);
            add(&mut network, sum, at, 0);
            at = sum;
        }
        let names: Vec<String> = blocks(&network).into_iter().map(|block| block.name).collect();
        assert_eq!(names, ["block1", "block2"]);
    }

    #[test]
    fn modules_end_at_dots_and_slashes() {
        assert_eq!(common_module(&["layer1.0.conv1", "layer1.0.conv2"]), "layer1.0");
        assert_eq!(common_module(&["a/b/c", "a/bc/c"]), "a");
        assert_eq!(common_module(&["conv1", "conv2"]), "");
    }
}
