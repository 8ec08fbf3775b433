//! The commands, one file for each, and what they share: opening blobs, writing to standard output, progress.

pub(crate) mod convert;
pub(crate) mod eval;
mod evaluation;
mod flash;
mod host;
pub(crate) mod inspect;
mod json;
pub(crate) mod keygen;
mod occupancy;
mod page;
pub(crate) mod preprocess;
mod report;
pub(crate) mod run;
pub(crate) mod sign;
pub(crate) mod text;
pub(crate) mod verify;

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use skipstone::Model;
use skipstone::error::ParseError;
use skipstone::host::Softmax;
use skipstone_tools::front::ImportOptions;

/// How pixels become the network's input, if the model file does not say it.
#[derive(Args)]
struct PixelArguments {
    /// Mean that is subtracted from each channel, in units of pixel / 255; or one value for all channels
    #[arg(
        long,
        value_name = "R,G,B",
        value_delimiter = ',',
        value_parser = finite,
        allow_hyphen_values = true,
        requires = "std"
    )]
    mean: Option<Vec<f32>>,

    /// Standard deviation by which each channel is divided, in the same units
    #[arg(
        long,
        value_name = "R,G,B",
        value_delimiter = ',',
        value_parser = finite,
        allow_hyphen_values = true,
        requires = "mean"
    )]
    std: Option<Vec<f32>>,

    /// Mean and standard deviation by name: of a data set, or of a range of pixel values
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with_all = ["mean", "std"])]
    normalize: Option<Normalization>,
}

/// Means and standard deviations that networks are commonly trained with.
#[derive(Clone, Copy, ValueEnum)]
enum Normalization {
    /// .485,.456,.406 and .229,.224,.225
    Imagenet,
    /// .4914,.4822,.4465 and .2470,.2435,.2616
    Cifar10,
    /// pixel / 255
    #[value(name = "0..1")]
    Unit,
    /// The pixel itself
    #[value(name = "0..255")]
    Raw,
    /// pixel / 127.5 - 1
    #[value(name = "-1..1")]
    Signed,
}

impl Normalization {
    /// Mean and standard deviation of pixel / 255.
    fn values(self) -> [&'static [f32]; 2] {
        match self {
            Normalization::Imagenet => [&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]],
            Normalization::Cifar10 => [&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]],
            Normalization::Unit => [&[0.0], &[1.0]],
            Normalization::Raw => [&[0.0], &[1.0 / 255.0]],
            Normalization::Signed => [&[0.5], &[0.5]],
        }
    }
}

impl PixelArguments {
    fn import_options(&self) -> ImportOptions {
        let [mean, std] = match self.normalize {
            Some(named) => named.values().map(|values| Some(values.to_vec())),
            None => [self.mean.clone(), self.std.clone()],
        };
        ImportOptions { mean, std, ..ImportOptions::default() }
    }
}

fn finite(text: &str) -> Result<f32, String> {
    match text.trim().parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("'{text}' is not a number; give one or, separated by commas, one for each channel")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("'{text}' is not a number of images; give 1 or more")),
    }
}

/// A number of bytes, as `32768` or `32K`.
fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.strip_suffix(['K', 'k']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    let refusal = || format!("'{text}' is not a number of bytes; give one like 32768 or 32K");
    bytes.filter(|bytes| *bytes > 0).ok_or_else(refusal)
}

/// Checks a blob that was read from `path`.
fn parse<'a>(blob: &'a [u8], path: &Path) -> Result<Model<'a>> {
    Model::parse(blob).map_err(|error| {
        let help = match error {
            ParseError::NotABlob => {
                "\n  help: give a .skip file; 'skipstone convert' makes one from a trained model"
            }
            ParseError::Truncated { .. } | ParseError::Checksum { .. } => {
                "\n  help: copy the file again or convert the model again"
            }
            _ => "",
        };
        anyhow::anyhow!("{}: {error}{help}", path.display())
    })
}

/// Rejects a blob without class scores.
fn classify(model: &Model<'_>, path: &Path) -> Result<()> {
    if model.classes() == 0 {
        bail!(
            "{}: gives int8 values, no class scores, so there is nothing to compare with labels\n  \
             help: 'skipstone run' prints the values; for an accuracy, convert the model with its last dense \
             layer as an output (--output NAME)",
            path.display()
        );
    }
    Ok(())
}

/// Whether the network itself normalizes its class scores.
fn has_softmax(model: &Model<'_>) -> bool {
    let mut entries = model.layers().flatten().filter(|entry| entry.layer.gives_scores());
    entries.any(|entry| entry.output.is_some_and(|(_, softmax)| softmax != Softmax::None))
}

/// Rejects an output that cannot be written or would replace an input, before any long work begins.
fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    if output.is_dir() {
        bail!("{}: is a folder\n  help: name the file to write", output.display());
    }
    if output.exists() && !output.is_file() {
        bail!("{}: is not a regular file\n  help: name another output", output.display());
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder
        && !folder.is_dir()
    {
        bail!("{}: there is no folder {}\n  help: make it first", output.display(), folder.display());
    }
    let Ok(existing) = output.canonicalize() else { return Ok(()) };
    for input in inputs {
        if input.canonicalize().is_ok_and(|input| input == existing) {
            bail!("{}: is an input of this command\n  help: name another output", output.display());
        }
    }
    Ok(())
}

/// Writes text to standard output, whole.
fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("cannot write to standard output")
}

/// Writes one JSON object to standard output, on one line.
fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string(value)? + "\n"))
}

/// A progress bar on standard error; hidden if that is not a terminal.
fn progress_bar(hidden: bool) -> Result<ProgressBar> {
    let bar = if hidden {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
    } else {
        ProgressBar::no_length()
    };
    let style = ProgressStyle::with_template("{msg:12} [{bar:40}] {pos}/{len} {eta}")?;
    bar.set_style(style.progress_chars("=> "));
    Ok(bar)
}
