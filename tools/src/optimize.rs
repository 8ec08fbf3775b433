//! Chooses for every convolution how it is computed and in how tall strips: the fewest predicted cycles that
//! budgets of RAM and flash allow.
//!
//! Layers of the same shapes are chosen for together. Every choice has a *footprint*, the bytes that one of
//! its steps reads, makes and uses as scratch. For each possible limit on footprints the fastest choices
//! within it are tried, from the loosest on; the arena that each would need is bounded from below by the
//! planner. Of those that fit the budget the fastest is kept, and then single choices are made faster
//! while the budget lasts.

use clap::ValueEnum;

/// The core that a blob is made for. Blobs run everywhere; they are fast where they were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Target {
    /// Cortex-M4, M7 and M33: kernels for the DSP extension.
    #[default]
    CortexM4,
    /// The reference kernels: the obvious loops, the least RAM.
    Reference,
}

/// What a plan is to have most of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Goal {
    /// The fewest cycles.
    Speed,
    /// The fewest cycles in 32 KiB of RAM and a fifth more flash than the weights take.
    #[default]
    Balanced,
    /// The least RAM without falling back to the reference kernels (which --ram may do).
    Memory,
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The core.
    pub target: Target,
    /// What counts.
    pub goal: Goal,
    /// Most bytes of the arena, the frame in it.
    pub ram: Option<usize>,
    /// Most bytes of the blob.
    pub flash: Option<usize>,
}
