//! The networks to measure, the modes to convert them in, and random weights for untrained ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use safetensors::tensor::{Dtype, TensorView};

use crate::case::{Case, Source, Tool};
use crate::paths;

/// A network for 32x32 RGB images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// MLPerf Tiny's, trained on CIFAR-10: models/cifar10-resnet8.toml
    Resnet8,
    /// CIFAR family, 3 blocks per stage, padded shortcuts, random weights
    Resnet20,
    /// The same with 9 blocks per stage
    Resnet56,
}

/// A way to convert a network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Its name.
    pub(crate) name: &'static str,
    /// Arguments for `skipstone convert`.
    arguments: &'static [&'static str],
}

/// Every mode.
pub(crate) const MODES: &[Mode] = &[
    Mode { name: "speed", arguments: &["--optimize", "speed"] },
    Mode { name: "balanced", arguments: &["--optimize", "balanced"] },
    Mode { name: "memory", arguments: &["--optimize", "memory"] },
];

/// Few images are enough for random weights, whose accuracy does not matter.
const FEW_IMAGES: [&str; 2] = ["--calibration-images", "10"];

impl Network {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Network::Resnet8 => "resnet8",
            Network::Resnet20 => "resnet20",
            Network::Resnet56 => "resnet56",
        }
    }

    /// The network, converted in this mode, and one photo.
    pub(crate) fn case(self, mode: &Mode, tool: &Tool) -> Result<Case> {
        let (network, images) = match self {
            Network::Resnet8 => (paths::models().join("cifar10-resnet8.toml"), &[][..]),
            Network::Resnet20 => (self.synthesise(3)?, &FEW_IMAGES[..]),
            Network::Resnet56 => (self.synthesise(9)?, &FEW_IMAGES[..]),
        };
        let arguments = [mode.arguments, images].concat();
        Case::make(tool, &Source::photo(&format!("{}-{}", self.name(), mode.name), network, &arguments))
    }

    /// ResNet-56 with a tight RAM limit, and images whose scores are compared.
    pub(crate) fn deep(tool: &Tool, pictures: usize) -> Result<Case> {
        let network = Network::Resnet56.synthesise(9)?;
        let source = Source {
            pictures: "cifar10-calibration.npz",
            raw: "squares.raw",
            limit: Some(pictures),
            ..Source::photo("resnet56-tight", network, &["--ram", "18432", "--calibration-images", "10"])
        };
        Case::make(tool, &source)
    }

    /// Writes a network of the CIFAR family with `blocks` blocks per stage and random weights, which do not affect
    /// the cost. Returns the path of its description.
    fn synthesise(self, blocks: usize) -> Result<PathBuf> {
        let mut weights = Weights { seed: 1, tensors: BTreeMap::new() };
        weights.add("conv1.weight".into(), &[16, 3, 3, 3], 1.0);
        let mut channels = 16;
        for (stage, width) in [16, 32, 64].into_iter().enumerate() {
            for block in 0..blocks {
                let name = format!("layer{}.{block}", stage + 1);
                weights.add(format!("{name}.conv1.weight"), &[width, channels, 3, 3], 1.0);
                // small gain, so that activations do not grow from block to block
                weights.add(format!("{name}.conv2.weight"), &[width, width, 3, 3], 0.2);
                channels = width;
            }
        }
        weights.add("fc.weight".into(), &[10, channels], 1.0);

        let (name, output) = (self.name(), paths::output());
        fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
        let tensors = weights
            .tensors
            .iter()
            .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
        let tensors: Vec<_> = tensors.collect::<Result<_>>()?;
        safetensors::serialize_to_file(tensors, None, &output.join(format!("{name}.safetensors")))?;
        let description = output.join(format!("{name}.toml"));
        let text = format!(
            r#"name = "{name}"
weights = "{name}.safetensors"
input = {{ height = 32, width = 32, channels = 3, mean = 0.5, std = 0.25 }}
stage = [
    {{ conv = "conv1" }},
    {{ blocks = "layer1" }},
    {{ blocks = "layer2", stride = 2 }},
    {{ blocks = "layer3", stride = 2 }},
    {{ pool = "global-average" }},
    {{ dense = "fc" }},
]
"#
        );
        fs::write(&description, text).with_context(|| format!("writing {}", description.display()))?;
        Ok(description)
    }
}

/// Pseudorandom weights from a fixed seed.
struct Weights {
    seed: u32,
    /// Shape and little-endian values of each tensor.
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Weights {
    /// Adds a tensor, output channels first, that scales the variance of its input by the square of `gain`, assuming
    /// that ReLU removes half of it.
    fn add(&mut self, name: String, shape: &[usize], gain: f32) {
        let inputs: usize = shape[1..].iter().product();
        let largest = gain * (6.0 / inputs as f32).sqrt();
        let mut bytes = Vec::new();
        for _ in 0..shape[0] * inputs {
            // Marsaglia's 32-bit xorshift
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 17;
            self.seed ^= self.seed << 5;
            let unit = self.seed as f32 / u32::MAX as f32;
            bytes.extend(((2.0 * unit - 1.0) * largest).to_le_bytes());
        }
        self.tensors.insert(name, (shape.to_vec(), bytes));
    }
}
