//! The executor: rows on demand, at the addresses that the plan's table gives.

use core::ops::Range;

use heapless::Vec;

use crate::base::error::{NewError, RunError};
use crate::base::quantization::Addition;
use crate::base::shape::Shape;
use crate::blob::model::Model;
use crate::blob::reader::Stages;
use crate::kernels::{self, Kernels};
use crate::net::layer::{Join, Operation};
use crate::net::plan::{MAX_VISITS, Plan, Proof, ROW_ALIGN, Refusal};
use crate::net::schedule::{Node, Segment, Step, Tensor};
use crate::ops::Softmax;
use crate::ops::{Finished, Reduction, Windowed};
use crate::run::scores::Scores;

/// Most rows that one step reads and makes: a strip and the rows under its windows.
pub const MAX_STEP_ROWS: usize = 16;

/// Slices of the arena in a step: its rows, and scratch memory.
const SLICES: usize = MAX_STEP_ROWS + 1;

/// Turns a pixel byte p into the int8 value p - 128, and back.
const PIXEL_OFFSET: u8 = 0x80;

/// A network that is ready to run, fed row by row: no frame buffer exists.
///
/// # Stack
/// On a Cortex-M4, [`Model::parse`], [`Network::set_up`] and a run take at most 2,048 bytes of stack each, below
/// the frame of their caller (`cargo xtask test stack` measures it by painting the stack); nothing is
/// recursive. The network itself, some kilobytes by its `TENSORS`, lies where its owner puts it: in a static
/// by [`Network::empty`] and [`Network::set_up`]. [`Network::new`] returns it by value, and has it on the
/// stack a second time until it does.
///
/// # Parameters
/// `TENSORS` bounds the tensors of a segment (its input and an output for each layer), whose
/// description is held in memory; segments are the runs of layers that stream through each other.
/// `KERNELS` ([`Kernels`]) are those that are linked; `{ skipstone::kernels(MODEL) }` are the ones that an
/// embedded model needs.
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
pub struct Network<'a, const TENSORS: usize = 16, const KERNELS: u16 = { Kernels::ALL }> {
    executor: Executor<'a, TENSORS, KERNELS>,
}

impl<'a, const TENSORS: usize, const KERNELS: u16> Network<'a, TENSORS, KERNELS> {
    /// A network without a model, for a static: [`Network::set_up`] gives it one where it lies.
    ///
    /// ```
    /// use skipstone::{Arena, Model, Network};
    ///
    /// // on a board these two lie in a `static_cell::ConstStaticCell` each
    /// let (mut arena, mut network) = (Arena::<{ 4 * 1024 }>::new(), Network::<16>::empty());
    /// let model = Model::parse(skipstone::include_model!("../../models/digits.skip"))?;
    /// network.set_up(model, &mut arena)?;
    /// assert_eq!(network.run(&[0; 64])?.values().len(), 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn empty() -> Self {
        Network { executor: Executor::empty() }
    }

    /// Sets up a network in `arena`, of which it needs [`Model::arena_bytes_rows`], and proves its
    /// memory plan by running the schedule without arithmetic in the arena.
    ///
    /// # Errors
    /// [`NewError`] where the arena is too small or misaligned, a segment has too many tensors or the
    /// plan is not sound. After this a run cannot fail but for an image of the wrong length.
    pub fn new(model: Model<'a>, arena: &'a mut [u8]) -> Result<Self, NewError> {
        // made where it is returned: it is large
        let mut network = Ok(Self::empty());
        if let Ok(made) = &mut network
            && let Err(error) = made.set_up(model, arena)
        {
            network = Err(error);
        }
        network
    }

    /// Sets the network up where it lies, as [`Network::new`] does, in place of what it ran before.
    ///
    /// # Errors
    /// As [`Network::new`]; the network is empty then.
    pub fn set_up(&mut self, model: Model<'a>, arena: &'a mut [u8]) -> Result<(), NewError> {
        self.executor.set_up(model, arena, false)
    }

    /// A network whose input frame lies in the arena, of which it needs [`Model::arena_bytes`].
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_frame(
        model: Model<'a>,
        arena: &'a mut [u8],
    ) -> Result<FrameNetwork<'a, TENSORS, KERNELS>, NewError> {
        let mut network = Ok(FrameNetwork::empty());
        if let Ok(made) = &mut network
            && let Err(error) = made.set_up(model, arena)
        {
            network = Err(error);
        }
        network
    }

    /// Runs the network on an image: height x width x channels raw pixel bytes (HWC).
    ///
    /// # Errors
    /// [`RunError::Input`] where the image has the wrong length, [`RunError::Empty`] where there is no model.
    pub fn run(&mut self, image: &[u8]) -> Result<Scores<'_>, RunError> {
        let shape = self.executor.input().ok_or(RunError::Empty)?;
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
    /// [`RunError::Changed`] where the blob has changed since it was parsed, [`RunError::Empty`] where
    /// there is no model.
    pub fn run_rows(&mut self, mut feed: impl FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        self.executor.run(&mut feed)
    }
}

/// A network whose input frame lies in the arena: a camera's DMA writes it there, and its space is
/// reused as its rows die.
#[derive(Debug)]
pub struct FrameNetwork<'a, const TENSORS: usize = 16, const KERNELS: u16 = { Kernels::ALL }> {
    executor: Executor<'a, TENSORS, KERNELS>,
}

impl<'a, const TENSORS: usize, const KERNELS: u16> FrameNetwork<'a, TENSORS, KERNELS> {
    /// A network without a model, as [`Network::empty`] gives it.
    pub const fn empty() -> Self {
        FrameNetwork { executor: Executor::empty() }
    }

    /// Sets the network up where it lies, as [`Network::set_up`] does.
    ///
    /// # Errors
    /// As [`Network::new`]; the network is empty then.
    pub fn set_up(&mut self, model: Model<'a>, arena: &'a mut [u8]) -> Result<(), NewError> {
        self.executor.set_up(model, arena, true)
    }

    /// Where the image goes before each run: height x width x channels raw pixel bytes (HWC). A run
    /// overwrites it. It has no bytes where there is no model.
    pub fn input_mut(&mut self) -> &mut [u8] {
        self.executor.frame()
    }

    /// Runs the network on the frame in [`FrameNetwork::input_mut`].
    ///
    /// # Errors
    /// [`RunError::Changed`] where the blob has changed since it was parsed, [`RunError::Empty`] where
    /// there is no model.
    pub fn run(&mut self) -> Result<Scores<'_>, RunError> {
        for pixel in self.executor.frame() {
            *pixel ^= PIXEL_OFFSET;
        }
        self.executor.run(&mut |_, _| {})
    }
}

/// What both kinds of network are.
#[derive(Debug)]
struct Executor<'a, const TENSORS: usize, const KERNELS: u16> {
    state: State<'a>,
    current: Current<'a, TENSORS>,
}

/// Whether there is a model. With a tag of its own, unlike an `Option`, the empty one is zeros, and a static
/// takes no flash.
#[derive(Debug)]
#[repr(u8)]
#[allow(clippy::large_enum_variant)] // no heap to box it on
enum State<'a> {
    Empty,
    Ready(Setup<'a>),
}

/// What a run reads and where it computes.
#[derive(Debug)]
struct Setup<'a> {
    model: Model<'a>,
    plan: Plan<'a>,
    /// Exactly the plan's bytes.
    arena: &'a mut [i8],
    /// The input frame lies in the arena when a run begins.
    frame: bool,
    /// The stages that are not decoded yet.
    stages: Stages<'a>,
}

impl<'a> Setup<'a> {
    /// The setup, if `arena` can hold it.
    fn new(model: Model<'a>, arena: &'a mut [u8], frame: bool) -> Result<Self, NewError> {
        let plan = model.memory_plan(frame).ok_or(NewError::Changed)?;
        let (needed, given) = (plan.arena_bytes, arena.len());
        let arena = arena.get_mut(..needed).ok_or(NewError::Arena { needed, given })?;
        if arena.as_ptr().align_offset(ROW_ALIGN) != 0 {
            return Err(NewError::Misaligned);
        }
        Ok(Setup { model, plan, arena: bytemuck::cast_slice_mut(arena), frame, stages: model.stages() })
    }
}

impl<'a, const TENSORS: usize, const KERNELS: u16> Executor<'a, TENSORS, KERNELS> {
    const fn empty() -> Self {
        Executor { state: State::Empty, current: Current::empty() }
    }

    #[inline(never)]
    fn set_up(&mut self, model: Model<'a>, arena: &'a mut [u8], frame: bool) -> Result<(), NewError> {
        self.state = State::Empty;
        if model.kernels() & !KERNELS != 0 {
            return Err(NewError::Kernels { needed: model.kernels(), given: KERNELS });
        }
        self.state = State::Ready(Setup::new(model, arena, frame)?);
        let State::Ready(setup) = &mut self.state else { return Err(NewError::Changed) };
        let proved = self.current.prove(setup);
        if proved.is_err() {
            self.state = State::Empty;
        }
        proved
    }

    /// Shape of an image.
    fn input(&self) -> Option<Shape> {
        match &self.state {
            State::Empty => None,
            State::Ready(setup) => Some(setup.model.input()),
        }
    }

    /// The bytes of the input frame.
    fn frame(&mut self) -> &mut [u8] {
        let State::Ready(setup) = &mut self.state else { return &mut [] };
        let start = setup.plan.rows.first().map_or(0, |entry| usize::from(*entry) * ROW_ALIGN);
        // proved: the frame lies in the arena
        let frame = setup.arena.get_mut(start..start + setup.model.input().len());
        bytemuck::cast_slice_mut(frame.unwrap_or_default())
    }

    fn run(&mut self, feed: &mut dyn FnMut(usize, &mut [u8])) -> Result<Scores<'_>, RunError> {
        let Executor { state: State::Ready(setup), current } = self else { return Err(RunError::Empty) };
        if setup.plan.segments.len() != 1 || current.decoded != 1 {
            current.rewind(setup);
        }
        for segment in 0..setup.plan.segments.len() {
            current.load(&setup.plan, &mut setup.stages, segment).map_err(|_| RunError::Changed)?;
            let segment = Segment { input: current.input, nodes: &current.nodes };
            while let Some(step) = segment.next(&current.made) {
                let mut memory = Memory { plan: &setup.plan, segment: &segment, arena: setup.arena };
                let operation =
                    usize::from(step.tensor).checked_sub(1).map(|index| current.operations.get(index));
                match operation {
                    None => memory.feed(step, feed),
                    Some(operation) => operation.and_then(|operation| memory.run::<KERNELS>(operation, step)),
                }
                .ok_or(RunError::Changed)?;
                if let Some(rows) = current.made.get_mut(usize::from(step.tensor)) {
                    *rows += step.count;
                }
            }
        }
        let scores = current.nodes.last().and_then(|node| setup.plan.row(node.output, 0));
        let scores = setup.arena.get_mut(scores.ok_or(RunError::Changed)?).unwrap_or_default();
        let scores: &mut [f32] = bytemuck::try_cast_slice_mut(scores).map_err(|_| RunError::Changed)?;
        let softmax = setup.model.softmax();
        softmax.apply(scores);
        Ok(Scores::new(scores, softmax != Softmax::None))
    }
}

/// The segment that is decoded, and how far it has come.
#[derive(Debug)]
struct Current<'a, const TENSORS: usize> {
    /// Segments that are decoded; the last of them is the current one.
    decoded: usize,
    /// Layers before its end, and rows of the table before it.
    layers: usize,
    rows: u32,
    input: Tensor,
    nodes: Vec<Node, TENSORS>,
    operations: Vec<Operation<'a>, TENSORS>,
    /// Rows that are made of each of the segment's tensors, its input first.
    made: Vec<u16, TENSORS>,
}

impl<'a, const TENSORS: usize> Current<'a, TENSORS> {
    const fn empty() -> Self {
        Current {
            decoded: 0,
            layers: 0,
            rows: 0,
            input: Tensor { rows: 0, row_bytes: 0, base: 0, contiguous: false },
            nodes: Vec::new(),
            operations: Vec::new(),
            made: Vec::new(),
        }
    }

    /// The first segment comes next.
    fn rewind(&mut self, setup: &mut Setup<'a>) {
        let shape = setup.model.input();
        setup.stages = setup.model.stages();
        (self.decoded, self.layers) = (0, 0);
        self.input = Tensor {
            rows: shape.height,
            row_bytes: shape.row_len() as u32,
            base: 0,
            contiguous: setup.frame,
        };
        self.rows = if setup.frame { 1 } else { u32::from(shape.height) };
        self.nodes.clear();
    }

    /// Decodes segment `index`, the current one or the one after it, and sets its progress to the start.
    fn load(&mut self, plan: &Plan<'_>, stages: &mut Stages<'a>, index: usize) -> Result<(), NewError> {
        if self.decoded == index {
            self.decode(plan, stages, index)?;
        }
        let full = NewError::Tensors { given: TENSORS };
        self.made.clear();
        // the frame, or what the segment before has made, is there; a fed input is not
        let fed = index == 0 && !self.input.contiguous;
        self.made.push(if fed { 0 } else { self.input.rows }).map_err(|_| full)?;
        self.made.resize(self.nodes.len() + 1, 0).map_err(|_| full)
    }

    #[inline(never)]
    fn decode(&mut self, plan: &Plan<'_>, stages: &mut Stages<'a>, index: usize) -> Result<(), NewError> {
        let full = NewError::Tensors { given: TENSORS };
        if let Some(last) = self.nodes.last() {
            // field by field: a copy within the executor would link a memmove for it
            let Tensor { rows, row_bytes, base, contiguous } = last.output;
            self.input = Tensor { rows, row_bytes, base, contiguous };
        }
        self.nodes.clear();
        self.operations.clear();
        let mut input = 0;
        for _ in 0..plan.segments.get(index).copied().ok_or(NewError::Changed)? {
            let Current { layers, rows, nodes, operations, .. } = self;
            let mut outcome = Ok(());
            let next = nodes.len() as u16 + 1;
            let visited = stages.visit(input, next, &mut |layer| {
                let mut push = || {
                    let strip = plan.strips.get(*layers).copied().ok_or(NewError::Changed)?;
                    let node = layer.place(strip, *rows);
                    *layers += 1;
                    *rows = rows.saturating_add(node.entries());
                    nodes.push(node).map_err(|_| full)?;
                    operations.push(layer.operation).map_err(|_| full)
                };
                if outcome.is_ok() {
                    outcome = push();
                }
            });
            visited.ok_or(NewError::Changed)?.map_err(|_| NewError::Changed)?;
            outcome?;
            input = nodes.len() as u16;
        }
        self.decoded = index + 1;
        Ok(())
    }

    fn prove(&mut self, setup: &mut Setup<'a>) -> Result<(), NewError> {
        self.rewind(setup);
        let Setup { plan, arena, stages, .. } = setup;
        let (words, _) = arena.as_chunks_mut::<ROW_ALIGN>();
        let words =
            bytemuck::try_cast_slice_mut(words.as_flattened_mut()).map_err(|_| NewError::Misaligned)?;
        let mut proof = Proof::new(plan, words);
        let mut before = 0u16; // tensors; a report needs no more than 65,535
        for index in 0..plan.segments.len() {
            self.load(plan, stages, index)?;
            let misplaced = |tensor, row| NewError::Plan { tensor: before.saturating_add(tensor), row };
            if let Some(misfit) = self.nodes.iter().position(|node| !fits(node)) {
                return Err(misplaced(misfit as u16 + 1, 0));
            }
            let segment = Segment { input: self.input, nodes: &self.nodes };
            proof.segment(&segment, &mut self.made).map_err(|refusal| match refusal {
                Refusal::Misplaced { tensor, row } => misplaced(tensor, row),
                Refusal::TooLong => NewError::Rows { limit: MAX_VISITS },
            })?;
            before = before.saturating_add(self.nodes.len() as u16);
        }
        Ok(())
    }
}

/// Whether the node's steps are not larger than one may be.
fn fits(node: &Node) -> bool {
    let strip = usize::from(node.strip);
    let reads =
        strip.saturating_sub(1) * usize::from(node.window.stride[0]) + usize::from(node.window.kernel[0]);
    // a reduction takes its rows one by one
    strip > 0 && strip + reads <= MAX_STEP_ROWS && (strip == 1 || !node.reduction)
}

/// The arena, with what is known of the rows in it. Its methods return `None` only where the row table
/// has changed since the plan was proved.
struct Memory<'m> {
    plan: &'m Plan<'m>,
    segment: &'m Segment<'m>,
    arena: &'m mut [i8],
}

impl Memory<'_> {
    /// Takes an input row from the caller.
    fn feed(&mut self, step: Step, feed: &mut dyn FnMut(usize, &mut [u8])) -> Option<()> {
        let row = self.arena.get_mut(self.plan.row(self.segment.input, step.first)?)?;
        let row: &mut [u8] = bytemuck::cast_slice_mut(row);
        feed(usize::from(step.first), row);
        for pixel in row {
            *pixel ^= PIXEL_OFFSET;
        }
        Some(())
    }

    /// Makes one step. `cargo xtask bench` attributes cost to layers by the calls of this function.
    #[inline(never)]
    fn run<const KERNELS: u16>(&mut self, operation: &Operation<'_>, step: Step) -> Option<()> {
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

    /// Makes a strip of rows, in slices of the arena: scratch memory, rows that are made, and the rows
    /// under the windows.
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
        // where there is none, it may lie between words
        let scratch = bytemuck::try_cast_slice_mut(scratch).unwrap_or_default();
        let (output, read) = rows.split_at_mut_checked(usize::from(step.count))?;
        let mut input = Vec::<&[i8], SLICES>::new();
        for row in read {
            input.push(row).ok()?;
        }
        kernels::strip::<KERNELS>(layer, addition, &input, output, scratch);
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
        layer.accumulate(step.first, input, sums);
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

/// Cuts disjoint `ranges` out of the arena, in their order; `None` where they are not disjoint. Empty
/// ones lie nowhere.
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
