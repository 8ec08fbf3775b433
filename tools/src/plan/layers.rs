//! The runtime's own layers over the integers of a quantized network: for planning, costs and whole-tensor runs, without
//! a blob.

use anyhow::{Context, Result};
use skipstone::Shape;
use skipstone::host::{
    Conv2d, Dense, Finish, GlobalAveragePool, Join, Layer, Operation, Pool2d, Pooling, Reduction, Requantize,
    Rounding, Subsample, Window, Windowed,
};

use crate::blob::Blob;
use crate::ir::{self, Integer, IntegerNetwork};

/// A quantized network's weights, aligned as the kernels need them.
#[derive(Debug)]
pub struct Prepared<'n> {
    network: &'n IntegerNetwork,
    weights: Vec<Blob>,
}

impl<'n> Prepared<'n> {
    /// Copies the weights.
    pub fn new(network: &'n IntegerNetwork) -> Self {
        let weights =
            network.layers.iter().map(|layer| Blob::from(bytemuck::cast_slice(&layer.parameters.weights)));
        Prepared { network, weights: weights.collect() }
    }

    /// The layers on the reference kernels; tensors are numbered through the network.
    ///
    /// # Errors
    /// The runtime rejects a layer: a defect of the quantizer, or sizes that the runtime does not have.
    pub fn layers(&self) -> Result<Vec<Layer<'_>>> {
        (0..self.weights.len())
            .map(|index| {
                self.layer(index).with_context(|| format!("{}: cannot run", self.network.layers[index].name))
            })
            .collect()
    }

    fn layer(&self, index: usize) -> Result<Layer<'_>> {
        let layer = &self.network.layers[index];
        let tensor = |tensor: usize| u16::try_from(tensor).context("a network has at most 65534 layers");
        let reads = *layer.inputs.first().context("it reads no tensor")?;
        let shortcut = layer.shortcut.map(|shortcut| tensor(shortcut.tensor)).transpose()?;
        let kept = self.network.outputs.iter().any(|output| output.tensor == index + 1);
        let operation = self.operation(index, self.network.shape(reads))?;
        Ok(Layer::new(operation, tensor(reads)?, shortcut, kept))
    }

    fn operation(&self, index: usize, input: Shape) -> Result<Operation<'_>> {
        let (layer, weights) =
            (&self.network.layers[index], bytemuck::cast_slice::<u8, i8>(&self.weights[index]));
        let Integer { bias, padding_pixel, finish, input_zero_point, .. } = &layer.parameters;
        Ok(match &layer.operation {
            ir::Operation::Conv2d { window, depthwise, .. } => {
                let ir::Finish::Requantize(record) = finish else { anyhow::bail!("gives no int8 values") };
                let (window, requantize) = (self::window(window)?, requantize(record)?);
                let conv = match depthwise {
                    false => Conv2d::new(input, window, weights, bias, padding_pixel, requantize)?,
                    true => Conv2d::depthwise(input, window, weights, bias, padding_pixel, requantize)?,
                };
                let windowed = Windowed::Conv2d(conv);
                let Some(shortcut) = layer.shortcut else { return Ok(Operation::Windowed(windowed)) };
                let addition = layer.parameters.addition.context("has no scale for its shortcut")?;
                let subsample = Subsample {
                    stride: [byte(shortcut.stride[0])?, byte(shortcut.stride[1])?],
                    channels_before: u16::try_from(shortcut.channels_before)?,
                };
                let channels = self.network.shape(shortcut.tensor).channels;
                Operation::Addition(windowed, Join { addition, subsample, channels })
            }
            ir::Operation::MaxPool(window) => pool(input, window, Pooling::Max)?,
            ir::Operation::AveragePool { window, count_include_pad } => {
                let padded = *count_include_pad && window.padding != [0; 4];
                let zero_point = *input_zero_point;
                pool(
                    input,
                    window,
                    if padded { Pooling::AveragePadded { zero_point } } else { Pooling::Average },
                )?
            }
            ir::Operation::GlobalAveragePool => {
                let layer = GlobalAveragePool::new(input, *input_zero_point, self::finish(finish)?)?;
                Operation::Reduction(Reduction::GlobalAveragePool(layer))
            }
            ir::Operation::Dense { .. } => {
                let layer = Dense::new(input, weights, bias, self::finish(finish)?)?;
                Operation::Reduction(Reduction::Dense(layer))
            }
            ir::Operation::Affine { .. }
            | ir::Operation::Clamp { .. }
            | ir::Operation::Add
            | ir::Operation::Subsample { .. }
            | ir::Operation::Pad { .. }
            | ir::Operation::Softmax { .. } => anyhow::bail!("is not an operation of the runtime"),
        })
    }
}

fn pool(input: Shape, window: &ir::Window, kind: Pooling) -> Result<Operation<'static>> {
    Ok(Operation::Windowed(Windowed::Pool2d(Pool2d::new(input, self::window(window)?, kind)?)))
}

/// A window in the runtime's terms.
///
/// # Errors
/// A side does not fit into a byte.
pub fn window(window: &ir::Window) -> Result<Window> {
    let ir::Window { kernel, stride, padding } = window;
    let [top, left, bottom, right] = *padding;
    Ok(Window {
        kernel: [byte(kernel[0])?, byte(kernel[1])?],
        stride: [byte(stride[0])?, byte(stride[1])?],
        padding: [byte(top)?, byte(left)?, byte(bottom)?, byte(right)?],
    })
}

fn byte(size: usize) -> Result<u8> {
    u8::try_from(size).with_context(|| format!("a window with a side of {size}"))
}

fn requantize(record: &ir::Requantize) -> Result<Requantize<'_>> {
    let rounding = match &record.rounding {
        ir::Rounding::Once { shift } => Rounding::Once { shift: *shift },
        ir::Rounding::Twice { shifts } => Rounding::Twice { shifts },
    };
    Ok(Requantize::with_rounding(&record.multipliers, rounding, record.clamp)?)
}

fn finish(finish: &ir::Finish) -> Result<Finish<'_>> {
    Ok(match finish {
        ir::Finish::Keep => anyhow::bail!("its sums become nothing"),
        ir::Finish::Requantize(record) => Finish::Requantize(requantize(record)?),
        ir::Finish::Mean(clamp) => Finish::Mean(*clamp),
        ir::Finish::Scores(scales) => Finish::Scores(scales),
        ir::Finish::RoundedScores { requantize: record, scale } => {
            Finish::RoundedScores { requantize: requantize(record)?, scale: *scale }
        }
    })
}
