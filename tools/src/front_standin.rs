//! STAND-IN for the front ends, which are on another branch.

use std::path::Path;
use std::str::FromStr;

use crate::ir::FloatNetwork;

/// What a model file does not say.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Name of the network.
    pub name: Option<String>,
    /// Size of the input.
    pub input: Option<InputSize>,
    /// Class labels.
    pub labels: Option<Vec<String>>,
    /// Means.
    pub mean: Option<Vec<f32>>,
    /// Standard deviations.
    pub std: Option<Vec<f32>>,
}

/// Size of the input.
#[derive(Debug, Clone, Copy)]
pub struct InputSize {
    /// Height.
    pub height: u16,
    /// Width.
    pub width: u16,
    /// Channels.
    pub channels: Option<u16>,
}

impl FromStr for InputSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Err(text.to_owned())
    }
}

/// An imported network.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub network: FloatNetwork,
    /// What was recognized.
    pub notes: Vec<String>,
}

/// Imports a file.
pub fn import(_path: &Path, _options: &ImportOptions) -> anyhow::Result<Imported> {
    anyhow::bail!("the front ends are on another branch")
}
