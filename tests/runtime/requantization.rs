//! Requantization rounds once and half up: it equals exact rational arithmetic.

use proptest::prelude::*;
use skipstone::block::{Addition, Clamp, Requantize, Residual};
use skipstone::error::LayerError;

use crate::naive::{self, round_half_up};

/// Sums of all sizes, the ends of 32 bits among them.
fn sum() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), -1000..1000, Just(i32::MIN), Just(i32::MAX)]
}

/// Multipliers of all sizes; powers of two make ties.
fn multiplier() -> impl Strategy<Value = i32> {
    prop_oneof![0..=i32::MAX, 0..1000, Just(0), Just(i32::MAX), (0..31u32).prop_map(|bit| 1 << bit)]
}

/// Zero points and clamps that hold them.
fn clamp() -> impl Strategy<Value = Clamp> {
    let ordered = prop::array::uniform3(any::<i8>()).prop_map(|mut values| {
        values.sort();
        let [min, zero_point, max] = values;
        Clamp { zero_point, min, max }
    });
    prop_oneof![any::<i8>().prop_map(Clamp::none), any::<i8>().prop_map(Clamp::relu), ordered]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn rounds_the_exact_number_once(
        sum in sum(),
        multiplier in multiplier(),
        shift in 1..=Requantize::MAX_SHIFT,
        clamp in clamp(),
        residual in prop::option::of((any::<i8>(), multiplier(), 0..=Residual::MAX_SHIFT)),
        shortcut: i8,
    ) {
        let naive = naive::Requantize {
            multipliers: vec![multiplier],
            shift,
            zero_point: clamp.zero_point,
            min: clamp.min,
            max: clamp.max,
        };
        let term = residual.map_or(0, |(zero_point, multiplier, shift)| {
            naive::Residual { zero_point, multiplier, shift }.term(shortcut)
        });
        let expected = naive.apply(sum.into(), 0, term);

        let multipliers = [multiplier];
        let requantize = Requantize::new(&multipliers, shift, clamp).unwrap();
        let addition = residual.map(|(zero_point, multiplier, shift)| {
            Addition::from(Residual::new(zero_point, multiplier, shift).unwrap())
        });
        let scaling = requantize.scaling(0).unwrap();
        let addition = addition.as_ref().map(|addition| (addition, shortcut));
        prop_assert_eq!(requantize.apply(sum, scaling, addition), expected);
    }
}

/// Half steps above and below zero: 2.5, 1.5, 0.5, -0.5, -1.5, -2.5.
#[test]
fn halves_go_up() {
    let requantize = Requantize::new(&[1], 1, Clamp::none(0)).unwrap();
    let scaling = requantize.scaling(0).unwrap();
    let rounded = [5, 3, 1, -1, -3, -5].map(|sum| requantize.apply(sum, scaling, None));
    assert_eq!(rounded, [3, 2, 1, 0, -1, -2]);
    assert_eq!([5, 3, 1, -1, -3, -5].map(|sum| round_half_up(sum, 2)), [3, 2, 1, 0, -1, -2]);
}

/// A sum of 0.5 and a shortcut of 0.5 make 1, which two roundings would make 2 (up) or 0 (down).
#[test]
fn a_block_rounds_the_sum_not_its_terms() {
    let requantize = Requantize::new(&[1], 1, Clamp::none(0)).unwrap();
    let addition = Addition::from(Residual::new(0, 1, 0).unwrap());
    assert_eq!(requantize.apply(1, requantize.scaling(0).unwrap(), Some((&addition, 1))), 1);
}

#[test]
fn parameters_out_of_range_are_refused() {
    const REFUSED: Option<LayerError> = Some(LayerError::Requantization);
    let none = Clamp::none(0);
    assert_eq!(Requantize::new(&[0, i32::MAX], 1, none).err(), None);
    assert_eq!(Requantize::new(&[0, i32::MAX], 56, none).err(), None);
    assert_eq!(Requantize::new(&[0, -1], 1, none).err(), REFUSED);
    assert_eq!(Requantize::new(&[1], 0, none).err(), REFUSED);
    assert_eq!(Requantize::new(&[1], 57, none).err(), REFUSED);
    assert_eq!(Requantize::new(&[1], 9, Clamp { zero_point: 0, min: 1, max: 5 }).err(), REFUSED);
    assert_eq!(Requantize::new(&[1], 9, Clamp { zero_point: 6, min: 1, max: 5 }).err(), REFUSED);
    assert_eq!(Residual::new(0, i32::MAX, 20).err(), None);
    assert_eq!(Residual::new(0, -1, 0).err(), REFUSED);
    assert_eq!(Residual::new(0, 1, 21).err(), REFUSED);
}
