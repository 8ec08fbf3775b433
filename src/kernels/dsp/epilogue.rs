//! From sums to int8 values, in as few instructions as the layer's rounding allows.
//!
//! `y = clamp(zero_point + ((acc * multiplier + residual + 2^(shift - 1)) >> shift))` needs no 64-bit
//! arithmetic except one product if the shift is at least 33: the lower word of the sum cannot change
//! the result, and rounding and zero point are one constant. The form is chosen once for a strip:
//!
//! | for | instructions |
//! |---|---|
//! | one rounding, whole int8 range (after a ReLU too, whose zero point is -128) | `SMMLA`, `ASR`, `SSAT` |
//! | the same with a fused addition | `SMLAL` twice, `ASR`, `SSAT` |
//! | everything else, including TensorFlow Lite's roundings | the reference's |

#[cfg(skipstone_dsp)]
use super::primitives::assembly;
use super::products::COLUMNS;
use crate::base::quantization::{Addition, Residual, Rounding};
use crate::ops::Conv2d;

/// How a layer's sums, 2^`scale_bits` times too large, become int8 values.
pub(super) struct Epilogue<'a, 'l> {
    layer: &'l Conv2d<'a>,
    addition: Option<&'l Addition>,
    scale_bits: u8,
    multipliers: &'a [i32],
    /// The short form, if the layer's rounding has one.
    short: Option<Short>,
}

/// Most rows that are stored at a time.
const MAX_ROWS: usize = 4;

/// Shifts that the short forms support: above them, zero point and rounding might overflow their words.
const SHIFTS: core::ops::RangeInclusive<u8> = 33..=50;

/// Largest left shift of a shortcut's values for which the sum fits 64 bits.
const MAX_SHORTCUT_SHIFT: u32 = 22;

impl<'a, 'l> Epilogue<'a, 'l> {
    #[inline(never)]
    pub(super) fn new(layer: &'l Conv2d<'a>, addition: Option<&'l Addition>, scale_bits: u8) -> Self {
        let short = Self::short(layer, addition, scale_bits);
        Epilogue { layer, addition, scale_bits, multipliers: layer.requantize.multipliers(), short }
    }

    fn short(layer: &Conv2d<'_>, addition: Option<&Addition>, scale_bits: u8) -> Option<Short> {
        let Rounding::Once { shift } = layer.requantize.rounding() else { return None };
        let (clamp, total) = (layer.requantize.clamp(), shift + scale_bits);
        if !SHIFTS.contains(&total) || (clamp.min, clamp.max) != (i8::MIN, i8::MAX) {
            return None;
        }
        let residual = match addition {
            None => Residual { zero_point: 0, multiplier: 0, shift: 0 },
            Some(Addition::Fused(residual)) => *residual,
            Some(Addition::Separate(_)) => return None,
        };
        let shortcut_shift = u32::from(residual.shift + scale_bits);
        if shortcut_shift > MAX_SHORTCUT_SHIFT {
            return None;
        }
        let zero = (i64::from(residual.zero_point) << shortcut_shift) * i64::from(residual.multiplier);
        Some(Short {
            offset: (i64::from(clamp.zero_point) << total) + (1 << (total - 1)) - zero,
            shift: u32::from(total) - 32,
            shortcut_multiplier: residual.multiplier,
            shortcut_shift,
            joined: addition.is_some(),
        })
    }

    /// The output value for a channel's sum; `shortcut` is the output's value on entry.
    #[inline(never)]
    pub(super) fn finish(&self, acc: i32, channel: usize, shortcut: i8) -> i8 {
        let Some(scaling) = self.layer.requantize.scaling(channel) else {
            debug_assert!(false, "no such output channel");
            return 0;
        };
        match &self.short {
            Some(short) => short.finish(acc, scaling.multiplier, shortcut),
            None => {
                let addition = self.addition.map(|addition| (addition, shortcut));
                self.layer.requantize.apply(acc >> (self.scale_bits & 31), scaling, addition)
            }
        }
    }

    /// Rounds sums and stores those inside `rows`, at most four, whose pixels have the layer's output channels. `sums`
    /// has for each row, for each of `channels` channels from `channel` on, the sums of `fours` times four pixels from
    /// `x` on. Pixels beyond a row's end are dropped.
    #[inline(never)]
    pub(super) fn store(
        &self,
        sums: &[i32],
        rows: &mut [&mut [i8]],
        [x, fours]: [usize; 2],
        channel: usize,
        channels: usize,
    ) {
        debug_assert!(
            rows.len() <= MAX_ROWS && channel + channels <= self.multipliers.len(),
            "more rows or channels than there are"
        );
        let outputs = self.multipliers.len();
        let (pixels, end) = (COLUMNS * fours, channel + channels);
        let reach = (x + pixels) * outputs;
        let mut places = [core::ptr::null_mut(); MAX_ROWS];
        let mut fits = rows.len() * channels * pixels <= sums.len();
        for (place, row) in places.iter_mut().zip(rows.iter_mut()) {
            fits &= reach <= row.len();
            *place = row.as_mut_ptr().wrapping_add(x * outputs + channel);
        }
        let places = places.get(..rows.len()).unwrap_or_default();
        match (&self.short, self.multipliers.get(channel..end)) {
            (Some(short), Some(multipliers)) if fits && channels > 0 && !places.is_empty() => {
                // SAFETY: `fits`: `sums` has `pixels` sums for each row and channel, and `reach`, the end of the
                // pixels, is inside each row, so that the bytes of all pixels from the row's place on are.
                // `multipliers` has `channels` of the `outputs` bytes of a pixel, at least one, and a place was written
                // for each row. The rows are borrowed mutably, so that they overlap neither each other nor the rest.
                #[allow(unsafe_code)]
                unsafe {
                    short.store(sums.as_ptr(), places, multipliers, fours, outputs);
                }
            }
            _ => self.store_part(sums, rows, [pixels, x, channel, channels]),
        }
    }

    /// As [`Epilogue::store`], value by value.
    #[inline(never)]
    fn store_part(&self, sums: &[i32], rows: &mut [&mut [i8]], [pixels, x, channel, channels]: [usize; 4]) {
        let outputs = self.multipliers.len();
        let mut sums = sums.chunks_exact(pixels.max(1));
        for row in rows {
            for (channel, sums) in (channel..channel + channels).zip(&mut sums) {
                for (x, sum) in (x..).zip(sums) {
                    if let (true, Some(y)) = (channel < outputs, row.get_mut(x * outputs + channel)) {
                        *y = self.finish(*sum, channel, *y);
                    }
                }
            }
        }
    }
}

/// The short form: the parameters of `finish`, in the order in which the assembly loads them.
#[repr(C)]
struct Short {
    /// Rounding and zero points.
    offset: i64,
    shift: u32,
    /// 0 if nothing is added.
    shortcut_multiplier: i32,
    shortcut_shift: u32,
    joined: bool,
}

impl Short {
    #[inline(always)]
    fn finish(&self, acc: i32, multiplier: i32, shortcut: i8) -> i8 {
        let product = i64::from(acc) * i64::from(multiplier);
        let shortcut = i32::from(shortcut) << (self.shortcut_shift & 31);
        let sum = self.offset + product + i64::from(shortcut) * i64::from(self.shortcut_multiplier);
        saturate((sum >> 32) as i32 >> (self.shift & 31))
    }

    /// Stores `fours` times four pixels, `outputs` bytes apart, of each channel that has a multiplier, the
    /// first at the first place; then as many at the second, and so on.
    ///
    /// # Safety
    /// `places` and `multipliers` are not empty, `fours` is at least 1. `sums` is readable for `4 * fours` aligned
    /// words for each place and multiplier. Each place is readable and writable for `(4 * fours - 1) * outputs +
    /// multipliers.len()` bytes, which overlap neither those of other places nor anything else that is read.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn store(
        &self,
        sums: *const i32,
        places: &[*mut i8],
        multipliers: &[i32],
        fours: usize,
        outputs: usize,
    ) {
        #[cfg(skipstone_dsp)]
        {
            let (places, multipliers) = (places.as_ptr_range(), multipliers.as_ptr_range());
            let store = if self.joined { store_joined_m4 } else { store_plain_m4 };
            // SAFETY: both lists are given by their first and end, neither empty (contract), and the sums and places
            // are those of this function's contract, which is the assembly's.
            unsafe {
                store(
                    sums,
                    places.start,
                    multipliers.start,
                    multipliers.end,
                    places.end,
                    fours,
                    outputs,
                    self,
                );
            }
        }
        #[cfg(not(skipstone_dsp))]
        for (row, place) in places.iter().enumerate() {
            for (channel, multiplier) in multipliers.iter().enumerate() {
                let first = (row * multipliers.len() + channel) * COLUMNS * fours;
                for pixel in 0..COLUMNS * fours {
                    // SAFETY: `first + pixel` is below the sums' number, `4 * fours` for each place and multiplier, and
                    // `pixel` is at most `4 * fours - 1`, `channel` below the number of multipliers: inside the place's
                    // bytes (contract).
                    unsafe {
                        let sum = sums.add(first + pixel).read();
                        let y = place.add(pixel * outputs + channel);
                        y.write(self.finish(sum, *multiplier, if self.joined { y.read() } else { 0 }));
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn saturate(value: i32) -> i8 {
    value.clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// The loops of [`Short::store`] around four pixels' instructions.
///
/// r0 sums, r1 output, r2 fours left, r3 multiplier, r4 `outputs`, r5 to r9 the fields of [`Short`]; the
/// pixels use r10 to lr. The three literals are instructions that keep the output and the multiplier of the next
/// channel: they begin with those of a row (in r10 and r2), take the next into r1 and r3, and compare with the end.
#[cfg(skipstone_dsp)]
macro_rules! store_m4 {
    ($(#[$doc:meta])* $name:ident, [$begin:literal, $take:literal, $compare:literal], $pixels:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// `places..places_end` and `multipliers..end` are lists of at least one aligned word each, `fours` is at least
        /// 1, and `short` is valid. Sums, places and multipliers are as [`Short::store`] requires them.
        #[allow(unsafe_code)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name(
            sums: *const i32,
            places: *const *mut i8,
            multipliers: *const i32,
            end: *const i32,
            places_end: *const *mut i8,
            fours: usize,
            outputs: usize,
            short: *const Short,
        ) {
            assembly!(
                "push {{r0-r11, lr}}",       // sp + 4: places, + 8: multipliers, + 12, + 52: the ends of both
                "add r12, sp, #56",
                "ldmia r12, {{r3, r4, r12}}",
                "str r3, [sp]",              // fours
                "ldmia r12, {{r5-r9}}",
                "1:",                        // a row
                "ldrd r1, r2, [sp, #4]",
                "ldr r10, [r1], #4",
                "str r1, [sp, #4]",
                $begin,
                "2:",                        // a channel
                $take,
                "ldr r2, [sp]",
                "3:",
                $pixels,
                "subs r2, r2, #1",
                "bne 3b",
                $compare,
                "bne 2b",
                "ldr r2, [sp, #4]",
                "ldr r3, [sp, #52]",
                "cmp r2, r3",
                "bne 1b",
                "pop {{r0-r11, pc}}",
            )
        }
    };
}

#[cfg(skipstone_dsp)]
store_m4! {
    /// One rounding; r5, r8 and r9 are free.
    store_plain_m4,
    ["mov r8, r10\nmov r5, r2\nldr r9, [sp, #12]", "mov r1, r8\nadd r8, r8, #1\nldr r3, [r5], #4", "cmp r5, r9"],
    "ldmia r0!, {{r10-r12, lr}}
    .irp sum, r10, r11, r12, lr
    smmla \\sum, \\sum, r3, r6
    asr \\sum, \\sum, r7
    ssat \\sum, #8, \\sum
    strb \\sum, [r1]
    add r1, r1, r4
    .endr"
}

#[cfg(skipstone_dsp)]
store_m4! {
    /// One rounding of the sum and the shortcut.
    store_joined_m4,
    [
        "strd r10, r2, [sp, #56]",
        "ldrd r1, r11, [sp, #56]\nldr r3, [r11], #4\nadd r10, r1, #1\nstrd r10, r11, [sp, #56]",
        "ldr r2, [sp, #60]\nldr r3, [sp, #12]\ncmp r2, r3"
    ],
    ".rept 4
    ldr r10, [r0], #4
    ldrsb r11, [r1]
    mov r12, r5
    mov lr, r6
    lsl r11, r11, r9
    smlal r12, lr, r10, r3
    smlal r12, lr, r11, r8
    asr lr, lr, r7
    ssat lr, #8, lr
    strb lr, [r1]
    add r1, r1, r4
    .endr"
}
