//! Rounding a filter's weights to integers so that the filter's output, not each weight, changes least.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Largest weight.
const MAX_WEIGHT: f64 = 127.0;

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
