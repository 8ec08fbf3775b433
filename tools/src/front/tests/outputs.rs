//! Several outputs, and outputs that the user asks for.

use super::*;

/// A stem with ReLU, two heads; the stem's values are an output too if `stem`.
fn two_heads(stem: bool) -> (Sketch, [ValueId; 4]) {
    let (mut s, x) = sketch();
    let sum = s.conv(x, [2, 2], 3, 1);
    let relu = s.relu(sum);
    let [a, b] = [3, 1].map(|kernel| s.conv(relu, [2, 2], kernel, 1));
    s.0.outputs.extend(stem.then_some(relu).into_iter().chain([b, a]));
    (s, [sum, relu, a, b])
}

fn found(sketch: Sketch, names: &[&str]) -> Result<(FloatNetwork, Vec<String>), Refusal> {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let lowered = lower(sketch.0, 1 << 16, &names)?;
    Ok((Understood::new(lowered.network)?.network, lowered.unknown))
}

fn tensors(network: &FloatNetwork) -> Vec<(&str, usize)> {
    network.outputs.iter().map(|output| (&*output.name, output.tensor)).collect()
}

#[test]
fn all_outputs_of_a_graph_are_outputs_in_order_of_their_layers() {
    let (s, _) = two_heads(true);
    let (network, unknown) = found(s, &[]).unwrap();
    assert_eq!(tensors(&network), [("Relu", 1), ("Conv", 2), ("Conv", 3)]);
    assert_eq!((network.layers[0].activation, unknown.len()), (Activation::RELU, 0));
    let (s, _) = two_heads(true);
    let mut network = lower(s.0, 1 << 16, &[]).unwrap().network;
    let findings = passes::run(&mut network).unwrap();
    let notes = notes::notes(&network, &findings);
    assert_eq!(notes[3], "outputs: 'Relu', 'Conv', 'Conv'");
}

#[test]
fn tensors_and_nodes_are_outputs_by_name() {
    // A tensor of the file, before its activation: what follows it goes.
    let (mut s, [sum, ..]) = two_heads(false);
    s.0.values[sum].name = "stem".into();
    let (network, unknown) = found(s, &["stem"]).unwrap();
    assert_eq!((tensors(&network), network.layers.len()), (vec![("stem", 1)], 1));
    assert_eq!((network.layers[0].activation, unknown.len()), (Activation::NONE, 0));
    // A node, by what it makes.
    let (s, [_, relu, ..]) = two_heads(false);
    let name = format!("Relu{relu}");
    let (network, _) = found(s, &[&name]).unwrap();
    assert_eq!((tensors(&network), network.layers[0].activation), (vec![(&*name, 1)], Activation::RELU));
    // What no node and no tensor is called may be a layer: all stays, to be looked for.
    let (s, _) = two_heads(false);
    let (network, unknown) = found(s, &["somewhere"]).unwrap();
    assert_eq!((network.outputs.len(), unknown), (2, vec!["somewhere".to_string()]));
}

#[test]
fn outputs_are_made_by_layers() {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    s.0.outputs.push(x);
    s.refused(y, ErrorKind::Topology, "output 'input'", "is the input itself");

    // A sum before and after its activation.
    let (mut s, [sum, ..]) = two_heads(false);
    s.0.outputs.push(sum);
    let refusal = found(s, &[]).unwrap_err();
    assert!(refusal.reason.contains("whose result is also used without it"), "{refusal}");
}

#[test]
fn softmax_belongs_to_its_output() {
    let (mut s, x) = Sketch::new(&[1, 2]);
    let weights = s.floats(&[2, 2], vec![1.0; 4]);
    let logits = s.node("MatMul", Operator::MatMul, &[x, weights]);
    let softmax = s.node("Softmax", Operator::Softmax { axis: -1, logarithm: false }, &[logits]);
    s.0.outputs.extend([logits, softmax]);
    let (network, _) = found(s, &[]).unwrap();
    assert_eq!(tensors(&network), [("MatMul", 1), ("Softmax", 1)]);
    let softmax: Vec<_> = network.outputs.iter().map(|output| output.softmax).collect();
    assert_eq!(softmax, [skipstone::host::Softmax::None, skipstone::host::Softmax::Float]);
}
