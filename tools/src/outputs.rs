//! Which tensors the caller receives, by the names of the layers that make them.

use std::collections::BTreeMap;

use skipstone::host::Softmax;
use thiserror::Error;

use crate::ir::{FloatNetwork, INPUT, Output, TensorId};

/// Most names that a message lists.
const LISTED: usize = 12;

/// A name that is not a layer's.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum OutputError {
    /// No layer has this name.
    #[error("no layer is named '{name}'\n  help: give one of {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Names of the last layers.
        known: String,
    },
    /// The name was given twice.
    #[error("'{name}' is named twice as an output\n  help: name it once")]
    Twice {
        /// The name.
        name: String,
    },
}

/// Makes the layers with these names the network's outputs, and removes the layers that none of them needs.
/// An output that the network already has keeps its softmax.
///
/// # Errors
/// [`OutputError`] if a name is not a layer's, or is given twice.
pub fn select(network: &mut FloatNetwork, names: &[String]) -> Result<(), OutputError> {
    let mut outputs = Vec::new();
    for name in names {
        let tensor = find(network, name)?;
        if outputs.iter().any(|output: &Output| output.tensor == tensor) {
            return Err(OutputError::Twice { name: name.clone() });
        }
        let known = network.outputs.iter().find(|output| output.tensor == tensor);
        let softmax = known.map_or(Softmax::None, |output| output.softmax);
        outputs.push(Output { name: name.clone(), tensor, softmax });
    }
    outputs.sort_by_key(|output| output.tensor);
    network.outputs = outputs;
    remove_unread(network);
    Ok(())
}

/// The tensor of the layer or output with this name.
fn find(network: &FloatNetwork, name: &str) -> Result<TensorId, OutputError> {
    if let Some(output) = network.outputs.iter().find(|output| output.name == name) {
        return Ok(output.tensor);
    }
    if let Some(layer) = network.layers.iter().position(|layer| layer.name == name) {
        return Ok(layer + 1);
    }
    let names = network.layers.iter().rev().take(LISTED).map(|layer| format!("'{}'", layer.name));
    let more = if network.layers.len() > LISTED { ", ..." } else { "" };
    let known = names.collect::<Vec<_>>().join(", ") + more;
    Err(OutputError::Unknown { name: name.to_owned(), known })
}

/// Removes layers that neither an output nor another layer needs.
fn remove_unread(network: &mut FloatNetwork) {
    let mut needed = vec![false; network.layers.len() + 1];
    network.outputs.iter().for_each(|output| needed[output.tensor] = true);
    for (index, layer) in network.layers.iter().enumerate().rev() {
        if needed[index + 1] {
            layer.reads().for_each(|tensor| needed[tensor] = true);
        }
    }
    let mut numbers = BTreeMap::from([(INPUT, INPUT)]);
    let mut layers = Vec::new();
    for (index, mut layer) in std::mem::take(&mut network.layers).into_iter().enumerate() {
        if needed[index + 1] {
            layer.inputs.iter_mut().for_each(|tensor| *tensor = numbers[tensor]);
            if let Some(shortcut) = &mut layer.shortcut {
                shortcut.tensor = numbers[&shortcut.tensor];
            }
            layers.push(layer);
            numbers.insert(index + 1, layers.len());
        }
    }
    network.layers = layers;
    network.outputs.iter_mut().for_each(|output| output.tensor = numbers[&output.tensor]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{conv2d, network, scores};

    fn names(network: &FloatNetwork) -> Vec<&str> {
        network.layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    fn select(network: &mut FloatNetwork, chosen: &[&str]) -> Result<(), OutputError> {
        super::select(network, &chosen.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn layers_that_no_output_needs_are_removed_and_the_others_renumbered() {
        let mut network = network(vec![
            conv2d("stem", 0, 1, 4),
            conv2d("unread", 1, 4, 4),
            conv2d("features", 1, 4, 4),
            scores("fc", 3, 256, 10),
        ]);
        network.outputs[0].softmax = Softmax::Float;
        select(&mut network, &["fc", "features"]).unwrap();
        assert_eq!(names(&network), ["stem", "features", "fc"]);
        assert_eq!(network.layers[2].inputs, [2]);
        let outputs: Vec<_> =
            network.outputs.iter().map(|output| (output.name.as_str(), output.tensor)).collect();
        assert_eq!(outputs, [("features", 2), ("fc", 3)]);
        // what was an output before keeps its softmax
        assert_eq!(network.outputs[1].softmax, Softmax::Float);
        select(&mut network, &["stem"]).unwrap();
        assert_eq!(names(&network), ["stem"]);
    }

    #[test]
    fn names_of_no_layer_and_names_given_twice_are_rejected() {
        let mut network = network(vec![conv2d("stem", 0, 1, 4), scores("fc", 1, 256, 10)]);
        let message = select(&mut network, &["head"]).unwrap_err().to_string();
        assert_eq!(message, "no layer is named 'head'\n  help: give one of 'fc', 'stem'");
        let message = select(&mut network, &["fc", "fc"]).unwrap_err().to_string();
        assert_eq!(message, "'fc' is named twice as an output\n  help: name it once");
    }
}
