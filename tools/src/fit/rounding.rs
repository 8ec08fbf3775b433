//! Rounding a filter's weights to integers so that the filter's output, not each weight, changes least.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Largest weight.
pub(crate) const MAX_WEIGHT: f64 = 127.0;

/// Part of the mean second moment that is added to each input's own: directions in which the windows never
/// went shall not be used to hide errors.
const DAMPING: f64 = 0.01;

/// Rows of the matrix of second moments that one thread makes at a time.
const ROWS: usize = 32;

/// Windows of a layer's input, with their mean taken out.
pub(super) struct Moments {
    /// Mean of each of a window's values.
    pub(super) mean: Vec<f64>,
    depth: usize,
    windows: Vec<f32>,
}

/// The second moments of windows, factored: their damped matrix, its inputs in `order`, is L times its
/// transpose.
pub(super) struct Second {
    order: Vec<usize>,
    /// L, row by row.
    factor: Vec<f64>,
}

impl Moments {
    /// Of windows of `depth` values, one after the other.
    pub(super) fn centre(mut windows: Vec<f32>, depth: usize) -> Self {
        let count = windows.len() / depth;
        let mut mean = vec![0.0; depth];
        for window in windows.chunks_exact(depth) {
            mean.iter_mut().zip(window).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
        windows.par_chunks_exact_mut(depth).for_each(|window| {
            window.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= *mean as f32);
        });
        Moments { mean, depth, windows }
    }

    /// The factored matrix; none where the windows are all the same or not finite.
    pub(super) fn second(&self) -> Option<Second> {
        let depth = self.depth;
        let windows = ArrayView2::from_shape((self.windows.len() / depth, depth), &self.windows).ok()?;
        // the upper triangle, in strips of rows; each is summed up in the same order whatever the threads
        let mut matrix = vec![0.0f32; depth * depth];
        matrix.par_chunks_mut(ROWS * depth).enumerate().for_each(|(strip, rows)| {
            let first = strip * ROWS;
            let count = rows.len() / depth;
            let Ok(mut rows) = ArrayViewMut2::from_shape((count, depth), rows) else { return };
            let left = windows.slice(s![.., first..first + count]);
            let mut upper = rows.slice_mut(s![.., first..]);
            general_mat_mul(1.0, &left.t(), &windows.slice(s![.., first..]), 0.0, &mut upper);
        });
        let diagonal = |index: usize| f64::from(matrix[index * depth + index]);
        let mean = (0..depth).map(diagonal).sum::<f64>() / depth as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        // rounded from the last to the first: those that move the output most have most weights left to
        // take their errors back
        let mut order: Vec<usize> = (0..depth).collect();
        order.sort_by(|a, b| diagonal(*a).total_cmp(&diagonal(*b)));
        let mut ordered = vec![0.0; depth * depth];
        for (row, &a) in order.iter().enumerate() {
            for (column, &b) in order[..=row].iter().enumerate() {
                ordered[row * depth + column] = f64::from(matrix[a.min(b) * depth + a.max(b)]);
            }
            ordered[row * depth + row] += DAMPING * mean;
        }
        let factor = cholesky(ordered, depth)?;
        Some(Second { order, factor })
    }
}

/// L of a symmetric matrix given by its lower triangle; none where that is not positive definite.
fn cholesky(mut matrix: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    for row in 0..size {
        let (above, this) = matrix.split_at_mut(row * size);
        for column in 0..=row {
            let dot =
                |other: &[f64], this: &[f64]| -> f64 { other.iter().zip(this).map(|(a, b)| a * b).sum() };
            if column < row {
                let other = &above[column * size..][..=column];
                this[column] = (this[column] - dot(&other[..column], &this[..column])) / other[column];
            } else {
                let rest = this[column] - dot(&this[..column], &this[..column]);
                if !(rest.is_finite() && rest > 0.0) {
                    return None;
                }
                this[column] = rest.sqrt();
            }
        }
    }
    Some(matrix)
}

/// The nearest integers.
pub(super) fn nearest(filter: &[f64], steps: &[f64]) -> Vec<i8> {
    filter.iter().zip(steps).map(|(weight, step)| round(weight / step)).collect()
}

fn round(value: f64) -> i8 {
    value.round().clamp(-MAX_WEIGHT, MAX_WEIGHT) as i8
}

/// Integers whose filter's output is close to the given one's, as the second moments measure it.
///
/// The squared error is |L^T (weights - rounded)|^2: with the weights after it decided, a weight has one
/// row of L^T left to make small, and the best integer is the one nearest to that row's zero.
pub(super) fn compensated(filter: &[f64], steps: &[f64], second: &Second) -> Vec<i8> {
    let size = filter.len();
    let mut rounded = vec![0; size];
    let mut left = vec![0.0; size];
    for (row, &index) in second.order.iter().enumerate().rev() {
        let factor = &second.factor[row * size..][..=row];
        let integer = round((filter[index] + left[row] / factor[row]) / steps[index]);
        rounded[index] = integer;
        let error = filter[index] - f64::from(integer) * steps[index];
        left.iter_mut().zip(factor).for_each(|(left, factor)| *left += factor * error);
    }
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deterministic values in -1..1 (a linear congruential generator).
    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            Some((*state >> 33) as f64 / f64::from(1u32 << 30) - 1.0)
        };
        std::iter::repeat_n((), count).scan(seed, |state, ()| next(state)).collect()
    }

    /// Windows of `depth` values that have much in common.
    fn windows(depth: usize, count: usize) -> Vec<f32> {
        let (own, common) = (noise(1, depth * count), noise(2, count));
        own.iter().enumerate().map(|(index, own)| (own + 3.0 * common[index / depth]) as f32).collect()
    }

    /// Sum of the squared errors at the output.
    fn error(filter: &[f64], steps: &[f64], rounded: &[i8], windows: &[f32]) -> f64 {
        let errors: Vec<f64> =
            (0..filter.len()).map(|i| filter[i] - f64::from(rounded[i]) * steps[i]).collect();
        let outputs = windows.chunks(filter.len());
        outputs
            .map(|window| window.iter().zip(&errors).map(|(x, e)| f64::from(*x) * e).sum::<f64>().powi(2))
            .sum()
    }

    #[test]
    fn compensated_weights_change_the_output_less_than_the_nearest() {
        let (depth, count) = (40, 400);
        let moments = Moments::centre(windows(depth, count), depth);
        let second = moments.second().unwrap();
        let mut sums = [0.0; 2];
        for seed in 3..23 {
            let filter = noise(seed, depth);
            let steps = vec![1.0 / 16.0; depth];
            let (near, fitted) = (nearest(&filter, &steps), compensated(&filter, &steps, &second));
            sums[0] += error(&filter, &steps, &near, &moments.windows);
            sums[1] += error(&filter, &steps, &fitted, &moments.windows);
        }
        assert!(sums[1] < 0.3 * sums[0], "{sums:?}");
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_damped_matrix() {
        // more columns than one strip of rows has
        let (depth, count) = (ROWS + 9, 200);
        let moments = Moments::centre(windows(depth, count), depth);
        let Second { order, factor } = moments.second().unwrap();
        let moment = |a: usize, b: usize| {
            moments
                .windows
                .chunks(depth)
                .map(|window| f64::from(window[a]) * f64::from(window[b]))
                .sum::<f64>()
        };
        let mean = (0..depth).map(|index| moment(index, index)).sum::<f64>() / depth as f64;
        for row in 0..depth {
            for column in 0..=row {
                let product: f64 =
                    (0..=column).map(|k| factor[row * depth + k] * factor[column * depth + k]).sum();
                let damping = if row == column { DAMPING * mean } else { 0.0 };
                let expected = moment(order[row], order[column]) + damping;
                assert!((product - expected).abs() < 1e-4 * mean, "{row}, {column}: {product} {expected}");
            }
        }
    }

    #[test]
    fn windows_that_are_all_the_same_or_not_finite_tell_nothing() {
        assert!(Moments::centre(vec![2.5; 30], 3).second().is_none());
        assert!(Moments::centre(vec![1.0, f32::NAN, 3.0, 1.0, 2.0, 4.0], 3).second().is_none());
        assert!(Moments::centre(Vec::new(), 3).second().is_none());
    }
}
