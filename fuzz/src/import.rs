//! Models of other tools: they are refused, or what they become is converted to a blob that runs.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use skipstone::stage::{Layer, Stage};
use skipstone::{Algorithm, Model};
use skipstone_tools::blob::Unplanned;
use skipstone_tools::calibrate::{RangeChoice, calibrate};
use skipstone_tools::fit::{Fit, WeightChoice};
use skipstone_tools::float::Evaluator;
use skipstone_tools::import::{ImportOptions, Imported, InputSize, import_bytes};
use skipstone_tools::network::{self, FloatNetwork, Quantized, Shortcut};
use skipstone_tools::planner;
use skipstone_tools::quantize::{Rounding, quantize, quantize_fitted};
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
    let fitted = all % 8 == 0;
    match imported {
        Ok(Imported { network, .. }) => converted(&network, ALGORITHMS[all % ALGORITHMS.len()], fitted),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Quantizes a network of bounded size and runs the blob. The plan is the simplest, as searching for a
/// better one takes seconds.
fn converted(network: &FloatNetwork, algorithm: Algorithm, fitted: bool) {
    let Ok(evaluator) = Evaluator::new(network) else { return };
    let shapes = evaluator.shapes();
    let values = shapes.iter().flat_map(|shapes| [shapes.input.len(), shapes.output.len()]).max();
    let macs = network.stages.iter().zip(shapes).fold(0usize, |sum, (stage, shapes)| {
        let positions = usize::from(shapes.input.height) * usize::from(shapes.input.width);
        sum.saturating_add(weights(stage).saturating_mul(positions))
    });
    if macs > MAX_MACS || values.is_none_or(|values| values > MAX_VALUES) {
        return;
    }
    let image: Vec<u8> = (0..network.input.len()).map(|index| (index * 37 >> 1) as u8).collect();
    let choice = if fitted { RangeChoice::LeastError } else { RangeChoice::MinMax };
    let observed = calibrate(&evaluator, &[&image], choice, &|| {});
    let ranges = observed.into_iter().map(|(tensor, observed)| (tensor, observed.range)).collect();
    let fit = fitted.then(|| Fit::new(&evaluator, &[&image], WeightChoice::Compensated));
    let quantized = match network.quantized == Quantized::default() {
        true => vec![quantize_fitted(network, &ranges, Rounding::Fused, fit, &|_| {})],
        false => [Rounding::Fused, Rounding::TfliteExact].map(|how| quantize(network, &ranges, how)).into(),
    };
    for unplanned in quantized.into_iter().flatten() {
        let reference = scores(&unplanned);
        let fast = scores(&with_algorithm(&unplanned, algorithm));
        if let (Some(reference), Some(fast)) = (reference, fast) {
            assert_eq!(reference, fast, "{algorithm:?} gives other scores than the reference kernels");
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

/// The network with an algorithm for all of its convolutions that it serves.
fn with_algorithm(unplanned: &Unplanned, algorithm: Algorithm) -> Unplanned {
    let algorithms: Vec<Algorithm> = with_stages(unplanned, |stages| {
        let layers = stages.iter().flat_map(|stage| stage.layers(0, 1));
        let served = |layer: Layer<'_>| layer.convolution().is_some_and(|conv| conv.is_served_by(algorithm));
        layers.map(|layer| if served(layer) { algorithm } else { Algorithm::Reference }).collect()
    });
    unplanned.with_algorithms(&algorithms).unwrap()
}

fn with_stages<T>(unplanned: &Unplanned, work: impl FnOnce(&[Stage<'_>]) -> T) -> T {
    let (records, parameters) = unplanned.encode().unwrap();
    let count = unplanned.names.len() as u16;
    let stages = skipstone::Stages::new(&records, count, &parameters, unplanned.input);
    work(&stages.map(|entry| entry.unwrap().stage).collect::<Vec<_>>())
}

/// Plans the network, a segment for each stage, and runs its blob; the bits of the scores, where it is not
/// too large.
fn scores(unplanned: &Unplanned) -> Option<Vec<u32>> {
    let [rows, frame] = with_stages(unplanned, |stages| {
        let segments = vec![1; stages.len()];
        [false, true].map(|frame| planner::plan_as(stages, unplanned.input, frame, &segments, &[]).ok())
    });
    let blob = unplanned.clone().assemble(&rows?, &frame?).ok()?;
    Model::parse(&blob).unwrap();
    blob::scores(&blob, true)
}

fn weights(stage: &network::Stage) -> usize {
    match stage {
        network::Stage::Conv2d(conv) => conv.weights.len(),
        network::Stage::Dense(dense) => dense.weights.len(),
        network::Stage::Block(block) => {
            let projection = match &block.shortcut {
                Shortcut::Projection(conv) => conv.weights.len(),
                _ => 0,
            };
            block.path.iter().map(|conv| conv.weights.len()).sum::<usize>() + projection
        }
        _ => 1,
    }
}
