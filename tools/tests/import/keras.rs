//! Keras' files: the answers are Keras', through each of its formats and through tf2onnx.

use std::fs;

use skipstone_tools::import::{ErrorKind, ImportOptions, import_bytes};
use skipstone_tools::network::Stage;

use super::{Random, assert_answers, fixture, imported, outline};

/// Networks, the files that they are saved in, and their stages.
const NETWORKS: [(&str, &[&str], &str); 6] = [
    (
        "residual-keras",
        &["residual-keras2.h5", "residual-keras3.keras", "residual-tf2onnx.onnx"],
        "conv identity2 projection2 depthwise conv global dense softmax",
    ),
    (
        "sequential-keras",
        &["sequential-keras2.keras", "sequential-keras3.h5"],
        "conv max average dense dense softmax",
    ),
    (
        "mobilenet",
        &["mobilenet.h5", "mobilenet-tf2onnx.onnx"],
        "conv depthwise conv depthwise conv depthwise conv global dense softmax",
    ),
    ("ds-cnn", &["ds-cnn.keras", "ds-cnn-tf2onnx.onnx"], "conv depthwise conv global dense softmax"),
    ("autoencoder", &["autoencoder.h5", "autoencoder-tf2onnx.onnx"], "dense dense dense dense dense dense"),
    (
        "inverted-residual",
        &["inverted-residual.keras", "inverted-residual-tf2onnx.onnx"],
        "conv identity3 conv depthwise conv global dense",
    ),
];

#[test]
fn every_format_answers_as_keras_does() {
    for (name, files, stages) in NETWORKS {
        for file in files {
            println!("{file}");
            let network = imported(&fixture(file)).network;
            assert_eq!(outline(&network), stages, "{file}");
            assert_answers(&network, &fixture(&format!("{name}.npz")));
        }
    }
}
