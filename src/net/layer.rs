//! Stages, the links of a network's chain: the layers that each comes apart into.

use heapless::Vec;

use crate::base::quantization::Addition;
use crate::base::shape::{Shape, Window};
use crate::kernels::Kernels;
use crate::net::block::{Block, MAX_PATH, Shortcut, Subsample};
use crate::net::schedule::{Node, ShortcutRead, Tensor};
use crate::ops::{Algorithm, Conv2d, Reduction, Windowed};

/// Most layers in a stage: three convolutions and a projection.
pub const MAX_LAYERS: usize = MAX_PATH + 1;

/// One link of the chain: a layer, or the layers of a residual block, each after those that it reads.
///
/// The last layer of a block is its last convolution, which adds the shortcut; a projection comes before it.
#[derive(Debug, Clone)]
pub struct Stage<'a> {
    layers: Vec<Layer<'a>, MAX_LAYERS>,
}

/// What the executor runs for a [`Node`].
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// A strip of rows.
    Windowed(Windowed<'a>),
    /// A block's last convolution, onto the shortcut's rows.
    Addition(Windowed<'a>, Join),
    /// A row taken into sums.
    Reduction(Reduction<'a>),
}

/// How a block's last convolution takes the shortcut.
#[derive(Debug, Clone, Copy)]
pub struct Join {
    /// How its values are added.
    pub addition: Addition,
    /// Which of its pixels are taken, and which channels they become.
    pub subsample: Subsample,
    /// Channels of a shortcut pixel.
    pub channels: u16,
}

/// A layer as the schedule and the executor see it.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What it reads and makes, in rows.
    pub node: Node,
    /// What it computes.
    pub operation: Operation<'a>,
}

impl<'a> Stage<'a> {
    /// The stage that these layers are, which read tensor 0 and make tensors 1, 2, ...
    pub(crate) const fn new(layers: Vec<Layer<'a>, MAX_LAYERS>) -> Self {
        Stage { layers }
    }

    /// Shape of the input.
    pub fn input(&self) -> Shape {
        self.layers.first().map_or(Shape::new(0, 0, 0), Layer::input)
    }

    /// Shape of the output.
    pub fn output(&self) -> Shape {
        self.layers.last().map_or(Shape::new(0, 0, 0), Layer::output)
    }

    /// Whether the output is f32 class scores.
    pub fn gives_scores(&self) -> bool {
        self.layers.last().is_some_and(Layer::gives_scores)
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(Layer::macs).sum()
    }

    /// Bytes of weights, without biases and multipliers.
    pub fn weight_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.weights().len()).sum()
    }

    /// The layers, each after those that it reads.
    ///
    /// The stage reads tensor `input` of its segment; its layers' outputs are tensors `next`,
    /// `next + 1`, ... Where their rows stand in the row table is left open, strips are single rows:
    /// [`Layer::place`] says otherwise.
    pub fn layers(&self, input: u16, next: u16) -> impl Iterator<Item = Layer<'a>> + use<'a> {
        let tensor = move |own: u16| match own {
            0 => input,
            _ => next.saturating_add(own - 1),
        };
        self.layers.clone().into_iter().map(move |mut layer| {
            layer.node.reads = tensor(layer.node.reads);
            if let Some(read) = &mut layer.node.shortcut {
                read.tensor = tensor(read.tensor);
            }
            layer
        })
    }

    /// The residual block that the stage is; `None` where it is a single layer.
    pub fn block(&self) -> Option<Block<'a>> {
        let last = self.layers.last()?;
        let (Operation::Addition(_, join), Some(read)) = (&last.operation, last.node.shortcut) else {
            return None;
        };
        let (mut path, mut projection) = (Vec::<Conv2d<'a>, MAX_LAYERS>::new(), None);
        for (tensor, layer) in (1..).zip(&self.layers) {
            match layer.convolution() {
                Some(layer) if tensor == read.tensor => projection = Some(*layer),
                Some(layer) => path.push(*layer).ok()?,
                None => return None,
            }
        }
        let channels = last.output().channels;
        let shortcut = match projection {
            Some(layer) => Shortcut::Projection(layer),
            None if join.subsample == Subsample::NONE && join.channels == channels => Shortcut::Identity,
            None => Shortcut::Padded(join.subsample),
        };
        Block::new(&path, join.addition, shortcut).ok()
    }
}

impl<'a> Layer<'a> {
    /// A layer that reads tensor `reads` through its window.
    pub(crate) fn windowed(layer: Windowed<'a>, reads: u16) -> Self {
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
        };
        Layer { node, operation: Operation::Windowed(layer) }
    }

    /// The last convolution of a block, to which tensor `shortcut` is added.
    pub(crate) fn addition(layer: Conv2d<'a>, reads: u16, join: Join, shortcut: u16) -> Self {
        let layer = Windowed::Conv2d(layer);
        let mut added = Layer::windowed(layer, reads);
        added.operation = Operation::Addition(layer, join);
        added.node.shortcut = Some(ShortcutRead { tensor: shortcut, stride: join.subsample.stride[0] });
        added
    }

    /// A layer that takes tensor `reads` row by row.
    pub(crate) fn reduction(layer: Reduction<'a>, reads: u16) -> Self {
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
        };
        Layer { node, operation: Operation::Reduction(layer) }
    }

    /// Shape of the input.
    pub const fn input(&self) -> Shape {
        match &self.operation {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => layer.input(),
            Operation::Reduction(layer) => layer.input(),
        }
    }

    /// Shape of the output.
    pub const fn output(&self) -> Shape {
        match &self.operation {
            Operation::Windowed(layer) | Operation::Addition(layer, _) => layer.output(),
            Operation::Reduction(layer) => Shape::new(1, 1, layer.outputs()),
        }
    }

    /// Whether the output is f32 class scores.
    pub const fn gives_scores(&self) -> bool {
        matches!(&self.operation, Operation::Reduction(layer) if layer.gives_scores())
    }

    /// The convolution that the layer is.
    pub const fn convolution(&self) -> Option<&Conv2d<'a>> {
        match &self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => Some(layer),
            _ => None,
        }
    }

    /// The layer's node with strips of `strip` rows, its rows standing in the row table from `base` on.
    pub fn place(&self, strip: u8, base: u32) -> Node {
        let mut node = self.node;
        (node.strip, node.output.base) = (strip, base);
        let scratch = self.convolution().map_or(0, |layer| layer.scratch_bytes(strip));
        node.scratch_bytes = u32::try_from(scratch).unwrap_or(u32::MAX);
        node
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        match (&self.operation, self.convolution()) {
            (Operation::Reduction(Reduction::Dense(layer)), _) => layer.weights.len() as u64,
            (_, layer) => layer.map_or(0, Conv2d::macs),
        }
    }

    /// Number of weights, however they lie in flash.
    pub fn weight_count(&self) -> usize {
        self.convolution().map_or(self.weights().len(), Conv2d::weight_count)
    }

    /// The weights' bytes, as they lie in flash; none for pooling.
    pub const fn weights(&self) -> &'a [i8] {
        match (&self.operation, self.convolution()) {
            (Operation::Reduction(Reduction::Dense(layer)), _) => layer.weights,
            (_, Some(layer)) => layer.weights,
            (_, None) => &[],
        }
    }
}

impl Kernels {
    /// What a layer needs; dense layers and global pooling are always there.
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
