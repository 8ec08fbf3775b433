//! The runner that every backend has to pass: its functions against the naive oracle, strip by strip.
//!
//! `cargo test` runs them on the host; with the feature `self-test` a program runs them on the core that the
//! kernels are for ([`run`]).

use alloc::vec;
use alloc::vec::Vec;

use crate::base::clamp::Clamp;
use crate::base::quantization::{Addition, Requantize, Residual, Rounding};
use crate::base::shape::{Shape, Window};
use crate::base::tflite::{Scaling, Sum};
use crate::ops::{Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling};

mod layers;
mod naive;
mod random;

use naive::Tensor;
use random::Random;

/// Makes a strip: input rows, an empty one being padding, and output rows.
type Strip<'k> = &'k dyn Fn(&[&[i8]], &mut [&mut [i8]]);

/// Rows that a kernel reads; an empty one is padding.
type Input<'r> = [&'r [i8]];
/// Rows that a kernel makes.
type Output<'r> = [&'r mut [i8]];

/// The functions that a backend exports.
struct Backend {
    /// Its algorithms for convolutions.
    algorithms: &'static [Algorithm],
    pool2d: fn(&Pool2d, &Input<'_>, &mut Output<'_>),
    dense: fn(&Dense<'_>, u16, &[i8], &mut [i32]),
    global_average_pool: fn(&GlobalAveragePool<'_>, &[i8], &mut [i32]),
}

const REFERENCE: Backend = Backend {
    algorithms: &[Algorithm::Reference],
    pool2d: super::reference::pool2d,
    dense: super::reference::dense,
    global_average_pool: super::reference::global_average_pool,
};

const DSP: Backend = Backend {
    algorithms: &[
        Algorithm::Direct,
        Algorithm::Depthwise,
        Algorithm::Winograd,
        Algorithm::WinogradAtRunTime,
        Algorithm::Winograd4,
        Algorithm::Winograd4AtRunTime,
    ],
    pool2d: super::reference::pool2d,
    dense: super::dsp::dense,
    global_average_pool: super::reference::global_average_pool,
};

/// A check; returns the number of its cases.
#[cfg(feature = "self-test")]
type Check = fn(&Backend) -> usize;

#[cfg(feature = "self-test")]
const CHECKS: [(&str, Check); 8] = [
    ("conv2d", check_conv2d),
    ("winograd", check_winograd),
    ("roundings", check_roundings),
    ("earlier runs", check_independence),
    ("pool2d", check_pool2d),
    ("dense", check_dense),
    ("global average pool", check_global_average_pool),
    ("ends of 32 bits", check_extreme_sums),
];

/// Tests arithmetic and kernels on the core that runs this; `report` gets backend, check and number of cases. Needs a
/// heap of 200 KiB.
///
/// # Panics
/// Where a kernel's bits differ from the oracle's; the message names the case.
#[cfg(feature = "self-test")]
pub fn run(mut report: impl FnMut(&str, &str, usize)) {
    report("arithmetic", "one rounding", check_requantization());
    report("arithmetic", "TensorFlow Lite's roundings", crate::base::tflite::check_golden_values());
    for (name, backend) in [("reference", &REFERENCE), ("dsp", &DSP)] {
        for (what, check) in CHECKS {
            report(name, what, check(backend));
        }
    }
}

#[test]
fn reference_conv2d() {
    check_conv2d(&REFERENCE);
}

#[test]
fn reference_pool2d() {
    check_pool2d(&REFERENCE);
}

#[test]
fn reference_dense() {
    check_dense(&REFERENCE);
}

#[test]
fn reference_global_average_pool() {
    check_global_average_pool(&REFERENCE);
}

#[test]
fn reference_at_the_ends_of_32_bits() {
    check_extreme_sums(&REFERENCE);
}

#[test]
fn dsp_conv2d() {
    check_conv2d(&DSP);
}

#[test]
fn dsp_winograd() {
    check_winograd(&DSP);
}

#[test]
fn dsp_whole_blocks() {
    check_roundings(&DSP);
}

#[test]
fn dsp_outputs_do_not_depend_on_earlier_runs() {
    check_independence(&DSP);
}

#[test]
fn dsp_dense() {
    check_dense(&DSP);
}

#[test]
fn dsp_at_the_ends_of_32_bits() {
    check_extreme_sums(&DSP);
}

/// The one rounding, with and without a shortcut, of sums of all sizes.
#[cfg(feature = "self-test")] // the host tests more of them: tests/runtime/requantization.rs
fn check_requantization() -> usize {
    const CASES: u64 = 5000;
    for seed in 0..CASES {
        let random = &mut Random::new(seed);
        let typical = random.size(1, 1 << 20);
        let naive = layers::requantize(random, 1, typical as f64);
        let sum = [i32::MIN, i32::MAX, random.bits() as i32, random.int8().into()][random.size(0, 3)];
        let residual = random.one_in(2).then(|| layers::residual(random, naive.shift));
        let shortcut = random.int8();
        let term = residual.map_or(0, |residual| residual.term(shortcut));
        let addition = residual.map(|residual| added(&residual));
        let requantize = requantize(&naive);
        let addition = addition.as_ref().map(|addition| (addition, shortcut));
        let found = requantize.apply(sum, requantize.scaling(0).unwrap(), addition);
        assert_eq!(found, naive.apply(sum.into(), 0, term), "seed {seed}: {sum}, {naive:?}, {residual:?}");
    }
    CASES as usize
}

/// Every kernel size, full and depthwise, with and without residual; strips of one to four rows.
fn check_conv2d(backend: &Backend) -> usize {
    let mut cases = 0;
    for (seed, kernel) in each_kernel(12) {
        let random = &mut Random::new(seed);
        let window = layers::window(random, kernel);
        let channels = random.size(1, 9);
        let (depthwise, outputs) = (random.one_in(3), random.size(1, 9));
        let layer = layers::conv2d(random, window, depthwise, channels, outputs);
        let input = layers::input(random, &window, channels);
        let [height, width] = window.output(&input).unwrap();
        let len = height * width * layer.bias.len();
        let before = Tensor::new(height, width, layer.bias.len(), random.int8s(len));
        let residual = random.one_in(2).then(|| layers::residual(random, layer.requantize.shift));

        let expected = layer.run(&input, residual.as_ref().map(|residual| (residual, &before)));

        cases += check_layer(backend, &layer, &input, residual.as_ref(), &before, &expected, seed);
    }
    cases
}

/// 3x3 windows of stride 1 and 2, multiples of 16 channels, values at the ends of their range.
fn check_winograd(backend: &Backend) -> usize {
    let mut cases = 0;
    for seed in 0..400 {
        let random = &mut Random::new(seed);
        let mut window = layers::window(random, [3; 2]);
        window.stride = [random.size(1, 2); 2];
        let (channels, outputs) = (16 * random.size(1, 3), 2 * random.size(1, 3));
        let mut layer = layers::conv2d(random, window, false, channels, outputs);
        // 64 times the sum must keep to 32 bits
        layer.bias.iter_mut().for_each(|bias| *bias /= 128);
        let mut input = layers::input(random, &window, channels);
        match random.size(0, 4) {
            0 => layer.weights.fill(-127),
            1 => layer.weights.iter_mut().for_each(|weight| *weight = if *weight > 0 { 127 } else { -127 }),
            _ => {}
        }
        match random.size(0, 4) {
            0 => input.values.fill(-128),
            1 => input.values.iter_mut().for_each(|value| *value = if *value > 0 { 127 } else { -128 }),
            _ => {}
        }
        let [height, width] = window.output(&input).unwrap();
        let before = Tensor::new(height, width, outputs, random.int8s(height * width * outputs));
        let residual = random.one_in(2).then(|| layers::residual(random, layer.requantize.shift));
        let expected = layer.run(&input, residual.as_ref().map(|residual| (residual, &before)));
        let tried = check_layer(backend, &layer, &input, residual.as_ref(), &before, &expected, seed);
        let large = [Algorithm::Winograd4, Algorithm::Winograd4AtRunTime];
        let supports = |algorithm: &&Algorithm| {
            **algorithm != Algorithm::Depthwise && (window.stride == [1; 2] || !large.contains(algorithm))
        };
        let algorithms = backend.algorithms.iter().filter(supports).count();
        assert_eq!(tried, algorithms, "Winograd supports this layer: {window:?}, {channels} channels");
        cases += tried;
    }
    cases
}

/// Rows of many whole blocks of pixels and a partial one, with every kind of rounding and addition, against
/// the reference's bits (which other checks compare with the oracle's).
fn check_roundings(backend: &Backend) -> usize {
    let mut cases = 0;
    for seed in 0..300 {
        let random = &mut Random::new(seed);
        let kernel = [[3, 3], [1, 1], [random.size(1, 4), random.size(1, 4)]][random.size(0, 2)];
        let stride = [random.size(1, 2); 2];
        let padding = [0; 4].map(|_: usize| random.size(0, 1).min(kernel[0].min(kernel[1]) - 1));
        let window = naive::Window { kernel, stride, padding };
        let channels = [16, 32, 48, 3, 64, random.size(1, 20)][random.size(0, 5)];
        let outputs = [2, 4, 16, random.size(1, 9)][random.size(0, 3)];
        let mut layer = layers::conv2d(random, window, false, channels, outputs);
        layer.bias.iter_mut().for_each(|bias| *bias /= 1 << random.size(3, 14));
        let (height, width) = (random.size(4, 7), random.size(4, 44));
        let input = Tensor::new(height, width, channels, random.int8s(height * width * channels));

        let shift = random.between(33, 42) as u8;
        let ratio =
            layers::power_of_two(shift) * 60.0 / layers::typical_sum(kernel[0] * kernel[1] * channels);
        let multipliers: Vec<i32> =
            (0..outputs).map(|_| (ratio * random.between(5, 20) as f64 / 10.0) as i32).collect();
        let zero_point = random.int8();
        let clamp = if random.one_in(4) { Clamp::relu(zero_point) } else { Clamp::none(zero_point) };
        let shifts: Vec<i8> = (0..outputs).map(|_| -(random.between(2, 11) as i8)).collect();
        let twice = random.one_in(3);
        let rounding = if twice { Rounding::Twice { shifts: &shifts } } else { Rounding::Once { shift } };
        let requantize = Requantize::with_rounding(&multipliers, rounding, clamp).unwrap();
        let scaling = |shift| Scaling { multiplier: 1 << 30, shift };
        let sum = Sum {
            path: scaling(0),
            shortcut: scaling(-1),
            shortcut_zero_point: random.int8(),
            output: scaling(-18),
            clamp: Clamp::relu(random.int8()),
        };
        let fused =
            Residual::new(random.int8(), random.bits() as i32 & i32::MAX, (shift - 31).min(20)).unwrap();
        let addition = match random.size(0, 2) {
            0 => None,
            1 if !twice => Some(Addition::Fused(fused)),
            _ => Some(Addition::Separate(sum)),
        };

        let [rows, columns] = window.output(&input).unwrap();
        let before = Tensor::new(rows, columns, outputs, random.int8s(rows * columns * outputs));
        let make = |algorithm: Algorithm| {
            let window = windowed(&window);
            let weights = prepared(algorithm, &layer, &window, channels);
            let bytes = Conv2d::weight_bytes(&window, shape(&input), outputs as u16, false, algorithm);
            let weights = bytemuck::cast_slice(&weights).get(..bytes).unwrap_or_default();
            let (bias, pixel) = (&layer.bias, &layer.padding_pixel);
            let checked =
                Conv2d::with_algorithm(shape(&input), window, algorithm, weights, bias, pixel, requantize)
                    .ok()?;
            let run: Strip<'_> = &|input, output| {
                let mut scratch = vec![0xA5A5_A5A5; checked.scratch_bytes(output.len() as u8) / 4];
                super::dispatch::run::<{ super::Kernels::ALL }>(
                    &checked,
                    addition.as_ref(),
                    input,
                    output,
                    &mut scratch,
                );
            };
            let strips = (1..=3).map(|strip| by_strips(&layer.window, &input, before.clone(), strip, run));
            Some(strips.collect::<Vec<_>>())
        };
        let expected = make(Algorithm::Reference).unwrap();
        for algorithm in backend.algorithms {
            if let Some(output) = make(*algorithm) {
                assert!(
                    output == expected,
                    "seed {seed}, {algorithm:?}, {addition:?}, {rounding:?}: {layer:?}"
                );
                cases += 1;
            } else {
                assert_ne!(*algorithm, Algorithm::Direct);
            }
        }
    }
    cases
}

/// Outputs do not depend on the scratch memory's contents, even if an untrusted blob has weights in the fillers of
/// packed words: all words of the weights are random.
fn check_independence(backend: &Backend) -> usize {
    let mut cases = 0;
    for seed in 0..300 {
        let random = &mut Random::new(seed);
        let tiles = random.one_in(3);
        let kernel = if tiles { [3; 2] } else { [random.size(1, 7), random.size(1, 7)] };
        let mut window = layers::window(random, kernel);
        let (mut channels, mut outputs) = (random.size(1, 9), random.size(1, 9));
        if tiles {
            window.stride = [random.size(1, 2); 2];
            (channels, outputs) = (16 * random.size(1, 2), 2 * random.size(1, 3));
        }
        let depthwise = !tiles && random.one_in(4);
        let mut layer = layers::conv2d(random, window, depthwise, channels, outputs);
        // 64 times the sum must keep to 32 bits
        layer.bias.iter_mut().for_each(|bias| *bias /= 128);
        let input = layers::input(random, &window, channels);
        let [height, width] = window.output(&input).unwrap();
        let outputs = layer.bias.len();
        let before = Tensor::new(height, width, outputs, random.int8s(height * width * outputs));
        let addition = random.one_in(2).then(|| added(&layers::residual(random, layer.requantize.shift)));
        let (requantize, checked_window) = (requantize(&layer.requantize), windowed(&window));
        for algorithm in backend.algorithms {
            let bytes = Conv2d::weight_bytes(
                &checked_window,
                shape(&input),
                outputs as u16,
                layer.depthwise,
                *algorithm,
            );
            let words: Vec<u32> = (0..bytes.div_ceil(4)).map(|_| random.bits() as u32).collect();
            let weights = bytemuck::cast_slice(&words).get(..bytes).unwrap_or_default();
            let (bias, pixel) = (&layer.bias, &layer.padding_pixel);
            let new = if layer.depthwise { Conv2d::depthwise_with } else { Conv2d::with_algorithm };
            let checked = new(shape(&input), checked_window, *algorithm, weights, bias, pixel, requantize);
            let Ok(checked) = checked else { continue };
            let strip = random.size(1, 6);
            let [zeros, others] = [0, 0xA5A5_A5A5].map(|word| {
                let run: Strip<'_> = &|input, output| {
                    let mut scratch = vec![word; checked.scratch_bytes(output.len() as u8) / 4];
                    super::dispatch::run::<{ super::Kernels::ALL }>(
                        &checked,
                        addition.as_ref(),
                        input,
                        output,
                        &mut scratch,
                    );
                };
                by_strips(&window, &input, before.clone(), strip, run)
            });
            assert_eq!(zeros, others, "seed {seed}, {algorithm:?}, strips of {strip}: {layer:?}");
            cases += 1;
        }
    }
    cases
}

/// All of a backend's algorithms that support a layer, in strips of one to six rows; returns their number.
fn check_layer(
    backend: &Backend,
    layer: &naive::Conv2d,
    input: &Tensor,
    residual: Option<&naive::Residual>,
    before: &Tensor,
    expected: &Tensor,
    seed: u64,
) -> usize {
    let addition = residual.map(added);
    let (window, outputs) = (windowed(&layer.window), layer.bias.len());
    let requantize = requantize(&layer.requantize);
    let mut tried = 0;
    for algorithm in backend.algorithms {
        let weights = prepared(*algorithm, layer, &window, input.channels);
        let (bias, pixel) = (&layer.bias, &layer.padding_pixel);
        let bytes = Conv2d::weight_bytes(&window, shape(input), outputs as u16, layer.depthwise, *algorithm);
        let weights = bytemuck::cast_slice(&weights).get(..bytes).unwrap_or_default();
        let new = if layer.depthwise { Conv2d::depthwise_with } else { Conv2d::with_algorithm };
        let checked = new(shape(input), window, *algorithm, weights, bias, pixel, requantize);
        let Ok(checked) = checked else {
            let direct = if layer.depthwise { Algorithm::Depthwise } else { Algorithm::Direct };
            assert!(![Algorithm::Reference, direct].contains(algorithm), "{checked:?}");
            continue;
        };
        tried += 1;
        assert_eq!((checked.output(), checked.output().channels), (shape(expected), outputs as u16));
        for strip in 1..=6 {
            let run: Strip<'_> = &|input, output| {
                let mut scratch = vec![0xA5A5_A5A5; checked.scratch_bytes(output.len() as u8) / 4];
                super::dispatch::run::<{ super::Kernels::ALL }>(
                    &checked,
                    addition.as_ref(),
                    input,
                    output,
                    &mut scratch,
                );
            };
            let output = by_strips(&layer.window, input, before.clone(), strip, run);
            assert_eq!(
                output, *expected,
                "seed {seed}, {algorithm:?}, strips of {strip}: {layer:?} over {input:?}"
            );
        }
    }
    tried
}

/// A layer's weights, packed for an algorithm, aligned.
fn prepared(algorithm: Algorithm, layer: &naive::Conv2d, window: &Window, channels: usize) -> Vec<u32> {
    let (depthwise, outputs) = (layer.depthwise, layer.bias.len());
    let filters = super::Filters { window: *window, depthwise, channels, outputs };
    let mut words = vec![0u32; super::weight_bytes(algorithm, &filters).div_ceil(4)];
    if !super::pack(algorithm, &layer.weights, &filters, &mut words) {
        bytemuck::cast_slice_mut::<u32, i8>(&mut words)[..layer.weights.len()]
            .copy_from_slice(&layer.weights);
    }
    words
}

/// Every kernel size and kind of pooling; strips of one to four rows.
fn check_pool2d(backend: &Backend) -> usize {
    let mut cases = 0;
    for (seed, kernel) in each_kernel(12) {
        let random = &mut Random::new(seed);
        let window = layers::window(random, kernel);
        let channels = random.size(1, 9);
        let input = layers::input(random, &window, channels);
        let zero_point = random.int8();
        let (kind, naive) = [
            (Pooling::Max, naive::Pooling::Max),
            (Pooling::Average, naive::Pooling::Average),
            (Pooling::AveragePadded { zero_point }, naive::Pooling::AveragePadded { zero_point }),
        ][random.size(0, 2)];

        let expected = naive::pool2d(&window, naive, &input);

        let layer = Pool2d::new(shape(&input), windowed(&window), kind).unwrap();
        assert_eq!(layer.output(), shape(&expected));
        let run: Strip<'_> = &|input, output| (backend.pool2d)(&layer, input, output);
        let blank = Tensor { values: vec![99; expected.values.len()], ..expected.clone() };
        for strip in 1..=4 {
            let output = by_strips(&window, &input, blank.clone(), strip, run);
            assert_eq!(output, expected, "seed {seed}, strips of {strip}: {layer:?} over {input:?}");
        }
        cases += 1;
    }
    cases
}

/// Rows of any shape, taken one after the other into the sums; every tenth time sums that reach their bound.
fn check_dense(backend: &Backend) -> usize {
    const CASES: u64 = 1000;
    for seed in 0..CASES {
        let random = &mut Random::new(seed);
        let mut input = any_tensor(random);
        let outputs = random.size(1, 12);
        let mut weights = random.int8s(outputs * input.values.len());
        let mut bias = layers::bias(random, outputs, input.values.len());
        if seed % 10 == 0 {
            let room = i32::MAX - input.values.len() as i32 * 128 * 128;
            let (weight, room) = [(i8::MIN, room), (127, -room)][random.size(0, 1)];
            input.values.fill(i8::MIN);
            weights.fill(weight);
            bias.fill(room);
        }

        let layer = Dense::new(shape(&input), &weights, &bias, Finish::Scores(&[1.0])).unwrap();
        let mut sums = bias.clone();
        for (row, values) in input.values.chunks(input.width * input.channels).enumerate() {
            (backend.dense)(&layer, row as u16, values, &mut sums);
        }
        assert_eq!(wide(&sums), naive::dense(&input, &weights, &bias), "seed {seed}");
    }
    CASES as usize
}

fn check_global_average_pool(backend: &Backend) -> usize {
    const CASES: u64 = 1000;
    for seed in 0..CASES {
        let random = &mut Random::new(seed);
        let input = any_tensor(random);
        let zero_point = [i8::MIN, i8::MAX, random.int8()][random.size(0, 2)];

        let layer = GlobalAveragePool::new(shape(&input), zero_point, Finish::Scores(&[1.0])).unwrap();
        let mut sums = vec![0; input.channels];
        for values in input.values.chunks(input.width * input.channels) {
            (backend.global_average_pool)(&layer, values, &mut sums);
        }
        assert_eq!(wide(&sums), naive::global_average_pool(&input, zero_point), "seed {seed}");
    }
    // as many positions as there may be, as far from zero as they can be
    for (value, zero_point) in [(i8::MAX, i8::MIN), (i8::MIN, i8::MAX)] {
        let layer = GlobalAveragePool::new(Shape::new(32_767, 256, 1), zero_point, Finish::Scores(&[1.0]));
        let (layer, mut sums) = (layer.unwrap(), [0]);
        for _ in 0..32_767 {
            (backend.global_average_pool)(&layer, &[value; 256], &mut sums);
        }
        assert_eq!(sums, [255 * 32_767 * 256 * i32::from(value.signum())]);
    }
    CASES as usize
}

/// Sums that reach their proved bound: every input at the end of its range that makes its product largest, the bias as
/// large as the bound permits. Nothing overflows, whatever else is added.
fn check_extreme_sums(backend: &Backend) -> usize {
    let mut cases = 0;
    let layers = [(7, 1, 9, 1, false), (3, 1, 16, 2, false), (3, 2, 16, 2, false), (5, 1, 5, 5, true)];
    for (kernel, stride, channels, outputs, depthwise) in layers {
        let window = naive::Window { kernel: [kernel; 2], stride: [stride; 2], padding: [0; 4] };
        let taps = kernel * kernel * if depthwise { 1 } else { channels };
        // Winograd's sums are 4 and 64 times as large
        for bits in [0, 2, 6] {
            let bound = i32::MAX >> bits;
            let room = bound - taps as i32 * 128 * 128;
            for (weight, bias) in [(i8::MIN, room), (127, -room), (127, room)] {
                let random = &mut Random::new(bits);
                let mut sign = || if bias > 0 && weight > 0 && random.one_in(2) { -1 } else { 1 };
                let weights: Vec<i8> = (0..taps * outputs).map(|_| weight.saturating_mul(sign())).collect();
                let wanted = |weight: &i8| if (*weight > 0) == (bias > 0) { i8::MAX } else { i8::MIN };
                // those of the first channel
                let input = weights[..kernel * kernel * channels].iter().map(wanted).collect();
                let input = Tensor::new(kernel, kernel, channels, input);
                if weight < 0 {
                    assert_eq!(i64::from(bias) + taps as i64 * 128 * 128, i64::from(bound));
                }
                let mut layer = naive::Conv2d {
                    window,
                    depthwise,
                    weights,
                    bias: vec![bias; outputs],
                    padding_pixel: vec![0; channels],
                    requantize: naive::Requantize {
                        multipliers: vec![0; outputs],
                        shift: 1,
                        zero_point: 0,
                        min: i8::MIN,
                        max: i8::MAX,
                    },
                };
                let check = |layer: &naive::Conv2d, residual: naive::Residual, shortcut: i8| {
                    let before = Tensor::new(1, 1, outputs, vec![shortcut; outputs]);
                    let expected = layer.run(&input, Some((&residual, &before)));
                    let tried =
                        check_layer(backend, layer, &input, Some(&residual), &before, &expected, bits);
                    (tried, expected.values[0])
                };
                for (shift, zero_point, multiplier) in each_extreme() {
                    layer.requantize.multipliers.fill(multiplier);
                    (layer.requantize.shift, layer.requantize.zero_point) = (shift, zero_point);
                    let residual = naive::Residual { zero_point: i8::MAX, multiplier: i32::MAX, shift: 20 };
                    cases += check(&layer, residual, [i8::MIN, i8::MAX][usize::from(shift) % 2]).0;
                }
                // the shortcut subtracts 2^(31 - bits), or adds it: the sum's last bits are left
                layer.requantize.multipliers.fill(2);
                (layer.requantize.shift, layer.requantize.zero_point) = (1, 0);
                let residual = naive::Residual { zero_point: 0, multiplier: 2 << (6 - bits), shift: 18 };
                let (tried, left) = check(&layer, residual, i8::MIN);
                if weight < 0 {
                    assert_eq!(left, -1, "the bound is reached");
                }
                // one step beyond, those whose bound it is refuse
                layer.bias[0] += bias.signum();
                if bits > 0 {
                    let beyond = check(&layer, residual, i8::MIN).0;
                    let edge = backend
                        .algorithms
                        .iter()
                        .filter(|algorithm| kernel == 3 && stride == 1 && factor_bits(**algorithm) == bits);
                    assert_eq!(tried - beyond, edge.count(), "{layer:?}");
                }
                cases += tried;
            }
        }
    }
    cases
}

/// For stride 1, an algorithm's sums are 2^`factor_bits` times the convolution's.
fn factor_bits(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::Reference | Algorithm::Direct | Algorithm::Depthwise => 0,
        Algorithm::Winograd | Algorithm::WinogradAtRunTime => 2,
        Algorithm::Winograd4 | Algorithm::Winograd4AtRunTime => 6,
    }
}

/// The ends of the ranges of shift, zero point and multiplier.
fn each_extreme() -> impl Iterator<Item = (u8, i8, i32)> {
    let shifts = [1, 31, 32, 33, 56].into_iter();
    let pairs = shifts.flat_map(|shift| [i8::MIN, 0, i8::MAX].map(|zero_point| (shift, zero_point)));
    pairs.flat_map(|(shift, zero_point)| [0, 1, i32::MAX].map(|multiplier| (shift, zero_point, multiplier)))
}

/// A seed and a kernel for each case; every kernel size comes `times` times.
fn each_kernel(times: u64) -> impl Iterator<Item = (u64, [usize; 2])> {
    const SIZES: usize = Window::MAX_KERNEL as usize;
    let kernel = |seed: u64| [seed as usize / SIZES % SIZES + 1, seed as usize % SIZES + 1];
    (0..(SIZES * SIZES) as u64 * times).map(move |seed| (seed, kernel(seed)))
}

fn any_tensor(random: &mut Random) -> Tensor {
    let [height, width, channels] = [random.size(1, 9), random.size(1, 9), random.size(1, 9)];
    Tensor::new(height, width, channels, random.int8s(height * width * channels))
}

/// Gives a kernel the rows of the strips of `strip` rows, one strip after the other. The rows
/// have addresses of every alignment.
fn by_strips(window: &naive::Window, input: &Tensor, output: Tensor, strip: usize, run: Strip<'_>) -> Tensor {
    let (gap, stride) = (strip % 4, window.stride[0]);
    let input = Spaced::new(&input.values, input.width * input.channels, gap);
    let mut spaced = Spaced::new(&output.values, output.width * output.channels, gap);
    let input: Vec<&[i8]> = input.rows().collect();
    let mut rows: Vec<&mut [i8]> = spaced.rows_mut().collect();
    for (index, output) in rows.chunks_mut(strip).enumerate() {
        let first = index * strip * stride;
        let under = first..first + (output.len() - 1) * stride + window.kernel[0];
        let row = |row: usize| input.get(row.checked_sub(window.padding[0])?).copied();
        let under: Vec<&[i8]> = under.map(|under| row(under).unwrap_or_default()).collect();
        run(&under, output);
    }
    Tensor { values: spaced.values(), ..output }
}

/// Rows with a gap before each and after the last.
struct Spaced {
    bytes: Vec<i8>,
    gap: usize,
    row_len: usize,
}

impl Spaced {
    /// The bytes of a gap.
    const FILLER: i8 = 0x5A;

    fn new(values: &[i8], row_len: usize, gap: usize) -> Self {
        let gap_bytes = core::iter::repeat_n(Self::FILLER, gap);
        let rows = values.chunks(row_len).flat_map(|row| gap_bytes.clone().chain(row.iter().copied()));
        Spaced { bytes: rows.chain(gap_bytes.clone()).collect(), gap, row_len }
    }

    fn rows(&self) -> impl Iterator<Item = &[i8]> {
        self.bytes.chunks_exact(self.gap + self.row_len).map(|row| &row[self.gap..])
    }

    fn rows_mut(&mut self) -> impl Iterator<Item = &mut [i8]> {
        self.bytes.chunks_exact_mut(self.gap + self.row_len).map(|row| &mut row[self.gap..])
    }

    /// The rows' values; checks that the gaps are unchanged.
    fn values(&self) -> Vec<i8> {
        let mut gaps = self.bytes.chunks(self.gap + self.row_len).flat_map(|row| &row[..self.gap]);
        assert!(gaps.all(|byte| *byte == Self::FILLER), "a kernel wrote outside of its rows");
        self.rows().flatten().copied().collect()
    }
}

fn shape(tensor: &Tensor) -> Shape {
    Shape::new(tensor.height as u16, tensor.width as u16, tensor.channels as u16)
}

fn windowed(window: &naive::Window) -> Window {
    Window {
        kernel: window.kernel.map(|size| size as u8),
        stride: window.stride.map(|size| size as u8),
        padding: window.padding.map(|size| size as u8),
    }
}

fn requantize(naive: &naive::Requantize) -> Requantize<'_> {
    let clamp = Clamp { zero_point: naive.zero_point, min: naive.min, max: naive.max };
    Requantize::new(&naive.multipliers, naive.shift, clamp).unwrap()
}

fn added(naive: &naive::Residual) -> Addition {
    Residual::new(naive.zero_point, naive.multiplier, naive.shift).unwrap().into()
}

fn wide(sums: &[i32]) -> Vec<i64> {
    sums.iter().map(|sum| i64::from(*sum)).collect()
}
