//! Checks that several operators share.

use crate::base::error::LayerError;

/// Largest |x * w| of an int8 input and an int8 weight.
const MAX_PRODUCT: i64 = 128 * 128;

/// Rejects a bias to which `taps` products could be added beyond an i32, for any weights and inputs.
pub(crate) fn check_accumulators(bias: &[i32], taps: usize) -> Result<(), LayerError> {
    let products = i64::try_from(taps).unwrap_or(i64::MAX).saturating_mul(MAX_PRODUCT);
    let room = i64::from(i32::MAX).saturating_sub(products);
    match bias.iter().position(|b| i64::from(*b).abs() > room) {
        Some(channel) => Err(LayerError::Accumulator { channel }),
        None => Ok(()),
    }
}

pub(crate) fn check_length(given: usize, needed: usize) -> Result<(), LayerError> {
    if given == needed { Ok(()) } else { Err(LayerError::Length { needed, given }) }
}

/// Checks the real value of a step: finite and above zero.
pub(crate) fn check_scale(scale: f32) -> Result<(), LayerError> {
    if scale.is_finite() && scale > 0.0 { Ok(()) } else { Err(LayerError::Requantization) }
}

/// Checks the score of a step, so that every sum's score is finite as well.
pub(crate) fn check_score_scale(scale: f32) -> Result<(), LayerError> {
    check_scale(scale * (1u32 << 31) as f32)
}

/// One value for each output, or one for all.
pub(crate) fn check_per_output(given: usize, outputs: usize) -> Result<(), LayerError> {
    if given == 1 { Ok(()) } else { check_length(given, outputs) }
}
