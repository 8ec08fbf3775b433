//! The outputs that a user asks for by the names of layers, after the passes.

use skipstone::host::Softmax;

use super::error::{ErrorKind, Refusal, closest, enumerate};
use super::options::ImportOptions;
use super::passes;
use crate::ir::{FloatNetwork, Output};

/// Makes the layers of the names in `unknown`, which the file's graph does not have, outputs; those that
/// nobody asked for go.
pub(super) fn select(
    network: &mut FloatNetwork,
    options: &ImportOptions,
    unknown: &[String],
) -> Result<(), Refusal> {
    if unknown.is_empty() {
        return Ok(());
    }
    let known_outputs = network.outputs.clone();
    network.outputs.retain(|output| options.outputs.contains(&output.name));
    for name in unknown {
        if network.outputs.iter().any(|output| output.name == *name) {
            continue;
        }
        let layer = network.layers.iter().rposition(|layer| layer.name == *name);
        let layer = layer.ok_or_else(|| refusal(network, name))?;
        // What was an output already keeps its softmax.
        let known = |output: &&Output| output.tensor == layer + 1;
        let softmax = known_outputs.iter().find(known).map_or(Softmax::None, |output| output.softmax);
        network.outputs.push(Output { name: name.clone(), tensor: layer + 1, softmax });
    }
    network.outputs.sort_by_key(|output| output.tensor);
    passes::remove_unread(network);
    Ok(())
}

fn refusal(network: &FloatNetwork, name: &str) -> Refusal {
    // Outputs are near the end, as a rule.
    let names: Vec<String> = network.layers.iter().rev().map(|layer| layer.name.clone()).collect();
    let reason = "no tensor, node or layer has this name";
    let help = match closest(name, names.iter()) {
        Some(close) => format!("a close name that it has: '{close}'"),
        None => format!("its layers are, from the last, {}", enumerate(&names)),
    };
    Refusal::new(ErrorKind::Output, format!("output '{name}'"), reason).help(help)
}

#[cfg(test)]
mod tests {
    use skipstone::Shape;

    use super::*;
    use crate::ir::{INPUT, Operation, Weights, Window};

    fn selected(names: &[&str]) -> Result<Vec<(String, usize)>, Refusal> {
        let mut network = FloatNetwork::new("test", Shape::new(8, 8, 2));
        let pool = Operation::MaxPool(Window { stride: [2; 2], ..Window::POINT });
        let at = network.push("stem.pool", &[INPUT], pool.clone(), Weights::None).unwrap();
        let at = network.push("layer1.pool", &[at], pool, Weights::None).unwrap();
        let tensor = network.push("mean", &[at], Operation::GlobalAveragePool, Weights::None).unwrap();
        network.outputs.push(Output { name: "scores".into(), tensor, softmax: Softmax::Float });
        let outputs: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let options = ImportOptions { outputs: outputs.clone(), ..ImportOptions::default() };
        select(&mut network, &options, &outputs)?;
        let layers = network.layers.len();
        Ok(network
            .outputs
            .into_iter()
            .map(|output| (output.name, output.tensor))
            .chain([("layers".into(), layers)])
            .collect())
    }

    #[test]
    fn an_output_that_was_one_before_keeps_its_softmax() {
        let mut network = FloatNetwork::new("test", Shape::new(8, 8, 2));
        let tensor = network.push("mean", &[INPUT], Operation::GlobalAveragePool, Weights::None).unwrap();
        network.outputs.push(Output { name: "scores".into(), tensor, softmax: Softmax::Float });
        let outputs = vec!["mean".to_string()];
        let options = ImportOptions { outputs: outputs.clone(), ..ImportOptions::default() };
        select(&mut network, &options, &outputs).unwrap();
        assert_eq!(network.outputs, [Output { name: "mean".into(), tensor: 1, softmax: Softmax::Float }]);
    }

    #[test]
    fn layers_are_outputs_by_their_names() {
        let found = |names: &[&str]| selected(names).unwrap();
        let expected = |list: &[(&str, usize)]| {
            list.iter().map(|(name, at)| (name.to_string(), *at)).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]), expected(&[("scores", 3), ("layers", 3)]));
        assert_eq!(found(&["stem.pool"]), expected(&[("stem.pool", 1), ("layers", 1)]));
        let both = expected(&[("layer1.pool", 2), ("scores", 3), ("layers", 3)]);
        assert_eq!(found(&["scores", "layer1.pool"]), both);
    }

    #[test]
    fn unknown_names_are_refused_with_close_ones() {
        let refusal = selected(&["layer1.poll"]).unwrap_err();
        assert_eq!((refusal.kind, &*refusal.place), (ErrorKind::Output, "output 'layer1.poll'"));
        assert_eq!(refusal.help, "a close name that it has: 'layer1.pool'");
        assert!(selected(&["q"]).unwrap_err().help.contains("'mean', 'layer1.pool', 'stem.pool'"));
    }
}
