//! Measures stack depth: fills the free memory below the stack with a pattern, then looks how much of it was
//! overwritten.

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use cortex_m::register::msp;

const PAINT: u32 = 0xCCCC_CCCC;

/// Bytes below the stack pointer that are not painted: [`paint`] may itself use them. Smaller stack uses than
/// this cannot be distinguished.
const OWN_FRAME: usize = 64;

unsafe extern "C" {
    // From cortex-m-rt's linker script: the top of the stack, and the lowest address that it may reach, which
    // is the end of the statics.
    static _stack_start: u32;
    static _stack_end: u32;
}

static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` and stores in `bytes` the stack that it used below its caller's frame. The result is stored in
/// that frame and does not count.
// Inlined, so that `top` is the caller's stack pointer; `measure_below` is not, so that `work` runs below it.
#[inline(always)]
pub fn measure<T>(bytes: &mut usize, work: impl FnOnce() -> T) -> T {
    let top = msp::read() as usize;
    measure_below(top, bytes, work)
}

// Returns nothing but the result, so that the compiler constructs it in the caller's frame.
#[inline(never)]
fn measure_below<T>(top: usize, bytes: &mut usize, work: impl FnOnce() -> T) -> T {
    paint();
    let result = work();
    let lowest = lowest();
    HIGH_WATER.fetch_max(ptr::addr_of!(_stack_start).addr() - lowest, Ordering::Relaxed);
    *bytes = top.saturating_sub(lowest);
    result
}

/// Maximum stack depth in bytes inside any [`measure`], from the top of the stack.
pub fn high_water() -> usize {
    HIGH_WATER.load(Ordering::Relaxed)
}

#[inline(never)]
fn paint() {
    let mut word = ptr::addr_of!(_stack_end).cast_mut();
    // Nothing below the stack pointer is in use; an interrupt uses it only while it runs.
    let end = msp::read() as usize - OWN_FRAME;
    while word.addr() < end {
        // SAFETY: `word` is aligned and in the RAM between the end of the statics and the stack pointer, which no
        // Rust object occupies.
        unsafe {
            word.write_volatile(PAINT);
            word = word.add(1);
        }
    }
}

#[inline(never)]
fn lowest() -> usize {
    let mut word = ptr::addr_of!(_stack_end);
    // SAFETY: `word` is aligned and in RAM: the loop starts at the end of the statics and ends at this function's
    // own frame at the latest, which is not painted.
    unsafe {
        while word.read_volatile() == PAINT {
            word = word.add(1);
        }
    }
    word.addr()
}
