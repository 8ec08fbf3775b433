//! `skipstone run`: one picture through a blob's network, as the board answers it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use skipstone::{Class, Model};
use skipstone_tools::blob::Blob;
use skipstone_tools::picture;

use super::host::with_network;
use super::text::{lines, shortened, table};
use super::{parse, print, print_json};

/// Most classes that are named.
const TOP: usize = 5;

const NOTES: &str = "\
Examples:
  skipstone run resnet8.skip cat.png
  skipstone run resnet8.skip cat.png --json | jq -r '.classes[0].label'

JSON keys: network, image, classes (best first: index, label, score, probability from 0 to 1), scores \
(of all classes, in their order, bit for bit those of the board).";

/// Name what a network sees in a picture
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The blob (.skip)
    blob: PathBuf,

    /// Any picture file (PNG, JPEG, BMP, GIF, WebP, PNM, TIFF); cropped and resized to the network's input
    image: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The command's answer, in its JSON form.
#[derive(Serialize)]
struct Answer {
    network: String,
    image: String,
    classes: Vec<Named>,
    scores: Vec<f32>,
}

/// A class with its name.
#[derive(Serialize)]
struct Named {
    index: usize,
    label: Option<String>,
    score: f32,
    probability: f32,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { blob, image, json } = arguments;
    let bytes = Blob::read(blob)?;
    let model = parse(&bytes, blob)?;
    let pixels = picture::load(image, model.input())?;
    let answer = with_network(model, |mut network| {
        let scores = network.run(&pixels)?;
        Ok(Answer {
            network: model.name().to_owned(),
            image: image.display().to_string(),
            classes: scores.top::<TOP>().into_iter().map(|class| name(model, class)).collect(),
            scores: scores.values().to_vec(),
        })
    })
    .with_context(|| blob.display().to_string())?;
    if *json { print_json(&answer) } else { print(&describe(&answer)) }
}

fn name(model: Model<'_>, class: Class) -> Named {
    let Class { index, score, probability } = class;
    Named { index, label: model.label(index).map(str::to_owned), score, probability }
}

fn describe(answer: &Answer) -> String {
    let mut table = table(&["class", "probability", "score"], "<>>");
    for class in &answer.classes {
        let label = class.label.as_deref().map_or_else(|| format!("class {}", class.index), shortened);
        table.add_row([label, format!("{:.1} %", class.probability * 100.0), format!("{:.3}", class.score)]);
    }
    lines(&table)
}
