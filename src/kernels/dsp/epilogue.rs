//! From sums to int8 values, in as few instructions as the layer's rounding allows.
//!
//! `y = clamp(zero_point + ((acc * multiplier + residual + 2^(shift - 1)) >> shift))` needs no 64-bit
//! arithmetic but one product where the shift is at least 33: the lower word of the sum cannot change
//! the result, and rounding and zero point are one constant. An epilogue is chosen once for a strip:
//!
//! | epilogue | for | instructions |
//! |---|---|---|
//! | [`Plain`] | one rounding, whole int8 range (after a ReLU too, whose zero point is -128) | `SMMLA`, `ASR`, `SSAT` |
//! | [`Joined`] | the same with a fused addition | `SMULL`, `SMLAL`, `ADDS`, `ADC`, `ASR`, `SSAT` |
//! | neither | whatever else there is, TensorFlow Lite's roundings too | the reference's |

use super::products::COLUMNS;
use crate::layer::Conv2d;
use crate::quantization::{Addition, Clamp, Rounding};

/// How a layer's sums, 2^`scale_bits` times too large, become int8 values.
pub(super) struct Epilogue<'a, 'l> {
    layer: &'l Conv2d<'a>,
    addition: Option<&'l Addition>,
    scale_bits: u8,
    short: Short,
}

/// The short way, where there is one.
enum Short {
    Plain(Plain),
    Joined(Joined),
    No,
}

/// Shifts that the short ways take: above them zero point and rounding might leave their words.
const SHIFTS: core::ops::RangeInclusive<u8> = 33..=50;

impl<'a, 'l> Epilogue<'a, 'l> {
    #[inline(never)]
    pub(super) fn new(layer: &'l Conv2d<'a>, addition: Option<&'l Addition>, scale_bits: u8) -> Self {
        let short = Self::short(layer, addition, scale_bits).unwrap_or(Short::No);
        Epilogue { layer, addition, scale_bits, short }
    }

    fn short(layer: &Conv2d<'_>, addition: Option<&Addition>, scale_bits: u8) -> Option<Short> {
        let Rounding::Once { shift } = layer.requantize.rounding() else { return None };
        let (clamp, total) = (layer.requantize.clamp(), shift + scale_bits);
        let is_whole = clamp == Clamp { min: i8::MIN, max: i8::MAX, ..clamp };
        if !is_whole || !SHIFTS.contains(&total) {
            return None;
        }
        let shift = u32::from(total) - 32;
        let offset = (i32::from(clamp.zero_point) << shift) + (1 << (shift - 1));
        match addition {
            None => Some(Short::Plain(Plain { offset, shift })),
            Some(Addition::Fused(residual)) => {
                let shortcut_shift = u32::from(residual.shift) + u32::from(scale_bits);
                let zero =
                    (i64::from(residual.zero_point) << shortcut_shift) * i64::from(residual.multiplier);
                Some(Short::Joined(Joined {
                    offset: (i64::from(offset) << 32) - zero,
                    shift,
                    shortcut_multiplier: residual.multiplier,
                    shortcut_shift,
                }))
            }
            Some(Addition::Separate(_)) => None,
        }
    }

    /// The output value for a channel's sum; `shortcut` is what stands in the output's place.
    #[inline(never)]
    pub(super) fn finish(&self, acc: i32, channel: usize, shortcut: i8) -> i8 {
        let Some(scaling) = self.layer.requantize.scaling(channel) else { return 0 };
        match &self.short {
            Short::Plain(short) => short.finish(acc, scaling.multiplier, shortcut),
            Short::Joined(short) => short.finish(acc, scaling.multiplier, shortcut),
            Short::No => {
                let addition = self.addition.map(|addition| (addition, shortcut));
                self.layer.requantize.apply(acc >> (self.scale_bits & 31), scaling, addition)
            }
        }
    }

    /// Rounds sums, and stores what of them lies inside `row`, whose pixels have `outputs` channels.
    ///
    /// Sums come in blocks of `runs` times four columns and two channels: the values of channels
    /// `channel` and `channel + 1` of pixels `x`, `x + runs`, ...; then those of `x + 1`, ...; the next
    /// block has the next two channels.
    #[inline(never)]
    pub(super) fn store(
        &self,
        sums: &[i32],
        runs: usize,
        row: &mut [i8],
        (x, channel): (usize, usize),
        outputs: usize,
    ) {
        let block = 2 * COLUMNS * runs;
        let last = channel + 2 * (sums.len() / block.max(1));
        let whole = last <= outputs && (x + COLUMNS * runs) * outputs <= row.len();
        let multipliers = self.layer.requantize.multipliers().get(channel..last);
        if let (true, Some(multipliers)) = (whole, multipliers) {
            // SAFETY: blocks end with channel `last` - 1 of pixel `x + COLUMNS * runs - 1`, inside the row;
            // there are two multipliers for each.
            #[allow(unsafe_code)]
            unsafe {
                let y = row.as_mut_ptr().add(x * outputs + channel);
                let multipliers = multipliers.as_chunks::<2>().0;
                match &self.short {
                    Short::Plain(short) => {
                        return store_whole(short, sums.as_ptr(), runs, y, outputs, multipliers);
                    }
                    Short::Joined(short) => {
                        return store_whole(short, sums.as_ptr(), runs, y, outputs, multipliers);
                    }
                    Short::No => {}
                }
            }
        }
        for (sums, channel) in sums.chunks_exact(block.max(1)).zip((channel..).step_by(2)) {
            for (index, sum) in sums.iter().enumerate() {
                let (run, column, side) = (index / (2 * COLUMNS), index / 2 % COLUMNS, index % 2);
                let channel = channel + side;
                let place = (x + column * runs + run) * outputs + channel;
                if let (true, Some(y)) = (channel < outputs, row.get_mut(place)) {
                    *y = self.finish(*sum, channel, *y);
                }
            }
        }
    }
}

/// A short way.
trait Finish {
    fn finish(&self, acc: i32, multiplier: i32, shortcut: i8) -> i8;
}

/// One rounding, no addition.
struct Plain {
    offset: i32,
    shift: u32,
}

impl Finish for Plain {
    #[inline(always)]
    fn finish(&self, acc: i32, multiplier: i32, _: i8) -> i8 {
        let high = ((i64::from(acc) * i64::from(multiplier)) >> 32) as i32;
        saturate((high + self.offset) >> (self.shift & 31))
    }
}

/// One rounding of the sum and the shortcut.
struct Joined {
    /// Rounding, zero points.
    offset: i64,
    shift: u32,
    shortcut_multiplier: i32,
    shortcut_shift: u32,
}

impl Finish for Joined {
    #[inline(always)]
    fn finish(&self, acc: i32, multiplier: i32, shortcut: i8) -> i8 {
        let shortcut = i32::from(shortcut) << (self.shortcut_shift & 31);
        let sum = self.offset
            + i64::from(acc) * i64::from(multiplier)
            + i64::from(shortcut) * i64::from(self.shortcut_multiplier);
        saturate((sum >> 32) as i32 >> (self.shift & 31))
    }
}

#[inline(always)]
fn saturate(value: i32) -> i8 {
    value.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// Stores whole blocks, two channels each, the first of them at `y`.
#[inline(never)]
#[allow(unsafe_code)]
unsafe fn store_whole(
    short: &impl Finish,
    mut sums: *const i32,
    runs: usize,
    mut y: *mut i8,
    outputs: usize,
    multipliers: &[[i32; 2]],
) {
    for [first, second] in multipliers {
        for run in 0..runs {
            // SAFETY: the caller's.
            unsafe {
                let mut y = y.add(run * outputs);
                for column in 0..COLUMNS {
                    let (a, b) = (sums.add(2 * column).read(), sums.add(2 * column + 1).read());
                    y.write(short.finish(a, *first, y.read()));
                    let beside = y.add(1);
                    beside.write(short.finish(b, *second, beside.read()));
                    y = y.wrapping_add(runs * outputs);
                }
                sums = sums.add(2 * COLUMNS);
            }
        }
        y = y.wrapping_add(2);
    }
}
