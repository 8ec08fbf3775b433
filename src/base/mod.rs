//! Numbers, shapes and errors: what everything else is built on.

pub(crate) mod clamp;
pub(crate) mod error;
pub(crate) mod quantization;
pub(crate) mod section;
pub(crate) mod shape;
pub mod tflite;
