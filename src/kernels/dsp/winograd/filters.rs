//! The weights' side: G g G^T of a filter, two channels in a word.

use super::form::{Form, Kind};
#[cfg(skipstone_dsp)]
use crate::kernels::dsp::primitives::assembly;
#[cfg(not(skipstone_dsp))]
use crate::kernels::dsp::primitives::quadruple;
use crate::kernels::dsp::primitives::{sadd16, ssub16, sxtb16};

impl Form {
    /// Transforms OHWI `weights` of a 3x3 window, filter by filter. Nothing is written if `channels` is not a multiple
    /// of 4: no Winograd form supports such layers.
    pub(super) fn transform_weights(&self, weights: &[i8], channels: usize, transformed: &mut [u32]) {
        if !channels.is_multiple_of(4) {
            return;
        }
        let two = transformed.chunks_exact_mut(self.weight_words(channels).max(1));
        let mut filters = weights.chunks_exact((9 * channels).max(1));
        for transformed in two {
            for channel in 0..2 {
                if let Some(filter) = filters.next() {
                    self.transform_filter(filter, channels, channel, transformed);
                }
            }
        }
    }

    /// Transforms one filter into its places, `channel` 0 or 1, among two channels' weights. `channels` is a multiple
    /// of 4, because words of four channels are read.
    #[inline(never)]
    pub(super) fn transform_filter(
        &self,
        filter: &[i8],
        channels: usize,
        channel: usize,
        transformed: &mut [u32],
    ) {
        let fits = filter.len() >= 9 * channels && transformed.len() >= self.weight_words(channels);
        if !fits || !channels.is_multiple_of(4) || channel > 1 {
            debug_assert!(false, "filter or places too short, or channels that are not whole words");
            return;
        }
        for half in 0..channels / 2 {
            // SAFETY: `filter` has nine taps of `channels` channels, a multiple of 4, so that each tap has a word from
            // byte `half / 2 * 4` on. `transformed` has `channels` words for each slot, and `2 * half + channel` is
            // below `channels` (all checked above): one word of each slot is written. It is borrowed mutably, so that
            // it overlaps no tap.
            #[allow(unsafe_code)]
            unsafe {
                let taps =
                    Taps { from: filter.as_ptr().add(half / 2 * 4), channels, rotation: half as u32 % 2 * 8 };
                let to = transformed.as_mut_ptr().add(2 * half + channel);
                match self.kind {
                    Kind::Small => taps.transform_small(to),
                    Kind::Large => taps.transform_large(to),
                    Kind::Polyphase => taps.transform_polyphase(to),
                }
            }
        }
    }
}

/// Nine taps of two channels: bytes 0 and 2 of words that are rotated by `rotation` bits.
#[derive(Clone, Copy)]
struct Taps {
    from: *const i8,
    channels: usize,
    rotation: u32,
}

#[allow(unsafe_code)]
impl Taps {
    /// Two channels of one tap.
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart. `row` and
    /// `column` are below 3.
    #[inline(always)]
    unsafe fn tap(self, row: usize, column: usize) -> u32 {
        // SAFETY: `3 * row + column` is below 9: one of the nine taps (contract).
        let word =
            unsafe { self.from.add((3 * row + column) * self.channels).cast::<u32>().read_unaligned() };
        sxtb16(word.rotate_right(self.rotation))
    }

    /// Two channels of three taps.
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart. `row` is below 3.
    #[inline(always)]
    unsafe fn row(self, row: usize) -> [u32; 3] {
        // SAFETY: `row` is below 3 (contract), the columns are.
        unsafe { [self.tap(row, 0), self.tap(row, 1), self.tap(row, 2)] }
    }

    /// (2 G) g (2 G)^T: 16 words, `channels` apart.
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart.
    /// `to` is aligned and writable for 16 words, `channels` words apart, which overlap no tap.
    #[inline(always)]
    unsafe fn transform_small(self, to: *mut u32) {
        let put = |row: usize, [a, b, c]: [u32; 3]| {
            let outer = sadd16(a, c);
            // SAFETY: `row` is below 4 in all uses below, so that the words are `4 * row` to `4 * row + 3` of 16
            // (contract).
            unsafe {
                let to = to.add(4 * row * self.channels);
                to.write(sadd16(a, a));
                to.add(self.channels).write(sadd16(outer, b));
                to.add(2 * self.channels).write(ssub16(outer, b));
                to.add(3 * self.channels).write(sadd16(c, c));
            }
        };
        // SAFETY: rows 0 to 2 of the nine taps (contract).
        unsafe {
            let first = self.row(0);
            put(0, each(first, first, sadd16));
            let third = self.row(2);
            put(3, each(third, third, sadd16));
            let (outer, second) = (each(first, third, sadd16), self.row(1));
            put(1, each(outer, second, sadd16));
            put(2, each(outer, second, ssub16));
        }
    }

    /// The same with the rows of G for large tiles: 36 words, `channels` apart.
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart.
    /// `to` is aligned and writable for 36 words, `channels` words apart, which overlap no tap.
    #[cfg(skipstone_dsp)]
    unsafe fn transform_large(self, to: *mut u32) {
        // SAFETY: the taps and words of this contract are the assembly's.
        unsafe { transform_large_m4(self.from, self.channels, self.rotation, to) }
    }

    /// The same with the rows of G for large tiles: 36 words, `channels` apart.
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart.
    /// `to` is aligned and writable for 36 words, `channels` words apart, which overlap no tap.
    #[cfg(not(skipstone_dsp))]
    unsafe fn transform_large(self, mut to: *mut u32) {
        let mut lines = [[0; 3]; 6];
        for column in 0..3 {
            // SAFETY: rows 0 to 2 and `column`, below 3, of the nine taps (contract).
            let taps = unsafe { [self.tap(0, column), self.tap(1, column), self.tap(2, column)] };
            for (line, value) in lines.iter_mut().zip(large(taps)) {
                if let Some(place) = line.get_mut(column) {
                    *place = value;
                }
            }
        }
        for line in lines {
            for value in large(line) {
                // SAFETY: six lines of six values: at most 36 words, `channels` apart (contract).
                unsafe { to.write(value) };
                to = to.wrapping_add(self.channels);
            }
        }
    }

    /// For stride 2: 25 words, `channels` apart, in the order of [`SLOTS`].
    ///
    /// # Safety
    /// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart.
    /// `to` is aligned and writable for 25 words, `channels` words apart, which overlap no tap.
    #[inline(always)]
    unsafe fn transform_polyphase(self, to: *mut u32) {
        let put = |slots: [u8; 5], [a, b, c]: [u32; 3]| {
            let put = |slot: u8, word: u32| {
                // SAFETY: the slots in [`SLOTS`] are below 25: one of the words of the contract.
                unsafe { to.add(usize::from(slot) * self.channels).write(word) }
            };
            let [first, both, third, odd, odd_again] = slots;
            put(first, a);
            put(both, sadd16(a, c));
            put(third, c);
            put(odd, b);
            put(odd_again, b);
        };
        // SAFETY: rows 0 to 2 of the nine taps (contract).
        unsafe {
            let [first_slots, both_slots, third_slots, odd_slots, odd_slots_again] = SLOTS;
            let first = self.row(0);
            put(first_slots, first);
            let third = self.row(2);
            put(third_slots, third);
            put(both_slots, each(first, third, sadd16));
            let second = self.row(1);
            put(odd_slots, second);
            put(odd_slots_again, second);
        }
    }
}

#[inline(always)]
fn each(a: [u32; 3], b: [u32; 3], f: impl Fn(u32, u32) -> u32) -> [u32; 3] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2])]
}

/// Three taps in a line by the rows of G for large tiles, (1, 0, 0) / 4, (-1, -1, -1) / 6, (-1, 1, -1) / 6,
/// (1, 2, 4) / 24, (1, -2, 4) / 24, (0, 0, 1), times 24, -24, -24, 24, 24, 12: at most 12 times a tap's range.
#[cfg(not(skipstone_dsp))]
#[inline(always)]
fn large([a, b, c]: [u32; 3]) -> [u32; 6] {
    let (outer, four_a, four_c) = (sadd16(a, c), quadruple(a), quadruple(c));
    let (even, odd) = (sadd16(a, four_c), sadd16(b, b));
    [
        sadd16(four_a, sadd16(a, a)),
        quadruple(sadd16(outer, b)),
        quadruple(ssub16(outer, b)),
        sadd16(even, odd),
        ssub16(even, odd),
        sadd16(sadd16(four_c, four_c), four_c),
    ]
}

/// [`large`] of r4, r5 and r6: the results are in r4, r7, r8, r6, r5 and r9.
#[cfg(skipstone_dsp)]
macro_rules! large_m4 {
    () => {
        "and r9, lr, r6, lsl #2
        sadd16 r7, r4, r6
        sadd16 r6, r4, r9
        sadd16 r8, r9, r9
        sadd16 r9, r9, r8
        sadd16 r8, r4, r4
        and r4, lr, r4, lsl #2
        sadd16 r4, r4, r8
        ssub16 r8, r7, r5
        sadd16 r7, r7, r5
        sadd16 r5, r5, r5
        sadd16 r6, r6, r5
        sadd16 r5, r5, r5
        ssub16 r5, r6, r5
        and r7, lr, r7, lsl #2
        and r8, lr, r8, lsl #2"
    };
}

/// [`Taps::transform_large`] in assembly.
///
/// # Safety
/// `from` is readable, at any alignment, for a word at each of nine taps, `channels` bytes apart. `to` is aligned and
/// writable for 36 words, `channels` words apart, which overlap no tap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn transform_large_m4(from: *const i8, channels: usize, rotation: u32, to: *mut u32) {
    assembly!(
        "push {{r4-r11, lr}}",
        "sub sp, sp, #72", // three columns of six lines
        "mvn lr, #0x30000",
        "add r12, r1, r1, lsl #1",
        "mov r10, sp",
        "mov r11, #3",
        "1:", // a column of taps
        "ldr r4, [r0]",
        "ldr r5, [r0, r12]",
        "ldr r6, [r0, r12, lsl #1]",
        "add r0, r0, r1",
        ".irp tap, r4, r5, r6",
        "ror \\tap, \\tap, r2",
        "sxtb16 \\tap, \\tap",
        ".endr",
        large_m4!(),
        "str r7, [r10, #4]",
        "str r8, [r10, #8]",
        "str r6, [r10, #12]",
        "str r5, [r10, #16]",
        "str r9, [r10, #20]",
        "str r4, [r10], #24",
        "subs r11, r11, #1",
        "bne 1b",
        "mov r10, sp",
        "mov r11, #6",
        "add r0, r3, r1, lsl #2",
        "lsl r12, r1, #3", // two slots
        "2:",              // a line
        "ldr r5, [r10, #24]",
        "ldr r6, [r10, #48]",
        "ldr r4, [r10], #4",
        large_m4!(),
        "str r4, [r3]",
        "str r7, [r0]",
        "add r3, r3, r12",
        "add r0, r0, r12",
        "str r8, [r3]",
        "str r6, [r0]",
        "add r3, r3, r12",
        "add r0, r0, r12",
        "str r5, [r3]",
        "str r9, [r0]",
        "add r3, r3, r12",
        "add r0, r0, r12",
        "subs r11, r11, #1",
        "bne 2b",
        "add sp, sp, #72",
        "pop {{r4-r11, pc}}",
    )
}

/// Stride 2: the slot of each product, by the combination of rows and of columns that it multiplies: with d0 to d4
/// under a tile, d0 - d2, d2, d4 - d2 (even taps of F(2, 2)), d1, d3 (the odd tap of the first and second output). The
/// first group holds d2 x d2, a term of all four outputs; the next four hold d2 times a value in two outputs; the last
/// four hold terms of one output.
pub(super) const SLOTS: [[u8; 5]; 5] =
    [[9, 1, 13, 10, 14], [5, 0, 7, 6, 8], [17, 3, 21, 18, 22], [11, 2, 15, 12, 16], [19, 4, 23, 20, 24]];

#[cfg(test)]
mod tests {
    /// Found by valgrind: the last tap's word reached beyond the last filter.
    #[test]
    fn channels_that_are_not_whole_words_are_ignored() {
        for channels in [1, 2, 3, 5, 6, 7] {
            let mut transformed = [0; 36 * 8];
            let weights = [1; 9 * 8];
            let weights = &weights[..9 * channels];
            super::super::form::LARGE.transform_weights(weights, channels, &mut transformed);
            assert!(transformed.iter().all(|word| *word == 0), "{channels}");
        }
    }
}
