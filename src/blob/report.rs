//! What a model is made of, stage by stage, to be printed on the host or on the target.

use core::fmt;

use crate::base::shape::Shape;
use crate::blob::format::{Operation, Shortcut};
use crate::blob::model::Model;
use crate::blob::reader::StageEntry;
use crate::ops::Pooling;

/// One stage of a model in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StageReport<'a> {
    /// Name in the model that was converted.
    pub name: &'a str,
    /// What it is: `identity block`, `dense`, ...
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

impl Operation {
    /// What the operation is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Operation::Conv2d(layer) if layer.depthwise => "depthwise convolution",
            Operation::Conv2d(_) => "convolution",
            Operation::Pool2d(layer) => match layer.kind {
                Pooling::Max => "max pooling",
                Pooling::Average | Pooling::AveragePadded { .. } => "average pooling",
            },
            Operation::Dense(_) => "dense",
            Operation::GlobalAveragePool(_) => "global average pooling",
            Operation::Block(block) => match block.shortcut {
                Shortcut::Identity => "identity block",
                Shortcut::Projection(_) => "convolutional block",
                Shortcut::Padded(_) => "padded block",
            },
        }
    }
}

impl<'a> StageEntry<'a> {
    /// The stage in a line.
    pub fn report(&self) -> StageReport<'a> {
        StageReport {
            name: self.record.name,
            kind: self.record.operation.kind(),
            input: self.stage.input(),
            output: self.stage.output(),
            macs: self.stage.macs(),
            weight_bytes: self.stage.weight_bytes(),
        }
    }
}

impl<'a> Model<'a> {
    /// The stages in a line each.
    ///
    /// ```
    /// # let model = skipstone::Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// for stage in model.report() {
    ///     println!("{stage}");
    /// }
    /// # assert_eq!(model.report().filter(|stage| stage.kind == "identity block").count(), 2);
    /// # Ok::<(), skipstone::ParseError>(())
    /// ```
    pub fn report(&self) -> impl Iterator<Item = StageReport<'a>> + use<'a> {
        self.stages().flatten().map(|entry| entry.report())
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        self.report().map(|stage| stage.macs).sum()
    }
}

impl fmt::Display for StageReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StageReport { name, kind, input, output, macs, weight_bytes } = self;
        write!(f, "{name}: {kind}, {input} -> {output}, {macs} MACs, {weight_bytes} B")
    }
}
