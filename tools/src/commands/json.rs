//! JSON forms of the runtime's types: what `--json` prints does not depend on how they are declared.

use std::fmt;

use serde::Serialize;
use skipstone::Shape;
use skipstone::host::Window;

/// Height, width, channels.
#[derive(Debug, Serialize)]
pub(crate) struct ShapeJson {
    height: u16,
    width: u16,
    channels: u16,
}

impl From<Shape> for ShapeJson {
    fn from(Shape { height, width, channels }: Shape) -> Self {
        ShapeJson { height, width, channels }
    }
}

impl fmt::Display for ShapeJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShapeJson { height, width, channels } = self;
        write!(f, "{height}x{width}x{channels}")
    }
}

/// Kernel, stride, padding.
#[derive(Debug, Serialize)]
pub(crate) struct WindowJson {
    pub(crate) kernel: [u8; 2],
    pub(crate) stride: [u8; 2],
    padding: [u8; 4],
}

impl From<Window> for WindowJson {
    fn from(Window { kernel, stride, padding }: Window) -> Self {
        WindowJson { kernel, stride, padding }
    }
}
