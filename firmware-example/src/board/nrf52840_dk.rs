//! Nordic's nRF52840-DK: counts the core's cycles with the DWT unit, prints over RTT.

use cortex_m::peripheral::{DCB, DWT, Peripherals};
use defmt_rtt as _;

/// The unit of [`now`].
pub const UNIT: &str = "cycles";

/// `NVMC.ICACHECNF`: enables the instruction cache, which is off after reset.
const INSTRUCTION_CACHE: *mut u32 = 0x4001_E540 as *mut u32;

/// Enables the instruction cache and starts counting. Calls after the first one do nothing.
pub fn start_clock() {
    if let Some(mut peripherals) = Peripherals::take() {
        // SAFETY: an aligned device register of this chip that nothing else here accesses; bit 0 enables the cache.
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

/// Reports success or failure to probe-rs. If no debugger is attached, sleeps forever.
pub fn leave(success: bool) -> ! {
    if DCB::is_debugger_attached() {
        defmt::flush();
        semihosting::process::exit(i32::from(!success))
    }
    loop {
        cortex_m::asm::wfi();
    }
}
