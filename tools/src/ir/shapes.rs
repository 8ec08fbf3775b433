//! Shape inference.

use skipstone::Shape;
use thiserror::Error;

use super::FloatNetwork;

/// A network whose layers do not fit each other.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{layer}: {problem}")]
pub struct ShapeError {
    /// Name of the layer in the source model.
    pub layer: String,
    /// What does not fit.
    pub problem: String,
}

/// Shape of the output of a layer.
pub fn output_shape(network: &FloatNetwork, layer: usize) -> Result<Shape, ShapeError> {
    Ok(network.layers[layer].shape)
}
