//! A window that slides over an image: the one place in the tool that computes window sizes.

use skipstone::Shape;

use super::problem::ShapeProblem;

/// Kernel, stride and padding of a convolution or pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub padding: [usize; 4],
}

impl Window {
    /// One position, stride 1, no padding.
    pub const POINT: Self = Window { kernel: [1; 2], stride: [1; 2], padding: [0; 4] };

    /// Height and width of the output.
    ///
    /// # Errors
    /// If a side of the kernel or a stride is 0, the padded image has a side above 65535, or the kernel does
    /// not fit into it.
    pub fn output(&self, input: Shape) -> Result<[usize; 2], ShapeProblem> {
        let Window { kernel, stride, padding: [top, left, bottom, right] } = *self;
        if kernel.contains(&0) || stride.contains(&0) {
            return Err(ShapeProblem::ZeroWindow { kernel, stride });
        }
        let padded = [
            usize::from(input.height).saturating_add(top).saturating_add(bottom),
            usize::from(input.width).saturating_add(left).saturating_add(right),
        ];
        // Bounding the padded sides keeps every later position far from overflow.
        if padded.iter().any(|side| *side > usize::from(u16::MAX)) {
            return Err(ShapeProblem::TooLarge([padded[0], padded[1], input.channels.into()]));
        }
        if kernel[0] > padded[0] || kernel[1] > padded[1] {
            return Err(ShapeProblem::Kernel { kernel, padded });
        }
        Ok([0, 1].map(|axis| (padded[axis] - kernel[axis]) / stride[axis] + 1))
    }

    /// Height and width of the output of a pooling.
    ///
    /// # Errors
    /// As [`Window::output`], and if a window lies wholly in the padding.
    pub fn pooled(&self, input: Shape) -> Result<[usize; 2], ShapeProblem> {
        let output = self.output(input)?;
        let sizes = [input.height, input.width].map(usize::from);
        for axis in 0..2 {
            // The last window's first position, counted from the first padded one.
            let last = (output[axis] - 1) * self.stride[axis];
            if self.padding[axis] >= self.kernel[axis] || last >= self.padding[axis] + sizes[axis] {
                return Err(ShapeProblem::EmptyWindow);
            }
        }
        Ok(output)
    }

    /// Padding (top, left, bottom, right) that makes the output's size the input's divided by the stride,
    /// rounded up. Of an odd number the larger half comes last if `upper`, else first.
    pub fn same_padding(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        upper: bool,
    ) -> [usize; 4] {
        let mut padding = [0; 4];
        for axis in 0..2 {
            let steps = input[axis].div_ceil(stride[axis].max(1)).saturating_sub(1);
            let total = (steps * stride[axis] + kernel[axis]).saturating_sub(input[axis]);
            let (small, large) = (total / 2, total.div_ceil(2));
            (padding[axis], padding[axis + 2]) = if upper { (small, large) } else { (large, small) };
        }
        padding
    }

    /// Whether the window is one position without padding: with a stride, a subsampling.
    pub fn is_point(&self) -> bool {
        self.kernel == [1, 1] && self.padding == [0; 4]
    }

    /// Adds rows and columns of padding.
    pub(crate) fn pad(&mut self, padding: [usize; 4]) {
        for (sum, count) in self.padding.iter_mut().zip(padding) {
            *sum += count;
        }
    }
}

/// The stride of two subsamplings, one after the other. It saturates: a file may have any number of them.
pub(crate) fn stride_product(first: [usize; 2], second: [usize; 2]) -> [usize; 2] {
    [first[0].saturating_mul(second[0]), first[1].saturating_mul(second[1])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_keeps_the_size() {
        assert_eq!(Window::same_padding([32, 32], [3, 3], [2, 2], true), [0, 0, 1, 1]);
        assert_eq!(Window::same_padding([32, 32], [3, 3], [2, 2], false), [1, 1, 0, 0]);
        assert_eq!(Window::same_padding([33, 32], [3, 1], [2, 2], true), [1, 0, 1, 0]);
        assert_eq!(Window::same_padding([8, 8], [1, 1], [2, 2], true), [0; 4]);
    }

    #[test]
    fn a_pooling_window_reaches_the_image() {
        let window = |padding| Window { kernel: [2; 2], stride: [2; 2], padding };
        let input = Shape::new(32, 24, 3);
        assert_eq!(window([1, 1, 1, 1]).pooled(input), Ok([17, 13]));
        assert_eq!(window([2, 0, 0, 0]).pooled(input), Err(ShapeProblem::EmptyWindow));
        assert_eq!(window([0, 0, 0, 2]).pooled(input), Err(ShapeProblem::EmptyWindow));
    }
}
