//! Per-channel scale and shift.

/// y\[c\] = x\[c\] * scale\[c\] + shift\[c\].
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// Scale per channel.
    pub scale: Vec<f64>,
    /// Shift per channel.
    pub shift: Vec<f64>,
}
