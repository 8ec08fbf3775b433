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
//! ([`Block`]) are first-class: an identity block, a convolutional block (projection shortcut) and a
//! padded shortcut, each with the addition fused into its last convolution, and usable without a blob.
//!
//! # Features
//! * `defmt`: errors, scores and reports print on the target.
//! * `self-test`: [`self_test`], tests of arithmetic and kernels, to be run on a core with a heap.
//! * `signature`: blobs that are refused unless their maker signed them ([`Model::parse_signed`]), and updates in the
//!   field ([`slots`]).

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

pub use base::clamp::Clamp;
#[cfg(feature = "signature")]
pub use base::error::SignatureError;
pub use base::error::{LayerError, NewError, ParseError, RunError};
pub use base::quantization::{Addition, Requantize, Residual, Rounding};
pub use base::section::SECTION_ALIGN;
pub use base::shape::{Shape, Window};
pub use base::tflite;
pub use blob::format as schema;
pub use blob::model::{HEADER_BYTES, MAGIC, Model, VERSION, WEIGHTS_ALIGN, checksum};
pub use blob::reader::{StageEntry, Stages};
pub use blob::report::StageReport;
#[cfg(feature = "signature")]
pub use blob::{signature, slots};
pub use kernels::Kernels;
pub use kernels::dsp::direct::pack as pack_weights;
pub use kernels::dsp::winograd::transform_weights;
#[cfg(feature = "self-test")]
pub use kernels::tests::run as self_test;
pub use net::block::{Block, MAX_PATH, Shortcut, Subsample};
pub use net::cost::predicted_cycles;
pub use net::layer as stage;
pub use net::{plan, schedule};
pub use ops::{
    Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Reduction, Softmax, Windowed,
};
pub use run::arena::Arena;
pub use run::network::{FrameNetwork, MAX_STEP_ROWS, Network};
pub use run::scores::{Class, Scores};

/// What the host tool and tests need beside the firmware's API. Not covered by semantic versioning.
#[doc(hidden)]
pub mod host {
    pub use crate::base::clamp::Clamp;
    pub use crate::base::error::LayerError;
    pub use crate::base::quantization::{Addition, Requantize, Residual, Rounding};
    pub use crate::base::section::SECTION_ALIGN;
    pub use crate::base::shape::{Shape, Window};
    pub use crate::base::tflite;
    pub use crate::blob::format;
    pub use crate::blob::model::checksum;
    pub use crate::kernels::Kernels;
    pub use crate::kernels::dsp::direct::pack as pack_weights;
    pub use crate::kernels::dsp::winograd::transform_weights;
    pub use crate::net::block::{Block, MAX_PATH, Shortcut, Subsample};
    pub use crate::net::cost::predicted_cycles;
    pub use crate::net::layer::{Join, Layer, Operation};
    pub use crate::net::{plan, schedule};
    pub use crate::ops::{
        Algorithm, Conv2d, Dense, Finish, GlobalAveragePool, Pool2d, Pooling, Reduction, Softmax, Windowed,
    };
    pub use crate::run::network::MAX_STEP_ROWS;
}

/// The kernels that an embedded blob needs, as [`Kernels`]' bits, at compile time: for
/// [`Network`]'s parameter `KERNELS`, so that no others are linked. All of what is no blob.
///
/// ```
/// use skipstone::{Arena, Model, Network};
///
/// static MODEL: &[u8] = skipstone::include_model!("../models/digits.skip");
/// type Digits = Network<'static, 16, { skipstone::kernels(MODEL) }>;
/// # let arena = Box::leak(Box::new(Arena::<{ 8 * 1024 }>::new()));
/// let network = Digits::new(Model::parse(MODEL)?, arena)?;
/// # let _ = network;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const fn kernels(blob: &[u8]) -> u16 {
    match blob {
        [b'S', b'K', b'I', b'P', _, _, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => Kernels::ALL,
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
