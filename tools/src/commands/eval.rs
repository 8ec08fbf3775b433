//! `skipstone eval`: a blob's accuracy over labelled images, and how far it is from the float network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use rayon::prelude::*;
use skipstone::{Model, Shape};
use skipstone_tools::blob::Blob;
use skipstone_tools::data::Dataset;
use skipstone_tools::float::Evaluator;
use skipstone_tools::front::{ImportOptions, InputSize, import};
use skipstone_tools::ir::{FloatNetwork, TensorId};
use skipstone_tools::quantize::gives_scores;

use super::evaluation::{Evaluation, Tally, float_probabilities};
use super::host::with_network;
use super::{PixelArguments, classify, has_softmax, parse, print, print_json, progress_bar};

/// Images that one network takes; also what is summed up in order, so that the figures do not depend on
/// the number of cores.
const CHUNK: usize = 32;

const NOTES: &str = "\
Examples:
  skipstone eval resnet8.skip --data test.bin
  skipstone eval digits.skip --data digits-test.npz --against digits.toml
  skipstone eval flowers.skip --data photos/ --limit 500 --json

Data: CIFAR-10 binary files, .npy or .npz (images, labels), a folder of pictures by class.

JSON keys: network, images, labelled, correct, top1 (percent of the labelled images, 0 to 100; null \
without labels), labels, confusion (rows: label, columns: answer; null without labels and above 1,000 \
classes); with --against also float_top1, float_correct, agreement (percent of the images with the same \
best class), scores (what is compared: logits or probabilities), score_rmse, score_max_error.";

/// Measure top-1 accuracy, confusion, and agreement with the float network
///
/// The network runs on this machine exactly as it does on the board, on all cores.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The blob (.skip)
    blob: PathBuf,

    /// Labelled images
    #[arg(long, value_name = "DATA")]
    data: PathBuf,

    /// Use at most N images
    #[arg(long, value_name = "N", value_parser = super::count)]
    limit: Option<usize>,

    /// The float model that the blob was converted from, to compare with
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,

    #[command(flatten)]
    pixels: PixelArguments,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let blob = Blob::read(&arguments.blob)?;
    let model = parse(&blob, &arguments.blob)?;
    classify(&model, &arguments.blob)?;
    let float = match &arguments.against {
        Some(path) => Some(float_network(path, arguments, &model)?),
        None => None,
    };
    let labels: Vec<String> = model.labels().map(str::to_owned).collect();
    let data = Dataset::open(&arguments.data, model.input(), arguments.limit)?;
    let data = data.match_classes(&labels, model.classes())?;
    if data.labels().is_none() && float.is_none() {
        bail!(
            "{}: its images have no labels\n  help: give labelled images, or a float model to compare with (--against)",
            arguments.data.display()
        );
    }
    let tally = tally(&model, &data, float.as_ref(), arguments.quiet || arguments.json)
        .with_context(|| arguments.blob.display().to_string())?;
    let evaluation = Evaluation::new(&model, float.is_some(), &tally);
    if arguments.json { print_json(&evaluation) } else { print(&evaluation.describe(&tally)) }
}

/// Imports the float network and checks that it can be compared with the blob's.
fn float_network(path: &Path, arguments: &Arguments, model: &Model<'_>) -> Result<FloatNetwork> {
    let Shape { height, width, .. } = model.input();
    let input = Some(InputSize { height, width, channels: None });
    let options = ImportOptions { input, ..arguments.pixels.import_options() };
    let network = import(path, &options)?.network;
    let classes = scores(&network).map_or(0, |tensor| network.shape(tensor).len());
    if (network.input, classes) != (model.input(), model.classes()) {
        bail!(
            "{}: takes {} and gives {classes} scores, the blob takes {} and gives {}\n  help: give the model that \
             the blob was converted from",
            path.display(),
            network.input,
            model.input(),
            model.classes()
        );
    }
    Ok(network)
}

/// Runs all images through the network, and through the float network if there is one.
pub(crate) fn tally(
    model: &Model<'_>,
    data: &Dataset,
    float: Option<&FloatNetwork>,
    quiet: bool,
) -> Result<Tally> {
    let float = float.map(FloatLogits::new).transpose()?;
    let softmax = has_softmax(model);
    let bar = progress_bar(quiet)?.with_message("evaluating");
    bar.set_length(data.len() as u64);
    let images: Vec<usize> = (0..data.len()).collect();
    let tallies: Vec<Tally> = images
        .par_chunks(CHUNK)
        .map(|images| {
            with_network(*model, |mut network| {
                let mut tally = Tally::default();
                for &index in images {
                    let image = data.image(index);
                    let scores = network.run(image)?;
                    let logits = float.as_ref().map(|float| float.run(image));
                    let float = match logits {
                        Some(logits) if softmax => Some(float_probabilities(&logits)),
                        logits => logits,
                    };
                    let label = data.labels().and_then(|labels| labels.get(index)).copied();
                    tally.add(scores.values(), float.as_deref(), label);
                    bar.inc(1);
                }
                Ok(tally)
            })
        })
        .collect::<Result<_>>()?;
    bar.finish_and_clear();
    let mut sum = Tally::default();
    tallies.iter().for_each(|tally| sum.merge(tally));
    Ok(sum)
}

/// The tensor that holds a network's class scores, before a softmax.
pub(crate) fn scores(network: &FloatNetwork) -> Option<TensorId> {
    network.outputs.iter().map(|output| output.tensor).find(|tensor| gives_scores(network, *tensor))
}

/// The float network up to its softmax, so that its scores compare with a blob's of either kind.
struct FloatLogits<'n> {
    evaluator: Evaluator<'n>,
    scores: TensorId,
}

impl<'n> FloatLogits<'n> {
    fn new(network: &'n FloatNetwork) -> Result<Self> {
        let scores = scores(network).context("the float network gives no class scores")?;
        Ok(FloatLogits { evaluator: Evaluator::new(network)?, scores })
    }

    fn run(&self, image: &[u8]) -> Vec<f32> {
        let mut logits = Vec::new();
        self.evaluator.run(image, &mut |tensor, values| {
            if tensor == self.scores {
                logits = values.to_vec();
            }
        });
        logits
    }
}
