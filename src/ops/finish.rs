//! Conversion of the 32-bit sums of a dense layer or a global pooling to outputs.

use super::checks::{check_per_output, check_score_scale};
use crate::base::clamp::Clamp;
use crate::base::error::LayerError;
use crate::base::quantization::Requantize;

/// Conversion of a reduction's 32-bit sums; there is one multiplier or scale for each output, or one for
/// all.
#[derive(Debug, Clone, Copy)]
pub enum Finish<'a> {
    /// int8 values for the next layer.
    Requantize(Requantize<'a>),
    /// f32 class scores, sum * scale, without rounding to int8; scales are above zero and below 2^97, so that
    /// no score is infinite.
    Scores(&'a [f32]),
    /// int8 values: for a global average pooling, the mean rounded half away from zero, as TensorFlow
    /// Lite does. The pooling's zero point must be 0.
    Mean(Clamp),
    /// f32 class scores, (value - zero_point) * scale of int8 values, as TensorFlow Lite has them.
    RoundedScores {
        /// Conversion of sums to int8 values.
        requantize: Requantize<'a>,
        /// Score of one step, above zero and below 2^97.
        scale: f32,
    },
}

/// The output for a reduction's sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finished {
    Value(i8),
    Score(f32),
}

impl Finish<'_> {
    pub(crate) fn check(&self, outputs: usize) -> Result<(), LayerError> {
        match self {
            Finish::Requantize(requantize) => check_per_output(requantize.multipliers().len(), outputs),
            Finish::Scores(scales) => {
                check_per_output(scales.len(), outputs)?;
                scales.iter().try_for_each(|scale| check_score_scale(*scale))
            }
            Finish::Mean(clamp) => clamp.check(),
            Finish::RoundedScores { requantize, scale } => {
                check_per_output(requantize.multipliers().len(), outputs)?;
                check_score_scale(*scale)
            }
        }
    }

    /// Whether the outputs are f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        matches!(self, Finish::Scores(_) | Finish::RoundedScores { .. })
    }
}
