//! How layers may be connected: chains, the three kinds of blocks, what is fused, and what is refused.

use super::*;

#[test]
fn a_block_is_recognised_whichever_operand_is_the_path() {
    for swapped in [false, true] {
        let (mut s, x) = sketch();
        let y = s.conv(x, [2, 2], 3, 1);
        let y = s.relu(y);
        let y = s.conv(y, [2, 2], 3, 1);
        let sum = if swapped { s.add(x, y) } else { s.add(y, x) };
        let out = s.relu(sum);
        let stages = s.stages(out);
        let block = block(&stages);
        assert_eq!((&block.shortcut, block.activation), (&Shortcut::Identity, Activation::Relu));
        let activations: Vec<_> = block.path.iter().map(|conv| conv.activation).collect();
        assert_eq!(activations, [Activation::Relu, Activation::None]);

        let (mut s, x) = sketch();
        let short = s.conv(x, [2, 4], 1, 2);
        let y = s.conv(x, [2, 4], 3, 2);
        let y = s.conv(y, [4, 4], 3, 1);
        let y = s.conv(y, [4, 4], 1, 1);
        let out = if swapped { s.add(short, y) } else { s.add(y, short) };
        let stages = s.stages(out);
        let block = self::block(&stages);
        assert_eq!((block.path.len(), block.activation), (3, Activation::None));
        let Shortcut::Projection(projection) = &block.shortcut else { panic!("no projection") };
        assert_eq!((projection.kernel, projection.stride), ([1, 1], [2, 2]));
    }
}

#[test]
fn padded_shortcuts_come_in_several_spellings() {
    let expected = |before| Shortcut::Padded { stride: [2, 2], channels_before: before };
    let build = |shortcut: &dyn Fn(&mut Sketch, ValueId) -> ValueId| {
        let (mut s, x) = sketch();
        let y = s.conv(x, [2, 4], 3, 2);
        let y = s.conv(y, [4, 4], 3, 1);
        let short = shortcut(&mut s, x);
        let out = s.add(y, short);
        block(&s.stages(out)).shortcut.clone()
    };
    let channels = |s: &mut Sketch, x: ValueId, before: i64| {
        let counts = s.integers(&[0, before, 0, 0, 0, 2 - before, 0, 0]);
        s.node("Pad", Operator::Pad { constant: true }, &[x, counts])
    };
    for before in 0..=2 {
        let first = |s: &mut Sketch, x| {
            let short = s.subsample(x);
            channels(s, short, before)
        };
        assert_eq!(build(&first), expected(before as usize));
        let last = |s: &mut Sketch, x| {
            let short = channels(s, x, before);
            s.subsample(short)
        };
        assert_eq!(build(&last), expected(before as usize));
    }
    let joined = |s: &mut Sketch, x| {
        let short = s.node("MaxPool", Operator::MaxPool(sliding(1, 2, 0)), &[x]);
        let zeros = s.floats(&[1, 2, 4, 4], vec![0.0; 32]);
        s.node("Concat", Operator::Concat { axis: 1 }, &[zeros, short])
    };
    assert_eq!(build(&joined), expected(2));
    let projected = |s: &mut Sketch, x| {
        let short = s.subsample(x);
        s.conv(short, [2, 4], 1, 1)
    };
    let Shortcut::Projection(projection) = build(&projected) else { panic!("no projection") };
    assert_eq!(projection.stride, [2, 2]);
}

#[test]
fn other_topologies_are_refused() {
    use ErrorKind::Topology;
    let (mut s, x) = sketch();
    let out = s.add(x, x);
    s.refused(out, Topology, "Add", "0 and 0 convolutions");

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let out = s.add(x, y);
    s.refused(out, Topology, "Add", "a path of 1 convolution");

    let (mut s, x) = sketch();
    let mut y = x;
    for _ in 0..4 {
        y = s.conv(y, [2, 2], 3, 1);
    }
    let out = s.add(x, y);
    s.refused(out, Topology, "Add", "a path of 4 convolutions");

    // Three branches.
    let (mut s, x) = sketch();
    let [a, b] = [3, 1].map(|kernel| s.conv(x, [2, 2], kernel, 1));
    let sum = s.add(a, b);
    let out = s.add(sum, x);
    s.refused(out, Topology, "input", "read by 3 nodes");

    // Both branches have two convolutions.
    let (mut s, x) = sketch();
    let [a, b] = [3, 1].map(|kernel| {
        let y = s.conv(x, [2, 2], kernel, 1);
        s.conv(y, [2, 2], kernel, 1)
    });
    let out = s.add(a, b);
    s.refused(out, Topology, "Add", "2 and 2 convolutions");

    // A block inside of a path.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let z = s.conv(y, [2, 2], 3, 1);
    let z = s.conv(z, [2, 2], 3, 1);
    let y = s.add(y, z);
    let out = s.add(x, y);
    s.refused(out, Topology, "Conv", "forks again");
}

#[test]
fn paths_and_shortcuts_hold_convolutions_alone() {
    use ErrorKind::Topology;
    let build = |middle: &dyn Fn(&mut Sketch, ValueId) -> ValueId,
                 short: &dyn Fn(&mut Sketch, ValueId) -> ValueId| {
        let (mut s, x) = sketch();
        let y = s.conv(x, [2, 2], 3, 1);
        let y = middle(&mut s, y);
        let y = s.conv(y, [2, 2], 3, 1);
        let short = short(&mut s, x);
        let out = s.add(y, short);
        (s, out)
    };
    let none = |_: &mut Sketch, x: ValueId| x;
    let (s, out) = build(&|s, y| s.node("MaxPool", Operator::MaxPool(sliding(3, 1, 1)), &[y]), &none);
    s.refused(out, Topology, "MaxPool", "cannot stand in the path");
    let (s, out) = build(&none, &|s, x| s.conv(x, [2, 2], 3, 1));
    s.refused(out, Topology, "Conv", "a 3x3 convolution on the shortcut");
    let relu_behind = |s: &mut Sketch, x| {
        let y = s.conv(x, [2, 2], 1, 1);
        s.relu(y)
    };
    let (s, out) = build(&none, &relu_behind);
    s.refused(out, Topology, "Relu", "an activation on the shortcut");
    let (s, out) = build(&none, &|s, x| s.node("MaxPool", Operator::MaxPool(sliding(3, 1, 1)), &[x]));
    s.refused(out, Topology, "MaxPool", "cannot stand on the shortcut");

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.conv(y, [2, 2], 3, 1);
    let y = s.relu(y);
    let out = s.add(x, y);
    s.refused(out, Topology, "Relu", "between the path's last convolution and the addition");
}

#[test]
fn batch_norm_is_folded_or_refused_by_name() {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let y = s.norm(y);
    let factor = s.floats(&[2, 1, 1], vec![10.0, 1.0]);
    let out = s.node("Mul", Operator::Multiply, &[factor, y]);
    let stages = s.stages(out);
    // Weights [[1, 2], [3, 4]] and no bias; the first channel + 1, times 10; the second doubled.
    assert_eq!(conv(&stages).weights, [10.0, 20.0, 6.0, 8.0]);
    assert_eq!(conv(&stages).bias, [10.0, 0.0]);

    // Pre-activation: batch norm and ReLU stand before the convolution.
    let (mut s, x) = sketch();
    let x = s.conv(x, [2, 2], 3, 1);
    let y = s.norm(x);
    let y = s.relu(y);
    let y = s.conv(y, [2, 2], 3, 1);
    let y = s.conv(y, [2, 2], 3, 1);
    let out = s.add(x, y);
    s.refused(out, ErrorKind::Topology, "BatchNormalization", "batch norm that follows no convolution");

    let (mut s, x) = sketch();
    let x = s.conv(x, [2, 2], 3, 1);
    let x = s.relu(x);
    let out = s.norm(x);
    s.refused(out, ErrorKind::Topology, "BatchNormalization", "cannot be folded");

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let [one, zero] = [1.0, 0.0].map(|value| s.floats(&[2], vec![value; 2]));
    let norm = Operator::BatchNormalization { epsilon: 0.0 };
    let out = s.node("BatchNormalization", norm, &[y, one, zero, zero, zero]);
    s.refused(out, ErrorKind::Value, "tensor 'weights'", "the variance of channel 0 is 0");

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let huge = s.floats(&[2, 1, 1], vec![1.0, f32::MAX]);
    let out = s.node("Mul", Operator::Multiply, &[huge, y]);
    s.refused(out, ErrorKind::Value, "Conv", "channel 1 has an infinite weight");
}

#[test]
fn activations_are_clamps_of_the_layer_before() {
    let clipped = |bounds: &[[f32; 2]]| {
        let (mut s, x) = sketch();
        let mut y = s.conv(x, [2, 2], 3, 1);
        for &[low, high] in bounds {
            y = s.clip(y, low, high);
        }
        s.understood(y).map(|found| conv(&found.stages).activation)
    };
    assert_eq!(clipped(&[[0.0, 6.0]]), Ok(Activation::Relu6));
    assert_eq!(clipped(&[[0.0, f32::MAX]]), Ok(Activation::Relu));
    assert_eq!(clipped(&[[0.0, f32::INFINITY], [f32::MIN, 6.0]]), Ok(Activation::Relu6));
    assert_eq!(clipped(&[[f32::MIN, f32::INFINITY]]), Ok(Activation::None));
    assert_eq!(clipped(&[[0.0, 1.0]]).unwrap_err().reason, "clamps to 0 .. 1");
    assert_eq!(clipped(&[[0.0, f32::NAN]]).unwrap_err().kind, ErrorKind::Value);

    // ReLU after a max pooling is ReLU before it.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.node("MaxPool", Operator::MaxPool(sliding(2, 2, 0)), &[y]);
    let out = s.relu(y);
    let stages = s.stages(out);
    assert_eq!((conv(&stages[..1]).activation, stages.len()), (Activation::Relu, 2));

    let (mut s, x) = sketch();
    let out = s.relu(x);
    s.refused(out, ErrorKind::Topology, "Relu", "follows no convolution");
}

#[test]
fn whole_graphs_have_one_input_and_one_output() {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    s.0.outputs.push(x);
    s.refused(y, ErrorKind::Topology, "the graph", "has the outputs 'input', 'Conv'");

    let two_inputs = |read: bool| {
        let (mut s, x) = sketch();
        let other = s.value("second");
        s.0.inputs.push(Input {
            value: other,
            dims: vec![Some(1), Some(2), Some(8), Some(8)],
            integer: false,
        });
        let y = s.conv(x, [2, 2], 3, 1);
        let unused = s.add(y, other);
        s.understood(if read { unused } else { y })
    };
    assert!(two_inputs(false).is_ok());
    assert_eq!(two_inputs(true).unwrap_err().reason, "reads the inputs 'input', 'second'");

    let (mut s, _) = sketch();
    let out = s.floats(&[2], vec![0.0; 2]);
    s.refused(out, ErrorKind::Topology, "the graph", "no input that its output needs");
    let (s, x) = sketch();
    s.refused(x, ErrorKind::Topology, "the graph", "no input that its output needs");

    let (mut s, x) = sketch();
    let y = s.node("Softmax", Operator::Softmax { axis: 1, logarithm: false }, &[x]);
    s.refused(y, ErrorKind::Operator, "Softmax", "over axis 1 of sizes [1, 2, 8, 8]");
    let (mut s, x) = Sketch::new(&[1, 2]);
    let y = s.node("LogSoftmax", Operator::Softmax { axis: -1, logarithm: true }, &[x]);
    let found = s.understood(y).unwrap();
    assert!(matches!(found.stages[..], [Stage::Softmax]) && found.notes[0].contains("logarithm"));
    let (mut s, x) = Sketch::new(&[1, 2]);
    let y = s.node("Softmax", Operator::Softmax { axis: -1, logarithm: false }, &[x]);
    let weights = s.floats(&[2, 2], vec![1.0; 4]);
    let out = s.node("MatMul", Operator::MatMul, &[y, weights]);
    s.refused(out, ErrorKind::Topology, "MatMul", "follows a softmax");
}

#[test]
fn all_unsupported_operators_are_listed() {
    let unsupported = || Operator::Unsupported { help: "train without".into() };
    let (mut s, x) = sketch();
    let y = s.node("Gelu", unsupported(), &[x]);
    let y = s.node("Einsum", unsupported(), &[y]);
    let out = s.node("Einsum", unsupported(), &[y]);
    s.node("Dead", unsupported(), &[x]);
    let refusal = s.understood(out).unwrap_err();
    assert_eq!(refusal.reason, "no layer here computes Gelu; neither can later nodes be converted: 'Einsum'");
    assert_eq!(refusal.help, "train without");
}

#[test]
fn weights_shared_by_many_nodes_do_not_unfold_without_bound() {
    let (mut s, x) = Sketch::new(&[1, 16, 8, 8]);
    let weights = s.floats(&[16, 16, 7, 7], vec![1.0; 16 * 16 * 49]);
    let mut y = x;
    for _ in 0..200 {
        y = s.node("Conv", Operator::Convolution(sliding(7, 1, 3), 1), &[y, weights]);
    }
    s.refused(y, ErrorKind::Shape, "Conv", "many times the file's size");
}

#[test]
fn many_nodes_take_no_recursion_and_no_quadratic_time() {
    let (mut s, x) = sketch();
    let mut y = s.conv(x, [2, 2], 3, 1);
    for _ in 0..60_000 {
        y = s.relu(y);
    }
    assert_eq!(conv(&s.stages(y)).activation, Activation::Relu);
}

/// An average pooling of `kernel` rows and columns behind a 3 x 3 convolution with padding, and `behind`.
fn pooled(behind: &dyn Fn(&mut Sketch, ValueId) -> ValueId, kernel: usize, stride: usize) -> Vec<Stage> {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = behind(&mut s, y);
    let sliding = sliding(kernel, stride, 0);
    let out = s.node("Pool", Operator::AveragePool { sliding, count_include_pad: false }, &[y]);
    s.stages(out)
}

#[test]
fn what_the_only_pooling_window_leaves_out_is_not_computed() {
    let first_padding = |stages: &[Stage]| conv(&stages[..1]).padding;
    let is_global = |stages: &[Stage]| matches!(stages.last(), Some(Stage::GlobalAveragePool { .. }));
    let nothing = |_: &mut Sketch, y| y;
    // 7 of 8 rows and columns: padding behind the image gives the eighth.
    let stages = pooled(&nothing, 7, 7);
    assert_eq!((is_global(&stages), first_padding(&stages)), (true, [1, 1, 0, 0]));
    // Through a layer without padding.
    let stages = pooled(&|s, y| s.conv(y, [2, 2], 1, 1), 7, 7);
    assert_eq!((is_global(&stages), first_padding(&stages)), (true, [1, 1, 0, 0]));
    // The image has rows that no padding can take back; a second window reads the others; a block is between.
    assert!(!is_global(&pooled(&nothing, 6, 6)));
    assert!(!is_global(&pooled(&|s, y| s.conv(y, [2, 2], 1, 2), 3, 3)));
    assert!(!is_global(&pooled(&nothing, 7, 1)));
    let identity = |s: &mut Sketch, x| {
        let y = s.conv(x, [2, 2], 3, 1);
        let y = s.conv(y, [2, 2], 3, 1);
        s.add(x, y)
    };
    let stages = pooled(&identity, 7, 7);
    assert_eq!((is_global(&stages), first_padding(&stages)), (false, [1; 4]));
}

#[test]
fn depthwise_convolutions_stand_in_paths_but_not_on_shortcuts() {
    let depthwise = |s: &mut Sketch, x, kernel: usize| {
        let weights = s.floats(&[2, 1, kernel, kernel], vec![1.0; 2 * kernel * kernel]);
        s.node("Conv", Operator::Convolution(sliding(kernel, 1, kernel / 2), 2), &[x, weights])
    };
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let y = depthwise(&mut s, y, 3);
    let y = s.conv(y, [2, 2], 1, 1);
    let out = s.add(x, y);
    let stages = s.stages(out);
    let path: Vec<bool> = block(&stages).path.iter().map(|conv| conv.depthwise).collect();
    assert_eq!(path, [false, true, false]);

    let (mut s, x) = sketch();
    let short = depthwise(&mut s, x, 1);
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.conv(y, [2, 2], 3, 1);
    let out = s.add(short, y);
    s.refused(out, ErrorKind::Topology, "Conv", "a depthwise 1x1 convolution on the shortcut");
}
