//! The executor: rows on demand, at the addresses that the plan's table gives.

use core::ops::Range;

use heapless::Vec;

use crate::block::run_strip;
use crate::error::{NewError, RunError};
use crate::layer::{Finished, Reduction, Windowed};
use crate::model::{Model, Stages};
use crate::plan::{Plan, ROW_ALIGN};
use crate::quantization::Addition;
use crate::schedule::{Node, Segment, Step, Tensor};
use crate::scores::{Scores, Softmax};
use crate::stage::{Join, Operation};

/// Most rows that one step reads and makes: a strip and the rows under its windows.
pub const MAX_STEP_ROWS: usize = 16;

/// Turns a pixel byte p into the int8 value p - 128, and back.
const PIXEL_OFFSET: u8 = 0x80;

/// A network that is ready to run, fed row by row: no frame buffer exists.
///
/// `TENSORS` bounds the tensors of a segment (its input and an output for each layer), whose
/// description is held in memory; segments are the runs of layers that stream through each other.
///
/// ```
/// use skipstone::{Arena, Model, Network};
///
/// fn classify(blob: &[u8], image: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
///     let model = Model::parse(blob)?;
///     let mut arena = Arena::<{ 12 * 1024 }>::new();
///     let mut network: Network = Network::new(model, &mut arena)?;
///     for class in network.run(image)?.top::<3>() {
///         println!("{} {:.1} %", model.label(class.index).unwrap_or("?"), class.probability * 100.0);
///     }
///     Ok(())
/// }
/// # assert!(classify(&[], &[]).is_err());
/// ```
#[derive(Debug)]
pub struct Network<'a, const TENSORS: usize = 16> {
    executor: Executor<'a, TENSORS>,
}

impl<'a, const TENSORS: usize> Network<'a, TENSORS> {
    /// Sets up a network in `arena`, of which it needs [`Model::arena_bytes_rows`], and proves its
    /// memory plan by running the schedule without arithmetic.
    ///
    /// # Errors
    /// [`NewError`] where the arena is too small or misaligned, a segment has too many tensors or the
    /// plan is not sound. After this a run cannot fail but for an image of the wrong length.
    pub fn new(model: Model<'a>, arena: &'a mut [u8]) -> Result<Self, NewError> {
        let plan = Executor::<TENSORS>::check(&model, arena, false)?;
        let mut network = Network { executor: Executor::new(model, plan, arena, false) };
        network.executor.prove()?;
        Ok(network)
    }

    /// A network whose input frame lies in the arena, of which it needs [`Model::arena_bytes`].
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_frame(model: Model<'a>, arena: &'a mut [u8]) -> Result<FrameNetwork<'a, TENSORS>, NewError> {
        let plan = Executor::<TENSORS>::check(&model, arena, true)?;
        let mut network = FrameNetwork { executor: Executor::new(model, plan, arena, true) };
        network.executor.prove()?;
        Ok(network)
    }

    /// Runs the network on an image: height x width x channels raw pixel bytes (HWC).
    ///
    /// # Errors
    /// [`RunError::Input`] where the image has the wrong length.
    pub fn run(&mut self, image: &[u8]) -> Result<Scores<'_>, RunError> {
        let shape = self.executor.model.input();
        if image.len() != shape.len() {
            return Err(RunError::Input { needed: shape.len(), given: image.len() });
        }
        let mut rows = image.chunks_exact(shape.row_len().max(1));
        self.run_rows(|_, buffer| {
            for (to, from) in buffer.iter_mut().zip(rows.next().unwrap_or_default()) {
                *to = *from;
            }
        })
    }

    /// Runs the network on an image that `feed` delivers: it is called with 0, 1, 2, ... and fills that
    /// row of width x channels raw pixel bytes, each at the time when it is needed. Rows at the bottom
    /// that no layer reads are not asked for.
    ///
    /// # Errors
    /// [`RunError::Changed`] where the blob has changed since it was parsed.
    pub fn run_rows(&mut self, mut feed: impl FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        self.executor.run(&mut feed)
    }
}

/// A network whose input frame lies in the arena: a camera's DMA writes it there, and its space is
/// reused as its rows die.
#[derive(Debug)]
pub struct FrameNetwork<'a, const TENSORS: usize = 16> {
    executor: Executor<'a, TENSORS>,
}

impl<const TENSORS: usize> FrameNetwork<'_, TENSORS> {
    /// Where the image goes before each run: height x width x channels raw pixel bytes (HWC). A run
    /// overwrites it.
    pub fn input_mut(&mut self) -> &mut [u8] {
        self.executor.frame()
    }

    /// Runs the network on the frame in [`FrameNetwork::input_mut`].
    ///
    /// # Errors
    /// [`RunError::Changed`] where the blob has changed since it was parsed.
    pub fn run(&mut self) -> Result<Scores<'_>, RunError> {
        for pixel in self.executor.frame() {
            *pixel ^= PIXEL_OFFSET;
        }
        self.executor.run(&mut |_, _| {})
    }
}

/// What both kinds of network are: a plan, an arena, and the segment that is decoded.
#[derive(Debug)]
struct Executor<'a, const TENSORS: usize> {
    model: Model<'a>,
    plan: Plan<'a>,
    arena: &'a mut [u8],
    /// The input frame lies in the arena when a run begins.
    frame: bool,
    /// The stages that are not decoded yet.
    stages: Stages<'a>,
    /// Segments that are decoded; the last of them is the current one.
    decoded: usize,
    /// Layers before the current segment's end, and rows of the table before it.
    layers: usize,
    rows: u32,
    input: Tensor,
    nodes: Vec<Node, TENSORS>,
    operations: Vec<Operation<'a>, TENSORS>,
    /// Rows that are made of each of the segment's tensors, its input first.
    made: Vec<u16, TENSORS>,
}

impl<'a, const TENSORS: usize> Executor<'a, TENSORS> {
    /// The plan, if `arena` can hold it.
    fn check(model: &Model<'a>, arena: &[u8], frame: bool) -> Result<Plan<'a>, NewError> {
        let plan = model.memory_plan(frame).ok_or(NewError::Changed)?;
        if arena.len() < plan.arena_bytes {
            return Err(NewError::Arena { needed: plan.arena_bytes, given: arena.len() });
        }
        if arena.as_ptr().align_offset(ROW_ALIGN) != 0 {
            return Err(NewError::Misaligned);
        }
        Ok(plan)
    }

    /// An executor that has nothing decoded. It is large: inlined, it is made where it stays.
    #[inline(always)]
    fn new(model: Model<'a>, plan: Plan<'a>, arena: &'a mut [u8], frame: bool) -> Self {
        Executor {
            model,
            plan,
            arena,
            frame,
            stages: model.stages(),
            decoded: 0,
            layers: 0,
            rows: 0,
            input: Tensor { rows: 0, row_bytes: 0, base: 0, contiguous: frame },
            nodes: Vec::new(),
            operations: Vec::new(),
            made: Vec::new(),
        }
    }

    #[inline(never)]
    fn prove(&mut self) -> Result<(), NewError> {
        self.rewind();
        let mut before = 0u16; // tensors; a report needs no more than 65,535
        for segment in 0..self.plan.segments.len() {
            self.load(segment)?;
            let nodes = &self.nodes;
            let fits = |node: &Node| {
                let strip = usize::from(node.strip);
                let reads =
                    (strip - 1) * usize::from(node.window.stride[0]) + usize::from(node.window.kernel[0]);
                // a reduction takes its rows one by one
                strip + reads <= MAX_STEP_ROWS && (strip == 1 || !node.reduction)
            };
            if let Some(misfit) = nodes.iter().position(|node| node.strip == 0 || !fits(node)) {
                let tensor = before.saturating_add(misfit as u16 + 1);
                return Err(NewError::Plan { tensor, row: 0 });
            }
            let segment = Segment { input: self.input, nodes };
            self.plan
                .prove(&segment, &mut self.made)
                .map_err(|at| NewError::Plan { tensor: before.saturating_add(at.tensor), row: at.row })?;
            before = before.saturating_add(nodes.len() as u16);
        }
        Ok(())
    }

    /// The first segment comes next.
    fn rewind(&mut self) {
        let shape = self.model.input();
        self.stages = self.model.stages();
        (self.decoded, self.layers) = (0, 0);
        self.input =
            Tensor { rows: shape.height, row_bytes: shape.row_len() as u32, base: 0, contiguous: self.frame };
        self.rows = if self.frame { 1 } else { u32::from(shape.height) };
        self.nodes.clear();
    }

    /// Decodes segment `index`, the current one or the one after it, and sets its progress to the start.
    fn load(&mut self, index: usize) -> Result<(), NewError> {
        if self.decoded == index {
            self.decode(index)?;
        }
        let full = NewError::Tensors { given: TENSORS };
        self.made.clear();
        // the frame, or what the segment before has made, is there; a fed input is not
        let fed = index == 0 && !self.frame;
        self.made.push(if fed { 0 } else { self.input.rows }).map_err(|_| full)?;
        self.made.resize(self.nodes.len() + 1, 0).map_err(|_| full)
    }

    fn decode(&mut self, index: usize) -> Result<(), NewError> {
        let full = NewError::Tensors { given: TENSORS };
        if let Some(last) = self.nodes.last() {
            self.input = last.output;
        }
        self.nodes.clear();
        self.operations.clear();
        let mut input = 0;
        for _ in 0..self.plan.segments.get(index).copied().ok_or(NewError::Changed)? {
            let Executor { plan, stages, layers, rows, nodes, operations, .. } = self;
            let mut outcome = Ok(());
            let next = nodes.len() as u16 + 1;
            let visited = stages.visit(&mut |_, stage| {
                stage.each_layer(input, next, &mut |layer| {
                    outcome = outcome.and_then(|()| {
                        let strip = plan.strips.get(*layers).copied().ok_or(NewError::Changed)?;
                        let node = layer.place(strip, *rows);
                        *layers += 1;
                        *rows = rows.saturating_add(node.entries());
                        nodes.push(node).map_err(|_| full)?;
                        operations.push(layer.operation).map_err(|_| full)
                    });
                });
            });
            visited.ok_or(NewError::Changed)?.map_err(|_| NewError::Changed)?;
            outcome?;
            input = self.nodes.len() as u16;
        }
        self.decoded = index + 1;
        Ok(())
    }

    /// The bytes of the input frame.
    fn frame(&mut self) -> &mut [u8] {
        let shape = self.model.input();
        let start = self.plan.rows.first().map_or(0, |entry| usize::from(*entry) * ROW_ALIGN);
        // proved: the frame lies in the arena
        self.arena.get_mut(start..start + shape.len()).unwrap_or_default()
    }

    fn run(&mut self, feed: &mut dyn FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        if self.plan.segments.len() != 1 || self.decoded != 1 {
            self.rewind();
        }
        for segment in 0..self.plan.segments.len() {
            self.load(segment).map_err(|_| RunError::Changed)?;
            let segment = Segment { input: self.input, nodes: &self.nodes };
            while let Some(step) = segment.next(&self.made) {
                let mut memory = Memory { plan: &self.plan, segment: &segment, arena: self.arena };
                let operation =
                    usize::from(step.tensor).checked_sub(1).map(|index| self.operations.get(index));
                match operation {
                    None => memory.feed(step, feed),
                    Some(operation) => operation.and_then(|operation| memory.run(operation, step)),
                }
                .ok_or(RunError::Changed)?;
                if let Some(rows) = self.made.get_mut(usize::from(step.tensor)) {
                    *rows += step.count;
                }
            }
        }
        let scores = self.nodes.last().and_then(|node| self.plan.row(node.output, 0));
        let scores = self.arena.get_mut(scores.ok_or(RunError::Changed)?).unwrap_or_default();
        let scores: &mut [f32] = bytemuck::try_cast_slice_mut(scores).map_err(|_| RunError::Changed)?;
        self.model.softmax().apply(scores);
        Ok(Scores::new(scores, self.model.softmax() != Softmax::None))
    }
}

/// The parts of `bytes` at these ranges, in their order; `None` where two share a byte. Sorting the few
/// ranges is quicker than a comparison of all pairs.
fn disjoint<'b>(bytes: &'b mut [u8], ranges: &[Range<usize>]) -> Option<[&'b mut [u8]; MAX_STEP_ROWS + 1]> {
    let mut sorted = Vec::<(usize, &Range<usize>), { MAX_STEP_ROWS + 1 }>::new();
    for (index, range) in ranges.iter().enumerate().filter(|(_, range)| !range.is_empty()) {
        let before = sorted.iter().rev().take_while(|(_, other)| other.start > range.start).count();
        sorted.insert(sorted.len() - before, (index, range)).ok()?;
    }
    let mut parts = [(); MAX_STEP_ROWS + 1].map(|()| Default::default());
    let (mut rest, mut start) = (bytes, 0);
    for (index, range) in sorted {
        let (_, behind) = rest.split_at_mut_checked(range.start.checked_sub(start)?)?;
        let (part, behind) = behind.split_at_mut_checked(range.len())?;
        *parts.get_mut(index)? = part;
        (rest, start) = (behind, range.end);
    }
    Some(parts)
}

/// The arena, with what is known of the rows in it. Its methods return `None` only where the row table
/// has changed since the plan was proved.
struct Memory<'m> {
    plan: &'m Plan<'m>,
    segment: &'m Segment<'m>,
    arena: &'m mut [u8],
}

impl Memory<'_> {
    /// Takes an input row from the caller.
    fn feed(&mut self, step: Step, feed: &mut dyn FnMut(usize, &mut [u8])) -> Option<()> {
        let row = self.arena.get_mut(self.plan.row(self.segment.input, step.first)?)?;
        feed(usize::from(step.first), row);
        for pixel in row {
            *pixel ^= PIXEL_OFFSET;
        }
        Some(())
    }

    /// Makes one step. `cargo xtask bench` attributes cost to layers by the calls of this function.
    #[inline(never)]
    fn run(&mut self, operation: &Operation<'_>, step: Step) -> Option<()> {
        let node = self.segment.node(step.tensor)?;
        match operation {
            Operation::Windowed(layer) => self.strip(layer, None, node, step),
            Operation::Addition(layer, join) => {
                self.lay_shortcut(join, layer, node, step)?;
                self.strip(layer, Some(&join.addition), node, step)
            }
            Operation::Reduction(layer) => self.reduce(layer, node, step),
        }
    }

    /// Makes a strip of rows.
    fn strip(
        &mut self,
        layer: &Windowed<'_>,
        addition: Option<&Addition>,
        node: &Node,
        step: Step,
    ) -> Option<()> {
        let input = self.segment.tensor(node.reads);
        let row_len = layer.input().row_len();
        let mut ranges = [const { 0..0 }; MAX_STEP_ROWS + 1];
        let count = usize::from(step.count);
        let [scratch, rows @ ..] = &mut ranges;
        if let Some(tensor) = node.scratch(step.first) {
            *scratch = self.plan.row(tensor, 0)?;
        }
        let (outputs, inputs) = rows.split_at_mut_checked(count)?;
        for (range, row) in outputs.iter_mut().zip(step.first..) {
            *range = self.plan.row(node.output, row)?;
        }
        let under = layer.window().rows(step.first, step.count, node.input_rows);
        let mut reads = 0;
        for (range, row) in inputs.iter_mut().zip(under) {
            reads += 1;
            if let Some(row) = row {
                let start = self.plan.row(input, row)?.start;
                *range = start..start + row_len;
            }
        }
        let [scratch, rows @ ..] = disjoint(self.arena, ranges.get(..1 + count + reads)?)?;
        let scratch = bytemuck::pod_align_to_mut(scratch).1; // it begins at a word
        let mut output = Vec::<&mut [i8], MAX_STEP_ROWS>::new();
        let mut input = Vec::<&[i8], MAX_STEP_ROWS>::new();
        for (index, row) in rows.into_iter().enumerate().take(count + reads) {
            if index < count {
                output.push(bytemuck::cast_slice_mut(row)).ok()?;
            } else {
                input.push(bytemuck::cast_slice(row)).ok()?;
            }
        }
        run_strip(layer, addition, &input, &mut output, scratch);
        Some(())
    }

    /// Lays the shortcut's rows where the step's output rows will be, if they do not lie there.
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

    /// Lays one shortcut row at `to`, subsampled and padded with zero channels. Where both rows begin at
    /// the same address, no pixel is written before it is read: the plan's proof demands rows of equal
    /// length there, so that output pixel x ends before input pixel stride * (x + 1) begins.
    fn lay_row(&mut self, join: &Join, channels: usize, from: Range<usize>, to: Range<usize>) -> Option<()> {
        let taken = usize::from(join.channels);
        let stride = usize::from(join.subsample.stride[1]);
        if stride == 1 && taken == channels {
            // as long as the output's row: behind a reduction's values is what was left of its sums
            let from = from.start..from.start + to.len();
            return if from.start == to.start { Some(()) } else { self.copy(from, to.start) };
        }
        let before = usize::from(join.subsample.channels_before);
        let zero = join.addition.shortcut_zero_point() as u8;
        for (from, to) in from.step_by((stride * taken).max(1)).zip(to.step_by(channels.max(1))) {
            self.copy(from..from + taken, to + before)?;
            self.arena.get_mut(to..to + before)?.fill(zero);
            self.arena.get_mut(to + before + taken..to + channels)?.fill(zero);
        }
        Some(())
    }

    /// Copies bytes within the arena; the ranges may overlap.
    fn copy(&mut self, from: Range<usize>, to: usize) -> Option<()> {
        // byte by byte, away from where it goes: rare enough not to link a memmove for it
        let (start, count) = (from.start, from.end.checked_sub(from.start)?);
        for step in 0..count {
            let offset = if to <= start { step } else { count - 1 - step };
            let byte = *self.arena.get(start.checked_add(offset)?)?;
            *self.arena.get_mut(to.checked_add(offset)?)? = byte;
        }
        Some(())
    }

    /// Takes an input row into a reduction's sums; after the last they become its output, in place.
    fn reduce(&mut self, layer: &Reduction<'_>, node: &Node, step: Step) -> Option<()> {
        let start = self.plan.row(self.segment.tensor(node.reads), step.first)?.start;
        let output = self.plan.row(node.output, 0)?;
        let input = start..start + layer.input().row_len();
        let [row, input] = self.arena.get_disjoint_mut([output, input]).ok()?;
        let sums: &mut [i32] = bytemuck::try_cast_slice_mut(row).ok()?;
        if step.first == 0 {
            layer.begin(sums);
        }
        layer.accumulate(step.first, bytemuck::cast_slice(input), sums);
        if step.first + step.count < node.steps() {
            return Some(());
        }
        for index in 0..sums.len() {
            match layer.finished(index, *sums.get(index)?) {
                Finished::Score(score) => *sums.get_mut(index)? = score.to_bits().cast_signed(),
                // value `index` goes to byte `index`, which no sum behind it uses
                Finished::Value(value) => {
                    let bytes: &mut [i8] = bytemuck::cast_slice_mut(sums);
                    *bytes.get_mut(index)? = value;
                }
            }
        }
        Some(())
    }
}
