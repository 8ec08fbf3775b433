//! What a memory plan holds at its peak: its schedule followed row by row, without arithmetic.

use anyhow::{Context, Result};
use serde::Serialize;
use skipstone::Model;
use skipstone::host::plan::Plan;
use skipstone::host::schedule::{Node, Segment, Step, Tensor};

/// A memory plan and its peak: the step at which most bytes of rows are alive.
#[derive(Debug, Serialize)]
pub(crate) struct Occupancy {
    /// Bytes of the arena.
    pub(crate) arena_bytes: usize,
    /// Bytes of the rows that are alive at the peak: no plan for these segments can have a smaller arena.
    pub(crate) peak_bytes: usize,
    /// Rows of the network's input that are alive at the peak.
    pub(crate) input_rows_alive: u16,
    /// The segments, in order of execution.
    pub(crate) segments: Vec<SegmentOccupancy>,
    /// The layers, in order of execution; they stand in the report's list of layers.
    #[serde(skip)]
    pub(crate) layers: Vec<Placement>,
}

/// A run of layers that stream through each other.
#[derive(Debug, Serialize)]
pub(crate) struct SegmentOccupancy {
    /// Number of layers.
    pub(crate) layers: u8,
    /// Number of tensors: the input and an output for each layer. `Network`'s `TENSORS` must hold it.
    pub(crate) tensors: usize,
    /// Most bytes of rows that are alive at a time.
    pub(crate) peak_bytes: usize,
}

/// A layer in a memory plan.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Placement {
    /// Number of its segment, from 1 on.
    pub(crate) segment: usize,
    /// Rows made in one step.
    pub(crate) strip: u8,
    /// Rows of its output that are alive at the peak.
    pub(crate) rows_alive: u16,
}

/// What is alive during a step.
#[derive(Debug, Default)]
struct Moment {
    bytes: usize,
    /// Rows that are alive of each of the segment's tensors.
    rows: Vec<u16>,
}

/// A segment of a plan, with the nodes of its layers.
pub(crate) struct Part {
    /// Number of its input tensor among those of the network.
    pub(crate) first: usize,
    /// Its input.
    pub(crate) input: Tensor,
    /// Rows of the input that are there when it begins.
    pub(crate) input_rows: u16,
    pub(crate) nodes: Vec<Node>,
}

impl Part {
    /// The segment as the schedule sees it.
    pub(crate) fn segment(&self) -> Segment<'_> {
        Segment { first: self.first as u16, input: self.input, nodes: &self.nodes }
    }
}

/// The segments of the model's plan for a frame in the arena, or for an input fed by rows.
pub(crate) fn parts(model: &Model<'_>, plan: &Plan<'_>, frame: bool) -> Result<Vec<Part>> {
    let few = "the plan has too few layers";
    let shape = model.input();
    let mut input =
        Tensor { rows: shape.height, row_bytes: shape.row_len() as u32, base: 0, contiguous: frame };
    let mut base = input.entries();
    let (mut layers, mut first, mut parts) = (model.layers(), 0, Vec::new());
    for (index, count) in plan.segments.iter().enumerate() {
        let mut nodes = Vec::<Node>::new();
        for entry in layers.by_ref().take(usize::from(*count)) {
            let strip = *plan.strips.get(first + nodes.len()).context(few)?;
            let node = entry?.layer.place(u16::try_from(first)?, strip, base);
            let node = node.context("a layer reads what an earlier segment has made")?;
            base += node.entries();
            nodes.push(node);
        }
        let fed = index == 0 && !frame;
        let output = nodes.last().context(few)?.output;
        let next = first + nodes.len();
        parts.push(Part { first, input, input_rows: if fed { 0 } else { input.rows }, nodes });
        (first, input) = (next, output);
    }
    Ok(parts)
}

/// Follows the schedule of the model's plan for a frame in the arena, or for an input fed by rows. The
/// plan must be proved.
pub(crate) fn occupancy(model: &Model<'_>, frame: bool) -> Result<Occupancy> {
    let plan = model.memory_plan(frame).context("the blob has no memory plan")?;
    let mut occupancy = Occupancy {
        arena_bytes: plan.arena_bytes,
        peak_bytes: 0,
        input_rows_alive: 0,
        segments: Vec::new(),
        layers: Vec::new(),
    };
    let (mut peak, mut peak_first) = (Moment::default(), 0);
    // outputs of earlier segments stay where they are
    let (mut kept, mut input_kept) = (0, false);
    for (index, part) in parts(model, &plan, frame)?.iter().enumerate() {
        let segment = part.segment();
        let mut moment = fullest(&plan, &segment, part.input_rows);
        moment.bytes += kept;
        let (layers, tensors, peak_bytes) = (part.nodes.len() as u8, part.nodes.len() + 1, moment.bytes);
        occupancy.segments.push(SegmentOccupancy { layers, tensors, peak_bytes });
        let placement = |node: &Node| Placement { segment: index + 1, strip: node.strip, rows_alive: 0 };
        occupancy.layers.extend(part.nodes.iter().map(placement));
        if moment.bytes > peak.bytes {
            (peak, peak_first) = (moment, part.first);
        }
        let Some((last, inner)) = part.nodes.split_last() else { continue };
        kept += inner.iter().filter(|node| node.kept).map(|node| bytes(&node.output)).sum::<usize>();
        kept += if input_kept { bytes(&part.input) } else { 0 };
        // the next segment counts its input itself
        input_kept = last.kept;
    }
    occupancy.peak_bytes = peak.bytes;
    for (tensor, rows) in peak.rows.into_iter().enumerate() {
        // the segment's input is the output of the layer before it
        match (peak_first + tensor).checked_sub(1).and_then(|layer| occupancy.layers.get_mut(layer)) {
            Some(layer) => layer.rows_alive = rows,
            None => occupancy.input_rows_alive = rows,
        }
    }
    Ok(occupancy)
}

/// Bytes of all rows of a tensor.
fn bytes(tensor: &Tensor) -> usize {
    usize::from(tensor.rows) * tensor.row_bytes as usize
}

/// Follows a segment's schedule, `input_rows` of its input being there when it begins.
fn fullest(plan: &Plan<'_>, segment: &Segment<'_>, input_rows: u16) -> Moment {
    let mut made = vec![0; segment.nodes.len() + 1];
    made[0] = input_rows;
    let mut fullest = Moment::default();
    while let Some(step) = segment.next(&made) {
        let moment = during(plan, segment, &made, step);
        if moment.bytes > fullest.bytes {
            fullest = moment;
        }
        made[usize::from(step.tensor)] += step.count;
    }
    fullest
}

/// What is alive during a step: the rows that it reads, those that it makes, all that wait.
fn during(plan: &Plan<'_>, segment: &Segment<'_>, made: &[u16], step: Step) -> Moment {
    let mut moment = Moment::default();
    for tensor in 0..made.len() as u16 {
        let begun = 0..segment.begun(made, tensor);
        let alive = begun.filter(|row| segment.is_alive(made, tensor, *row)).count();
        moment.rows.push(alive as u16);
        moment.bytes += alive * segment.tensor(tensor).row_bytes as usize;
    }
    let output = segment.tensor(step.tensor);
    let node = segment.node(step.tensor);
    moment.bytes += node.map_or(0, |node| node.scratch_bytes as usize);
    let new = match node {
        Some(node) if node.reduction => 0..u16::from(step.first == 0), // its sums stay
        _ => step.first..step.first + step.count,
    };
    for row in new {
        // an addition in place takes no memory but its shortcut's
        let in_place = node.and_then(|node| node.shortcut).is_some_and(|read| {
            let from = row.saturating_mul(u16::from(read.stride));
            plan.address(segment.tensor(read.tensor), from) == plan.address(output, row)
        });
        moment.rows[usize::from(step.tensor)] += 1;
        moment.bytes += if in_place { 0 } else { output.row_bytes as usize };
    }
    moment
}

#[cfg(test)]
mod tests {
    use skipstone::host::Window;
    use skipstone::host::schedule::ShortcutRead;

    use super::*;

    const ROWS: u16 = 4;
    const ROW_BYTES: u32 = 12;

    fn tensor(base: u32) -> Tensor {
        Tensor { rows: ROWS, row_bytes: ROW_BYTES, base, contiguous: false }
    }

    fn node(reads: u16, kernel: u8, shortcut: Option<u16>, base: u32) -> Node {
        Node {
            reads,
            input_rows: ROWS,
            window: Window::square(kernel, 1, kernel / 2),
            shortcut: shortcut.map(|tensor| ShortcutRead { tensor, stride: 1 }),
            output: tensor(base),
            strip: 1,
            reduction: false,
            scratch_bytes: 0,
            kept: false,
        }
    }

    fn peak(nodes: &[Node], rows: &[u16], input_rows: u16) -> Moment {
        let plan = Plan { arena_bytes: 1024, rows, strips: &[1; 2], segments: &[1] };
        fullest(&plan, &Segment { first: 0, input: tensor(0), nodes }, input_rows)
    }

    #[test]
    fn a_convolution_fed_by_rows_holds_the_rows_under_its_window_and_all_that_it_made() {
        // its third row is the first for which that is six rows
        let peak = peak(&[node(0, 3, None, 4)], &[0; 8], 0);
        assert_eq!(peak.rows, [3, 3]);
        assert_eq!(peak.bytes, 6 * 12);
    }

    #[test]
    fn an_addition_in_place_takes_no_row_of_its_own() {
        let nodes = [node(0, 1, None, 4), node(1, 1, Some(0), 8)];
        // addresses in words: the input's rows, the row between the convolutions, the output's rows
        let in_place = [0, 3, 6, 9, 12, 12, 12, 12, 0, 3, 6, 9];
        assert_eq!(peak(&nodes, &in_place, ROWS).bytes, 5 * 12);
        let apart = [0, 3, 6, 9, 12, 12, 12, 12, 15, 18, 21, 24];
        assert_eq!(peak(&nodes, &apart, ROWS).bytes, 6 * 12);
    }
}
