//! Random layers and blocks in the oracle's plain terms, extremes among them.

use alloc::vec::Vec;

use super::naive::{Conv2d, Requantize, Residual, Tensor, Window};
use super::random::Random;

/// A window with this kernel, any stride and any padding smaller than the kernel.
pub(crate) fn window(random: &mut Random, kernel: [usize; 2]) -> Window {
    let [height, width] = kernel;
    let mut stride = || if random.one_in(8) { random.size(1, 7) } else { random.size(1, 3) };
    let stride = [stride(), stride()];
    let mut padding = |kernel| if random.one_in(3) { 0 } else { random.size(0, kernel - 1) };
    Window { kernel, stride, padding: [padding(height), padding(width), padding(height), padding(width)] }
}

/// A tensor that the window fits, often smaller than the kernel and seldom of an even size.
pub(crate) fn input(random: &mut Random, window: &Window, channels: usize) -> Tensor {
    let [top, left, bottom, right] = window.padding;
    let least = |kernel: usize, padding: usize| kernel.saturating_sub(padding).max(1);
    let height = least(window.kernel[0], top + bottom) + random.size(0, 6);
    let width = least(window.kernel[1], left + right) + random.size(0, 6);
    Tensor::new(height, width, channels, random.int8s(height * width * channels))
}

/// A requantization of `channels` sums: usually one under which sums of about `typical` fill the int8
/// range, else with extreme multipliers and shifts.
pub(crate) fn requantize(random: &mut Random, channels: usize, typical: f64) -> Requantize {
    let fitting = !random.one_in(4);
    let ratio = 60.0 / typical;
    let shift = if fitting { random.between(16, 30) } else { random.between(1, 56) } as u8;
    let multiplier = |random: &mut Random| match random.size(0, 9) {
        0 => 0,
        1 => i32::MAX,
        2 => random.bits() as i32 & i32::MAX,
        _ => (ratio * f64::from(random.between(5, 20) as i32) / 10.0 * power_of_two(shift)) as i32,
    };
    let multipliers = (0..channels).map(|_| multiplier(random)).collect();
    let zero_point = [i8::MIN, i8::MAX, 0, random.int8(), random.int8()][random.size(0, 4)];
    let (min, max) = match random.size(0, 3) {
        0 => (zero_point, i8::MAX),
        1 => (zero_point, random.between(zero_point.into(), 127) as i8),
        _ => (i8::MIN, i8::MAX),
    };
    Requantize { multipliers, shift, zero_point, min, max }
}

/// About the standard deviation of a sum of `taps` products of random int8 values.
pub(crate) fn typical_sum(taps: usize) -> f64 {
    4000.0 * taps.isqrt() as f64
}

/// 2^`exponent`, of up to 63: `core` has no `exp2`.
pub(crate) fn power_of_two(exponent: u8) -> f64 {
    (1u64 << exponent) as f64
}

/// Biases for sums of `taps` products: within reach of the products, or as far as 32 bits allow.
pub(crate) fn bias(random: &mut Random, channels: usize, taps: usize) -> Vec<i32> {
    let room = i64::from(i32::MAX) - taps as i64 * 128 * 128;
    let typical = taps as i64 * 1000;
    let one = |random: &mut Random| match random.size(0, 9) {
        0 => room,
        1 => -room,
        2 => 0,
        _ => random.between(-typical, typical),
    };
    (0..channels).map(|_| one(random) as i32).collect()
}

/// A convolution over tensors of `inputs` channels; a depthwise one has as many outputs.
pub(crate) fn conv2d(
    random: &mut Random,
    window: Window,
    depthwise: bool,
    inputs: usize,
    outputs: usize,
) -> Conv2d {
    let outputs = if depthwise { inputs } else { outputs };
    let taps = window.kernel[0] * window.kernel[1] * if depthwise { 1 } else { inputs };
    Conv2d {
        window,
        depthwise,
        weights: random.int8s(taps * outputs),
        bias: bias(random, outputs, taps),
        padding_pixel: random.int8s(inputs),
        requantize: requantize(random, outputs, typical_sum(taps)),
    }
}

/// A residual for sums that are shifted by `shift`: a ratio near one if possible, or any.
pub(crate) fn residual(random: &mut Random, shift: u8) -> Residual {
    let left = random.between(i64::from(shift.saturating_sub(30).min(20)), 20) as u8;
    let multiplier = match random.size(0, 7) {
        0 => 0,
        1 => i32::MAX,
        2 => random.bits() as i32 & i32::MAX,
        _ => {
            let ratio = f64::from(random.between(2, 30) as i32) / 10.0;
            (ratio * power_of_two(shift) / power_of_two(left)) as i32
        }
    };
    Residual { zero_point: random.int8(), multiplier, shift: left }
}
