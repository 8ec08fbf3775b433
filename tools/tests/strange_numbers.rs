//! Numbers that no sound training leaves behind: each is refused by name or kept for what it is. The table of
//! `docs/quantization.md` lists these tests.

use std::fs;
use std::path::{Path, PathBuf};

use skipstone::host::{Operation as Computed, Softmax};
use skipstone::{Arena, Model, Network, Shape};
use skipstone_tools::assemble::Wishes;
use skipstone_tools::blob::Blob;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::fit::WeightChoice;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, import};
use skipstone_tools::ir::{
    Activation, FloatNetwork, INPUT as IMAGE, IntegerWeights, Layer, Operation, Output, Preprocessing, Real,
    Shortcut, TensorId, TensorScale, Weights, Window,
};
use skipstone_tools::layerwise::{Values, run_layers};

const INPUT: Shape = Shape::new(8, 8, 1);

fn noise(seed: u64, count: usize) -> Vec<f32> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        Some((*state >> 33) as f32 / (1u32 << 30) as f32 - 1.0)
    };
    std::iter::repeat_n((), count).scan(seed, |state, ()| next(state)).collect()
}

/// A layer without shortcut and activation.
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

fn real(weights: Vec<f32>, bias: Vec<f32>) -> Weights {
    Weights::Real { weights, bias: bias.into_iter().map(f64::from).collect() }
}

/// A 3x3 convolution over 8x8 pixels, with ReLU.
fn conv2d(name: &str, input: TensorId, inputs: usize, seed: u64) -> Layer<Real> {
    let window = Window { kernel: [3; 2], stride: [1; 2], padding: [1; 4] };
    let operation = Operation::Conv2d { window, outputs: 4, depthwise: false };
    let weights = real(noise(seed, inputs * 4 * 9), noise(seed + 100, 4));
    let layer = layer(name, input, operation, Shape::new(8, 8, 4), weights);
    Layer { activation: Activation::RELU, ..layer }
}

/// A convolution, an identity block, pooling and a dense layer.
fn network() -> FloatNetwork {
    let mut last = conv2d("block.conv2", 2, 4, 3);
    last.shortcut = Some(Shortcut { tensor: 1, stride: [1; 2], channels_before: 0 });
    let dense = Operation::Dense { outputs: 3 };
    let layers = vec![
        conv2d("stem", IMAGE, 1, 1),
        conv2d("block.conv1", 1, 4, 2),
        last,
        layer("pool", 3, Operation::GlobalAveragePool, Shape::new(1, 1, 4), Weights::None),
        layer("head", 4, dense, Shape::new(1, 1, 3), real(noise(4, 12), noise(5, 3))),
    ];
    FloatNetwork {
        name: "strange".into(),
        input: INPUT,
        preprocessing: Preprocessing { mean: vec![0.4], std: vec![0.5] },
        input_scale: None,
        outputs: vec![Output { name: "head".into(), tensor: layers.len(), softmax: Softmax::None }],
        layers,
        labels: vec![],
    }
}

const STEM: usize = 0;
const CONV1: usize = 1;
const CONV2: usize = 2;

/// Weights and biases of a layer.
fn parameters(network: &mut FloatNetwork, layer: usize) -> (&mut Vec<f32>, &mut Vec<f64>) {
    match &mut network.layers[layer].parameters.weights {
        Weights::Real { weights, bias } => (weights, bias),
        other => panic!("{other:?}"),
    }
}

fn weights(network: &mut FloatNetwork, layer: usize) -> &mut Vec<f32> {
    parameters(network, layer).0
}

fn bias(network: &mut FloatNetwork, layer: usize) -> &mut Vec<f64> {
    parameters(network, layer).1
}

/// Index of the last layer.
fn head(network: &FloatNetwork) -> usize {
    network.layers.len() - 1
}

/// Images of 8x8 pixels.
fn images(pixels: &[u8]) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.bin");
    let records: Vec<u8> = pixels.chunks(64).flat_map(|image| [&[0], image].concat()).collect();
    fs::write(&path, records).unwrap();
    Dataset::open(&path, INPUT, None).unwrap()
}

/// Twenty images that differ.
fn usual() -> Dataset {
    let pixels: Vec<u8> = noise(9, 20 * 64).iter().map(|value| (value * 127.0 + 128.0) as u8).collect();
    images(&pixels)
}

const WEIGHTS: [WeightChoice; 3] =
    [WeightChoice::Nearest, WeightChoice::BiasCorrected, WeightChoice::Compensated];

/// What a conversion says that must fail, whatever way weights are rounded.
fn refusal(network: &FloatNetwork, data: &Dataset) -> String {
    let messages = WEIGHTS.map(|weights| {
        let method = Method { weights, ..Method::default() };
        convert(network, Some(data), method, Wishes::default(), &|_| {}).unwrap_err().to_string()
    });
    assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
    messages[0].clone()
}

/// Converts in every way; the largest difference from the float network's scores, over that of the scores to zero.
fn error(network: &FloatNetwork, data: &Dataset) -> f32 {
    let evaluator = Evaluator::new(network).unwrap();
    let errors = WEIGHTS.map(|weights| {
        let method = Method { weights, ..Method::default() };
        let blob = convert(network, Some(data), method, Wishes::default(), &|_| {}).unwrap().blob;
        let (mut worst, mut largest) = (0f32, 0f32);
        for index in 0..data.len() {
            let float = evaluator.run(data.image(index), &mut |_, _| {});
            for (score, float) in run(&blob, data.image(index)).iter().zip(&float[0]) {
                assert!(score.is_finite());
                worst = worst.max((score - float).abs());
                largest = largest.max(float.abs());
            }
        }
        worst / largest
    });
    errors.into_iter().fold(0.0, f32::max)
}

fn run(blob: &Blob, image: &[u8]) -> Vec<f32> {
    let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
    let mut network: Network = Network::new(Model::parse(blob).unwrap(), &mut arena[..]).unwrap();
    let scores = network.run(image).unwrap();
    let sum: f32 = scores.probabilities().sum();
    assert!((sum - 1.0).abs() < 0.01, "{sum}");
    scores.values().to_vec()
}

#[test]
fn a_sound_network_is_close() {
    let error = error(&network(), &usual());
    assert!(error < 0.02, "{error}");
}

#[test]
fn weights_and_biases_that_are_not_finite_are_refused() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut network = network();
        weights(&mut network, CONV2)[40] = value;
        let message = refusal(&network, &usual());
        assert_eq!(
            message,
            format!("block.conv2: weight number 40 is {value}; train or export the network again")
        );
        weights(&mut network, CONV2)[40] = 0.0;
        let head = head(&network);
        bias(&mut network, head)[2] = value.into();
        assert!(refusal(&network, &usual()).starts_with(&format!("head: bias number 2 is {value};")));
    }
}

#[test]
fn weights_of_any_size_that_stay_finite_are_kept() {
    // as far as what comes of them is finite: 1e30 in the first layer, 1e-30 behind it
    for size in [1e30, 1e-30, 1e10, 1e-10] {
        let mut network = network();
        weights(&mut network, STEM).iter_mut().for_each(|weight| *weight *= size);
        for layer in [STEM, CONV1, CONV2] {
            bias(&mut network, layer).iter_mut().for_each(|bias| *bias *= f64::from(size));
        }
        let head = head(&network);
        weights(&mut network, head).iter_mut().for_each(|weight| *weight /= size);
        let error = error(&network, &usual());
        assert!(error < 0.02, "{size}: {error}");
    }
}

#[test]
fn activations_that_leave_f32_are_refused_by_the_layer_that_makes_them() {
    let mut network = network();
    weights(&mut network, STEM).fill(1e30);
    weights(&mut network, CONV1).fill(1e30);
    let message = refusal(&network, &usual());
    assert_eq!(
        message,
        "block.conv1: the activations range to inf, which is not a finite number; check the weights and the preprocessing (--mean, --std)"
    );
    // infinities of both signs in one sum: nothing but NaN
    let mut network = self::network();
    weights(&mut network, STEM).fill(1e30);
    let Operation::Conv2d { depthwise, .. } = &mut network.layers[CONV1].operation else { panic!() };
    *depthwise = true;
    *weights(&mut network, CONV1) =
        (0..36).map(|index| if index / 4 % 2 == 0 { 1e30 } else { -1e30 }).collect();
    assert!(refusal(&network, &images(&[255; 64])).starts_with("block.conv1: the activations range to inf"));
    // the scores, which have no range of their own
    let mut network = self::network();
    weights(&mut network, STEM).fill(1e20);
    let head = head(&network);
    weights(&mut network, head).fill(1e30);
    assert!(refusal(&network, &usual()).starts_with("head: the activations range to"));
}

#[test]
fn denormal_weights_are_kept_as_what_they_are() {
    let mut network = network();
    for layer in [STEM, CONV1, CONV2] {
        weights(&mut network, layer).iter_mut().for_each(|weight| *weight *= 1e-40);
    }
    let error = error(&network, &usual());
    assert!(error < 0.02, "{error}");
    // and if there is nothing else
    for layer in [STEM, CONV1, CONV2] {
        bias(&mut network, layer).fill(0.0);
    }
    let error = self::error(&network, &usual());
    assert!(error < 0.02, "{error}");
}

#[test]
fn dead_channels_are_dead() {
    let mut network = network();
    weights(&mut network, STEM)[..9].fill(0.0);
    bias(&mut network, STEM)[0] = 0.0;
    weights(&mut network, CONV1)[36..72].fill(0.0); // a constant bias is left
    weights(&mut network, CONV2)[..36].fill(0.0);
    bias(&mut network, CONV2)[0] = 0.0;
    let error = error(&network, &usual());
    assert!(error < 0.02, "{error}");
}

#[test]
fn a_network_of_zeros_answers_with_zeros() {
    let mut network = network();
    for layer in [STEM, CONV1, CONV2, head(&network)] {
        weights(&mut network, layer).fill(0.0);
        bias(&mut network, layer).fill(0.0);
    }
    let blob = convert(&network, Some(&usual()), Method::default(), Wishes::default(), &|_| {}).unwrap().blob;
    assert_eq!(run(&blob, &[77; 64]), [0.0; 3]);
}

/// So networks begin whose last batch norm of each block is set to zero ("zero-init residual").
#[test]
fn a_block_with_zero_weights_is_exactly_relu_of_its_input() {
    let mut network = network();
    weights(&mut network, CONV2).fill(0.0);
    bias(&mut network, CONV2).fill(0.0);
    for activation in [Activation::RELU, Activation::NONE] {
        network.layers[STEM].activation = activation;
        for choice in WEIGHTS {
            let method = Method { weights: choice, ..Method::default() };
            let blob = convert(&network, Some(&usual()), method, Wishes::default(), &|_| {}).unwrap().blob;
            let model = Model::parse(&blob).unwrap();
            let entries: Vec<_> = model.layers().map(|entry| entry.unwrap()).collect();
            let layers: Vec<_> = entries.iter().map(|entry| entry.layer).collect();
            let Computed::Addition(_, join) = &layers[CONV2].operation else { panic!() };
            assert_eq!(join.addition.shortcut_zero_point(), entries[STEM].zero_point);
            let made = run_layers(&layers, usual().image(3)).unwrap();
            let [Values::Integers(stem), Values::Integers(sum)] = [&made[STEM], &made[CONV2]] else {
                panic!()
            };
            for (x, y) in stem.iter().zip(sum) {
                let x = i32::from(*x) - i32::from(entries[STEM].zero_point);
                let y = i32::from(*y) - i32::from(entries[CONV2].zero_point);
                if activation == Activation::RELU {
                    assert_eq!(x, y, "{choice:?}");
                } else {
                    assert_eq!(x <= 0, y == 0, "{choice:?}: {x} becomes {y}");
                }
            }
            assert_eq!(stem.len(), 256);
        }
    }
}

#[test]
fn images_that_are_all_the_same_are_enough_for_themselves() {
    for pixels in [vec![0; 64], vec![255; 64], vec![102; 64], vec![7; 10 * 64]] {
        let data = images(&pixels);
        let error = error(&network(), &data);
        assert!(error < 0.02, "{}: {error}", pixels[0]);
    }
    // pixels of exactly zero, and layers without biases: every activation is zero
    let mut network = network();
    network.preprocessing = Preprocessing { mean: vec![0.0], std: vec![1.0] };
    for layer in [STEM, CONV1, CONV2] {
        bias(&mut network, layer).fill(0.0);
    }
    let error = error(&network, &images(&[0; 64]));
    assert!(error < 0.02, "{error}");
}

#[test]
fn no_images_are_no_calibration() {
    let message = convert(&network(), None, Method::default(), Wishes::default(), &|_| {}).unwrap_err();
    assert!(
        message
            .to_string()
            .starts_with("stem: the range of its activations is not known; give a few hundred")
    );
    let folder = tempfile::tempdir().unwrap();
    for name in ["empty.bin", "folder"] {
        let path = folder.path().join(name);
        if name == "folder" {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, b"").unwrap()
        }
        let error = Dataset::open_for_calibration(&path, INPUT, 500).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}

#[test]
fn one_class_has_a_probability_of_one() {
    let mut network = network();
    let head = head(&network);
    resize(&mut network, head, 1);
    weights(&mut network, head).truncate(4);
    bias(&mut network, head).truncate(1);
    let error = error(&network, &usual());
    assert!(error < 0.02, "{error}");
}

#[test]
fn sizes_of_zero_and_beyond_are_refused_by_layer() {
    let refused = |change: &dyn Fn(&mut FloatNetwork), message: &str| {
        let mut network = network();
        change(&mut network);
        let found =
            convert(&network, Some(&usual()), Method::default(), Wishes::default(), &|_| {}).unwrap_err();
        assert!(found.to_string().contains(message), "{found}");
    };
    refused(&|network| network.input.height = 0, "input: a tensor of 0x8x1 has a side of zero");
    refused(&|network| network.input.channels = 0, "input: a tensor of 8x8x0 has a side of zero");
    refused(&|network| network.layers.clear(), "the network has no layers");
    refused(&|network| network.outputs.clear(), "the network has no outputs");
    refused(
        &|network| window(network).kernel = [0, 3],
        "stem: kernel 0x3 with stride 1x1: all of them must be at least 1",
    );
    refused(&|network| window(network).stride = [1, 0], "stem: kernel 3x3 with stride 1x0: all of them");
    refused(&|network| window(network).kernel = [usize::MAX; 2], "stem: ");
    refused(&|network| window(network).padding = [usize::MAX; 4], "stem: ");
    refused(
        &|network| {
            resize(network, STEM, 0);
            weights(network, STEM).clear();
            bias(network, STEM).clear();
        },
        "stem: ",
    );
    refused(
        &|network| {
            resize(network, STEM, 65_536);
            *weights(network, STEM) = vec![0.0; 9 * 65_536];
            *bias(network, STEM) = vec![0.0; 65_536];
        },
        "stem: a tensor of 8x8x65536 is too large",
    );
    refused(
        &|network| {
            let head = head(network);
            resize(network, head, 0);
            weights(network, head).clear();
            bias(network, head).clear();
        },
        "head: ",
    );
    // a window that the runtime does not have
    refused(
        &|network| {
            (window(network).kernel, window(network).padding) = ([16, 3], [8, 1, 7, 1]);
            *weights(network, STEM) = vec![0.5; 48 * 4];
        },
        "stem: a window of 16x3 with stride 1x1; kernels go to 15x15",
    );
}

fn window(network: &mut FloatNetwork) -> &mut Window {
    let Operation::Conv2d { window, .. } = &mut network.layers[STEM].operation else { panic!() };
    window
}

/// Gives a layer another number of outputs.
fn resize(network: &mut FloatNetwork, layer: usize, count: usize) {
    let layer = &mut network.layers[layer];
    let (Operation::Conv2d { outputs, .. } | Operation::Dense { outputs }) = &mut layer.operation else {
        panic!()
    };
    *outputs = count;
    layer.shape.channels = count as u16;
}

/// A dense layer over a flattened image, as an int8 file has it: weights of -127, a bias beside them.
fn quantized(bias: i32) -> FloatNetwork {
    const STEP: f32 = 1.0 / 255.0;
    let input = TensorScale { scale: STEP, zero_point: -128 };
    let integers = IntegerWeights {
        weights: vec![-127; 128],
        scales: vec![0.5],
        bias: vec![0, bias],
        real_bias: vec![0.0; 2],
        input,
    };
    let dense = Operation::Dense { outputs: 2 };
    let mut head = layer("head", IMAGE, dense, Shape::new(1, 1, 2), Weights::Integers(integers));
    head.parameters.scale = Some(TensorScale { scale: 1.0, zero_point: 0 });
    FloatNetwork {
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        input_scale: Some(input),
        layers: vec![head],
        outputs: vec![Output { name: "head".into(), tensor: 1, softmax: Softmax::None }],
        ..network()
    }
}

/// The bound that the runtime checks is the one that the tool proves: the last bias that fits runs, on the
/// image that takes its sum furthest, and the next is refused by layer and channel.
#[test]
fn biases_reach_the_bound_of_32_bits_and_no_further() {
    // the zero point of -128 is folded in: -(-128) * 64 * -127 is added
    let folded = 128 * 64 * -127;
    let room = i32::MAX - 64 * 128 * 128;
    for (bias, pixel) in [(room - folded, 0), (-room - folded, 255)] {
        let blob = |bias| convert(&quantized(bias), None, Method::default(), Wishes::default(), &|_| {});
        let scores = run(&blob(bias).unwrap().blob, &[pixel; 64]);
        let products = (i32::from(pixel) - 128) * -127 * 64;
        let sum = f64::from(bias + folded) + f64::from(products);
        let score = sum * 0.5 / 255.0;
        assert!((f64::from(scores[1]) / score - 1.0).abs() < 1e-6, "{scores:?}, {score}");
        let beyond = blob(bias + bias.signum()).unwrap_err().to_string();
        let bound = i64::from(room) + 1 + 64 * 127 * 128;
        let message = format!(
            "head: the sum of output channel 1 could overflow 32 bits (|bias| + sum |w| * 128 = {bound})"
        );
        assert_eq!(beyond, message);
    }
    for bias in [i32::MIN, i32::MAX] {
        let error =
            convert(&quantized(bias), None, Method::default(), Wishes::default(), &|_| {}).unwrap_err();
        assert!(
            error.to_string().starts_with("head: the sum of output channel 1 could overflow 32 bits"),
            "{error}"
        );
    }
}

#[test]
fn more_products_than_32_bits_hold_are_refused() {
    let dense = |side: u16| {
        let inputs = usize::from(side) * 256;
        let mut network = network();
        network.input = Shape::new(side, 256, 1);
        network.layers.drain(..4);
        network.layers[0].inputs = vec![IMAGE];
        network.outputs[0].tensor = 1;
        resize(&mut network, 0, 1);
        *weights(&mut network, 0) = vec![0.25; inputs];
        *bias(&mut network, 0) = vec![1e30];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.bin");
        fs::write(&path, vec![0; inputs + 1]).unwrap();
        let data = Dataset::open(&path, network.input, None).unwrap();
        let method = Method { weights: WeightChoice::Nearest, ..Method::default() };
        convert(&network, Some(&data), method, Wishes::default(), &|_| {})
            .map(|converted| run(&converted.blob, &vec![0; inputs]))
    };
    let message = dense(258).unwrap_err().to_string();
    assert_eq!(message, "head: 66048 products in one sum could overflow 32 bits; at most 65,000 are allowed");
    let score = dense(253).unwrap()[0];
    assert!((score / 1e30 - 1.0).abs() < 0.01, "{score}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// The message of the program `skipstone` for a network that it must refuse; nothing is left behind.
fn refused_by_the_program(folder: &Path, network: &Path) -> String {
    let blob = folder.join("new.skip");
    let images = folder.join("images.bin");
    fs::write(&images, vec![7; 5 * (8 * 8 * 3 + 1)]).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_skipstone"))
        .arg("convert")
        .args([
            network.as_os_str(),
            "-o".as_ref(),
            blob.as_os_str(),
            "--calibrate".as_ref(),
            images.as_os_str(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!blob.exists());
    String::from_utf8(output.stderr).unwrap()
}

/// Puts a value into a tensor of a safetensors file.
fn patched(name: &str, tensor: &str, index: usize, value: f32) -> Vec<u8> {
    let mut bytes = fs::read(fixture(name)).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = json[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + start + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn batch_norms_that_are_not_sound_are_refused_by_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let description = folder.path().join("tiny.toml");
    let stages = "weights = 'tiny.safetensors'\n\
        input = { height = 8, width = 8, channels = 3, mean = [0.5, 0.4, 0.3], std = [0.25, 0.2, 0.3] }\n\
        stage = [{ conv = 'conv1' }, { blocks = 'layer1' }, { pool = 'global-average' }, { dense = 'fc' }]";
    fs::write(&description, stages).unwrap();
    let put = |tensor: &str, value: f32| {
        fs::write(folder.path().join("tiny.safetensors"), patched("tiny-f32.safetensors", tensor, 1, value))
            .unwrap();
    };
    for (tensor, value, message) in [
        ("bn1.running_var", -1.0, "the variance of channel 1 is -1"),
        ("bn1.running_var", f32::NAN, "is NaN"),
        ("bn1.running_var", f32::INFINITY, "is inf"),
        ("bn1.running_mean", f32::NAN, "is NaN"),
        ("bn1.weight", f32::NEG_INFINITY, "is -inf"),
        ("bn1.bias", f32::NAN, "is NaN"),
        ("conv1.weight", f32::NAN, "is NaN"),
        ("fc.bias", f32::INFINITY, "is inf"),
    ] {
        put(tensor, value);
        let found = refused_by_the_program(folder.path(), &description);
        assert!(found.contains(message) && found.contains(tensor), "{tensor}: {found}");
    }
    // a variance of zero has the epsilon, a gamma of zero leaves beta
    let read = || {
        let mut network = import(&description, &ImportOptions::default()).unwrap().network;
        let (weights, bias) = parameters(&mut network, STEM);
        (weights.clone(), bias[1])
    };
    put("bn1.running_var", 0.0);
    assert!(read().1.is_finite());
    put("bn1.weight", 0.0);
    let (weights, bias) = read();
    assert!(weights[27..54].iter().all(|weight| *weight == 0.0) && bias.is_finite());
}

#[test]
fn scales_of_quantized_files_are_checked_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [("tflite-residual-int8.tflite", 0), ("qdq-int8.onnx", 0)]
        .into_iter()
        .flat_map(|(name, _)| [0.0, -0.01, f32::NAN, f32::INFINITY, 1e-40].map(|value| (name, value)))
    {
        let network = import(&fixture(name), &ImportOptions::default()).unwrap().network;
        let scale = network.layers[0].parameters.scale.unwrap().scale.to_le_bytes();
        let mut bytes = fs::read(fixture(name)).unwrap();
        let at = bytes.windows(4).position(|window| window == scale).unwrap();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = refused_by_the_program(folder.path(), &path);
        assert!(found.contains(&format!("has the scale {value}")), "{found}");
    }
}
