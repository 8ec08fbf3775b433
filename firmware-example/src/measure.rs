//! What a piece of work costs: time and stack.

use crate::{board, stack};

/// The cost of a piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Time, counted in [`board::UNIT`].
    pub time: u64,
    /// Bytes of stack.
    pub stack: usize,
}

/// Runs `work` and measures it. Its result's own bytes belong to the caller and do not count.
#[inline(always)]
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    board::start_clock();
    let ((result, time), stack) = stack::measure(|| {
        let start = board::now();
        let result = work();
        (result, board::now() - start)
    });
    (result, Cost { time, stack })
}
