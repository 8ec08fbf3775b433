//! What quantization promises: closer to the float network than plain rounding, the same bits in every
//! run, and sense on poor data.

use std::path::{Path, PathBuf};

use skipstone::{Arena, Model, Network, Shape};
use skipstone_tools::blob::Blob;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::fit::WeightChoice;
use skipstone_tools::float::Evaluator;
use skipstone_tools::import::{ImportOptions, import};
use skipstone_tools::network::{Activation, Conv2d, Dense, FloatNetwork, Pool2d, Preprocessing, Stage};
use skipstone_tools::optimize::Wishes;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn digits() -> FloatNetwork {
    import(&models().join("digits.toml"), &ImportOptions::default()).unwrap().network
}

/// Images of the digits, spread evenly over the file.
fn images(file: &str, count: usize) -> Dataset {
    Dataset::open_for_calibration(&models().join(file), digits().input, count).unwrap()
}

fn blob(network: &FloatNetwork, calibration: &Dataset, weights: WeightChoice) -> Blob {
    let method = Method { weights, ..Method::default() };
    convert(network, Some(calibration), method, Wishes::default(), &|_| {}).unwrap().blob
}

/// Calls `take` with the index of each score of each image and its difference from the float network's.
fn each_score(network: &FloatNetwork, blob: &Blob, data: &Dataset, mut take: impl FnMut(usize, f64)) {
    let evaluator = Evaluator::new(network).unwrap();
    let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
    let mut int8: Network = Network::new(Model::parse(blob).unwrap(), &mut arena[..]).unwrap();
    for index in 0..data.len() {
        let float = evaluator.run(data.image(index), &mut |_, _| {});
        let scores = int8.run(data.image(index)).unwrap();
        for (output, (score, float)) in scores.values().iter().zip(&float).enumerate() {
            take(output, f64::from(score - float));
        }
    }
}

/// Root of the mean squared difference between the blob's scores and the float network's.
fn error(network: &FloatNetwork, blob: &Blob, data: &Dataset) -> f64 {
    let (mut squares, mut count) = (0.0, 0);
    each_score(network, blob, data, |_, error| {
        squares += error.powi(2);
        count += 1;
    });
    (squares / f64::from(count)).sqrt()
}

/// Deterministic values in -1..1 (a linear congruential generator).
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some((*state >> 33) as f32 / (1u32 << 30) as f32 - 1.0)
    };
    std::iter::repeat_n((), count).scan(seed, |state, ()| next(state)).collect()
}

fn conv2d(name: &str, channels: [usize; 2], depth: usize, kernel: usize, seed: u64) -> Conv2d {
    Conv2d {
        name: name.into(),
        input_channels: channels[0],
        output_channels: channels[1],
        depthwise: false,
        kernel: [kernel; 2],
        stride: [1; 2],
        padding: [kernel / 2; 4],
        weights: noise(seed, channels[1] * kernel * kernel * depth),
        bias: noise(seed + 100, channels[1]),
        activation: Activation::Relu,
    }
}

/// All kinds of layers that are not in a residual block.
fn separable() -> FloatNetwork {
    let pool = Pool2d {
        name: "pool".into(),
        kernel: [2; 2],
        stride: [2; 2],
        padding: [0; 4],
        count_include_pad: false,
    };
    let dense = |name: &str, inputs, outputs, activation, seed| {
        let (weights, bias) = (noise(seed, inputs * outputs), vec![0.1; outputs]);
        Stage::Dense(Dense { name: name.into(), inputs, outputs, weights, bias, activation })
    };
    FloatNetwork {
        name: "separable".into(),
        input: Shape::new(8, 8, 1),
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        stages: vec![
            Stage::Conv2d(conv2d("conv", [1, 8], 1, 3, 1)),
            Stage::Conv2d(Conv2d { depthwise: true, ..conv2d("depthwise", [8, 8], 1, 3, 2) }),
            Stage::Conv2d(conv2d("pointwise", [8, 16], 8, 1, 3)),
            Stage::AveragePool2d(pool.clone()),
            Stage::MaxPool2d(pool),
            dense("hidden", 64, 24, Activation::Relu, 4),
            dense("scores", 24, 5, Activation::None, 5),
        ],
        labels: Vec::new(),
        quantized: Default::default(),
    }
}

#[test]
fn each_method_comes_closer_to_the_float_network_than_the_one_before() {
    for network in [digits(), separable()] {
        let (calibration, test) = (images("digits-calibration.npz", 200), images("digits-test.npz", 200));
        let methods = [WeightChoice::Nearest, WeightChoice::BiasCorrected, WeightChoice::Compensated];
        let errors = methods.map(|weights| error(&network, &blob(&network, &calibration, weights), &test));
        println!("{}: nearest, bias corrected, compensated: {errors:.4?}", network.name);
        assert!(errors[1] < errors[0] && errors[2] < errors[1], "{}: {errors:?}", network.name);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (network, calibration) = (digits(), images("digits-calibration.npz", 50));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| blob(&network, &calibration, WeightChoice::Compensated))
    };
    let one = on(1);
    assert!([2, 3, 8].into_iter().all(|threads| on(threads) == one));
}

#[test]
fn few_images_are_no_worse_than_plain_rounding() {
    let (network, test) = (digits(), images("digits-test.npz", 200));
    for count in [1, 8] {
        let calibration = images("digits-calibration.npz", count);
        let [nearest, fitted] = [WeightChoice::Nearest, WeightChoice::Compensated]
            .map(|weights| error(&network, &blob(&network, &calibration, weights), &test));
        println!("{count} images: nearest {nearest:.4}, compensated {fitted:.4}");
        assert!(fitted < 1.1 * nearest, "{count} images: nearest {nearest}, compensated {fitted}");
    }
}

#[test]
fn weights_and_activations_that_are_always_zero_are_kept() {
    let mut network = separable();
    let calibration = images("digits-calibration.npz", 8);
    for stage in &mut network.stages {
        if let Stage::Conv2d(layer) = stage {
            layer.weights.fill(0.0);
            layer.bias.fill(-1.0); // behind a ReLU: constant zeros
        }
    }
    let blob = blob(&network, &calibration, WeightChoice::Compensated);
    let error = error(&network, &blob, &calibration);
    assert!(error < 0.01, "{error}");
}

#[test]
fn corrected_biases_leave_no_mean_error_on_the_calibration_images() {
    // so the fit knows what arrives at every layer: it walks as the runtime runs
    let (network, calibration) = (separable(), images("digits-calibration.npz", 200));
    let mean_errors = |weights| {
        let blob = blob(&network, &calibration, weights);
        let mut sums = [0.0; 5];
        each_score(&network, &blob, &calibration, |output, error| sums[output] += error);
        sums.map(|sum| (sum / calibration.len() as f64).abs())
    };
    let (nearest, corrected) = (mean_errors(WeightChoice::Nearest), mean_errors(WeightChoice::BiasCorrected));
    println!("mean error of each score: nearest {nearest:.4?}, corrected {corrected:.4?}");
    assert!(nearest.iter().any(|error| *error > 0.05), "{nearest:?}");
    assert!(corrected.iter().all(|error| *error < 0.005), "{corrected:?}");
}

/// Found by fuzzing: such scores had a scale that no blob may hold, and the tool blamed itself.
#[test]
fn scores_beyond_f32_are_refused_by_the_layers_name() {
    let mut network = digits();
    for stage in &mut network.stages {
        match stage {
            Stage::Conv2d(layer) => layer.weights.iter_mut().for_each(|weight| *weight *= 1e24),
            Stage::Dense(layer) => layer.weights.iter_mut().for_each(|weight| *weight *= 1e24),
            _ => {}
        }
    }
    let calibration = images("digits-calibration.npz", 2);
    let converted = convert(&network, Some(&calibration), Method::default(), Wishes::default(), &|_| {});
    let message = format!("{:#}", converted.unwrap_err());
    let infinite = ["inf", "-inf"].map(|value| format!("fc: the activations range to {value}, "));
    assert!(infinite.iter().any(|infinite| message.starts_with(infinite)), "{message}");
}
