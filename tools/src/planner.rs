//! The planner: cuts a network into segments and finds an address for every row.
//!
//! The schedule (`skipstone::schedule`) says when each row is made and read for the last time. Rows that
//! an addition in place joins (a block's shortcut row and its output row) share one *slot*; slots whose
//! lives overlap must not overlap in memory. Placing them in the fewest bytes is dynamic storage
//! allocation: first fit, in several orders, the best kept. The largest sum of slots alive at once is a
//! lower bound, which tells when to stop looking.

use std::cmp::Reverse;
use std::collections::HashMap;

use skipstone::plan::ROW_ALIGN;
use skipstone::schedule::{Node, Segment, Tensor};
use skipstone::stage::Stage;
use skipstone::{MAX_STEP_ROWS, Shape};
use thiserror::Error;

/// Random orders that are tried when the plain ones miss the lower bound.
const TRIES: usize = 3000;

/// A memory plan as the blob carries it; see `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Address of each row in units of [`ROW_ALIGN`] bytes.
    pub rows: Vec<u16>,
    /// Strip height of each layer.
    pub strips: Vec<u8>,
    /// Number of stages in each segment.
    pub segments: Vec<u8>,
}

/// A network that cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The arena is larger than the row table can address.
    #[error(
        "the network needs an arena of {0} bytes, the row table addresses at most 262144: use a smaller input or fewer channels"
    )]
    ArenaTooLarge(usize),
    /// A stage has more tensors than a segment may have.
    #[error("stage {stage} alone needs {needed} tensors in a segment, at most {limit} are allowed")]
    StageTooLong {
        /// Index of the stage.
        stage: usize,
        /// Its tensors: the input and an output for each layer.
        needed: usize,
        /// The limit asked for.
        limit: usize,
    },
    /// A layer's strip has no rows, or needs more than a step may read and make.
    #[error(
        "layer {layer}: strips of {strip} rows cannot be made; a step reads and makes at most {MAX_STEP_ROWS} rows, one of a dense or global pooling layer"
    )]
    Strip {
        /// Index of the layer.
        layer: usize,
        /// The strip height asked for.
        strip: u8,
    },
}

/// Plans `stages` over `input`, fed row by row or with the frame in the arena; a segment has at most
/// `max_tensors` tensors, which is what `Network::<TENSORS>` must hold.
pub fn plan(stages: &[Stage<'_>], input: Shape, frame: bool, max_tensors: usize) -> Result<Plan, PlanError> {
    plan_nodes(nodes(stages, &[]), input, frame, max_tensors)
}

/// The nodes of the stages' layers with these strips, as [`plan_as`] takes them.
fn nodes(stages: &[Stage<'_>], strips: &[u8]) -> Vec<Vec<Node>> {
    let mut strips = strips.iter();
    let mut nodes = |stage: &Stage<'_>| {
        stage.layers(0, 1).map(|layer| layer.place(strips.next().copied().unwrap_or(1), 0)).collect()
    };
    stages.iter().map(&mut nodes).collect()
}

/// As [`plan`], for the nodes of each stage, with their strips and scratch memory.
pub fn plan_nodes(
    nodes: Vec<Vec<Node>>,
    input: Shape,
    frame: bool,
    max_tensors: usize,
) -> Result<Plan, PlanError> {
    let network = Lowered::new(nodes, input, frame)?;
    network.check(max_tensors)?;
    let mut candidates = vec![network.best_cuts(max_tensors).1, vec![1; network.stages.len()]];
    candidates.dedup();
    let placed = candidates.into_iter().map(|segments| {
        let (arena_bytes, rows) = network.place(&segments);
        (arena_bytes, segments, rows)
    });
    let best = placed.min_by_key(|(arena_bytes, segments, _)| (*arena_bytes, segments.len()));
    let (arena_bytes, segments, rows) = best.unwrap_or_default();
    network.plan(arena_bytes, &segments, rows)
}

/// Bytes below which no plan of these nodes can be, with the cuts that need least.
///
/// # Errors
/// As [`plan_nodes`].
pub fn lower_bound_nodes(
    nodes: Vec<Vec<Node>>,
    input: Shape,
    frame: bool,
    max_tensors: usize,
) -> Result<usize, PlanError> {
    let network = Lowered::new(nodes, input, frame)?;
    network.check(max_tensors)?;
    Ok(network.best_cuts(max_tensors).0)
}

/// As [`plan`], but with these segments (each a number of stages) and strips: the height for each layer, in
/// order; layers that `strips` does not reach make single rows. Taller strips cost memory.
pub fn plan_as(
    stages: &[Stage<'_>],
    input: Shape,
    frame: bool,
    segments: &[usize],
    strips: &[u8],
) -> Result<Plan, PlanError> {
    let network = Lowered::new(nodes(stages, strips), input, frame)?;
    let (arena_bytes, rows) = network.place(segments);
    network.plan(arena_bytes, segments, rows)
}

/// The network as the schedule sees it: each stage's nodes, reading tensor 0 as the stage's input.
struct Lowered {
    stages: Vec<Vec<Node>>,
    input: Tensor,
    frame: bool,
}

/// A row of a tensor, tensors being numbered through the whole network, the input first; or the scratch
/// memory of one of the steps that make the tensor, whose rows come behind the tensor's own.
type Row = (usize, u16);

/// When each row is made and when it is read for the last time, in steps of the whole schedule.
struct Lives {
    /// In the order of birth.
    rows: Vec<(Row, usize)>,
    death: HashMap<Row, usize>,
    /// A row and the shortcut row onto which it may be added in place.
    in_place: HashMap<Row, Row>,
    steps: usize,
}

/// Memory that rows have one after the other, joined by additions in place.
struct Slot {
    rows: Vec<Row>,
    bytes: usize,
    birth: usize,
    death: usize,
    /// Where the slot must lie in the frame, for its rows.
    in_frame: Option<usize>,
}

impl Lowered {
    fn new(stages: Vec<Vec<Node>>, input: Shape, frame: bool) -> Result<Self, PlanError> {
        let row_bytes = input.row_len() as u32;
        let input = Tensor { rows: input.height, row_bytes, base: 0, contiguous: frame };
        for (layer, node) in stages.iter().flatten().enumerate() {
            let strip = node.strip;
            let windows = usize::from(strip.saturating_sub(1)) * usize::from(node.window.stride[0]);
            let rows = usize::from(strip) + windows + usize::from(node.window.kernel[0]);
            if strip == 0 || rows > MAX_STEP_ROWS || (node.reduction && strip > 1) {
                return Err(PlanError::Strip { layer, strip });
            }
        }
        Ok(Lowered { stages, input, frame })
    }

    fn check(&self, max_tensors: usize) -> Result<(), PlanError> {
        for (stage, nodes) in self.stages.iter().enumerate() {
            if nodes.len() + 1 > max_tensors {
                return Err(PlanError::StageTooLong { stage, needed: nodes.len() + 1, limit: max_tensors });
            }
        }
        Ok(())
    }

    /// The plan in the blob's terms.
    fn plan(&self, arena_bytes: usize, segments: &[usize], rows: Vec<usize>) -> Result<Plan, PlanError> {
        if arena_bytes > (usize::from(u16::MAX) + 1) * ROW_ALIGN {
            return Err(PlanError::ArenaTooLarge(arena_bytes));
        }
        Ok(Plan {
            arena_bytes,
            rows: rows.into_iter().map(|address| (address / ROW_ALIGN) as u16).collect(),
            strips: self.stages.iter().flatten().map(|node| node.strip).collect(),
            segments: segments.iter().map(|stages| *stages as u8).collect(),
        })
    }

    /// The nodes of stages `from..to` as one segment.
    fn segment(&self, from: usize, to: usize) -> (Tensor, Vec<Node>) {
        let before = self.stages[..from].iter().flatten().next_back();
        let mut nodes: Vec<Node> = Vec::new();
        for stage in &self.stages[from..to] {
            // the stage's tensor 0 is the last one of the stage before, its others follow
            let offset = nodes.len() as u16;
            nodes.extend(stage.iter().map(|node| {
                let mut node = *node;
                node.reads += offset;
                if let Some(shortcut) = &mut node.shortcut {
                    shortcut.tensor += offset;
                }
                node
            }));
        }
        (before.map_or(self.input, |node| node.output), nodes)
    }

    /// Follows the schedule of all segments.
    fn lives(&self, segments: &[usize]) -> Lives {
        let mut lives = Lives { rows: Vec::new(), death: HashMap::new(), in_place: HashMap::new(), steps: 0 };
        let (mut from, mut input) = (0, 0);
        if self.frame {
            lives.rows.extend((0..self.input.rows).map(|row| ((0, row), 0)));
            lives.steps = 1;
        }
        for stages in segments {
            let fed = from == 0 && !self.frame;
            let nodes = self.follow(&mut lives, from, from + stages, input, fed);
            from += stages;
            input += nodes; // the segment's last tensor
        }
        // the scores outlive the run
        lives.death.insert((input, 0), usize::MAX);
        lives
    }

    /// Follows the schedule of stages `from..to`, whose input is tensor `input` of the network; returns
    /// the number of nodes.
    fn follow(&self, lives: &mut Lives, from: usize, to: usize, input: usize, fed: bool) -> usize {
        let (tensor, nodes) = self.segment(from, to);
        let segment = Segment { input: tensor, nodes: &nodes };
        let mut made = vec![0; nodes.len() + 1];
        made[0] = if fed { 0 } else { tensor.rows };
        while let Some(step) = segment.next(&made) {
            let node = segment.node(step.tensor);
            if let Some(tensor) = node.and_then(|node| node.scratch(step.first).map(|_| node)) {
                let row = tensor.output.rows + step.first / u16::from(tensor.strip);
                let id = (input + usize::from(step.tensor), row);
                lives.rows.push((id, lives.steps));
                lives.death.insert(id, lives.steps);
            }
            let reduction = node.is_some_and(|node| node.reduction);
            let new = match (reduction, step.first) {
                (false, first) => first..first + step.count,
                (true, 0) => 0..1,
                (true, _) => 0..0,
            };
            for row in new {
                let id = (input + usize::from(step.tensor), row);
                lives.rows.push((id, lives.steps));
                lives.death.entry(id).or_insert(lives.steps);
                if let Some(read) = segment.node(step.tensor).and_then(|node| node.shortcut) {
                    let other = row * u16::from(read.stride);
                    // a frame's row may share a word with the next, which lives on
                    let shortcut = segment.tensor(read.tensor);
                    let whole = !shortcut.contiguous || shortcut.row_bytes.is_multiple_of(ROW_ALIGN as u32);
                    if whole && segment.in_place(&made, step.tensor, row, read.tensor, other) {
                        lives.in_place.insert(id, (input + usize::from(read.tensor), other));
                    }
                }
            }
            for tensor in 0..=nodes.len() {
                for row in 0..segment.begun(&made, tensor as u16) {
                    if segment.is_alive(&made, tensor as u16, row) {
                        lives.death.insert((input + tensor, row), lives.steps);
                    }
                }
            }
            made[usize::from(step.tensor)] += step.count;
            lives.steps += 1;
        }
        nodes.len()
    }

    /// Joins rows into slots.
    fn slots(&self, lives: &Lives) -> Vec<Slot> {
        let mut tensors = vec![(self.input, 0)];
        tensors.extend(self.stages.iter().flatten().map(|node| (node.output, node.scratch_bytes)));
        let mut slots: Vec<Slot> = Vec::new();
        let mut slot_of: HashMap<Row, usize> = HashMap::new();
        for &(row, birth) in &lives.rows {
            let death = lives.death.get(&row).copied().unwrap_or(birth);
            let joined = lives.in_place.get(&row).and_then(|shortcut| slot_of.get(shortcut)).copied();
            let index = joined.unwrap_or(slots.len());
            if joined.is_none() {
                let (tensor, scratch_bytes) = &tensors[row.0];
                let row_bytes = if row.1 < tensor.rows { tensor.row_bytes } else { *scratch_bytes } as usize;
                let in_frame = (self.frame && row.0 == 0).then(|| usize::from(row.1) * row_bytes);
                // the frame's rows lie one behind the other, others begin at words
                let bytes =
                    if in_frame.is_some() { row_bytes } else { row_bytes.next_multiple_of(ROW_ALIGN) };
                slots.push(Slot { rows: Vec::new(), bytes, birth, death, in_frame });
            }
            slots[index].rows.push(row);
            slots[index].death = slots[index].death.max(death);
            slot_of.insert(row, index);
        }
        slots
    }

    /// Places every row; returns the arena's bytes and the address of each row in the order of the table.
    fn place(&self, segments: &[usize]) -> (usize, Vec<usize>) {
        let lives = self.lives(segments);
        let slots = self.slots(&lives);
        let bound = lower_bound(&slots, lives.steps);
        let mut best = (usize::MAX, Vec::new());
        let mut attempt = |order: &[usize], base: usize| {
            let (top, addresses) = first_fit(&slots, order, base);
            if top < best.0 {
                best = (top, addresses);
            }
            (top, best.0)
        };

        let by_birth: Vec<usize> = (0..slots.len()).collect();
        let mut by_size = by_birth.clone();
        by_size.sort_by_key(|&index| Reverse(slots[index].bytes));
        let mut by_area = by_birth.clone();
        let life = |slot: &Slot| slot.death.min(lives.steps) - slot.birth + 1;
        by_area.sort_by_key(|&index| Reverse(slots[index].bytes * life(&slots[index])));
        // the frame at the end of the arena, whose space is freed from its beginning on; or, fed by rows,
        // a few input rows at the bottom, where they would scatter larger ones
        let row = (self.input.row_bytes as usize).next_multiple_of(ROW_ALIGN);
        let frame = self.input.row_bytes as usize * usize::from(self.input.rows);
        let bases: Vec<usize> = match self.frame {
            true => {
                (0..64).map(|step| (bound.saturating_sub(frame) + 32 * step).next_multiple_of(16)).collect()
            }
            false => (0..=8).map(|rows| rows * row).collect(),
        };
        let mut least = usize::MAX;
        let mut best_base = 0;
        for order in [&by_birth, &by_size, &by_area] {
            for base in &bases {
                let (now, _) = attempt(order, *base);
                if now < least {
                    (least, best_base) = (now, *base);
                }
            }
        }
        let mut random = Random(1);
        let mut order = by_birth;
        let mut kept = usize::MAX;
        for _ in 0..TRIES.min(TRIES * 500 / slots.len().max(1)) {
            if least <= bound {
                break;
            }
            // a few slots are placed out of turn; kept unless that made it worse
            let before = order.clone();
            for _ in 0..1 + random.below(8) {
                let slot = order.remove(random.below(order.len()));
                order.insert(random.below(order.len() + 1), slot);
            }
            let base = if random.below(2) == 0 { best_base } else { bases[random.below(bases.len())] };
            let (now, overall) = attempt(&order, base);
            if now < least {
                best_base = base;
            }
            if now > kept {
                order = before;
            }
            kept = kept.min(now);
            least = overall;
        }

        let (top, addresses) = best;
        let mut of_row: HashMap<Row, usize> = HashMap::new();
        for (slot, address) in slots.iter().zip(addresses) {
            of_row.extend(slot.rows.iter().map(|row| (*row, address)));
        }
        // a row that is never made (no later layer reads it) has address 0
        let mut table = Vec::new();
        let input_entries = if self.frame { 1 } else { self.input.rows };
        let heights = self.stages.iter().flatten().map(|node| node.output.rows + node.scratch_entries());
        for (tensor, rows) in std::iter::once(input_entries).chain(heights).enumerate() {
            table.extend((0..rows).map(|row| of_row.get(&(tensor, row)).copied().unwrap_or(0)));
        }
        (top, table)
    }

    /// The cuts between stages that keep the largest lower bound of a segment smallest, of equal ones the
    /// fewest cuts; and that bound.
    fn best_cuts(&self, max_tensors: usize) -> (usize, Vec<usize>) {
        let stages = self.stages.len();
        // best[to]: (peak, segments, start of the last segment) for the stages before `to`
        let mut best: Vec<Option<(usize, usize, usize)>> = vec![None; stages + 1];
        best[0] = Some((0, 0, 0));
        for to in 1..=stages {
            for from in (0..to).rev() {
                let tensors = 1 + self.stages[from..to].iter().map(Vec::len).sum::<usize>();
                if tensors > max_tensors || to - from > usize::from(u8::MAX) {
                    break;
                }
                let Some((before, segments, _)) = best[from] else { continue };
                let peak = before.max(self.segment_bound(from, to));
                let candidate = (peak, segments + 1, from);
                if best[to].is_none_or(|known| (candidate.0, candidate.1) < (known.0, known.1)) {
                    best[to] = Some(candidate);
                }
            }
        }
        let mut cuts = Vec::new();
        let mut to = stages;
        while let Some((_, _, from)) = best[to].filter(|_| to > 0) {
            cuts.push(to - from);
            to = from;
        }
        cuts.reverse();
        (best[stages].map_or(0, |(peak, _, _)| peak), cuts)
    }

    /// Most bytes alive at once while stages `from..to` run as one segment.
    fn segment_bound(&self, from: usize, to: usize) -> usize {
        let mut lives = Lives { rows: Vec::new(), death: HashMap::new(), in_place: HashMap::new(), steps: 1 };
        let fed = from == 0 && !self.frame;
        let (input, nodes) = self.segment(from, to);
        if !fed {
            lives.rows.extend((0..input.rows).map(|row| ((0, row), 0)));
        }
        self.follow(&mut lives, from, to, 0, fed);
        let segment =
            Lowered { stages: vec![nodes], input: Tensor { contiguous: false, ..input }, frame: false };
        let last = segment.stages[0].len();
        for row in 0..segment.stages[0][last - 1].output.rows {
            lives.death.insert((last, row), lives.steps);
        }
        lower_bound(&segment.slots(&lives), lives.steps)
    }
}

/// The largest sum of slots alive at once.
fn lower_bound(slots: &[Slot], steps: usize) -> usize {
    let mut change = vec![0isize; steps + 2];
    for slot in slots {
        change[slot.birth] += slot.bytes as isize;
        change[slot.death.min(steps) + 1] -= slot.bytes as isize;
    }
    let mut alive = 0;
    let peak = change.into_iter().map(|change| {
        alive += change;
        alive
    });
    peak.max().unwrap_or(0) as usize
}

/// Gives each slot, in `order`, the lowest address where it disturbs none that has one. The frame begins
/// at `base`; without a frame, slots larger than the smallest do not lie before `base`. Returns the end of
/// the highest and the addresses by slot.
fn first_fit(slots: &[Slot], order: &[usize], base: usize) -> (usize, Vec<usize>) {
    let mut placed: Vec<(usize, usize, usize)> = Vec::new(); // address, end, slot; by address
    let mut addresses = vec![0; slots.len()];
    let mut top = 0;
    let mut put = |index: usize, address: usize, placed: &mut Vec<(usize, usize, usize)>| {
        addresses[index] = address;
        let entry = (address, address + slots[index].bytes, index);
        placed.insert(placed.partition_point(|other| *other < entry), entry);
        top = top.max(entry.1);
    };
    for (index, slot) in slots.iter().enumerate() {
        if let Some(offset) = slot.in_frame {
            put(index, base + offset, &mut placed);
        }
    }
    let smallest = slots.iter().map(|slot| slot.bytes).min().unwrap_or(0);
    let framed = !placed.is_empty();
    for &index in order {
        let slot = &slots[index];
        if slot.in_frame.is_some() {
            continue;
        }
        let mut address: usize = if !framed && slot.bytes > smallest { base } else { 0 };
        for &(start, end, other) in &placed {
            let other = &slots[other];
            if other.birth > slot.death || slot.birth > other.death || end <= address {
                continue;
            }
            if address + slot.bytes <= start {
                break;
            }
            address = end.next_multiple_of(ROW_ALIGN);
        }
        put(index, address, &mut placed);
    }
    (top.next_multiple_of(ROW_ALIGN), addresses)
}

/// A small deterministic generator (Knuth's MMIX constants): plans must not differ from run to run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end.max(1)
    }
}
