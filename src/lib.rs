//! int8 residual networks on microcontrollers: no heap, no std, no surprises.
//!
//! A model is converted on the host (`skipstone convert`) into a *blob* that the runtime reads in place
//! from flash. Here is all that the firmware does:
//!
//! ```
//! use skipstone::{Arena, Model, Network};
//!
//! static MODEL: &[u8] = skipstone::include_model!("../models/digits.skip");
//!
//! let model = Model::parse(MODEL)?;              // everything is checked here, once
//! let mut arena = Arena::<{ 4 * 1024 }>::new();
//! let mut network: Network = Network::new(model, &mut arena)?; // Err says bytes needed and given
//! let scores = network.run(&[0; 8 * 8])?;        // or run_rows: the camera feeds row by row
//! let best = scores.top::<3>();
//! # assert_eq!(best.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules point one way
//! run → blob → net → kernels → ops → base. Residual blocks
//! ([`Block`](block::Block)) are first-class: an identity block, a convolutional block (projection shortcut) and a
//! padded shortcut, each with the addition fused into its last convolution, and usable without a blob.
//!
//! # Features
//! * `defmt`: errors, scores and reports print on the target.
//! * `self-test`: tests of arithmetic and kernels as a function, for a core with a heap.
//! * `signature`: blobs that are rejected unless their maker signed them, and updates in the field: module `update`.

#![no_std]

#[cfg(any(test, feature = "self-test"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

/// The README's examples run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod base;
mod blob;
mod kernels;
mod net;
mod ops;
mod run;

pub use base::shape::Shape;
pub use blob::model::Model;
pub use run::arena::Arena;
pub use run::network::Network;
pub use run::output::Output;
pub use run::scores::{Class, Scores};

/// Residual blocks without a blob: compose one of convolutions, and run it on whole tensors.
pub mod block {
    pub use crate::base::clamp::Clamp;
    pub use crate::base::quantization::{Addition, Requantize, Residual};
    pub use crate::base::shape::Window;
    pub use crate::net::block::{Block, MAX_PATH, Shortcut};
    pub use crate::ops::{Conv2d, Subsample};
}

/// Errors: one small enum for each operation.
pub mod error {
    #[cfg(feature = "signature")]
    pub use crate::base::error::SignatureError;
    pub use crate::base::error::{LayerError, ParseError, RunError, SetUpError};
}

/// Signed blobs, and updates in the field that survive power cuts.
#[cfg(feature = "signature")]
pub mod update {
    pub use crate::blob::{signature, slots};
}

/// What the host tool and the tests need beside the firmware's API. Not covered by semantic versioning.
#[doc(hidden)]
pub mod host {
    pub use crate::base::clamp::Clamp;
    pub use crate::base::error::LayerError;
    pub use crate::base::quantization::{Addition, Requantize, Residual, Rounding};
    pub use crate::base::section::SECTION_ALIGN;
    pub use crate::base::shape::{Shape, Window};
    pub use crate::base::tflite;
    pub use crate::blob::format;
    pub use crate::blob::model::{Layers, checksum};
    pub use crate::blob::reader::Entry;
    pub use crate::blob::report::LayerReport;
    pub use crate::kernels::Kernels;
    #[cfg(feature = "self-test")]
    pub use crate::kernels::tests::run as self_test;
    pub use crate::net::block::{Block, Kind, MAX_PATH, Shortcut, Span, span};
    pub use crate::net::cost::predicted_cycles;
    pub use crate::net::layer::{Join, Layer, Operation};
    pub use crate::net::{plan, schedule};
    pub use crate::ops::{
        Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Reduction, Softmax, Subsample,
        Windowed,
    };
    pub use crate::run::memory::MAX_STEP_ROWS;
}

use blob::format::Header;
use kernels::Kernels;

/// The kernels that an embedded blob needs, at compile time: for [`Network`]'s parameter `KERNELS`, so that no
/// others are linked. All kernels if the bytes are not a blob of this version.
///
/// ```
/// use skipstone::{Arena, Model, Network};
///
/// static MODEL: &[u8] = skipstone::include_model!("../models/digits.skip");
/// type Digits = Network<'static, { skipstone::tensors(MODEL) }, { skipstone::kernels(MODEL) }>;
///
/// let mut arena = Arena::<{ skipstone::arena_bytes_rows(MODEL) }>::new();
/// # let arena = Box::leak(Box::new(arena));
/// let network = Digits::new(Model::parse(MODEL)?, arena)?;
/// # let _ = network;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn kernels(blob: &[u8]) -> u16 {
    match Header::read(blob) {
        Some(header) => header.kernels,
        None => Kernels::ALL,
    }
}

/// Bytes of the arena that an embedded blob needs with the input frame in it, at compile time:
/// [`Model::arena_bytes`]. 0 if the bytes are not a blob of this version.
pub const fn arena_bytes(blob: &[u8]) -> usize {
    match Header::read(blob) {
        Some(header) => header.arena_bytes as usize,
        None => 0,
    }
}

/// Bytes of the arena that an embedded blob needs if its input is fed by rows, at compile time:
/// [`Model::arena_bytes_rows`]. 0 if the bytes are not a blob of this version.
pub const fn arena_bytes_rows(blob: &[u8]) -> usize {
    match Header::read(blob) {
        Some(header) => header.arena_bytes_rows as usize,
        None => 0,
    }
}

/// Tensors for which an embedded blob needs room, at compile time: for [`Network`]'s parameter `TENSORS`. 0 if the
/// bytes are not a blob of this version.
pub const fn tensors(blob: &[u8]) -> usize {
    match Header::read(blob) {
        Some(header) => header.tensors as usize,
        None => 0,
    }
}

/// Embeds a blob, aligned as [`Model::parse`] wants it; the path is relative to the source file, as in
/// [`include_bytes!`].
#[macro_export]
macro_rules! include_model {
    ($path:expr) => {{
        #[repr(C, align(16))]
        struct Aligned<B: ?Sized>(B);
        static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &ALIGNED.0
    }};
}
