//! How an image's axes lie in a tensor's: which survives transposing, flattening and reshaping, so that weights can follow.

use skipstone::Shape;

use super::graph::Layout;

/// An axis of a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Batch,
    Height,
    Width,
    Channel,
}

/// For each axis of a tensor, the image axes that it is made of, outermost first.
///
/// Axes of size 1 may stand anywhere or nowhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arrangement {
    axes: Vec<Vec<Axis>>,
    batch: usize,
    shape: Shape,
}

const NCHW: [Axis; 4] = [Axis::Batch, Axis::Channel, Axis::Height, Axis::Width];
const NHWC: [Axis; 4] = [Axis::Batch, Axis::Height, Axis::Width, Axis::Channel];

fn order(layout: Layout) -> [Axis; 4] {
    match layout {
        Layout::Nchw => NCHW,
        Layout::Nhwc => NHWC,
    }
}

impl Arrangement {
    /// A tensor of four axes, in this layout.
    pub(crate) fn image(layout: Layout, batch: usize, shape: Shape) -> Self {
        Arrangement { axes: order(layout).map(|axis| vec![axis]).to_vec(), batch, shape }
    }

    /// A tensor with one axis for each listed image axis.
    pub(crate) fn of(axes: &[Axis], batch: usize, shape: Shape) -> Self {
        Arrangement { axes: axes.iter().map(|&axis| vec![axis]).collect(), batch, shape }
    }

    fn size(&self, axis: Axis) -> usize {
        match axis {
            Axis::Batch => self.batch,
            Axis::Height => self.shape.height.into(),
            Axis::Width => self.shape.width.into(),
            Axis::Channel => self.shape.channels.into(),
        }
    }

    /// The tensor's sizes.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.axes.iter().map(|parts| parts.iter().map(|&axis| self.size(axis)).product()).collect()
    }

    /// Number of the tensor's axes.
    pub(crate) fn rank(&self) -> usize {
        self.axes.len()
    }

    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// The image axes longer than 1 that make up an axis of the tensor.
    pub(crate) fn parts(&self, dim: usize) -> Vec<Axis> {
        self.axes[dim].iter().copied().filter(|&axis| self.size(axis) > 1).collect()
    }

    fn is(&self, layout: Layout) -> bool {
        self.rank() == 4
            && order(layout).iter().enumerate().all(|(dim, &axis)| {
                let expected = if self.size(axis) > 1 { vec![axis] } else { Vec::new() };
                self.parts(dim) == expected
            })
    }

    /// The layout of an image tensor; the preferred one where sizes of 1 leave it open.
    pub(crate) fn layout(&self, preferred: Layout) -> Option<Layout> {
        let other = if preferred == Layout::Nchw { Layout::Nhwc } else { Layout::Nchw };
        [preferred, other].into_iter().find(|&layout| self.is(layout))
    }

    /// The image axis that an axis of the tensor is, even where its size is 1.
    pub(crate) fn axis(&self, dim: usize, preferred: Layout) -> Option<Axis> {
        match self.layout(preferred) {
            Some(layout) => order(layout).get(dim).copied(),
            None => match self.parts(dim)[..] {
                [axis] => Some(axis),
                _ => None,
            },
        }
    }

    /// The same axes over a layer of another shape.
    pub(crate) fn with_shape(&self, shape: Shape) -> Self {
        Arrangement { shape, ..self.clone() }
    }

    /// Whether both hold the same elements at the same places.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.dims() == other.dims() && (0..self.rank()).all(|dim| self.parts(dim) == other.parts(dim))
    }

    /// With the axes in another order; `None` if the permutation is not one.
    pub(crate) fn transpose(&self, permutation: &[usize]) -> Option<Self> {
        let mut seen = vec![false; self.rank()];
        for &dim in permutation {
            if std::mem::replace(seen.get_mut(dim)?, true) {
                return None;
            }
        }
        let axes = permutation.iter().map(|&dim| self.axes[dim].clone()).collect();
        (permutation.len() == self.rank()).then(|| Arrangement { axes, ..self.clone() })
    }

    /// With other sizes over the same elements; `None` where an image axis would be cut in two.
    pub(crate) fn reshape(&self, dims: &[usize]) -> Option<Self> {
        let parts: Vec<Axis> = (0..self.rank()).flat_map(|dim| self.parts(dim)).collect();
        let mut rest = parts.into_iter();
        let mut axes = Vec::new();
        for &size in dims {
            let (mut product, mut group) = (1, Vec::new());
            while product < size {
                let axis = rest.next()?;
                product *= self.size(axis);
                group.push(axis);
            }
            if product != size {
                return None;
            }
            axes.push(group);
        }
        rest.next().is_none().then(|| Arrangement { axes, ..self.clone() })
    }

    /// With the last axis (the features that a dense layer reads) replaced by channels.
    pub(crate) fn dense(&self, shape: Shape) -> Self {
        let batch = |axes: &Vec<Axis>| axes.iter().copied().filter(|&a| a == Axis::Batch).collect();
        let mut axes: Vec<Vec<Axis>> = self.axes.iter().map(batch).collect();
        if let Some(last) = axes.last_mut() {
            *last = vec![Axis::Channel];
        }
        Arrangement { axes, batch: self.batch, shape }
    }

    /// The same axes over a grown image; axes that had size 1 get their place back.
    pub(crate) fn grown(&self, shape: Shape, preferred: Layout) -> Self {
        match self.layout(preferred) {
            Some(layout) => Arrangement::image(layout, self.batch, shape),
            None => self.with_shape(shape),
        }
    }

    /// Without some axes of the tensor.
    pub(crate) fn without(&self, dims: &[usize]) -> Self {
        let kept = self.axes.iter().enumerate().filter(|(dim, _)| !dims.contains(dim));
        Arrangement { axes: kept.map(|(_, axes)| axes.clone()).collect(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Arrangement {
        Arrangement::image(Layout::Nchw, 1, Shape::new(4, 5, 6))
    }

    #[test]
    fn flattening_keeps_the_order() {
        let flat = image().reshape(&[1, 120]).unwrap();
        assert_eq!(flat.parts(1), [Axis::Channel, Axis::Height, Axis::Width]);
        let transposed = image().transpose(&[0, 2, 3, 1]).unwrap();
        assert_eq!(transposed.layout(Layout::Nchw), Some(Layout::Nhwc));
        let flat = transposed.reshape(&[120]).unwrap();
        assert_eq!(flat.parts(0), [Axis::Height, Axis::Width, Axis::Channel]);
    }

    #[test]
    fn reshaping_never_cuts_an_axis() {
        assert!(image().reshape(&[1, 6, 20]).is_some());
        assert!(image().reshape(&[1, 3, 40]).is_none());
        assert!(image().reshape(&[1, 12, 10]).is_none());
        assert!(image().reshape(&[1, 6, 4, 5, 2]).is_none());
        assert!(image().reshape(&[0]).is_none());
        assert!(image().reshape(&[1, 6, 4]).is_none());
    }

    #[test]
    fn a_layout_is_told_where_sizes_tell_it() {
        let vector = Arrangement::image(Layout::Nchw, 1, Shape::new(1, 1, 6));
        assert_eq!(vector.layout(Layout::Nhwc), Some(Layout::Nchw));
        let again = vector.reshape(&[1, 6]).unwrap().reshape(&[1, 1, 1, 6]).unwrap();
        assert_eq!(again.layout(Layout::Nchw), Some(Layout::Nhwc));
        assert_eq!(image().reshape(&[1, 6, 20]).unwrap().layout(Layout::Nchw), None);
    }

    #[test]
    fn axes_of_size_1_get_their_place_back() {
        let grey = Arrangement::of(&[Axis::Batch, Axis::Height, Axis::Width], 1, Shape::new(4, 5, 1));
        let grown = grey.reshape(&[1, 1, 4, 5]).unwrap().grown(Shape::new(4, 5, 3), Layout::Nchw);
        assert_eq!(grown.dims(), [1, 3, 4, 5]);
        let column = Arrangement::image(Layout::Nchw, 1, Shape::new(1, 5, 1));
        assert_eq!(column.dense(Shape::new(1, 1, 7)).dims(), [1, 1, 1, 7]);
    }

    #[test]
    fn a_permutation_must_be_one() {
        assert!(image().transpose(&[0, 1, 1, 2]).is_none());
        assert!(image().transpose(&[0, 1, 2]).is_none());
        assert!(image().transpose(&[0, 1, 2, 4]).is_none());
    }
}
