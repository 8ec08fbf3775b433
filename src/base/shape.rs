//! Shapes of tensors and the geometry of sliding windows: sizes only, no data.

/// Height, width and channels of an activation tensor (NHWC without the N), int8 elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    /// Rows.
    pub height: u16,
    /// Pixels per row.
    pub width: u16,
    /// Channels per pixel.
    pub channels: u16,
}

impl Shape {
    /// A shape of `height` x `width` x `channels`.
    pub const fn new(height: u16, width: u16, channels: u16) -> Self {
        Shape { height, width, channels }
    }

    /// Elements (and, for int8, bytes) of one row: width x channels.
    pub const fn row_len(self) -> usize {
        self.width as usize * self.channels as usize
    }

    /// Elements of the whole tensor, saturating if 32 bits cannot count them.
    pub const fn len(self) -> usize {
        self.row_len().saturating_mul(self.height as usize)
    }

    /// Whether one of the dimensions is zero.
    pub const fn is_empty(self) -> bool {
        self.height == 0 || self.width == 0 || self.channels == 0
    }
}

impl core::fmt::Display for Shape {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// A sliding window: kernel size, stride and padding, rows before columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window {
    /// Kernel height and width, 1 to [`Window::MAX_KERNEL`].
    pub kernel: [u8; 2],
    /// Vertical and horizontal stride, 1 to [`Window::MAX_STRIDE`].
    pub stride: [u8; 2],
    /// Padding at the top, left, bottom and right; each smaller than the kernel.
    pub padding: [u8; 4],
}

impl Window {
    /// Largest kernel height and width: the rows under it and the one that it makes are one step's
    /// [`MAX_STEP_ROWS`](crate::host::MAX_STEP_ROWS).
    pub const MAX_KERNEL: u8 = 15;
    /// Largest stride.
    pub const MAX_STRIDE: u8 = 7;

    /// A square window with the same padding on all sides.
    ///
    /// ```
    /// use skipstone::{Shape, block::Window};
    /// let window = Window::square(3, 2, 1);
    /// assert_eq!(window.output(Shape::new(32, 32, 16), 32), Some(Shape::new(16, 16, 32)));
    /// ```
    pub const fn square(kernel: u8, stride: u8, padding: u8) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 4] }
    }

    /// Whether kernel, stride and padding are within their ranges.
    pub fn is_valid(&self) -> bool {
        let [top, left, bottom, right] = self.padding;
        let [height, width] = self.kernel;
        self.kernel.iter().all(|k| (1..=Self::MAX_KERNEL).contains(k))
            && self.stride.iter().all(|s| (1..=Self::MAX_STRIDE).contains(s))
            && top.max(bottom) < height
            && left.max(right) < width
    }

    /// Shape of the output over `input` with `channels` output channels.
    ///
    /// `None` if the window is not valid, does not fit into the padded input or a size is zero.
    pub fn output(&self, input: Shape, channels: u16) -> Option<Shape> {
        if !self.is_valid() || input.is_empty() || channels == 0 {
            return None;
        }
        let [top, left, bottom, right] = self.padding;
        let size = |input: u16, before: u8, after: u8, kernel: u8, stride: u8| {
            let padded = u32::from(input) + u32::from(before) + u32::from(after);
            let steps = padded.checked_sub(u32::from(kernel))?.checked_div(u32::from(stride))?;
            u16::try_from(steps + 1).ok()
        };
        Some(Shape {
            height: size(input.height, top, bottom, self.kernel[0], self.stride[0])?,
            width: size(input.width, left, right, self.kernel[1], self.stride[1])?,
            channels,
        })
    }

    /// Positions under the kernel: height x width.
    pub const fn positions(&self) -> usize {
        self.kernel[0] as usize * self.kernel[1] as usize
    }

    /// The input rows under the `count` output rows from `row` on, top to bottom; `None` is padding, or a
    /// row that a stride larger than the kernel skips.
    pub fn rows(
        &self,
        row: u16,
        count: u16,
        input_height: u16,
    ) -> impl Iterator<Item = Option<u16>> + Clone + use<> {
        let (stride, kernel) = (i32::from(self.stride[0]), i32::from(self.kernel[0]));
        let first = i32::from(row) * stride - i32::from(self.padding[0]);
        let end = first + (i32::from(count) - 1) * stride + kernel;
        (first..end).map(move |row| {
            let is_read = (row - first).checked_rem(stride).is_some_and(|offset| offset < kernel);
            u16::try_from(row).ok().filter(|row| is_read && *row < input_height)
        })
    }

    /// First input column under output column `column`; negative in the padding at the left.
    pub fn first_column(&self, column: usize) -> isize {
        (column * usize::from(self.stride[1])) as isize - isize::from(self.padding[1])
    }
}
