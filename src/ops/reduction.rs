//! Layers that add their input to 32-bit sums row by row.

use super::dense::Dense;
use super::finish::{Finish, Finished};
use super::global_average_pool::{GlobalAveragePool, mean};
use crate::base::clamp::Clamp;
use crate::base::quantization::Requantize;
use crate::base::shape::Shape;

/// A layer that adds its input to 32-bit sums row by row and has one output row at the end.
#[derive(Debug, Clone, Copy)]
pub enum Reduction<'a> {
    /// Fully connected layer.
    Dense(Dense<'a>),
    /// Mean over height and width.
    GlobalAveragePool(GlobalAveragePool<'a>),
}

impl<'a> Reduction<'a> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match self {
            Reduction::Dense(layer) => layer.input(),
            Reduction::GlobalAveragePool(layer) => layer.input(),
        }
    }

    /// Number of sums, which is the number of outputs.
    pub const fn outputs(&self) -> u16 {
        match self {
            Reduction::Dense(layer) => layer.bias.len() as u16,
            Reduction::GlobalAveragePool(layer) => layer.input.channels,
        }
    }

    /// Its name in reports.
    pub const fn kind(&self) -> &'static str {
        match self {
            Reduction::Dense(_) => "dense",
            Reduction::GlobalAveragePool(_) => "global average pooling",
        }
    }

    /// Conversion of the sums to outputs.
    pub const fn finish(&self) -> Finish<'a> {
        match self {
            Reduction::Dense(layer) => layer.finish,
            Reduction::GlobalAveragePool(layer) => layer.finish,
        }
    }

    /// Whether the output is f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        match self {
            Reduction::Dense(layer) => layer.finish.gives_scores(),
            Reduction::GlobalAveragePool(layer) => layer.finish.gives_scores(),
        }
    }

    /// Zero point and range of the int8 output; `None` if the output is class scores.
    pub const fn clamp(&self) -> Option<Clamp> {
        match self.finish() {
            Finish::Requantize(requantize) => Some(requantize.clamp()),
            Finish::Mean(clamp) => Some(clamp),
            Finish::Scores(_) | Finish::RoundedScores { .. } => None,
        }
    }

    /// Output `index`, whose sum is `sum`.
    pub(crate) fn finished(&self, index: usize, sum: i32) -> Finished {
        let value = |requantize: &Requantize<'_>| match requantize.scaling(index) {
            Some(scaling) => requantize.apply(sum, scaling, None),
            None => 0, // there is one for each output
        };
        match self.finish() {
            Finish::Requantize(requantize) => Finished::Value(value(&requantize)),
            Finish::Scores(scales) => {
                let scale = scales.get(if scales.len() == 1 { 0 } else { index });
                Finished::Score(sum as f32 * scale.copied().unwrap_or(0.0))
            }
            Finish::Mean(clamp) => {
                let positions = i32::from(self.input().height) * i32::from(self.input().width);
                // `clamp` of the standard library would panic on an empty one
                Finished::Value(mean(sum, positions).max(clamp.min.into()).min(clamp.max.into()) as i8)
            }
            Finish::RoundedScores { requantize, scale } => {
                let value = i32::from(value(&requantize)) - i32::from(requantize.clamp().zero_point);
                Finished::Score(value as f32 * scale)
            }
        }
    }
}
