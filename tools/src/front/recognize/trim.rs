//! Average pooling whose only window leaves out the last rows or columns: the layers before it then do not make them.
//!
//! MLPerf Tiny's DS-CNN pools 24 x 5 of 25 x 5 positions. Padding that only those rows need goes, until
//! the pooling is a global one: less is computed, exactly the same comes out.

use skipstone::Shape;

use crate::network::{Pool2d, Stage};

/// Takes what `pool`, the next stage, leaves out from the stages before it; whether that went, so that its
/// window is the whole image.
pub(super) fn to_only_window(stages: &mut [Stage], input: Shape, pool: &Pool2d) -> bool {
    let mut sizes = vec![[input.height, input.width].map(usize::from)];
    for stage in &*stages {
        match size_after(stage, sizes[sizes.len() - 1]) {
            Some(size) => sizes.push(size),
            None => return false,
        }
    }
    let size = sizes[sizes.len() - 1];
    let single = (0..2).all(|axis| {
        let left_out = size[axis].checked_sub(pool.kernel[axis]);
        left_out.is_some_and(|left_out| left_out < pool.stride[axis])
    });
    if !single || pool.padding != [0; 4] {
        return false;
    }
    let (mut wanted, mut paddings) = (pool.kernel, Vec::new());
    while wanted != sizes[stages.len() - paddings.len()] {
        let Some(before) = (stages.len() - paddings.len()).checked_sub(1) else { return false };
        let Stage::Conv2d(conv) = &stages[before] else { return false };
        let mut padding = conv.padding;
        for axis in 0..2 {
            let under = (wanted[axis] - 1) * conv.stride[axis] + conv.kernel[axis];
            let Some(needed @ 1..) = under.checked_sub(padding[axis]) else { return false };
            wanted[axis] = needed.min(sizes[before][axis]);
            padding[axis + 2] = padding[axis + 2].min(needed - wanted[axis]);
        }
        paddings.push(padding);
    }
    for (stage, padding) in stages.iter_mut().rev().zip(paddings) {
        if let Stage::Conv2d(conv) = stage {
            conv.padding = padding;
        }
    }
    true
}

/// Height and width behind a stage.
fn size_after(stage: &Stage, size: [usize; 2]) -> Option<[usize; 2]> {
    let window = |size: [usize; 2], kernel: [usize; 2], stride: [usize; 2], padding: [usize; 4]| {
        let along = |axis: usize| {
            let room = (size[axis] + padding[axis] + padding[axis + 2]).checked_sub(kernel[axis])?;
            Some(room.checked_div(stride[axis])? + 1)
        };
        Some([along(0)?, along(1)?])
    };
    match stage {
        Stage::Conv2d(conv) => window(size, conv.kernel, conv.stride, conv.padding),
        Stage::MaxPool2d(pool) | Stage::AveragePool2d(pool) => {
            window(size, pool.kernel, pool.stride, pool.padding)
        }
        Stage::Block(block) => block
            .path
            .iter()
            .try_fold(size, |size, conv| window(size, conv.kernel, conv.stride, conv.padding)),
        Stage::GlobalAveragePool { .. } | Stage::Dense(_) | Stage::Softmax => Some([1, 1]),
    }
}
