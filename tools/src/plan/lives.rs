//! When each row is made and read for the last time: the schedule, followed once.

use std::collections::HashMap;

use skipstone::host::plan::ROW_ALIGN;
use skipstone::host::schedule::{Node, Segment, Step, Tensor};

use super::place::Slot;

/// An entry of a tensor in the row table, tensors being numbered through the network, the input first: a row (a
/// contiguous tensor's only entry is 0), or after the rows, the scratch memory of one of the steps that make the
/// tensor.
pub(super) type Row = (usize, u16);

/// The lives of rows, in steps of the whole schedule.
pub(super) struct Lives {
    /// In the order of birth.
    rows: Vec<(Row, usize)>,
    death: HashMap<Row, usize>,
    /// A row and the shortcut row onto which it may be added in place.
    in_place: HashMap<Row, Row>,
    pub(super) steps: usize,
}

impl Lives {
    /// Before the first segment; `there` says that the rows of `input` exist already.
    pub(super) fn new(input: Tensor, there: bool) -> Self {
        let (mut rows, mut steps) = (Vec::new(), 0);
        if there {
            rows.extend((0..input.rows).map(|row| ((0, row), 0)));
            steps = 1;
        }
        Lives { rows, death: HashMap::new(), in_place: HashMap::new(), steps }
    }

    /// Follows the schedule of a segment; `fed` says that its input is taken row by row.
    pub(super) fn follow(&mut self, segment: &Segment<'_>, fed: bool) {
        let mut made = vec![0; segment.nodes.len() + 1];
        made[0] = if fed { 0 } else { segment.input.rows };
        while let Some(step) = segment.next(&made) {
            self.step(segment, &made, step);
            made[usize::from(step.tensor)] += step.count;
            self.steps += 1;
        }
        // the proof reads the segment's last tensor once more, and the caller reads the outputs
        let last = segment.nodes.len() as u16;
        let end = self.steps.saturating_sub(1);
        for row in 0..segment.begun(&made, last) {
            self.read(row_of(segment, last, row), end);
        }
        for (tensor, node) in (1..).zip(segment.nodes) {
            if node.kept {
                self.death.insert(row_of(segment, tensor, 0), usize::MAX);
            }
        }
    }

    fn step(&mut self, segment: &Segment<'_>, made: &[u16], step: Step) {
        let now = self.steps;
        let Some(node) = segment.node(step.tensor) else {
            self.rows.push((row_of(segment, 0, step.first), now));
            return;
        };
        if node.scratch(step.first).is_some() {
            let entry = node.output.entries() as u16 + step.first / u16::from(node.strip);
            let id = (usize::from(segment.first + step.tensor), entry);
            self.rows.push((id, now));
            self.death.insert(id, now);
        }
        if node.reduction {
            if step.first == 0 {
                self.rows.push((row_of(segment, step.tensor, 0), now));
            }
            self.read(row_of(segment, step.tensor, 0), now);
            self.read(row_of(segment, node.reads, step.first), now);
            return;
        }
        for row in step.first..step.first + step.count {
            let id = row_of(segment, step.tensor, row);
            if !node.kept || row == 0 {
                self.rows.push((id, now));
            }
            self.read(id, now);
            let Some(read) = node.shortcut else { continue };
            let other = row * u16::from(read.stride);
            let from = row_of(segment, read.tensor, other);
            self.read(from, now);
            // a frame's row may share a word with the next one, which lives on
            let shortcut = segment.tensor(read.tensor);
            let whole = !shortcut.contiguous || shortcut.row_bytes.is_multiple_of(ROW_ALIGN as u32);
            if whole && !node.kept && segment.in_place(made, step.tensor, row, read.tensor, other) {
                self.in_place.insert(id, from);
            }
        }
        for row in node.window.rows(step.first, step.count, node.input_rows).flatten() {
            self.read(row_of(segment, node.reads, row), now);
        }
    }

    /// A row is alive in a step.
    fn read(&mut self, row: Row, step: usize) {
        let death = self.death.entry(row).or_insert(step);
        *death = step.max(*death);
    }

    /// Joins rows into slots; returns them and the slot of each row. `frame` says that the rows of `input` are stored
    /// consecutively.
    pub(super) fn slots(
        &self,
        input: Tensor,
        frame: bool,
        nodes: &[Node],
    ) -> (Vec<Slot>, HashMap<Row, usize>) {
        let mut slots: Vec<Slot> = Vec::new();
        let mut slot_of: HashMap<Row, usize> = HashMap::with_capacity(self.rows.len());
        for &(row, birth) in &self.rows {
            let death = self.death.get(&row).copied().unwrap_or(birth);
            let joined = self.in_place.get(&row).and_then(|shortcut| slot_of.get(shortcut)).copied();
            let index = joined.unwrap_or(slots.len());
            if joined.is_none() {
                slots.push(slot(row, birth, death, input, frame, nodes));
            }
            slots[index].death = slots[index].death.max(death);
            slot_of.insert(row, index);
        }
        if frame {
            // the table has one entry for all rows
            slot_of.retain(|&(tensor, row), _| tensor != 0 || row == 0);
        }
        (slots, slot_of)
    }
}

/// The memory of a row.
fn slot((tensor, row): Row, birth: usize, death: usize, input: Tensor, frame: bool, nodes: &[Node]) -> Slot {
    let Some(node) = tensor.checked_sub(1).map(|layer| &nodes[layer]) else {
        let bytes = input.row_bytes as usize;
        let in_frame = frame.then(|| usize::from(row) * bytes);
        // the frame's rows are stored consecutively, others begin at words
        let bytes = if frame { bytes } else { bytes.next_multiple_of(ROW_ALIGN) };
        return Slot { bytes, birth, death, in_frame };
    };
    let bytes = match (u32::from(row) < node.output.entries(), node.kept) {
        (true, false) => node.output.row_bytes as usize,
        (true, true) => kept_bytes(node),
        (false, _) => node.scratch_bytes as usize,
    };
    Slot { bytes: bytes.next_multiple_of(ROW_ALIGN), birth, death, in_frame: None }
}

/// A row of a segment's tensor.
fn row_of(segment: &Segment<'_>, tensor: u16, row: u16) -> Row {
    let number = usize::from(segment.first + tensor);
    // of an output all rows have one entry; those of the frame have slots of their own
    let kept = segment.node(tensor).is_some_and(|node| node.kept)
        || (tensor == 0 && segment.first > 0 && segment.input.contiguous);
    (number, if kept { 0 } else { row })
}

/// Bytes of an output of the network.
pub(super) fn kept_bytes(node: &Node) -> usize {
    (node.output.row_bytes as usize * usize::from(node.output.rows)).next_multiple_of(ROW_ALIGN)
}
