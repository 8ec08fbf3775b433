//! One step of a run, on slices of the arena.

use core::ops::Range;

use heapless::Vec;

use crate::base::quantization::Addition;
use crate::kernels;
use crate::net::layer::{Join, Operation};
use crate::net::plan::Plan;
use crate::net::schedule::{Node, Segment, Step};
use crate::ops::{Finished, Reduction, Windowed};

/// Maximum number of rows that one step reads and makes: a strip and the rows under its windows.
pub const MAX_STEP_ROWS: usize = 16;

/// Slices of the arena in a step: its rows, and scratch memory.
const SLICES: usize = MAX_STEP_ROWS + 1;

/// The arena, and where its rows are. The methods return `None` only if the row table has changed since the plan
/// was proved.
pub(super) struct Memory<'m> {
    pub(super) plan: &'m Plan<'m>,
    pub(super) segment: &'m Segment<'m>,
    pub(super) arena: &'m mut [i8],
}

impl Memory<'_> {
    /// Makes one step. `cargo xtask bench` attributes cost to layers by the calls of this function.
    #[inline(never)]
    pub(super) fn run<const KERNELS: u16>(&mut self, operation: &Operation<'_>, step: Step) -> Option<()> {
        let node = self.segment.node(step.tensor)?;
        match operation {
            Operation::Windowed(layer) => self.strip::<KERNELS>(layer, None, node, step),
            Operation::Addition(layer, join) => {
                self.lay_shortcut(join, layer, node, step)?;
                self.strip::<KERNELS>(layer, Some(&join.addition), node, step)
            }
            Operation::Reduction(layer) => self.reduce(layer, node, step),
        }
    }

    /// Makes a strip of rows, in slices of the arena: scratch memory, the rows that are made, and the rows under
    /// the windows.
    fn strip<const KERNELS: u16>(
        &mut self,
        layer: &Windowed<'_>,
        addition: Option<&Addition>,
        node: &Node,
        step: Step,
    ) -> Option<()> {
        let (plan, input) = (self.plan, self.segment.tensor(node.reads));
        let row_len = layer.input().row_len();
        let scratch = node.scratch(step.first).map_or(Some(0..0), |tensor| plan.row(tensor, 0));
        let made = (step.first..step.first + step.count).map(|row| plan.row(node.output, row));
        let under = layer.window().rows(step.first, step.count, node.input_rows).map(|row| match row {
            Some(row) => plan.row(input, row).map(|bytes| bytes.start..bytes.start + row_len),
            None => Some(0..0), // a row of padding
        });
        let mut slices = Vec::new();
        carve(self.arena, core::iter::once(scratch).chain(made).chain(under), &mut slices)?;
        let (scratch, rows) = slices.split_first_mut()?;
        // an empty one may be misaligned
        let scratch = bytemuck::try_cast_slice_mut(scratch).unwrap_or_default();
        let (output, read) = rows.split_at_mut_checked(usize::from(step.count))?;
        let mut input = Vec::<&[i8], SLICES>::new();
        for row in read {
            input.push(row).ok()?;
        }
        kernels::strip::<KERNELS>(layer, addition, &input, output, scratch);
        Some(())
    }

    /// Copies the shortcut's rows to where the step's output rows will be, unless they are there already.
    fn lay_shortcut(&mut self, join: &Join, layer: &Windowed<'_>, node: &Node, step: Step) -> Option<()> {
        let read = node.shortcut?;
        let shortcut = self.segment.tensor(read.tensor);
        for row in step.first..step.first + step.count {
            let from = self.plan.row(shortcut, row.checked_mul(u16::from(read.stride))?)?;
            let to = self.plan.row(node.output, row)?;
            self.lay_row(join, usize::from(layer.output().channels), from, to)?;
        }
        Some(())
    }

    /// Copies one shortcut row to `to`, subsampled and padded with zero channels. If both rows begin at the same
    /// address, no pixel is written before it is read: the plan's proof demands rows of equal length then, so that
    /// output pixel x ends before input pixel stride * (x + 1) begins.
    fn lay_row(&mut self, join: &Join, channels: usize, from: Range<usize>, to: Range<usize>) -> Option<()> {
        let taken = usize::from(join.channels);
        let stride = usize::from(join.subsample.stride[1]);
        if stride == 1 && taken == channels {
            // as long as the output's row: a reduction's values are followed by the remains of its sums
            let from = from.start..from.start + to.len();
            return if from.start == to.start { Some(()) } else { self.copy(from, to.start) };
        }
        let before = usize::from(join.subsample.channels_before);
        let zero = join.addition.shortcut_zero_point();
        for (from, to) in from.step_by((stride * taken).max(1)).zip(to.step_by(channels.max(1))) {
            self.copy(from..from + taken, to + before)?;
            self.arena.get_mut(to..to + before)?.fill(zero);
            self.arena.get_mut(to + before + taken..to + channels)?.fill(zero);
        }
        Some(())
    }

    /// Copies bytes within the arena; the ranges may overlap.
    fn copy(&mut self, from: Range<usize>, to: usize) -> Option<()> {
        // byte by byte, in the direction that is safe for overlaps: too rare to link a memmove for it
        let (start, count) = (from.start, from.end.checked_sub(from.start)?);
        for step in 0..count {
            let offset = if to <= start { step } else { count - 1 - step };
            let byte = *self.arena.get(start.checked_add(offset)?)?;
            *self.arena.get_mut(to.checked_add(offset)?)? = byte;
        }
        Some(())
    }

    /// Adds an input row to a reduction's sums; after the last row they become its output, in place.
    fn reduce(&mut self, layer: &Reduction<'_>, node: &Node, step: Step) -> Option<()> {
        let start = self.plan.row(self.segment.tensor(node.reads), step.first)?.start;
        let output = self.plan.row(node.output, 0)?;
        let input = start..start + layer.input().row_len();
        let [row, input] = self.arena.get_disjoint_mut([output, input]).ok()?;
        let sums: &mut [i32] = bytemuck::try_cast_slice_mut(row).ok()?;
        if step.first == 0 {
            layer.begin(sums);
        }
        layer.accumulate(step.first, input, sums);
        if step.first + step.count < node.steps() {
            return Some(());
        }
        for index in 0..sums.len() {
            match layer.finished(index, *sums.get(index)?) {
                Finished::Score(score) => *sums.get_mut(index)? = score.to_bits().cast_signed(),
                // value `index` goes to byte `index`, which no later sum uses
                Finished::Value(value) => {
                    let bytes: &mut [i8] = bytemuck::cast_slice_mut(sums);
                    *bytes.get_mut(index)? = value;
                }
            }
        }
        Some(())
    }
}

/// Cuts disjoint `ranges` out of the arena, in their order; `None` if they are not disjoint. Empty ranges have no
/// position.
fn carve<'m>(
    mut arena: &'m mut [i8],
    ranges: impl Iterator<Item = Option<Range<usize>>>,
    slices: &mut Vec<&'m mut [i8], SLICES>,
) -> Option<()> {
    let mut cuts = Vec::<(Range<usize>, usize), SLICES>::new();
    for (index, range) in ranges.enumerate() {
        slices.push(&mut []).ok()?;
        let mut cut = (range?, index);
        if cut.0.is_empty() {
            continue;
        }
        // the lowest address first: each takes the place of the first that is higher
        for place in &mut cuts {
            if cut.0.start < place.0.start {
                core::mem::swap(place, &mut cut);
            }
        }
        cuts.push(cut).ok()?;
    }
    let mut end = 0;
    for (range, index) in &cuts {
        let (_, rest) = arena.split_at_mut_checked(range.start.checked_sub(end)?)?;
        let (slice, rest) = rest.split_at_mut_checked(range.end - range.start)?;
        *slices.get_mut(*index)? = slice;
        (arena, end) = (rest, range.end);
    }
    Some(())
}
