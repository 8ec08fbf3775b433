//! Class scores: the best ones in order, probabilities as softmax in 64 bits has them, and no panic for
//! what no network should give.

use proptest::prelude::*;
use skipstone::Scores;

/// What micromath's exponential (four terms of the series) may be off, relative to the true value.
const EXP_ERROR: f64 = 0.003;

/// Softmax in 64 bits.
fn softmax(values: &[f32]) -> Vec<f64> {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |value: &f32| (f64::from(*value) - f64::from(max)).exp();
    let sum: f64 = values.iter().map(exp).sum();
    values.iter().map(|value| exp(value) / sum).collect()
}

/// Scores as networks give them: close together, far apart, with ties.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![-10.0..10.0f32, -1000.0..1000.0f32, (-3..3i32).prop_map(|value| value as f32)];
    prop::collection::vec(value, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn probabilities_are_softmax(values in values()) {
        let scores = Scores::new(&values, false);
        let probabilities: Vec<f64> = scores.probabilities().map(f64::from).collect();
        prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        for (probability, expected) in probabilities.iter().zip(softmax(&values)) {
            prop_assert!((0.0..=1.0).contains(probability));
            let error = (probability - expected).abs();
            prop_assert!(error <= 2.0 * EXP_ERROR * expected + 1e-9, "{probability} for {expected}");
        }
    }

    #[test]
    fn a_higher_score_is_no_less_probable(values in values()) {
        let scores = Scores::new(&values, false);
        let top = scores.top::<40>();
        for pair in top.windows(2) {
            prop_assert!(pair[0].score >= pair[1].score);
            prop_assert!(pair[0].probability >= pair[1].probability, "{pair:?}");
        }
    }

    /// The best, in order; of equal ones the first.
    #[test]
    fn top_is_a_stable_sort(values in values()) {
        let scores = Scores::new(&values, false);
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        let top = scores.top::<5>();
        prop_assert_eq!(top.len(), values.len().min(5));
        for (class, index) in top.iter().zip(order) {
            prop_assert_eq!(class.index, index);
            prop_assert_eq!(class.score, values[index]);
            prop_assert_eq!(class.probability, scores.probabilities().nth(index).unwrap());
        }
    }

    /// Any bits whatsoever, NaN and infinities among them.
    #[test]
    fn nothing_panics(bits in prop::collection::vec(
        prop_oneof![any::<u32>(), Just(0x7f80_0000), Just(0xff80_0000), Just(0x7fc0_0000), Just(0x8000_0000), Just(1)],
        0..12,
    )) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for normalized in [false, true] {
            let scores = Scores::new(&values, normalized);
            prop_assert_eq!(scores.probabilities().count(), values.len());
            let top = scores.top::<20>();
            prop_assert_eq!(top.len(), values.len());
            prop_assert_eq!(scores.top::<0>().len(), 0);
            let mut classes: Vec<usize> = top.iter().map(|class| class.index).collect();
            classes.sort();
            prop_assert!(classes.into_iter().eq(0..values.len()));
        }
    }
}

#[test]
fn top_of_few_and_of_equal_scores() {
    let best =
        |values: &[f32]| Scores::new(values, false).top::<3>().iter().map(|class| class.index).collect();
    let best: &dyn Fn(&[f32]) -> Vec<usize> = &best;
    assert!(best(&[]).is_empty());
    assert_eq!(best(&[1.0]), [0]);
    assert_eq!(best(&[1.0, 2.0]), [1, 0]);
    assert_eq!(best(&[5.0, 5.0, 5.0, 5.0]), [0, 1, 2]);
    assert_eq!(best(&[1.0, 5.0, 3.0, 5.0, 4.0]), [1, 3, 4]);
    assert_eq!(best(&[f32::NEG_INFINITY, 0.0, f32::INFINITY]), [2, 1, 0]);
}

/// Scores that are not numbers come last, wherever they stand.
#[test]
fn what_is_not_a_number_is_never_best() {
    let best = |values: &[f32]| Scores::new(values, false).top::<1>()[0].index;
    assert_eq!(best(&[f32::NAN, 1.0, 2.0]), 2);
    assert_eq!(best(&[1.0, f32::NAN, 2.0]), 2);
    assert_eq!(best(&[2.0, 1.0, f32::NAN]), 0);
}

/// After a softmax in the network, the scores are the probabilities.
#[test]
fn normalized_scores_are_probabilities() {
    let values = [0.25, 0.5, 0.25];
    let scores = Scores::new(&values, true);
    assert!(scores.probabilities().eq(values));
    let best = scores.top::<1>();
    assert_eq!((best[0].index, best[0].score, best[0].probability), (1, 0.5, 0.5));
}
