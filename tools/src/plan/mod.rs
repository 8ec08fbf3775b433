//! The planner: cuts a network into segments and finds an address for every row.
//!
//! The schedule (`skipstone::host::schedule`) decides when each row is made and read for the last time. Rows that an
//! addition in place joins (a shortcut's row and the output row that replaces it) share one *slot*; slots whose
//! lives overlap must not overlap in memory. Placing them in the fewest bytes is dynamic storage allocation, which
//! `place.rs` does; `lives.rs` follows the schedule, `choose.rs` picks algorithms and strips.

pub mod layers;
mod lives;
mod place;

use std::cell::RefCell;
use std::collections::HashMap;

use skipstone::Shape;
use skipstone::host::MAX_STEP_ROWS;
use skipstone::host::format::MAX_TENSORS;
use skipstone::host::plan::ROW_ALIGN;
use skipstone::host::schedule::{Node, Segment, Tensor};
use thiserror::Error;

use lives::{Lives, kept_bytes};
use place::lower_bound;

/// A memory plan as the blob carries it; see `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Address of each row in units of [`ROW_ALIGN`] bytes.
    pub rows: Vec<u16>,
    /// Strip height of each layer.
    pub strips: Vec<u8>,
    /// Number of layers in each segment.
    pub segments: Vec<u8>,
}

/// A network that cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The row table cannot address the arena.
    #[error(
        "the network needs an arena of {0} bytes, the row table addresses at most 262144: use a smaller input or fewer channels"
    )]
    ArenaTooLarge(usize),
    /// A run of layers that cannot be cut has more tensors than a segment may have.
    #[error(
        "layers {first} to {last} stream through each other and need {needed} tensors in one segment, at most {limit} are allowed: shorten the shortcuts that span them"
    )]
    SegmentTooLong {
        /// Index of the first layer.
        first: usize,
        /// Index of the last layer.
        last: usize,
        /// Their tensors: the input and an output for each layer.
        needed: usize,
        /// The limit asked for.
        limit: usize,
    },
    /// A layer's strip has no rows, or needs more than a step may read and make.
    #[error(
        "layer {layer}: strips of {strip} rows are not possible; a step reads and makes at most {MAX_STEP_ROWS} rows, one row of a dense or global pooling layer"
    )]
    Strip {
        /// Index of the layer.
        layer: usize,
        /// The strip height asked for.
        strip: u8,
    },
}

/// A network as the schedule sees it: its layers' nodes, whose tensors are numbered through the network.
#[derive(Debug)]
pub struct Planner {
    input: Tensor,
    frame: bool,
    max_tensors: usize,
    /// Lower bounds of segments that were simulated before: deep networks repeat theirs.
    bounds: RefCell<HashMap<SegmentKey, usize>>,
}

/// What the memory of a segment depends on: the tensor it reads, whether that is fed, its nodes.
type SegmentKey = (Tensor, bool, Vec<Node>);

impl Planner {
    /// A planner for networks over `input`, fed row by row or with the frame in the arena. A segment has at most
    /// `max_tensors` tensors, for which a `Network::<TENSORS>` must have room.
    pub fn new(input: Shape, frame: bool, max_tensors: usize) -> Self {
        let row_bytes = input.row_len() as u32;
        let input = Tensor { rows: input.height, row_bytes, base: 0, contiguous: frame };
        let max_tensors = max_tensors.min(MAX_TENSORS);
        Planner { input, frame, max_tensors, bounds: RefCell::default() }
    }

    /// Plans the layers with these nodes, their strips and scratch memory.
    ///
    /// # Errors
    /// [`PlanError`] names the layer.
    pub fn plan(&self, nodes: &[Node]) -> Result<Plan, PlanError> {
        let network = Layers::new(self, nodes)?;
        let mut candidates = vec![network.best_cuts()?.1, network.all_cuts()];
        candidates.dedup();
        let placed = candidates.into_iter().map(|segments| {
            let (arena_bytes, rows) = network.place(&segments);
            (arena_bytes, segments, rows)
        });
        let best = placed.min_by_key(|(arena_bytes, segments, _)| (*arena_bytes, segments.len()));
        let (arena_bytes, segments, rows) = best.unwrap_or_default();
        network.finish(arena_bytes, &segments, rows)
    }

    /// Bytes that every plan of these nodes needs at least, with the cuts that need least.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn lower_bound(&self, nodes: &[Node]) -> Result<usize, PlanError> {
        Ok(Layers::new(self, nodes)?.best_cuts()?.0)
    }

    /// As [`Planner::plan`], but with these segments, each a number of layers.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    ///
    /// # Panics
    /// If the segments are cut where more than one tensor is alive.
    pub fn plan_as(&self, nodes: &[Node], segments: &[usize]) -> Result<Plan, PlanError> {
        let network = Layers::new(self, nodes)?;
        let mut end = 0;
        for layers in segments {
            end += layers;
            assert!(network.is_cut(end), "no cut is possible after {end} layers");
        }
        let (arena_bytes, rows) = network.place(segments);
        network.finish(arena_bytes, segments, rows)
    }

    /// The numbers of layers after which these nodes can be cut, the end included.
    ///
    /// # Errors
    /// As [`Planner::plan`].
    pub fn cuts(&self, nodes: &[Node]) -> Result<Vec<usize>, PlanError> {
        let network = Layers::new(self, nodes)?;
        Ok((1..=nodes.len()).filter(|&layers| network.is_cut(layers)).collect())
    }
}

/// The layers of one network.
struct Layers<'p> {
    planner: &'p Planner,
    nodes: &'p [Node],
    /// For each number of layers, the first tensor that later layers read.
    oldest: Vec<usize>,
}

impl<'p> Layers<'p> {
    fn new(planner: &'p Planner, nodes: &'p [Node]) -> Result<Self, PlanError> {
        for (layer, node) in nodes.iter().enumerate() {
            let strip = node.strip;
            let windows = usize::from(strip.saturating_sub(1)) * usize::from(node.window.stride[0]);
            let rows = usize::from(strip) + windows + usize::from(node.window.kernel[0]);
            if strip == 0 || rows > MAX_STEP_ROWS || (node.reduction && strip > 1) {
                return Err(PlanError::Strip { layer, strip });
            }
        }
        let mut oldest = vec![usize::MAX; nodes.len() + 1];
        for (layer, node) in nodes.iter().enumerate().rev() {
            let shortcut = node.shortcut.map_or(u16::MAX, |read| read.tensor);
            oldest[layer] = oldest[layer + 1].min(node.reads.min(shortcut).into());
        }
        Ok(Layers { planner, nodes, oldest })
    }

    /// Whether only the last tensor of the first `layers` layers is read by later ones.
    fn is_cut(&self, layers: usize) -> bool {
        self.oldest[layers] >= layers
    }

    /// Cuts wherever that is possible.
    fn all_cuts(&self) -> Vec<usize> {
        let mut start = 0;
        let ends = (1..=self.nodes.len()).filter(|&layers| self.is_cut(layers));
        ends.map(|end| end - std::mem::replace(&mut start, end)).collect()
    }

    /// The plan in the blob's terms.
    fn finish(&self, arena_bytes: usize, segments: &[usize], rows: Vec<usize>) -> Result<Plan, PlanError> {
        if arena_bytes > (usize::from(u16::MAX) + 1) * ROW_ALIGN {
            return Err(PlanError::ArenaTooLarge(arena_bytes));
        }
        Ok(Plan {
            arena_bytes,
            rows: rows.into_iter().map(|address| (address / ROW_ALIGN) as u16).collect(),
            strips: self.nodes.iter().map(|node| node.strip).collect(),
            segments: segments.iter().map(|layers| *layers as u8).collect(),
        })
    }

    /// The input of the segment that begins with layer `from`.
    fn input(&self, from: usize) -> Tensor {
        from.checked_sub(1).map_or(self.planner.input, |before| self.nodes[before].output)
    }

    /// The nodes of layers `from..to`, their tensors numbered within the segment.
    fn local(&self, from: usize, to: usize) -> Vec<Node> {
        let local = |mut node: Node| {
            node.reads -= from as u16;
            if let Some(read) = &mut node.shortcut {
                read.tensor -= from as u16;
            }
            node
        };
        self.nodes[from..to].iter().copied().map(local).collect()
    }

    /// Places every row; returns the arena's bytes and the address of each row in the order of the table.
    fn place(&self, segments: &[usize]) -> (usize, Vec<usize>) {
        let mut lives = Lives::new(self.planner.input, self.planner.frame);
        let mut from = 0;
        for layers in segments {
            let nodes = self.local(from, from + layers);
            let segment = Segment { first: from as u16, input: self.input(from), nodes: &nodes };
            lives.follow(&segment, from == 0 && !self.planner.frame);
            from += layers;
        }
        let (slots, slot_of) = lives.slots(self.planner.input, self.planner.frame, self.nodes);
        let (arena_bytes, addresses) =
            place::place(&slots, lives.steps, self.planner.input, self.planner.frame);
        // a row that is never made (no later layer reads it) has address 0
        let input = (0, self.planner.input.entries() as u16);
        let outputs = (1..).zip(self.nodes.iter().map(|node| node.entries() as u16));
        let mut table = Vec::new();
        for (tensor, entries) in std::iter::once(input).chain(outputs) {
            table.extend(
                (0..entries).map(|entry| slot_of.get(&(tensor, entry)).map_or(0, |slot| addresses[*slot])),
            );
        }
        (arena_bytes, table)
    }

    /// The cuts for which the largest lower bound of a segment is smallest, of equal ones the fewest; and that
    /// bound.
    fn best_cuts(&self) -> Result<(usize, Vec<usize>), PlanError> {
        let layers = self.nodes.len();
        let limit = self.planner.max_tensors;
        // best[to]: (peak, segments, start of the last segment) of the layers before `to`
        let mut best: Vec<Option<(usize, usize, usize)>> = vec![None; layers + 1];
        best[0] = Some((0, 0, 0));
        let mut cut = 0; // the last possible cut
        for to in (1..=layers).filter(|&to| self.is_cut(to)) {
            if to - cut + 1 > limit {
                let (first, last, needed) = (cut, to - 1, to - cut + 1);
                return Err(PlanError::SegmentTooLong { first, last, needed, limit });
            }
            cut = to;
            for from in (to.saturating_sub(limit - 1)..to).rev() {
                let Some((before, segments, _)) = best[from] else { continue };
                let peak = before.max(self.segment_bound(from, to));
                let candidate = (peak, segments + 1, from);
                if best[to].is_none_or(|known| (candidate.0, candidate.1) < (known.0, known.1)) {
                    best[to] = Some(candidate);
                }
            }
        }
        let mut cuts = Vec::new();
        let mut to = layers;
        while let Some((_, _, from)) = best[to].filter(|_| to > 0) {
            cuts.push(to - from);
            to = from;
        }
        cuts.reverse();
        // outputs of earlier segments stay while later ones run
        let kept: usize = self.nodes.iter().filter(|node| node.kept).map(kept_bytes).sum();
        let last = self.nodes.last().filter(|node| node.kept).map_or(0, kept_bytes);
        Ok((best[layers].map_or(0, |(peak, _, _)| peak).max(kept.max(last)), cuts))
    }

    /// Maximum number of bytes alive at once while layers `from..to` run as one segment.
    fn segment_bound(&self, from: usize, to: usize) -> usize {
        let fed = from == 0 && !self.planner.frame;
        let input = Tensor { base: 0, ..self.input(from) };
        let key = (input, fed, self.local(from, to));
        if let Some(bound) = self.planner.bounds.borrow().get(&key) {
            return *bound;
        }
        let rows = Tensor { contiguous: false, ..input };
        let mut lives = Lives::new(rows, !fed);
        lives.follow(&Segment { first: 0, input, nodes: &key.2 }, fed);
        let (slots, _) = lives.slots(rows, false, &key.2);
        let bound = lower_bound(&slots, lives.steps);
        self.planner.bounds.borrow_mut().insert(key, bound);
        bound
    }
}
