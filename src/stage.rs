//! Stages, the links of a network's chain, and how each comes apart into the layers that run.

use crate::block::{Block, MAX_PATH, Shortcut, Subsample};
use crate::layer::{Reduction, Windowed};
use crate::quantization::Addition;
use crate::schedule::{Node, ShortcutRead, Tensor};
use crate::shape::{Shape, Window};

/// Most layers in a stage: three convolutions and a projection.
pub const MAX_LAYERS: usize = MAX_PATH + 1;

/// One link of the chain: a layer or a residual block.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // no heap to box it on; one stage is resolved at a time
pub enum Stage<'a> {
    /// A convolution or pooling layer.
    Windowed(Windowed<'a>),
    /// A dense or global pooling layer.
    Reduction(Reduction<'a>),
    /// A residual block.
    Block(Block<'a>),
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
    /// Shape of the input.
    pub fn input(&self) -> Shape {
        match self {
            Stage::Windowed(layer) => layer.input(),
            Stage::Reduction(layer) => layer.input(),
            Stage::Block(block) => block.input(),
        }
    }

    /// Shape of the output.
    pub fn output(&self) -> Shape {
        match self {
            Stage::Windowed(layer) => layer.output(),
            Stage::Reduction(layer) => Shape::new(1, 1, layer.outputs()),
            Stage::Block(block) => block.output(),
        }
    }

    /// Whether the output is f32 class scores.
    pub fn gives_scores(&self) -> bool {
        matches!(self, Stage::Reduction(layer) if layer.finish().gives_scores())
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        let mut macs = 0;
        self.each_layer(0, 1, &mut |layer| macs += layer.macs());
        macs
    }

    /// Bytes of weights, without biases and multipliers.
    pub fn weight_bytes(&self) -> usize {
        let mut bytes = 0;
        self.each_layer(0, 1, &mut |layer| bytes += layer.weights().len());
        bytes
    }

    /// The layers that the stage comes apart into, as [`Stage::each_layer`] gives them.
    pub fn layers(&self, input: u16, next: u16) -> impl Iterator<Item = Layer<'a>> + use<'a> {
        let mut layers = heapless::Vec::<Layer<'a>, MAX_LAYERS>::new();
        self.each_layer(input, next, &mut |layer| {
            let _ = layers.push(layer); // it has room for the longest stage
        });
        layers.into_iter()
    }

    /// Calls `push` with the layers that the stage comes apart into, each after those that it reads.
    ///
    /// The stage reads tensor `input` of its segment; its layers' outputs are tensors `next`,
    /// `next + 1`, ... Where their rows stand in the row table is left open, strips are single rows:
    /// [`Layer::place`] says otherwise.
    pub fn each_layer(&self, input: u16, next: u16, push: &mut dyn FnMut(Layer<'a>)) {
        let block = match self {
            Stage::Windowed(layer) => return push(windowed(*layer, input)),
            Stage::Reduction(layer) => return push(reduction(*layer, input)),
            Stage::Block(block) => block,
        };
        let Some((last, inner)) = block.path().split_last() else { return };
        let (mut reads, mut made) = (input, next);
        for convolution in inner {
            push(windowed(Windowed::Conv2d(*convolution), reads));
            (reads, made) = (made, made.saturating_add(1));
        }
        let mut shortcut = input;
        let mut subsample = Subsample { stride: [1; 2], channels_before: 0 };
        let mut channels = block.output().channels;
        match block.shortcut() {
            Shortcut::Identity => {}
            Shortcut::Projection(projection) => {
                push(windowed(Windowed::Conv2d(*projection), input));
                shortcut = made;
            }
            Shortcut::Padded(padded) => (subsample, channels) = (*padded, block.input().channels),
        }
        let convolution = Windowed::Conv2d(*last);
        let mut layer = windowed(convolution, reads);
        let join = Join { addition: block.addition(), subsample, channels };
        layer.operation = Operation::Addition(convolution, join);
        layer.node.shortcut = Some(ShortcutRead { tensor: shortcut, stride: subsample.stride[0] });
        push(layer);
    }
}

impl<'a> Layer<'a> {
    /// The layer's node with strips of `strip` rows, its rows standing in the row table from `base` on.
    pub fn place(&self, strip: u8, base: u32) -> Node {
        let mut node = self.node;
        (node.strip, node.output.base) = (strip, base);
        let scratch = match self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => layer.scratch_bytes(strip),
            _ => 0,
        };
        node.scratch_bytes = u32::try_from(scratch).unwrap_or(u32::MAX);
        node
    }

    /// Multiply-accumulate operations for one image, padded positions included.
    pub fn macs(&self) -> u64 {
        match self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => layer.macs(),
            Operation::Reduction(Reduction::Dense(layer)) => layer.weights.len() as u64,
            _ => 0,
        }
    }

    /// Number of weights, however they lie in flash.
    pub fn weight_count(&self) -> usize {
        match self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => layer.weight_count(),
            _ => self.weights().len(),
        }
    }

    /// The weights' bytes, as they lie in flash; none for pooling.
    pub const fn weights(&self) -> &'a [i8] {
        match self.operation {
            Operation::Windowed(Windowed::Conv2d(layer))
            | Operation::Addition(Windowed::Conv2d(layer), _) => layer.weights,
            Operation::Reduction(Reduction::Dense(layer)) => layer.weights,
            _ => &[],
        }
    }
}

fn windowed(layer: Windowed<'_>, reads: u16) -> Layer<'_> {
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

fn reduction(layer: Reduction<'_>, reads: u16) -> Layer<'_> {
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
