//! The memory in which a network runs: a buffer of the caller's, aligned for word access.

use core::ops::{Deref, DerefMut};

/// `N` bytes, aligned to 16.
///
/// Everything that a [`Network`](crate::Network) computes lies here; how many bytes it needs is
/// [`Model::arena_bytes`](crate::Model::arena_bytes), which `skipstone inspect` prints.
///
/// ```
/// use skipstone::Arena;
/// static ARENA: Arena<1024> = Arena::new();
/// assert_eq!(ARENA.len(), 1024);
/// ```
#[derive(Debug, Clone)]
#[repr(align(16))]
pub struct Arena<const N: usize>([u8; N]);

impl<const N: usize> Arena<N> {
    /// An arena of zeros.
    pub const fn new() -> Self {
        Arena([0; N])
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Arena<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> DerefMut for Arena<N> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
