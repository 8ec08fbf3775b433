//! Builds a float network layer by layer: shapes are checked, and how many weights a file may unfold to.

use skipstone::Shape;

use super::error::{ErrorKind, Refusal};
use crate::ir::{
    FloatNetwork, INPUT, Operation, ShapeProblem, TensorId, TensorScale, Weights, checked_shape,
};

/// A network that is being built from a file.
#[derive(Debug)]
pub(crate) struct NetworkBuilder {
    network: FloatNetwork,
    /// Bytes of weights that layers may still hold.
    allowance: usize,
}

/// How many bytes of weights a file of this size may unfold to: an honest file's f16 weights double,
/// are widened to f64 here and there, and may be shared by a few layers.
pub(crate) fn allowance(file_bytes: usize) -> usize {
    file_bytes.saturating_mul(8).saturating_add(1 << 22)
}

impl NetworkBuilder {
    /// An input of this height, width and number of channels; weights of up to `allowance` bytes.
    pub(crate) fn new(place: &str, input: [usize; 3], allowance: usize) -> Result<Self, Refusal> {
        let [height, width, channels] = input;
        let shape = checked_shape(height, width, channels).map_err(|problem| misfit(place, &problem))?;
        Ok(NetworkBuilder { network: FloatNetwork::new("", shape), allowance })
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, tensor: TensorId) -> Shape {
        self.network.shape(tensor)
    }

    /// The operation that makes a tensor and the first tensor that it reads; `None` for the input.
    pub(crate) fn made_by(&self, tensor: TensorId) -> Option<(&Operation, TensorId)> {
        self.network.producer(tensor).map(|layer| (&layer.operation, layer.inputs[0]))
    }

    /// Adds a layer without weights.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        place: &str,
        inputs: &[TensorId],
        operation: Operation,
    ) -> Result<TensorId, Refusal> {
        self.add_weighted(name, place, inputs, operation, Weights::None)
    }

    /// Adds a layer with weights.
    pub(crate) fn add_weighted(
        &mut self,
        name: impl Into<String>,
        place: &str,
        inputs: &[TensorId],
        operation: Operation,
        weights: Weights,
    ) -> Result<TensorId, Refusal> {
        self.allowance = self.allowance.checked_sub(weights.bytes()).ok_or_else(|| {
            let reason = "weights that many layers share unfold to many times the file's size";
            Refusal::new(ErrorKind::Shape, place, reason)
        })?;
        let pushed = self.network.push(name, inputs, operation, weights);
        let tensor = pushed.map_err(|problem| misfit(place, &problem))?;
        if let Some(layer) = self.network.layers.last_mut() {
            layer.place = place.into();
        }
        Ok(tensor)
    }

    /// Records how the file has quantized a tensor.
    pub(crate) fn set_scale(&mut self, tensor: TensorId, scale: TensorScale) {
        match tensor.checked_sub(1) {
            None => self.network.input_scale = Some(scale),
            Some(layer) => self.network.layers[layer].parameters.scale = Some(scale),
        }
    }

    /// The network, with these tensors as its outputs.
    pub(crate) fn finish(mut self, outputs: Vec<(String, TensorId)>) -> FloatNetwork {
        let softmax = skipstone::host::Softmax::None;
        let output = |(name, tensor)| crate::ir::Output { name, tensor, softmax };
        self.network.outputs = outputs.into_iter().map(output).collect();
        self.network
    }

    /// The network, whose only output is what its last layer makes.
    pub(crate) fn finish_with(self, tensor: TensorId) -> FloatNetwork {
        let name = match tensor {
            INPUT => "input".into(),
            _ => self.network.layers[tensor - 1].name.clone(),
        };
        self.finish(vec![(name, tensor)])
    }
}

fn misfit(place: &str, problem: &ShapeProblem) -> Refusal {
    Refusal::new(ErrorKind::Shape, place, problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Window;

    fn reason(result: Result<TensorId, Refusal>) -> String {
        let refusal = result.unwrap_err();
        assert_eq!((refusal.kind, &*refusal.place), (ErrorKind::Shape, "node 'p'"));
        refusal.reason
    }

    #[test]
    fn layers_that_do_not_fit_are_refused_by_place() {
        let mut builder = NetworkBuilder::new("input", [8, 8, 3], allowance(0)).unwrap();
        let mut pool = |kernel: usize, padding: usize| {
            let window = Window { kernel: [kernel; 2], stride: [1; 2], padding: [padding; 4] };
            reason(builder.add("p", "node 'p'", &[INPUT], Operation::MaxPool(window)))
        };
        assert!(pool(9, 0).contains("fit"));
        assert!(pool(2, 2).contains("padding"));
        assert!(pool(0, 0).contains("at least 1"));
    }

    #[test]
    fn zero_and_giant_sizes_are_refused() {
        for input in [[0, 8, 3], [8, 8, 0], [65536, 1, 1], [65535, 65535, 3]] {
            assert_eq!(NetworkBuilder::new("input", input, 0).unwrap_err().kind, ErrorKind::Shape);
        }
    }

    #[test]
    fn weights_are_bounded_by_the_allowance() {
        let mut builder = NetworkBuilder::new("input", [1, 1, 8], 100).unwrap();
        let mut dense = || {
            let weights = Weights::Real { weights: vec![0.0; 8], bias: vec![0.0; 1] };
            builder.add_weighted("d", "node 'p'", &[INPUT], Operation::Dense { outputs: 1 }, weights)
        };
        dense().unwrap();
        dense().unwrap();
        assert!(reason(dense()).contains("share"));
    }
}
