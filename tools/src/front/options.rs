//! What an import takes and gives.

use std::str::FromStr;

use crate::ir::{FloatNetwork, TensorScale};

/// What the caller knows beside the file; everything may be left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// Name of the network, instead of the model's or the file's.
    pub name: Option<String>,
    /// Mean of pixel / 255: one value, or one per channel.
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of pixel / 255: one value, or one per channel.
    pub std: Option<Vec<f32>>,
    /// Labels, one for each output.
    pub labels: Option<Vec<String>>,
    /// Size of the input, where the file does not say it: a checkpoint without a description.
    pub input: Option<InputSize>,
    /// Names of the tensors, nodes or layers whose results are the outputs; empty: the model's outputs.
    pub outputs: Vec<String>,
}

/// Size of the images that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
    /// Values of a pixel; the weights tell them too.
    pub channels: Option<u16>,
}

impl FromStr for InputSize {
    type Err = String;

    /// Reads `HEIGHTxWIDTH` or `HEIGHTxWIDTHxCHANNELS`.
    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Option<Vec<u16>> =
            text.split('x').map(|size| size.parse().ok().filter(|&size| size > 0)).collect();
        match sizes.as_deref() {
            Some(&[height, width]) => Ok(InputSize { height, width, channels: None }),
            Some(&[height, width, channels]) => Ok(InputSize { height, width, channels: Some(channels) }),
            _ => Err(format!("'{text}' is not a size, expected 32x32 or 32x32x3")),
        }
    }
}

/// An imported network.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The network.
    pub network: FloatNetwork,
    /// What was recognized, and what was assumed: lines for a person.
    pub notes: Vec<String>,
}

/// What a reader delivers.
pub(crate) struct Draft {
    /// Before the passes.
    pub(super) network: FloatNetwork,
    pub(super) name: Option<String>,
    pub(super) labels: Vec<String>,
    pub(super) mean: Option<Vec<f32>>,
    pub(super) std: Option<Vec<f32>>,
    /// The input's elements are integers: pixels of 0..255.
    pub(super) integer_input: bool,
    /// What the integers of the input stand for, if they are the pixels.
    pub(super) input_scale: Option<TensorScale>,
    /// The wanted outputs that the file's graph does not have; `None` if the file has no graph.
    pub(super) unknown_outputs: Option<Vec<String>>,
    pub(super) notes: Vec<String>,
}
