//! The two inner loops: sums of products for 4 columns and 2 output channels at a time.
//!
//! A *column* is what one output value reads: a pixel's window, or a Winograd tile's transformed values.
//! Values come as words of two int16, a pair of taps each; the words of a pair's four columns lie side
//! by side. Eight sums stay in registers, so that every word that is loaded is used twice or four times:
//!
//! ```text
//! for each pair:                      values: [pair][column 0..4], weights: [pair][channel 0..2]
//!     for column in 0..4:
//!         for channel in 0..2:
//!             sums[column][channel] += values[column] . weights[channel]
//! ```
//!
//! Departures from this in the assembly:
//! 1. Pairs are unrolled eight times. [`packed`] jumps into the middle of its first round, so that any
//!    number of pairs is right; [`wide`] takes multiples of eight.
//! 2. Eight sums, two weights, two values and two pointers are 14 registers, all that there are:
//!    whatever else is needed lies on the stack. That is why these are naked functions.
//! 3. All instructions of a pair are 32 bits long, so that the jump can be computed.

/// Words of a pair's values.
pub(super) const COLUMNS: usize = 4;

/// Sums: column by column, the channel running faster.
pub(super) type Sums = [i32; 2 * COLUMNS];

/// Pairs of a round of [`wide`].
pub(super) const ROUND: usize = 8;

/// Adds the products of all pairs to `sums`, the weights being int8: a word holds for both channels
/// what both taps weigh, (channel 0 tap 0, channel 1 tap 0, channel 0 tap 1, channel 1 tap 1).
///
/// `values` has four words for each of `weights`; where it has fewer, only so many pairs are taken.
#[inline(always)]
pub(super) fn packed(values: &[u32], weights: &[u32], sums: &mut Sums) {
    let pairs = weights.len().min(values.len() / COLUMNS);
    #[cfg(skipstone_dsp)]
    if pairs > 0 {
        // SAFETY: as many pairs are read as both slices hold, and eight sums.
        #[allow(unsafe_code)]
        unsafe {
            packed_m4(values.as_ptr(), weights.as_ptr(), sums, pairs);
        }
    }
    #[cfg(not(skipstone_dsp))]
    for (values, weights) in values.chunks_exact(COLUMNS).zip(weights.iter().take(pairs)) {
        use super::primitives::{smlad, sxtb16, sxtb16_ror8};
        let channels = [sxtb16(*weights), sxtb16_ror8(*weights)];
        for (sums, value) in sums.chunks_exact_mut(2).zip(values) {
            for (sum, weight) in sums.iter_mut().zip(channels) {
                *sum = smlad(*value, weight, sum.cast_unsigned()).cast_signed();
            }
        }
    }
}

/// Sums of products of int16 values and weights: eight sums for each group of `pairs` pairs, of which
/// there are as many as `sums` has room for. `weights` has two words for each pair, one for each
/// channel.
///
/// `pairs` is a multiple of [`ROUND`]. Where it is not, or a slice is too short, nothing is done.
#[inline(always)]
pub(super) fn wide(values: &[u32], weights: &[u32], sums: &mut [i32], pairs: usize) {
    let groups = sums.len() / 8;
    let fits = values.len() >= COLUMNS * pairs * groups && weights.len() >= 2 * pairs * groups;
    if !fits || pairs == 0 || !pairs.is_multiple_of(ROUND) {
        return;
    }
    #[cfg(skipstone_dsp)]
    if groups > 0 {
        // SAFETY: the slices hold what `groups` groups of at least one round read and write.
        #[allow(unsafe_code)]
        unsafe {
            let end = sums.as_mut_ptr().add(8 * groups);
            wide_m4(values.as_ptr(), weights.as_ptr(), sums.as_mut_ptr(), end, pairs / ROUND);
        }
    }
    #[cfg(not(skipstone_dsp))]
    {
        use super::primitives::smlad;
        let groups = values.chunks_exact(COLUMNS * pairs).zip(weights.chunks_exact(2 * pairs));
        for (sums, (values, weights)) in sums.chunks_exact_mut(8).zip(groups) {
            sums.fill(0);
            for (values, weights) in values.chunks_exact(COLUMNS).zip(weights.chunks_exact(2)) {
                for (sums, value) in sums.chunks_exact_mut(2).zip(values) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = smlad(*value, *weight, sum.cast_unsigned()).cast_signed();
                    }
                }
            }
        }
    }
}

/// A pair of [`wide`]: 12 instructions, 16 products.
#[cfg(skipstone_dsp)]
macro_rules! wide_pair {
    ($multiply:literal, $pair:literal, $($sum:literal),*) => {
        wide_pair!(@ $multiply, $pair, [$($sum),*])
    };
    (@ $multiply:literal, $pair:literal, [$a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal]) => {
        concat!(
            "ldr r2, [r1, #8*", $pair, "]\n",
            "ldr r3, [r1, #8*", $pair, "+4]\n",
            "ldr r12, [r0, #16*", $pair, "]\n",
            "ldr lr, [r0, #16*", $pair, "+4]\n",
            $multiply, " r4, r12, r2", $a, "\n",
            $multiply, " r5, r12, r3", $b, "\n",
            $multiply, " r6, lr, r2", $c, "\n",
            $multiply, " r7, lr, r3", $d, "\n",
            "ldr r12, [r0, #16*", $pair, "+8]\n",
            "ldr lr, [r0, #16*", $pair, "+12]\n",
            $multiply, " r8, r12, r2", $e, "\n",
            $multiply, " r9, r12, r3", $f, "\n",
            $multiply, " r10, lr, r2", $g, "\n",
            $multiply, " r11, lr, r3", $h, "\n",
        )
    };
    (first) => { wide_pair!("smuad", "0", "", "", "", "", "", "", "", "") };
    (next $pair:literal) => {
        wide_pair!("smlad", $pair, ", r4", ", r5", ", r6", ", r7", ", r8", ", r9", ", r10", ", r11")
    };
}

#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn wide_m4(
    values: *const u32,
    weights: *const u32,
    sums: *mut i32,
    end: *mut i32,
    rounds: usize,
) {
    core::arch::naked_asm!(
        "push {{r1-r11, lr}}",      // sp + 0: rounds left, + 4: sums, + 8: their end
        "ldr r12, [sp, #48]",       // rounds
        "str r12, [sp]",
        ".balign 4",
        "1:",                       // a group: its first pair sets the sums
        wide_pair!(first),
        "2:",
        ".set pair, 1",
        ".rept {round} - 1",
        wide_pair!(next "pair"),
        ".set pair, pair + 1",
        ".endr",
        "add r0, r0, #16*{round}",
        "add r1, r1, #8*{round}",
        "ldr r2, [sp]",
        "subs r2, r2, #1",
        "bne 3f",
        "ldrd r2, r3, [sp, #4]",    // the group is done
        "stmia r2!, {{r4-r11}}",
        "cmp r2, r3",
        "str r2, [sp, #4]",
        "ldr r12, [sp, #48]",
        "str r12, [sp]",
        "bne 1b",
        "pop {{r1-r11, pc}}",
        "3:",                       // another round
        "str r2, [sp]",
        wide_pair!(next "0"),
        "b 2b",
        round = const ROUND,
    )
}

#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn packed_m4(values: *const u32, weights: *const u32, sums: *mut Sums, pairs: usize) {
    core::arch::naked_asm!(
        "push {{r2-r11, lr}}", // sp + 0: sums, + 4: end of the values
        "add r12, r0, r3, lsl #4",
        "str r12, [sp, #4]",
        "rsb r3, r3, #0", // pairs that the first round leaves out
        "and r3, r3, #7",
        "sub r0, r0, r3, lsl #4",
        "sub r1, r1, r3, lsl #2",
        "adr r12, 2f", // 60 bytes for each of them, and the Thumb bit
        "add r12, r12, #1",
        "add r12, r12, r3, lsl #6",
        "sub r12, r12, r3, lsl #2",
        "ldmia r2, {{r4-r11}}",
        "bx r12",
        ".balign 4",
        "2:",
        ".set pair, 0",
        ".rept 8",
        "ldr.w r2, [r1, #4*pair]",
        "ldr.w r12, [r0, #16*pair]",
        "ldr.w lr, [r0, #16*pair+4]",
        "sxtb16 r3, r2",
        "sxtb16 r2, r2, ror #8",
        "smlad r4, r12, r3, r4",
        "smlad r5, r12, r2, r5",
        "smlad r6, lr, r3, r6",
        "smlad r7, lr, r2, r7",
        "ldr.w r12, [r0, #16*pair+8]",
        "ldr.w lr, [r0, #16*pair+12]",
        "smlad r8, r12, r3, r8",
        "smlad r9, r12, r2, r9",
        "smlad r10, lr, r3, r10",
        "smlad r11, lr, r2, r11",
        ".set pair, pair + 1",
        ".endr",
        "ldr r2, [sp, #4]",
        "add r0, r0, #128",
        "add r1, r1, #32",
        "cmp r0, r2",
        "bne 2b",
        "ldr r2, [sp]",
        "stmia r2, {{r4-r11}}",
        "pop {{r2-r11, pc}}",
    )
}
