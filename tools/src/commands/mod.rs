//! The commands, one file for each, and what they share: opening blobs, writing to standard output, progress.

pub(crate) mod convert;
pub(crate) mod eval;
mod evaluation;
mod host;
pub(crate) mod inspect;
mod occupancy;
mod page;
pub(crate) mod preprocess;
mod report;
pub(crate) mod run;
pub(crate) mod text;

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use skipstone::{Model, ParseError};
use skipstone_tools::import::ImportOptions;

/// How pixels become the network's input, where the model file does not say it.
#[derive(Args)]
struct PixelArguments {
    /// Mean that is subtracted from each channel, in units of pixel / 255; one value serves all channels
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
}

impl PixelArguments {
    fn import_options(&self) -> ImportOptions {
        ImportOptions { mean: self.mean.clone(), std: self.std.clone(), ..ImportOptions::default() }
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

/// Refuses an output that cannot be written or would replace an input, before any long work begins.
fn check_output(output: &Path, inputs: &[&Path]) -> Result<()> {
    if output.is_dir() {
        bail!("{}: is a folder\n  help: name the file to write", output.display());
    }
    if output.exists() && !output.is_file() {
        bail!("{}: is no regular file\n  help: name another output", output.display());
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

/// A progress bar on standard error; hidden where that is no terminal.
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
