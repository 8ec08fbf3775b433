//! Per-channel scale and shift in f64: batch norm, normalization, added constants, and folding them into weights.

use thiserror::Error;

/// y\[c\] = x\[c\] * scale\[c\] + shift\[c\].
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// Factor per channel.
    pub scale: Vec<f64>,
    /// Added value per channel.
    pub shift: Vec<f64>,
}

/// The four vectors of a batch norm, all of one length.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Scale.
    pub gamma: &'a [f32],
    /// Shift.
    pub beta: &'a [f32],
    /// Running mean.
    pub mean: &'a [f32],
    /// Running variance.
    pub variance: &'a [f32],
    /// Added to the variance.
    pub epsilon: f64,
}

/// A variance that leaves no spread to divide by.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("the variance of channel {channel} is {variance}; with epsilon {epsilon:e} it must be above 0")]
pub struct VarianceError {
    /// The first such channel.
    pub channel: usize,
    /// Its variance.
    pub variance: f32,
    /// The batch norm's epsilon.
    pub epsilon: f64,
}

impl Affine {
    /// Changes nothing.
    pub fn identity(channels: usize) -> Self {
        Affine { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    /// beta + (x - mean) * gamma / sqrt(variance + epsilon).
    ///
    /// # Errors
    /// If variance + epsilon is not above zero in a channel.
    pub fn batch_norm(norm: &BatchNorm<'_>) -> Result<Self, VarianceError> {
        let mut affine = Affine { scale: Vec::new(), shift: Vec::new() };
        for (channel, &variance) in norm.variance.iter().enumerate() {
            let spread = f64::from(variance) + norm.epsilon;
            if spread.is_nan() || spread <= 0.0 {
                return Err(VarianceError { channel, variance, epsilon: norm.epsilon });
            }
            let scale = f64::from(norm.gamma[channel]) / spread.sqrt();
            affine.scale.push(scale);
            affine.shift.push(f64::from(norm.beta[channel]) - f64::from(norm.mean[channel]) * scale);
        }
        Ok(affine)
    }

    /// First `self`, then `next`.
    pub fn then(&self, next: &Affine) -> Affine {
        let pairs = || next.scale.iter().zip(&next.shift);
        Affine {
            scale: self.scale.iter().zip(pairs()).map(|(a, (s, _))| a * s).collect(),
            shift: self.shift.iter().zip(pairs()).map(|(b, (s, t))| b * s + t).collect(),
        }
    }

    /// The layer's weights and bias with the affine folded in, rounded to f32 once.
    ///
    /// `channel_of` maps a weight's index to its output channel.
    ///
    /// # Errors
    /// The first output channel in which a result is not finite.
    pub fn fold(
        &self,
        weights: &[f32],
        bias: &[f64],
        channel_of: impl Fn(usize) -> usize,
    ) -> Result<(Vec<f32>, Vec<f32>), usize> {
        let weights: Vec<f32> = weights
            .iter()
            .enumerate()
            .map(|(index, &w)| (f64::from(w) * self.scale[channel_of(index)]) as f32)
            .collect();
        let bias: Vec<f32> = bias
            .iter()
            .zip(self.scale.iter().zip(&self.shift))
            .map(|(b, (scale, shift))| (b * scale + shift) as f32)
            .collect();
        if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
            return Err(channel_of(index));
        }
        match bias.iter().position(|b| !b.is_finite()) {
            Some(channel) => Err(channel),
            None => Ok((weights, bias)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm<'a>(variance: &'a [f32], epsilon: f64) -> BatchNorm<'a> {
        BatchNorm { gamma: &[3.0, 1.0], beta: &[1.0, 0.0], mean: &[2.0, 0.5], variance, epsilon }
    }

    #[test]
    fn batch_norm_is_its_definition() {
        let affine = Affine::batch_norm(&norm(&[8.0, 0.0], 1.0)).unwrap();
        assert_eq!(affine.scale, [1.0, 1.0]);
        assert_eq!(affine.shift, [-1.0, -0.5]);
    }

    #[test]
    fn variance_that_leaves_no_spread_is_refused() {
        let refused =
            |variance: &[f32], epsilon| Affine::batch_norm(&norm(variance, epsilon)).unwrap_err().to_string();
        assert!(refused(&[1.0, 0.0], 0.0).contains("channel 1 is 0"));
        assert!(refused(&[-1.0, 1.0], 1e-5).contains("channel 0 is -1"));
        assert!(refused(&[f32::NAN, 1.0], 1e-5).contains("channel 0 is NaN"));
    }

    #[test]
    fn then_applies_in_order() {
        let double = Affine { scale: vec![2.0], shift: vec![1.0] };
        let triple = Affine { scale: vec![3.0], shift: vec![5.0] };
        assert_eq!(double.then(&triple), Affine { scale: vec![6.0], shift: vec![8.0] });
    }

    #[test]
    fn folding_that_overflows_names_the_channel() {
        let affine = Affine { scale: vec![1.0, 1e30], shift: vec![0.0; 2] };
        assert_eq!(affine.fold(&[1.0, 1e30], &[0.0; 2], |index| index), Err(1));
        let (weights, bias) = affine.fold(&[2.0, 0.0], &[4.0, 0.0], |index| index).unwrap();
        assert_eq!((weights, bias), (vec![2.0, 0.0], vec![4.0, 0.0]));
    }
}
