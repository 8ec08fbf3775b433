//! From sums to int8 values, in as few instructions as the layer's rounding allows.
//!
//! `y = clamp(zero_point + ((acc * multiplier + residual + 2^(shift - 1)) >> shift))` needs no 64-bit
//! arithmetic but one product where the shift is at least 33: the lower word of the sum cannot change
//! the result, and rounding and zero point are one constant. An epilogue is chosen once for a layer:
//!
//! | epilogue | for | instructions |
//! |---|---|---|
//! | [`Plain`] | one rounding, whole int8 range (after a ReLU too, whose zero point is -128) | `SMMLA`, `ASR`, `SSAT` |
//! | [`Joined`] | the same with a fused addition | `SMULL`, `SMLAL`, `ADDS`, `ADC`, `ASR`, `SSAT` |
//! | [`Any`] | whatever else there is, TensorFlow Lite's roundings too | the reference's |

use crate::layer::Conv2d;
use crate::quantization::{Addition, Clamp, Rounding};

/// How sums that are 2^`scale_bits` times too large become int8 values.
pub(super) trait Epilogue {
    /// What a channel needs.
    type Channel: Copy;

    fn channel(&self, channel: usize) -> Self::Channel;

    /// The output value for a sum; `shortcut` is what stands in the output's place.
    fn finish(&self, acc: i32, channel: Self::Channel, shortcut: i8) -> i8;
}

/// Shifts that the fast epilogues take: above them zero point and rounding might leave their words.
const SHIFTS: core::ops::RangeInclusive<u8> = 33..=50;

/// The clamp that saturation is enough for.
const fn is_whole(clamp: Clamp) -> bool {
    clamp.min == i8::MIN && clamp.max == i8::MAX
}

/// One rounding, no addition.
pub(super) struct Plain<'a> {
    multipliers: &'a [i32],
    offset: i32,
    shift: u32,
}

impl<'a> Plain<'a> {
    pub(super) fn new(layer: &Conv2d<'a>, addition: Option<&Addition>, scale_bits: u8) -> Option<Self> {
        let clamp = layer.requantize.clamp();
        let Rounding::Once { shift } = layer.requantize.rounding() else { return None };
        let shift = shift + scale_bits;
        if addition.is_some() || !SHIFTS.contains(&shift) || !is_whole(clamp) {
            return None;
        }
        let shift = u32::from(shift) - 32;
        let offset = (i32::from(clamp.zero_point) << shift) + (1 << (shift - 1));
        Some(Plain { multipliers: layer.requantize.multipliers(), offset, shift })
    }
}

impl Epilogue for Plain<'_> {
    type Channel = i32;

    #[inline(always)]
    fn channel(&self, channel: usize) -> i32 {
        self.multipliers.get(channel).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn finish(&self, acc: i32, multiplier: i32, _: i8) -> i8 {
        let high = ((i64::from(acc) * i64::from(multiplier)) >> 32) as i32;
        saturate((high + self.offset) >> (self.shift & 31))
    }
}

/// One rounding of the sum and the shortcut.
pub(super) struct Joined<'a> {
    multipliers: &'a [i32],
    /// Rounding, zero points.
    offset: i64,
    shift: u32,
    shortcut_multiplier: i32,
    shortcut_shift: u32,
}

impl<'a> Joined<'a> {
    pub(super) fn new(layer: &Conv2d<'a>, addition: Option<&Addition>, scale_bits: u8) -> Option<Self> {
        let clamp = layer.requantize.clamp();
        let (Rounding::Once { shift }, Some(Addition::Fused(residual))) =
            (layer.requantize.rounding(), addition)
        else {
            return None;
        };
        let shift = shift + scale_bits;
        if !SHIFTS.contains(&shift) || !is_whole(clamp) {
            return None;
        }
        let shortcut_shift = u32::from(residual.shift) + u32::from(scale_bits);
        let zero = (i64::from(residual.zero_point) << shortcut_shift) * i64::from(residual.multiplier);
        Some(Joined {
            multipliers: layer.requantize.multipliers(),
            offset: (i64::from(clamp.zero_point) << shift) + (1 << (shift - 1)) - zero,
            shift: u32::from(shift) - 32,
            shortcut_multiplier: residual.multiplier,
            shortcut_shift,
        })
    }
}

impl Epilogue for Joined<'_> {
    type Channel = i32;

    #[inline(always)]
    fn channel(&self, channel: usize) -> i32 {
        self.multipliers.get(channel).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn finish(&self, acc: i32, multiplier: i32, shortcut: i8) -> i8 {
        let shortcut = i32::from(shortcut) << (self.shortcut_shift & 31);
        let sum = self.offset
            + i64::from(acc) * i64::from(multiplier)
            + i64::from(shortcut) * i64::from(self.shortcut_multiplier);
        saturate((sum >> 32) as i32 >> (self.shift & 31))
    }
}

/// Everything that a layer can ask for.
pub(super) struct Any<'a, 'l> {
    pub(super) layer: &'l Conv2d<'a>,
    pub(super) addition: Option<&'l Addition>,
    pub(super) scale_bits: u8,
}

impl Epilogue for Any<'_, '_> {
    type Channel = usize;

    #[inline(always)]
    fn channel(&self, channel: usize) -> usize {
        channel
    }

    #[inline(never)]
    fn finish(&self, acc: i32, channel: usize, shortcut: i8) -> i8 {
        let Some(scaling) = self.layer.requantize.scaling(channel) else { return 0 };
        let addition = self.addition.map(|addition| (addition, shortcut));
        self.layer.requantize.apply(acc >> (self.scale_bits & 31), scaling, addition)
    }
}

#[inline(always)]
fn saturate(value: i32) -> i8 {
    value.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// Runs `body` with the layer's epilogue under the name `epilogue`.
macro_rules! with_epilogue {
    ($layer:expr, $addition:expr, $scale_bits:expr, |$epilogue:ident| $body:expr) => {{
        use $crate::kernels::dsp::epilogue::{Any, Joined, Plain};
        let (layer, addition, scale_bits) = ($layer, $addition, $scale_bits);
        if let Some($epilogue) = &Plain::new(layer, addition, scale_bits) {
            $body
        } else if let Some($epilogue) = &Joined::new(layer, addition, scale_bits) {
            $body
        } else {
            let $epilogue = &Any { layer, addition, scale_bits };
            $body
        }
    }};
}
pub(super) use with_epilogue;
