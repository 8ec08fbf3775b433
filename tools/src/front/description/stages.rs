//! A description's stages as they are written, and the plan of each: its tensors' names, found by PyTorch's naming.

use serde::Deserialize;

use crate::front::checkpoint::Checkpoint;
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::Window;

/// A stage as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stage {
    conv: Option<String>,
    depthwise: Option<String>,
    block: Option<String>,
    blocks: Option<String>,
    pool: Option<Pool>,
    dense: Option<String>,
    softmax: Option<bool>,

    stride: Option<Size>,
    stride_on: Option<String>,
    padding: Option<Padding>,
    kernel: Option<Size>,
    activation: Option<Activation>,
    batch_norm: Option<Norm>,
    convolutions: Option<Vec<String>>,
    shortcut: Option<Shortcut>,
    projection: Option<String>,
    channels_before: Option<usize>,
    count_include_pad: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Pool {
    Max,
    Average,
    GlobalAverage,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "expected a number or [vertical, horizontal]")]
enum Size {
    Both(u16),
    Each([u16; 2]),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "expected a number, [top, left, bottom, right] or \"same\"")]
pub(super) enum Padding {
    All(u16),
    Each([u16; 4]),
    Same(Same),
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum Same {
    #[serde(rename = "same")]
    Same,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Activation {
    Relu,
    Relu6,
    None,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a name or false")]
enum Norm {
    Named(String),
    Found(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shortcut {
    Identity,
    Projection,
    Padded,
}

/// A stage with the names of its tensors.
#[derive(Debug)]
pub(super) enum Plan {
    Convolution(Conv),
    Block { name: String, path: Vec<Conv>, shortcut: Way, stride: [usize; 2], activation: Activation },
    Pool { kind: Pool, kernel: [usize; 2], stride: [usize; 2], padding: Padding, count_include_pad: bool },
    Dense { name: String, norm: Option<String>, activation: Activation },
    Softmax,
}

/// A convolution's names and settings.
#[derive(Debug)]
pub(super) struct Conv {
    pub(super) name: String,
    pub(super) norm: Option<String>,
    pub(super) stride: [usize; 2],
    pub(super) padding: Option<Padding>,
    pub(super) depthwise: bool,
    pub(super) activation: Activation,
}

/// A block's shortcut.
#[derive(Debug)]
pub(super) enum Way {
    /// The identity, or padded where the shape changes.
    ByShape,
    Identity,
    Projection(Conv),
    Padded {
        channels_before: Option<usize>,
    },
}

impl Size {
    fn pair(self) -> [usize; 2] {
        match self {
            Size::Both(size) => [size.into(); 2],
            Size::Each(sizes) => sizes.map(usize::from),
        }
    }
}

impl Padding {
    /// Top, left, bottom, right.
    pub(super) fn sizes(self, input: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> [usize; 4] {
        match self {
            Padding::All(size) => [size.into(); 4],
            Padding::Each(sizes) => sizes.map(usize::from),
            Padding::Same(Same::Same) => Window::same_padding(input, kernel, stride, true),
        }
    }
}

/// The batch norm that belongs to a convolution, by its name's last part.
fn norm_beside(name: &str, checkpoint: &Checkpoint) -> Option<String> {
    let (parent, last) = name.rsplit_once('.').map_or(("", name), |(parent, last)| (parent, last));
    let next = last.parse::<u32>().ok().and_then(|index| index.checked_add(1));
    let candidates = [
        next.map(|index| index.to_string()),
        last.contains("conv").then(|| last.replacen("conv", "bn", 1)),
        last.contains("conv").then(|| last.replacen("conv", "norm", 1)),
    ];
    let full = |last: String| if parent.is_empty() { last } else { format!("{parent}.{last}") };
    let mut names = candidates.into_iter().flatten().map(full);
    names.find(|name| checkpoint.has(&format!("{name}.running_mean")))
}

impl Stage {
    /// The one key that says what the stage is, and its value.
    pub(super) fn kind(&self, place: &str) -> Result<(&'static str, &str), Refusal> {
        const WINDOW: [&str; 4] = ["stride", "padding", "batch_norm", "activation"];
        const BLOCK: [&str; 8] = [
            "stride",
            "stride_on",
            "padding",
            "activation",
            "convolutions",
            "shortcut",
            "projection",
            "channels_before",
        ];
        const POOL: [&str; 4] = ["kernel", "stride", "padding", "count_include_pad"];
        const DENSE: [&str; 2] = ["batch_norm", "activation"];
        let kinds: [(&str, Option<&str>, &[&str]); 7] = [
            ("conv", self.conv.as_deref(), &WINDOW),
            ("depthwise", self.depthwise.as_deref(), &WINDOW),
            ("block", self.block.as_deref(), &BLOCK),
            ("blocks", self.blocks.as_deref(), &BLOCK),
            ("pool", self.pool.map(Pool::name), &POOL),
            ("dense", self.dense.as_deref(), &DENSE),
            ("softmax", self.softmax.map(|on| if on { "true" } else { "false" }), &[]),
        ];
        let refuse = |reason: String| Refusal::new(ErrorKind::Description, place, reason);
        let names = kinds.map(|(name, ..)| name).join(", ");
        let mut given = kinds.into_iter().filter_map(|(name, value, keys)| Some((name, value?, keys)));
        let (Some((kind, value, allowed)), None) = (given.next(), given.next()) else {
            return Err(refuse(format!("a stage has exactly one of {names}")));
        };
        if let Some(key) = self.settings().into_iter().find(|key| !allowed.contains(key)) {
            let reason = format!("`{key}` does not belong to a stage with `{kind}`");
            let keys = allowed.join(", ");
            return Err(refuse(reason).help(if keys.is_empty() {
                "it has no further keys".into()
            } else {
                format!("its keys are {keys}")
            }));
        }
        Ok((kind, value))
    }

    /// The keys that are given beside the one that says what the stage is.
    fn settings(&self) -> Vec<&'static str> {
        let given = [
            ("stride", self.stride.is_some()),
            ("stride_on", self.stride_on.is_some()),
            ("padding", self.padding.is_some()),
            ("kernel", self.kernel.is_some()),
            ("activation", self.activation.is_some()),
            ("batch_norm", self.batch_norm.is_some()),
            ("convolutions", self.convolutions.is_some()),
            ("shortcut", self.shortcut.is_some()),
            ("projection", self.projection.is_some()),
            ("channels_before", self.channels_before.is_some()),
            ("count_include_pad", self.count_include_pad.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    fn strides(&self) -> [usize; 2] {
        self.stride.map_or([1; 2], Size::pair)
    }

    /// What is to be built; several blocks for `blocks`.
    pub(super) fn plan(&self, checkpoint: &Checkpoint, place: &str) -> Result<Vec<Plan>, Refusal> {
        let refuse = |reason: &str| Refusal::new(ErrorKind::Description, place, reason);
        let norm = |name: &str| match &self.batch_norm {
            Some(Norm::Named(norm)) => Some(norm.clone()),
            Some(Norm::Found(false)) => None,
            Some(Norm::Found(true)) | None => norm_beside(name, checkpoint),
        };
        if let Some(name) = self.conv.as_ref().or(self.depthwise.as_ref()) {
            return Ok(vec![Plan::Convolution(Conv {
                name: name.clone(),
                norm: norm(name),
                stride: self.strides(),
                padding: self.padding,
                depthwise: self.depthwise.is_some(),
                activation: self.activation.unwrap_or(Activation::Relu),
            })]);
        }
        if let Some(name) = &self.block {
            return Ok(vec![self.block(name, self.strides(), checkpoint, place)?]);
        }
        if let Some(name) = &self.blocks {
            let exists = |name: &String| checkpoint.has_prefix(&format!("{name}."));
            let names: Vec<String> =
                (0..).map(|index: u32| format!("{name}.{index}")).take_while(exists).collect();
            if names.is_empty() {
                return Err(checkpoint.missing(&[format!("{name}.0.conv1.weight")]));
            }
            let block = |(index, name): (usize, &String)| {
                let stride = if index == 0 { self.strides() } else { [1; 2] };
                self.block(name, stride, checkpoint, place)
            };
            return names.iter().enumerate().map(block).collect();
        }
        if let Some(name) = &self.dense {
            let activation = self.activation.unwrap_or(Activation::None);
            let norm = match &self.batch_norm {
                Some(Norm::Named(norm)) => Some(norm.clone()),
                _ => None,
            };
            return Ok(vec![Plan::Dense { name: name.clone(), norm, activation }]);
        }
        if let Some(kind) = self.pool {
            let kernel = match (kind, self.kernel) {
                (Pool::GlobalAverage, _) => [1; 2],
                (_, Some(kernel)) => kernel.pair(),
                (_, None) => return Err(refuse("a max or average pool needs a `kernel`")),
            };
            return Ok(vec![Plan::Pool {
                kind,
                kernel,
                stride: self.stride.map_or(kernel, Size::pair),
                padding: self.padding.unwrap_or(Padding::All(0)),
                count_include_pad: self.count_include_pad.unwrap_or(true),
            }]);
        }
        match self.softmax {
            Some(true) => Ok(vec![Plan::Softmax]),
            _ => Err(refuse("`softmax` is true, or left out")),
        }
    }

    fn block(
        &self,
        name: &str,
        stride: [usize; 2],
        checkpoint: &Checkpoint,
        place: &str,
    ) -> Result<Plan, Refusal> {
        let refuse = |reason: String| Refusal::new(ErrorKind::Description, place, reason);
        let parts = self.convolutions.clone().unwrap_or_else(|| {
            let third = checkpoint.has(&format!("{name}.conv3.weight"));
            ["conv1", "conv2", "conv3"][..if third { 3 } else { 2 }].iter().map(|s| s.to_string()).collect()
        });
        let default = if parts.len() == 3 { parts.get(1) } else { parts.first() };
        let Some(strided) = self.stride_on.as_ref().or(default) else {
            return Err(refuse("`convolutions` is empty".into()));
        };
        if !parts.contains(strided) {
            return Err(refuse(format!(
                "`stride_on` is '{strided}', which is not a convolution of the block"
            )));
        }
        let inner = self.activation.unwrap_or(Activation::Relu);
        let conv = |part: &str, stride: [usize; 2], activation: Activation| {
            let name = format!("{name}.{part}");
            let norm = norm_beside(&name, checkpoint);
            Conv { name, norm, stride, padding: self.padding, depthwise: false, activation }
        };
        let last = parts.len() - 1;
        let path = parts.iter().enumerate().map(|(index, part)| {
            let stride = if part == strided { stride } else { [1; 2] };
            conv(part, stride, if index == last { Activation::None } else { inner })
        });
        let names = ["downsample.0", "shortcut.0", "downsample", "shortcut"];
        let found = || names.into_iter().find(|part| checkpoint.has(&format!("{name}.{part}.weight")));
        let projection = |part: &str| {
            let conv = Conv { padding: Some(Padding::All(0)), ..conv(part, stride, Activation::None) };
            Way::Projection(conv)
        };
        let shortcut = match (self.shortcut, &self.projection) {
            (None | Some(Shortcut::Projection), Some(part)) => projection(part),
            (Some(Shortcut::Projection), None) => projection(found().unwrap_or(names[0])),
            (Some(Shortcut::Identity), None) => Way::Identity,
            (Some(Shortcut::Padded), None) => Way::Padded { channels_before: self.channels_before },
            (None, None) => match found() {
                Some(part) => projection(part),
                None if self.channels_before.is_some() => {
                    Way::Padded { channels_before: self.channels_before }
                }
                None => Way::ByShape,
            },
            (Some(_), Some(_)) => {
                return Err(refuse("`projection` is for `shortcut = \"projection\"`".into()));
            }
        };
        if self.channels_before.is_some() && !matches!(shortcut, Way::Padded { .. }) {
            return Err(refuse("`channels_before` is for `shortcut = \"padded\"`".into()));
        }
        Ok(Plan::Block { name: name.into(), path: path.collect(), shortcut, stride, activation: inner })
    }
}

impl Pool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Pool::Max => "max",
            Pool::Average => "average",
            Pool::GlobalAverage => "global-average",
        }
    }
}

/// The vectors of a batch norm, in the order of [`BatchNorm`].
pub(super) const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

fn norm_tensors(norm: &Option<String>) -> impl Iterator<Item = String> + '_ {
    norm.iter().flat_map(|norm| NORM.map(|part| format!("{norm}.{part}")))
}

impl Plan {
    /// The tensors that must be there; biases may be.
    pub(super) fn tensors(&self) -> Vec<String> {
        let conv = |conv: &Conv| {
            let mut names = vec![format!("{}.weight", conv.name)];
            names.extend(norm_tensors(&conv.norm));
            names
        };
        match self {
            Plan::Convolution(plan) => conv(plan),
            Plan::Block { path, shortcut, .. } => {
                let projection = match shortcut {
                    Way::Projection(conv) => Some(conv),
                    _ => None,
                };
                path.iter().chain(projection).flat_map(conv).collect()
            }
            Plan::Dense { name, norm, .. } => {
                std::iter::once(format!("{name}.weight")).chain(norm_tensors(norm)).collect()
            }
            Plan::Pool { .. } | Plan::Softmax => Vec::new(),
        }
    }
}
