//! QEMU's MPS2 with the AN386 image: counts instructions with SysTick, prints over semihosting.
//!
//! Under `-icount shift=0` QEMU's time is exact: one instruction takes one nanosecond. SysTick runs
//! at the board's 25 MHz, so that a tick is 40 instructions. It has 24 bits, 671 million
//! instructions; its exception counts the rounds.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::{Peripherals, SYST, syst::SystClkSource};
use cortex_m_rt::exception;
use defmt_semihosting as _;

/// What [`now`] counts.
pub const UNIT: &str = "instructions";

const INSTRUCTIONS_PER_TICK: u64 = 40;
const TICKS_PER_ROUND: u64 = 1 << 24;

static ROUNDS: AtomicU32 = AtomicU32::new(0);

/// Starts counting. Only the first call does something.
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
        // A round that ended between the two reads has been counted by now: read both again.
        if rounds == ROUNDS.load(Ordering::Relaxed) {
            let ticks = (TICKS_PER_ROUND - u64::from(left)) % TICKS_PER_ROUND;
            return (u64::from(rounds) * TICKS_PER_ROUND + ticks) * INSTRUCTIONS_PER_TICK;
        }
    }
}

/// Leaves QEMU with exit status 0 or 1.
pub fn leave(success: bool) -> ! {
    semihosting::process::exit(i32::from(!success))
}

#[exception]
fn SysTick() {
    // A handler that nothing can interrupt needs no read-modify-write instruction.
    ROUNDS.store(ROUNDS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
