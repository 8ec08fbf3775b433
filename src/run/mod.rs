//! Running a network: the executor, its arena, outputs and scores.

pub(crate) mod arena;
mod executor;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod output;
pub(crate) mod scores;
