//! QEMU's MPS2 with the AN386 image: counts instructions with SysTick, prints over semihosting.
//!
//! With `-icount shift=0`, QEMU's time is exact: one instruction takes one nanosecond. SysTick runs at the
//! board's 25 MHz, so one tick is 40 instructions. Its 24 bits overflow after 671 million instructions; its
//! exception counts the overflows.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
use cortex_m_rt::exception;
use defmt_semihosting as _;

use super::CLOCK_HZ;

/// The unit of [`now`].
pub const UNIT: &str = "instructions";

const INSTRUCTIONS_PER_TICK: u64 = 1_000_000_000 / CLOCK_HZ as u64;
const TICKS_PER_ROUND: u64 = 1 << 24;

static ROUNDS: AtomicU32 = AtomicU32::new(0);

/// Starts counting. Calls after the first one do nothing.
pub fn start_clock() {
    if let Some(mut peripherals) = Peripherals::take() {
        let systick = &mut peripherals.SYST;
        systick.set_clock_source(SystClkSource::Core);
        systick.set_reload(TICKS_PER_ROUND as u32 - 1);
        systick.clear_current();
        systick.enable_interrupt();
        systick.enable_counter();
    }
}

/// Instructions executed since [`start_clock`], in steps of 40.
pub fn now() -> u64 {
    loop {
        let rounds = ROUNDS.load(Ordering::Relaxed);
        let left = SYST::get_current();
        // If the counter overflowed between the two reads, `ROUNDS` has changed: read both again.
        if rounds == ROUNDS.load(Ordering::Relaxed) {
            let ticks = (TICKS_PER_ROUND - u64::from(left)) % TICKS_PER_ROUND;
            return (u64::from(rounds) * TICKS_PER_ROUND + ticks) * INSTRUCTIONS_PER_TICK;
        }
    }
}

/// Exits QEMU with status 0 or 1.
pub fn leave(success: bool) -> ! {
    semihosting::process::exit(i32::from(!success))
}

#[exception]
fn SysTick() {
    // Nothing interrupts this handler, so load and store need not be one atomic operation.
    ROUNDS.store(ROUNDS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
