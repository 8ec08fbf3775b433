//! How a program ends: normally, with a panic or with a hard fault. The exit status tells them apart.

use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};

use crate::board;

/// Ends the program successfully.
///
/// The last line is a sentinel: if the host does not receive it, output was lost.
pub fn exit() -> ! {
    defmt::println!("skipstone: done");
    board::leave(true)
}

// Prints the location only, except in tests: printing the message links `core::fmt`, which takes a third as
// much flash as the whole runtime.
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

// `defmt::unwrap!` and similar macros have already printed their message.
#[defmt::panic_handler]
fn defmt_panic() -> ! {
    board::leave(false)
}

/// Prints where the fault happened, and ends the program with failure.
///
/// # Safety
///
/// Only the processor may call this, on a hard fault.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::println!("hard fault at pc {=u32:08x}, lr {=u32:08x}", frame.pc(), frame.lr());
    board::leave(false)
}
