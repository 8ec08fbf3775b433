//! The sizes of a Winograd tile: shared by the transforms of inputs, filters and outputs.

use crate::base::shape::Window;
use crate::kernels::dsp::products::{COLUMNS, Groups, ROUND};

/// Pairs of channels transformed at a time.
pub(super) const PAIRS: usize = ROUND;

/// Words between the two transforms of a large tile.
pub(super) const LINES: usize = 6 * 4;

/// How a convolution is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// F(2x2, 3x3).
    Small,
    /// F(4x4, 3x3).
    Large,
    /// Stride 2.
    Polyphase,
}

/// The properties of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) kind: Kind,
    pub(super) stride: usize,
    /// Output rows and columns of a tile, 2^`tile_bits`.
    pub(super) tile: usize,
    pub(super) tile_bits: u8,
    /// Input rows under a tile, input columns under four tiles.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Products of a tile, and which of them add up.
    pub(super) groups: Groups,
    /// The outputs are 2^`scale_bits` times the convolution's sums.
    pub(super) scale_bits: u8,
}

pub(super) const SMALL: Form = Form {
    kind: Kind::Small,
    stride: 1,
    tile: 2,
    tile_bits: 1,
    rows: 4,
    columns: 10,
    groups: Groups::new(&[(16, 1)]),
    scale_bits: 2,
};
pub(super) const LARGE: Form = Form {
    kind: Kind::Large,
    stride: 1,
    tile: 4,
    tile_bits: 2,
    rows: 6,
    columns: 18,
    groups: Groups::new(&[(36, 1)]),
    scale_bits: 6,
};
pub(super) const POLYPHASE: Form = Form {
    kind: Kind::Polyphase,
    stride: 2,
    tile: 2,
    tile_bits: 1,
    rows: 5,
    columns: 17,
    groups: Groups::new(&[(1, 1), (4, 2), (4, 4)]),
    scale_bits: 0,
};

impl Form {
    /// The form of a window of stride 1 or 2, in large tiles if `large`.
    pub(super) const fn of(window: &Window, large: bool) -> &'static Self {
        match (window.stride[0], large) {
            (1, true) => &LARGE,
            (1, false) => &SMALL,
            (_, _) => &POLYPHASE,
        }
    }

    /// Tiles that cover `outputs` outputs.
    pub(super) const fn tiles(&self, outputs: usize) -> usize {
        outputs.saturating_add(self.tile - 1) >> self.tile_bits
    }

    /// Words of the values of a group of tiles.
    pub(super) const fn value_words(&self, channels: usize) -> usize {
        self.groups.slots() * channels / 2 * COLUMNS
    }

    /// Words of the transformed weights of two output channels.
    pub(super) const fn weight_words(&self, channels: usize) -> usize {
        self.groups.slots() * channels
    }

    /// Words of the lines of sixteen channels.
    pub(super) const fn line_words(&self) -> usize {
        PAIRS * self.rows * self.columns
    }

    /// Words of the sums of four tiles and two channels.
    pub(super) const fn sums(&self) -> usize {
        self.groups.sums()
    }

    /// Words needed in addition to the values: lines, or `weights` words of weights, sums and outputs.
    pub(super) const fn beside_words(&self, weights: usize) -> usize {
        let later = weights + self.sums() + self.tile * self.row_outputs() + LINES;
        if later > self.line_words() { later } else { self.line_words() }
    }

    /// Outputs of four tiles and two channels in a row.
    pub(super) const fn row_outputs(&self) -> usize {
        2 * COLUMNS * self.tile
    }
}
