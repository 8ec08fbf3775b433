//! Descriptions of networks: a small TOML file that names the layers of a checkpoint, which has tensors but no graph.
//!
//! ```toml
//! name = "cifar10-resnet8"
//! weights = "cifar10-resnet8.safetensors"     # or .pt, .pth, .th; relative to this file
//! labels = ["airplane", "automobile", "bird"] # may be left out
//!
//! [input]
//! height = 32
//! width = 32
//! channels = 3
//! mean = [0.4914, 0.4822, 0.4465]             # the network was trained on
//! std = [0.2470, 0.2435, 0.2616]              # (pixel / 255 - mean) / std
//!
//! [[stage]]
//! conv = "conv1"                              # conv1.weight, and bn1 if there is one
//!
//! [[stage]]
//! blocks = "layer1"                           # layer1.0, layer1.1, ...: all that are there
//!
//! [[stage]]
//! blocks = "layer2"
//! stride = 2                                  # in the first block
//!
//! [[stage]]
//! block = "layer3.0"                          # or one by one
//! stride = 2
//!
//! [[stage]]
//! pool = "global-average"
//!
//! [[stage]]
//! dense = "fc"
//! ```
//!
//! Names and layouts are PyTorch's; `module.` and `_orig_mod.` in front of all names are left out. Each stage has one
//! of these keys:
//!
//! | key | what | further keys |
//! |---|---|---|
//! | `conv` | convolution | `stride`, `padding`, `batch_norm`, `activation` |
//! | `depthwise` | depthwise convolution | the same |
//! | `block` | residual block | `stride`, `stride_on`, `padding`, `activation`, `convolutions`, `shortcut`, `projection`, `channels_before` |
//! | `blocks` | all blocks under a name; `stride` is the first one's | the same |
//! | `pool` | `"max"`, `"average"` or `"global-average"` | `kernel`, `stride`, `padding`, `count_include_pad` |
//! | `dense` | fully connected, flattening before it | `batch_norm`, `activation` |
//! | `softmax` | `true`: as the last stage | |
//!
//! - `stride`, `kernel`: a number or `[vertical, horizontal]`. Strides are 1 unless given, a pool's its
//!   kernel.
//! - `padding`: a number, `[top, left, bottom, right]`, or `"same"` as TensorFlow pads (the odd row and
//!   column at the end). Unless given: half the kernel on each side for convolutions, none for pools.
//! - `batch_norm`: its name, or `false`. Unless given: `bn1` beside `conv1`, or the next in a
//!   `Sequential` (`downsample.1` behind `downsample.0`), if the checkpoint has it.
//! - `activation`: `"relu"`, `"relu6"` or `"none"`. Unless given: ReLU, and none for `dense`. In a
//!   block it follows each inner convolution and the addition.
//! - `convolutions`: their names in the block. Unless given: `conv1`, `conv2` and, if the checkpoint has
//!   it, `conv3`.
//! - `stride_on`: the convolution that has the block's stride. Unless given: the first of two, the
//!   second of three (as torchvision does).
//! - `shortcut`: `"identity"`, `"projection"` or `"padded"` (option A: subsampled, with channels of
//!   zeros). Unless given: a projection if the checkpoint has `downsample.0` or `shortcut.0` (or the
//!   name in `projection`) in the block; else the identity, or padded where the shape changes.
//! - `channels_before`: zero channels in front, of a padded shortcut. Unless given: half of them.
//!
//! At the top, `epsilon` is the batch norms' (1e-5), and `ignore` lists beginnings of names of tensors
//! that the network does not need; all others must be used, so that no layer is forgotten.

mod build;
mod stages;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::builder::{NetworkBuilder, allowance};
use super::checkpoint::{self, Checkpoint};
use super::error::{ErrorKind, ImportError, Refusal, enumerate};
use super::file::read_file;
use super::options::Draft;
use crate::ir::{FloatNetwork, INPUT};
use build::Builder;
use stages::Stage;

/// A description, checked for its form.
#[derive(Debug)]
pub(crate) struct Description {
    text: Text,
    /// The line that each stage begins in.
    lines: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: Option<String>,
    weights: String,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default = "default_epsilon")]
    epsilon: f64,
    #[serde(default)]
    ignore: Vec<String>,
    input: Input,
    stage: Vec<Spanned<Stage>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    height: usize,
    width: usize,
    channels: usize,
    mean: Option<PerChannel>,
    std: Option<PerChannel>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list with one for each channel")]
enum PerChannel {
    One(f32),
    Each(Vec<f32>),
}

/// The help for a checkpoint without a description, or with a wrong one.
pub(crate) const TEMPLATE: &str = r#"a checkpoint's layers are described in a TOML file like this one:
    weights = "checkpoint.pth"
    input = { height = 32, width = 32, channels = 3, mean = 0.5, std = 0.25 }
    stage = [
        { conv = "conv1" },
        { blocks = "layer1" },
        { blocks = "layer2", stride = 2 },
        { pool = "global-average" },
        { dense = "fc" },
    ]"#;

fn default_epsilon() -> f64 {
    1e-5
}

/// Longer descriptions are refused; a hundred blocks one by one take a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

/// Whether the bytes are text, as descriptions are and models are not.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n');
    !bytes.is_empty() && !bytes.iter().any(control) && std::str::from_utf8(bytes).is_ok()
}

/// The description's text, understood.
pub(crate) fn parse(bytes: &[u8]) -> Result<Description, Refusal> {
    let refuse = |place: String, reason: &str| Refusal::new(ErrorKind::Description, place, reason);
    let text = std::str::from_utf8(bytes).map_err(|_| refuse(String::new(), "is not text"))?;
    if text.len() > MAX_BYTES {
        return Err(refuse(String::new(), "is longer than any description"));
    }
    let breaks: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at: usize| breaks.partition_point(|&end| end < at) + 1;
    let parsed: Text = toml::from_str(text).map_err(|error| {
        let place = error.span().map_or(String::new(), |span| format!("line {}", line(span.start)));
        refuse(place, error.message().trim_end()).help(TEMPLATE)
    })?;
    if parsed.stage.is_empty() {
        return Err(refuse(String::new(), "has no stages").help(TEMPLATE));
    }
    let lines = parsed.stage.iter().map(|stage| line(stage.span().start)).collect();
    Ok(Description { text: parsed, lines })
}

/// The network of a description that was read from `path`, beside which its weights are.
pub(crate) fn read(bytes: &[u8], path: &Path) -> Result<Draft, ImportError> {
    let in_description = |refusal| ImportError { file: path.to_path_buf(), refusal };
    let description = parse(bytes).map_err(in_description)?;
    let file = path.parent().unwrap_or(Path::new("")).join(description.weights());
    let in_weights = |refusal| ImportError { file: file.clone(), refusal };
    let weights = read_file(&file).map_err(in_weights)?;
    let Some(checkpoint) = checkpoint::read(&weights) else {
        let reason = "is not a checkpoint, but is named as a description's weights";
        return Err(in_weights(
            Refusal::new(ErrorKind::Format, "", reason)
                .help("name a safetensors file or a PyTorch checkpoint as `weights`"),
        ));
    };
    let mut checkpoint = checkpoint.map_err(in_weights)?;
    let notes = std::mem::take(&mut checkpoint.notes);
    let network = description.network(&checkpoint, weights.len()).map_err(|refusal| match refusal.kind {
        ErrorKind::MissingTensor | ErrorKind::UnusedTensor | ErrorKind::Value => in_weights(refusal),
        _ => in_description(refusal),
    })?;
    let input = format!("input: {}", network.input);
    Ok(description.draft(network, [notes, vec![input]].concat()))
}

impl Description {
    /// What a reader delivers, with the description's settings.
    pub(crate) fn draft(&self, network: FloatNetwork, notes: Vec<String>) -> Draft {
        let (mean, std) = self.preprocessing();
        Draft {
            network,
            name: self.name().map(str::to_string),
            labels: self.labels().to_vec(),
            mean,
            std,
            integer_input: false,
            input_scale: None,
            unknown_outputs: None,
            notes,
        }
    }

    /// The weights file, relative to the description.
    pub(crate) fn weights(&self) -> &str {
        &self.text.weights
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.text.name.as_deref()
    }

    pub(crate) fn labels(&self) -> &[String] {
        &self.text.labels
    }

    /// Mean and standard deviation, as far as they are given.
    pub(crate) fn preprocessing(&self) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
        let list = |values: &Option<PerChannel>| match values {
            Some(PerChannel::One(value)) => Some(vec![*value]),
            Some(PerChannel::Each(values)) => Some(values.clone()),
            None => None,
        };
        (list(&self.text.input.mean), list(&self.text.input.std))
    }

    /// The network, unfused, with weights from a checkpoint that was read from a file of this size.
    pub(crate) fn network(
        &self,
        checkpoint: &Checkpoint,
        file_bytes: usize,
    ) -> Result<FloatNetwork, Refusal> {
        let Input { height, width, channels, .. } = self.text.input;
        if !(self.text.epsilon.is_finite() && self.text.epsilon >= 0.0) {
            let reason = format!("epsilon is {}", self.text.epsilon);
            return Err(Refusal::new(ErrorKind::Description, "", reason));
        }
        let mut network = NetworkBuilder::new("[input]", [height, width, channels], allowance(file_bytes))?;
        let mut plans = Vec::new();
        for (stage, line) in self.text.stage.iter().zip(&self.lines) {
            let stage = stage.get_ref();
            let (kind, name) = stage.kind(&format!("line {line}"))?;
            let place = format!("line {line} ({kind} '{name}')");
            plans.extend(stage.plan(checkpoint, &place)?.into_iter().map(|plan| (plan, place.clone())));
        }
        let wanted = plans.iter().flat_map(|(plan, _)| plan.tensors());
        let missing: Vec<String> = wanted.filter(|name| !checkpoint.has(name)).collect();
        if !missing.is_empty() {
            return Err(checkpoint.missing(&missing));
        }
        // ONNX holds epsilons as f32: the same network has the same weights through either.
        let epsilon = f64::from(self.text.epsilon as f32);
        let mut builder = Builder { network: &mut network, checkpoint, epsilon };
        let mut at = INPUT;
        for (plan, place) in &plans {
            at = builder.build(at, plan, place)?;
        }
        self.refuse_unused(checkpoint)?;
        Ok(network.finish_with(at))
    }

    fn refuse_unused(&self, checkpoint: &Checkpoint) -> Result<(), Refusal> {
        let ignored = |name: &String| self.text.ignore.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let unused: Vec<String> = checkpoint.unused().into_iter().filter(|name| !ignored(name)).collect();
        if unused.is_empty() {
            return Ok(());
        }
        let reason = format!("has tensors that the description does not use: {}", enumerate(&unused));
        Err(Refusal::new(ErrorKind::UnusedTensor, "", reason)
            .help("add the missing stages, or list beginnings of their names under `ignore`"))
    }
}
