//! `skipstone run`: one picture through a blob's network, as the board answers it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use skipstone::{Class, Model, Output};
use skipstone_tools::blob::Blob;
use skipstone_tools::picture;

use super::host::with_network;
use super::json::ShapeJson;
use super::text::{grouped, lines, printable, shortened, table};
use super::{inspect, parse, print, print_json};

/// Maximum number of classes that are named.
const TOP: usize = 5;

/// Values of an output that are printed, and how many on a line of 80 columns.
const SHOWN: usize = 64;
const PER_ROW: usize = 8;

const NOTES: &str = "\
Examples:
  skipstone run resnet8.skip cat.png
  skipstone run resnet8.skip cat.png --json | jq -r '.classes[0].label'

Outputs of int8 values are printed as real numbers: scale * (value - zero point).

JSON keys: network, image, classes (best first: index, label, score, probability from 0 to 1), scores \
(of all classes, in their order, bit for bit those of the board), outputs (int8 values: name, shape, scale, \
zero_point, values).";

/// Run a network on a picture: name what it sees
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
    /// The outputs that are int8 values.
    outputs: Vec<Values>,
}

/// An output of int8 values.
#[derive(Serialize)]
struct Values {
    name: String,
    shape: ShapeJson,
    scale: f32,
    zero_point: i8,
    values: Vec<i8>,
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
        let classes = scores.top::<TOP>().into_iter().map(|class| name(model, class)).collect();
        let scores = scores.values().to_vec();
        Ok(Answer {
            network: model.name().to_owned(),
            image: image.display().to_string(),
            classes,
            scores,
            outputs: network.outputs().filter_map(values).collect(),
        })
    })
    .with_context(|| blob.display().to_string())?;
    if *json { print_json(&answer) } else { print(&describe(&answer)) }
}

fn name(model: Model<'_>, class: Class) -> Named {
    let Class { index, score, probability } = class;
    Named { index, label: model.label(index).map(str::to_owned), score, probability }
}

/// The int8 values of an output; `None` if it is class scores.
fn values(output: Output<'_>) -> Option<Values> {
    Some(Values {
        name: output.name().to_owned(),
        shape: output.shape().into(),
        scale: output.scale(),
        zero_point: output.zero_point(),
        values: output.values()?.to_vec(),
    })
}

fn describe(answer: &Answer) -> String {
    let mut sections = Vec::new();
    if !answer.classes.is_empty() {
        let mut table = table(&["class", "probability", "score"], "<>>");
        for class in &answer.classes {
            let label = class.label.as_deref().map_or_else(|| format!("class {}", class.index), shortened);
            let probability = format!("{:.1} %", class.probability * 100.0);
            table.add_row([label, probability, format!("{:.3}", class.score)]);
        }
        sections.push(lines(&table));
    }
    sections.extend(answer.outputs.iter().map(describe_values));
    sections.join("\n")
}

/// The first real values of an output.
fn describe_values(output: &Values) -> String {
    let Values { name, shape, scale, zero_point, values } = output;
    let real = |value: &i8| scale * f32::from(i16::from(*value) - i16::from(*zero_point));
    let numbers: Vec<String> =
        values.iter().take(SHOWN).map(|value| format!("{:9.4}", real(value))).collect();
    let rows: Vec<String> = numbers.chunks(PER_ROW).map(|row| row.join("")).collect();
    let more = match values.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("\n... and {} more (--json prints all)", grouped(more as u64)),
    };
    format!(
        "{}: {shape}, scale {}, zero point {zero_point}\n{}{more}\n",
        printable(name),
        inspect::scale(*scale),
        rows.join("\n")
    )
}
