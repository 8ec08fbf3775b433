//! What the `skipstone` tool is made of: front ends, calibration, quantization, planning, the blob.
//!
//! The tool depends on the runtime, never the reverse: what it evaluates, it evaluates by running the
//! runtime itself.

pub mod assemble;
pub mod blob;
pub mod calibrate;
pub mod convert;
pub mod data;
pub mod fit;
pub mod float;
pub mod front;
pub mod ir;
pub mod layerwise;
pub mod picture;
pub mod plan;
pub mod quantize;
pub mod signing;
