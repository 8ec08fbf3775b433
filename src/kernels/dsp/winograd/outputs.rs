//! The outputs' side: A^T sums A of a tile, biases added.

use super::form::{Form, Kind, LARGE, LINES, SMALL};
#[cfg(skipstone_dsp)]
use crate::kernels::dsp::primitives::assembly;
use crate::kernels::dsp::products::COLUMNS;

/// 9 x this is 1 modulo 2^32.
#[cfg(not(skipstone_dsp))]
const NINTH: i32 = 0x38E3_8E39;

impl Form {
    /// A^T sums A + bias of four tiles and two channels: for each row, for both channels, the outputs of adjacent
    /// tiles. `outputs` has [`LINES`] more words, for intermediate results.
    #[inline(never)]
    pub(super) fn outputs(&self, sums: &[i32], bias: &[i32; 2], outputs: &mut [i32]) {
        let words = self.tile * self.row_outputs();
        if sums.len() < self.sums() || outputs.len() < words + LINES {
            debug_assert!(false, "sums or outputs too short");
            return;
        }
        let (mut sums, mut to) = (sums.as_ptr(), outputs.as_mut_ptr());
        // SAFETY: `sums` has eight words for each of the form's groups of slots (16, 36 or 9), `outputs` has `tile`
        // rows of `row_outputs` words and LINES after them (checked above). `sums` and `to` advance by one tile, eight
        // times in all: the last reads the eighth word of each group and writes the last `tile` words of each row.
        // `outputs` is borrowed mutably, so that it overlaps no other.
        #[allow(unsafe_code)]
        unsafe {
            if self.kind == Kind::Large {
                return outputs_large(sums, bias, to.add(words), to);
            }
            let put = |[a, b, c, d]: [i32; 4], to: *mut i32| {
                to.write(a);
                to.add(1).write(b);
                to.add(SMALL.row_outputs()).write(c);
                to.add(SMALL.row_outputs() + 1).write(d);
            };
            for bias in bias {
                let end = sums.add(COLUMNS);
                if self.kind == Kind::Small {
                    while sums != end {
                        put(outputs_small(sums, bias << SMALL.scale_bits), to);
                        (sums, to) = (sums.add(1), to.add(SMALL.tile));
                    }
                } else {
                    while sums != end {
                        put(outputs_polyphase(|slot| sums.add(8 * slot).read(), *bias), to);
                        (sums, to) = (sums.add(1), to.add(SMALL.tile));
                    }
                }
            }
        }
    }
}

/// The outputs of eight large tiles, four with the first bias, times 64, in rows of 32; `sums` are the slots'
/// words, eight apart, `lines` scratch memory.
///
/// # Safety
/// `sums` is readable for 36 slots of `2 * COLUMNS` aligned words. `lines` is readable and writable for [`LINES`]
/// aligned words, `to` writable for `LARGE.tile * LARGE.row_outputs()`. `sums`, `bias`, `lines` and `to` do not
/// overlap.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn outputs_large(sums: *const i32, bias: &[i32; 2], lines: *mut i32, to: *mut i32) {
    for tile in 0..2 * COLUMNS {
        let bias = bias[tile / COLUMNS] << LARGE.scale_bits;
        // SAFETY: `6 * line + column` is below 36, `tile` below 8: a word of the sums (contract). `lines` has six lines
        // of four words, LINES. `row` and `column` are below 4: `LARGE.tile * tile + column` is inside one of the
        // `LARGE.tile` rows of `to`.
        unsafe {
            for line in 0..6 {
                let sums = core::array::from_fn(|column| sums.add(8 * (6 * line + column) + tile).read());
                lines.add(4 * line).cast::<[i32; 4]>().write(large(sums));
            }
            for column in 0..4 {
                let sums = large(core::array::from_fn(|line| lines.add(4 * line + column).read()));
                for (row, sum) in sums.iter().enumerate() {
                    let output = sum.wrapping_mul(NINTH).wrapping_add(bias);
                    to.add(LARGE.row_outputs() * row + LARGE.tile * tile + column).write(output);
                }
            }
        }
    }
}

/// The outputs of eight large tiles, four with the first bias, times 64, in rows of 32; `sums` are the slots'
/// words, eight apart, `lines` scratch memory.
///
/// # Safety
/// `sums` is readable for 36 slots of `2 * COLUMNS` aligned words. `lines` is readable and writable for [`LINES`]
/// aligned words, `to` writable for `LARGE.tile * LARGE.row_outputs()`. `sums`, `bias`, `lines` and `to` do not
/// overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
unsafe fn outputs_large(sums: *const i32, bias: &[i32; 2], lines: *mut i32, to: *mut i32) {
    // SAFETY: this function's contract is the same; `bias` is a reference, hence readable.
    unsafe { outputs_large_m4(sums, bias, lines, to) }
}

/// [`large`] of r4 to r9 in r4, r5, r6 and r8.
#[cfg(skipstone_dsp)]
macro_rules! large_m4 {
    () => {
        "add r10, r5, r6
        sub r5, r5, r6
        add r6, r7, r8
        sub r7, r7, r8
        sub r4, r4, r10
        add r4, r4, r6
        rsb r6, r10, r6, lsl #2
        rsb r8, r5, r7, lsl #3
        rsb r5, r5, r7, lsl #1
        add r8, r8, r9, lsl #1"
    };
}

/// [`outputs_large`] in assembly.
///
/// # Safety
/// As [`outputs_large`]; `bias` is readable.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn outputs_large_m4(
    sums: *const i32,
    bias: *const [i32; 2],
    lines: *mut i32,
    to: *mut i32,
) {
    assembly!(
        "push {{r1, r4-r11, lr}}", // sp + 0: bias
        "movw r1, #0x8E39",        // a ninth
        "movt r1, #0x38E3",
        "mov r11, #8 << 8", // tiles left; below them lines left
        "1:",               // four tiles
        "ldr r12, [sp]",
        "ldr lr, [r12], #4",
        "str r12, [sp]",
        "lsl lr, lr, #{bits}",
        "2:", // a tile
        "mov r12, r2",
        "add r11, r11, #6",
        "3:", // a line
        "ldr r5, [r0, #32]",
        "ldr r6, [r0, #64]",
        "ldr r7, [r0, #96]",
        "ldr r8, [r0, #128]",
        "ldr r9, [r0, #160]",
        "ldr r4, [r0], #192",
        large_m4!(),
        "stmia r12!, {{r4-r6, r8}}",
        "sub r11, r11, #1",
        "tst r11, #7",
        "bne 3b",
        "mov r12, r2",
        "add r11, r11, #4",
        "4:", // a column
        "ldr r5, [r12, #16]",
        "ldr r6, [r12, #32]",
        "ldr r7, [r12, #48]",
        "ldr r8, [r12, #64]",
        "ldr r9, [r12, #80]",
        "ldr r4, [r12], #4",
        large_m4!(),
        "mla r4, r4, r1, lr",
        "mla r5, r5, r1, lr",
        "mla r6, r6, r1, lr",
        "mla r8, r8, r1, lr",
        "str r5, [r3, #128]",
        "str r6, [r3, #256]",
        "str r8, [r3, #384]",
        "str r4, [r3], #4",
        "sub r11, r11, #1",
        "tst r11, #7",
        "bne 4b",
        "subw r0, r0, #6 * 192 - 4",
        "sub r11, r11, #1 << 8",
        "tst r11, #3 << 8",
        "bne 2b",
        "cmp r11, #0",
        "bne 1b",
        "pop {{r1, r4-r11, pc}}",
        bits = const LARGE.scale_bits,
    )
}

/// Six sums in a line by A^T of large tiles, (1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0),
/// (0, 1, -1, 8, -8, 1), times 24 over the factors of G with their signs: 1, -1, -1, 1, 1, 2.
#[cfg(not(skipstone_dsp))]
#[inline(always)]
fn large([m0, m1, m2, m3, m4, m5]: [i32; 6]) -> [i32; 4] {
    let (p, q) = (m1.wrapping_add(m2), m1.wrapping_sub(m2));
    let (r, s) = (m3.wrapping_add(m4), m3.wrapping_sub(m4));
    [
        m0.wrapping_sub(p).wrapping_add(r),
        (s << 1).wrapping_sub(q),
        (r << 2).wrapping_sub(p),
        (s << 3).wrapping_sub(q).wrapping_add(m5 << 1),
    ]
}

/// The four outputs of a tile, row by row, times 4; `sums` are the slots' words, eight apart.
///
/// # Safety
/// `sums` is aligned, and its word and those 8, 16, ... and 15 * 8 words after it are readable.
#[cfg(skipstone_dsp)]
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn outputs_small(sums: *const i32, bias: i32) -> [i32; 4] {
    let [y0, y1, y2, y3]: [i32; 4];
    // SAFETY: the loads read the sixteen words of the contract, at multiples of 32 bytes up to 480. Nothing is written
    // but the operands' registers: without an S suffix, ADD, SUB and LDR leave all flags (preserves_flags).
    unsafe {
        core::arch::asm!(
            "ldr {a}, [{sums}, #128]", "ldr {b}, [{sums}, #160]", "ldr {c}, [{sums}, #192]", "ldr {d}, [{sums}, #224]",
            "add {a}, {a}, {bias}",
            "add {a}, {a}, {b}", "add {a}, {a}, {c}", // the second row: both columns in a and b
            "add {b}, {b}, {bias}",
            "sub {b}, {b}, {c}", "sub {b}, {b}, {d}",
            "ldr {c}, [{sums}, #256]", "ldr {d}, [{sums}, #288]", "ldr {y0}, [{sums}, #320]", "ldr {y1}, [{sums}, #352]",
            "add {c}, {c}, {d}", "add {c}, {c}, {y0}", // the third: c and d
            "sub {d}, {d}, {y0}", "sub {d}, {d}, {y1}",
            "add {y0}, {a}, {c}", "add {y1}, {b}, {d}", "sub {y2}, {a}, {c}", "sub {y3}, {b}, {d}",
            "ldr {a}, [{sums}]", "ldr {b}, [{sums}, #32]", "ldr {c}, [{sums}, #64]", "ldr {d}, [{sums}, #96]",
            "add {y0}, {y0}, {a}", "add {y0}, {y0}, {b}", "add {y0}, {y0}, {c}",
            "add {y1}, {y1}, {b}", "sub {y1}, {y1}, {c}", "sub {y1}, {y1}, {d}",
            "ldr {a}, [{sums}, #384]", "ldr {b}, [{sums}, #416]", "ldr {c}, [{sums}, #448]", "ldr {d}, [{sums}, #480]",
            "sub {y2}, {y2}, {a}", "sub {y2}, {y2}, {b}", "sub {y2}, {y2}, {c}",
            "sub {y3}, {y3}, {b}", "add {y3}, {y3}, {c}", "add {y3}, {y3}, {d}",
            sums = in(reg) sums, bias = in(reg) bias,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            y0 = out(reg) y0, y1 = out(reg) y1, y2 = out(reg) y2, y3 = out(reg) y3,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [y0, y1, y2, y3]
}

/// The four outputs of a tile, row by row, times 4; `sums` are the slots' words, eight apart.
///
/// # Safety
/// `sums` is aligned, and its word and those 8, 16, ... and 15 * 8 words after it are readable.
#[cfg(not(skipstone_dsp))]
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn outputs_small(sums: *const i32, bias: i32) -> [i32; 4] {
    // SAFETY: `slot` is below 16 in all uses below: one of the words of the contract.
    let at = |slot: usize| unsafe { sums.add(8 * slot).read() };
    let row = |row: usize| {
        let (a, b, c, d) = (at(4 * row), at(4 * row + 1), at(4 * row + 2), at(4 * row + 3));
        [a.wrapping_add(b).wrapping_add(c), b.wrapping_sub(c).wrapping_sub(d)]
    };
    let [s0, s1, s2, s3] = [row(0), row(1), row(2), row(3)];
    let top = |column: usize| s0[column].wrapping_add(s1[column]).wrapping_add(s2[column]).wrapping_add(bias);
    let bottom =
        |column: usize| s1[column].wrapping_sub(s2[column]).wrapping_sub(s3[column]).wrapping_add(bias);
    [top(0), top(1), bottom(0), bottom(1)]
}

/// The four outputs of a tile, row by row.
#[inline(always)]
fn outputs_polyphase(at: impl Fn(usize) -> i32, bias: i32) -> [i32; 4] {
    let center = at(0).wrapping_add(bias);
    let (top, bottom) = (at(1).wrapping_add(center), at(2).wrapping_add(center));
    let (left, right) = (at(3), at(4));
    [
        at(5).wrapping_add(top).wrapping_add(left),
        at(6).wrapping_add(top).wrapping_add(right),
        at(7).wrapping_add(bottom).wrapping_add(left),
        at(8).wrapping_add(bottom).wrapping_add(right),
    ]
}
