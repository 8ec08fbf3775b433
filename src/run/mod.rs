//! Running a network: the executor, its arena, the scores.

pub(crate) mod arena;
pub(crate) mod network;
pub(crate) mod scores;
