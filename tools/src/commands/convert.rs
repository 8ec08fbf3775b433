//! `skipstone convert`: turns a trained model and real images into a checked blob.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;
use skipstone::host::format::MAGIC;
use skipstone_tools::assemble::{Goal, Target, Wishes};
use skipstone_tools::blob::write_atomically;
use skipstone_tools::calibrate::RangeChoice;
use skipstone_tools::convert::{Converted, LayerReport, Method, Progress, convert};
use skipstone_tools::data::Dataset;
use skipstone_tools::fit::WeightChoice;
use skipstone_tools::front::{ImportOptions, Imported, InputSize, formats, import};
use skipstone_tools::ir::FloatNetwork;
use skipstone_tools::quantize::{Rounding, is_quantized};

use super::eval::{scores, tally};
use super::evaluation::Evaluation;
use super::json::ShapeJson;
use super::page::{Accuracy, Content, page};
use super::report::{Report, report};
use super::text::{grouped, lines, printable, shortened, table, wrapped};
use super::{PixelArguments, check_output, inspect, parse, print, print_json, progress_bar};

const NOTES: &str = "\
Examples:
  skipstone convert resnet8.onnx --calibrate images/ --output resnet8.skip
  skipstone convert net.onnx -o net.skip --calibrate data/ --mean 0.5 --std 0.25
  skipstone convert resnet20.pth -o resnet20.skip --calibrate train.bin --normalize cifar10
  skipstone convert net.onnx -o net.skip --calibrate train.bin --report net.html --evaluate test.bin
  skipstone convert net.onnx -o net.skip --calibrate data/ --optimize speed --ram 48K
  skipstone convert net-int8.tflite -o net.skip
  skipstone convert net.onnx -o net.skip --output features --calibrate data/
  skipstone convert digits.toml -o digits.skip --calibrate digits-calibration.npz

Models, told apart by their content (ResNets by the names of their tensors):
{models}

Calibration: CIFAR-10 binary files, .npy or .npz, a folder of pictures; a few hundred images as the \
network will see them, from the training set. Labels are not needed.

Outputs: by default those of the model. Each further --output names a layer, or a tensor or node of the \
file, whose result the network gives instead: int8 values with their scale, or class scores if it is the last dense layer. Of several values the \
one that ends in .skip is the file. Layers that no output needs are left out.

Warnings: layers that are zero in every calibration image, and layers whose signal-to-noise ratio is below \
10 dB. 6 dB are one bit.

JSON keys: name, blob (the file), blob_bytes, arena_bytes, arena_bytes_rows, macs, parameters, \
calibration_images, notes, warnings, blocks (name, kind), layers (name, block, kind, output, macs, \
weight_bytes, scale, signal_to_noise_db).";

/// Turn a trained model into a blob: quantize, plan the memory, check everything
///
/// The blob is written whole or not at all.
#[derive(Args)]
#[command(after_help = NOTES.replace("{models}", &formats::help()))]
pub(crate) struct Arguments {
    /// The trained model, in any of the formats below
    model: PathBuf,

    /// The blob to write; if given again, the name of a layer whose result is an output of the network
    #[arg(short, long, value_name = "OUT.skip | LAYER", required = true)]
    output: Vec<PathBuf>,

    /// Images that show the ranges of activations; a model that is already quantized needs none
    #[arg(long, value_name = "DATA")]
    calibrate: Option<PathBuf>,

    /// Use at most N of them, spread evenly
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = super::count)]
    calibration_images: usize,

    /// Size of the input image, which a checkpoint does not state [default: its family's]
    #[arg(long, value_name = "HxW[xC]")]
    input: Option<InputSize>,

    /// How the range of each activation tensor is chosen
    #[arg(long, value_enum, default_value_t)]
    ranges: Ranges,

    /// How weights are rounded to integers
    #[arg(long, value_enum, default_value_t)]
    weights: Weights,

    /// How values are rounded on their way back to int8
    #[arg(long, value_enum, default_value_t)]
    rounding: RoundingArgument,

    /// Write a page (HTML) about the conversion: noise, ranges, memory, accuracy
    #[arg(long, value_name = "OUT.html")]
    report: Option<PathBuf>,

    /// Labelled images for the report's accuracy [default: those of --calibrate, if labelled]
    #[arg(long, value_name = "DATA", requires = "report")]
    evaluate: Option<PathBuf>,

    /// The core that the blob is fastest on; it runs on every core
    #[arg(long, value_enum, default_value_t)]
    target: Target,

    /// What to optimize the plan for
    #[arg(long, value_enum, default_value_t)]
    optimize: Goal,

    /// Maximum arena size in bytes, with the input frame in it (32K is 32768)
    #[arg(long, value_name = "BYTES", value_parser = super::bytes)]
    ram: Option<usize>,

    /// Maximum size of the blob in bytes
    #[arg(long, value_name = "BYTES", value_parser = super::bytes)]
    flash: Option<usize>,

    #[command(flatten)]
    pixels: PixelArguments,

    /// File with the class labels, one per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Name of the network [default: the model's]
    #[arg(long)]
    name: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Print errors only
    #[arg(short, long)]
    quiet: bool,
}

/// How the range of an activation tensor is chosen.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Ranges {
    /// From the smallest to the largest value
    MinMax,
    /// Clipping outliers if finer steps for all other values are worth more
    #[default]
    LeastError,
}

/// How weights are rounded to integers.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Weights {
    /// Each to the nearest
    Nearest,
    /// Each to the nearest; biases correct the mean error
    BiasCorrected,
    /// Each compensates for the errors of those before it; biases as above
    #[default]
    Compensated,
}

/// How values are rounded on their way back to int8.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum RoundingArgument {
    /// Once for each layer, together with the addition of a shortcut
    #[default]
    Fused,
    /// As TensorFlow Lite's reference kernels do, bit for bit: for int8 .tflite files
    TfliteExact,
}

impl Arguments {
    fn wishes(&self) -> Wishes {
        Wishes { target: self.target, goal: self.optimize, ram: self.ram, flash: self.flash }
    }

    fn method(&self) -> Method {
        let ranges = match self.ranges {
            Ranges::MinMax => RangeChoice::MinMax,
            Ranges::LeastError => RangeChoice::LeastError,
        };
        let weights = match self.weights {
            Weights::Nearest => WeightChoice::Nearest,
            Weights::BiasCorrected => WeightChoice::BiasCorrected,
            Weights::Compensated => WeightChoice::Compensated,
        };
        let rounding = match self.rounding {
            RoundingArgument::Fused => Rounding::Fused,
            RoundingArgument::TfliteExact => Rounding::TfliteExact,
        };
        Method { ranges, weights, rounding }
    }

    /// The report, with the accuracy on `evaluated` or, if they are labelled, on the calibration images.
    fn page(
        &self,
        network: &FloatNetwork,
        converted: &Converted,
        report: &Report,
        calibration: Option<&Dataset>,
        evaluated: Option<Dataset>,
        output: &Path,
    ) -> Result<String> {
        let model = parse(&converted.blob, output)?;
        let (seen, path) = match &self.evaluate {
            Some(path) => (false, Some(path)),
            None => (true, self.calibrate.as_ref()),
        };
        // calibration needs no labels, so that wrong ones are as good as none
        let own = || calibration.cloned()?.match_classes(&network.labels, report.classes).ok();
        let data = evaluated.or_else(own).filter(|data| data.labels().is_some() && report.classes > 0);
        let accuracy = match data.zip(path) {
            Some((data, path)) => {
                let tally = tally(&model, &data, Some(network), self.quiet || self.json)?;
                let images = format!("{} images of {}", grouped(data.len() as u64), path.display());
                Some(Accuracy { evaluation: Evaluation::new(&model, true, &tally), images, seen })
            }
            None => None,
        };
        let ranges = match self.ranges {
            Ranges::MinMax => "ranges from the smallest to the largest value",
            Ranges::LeastError => "ranges of least error",
        };
        let weights = match self.weights {
            Weights::Nearest => "weights rounded to the nearest",
            Weights::BiasCorrected => "weights rounded to the nearest, biases corrected",
            Weights::Compensated => "weights rounded with compensation, biases corrected",
        };
        page(&Content {
            network,
            converted,
            report,
            method: match is_quantized(network) {
                true => "ranges and weights of the file".into(),
                false => format!("{ranges}; {weights}"),
            },
            calibration_images: calibration.map_or(0, Dataset::len),
            accuracy,
        })
    }
}

/// What was converted, in its JSON form.
#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a str,
    blob: String,
    blob_bytes: usize,
    arena_bytes: usize,
    arena_bytes_rows: usize,
    macs: u64,
    parameters: u64,
    calibration_images: usize,
    notes: &'a [String],
    warnings: &'a [String],
    blocks: Vec<Block<'a>>,
    layers: Vec<Layer<'a>>,
}

/// A residual block.
#[derive(Serialize)]
struct Block<'a> {
    name: &'a str,
    kind: &'a str,
}

/// What became of a layer.
#[derive(Serialize)]
struct Layer<'a> {
    name: &'a str,
    /// Index of the block that the layer belongs to.
    block: Option<usize>,
    kind: &'a str,
    output: ShapeJson,
    macs: u64,
    weight_bytes: usize,
    scale: Option<f32>,
    signal_to_noise_db: Option<f64>,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { model, calibrate, json, quiet, .. } = arguments;
    let (output, names) = file_and_names(&arguments.output)?;
    let inputs = [Some(model), calibrate.as_ref(), arguments.labels.as_ref()];
    check_output(output, &inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    check_replaced(output, MAGIC.as_slice(), "blob")?;
    if let Some(page) = &arguments.report {
        let inputs =
            [Some(model), calibrate.as_ref(), arguments.labels.as_ref(), arguments.evaluate.as_ref()];
        check_output(page, &inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
        check_replaced(page, b"<!DOCTYPE html>", "page")?;
        if place(page) == place(output) {
            bail!("{}: is the blob's name too\n  help: name another output for the report", page.display());
        }
    }
    let options = ImportOptions { outputs: names, ..options(arguments)? };
    let Imported { network, notes } = import(model, &options)?;
    if let Some(given) = arguments.input
        && (given.height, given.width) != (network.input.height, network.input.width)
    {
        let found = network.input;
        bail!("{}: takes {found}, as it says itself\n  help: leave --input out", model.display());
    }
    if !json && !quiet {
        print(&recognized(model, &notes))?;
    }
    let method = arguments.method();
    if method.rounding == Rounding::TfliteExact && !is_quantized(&network) {
        bail!(
            "{}: is a float model, which has no int8 values to keep bit for bit\n  \
             help: leave --rounding tflite-exact out, or give an int8 .tflite file",
            model.display()
        );
    }
    let open =
        |data: &PathBuf| Dataset::open_for_calibration(data, network.input, arguments.calibration_images);
    let data = calibrate.as_ref().map(open).transpose()?;
    let evaluated = match &arguments.evaluate {
        Some(path) => Some(labelled(path, &network)?),
        None => None,
    };
    let bar = progress_bar(*json || *quiet)?;
    let converted = convert(&network, data.as_ref(), method, arguments.wishes(), &|step| show(&bar, step))
        .with_context(|| model.display().to_string())?;
    bar.finish_and_clear();
    let Converted { blob, warnings, .. } = &converted;
    let report = report(parse(blob, output)?, blob)?;
    let page = match &arguments.report {
        Some(_) => Some(arguments.page(&network, &converted, &report, data.as_ref(), evaluated, output)?),
        None => None,
    };
    blob.write(output)?;
    if let (Some(path), Some(page)) = (&arguments.report, page) {
        write_atomically(path, page.as_bytes())?;
    }
    if !quiet {
        let lines = warnings.iter().map(|warning| wrapped(&format!("warning: {warning}\n"), "  "));
        let warnings: String = lines.collect();
        // if standard error is closed, the warnings are lost
        let _ = io::stderr().write_all(printable(&warnings).as_bytes());
    }
    if *json {
        let images = data.as_ref().map_or(0, Dataset::len);
        return print_json(&outcome(output, &report, images, &notes, &converted));
    }
    if *quiet { Ok(()) } else { print(&describe(output, &report, &converted.layers)) }
}

/// The blob to write, and the names of layers whose results are outputs: of several values the one that ends
/// in `.skip` is the file.
fn file_and_names(values: &[PathBuf]) -> Result<(&Path, Vec<String>)> {
    if let [file] = values {
        return Ok((file, Vec::new()));
    }
    let is_file = |value: &&PathBuf| value.extension().is_some_and(|extension| extension == "skip");
    let mut files = values.iter().filter(is_file);
    let (Some(file), None) = (files.next(), files.next()) else {
        bail!(
            "--output is given {} times, but not one value of them ends in .skip\n  help: give the blob to write \
             once (--output NAME.skip), and the names of layers",
            values.len()
        );
    };
    let names = values.iter().filter(|value| !is_file(value));
    Ok((file, names.map(|name| name.to_string_lossy().into_owned()).collect()))
}

/// Where a file is or will be, however its path is spelled.
fn place(path: &Path) -> Option<(PathBuf, &OsStr)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some((folder.canonicalize().ok()?, path.file_name()?))
}

/// Rejects replacing a file that does not begin as an earlier output does: for example a model's weights, in
/// a file that its description names.
fn check_replaced(output: &Path, magic: &[u8], kind: &str) -> Result<()> {
    let mut start = Vec::new();
    if let Ok(file) = File::open(output) {
        file.take(magic.len() as u64).read_to_end(&mut start)?;
    }
    if !start.is_empty() && start != magic {
        bail!(
            "{}: exists and is not a {kind}\n  help: name another output, or remove the file",
            output.display()
        );
    }
    Ok(())
}

/// The images of `--evaluate`, which must have labels.
fn labelled(path: &Path, network: &FloatNetwork) -> Result<Dataset> {
    let classes = scores(network).map_or(0, |tensor| network.shape(tensor).len());
    if classes == 0 {
        bail!(
            "{}: the network gives no class scores to compare with labels\n  help: leave --evaluate out",
            path.display()
        );
    }
    let data = Dataset::open(path, network.input, None)?.match_classes(&network.labels, classes)?;
    if data.labels().is_none() {
        bail!(
            "{}: its images have no labels\n  help: give labelled images, or leave --evaluate out",
            path.display()
        );
    }
    Ok(data)
}

fn options(arguments: &Arguments) -> Result<ImportOptions> {
    let mut options = arguments.pixels.import_options();
    options.name.clone_from(&arguments.name);
    options.input = arguments.input;
    if let Some(path) = &arguments.labels {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("{}: cannot read the labels", path.display()))?;
        let labels = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        options.labels = Some(labels.filter(|label| !label.is_empty()).map(str::to_owned).collect());
    }
    Ok(options)
}

/// Shows on the progress bar what the conversion is doing.
fn show(bar: &ProgressBar, step: Progress) {
    let (message, done, total) = match step {
        Progress::Calibrating { done, total } => ("calibrating", done, total),
        Progress::Fitting { done, total } => ("fitting", done, total),
        Progress::Planning => ("planning", 0, 1),
        Progress::Measuring { done, total } => ("measuring", done, total),
    };
    bar.set_message(message);
    bar.set_length(total as u64);
    bar.set_position(done as u64);
}

fn recognized(model: &Path, notes: &[String]) -> String {
    let notes: String =
        notes.iter().map(|note| wrapped(&format!("  {}\n", printable(note)), "    ")).collect();
    format!("{}\n{notes}\n", model.display())
}

fn outcome<'a>(
    output: &Path,
    report: &'a Report,
    calibration_images: usize,
    notes: &'a [String],
    converted: &'a Converted,
) -> Outcome<'a> {
    let layers = converted.layers.iter().map(|layer| Layer {
        name: &layer.name,
        block: layer.block,
        kind: layer.kind,
        output: layer.output.into(),
        macs: layer.macs,
        weight_bytes: layer.weights,
        scale: layer.scale,
        signal_to_noise_db: layer.signal_to_noise_db,
    });
    let blocks = report.blocks.iter().map(|block| Block { name: &block.name, kind: block.kind });
    Outcome {
        name: &report.name,
        blob: output.display().to_string(),
        blob_bytes: report.blob_bytes,
        arena_bytes: report.arena_bytes,
        arena_bytes_rows: report.arena_bytes_rows,
        macs: report.macs,
        parameters: report.parameters,
        calibration_images,
        notes,
        warnings: &converted.warnings,
        blocks: blocks.collect(),
        layers: layers.collect(),
    }
}

/// The closing table.
fn describe(output: &Path, report: &Report, layers: &[LayerReport]) -> String {
    let mut table = table(&["layer", "kind", "output", "MACs", "weights", "SNR dB"], "<<>>>>");
    inspect::by_blocks(
        layers,
        |layer| layer.block,
        |block, layer| {
            if let Some(block) = block.and_then(|block| report.blocks.get(block)) {
                table.add_row([shortened(&block.name), block.kind.to_owned()]);
            }
            let has_weights = layer.weights > 0;
            table.add_row([
                inspect::indented(&layer.name, layer.block),
                inspect::short_kind(layer.kind),
                layer.output.to_string(),
                if has_weights { grouped(layer.macs) } else { String::new() },
                if has_weights { grouped(layer.weights as u64) } else { String::new() },
                layer.signal_to_noise_db.map_or(String::new(), |ratio| format!("{ratio:.1}")),
            ]);
        },
    );
    let weights: usize = layers.iter().map(|layer| layer.weights).sum();
    table.add_row(["total", "", "", &grouped(report.macs), &grouped(weights as u64), ""]);
    format!("{}\n{}\n{} written\n", lines(&table), inspect::requirements(report), output.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(values: &[&str]) -> Result<(String, Vec<String>)> {
        let values: Vec<PathBuf> = values.iter().map(PathBuf::from).collect();
        file_and_names(&values).map(|(file, names)| (file.display().to_string(), names))
    }

    #[test]
    fn of_several_outputs_the_one_that_ends_in_skip_is_the_file() {
        assert_eq!(split(&["net.skip"]).unwrap(), ("net.skip".into(), vec![]));
        assert_eq!(split(&["net.bin"]).unwrap(), ("net.bin".into(), vec![]));
        let found = split(&["features", "a/net.skip", "fc"]).unwrap();
        assert_eq!(found, ("a/net.skip".into(), vec!["features".into(), "fc".into()]));
        for values in [&["features", "fc"][..], &["a.skip", "b.skip"]] {
            let message = split(values).unwrap_err().to_string();
            assert!(message.contains("help: give the blob to write once"), "{message}");
        }
    }
}
