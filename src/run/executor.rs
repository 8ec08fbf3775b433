//! The executor: runs the schedule, at the addresses that the plan's table gives.

use heapless::Vec;

use crate::base::error::{ParseError, RunError, SetUpError};
use crate::base::shape::Shape;
use crate::blob::format::MAX_OUTPUTS;
use crate::blob::model::Model;
use crate::blob::reader::{Entry, Records};
use crate::kernels::Kernels;
use crate::net::layer::Operation;
use crate::net::plan::{MAX_VISITS, Plan, Proof, ROW_ALIGN, Refusal};
use crate::net::schedule::{Node, Segment, Tensor};
use crate::ops::Softmax;
use crate::run::memory::{MAX_STEP_ROWS, Memory};
use crate::run::output::{Data, Output};
use crate::run::scores::Scores;

/// Turns a pixel byte p into the int8 value p - 128, and back.
const PIXEL_OFFSET: u8 = 0x80;

/// A network, its arena, and how far its run has come.
#[derive(Debug)]
pub(super) struct Executor<'a, const TENSORS: usize, const KERNELS: u16> {
    state: State<'a>,
    /// All of the caller's arena, of which a plan may need less.
    arena: Option<&'a mut [i8]>,
    /// The input frame is in the arena when a run begins.
    frame: bool,
    progress: Progress,
    current: Current<'a, TENSORS>,
    outputs: Outputs,
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

/// What a run reads.
#[derive(Debug)]
struct Setup<'a> {
    model: Model<'a>,
    plan: Plan<'a>,
    /// The layers that are not decoded yet.
    records: Records<'a>,
}

/// The network's outputs.
type Outputs = Vec<Kept, MAX_OUTPUTS>;

/// How far a run has come. (Zero is the first: see [`State`].)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Progress {
    /// No run has begun.
    Idle,
    /// Some rows are made.
    Running,
    /// The outputs can be read.
    Done,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// This row of the input.
    Row(u16),
    /// Nothing: it is done.
    Done,
}

/// An output of the network.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Its first entry in the row table.
    base: u32,
    /// Bytes of all its rows.
    bytes: u32,
    /// The layer that makes it.
    layer: u16,
    /// It holds class scores, not int8 values.
    scores: bool,
    softmax: Softmax,
}

impl Kept {
    /// All rows, which are stored consecutively, as one.
    const fn tensor(&self) -> Tensor {
        Tensor { rows: 1, row_bytes: self.bytes, base: self.base, contiguous: true }
    }
}

impl<'a, const TENSORS: usize, const KERNELS: u16> Executor<'a, TENSORS, KERNELS> {
    pub(super) const fn empty() -> Self {
        Executor {
            state: State::Empty,
            arena: None,
            frame: false,
            progress: Progress::Idle,
            current: Current::empty(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn set_up(
        &mut self,
        model: Model<'a>,
        arena: &'a mut [u8],
        frame: bool,
    ) -> Result<(), SetUpError> {
        self.arena = Some(bytemuck::cast_slice_mut(arena));
        self.frame = frame;
        self.swap(model)
    }

    /// Replaces the model; the arena stays, also after an error.
    #[inline(never)]
    pub(super) fn swap(&mut self, model: Model<'a>) -> Result<(), SetUpError> {
        self.state = State::Empty;
        self.progress = Progress::Idle;
        let arena = self.arena.as_deref_mut().ok_or(SetUpError::NoArena)?;
        if model.kernels() & !KERNELS != 0 {
            return Err(SetUpError::Kernels { needed: model.kernels(), given: KERNELS });
        }
        if model.tensors() > TENSORS {
            return Err(SetUpError::Tensors { needed: model.tensors(), given: TENSORS });
        }
        let plan = model.memory_plan(self.frame).ok_or(SetUpError::Changed)?;
        let (needed, given) = (plan.arena_bytes, arena.len());
        let arena = arena.get_mut(..needed).ok_or(SetUpError::Arena { needed, given })?;
        if arena.as_ptr().align_offset(ROW_ALIGN) != 0 {
            return Err(SetUpError::Misaligned);
        }
        self.state = State::Ready(Setup { model, plan, records: model.records() });
        let State::Ready(setup) = &mut self.state else { return Err(SetUpError::Changed) };
        let proved = self.current.prove::<KERNELS>(setup, arena, self.frame, &mut self.outputs);
        if proved.is_err() {
            self.state = State::Empty;
        }
        proved
    }

    /// Shape of an image.
    pub(super) fn input(&self) -> Result<Shape, RunError> {
        match &self.state {
            State::Empty => Err(RunError::Empty),
            State::Ready(setup) => Ok(setup.model.input()),
        }
    }

    /// Whether the input frame is in the arena.
    pub(super) const fn has_frame(&self) -> bool {
        self.frame
    }

    /// The bytes of the input frame; none if it is not in the arena.
    pub(super) fn frame(&mut self) -> &mut [u8] {
        let (State::Ready(setup), Some(arena), true) = (&self.state, &mut self.arena, self.frame) else {
            return &mut [];
        };
        let start = setup.plan.rows.first().map_or(0, |entry| usize::from(*entry) * ROW_ALIGN);
        // proved: the frame is inside the arena
        let frame = arena.get_mut(start..start + setup.model.input().len());
        bytemuck::cast_slice_mut(frame.unwrap_or_default())
    }

    /// Begins a run, in place of one that has not ended.
    pub(super) fn begin(&mut self) -> Result<(), RunError> {
        // pixels become int8 values
        for pixel in self.frame() {
            *pixel ^= PIXEL_OFFSET;
        }
        let State::Ready(setup) = &mut self.state else { return Err(RunError::Empty) };
        self.progress = Progress::Running;
        if setup.plan.segments.len() != 1 || self.current.decoded != 1 {
            self.current.rewind(setup, self.frame);
        }
        self.current.load::<KERNELS>(setup, 0, None).map_err(|_| RunError::Changed)
    }

    /// Whether a run has begun and not ended.
    pub(super) fn is_running(&self) -> bool {
        self.progress == Progress::Running
    }

    /// Gives a run the row for which it waits.
    pub(super) fn feed(&mut self, row: u16, feed: &mut dyn FnMut(usize, &mut [u8])) -> Result<(), RunError> {
        let (State::Ready(setup), Some(arena)) = (&self.state, &mut self.arena) else {
            return Err(RunError::Empty);
        };
        let place = setup.plan.row(self.current.input, row).and_then(|bytes| arena.get_mut(bytes));
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(place.ok_or(RunError::Changed)?);
        feed(row.into(), buffer);
        for pixel in buffer {
            *pixel ^= PIXEL_OFFSET;
        }
        if let Some(rows) = self.current.made.first_mut() {
            *rows += 1;
        }
        Ok(())
    }

    /// Runs until a row of the input is missing, or to the end.
    pub(super) fn advance(&mut self) -> Result<Wait, RunError> {
        let Executor { state: State::Ready(setup), arena: Some(arena), current, .. } = self else {
            return Err(RunError::Empty);
        };
        loop {
            let Setup { plan, .. } = setup;
            let segment = current.segment();
            match segment.next(&current.made) {
                None if current.decoded == plan.segments.len() => break,
                None => {
                    let next = current.decoded;
                    current.load::<KERNELS>(setup, next, None).map_err(|_| RunError::Changed)?;
                }
                Some(step) => {
                    let Some(layer) = usize::from(step.tensor).checked_sub(1) else {
                        return Ok(Wait::Row(step.first));
                    };
                    let mut memory = Memory { plan, segment: &segment, arena };
                    let made =
                        current.operations.get(layer).and_then(|layer| memory.run::<KERNELS>(layer, step));
                    // every step makes at least one row, so that a run ends even if the blob changes
                    let (Some(()), 1..) = (made, step.count) else { return Err(RunError::Changed) };
                    if let Some(rows) = current.made.get_mut(usize::from(step.tensor)) {
                        *rows += step.count;
                    }
                }
            }
        }
        self.finish()
    }

    /// Ends a run: class scores are normalized.
    fn finish(&mut self) -> Result<Wait, RunError> {
        let (State::Ready(setup), Some(arena)) = (&self.state, &mut self.arena) else {
            return Err(RunError::Empty);
        };
        for kept in self.outputs.iter().filter(|kept| kept.scores) {
            let bytes = setup.plan.row(kept.tensor(), 0).and_then(|bytes| arena.get_mut(bytes));
            let scores = bytemuck::try_cast_slice_mut(bytes.ok_or(RunError::Changed)?);
            kept.softmax.apply::<KERNELS>(scores.map_err(|_| RunError::Changed)?);
        }
        self.progress = Progress::Done;
        Ok(Wait::Done)
    }

    /// The class scores of the run that has ended: the first output that holds class scores; none if there is no
    /// such output.
    pub(super) fn scores(&self) -> Result<Scores<'_>, RunError> {
        match self.outputs.iter().find(|kept| kept.scores) {
            None => Ok(Scores::new(&[], false)),
            Some(kept) => self.scores_of(kept).ok_or(RunError::Changed),
        }
    }

    fn scores_of(&self, kept: &Kept) -> Option<Scores<'_>> {
        let scores = bytemuck::try_cast_slice(self.bytes(kept)?).ok()?;
        Some(Scores::new(scores, kept.softmax != Softmax::None))
    }

    fn bytes(&self, kept: &Kept) -> Option<&[i8]> {
        let (State::Ready(setup), Some(arena)) = (&self.state, &self.arena) else { return None };
        arena.get(setup.plan.row(kept.tensor(), 0)?)
    }

    /// An output of the run that has ended.
    pub(super) fn output(&self, index: usize) -> Option<Output<'_>> {
        let (State::Ready(setup), Progress::Done) = (&self.state, self.progress) else { return None };
        let kept = self.outputs.get(index)?;
        let Entry { output, layer, scale, zero_point, .. } =
            setup.model.layers().nth(kept.layer.into())?.ok()?;
        let shape = layer.output();
        let data = match kept.scores {
            true => Data::Scores(self.scores_of(kept)?),
            // a reduction's values are followed by the remains of its sums
            false => Data::Values(self.bytes(kept)?.get(..shape.len())?),
        };
        Some(Output { name: output?.0, shape, scale, zero_point, data })
    }
}

/// The segment that is decoded, and how far it has come.
#[derive(Debug)]
struct Current<'a, const TENSORS: usize> {
    /// Segments that are decoded; the last of them is the current one.
    decoded: usize,
    /// The number of its input tensor in the network, which is also the number of layers before it.
    first: u16,
    /// Entries of the row table before those of the next layer.
    rows: u32,
    input: Tensor,
    shape: Shape,
    nodes: Vec<Node, TENSORS>,
    operations: Vec<Operation<'a>, TENSORS>,
    /// Rows that are made of each of the segment's tensors, its input first.
    made: Vec<u16, TENSORS>,
}

impl<'a, const TENSORS: usize> Current<'a, TENSORS> {
    const fn empty() -> Self {
        Current {
            decoded: 0,
            first: 0,
            rows: 0,
            input: Tensor { rows: 0, row_bytes: 0, base: 0, contiguous: false },
            shape: Shape::new(0, 0, 0),
            nodes: Vec::new(),
            operations: Vec::new(),
            made: Vec::new(),
        }
    }

    fn segment(&self) -> Segment<'_> {
        Segment { first: self.first, input: self.input, nodes: &self.nodes }
    }

    /// The first segment comes next.
    fn rewind(&mut self, setup: &mut Setup<'a>, frame: bool) {
        setup.records = setup.model.records();
        (self.decoded, self.first, self.shape) = (0, 0, setup.model.input());
        self.input = Tensor {
            rows: self.shape.height,
            row_bytes: self.shape.row_len() as u32,
            base: 0,
            contiguous: frame,
        };
        self.rows = self.input.entries();
        self.nodes.clear();
        self.operations.clear();
    }

    /// Decodes segment `index`, the current one or the one after it, and sets its progress to the start.
    fn load<const KERNELS: u16>(
        &mut self,
        setup: &mut Setup<'a>,
        index: usize,
        outputs: Option<&mut Outputs>,
    ) -> Result<(), SetUpError> {
        if self.decoded == index {
            let decoded = self.decode::<KERNELS>(setup, index, outputs);
            if decoded.is_err() {
                self.decoded = 0; // the next run begins with the first segment
                self.nodes.clear();
                return decoded;
            }
        }
        self.made.clear();
        // the frame, or what the segment before has made, is there; a fed input is not
        let fed = index == 0 && !self.input.contiguous;
        self.made.push(if fed { 0 } else { self.input.rows }).map_err(|_| SetUpError::Changed)?;
        self.made.resize(self.nodes.len() + 1, 0).map_err(|_| SetUpError::Changed)
    }

    /// Decodes the segment after the current one and adds what it keeps to `outputs`. Everything is checked as it
    /// was by [`Model::parse`], since the blob may have changed.
    #[inline(never)]
    fn decode<const KERNELS: u16>(
        &mut self,
        setup: &mut Setup<'a>,
        index: usize,
        mut outputs: Option<&mut Outputs>,
    ) -> Result<(), SetUpError> {
        if let (Some(last), Some(operation)) = (self.nodes.last(), self.operations.last()) {
            // field by field: a copy within the executor would link a memmove for it
            let Tensor { rows, row_bytes, base, contiguous } = last.output;
            self.input = Tensor { rows, row_bytes, base, contiguous };
            self.shape = operation.output();
        }
        self.first += self.nodes.len() as u16;
        self.nodes.clear();
        self.operations.clear();
        let Setup { plan, records, .. } = setup;
        for _ in 0..plan.segments.get(index).copied().ok_or(SetUpError::Changed)? {
            let Current { first, shape, operations, nodes, rows, .. } = self;
            let tensor = first.saturating_add(nodes.len() as u16).saturating_add(1);
            let strip = plan.strips.get(usize::from(tensor - 1)).copied().unwrap_or(0);
            let mut operation = None;
            let known = |tensor: u16| match usize::from(tensor.checked_sub(*first)?).checked_sub(1) {
                None => Some(*shape),
                Some(layer) => operations.get(layer).map(Operation::output),
            };
            let mut decoded = Err(SetUpError::Plan { tensor, row: 0 });
            let visited = records.visit(&known, &mut |Entry { output, layer, .. }| {
                let node = layer.place(*first, strip, *rows).filter(fits);
                let Some(node) = node.filter(|_| Kernels::of(layer) & !KERNELS == 0) else { return };
                *rows = rows.saturating_add(node.entries());
                let mut kept = true;
                if let (Some(outputs), Some((_, softmax))) = (&mut outputs, output) {
                    let Tensor { base, row_bytes, rows, .. } = node.output;
                    let bytes = row_bytes.saturating_mul(rows.into());
                    let (layer, scores) = (tensor - 1, layer.gives_scores());
                    kept = outputs.push(Kept { base, bytes, layer, scores, softmax: *softmax }).is_ok();
                }
                operation = Some(layer.operation);
                let room = kept && nodes.push(node).is_ok();
                decoded = if room { Ok(()) } else { Err(SetUpError::Changed) };
            });
            match visited {
                Some(Ok(())) => decoded?,
                // a cut between a tensor and its reader
                Some(Err(ParseError::Tensor { tensor, .. })) => {
                    return Err(SetUpError::Plan { tensor, row: 0 });
                }
                Some(Err(_)) | None => return Err(SetUpError::Changed),
            }
            operations.push(operation.ok_or(SetUpError::Changed)?).map_err(|_| SetUpError::Changed)?;
        }
        self.decoded = index + 1;
        Ok(())
    }

    /// Proves the memory plan by running the schedule without arithmetic, and notes the outputs.
    fn prove<const KERNELS: u16>(
        &mut self,
        setup: &mut Setup<'a>,
        arena: &mut [i8],
        frame: bool,
        outputs: &mut Outputs,
    ) -> Result<(), SetUpError> {
        outputs.clear();
        self.rewind(setup, frame);
        let plan = setup.plan;
        let (words, _) = arena.as_chunks_mut::<ROW_ALIGN>();
        let words =
            bytemuck::try_cast_slice_mut(words.as_flattened_mut()).map_err(|_| SetUpError::Misaligned)?;
        let mut proof = Proof::new(&plan, words);
        let refused = |refusal| match refusal {
            Refusal::Misplaced { tensor, row } => SetUpError::Plan { tensor, row },
            Refusal::TooLong => SetUpError::Rows { limit: MAX_VISITS },
        };
        for index in 0..plan.segments.len() {
            self.load::<KERNELS>(setup, index, Some(outputs))?;
            let segment = Segment { first: self.first, input: self.input, nodes: &self.nodes };
            proof.segment(&segment, &mut self.made).map_err(refused)?;
        }
        for kept in outputs {
            proof.kept(kept.layer.saturating_add(1), kept.tensor()).map_err(refused)?;
        }
        Ok(())
    }
}

/// Whether the node's steps are not larger than one may be.
fn fits(node: &Node) -> bool {
    let strip = usize::from(node.strip);
    let reads =
        strip.saturating_sub(1) * usize::from(node.window.stride[0]) + usize::from(node.window.kernel[0]);
    // a reduction reads its rows one by one
    strip > 0 && strip + reads <= MAX_STEP_ROWS && (strip == 1 || !node.reduction)
}
