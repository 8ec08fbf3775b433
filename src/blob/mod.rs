//! The blob: its records, their reader, the checked model, signatures and slots in flash.

pub mod format;
pub(crate) mod model;
pub(crate) mod reader;
pub(crate) mod report;
#[cfg(feature = "signature")]
pub mod signature;
#[cfg(feature = "signature")]
pub mod slots;
