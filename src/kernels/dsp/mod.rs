//! Kernels for cores with the DSP extension; see each module's head.

pub(crate) mod depthwise;
pub(crate) mod direct;
mod epilogue;
mod primitives;
mod products;
pub(crate) mod winograd;

use crate::ops::Dense;

use primitives::{smlad, sxtb16, sxtb16_ror8};

/// Adds the products of input row `row` to the sums, one for each output: four products in two
/// `SMLAD`.
pub(crate) fn dense(layer: &Dense<'_>, row: u16, input: &[i8], sums: &mut [i32]) {
    let row_len = layer.input.row_len().max(1);
    let rows = usize::from(layer.input.height).max(1);
    let weights = layer.weights.chunks_exact(row_len).skip(usize::from(row)).step_by(rows);
    for (sum, weights) in sums.iter_mut().zip(weights) {
        let ((x, x_rest), (w, w_rest)) = (input.as_chunks::<4>(), weights.as_chunks::<4>());
        let mut total = sum.cast_unsigned();
        for (x, w) in x.iter().zip(w) {
            let word = |bytes: &[i8; 4]| u32::from_le_bytes(bytes.map(i8::cast_unsigned));
            let (x, w) = (word(x), word(w));
            total = smlad(sxtb16(x), sxtb16(w), total);
            total = smlad(sxtb16_ror8(x), sxtb16_ror8(w), total);
        }
        *sum = total.cast_signed();
        for (x, w) in x_rest.iter().zip(w_rest) {
            *sum += i32::from(*x) * i32::from(*w);
        }
    }
}
