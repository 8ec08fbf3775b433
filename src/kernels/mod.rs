//! Selects the backend: every backend exports the same functions with the same signatures.
//!
//! | function | makes |
//! |---|---|
//! | `conv2d` | a strip of output rows of a convolution, with or without a block's addition |
//! | `pool2d` | a strip of output rows of a pooling layer |
//! | `dense` | the products of one input row, added to a dense layer's sums |
//! | `global_average_pool` | one input row, added to the pooling sums |
//!
//! Kernels see slices and plain parameter structs, never blobs, arenas or models. Input rows come as
//! slices; an *empty* slice is a row of padding. Output rows of a strip are `stride` input rows apart:
//! output row i reads `input[i * stride..][..kernel]`. With a residual, an output row holds the
//! shortcut's values on entry.
//!
//! `reference` is the only backend so far: the oracle that later ones must equal bit for bit.

mod reference;
#[cfg(test)]
mod tests;

pub(crate) use reference::{conv2d, dense, global_average_pool, pool2d};
