//! Average pooling whose only window leaves out the last rows or columns: the layers before it then do not make them.
//!
//! MLPerf Tiny's DS-CNN pools 24 x 5 of 25 x 5 positions. Padding that only those rows need goes, until
//! the pooling is a global one: less is computed, and the result is exactly the same.

use super::{Edit, Remarks};
use crate::ir::{FloatNetwork, Operation, Window, output_shape};

/// Trims what the only window of an average pooling leaves out.
pub(super) fn trim(network: &mut FloatNetwork, remarks: &mut Remarks) {
    let mut edit = Edit::new(network);
    for index in 0..edit.len() {
        let Operation::AveragePool { window, .. } = edit[index].operation else { continue };
        let Some(paddings) = paddings(&edit, index, window) else { continue };
        let [height, width] = window.kernel;
        let words = format!(" of the first {height}x{width}, beyond which nothing is computed");
        remarks.add(&edit[index], &words);
        edit[index].operation = Operation::GlobalAveragePool;
        // From the first to the last: each shape follows from the one before.
        for (layer, padding) in paddings.into_iter().rev() {
            let input = edit.shape(edit[layer].inputs[0]);
            if let Operation::Conv2d { window, .. } = &mut edit[layer].operation {
                window.padding = padding;
            }
            if let Ok(shape) = output_shape(&edit[layer].operation, &[input]) {
                edit[layer].shape = shape;
            }
        }
    }
}

/// The layers before the pooling `pool`, from the last to the first, and the padding that they need so that
/// its only window is the whole image; `None` if that is not possible.
fn paddings(edit: &Edit<'_>, pool: usize, window: Window) -> Option<Vec<(usize, [usize; 4])>> {
    let size = |layer: usize| {
        let shape = edit.shape(edit[layer].inputs[0]);
        [shape.height, shape.width].map(usize::from)
    };
    let pooled = size(pool);
    let single = (0..2).all(|axis| {
        let left_out = pooled[axis].checked_sub(window.kernel[axis]);
        left_out.is_some_and(|left_out| left_out < window.stride[axis])
    });
    if !single || window.padding != [0; 4] {
        return None;
    }
    let (mut wanted, mut at, mut paddings) = (window.kernel, pool, Vec::new());
    while wanted != size(at) {
        let before = edit.private_producer(at)?;
        let Operation::Conv2d { window, .. } = edit[before].operation else { return None };
        if edit[before].shortcut.is_some() {
            return None;
        }
        let (input, mut padding) = (size(before), window.padding);
        for axis in 0..2 {
            let under = (wanted[axis] - 1) * window.stride[axis] + window.kernel[axis];
            let needed = under.checked_sub(padding[axis]).filter(|&needed| needed > 0)?;
            wanted[axis] = needed.min(input[axis]);
            padding[axis + 2] = padding[axis + 2].min(needed - wanted[axis]);
        }
        paddings.push((before, padding));
        at = before;
    }
    Some(paddings)
}
