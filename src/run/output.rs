//! What a run gives beside class scores: named outputs.

use crate::base::shape::Shape;
use crate::run::scores::Scores;

/// One of a network's outputs, in the network's arena until its next run.
///
/// It holds class scores or int8 values (a feature vector, a map, an image) with what they stand for:
///
/// ```
/// # fn features(network: &skipstone::Network<'_>) -> Option<f32> {
/// let features = network.output("features")?;
/// let norm: f32 = features.real().map(|value| value * value).sum();
/// # Some(norm)
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Output<'a> {
    pub(super) name: &'a str,
    pub(super) shape: Shape,
    pub(super) scale: f32,
    pub(super) zero_point: i8,
    pub(super) data: Data<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Data<'a> {
    Scores(Scores<'a>),
    Values(&'a [i8]),
}

impl<'a> Output<'a> {
    /// Its name in the blob.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Its shape: height x width x channels; of class scores 1 x 1 x classes.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The class scores, if it holds class scores.
    pub const fn scores(&self) -> Option<Scores<'a>> {
        match self.data {
            Data::Scores(scores) => Some(scores),
            Data::Values(_) => None,
        }
    }

    /// The int8 values (HWC), if it holds int8 values.
    pub const fn values(&self) -> Option<&'a [i8]> {
        match self.data {
            Data::Scores(_) => None,
            Data::Values(values) => Some(values),
        }
    }

    /// Real value of one step of the int8 values: real = scale * (value - zero_point). 1 for class scores.
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// The int8 value that stands for the real number zero.
    pub const fn zero_point(&self) -> i8 {
        self.zero_point
    }

    /// The real values: class scores as they are, int8 values scaled.
    pub fn real(&self) -> impl Iterator<Item = f32> + use<'a> {
        let (scores, values) = match self.data {
            Data::Scores(scores) => (scores.values(), &[][..]),
            Data::Values(values) => (&[][..], values),
        };
        let (scale, zero_point) = (self.scale, i16::from(self.zero_point));
        let real = move |value: &i8| scale * f32::from(i16::from(*value) - zero_point);
        scores.iter().copied().chain(values.iter().map(real))
    }
}
