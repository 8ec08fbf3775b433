//! Residual blocks, a view of the list of layers.

use super::{Network, Shortcut, TensorId};

/// Kinds of residual blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// The shortcut is the block's input.
    Identity,
    /// The shortcut is a convolution of the block's input.
    Convolutional,
    /// The shortcut is the block's input, subsampled, with zero channels around it.
    Padded,
}

/// A residual block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its name: what its layers' names have in common.
    pub name: String,
    /// Its kind.
    pub kind: BlockKind,
    /// Indices of its layers, in order.
    pub layers: Vec<usize>,
}

/// The residual blocks of a network, in order.
pub fn blocks<P>(network: &Network<P>) -> Vec<Block> {
    let of = |(last, layer): (usize, &super::Layer<P>)| {
        let Shortcut { tensor, stride, channels_before } = layer.shortcut?;
        let path = |mut tensor: TensorId, end: TensorId| {
            let mut path = Vec::new();
            while tensor != end {
                let layer = tensor.checked_sub(1)?;
                path.push(layer);
                tensor = *network.layers[layer].inputs.first()?;
            }
            Some(path)
        };
        let of_channels = network.shape(tensor).channels;
        let padded = (stride, channels_before, of_channels) != ([1; 2], 0, layer.shape.channels);
        let (kind, mut layers) = match path(last + 1, tensor) {
            Some(layers) if padded => (BlockKind::Padded, layers),
            Some(layers) => (BlockKind::Identity, layers),
            None => {
                let projection = tensor.checked_sub(1)?;
                let input = *network.layers[projection].inputs.first()?;
                let mut layers = path(last + 1, input)?;
                layers.push(projection);
                (BlockKind::Convolutional, layers)
            }
        };
        layers.sort_unstable();
        let name = layer.name.rsplit_once('.').map_or(layer.name.as_str(), |(block, _)| block);
        Some(Block { name: name.to_owned(), kind, layers })
    };
    network.layers.iter().enumerate().filter_map(of).collect()
}
