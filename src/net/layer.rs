//! Layers: what the executor computes, and the node by which the schedule knows it.

use crate::base::quantization::Addition;
use crate::base::shape::{Shape, Window};
use crate::kernels::Kernels;
use crate::net::schedule::{Node, ShortcutRead, Tensor};
use crate::ops::{Algorithm, Conv2d, Reduction, Subsample, Windowed};

/// What the executor runs for a [`Node`].
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// A strip of rows.
    Windowed(Windowed<'a>),
    /// A strip of rows, added to the shortcut's rows: the last convolution of a residual block.
    Addition(Windowed<'a>, Join),
    /// A row added to sums.
    Reduction(Reduction<'a>),
}

impl Operation<'_> {
    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match self {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => layer.input(),
            Operation::Reduction(layer) => layer.input(),
        }
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        match self {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => layer.output(),
            Operation::Reduction(layer) => Shape::new(1, 1, layer.outputs()),
        }
    }

    /// Whether the output is f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        match self {
            Operation::Reduction(layer) => layer.gives_scores(),
            Operation::Windowed(_) | Operation::Addition(..) => false,
        }
    }
}

/// How a convolution adds a shortcut.
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// How its values are added.
    pub addition: Addition,
    /// Which of its pixels are added, and to which channels.
    pub subsample: Subsample,
    /// Channels of a shortcut pixel.
    pub channels: u16,
}

/// A layer as the schedule and the executor see it.
///
/// Layer i of a network makes tensor i + 1; tensor 0 is the input. The node's tensors are numbered through the
/// network here, and within a segment in the executor: see [`Layer::place`].
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What it reads and makes, in rows.
    pub node: Node,
    /// What it computes.
    pub operation: Operation<'a>,
}

impl<'a> Layer<'a> {
    /// A layer that reads tensor `reads` through its window.
    pub fn windowed(layer: Windowed<'a>, reads: u16) -> Self {
        let (input, output) = (layer.input(), layer.output());
        let node = Node {
            reads,
            input_rows: input.height,
            window: layer.window(),
            shortcut: None,
            output: Tensor {
                rows: output.height,
                row_bytes: output.row_len() as u32,
                base: 0,
                contiguous: false,
            },
            strip: 1,
            reduction: false,
            scratch_bytes: 0,
            kept: false,
        };
        Layer { node, operation: Operation::Windowed(layer) }
    }

    /// A convolution to whose sums tensor `shortcut` is added.
    pub fn addition(layer: Conv2d<'a>, reads: u16, join: Join, shortcut: u16) -> Self {
        let layer = Windowed::Conv2d(layer);
        let mut added = Layer::windowed(layer, reads);
        added.operation = Operation::Addition(layer, join);
        added.node.shortcut = Some(ShortcutRead { tensor: shortcut, stride: join.subsample.stride[0] });
        added
    }

    /// A layer that reads tensor `reads` row by row.
    pub fn reduction(layer: Reduction<'a>, reads: u16) -> Self {
        let node = Node {
            reads,
            input_rows: layer.input().height,
            window: Window::square(1, 1, 0),
            shortcut: None,
            // 32-bit sums, which become int8 values or f32 scores in their place
            output: Tensor { rows: 1, row_bytes: 4 * u32::from(layer.outputs()), base: 0, contiguous: false },
            strip: 1,
            reduction: true,
            scratch_bytes: 0,
            kept: false,
        };
        Layer { node, operation: Operation::Reduction(layer) }
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        self.operation.input()
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        self.operation.output()
    }

    /// Whether the output is f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        self.operation.gives_scores()
    }

    /// The convolution, if the layer is one.
    pub const fn convolution(&self) -> Option<&Conv2d<'a>> {
        match &self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => Some(layer),
            Operation::Windowed(Windowed::Pool2d(_))
            | Operation::Addition(Windowed::Pool2d(_), _)
            | Operation::Reduction(_) => None,
        }
    }

    /// Marks what the layer makes as one of the network's outputs.
    pub const fn keep(&mut self) {
        self.node.kept = true;
        self.node.output.contiguous = true;
    }

    /// The layer's node in strips of `strip` rows, its first entry in the row table being `base`, in a segment
    /// whose input is tensor `first` of the network; `None` if the layer reads a tensor before that.
    pub fn place(&self, first: u16, strip: u8, base: u32) -> Option<Node> {
        let mut node = self.node;
        (node.strip, node.output.base) = (strip, base);
        node.reads = node.reads.checked_sub(first)?;
        if let Some(read) = &mut node.shortcut {
            read.tensor = read.tensor.checked_sub(first)?;
        }
        let scratch = self.convolution().map_or(0, |layer| layer.scratch_bytes(strip));
        node.scratch_bytes = u32::try_from(scratch).unwrap_or(u32::MAX);
        Some(node)
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        match (&self.operation, self.convolution()) {
            (Operation::Reduction(Reduction::Dense(layer)), _) => layer.weights.len() as u64,
            (_, layer) => layer.map_or(0, Conv2d::macs),
        }
    }

    /// Number of weights, however they are packed.
    pub fn weight_count(&self) -> usize {
        self.convolution().map_or(self.weights().len(), Conv2d::weight_count)
    }

    /// The weights as they are packed in flash; none for pooling.
    pub const fn weights(&self) -> &'a [i8] {
        match (&self.operation, self.convolution()) {
            (Operation::Reduction(Reduction::Dense(layer)), _) => layer.weights,
            (_, Some(layer)) => layer.weights,
            (_, None) => &[],
        }
    }
}

impl Kernels {
    /// The kernels that a layer needs; those of dense layers and global pooling are always linked.
    pub fn of(layer: &Layer<'_>) -> u16 {
        match &layer.operation {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => match layer {
                Windowed::Pool2d(_) => Self::POOLING,
                Windowed::Conv2d(layer) => match layer.algorithm {
                    Algorithm::Reference => Self::REFERENCE,
                    Algorithm::Direct if layer.depthwise => Self::DEPTHWISE,
                    Algorithm::Direct => Self::DIRECT,
                    Algorithm::Winograd
                    | Algorithm::WinogradAtRunTime
                    | Algorithm::Winograd4
                    | Algorithm::Winograd4AtRunTime => Self::WINOGRAD,
                },
            },
            Operation::Reduction(_) => 0,
        }
    }
}
