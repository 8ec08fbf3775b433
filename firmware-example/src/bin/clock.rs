//! Checks the instruction counter against loops of known length, including its overflow.
#![no_std]
#![no_main]

use core::arch::asm;

use cortex_m_rt::entry;
use defmt::println;
use firmware_example::{Cost, board, exit, measure};

/// Executes exactly `2 * rounds` instructions.
#[inline(always)]
fn spin(rounds: u32) {
    // SAFETY: the loop only decrements a register and sets the flags, which `asm!` assumes to be clobbered.
    unsafe {
        asm!("2: subs {0}, #1", "bne 2b", inout(reg) rounds => _, options(nomem, nostack));
    }
}

#[entry]
fn main() -> ! {
    for rounds in [0, 1_000, 1_000_000, 100_000_000, 400_000_000] {
        let mut cost = Cost::default();
        measure(&mut cost, || spin(rounds.max(1)));
        println!("spin {=u64} counted {=u64} {=str}", 2 * u64::from(rounds), cost.time, board::UNIT);
    }
    exit()
}
