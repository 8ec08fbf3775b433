//! What a piece of work costs: time and stack.

use crate::{board, stack};

/// The cost of a piece of work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time, counted in [`board::UNIT`].
    pub time: u64,
    /// Bytes of stack.
    pub stack: usize,
}

/// Runs `work` and measures its `cost`. Its result's own bytes belong to the caller and do not count.
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
