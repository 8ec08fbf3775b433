//! The two inner loops: sums of products for 4 columns and 2 output channels at a time.
//!
//! A *column* is what one output value reads: a pixel's window, or a Winograd tile's transformed values.
//! Values come as words of two int16, a pair of taps each; the words of a pair's four columns are
//! adjacent. Eight sums stay in registers, so that every word that is loaded is used twice or four times:
//!
//! ```text
//! for each pair:                      values: [pair][column 0..4], weights: [pair][channel 0..2]
//!     for column in 0..4:
//!         for channel in 0..2:
//!             sums[channel][column] += values[column] . weights[channel]
//! ```
//!
//! Departures from this in the assembly:
//! 1. Pairs are unrolled, sixteen times in [`packed`], which jumps into the middle of its first round, so
//!    that any number of pairs is right; eight times in [`wide`], which takes multiples of that.
//! 2. Eight sums, two weights, two values and two pointers occupy all 14 registers: the rest of the state
//!    is on the stack or in a flag. That is why these are naked functions.
//! 3. All instructions of a pair of [`packed`] are 32 bits long, so that the jump can be computed.

#[cfg(skipstone_dsp)]
use super::primitives::assembly;

/// Words of a pair's values.
pub(super) const COLUMNS: usize = 4;

/// Pairs of a round of [`wide`].
pub(super) const ROUND: usize = 8;

/// Adds the products of `pairs` pairs to `sums`, or to `bias` if there is one for each channel: four columns of one
/// output channel, then four of the next. The weights are int8: a word holds the weights of both taps for both
/// channels, (channel 0 tap 0, channel 1 tap 0, channel 0 tap 1, channel 1 tap 1); the next two channels
/// have the next `pairs` words. All channels use the same values.
///
/// `pairs` is at least 1, `sums` has eight sums or more, and the other slices are long enough for them; nothing is
/// computed otherwise.
#[inline(always)]
pub(super) fn packed(values: &[u32], weights: &[u32], bias: &[[i32; 2]], sums: &mut [i32], pairs: usize) {
    let twos = sums.len() / (2 * COLUMNS);
    if pairs == 0 || twos == 0 || values.len() < COLUMNS * pairs || weights.len() < pairs * twos {
        debug_assert!(false, "no pairs or sums, or values or weights too short");
        return;
    }
    #[cfg(skipstone_dsp)]
    {
        // SAFETY: `pairs` and `twos` are at least 1, `values` has `COLUMNS * pairs` words, `weights` `pairs` words for
        // each two channels (all checked above), `sums` `2 * COLUMNS` by the definition of `twos`. `bias` is null or
        // has an entry for each two channels. `sums` is borrowed mutably, so that it overlaps no other slice.
        #[allow(unsafe_code)]
        unsafe {
            let end = sums.as_mut_ptr().add(2 * COLUMNS * twos);
            let bias = if bias.len() < twos { core::ptr::null() } else { bias.as_ptr() };
            packed_m4(values.as_ptr(), weights.as_ptr(), sums.as_mut_ptr(), end, pairs, bias);
        }
    }
    #[cfg(not(skipstone_dsp))]
    for (two, (sums, weights)) in
        sums.chunks_exact_mut(2 * COLUMNS).zip(weights.chunks_exact(pairs)).enumerate()
    {
        use super::primitives::{smlad, sxtb16, sxtb16_ror8};
        if let Some(bias) = bias.get(two).filter(|_| bias.len() >= twos) {
            for (sums, bias) in sums.chunks_exact_mut(COLUMNS).zip(bias) {
                sums.fill(*bias);
            }
        }
        for (values, weights) in values.chunks_exact(COLUMNS).zip(weights) {
            let channels = [sxtb16(*weights), sxtb16_ror8(*weights)];
            for (sums, weight) in sums.chunks_exact_mut(COLUMNS).zip(channels) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = smlad(*value, weight, sum.cast_unsigned()).cast_signed();
                }
            }
        }
    }
}

/// Which products add up in a sum: (number, slots), `number` groups of `slots` slots each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    each: &'static [(usize, usize)],
    /// Of all groups.
    slots: usize,
    number: usize,
}

impl Groups {
    pub(super) const fn new(each: &'static [(usize, usize)]) -> Self {
        let (mut slots, mut number, mut rest) = (0, 0, each);
        while let [(first, slots_of_each), later @ ..] = rest {
            number += *first;
            slots += *first * *slots_of_each;
            rest = later;
        }
        Groups { each, slots, number }
    }

    /// Number of slots of all groups.
    pub(super) const fn slots(&self) -> usize {
        self.slots
    }

    /// Number of sums: eight for each group.
    pub(super) const fn sums(&self) -> usize {
        2 * COLUMNS * self.number
    }
}

/// Sums of products of int16 values and weights. Each of `groups` has eight sums (as above) over
/// its slots of `pairs` pairs; all are stored consecutively.
/// `weights` has two words for each pair, one for each channel.
///
/// `pairs` is a multiple of [`ROUND`], at least that, and the slices are long enough; nothing is computed otherwise.
#[inline(always)]
pub(super) fn wide(groups: &Groups, pairs: usize, values: &[u32], weights: &[u32], sums: &mut [i32]) {
    if pairs == 0 || !pairs.is_multiple_of(ROUND) {
        debug_assert!(false, "pairs are not whole rounds");
        return;
    }
    let all = groups.slots * pairs;
    if values.len() < COLUMNS * all || weights.len() < 2 * all || sums.len() < groups.sums() {
        debug_assert!(false, "values, weights or sums too short");
        return;
    }
    // SAFETY: the slices have the words of all `groups.slots` slots and the sums of all groups (checked above); each
    // step of the loop moves the pointers past its own groups' share of them. A step's `slots * pairs` is a multiple of
    // ROUND, at least one, and its number of groups is not zero. `sums` is borrowed mutably, so that it overlaps
    // neither slice.
    #[allow(unsafe_code)]
    unsafe {
        let (mut values, mut weights, mut sums) = (values.as_ptr(), weights.as_ptr(), sums.as_mut_ptr());
        for (number, slots) in groups.each {
            let (pairs, end) = (slots * pairs, sums.add(2 * COLUMNS * number));
            wide_m4(values, weights, sums, end, pairs / ROUND);
            values = values.add(COLUMNS * number * pairs);
            weights = weights.add(2 * number * pairs);
            sums = end;
        }
    }
}

/// The groups' sums, from `sums` to `end`; `rounds` rounds of pairs each.
///
/// # Safety
/// `rounds` is at least 1, and `end` is a multiple of `2 * COLUMNS` words, at least one such, after `sums`. For each
/// `2 * COLUMNS` words from `sums` to `end`, `values` is readable for `COLUMNS * ROUND * rounds` words and `weights`
/// for `2 * ROUND * rounds`. `sums` is writable up to `end`. All are aligned; the sums overlap none of the others.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn wide_m4(
    mut values: *const u32,
    mut weights: *const u32,
    mut sums: *mut i32,
    end: *mut i32,
    rounds: usize,
) {
    use super::primitives::smlad;
    while sums != end {
        let mut group = [0; 2 * COLUMNS];
        for _ in 0..ROUND * rounds {
            for (index, sum) in group.iter_mut().enumerate() {
                // SAFETY: `index % COLUMNS` and `index / COLUMNS` are inside this pair's four values and two weights,
                // of `ROUND * rounds` pairs for each group (contract).
                let (value, weight) =
                    unsafe { (values.add(index % COLUMNS).read(), weights.add(index / COLUMNS).read()) };
                *sum = smlad(value, weight, *sum);
            }
            (values, weights) = (values.wrapping_add(COLUMNS), weights.wrapping_add(2));
        }
        // SAFETY: `sums` has not reached `end`, up to which `2 * COLUMNS` words for each group are writable (contract).
        unsafe {
            sums.cast::<[u32; 2 * COLUMNS]>().write(group);
        }
        sums = sums.wrapping_add(2 * COLUMNS);
    }
}

/// A pair of [`wide`]: 14 instructions, 16 products. Both pointers stand a word before the first pair of
/// the round; the last loads of the round move them on.
#[cfg(skipstone_dsp)]
macro_rules! wide_pair {
    ($multiply:literal, $pair:literal, $on:literal, $($sum:literal),*) => {
        wide_pair!(@ $multiply, $pair, $on, [$($sum),*])
    };
    (@ $multiply:literal, $pair:literal, $on:literal, [$a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal]) => {
        concat!(
            "ldr r2, [r1, #8*", $pair, "+4]\n",
            "ldr r3, [r1, #8*", $pair, "+8]", $on, "\n",
            "ldr r12, [r0, #16*", $pair, "+4]\n",
            "ldr lr, [r0, #16*", $pair, "+8]\n",
            $multiply, " r4, r12, r2", $a, "\n",
            $multiply, " r8, r12, r3", $e, "\n",
            $multiply, " r5, lr, r2", $b, "\n",
            $multiply, " r9, lr, r3", $f, "\n",
            "ldr r12, [r0, #16*", $pair, "+12]\n",
            "ldr lr, [r0, #16*", $pair, "+16]", $on, "\n",
            $multiply, " r6, r12, r2", $c, "\n",
            $multiply, " r10, r12, r3", $g, "\n",
            $multiply, " r7, lr, r2", $d, "\n",
            $multiply, " r11, lr, r3", $h, "\n",
        )
    };
    (first) => { wide_pair!("smuad", "0", "", "", "", "", "", "", "", "", "") };
    (next $pair:literal) => { wide_pair!(next $pair, "") };
    (last) => { wide_pair!(next "7", "!") };
    (next $pair:literal, $on:literal) => {
        wide_pair!("smlad", $pair, $on, ", r4", ", r5", ", r6", ", r7", ", r8", ", r9", ", r10", ", r11")
    };
}

/// The groups' sums, from `sums` to `end`; `rounds` rounds of pairs each.
///
/// # Safety
/// `rounds` is at least 1, and `end` is a multiple of `2 * COLUMNS` words, at least one such, after `sums`. For each
/// `2 * COLUMNS` words from `sums` to `end`, `values` is readable for `COLUMNS * ROUND * rounds` words and `weights`
/// for `2 * ROUND * rounds`. `sums` is writable up to `end`. All are aligned; the sums overlap none of the others.
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
    assembly!(
        "push {{r4-r11, lr}}",
        "ldr r12, [sp, #36]",
        "push {{r2, r3, r12, lr}}", // sp + 0: sums, + 4: their end, + 8: rounds of a group, + 12: left
        "str r12, [sp, #12]",
        "sub r0, r0, #4",
        "sub r1, r1, #4",
        "cmp r12, #2",              // carry if a group has more than one round
        ".balign 4",
        "1:",                       // a group: its first pair sets the sums
        wide_pair!(first),
        "2:",
        ".set pair, 1",
        ".rept {round} - 2",
        wide_pair!(next "pair"),
        ".set pair, pair + 1",
        ".endr",
        wide_pair!(last),
        "bcs 4f",
        "ldrd r2, r3, [sp]",
        "stmia r2!, {{r4-r11}}",
        "str r2, [sp]",
        "cmp r2, r3",               // no carry up to the end
        "bne 1b",
        "3:",
        "add sp, sp, #16",
        "pop {{r4-r11, pc}}",
        "4:",
        "ldr r2, [sp, #12]",
        "subs r2, r2, #1",          // carry: it is 1 at least
        "str r2, [sp, #12]",
        "bne 5f",
        "ldmia sp, {{r2, r3, r12}}",
        "stmia r2!, {{r4-r11}}",
        "str r2, [sp]",
        "str r12, [sp, #12]",
        "cmp r3, r2",               // carry
        "bne 1b",
        "b 3b",
        "5:",                       // another round of the group
        wide_pair!(next "0"),
        "b 2b",
        round = const ROUND,
    )
}

/// A pair of [`packed`]: 15 instructions of 4 bytes, 16 products; pointers as in [`wide_pair`].
#[cfg(skipstone_dsp)]
macro_rules! packed_pair {
    ($pair:literal, $third:literal, $fourth:literal, $on:literal) => {
        concat!(
            "ldr.w r2, [r1, #4*",
            $pair,
            "+4]",
            $on,
            "\n",
            "ldr.w r12, [r0, #16*",
            $pair,
            "+4]\n",
            "ldr.w lr, [r0, #16*",
            $pair,
            "+8]\n",
            "sxtb16 r3, r2\n",
            "sxtb16 r2, r2, ror #8\n",
            "smlad r4, r12, r3, r4\n",
            "smlad r8, r12, r2, r8\n",
            "smlad r5, lr, r3, r5\n",
            "smlad r9, lr, r2, r9\n",
            "ldr.w r12, [r0, #",
            $third,
            "\n",
            "ldr.w lr, [r0, #",
            $fourth,
            "\n",
            "smlad r6, r12, r3, r6\n",
            "smlad r10, r12, r2, r10\n",
            "smlad r7, lr, r3, r7\n",
            "smlad r11, lr, r2, r11\n",
        )
    };
}

/// The sums of two channels at a time, from `sums` to `end`; see [`packed`].
///
/// # Safety
/// `pairs` is at least 1, and `end` is a multiple of `2 * COLUMNS` words, at least one such, after `sums`. `values` is
/// readable for `COLUMNS * pairs` words. For each `2 * COLUMNS` words from `sums` to `end`, `weights` is readable for
/// `pairs` words and `bias` for one entry, unless it is null. `sums` is readable and writable up to `end`. All are
/// aligned; the sums overlap none of the others.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn packed_m4(
    values: *const u32,
    weights: *const u32,
    sums: *mut i32,
    end: *mut i32,
    pairs: usize,
    bias: *const [i32; 2],
) {
    assembly!(
        "push {{r4-r11, lr}}",
        "sub sp, sp, #24", // + 0: first values, + 4: what the weights go back, + 8: end of the sums,
        "ldr r4, [sp, #60]", // + 12: where to begin, + 16: end of the values, + 20: sums, + 64: biases
        "sub r0, r0, #4",
        "sub r1, r1, #4",
        "add r5, r0, r4, lsl #4",
        "rsb r6, r4, #0", // pairs that the first round leaves out
        "and r6, r6, #15",
        "sub r0, r0, r6, lsl #4",
        "adr r12, 2f", // 60 bytes for each of them, and the Thumb bit
        "add r12, r12, #1",
        "add r12, r12, r6, lsl #6",
        "sub r12, r12, r6, lsl #2",
        "lsl r6, r6, #2",
        "strd r0, r6, [sp]",
        "strd r3, r12, [sp, #8]",
        "strd r5, r2, [sp, #16]",
        "1:", // two channels
        "sub r1, r1, r6",
        "ldr r3, [sp, #64]",
        "cbz r3, 3f",
        "ldr r4, [r3], #4",
        "ldr r8, [r3], #4",
        "str r3, [sp, #64]",
        "mov r5, r4",
        "mov r6, r4",
        "mov r7, r4",
        "mov r9, r8",
        "mov r10, r8",
        "mov r11, r8",
        "bx r12",
        "3:",
        "ldmia r2, {{r4-r11}}",
        "bx r12",
        ".balign 4",
        "2:",
        ".set pair, 0",
        ".rept 15",
        packed_pair!("pair", "16*pair+12]", "16*pair+16]", ""),
        ".set pair, pair + 1",
        ".endr",
        packed_pair!("15", "252]!", "4]!", "!"),
        "ldr r2, [sp, #16]",
        "cmp r0, r2",
        "bne 2b",
        "ldr r2, [sp, #20]",
        "stmia r2!, {{r4-r11}}",
        "str r2, [sp, #20]",
        "ldmia sp, {{r0, r6, r7, r12}}",
        "cmp r2, r7",
        "bne 1b",
        "add sp, sp, #24",
        "pop {{r4-r11, pc}}",
    )
}
