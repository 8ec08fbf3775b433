//! The plain evaluation of layers and blocks over whole tensors equals the oracle.

use skipstone::Shape;
use skipstone::error::LayerError;
use skipstone::host::{
    Clamp, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Reduction, Requantize, Window, Windowed,
};

use crate::layers;
use crate::naive::{self, Tensor};
use crate::naive_block::{NaiveBlock, convolution, requantization, shape, windowed};
use crate::random::Random;

#[test]
fn conv2d() {
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let kernel = [random.size(1, 15), random.size(1, 15)];
        let window = layers::window(random, kernel);
        let channels = random.size(1, 9);
        let (depthwise, outputs) = (random.one_in(3), random.size(1, 9));
        let layer = layers::conv2d(random, window, depthwise, channels, outputs);
        let input = layers::input(random, &window, channels);
        let expected = layer.run(&input, None);
        let mut output = vec![99; expected.values.len()];
        Windowed::Conv2d(convolution(&layer, shape(&input)))
            .run(&input.values, &mut [], &mut output)
            .unwrap();
        assert_eq!(output, expected.values, "seed {seed}");
    }
}

#[test]
fn pool2d() {
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let kernel = [random.size(1, 15), random.size(1, 15)];
        let window = layers::window(random, kernel);
        let channels = random.size(1, 9);
        let input = layers::input(random, &window, channels);
        let zero_point = random.int8();
        let (kind, naive) = [
            (Pooling::Max, naive::Pooling::Max),
            (Pooling::Average, naive::Pooling::Average),
            (Pooling::AveragePadded { zero_point }, naive::Pooling::AveragePadded { zero_point }),
        ][random.size(0, 2)];
        let expected = naive::pool2d(&window, naive, &input);
        let layer = Pool2d::new(shape(&input), windowed(&window), kind).unwrap();
        let mut output = vec![99; expected.values.len()];
        Windowed::Pool2d(layer).run(&input.values, &mut [], &mut output).unwrap();
        assert_eq!(output, expected.values, "seed {seed}");
    }
}

/// Means of halves go away from zero: of -1 and 0 to -1, of -2 and -1 to -2, of 0 and 1 to 1.
#[test]
fn means_round_half_away_from_zero() {
    let window = Window { kernel: [1, 2], stride: [1, 2], padding: [0; 4] };
    let layer = Pool2d::new(Shape::new(1, 8, 1), window, Pooling::Average).unwrap();
    let mut output = [99; 4];
    Windowed::Pool2d(layer).run(&[-1, 0, -2, -1, 0, 1, -128, -127], &mut [], &mut output).unwrap();
    assert_eq!(output, [-1, -2, 1, -128]);
}

/// Dense layers over H x W x C and global average pooling, to int8 and to scores, with one multiplier for
/// each output or one that serves them all.
#[test]
fn reductions() {
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let [height, width, channels] = [random.size(1, 9), random.size(1, 9), random.size(1, 9)];
        let input = Tensor::new(height, width, channels, random.int8s(height * width * channels));
        let dense = random.one_in(2);
        let outputs = if dense { random.size(1, 12) } else { channels };
        let weights = random.int8s(outputs * input.values.len());
        let bias = layers::bias(random, outputs, input.values.len());
        let zero_point = random.int8();
        let expected = match dense {
            true => naive::dense(&input, &weights, &bias),
            false => naive::global_average_pool(&input, zero_point),
        };

        let parameters = if random.one_in(2) { 1 } else { outputs };
        let typical = (input.values.len() as f64).sqrt() * if dense { 4000.0 } else { 50.0 };
        let requantize = layers::requantize(random, parameters, typical);
        let scales: Vec<f32> = (0..parameters).map(|_| random.between(1, 1000) as f32 / 7e4).collect();
        let finish = match random.one_in(2) {
            true => Finish::Scores(&scales),
            false => Finish::Requantize(requantization(&requantize)),
        };
        let layer = match dense {
            true => Reduction::Dense(Dense::new(shape(&input), &weights, &bias, finish).unwrap()),
            false => Reduction::GlobalAveragePool(
                GlobalAveragePool::new(shape(&input), zero_point, finish).unwrap(),
            ),
        };

        let (mut sums, mut output, mut scores) = (vec![7; outputs], vec![99; outputs], vec![9.5; outputs]);
        layer.run(&input.values, &mut sums, &mut output, &mut scores).unwrap();
        let int8 = expected.iter().enumerate().map(|(index, sum)| requantize.apply(*sum, index, 0));
        let real = expected.iter().enumerate().map(|(index, sum)| *sum as f32 * scales[index % parameters]);
        match finish {
            Finish::Requantize(_) => {
                assert_eq!(output, int8.collect::<Vec<i8>>(), "seed {seed}");
                assert_eq!(scores, vec![9.5; outputs]);
            }
            Finish::Mean(_) | Finish::RoundedScores { .. } => unreachable!(),
            Finish::Scores(_) => {
                assert_eq!(scores, real.collect::<Vec<f32>>(), "seed {seed}");
                assert_eq!(output, vec![99; outputs]);
            }
        }
    }
}

/// Identity, convolutional and padded blocks of one to four convolutions, all parameters random.
#[test]
fn blocks() {
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let block = NaiveBlock::random(random);
        let expected = block.run();
        let checked = block.checked();
        assert_eq!(checked.output(), shape(&expected));
        let mut output = vec![99; expected.values.len()];
        checked.run(&block.input.values, &mut vec![55; checked.scratch_len()], &mut output).unwrap();
        assert_eq!(output, expected.values, "seed {seed}");
    }
}

/// Slices of the wrong length are refused with the length needed.
#[test]
fn wrong_lengths_are_refused() {
    let block = NaiveBlock::random(&mut Random::new(1));
    let checked = block.checked();
    let (inputs, outputs) = (checked.input().len(), checked.output().len());
    let run = |input: usize, scratch: usize, output: usize| {
        checked.run(&vec![0; input], &mut vec![0; scratch], &mut vec![0; output])
    };
    let scratch = checked.scratch_len();
    assert_eq!(run(inputs, scratch, outputs), Ok(()));
    assert_eq!(run(inputs, scratch + 1, outputs), Ok(()));
    let error = |needed, given| Err(LayerError::Length { needed, given });
    assert_eq!(run(inputs + 1, scratch, outputs), error(inputs, inputs + 1));
    assert_eq!(run(inputs, scratch - 1, outputs), error(scratch, scratch - 1));
    assert_eq!(run(inputs, scratch, outputs - 1), error(outputs, outputs - 1));

    let pool = Pool2d::new(Shape::new(4, 4, 2), Window::square(2, 2, 0), Pooling::Max).unwrap();
    assert_eq!(Windowed::Pool2d(pool).run(&[0; 31], &mut [], &mut [0; 8]), error(32, 31));
    assert_eq!(Windowed::Pool2d(pool).run(&[0; 32], &mut [], &mut [0; 9]), error(8, 9));

    let finish = Finish::Requantize(Requantize::new(&[1], 1, Clamp::none(0)).unwrap());
    let pool = Reduction::GlobalAveragePool(GlobalAveragePool::new(Shape::new(4, 4, 2), 0, finish).unwrap());
    assert_eq!(pool.run(&[0; 32], &mut [0; 2], &mut [0; 2], &mut []), Ok(()));
    assert_eq!(pool.run(&[0; 33], &mut [0; 2], &mut [0; 2], &mut []), error(32, 33));
    assert_eq!(pool.run(&[0; 32], &mut [0; 1], &mut [0; 2], &mut []), error(2, 1));
    assert_eq!(pool.run(&[0; 32], &mut [0; 2], &mut [0; 3], &mut []), error(2, 3));
}
