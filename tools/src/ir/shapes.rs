//! The one shape inference: used when a front end adds a layer, and to check a whole network.

use skipstone::Shape;

use super::problem::{ShapeError, ShapeProblem, checked_shape};
use super::{Activation, FloatNetwork, Layer, Operation, Preprocessing, Real, Shortcut, Weights};

/// Shape of what an operation makes of tensors of these shapes.
///
/// # Errors
/// If they do not fit the operation, or the result is no tensor of legal size.
pub fn output_shape(operation: &Operation, inputs: &[Shape]) -> Result<Shape, ShapeProblem> {
    let expected = if *operation == Operation::Add { 2 } else { 1 };
    let (&[input, ..], true) = (inputs, inputs.len() == expected) else {
        return Err(ShapeProblem::Inputs { expected, found: inputs.len() });
    };
    let [height, width, channels] = [input.height, input.width, input.channels].map(usize::from);
    match operation {
        Operation::Conv2d { window, outputs, depthwise } => {
            if *depthwise && *outputs != channels {
                return Err(ShapeProblem::ChannelMultiplier { inputs: channels, outputs: *outputs });
            }
            let [rows, columns] = window.output(input)?;
            checked_shape(rows, columns, *outputs)
        }
        Operation::Dense { outputs } => checked_shape(1, 1, *outputs),
        Operation::MaxPool(window) | Operation::AveragePool { window, .. } => {
            let [rows, columns] = window.pooled(input)?;
            checked_shape(rows, columns, channels)
        }
        Operation::GlobalAveragePool => checked_shape(1, 1, channels),
        Operation::Affine { .. } | Operation::Clamp { .. } | Operation::Softmax { .. } => Ok(input),
        Operation::Add if inputs[1] == input => Ok(input),
        Operation::Add => Err(ShapeProblem::Addition([input, inputs[1]])),
        Operation::Subsample { stride } if stride.contains(&0) => Err(ShapeProblem::ZeroStride),
        Operation::Subsample { stride } => {
            checked_shape(height.div_ceil(stride[0]), width.div_ceil(stride[1]), channels)
        }
        Operation::Pad { padding: [top, left, bottom, right], channels: [before, after], .. } => {
            let grown = |size: usize, a: &usize, b: &usize| size.saturating_add(*a).saturating_add(*b);
            checked_shape(
                grown(height, top, bottom),
                grown(width, left, right),
                grown(channels, before, after),
            )
        }
    }
}

/// Checks that an operation has as many weights, biases and scales as an input of this shape asks for.
///
/// # Errors
/// If it has not, or has weights of another kind.
pub fn check_weights(operation: &Operation, input: Shape, weights: &Weights) -> Result<(), ShapeProblem> {
    let channels = usize::from(input.channels);
    let expect = |what: &'static str, found: usize, expected: usize| {
        if found == expected {
            Ok(())
        } else {
            Err(ShapeProblem::Parameters { what, expected, found, input })
        }
    };
    let (taps, outputs) = match operation {
        Operation::Conv2d { window, outputs, depthwise } => {
            let depth = if *depthwise { 1 } else { channels };
            (window.kernel[0].saturating_mul(window.kernel[1]).saturating_mul(depth), *outputs)
        }
        Operation::Dense { outputs } => (input.len(), *outputs),
        Operation::Affine { .. } => {
            let Weights::Affine(affine) = weights else { return Err(ShapeProblem::NoWeights) };
            expect("factors", affine.scale.len(), channels)?;
            return expect("added values", affine.shift.len(), channels);
        }
        Operation::MaxPool(_)
        | Operation::AveragePool { .. }
        | Operation::GlobalAveragePool
        | Operation::Clamp { .. }
        | Operation::Add
        | Operation::Subsample { .. }
        | Operation::Pad { .. }
        | Operation::Softmax { .. } => {
            return match weights {
                Weights::None => Ok(()),
                Weights::Real { .. } | Weights::Integers(_) | Weights::Affine(_) => {
                    Err(ShapeProblem::UnexpectedWeights)
                }
            };
        }
    };
    let expected = outputs.saturating_mul(taps);
    match weights {
        Weights::Real { weights, bias } => {
            expect("weights", weights.len(), expected)?;
            expect("biases", bias.len(), outputs)
        }
        Weights::Integers(integers) => {
            expect("weights", integers.weights.len(), expected)?;
            expect("biases", integers.bias.len(), outputs)?;
            expect("real biases", integers.real_bias.len(), outputs)?;
            if integers.scales.len() == 1 { Ok(()) } else { expect("scales", integers.scales.len(), outputs) }
        }
        Weights::None | Weights::Affine(_) => Err(ShapeProblem::NoWeights),
    }
}

/// Checks a network that has been through the passes.
///
/// After this, every layer is one that the runtime has, every tensor is made before it is read, every
/// shape follows from the ones before it, and every weight and bias count matches its layer.
///
/// # Errors
/// [`ShapeError`] names the layer.
pub fn check(network: &FloatNetwork) -> Result<(), ShapeError> {
    check_input(&network.preprocessing, network.input).map_err(|problem| problem.of("input"))?;
    if network.layers.is_empty() {
        return Err(ShapeProblem::NoLayers.of("input"));
    }
    for (index, layer) in network.layers.iter().enumerate() {
        check_layer(network, index, layer).map_err(|problem| problem.of(&layer.name))?;
    }
    if network.outputs.is_empty() {
        return Err(ShapeProblem::NoOutputs.of("input"));
    }
    match network.outputs.iter().find(|output| output.tensor > network.layers.len()) {
        Some(output) => Err(ShapeProblem::Order.of(&output.name)),
        None => Ok(()),
    }
}

fn check_layer(network: &FloatNetwork, index: usize, layer: &Layer<Real>) -> Result<(), ShapeProblem> {
    if !layer.operation.is_final() {
        return Err(ShapeProblem::NotFinal);
    }
    if layer.reads().any(|tensor| tensor > index) {
        return Err(ShapeProblem::Order);
    }
    let Activation { low, high } = layer.activation;
    if !(low <= 0.0 && high >= 0.0) {
        return Err(ShapeProblem::Activation { low, high });
    }
    let inputs: Vec<Shape> = layer.inputs.iter().map(|&tensor| network.shape(tensor)).collect();
    let makes = output_shape(&layer.operation, &inputs)?;
    if makes != layer.shape {
        return Err(ShapeProblem::Shape { says: layer.shape, makes });
    }
    check_weights(&layer.operation, inputs[0], &layer.parameters.weights)?;
    match layer.shortcut {
        Some(shortcut) if matches!(layer.operation, Operation::Conv2d { .. }) => {
            check_shortcut(shortcut, network.shape(shortcut.tensor), makes)
        }
        Some(_) => Err(ShapeProblem::UnexpectedShortcut),
        None => Ok(()),
    }
}

fn check_shortcut(shortcut: Shortcut, tensor: Shape, sum: Shape) -> Result<(), ShapeProblem> {
    let Shortcut { stride, channels_before: before, .. } = shortcut;
    if before.saturating_add(tensor.channels.into()) > usize::from(sum.channels) {
        return Err(ShapeProblem::ShortcutChannels { before, shortcut: tensor, sum });
    }
    let taken = output_shape(&Operation::Subsample { stride }, &[tensor])?;
    if (taken.height, taken.width) != (sum.height, sum.width) {
        return Err(ShapeProblem::ShortcutSize { shortcut: tensor, stride, sum });
    }
    Ok(())
}

fn check_input(preprocessing: &Preprocessing, input: Shape) -> Result<(), ShapeProblem> {
    checked_shape(input.height.into(), input.width.into(), input.channels.into())?;
    let Preprocessing { mean, std } = preprocessing;
    let fits = |values: &[f32]| values.len() == 1 || values.len() == usize::from(input.channels);
    if !fits(mean) || !fits(std) {
        let (mean, std) = (mean.len(), std.len());
        return Err(ShapeProblem::PreprocessingLength { mean, std, channels: input.channels });
    }
    if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err(ShapeProblem::PreprocessingValue);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
