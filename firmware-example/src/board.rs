//! The selected board: its name, logger, clock and exit. There is one file per board in `board/`; the build
//! script selects it by `SKIPSTONE_BOARD`.

pub use selected::{UNIT, leave, now, start_clock};

// `mod selected`, and the constants `NAME` and `CLOCK_HZ` from the board's row in `boards/boards.rs`.
include!(concat!(env!("OUT_DIR"), "/board.rs"));
