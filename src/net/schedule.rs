//! Rows on demand: which rows are made next, and how long each must live. Sizes only, no data.
//!
//! The schedule asks a segment's last layer for its next strip of rows. While a row that it reads is missing, it
//! asks that row's producer instead. No row is made before it is needed, and none is made twice. After the last
//! layer, the network's outputs are completed in the same way.
//! The planner (on the host), the proof in [`Network::set_up`](crate::Network::set_up) and the executor all
//! follow this one schedule.

use crate::base::shape::Window;

/// A tensor's rows, as the memory plan sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// Number of rows.
    pub rows: u16,
    /// Bytes of one row.
    pub row_bytes: u32,
    /// Index of its first row in the row table.
    pub base: u32,
    /// The rows are stored consecutively and have one entry in the row table: the input frame, or an output of
    /// the network.
    pub contiguous: bool,
}

impl Tensor {
    /// Entries in the row table.
    pub const fn entries(&self) -> u32 {
        if self.contiguous { 1 } else { self.rows as u32 }
    }
}

/// How a block's last convolution reads the shortcut: input row `stride` x output row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortcutRead {
    /// Tensor that is read.
    pub tensor: u16,
    /// Vertical stride.
    pub stride: u8,
}

/// One layer of a segment, as the schedule sees it. Within a segment, tensor 0 is its input and tensor i + 1 the
/// output of node i; a node reads only tensors before its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// Tensor that is read through the window.
    pub reads: u16,
    /// Rows of that tensor.
    pub input_rows: u16,
    /// The window over it; of a reduction: one row.
    pub window: Window,
    /// Tensor whose row is added.
    pub shortcut: Option<ShortcutRead>,
    /// The tensor that is made.
    pub output: Tensor,
    /// Rows made in one step (fewer in the last).
    pub strip: u8,
    /// The input is taken row by row into one output row, complete after the last.
    pub reduction: bool,
    /// Bytes of scratch memory that each step uses; each step has an entry for it in the row table, after the
    /// output's entries.
    pub scratch_bytes: u32,
    /// The output is one of the network's: every row is made and stays until the run ends.
    pub kept: bool,
}

impl Node {
    /// Entries in the row table: the output's rows, and the scratch memory of each step.
    pub fn entries(&self) -> u32 {
        self.output.entries() + u32::from(self.scratch_entries())
    }

    /// Steps that have scratch memory.
    pub fn scratch_entries(&self) -> u16 {
        let steps = self.output.rows.div_ceil(u16::from(self.strip).max(1));
        if self.scratch_bytes == 0 { 0 } else { steps }
    }

    /// The scratch memory of the step that makes the rows from `first` on, as a tensor with one row;
    /// `None` where none is used.
    pub fn scratch(&self, first: u16) -> Option<Tensor> {
        let step = u32::from(first.checked_div(u16::from(self.strip))?);
        let base = self.output.base.saturating_add(self.output.entries()).saturating_add(step);
        let scratch = Tensor { rows: 1, row_bytes: self.scratch_bytes, base, contiguous: false };
        (self.scratch_bytes > 0).then_some(scratch)
    }

    /// Rows that its steps make altogether (of a reduction: input rows that they take).
    pub const fn steps(&self) -> u16 {
        if self.reduction { self.input_rows } else { self.output.rows }
    }

    /// Output rows that can be read once `made` rows are made.
    const fn complete(&self, made: u16) -> u16 {
        if self.reduction { (made == self.input_rows) as u16 } else { made }
    }

    /// Output rows that occupy memory once `made` rows are made.
    const fn begun(&self, made: u16) -> u16 {
        if self.reduction { (made > 0) as u16 } else { made }
    }

    /// Input rows needed at least for the `count` rows from `first` on.
    fn needed(&self, first: u16, count: u16) -> u16 {
        let end = (u32::from(first) + u32::from(count) - 1) * u32::from(self.window.stride[0])
            + u32::from(self.window.kernel[0]);
        let end = end.saturating_sub(u32::from(self.window.padding[0]));
        u16::try_from(end).unwrap_or(u16::MAX).min(self.input_rows)
    }

    /// Whether input row `row` is still to be read through the window once `made` rows are made.
    fn is_to_read(&self, made: u16, row: u16) -> bool {
        // distances from the first row under the next window; a stride may leap over rows
        let stride = u32::from(self.window.stride[0]);
        let row = u32::from(row) + u32::from(self.window.padding[0]);
        let next = u32::from(made) * stride;
        made < self.steps() && row >= next && row.checked_rem(stride) < Some(u32::from(self.window.kernel[0]))
    }

    /// Whether shortcut row `row` is still to be added once `made` rows are made.
    fn is_to_add(&self, made: u16, shortcut: &ShortcutRead, row: u16) -> bool {
        let (row, stride) = (u32::from(row), u32::from(shortcut.stride));
        made < self.steps() && row >= u32::from(made) * stride && row.checked_rem(stride) == Some(0)
    }
}

/// One step of the schedule: `count` rows of `tensor` from row `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Tensor that is made; 0 is the segment's input, which the caller feeds.
    pub tensor: u16,
    /// First row (of a reduction: input row that is taken).
    pub first: u16,
    /// Number of rows.
    pub count: u16,
}

/// A run of layers that stream through each other, and its progress.
///
/// `made` has an element for each tensor: the rows that its steps have made. `made[0]` starts at 0
/// where the input is fed row by row, else at the input's rows.
#[derive(Debug)]
pub struct Segment<'s> {
    /// The number of its input tensor among those of the whole network.
    pub first: u16,
    /// The tensor that the first layers read.
    pub input: Tensor,
    /// The layers.
    pub nodes: &'s [Node],
}

impl Segment<'_> {
    /// The next step; `None` after the last layer and every output of the network have ended.
    pub fn next(&self, made: &[u16]) -> Option<Step> {
        let mut tensor = self.unfinished(made)?;
        // a node reads only tensors before its own, so this walk ends
        while let Some(node) = self.node(tensor) {
            let first = self.made(made, tensor);
            let count = u16::from(node.strip).min(node.steps().saturating_sub(first));
            match self.missing(node, made, first, count) {
                Some(missing) => tensor = missing,
                None => return Some(Step { tensor, first, count }),
            }
        }
        Some(Step { tensor: 0, first: self.made(made, 0), count: 1 })
    }

    /// The last tensor if it is not complete, else an output of the network that is not.
    fn unfinished(&self, made: &[u16]) -> Option<u16> {
        let last = u16::try_from(self.nodes.len()).ok()?;
        if self.made(made, last) < self.nodes.last()?.steps() {
            return Some(last);
        }
        let mut outputs = (1u16..).zip(self.nodes).filter(|(_, node)| node.kept);
        outputs.find(|(tensor, node)| self.made(made, *tensor) < node.steps()).map(|(tensor, _)| tensor)
    }

    /// The first of the node's inputs of which a row is missing for the `count` rows from `first` on.
    fn missing(&self, node: &Node, made: &[u16], first: u16, count: u16) -> Option<u16> {
        if self.complete(made, node.reads) < node.needed(first, count) {
            return Some(node.reads);
        }
        let shortcut = node.shortcut?;
        let last = (u32::from(first) + u32::from(count) - 1) * u32::from(shortcut.stride);
        (u32::from(self.complete(made, shortcut.tensor)) <= last).then_some(shortcut.tensor)
    }

    /// The node that makes `tensor`; none makes the segment's input.
    pub fn node(&self, tensor: u16) -> Option<&Node> {
        self.nodes.get(usize::from(tensor).checked_sub(1)?)
    }

    /// The rows of `tensor`.
    pub fn tensor(&self, tensor: u16) -> Tensor {
        self.node(tensor).map_or(self.input, |node| node.output)
    }

    fn made(&self, made: &[u16], tensor: u16) -> u16 {
        made.get(usize::from(tensor)).copied().unwrap_or(0)
    }

    fn complete(&self, made: &[u16], tensor: u16) -> u16 {
        let rows = self.made(made, tensor);
        self.node(tensor).map_or(rows, |node| node.complete(rows))
    }

    /// Rows of `tensor` that have been put into memory: made, or begun as sums.
    pub fn begun(&self, made: &[u16], tensor: u16) -> u16 {
        let rows = self.made(made, tensor);
        self.node(tensor).map_or(rows, |node| node.begun(rows))
    }

    /// Whether `row` of `tensor`, once begun, must stay: some node is still to read it, or it belongs to the
    /// segment's last tensor or to an output of the network.
    pub fn is_alive(&self, made: &[u16], tensor: u16, row: u16) -> bool {
        self.stays(tensor) || self.is_to_read(made, tensor, row, None)
    }

    /// Whether every row of a tensor stays until the segment ends.
    fn stays(&self, tensor: u16) -> bool {
        // the input of a later segment is contiguous if it is an output of the network; the frame does not stay
        let kept = self.node(tensor).map_or(self.first > 0 && self.input.contiguous, |node| node.kept);
        usize::from(tensor) == self.nodes.len() || kept
    }

    /// Whether some node is still to read `row` of `tensor`, leaving out the shortcut read of the node
    /// that makes tensor `without`.
    fn is_to_read(&self, made: &[u16], tensor: u16, row: u16, without: Option<u16>) -> bool {
        (1u16..).zip(self.nodes).any(|(reader, node)| {
            let rows = self.made(made, reader);
            let reads = node.reads == tensor && node.is_to_read(rows, row);
            let adds = without != Some(reader)
                && node
                    .shortcut
                    .is_some_and(|read| read.tensor == tensor && node.is_to_add(rows, &read, row));
            reads || adds
        })
    }

    /// Whether the step that makes `row` of `tensor` may store it exactly on row `other` of tensor `shortcut`:
    /// the addition in place. It may if the step adds that row, no other node is still to read it, and both are
    /// equally long.
    pub fn in_place(&self, made: &[u16], tensor: u16, row: u16, shortcut: u16, other: u16) -> bool {
        let Some(node) = self.node(tensor) else { return false };
        let adds = node.shortcut.is_some_and(|read| {
            read.tensor == shortcut && u32::from(row) * u32::from(read.stride) == u32::from(other)
        });
        adds && node.output.row_bytes == self.tensor(shortcut).row_bytes
            && !self.stays(shortcut)
            && !self.is_to_read(made, shortcut, other, Some(tensor))
    }
}
