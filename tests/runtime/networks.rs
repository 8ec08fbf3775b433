//! Random valid int8 networks, straight from the schema's records.

use skipstone::schema::{self, Finish, Operation};
use skipstone::stage::Stage;
use skipstone::tflite::{Scaling, Sum};
use skipstone::{Addition, Algorithm, Clamp, Pooling, Residual, Shape, Softmax, Stages, Subsample, Window};
use skipstone_tools::blob::{Blob, Unplanned, Weights};
use skipstone_tools::layerwise;

use crate::random::Random;

/// A network of every kind of stage in any order: one to six stages and a head.
pub(crate) fn network(seed: u64) -> Unplanned {
    let mut random = Random::new(seed);
    let input = Shape::new(size(&mut random, 20), size(&mut random, 20), size(&mut random, 4));
    let mut builder = Builder::new(random, input);
    builder.exact = builder.random.one_in(4);
    for _ in 0..builder.random.size(1, 6) {
        builder.stage();
    }
    builder.head();
    builder.finish()
}

/// A network whose rows are added in place even where a padded shortcut takes every second pixel: the
/// channels double as the width halves.
pub(crate) fn doubling(seed: u64) -> Unplanned {
    let mut random = Random::new(seed);
    let side = 2 * random.size(2, 6) as u16;
    let mut builder = Builder::new(random, Shape::new(side, side, 2));
    builder.convolution(Window::square(3, 1, 1), false, 2);
    builder.block([2; 2], 4, schema::Shortcut::Padded(Subsample { stride: [2; 2], channels_before: 1 }));
    builder.head();
    builder.finish()
}

/// The stages of a network, over its records and weights.
pub(crate) fn with_stages<T>(network: &Unplanned, run: impl FnOnce(&[Stage<'_>]) -> T) -> T {
    let (records, weights) = network.encode().unwrap();
    let stages = Stages::new(&records, network.names.len() as u16, &weights, network.input);
    let stages: Vec<Stage<'_>> = stages.map(|entry| entry.unwrap().stage).collect();
    run(&stages)
}

/// A random image for the network.
pub(crate) fn image(random: &mut Random, input: Shape) -> Vec<u8> {
    random.int8s(input.len()).into_iter().map(i8::cast_unsigned).collect()
}

/// The scores' bits by plain evaluation, stage by stage, softmax included.
pub(crate) fn expected(stages: &[Stage<'_>], softmax: Softmax, image: &[u8]) -> Vec<u32> {
    let scores = layerwise::run(stages, image, &mut |_, _| {}).unwrap();
    match softmax {
        Softmax::Float => skipstone::Scores::new(&scores, false).probabilities().map(f32::to_bits).collect(),
        _ => bits(&scores),
    }
}

pub(crate) fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// A small network, always the same. Its stages: 0 a convolution, 1 an identity block, 2 a convolutional
/// block, 3 a block with a padded shortcut, 4 pooling, 5 global average pooling, 6 a dense layer.
pub(crate) fn small() -> Unplanned {
    small_of(1)
}

/// The same with other weights.
pub(crate) fn small_of(seed: u64) -> Unplanned {
    let mut builder = Builder::new(Random::new(seed), Shape::new(8, 8, 2));
    builder.convolution(Window::square(3, 1, 1), false, 4);
    builder.identity_block();
    builder.convolutional_block();
    builder.padded_block();
    builder.pooling();
    builder.global_average_pool(false);
    builder.dense(3, true);
    let mut network = builder.finish();
    network.softmax = Softmax::Float;
    network.labels = ["cat", "dog", "ship"].map(String::from).to_vec();
    network
}

/// A network without plans becomes a blob.
pub(crate) fn planned(network: Unplanned) -> Blob {
    let plan = |frame| {
        with_stages(&network, |stages| {
            skipstone_tools::planner::plan(stages, network.input, frame, 64).unwrap()
        })
    };
    let (rows, frame) = (plan(false), plan(true));
    network.assemble(&rows, &frame).unwrap()
}

/// Sizes up to `limit`, small ones more often.
fn size(random: &mut Random, limit: usize) -> u16 {
    let limit = random.size(1, limit);
    random.size(1, limit) as u16
}

/// A network that grows stage by stage.
pub(crate) struct Builder {
    pub(crate) random: Random,
    input: Shape,
    /// Shape and zero point of the last stage's output.
    shape: Shape,
    zero_point: i8,
    operations: Vec<Operation>,
    weights: Weights,
    /// Values are rounded twice, as TensorFlow Lite does.
    exact: bool,
}

impl Builder {
    pub(crate) fn new(random: Random, input: Shape) -> Self {
        Builder {
            exact: false,
            random,
            input,
            shape: input,
            zero_point: 0,
            operations: Vec::new(),
            weights: Weights::default(),
        }
    }

    pub(crate) fn finish(mut self) -> Unplanned {
        Unplanned {
            name: "random".into(),
            input: self.input,
            softmax: if self.random.one_in(3) { Softmax::Float } else { Softmax::None },
            labels: Vec::new(),
            names: (0..self.operations.len()).map(|index| format!("stage {index}")).collect(),
            operations: self.operations,
            weights: self.weights,
        }
    }

    fn stage(&mut self) {
        match self.random.size(0, 11) {
            0..=2 => {
                let (window, channels) = (self.window(), self.channels());
                self.convolution(window, false, channels);
            }
            3 => {
                let window = self.window();
                self.convolution(window, true, self.shape.channels);
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
    }

    /// Class scores from what there is.
    fn head(&mut self) {
        let classes = self.random.size(1, 12) as u16;
        match self.random.size(0, 3) {
            0 => self.global_average_pool(true),
            1 => self.global_average_pool(false),
            2 => self.dense(8, false),
            _ => {}
        }
        if !matches!(self.operations.last(), Some(Operation::GlobalAveragePool(pool)) if matches!(pool.finish, Finish::Scores { .. }))
        {
            self.dense(classes, true);
        }
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
            if window.output(self.shape, 1).is_some() {
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

    pub(crate) fn convolution(&mut self, window: Window, depthwise: bool, channels: u16) {
        let (record, shape) = self.conv2d((self.shape, self.zero_point), window, depthwise, channels);
        self.push(shape, record.requantize.clamp.zero_point, Operation::Conv2d(record));
    }

    pub(crate) fn pooling(&mut self) {
        let window = self.window();
        let kinds = [Pooling::Max, Pooling::Average, Pooling::AveragePadded { zero_point: self.zero_point }];
        let kind = kinds[self.random.size(0, 2)];
        let shape = window.output(self.shape, self.shape.channels).unwrap();
        self.push(shape, self.zero_point, Operation::Pool2d(schema::Pool2d { window, kind }));
    }

    pub(crate) fn identity_block(&mut self) {
        self.block([1; 2], self.shape.channels, schema::Shortcut::Identity);
    }

    pub(crate) fn convolutional_block(&mut self) {
        let stride = self.stride();
        let kernel = if self.random.one_in(3) { 3 } else { 1 };
        let (window, channels) = (self.same(kernel, stride), self.channels());
        let (record, _) = self.conv2d((self.shape, self.zero_point), window, false, channels);
        self.block(stride, channels, schema::Shortcut::Projection(record));
    }

    pub(crate) fn padded_block(&mut self) {
        let stride = self.stride();
        let channels_before = self.random.size(0, 3) as u16;
        // sometimes rows as long as the input's: the addition in place must not eat its own pixels
        let double = stride == [2, 2] && self.shape.width.is_multiple_of(2) && self.random.one_in(2);
        let channels = match double {
            true => 2 * self.shape.channels,
            false => channels_before + self.shape.channels + self.random.size(0, 3) as u16,
        };
        let channels_before = channels_before.min(channels - self.shape.channels);
        let subsample = Subsample { stride, channels_before };
        self.block(stride, channels, schema::Shortcut::Padded(subsample));
    }

    fn stride(&mut self) -> [u8; 2] {
        let (down, right) = (self.random.size(1, 3) as u8, self.random.size(1, 3) as u8);
        if self.random.one_in(2) { [2; 2] } else { [down, right] }
    }

    fn block(&mut self, stride: [u8; 2], channels: u16, shortcut: schema::Shortcut) {
        let shortcut_zero_point = match &shortcut {
            schema::Shortcut::Projection(record) => record.requantize.clamp.zero_point,
            _ => self.zero_point,
        };
        let length = self.random.size(2, 3);
        let strided = self.random.size(0, length - 1);
        let mut tensor = (self.shape, self.zero_point);
        let mut path = heapless::Vec::new();
        for index in 0..length {
            let window = self.same(3, if index == strided { stride } else { [1; 2] });
            let last = index + 1 == length;
            let to = if last { channels } else { self.channels() };
            let depthwise = self.random.one_in(4) && (!last || tensor.0.channels == channels);
            let to = if depthwise { tensor.0.channels } else { to };
            let (record, shape) = self.conv2d(tensor, window, depthwise, to);
            tensor = (shape, record.requantize.clamp.zero_point);
            path.push(record).unwrap();
        }
        let (addition, zero_point) = match path.last().unwrap().requantize.rounding {
            schema::Rounding::Once { shift } => (self.fused_addition(shift, shortcut_zero_point), tensor.1),
            schema::Rounding::Twice { .. } => {
                let sum = self.sum(shortcut_zero_point);
                (Addition::Separate(sum), sum.clamp.zero_point)
            }
        };
        let block = schema::Block { path, addition, shortcut, scale: 1.0 };
        self.push(tensor.0, zero_point, Operation::Block(block));
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
        let positions = usize::from(self.shape.height) * usize::from(self.shape.width);
        let zero_point = self.zero_point;
        let shape = Shape::new(1, 1, self.shape.channels);
        let (finish, next) = self.reduction(shape.channels, 1.0 / positions as f64, scores);
        let record = schema::GlobalAveragePool { zero_point, finish };
        self.push(shape, next, Operation::GlobalAveragePool(record));
    }

    pub(crate) fn dense(&mut self, outputs: u16, scores: bool) {
        let inputs = self.shape.len();
        let (weights, bias) = self.filters(inputs, outputs, self.zero_point, false);
        let (finish, next) = self.reduction(outputs, 45.0 / (3000.0 * (inputs as f64).sqrt()), scores);
        let record = schema::Dense { outputs, weights, bias, finish };
        self.push(Shape::new(1, 1, outputs), next, Operation::Dense(record));
    }

    fn push(&mut self, shape: Shape, zero_point: i8, operation: Operation) {
        (self.shape, self.zero_point) = (shape, zero_point);
        self.operations.push(operation);
    }

    /// A convolution over a tensor of this shape and zero point, and its output's shape.
    fn conv2d(
        &mut self,
        (input, zero_point): (Shape, i8),
        window: Window,
        depthwise: bool,
        channels: u16,
    ) -> (schema::Conv2d, Shape) {
        let output = window.output(input, channels).unwrap();
        let taps = window.positions() * if depthwise { 1 } else { usize::from(input.channels) };
        let (weights, bias) = self.filters(taps, channels, zero_point, depthwise);
        // raw pixels have a padding value for each channel
        let pixel = match self.operations.is_empty() {
            true => self.random.int8s(usize::from(input.channels)),
            false => vec![zero_point; usize::from(input.channels)],
        };
        let requantize = self.requantize(usize::from(channels), 45.0 / (3000.0 * (taps as f64).sqrt()));
        let record = schema::Conv2d {
            channels,
            depthwise,
            algorithm: Algorithm::Reference,
            window,
            weights,
            bias,
            padding_pixel: self.weights.section(&pixel),
            requantize,
            scale: 1.0,
        };
        (record, output)
    }

    /// Offsets of weights and biases of `outputs` filters, the input's zero point folded in.
    fn filters(&mut self, taps: usize, outputs: u16, zero_point: i8, depthwise: bool) -> (u32, u32) {
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
        (self.weights.section(&weights), self.weights.section(&bias))
    }

    /// Rounding once, or twice as TensorFlow Lite does.
    fn requantize(&mut self, count: usize, ratio: f64) -> schema::Requantize {
        let (multipliers, shift) = self.multipliers(count, ratio);
        let rounding = match self.exact {
            false => schema::Rounding::Once { shift },
            true => {
                let shifts: Vec<i8> = (0..count).map(|_| 31 - shift.cast_signed()).collect();
                schema::Rounding::Twice { shifts: self.weights.section(&shifts) }
            }
        };
        schema::Requantize { multipliers, rounding, clamp: self.clamp() }
    }

    /// Offset of multipliers near `ratio`, seldom far from it, and their shift.
    fn multipliers(&mut self, count: usize, ratio: f64) -> (u32, u8) {
        let shift = (29.0 - ratio.log2().floor()).clamp(1.0, 56.0) as u8;
        let random = &mut self.random;
        let odd = random.one_in(10);
        let multiplier = |random: &mut Random| match random.size(0, 9) {
            0 if odd => 0,
            1 if odd => i32::MAX,
            _ => (ratio * f64::from(random.between(50, 190) as i32) / 100.0 * f64::from(shift).exp2()) as i32,
        };
        let multipliers: Vec<i32> = (0..count).map(|_| multiplier(random)).collect();
        (self.weights.section(&multipliers), shift)
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
        let count = if self.random.one_in(2) { 1 } else { outputs };
        if scores {
            let scale = |random: &mut Random| (ratio * random.between(1, 20) as f64 / 100.0) as f32;
            let scales: Vec<f32> = (0..count).map(|_| scale(&mut self.random)).collect();
            return (Finish::Scores { scales: self.weights.section(&scales), count }, 0);
        }
        let requantize = self.requantize(usize::from(count), ratio);
        (Finish::Requantize { count, requantize, scale: 1.0 }, requantize.clamp.zero_point)
    }
}
