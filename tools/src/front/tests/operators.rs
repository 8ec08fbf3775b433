//! Operators one by one: windows, padding, slices, weights and their order, inputs.

use super::*;

#[test]
fn arithmetic_with_constants_is_per_channel() {
    let (mut s, x) = sketch();
    let mean = s.floats(&[1, 2, 1, 1], vec![1.0, 2.0]);
    let y = s.node("Sub", Operator::Subtract, &[x, mean]);
    let std = s.floats(&[], vec![4.0]);
    let y = s.node("Div", Operator::Divide, &[y, std]);
    let out = s.conv(y, [2, 2], 3, 1);
    let normalization = s.understood(out).unwrap().normalization.unwrap();
    assert_eq!((normalization.scale, normalization.shift), (vec![0.25; 2], vec![-0.25, -0.5]));

    let (mut s, x) = sketch();
    let mean = s.floats(&[2, 8, 8], vec![0.0; 128]);
    let out = s.node("Sub", Operator::Subtract, &[x, mean]);
    s.refused(out, ErrorKind::Operator, "Sub", "with a constant of [2, 8, 8]");

    let (mut s, x) = sketch();
    let zero = s.floats(&[], vec![0.0]);
    let out = s.node("Div", Operator::Divide, &[x, zero]);
    s.refused(out, ErrorKind::Value, "Div", "by 0");

    // Squeeze and excitation multiplies two tensors that depend on the image.
    let (mut s, x) = sketch();
    let y = s.conv(x, [2, 2], 1, 1);
    let out = s.node("Mul", Operator::Multiply, &[x, y]);
    s.refused(out, ErrorKind::Operator, "Mul", "other than by adding");
}

#[test]
fn dense_weights_follow_the_flattening() {
    // 1 x 2 pixels of two channels: in CHW order the features are c0x0, c0x1, c1x0, c1x1.
    for (flatten_last, expected) in [(false, [1.0, 3.0, 2.0, 4.0]), (true, [1.0, 2.0, 3.0, 4.0])] {
        let (mut s, x) = Sketch::new(&[0, 2, 1, 2]);
        let mut y = s.conv(x, [2, 2], 1, 1);
        if flatten_last {
            let permutation = Some(vec![0, 2, 3, 1]);
            y = s.node("Transpose", Operator::Transpose { permutation }, &[y]);
        }
        let shape = s.node("Shape", Operator::Shape { start: 0, end: 1 }, &[y]);
        let rest = s.integers(&[-1]);
        let target = s.node("Concat", Operator::Concat { axis: 0 }, &[shape, rest]);
        let y = s.node("Reshape", Operator::Reshape { allow_zero: false }, &[y, target]);
        let weights = s.floats(&[4, 1], vec![1.0, 2.0, 3.0, 4.0]);
        let y = s.node("MatMul", Operator::MatMul, &[y, weights]);
        let bias = s.floats(&[1], vec![7.0]);
        let out = s.add(bias, y);
        let dense = weighted(last(&s.network(out)));
        assert_eq!((&dense.weights[..], &dense.bias[..]), (&expected[..], &[7.0][..]));
    }

    let (mut s, x) = Sketch::new(&[1, 2, 3, 4]);
    let weights = s.floats(&[4, 5], vec![0.0; 20]);
    let out = s.node("MatMul", Operator::MatMul, &[x, weights]);
    s.refused(out, ErrorKind::Operator, "MatMul", "position by position");

    let (mut s, x) = Sketch::new(&[1, 2, 3, 4]);
    let target = s.integers(&[1, 4, 6]);
    let out = s.node("Reshape", Operator::Reshape { allow_zero: false }, &[x, target]);
    s.refused(out, ErrorKind::Operator, "Reshape", "across rows, columns or channels");
}

#[test]
fn a_batch_larger_than_one_is_one_image_at_a_time() {
    let (mut s, x) = Sketch::new(&[8, 2, 4, 4]);
    let y = s.conv(x, [2, 2], 3, 1);
    let target = s.integers(&[8, 32]);
    let y = s.node("Reshape", Operator::Reshape { allow_zero: false }, &[y, target]);
    let weights = s.floats(&[3, 32], vec![1.0; 96]);
    let gemm = Operator::Gemm { alpha: 0.5, beta: 1.0, transpose_left: false, transpose_right: true };
    let out = s.node("Gemm", gemm, &[y, weights]);
    let dense = weighted(last(&s.network(out)));
    assert_eq!((dense.weights.len(), dense.outputs, dense.weights[0]), (96, 3, 0.5));
}

#[test]
fn padding_is_folded_where_that_changes_nothing() {
    let after_pad = |relu: bool, value: f32, operator: Operator| {
        let (mut s, x) = sketch();
        let mut y = s.conv(x, [2, 2], 3, 1);
        if relu {
            y = s.relu(y);
        }
        let y = s.pad(y, value);
        let out = s.node("Pool", operator, &[y]);
        s.understood(out)
    };
    let max = || Operator::MaxPool(sliding(3, 2, 0));
    let average = |padding, count_include_pad| Operator::AveragePool {
        sliding: sliding(3, 2, padding),
        count_include_pad,
    };
    let found = |result: Result<Understood, Refusal>| {
        let network = result.unwrap().network;
        let counted =
            matches!(last(&network).operation, Operation::AveragePool { count_include_pad: true, .. });
        (pool(&network).padding, counted)
    };
    let reason = |result: Result<Understood, Refusal>| result.unwrap_err().reason;
    assert_eq!(found(after_pad(true, 0.0, max())), ([0, 0, 1, 1], false));
    assert_eq!(found(after_pad(false, f32::NEG_INFINITY, max())), ([0, 0, 1, 1], false));
    assert!(reason(after_pad(false, 0.0, max())).contains("pads with 0 before a max pooling"));
    assert!(reason(after_pad(true, 1.0, max())).contains("pads with 1"));
    assert_eq!(found(after_pad(false, 0.0, average(0, false))), ([0, 0, 1, 1], true));
    assert_eq!(found(after_pad(false, 0.0, average(1, true))), ([1, 1, 2, 2], true));
    assert!(reason(after_pad(false, 0.0, average(1, false))).contains("pads differently itself"));
    let global = after_pad(true, 0.0, Operator::GlobalAveragePool);
    assert!(reason(global).contains("cannot be fused with"));

    let (mut s, x) = sketch();
    let y = s.pad(x, 0.0);
    let out = s.conv(y, [2, 2], 3, 1);
    assert_eq!(conv(&s.network(out)).window.padding, [1, 1, 2, 2]);
    let (mut s, x) = sketch();
    let y = s.pad(x, 0.5);
    let out = s.conv(y, [2, 2], 3, 1);
    s.refused(out, ErrorKind::Operator, "Pad", "pads with 0.5 before a convolution");
    let (mut s, x) = sketch();
    let counts = s.integers(&[0, 0, -1, 0, 0, 0, 0, 0]);
    let out = s.node("Pad", Operator::Pad { constant: true }, &[x, counts]);
    s.refused(out, ErrorKind::Operator, "Pad", "adds -1 positions");
    let (mut s, x) = sketch();
    let counts = s.integers(&[0, 0, 1, 1, 0, 0, 1, 1]);
    let out = s.node("Pad", Operator::Pad { constant: false }, &[x, counts]);
    s.refused(out, ErrorKind::Operator, "Pad", "mirrors");
}

#[test]
fn windows_follow_onnx() {
    let padding = |sliding: Sliding| {
        let (mut s, x) = sketch();
        let weights = s.floats(&[2, 2, 3, 3], vec![1.0; 36]);
        let out = s.node("Conv", Operator::Convolution(sliding, 1), &[x, weights]);
        conv(&s.network(out)).window.padding
    };
    let same = |upper| Sliding { padding: Padding::Same { upper }, ..sliding(3, 2, 0) };
    assert_eq!(padding(same(true)), [0, 0, 1, 1]);
    assert_eq!(padding(same(false)), [1, 1, 0, 0]);

    let pooled = |ceil: bool, kernel, stride, padding| {
        let (mut s, x) = sketch();
        let sliding = Sliding { ceil, ..sliding(kernel, stride, padding) };
        let out = s.node("MaxPool", Operator::MaxPool(sliding), &[x]);
        pool(&s.network(out)).padding
    };
    assert_eq!(pooled(false, 3, 2, 0), [0; 4]);
    assert_eq!(pooled(true, 3, 2, 0), [0, 0, 1, 1]);
    assert_eq!(pooled(true, 2, 2, 0), [0; 4]);
    // A fourth window would begin in the padding, and does not count.
    assert_eq!(pooled(true, 2, 3, 1), [1; 4]);

    let (mut s, x) = sketch();
    let sliding_up = Sliding { ceil: true, ..sliding(3, 2, 0) };
    let operator = Operator::AveragePool { sliding: sliding_up, count_include_pad: true };
    let out = s.node("AveragePool", operator, &[x]);
    s.refused(out, ErrorKind::Operator, "AveragePool", "rounds its output's size up");

    // One window over everything is global average pooling, as is the mean over one axis at a time.
    let (mut s, x) = sketch();
    let operator = Operator::AveragePool { sliding: sliding(8, 8, 0), count_include_pad: true };
    let out = s.node("AveragePool", operator, &[x]);
    let network = s.network(out);
    assert_eq!((network.layers.len(), &last(&network).operation), (1, &Operation::GlobalAveragePool));
    let (mut s, x) = sketch();
    let end = s.integers(&[-1]);
    let y = s.node("ReduceMean", Operator::ReduceMean { keep: false }, &[x, end]);
    let out = s.node("ReduceMean", Operator::ReduceMean { keep: false }, &[y, end]);
    let network = s.network(out);
    assert!(matches!(network.layers[0].operation, Operation::AveragePool { .. }));
    assert_eq!((network.layers.len(), &last(&network).operation), (2, &Operation::GlobalAveragePool));
    let (mut s, x) = sketch();
    let channels = s.integers(&[1]);
    let out = s.node("ReduceMean", Operator::ReduceMean { keep: true }, &[x, channels]);
    s.refused(out, ErrorKind::Operator, "ReduceMean", "averages axes [1]");
}

#[test]
fn convolutions_that_no_layer_is_are_refused() {
    use ErrorKind::{Damaged, Operator as Op, Shape};
    let refused = |dims: &[usize], sliding: Sliding, groups, kind, reason| {
        let (mut s, x) = sketch();
        let weights = s.floats(dims, vec![1.0; dims.iter().product()]);
        let out = s.node("Conv", Operator::Convolution(sliding, groups), &[x, weights]);
        s.refused(out, kind, "node 'Conv2' (Conv)", reason);
    };
    let dilated = |kernel| Sliding { dilations: vec![2; 2], ..sliding(kernel, 1, 0) };
    refused(&[2, 2, 3, 3], dilated(3), 1, Op, "dilated by 2 x 2");
    refused(&[2, 2, 3], sliding(3, 1, 0), 1, Op, "sizes [2, 2, 3]");
    refused(&[4, 1, 3, 3], sliding(3, 1, 0), 2, Op, "4 channels from 2 by a channel multiplier");
    refused(&[2, 2, 3, 3], sliding(3, 1, 0), 0, Op, "has 0 groups");
    refused(&[2, 3, 3, 3], sliding(3, 1, 0), 1, Shape, "for 3 channels, its input is 8x8x2");
    refused(&[2, 2, 3, 3], sliding(5, 1, 0), 1, Damaged, "says a kernel of [5, 5]");
    refused(&[2, 2, 9, 9], sliding(9, 1, 0), 1, Shape, "does not fit");
    refused(&[2, 2, 3, 3], sliding(3, 0, 0), 1, Damaged, "stride of 0");
    refused(&[0, 2, 3, 3], sliding(3, 1, 0), 1, Shape, "has a side of zero");

    let (mut s, x) = sketch();
    let weights = s.floats(&[2, 2, 1, 1], vec![1.0; 4]);
    let out = s.node("Conv", Operator::Convolution(dilated(1), 1), &[x, weights]);
    assert_eq!(conv(&s.network(out)).window.kernel, [1, 1]);
    let (mut s, x) = sketch();
    let weights = s.floats(&[2, 1, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let window = Sliding { kernel: vec![1, 2], ..sliding(1, 1, 0) };
    let out = s.node("Conv", Operator::Convolution(window, 2), &[x, weights]);
    assert_eq!(conv(&s.network(out)).weights, [1.0, 3.0, 2.0, 4.0]);
    let (mut s, x) = sketch();
    let weights = s.conv(x, [2, 2], 3, 1);
    let out = s.node("Conv", Operator::Convolution(sliding(3, 1, 0), 1), &[x, weights]);
    s.refused(out, Op, "Conv", "weights must be constant");
}

#[test]
fn slices_subsample_or_are_refused() {
    let sliced = |start: i64, end: i64, axis: i64, step: i64| {
        let (mut s, x) = sketch();
        let [start, end, axis, step] = [start, end, axis, step].map(|v| s.integers(&[v]));
        let y = s.node("Slice", Operator::Slice, &[x, start, end, axis, step]);
        let out = s.conv(y, [2, 2], 3, 1);
        s.understood(out).map(|found| found.network.layers.len())
    };
    assert_eq!(sliced(0, i64::MAX, 2, 2), Ok(2));
    assert_eq!(sliced(0, 7, 2, 2), Ok(2));
    assert_eq!(sliced(0, 8, 1, 1), Ok(1));
    assert_eq!(sliced(1, 8, 2, 2).unwrap_err().kind, ErrorKind::Operator);
    assert_eq!(sliced(0, 6, 2, 2).unwrap_err().kind, ErrorKind::Operator);
    assert_eq!(sliced(0, 1, 1, 1).unwrap_err().kind, ErrorKind::Operator);
    assert_eq!(sliced(-1, i64::MIN, 2, -1).unwrap_err().kind, ErrorKind::Operator);
    assert_eq!(sliced(0, 8, 4, 1).unwrap_err().kind, ErrorKind::Damaged);

    // As many subsamplings as it takes for the stride to overflow, were it not bounded.
    let (mut s, mut x) = sketch();
    for _ in 0..8 {
        x = s.node("MaxPool", Operator::MaxPool(sliding(1, 65535, 0)), &[x]);
    }
    assert_eq!(pool(&s.network(x)).stride, [usize::MAX; 2]);
}

#[test]
fn inputs_are_images_of_fixed_size() {
    let input = |dims: &[usize]| {
        let (mut s, x) = Sketch::new(dims);
        let out = s.node("GlobalAveragePool", Operator::GlobalAveragePool, &[x]);
        s.understood(out).map(|_| ()).map_err(|refusal| (refusal.kind, refusal.place))
    };
    let refused = |kind| Err((kind, "input 'input'".to_string()));
    assert_eq!(input(&[0, 2, 8, 8]), Ok(()));
    assert_eq!(input(&[1, 2, 8, 0]), refused(ErrorKind::DynamicShape));
    assert_eq!(input(&[1, 0, 8, 8]), refused(ErrorKind::DynamicShape));
    assert_eq!(input(&[1, 2, 8, 8, 8]), refused(ErrorKind::Shape));
    assert_eq!(input(&[]), refused(ErrorKind::Shape));
    assert_eq!(input(&[1, 2, 70000, 8]), refused(ErrorKind::Shape));
    assert_eq!(input(&[70000, 2, 8, 8]), refused(ErrorKind::Shape));

    // Channels last, as the transposition before the first convolution says.
    let (mut s, x) = Sketch::new(&[1, 4, 8, 2]);
    let y = s.node("Transpose", Operator::Transpose { permutation: Some(vec![0, 3, 1, 2]) }, &[x]);
    let out = s.conv(y, [2, 2], 3, 1);
    assert_eq!(s.network(out).input.channels, 2);
    // And as the graph's own layout says, for formats that have it.
    let (mut s, x) = Sketch::new(&[1, 4, 8, 2]);
    s.0.layout = Layout::Nhwc;
    let out = s.conv(x, [2, 2], 3, 1);
    assert_eq!(s.network(out).input.channels, 2);
}
