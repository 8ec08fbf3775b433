//! What the networks promise: accuracy kept, and the bytes of RAM that README states.

#[path = "networks/tflite.rs"]
mod tflite;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use skipstone::{Arena, Model, Network, Shape};
use skipstone_tools::blob::Blob;
use skipstone_tools::calibrate::{Range, RangeChoice, Ranges, calibrate};
use skipstone_tools::convert::{MAX_TENSORS, Method, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::float::{Evaluator, Part, TensorId};
use skipstone_tools::import::{ImportOptions, import};
use skipstone_tools::network::{
    Activation, Block, Conv2d, Dense, FloatNetwork, Preprocessing, Quantized, Shortcut, Stage,
};
use skipstone_tools::optimize::{Goal, Target, Wishes, assemble};
use skipstone_tools::planner::plan;
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
                let float = best(&evaluator.run(image, &mut |_, _| {}));
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

/// A convolution whose weights do not matter: only its shapes do.
fn conv2d(
    name: String,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    activation: Activation,
) -> Conv2d {
    let [input_channels, output_channels] = channels;
    Conv2d {
        name,
        input_channels,
        output_channels,
        depthwise: false,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [kernel / 2; 4],
        weights: vec![0.01; output_channels * kernel * kernel * input_channels],
        bias: vec![0.0; output_channels],
        activation,
    }
}

/// A network of the CIFAR family with 6 n + 2 layers and padded or projection shortcuts.
fn resnet(n: usize, padded: bool) -> FloatNetwork {
    let stem = conv2d("conv1".into(), [3, 16], 3, 1, Activation::Relu);
    let mut stages = vec![Stage::Conv2d(stem)];
    let mut channels = 16;
    for (group, width) in [16, 32, 64].into_iter().enumerate() {
        for index in 0..n {
            let name = format!("layer{}.{index}", group + 1);
            let stride = if width > channels { 2 } else { 1 };
            let shortcut = match (width > channels, padded) {
                (false, _) => Shortcut::Identity,
                (true, true) => Shortcut::Padded { stride: [2; 2], channels_before: (width - channels) / 2 },
                (true, false) => Shortcut::Projection(conv2d(
                    format!("{name}.projection"),
                    [channels, width],
                    1,
                    2,
                    Activation::None,
                )),
            };
            let path = vec![
                conv2d(format!("{name}.conv1"), [channels, width], 3, stride, Activation::Relu),
                conv2d(format!("{name}.conv2"), [width, width], 3, 1, Activation::None),
            ];
            stages.push(Stage::Block(Block { name, path, shortcut, activation: Activation::Relu }));
            channels = width;
        }
    }
    stages.push(Stage::GlobalAveragePool { name: "pool".into() });
    stages.push(Stage::Dense(Dense {
        name: "fc".into(),
        inputs: 64,
        outputs: 10,
        weights: vec![0.01; 640],
        bias: vec![0.0; 10],
        activation: Activation::None,
    }));
    FloatNetwork {
        name: format!("resnet{}", 6 * n + 2),
        input: Shape::new(32, 32, 3),
        preprocessing: Preprocessing { mean: vec![0.5], std: vec![0.25] },
        stages,
        labels: Vec::new(),
        quantized: Quantized::default(),
    }
}

/// Arena bytes with the frame in it and fed by rows, both proved by setting the network up in exactly
/// that many bytes.
fn arenas(network: &FloatNetwork) -> (usize, usize) {
    let parts = [Part::Path(0), Part::Path(1), Part::Projection, Part::Output];
    let tensors = (0..network.stages.len()).flat_map(|stage| parts.map(|part| TensorId { stage, part }));
    let ranges: Ranges = tensors.map(|tensor| (tensor, Range { min: 0.0, max: 1.0 })).collect();
    let unplanned = quantize(network, &ranges, Rounding::Fused).unwrap();
    let (records, weights) = unplanned.encode().unwrap();
    let count = unplanned.names.len() as u16;
    let stages: Vec<_> = skipstone::Stages::new(&records, count, &weights, network.input)
        .map(|entry| entry.unwrap().stage)
        .collect();
    let [rows, frame] = [false, true].map(|frame| plan(&stages, network.input, frame, MAX_TENSORS).unwrap());
    let blob = unplanned.assemble(&rows, &frame).unwrap();
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
