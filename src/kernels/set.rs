//! The kernels as a set of bits.

/// Kernels that a network needs or a program has, as a set of bits. A program that states which ones it needs is linked
/// without the others ([`Network`](crate::Network), [`kernels`](crate::kernels)).
#[derive(Debug)]
pub struct Kernels;

impl Kernels {
    /// Convolutions by the obvious loops.
    pub const REFERENCE: u16 = 1;
    /// Direct convolution.
    pub const DIRECT: u16 = 1 << 1;
    /// Winograd's algorithms.
    pub const WINOGRAD: u16 = 1 << 2;
    /// Direct depthwise convolution.
    pub const DEPTHWISE: u16 = 1 << 3;
    /// Pooling over windows.
    pub const POOLING: u16 = 1 << 4;
    /// TensorFlow Lite's softmax.
    pub const FIXED_SOFTMAX: u16 = 1 << 5;
    /// All kernels.
    pub const ALL: u16 = (1 << 6) - 1;
}
