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

impl Node {
    /// The node of an operation that reads tensor `reads` and adds tensor `shortcut`, in single rows; `kept` says
    /// that the network's caller receives what it makes.
    #[inline(never)]
    pub fn new(operation: &Operation<'_>, reads: u16, shortcut: Option<u16>, kept: bool) -> Self {
        let (input, output) = (operation.input(), operation.output());
        let (window, reduction) = match operation {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => (layer.window(), false),
            Operation::Reduction(_) => (Window::square(1, 1, 0), true),
        };
        let stride = match operation {
            Operation::Addition(_, join) => join.subsample.stride[0],
            Operation::Windowed(_) | Operation::Reduction(_) => 1,
        };
        // a reduction's row holds 32-bit sums, which become int8 values or f32 scores in their place
        let row_bytes = if reduction { 4 * u32::from(output.channels) } else { output.row_len() as u32 };
        Node {
            reads,
            input_rows: input.height,
            window,
            shortcut: shortcut.map(|tensor| ShortcutRead { tensor, stride }),
            output: Tensor { rows: output.height, row_bytes, base: 0, contiguous: kept },
            strip: 1,
            reduction,
            scratch_bytes: 0,
            kept,
        }
    }
}

impl<'a> Layer<'a> {
    /// A layer that computes `operation` on tensor `reads`, to which it adds tensor `shortcut`; `kept` says that the
    /// network's caller receives what it makes.
    pub fn new(operation: Operation<'a>, reads: u16, shortcut: Option<u16>, kept: bool) -> Self {
        Layer { node: Node::new(&operation, reads, shortcut, kept), operation }
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

    /// The layer as `algorithm` would compute it, if it is a convolution; for planning: its weights are not packed.
    pub fn with_algorithm(&self, algorithm: Algorithm) -> Self {
        let mut layer = *self;
        if let Operation::Windowed(Windowed::Conv2d(conv)) | Operation::Addition(Windowed::Conv2d(conv), _) =
            &mut layer.operation
        {
            *conv = conv.planned_as(algorithm);
        }
        layer
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
