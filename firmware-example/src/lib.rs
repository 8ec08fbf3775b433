//! Shared by all programs: the inputs, the board with its logger, exits, and measurement of time and stack.
#![no_std]

pub mod board;
pub mod stack;

mod exits;
mod interrupts;
mod measure;
mod scores;

pub use exits::exit;
pub use measure::{Cost, measure};
pub use scores::{Bits, Percent};

/// The model, the images and the arena sizes, embedded by the build script.
pub mod inputs {
    include!(concat!(env!("OUT_DIR"), "/inputs.rs"));
}
