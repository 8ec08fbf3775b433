//! Networks as lists of layers: what reads what, when, and where it lies in memory.

pub(crate) mod block;
pub(crate) mod cost;
pub(crate) mod layer;
pub mod plan;
pub mod schedule;
