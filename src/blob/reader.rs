//! Reads the layers' records in place, one at a time; each layer is checked when it is read.

use postcard::Deserializer;
use postcard::de_flavors::Slice;
use serde::Deserialize;

use crate::base::clamp::Clamp;
use crate::base::error::{LayerError, ParseError};
use crate::base::quantization::{Addition, Requantize, Residual, Rounding};
use crate::base::section::section;
use crate::base::shape::Shape;
use crate::base::tflite::{FixedSoftmax, Scaling, Sum};
use crate::blob::format::{
    self, AdditionKind, FinishKind, OperationKind, PoolingKind, RoundingKind, SoftmaxKind,
};
use crate::net::block;
use crate::net::layer::{Join, Layer, Operation};
use crate::net::schedule::Node;
use crate::ops::checks::check_scale;
use crate::ops::{
    Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Reduction, Softmax, Subsample,
    Windowed,
};

/// A layer as it stands in the blob.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Name in the model that was converted.
    pub name: &'a str,
    /// Name and normalization of the output that the layer makes, if it makes one.
    pub output: Option<(&'a str, Softmax)>,
    /// Real value of one step of its int8 result.
    pub scale: f32,
    /// The int8 value of real zero.
    pub zero_point: i8,
    /// What it computes; tensors are numbered through the network.
    pub layer: Layer<'a>,
}

/// The records that are not read yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    weights: &'a [u8],
    /// Index of the next layer.
    next: u16,
    count: u16,
    /// Bytes of parameters that may still be looked at; see [`Records::new`].
    budget: usize,
}

/// How often, on average, a byte of a blob may be looked at while its layers are read. Layers may share
/// sections, so a hostile blob's could take time that grows with the number of layers times their length.
const LOOKS: usize = 8;

impl<'a> Records<'a> {
    /// The records of `count` layers, over the weights of the blob. Reading all of them takes time in proportion to
    /// the bytes of both.
    pub(crate) const fn new(records: &'a [u8], count: u16, weights: &'a [u8]) -> Self {
        let budget = records.len().saturating_add(weights.len()).saturating_mul(LOOKS);
        Records { rest: records, weights, next: 0, count, budget }
    }

    /// The bytes after the last record, once all are read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Calls `take` with the next layer; `None` after the last. `shape` gives the shape of a tensor that the layer
    /// may read.
    #[inline(never)]
    pub(crate) fn visit(
        &mut self,
        shape: &dyn Fn(u16) -> Option<Shape>,
        take: &mut dyn FnMut(&Entry<'a>),
    ) -> Option<Result<(), ParseError>> {
        let layer = self.next;
        if layer >= self.count {
            return None;
        }
        self.next += 1;
        let (records, weights, budget) = (Deserializer::from_bytes(self.rest), self.weights, self.budget);
        let error = ParseError::Record { layer };
        let mut reader = Reader { records, weights, layer, budget, shape, error };
        let outcome = reader.entry(take);
        self.budget = reader.budget;
        let (Some(()), Ok(rest)) = (outcome, reader.records.finalize()) else {
            self.count = layer; // the next record cannot be found
            return Some(Err(reader.error));
        };
        self.rest = rest;
        Some(Ok(()))
    }
}

/// Turns a layer's record into parameters over slices of the weights. Its methods return `None` if the record
/// cannot be read.
struct Reader<'a, 's> {
    records: Deserializer<'a, Slice<'a>>,
    weights: &'a [u8],
    layer: u16,
    budget: usize,
    shape: &'s dyn Fn(u16) -> Option<Shape>,
    /// Why it cannot be read, unless bytes do not decode.
    error: ParseError,
}

impl<'a> Reader<'a, '_> {
    /// A layer that has been checked.
    fn checked<T>(&mut self, layer: Result<T, LayerError>) -> Option<T> {
        layer.map_err(|error| self.error = ParseError::Layer { layer: self.layer, error }).ok()
    }

    #[inline(never)]
    fn read<T: Deserialize<'a>>(&mut self) -> Option<T> {
        T::deserialize(&mut self.records).ok()
    }

    /// Reads a [`format::Layer`] and gives it to `take`.
    fn entry(&mut self, take: &mut dyn FnMut(&Entry<'a>)) -> Option<()> {
        let name = self.read()?;
        let output = match self.read()? {
            true => Some((self.read()?, self.softmax()?)),
            false => None,
        };
        let reads = self.read()?;
        let input = self.tensor(reads)?;
        let (scale, zero_point) = (self.read()?, self.read()?);
        self.checked(check_scale(scale))?;
        let shortcut = match self.read()? {
            true => Some(self.shortcut()?),
            false => None,
        };
        let kind = self.read()?;
        let operation = match (kind, &shortcut) {
            (OperationKind::Conv2d, None) => Operation::Windowed(Windowed::Conv2d(self.conv2d(input)?)),
            (OperationKind::Conv2d, Some((_, join, from))) => {
                let layer = self.conv2d(input)?;
                let arrives = join.subsample.leads(*from, layer.output());
                self.checked(block::check(&layer, &join.addition, arrives))?;
                Operation::Addition(Windowed::Conv2d(layer), *join)
            }
            (OperationKind::Pool2d, None) => {
                let window = self.read::<format::Window>()?.into();
                let layer = Pool2d::new(input, window, self.pooling()?);
                Operation::Windowed(Windowed::Pool2d(self.checked(layer)?))
            }
            (OperationKind::Dense, None) => Operation::Reduction(Reduction::Dense(self.dense(input)?)),
            (OperationKind::GlobalAveragePool, None) => {
                let zero_point = self.read()?;
                let finish = self.finish()?;
                let layer = self.checked(GlobalAveragePool::new(input, zero_point, finish))?;
                Operation::Reduction(Reduction::GlobalAveragePool(layer))
            }
            (OperationKind::Pool2d | OperationKind::Dense | OperationKind::GlobalAveragePool, Some(_)) => {
                return self.checked(Err(LayerError::Shortcut));
            }
        };
        let node = Node::new(&operation, reads, shortcut.map(|(tensor, ..)| tensor), output.is_some());
        take(&Entry { name, output, scale, zero_point, layer: Layer { node, operation } });
        Some(())
    }

    /// Reads a [`format::Softmax`].
    fn softmax(&mut self) -> Option<Softmax> {
        Some(match self.read()? {
            SoftmaxKind::None => Softmax::None,
            SoftmaxKind::Float => Softmax::Float,
            SoftmaxKind::Fixed => {
                Softmax::Fixed(FixedSoftmax { multiplier: self.read()?, left_shift: self.read()? })
            }
        })
    }

    /// Reads a [`format::Pooling`].
    fn pooling(&mut self) -> Option<Pooling> {
        Some(match self.read()? {
            PoolingKind::Max => Pooling::Max,
            PoolingKind::Average => Pooling::Average,
            PoolingKind::AveragePadded => Pooling::AveragePadded { zero_point: self.read()? },
        })
    }

    /// Reads a [`format::Shortcut`]: its tensor, how it is added, and its shape.
    #[inline(never)]
    fn shortcut(&mut self) -> Option<(u16, Join, Shape)> {
        let tensor = self.read()?;
        let from = self.tensor(tensor)?;
        let stride = [self.read()?, self.read()?];
        let subsample = Subsample { stride, channels_before: self.read()? };
        let addition = match self.read()? {
            AdditionKind::Fused => Addition::Fused(Residual {
                zero_point: self.read()?,
                multiplier: self.read()?,
                shift: self.read()?,
            }),
            AdditionKind::Separate => Addition::Separate(Sum {
                path: self.scaling()?,
                shortcut: self.scaling()?,
                shortcut_zero_point: self.read()?,
                output: self.scaling()?,
                clamp: self.clamp()?,
            }),
        };
        Some((tensor, Join { addition, subsample, channels: from.channels }, from))
    }

    fn scaling(&mut self) -> Option<Scaling> {
        Some(Scaling { multiplier: self.read()?, shift: self.read()? })
    }

    #[inline(never)]
    fn clamp(&mut self) -> Option<Clamp> {
        Some(Clamp { zero_point: self.read()?, min: self.read()?, max: self.read()? })
    }

    /// Shape of a tensor that the layer reads.
    fn tensor(&mut self, tensor: u16) -> Option<Shape> {
        // the layer itself makes tensor `self.layer + 1`
        let shape = if tensor <= self.layer { (self.shape)(tensor) } else { None };
        if shape.is_none() {
            self.error = ParseError::Tensor { layer: self.layer, tensor };
        }
        shape
    }

    /// Reads a [`format::Conv2d`].
    #[inline(never)]
    fn conv2d(&mut self, input: Shape) -> Option<Conv2d<'a>> {
        let record: u16 = self.read()?;
        let depthwise = self.read()?;
        let Some(algorithm) = Algorithm::from_number(self.read()?) else {
            return self.checked(Err(LayerError::Algorithm));
        };
        let window = self.read::<format::Window>()?.into();
        let (weights, bias, padding_pixel) = (self.read()?, self.read()?, self.read()?);
        let channels = usize::from(record);
        let requantize = self.requantize(channels)?;
        let outputs = if depthwise { input.channels } else { record };
        let bytes = Conv2d::weight_bytes(&window, input, record, depthwise, algorithm);
        let layer = Conv2d {
            input,
            output: window.output(input, outputs).unwrap_or(Shape::new(0, 0, 0)),
            window,
            depthwise,
            algorithm,
            weights: self.section(weights, bytes)?,
            bias: self.checked_section(bias, channels)?,
            padding_pixel: self.section(padding_pixel, usize::from(input.channels))?,
            requantize,
        };
        self.checked(layer.check())?;
        Some(layer)
    }

    #[inline(never)]
    fn dense(&mut self, input: Shape) -> Option<Dense<'a>> {
        let outputs = usize::from(self.read::<u16>()?);
        let (weights, bias) = (self.read()?, self.read()?);
        let weights = self.section(weights, outputs.saturating_mul(input.len()))?;
        let bias = self.checked_section(bias, outputs)?;
        let finish = self.finish()?;
        self.checked(Dense::new(input, weights, bias, finish))
    }

    /// Reads a [`format::Requantize`] with `count` multipliers.
    #[inline(never)]
    fn requantize(&mut self, count: usize) -> Option<Requantize<'a>> {
        let multipliers = self.read()?;
        let multipliers = self.checked_section(multipliers, count)?;
        let rounding = match self.read()? {
            RoundingKind::Once => Rounding::Once { shift: self.read()? },
            RoundingKind::Twice => {
                let shifts = self.read()?;
                Rounding::Twice { shifts: self.checked_section(shifts, count)? }
            }
        };
        let clamp = self.clamp()?;
        self.checked(Requantize::with_rounding(multipliers, rounding, clamp))
    }

    /// Reads a [`format::Finish`].
    #[inline(never)]
    fn finish(&mut self) -> Option<Finish<'a>> {
        Some(match self.read()? {
            FinishKind::Requantize => Finish::Requantize(self.counted()?),
            FinishKind::Scores => {
                let scales = self.read()?;
                let count = usize::from(self.read::<u16>()?);
                Finish::Scores(self.checked_section(scales, count)?)
            }
            FinishKind::Mean => Finish::Mean(self.clamp()?),
            FinishKind::RoundedScores => {
                let requantize = self.counted()?;
                Finish::RoundedScores { requantize, scale: self.read()? }
            }
        })
    }

    /// Reads a number of multipliers and the record that refers to them.
    fn counted(&mut self) -> Option<Requantize<'a>> {
        let count = self.read::<u16>()?;
        self.requantize(count.into())
    }

    /// A section whose every element is checked.
    fn checked_section<T: bytemuck::AnyBitPattern>(&mut self, offset: u32, count: usize) -> Option<&'a [T]> {
        let found = self.section(offset, count)?;
        match self.budget.checked_sub(size_of_val(found)) {
            Some(left) => self.budget = left,
            None => {
                self.error = ParseError::Work { layer: self.layer };
                return None;
            }
        }
        Some(found)
    }

    #[inline(never)]
    fn section<T: bytemuck::AnyBitPattern>(&mut self, offset: u32, count: usize) -> Option<&'a [T]> {
        let found = section(self.weights, offset, count);
        if found.is_none() {
            let length = count.saturating_mul(size_of::<T>());
            self.error = ParseError::Section { layer: self.layer, offset, length };
        }
        found
    }
}
