//! Random numbers and int8 values for the tests: the same ones on every machine, from a seed.

use alloc::vec::Vec;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An integer from `low` to `high`, both possible.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (u128::from(self.bits()) % (high.abs_diff(low) as u128 + 1)) as i64
    }

    /// A size from `low` to `high`, both possible.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        self.between(low as i64, high as i64) as usize
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.size(1, times) == 1
    }

    pub(crate) fn int8(&mut self) -> i8 {
        self.bits() as i8
    }

    /// int8 values: usually of the whole range, else one of the extremes everywhere or a mixture of them.
    pub(crate) fn int8s(&mut self, count: usize) -> Vec<i8> {
        let kind = self.size(0, 7);
        let value = |random: &mut Random| match kind {
            0 => i8::MIN,
            1 => i8::MAX,
            2 => [i8::MIN, i8::MAX][random.size(0, 1)],
            _ => random.int8(),
        };
        (0..count).map(|_| value(self)).collect()
    }
}
