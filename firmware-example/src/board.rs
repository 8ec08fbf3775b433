//! The chosen board: its name, logger, clock and way out. One file per board in `board/`.

#[cfg(not(any(feature = "mps2-an386", feature = "nrf52840-dk")))]
compile_error!("choose a board: --features mps2-an386 or nrf52840-dk");

#[cfg(feature = "mps2-an386")]
#[path = "board/mps2_an386.rs"]
mod chosen;

#[cfg(all(feature = "nrf52840-dk", not(feature = "mps2-an386")))]
#[path = "board/nrf52840_dk.rs"]
mod chosen;

pub use chosen::{UNIT, leave, now, start_clock};

/// The board's name.
pub const NAME: &str = env!("SKIPSTONE_BOARD");
