//! What every binary here shares: inputs, logger, ways out, and the meters for time and stack.
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

/// What the build script baked in: the model, the images and the arena sizes.
pub mod inputs {
    include!(concat!(env!("OUT_DIR"), "/inputs.rs"));
}
