//! Residual blocks: a builder, a view of the list of layers, and the plain whole-tensor evaluation of both.
//!
//! A block is clamp(path(x) + shortcut(x)). The addition is fused into the path's last convolution: the output
//! holds the shortcut's values before that convolution runs, and each is replaced by the rounded sum of both. See
//! `docs/residual-blocks.md` for the idea. The executor, the plan and the blob know only layers.

use heapless::Vec;

use crate::base::clamp::Clamp;
use crate::base::error::LayerError;
use crate::base::quantization::{Addition, Rounding};
use crate::base::shape::{Shape, Window};
use crate::kernels::{self, Kernels};
use crate::net::layer::{Layer, Operation};
use crate::ops::{Conv2d, Finished, Reduction, Subsample, Windowed};

/// Maximum number of convolutions in the path of a [`Block`].
pub const MAX_PATH: usize = 4;

/// A residual block: one to four convolutions, and a shortcut around them.
///
/// The clamp of the last convolution is the block's: ReLU after the addition.
///
/// ```
/// use skipstone::Shape;
/// use skipstone::block::{Block, Clamp, Conv2d, Requantize, Residual, Window};
///
/// // An identity block over 2 x 2 pixels with one channel; all scales are 1, all zero points 0.
/// let (shape, window) = (Shape::new(2, 2, 1), Window::square(3, 1, 1));
/// const ONE: [i32; 1] = [1 << 30];
/// let relu = Requantize::new(&ONE, 30, Clamp::relu(0))?;
/// const DOUBLE: [i8; 9] = [0, 0, 0, 0, 2, 0, 0, 0, 0];
/// const NEGATE: [i8; 9] = [0, 0, 0, 0, -1, 0, 0, 0, 0];
/// let first = Conv2d::new(shape, window, &DOUBLE, &[0], &[0], relu)?;
/// let last = Conv2d::new(shape, window, &NEGATE, &[0], &[0], relu)?;
/// let block = Block::identity(&[first, last], Residual::new(0, 1 << 30, 0)?)?;
///
/// // relu(-relu(2 x) + x)
/// let (mut scratch, mut output) = ([0; 4], [0; 4]);
/// block.run(&[5, -5, 0, 100], &mut scratch, &mut output)?;
/// assert_eq!(output, [0, 0, 0, 0]);
///
/// // A block whose path is zero is exactly ReLU of its shortcut.
/// let zero = Conv2d::new(shape, window, &[0; 9], &[0], &[0], relu)?;
/// let block = Block::identity(&[first, zero], Residual::new(0, 1 << 30, 0)?)?;
/// block.run(&[5, -5, 0, 100], &mut scratch, &mut output)?;
/// assert_eq!(output, [5, 0, 0, 100]);
/// # Ok::<(), skipstone::error::LayerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Block<'a> {
    path: Vec<Conv2d<'a>, MAX_PATH>,
    addition: Addition,
    shortcut: Shortcut<'a>,
}

/// A block's other way from its input to its output.
#[derive(Debug, Clone, Copy)]
pub enum Shortcut<'a> {
    /// The input itself: an *identity block*.
    Identity,
    /// A convolution of its own (1 x 1, possibly strided): a *convolutional block*.
    Projection(Conv2d<'a>),
    /// Strided subsampling of the input with zero channels around it ("option A"): no weights.
    Padded(Subsample),
}

impl<'a> Block<'a> {
    /// An identity block: the path's result is added to the block's own input, of the same shape.
    ///
    /// # Errors
    /// [`LayerError`] if the path has no convolutions or more than [`MAX_PATH`], or shapes or ranges do not fit.
    pub fn identity(path: &[Conv2d<'a>], addition: impl Into<Addition>) -> Result<Self, LayerError> {
        Block::new(path, addition, Shortcut::Identity)
    }

    /// A convolutional block: the shortcut has a convolution of its own, which changes the shape as
    /// the path does.
    ///
    /// # Errors
    /// As [`Block::identity`].
    pub fn convolutional(
        path: &[Conv2d<'a>],
        addition: impl Into<Addition>,
        projection: Conv2d<'a>,
    ) -> Result<Self, LayerError> {
        Block::new(path, addition, Shortcut::Projection(projection))
    }

    /// A block with a padded shortcut ("option A"): every `stride`-th pixel of the input, with zero
    /// channels in front of and behind its own.
    ///
    /// # Errors
    /// As [`Block::identity`].
    pub fn padded(
        path: &[Conv2d<'a>],
        addition: impl Into<Addition>,
        subsample: Subsample,
    ) -> Result<Self, LayerError> {
        Block::new(path, addition, Shortcut::Padded(subsample))
    }

    /// A block with any shortcut.
    ///
    /// # Errors
    /// As [`Block::identity`].
    pub fn new(
        path: &[Conv2d<'a>],
        addition: impl Into<Addition>,
        shortcut: Shortcut<'a>,
    ) -> Result<Self, LayerError> {
        let addition = addition.into();
        let path = Vec::from_slice(path).map_err(|_| LayerError::Block)?;
        let (Some(first), Some(last)) = (path.first(), path.last()) else {
            return Err(LayerError::Block);
        };
        if path.iter().zip(path.iter().skip(1)).any(|(a, b)| a.output() != b.input()) {
            return Err(LayerError::Block);
        }
        let (input, output) = (first.input(), last.output());
        let arrives = match &shortcut {
            Shortcut::Identity => input == output,
            Shortcut::Projection(layer) => layer.input() == input && layer.output() == output,
            Shortcut::Padded(subsample) => subsample.leads(input, output),
        };
        check(last, &addition, arrives)?;
        Ok(Block { path, addition, shortcut })
    }

    /// The convolutions around which the shortcut leads.
    pub fn path(&self) -> &[Conv2d<'a>] {
        &self.path
    }

    /// How the shortcut's values are added.
    pub const fn addition(&self) -> Addition {
        self.addition
    }

    /// The other way.
    pub const fn shortcut(&self) -> &Shortcut<'a> {
        &self.shortcut
    }

    /// Shape of the input.
    pub fn input(&self) -> Shape {
        self.path.first().map_or(Shape::new(0, 0, 0), Conv2d::input)
    }

    /// Shape of the output.
    pub fn output(&self) -> Shape {
        self.path.last().map_or(Shape::new(0, 0, 0), Conv2d::output)
    }

    /// Zero point and range of the output.
    pub fn clamp(&self) -> Clamp {
        match self.addition {
            Addition::Fused(_) => self.path.last().map_or(Clamp::none(0), Conv2d::clamp),
            Addition::Separate(sum) => sum.clamp,
        }
    }

    /// Elements of scratch memory that [`Block::run`] needs: the tensors inside the path, and what the
    /// convolutions' algorithms want.
    pub fn scratch_len(&self) -> usize {
        let tensors: usize = self.path.iter().rev().skip(1).map(|layer| layer.output().len()).sum();
        let projection = match &self.shortcut {
            Shortcut::Projection(layer) => Some(layer),
            _ => None,
        };
        let kernels = self.path.iter().chain(projection).map(kernel_scratch_len).max();
        tensors + kernels.unwrap_or(0)
    }

    /// Evaluates the block on a whole tensor, layer by layer.
    ///
    /// This is the plain way, with whole tensors between the layers; a [`Network`](crate::Network) makes
    /// the same bits row by row in a fraction of the memory.
    ///
    /// # Errors
    /// [`LayerError::Length`] where `input`, `output` or `scratch` ([`Block::scratch_len`]) have the
    /// wrong length (a longer `scratch` serves).
    pub fn run(&self, input: &[i8], scratch: &mut [i8], output: &mut [i8]) -> Result<(), LayerError> {
        check_length(input.len(), self.input().len())?;
        check_length(output.len(), self.output().len())?;
        let given = scratch.len();
        let scratch = scratch.get_mut(..self.scratch_len());
        let scratch = scratch.ok_or(LayerError::Length { needed: self.scratch_len(), given })?;
        let tensors = self.path.iter().rev().skip(1).map(|layer| layer.output().len()).sum();
        let Some((scratch, kernel)) = scratch.split_at_mut_checked(tensors) else {
            return Err(LayerError::Block);
        };
        let kernel = words(kernel);
        match &self.shortcut {
            Shortcut::Identity => output.copy_from_slice(input),
            Shortcut::Projection(layer) => {
                run_windowed(&Windowed::Conv2d(*layer), None, input, output, kernel)?;
            }
            Shortcut::Padded(subsample) => {
                subsample.run(
                    self.input(),
                    input,
                    self.output(),
                    output,
                    self.addition.shortcut_zero_point(),
                );
            }
        }
        let Some((last, inner)) = self.path.split_last() else { return Err(LayerError::Block) };
        let (mut from, mut rest) = (input, scratch);
        for layer in inner {
            let Some((to, behind)) = rest.split_at_mut_checked(layer.output().len()) else {
                return Err(LayerError::Block);
            };
            run_windowed(&Windowed::Conv2d(*layer), None, from, to, kernel)?;
            (from, rest) = (to, behind);
        }
        run_windowed(&Windowed::Conv2d(*last), Some(&self.addition), from, output, kernel)
    }
}

/// A residual block as a view of a network's list of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Tensor at which path and shortcut part; layer i makes tensor i + 1.
    pub fork: u16,
    /// Index of the layer that adds the shortcut, the last of the path.
    pub last: u16,
    /// Number of layers in the path.
    pub path: u16,
    /// Which kind of block it is.
    pub kind: Kind,
}

/// The kinds of residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The block's input itself is added.
    Identity,
    /// The shortcut has a layer of its own, this one.
    Convolutional(u16),
    /// Strided subsampling with zero channels around is added ("option A").
    Padded,
}

impl Kind {
    /// What such a block is called.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Identity => "identity block",
            Kind::Convolutional(_) => "convolutional block",
            Kind::Padded => "padded block",
        }
    }
}

/// The block that layer `last` completes; `None` if it adds no shortcut, or one that does not begin where its path
/// begins.
pub fn span(layers: &[Layer<'_>], last: u16) -> Option<Span> {
    let layer = |index: u16| layers.get(usize::from(index));
    let Operation::Addition(_, join) = &layer(last)?.operation else { return None };
    let shortcut = layer(last)?.node.shortcut?.tensor;
    // the layer on the shortcut, if it has one
    let projection = shortcut.checked_sub(1).filter(|index| *index < last);
    let begins = projection.and_then(layer).map(|layer| layer.node.reads);
    let (mut at, mut path) = (last, 0u16);
    loop {
        path += 1;
        let reads = layer(at)?.node.reads;
        let kind = match (reads == shortcut, Some(reads) == begins, projection) {
            (true, ..)
                if join.subsample == Subsample::NONE && join.channels == layer(last)?.output().channels =>
            {
                Some(Kind::Identity)
            }
            (true, ..) => Some(Kind::Padded),
            (false, true, Some(projection)) => Some(Kind::Convolutional(projection)),
            (false, ..) => None,
        };
        match kind {
            Some(kind) => return Some(Span { fork: reads, last, path, kind }),
            None => at = reads.checked_sub(1)?,
        }
    }
}

/// Whether a shortcut can be added to the path's `last` convolution; `arrives` says that it has its shape.
pub(crate) fn check(last: &Conv2d<'_>, addition: &Addition, arrives: bool) -> Result<(), LayerError> {
    addition.check()?;
    // a fused addition shares the convolution's one rounding
    let rounded = match addition {
        Addition::Fused(_) => matches!(last.requantize.rounding(), Rounding::Once { .. }),
        Addition::Separate(_) => true,
    };
    if arrives && rounded { Ok(()) } else { Err(LayerError::Block) }
}

impl Layer<'_> {
    /// Evaluates a windowed layer on a whole tensor; `shortcut` is the tensor that it adds, if it adds one.
    ///
    /// # Errors
    /// [`LayerError::Length`] if a slice has the wrong length, [`LayerError::Shortcut`] if the shortcut is missing.
    pub fn run(
        &self,
        input: &[i8],
        shortcut: Option<(&[i8], Shape)>,
        scratch: &mut [i8],
        output: &mut [i8],
    ) -> Result<(), LayerError> {
        match (&self.operation, shortcut) {
            (Operation::Windowed(layer), None) => layer.run(input, scratch, output),
            (Operation::Addition(layer, join), Some((values, shape))) => {
                check_length(values.len(), shape.len())?;
                check_length(output.len(), layer.output().len())?;
                let zero_point = join.addition.shortcut_zero_point();
                join.subsample.run(shape, values, layer.output(), output, zero_point);
                run_windowed(layer, Some(&join.addition), input, output, words(scratch))
            }
            (Operation::Reduction(_) | Operation::Windowed(_) | Operation::Addition(..), _) => {
                Err(LayerError::Shortcut)
            }
        }
    }

    /// Elements of scratch memory that [`Layer::run`] needs.
    pub fn scratch_len(&self) -> usize {
        self.convolution().map_or(0, kernel_scratch_len)
    }
}

impl Windowed<'_> {
    /// Elements of scratch memory that [`Windowed::run`] needs, for the layer's algorithm.
    pub fn scratch_len(&self) -> usize {
        match self {
            Windowed::Conv2d(layer) => kernel_scratch_len(layer),
            Windowed::Pool2d(_) => 0,
        }
    }

    /// Evaluates the layer on a whole tensor.
    ///
    /// # Errors
    /// [`LayerError::Length`] where `input`, `output` or `scratch` ([`Windowed::scratch_len`]) have the
    /// wrong length (a longer `scratch` serves).
    pub fn run(&self, input: &[i8], scratch: &mut [i8], output: &mut [i8]) -> Result<(), LayerError> {
        if scratch.len() < self.scratch_len() {
            return Err(LayerError::Length { needed: self.scratch_len(), given: scratch.len() });
        }
        run_windowed(self, None, input, output, words(scratch))
    }
}

impl Reduction<'_> {
    /// Evaluates the layer on a whole tensor: int8 values and class scores, of which the layer's
    /// finish fills one and leaves the other alone.
    ///
    /// `sums` is scratch memory of one element for each output.
    ///
    /// # Errors
    /// [`LayerError::Length`] where a slice has the wrong length.
    pub fn run(
        &self,
        input: &[i8],
        sums: &mut [i32],
        output: &mut [i8],
        scores: &mut [f32],
    ) -> Result<(), LayerError> {
        check_length(input.len(), self.input().len())?;
        check_length(sums.len(), usize::from(self.outputs()))?;
        self.begin(sums);
        for (row, input) in input.chunks_exact(self.input().row_len()).enumerate() {
            self.accumulate(row as u16, input, sums);
        }
        let (needed, given) = match self.gives_scores() {
            true => (sums.len(), scores.len()),
            false => (sums.len(), output.len()),
        };
        check_length(given, needed)?;
        let (mut output, mut scores) = (output.iter_mut(), scores.iter_mut());
        for (index, sum) in sums.iter().enumerate() {
            match self.finished(index, *sum) {
                Finished::Value(value) => output.next().into_iter().for_each(|y| *y = value),
                Finished::Score(score) => scores.next().into_iter().for_each(|y| *y = score),
            }
        }
        Ok(())
    }

    /// Sets the sums to what they are before the first row.
    pub(crate) fn begin(&self, sums: &mut [i32]) {
        match self {
            Reduction::Dense(layer) => {
                for (sum, bias) in sums.iter_mut().zip(layer.bias) {
                    *sum = *bias;
                }
            }
            Reduction::GlobalAveragePool(_) => sums.fill(0),
        }
    }

    /// Takes one input row into the sums.
    pub(crate) fn accumulate(&self, row: u16, input: &[i8], sums: &mut [i32]) {
        match self {
            Reduction::Dense(layer) => kernels::dense(layer, row, input, sums),
            Reduction::GlobalAveragePool(layer) => kernels::global_average_pool(layer, input, sums),
        }
    }
}

/// Elements that hold a convolution's scratch memory, one row at a time, wherever they begin.
fn kernel_scratch_len(layer: &Conv2d<'_>) -> usize {
    match layer.scratch_bytes(1) {
        0 => 0,
        bytes => bytes + 3,
    }
}

/// The whole words among bytes.
fn words(bytes: &mut [i8]) -> &mut [u32] {
    bytemuck::pod_align_to_mut(bytes).1
}

fn run_windowed(
    layer: &Windowed<'_>,
    addition: Option<&Addition>,
    input: &[i8],
    output: &mut [i8],
    scratch: &mut [u32],
) -> Result<(), LayerError> {
    // exactly what the layer asks for: a kernel divides up all that it is given
    let words = match layer {
        Windowed::Conv2d(layer) => layer.scratch_bytes(1) / size_of::<u32>(),
        Windowed::Pool2d(_) => 0,
    };
    let scratch = scratch.get_mut(..words).unwrap_or_default();
    let (from, to, window) = (layer.input(), layer.output(), layer.window());
    check_length(input.len(), from.len())?;
    check_length(output.len(), to.len())?;
    for (row, output) in (0..to.height).zip(output.chunks_exact_mut(to.row_len())) {
        let mut rows = [&[][..]; Window::MAX_KERNEL as usize];
        for (slot, row) in rows.iter_mut().zip(window.rows(row, 1, from.height)) {
            if let Some(pixels) = row.and_then(|row| input.chunks_exact(from.row_len()).nth(usize::from(row)))
            {
                *slot = pixels;
            }
        }
        let rows = rows.get(..usize::from(window.kernel[0])).unwrap_or_default();
        kernels::strip::<{ Kernels::ALL }>(layer, addition, rows, &mut [output], scratch);
    }
    Ok(())
}

fn check_length(given: usize, needed: usize) -> Result<(), LayerError> {
    if given == needed { Ok(()) } else { Err(LayerError::Length { needed, given }) }
}
