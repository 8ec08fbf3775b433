//! Nordic's nRF52840-DK: counts the core's cycles with the DWT unit, prints over RTT.

use cortex_m::peripheral::{DCB, DWT, Peripherals};
use defmt_rtt as _;

/// What [`now`] counts.
pub const UNIT: &str = "cycles";

/// `NVMC.ICACHECNF`: the instruction cache's switch, off after reset.
const INSTRUCTION_CACHE: *mut u32 = 0x4001_E540 as *mut u32;

/// Starts counting, with flash cached. Only the first call does something.
pub fn start_clock() {
    if let Some(mut peripherals) = Peripherals::take() {
        // SAFETY: a register of this chip that nothing else here uses; bit 0 enables the cache.
        unsafe { INSTRUCTION_CACHE.write_volatile(1) };
        peripherals.DCB.enable_trace();
        peripherals.DWT.set_cycle_count(0);
        peripherals.DWT.enable_cycle_counter();
    }
}

/// Cycles since [`start_clock`], modulo 2^32: 67 seconds at 64 MHz.
pub fn now() -> u64 {
    u64::from(DWT::cycle_count())
}

/// Tells probe-rs success or failure; waits for ever where no debugger listens.
pub fn leave(success: bool) -> ! {
    if DCB::is_debugger_attached() {
        defmt::flush();
        semihosting::process::exit(i32::from(!success))
    }
    loop {
        cortex_m::asm::wfi();
    }
}
