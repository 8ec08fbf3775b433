//! Subsampling of a shortcut: strided, with zero channels added.

use crate::base::shape::{Shape, Window};

/// Strided subsampling with zero channels before and after the input's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsample {
    /// Vertical and horizontal stride.
    pub stride: [u8; 2],
    /// Zero channels before the input's; the channels after them are zero too.
    pub channels_before: u16,
}

impl Subsample {
    /// Every pixel, unchanged.
    pub const NONE: Subsample = Subsample { stride: [1; 2], channels_before: 0 };

    /// Whether subsampling a tensor of shape `from` can give one of shape `to`.
    pub fn leads(self, from: Shape, to: Shape) -> bool {
        let one = Window { kernel: [1; 2], stride: self.stride, padding: [0; 4] };
        let channels = self.channels_before.checked_add(from.channels);
        one.output(from, to.channels) == Some(to) && channels.is_some_and(|channels| channels <= to.channels)
    }

    /// Subsamples a whole tensor; added channels are `zero_point`.
    pub(crate) fn run(self, from: Shape, input: &[i8], to: Shape, output: &mut [i8], zero_point: i8) {
        let [down, right] = self.stride.map(usize::from);
        let rows = input.chunks_exact(from.row_len()).step_by(down);
        for (input, output) in rows.zip(output.chunks_exact_mut(to.row_len())) {
            let pixels = input.chunks_exact(usize::from(from.channels)).step_by(right);
            for (input, output) in pixels.zip(output.chunks_exact_mut(usize::from(to.channels))) {
                output.fill(zero_point);
                for (y, x) in output.iter_mut().skip(usize::from(self.channels_before)).zip(input) {
                    *y = *x;
                }
            }
        }
    }
}
