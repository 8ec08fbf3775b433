//! Models of other tools: they are refused, or converted to a blob that runs.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use skipstone::Model;
use skipstone::host::Algorithm;
use skipstone_tools::assemble::encode::encode;
use skipstone_tools::blob::Blob;
use skipstone_tools::calibrate::{RangeChoice, calibrate};
use skipstone_tools::convert::MAX_TENSORS;
use skipstone_tools::fit::{Fit, WeightChoice};
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, Imported, InputSize, import_bytes};
use skipstone_tools::ir::{FloatNetwork, IntegerNetwork};
use skipstone_tools::plan::{Planner, layers::Prepared};
use skipstone_tools::quantize::{Rounding, is_quantized, quantize, quantize_fitted};
use tempfile::TempDir;

use crate::blob;
use crate::memory::{Bound, within};

/// What reading a model may take, the file's bytes included.
pub const MODEL: Bound = Bound { multiple: 64, constant: 64 << 20 };

/// Products of one image up to which a network is converted.
const MAX_MACS: usize = 1 << 18;

/// Values of a tensor up to which one is.
const MAX_VALUES: usize = 1 << 14;

/// A folder of this process.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// Imports a model from its file, and converts it.
pub fn check(bytes: &[u8]) {
    import(bytes, &folder().join("model"), bytes.len());
}

/// Imports a description of a checkpoint, a zero byte and the checkpoint.
pub fn check_description(bytes: &[u8]) {
    let zero = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let weights = bytes.get(zero + 1..).unwrap_or_default();
    fs::write(folder().join("weights"), weights).unwrap();
    import(&bytes[..zero], &folder().join("net.toml"), bytes.len());
}

fn import(bytes: &[u8], path: &Path, all: usize) {
    let options = ImportOptions {
        // of a checkpoint, which has none
        input: Some(InputSize { height: 16, width: 16, channels: None }),
        ..ImportOptions::default()
    };
    let imported = within(MODEL, all, || import_bytes(bytes.to_vec(), path, &options));
    // fitting to images takes most of the time: not always
    let fitted = all.is_multiple_of(8);
    match imported {
        Ok(Imported { network, .. }) => converted(&network, ALGORITHMS[all % ALGORITHMS.len()], fitted),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Quantizes a network of bounded size and runs the blob.
fn converted(network: &FloatNetwork, algorithm: Algorithm, fitted: bool) {
    let Ok(evaluator) = Evaluator::new(network) else { return };
    let values = network.layers.iter().map(|layer| layer.shape.len()).chain([network.input.len()]).max();
    let macs = network.layers.iter().fold(0usize, |sum, layer| {
        let weights = layer.parameters.weights.real(&layer.operation).0.len().max(1);
        let input = network.shape(layer.inputs[0]);
        let positions = usize::from(input.height) * usize::from(input.width);
        sum.saturating_add(weights.saturating_mul(positions))
    });
    if macs > MAX_MACS || values.is_none_or(|values| values > MAX_VALUES) {
        return;
    }
    let image: Vec<u8> = (0..network.input.len()).map(|index| ((index * 37) >> 1) as u8).collect();
    let choice = if fitted { RangeChoice::LeastError } else { RangeChoice::MinMax };
    let observed = calibrate(&evaluator, &[&image], choice, &|| {});
    let ranges = observed.into_iter().map(|(tensor, observed)| (tensor, observed.range)).collect();
    let fit = fitted.then(|| Fit::new(network, &evaluator, &[&image], WeightChoice::Compensated));
    let quantized = match is_quantized(network) {
        false => vec![quantize_fitted(network, &ranges, Rounding::Fused, fit, &|_| {})],
        true => [Rounding::Fused, Rounding::TfliteExact].map(|how| quantize(network, &ranges, how)).into(),
    };
    for integers in quantized.into_iter().flatten() {
        let reference = outputs(&integers, Algorithm::Reference);
        let fast = outputs(&integers, algorithm);
        if let (Some(reference), Some(fast)) = (reference, fast) {
            assert_eq!(reference, fast, "{algorithm:?} gives other outputs than the reference kernels");
        }
    }
}

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::Direct,
    Algorithm::Winograd,
    Algorithm::WinogradAtRunTime,
    Algorithm::Winograd4,
    Algorithm::Winograd4AtRunTime,
];

/// The bits of the outputs with an algorithm for all convolutions that it supports; `None` if the network
/// cannot be planned or is too large to run.
fn outputs(network: &IntegerNetwork, algorithm: Algorithm) -> Option<Vec<Vec<u32>>> {
    let blob = assembled(network, algorithm)?;
    Model::parse(&blob).unwrap();
    blob::outputs(&blob, true)
}

/// A blob with strips of one row: to search for a better plan takes seconds.
fn assembled(network: &IntegerNetwork, algorithm: Algorithm) -> Option<Blob> {
    let prepared = Prepared::new(network);
    let layers = prepared.layers().ok()?;
    let algorithms: Vec<Algorithm> = layers
        .iter()
        .map(|layer| match layer.convolution() {
            Some(conv) if conv.is_supported_by(algorithm) => algorithm,
            _ => Algorithm::Reference,
        })
        .collect();
    let nodes = layers.iter().zip(&algorithms).map(|(layer, algorithm)| {
        let layer = layer.clone().with_algorithm(*algorithm);
        layer.place(0, 1, 0)
    });
    let nodes = nodes.collect::<Option<Vec<_>>>()?;
    let [rows, frame] =
        [false, true].map(|frame| Planner::new(network.input, frame, MAX_TENSORS).plan(&nodes).ok());
    encode(network, &layers, &algorithms, &rows?, &frame?).ok()
}
