//! How deep the stack went: the free memory below it is painted, and where the paint is gone, the
//! stack has been.

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use cortex_m::register::msp;

const PAINT: u32 = 0xCCCC_CCCC;

/// Bytes below the stack pointer that stay unpainted: the compiler may read it before it has saved
/// its registers there. No stack use below this many bytes is told apart.
const OWN_FRAME: usize = 64;

unsafe extern "C" {
    // From cortex-m-rt's linker script: the top of the stack, and the lowest address that it may
    // reach, which is the end of the statics.
    static _stack_start: u32;
    static _stack_end: u32;
}

static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);

/// Runs `work` and gives, in `bytes`, the stack that it took below its caller's frame. Its result lies
/// in that frame from the start and does not count.
// Inlined, so that `top` is the caller's; what it calls is not, so that `work` lies below.
#[inline(always)]
pub fn measure<T>(bytes: &mut usize, work: impl FnOnce() -> T) -> T {
    let top = msp::read() as usize;
    measure_below(top, bytes, work)
}

// The result alone is returned, so that the compiler makes it where the caller wants it.
#[inline(never)]
fn measure_below<T>(top: usize, bytes: &mut usize, work: impl FnOnce() -> T) -> T {
    paint();
    let result = work();
    let lowest = lowest();
    HIGH_WATER.fetch_max(ptr::addr_of!(_stack_start).addr() - lowest, Ordering::Relaxed);
    *bytes = top.saturating_sub(lowest);
    result
}

/// The most bytes of stack in use at any time inside a [`measure`], from the top of memory down.
pub fn high_water() -> usize {
    HIGH_WATER.load(Ordering::Relaxed)
}

#[inline(never)]
fn paint() {
    let mut word = ptr::addr_of!(_stack_end).cast_mut();
    // Nothing alive lies below the stack pointer; an interrupt writes there only while it runs.
    let end = msp::read() as usize - OWN_FRAME;
    while word.addr() < end {
        // SAFETY: RAM between the statics and the stack, which nothing else uses.
        unsafe {
            word.write_volatile(PAINT);
            word = word.add(1);
        }
    }
}

#[inline(never)]
fn lowest() -> usize {
    let mut word = ptr::addr_of!(_stack_end);
    // SAFETY: RAM; the loop ends at this function's own frame at the latest, which is not paint.
    unsafe {
        while word.read_volatile() == PAINT {
            word = word.add(1);
        }
    }
    word.addr()
}
