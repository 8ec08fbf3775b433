//! Fits each layer's integers to the float network, on what really arrives at the layer.
//!
//! Two networks walk over the calibration images side by side, layer by layer: the float one, and the one
//! that is being quantized, whose tensors are the real values that its int8 values mean. So every layer
//! sees the errors of those before it, and its bias takes back what they have shifted on average. Its
//! weights are rounded one after the other, the later ones taking back what the earlier ones' rounding did
//! to the layer's output (GPTQ; Frantar et al., 2022). See `docs/quantization.md`.

mod rounding;

use std::collections::BTreeMap;

use rayon::prelude::*;
use skipstone::{Clamp, Shape};

use crate::float::kernels::{activate, add, add_padded, average_pool2d, conv2d, depthwise_conv2d};
use crate::float::kernels::{gather, global_average_pool, max_pool2d};
use crate::float::{Evaluator, TensorId};
use crate::network::{Activation, Conv2d, Pool2d};
use rounding::{Moments, compensated, nearest};

/// How weights are rounded to integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightChoice {
    /// Each to the nearest.
    Nearest,
    /// Each to the nearest; biases take back the mean error of each output channel.
    BiasCorrected,
    /// Each so as to take back the error of those before it, and biases as above.
    #[default]
    Compensated,
}

/// Windows of a layer, over all images, that its fit looks at.
const WINDOWS: usize = 32 * 1024;

/// Longest filter whose weights are rounded with compensation: its matrix of second moments has 32 MiB.
const MAX_FILTER: usize = 2048;

/// Most bytes of activations that are held at a time; fewer images are taken where they have more.
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

/// Where a convolution stands in the network.
pub(crate) struct Place {
    /// What it reads.
    pub(crate) from: TensorId,
    /// What it makes.
    pub(crate) to: TensorId,
    /// Shapes of both.
    pub(crate) shapes: [Shape; 2],
    /// What is added to its sums, if it completes a block.
    pub(crate) shortcut: Option<Source>,
}

/// The values that a shortcut adds.
pub(crate) struct Source {
    /// The tensor that they are in.
    pub(crate) tensor: TensorId,
    /// Its shape.
    pub(crate) shape: Shape,
    /// Vertical and horizontal stride, and zero channels in front, of a padded shortcut.
    pub(crate) padded: Option<([usize; 2], usize)>,
}

/// A layer's integers, filter by filter, and its biases as real numbers.
pub(crate) struct Rounded {
    pub(crate) weights: Vec<i8>,
    pub(crate) bias: Vec<f64>,
}

/// Both networks' tensors, as far as the walk has come.
pub struct Fit {
    choice: WeightChoice,
    tensors: BTreeMap<TensorId, Vec<Pair>>,
}

impl Fit {
    /// Begins with the network's input, for as many of `images` as there is memory for, spread evenly.
    pub fn new(evaluator: &Evaluator<'_>, images: &[&[u8]], choice: WeightChoice) -> Self {
        // a stage's input, its output and what lies between are held at the same time
        let values = evaluator.shapes().iter().map(|shapes| {
            let inner: usize = shapes.path.iter().map(|shape| shape.len()).sum();
            shapes.input.len() + 2 * shapes.output.len() + inner
        });
        let bytes = 2 * size_of::<f32>() * values.max().unwrap_or(1);
        let count = images.len().min((ACTIVATION_BYTES / bytes).max(1));
        let taken: Vec<&[u8]> = (0..count).map(|index| images[index * images.len() / count]).collect();
        let inputs = taken.par_iter().map(|image| {
            let mut input = Vec::new();
            evaluator.preprocess(image, &mut input);
            Pair { float: input.clone(), quantized: input }
        });
        Fit { choice, tensors: BTreeMap::from([(TensorId::INPUT, inputs.collect())]) }
    }

    /// Rounds a convolution's weights, filter by filter, to multiples of `step(channel, index)`, and
    /// carries both networks over it. [`Fit::finish`] has to follow, unless it gives class scores.
    pub(crate) fn conv2d(
        &mut self,
        layer: &Conv2d,
        place: &Place,
        step: &dyn Fn(usize, usize) -> f64,
    ) -> Rounded {
        let plain = Conv2d { activation: Activation::None, ..layer.clone() };
        let pairs = self.tensors.get(&place.from).map_or(&[][..], Vec::as_slice);
        let shortcuts = place.shortcut.as_ref().map(|source| (source, self.tensors.get(&source.tensor)));
        let add_shortcut = |sums: &mut [f32], image: usize, of: fn(&Pair) -> &Vec<f32>| {
            let Some((source, Some(shortcuts))) = &shortcuts else { return };
            let values = of(&shortcuts[image]);
            match source.padded {
                Some((stride, before)) => {
                    add_padded(stride, before, [source.shape, place.shapes[1]], values, sums);
                }
                None => add(sums, values),
            }
        };
        let run = |conv: &Conv2d, input: &[f32]| {
            let mut output = Vec::new();
            match layer.depthwise {
                true => depthwise_conv2d(conv, place.shapes, input, &mut output),
                false => conv2d(conv, place.shapes, input, &mut Vec::new(), &mut output),
            }
            output
        };

        // what the layer should give, and what it has to give it from
        let taps = layer.kernel[0] * layer.kernel[1];
        let depth = taps * layer.input_channels;
        let positions = place.shapes[1].len() / layer.output_channels;
        let windows = positions.min(WINDOWS.div_ceil(pairs.len().max(1)));
        let observed: Vec<(Vec<f32>, Vec<f32>, Vec<f64>)> = pairs
            .par_iter()
            .enumerate()
            .map(|(image, pair)| {
                let mut float = run(&plain, &pair.float);
                add_shortcut(&mut float, image, |pair| &pair.float);
                let mut shortcut = vec![0.0; float.len()];
                add_shortcut(&mut shortcut, image, |pair| &pair.quantized);
                let mut columns = vec![0.0; windows * depth];
                let mut targets = vec![0.0; layer.output_channels];
                for (window, column) in columns.chunks_exact_mut(depth).enumerate() {
                    // other positions in each image, so that together they cover all
                    let position = (window * positions / windows + image * 31) % positions;
                    gather(layer, place.shapes, &pair.quantized, position, column);
                    let at = position * layer.output_channels;
                    for (channel, target) in targets.iter_mut().enumerate() {
                        *target += f64::from(float[at + channel] - shortcut[at + channel]);
                    }
                }
                (float, columns, targets)
            })
            .collect();

        let mut columns = Vec::with_capacity(pairs.len() * windows * depth);
        let mut targets = vec![0.0; layer.output_channels];
        let mut floats = Vec::with_capacity(pairs.len());
        for (float, image_columns, image_targets) in observed {
            columns.extend(image_columns);
            targets.iter_mut().zip(image_targets).for_each(|(sum, target)| *sum += target);
            floats.push(float);
        }
        let count = (pairs.len() * windows).max(1) as f64;
        let moments = Moments::centre(columns, depth);
        let rounded = self.round(layer, step, moments, &targets, count);

        // on with both
        let quantized_layer = dequantized(&plain, &rounded, step);
        let outputs = pairs.par_iter().zip(floats).enumerate().map(|(image, (pair, float))| {
            let mut quantized = run(&quantized_layer, &pair.quantized);
            add_shortcut(&mut quantized, image, |pair| &pair.quantized);
            Pair { float, quantized }
        });
        let outputs = outputs.collect();
        self.tensors.insert(place.to, outputs);
        rounded
    }

    /// The integers and biases. `moments` are the windows' that the layer reads, `targets` the sums over
    /// them of what it should give.
    fn round(
        &self,
        layer: &Conv2d,
        step: &dyn Fn(usize, usize) -> f64,
        moments: Moments,
        targets: &[f64],
        count: f64,
    ) -> Rounded {
        let taps = layer.kernel[0] * layer.kernel[1];
        let depth = if layer.depthwise { taps } else { taps * layer.input_channels };
        let filters: Vec<Vec<f64>> = (0..layer.output_channels)
            .map(|channel| {
                (0..depth).map(|index| f64::from(layer.weights[at(layer, channel, index)])).collect()
            })
            .collect();
        let steps: Vec<Vec<f64>> = (0..layer.output_channels)
            .map(|channel| (0..depth).map(|index| step(channel, index)).collect())
            .collect();
        let second = (self.choice == WeightChoice::Compensated && !layer.depthwise && depth <= MAX_FILTER)
            .then(|| moments.second())
            .flatten();
        let rounded: Vec<Vec<i8>> = filters
            .par_iter()
            .zip(&steps)
            .map(|(filter, steps)| match &second {
                Some(second) => compensated(filter, steps, second),
                None => nearest(filter, steps),
            })
            .collect();
        let bias = rounded.iter().zip(&steps).enumerate().map(|(channel, (weights, steps))| {
            let given = f64::from(layer.bias[channel]);
            if self.choice == WeightChoice::Nearest {
                return given;
            }
            let sum: f64 = (0..depth)
                .map(|index| {
                    let input = if layer.depthwise { index * layer.input_channels + channel } else { index };
                    f64::from(weights[index]) * steps[index] * moments.mean[input]
                })
                .sum();
            let corrected = targets[channel] / count - sum;
            if corrected.is_finite() { corrected } else { given }
        });
        Rounded { bias: bias.collect(), weights: rounded.concat() }
    }

    /// Ends a layer: the float network's activation, the other one's rounding and clamp.
    pub(crate) fn finish(&mut self, tensor: TensorId, activation: Activation, scale: f64, clamp: Clamp) {
        let Some(pairs) = self.tensors.get_mut(&tensor) else { return };
        let (scale, zero_point) = (scale as f32, f32::from(clamp.zero_point));
        let (min, max) = (f32::from(clamp.min), f32::from(clamp.max));
        pairs.par_iter_mut().for_each(|pair| {
            activate(activation, &mut pair.float);
            for value in &mut pair.quantized {
                // a half goes up, as in the runtime, also where f32 has made it a little less
                let rounded = ((*value / scale + zero_point + HALF).floor()).clamp(min, max);
                *value = (rounded - zero_point) * scale;
            }
        });
    }

    /// Carries both networks over a pooling layer; [`Fit::finish`] may follow.
    pub(crate) fn pool(&mut self, pool: Pool<'_>, from: TensorId, to: TensorId, shapes: [Shape; 2]) {
        let pairs = self.tensors.get(&from).map_or(&[][..], Vec::as_slice);
        let run = |input: &[f32]| {
            let mut output = Vec::new();
            match pool {
                Pool::Max(layer) => max_pool2d(layer, shapes, input, &mut output),
                Pool::Average(layer, _) => average_pool2d(layer, shapes, input, &mut output),
                Pool::GlobalAverage => global_average_pool(shapes[0], input, &mut output),
            }
            output
        };
        let outputs = pairs.par_iter().map(|pair| {
            let mut quantized = run(&pair.quantized);
            if let Pool::Average(_, Some((scale, zero_point))) = pool {
                quantized.iter_mut().for_each(|value| *value = int8_mean(*value, scale as f32, zero_point));
            }
            Pair { float: run(&pair.float), quantized }
        });
        let outputs = outputs.collect();
        self.tensors.insert(to, outputs);
    }

    /// Forgets all tensors but one, which the next stage reads.
    pub(crate) fn keep(&mut self, tensor: TensorId) {
        self.tensors.retain(|id, _| *id == tensor);
    }
}

/// What a pooling layer does.
pub(crate) enum Pool<'l> {
    Max(&'l Pool2d),
    /// Of int8 values with this scale and zero point; none of raw pixels without a single one.
    Average(&'l Pool2d, Option<(f64, i8)>),
    GlobalAverage,
}

/// A mean as the runtime rounds it: among int8 values, half away from zero.
fn int8_mean(value: f32, scale: f32, zero_point: i8) -> f32 {
    let zero_point = f32::from(zero_point);
    let mean = value / scale + zero_point;
    (mean.signum() * (mean.abs() + HALF).floor() - zero_point) * scale
}

/// Where the weight at `index` of a channel's filter stands.
fn at(layer: &Conv2d, channel: usize, index: usize) -> usize {
    let filter = layer.weights.len() / layer.output_channels;
    if layer.depthwise { index * layer.output_channels + channel } else { channel * filter + index }
}

/// The layer with the real values of its integers.
fn dequantized(layer: &Conv2d, rounded: &Rounded, step: &dyn Fn(usize, usize) -> f64) -> Conv2d {
    let mut weights = vec![0.0; layer.weights.len()];
    let filter = layer.weights.len() / layer.output_channels;
    for (position, integer) in rounded.weights.iter().enumerate() {
        let (channel, index) = (position / filter, position % filter);
        weights[at(layer, channel, index)] = (f64::from(*integer) * step(channel, index)) as f32;
    }
    Conv2d { weights, bias: rounded.bias.iter().map(|bias| *bias as f32).collect(), ..layer.clone() }
}
