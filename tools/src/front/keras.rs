//! Keras models (`.h5` and `.keras`, of Keras 2 and 3): the layers of a functional or sequential model become an operator graph.
//!
//! ```text
//! model.h5     HDF5   attribute model_config (JSON)      group model_weights/LAYER: its weights by name
//! model.keras  zip    config.json, model.weights.h5:     group layers/KIND_COUNT/vars: its weights by number
//! ```
//!
//! Images are NHWC. Kernels are HWIO in the file, dense ones input by output.
//!
//! Memory: members of a zip file unfold to at most 64 times its size. Of the HDF5 file's size, weights take
//! at most eight times in all, and so does what its reader decodes at once; decoded JSON takes at most a
//! hundred times the text's.

mod archive;
mod config;
mod layers;
mod operators;

use super::error::Refusal;
use super::graph::Graph;

pub(crate) use archive::is_keras;

/// The file's model as a graph, and the file's bytes.
pub(crate) fn read(bytes: Vec<u8>) -> Result<(Graph, usize), Refusal> {
    let length = bytes.len();
    let archive = archive::open(bytes)?;
    let config = archive.config()?;
    let model = config::Model::read(&config)?;
    Ok((layers::graph(&model, archive)?, length))
}
