//! Random valid int8 networks, in the host tool's list of layers.

use skipstone::host::schedule::Node;
use skipstone::host::tflite::{Scaling, Sum};
use skipstone::host::{Addition, Algorithm, Clamp, Layer, Residual, Softmax, Window};
use skipstone::{Network, Scores, Shape};
use skipstone_tools::assemble::encode::encode;
use skipstone_tools::blob::Blob;
use skipstone_tools::ir::{
    self, Activation, Finish, INPUT, Integer, IntegerNetwork, Operation, Preprocessing, Requantize, Rounding,
    TensorId, TensorScale,
};
use skipstone_tools::layerwise::{self, Values};
use skipstone_tools::plan::layers::Prepared;
use skipstone_tools::plan::{Plan, Planner};

use crate::random::Random;

/// A network of every kind of layer in any order: one to six pieces and a head, any tensor an output.
pub(crate) fn network(seed: u64) -> IntegerNetwork {
    let mut random = Random::new(seed);
    let input = Shape::new(size(&mut random, 20), size(&mut random, 20), size(&mut random, 4));
    let mut builder = Builder::new(random, input);
    builder.exact = builder.random.one_in(4);
    builder.tangled = builder.random.one_in(2);
    for _ in 0..builder.random.size(1, 6) {
        builder.piece();
    }
    builder.end();
    builder.finish()
}

/// A network whose rows are added in place even where a padded shortcut takes every second pixel: the
/// channels double as the width halves.
pub(crate) fn doubling(seed: u64) -> IntegerNetwork {
    let mut random = Random::new(seed);
    let side = 2 * random.size(2, 6) as u16;
    let mut builder = Builder::new(random, Shape::new(side, side, 2));
    builder.convolution(Window::square(3, 1, 1), false, 2);
    let path = builder.random.size(1, 4);
    builder.block([2; 2], 4, path, Way::Padded { channels_before: 1 });
    builder.head();
    builder.finish()
}

/// The layers of a network, on the reference kernels.
pub(crate) fn with_layers<T>(network: &IntegerNetwork, run: impl FnOnce(&[Layer<'_>]) -> T) -> T {
    let prepared = Prepared::new(network);
    run(&prepared.layers().unwrap())
}

/// A random image for the network.
pub(crate) fn image(random: &mut Random, input: Shape) -> Vec<u8> {
    random.int8s(input.len()).into_iter().map(i8::cast_unsigned).collect()
}

/// What a network gives for one of its outputs: class scores as bits, or int8 values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    name: String,
    shape: Shape,
    scale: f32,
    zero_point: i8,
    scores: Option<Vec<u32>>,
    values: Option<Vec<i8>>,
}

/// All outputs by plain evaluation, layer by layer, softmax included.
pub(crate) fn expected(network: &IntegerNetwork, image: &[u8]) -> Vec<Answer> {
    let outputs = layerwise::run(network, image, &mut |_, _| {}).unwrap();
    let answers = network.outputs.iter().zip(outputs).map(|(output, values)| {
        let (scores, values) = match values {
            Values::Scores(scores) => (Some(scores), None),
            Values::Integers(values) => (None, Some(values)),
        };
        let normalized = |scores: Vec<f32>| match output.softmax {
            Softmax::None => bits(&scores),
            Softmax::Float => Scores::new(&scores, false).probabilities().map(f32::to_bits).collect(),
            Softmax::Fixed(_) => unreachable!("random networks have none"),
        };
        let layer = &network.layers[output.tensor - 1];
        let TensorScale { scale, zero_point } = layer.parameters.scale;
        let (name, shape) = (output.name.clone(), layer.shape);
        Answer { name, shape, scale, zero_point, scores: scores.map(normalized), values }
    });
    answers.collect()
}

/// The bits of the scores that a run returns: those of the first output that has any.
pub(crate) fn scores_of(answers: &[Answer]) -> Vec<u32> {
    answers.iter().find_map(|answer| answer.scores.clone()).unwrap_or_default()
}

/// All outputs of a network's last run. Each can also be found by its name.
pub(crate) fn answers<const TENSORS: usize>(network: &Network<'_, TENSORS>) -> Vec<Answer> {
    let answer = |output: skipstone::Output<'_>| {
        assert_eq!(network.output(output.name()), Some(output));
        Answer {
            name: output.name().into(),
            shape: output.shape(),
            scale: output.scale(),
            zero_point: output.zero_point(),
            scores: output.scores().map(|scores| bits(scores.values())),
            values: output.values().map(<[i8]>::to_vec),
        }
    };
    network.outputs().map(answer).collect()
}

pub(crate) fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// A small network, always the same. Its layers: 0 a convolution; 1 and 2 an identity block; 3 the projection,
/// 4 and 5 the path of a convolutional block; 6 and 7 a block with a padded shortcut; 8 pooling; 9 global average
/// pooling; 10 a dense layer.
pub(crate) fn small() -> IntegerNetwork {
    small_of(1)
}

/// The same with other weights.
pub(crate) fn small_of(seed: u64) -> IntegerNetwork {
    let mut builder = Builder::new(Random::new(seed), Shape::new(8, 8, 2));
    builder.convolution(Window::square(3, 1, 1), false, 4);
    builder.block([1; 2], 4, 2, Way::Identity);
    builder.block([2, 1], 3, 2, Way::Projection);
    builder.block([1, 2], 6, 2, Way::Padded { channels_before: 2 });
    builder.pooling();
    builder.global_average_pool(false);
    builder.dense(3, true);
    builder.output(Softmax::Float);
    let mut network = builder.finish();
    network.labels = ["cat", "dog", "ship"].map(String::from).to_vec();
    network
}

/// The nodes of layers in strips of these heights; of one row where there are none.
pub(crate) fn nodes(layers: &[Layer<'_>], strips: &[u8]) -> Vec<Node> {
    let strips = strips.iter().copied().chain(std::iter::repeat(1));
    layers.iter().zip(strips).map(|(layer, strip)| layer.place(0, strip, 0).unwrap()).collect()
}

/// The blob of a network with the planner's plans, on the reference kernels.
pub(crate) fn planned(network: &IntegerNetwork) -> Blob {
    let plan = |frame| {
        with_layers(network, |layers| {
            Planner::new(network.input, frame, 64).plan(&nodes(layers, &[])).unwrap()
        })
    };
    encoded(network, &plan(false), &plan(true))
}

/// The blob of a network with these plans, on the reference kernels.
pub(crate) fn encoded(network: &IntegerNetwork, rows: &Plan, frame: &Plan) -> Blob {
    with_layers(network, |layers| {
        encode(network, layers, &vec![Algorithm::Reference; layers.len()], rows, frame).unwrap()
    })
}

/// Sizes up to `limit`, small ones more often.
fn size(random: &mut Random, limit: usize) -> u16 {
    let limit = random.size(1, limit);
    random.size(1, limit) as u16
}

/// A tensor that layers can read.
#[derive(Debug, Clone, Copy)]
struct Made {
    tensor: TensorId,
    shape: Shape,
    zero_point: i8,
}

/// A block's shortcut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Identity,
    Projection,
    Padded { channels_before: usize },
}

/// A network that grows layer by layer.
pub(crate) struct Builder {
    pub(crate) random: Random,
    /// The tensors of int8 values so far, the input first.
    made: Vec<Made>,
    /// What the next layer reads.
    last: Made,
    network: IntegerNetwork,
    /// Values are rounded twice, as TensorFlow Lite does.
    exact: bool,
    /// Pooling within paths, shortcuts across blocks, side branches, many outputs.
    tangled: bool,
}

impl Builder {
    pub(crate) fn new(random: Random, input: Shape) -> Self {
        let last = Made { tensor: INPUT, shape: input, zero_point: 0 };
        let network = IntegerNetwork {
            name: "random".into(),
            input,
            preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
            input_scale: None,
            layers: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
        };
        Builder { random, made: vec![last], last, network, exact: false, tangled: false }
    }

    pub(crate) fn finish(mut self) -> IntegerNetwork {
        if self.network.outputs.is_empty() {
            let softmax = if self.random.one_in(3) { Softmax::Float } else { Softmax::None };
            self.output(softmax);
        }
        self.network.outputs.sort_by_key(|output| output.tensor);
        self.network
    }

    /// Makes what the last layer gives an output.
    pub(crate) fn output(&mut self, softmax: Softmax) {
        self.output_of(self.network.layers.len(), softmax);
    }

    fn output_of(&mut self, tensor: TensorId, softmax: Softmax) {
        self.network.outputs.push(ir::Output { name: format!("output {tensor}"), tensor, softmax });
    }

    fn piece(&mut self) {
        match self.random.size(0, 11) {
            0..=2 => {
                let (window, channels) = (self.window(), self.channels());
                self.convolution(window, false, channels);
            }
            3 => {
                let window = self.window();
                self.convolution(window, true, self.last.shape.channels);
            }
            4 | 5 => self.pooling(),
            6 | 7 => self.identity_block(),
            8 | 9 => self.convolutional_block(),
            10 => self.padded_block(),
            _ => match self.random.size(0, 3) {
                0 => self.global_average_pool(false),
                1 => self.dense(5, false),
                _ => self.identity_block(),
            },
        }
        if self.tangled && self.random.one_in(5) {
            self.side_branch();
        }
    }

    /// A layer or two beside the others: class scores, or int8 values that nobody else reads.
    fn side_branch(&mut self) {
        let last = self.last;
        self.last = self.any();
        match self.random.size(0, 3) {
            0 => self.global_average_pool(true),
            1 => self.dense(3, true),
            2 => self.pooling(),
            _ => {
                let (window, channels) = (self.window(), self.channels());
                self.convolution(window, false, channels);
            }
        }
        if !self.random.one_in(4) && self.network.outputs.len() < 4 {
            let softmax = if self.gives_scores() { Softmax::Float } else { Softmax::None };
            self.output(softmax);
        }
        self.last = last;
    }

    /// Class scores or int8 values at the end, some of the tensors before them, or several of all these.
    fn end(&mut self) {
        if !self.tangled {
            return self.head();
        }
        match self.random.size(0, 3) {
            // int8 values alone
            0 if self.last.tensor != INPUT => self.output_of(self.last.tensor, Softmax::None),
            0 | 1 => {
                self.head();
                self.output(Softmax::None);
            }
            // two heads over one tensor
            _ => {
                let last = self.last;
                self.head();
                self.output(Softmax::Float);
                self.last = last;
                self.head();
                self.output(Softmax::None);
            }
        }
        for tensor in 1..=self.network.layers.len() {
            let is_output = self.network.outputs.iter().any(|output| output.tensor == tensor);
            if !is_output && self.network.outputs.len() < 8 && self.random.one_in(4) {
                self.output_of(tensor, Softmax::None);
            }
        }
    }

    /// Class scores of what there is.
    pub(crate) fn head(&mut self) {
        let classes = self.random.size(1, 12) as u16;
        match self.random.size(0, 3) {
            0 => return self.global_average_pool(true),
            1 => self.global_average_pool(false),
            2 => self.dense(8, false),
            _ => {}
        }
        self.dense(classes, true);
    }

    fn gives_scores(&self) -> bool {
        let finish = self.network.layers.last().map(|layer| &layer.parameters.finish);
        matches!(finish, Some(Finish::Scores(_) | Finish::RoundedScores { .. }))
    }

    /// One of the last tensors.
    fn any(&mut self) -> Made {
        let index = self.random.size(self.made.len().saturating_sub(6), self.made.len() - 1);
        self.made[index]
    }

    /// Any window that fits: kernels to 15 x 15, asymmetric padding, strides that leap over rows.
    fn window(&mut self) -> Window {
        loop {
            let random = &mut self.random;
            let mut kernel = || if random.one_in(4) { random.size(1, 15) } else { random.size(1, 3) } as u8;
            let kernel = [kernel(), kernel()];
            let mut stride = || if random.one_in(8) { random.size(3, 7) } else { random.size(1, 2) } as u8;
            let stride = [stride(), stride()];
            let mut padding = |kernel: u8| random.size(0, usize::from(kernel) - 1) as u8;
            let [height, width] = kernel;
            let padding = [padding(height), padding(width), padding(height), padding(width)];
            let window = Window { kernel, stride, padding };
            if window.output(self.last.shape, 1).is_some() {
                return window;
            }
        }
    }

    /// A window under which a tensor shrinks by its stride alone.
    fn same(&mut self, kernel: usize, stride: [u8; 2]) -> Window {
        let mut side = || {
            let kernel = self.random.size(1, kernel) as u8;
            let before = self.random.size(0, usize::from(kernel) - 1) as u8;
            (kernel, before, kernel - 1 - before)
        };
        let ((height, top, bottom), (width, left, right)) = (side(), side());
        Window { kernel: [height, width], stride, padding: [top, left, bottom, right] }
    }

    fn channels(&mut self) -> u16 {
        self.random.size(1, 8) as u16
    }

    pub(crate) fn pooling(&mut self) {
        let window = self.window();
        self.pooling_of(window);
    }

    fn pooling_of(&mut self, window: Window) {
        let shape = window.output(self.last.shape, self.last.shape.channels).unwrap();
        let window = of(window);
        let operation = match self.random.size(0, 2) {
            0 => Operation::MaxPool(window),
            index => Operation::AveragePool { window, count_include_pad: index == 1 },
        };
        let integers = integers(Finish::Keep);
        self.push(shape, self.last.zero_point, operation, None, integers);
    }

    fn identity_block(&mut self) {
        let path = self.random.size(1, 4);
        self.block([1; 2], self.last.shape.channels, path, Way::Identity);
    }

    fn convolutional_block(&mut self) {
        let (stride, channels, path) = (self.stride(), self.channels(), self.random.size(1, 4));
        self.block(stride, channels, path, Way::Projection);
    }

    fn padded_block(&mut self) {
        let (stride, path) = (self.stride(), self.random.size(1, 4));
        let (before, taken) = (self.random.size(0, 3), self.last.shape.channels);
        // sometimes rows as long as the input's: the addition in place must not eat its own pixels
        let double = stride == [2, 2] && self.last.shape.width.is_multiple_of(2) && self.random.one_in(2);
        let channels = match double {
            true => 2 * taken,
            false => before as u16 + taken + self.random.size(0, 3) as u16,
        };
        let channels_before = before.min(usize::from(channels - taken));
        self.block(stride, channels, path, Way::Padded { channels_before });
    }

    fn stride(&mut self) -> [u8; 2] {
        let (down, right) = (self.random.size(1, 3) as u8, self.random.size(1, 3) as u8);
        if self.random.one_in(2) { [2; 2] } else { [down, right] }
    }

    /// A block whose path has `length` convolutions. The projection is before the path or somewhere in it.
    pub(crate) fn block(&mut self, stride: [u8; 2], channels: u16, length: usize, way: Way) {
        let fork = self.last;
        let strided = self.random.size(0, length - 1);
        let projected = if self.tangled { self.random.size(0, length - 1) } else { 0 };
        let mut shortcut = fork;
        for index in 0..length {
            if index == projected && matches!(way, Way::Projection) {
                shortcut = self.projection(fork, stride, channels);
            }
            if self.tangled && self.random.one_in(6) {
                let window = self.same(3, [1; 2]);
                self.pooling_of(window);
            }
            let window = self.same(3, if index == strided { stride } else { [1; 2] });
            let last = index + 1 == length;
            let to = if last { channels } else { self.channels() };
            let depthwise = self.random.one_in(4) && (!last || self.last.shape.channels == channels);
            let to = if depthwise { self.last.shape.channels } else { to };
            let added = match (last, way) {
                (true, Way::Padded { channels_before }) => Some((shortcut, stride, channels_before)),
                (true, Way::Identity | Way::Projection) => Some((shortcut, [1; 2], 0)),
                (false, _) => self.shortcut_within(window, to),
            };
            self.conv2d(window, depthwise, to, added);
        }
    }

    /// A projection from the fork, which the next layer does not read.
    fn projection(&mut self, fork: Made, stride: [u8; 2], channels: u16) -> Made {
        let kernel = if self.random.one_in(3) { 3 } else { 1 };
        let next = std::mem::replace(&mut self.last, fork);
        let window = self.same(kernel, stride);
        self.conv2d(window, false, channels, None);
        std::mem::replace(&mut self.last, next)
    }

    /// A shortcut that ends within a path, over any number of layers, sometimes of blocks.
    fn shortcut_within(&mut self, window: Window, channels: u16) -> Option<(Made, [u8; 2], usize)> {
        let shape = window.output(self.last.shape, channels)?;
        let fitting: Vec<Made> =
            self.made.iter().rev().take(12).copied().filter(|made| made.shape == shape).collect();
        if !self.tangled || fitting.is_empty() || self.random.one_in(2) {
            return None;
        }
        Some((fitting[self.random.size(0, fitting.len() - 1)], [1; 2], 0))
    }

    fn fused_addition(&mut self, shift: u8, zero_point: i8) -> Addition {
        let left = shift.saturating_sub(30).min(20);
        let ratio = f64::from(self.random.between(2, 19) as i32) / 10.0;
        let multiplier = (ratio * f64::from(i32::from(shift) - i32::from(left)).exp2()) as i32;
        Addition::Fused(Residual { zero_point, multiplier, shift: left })
    }

    /// An addition as TensorFlow Lite's, of terms that may count for a tenth or for twice as much.
    fn sum(&mut self, shortcut_zero_point: i8) -> Sum {
        let mut scaling =
            |shift| Scaling { multiplier: self.random.between(1 << 30, (1 << 31) - 1) as i32, shift };
        let (path, shortcut, output) = (scaling(0), scaling(-1), scaling(-19));
        Sum { path, shortcut, shortcut_zero_point, output, clamp: self.clamp() }
    }

    pub(crate) fn global_average_pool(&mut self, scores: bool) {
        let positions = usize::from(self.last.shape.height) * usize::from(self.last.shape.width);
        let shape = Shape::new(1, 1, self.last.shape.channels);
        let mut input_zero_point = self.last.zero_point;
        let (mut finish, mut next) = self.reduction(shape.channels, 1.0 / positions as f64, scores);
        if self.exact && !scores && self.random.one_in(2) {
            let clamp = self.clamp();
            (finish, next, input_zero_point) = (Finish::Mean(clamp), clamp.zero_point, 0);
        }
        let integers = Integer { input_zero_point, ..integers(finish) };
        self.push(shape, next, Operation::GlobalAveragePool, None, integers);
    }

    pub(crate) fn dense(&mut self, outputs: u16, scores: bool) {
        let inputs = self.last.shape.len();
        let (weights, bias) = self.filters(inputs, outputs, self.last.zero_point, false);
        let (finish, next) = self.reduction(outputs, 45.0 / (3000.0 * (inputs as f64).sqrt()), scores);
        let operation = Operation::Dense { outputs: outputs.into() };
        let integers = Integer { weights, bias, ..integers(finish) };
        self.push(Shape::new(1, 1, outputs), next, operation, None, integers);
    }

    fn push(
        &mut self,
        shape: Shape,
        zero_point: i8,
        operation: Operation,
        shortcut: Option<ir::Shortcut>,
        mut parameters: Integer,
    ) {
        let input = self.last.tensor;
        let scores = matches!(parameters.finish, Finish::Scores(_) | Finish::RoundedScores { .. });
        let scale = if scores { 1.0 } else { self.random.between(1, 999) as f32 / 77.0 };
        let zero_point = if scores { 0 } else { zero_point };
        parameters.scale = TensorScale { scale, zero_point };
        if matches!(operation, Operation::AveragePool { .. }) {
            parameters.input_zero_point = self.last.zero_point;
        }
        let index = self.network.layers.len();
        self.network.layers.push(ir::Layer {
            name: format!("layer {index}"),
            place: format!("node {index}"),
            inputs: vec![input],
            shortcut,
            operation,
            activation: Activation::NONE,
            shape,
            parameters,
        });
        if !scores {
            self.last = Made { tensor: index + 1, shape, zero_point };
            self.made.push(self.last);
        }
    }

    pub(crate) fn convolution(&mut self, window: Window, depthwise: bool, channels: u16) {
        self.conv2d(window, depthwise, channels, None);
    }

    /// A convolution that adds a tensor, subsampled by its stride, after so many zero channels.
    fn conv2d(
        &mut self,
        window: Window,
        depthwise: bool,
        channels: u16,
        added: Option<(Made, [u8; 2], usize)>,
    ) {
        let Made { tensor, shape: input, zero_point } = self.last;
        let output = window.output(input, channels).unwrap();
        let taps = window.positions() * if depthwise { 1 } else { usize::from(input.channels) };
        let (weights, bias) = self.filters(taps, channels, zero_point, depthwise);
        // raw pixels have a padding value for each channel
        let padding_pixel = match tensor {
            INPUT => self.random.int8s(usize::from(input.channels)),
            _ => vec![zero_point; usize::from(input.channels)],
        };
        let requantize = self.requantize(usize::from(channels), 45.0 / (3000.0 * (taps as f64).sqrt()));
        let mut next = requantize.clamp.zero_point;
        let addition = added.map(|(from, ..)| match &requantize.rounding {
            Rounding::Once { shift } => self.fused_addition(*shift, from.zero_point),
            Rounding::Twice { .. } => {
                let sum = self.sum(from.zero_point);
                next = sum.clamp.zero_point;
                Addition::Separate(sum)
            }
        });
        let shortcut = added.map(|(from, stride, channels_before)| ir::Shortcut {
            tensor: from.tensor,
            stride: stride.map(usize::from),
            channels_before,
        });
        let operation = Operation::Conv2d { window: of(window), outputs: channels.into(), depthwise };
        let finish = Finish::Requantize(requantize);
        let integers = Integer { weights, bias, padding_pixel, addition, ..integers(finish) };
        self.push(output, next, operation, shortcut, integers);
    }

    /// Weights and biases of `outputs` filters, the input's zero point folded in.
    fn filters(&mut self, taps: usize, outputs: u16, zero_point: i8, depthwise: bool) -> (Vec<i8>, Vec<i32>) {
        let outputs = usize::from(outputs);
        let weights: Vec<i8> = self.random.int8s(taps * outputs);
        let weight = |output: usize, tap: usize| match depthwise {
            true => weights[tap * outputs + output],
            false => weights[output * taps + tap],
        };
        let spread = 3000 * (taps as f64).sqrt() as i64;
        let bias: Vec<i32> = (0..outputs)
            .map(|output| {
                let sum: i64 = (0..taps).map(|tap| i64::from(weight(output, tap))).sum();
                (self.random.between(-spread, spread) - sum * i64::from(zero_point)) as i32
            })
            .collect();
        (weights, bias)
    }

    /// Rounding once, or twice as TensorFlow Lite does.
    fn requantize(&mut self, count: usize, ratio: f64) -> Requantize {
        let (multipliers, shift) = self.multipliers(count, ratio);
        let rounding = match self.exact {
            false => Rounding::Once { shift },
            true => Rounding::Twice { shifts: vec![31 - shift.cast_signed(); count] },
        };
        Requantize { multipliers, rounding, clamp: self.clamp() }
    }

    /// Multipliers near `ratio`, seldom far from it, and their shift.
    fn multipliers(&mut self, count: usize, ratio: f64) -> (Vec<i32>, u8) {
        let shift = (29.0 - ratio.log2().floor()).clamp(1.0, 56.0) as u8;
        let random = &mut self.random;
        let odd = random.one_in(10);
        let multiplier = |random: &mut Random| match random.size(0, 9) {
            0 if odd => 0,
            1 if odd => i32::MAX,
            _ => (ratio * f64::from(random.between(50, 190) as i32) / 100.0 * f64::from(shift).exp2()) as i32,
        };
        ((0..count).map(|_| multiplier(random)).collect(), shift)
    }

    fn clamp(&mut self) -> Clamp {
        let zero_point = [i8::MIN, i8::MAX, self.random.int8(), self.random.int8()][self.random.size(0, 3)];
        match self.random.size(0, 3) {
            0 | 1 if zero_point < 64 => Clamp::relu(zero_point),
            2 if zero_point < 64 => Clamp { max: zero_point + 60, ..Clamp::relu(zero_point) },
            _ => Clamp::none(zero_point),
        }
    }

    /// What becomes of a reduction's sums, and the zero point of its output.
    fn reduction(&mut self, outputs: u16, ratio: f64, scores: bool) -> (Finish, i8) {
        let count = if self.random.one_in(2) { 1 } else { usize::from(outputs) };
        if scores && !(self.exact && self.random.one_in(2)) {
            let scale = |random: &mut Random| (ratio * random.between(1, 20) as f64 / 100.0) as f32;
            return (Finish::Scores((0..count).map(|_| scale(&mut self.random)).collect()), 0);
        }
        let requantize = self.requantize(count, ratio);
        let zero_point = requantize.clamp.zero_point;
        match scores {
            true => (Finish::RoundedScores { requantize, scale: 0.125 }, 0),
            false => (Finish::Requantize(requantize), zero_point),
        }
    }
}

/// What a layer without weights carries.
pub(crate) fn integers(finish: Finish) -> Integer {
    Integer {
        weights: Vec::new(),
        bias: Vec::new(),
        padding_pixel: Vec::new(),
        finish,
        addition: None,
        scale: TensorScale { scale: 1.0, zero_point: 0 },
        input_zero_point: 0,
    }
}

/// The window as the host tool has it.
fn of(window: Window) -> ir::Window {
    ir::Window {
        kernel: window.kernel.map(usize::from),
        stride: window.stride.map(usize::from),
        padding: window.padding.map(usize::from),
    }
}
