//! ONNX files that ONNX Runtime has quantized: weights and scales are kept, answers are close, all others are refused.

use skipstone::{Arena, Model, Network};
use skipstone_tools::assemble::{Target, Wishes};
use skipstone_tools::convert::{Method, convert};
use skipstone_tools::front::{ErrorKind, ImportOptions, import};
use skipstone_tools::ir::{FloatNetwork, Layer, Real, TensorScale, Weights};

use crate::{assert_answers, fixture, imported, npz, outline};

const FILES: [&str; 4] = ["qdq-int8", "qdq-uint8", "qdq-symmetric", "qdq-uint8-weights"];

/// The layers with weights.
fn layers(network: &FloatNetwork) -> impl Iterator<Item = &Layer<Real>> {
    network.layers.iter().filter(|layer| layer.parameters.weights != Weights::None)
}

#[test]
fn weights_biases_and_scales_are_those_of_the_file() {
    for file in ["qdq-int8", "qdq-uint8", "qdq-symmetric"] {
        let network = imported(&fixture(&format!("{file}.onnx"))).network;
        assert_eq!(outline(&network), "conv identity2 projection2 global dense", "{file}");
        // the weights lie there as they are in the file
        let plain = Wishes { target: Target::Reference, ..Wishes::default() };
        let blob = convert(&network, None, Method::default(), plain, &|_| {}).unwrap().blob;
        let expected = fixture(&format!("{file}.npz"));
        assert_eq!(layers(&network).count(), 7);
        for layer in layers(&network) {
            let name = &layer.name;
            let array = |what: &str| npz::bytes(&expected, &format!("{name}.{what}")).unwrap();
            let floats = |what: &str| npz::floats(&expected, &format!("{name}.{what}")).unwrap();
            let Weights::Integers(kept) = &layer.parameters.weights else { panic!("{file}: {name}") };
            assert_eq!(kept.scales, floats("scales"), "{file}: {name}");
            assert_eq!(kept.scales.len() > 1, file == "qdq-int8");
            let stored: Vec<u8> = kept.bias.iter().flat_map(|bias| bias.to_le_bytes()).collect();
            assert_eq!(stored, array("bias"), "{file}: {name}");
            let integers = array("weights");
            let weights: Vec<u8> = kept.weights.iter().map(|&weight| weight as u8).collect();
            assert_eq!(weights, integers, "{file}: {name}");
            let filter = integers.len() / kept.bias.len();
            let real = layer.parameters.weights.real(&layer.operation).0;
            for (index, (&weight, &integer)) in real.iter().zip(&integers).enumerate() {
                let scale = kept.scale(index / filter);
                assert_eq!(weight, f32::from(integer as i8) * scale, "{file}: {name} at {index}");
            }
            // in the blob as well, one after the other
            assert!(blob.windows(integers.len()).any(|part| part == integers), "{file}: {name}");
            // of a block's last convolution, before the addition
            let sum = layer.parameters.sum_scale.or(layer.parameters.scale);
            let TensorScale { scale, zero_point } = sum.unwrap();
            assert_eq!(vec![scale, f32::from(zero_point)], floats("output"), "{file}: {name}");
        }
    }
}

#[test]
fn uint8_weights_that_reach_minus_128_are_rounded_again_and_the_others_kept() {
    let network = imported(&fixture("qdq-uint8-weights.onnx")).network;
    for layer in layers(&network) {
        let name = &layer.name;
        let integers = npz::bytes(&fixture("qdq-uint8-weights.npz"), &format!("{name}.weights")).unwrap();
        assert_eq!(layer.parameters.weights.real(&layer.operation).0.len(), integers.len());
        let fits = !integers.contains(&(i8::MIN as u8));
        assert_eq!(matches!(layer.parameters.weights, Weights::Integers(_)), fits, "{name}");
    }
}

#[test]
fn answers_are_close_to_onnx_runtimes() {
    for file in FILES {
        let network = imported(&fixture(&format!("{file}.onnx"))).network;
        let blob = convert(&network, None, Method::default(), Wishes::default(), &|_| {}).unwrap().blob;
        let answers = fixture(&format!("{file}.npz"));
        let logits = npz::floats(&answers, "logits").unwrap();
        let step = network.layers.last().unwrap().parameters.scale.unwrap().scale;
        let images = npz::images(&answers);
        let mut arena = Box::new(Arena::<{ 64 * 1024 }>::new());
        let mut int8: Network = Network::new(Model::parse(&blob).unwrap(), &mut arena[..]).unwrap();
        let (mut largest, mut squares) = (0.0f32, 0.0);
        for (image, expected) in
            images.chunks_exact(images.len() / 4).zip(logits.chunks_exact(logits.len() / 4))
        {
            let scores = int8.run(image).unwrap();
            let best = expected.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(scores.top::<1>()[0].index, best, "{file}");
            for (found, expected) in scores.values().iter().zip(expected) {
                let steps = (found - expected) / step;
                largest = largest.max(steps.abs());
                squares += steps * steps;
            }
        }
        let rms = (squares / logits.len() as f32).sqrt();
        println!("{file}: largest difference {largest:.2} steps, RMS {rms:.2}");
        assert!(largest <= 4.0 && rms <= 1.5, "{file}: {largest} steps, RMS {rms}");
    }
}

#[test]
fn a_float_input_is_what_mean_and_standard_deviation_say() {
    let path = fixture("qdq-int8.onnx");
    let network = imported(&path).network;
    assert_eq!((&network.preprocessing.mean[..], &network.preprocessing.std[..]), (&[0.0][..], &[1.0][..]));
    let given = ImportOptions { mean: Some(vec![0.5]), std: Some(vec![0.25]), ..ImportOptions::default() };
    let preprocessing = import(&path, &given).unwrap().network.preprocessing;
    assert_eq!((&preprocessing.mean[..], &preprocessing.std[..]), (&[0.5][..], &[0.25][..]));
}

#[test]
fn the_default_settings_of_pytorchs_exporter_leave_weights_beside_the_file() {
    let network = imported(&fixture("dynamo-default.onnx")).network;
    assert_eq!(outline(&network), "conv identity2 projection2 global dense");
    assert_answers(&network, &fixture("dynamo-default.npz"));
}

#[test]
fn other_quantized_files_are_refused_by_name() {
    let cases = [
        ("qdq-asymmetric", "its integers are not symmetric", "weight_type=QuantType.QInt8"),
        ("qdq-16-bit", "int16", "int8 or uint8"),
        ("qoperator", "unsupported operator QLinearConv", "QuantFormat.QDQ instead of QOperator"),
        ("quantized-dynamically", "unsupported operator DynamicQuantizeLinear", "--calibrate"),
    ];
    for (name, reason, help) in cases {
        let error = import(&fixture(&format!("{name}.onnx")), &ImportOptions::default()).unwrap_err();
        assert_eq!(error.refusal.kind, ErrorKind::Operator, "{error}");
        assert!(error.refusal.reason.contains(reason), "{error}");
        assert!(error.refusal.help.contains(help), "{error}");
        assert!(!error.refusal.place.is_empty(), "{error}");
    }
}
