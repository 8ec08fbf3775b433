//! The plain way to run a quantized network: layer by layer, over whole tensors.
//!
//! It shares nothing with the executor except the kernels: no schedule, no row table, no arena. The executor must equal
//! it bit for bit, and it shows the tensors of which the executor has only rows.

use anyhow::{Result, bail};
use skipstone::Shape;
use skipstone::host::{Layer, Operation};

use crate::ir::{IntegerNetwork, TensorId};
use crate::plan::layers::Prepared;

/// What a layer makes.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Class scores, before a softmax.
    Scores(Vec<f32>),
    /// int8 values (HWC).
    Integers(Vec<i8>),
}

/// Runs a network on an image (raw HWC bytes) and returns what it gives for each of its outputs.
///
/// `observe` sees the int8 values of every tensor.
///
/// # Errors
/// The image has the wrong length, or the runtime rejects a layer.
pub fn run(
    network: &IntegerNetwork,
    image: &[u8],
    observe: &mut dyn FnMut(TensorId, &[i8]),
) -> Result<Vec<Values>> {
    let prepared = Prepared::new(network);
    let made = run_layers(&prepared.layers()?, image)?;
    for (tensor, values) in (1..).zip(&made) {
        if let Values::Integers(values) = values {
            observe(tensor, values);
        }
    }
    let outputs = network.outputs.iter().map(|output| made[output.tensor - 1].clone());
    Ok(outputs.collect())
}

/// Runs `layers`, whose tensors are numbered through the network, on an image (raw HWC bytes). Returns every layer's
/// result, in order.
///
/// # Errors
/// The image has the wrong length, or the layers do not fit together.
pub fn run_layers(layers: &[Layer<'_>], image: &[u8]) -> Result<Vec<Values>> {
    let input: Vec<i8> = image.iter().map(|pixel| (pixel ^ 0x80).cast_signed()).collect();
    let mut made: Vec<Values> = Vec::with_capacity(layers.len());
    for layer in layers {
        let values = |tensor: u16| match usize::from(tensor).checked_sub(1).map(|index| made.get(index)) {
            None => Ok(&input[..]),
            Some(Some(Values::Integers(values))) => Ok(&values[..]),
            Some(_) => {
                bail!("tensor {tensor} does not exist before the layer that reads it, or holds class scores")
            }
        };
        let from = values(layer.node.reads)?;
        let mut output = vec![0; layer.output().len()];
        let values = match &layer.operation {
            Operation::Reduction(reduction) => {
                let mut scores = vec![0.0; output.len()];
                reduction.run(from, &mut vec![0; output.len()], &mut output, &mut scores)?;
                if reduction.gives_scores() { Values::Scores(scores) } else { Values::Integers(output) }
            }
            Operation::Windowed(_) | Operation::Addition(..) => {
                let shortcut = layer.node.shortcut.map(|read| read.tensor);
                let shortcut =
                    shortcut.map(|tensor| Ok::<_, anyhow::Error>((values(tensor)?, shape(layers, tensor))));
                let mut scratch = vec![0; layer.scratch_len()];
                layer.run(from, shortcut.transpose()?, &mut scratch, &mut output)?;
                Values::Integers(output)
            }
        };
        made.push(values);
    }
    Ok(made)
}

/// Shape of a tensor that a layer adds.
fn shape(layers: &[Layer<'_>], tensor: u16) -> Shape {
    match usize::from(tensor).checked_sub(1) {
        Some(layer) => layers[layer].output(),
        // the layers that read the input know its shape
        None => layers.iter().find(|layer| layer.node.reads == 0).map_or(Shape::new(0, 0, 0), Layer::input),
    }
}
