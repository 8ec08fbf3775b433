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
        let network = s.network(out);
        let block = block(&network);
        assert_eq!((block.kind, block.path), (BlockKind::Identity, vec![0, 1]));
        let identity = Shortcut { tensor: 0, stride: [1, 1], channels_before: 0 };
        assert_eq!(joined(&network), (identity, Activation::RELU));
        assert_eq!(network.layers[0].activation, Activation::RELU);

        let (mut s, x) = sketch();
        let short = s.conv(x, [2, 4], 1, 2);
        let y = s.conv(x, [2, 4], 3, 2);
        let y = s.conv(y, [4, 4], 3, 1);
        let y = s.conv(y, [4, 4], 1, 1);
        let out = if swapped { s.add(short, y) } else { s.add(y, short) };
        let network = s.network(out);
        let block = self::block(&network);
        assert_eq!((block.path, block.shortcut), (vec![0, 1, 3], vec![2]));
        let (shortcut, activation) = joined(&network);
        assert_eq!(
            (block.kind, shortcut.tensor, activation),
            (BlockKind::Convolutional, 3, Activation::NONE)
        );
        let projection = weighted(&network.layers[2]).window;
        assert_eq!((projection.kernel, projection.stride), ([1, 1], [2, 2]));
    }
}

#[test]
fn padded_shortcuts_come_in_several_spellings() {
    let expected = |channels_before| Shortcut { tensor: 0, stride: [2, 2], channels_before };
    let network = |shortcut: &dyn Fn(&mut Sketch, ValueId) -> ValueId| {
        let (mut s, x) = sketch();
        let y = s.conv(x, [2, 4], 3, 2);
        let y = s.conv(y, [4, 4], 3, 1);
        let short = shortcut(&mut s, x);
        let out = s.add(y, short);
        s.network(out)
    };
    let build = |shortcut: &dyn Fn(&mut Sketch, ValueId) -> ValueId| {
        let network = network(shortcut);
        assert_eq!(block(&network).kind, BlockKind::Padded);
        joined(&network).0
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
    let network = network(&projected);
    let block = block(&network);
    assert_eq!(block.kind, BlockKind::Convolutional);
    assert_eq!(weighted(&network.layers[block.shortcut[0]]).window.stride, [2, 2]);
}

#[test]
fn paths_have_any_number_of_convolutions() {
    for count in [1, 2, 3, 4, 7] {
        let (mut s, x) = sketch();
        let mut y = x;
        for _ in 0..count {
            y = s.conv(y, [2, 2], 3, 1);
        }
        let out = s.add(x, y);
        let network = s.network(out);
        assert_eq!(block(&network).path, (0..count).collect::<Vec<_>>());
        assert_eq!(joined(&network).0, Shortcut { tensor: 0, stride: [1, 1], channels_before: 0 });
    }
}

#[test]
fn of_two_convolutions_the_one_further_from_the_fork_adds_the_other() {
    // One and one: the later. Two and one: the path of two, though it comes first in the file.
    let (mut s, x) = sketch();
    let [a, b] = [3, 1].map(|kernel| s.conv(x, [2, 2], kernel, 1));
    let out = s.add(b, a);
    let network = s.network(out);
    assert_eq!(joined(&network).0.tensor, 1);
    assert_eq!(conv(&network).window.kernel, [1, 1]);

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.conv(y, [2, 2], 3, 1);
    let short = s.conv(x, [2, 2], 1, 1);
    let out = s.add(short, y);
    let network = s.network(out);
    assert_eq!(block(&network), block_of("block1", BlockKind::Convolutional, 0, &[0, 2], &[1]));
    assert_eq!(joined(&network).0.tensor, 2);

    // Both branches have two convolutions.
    let (mut s, x) = sketch();
    let [a, b] = [3, 1].map(|kernel| {
        let y = s.conv(x, [2, 2], kernel, 1);
        s.conv(y, [2, 2], kernel, 1)
    });
    let out = s.add(a, b);
    let network = s.network(out);
    assert_eq!(block(&network), block_of("block1", BlockKind::Convolutional, 0, &[0, 3], &[1, 2]));
}

fn block_of(name: &str, kind: BlockKind, fork: usize, path: &[usize], shortcut: &[usize]) -> Block {
    let (path, shortcut) = (path.to_vec(), shortcut.to_vec());
    Block { name: name.into(), kind, fork, path, shortcut }
}

#[test]
fn blocks_may_lie_in_each_other() {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let z = s.conv(y, [2, 2], 3, 1);
    let z = s.conv(z, [2, 2], 3, 1);
    let y = s.add(y, z);
    let y = s.relu(y);
    let y = s.conv(y, [2, 2], 3, 1);
    let out = s.add(x, y);
    let network = s.network(out);
    let expected = [
        block_of("block1", BlockKind::Identity, 1, &[1, 2], &[]),
        block_of("block2", BlockKind::Identity, 0, &[0, 1, 2, 3], &[]),
    ];
    assert_eq!(blocks(&network), expected);
}

#[test]
fn additions_that_no_convolution_makes_are_refused() {
    use ErrorKind::Topology;
    let (mut s, x) = sketch();
    let out = s.add(x, x);
    s.refused(out, Topology, "Add", "adds the input and the input; neither is a convolution");

    // Three branches: the first sum has no room for another shortcut.
    let (mut s, x) = sketch();
    let [a, b] = [3, 1].map(|kernel| s.conv(x, [2, 2], kernel, 1));
    let sum = s.add(a, b);
    let out = s.add(sum, x);
    s.refused(out, Topology, "Add", "neither is a convolution");

    // What others read without the shortcut cannot be the sum.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let sum = s.add(x, y);
    let z = s.conv(y, [2, 2], 3, 1);
    let out = s.add(sum, z);
    s.refused(out, Topology, "Add", "neither is a convolution without activation whose result nothing else");

    // A block whose path ends in a pooling.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.node("MaxPool", Operator::MaxPool(sliding(3, 1, 1)), &[y]);
    let out = s.add(x, y);
    s.refused(out, Topology, "Add", "(MaxPool); neither is a convolution");

    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.conv(y, [2, 2], 3, 1);
    let y = s.relu(y);
    let out = s.add(x, y);
    s.refused(out, Topology, "Relu", "between the path's last convolution and the addition");
}

#[test]
fn paths_and_shortcuts_hold_any_layers() {
    let build = |middle: &dyn Fn(&mut Sketch, ValueId) -> ValueId,
                 short: &dyn Fn(&mut Sketch, ValueId) -> ValueId| {
        let (mut s, x) = sketch();
        let short = short(&mut s, x);
        let y = s.conv(x, [2, 2], 3, 1);
        let y = middle(&mut s, y);
        let y = s.conv(y, [2, 2], 3, 1);
        let out = s.add(y, short);
        s.network(out)
    };
    let none = |_: &mut Sketch, x: ValueId| x;
    let max_pool = |s: &mut Sketch, x| s.node("MaxPool", Operator::MaxPool(sliding(3, 1, 1)), &[x]);
    let network = build(&max_pool, &none);
    assert_eq!(block(&network), block_of("block1", BlockKind::Identity, 0, &[0, 1, 2], &[]));
    let network = build(&none, &max_pool);
    assert_eq!(block(&network), block_of("block1", BlockKind::Convolutional, 0, &[0, 2], &[1]));
    let network = build(&none, &|s, x| s.conv(x, [2, 2], 3, 1));
    assert_eq!(block(&network).shortcut, [1]);
    let activated = |s: &mut Sketch, x| {
        let y = s.conv(x, [2, 2], 1, 1);
        s.relu(y)
    };
    let network = build(&none, &activated);
    let activations: Vec<Activation> = network.layers.iter().map(|layer| layer.activation).collect();
    assert_eq!(activations, [Activation::NONE, Activation::RELU, Activation::NONE]);
    assert_eq!(joined(&network).0.tensor, 2);
}

#[test]
fn batch_norm_is_folded_or_refused_by_name() {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let y = s.norm(y);
    let factor = s.floats(&[2, 1, 1], vec![10.0, 1.0]);
    let out = s.node("Mul", Operator::Multiply, &[factor, y]);
    let found = s.understood(out).unwrap();
    // Weights [[1, 2], [3, 4]] and no bias; the first channel + 1, times 10; the second doubled.
    assert_eq!(conv(&found.network).weights, [10.0, 20.0, 6.0, 8.0]);
    assert_eq!(conv(&found.network).bias, [10.0, 0.0]);
    assert_eq!(found.notes, ["Conv2: convolution 1x1, 2 -> 2, batch norm, a constant factor"]);

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
        s.understood(y).map(|found| last(&found.network).activation)
    };
    assert_eq!(clipped(&[[0.0, 6.0]]), Ok(Activation::RELU6));
    assert_eq!(clipped(&[[0.0, f32::MAX]]), Ok(Activation::RELU));
    assert_eq!(clipped(&[[0.0, f32::INFINITY], [f32::MIN, 6.0]]), Ok(Activation::RELU6));
    assert_eq!(clipped(&[[f32::MIN, f32::INFINITY]]), Ok(Activation::NONE));
    assert_eq!(clipped(&[[0.0, 1.0]]).unwrap_err().reason, "clamps to 0 .. 1");
    assert_eq!(clipped(&[[0.0, f32::NAN]]).unwrap_err().kind, ErrorKind::Value);

    // ReLU after a max pooling is ReLU before it.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = s.node("MaxPool", Operator::MaxPool(sliding(2, 2, 0)), &[y]);
    let out = s.relu(y);
    let network = s.network(out);
    assert_eq!((network.layers[0].activation, network.layers.len()), (Activation::RELU, 2));

    let (mut s, x) = sketch();
    let out = s.relu(x);
    s.refused(out, ErrorKind::Topology, "Relu", "follows no convolution");
}

#[test]
fn whole_graphs_have_one_input() {
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
    s.refused(out, ErrorKind::Topology, "the graph", "no input that its outputs need");
    let (s, x) = sketch();
    s.refused(x, ErrorKind::Topology, "the graph", "no input that its outputs need");

    let (mut s, x) = sketch();
    let y = s.node("Softmax", Operator::Softmax { axis: 1, logarithm: false }, &[x]);
    s.refused(y, ErrorKind::Operator, "Softmax", "over axis 1 of sizes [1, 2, 8, 8]");
    let dense = |s: &mut Sketch, x| {
        let weights = s.floats(&[2, 2], vec![1.0; 4]);
        s.node("MatMul", Operator::MatMul, &[x, weights])
    };
    let (mut s, x) = Sketch::new(&[1, 2]);
    let y = dense(&mut s, x);
    let y = s.node("LogSoftmax", Operator::Softmax { axis: -1, logarithm: true }, &[y]);
    let found = s.understood(y).unwrap();
    let [output] = &found.network.outputs[..] else { panic!("{:?}", found.network.outputs) };
    assert_eq!((output.tensor, output.softmax), (1, skipstone::host::Softmax::Float));
    assert!(found.notes[1].contains("logarithm"));
    let (mut s, x) = Sketch::new(&[1, 2]);
    let y = s.node("Softmax", Operator::Softmax { axis: -1, logarithm: false }, &[x]);
    s.refused(y, ErrorKind::Topology, "", "has no layers");
    let (mut s, x) = Sketch::new(&[1, 2]);
    let y = s.node("Softmax", Operator::Softmax { axis: -1, logarithm: false }, &[x]);
    let out = dense(&mut s, y);
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
    assert_eq!(refusal.reason, "unsupported operator Gelu; later nodes are not supported either: 'Einsum'");
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
    assert_eq!(last(&s.network(y)).activation, Activation::RELU);
}

/// An average pooling of `kernel` rows and columns behind a 3 x 3 convolution with padding, and `behind`.
fn pooled(behind: &dyn Fn(&mut Sketch, ValueId) -> ValueId, kernel: usize, stride: usize) -> FloatNetwork {
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 3, 1);
    let y = behind(&mut s, y);
    let sliding = sliding(kernel, stride, 0);
    let out = s.node("Pool", Operator::AveragePool { sliding, count_include_pad: false }, &[y]);
    s.network(out)
}

#[test]
fn what_the_only_pooling_window_leaves_out_is_not_computed() {
    let first_padding = |network: &FloatNetwork| weighted(&network.layers[0]).window.padding;
    let is_global = |network: &FloatNetwork| last(network).operation == Operation::GlobalAveragePool;
    let nothing = |_: &mut Sketch, y| y;
    // 7 of 8 rows and columns: padding behind the image gives the eighth.
    let network = pooled(&nothing, 7, 7);
    assert_eq!((is_global(&network), first_padding(&network)), (true, [1, 1, 0, 0]));
    // Through a layer without padding.
    let network = pooled(&|s, y| s.conv(y, [2, 2], 1, 1), 7, 7);
    assert_eq!((is_global(&network), first_padding(&network)), (true, [1, 1, 0, 0]));
    // The image has rows that no padding can take back; a second window reads the others; a block is between.
    assert!(!is_global(&pooled(&nothing, 6, 6)));
    assert!(!is_global(&pooled(&|s, y| s.conv(y, [2, 2], 1, 2), 3, 3)));
    assert!(!is_global(&pooled(&nothing, 7, 1)));
    let identity = |s: &mut Sketch, x| {
        let y = s.conv(x, [2, 2], 3, 1);
        let y = s.conv(y, [2, 2], 3, 1);
        s.add(x, y)
    };
    let network = pooled(&identity, 7, 7);
    assert_eq!((is_global(&network), first_padding(&network)), (false, [1; 4]));
}

#[test]
fn depthwise_convolutions_stand_in_paths_and_on_shortcuts() {
    let depthwise = |s: &mut Sketch, x, kernel: usize| {
        let weights = s.floats(&[2, 1, kernel, kernel], vec![1.0; 2 * kernel * kernel]);
        s.node("Conv", Operator::Convolution(sliding(kernel, 1, kernel / 2), 2), &[x, weights])
    };
    let (mut s, x) = sketch();
    let short = depthwise(&mut s, x, 1);
    let y = s.conv(x, [2, 2], 1, 1);
    let y = depthwise(&mut s, y, 3);
    let y = s.conv(y, [2, 2], 1, 1);
    let out = s.add(short, y);
    let network = s.network(out);
    let block = block(&network);
    let depthwise = |layer: &usize| weighted(&network.layers[*layer]).depthwise;
    assert_eq!(block.path.iter().map(depthwise).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(block.shortcut.iter().map(depthwise).collect::<Vec<_>>(), [true]);
}

#[test]
fn zero_channels_are_added_to_a_sum_or_refused() {
    let (mut s, x) = sketch();
    let counts = s.integers(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let y = s.node("Pad", Operator::Pad { constant: true }, &[x, counts]);
    let out = s.conv(y, [4, 2], 3, 1);
    s.refused(out, ErrorKind::Topology, "Pad", "adds zero channels outside of a block's shortcut");
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 4], 3, 1);
    let counts = s.integers(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let one = s.floats(&[], vec![1.0]);
    let short = s.node("Pad", Operator::Pad { constant: true }, &[x, counts, one]);
    let out = s.add(y, short);
    s.refused(out, ErrorKind::Operator, "Pad", "adds channels of 1");
    let (mut s, x) = sketch();
    let counts = s.integers(&[0, 1, 1, 0, 0, 1, 0, 0]);
    let y = s.node("Pad", Operator::Pad { constant: true }, &[x, counts]);
    let out = s.conv(y, [4, 2], 3, 1);
    s.refused(out, ErrorKind::Operator, "Pad", "rows or columns and channels at once");
}
