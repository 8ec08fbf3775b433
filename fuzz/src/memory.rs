//! Memory that a target may take, counted by the global allocator.

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// A bound on memory: so many times the bytes of the file, and so many more.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Times the file's bytes.
    pub multiple: usize,
    /// Bytes beside it.
    pub constant: usize,
}

/// Runs `work` on a file of `bytes`.
///
/// # Panics
/// Where it held more memory at a time than the bound allows.
pub fn within<T>(bound: Bound, bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let result = work();
    let taken = ALLOCATED.peak_usage().saturating_sub(before);
    let most = bytes * bound.multiple + bound.constant;
    assert!(taken <= most, "{taken} bytes of memory for a file of {bytes}: {bound:?} allows {most}");
    result
}
