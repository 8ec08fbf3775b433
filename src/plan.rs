//! The memory plan: where every row lies in the arena, and the proof that it can lie there.

use core::ops::Range;

use crate::schedule::{Segment, Step, Tensor};

/// Unit of the row table's addresses, in bytes: rows begin at multiples of a word.
pub const ROW_ALIGN: usize = 4;

/// The memory plan as it lies in flash; see `docs/format.md`.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Address of each row in units of [`ROW_ALIGN`] bytes, tensor by tensor, and of each step's scratch
    /// memory behind the rows of its tensor.
    pub rows: &'a [u16],
    /// Strip height of each layer.
    pub strips: &'a [u8],
    /// Number of stages in each segment.
    pub segments: &'a [u8],
}

/// A row that the plan puts where it cannot lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced {
    /// Tensor within its segment.
    pub tensor: u16,
    /// Row of the tensor.
    pub row: u16,
}

impl Plan<'_> {
    /// Address of a row in the arena, in bytes. A row that the table does not have lies behind every
    /// arena.
    pub fn address(&self, tensor: Tensor, row: u16) -> usize {
        let (entry, offset) = match tensor.contiguous {
            true => (0, usize::from(row).saturating_mul(tensor.row_bytes as usize)),
            false => (usize::from(row), 0),
        };
        let entry = (tensor.base as usize).checked_add(entry).and_then(|index| self.rows.get(index));
        entry.map_or(usize::MAX, |entry| (usize::from(*entry) * ROW_ALIGN).saturating_add(offset))
    }

    /// The bytes of a row in the arena; `None` where it does not lie within.
    pub fn row(&self, tensor: Tensor, row: u16) -> Option<Range<usize>> {
        let start = self.address(tensor, row);
        let end = start.checked_add(tensor.row_bytes as usize)?;
        (end <= self.arena_bytes).then_some(start..end)
    }

    /// Runs a segment's schedule without arithmetic, row by row, from `made` on: every row lies within
    /// the arena, none overwrites a row that is still to be read, and scratch memory overlaps nothing.
    ///
    /// # Errors
    /// The first row that is misplaced, or whose step's scratch memory is.
    pub fn prove(&self, segment: &Segment<'_>, made: &mut [u16]) -> Result<(), Misplaced> {
        // rows that are there before the first step: the frame, or the segment before's output
        for row in 0..segment.begun(made, 0) {
            self.row(segment.input, row).ok_or(Misplaced { tensor: 0, row })?;
        }
        while let Some(step) = segment.next(made) {
            self.prove_step(segment, made, step)?;
            if let Some(rows) = made.get_mut(usize::from(step.tensor)) {
                *rows += step.count;
            }
        }
        Ok(())
    }

    fn prove_step(&self, segment: &Segment<'_>, made: &[u16], step: Step) -> Result<(), Misplaced> {
        let node = segment.node(step.tensor);
        let rows = match (node.is_some_and(|node| node.reduction), step.first) {
            (false, first) => first..first + step.count,
            (true, 0) => 0..1,          // its sums are begun,
            (true, _) => return Ok(()), // and stay where they are
        };
        let output = segment.tensor(step.tensor);
        for row in rows.clone() {
            let misplaced = Misplaced { tensor: step.tensor, row };
            let new = self.row(output, row).ok_or(misplaced)?;
            // those before it in the same strip live too
            for other in rows.start..row {
                self.apart(&new, output, other).ok_or(misplaced)?;
            }
            self.clear_of_live(segment, made, &new, |tensor, other| {
                segment.in_place(made, step.tensor, row, tensor, other)
            })
            .ok_or(misplaced)?;
        }
        if let Some(scratch) = node.and_then(|node| node.scratch(step.first)) {
            let misplaced = Misplaced { tensor: step.tensor, row: step.first };
            let scratch = self.row(scratch, 0).ok_or(misplaced)?;
            for row in rows {
                self.apart(&scratch, output, row).ok_or(misplaced)?;
            }
            self.clear_of_live(segment, made, &scratch, |_, _| false).ok_or(misplaced)?;
        }
        Ok(())
    }

    /// Whether `new` shares no byte with a live row, but for one that it is `allowed` to lie on exactly.
    fn clear_of_live(
        &self,
        segment: &Segment<'_>,
        made: &[u16],
        new: &Range<usize>,
        allowed: impl Fn(u16, u16) -> bool,
    ) -> Option<()> {
        for tensor in (0u16..).take(segment.nodes.len() + 1) {
            for other in segment.first_alive(made, tensor)..segment.begun(made, tensor) {
                let old = self.row(segment.tensor(tensor), other)?;
                let overlap = new.start < old.end && old.start < new.end;
                if overlap
                    && segment.is_alive(made, tensor, other)
                    && !(*new == old && allowed(tensor, other))
                {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Whether `new` shares no byte with a row.
    fn apart(&self, new: &Range<usize>, tensor: Tensor, row: u16) -> Option<()> {
        let old = self.row(tensor, row)?;
        (new.start >= old.end || old.start >= new.end).then_some(())
    }
}
