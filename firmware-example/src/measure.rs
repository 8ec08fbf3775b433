//! Measures time and stack.

use crate::{board, stack};

/// What a piece of work cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time in [`board::UNIT`].
    pub time: u64,
    /// Stack in bytes.
    pub stack: usize,
}

/// Runs `work` and measures its `cost`. Its result is stored in the caller's frame, which does not count.
#[inline(always)]
pub fn measure<T>(cost: &mut Cost, work: impl FnOnce() -> T) -> T {
    board::start_clock();
    let Cost { time, stack } = cost;
    stack::measure(stack, || {
        let start = board::now();
        let result = work();
        *time = board::now() - start;
        result
    })
}
