//! Reads the stages' records in place: layer by layer, each checked when it is read.

use postcard::Deserializer;
use postcard::de_flavors::Slice;
use serde::Deserialize;

use crate::base::error::{LayerError, ParseError};
use crate::base::quantization::{Requantize, Rounding};
use crate::base::section::section;
use crate::base::shape::Shape;
use crate::blob::format::{self, FinishKind, OperationKind, ShortcutKind};
use crate::net::block::{self, MAX_PATH, Subsample};
use crate::net::layer::{Join, Layer, Stage};
use crate::ops::checks::check_scale;
use crate::ops::{Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Reduction, Windowed};

/// A stage as it stands in the blob and as it runs.
#[derive(Debug, Clone)]
pub struct StageEntry<'a> {
    /// Its record: name, scales, offsets.
    pub record: format::Stage<'a>,
    /// Its layers.
    pub stage: Stage<'a>,
}

/// Iterates over a blob's stages, decoding one at a time.
#[derive(Debug, Clone)]
pub struct Stages<'a> {
    rest: &'a [u8],
    weights: &'a [u8],
    index: u16,
    count: u16,
    shape: Shape,
}

impl<'a> Iterator for Stages<'a> {
    type Item = Result<StageEntry<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (record, mut layers) = (self.rest, heapless::Vec::new());
        let stage = self.index;
        let outcome = self.visit(0, 1, &mut |layer| {
            let _ = layers.push(*layer); // it has room for the longest stage
        })?;
        Some(outcome.and_then(|()| {
            let record = postcard::from_bytes(record).map_err(|_| ParseError::Stage { stage })?;
            Ok(StageEntry { record, stage: Stage::new(layers) })
        }))
    }
}

impl<'a> Stages<'a> {
    /// The `count` stages whose records lie in `records`, one behind the other, over an input of shape
    /// `input`: for a planner, which must know the layers before there is a blob. `weights` must be
    /// aligned to [`SECTION_ALIGN`](crate::SECTION_ALIGN).
    pub const fn new(records: &'a [u8], count: u16, weights: &'a [u8], input: Shape) -> Self {
        Stages { rest: records, weights, index: 0, count, shape: input }
    }

    /// What lies behind the last stage's record, once all are read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Calls `take` with the layers of the next stage, as [`Stage::layers`] gives them; `None` after the
    /// last stage. Where the stage turns out to be wrong, layers that were given are of no use.
    #[inline(never)]
    pub(crate) fn visit(
        &mut self,
        input: u16,
        next: u16,
        take: &mut dyn FnMut(&Layer<'a>),
    ) -> Option<Result<(), ParseError>> {
        if self.index >= self.count {
            return None;
        }
        let (records, stage) = (Deserializer::from_bytes(self.rest), self.index);
        let mut reader = Reader { records, weights: self.weights, stage, error: ParseError::Stage { stage } };
        self.index += 1;
        let shape = reader.stage(self.shape, input, next, take);
        let (Some(shape), Ok(rest)) = (shape, reader.records.finalize()) else {
            self.count = self.index; // what follows cannot be found
            return Some(Err(reader.error));
        };
        (self.shape, self.rest) = (shape, rest);
        Some(Ok(()))
    }
}

/// Turns a stage's records into layers over slices of the weights. Its methods return `None` where a stage
/// cannot be read.
struct Reader<'a> {
    records: Deserializer<'a, Slice<'a>>,
    weights: &'a [u8],
    stage: u16,
    /// Why it cannot be read, if not for bytes that do not decode.
    error: ParseError,
}

impl<'a> Reader<'a> {
    /// A layer that is checked.
    fn checked<T>(&mut self, layer: Result<T, LayerError>) -> Option<T> {
        layer.map_err(|error| self.error = ParseError::Layer { stage: self.stage, error }).ok()
    }

    #[inline(never)]
    fn read<T: Deserialize<'a>>(&mut self) -> Option<T> {
        T::deserialize(&mut self.records).ok()
    }

    /// Reads a [`format::Stage`] over `shape`; returns its output's shape.
    #[inline(never)]
    fn stage(
        &mut self,
        shape: Shape,
        input: u16,
        next: u16,
        take: &mut dyn FnMut(&Layer<'a>),
    ) -> Option<Shape> {
        self.read::<&str>()?; // its name
        match self.read()? {
            OperationKind::Conv2d => self.convolution(shape, input, take),
            OperationKind::Pool2d => {
                let record: format::Pool2d = self.read()?;
                let layer = self.checked(Pool2d::new(shape, record.window, record.kind))?;
                take(&Layer::windowed(Windowed::Pool2d(layer), input));
                Some(layer.output())
            }
            OperationKind::Dense => {
                let layer = Reduction::Dense(self.dense(shape)?);
                take(&Layer::reduction(layer, input));
                Some(Shape::new(1, 1, layer.outputs()))
            }
            OperationKind::GlobalAveragePool => {
                let zero_point = self.read()?;
                let finish = self.finish()?;
                let layer = self.checked(GlobalAveragePool::new(shape, zero_point, finish))?;
                take(&Layer::reduction(Reduction::GlobalAveragePool(layer), input));
                Some(Shape::new(1, 1, shape.channels))
            }
            OperationKind::Block => self.block(shape, input, next, take),
        }
    }

    #[inline(never)]
    fn block(
        &mut self,
        input: Shape,
        tensor: u16,
        next: u16,
        take: &mut dyn FnMut(&Layer<'a>),
    ) -> Option<Shape> {
        let convolutions: usize = self.read()?;
        if convolutions > MAX_PATH {
            return None;
        }
        let (mut shape, mut reads, mut made) = (input, tensor, next);
        for _ in 1..convolutions {
            shape = self.convolution(shape, reads, take)?;
            (reads, made) = (made, made.saturating_add(1));
        }
        if convolutions < 2 {
            return self.checked(Err(LayerError::Block));
        }
        let last = self.conv2d(shape)?;
        let output = last.output();
        let addition = self.read()?;
        let mut join = Join { addition, subsample: Subsample::NONE, channels: output.channels };
        let mut added = tensor;
        let arrives = match self.read()? {
            ShortcutKind::Identity => input == output,
            ShortcutKind::Projection => {
                added = made;
                self.convolution(input, tensor, take)? == output
            }
            ShortcutKind::Padded => {
                (join.subsample, join.channels) = (self.read()?, input.channels);
                join.subsample.leads(input, output)
            }
        };
        self.checked(block::check(&last, &join.addition, arrives))?;
        self.scale()?;
        take(&Layer::addition(last, reads, join, added));
        Some(output)
    }

    /// Reads a convolution and gives it to `take`; returns its output's shape.
    #[inline(never)]
    fn convolution(&mut self, input: Shape, reads: u16, take: &mut dyn FnMut(&Layer<'a>)) -> Option<Shape> {
        let layer = self.conv2d(input)?;
        take(&Layer::windowed(Windowed::Conv2d(layer), reads));
        Some(layer.output())
    }

    #[inline(never)]
    fn conv2d(&mut self, input: Shape) -> Option<Conv2d<'a>> {
        let record: format::Conv2d = self.read()?;
        self.checked(check_scale(record.scale))?;
        let format::Conv2d { depthwise, algorithm, window, .. } = record;
        let channels = usize::from(record.channels);
        let outputs = if depthwise { input.channels } else { record.channels };
        let requantize = self.requantize(&record.requantize, channels);
        let bytes = Conv2d::weight_bytes(&window, input, record.channels, depthwise, algorithm);
        let layer = Conv2d {
            input,
            output: window.output(input, outputs).unwrap_or(Shape::new(0, 0, 0)),
            window,
            depthwise,
            algorithm,
            weights: self.section(record.weights, bytes)?,
            bias: self.section(record.bias, channels)?,
            padding_pixel: self.section(record.padding_pixel, usize::from(input.channels))?,
            requantize: requantize?,
        };
        self.checked(layer.check())?;
        Some(layer)
    }

    #[inline(never)]
    fn dense(&mut self, input: Shape) -> Option<Dense<'a>> {
        let outputs = usize::from(self.read::<u16>()?);
        let (weights, bias) = (self.read()?, self.read()?);
        let weights = self.section(weights, outputs.saturating_mul(input.len()))?;
        let bias = self.section(bias, outputs)?;
        let finish = self.finish()?;
        self.checked(Dense::new(input, weights, bias, finish))
    }

    fn requantize(&mut self, record: &format::Requantize, count: usize) -> Option<Requantize<'a>> {
        let rounding = match record.rounding {
            format::Rounding::Once { shift } => Rounding::Once { shift },
            format::Rounding::Twice { shifts } => Rounding::Twice { shifts: self.section(shifts, count)? },
        };
        let multipliers = self.section(record.multipliers, count)?;
        self.checked(Requantize::with_rounding(multipliers, rounding, record.clamp))
    }

    /// Reads a [`format::Finish`].
    #[inline(never)]
    fn finish(&mut self) -> Option<Finish<'a>> {
        let kind = self.read()?;
        let requantize = match kind {
            FinishKind::Scores => {
                let scales = self.read()?;
                let count = usize::from(self.read::<u16>()?);
                return Some(Finish::Scores(self.section(scales, count)?));
            }
            FinishKind::Mean => {
                let clamp = self.read()?;
                self.scale()?;
                return Some(Finish::Mean(clamp));
            }
            FinishKind::Requantize | FinishKind::RoundedScores => {
                let count = usize::from(self.read::<u16>()?);
                let record = self.read()?;
                self.requantize(&record, count)?
            }
        };
        let scale = self.scale()?;
        Some(match kind {
            FinishKind::RoundedScores => Finish::RoundedScores { requantize, scale },
            _ => Finish::Requantize(requantize),
        })
    }

    /// Reads the real value of a step.
    #[inline(never)]
    fn scale(&mut self) -> Option<f32> {
        let scale = self.read()?;
        self.checked(check_scale(scale))?;
        Some(scale)
    }

    #[inline(never)]
    fn section<T: bytemuck::AnyBitPattern>(&mut self, offset: u32, count: usize) -> Option<&'a [T]> {
        let found = section(self.weights, offset, count);
        if found.is_none() {
            let length = count.saturating_mul(size_of::<T>());
            self.error = ParseError::Section { stage: self.stage, offset, length };
        }
        found
    }
}
