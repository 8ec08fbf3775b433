//! Per-channel scale and shift in f64: batch norm, normalisation, added constants, and their folding into weights.

use super::error::{ErrorKind, Refusal};

/// y\[c\] = x\[c\] * scale\[c\] + shift\[c\].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Affine {
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

/// The four vectors of a batch norm, all of one length.
pub(crate) struct BatchNorm<'a> {
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) variance: &'a [f32],
    pub(crate) epsilon: f64,
}

impl Affine {
    /// Changes nothing.
    pub(crate) fn identity(channels: usize) -> Self {
        Affine { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    /// beta + (x - mean) * gamma / sqrt(variance + epsilon), as DESIGN.md's batch norm is.
    ///
    /// A variance + epsilon that is not above zero is refused; `tensor` is the variance's name.
    pub(crate) fn batch_norm(norm: &BatchNorm<'_>, tensor: &str) -> Result<Self, Refusal> {
        let mut affine = Affine { scale: Vec::new(), shift: Vec::new() };
        for (channel, &variance) in norm.variance.iter().enumerate() {
            let spread = f64::from(variance) + norm.epsilon;
            if spread.is_nan() || spread <= 0.0 {
                let reason = format!(
                    "the variance of channel {channel} is {variance}; with epsilon {:e} it must be above 0",
                    norm.epsilon
                );
                let refusal = Refusal::new(ErrorKind::Value, format!("tensor '{tensor}'"), reason);
                return Err(refusal.help("is this tensor really the running variance?"));
            }
            let scale = f64::from(norm.gamma[channel]) / spread.sqrt();
            affine.scale.push(scale);
            affine.shift.push(f64::from(norm.beta[channel]) - f64::from(norm.mean[channel]) * scale);
        }
        Ok(affine)
    }

    /// First `self`, then `next`.
    pub(crate) fn then(&self, next: &Affine) -> Affine {
        let pairs = || next.scale.iter().zip(&next.shift);
        Affine {
            scale: self.scale.iter().zip(pairs()).map(|(a, (s, _))| a * s).collect(),
            shift: self.shift.iter().zip(pairs()).map(|(b, (s, t))| b * s + t).collect(),
        }
    }

    /// The layer's weights and bias with the affine folded in, rounded to f32 once.
    ///
    /// `channel_of` tells the output channel from a weight's index. The error is the first output
    /// channel in which a result is not finite.
    pub(crate) fn fold(
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
        let affine = Affine::batch_norm(&norm(&[8.0, 0.0], 1.0), "v").unwrap();
        assert_eq!(affine.scale, [1.0, 1.0]);
        assert_eq!(affine.shift, [-1.0, -0.5]);
    }

    #[test]
    fn variance_that_leaves_no_spread_is_refused() {
        let refused = |variance: &[f32], epsilon| {
            let refusal = Affine::batch_norm(&norm(variance, epsilon), "bn1.running_var").unwrap_err();
            assert_eq!((refusal.kind, &*refusal.place), (ErrorKind::Value, "tensor 'bn1.running_var'"));
            refusal.reason
        };
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
