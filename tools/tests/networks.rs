//! What the networks promise: accuracy kept, and the bytes of RAM that README states.

#[path = "networks/tflite.rs"]
mod tflite;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use skipstone::host::Softmax;
use skipstone::{Arena, Model, Network, Shape};
use skipstone_tools::assemble::{Goal, Target, Wishes, assemble};
use skipstone_tools::blob::Blob;
use skipstone_tools::calibrate::{Range, RangeChoice, Ranges, calibrate};
use skipstone_tools::convert::{MAX_TENSORS, Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, import};
use skipstone_tools::ir::{
    Activation, FloatNetwork, INPUT, Layer, Operation, Output, Preprocessing, Real, Shortcut, TensorId,
    Weights, Window,
};
use skipstone_tools::quantize::{Rounding, quantize};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn float_network(file: &str) -> FloatNetwork {
    import(&root().join("models").join(file), &ImportOptions::default()).unwrap().network
}

/// Images and labels, and how many of them the int8 and the float network name rightly.
fn correct(network: &FloatNetwork, blob: &Blob, images: &[(Vec<u8>, usize)]) -> (usize, usize) {
    let model = Model::parse(blob).unwrap();
    let evaluator = Evaluator::new(network).unwrap();
    let best = |scores: &[f32]| {
        let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map(|(class, _)| class)
    };
    images
        .par_iter()
        .map_init(
            || Box::new(Arena::<{ 64 * 1024 }>::new()),
            |arena, (image, label)| {
                let mut network: Network = Network::new(model, &mut arena[..]).unwrap();
                let int8 = network.run(image).unwrap().top::<1>()[0].index;
                let float = best(&evaluator.run(image, &mut |_, _| {})[0]);
                (usize::from(int8 == *label), usize::from(float == Some(*label)))
            },
        )
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}

#[test]
fn digits_keep_their_accuracy() {
    let network = float_network("digits.toml");
    let models = root().join("models");
    let calibration =
        Dataset::open_for_calibration(&models.join("digits-calibration.npz"), network.input, 200);
    let blob = convert(&network, Some(&calibration.unwrap()), Method::default(), Wishes::default(), &|_| {});
    let blob = blob.unwrap().blob;
    let committed = Blob::read(&models.join("digits.skip")).unwrap();
    // sums of the fit are fused multiply-adds where there are such; elsewhere a weight may round differently
    #[cfg(target_arch = "x86_64")]
    let comparable = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let comparable = false;
    if comparable {
        assert!(
            blob == committed,
            "models/digits.skip is not what converting models/digits.toml gives: convert it again"
        );
    } else {
        println!("skipped: models/digits.skip is compared on x86-64 with fused multiply-add only");
    }
    let test = Dataset::open(&models.join("digits-test.npz"), network.input, None).unwrap();
    let labels = test.labels().unwrap();
    let images: Vec<_> = (0..test.len()).map(|index| (test.image(index).to_vec(), labels[index])).collect();
    let (int8, float) = correct(&network, &blob, &images);
    println!("digits: int8 {int8}, float {float} of {}", images.len());
    assert!(float * 1000 >= images.len() * 985, "float: {float} of {}", images.len());
    // within 0.5 points
    assert!(int8 * 200 + images.len() >= float * 200, "int8 {int8}, float {float} of {}", images.len());
}

/// Algorithms, strips and plans change nothing but speed and memory.
#[test]
fn every_goal_gives_the_same_bits_within_its_budgets() {
    let network = float_network("cifar10-resnet8.toml");
    let models = root().join("models");
    let data = Dataset::open_for_calibration(&models.join("cifar10-calibration.npz"), network.input, 8);
    let data = data.unwrap();
    let evaluator = Evaluator::new(&network).unwrap();
    let images: Vec<&[u8]> = (0..data.len()).map(|index| data.image(index)).collect();
    let ranges = calibrate(&evaluator, &images, RangeChoice::default(), &|| {});
    let ranges = ranges.iter().map(|(tensor, observed)| (*tensor, observed.range)).collect();
    let quantized = quantize(&network, &ranges, Rounding::Fused).unwrap();
    let scores = |wishes: Wishes| {
        let blob = assemble(&quantized, &wishes, MAX_TENSORS).unwrap();
        let model = Model::parse(&blob).unwrap();
        let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
        let of = |image: &&[u8], arena: &mut [u8]| -> Vec<u32> {
            let mut network: Network = Network::new(model, arena).unwrap();
            network.run(image).unwrap().values().iter().map(|score| score.to_bits()).collect()
        };
        let scores: Vec<Vec<u32>> = images.iter().map(|image| of(image, &mut arena[..])).collect();
        (scores, blob.len(), model.arena_bytes())
    };
    let (expected, plain, least) = scores(Wishes { target: Target::Reference, ..Wishes::default() });
    for goal in [Goal::Speed, Goal::Balanced, Goal::Memory] {
        let (found, flash, ram) = scores(Wishes { goal, ..Wishes::default() });
        assert_eq!(found, expected, "{goal:?}");
        println!("{goal:?}: blob {flash} B, arena {ram} B (reference: {plain} B, {least} B)");
    }
    let tight = Wishes { ram: Some(20_000), flash: Some(90_000), goal: Goal::Speed, ..Wishes::default() };
    let (found, flash, ram) = scores(tight);
    assert_eq!(found, expected);
    assert!(ram <= 20_000 && flash <= 90_000, "blob {flash} B, arena {ram} B");

    let impossible = |wishes| assemble(&quantized, &wishes, MAX_TENSORS).unwrap_err().to_string();
    let message = impossible(Wishes { ram: Some(4096), ..Wishes::default() });
    assert!(message.contains("--ram 4096") && message.contains("help: give --ram"), "{message}");
    let message = impossible(Wishes { flash: Some(4096), ..Wishes::default() });
    assert!(message.contains("--flash 4096") && message.contains("help: give --flash"), "{message}");
}

/// The folder of measuring data beside the project, if it is there.
fn measuring_data() -> Option<PathBuf> {
    let folder = std::env::var_os("SKIPSTONE_DATA").map_or(root().join("../shared/data"), PathBuf::from);
    let found = folder.join("cifar10/test.webp").exists();
    if !found {
        println!("SKIPPED: no CIFAR-10 beside the project (../shared/data or SKIPSTONE_DATA)");
    }
    found.then_some(folder)
}

/// The 10,000 test images of CIFAR-10, from a lossless sheet of 100 x 100 images.
fn cifar10_test(folder: &Path) -> Vec<(Vec<u8>, usize)> {
    let sheet = image::open(folder.join("cifar10/test.webp")).unwrap().to_rgb8();
    let labels = std::fs::read(folder.join("cifar10/test_labels.u8")).unwrap();
    assert_eq!((sheet.dimensions(), labels.len()), ((3200, 3200), 10_000));
    let image = |index: usize| {
        let (row, column) = (index / 100 * 32, index % 100 * 32);
        (row..row + 32).flat_map(|y| sheet.as_raw()[(y * 3200 + column) * 3..][..96].to_vec()).collect()
    };
    labels.iter().enumerate().map(|(index, label)| (image(index), usize::from(*label))).collect()
}

#[test]
fn resnet8_keeps_its_accuracy_on_all_of_cifar10() {
    let Some(folder) = measuring_data() else { return };
    let network = float_network("cifar10-resnet8.toml");
    let blob = Blob::read(&root().join("models/cifar10-resnet8.skip")).unwrap();
    let images = cifar10_test(&folder);
    let (int8, float) = correct(&network, &blob, &images);
    println!("cifar10-resnet8: int8 {int8}, float {float} of {}", images.len());
    assert!(float >= 8500, "float: {float}");
    assert!(int8 + 30 >= float, "int8 {int8}, float {float}");
}

/// A network under construction, whose weights do not matter: only its shapes do.
struct Builder(FloatNetwork);

impl Builder {
    fn layer(
        &mut self,
        name: &str,
        input: TensorId,
        operation: Operation,
        shape: Shape,
        weights: usize,
    ) -> TensorId {
        let (outputs, weights) = (usize::from(shape.channels), vec![0.01; weights]);
        let weights = match weights.is_empty() {
            true => Weights::None,
            false => Weights::Real { weights, bias: vec![0.0; outputs] },
        };
        self.0.layers.push(Layer {
            name: name.into(),
            place: String::new(),
            inputs: vec![input],
            shortcut: None,
            operation,
            activation: Activation::NONE,
            shape,
            parameters: Real { weights, ..Real::default() },
        });
        self.0.layers.len()
    }

    fn conv2d(
        &mut self,
        name: &str,
        input: TensorId,
        outputs: u16,
        kernel: usize,
        stride: usize,
    ) -> TensorId {
        let from = self.0.shape(input);
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], padding: [kernel / 2; 4] };
        let operation = Operation::Conv2d { window, outputs: outputs.into(), depthwise: false };
        let side = |side: u16| side.div_ceil(stride as u16);
        let shape = Shape::new(side(from.height), side(from.width), outputs);
        let weights = usize::from(outputs) * kernel * kernel * usize::from(from.channels);
        self.layer(name, input, operation, shape, weights)
    }

    fn relu(&mut self, tensor: TensorId) -> TensorId {
        self.0.layers[tensor - 1].activation = Activation::RELU;
        tensor
    }
}

/// A network of the CIFAR family with 6 n + 2 layers and padded or projection shortcuts.
fn resnet(n: usize, padded: bool) -> FloatNetwork {
    let mut network = Builder(FloatNetwork {
        name: format!("resnet{}", 6 * n + 2),
        input: Shape::new(32, 32, 3),
        preprocessing: Preprocessing { mean: vec![0.5], std: vec![0.25] },
        input_scale: None,
        layers: Vec::new(),
        outputs: Vec::new(),
        labels: Vec::new(),
    });
    let stem = network.conv2d("conv1", INPUT, 16, 3, 1);
    let mut at = network.relu(stem);
    let mut channels = 16;
    for (group, width) in [16, 32, 64].into_iter().enumerate() {
        for index in 0..n {
            let name = format!("layer{}.{index}", group + 1);
            let grows = width > channels;
            let stride = if grows { 2 } else { 1 };
            let conv1 = network.conv2d(&format!("{name}.conv1"), at, width, 3, stride);
            let conv1 = network.relu(conv1);
            let shortcut = match (grows, padded) {
                (false, _) => Shortcut { tensor: at, stride: [1; 2], channels_before: 0 },
                (true, true) => {
                    let channels_before = usize::from(width - channels) / 2;
                    Shortcut { tensor: at, stride: [2; 2], channels_before }
                }
                (true, false) => {
                    let tensor = network.conv2d(&format!("{name}.projection"), at, width, 1, 2);
                    Shortcut { tensor, stride: [1; 2], channels_before: 0 }
                }
            };
            let conv2 = network.conv2d(&format!("{name}.conv2"), conv1, width, 3, 1);
            network.0.layers[conv2 - 1].shortcut = Some(shortcut);
            at = network.relu(conv2);
            channels = width;
        }
    }
    let pool = network.layer("pool", at, Operation::GlobalAveragePool, Shape::new(1, 1, 64), 0);
    let tensor = network.layer("fc", pool, Operation::Dense { outputs: 10 }, Shape::new(1, 1, 10), 640);
    network.0.outputs.push(Output { name: "fc".into(), tensor, softmax: Softmax::None });
    network.0
}

/// Arena bytes with the frame in it and fed by rows, both proved by setting the network up in exactly
/// that many bytes.
fn arenas(network: &FloatNetwork) -> (usize, usize) {
    let tensors = 1..=network.layers.len();
    let ranges: Ranges = tensors.map(|tensor| (tensor, Range { min: 0.0, max: 1.0 })).collect();
    let quantized = quantize(network, &ranges, Rounding::Fused).unwrap();
    let wishes = Wishes { target: Target::Reference, goal: Goal::Memory, ..Wishes::default() };
    let blob = assemble(&quantized, &wishes, MAX_TENSORS).unwrap();
    let model = Model::parse(&blob).unwrap();
    let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
    let sizes = (model.arena_bytes(), model.arena_bytes_rows());
    <Network>::new(model, &mut arena[..sizes.1]).unwrap();
    <Network>::with_frame(model, &mut arena[..sizes.0]).unwrap();
    sizes
}

#[test]
fn depth_costs_no_ram() {
    for padded in [false, true] {
        for n in [1, 3, 9, 18] {
            let (frame, rows) = arenas(&resnet(n, padded));
            let shortcuts = if padded { "padded" } else { "projection" };
            println!("ResNet-{}, {shortcuts} shortcuts: frame {frame}, rows {rows}", 6 * n + 2);
            let (most_frame, most_rows) = if n == 1 { (10_240, 8_960) } else { (18_432, 18_432) };
            assert!(frame <= most_frame && rows <= most_rows, "ResNet-{}: {frame}, {rows}", 6 * n + 2);
        }
    }
}
