//! ResNets recognised by the names of a checkpoint's tensors, and written down as a description, which then builds the layers.
//!
//! Both namings that are in use are known: torchvision's (`conv1`, `bn1`, `layer1.0.conv1`,
//! `downsample.0`, `fc`) and the CIFAR family's (`shortcut.0`, `linear`, and no shortcut weights at
//! all in its option A). What names and sizes cannot tell is taken as these families have it: stages
//! after the first begin with stride 2, a 7x7 stem has stride 2 and is followed by max pooling.

#[cfg(test)]
mod tests;

use super::tensors::Checkpoint;
use crate::front::description::TEMPLATE;
use crate::front::error::{ErrorKind, Refusal, enumerate};
use crate::front::options::InputSize;

/// A recognised network.
pub(crate) struct Family {
    /// Its description's text.
    pub(crate) description: String,
    /// What was recognised, and what was assumed.
    pub(crate) notes: [String; 2],
}

/// The network that a checkpoint's names stand for; `file` is the checkpoint's name.
pub(crate) fn recognize(
    checkpoint: &mut Checkpoint,
    file: &str,
    input: Option<InputSize>,
) -> Result<Family, Refusal> {
    take_wrapper_away(checkpoint);
    let names = Names { checkpoint };
    let (stem, head) = (names.stem()?, names.head()?);
    let stages = names.stages();
    let size = input.map_or(stem.input(), |input| [input.height, input.width]);
    let description = text(file, &stem, size, stages.len(), head);
    let refuse = |refusal: Refusal| refusal.help(describe(&description));
    if let Some(channels) = input.and_then(|input| input.channels)
        && usize::from(channels) != stem.inputs
    {
        let reason = format!("takes {} channels, not {channels}", stem.inputs);
        return Err(refuse(Refusal::new(ErrorKind::Shape, "tensor 'conv1.weight'", reason)));
    }
    names.refuse_strange(head).map_err(refuse)?;
    let shortcuts = names.shortcuts(&stages, stem.outputs).map_err(refuse)?;
    let notes = [note(&stem, &stages, shortcuts), input_note(&stem, size, input.is_some())];
    Ok(Family { description, notes })
}

/// What helps where the network is another than its names suggest.
pub(crate) fn describe(text: &str) -> String {
    format!(
        "describe the network in a TOML file and convert that; this is what its tensors' names suggest:\n{text}"
    )
}

/// A wrapping module's name (`model.`, `backbone.`) in front of all names.
fn take_wrapper_away(checkpoint: &mut Checkpoint) {
    while !checkpoint.has(STEM) {
        let first = checkpoint.floats().next().and_then(|(name, _)| name.split_once('.'));
        let prefix = first.map(|(module, _)| format!("{module}."));
        if !prefix.is_some_and(|prefix| checkpoint.take_away(&prefix)) {
            break;
        }
    }
}

/// More halve the largest image to less than a pixel; in a description's text they are a line each.
const MAX_STAGES: u32 = 16;

const STEM: &str = "conv1.weight";

/// The first convolution.
struct Stem {
    kernel: usize,
    inputs: usize,
    outputs: usize,
}

impl Stem {
    /// Whether it is made for small images.
    fn is_small(&self) -> bool {
        self.kernel == 3
    }

    /// Height and width of the images that its family is trained on.
    fn input(&self) -> [u16; 2] {
        if self.is_small() { [32; 2] } else { [224; 2] }
    }
}

/// A row of blocks.
struct Stage {
    name: String,
    blocks: usize,
    /// Convolutions of the first block.
    convolutions: usize,
    /// Output channels of the first block.
    channels: usize,
}

struct Names<'a> {
    checkpoint: &'a Checkpoint,
}

impl Names<'_> {
    fn stem(&self) -> Result<Stem, Refusal> {
        let place = format!("tensor '{STEM}'");
        let refuse =
            |place: &str, reason: String| Refusal::new(ErrorKind::Format, place, reason).help(TEMPLATE);
        let stem = match self.checkpoint.dims(STEM) {
            Some(&[outputs, inputs, kernel @ (3 | 7), width]) if kernel == width => {
                Stem { kernel, inputs, outputs }
            }
            Some(dims) => {
                let reason = format!("has sizes {dims:?}: a ResNet begins with a 3x3 or 7x7 convolution");
                return Err(refuse(&place, reason));
            }
            None => {
                let names: Vec<String> = self.checkpoint.floats().map(|(name, _)| name.into()).collect();
                let reason = match names.is_empty() {
                    true => "has no tensors of floats".into(),
                    false => format!("no network is recognised by its tensors' names: {}", enumerate(&names)),
                };
                return Err(refuse("", reason));
            }
        };
        let norms = ["bn1", "layer1.0.bn1"].map(|norm| self.checkpoint.has(&format!("{norm}.running_mean")));
        if norms == [false, true] {
            let reason = "has no batch norm 'bn1' after it; pre-activation networks, whose batch norm \
                 cannot be folded, are not supported";
            return Err(refuse(&place, reason.into()));
        }
        Ok(stem)
    }

    /// Name of the dense layer.
    fn head(&self) -> Result<&'static str, Refusal> {
        let has = |name: &&str| self.checkpoint.has(&format!("{name}.weight"));
        ["fc", "linear"].into_iter().find(has).ok_or_else(|| {
            let reason = "has no tensor 'fc.weight' or 'linear.weight', as a ResNet's last layer is named";
            Refusal::new(ErrorKind::MissingTensor, "", reason).help(TEMPLATE)
        })
    }

    fn stages(&self) -> Vec<Stage> {
        let exists = |name: &String| self.checkpoint.has_prefix(&format!("{name}."));
        let all = (1..=MAX_STAGES).map(|index| format!("layer{index}")).take_while(exists);
        all.map(|name| {
            let blocks = (0..).map(|index: u32| format!("{name}.{index}")).take_while(exists).count();
            let conv = |index: usize| self.checkpoint.dims(&format!("{name}.0.conv{index}.weight"));
            let convolutions = if conv(3).is_some() { 3 } else { 2 };
            let channels = conv(convolutions).and_then(|dims| dims.first()).copied().unwrap_or(0);
            Stage { name, blocks, convolutions, channels }
        })
        .collect()
    }

    /// Refuses the first tensor that no ResNet has.
    fn refuse_strange(&self, head: &str) -> Result<(), Refusal> {
        let strange = self.checkpoint.floats().map(|(name, _)| name).find(|name| !is_known(name, head));
        let Some(strange) = strange else { return Ok(()) };
        let reason = "does not fit into a ResNet of basic or bottleneck blocks";
        Err(Refusal::new(ErrorKind::UnusedTensor, format!("tensor '{strange}'"), reason))
    }

    /// How the shortcuts of blocks are made that change the shape.
    fn shortcuts(&self, stages: &[Stage], mut channels: usize) -> Result<&'static str, Refusal> {
        let (mut projected, mut padded) = (None, None);
        for (index, stage) in stages.iter().enumerate() {
            let names =
                ["downsample.0.weight", "shortcut.0.weight"].map(|part| format!("{}.0.{part}", stage.name));
            match names.iter().position(|name| self.checkpoint.has(name)) {
                Some(naming) => projected = Some(naming),
                None if index > 0 || stage.channels != channels => padded = padded.or(Some(names)),
                None => {}
            }
            channels = stage.channels;
        }
        match (projected, padded) {
            (Some(naming), Some(names)) => {
                let reason = format!("has no tensor '{}', as its other stages have", names[naming]);
                Err(Refusal::new(ErrorKind::MissingTensor, "", reason))
            }
            (Some(_), None) => Ok(", projection shortcuts"),
            (None, Some(_)) => Ok(", option A shortcuts"),
            (None, None) => Ok(""),
        }
    }
}

/// Whether ResNets have tensors of this name.
fn is_known(name: &str, head: &str) -> bool {
    let layer = |part: &str| matches!(part, "weight" | "bias");
    let norm = |part: &str| matches!(part, "weight" | "bias" | "running_mean" | "running_var");
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [module, part] => {
            (module == "conv1" || module == head) && layer(part) || module == "bn1" && norm(part)
        }
        [stage, block, ref inner @ ..]
            if stage.strip_prefix("layer").is_some_and(number) && number(block) =>
        {
            match *inner {
                ["conv1" | "conv2" | "conv3", part] => layer(part),
                ["bn1" | "bn2" | "bn3", part] => norm(part),
                ["downsample" | "shortcut", "0", part] => layer(part),
                ["downsample" | "shortcut", "1", part] => norm(part),
                _ => false,
            }
        }
        _ => false,
    }
}

/// The description of such a network.
fn text(file: &str, stem: &Stem, [height, width]: [u16; 2], stages: usize, head: &str) -> String {
    let file = toml::Value::String(file.into());
    let mut lines = vec![
        format!("    weights = {file}"),
        format!("    input = {{ height = {height}, width = {width}, channels = {} }}", stem.inputs),
        "    stage = [".into(),
    ];
    if stem.is_small() {
        lines.push(r#"        { conv = "conv1" },"#.into());
    } else {
        lines.push(r#"        { conv = "conv1", stride = 2 },"#.into());
        lines.push(r#"        { pool = "max", kernel = 3, stride = 2, padding = 1 },"#.into());
    }
    for stage in 1..=stages {
        let stride = if stage > 1 { ", stride = 2" } else { "" };
        lines.push(format!(r#"        {{ blocks = "layer{stage}"{stride} }},"#));
    }
    lines.push(r#"        { pool = "global-average" },"#.into());
    lines.push(format!(r#"        {{ dense = "{head}" }},"#));
    lines.push("    ]".into());
    lines.join("\n")
}

/// Such as "CIFAR ResNet-20: 3 stages of 3 basic blocks, 16/32/64 channels, option A shortcuts".
fn note(stem: &Stem, stages: &[Stage], shortcuts: &str) -> String {
    let listed = |number: fn(&Stage) -> usize| {
        stages.iter().map(|stage| number(stage).to_string()).collect::<Vec<_>>().join("/")
    };
    let family = if stem.is_small() { "CIFAR ResNet" } else { "ResNet" };
    let depth = stages.iter().map(|stage| stage.blocks * stage.convolutions).sum::<usize>() + 2;
    let blocks = match stages {
        [first, rest @ ..] if rest.iter().all(|stage| stage.blocks == first.blocks) => {
            first.blocks.to_string()
        }
        _ => listed(|stage| stage.blocks),
    };
    let kind = match stages.iter().all(|stage| stage.convolutions == 3) {
        true => "bottleneck",
        false => "basic",
    };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (count, most) = (stages.len(), stages.iter().map(|stage| stage.blocks).max().unwrap_or(0));
    let (stage_plural, block_plural) = (plural(count), plural(most));
    let channels = listed(|stage| stage.channels);
    let strides = if count > 1 { "; stride 2 at the head of all stages but the first" } else { "" };
    format!(
        "recognised by its tensors' names: {family}-{depth}: {count} stage{stage_plural} of {blocks} {kind} \
         block{block_plural}, {channels} channels{shortcuts}{strides}"
    )
}

fn input_note(stem: &Stem, [height, width]: [u16; 2], given: bool) -> String {
    let why = match (given, stem.is_small()) {
        (true, _) => "as given",
        (false, true) => "as networks with a 3x3 stem have it; --input gives another",
        (false, false) => "as networks with a 7x7 stem have it; --input gives another",
    };
    format!("input: {height}x{width}x{}, {why}", stem.inputs)
}
