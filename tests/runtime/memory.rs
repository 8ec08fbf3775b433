//! An arena of exactly as many bytes as a test wants, at a word's address.

/// Bytes, filled with rubbish, that begin at a multiple of 16.
pub(crate) struct Memory {
    words: Vec<u128>,
    len: usize,
}

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        Memory { words: vec![0xa5a5_5a5a_dead_beef_0123_4567_89ab_cdef; len.div_ceil(16)], len }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}
