//! A network grows by one layer at a time.

use skipstone::Shape;

use super::problem::ShapeProblem;
use super::shapes::{check_weights, output_shape};
use super::{Activation, FloatNetwork, Layer, Network, Operation, Preprocessing, Real, TensorId, Weights};

impl FloatNetwork {
    /// A network without layers, for images of this shape whose pixels enter as pixel / 255.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        let preprocessing = Preprocessing { mean: vec![0.0], std: vec![1.0] };
        let (layers, outputs, labels) = (Vec::new(), Vec::new(), Vec::new());
        Network { name: name.into(), input, preprocessing, input_scale: None, layers, outputs, labels }
    }

    /// Adds a layer, after checking its shape and its weights, and returns the tensor that it makes.
    ///
    /// # Errors
    /// If the tensors that it reads do not fit the operation, or the weights have another length.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        inputs: &[TensorId],
        operation: Operation,
        weights: Weights,
    ) -> Result<TensorId, ShapeProblem> {
        let shapes: Vec<Shape> = inputs.iter().map(|&tensor| self.shape(tensor)).collect();
        let shape = output_shape(&operation, &shapes)?;
        check_weights(&operation, shapes[0], &weights)?;
        let name = name.into();
        self.layers.push(Layer {
            place: name.clone(),
            name,
            inputs: inputs.to_vec(),
            shortcut: None,
            operation,
            activation: Activation::NONE,
            shape,
            parameters: Real { weights, scale: None, sum_scale: None },
        });
        Ok(self.layers.len())
    }
}
