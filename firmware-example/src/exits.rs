//! The ways out of a program, told apart by the exit status: the end, a panic, a fault.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};

use crate::board;

/// Ends the program with success.
///
/// The line printed last is a sentinel: the host demands it, so that lost output is noticed.
pub fn exit() -> ! {
    defmt::println!("skipstone: done");
    board::leave(true)
}

// Only the place is printed, but by tests. A message would pull `core::fmt` in, which is a third of the
// flash that the whole engine takes.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    #[cfg(feature = "self-test")]
    defmt::println!("{}", defmt::Display2Format(&info.message()));
    match info.location() {
        Some(at) => defmt::println!("panicked at {=str}:{=u32}", at.file(), at.line()),
        None => defmt::println!("panicked"),
    }
    board::leave(false)
}

// `defmt::unwrap!` and its kin have printed their message already.
#[defmt::panic_handler]
fn defmt_panic() -> ! {
    board::leave(false)
}

/// # Safety
///
/// Called by the processor alone, on a hard fault.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::println!("hard fault at pc {=u32:08x}, lr {=u32:08x}", frame.pc(), frame.lr());
    board::leave(false)
}
