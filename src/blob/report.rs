//! What a model is made of, layer by layer, to be printed on the host or on the target.

use core::fmt;

use crate::base::shape::Shape;
use crate::blob::model::Model;
use crate::blob::reader::Entry;
use crate::net::layer::{Layer, Operation};

/// One layer of a model in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LayerReport<'a> {
    /// Name in the model that was converted.
    pub name: &'a str,
    /// What it is: `convolution`, `dense`, ...
    pub kind: &'static str,
    /// Shape of the input.
    pub input: Shape,
    /// Shape of the output.
    pub output: Shape,
    /// Multiply-accumulate operations for one image, padded positions included.
    pub macs: u64,
    /// Bytes of weights, without biases and multipliers.
    pub weight_bytes: usize,
}

impl Layer<'_> {
    /// What the layer is called.
    pub fn kind(&self) -> &'static str {
        match &self.operation {
            Operation::Windowed(layer) => layer.kind(),
            Operation::Addition(..) => "convolution, adds the shortcut",
            Operation::Reduction(layer) => layer.kind(),
        }
    }
}

impl<'a> Entry<'a> {
    /// The layer in a line.
    pub fn report(&self) -> LayerReport<'a> {
        LayerReport {
            name: self.name,
            kind: self.layer.kind(),
            input: self.layer.input(),
            output: self.layer.output(),
            macs: self.layer.macs(),
            weight_bytes: self.layer.weights().len(),
        }
    }
}

impl<'a> Model<'a> {
    /// The layers in a line each.
    ///
    /// ```
    /// # let model = skipstone::Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// for layer in model.report() {
    ///     println!("{layer}");
    /// }
    /// # assert_eq!(model.report().filter(|layer| layer.kind.contains("shortcut")).count(), 3);
    /// # Ok::<(), skipstone::error::ParseError>(())
    /// ```
    pub fn report(&self) -> impl Iterator<Item = LayerReport<'a>> + use<'a> {
        self.layers().flatten().map(|entry| entry.report())
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        self.report().map(|layer| layer.macs).sum()
    }
}

impl fmt::Display for LayerReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LayerReport { name, kind, input, output, macs, weight_bytes } = self;
        write!(f, "{name}: {kind}, {input} -> {output}, {macs} MACs, {weight_bytes} B")
    }
}
