//! The input's side: B^T patch B of four adjacent tiles, two channels in a word.

use super::filters::SLOTS;
use super::form::{Form, Kind, PAIRS};
#[cfg(skipstone_dsp)]
use crate::kernels::dsp::primitives::assembly;
#[cfg(not(skipstone_dsp))]
use crate::kernels::dsp::primitives::quadruple;
use crate::kernels::dsp::primitives::{sadd16, ssub16, sxtb16, sxtb16_ror8};
use crate::kernels::dsp::products::COLUMNS;
use crate::ops::Conv2d;

/// Most rows under a tile.
const MAX_ROWS: usize = 6;

/// The addresses of a column's words, row by row.
type Column = [*const u32; MAX_ROWS];

impl Form {
    /// B^T patch B of the four tiles from output column `x` on, for all channels.
    #[inline(never)]
    pub(super) fn transform(
        &self,
        layer: &Conv2d<'_>,
        rows: &[&[i8]],
        x: usize,
        lines: &mut [u32],
        values: &mut [u32],
    ) {
        let channels = usize::from(layer.input.channels);
        let width = usize::from(layer.input.width);
        let left = layer.window.first_column(x);
        let fits = lines.len() >= self.line_words() && values.len() >= self.value_words(channels);
        if !fits || layer.padding_pixel.len() != channels {
            debug_assert!(false, "lines, values or padding pixel too short");
            return;
        }
        for chunk in 0..channels / (2 * PAIRS) {
            let padding = layer.padding_pixel.as_ptr().wrapping_add(2 * PAIRS * chunk);
            // the address of each row's chunk in the first pixel, and the distance to the next pixel's
            let mut patch = [(padding, 0); MAX_ROWS];
            for (line, row) in patch.iter_mut().zip(rows).take(self.rows) {
                if row.len() >= width * channels {
                    *line = (row.as_ptr().wrapping_add(2 * PAIRS * chunk), channels);
                }
            }
            let step = COLUMNS * channels / 2;
            // SAFETY: `2 * PAIRS * (chunk + 1)` is at most `channels`, so that each pixel, and the padding pixel, has
            // sixteen bytes from its chunk on; rows in `patch` have `width` pixels (checked above) or are the padding
            // pixel with step 0. `lines` has `PAIRS * rows` words for each of the form's columns, `values` `COLUMNS *
            // channels / 2` words (`step`) for each slot, of which `COLUMNS * PAIRS` are this chunk's (both checked
            // above). Both are borrowed mutably, so that they overlap nothing else.
            #[allow(unsafe_code)]
            unsafe {
                let (from, to) = (lines.as_ptr(), values.as_mut_ptr().add(COLUMNS * PAIRS * chunk));
                let patch = Patch { rows: patch, padding, left, width };
                match self.kind {
                    Kind::Small => {
                        patch.columns(self, lines.as_mut_ptr(), columns_small);
                        rows_small(from, to, step);
                    }
                    Kind::Large => {
                        patch.columns(self, lines.as_mut_ptr(), columns_large);
                        rows_large(from, to, step);
                    }
                    Kind::Polyphase => {
                        patch.columns(self, lines.as_mut_ptr(), columns_polyphase);
                        rows_polyphase(from, to, step);
                    }
                }
            }
        }
    }
}

/// The addresses of sixteen channels of the input under a group of tiles.
struct Patch {
    /// The first pixel of each row, and the distance to the next.
    rows: [(*const i8, usize); MAX_ROWS],
    padding: *const i8,
    left: isize,
    width: usize,
}

impl Patch {
    /// B^T patch: for each column, for each pair of channels, the rows.
    ///
    /// # Safety
    /// Each of the form's rows is `width` pixels of sixteen readable bytes, as far apart as its distance states, or one
    /// with distance 0; so is `padding`. `to` is aligned and writable for `PAIRS * form.rows` words for each of
    /// `form.columns` columns, which overlap no pixel. `column` is the function for the form's number of rows.
    #[allow(unsafe_code)]
    unsafe fn columns(&self, form: &Form, mut to: *mut u32, column: unsafe fn(&mut Column, *mut u32)) {
        for x in (self.left..).take(form.columns) {
            let inside = (0..self.width.cast_signed()).contains(&x);
            let mut words = self.rows.map(|(start, step)| {
                let start = if inside { start.wrapping_add(x.cast_unsigned() * step) } else { self.padding };
                start.cast()
            });
            // SAFETY: a column inside the row points to one of its `width` pixels, any other to the padding pixel:
            // sixteen bytes each (contract). `to` has `PAIRS * form.rows` words for each of `form.columns` columns, and
            // this is one of them.
            unsafe { column(&mut words, to) };
            to = to.wrapping_add(PAIRS * form.rows);
        }
    }
}

/// The word of row `row`, whose address then moves to its next word.
///
/// # Safety
/// `row` is below MAX_ROWS, and its address is readable for a word, of any alignment.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn take(column: &mut Column, row: usize) -> u32 {
    // SAFETY: `row` is below MAX_ROWS, the array's length, and the word is readable (contract).
    unsafe {
        let at = column.get_unchecked_mut(row);
        let word = at.read_unaligned();
        *at = at.wrapping_add(1);
        word
    }
}

/// Four rows of sixteen channels, each word twice two channels.
///
/// # Safety
/// The first four words of `column` are pointers to sixteen readable bytes each, of any alignment. `to` is aligned and
/// writable for `PAIRS * 4` words, which overlap none of these bytes.
#[allow(unsafe_code)]
unsafe fn columns_small(column: &mut Column, mut to: *mut u32) {
    let put = |to: *mut u32, d0, d1, d2, d3| {
        // SAFETY: `to` has four words in both uses below.
        unsafe {
            to.write(ssub16(d0, d2));
            to.add(1).write(sadd16(d1, d2));
            to.add(2).write(ssub16(d2, d1));
            to.add(3).write(ssub16(d1, d3));
        }
    };
    for _ in 0..PAIRS / 2 {
        // SAFETY: this is one of four words of each row (sixteen bytes), rows are below 4, and `to` has eight words for
        // each of the `PAIRS / 2` rounds (contract).
        unsafe {
            let (a, b) = (take(column, 0), take(column, 1));
            let (c, d) = (take(column, 2), take(column, 3));
            put(to, sxtb16(a), sxtb16(b), sxtb16(c), sxtb16(d));
            put(to.add(4), sxtb16_ror8(a), sxtb16_ror8(b), sxtb16_ror8(c), sxtb16_ror8(d));
        }
        to = to.wrapping_add(8);
    }
}

/// Six rows of sixteen channels, each word twice two channels.
///
/// # Safety
/// The first six words of `column` are pointers to sixteen readable bytes each, of any alignment. `to` is aligned and
/// writable for `PAIRS * 6` words, which overlap none of these bytes.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn columns_large(column: &mut Column, mut to: *mut u32) {
    for _ in 0..PAIRS / 2 {
        // SAFETY: this is one of four words of each row (sixteen bytes), rows are below 6, and `to` has twelve words
        // for each of the `PAIRS / 2` rounds (contract).
        unsafe {
            let words: [u32; 6] = core::array::from_fn(|row| take(column, row));
            to.cast::<[u32; 6]>().write(large(words.map(sxtb16)));
            to.add(6).cast::<[u32; 6]>().write(large(words.map(sxtb16_ror8)));
        }
        to = to.wrapping_add(12);
    }
}

/// Six rows of sixteen channels, each word twice two channels.
///
/// # Safety
/// The first six words of `column` are pointers to sixteen readable bytes each, of any alignment. `to` is aligned and
/// writable for `PAIRS * 6` words, which overlap none of these bytes.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
unsafe fn columns_large(column: &mut Column, to: *mut u32) {
    // SAFETY: this function's contract is the assembly's.
    unsafe { columns_large_m4(column, to) }
}

/// Five rows of sixteen channels, each word twice two channels.
///
/// # Safety
/// The first five words of `column` are pointers to sixteen readable bytes each, of any alignment. `to` is aligned and
/// writable for `PAIRS * 5` words, which overlap none of these bytes.
#[allow(unsafe_code)]
unsafe fn columns_polyphase(column: &mut Column, mut to: *mut u32) {
    let put = |to: *mut u32, d0, d1, d2, d3, d4| {
        // SAFETY: `to` has five words in both uses below.
        unsafe {
            to.write(ssub16(d0, d2));
            to.add(1).write(d2);
            to.add(2).write(ssub16(d4, d2));
            to.add(3).write(d1);
            to.add(4).write(d3);
        }
    };
    for _ in 0..PAIRS / 2 {
        // SAFETY: this is one of four words of each row (sixteen bytes), rows are below 5, and `to` has ten words for
        // each of the `PAIRS / 2` rounds (contract).
        unsafe {
            let (a, b, c) = (take(column, 0), take(column, 1), take(column, 2));
            let (d, e) = (take(column, 3), take(column, 4));
            put(to, sxtb16(a), sxtb16(b), sxtb16(c), sxtb16(d), sxtb16(e));
            let to = to.add(5);
            put(to, sxtb16_ror8(a), sxtb16_ror8(b), sxtb16_ror8(c), sxtb16_ror8(d), sxtb16_ror8(e));
        }
        to = to.wrapping_add(10);
    }
}

/// Six values in a line by B^T of large tiles: (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
/// (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1).
#[cfg(not(skipstone_dsp))]
#[inline(always)]
fn large([d0, d1, d2, d3, d4, d5]: [u32; 6]) -> [u32; 6] {
    let (even, odd) = (ssub16(d4, quadruple(d2)), ssub16(d3, quadruple(d1)));
    let (outer, inner) = (ssub16(d4, d2), ssub16(d3, d1));
    let twice = sadd16(inner, inner);
    [
        sadd16(quadruple(ssub16(d0, d2)), outer),
        sadd16(even, odd),
        ssub16(even, odd),
        sadd16(outer, twice),
        ssub16(outer, twice),
        ssub16(ssub16(d5, d3), quadruple(inner)),
    ]
}

/// 10 columns of lines become 16 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 10 columns of `PAIRS * 4` words. `to` is writable for `COLUMNS * PAIRS` words in each of 16
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn rows_small(lines: *const u32, to: *mut u32, step: usize) {
    const ROWS: usize = 4;
    for row in 0..ROWS {
        // SAFETY: `row` is below 4 and pairs below PAIRS: words of a column. Columns are at most 2 * 3 + 3, of 10;
        // slots `4 * row` to `4 * row + 3`, of 16; tiles below COLUMNS, of `COLUMNS * PAIRS` words of a slot
        // (contract).
        unsafe {
            let (mut from, mut to) = (lines.add(row), to.add(4 * row * step));
            for _ in 0..PAIRS {
                let at = |column: usize| from.add(PAIRS * ROWS * column).read();
                let [to0, to1, to2, to3] = [to, to.add(step), to.add(2 * step), to.add(3 * step)];
                let tile = |tile: usize, c0, c1| {
                    let (c2, c3) = (at(2 * tile + 2), at(2 * tile + 3));
                    to0.add(tile).write(ssub16(c0, c2));
                    to1.add(tile).write(sadd16(c1, c2));
                    to2.add(tile).write(ssub16(c2, c1));
                    to3.add(tile).write(ssub16(c1, c3));
                    (c2, c3)
                };
                let (c0, c1) = tile(0, at(0), at(1));
                let (c0, c1) = tile(1, c0, c1);
                let (c0, c1) = tile(2, c0, c1);
                tile(3, c0, c1);
                (from, to) = (from.add(ROWS), to.wrapping_add(COLUMNS));
            }
        }
    }
}

/// 18 columns of lines become 36 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 18 columns of `PAIRS * 6` words. `to` is writable for `COLUMNS * PAIRS` words in each of 36
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn rows_large(lines: *const u32, to: *mut u32, step: usize) {
    const ROWS: usize = 6;
    for row in 0..ROWS {
        // SAFETY: `row` is below 6 and pairs below PAIRS: words of a column. Columns are at most 4 * 3 + 5, of 18;
        // slots `6 * row` to `6 * row + 5`, of 36; tiles below COLUMNS, of `COLUMNS * PAIRS` words of a slot
        // (contract).
        unsafe {
            let (mut from, mut to) = (lines.add(row), to.add(6 * row * step));
            for _ in 0..PAIRS {
                for tile in 0..COLUMNS {
                    let from = from.add(4 * PAIRS * ROWS * tile);
                    let values = large(core::array::from_fn(|column| from.add(PAIRS * ROWS * column).read()));
                    for (slot, value) in values.iter().enumerate() {
                        to.add(slot * step + tile).write(*value);
                    }
                }
                (from, to) = (from.add(ROWS), to.wrapping_add(COLUMNS));
            }
        }
    }
}

/// 10 columns of lines become 16 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 10 columns of `PAIRS * 4` words. `to` is writable for `COLUMNS * PAIRS` words in each of 16
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
unsafe fn rows_small(lines: *const u32, to: *mut u32, step: usize) {
    // SAFETY: this contract is the assembly's, whose `step` is in bytes.
    unsafe { rows_small_m4(lines, to, 4 * step) }
}

/// 18 columns of lines become 36 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 18 columns of `PAIRS * 6` words. `to` is writable for `COLUMNS * PAIRS` words in each of 36
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
unsafe fn rows_large(lines: *const u32, to: *mut u32, step: usize) {
    // SAFETY: this contract is the assembly's, whose `step` is in bytes.
    unsafe { rows_large_m4(lines, to, 4 * step) }
}

/// 17 columns of lines become 25 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 17 columns of `PAIRS * 5` words. `to` is writable for `COLUMNS * PAIRS` words in each of 25
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
unsafe fn rows_polyphase(lines: *const u32, to: *mut u32, step: usize) {
    // SAFETY: this contract is the assembly's, whose `step` is in bytes, and the slots are [`SLOTS`].
    unsafe { rows_polyphase_m4(lines, to, 4 * step, &SLOTS) }
}

/// [`large`] in place: d0 to d5, two more registers, the mask of a fourfold value, and the instructions that store
/// each of the six results as soon as it is ready: they are in d0, d2, t, d3, d4 and d5.
#[cfg(skipstone_dsp)]
macro_rules! large_m4 {
    ($d0:literal, $d1:literal, $d2:literal, $d3:literal, $d4:literal, $d5:literal, $t:literal, $u:literal, $mask:literal,
     [$y0:literal, $y1:literal, $y2:literal, $y3:literal, $y4:literal, $y5:literal]) => {
        concat!(
            "and ",
            $t,
            ", ",
            $mask,
            ", ",
            $d2,
            ", lsl #2\n",
            "ssub16 ",
            $t,
            ", ",
            $d4,
            ", ",
            $t,
            "\n",
            "and ",
            $u,
            ", ",
            $mask,
            ", ",
            $d1,
            ", lsl #2\n",
            "ssub16 ",
            $u,
            ", ",
            $d3,
            ", ",
            $u,
            "\n",
            "ssub16 ",
            $d0,
            ", ",
            $d0,
            ", ",
            $d2,
            "\n",
            "and ",
            $d0,
            ", ",
            $mask,
            ", ",
            $d0,
            ", lsl #2\n",
            "ssub16 ",
            $d4,
            ", ",
            $d4,
            ", ",
            $d2,
            "\n",
            "sadd16 ",
            $d0,
            ", ",
            $d0,
            ", ",
            $d4,
            "\n",
            "sadd16 ",
            $d2,
            ", ",
            $t,
            ", ",
            $u,
            "\n",
            $y0,
            "\n",
            $y1,
            "\n",
            "ssub16 ",
            $t,
            ", ",
            $t,
            ", ",
            $u,
            "\n",
            $y2,
            "\n",
            "ssub16 ",
            $d5,
            ", ",
            $d5,
            ", ",
            $d3,
            "\n",
            "ssub16 ",
            $d1,
            ", ",
            $d3,
            ", ",
            $d1,
            "\n",
            "sadd16 ",
            $u,
            ", ",
            $d1,
            ", ",
            $d1,
            "\n",
            "sadd16 ",
            $d3,
            ", ",
            $d4,
            ", ",
            $u,
            "\n",
            $y3,
            "\n",
            "ssub16 ",
            $d4,
            ", ",
            $d4,
            ", ",
            $u,
            "\n",
            $y4,
            "\n",
            "and ",
            $d1,
            ", ",
            $mask,
            ", ",
            $d1,
            ", lsl #2\n",
            "ssub16 ",
            $d5,
            ", ",
            $d5,
            ", ",
            $d1,
            "\n",
            $y5,
            "\n",
        )
    };
}

#[cfg(skipstone_dsp)]
macro_rules! half_column_m4 {
    ($rotation:literal) => {
        concat!(
            "ldmia r0, {{r2-r4, r6-r8}}\n",
            ".irp d, r2, r3, r4, r6, r7, r8\n",
            "ldr.w \\d, [\\d, r10]\n",
            ".endr\n",
            ".irp d, r2, r3, r4, r6, r7, r8\n",
            "sxtb16 \\d, \\d",
            $rotation,
            "\n",
            ".endr\n",
            large_m4!("r2", "r3", "r4", "r6", "r7", "r8", "r5", "r9", "lr", ["", "", "", "", "", ""]),
            "stmia r1!, {{r2, r4-r8}}\n",
        )
    };
}

/// [`columns_large`] in assembly.
///
/// # Safety
/// The first six words of `column` are pointers to sixteen readable bytes each, of any alignment. `to` is aligned and
/// writable for `PAIRS * 6` words, which overlap none of these bytes.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn columns_large_m4(column: *const Column, to: *mut u32) {
    assembly!(
        "push {{r4-r10, lr}}",
        "mvn lr, #0x30000",
        "mov r10, #0", // the word's offset
        "1:",
        half_column_m4!(""),
        half_column_m4!(", ror #8"),
        "add r10, r10, #4",
        "cmp r10, #2 * {pairs}",
        "bne 1b",
        "pop {{r4-r10, pc}}",
        pairs = const PAIRS,
    )
}

/// `step` is in bytes. r12 counts: tiles in bits 30 and 31, pairs in bits 24 to 26, rows in those between.
///
/// # Safety
/// `lines` is readable for 10 columns of `PAIRS * 4` words. `to` is writable for `COLUMNS * PAIRS` words in each of 16
/// slots, `step` bytes, a multiple of 4, apart. All are aligned and do not overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn rows_small_m4(lines: *const u32, to: *mut u32, step: usize) {
    assembly!(
        "push {{r4-r7, r11, lr}}",
        "mov r12, #0",
        "1:", // a tile
        "ldr r3, [r0]",
        "ldr r4, [r0, #128]", // a column: four rows of eight pairs
        "ldr r5, [r0, #256]",
        "ldr r6, [r0, #384]",
        "add r11, r1, r2",
        "ssub16 r3, r3, r5",
        "sadd16 r7, r4, r5",
        "str r3, [r1], #4",
        "str r7, [r11]",
        "add r11, r11, r2",
        "ssub16 r5, r5, r4",
        "str r5, [r11]",
        "add r11, r11, r2",
        "ssub16 r4, r4, r6",
        "str r4, [r11]",
        "add r0, r0, #256",
        "adds r12, r12, #1 << 30",
        "bcc 1b",
        "subw r0, r0, #4 * 256 - 16",
        "add r12, r12, #1 << 24",
        "tst r12, #7 << 24",
        "bne 1b",
        "sub r0, r0, #8 * 16 - 4",
        "sub r1, r1, #8 * 16",
        "add r1, r1, r2, lsl #2",
        "cmp r12, #4 << 27",
        "bne 1b",
        "pop {{r4-r7, r11, pc}}",
    )
}

/// As [`rows_small_m4`], for large tiles.
///
/// # Safety
/// `lines` is readable for 18 columns of `PAIRS * 6` words. `to` is writable for `COLUMNS * PAIRS` words in each of 36
/// slots, `step` bytes, a multiple of 4, apart. All are aligned and do not overlap.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn rows_large_m4(lines: *const u32, to: *mut u32, step: usize) {
    assembly!(
        "push {{r4-r11, lr}}",
        "mvn lr, #0x30000",
        "mov r12, #0",
        "1:", // a tile
        "ldr r3, [r0]",
        "ldr r4, [r0, #192]", // a column: six rows of eight pairs
        "ldr r5, [r0, #384]",
        "ldr r7, [r0, #576]",
        "ldr r8, [r0, #768]",
        "ldr r9, [r0, #960]",
        "add r11, r1, r2",
        large_m4!(
            "r3",
            "r4",
            "r5",
            "r7",
            "r8",
            "r9",
            "r6",
            "r10",
            "lr",
            [
                "str r3, [r1], #4",
                "str r5, [r11]\nadd r11, r11, r2",
                "str r6, [r11]\nadd r11, r11, r2",
                "str r7, [r11]\nadd r11, r11, r2",
                "str r8, [r11]\nadd r11, r11, r2",
                "str r9, [r11]"
            ]
        ),
        "add r0, r0, #768",
        "adds r12, r12, #1 << 30",
        "bcc 1b",
        "sub r0, r0, #4 * 768 - 24",
        "add r12, r12, #1 << 24",
        "tst r12, #7 << 24",
        "bne 1b",
        "sub r0, r0, #8 * 24 - 4",
        "sub r1, r1, #8 * 16",
        "add r1, r1, r2, lsl #2",
        "add r1, r1, r2, lsl #1",
        "cmp r12, #6 << 27",
        "bne 1b",
        "pop {{r4-r11, pc}}",
    )
}

/// 17 columns of lines become 25 slots of four tiles, `step` words apart.
///
/// # Safety
/// `lines` is readable for 17 columns of `PAIRS * 5` words. `to` is writable for `COLUMNS * PAIRS` words in each of 25
/// slots, `step` words apart. All are aligned and do not overlap.
#[cfg(not(skipstone_dsp))]
#[allow(unsafe_code)]
unsafe fn rows_polyphase(lines: *const u32, to: *mut u32, step: usize) {
    const ROWS: usize = 5;
    for (row, slots) in SLOTS.iter().enumerate() {
        // SAFETY: `row` is below 5 and pairs below PAIRS: words of a column. Columns are at most 4 * 3 + 4, of 17; the
        // slots in [`SLOTS`] are below 25; tiles below COLUMNS, of `COLUMNS * PAIRS` words of a slot (contract).
        unsafe {
            let mut from = lines.add(row);
            let mut to = slots.map(|slot| to.add(usize::from(slot) * step));
            for _ in 0..PAIRS {
                let at = |column: usize| from.add(PAIRS * ROWS * column).read();
                let tile = |tile: usize, c0| {
                    let (c1, c2) = (at(4 * tile + 1), at(4 * tile + 2));
                    to[0].add(tile).write(ssub16(c0, c2));
                    to[1].add(tile).write(c2);
                    to[3].add(tile).write(c1);
                    let (c3, c4) = (at(4 * tile + 3), at(4 * tile + 4));
                    to[2].add(tile).write(ssub16(c4, c2));
                    to[4].add(tile).write(c3);
                    c4
                };
                tile(3, tile(2, tile(1, tile(0, at(0)))));
                from = from.add(ROWS);
                for to in &mut to {
                    *to = to.wrapping_add(COLUMNS);
                }
            }
        }
    }
}

/// As [`rows_small_m4`], for stride 2, but lr counts.
///
/// # Safety
/// `lines` is readable for 17 columns of `PAIRS * 5` words. `to` is writable for `COLUMNS * PAIRS` words in each of 25
/// slots, `step` bytes, a multiple of 4, apart. All are aligned and do not overlap. `slots` are below 25.
#[cfg(skipstone_dsp)]
#[allow(unsafe_code)]
#[unsafe(naked)]
unsafe extern "C" fn rows_polyphase_m4(lines: *const u32, to: *mut u32, step: usize, slots: &[[u8; 5]; 5]) {
    assembly!(
        "push {{r3-r12, lr}}", // sp + 0: slots
        "mov lr, #0",
        "1:", // a row
        "ldr r3, [sp]",
        ".irp slot, r8, r9, r10, r11, r12",
        "ldrb \\slot, [r3], #1",
        "mul \\slot, \\slot, r2",
        ".endr",
        "str r3, [sp]",
        "2:", // a tile
        "ldr r3, [r0]",
        "ldr r4, [r0, #160]", // a column: five rows of eight pairs
        "ldr r5, [r0, #320]",
        "ldr r6, [r0, #480]",
        "ldr r7, [r0, #640]",
        "ssub16 r3, r3, r5",
        "ssub16 r7, r7, r5",
        "str r3, [r1, r8]",
        "str r5, [r1, r9]",
        "str r7, [r1, r10]",
        "str r4, [r1, r11]",
        "str r6, [r1, r12]",
        "add r1, r1, #4",
        "add r0, r0, #640",
        "adds lr, lr, #1 << 30",
        "bcc 2b",
        "subw r0, r0, #4 * 640 - 20",
        "add lr, lr, #1 << 24",
        "tst lr, #7 << 24",
        "bne 2b",
        "sub r0, r0, #8 * 20 - 4",
        "sub r1, r1, #8 * 16",
        "cmp lr, #5 << 27",
        "bne 1b",
        "pop {{r3-r12, pc}}",
    )
}
