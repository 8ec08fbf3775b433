//! The order of the layers: that in which the outputs need them, whatever order the file has.
//!
//! A block's path comes before its projection, and the projection directly before the convolution that adds
//! it. So the same network becomes the same list, and the same blob, through every exporter.

use crate::ir::{FloatNetwork, INPUT, TensorId};

/// Sorts the layers, and the outputs by their layers.
pub(super) fn sort(network: &mut FloatNetwork) {
    let mut moved: Vec<Option<TensorId>> = vec![None; network.layers.len() + 1];
    moved[INPUT] = Some(INPUT);
    let mut order = Vec::new();
    for output in &network.outputs {
        let mut waiting = vec![output.tensor];
        while let Some(&tensor) = waiting.last() {
            let missing = match moved[tensor] {
                Some(_) => None,
                None => network.layers[tensor - 1].reads().find(|&read| moved[read].is_none()),
            };
            if let Some(missing) = missing {
                waiting.push(missing);
                continue;
            }
            waiting.pop();
            if moved[tensor].is_none() {
                order.push(tensor - 1);
                moved[tensor] = Some(order.len());
            }
        }
    }
    let place = |tensor: TensorId| moved[tensor].unwrap_or(INPUT);
    let mut layers: Vec<_> = std::mem::take(&mut network.layers).into_iter().map(Some).collect();
    for mut layer in order.into_iter().filter_map(|layer| layers[layer].take()) {
        layer.inputs.iter_mut().for_each(|input| *input = place(*input));
        if let Some(shortcut) = &mut layer.shortcut {
            shortcut.tensor = place(shortcut.tensor);
        }
        network.layers.push(layer);
    }
    network.outputs.iter_mut().for_each(|output| output.tensor = place(output.tensor));
    network.outputs.sort_by_key(|output| output.tensor);
}
