//! What the int8 values of a tensor stand for, and the scale that a range of real values gets.

use skipstone::host::Clamp;

use super::QuantizeError;
use crate::calibrate::Range;
use crate::ir::{Activation, FloatNetwork, TensorScale};

/// real = scale * (q - zero_point), with one scale and zero point, or one of each per channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meaning {
    pub(super) scale: Vec<f64>,
    pub(super) zero_point: Vec<f64>,
}

impl Meaning {
    /// Of the network's input: pixel p is stored as p - 128, and real = (p / 255 - mean) / std.
    pub(super) fn of_input(network: &FloatNetwork) -> Self {
        let (mean, std) = (&network.preprocessing.mean, &network.preprocessing.std);
        let pixels = Meaning {
            scale: std.iter().map(|std| 1.0 / (255.0 * f64::from(*std))).collect(),
            zero_point: mean.iter().map(|mean| 255.0 * f64::from(*mean) - 128.0).collect(),
        };
        match network.input_scale {
            Some(tensor) if pixels.is_near(tensor) => Meaning::of(tensor),
            _ => pixels,
        }
    }

    pub(super) fn of(TensorScale { scale, zero_point }: TensorScale) -> Self {
        Meaning::new(scale.into(), zero_point)
    }

    pub(super) fn new(scale: f64, zero_point: i8) -> Self {
        Meaning { scale: vec![scale], zero_point: vec![zero_point.into()] }
    }

    pub(super) fn at(channel: usize, values: &[f64]) -> f64 {
        values[channel.min(values.len() - 1)]
    }

    /// The scale and int8 zero point, if all channels share them and the zero point is a whole number.
    pub(super) fn uniform(&self) -> Option<(f64, i8)> {
        let same = |values: &[f64]| values.iter().all(|value| *value == values[0]);
        let zero_point = self.zero_point[0].round();
        let whole = (zero_point - self.zero_point[0]).abs() < 1e-6 && (-128.0..=127.0).contains(&zero_point);
        (same(&self.scale) && same(&self.zero_point) && whole).then_some((self.scale[0], zero_point as i8))
    }

    /// The scale and zero point as a file stores them.
    pub(super) fn tensor(&self) -> Option<TensorScale> {
        self.uniform().map(|(scale, zero_point)| TensorScale { scale: scale as f32, zero_point })
    }

    /// The scale and zero point of the first channel, the latter rounded.
    pub(super) fn first_channel(&self) -> TensorScale {
        let zero_point = self.zero_point[0].round().clamp(-128.0, 127.0) as i8;
        TensorScale { scale: self.scale[0] as f32, zero_point }
    }

    /// Whether the values are those of `tensor`, up to the rounding of mean and standard deviation.
    fn is_near(&self, tensor: TensorScale) -> bool {
        let near = |scale: &f64| (scale / f64::from(tensor.scale) - 1.0).abs() < 1e-6;
        let nearby = |zero_point: &f64| (zero_point - f64::from(tensor.zero_point)).abs() < 1e-4;
        self.scale.iter().all(near) && self.zero_point.iter().all(nearby)
    }

    /// The value of a padded position: the int8 value nearest to real zero.
    pub(super) fn padding_pixel(&self, channels: usize) -> Vec<i8> {
        let zero = |channel| Self::at(channel, &self.zero_point).round().clamp(-128.0, 127.0) as i8;
        (0..channels).map(zero).collect()
    }
}

/// The scale of a tensor, and the int8 values that its activation leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) scale: f64,
    pub(super) clamp: Clamp,
}

impl Target {
    /// Of a tensor that its file has quantized.
    pub(super) fn known(known: TensorScale, activation: Activation) -> Self {
        let scale = f64::from(known.scale);
        Target { scale, clamp: clamp(scale, known.zero_point, activation) }
    }

    /// Of a tensor whose values range over `range`, which must be finite. `if_zero` is the scale of a
    /// tensor that is always zero.
    pub(super) fn of_range(range: Range, activation: Activation, if_zero: impl FnOnce() -> f64) -> Self {
        let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
        let scale = if is_zero(range) { if_zero() } else { (max - min) / 255.0 };
        let zero_point = (-128.0 - min / scale).round().clamp(-128.0, 127.0);
        Target { scale, clamp: clamp(scale, zero_point as i8, activation) }
    }

    pub(super) fn meaning(&self) -> Meaning {
        Meaning::new(self.scale, self.clamp.zero_point)
    }

    pub(super) fn tensor(&self) -> TensorScale {
        TensorScale { scale: self.scale as f32, zero_point: self.clamp.zero_point }
    }
}

/// Whether a tensor with this range is always zero.
pub(super) fn is_zero(range: Range) -> bool {
    let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
    max - min <= f64::from(f32::MIN_POSITIVE)
}

/// The range, if it is finite.
pub(super) fn finite(range: Range, layer: &str) -> Result<Range, QuantizeError> {
    match [range.min, range.max].into_iter().find(|value| !value.is_finite()) {
        Some(value) => Err(QuantizeError::Range { layer: layer.into(), value }),
        None => Ok(range),
    }
}

/// The int8 values that an activation leaves. ReLU's lower bound is the zero point.
pub(super) fn clamp(scale: f64, zero_point: i8, activation: Activation) -> Clamp {
    let mut clamp = Clamp::none(zero_point);
    let zero_point = f64::from(zero_point);
    if activation.low > f64::NEG_INFINITY {
        clamp.min = (zero_point + activation.low / scale).round().clamp(-128.0, zero_point) as i8;
    }
    if activation.high < f64::INFINITY {
        clamp.max = (zero_point + activation.high / scale).round().clamp(zero_point, 127.0) as i8;
    }
    clamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_hold_their_zero_point_and_round_to_the_nearest_step() {
        let clamp = |low, high| {
            let Clamp { min, max, .. } = clamp(0.1, -28, Activation { low, high });
            (min, max)
        };
        assert_eq!(clamp(f64::NEG_INFINITY, f64::INFINITY), (-128, 127));
        assert_eq!(clamp(0.0, f64::INFINITY), (-28, 127));
        assert_eq!(clamp(0.0, 6.0), (-28, 32));
        assert_eq!(clamp(-1.0, 1.0), (-38, -18));
        assert_eq!(clamp(-0.26, 0.0), (-31, -28));
        // beyond the range that the scale covers
        assert_eq!(clamp(-100.0, 100.0), (-128, 127));
    }

    #[test]
    fn an_input_has_one_meaning_if_all_channels_share_a_whole_zero_point() {
        let meaning = |zero_point: &[f64]| Meaning { scale: vec![0.5], zero_point: zero_point.to_vec() };
        assert_eq!(meaning(&[-128.0]).uniform(), Some((0.5, -128)));
        assert_eq!(meaning(&[3.0, 3.0]).uniform(), Some((0.5, 3)));
        assert_eq!(meaning(&[3.0, 4.0]).uniform(), None);
        assert_eq!(meaning(&[0.5]).uniform(), None);
        assert_eq!(meaning(&[-500.0]).uniform(), None);
        assert_eq!(meaning(&[0.4, -500.0, 12.6]).padding_pixel(4), [0, -128, 13, 13]);
    }
}
