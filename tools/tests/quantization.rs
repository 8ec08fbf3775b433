//! What quantization promises: closer to the float network than plain rounding, the same bits in every
//! run, and sense on poor data.

use std::path::{Path, PathBuf};

use skipstone::host::Softmax;
use skipstone::{Arena, Model, Network, Shape};
use skipstone_tools::assemble::Wishes;
use skipstone_tools::blob::Blob;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::fit::WeightChoice;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, import};
use skipstone_tools::ir::{
    Activation, FloatNetwork, Layer, Operation, Output, Preprocessing, Real, TensorId, Weights, Window,
};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn digits() -> FloatNetwork {
    import(&models().join("digits.toml"), &ImportOptions::default()).unwrap().network
}

/// Images of the digits, spread evenly over the file.
fn images(file: &str, count: usize) -> Dataset {
    Dataset::open_for_calibration(&models().join(file), Shape::new(8, 8, 1), count).unwrap()
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
        for (output, (score, float)) in scores.values().iter().zip(&float[0]).enumerate() {
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

fn layer(name: &str, input: TensorId, operation: Operation, shape: Shape, weights: Weights) -> Layer<Real> {
    Layer {
        name: name.into(),
        place: format!("layer '{name}'"),
        inputs: vec![input],
        shortcut: None,
        operation,
        activation: Activation::NONE,
        shape,
        parameters: Real { weights, ..Real::default() },
    }
}

/// A convolution over 8x8 pixels, with ReLU, after the tensor with its seed's number less one.
fn conv2d(name: &str, outputs: usize, depth: usize, kernel: usize, seed: u64) -> Layer<Real> {
    let window = Window { kernel: [kernel; 2], stride: [1; 2], padding: [kernel / 2; 4] };
    let bias = noise(seed + 100, outputs).into_iter().map(f64::from).collect();
    let weights = Weights::Real { weights: noise(seed, outputs * kernel * kernel * depth), bias };
    let operation = Operation::Conv2d { window, outputs, depthwise: name == "depthwise" };
    let layer = layer(name, seed as usize - 1, operation, Shape::new(8, 8, outputs as u16), weights);
    Layer { activation: Activation::RELU, ..layer }
}

fn dense(name: &str, input: TensorId, inputs: usize, outputs: usize, seed: u64) -> Layer<Real> {
    let weights =
        Weights::Real { weights: noise(seed, inputs * outputs), bias: vec![f64::from(0.1f32); outputs] };
    layer(name, input, Operation::Dense { outputs }, Shape::new(1, 1, outputs as u16), weights)
}

/// A network over 8x8 pixels whose last layer is its output.
fn network(name: &str, layers: Vec<Layer<Real>>) -> FloatNetwork {
    FloatNetwork {
        name: name.into(),
        input: Shape::new(8, 8, 1),
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        input_scale: None,
        outputs: vec![Output { name: "scores".into(), tensor: layers.len(), softmax: Softmax::None }],
        layers,
        labels: Vec::new(),
    }
}

/// All kinds of layers that are not in a residual block.
fn separable() -> FloatNetwork {
    let window = Window { kernel: [2; 2], stride: [2; 2], padding: [0; 4] };
    let mean = Operation::AveragePool { window, count_include_pad: false };
    let layers = vec![
        conv2d("conv", 8, 1, 3, 1),
        conv2d("depthwise", 8, 1, 3, 2),
        conv2d("pointwise", 16, 8, 1, 3),
        layer("mean", 3, mean, Shape::new(4, 4, 16), Weights::None),
        layer("max", 4, Operation::MaxPool(window), Shape::new(2, 2, 16), Weights::None),
        Layer { activation: Activation::RELU, ..dense("hidden", 5, 64, 24, 4) },
        dense("scores", 6, 24, 5, 5),
    ];
    network("separable", layers)
}

/// Changes the weights and biases of every layer that `chosen` has.
fn change(
    network: &mut FloatNetwork,
    chosen: impl Fn(&Operation) -> bool,
    change: impl Fn(&mut Vec<f32>, &mut Vec<f64>),
) {
    for layer in network.layers.iter_mut().filter(|layer| chosen(&layer.operation)) {
        if let Weights::Real { weights, bias } = &mut layer.parameters.weights {
            change(weights, bias);
        }
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
    let is_convolution = |operation: &Operation| matches!(operation, Operation::Conv2d { .. });
    change(&mut network, is_convolution, |weights, bias| {
        weights.fill(0.0);
        bias.fill(-1.0); // before a ReLU: constant zeros
    });
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
    let is_outside = |layer: &Layer<Real>| layer.name == "conv1" || layer.name == "fc";
    for layer in network.layers.iter_mut().filter(|layer| is_outside(layer)) {
        let Weights::Real { weights, .. } = &mut layer.parameters.weights else { panic!() };
        weights.iter_mut().for_each(|weight| *weight *= 1e24);
    }
    let calibration = images("digits-calibration.npz", 2);
    let converted = convert(&network, Some(&calibration), Method::default(), Wishes::default(), &|_| {});
    let message = format!("{:#}", converted.unwrap_err());
    let infinite = ["inf", "-inf"].map(|value| format!("fc: the activations range to {value}, "));
    assert!(infinite.iter().any(|infinite| message.starts_with(infinite)), "{message}");
}

/// Found by an attack: a layer that is silent on the calibration images had the scale 1, in steps of which the small
/// biases after it vanished. Every answer was wrong, and the program said nothing.
#[test]
fn small_biases_after_a_silent_layer_keep_the_answers() {
    let mut silent = conv2d("silent", 8, 1, 3, 1);
    let Weights::Real { weights, bias } = &mut silent.parameters.weights else { panic!() };
    weights.fill(-1.0);
    bias.fill(-1.0);
    let mut head = dense("head", 2, 64, 5, 5);
    let Weights::Real { bias, .. } = &mut head.parameters.weights else { panic!() };
    *bias = vec![1e-4, 5e-4, 2e-4, 3e-4, 4e-4];
    let window = Window { kernel: [4; 2], stride: [4; 2], padding: [0; 4] };
    let pool = layer("pool", 1, Operation::MaxPool(window), Shape::new(2, 2, 8), Weights::None);
    head.parameters.weights = match head.parameters.weights {
        Weights::Real { weights, bias } => Weights::Real { weights: weights[..160].to_vec(), bias },
        other => other,
    };
    let network = network("silent", vec![silent, pool, head]);
    let calibration = images("digits-calibration.npz", 20);
    for weights in [WeightChoice::Nearest, WeightChoice::Compensated] {
        let method = Method { weights, ..Method::default() };
        let converted = convert(&network, Some(&calibration), method, Wishes::default(), &|_| {}).unwrap();
        let mut best = [(0, f64::NEG_INFINITY); 20];
        let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
        let mut int8: Network = Network::new(Model::parse(&converted.blob).unwrap(), &mut arena[..]).unwrap();
        for (index, best) in best.iter_mut().enumerate() {
            let class = int8.run(calibration.image(index)).unwrap().top::<1>()[0];
            *best = (class.index, class.score.into());
        }
        assert!(
            best.iter().all(|(class, score)| *class == 1 && (score / 5e-4 - 1.0).abs() < 0.01),
            "{best:?}"
        );
        let named = converted.warnings.iter().any(|warning| warning.starts_with("silent: "));
        assert!(named, "{:?}", converted.warnings);
    }
}
