//! Numbers, shapes and errors: the lowest layer.

pub(crate) mod clamp;
pub(crate) mod error;
pub(crate) mod quantization;
pub(crate) mod section;
pub(crate) mod shape;
pub mod tflite;
