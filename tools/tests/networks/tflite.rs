//! MLPerf Tiny's ResNet-8 as TensorFlow Lite has it, float and int8, against TensorFlow Lite's own answers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use skipstone::host::{Kind, Operation, span};
use skipstone::{Arena, Model, Network};
use skipstone_tools::assemble::Wishes;
use skipstone_tools::blob::Blob;
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, import};
use skipstone_tools::ir::FloatNetwork;
use skipstone_tools::layerwise::{Values, run_layers};
use skipstone_tools::quantize::Rounding;

/// Scale of the logits in the int8 file.
const LOGIT: f32 = 0.171_853_51;

fn float_network(folder: &Path) -> FloatNetwork {
    // pixels of 0..255
    let options = ImportOptions { mean: Some(vec![0.0]), std: Some(vec![1.0 / 255.0]), ..Default::default() };
    import(&folder.join("mlperf-tiny/pretrainedResnet.tflite"), &options).unwrap().network
}

fn int8_network(folder: &Path) -> FloatNetwork {
    let path = folder.join("mlperf-tiny/pretrainedResnet_quant.tflite");
    import(&path, &ImportOptions::default()).unwrap().network
}

/// The int8 file as a blob; no image is needed.
fn blob(folder: &Path, rounding: Rounding) -> Blob {
    let method = Method { rounding, ..Method::default() };
    convert(&int8_network(folder), None, method, Wishes::default(), &|_| {}).unwrap().blob
}

/// An image's bytes and its label.
type Labelled = (Vec<u8>, usize);

/// The measuring data's folder and CIFAR-10's test images.
fn data() -> Option<(PathBuf, Vec<Labelled>)> {
    let folder = super::measuring_data()?;
    let images = super::cifar10_test(&folder);
    Some((folder, images))
}

#[test]
fn the_float_file_answers_as_tensorflow_lite() {
    let Some((folder, images)) = data() else { return };
    let network = float_network(&folder);
    let evaluator = Evaluator::new(&network).unwrap();
    let golden = fs::read(folder.join("golden/resnet8_float_tflite.f32")).unwrap();
    let golden: Vec<f32> = golden.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
    let errors = images[..200].par_iter().zip(golden.par_chunks_exact(10)).map(|((image, _), golden)| {
        let scores = evaluator.run(image, &mut |_, _| {});
        scores[0].iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    });
    let error = errors.reduce(|| 0.0, f32::max);
    println!("largest error of 200 images' probabilities: {error:e}");
    assert!(error < 1e-4, "{error}");
}

#[test]
fn tflite_exact_is_every_byte_of_the_reference_kernels() {
    let Some((folder, images)) = data() else { return };
    let blob = blob(&folder, Rounding::TfliteExact);
    let model = Model::parse(&blob).unwrap();
    let golden = fs::read(folder.join("golden/resnet8_int8_tflite_reference_kernels.i8")).unwrap();
    assert_eq!(golden.len(), 20_000);
    images[..2000].par_iter().zip(golden.par_chunks_exact(10)).enumerate().for_each_init(
        || Box::new(Arena::<{ 64 * 1024 }>::new()),
        |arena, (index, ((image, _), golden))| {
            let mut network: Network = Network::new(model, &mut arena[..]).unwrap();
            // multiples of 1/256, zero being -128
            let byte = |score: &f32| ((score * 256.0 - 128.0) as i8).cast_unsigned();
            let scores: Vec<u8> = network.run(image).unwrap().values().iter().map(byte).collect();
            assert_eq!(scores, golden, "image {index}");
        },
    );
}

/// The tensors of the golden run whose numbers are these, for one image.
fn golden_layers(path: &Path) -> impl Fn(usize) -> Vec<i8> + use<> {
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut tensors = BTreeMap::<usize, Vec<i8>>::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let number: usize = entry.name().unwrap().split('|').next().unwrap().parse().unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        tensors.insert(number, bytes[10 + header..].iter().map(|byte| byte.cast_signed()).collect());
    }
    move |number| tensors[&number].clone()
}

#[test]
fn tflite_exact_is_every_layer_of_the_reference_kernels() {
    let Some((folder, images)) = data() else { return };
    let blob = blob(&folder, Rounding::TfliteExact);
    let model = Model::parse(&blob).unwrap();
    let layers: Vec<_> = model.layers().map(|entry| entry.unwrap().layer).collect();
    let spans: Vec<_> = (0..layers.len() as u16).filter_map(|last| span(&layers, last)).collect();
    assert_eq!(spans.len(), 3);
    // the file's tensors of each block: the path's sums, the projection, the sum of both
    let blocks = [([23, 24], None, 25), ([26, 27], Some(28), 29), ([30, 31], Some(32), 33)];
    for (index, (image, _)) in images[..4].iter().enumerate() {
        let golden =
            golden_layers(&folder.join(format!("golden/resnet8_int8_tflite_layers_image{index}.npz")));
        let made = run_layers(&layers, image).unwrap();
        let values = |layer: u16| match &made[usize::from(layer)] {
            Values::Integers(values) => values,
            Values::Scores(scores) => panic!("{scores:?}"),
        };
        let mut seen = 0;
        let mut check = |values: &[i8], number: usize| {
            assert_eq!(values, golden(number), "image {index}, tensor {number}");
            seen += 1;
        };
        check(values(0), 22);
        for (span, ([first, last], projection, sum)) in spans.iter().zip(blocks) {
            let Operation::Addition(layer, _) = &layers[usize::from(span.last)].operation else { panic!() };
            let before = layers[usize::from(span.last)].node.reads - 1;
            check(values(before), first);
            // the path's last convolution, without the addition
            let mut output = vec![0; layer.output().len()];
            layer.run(values(before), &mut vec![0; layer.scratch_len()], &mut output).unwrap();
            check(&output, last);
            check(values(span.last), sum);
            match (span.kind, projection) {
                (Kind::Identity, None) => {}
                (Kind::Convolutional(layer), Some(number)) => check(values(layer), number),
                other => panic!("{other:?}"),
            }
        }
        check(values(layers.len() as u16 - 2), 34);
        assert_eq!(seen, 13);
        // the logits' zero point is 24
        let Some(Values::Scores(scores)) = made.last() else { panic!() };
        let logits: Vec<i8> = scores.iter().map(|score| (score + 24.0) as i8).collect();
        assert_eq!(logits, golden(36), "image {index}");
    }
}

#[test]
fn fused_rounding_is_nearer_to_the_float_network_than_tensorflow_lite() {
    let Some((folder, images)) = data() else { return };
    let float = float_network(&folder);
    let evaluator = Evaluator::new(&float).unwrap();
    let output = float.outputs[0].tensor;
    let error = |rounding, unit: f32| {
        let blob = blob(&folder, rounding);
        let model = Model::parse(&blob).unwrap();
        let layers: Vec<_> = model.layers().map(|entry| entry.unwrap().layer).collect();
        let squares = images[..500].par_iter().map(|(image, _)| {
            let mut logits = Vec::new();
            evaluator.run(image, &mut |tensor, values| {
                if tensor == output {
                    logits = values.to_vec();
                }
            });
            assert_eq!(logits.len(), 10);
            let made = run_layers(&layers, image).unwrap();
            let Some(Values::Scores(scores)) = made.last() else { panic!() };
            scores.iter().zip(&logits).map(|(a, b)| f64::from(a * unit - b).powi(2)).sum::<f64>()
        });
        (squares.sum::<f64>() / 5000.0).sqrt()
    };
    let (fused, exact) = (error(Rounding::Fused, 1.0), error(Rounding::TfliteExact, LOGIT));
    println!("logits' RMS error against the float network: fused {fused:.4}, TensorFlow Lite {exact:.4}");
    assert!(fused < 0.8 * exact, "{fused}, {exact}");
}

#[test]
fn int8_files_keep_their_accuracy_without_calibration() {
    let Some((folder, images)) = data() else { return };
    let network = int8_network(&folder);
    let (int8, float) = super::correct(&network, &blob(&folder, Rounding::Fused), &images);
    println!("pretrainedResnet_quant, fused: int8 {int8}, its weights in float {float} of {}", images.len());
    assert!(int8 >= 8709, "int8: {int8}");
}
