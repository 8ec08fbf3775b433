//! A block with zero weights and bias is exactly ReLU of its shortcut.

use proptest::prelude::*;
use skipstone::Shape;
use skipstone::block::{Block, Clamp, Conv2d, Requantize, Residual, Subsample, Window};
use skipstone::error::LayerError;

use crate::naive::{Requantize as NaiveRequantize, Residual as NaiveResidual};
use crate::naive_block::{NaiveBlock, NaiveShortcut};
use crate::random::Random;

/// Which of the three shortcuts a block should have.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Identity,
    Projection,
    Padded,
}

/// A block with this shortcut and this many convolutions, of which the last has zero weights and bias,
/// whose output scale equals the shortcut's: 2^residual_shift * 2^n = 2^shift.
fn zero_block(kind: Kind, convolutions: usize, mut seed: u64, shift: u8, zero_point: i8) -> NaiveBlock {
    let mut block = loop {
        let block = NaiveBlock::random(&mut Random::new(seed));
        let found = match &block.shortcut {
            NaiveShortcut::Identity => Kind::Identity,
            NaiveShortcut::Projection(_) => Kind::Projection,
            NaiveShortcut::Padded { .. } => Kind::Padded,
        };
        if found == kind && block.path.len() == convolutions {
            break block;
        }
        seed = seed.wrapping_add(1);
    };
    let left = shift.saturating_sub(30);
    let shortcut_zero_point = match &block.shortcut {
        NaiveShortcut::Projection(layer) => layer.requantize.zero_point,
        _ => block.residual.zero_point,
    };
    block.residual =
        NaiveResidual { zero_point: shortcut_zero_point, multiplier: 1 << (shift - left), shift: left };
    let last = block.path.last_mut().unwrap();
    last.weights.fill(0);
    last.bias.fill(0);
    let multipliers = last.requantize.multipliers.clone();
    last.requantize = NaiveRequantize { multipliers, shift, zero_point, min: zero_point, max: i8::MAX };
    block
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn zero_weights_make_it_relu_of_its_shortcut(
        kind in prop::sample::select(vec![Kind::Identity, Kind::Projection, Kind::Padded]),
        convolutions in 1..=4usize,
        seed: u64,
        shift in 1..=50u8,
        zero_point: i8,
    ) {
        let block = zero_block(kind, convolutions, seed, shift, zero_point);
        let relu = |value: &i8| {
            let real = i32::from(*value) - i32::from(block.residual.zero_point);
            (real.max(0) + i32::from(zero_point)).min(127) as i8
        };
        let expected: Vec<i8> = block.shortcut().values.iter().map(relu).collect();

        let checked = block.checked();
        let mut output = vec![99; checked.output().len()];
        checked.run(&block.input.values, &mut vec![0; checked.scratch_len()], &mut output).unwrap();
        prop_assert_eq!(output, expected);
    }
}

/// A padded shortcut's new channels are real zeros, whatever the zero points.
#[test]
fn padded_channels_are_real_zeros() {
    // 4 x 1 pixels of one channel; every second one, between a zero channel in front and one after it
    let subsample = Subsample { stride: [2, 1], channels_before: 1 };
    let relu = Requantize::new(&[1; 3], 1, Clamp::relu(-100)).unwrap();
    let down = Window { kernel: [1; 2], stride: [2, 1], padding: [0; 4] };
    let first = Conv2d::new(Shape::new(4, 1, 1), down, &[0; 3], &[0; 3], &[0], relu).unwrap();
    let one = Window::square(1, 1, 0);
    let last = Conv2d::new(Shape::new(2, 1, 3), one, &[0; 9], &[0; 3], &[0; 3], relu).unwrap();
    let block = Block::padded(&[first, last], Residual::new(-20, 2, 0).unwrap(), subsample).unwrap();
    let mut output = [0; 6];
    block.run(&[50, 1, 10, 1], &mut [0; 6], &mut output).unwrap();
    // 50 and 10 are 70 and 30 above the zero point
    assert_eq!(output, [-100, -30, -100, -100, -70, -100]);
}

/// What is not a block is refused.
#[test]
fn what_does_not_fit_is_refused() {
    let shape = Shape::new(4, 4, 2);
    let relu = Requantize::new(&[1; 2], 1, Clamp::relu(0)).unwrap();
    let conv2d = |input, window: Window| {
        let weights = &[0; 36][..window.positions() * 4];
        Conv2d::new(input, window, weights, &[0; 2], &[0; 2], relu).unwrap()
    };
    let same = conv2d(shape, Window::square(3, 1, 1));
    let half = conv2d(shape, Window::square(3, 2, 1));
    let after = conv2d(half.output(), Window::square(3, 1, 1));
    let projection = conv2d(shape, Window::square(1, 2, 0));
    let residual = Residual::new(0, 1, 0).unwrap();
    let subsample = |stride, channels_before| Subsample { stride, channels_before };
    let refused = |block: Result<Block<'_>, LayerError>| block.err() == Some(LayerError::Block);

    for convolutions in 1..=4 {
        assert!(Block::identity(&[same; 4][..convolutions], residual).is_ok(), "{convolutions} convolutions");
    }
    assert!(Block::convolutional(&[half], residual, projection).is_ok());
    assert!(Block::padded(&[half], residual, subsample([2, 2], 0)).is_ok());
    assert!(Block::convolutional(&[half, after], residual, projection).is_ok());
    assert!(Block::padded(&[half, after], residual, subsample([2, 2], 0)).is_ok());

    assert!(refused(Block::identity(&[], residual)));
    assert!(refused(Block::identity(&[same; 5], residual)), "five convolutions");
    assert!(refused(Block::identity(&[half, same], residual)), "the second reads another shape");
    assert!(refused(Block::identity(&[half, after], residual)), "the shape changes");
    assert!(refused(Block::convolutional(&[same, same], residual, projection)), "the shortcut shrinks alone");
    assert!(refused(Block::convolutional(&[after, after], residual, projection)), "reads another shape");
    assert!(refused(Block::padded(&[half, after], residual, subsample([1, 2], 0))), "wrong stride");
    assert!(refused(Block::padded(&[half, after], residual, subsample([0, 2], 0))), "no stride");
    assert!(refused(Block::padded(&[half, after], residual, subsample([2, 2], 1))), "too many channels");
    assert!(refused(Block::padded(&[half, after], residual, subsample([2, 2], u16::MAX))));

    // a record may hold what `Residual::new` refuses
    let wrong = Residual { zero_point: 0, multiplier: -1, shift: 0 };
    assert_eq!(Block::identity(&[same, same], wrong).err(), Some(LayerError::Requantization));
}
