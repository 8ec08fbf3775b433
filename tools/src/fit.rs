//! Fits each layer's integers to the float network, on what really arrives at the layer.
//!
//! Two networks walk over the calibration images side by side, layer by layer: the float network, and the
//! one that is being quantized, whose tensors hold the real values that its int8 values stand for. So every
//! layer sees the errors of those before it, and its bias corrects their mean. Its weights are rounded one
//! after another, the later ones compensating for what the rounding of the earlier ones did to the layer's
//! output (GPTQ; Frantar et al., 2022). See `docs/quantization.md`.

mod filters;
mod rounding;

use std::collections::BTreeMap;

use rayon::prelude::*;
use skipstone::Shape;
use skipstone::host::Clamp;

use crate::float::Evaluator;
use crate::float::kernels;
use crate::ir::{FloatNetwork, INPUT, Layer, Operation, Real, TensorId};
pub(crate) use filters::{Filters, has_weights};
pub(crate) use rounding::MAX_WEIGHT;
use rounding::{Moments, compensated, nearest};

/// How weights are rounded to integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightChoice {
    /// Each to the nearest.
    Nearest,
    /// Each to the nearest; biases correct the mean error of each output channel.
    BiasCorrected,
    /// Each compensates for the errors of those before it; biases as above.
    #[default]
    Compensated,
}

/// Windows of a layer, over all images, that its fit looks at.
const WINDOWS: usize = 32 * 1024;

/// Longest filter whose weights are rounded with compensation: its matrix of second moments has 32 MiB.
const MAX_FILTER: usize = 2048;

/// Maximum bytes of activations that are held at a time; fewer images are taken if they have more.
const ACTIVATION_BYTES: usize = 512 << 20;

/// What is added before rounding down.
const HALF: f32 = 0.5 + 1e-4;

/// One tensor of one image.
#[derive(Debug, Clone)]
struct Pair {
    /// In the float network.
    float: Vec<f32>,
    /// In the network that is being quantized: the real values of its int8 values.
    quantized: Vec<f32>,
}

/// A layer's integers, filter by filter, and its biases as real numbers.
pub(crate) struct Rounded {
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<f64>,
}

/// The tensors of both networks that later layers read.
pub struct Fit<'n> {
    network: &'n FloatNetwork,
    choice: WeightChoice,
    /// The last layer that reads each tensor.
    last_readers: Vec<Option<usize>>,
    tensors: BTreeMap<TensorId, Vec<Pair>>,
}

impl<'n> Fit<'n> {
    /// Begins with the network's input, for as many of `images` as there is memory for, spread evenly.
    pub fn new(
        network: &'n FloatNetwork,
        evaluator: &Evaluator<'_>,
        images: &[&[u8]],
        choice: WeightChoice,
    ) -> Self {
        let last_readers = last_readers(network);
        let bytes = 2 * size_of::<f32>() * most_values(network, &last_readers).max(1);
        let count = images.len().min((ACTIVATION_BYTES / bytes).max(1));
        let taken: Vec<&[u8]> = (0..count).map(|index| images[index * images.len() / count]).collect();
        let inputs = taken.par_iter().map(|image| {
            let mut input = Vec::new();
            evaluator.preprocess(image, &mut input);
            Pair { float: input.clone(), quantized: input }
        });
        Fit { network, choice, last_readers, tensors: BTreeMap::from([(INPUT, inputs.collect())]) }
    }

    /// Rounds the weights of a layer, filter by filter, to multiples of `step(channel, index)`, and runs
    /// the layer in both networks. [`Fit::finish`] must follow, unless the layer gives class scores.
    pub(crate) fn round(
        &mut self,
        index: usize,
        filters: &Filters<'_>,
        step: &dyn Fn(usize, usize) -> f64,
    ) -> Rounded {
        let layer = &self.network.layers[index];
        let [from, to] = self.sides(layer);
        let pairs = self.tensors.get(&layer.inputs[0]).map_or(&[][..], Vec::as_slice);
        let shortcut = layer.shortcut.and_then(|shortcut| {
            let pairs = self.tensors.get(&shortcut.tensor)?;
            Some((shortcut, self.network.shape(shortcut.tensor), pairs))
        });
        let add_shortcut = |sums: &mut [f32], image: usize, of: fn(&Pair) -> &Vec<f32>| {
            let Some((shortcut, shape, pairs)) = shortcut else { return };
            kernels::add_shortcut(shortcut, [shape, to], of(&pairs[image]), sums);
        };

        // what the layer should give, and what it has to give it from
        let taps = filters.window.kernel[0] * filters.window.kernel[1];
        let width = taps * filters.inputs;
        let positions = to.len() / filters.outputs;
        let windows = positions.min(WINDOWS.div_ceil(pairs.len().max(1)));
        let conv = filters.with(&filters.weights, &filters.bias);
        let observed: Vec<(Vec<f32>, Vec<f32>, Vec<f64>)> = pairs
            .par_iter()
            .enumerate()
            .map(|(image, pair)| {
                let mut float = run(conv, [from, to], &pair.float);
                add_shortcut(&mut float, image, |pair| &pair.float);
                let mut shortcut = vec![0.0; float.len()];
                add_shortcut(&mut shortcut, image, |pair| &pair.quantized);
                let mut columns = vec![0.0; windows * width];
                let mut targets = vec![0.0; filters.outputs];
                for (window, column) in columns.chunks_exact_mut(width).enumerate() {
                    // other positions in each image, so that together they cover all
                    let position = (window * positions / windows + image * 31) % positions;
                    kernels::gather(filters.window, [from, to], &pair.quantized, position, column);
                    let at = position * filters.outputs;
                    for (channel, target) in targets.iter_mut().enumerate() {
                        *target += f64::from(float[at + channel] - shortcut[at + channel]);
                    }
                }
                (float, columns, targets)
            })
            .collect();

        let mut columns = Vec::with_capacity(pairs.len() * windows * width);
        let mut targets = vec![0.0; filters.outputs];
        let mut floats = Vec::with_capacity(pairs.len());
        for (float, image_columns, image_targets) in observed {
            columns.extend(image_columns);
            targets.iter_mut().zip(image_targets).for_each(|(sum, target)| *sum += target);
            floats.push(float);
        }
        let count = (pairs.len() * windows).max(1) as f64;
        targets.iter_mut().for_each(|target| *target /= count);
        let rounded = self.integers(filters, step, &Moments::centre(columns, width), &targets);

        // on with both
        let (weights, bias) = dequantized(filters, &rounded, step);
        let quantized_conv = filters.with(&weights, &bias);
        let outputs = pairs.par_iter().zip(floats).enumerate().map(|(image, (pair, float))| {
            let mut quantized = run(quantized_conv, [from, to], &pair.quantized);
            add_shortcut(&mut quantized, image, |pair| &pair.quantized);
            Pair { float, quantized }
        });
        let outputs = outputs.collect();
        self.tensors.insert(index + 1, outputs);
        rounded
    }

    /// The integers and biases. `moments` describe the windows that the layer reads, `targets` the mean
    /// over them of what it should give.
    fn integers(
        &self,
        filters: &Filters<'_>,
        step: &dyn Fn(usize, usize) -> f64,
        moments: &Moments,
        targets: &[f64],
    ) -> Rounded {
        let depth = filters.depth();
        let (weights, steps): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (0..filters.outputs)
            .map(|channel| {
                let weights = filters.filter(channel).map(f64::from).collect();
                (weights, (0..depth).map(|index| step(channel, index)).collect())
            })
            .unzip();
        let second = (self.choice == WeightChoice::Compensated && !filters.depthwise && depth <= MAX_FILTER)
            .then(|| moments.second())
            .flatten();
        let rounded: Vec<Vec<i8>> = weights
            .par_iter()
            .zip(&steps)
            .map(|(filter, steps)| match &second {
                Some(second) => compensated(filter, steps, second),
                None => nearest(filter, steps),
            })
            .collect();
        let bias = rounded.iter().zip(&steps).enumerate().map(|(channel, (weights, steps))| {
            let given = f64::from(filters.bias[channel]);
            if self.choice == WeightChoice::Nearest {
                return given;
            }
            let sum: f64 = (0..depth)
                .map(|index| {
                    let input = if filters.depthwise { index * filters.inputs + channel } else { index };
                    f64::from(weights[index]) * steps[index] * moments.mean[input]
                })
                .sum();
            let corrected = targets[channel] - sum;
            if corrected.is_finite() { corrected } else { given }
        });
        Rounded { bias: bias.collect(), weights: rounded.concat() }
    }

    /// Ends a layer: the activation in the float network, rounding and clamp in the other.
    pub(crate) fn finish(&mut self, index: usize, scale: f64, clamp: Clamp) {
        let activation = self.network.layers[index].activation;
        let Some(pairs) = self.tensors.get_mut(&(index + 1)) else { return };
        let (scale, zero_point) = (scale as f32, f32::from(clamp.zero_point));
        let (min, max) = (f32::from(clamp.min), f32::from(clamp.max));
        pairs.par_iter_mut().for_each(|pair| {
            kernels::activate(activation, &mut pair.float);
            for value in &mut pair.quantized {
                // a half goes up, as in the runtime, also where f32 has made it a little less
                let rounded = ((*value / scale + zero_point + HALF).floor()).clamp(min, max);
                *value = (rounded - zero_point) * scale;
            }
        });
    }

    /// Runs a pooling layer in both networks; [`Fit::finish`] may follow. `meaning` is the scale and zero
    /// point of the int8 values, `None` for raw pixels whose channels differ.
    pub(crate) fn pool(&mut self, index: usize, meaning: Option<(f64, i8)>) {
        let layer = &self.network.layers[index];
        let sides = self.sides(layer);
        let pairs = self.tensors.get(&layer.inputs[0]).map_or(&[][..], Vec::as_slice);
        let run = |input: &[f32]| {
            let mut output = Vec::new();
            match &layer.operation {
                Operation::MaxPool(window) => kernels::max_pool2d(*window, sides, input, &mut output),
                Operation::AveragePool { window, count_include_pad } => {
                    kernels::average_pool2d(*window, *count_include_pad, sides, input, &mut output);
                }
                Operation::GlobalAveragePool => kernels::global_average_pool(sides[0], input, &mut output),
                Operation::Conv2d { .. }
                | Operation::Dense { .. }
                | Operation::Affine { .. }
                | Operation::Clamp { .. }
                | Operation::Add
                | Operation::Subsample { .. }
                | Operation::Pad { .. }
                | Operation::Softmax { .. } => unreachable!("not a pooling layer"),
            }
            output
        };
        let rounds = matches!(layer.operation, Operation::AveragePool { .. });
        let outputs = pairs.par_iter().map(|pair| {
            let mut quantized = run(&pair.quantized);
            if let (true, Some((scale, zero_point))) = (rounds, meaning) {
                quantized.iter_mut().for_each(|value| *value = int8_mean(*value, scale as f32, zero_point));
            }
            Pair { float: run(&pair.float), quantized }
        });
        let outputs = outputs.collect();
        self.tensors.insert(index + 1, outputs);
    }

    /// Drops the tensors that no layer after this one reads.
    pub(crate) fn drop_unread(&mut self, index: usize) {
        self.tensors.retain(|tensor, _| self.last_readers[*tensor].is_some_and(|reader| reader > index));
    }

    /// Shapes of a layer's input and output.
    fn sides(&self, layer: &Layer<Real>) -> [Shape; 2] {
        [self.network.shape(layer.inputs[0]), layer.shape]
    }
}

/// The last layer that reads each tensor; `None` if only the caller does.
fn last_readers(network: &FloatNetwork) -> Vec<Option<usize>> {
    let mut readers = vec![None; network.layers.len() + 1];
    for (index, layer) in network.layers.iter().enumerate() {
        layer.reads().for_each(|tensor| readers[tensor] = Some(index));
    }
    readers
}

/// Maximum number of values that are held at a time, in one image of one network: a layer's output twice,
/// and every tensor that it or a later layer reads.
fn most_values(network: &FloatNetwork, last_readers: &[Option<usize>]) -> usize {
    let held = |(index, layer): (usize, &Layer<Real>)| {
        let alive = (0..=index).filter(|tensor| last_readers[*tensor] >= Some(index));
        alive.map(|tensor| network.shape(tensor).len()).sum::<usize>() + 2 * layer.shape.len()
    };
    network.layers.iter().enumerate().map(held).max().unwrap_or(0)
}

/// A mean as the runtime rounds it: among int8 values, half away from zero.
fn int8_mean(value: f32, scale: f32, zero_point: i8) -> f32 {
    let zero_point = f32::from(zero_point);
    let mean = value / scale + zero_point;
    (mean.signum() * (mean.abs() + HALF).floor() - zero_point) * scale
}

fn run(conv: kernels::Filters<'_>, sides: [Shape; 2], input: &[f32]) -> Vec<f32> {
    let mut output = Vec::new();
    kernels::conv2d(conv, sides, input, &mut Vec::new(), &mut output);
    output
}

/// The real values of a layer's integers, in the order of the operation, and its biases.
fn dequantized(
    filters: &Filters<'_>,
    rounded: &Rounded,
    step: &dyn Fn(usize, usize) -> f64,
) -> (Vec<f32>, Vec<f32>) {
    let mut weights = vec![0.0; filters.weights.len()];
    for (position, integer) in rounded.weights.iter().enumerate() {
        let (channel, index) = (position / filters.depth(), position % filters.depth());
        weights[filters.at(channel, index)] = (f64::from(*integer) * step(channel, index)) as f32;
    }
    (weights, rounded.bias.iter().map(|bias| *bias as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Activation, Preprocessing, Shortcut};

    /// A chain of layers with outputs of these numbers of values; the third reads the first's as well.
    fn chain(lengths: &[u16], shortcut: bool) -> FloatNetwork {
        let layers = lengths.iter().enumerate().map(|(index, length)| Layer {
            name: index.to_string(),
            place: String::new(),
            inputs: vec![index],
            shortcut: (shortcut && index == 2).then_some(Shortcut {
                tensor: 1,
                stride: [1; 2],
                channels_before: 0,
            }),
            operation: Operation::GlobalAveragePool,
            activation: Activation::NONE,
            shape: Shape::new(1, 1, *length),
            parameters: Real::default(),
        });
        FloatNetwork {
            name: "chain".into(),
            input: Shape::new(1, 1, 5),
            preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
            input_scale: None,
            layers: layers.collect(),
            outputs: Vec::new(),
            labels: Vec::new(),
        }
    }

    #[test]
    fn a_shortcut_is_held_until_it_is_added() {
        let most = |network: &FloatNetwork| most_values(network, &last_readers(network));
        assert_eq!(most(&chain(&[7, 1, 1], false)), 5 + 2 * 7);
        assert_eq!(most(&chain(&[7, 9, 8], false)), 7 + 2 * 9);
        assert_eq!(most(&chain(&[7, 9, 8], true)), 7 + 9 + 2 * 8);
        assert_eq!(last_readers(&chain(&[7, 9, 8], true)), [Some(0), Some(2), Some(2), None]);
    }
}
