//! Reads the layers' records in place, one at a time; each layer is checked when it is read.

use postcard::Deserializer;
use postcard::de_flavors::Slice;
use serde::Deserialize;

use crate::base::error::{LayerError, ParseError};
use crate::base::quantization::{Requantize, Rounding};
use crate::base::section::section;
use crate::base::shape::Shape;
use crate::blob::format::{self, FinishKind, OperationKind};
use crate::net::block;
use crate::net::layer::{Join, Layer};
use crate::ops::checks::check_scale;
use crate::ops::{
    Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Reduction, Softmax, Subsample, Windowed,
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

    /// The next layer; `None` after the last. `shape` gives the shape of a tensor that the layer may read.
    #[inline(never)]
    pub(crate) fn read(
        &mut self,
        shape: &dyn Fn(u16) -> Option<Shape>,
    ) -> Option<Result<Entry<'a>, ParseError>> {
        let index = self.next;
        if index >= self.count {
            return None;
        }
        self.next += 1;
        let error = ParseError::Record { layer: index };
        let records = Deserializer::from_bytes(self.rest);
        let mut reader =
            Reader { records, weights: self.weights, layer: index, budget: self.budget, shape, error };
        let entry = reader.entry();
        self.budget = reader.budget;
        let (Some(entry), Ok(rest)) = (entry, reader.records.finalize()) else {
            self.count = index; // the next record cannot be found
            return Some(Err(reader.error));
        };
        self.rest = rest;
        Some(Ok(entry))
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

    /// Reads a [`format::Layer`].
    fn entry(&mut self) -> Option<Entry<'a>> {
        let name = self.read()?;
        let output = self.read::<Option<format::Output<'_>>>()?;
        let reads = self.read()?;
        let input = self.tensor(reads)?;
        let format::Quantization { scale, zero_point } = self.read()?;
        self.checked(check_scale(scale))?;
        let shortcut = self.read::<Option<format::Shortcut>>()?;
        let mut layer = match (self.read()?, shortcut) {
            (OperationKind::Conv2d, None) => Layer::windowed(Windowed::Conv2d(self.conv2d(input)?), reads),
            (OperationKind::Conv2d, Some(shortcut)) => self.addition(input, reads, &shortcut)?,
            (OperationKind::Pool2d, None) => {
                let record: format::Pool2d = self.read()?;
                let layer = Pool2d::new(input, record.window.into(), record.kind.into());
                Layer::windowed(Windowed::Pool2d(self.checked(layer)?), reads)
            }
            (OperationKind::Dense, None) => Layer::reduction(Reduction::Dense(self.dense(input)?), reads),
            (OperationKind::GlobalAveragePool, None) => {
                let zero_point = self.read()?;
                let finish = self.finish()?;
                let layer = self.checked(GlobalAveragePool::new(input, zero_point, finish))?;
                Layer::reduction(Reduction::GlobalAveragePool(layer), reads)
            }
            (OperationKind::Pool2d | OperationKind::Dense | OperationKind::GlobalAveragePool, Some(_)) => {
                return self.checked(Err(LayerError::Shortcut));
            }
        };
        if output.is_some() {
            layer.keep();
        }
        let output = output.map(|output| (output.name, output.softmax.into()));
        Some(Entry { name, output, scale, zero_point, layer })
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

    /// Reads a convolution to which a shortcut is added.
    #[inline(never)]
    fn addition(&mut self, input: Shape, reads: u16, record: &format::Shortcut) -> Option<Layer<'a>> {
        let layer = self.conv2d(input)?;
        let from = self.tensor(record.tensor)?;
        let (subsample, addition) = (
            Subsample { stride: record.stride, channels_before: record.channels_before },
            record.addition.into(),
        );
        self.checked(block::check(&layer, &addition, subsample.leads(from, layer.output())))?;
        let join = Join { addition, subsample, channels: from.channels };
        Some(Layer::addition(layer, reads, join, record.tensor))
    }

    #[inline(never)]
    fn conv2d(&mut self, input: Shape) -> Option<Conv2d<'a>> {
        let record: format::Conv2d = self.read()?;
        let Some(algorithm) = Algorithm::from_number(record.algorithm) else {
            return self.checked(Err(LayerError::Algorithm));
        };
        let (depthwise, window) = (record.depthwise, record.window.into());
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
            bias: self.checked_section(record.bias, channels)?,
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
        let bias = self.checked_section(bias, outputs)?;
        let finish = self.finish()?;
        self.checked(Dense::new(input, weights, bias, finish))
    }

    fn requantize(&mut self, record: &format::Requantize, count: usize) -> Option<Requantize<'a>> {
        let rounding = match record.rounding {
            format::Rounding::Once { shift } => Rounding::Once { shift },
            format::Rounding::Twice { shifts } => {
                Rounding::Twice { shifts: self.checked_section(shifts, count)? }
            }
        };
        let multipliers = self.checked_section(record.multipliers, count)?;
        self.checked(Requantize::with_rounding(multipliers, rounding, record.clamp.into()))
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
            FinishKind::Mean => Finish::Mean(self.read::<format::Clamp>()?.into()),
            FinishKind::RoundedScores => {
                let requantize = self.counted()?;
                Finish::RoundedScores { requantize, scale: self.read()? }
            }
        })
    }

    /// Reads a number of multipliers and the record that refers to them.
    fn counted(&mut self) -> Option<Requantize<'a>> {
        let count = usize::from(self.read::<u16>()?);
        let record = self.read()?;
        self.requantize(&record, count)
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
