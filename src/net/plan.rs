//! The memory plan: the address of every row in the arena, and the proof that rows can share it.

use core::ops::Range;

use crate::net::schedule::{Segment, Step, Tensor};

/// Unit of the row table's addresses, in bytes: rows begin at multiples of a word.
pub const ROW_ALIGN: usize = 4;

/// The memory plan, read in place from flash; see `docs/format.md`.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Address of each row in units of [`ROW_ALIGN`] bytes, tensor by tensor; after the rows of a tensor, the
    /// address of each step's scratch memory.
    pub rows: &'a [u16],
    /// Strip height of each layer.
    pub strips: &'a [u8],
    /// Number of layers in each segment.
    pub segments: &'a [u8],
}

/// Maximum number of words that a [`Proof`] may visit: a few hundred times what networks for these machines need,
/// and a few seconds on a Cortex-M4.
pub const MAX_VISITS: u32 = 1 << 26;

/// Why a plan is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A row is outside the arena, or is overwritten before it is read for the last time.
    Misplaced {
        /// Number of the tensor in the network: 0 is the input, layer i makes tensor i + 1.
        tensor: u16,
        /// Row of the tensor.
        row: u16,
    },
    /// The proof would visit more than [`MAX_VISITS`] words.
    TooLong,
}

impl Plan<'_> {
    /// Address of a row in the arena, in bytes; beyond every arena if the table does not have the row.
    pub fn address(&self, tensor: Tensor, row: u16) -> usize {
        let (entry, offset) = match tensor.contiguous {
            true => (0, usize::from(row).saturating_mul(tensor.row_bytes as usize)),
            false => (usize::from(row), 0),
        };
        let entry = (tensor.base as usize).checked_add(entry).and_then(|index| self.rows.get(index));
        entry.map_or(usize::MAX, |entry| (usize::from(*entry) * ROW_ALIGN).saturating_add(offset))
    }

    /// The bytes of a row in the arena; `None` if it is not inside.
    #[inline(never)]
    pub fn row(&self, tensor: Tensor, row: u16) -> Option<Range<usize>> {
        let start = self.address(tensor, row);
        let end = start.checked_add(tensor.row_bytes as usize)?;
        (end <= self.arena_bytes).then_some(start..end)
    }
}

/// The proof that a plan is sound: its schedule, run without arithmetic in the arena itself.
///
/// A row that is made writes its number on each of its words; scratch memory writes the number of no row. When a
/// step has made its rows, all rows that it reads must still have their numbers. Nothing is made twice, so a number
/// that is overwritten never comes back. Only rows of a contiguous tensor may begin between words, and those all
/// have one number.
#[derive(Debug)]
pub struct Proof<'p> {
    plan: &'p Plan<'p>,
    words: &'p mut [u32],
    /// Visits of words that are left.
    visits: u32,
}

/// What scratch memory writes: no tensor has so many rows.
const SCRATCH: u32 = u32::MAX;

impl<'p> Proof<'p> {
    /// A proof of `plan` in the `words` of its arena, whose contents are lost.
    pub const fn new(plan: &'p Plan<'p>, words: &'p mut [u32]) -> Self {
        Proof { plan, words, visits: MAX_VISITS }
    }

    /// Number of words visited so far, repeated visits included.
    pub const fn visits(&self) -> u32 {
        MAX_VISITS - self.visits
    }

    /// Proves a segment, of whose input the rows exist that `made` states, and runs it to its end. Segments are
    /// proved in order.
    ///
    /// # Errors
    /// [`Refusal`], for the first row that is lost or outside.
    pub fn segment(&mut self, segment: &Segment<'_>, made: &mut [u16]) -> Result<(), Refusal> {
        // the frame; what the segment before has made is there already
        if segment.first == 0 {
            (0..segment.begun(made, 0)).try_for_each(|row| self.make(segment, 0, row))?;
        }
        while let Some(step) = segment.next(made) {
            self.step(segment, step)?;
            if let Some(rows) = made.get_mut(usize::from(step.tensor)) {
                *rows += step.count;
            }
        }
        let last = segment.nodes.len() as u16;
        (0..segment.begun(made, last)).try_for_each(|row| self.read(segment, last, row))
    }

    /// Proves that all rows of a tensor of the network are intact.
    ///
    /// # Errors
    /// [`Refusal`], for the first row that is lost or outside.
    pub fn kept(&mut self, number: u16, tensor: Tensor) -> Result<(), Refusal> {
        (0..tensor.rows).try_for_each(|row| self.check(number, tensor, row))
    }

    fn step(&mut self, segment: &Segment<'_>, step: Step) -> Result<(), Refusal> {
        let tensor = step.tensor;
        let Some(node) = segment.node(tensor) else { return self.make(segment, tensor, step.first) };
        if node.reduction {
            // its sums begin with the first row and stay where they are
            if step.first == 0 {
                self.make(segment, tensor, 0)?;
            }
            return self.read(segment, node.reads, step.first);
        }
        let made = step.first..step.first + step.count;
        let shortcut = |row: u16| node.shortcut.map(|read| (read.tensor, row * u16::from(read.stride)));
        for (tensor, row) in made.clone().filter_map(shortcut) {
            self.read(segment, tensor, row)?;
        }
        for row in made.clone() {
            self.make(segment, tensor, row)?;
        }
        if let Some(scratch) = node.scratch(step.first) {
            let misplaced = Refusal::Misplaced { tensor: number(segment, tensor), row: step.first };
            self.visit(scratch, 0, misplaced)?.fill(SCRATCH);
        }
        for row in made {
            self.read(segment, tensor, row)?;
            // the addition in place: exactly on the shortcut's row
            let place = self.plan.row(node.output, row);
            if let Some((tensor, row)) = shortcut(row)
                && self.plan.row(segment.tensor(tensor), row) != place
            {
                self.read(segment, tensor, row)?;
            }
        }
        let under = node.window.rows(step.first, step.count, node.input_rows);
        under.flatten().try_for_each(|row| self.read(segment, node.reads, row))
    }

    /// A row is made: its words get its number.
    #[inline(never)]
    fn make(&mut self, segment: &Segment<'_>, tensor: u16, row: u16) -> Result<(), Refusal> {
        let (shape, tensor) = (segment.tensor(tensor), number(segment, tensor));
        self.visit(shape, row, Refusal::Misplaced { tensor, row })?.fill(mark(tensor, shape, row));
        Ok(())
    }

    /// A row is read: its words must still have its number.
    fn read(&mut self, segment: &Segment<'_>, tensor: u16, row: u16) -> Result<(), Refusal> {
        self.check(number(segment, tensor), segment.tensor(tensor), row)
    }

    #[inline(never)]
    fn check(&mut self, number: u16, tensor: Tensor, row: u16) -> Result<(), Refusal> {
        let (misplaced, mark) = (Refusal::Misplaced { tensor: number, row }, mark(number, tensor, row));
        let words = self.visit(tensor, row, misplaced)?;
        if words.iter().all(|word| *word == mark) { Ok(()) } else { Err(misplaced) }
    }

    /// The words on which a row lies.
    fn visit(&mut self, tensor: Tensor, row: u16, misplaced: Refusal) -> Result<&mut [u32], Refusal> {
        let bytes = self.plan.row(tensor, row).ok_or(misplaced)?;
        let words = bytes.start / ROW_ALIGN..bytes.end.div_ceil(ROW_ALIGN);
        let visits = self.visits.checked_sub(words.len() as u32).ok_or(Refusal::TooLong)?;
        self.visits = visits;
        self.words.get_mut(words).ok_or(misplaced)
    }
}

/// The number of a segment's tensor among those of the network.
const fn number(segment: &Segment<'_>, tensor: u16) -> u16 {
    segment.first.saturating_add(tensor)
}

/// What a row writes on its words.
fn mark(number: u16, tensor: Tensor, row: u16) -> u32 {
    let row = if tensor.contiguous { 0 } else { row };
    u32::from(number) << 16 | u32::from(row)
}
