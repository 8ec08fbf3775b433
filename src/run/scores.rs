//! Class scores as they leave the network: f32, with the few things that are done with them.

use heapless::Vec;
use micromath::F32Ext;

use crate::ops::softmax::denominator;

/// The scores of one image, one for each class, in the network's arena until its next run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores<'a> {
    values: &'a [f32],
    normalized: bool,
}

/// A class and how sure the network is of it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Class {
    /// Index of the class.
    pub index: usize,
    /// Its score: the network's last layer, unbounded unless the network ends in a softmax.
    pub score: f32,
    /// Its probability by softmax over all scores, 0 to 1, good to about 0.3 % of itself (micromath's exp).
    pub probability: f32,
}

impl<'a> Scores<'a> {
    /// Scores over `values`; `normalized` says that they are probabilities already.
    pub const fn new(values: &'a [f32], normalized: bool) -> Self {
        Scores { values, normalized }
    }

    /// One score for each class.
    pub const fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The `N` best classes, best first (fewer where the network has fewer); of equal ones the first, and
    /// what is not a number last.
    ///
    /// ```
    /// let scores = skipstone::Scores::new(&[0.5, 2.0, -1.0], false);
    /// let best = scores.top::<2>();
    /// assert_eq!((best[0].index, best[1].index), (1, 0));
    /// assert!((best[0].probability - 0.786).abs() < 1e-3);
    /// ```
    pub fn top<const N: usize>(&self) -> Vec<Class, N> {
        let mut top = Vec::<Class, N>::new();
        for (index, (score, probability)) in self.values.iter().zip(self.probabilities()).enumerate() {
            // it takes the first place of a worse one; all from there on move one place back, the last is dropped
            let mut class = Class { index, score: *score, probability };
            let mut placed = false;
            for place in &mut top {
                placed |= class.score > place.score || (place.score.is_nan() && !class.score.is_nan());
                if placed {
                    core::mem::swap(place, &mut class);
                }
            }
            let _ = top.push(class);
        }
        top
    }

    /// The probability of each class: softmax of the scores, or the scores themselves where the
    /// network ends in a softmax.
    pub fn probabilities(&self) -> impl Iterator<Item = f32> + use<'a> {
        let (values, normalized) = (self.values, self.normalized);
        let (max, sum) = if normalized { (0.0, 1.0) } else { denominator(values) };
        values.iter().map(move |value| if normalized { *value } else { F32Ext::exp(value - max) / sum })
    }
}
