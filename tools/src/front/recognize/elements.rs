//! What a stage or a branch is made of: a layer with the padding before it and the batch norm and activation behind it.

use super::Walk;
use crate::front::affine::Affine;
use crate::front::error::{ErrorKind, Refusal};
use crate::front::layers::{Convolution, LayerId, Operation, Window};
use crate::network::{Activation, Conv2d, Dense, LayerScales, Pool2d};

/// An element and the layers that it was made from.
pub(super) struct Piece {
    pub(super) first: LayerId,
    pub(super) last: LayerId,
    pub(super) element: Element,
    /// What was recognised.
    pub(super) note: String,
    /// How the file has quantized the weights.
    pub(super) scales: Option<LayerScales>,
}

pub(super) enum Element {
    Convolution(Conv2d),
    Dense(Dense),
    MaxPool(Pool2d),
    AveragePool(Pool2d),
    GlobalAveragePool {
        name: String,
    },
    Subsample {
        name: String,
        stride: [usize; 2],
    },
    ZeroChannels {
        before: usize,
    },
    /// Batch norm and the like behind no layer that could take it in.
    Affine(Affine),
    /// An activation behind no layer that could take it in.
    Clamp(Activation),
    Softmax,
}

/// Rows and columns added before a layer.
struct Border {
    padding: [usize; 4],
    value: f64,
    /// What the rows and columns are added to.
    source: LayerId,
    layer: LayerId,
}

impl Walk<'_> {
    /// The only layer that reads this one.
    fn next(&self, layer: LayerId) -> Option<LayerId> {
        match self.readers[layer][..] {
            [next] => Some(next),
            _ => None,
        }
    }

    /// The element that begins with the layer `first`.
    pub(super) fn piece(&self, first: LayerId) -> Result<Piece, Refusal> {
        let (border, at) = self.border(first)?;
        let layer = self.layers.get(at);
        let name = layer.name.clone();
        let make = |element: Element, note: String, last: LayerId| {
            Ok(Piece { first, last, element, note, scales: None })
        };
        match &layer.operation {
            Operation::Convolution(conv) => self.convolution(first, at, conv, [1; 2], border),
            Operation::Dense { weights, bias } if border.is_none() => {
                let (affine, norms, end) = self.affines(at, bias.len());
                let (clamp, last) = self.clamps(end);
                let activation = self.activation(clamp, last)?;
                let (inputs, outputs) = (weights.len() / bias.len(), bias.len());
                let folded = affine.fold(weights, bias, |index| index / inputs);
                let (weights, bias) = folded.map_err(|channel| self.overflow(at, channel))?;
                let note =
                    format!("{name}: dense, {inputs} -> {outputs}{norms}{}", activation_note(activation));
                let dense = Dense { name, inputs, outputs, weights, bias, activation };
                let scales = layer.scales.clone().filter(|_| end == at);
                Ok(Piece { first, last, element: Element::Dense(dense), note, scales })
            }
            Operation::MaxPool(window) => {
                let pool = self.max_pool(at, *window, border)?;
                let note = pool_note("max pooling", &pool);
                make(Element::MaxPool(pool), note, at)
            }
            Operation::AveragePool { window, count_include_pad } => {
                let pool = self.average_pool(at, *window, *count_include_pad, border)?;
                let note = pool_note("average pooling", &pool);
                make(Element::AveragePool(pool), note, at)
            }
            Operation::GlobalAveragePool if border.is_none() => {
                let note = format!("{name}: global average pooling");
                make(Element::GlobalAveragePool { name }, note, at)
            }
            Operation::Subsample { stride } if border.is_none() => self.subsample(first, at, *stride),
            Operation::Pad { channels, .. } if border.is_none() => {
                make(Element::ZeroChannels { before: channels[0] }, String::new(), at)
            }
            Operation::Affine { affine, .. } if border.is_none() => {
                let (behind, _, last) = self.affines(at, affine.scale.len());
                let note = "normalisation at the input, folded into mean and standard deviation".into();
                make(Element::Affine(affine.then(&behind)), note, last)
            }
            Operation::Clamp { low, high } if border.is_none() => {
                let (behind, last) = self.clamps(at);
                let activation = self.activation(merge([*low, *high], behind), at)?;
                make(Element::Clamp(activation), String::new(), last)
            }
            Operation::Softmax { logarithm } if border.is_none() => {
                let mut note = String::from("softmax");
                if *logarithm {
                    note.push_str(" (the model has its logarithm; the scores here are the probabilities)");
                }
                make(Element::Softmax, note, at)
            }
            Operation::Add => {
                let reason = "adds tensors that do not come from one fork";
                Err(self
                    .refuse(ErrorKind::Topology, at, reason)
                    .help("a residual block's two branches begin at one tensor and meet in one addition"))
            }
            _ => {
                let place = &layer.place;
                let reason = format!("cannot be fused with {place}, which follows");
                Err(self
                    .refuse(ErrorKind::Topology, first, reason)
                    .help("padding is folded into the convolution or pooling directly behind it"))
            }
        }
    }

    /// Padding in front of a layer, from `first` on, and the layer.
    fn border(&self, first: LayerId) -> Result<(Option<Border>, LayerId), Refusal> {
        let mut border: Option<Border> = None;
        let mut at = first;
        while let Operation::Pad { padding, channels, value } = &self.layers.get(at).operation {
            if *padding == [0; 4] {
                if *value != 0.0 {
                    let reason = format!("adds channels of {value}");
                    return Err(self.refuse(ErrorKind::Operator, at, reason).help("shortcuts add zeros"));
                }
                break;
            }
            if *channels != [0; 2] {
                let reason = "adds rows or columns and channels at once";
                return Err(self.refuse(ErrorKind::Operator, at, reason));
            }
            let so_far = border.get_or_insert(Border {
                padding: [0; 4],
                value: *value,
                source: self.layers.get(at).inputs[0],
                layer: at,
            });
            if so_far.value != *value {
                let reason = format!("pads with {value} around {}", so_far.value);
                return Err(self.refuse(ErrorKind::Operator, at, reason));
            }
            for (sum, count) in so_far.padding.iter_mut().zip(padding) {
                *sum += count;
            }
            at = self.next(at).ok_or_else(|| {
                self.refuse(ErrorKind::Topology, at, "the padded image is read by several nodes")
                    .help("pad separately for each, or in the convolution itself")
            })?;
        }
        Ok((border, at))
    }

    /// What batch norms and the like do behind a layer, taken together; the note; the last one.
    fn affines(&self, layer: LayerId, channels: usize) -> (Affine, String, LayerId) {
        let (mut affine, mut last, mut note) = (Affine::identity(channels), layer, String::new());
        while let Some(next) = self.next(last) {
            let Operation::Affine { affine: behind, norm } = &self.layers.get(next).operation else { break };
            affine = affine.then(behind);
            note.push_str(", ");
            note.push_str(norm);
            last = next;
        }
        (affine, note, last)
    }

    /// The bounds that activations set behind a layer; the last one.
    pub(super) fn clamps(&self, layer: LayerId) -> ([f64; 2], LayerId) {
        let (mut bounds, mut last) = ([f64::NEG_INFINITY, f64::INFINITY], layer);
        while let Some(next) = self.next(last) {
            let Operation::Clamp { low, high } = self.layers.get(next).operation else { break };
            bounds = merge(bounds, [low, high]);
            last = next;
        }
        (bounds, last)
    }

    pub(super) fn activation(&self, bounds: [f64; 2], layer: LayerId) -> Result<Activation, Refusal> {
        match bounds {
            [f64::NEG_INFINITY, f64::INFINITY] => Ok(Activation::None),
            [0.0, f64::INFINITY] => Ok(Activation::Relu),
            [0.0, 6.0] => Ok(Activation::Relu6),
            [low, high] => {
                let reason = format!("clamps to {low} .. {high}");
                Err(self
                    .refuse(ErrorKind::Operator, layer, reason)
                    .help("activations are ReLU and ReLU6: train with one of them"))
            }
        }
    }

    fn convolution(
        &self,
        first: LayerId,
        at: LayerId,
        conv: &Convolution,
        step: [usize; 2],
        border: Option<Border>,
    ) -> Result<Piece, Refusal> {
        let layer = self.layers.get(at);
        let name = layer.name.clone();
        let mut window = conv.window;
        window.stride = product(window.stride, step);
        if let Some(border) = border {
            if border.value != 0.0 {
                let reason = format!("pads with {} before a convolution", border.value);
                return Err(self.refuse(ErrorKind::Operator, border.layer, reason).help("pad with zeros"));
            }
            window.add(border.padding);
        }
        let (affine, norms, end) = self.affines(at, conv.outputs);
        let (clamp, last) = self.clamps(end);
        let activation = self.activation(clamp, last)?;
        let filter = conv.weights.len() / conv.outputs;
        let folded = affine.fold(&conv.weights, &conv.bias, |index| {
            if conv.depthwise { index % conv.outputs } else { index / filter }
        });
        let (weights, bias) = folded.map_err(|channel| self.overflow(at, channel))?;
        let conv2d = Conv2d {
            name: name.clone(),
            input_channels: self.layers.shape(layer.inputs[0]).channels.into(),
            output_channels: conv.outputs,
            depthwise: conv.depthwise,
            kernel: window.kernel,
            stride: window.stride,
            padding: window.padding,
            weights,
            bias,
            activation,
        };
        let note = format!(
            "{name}: convolution {}, {} -> {}{norms}{}",
            kernel(&conv2d),
            conv2d.input_channels,
            conv2d.output_channels,
            activation_note(activation)
        );
        // Weights that a batch norm is folded into are others.
        let scales = layer.scales.clone().filter(|_| end == at);
        Ok(Piece { first, last, element: Element::Convolution(conv2d), note, scales })
    }

    /// Subsampling; before a 1 x 1 convolution it is the convolution's stride.
    fn subsample(&self, first: LayerId, at: LayerId, stride: [usize; 2]) -> Result<Piece, Refusal> {
        let (mut stride, mut last) = (stride, at);
        while let Some(next) = self.next(last) {
            match &self.layers.get(next).operation {
                Operation::Subsample { stride: [vertical, horizontal] } => {
                    stride = product(stride, [*vertical, *horizontal]);
                    last = next;
                }
                Operation::Convolution(conv)
                    if conv.window.kernel == [1; 2] && conv.window.padding == [0; 4] && !conv.depthwise =>
                {
                    return self.convolution(first, next, conv, stride, None);
                }
                _ => break,
            }
        }
        let name = self.layers.get(at).name.clone();
        let note = format!("{name}: subsampling {}", square(stride));
        Ok(Piece { first, last, element: Element::Subsample { name, stride }, note, scales: None })
    }

    fn max_pool(&self, at: LayerId, mut window: Window, border: Option<Border>) -> Result<Pool2d, Refusal> {
        if let Some(border) = border {
            // Zeros around values that are never negative lose against them, or tie.
            let loses = border.value <= -f64::from(f32::MAX)
                || border.value == 0.0 && self.never_negative(border.source);
            if !loses {
                let reason = format!("pads with {} before a max pooling", border.value);
                return Err(self
                    .refuse(ErrorKind::Operator, border.layer, reason)
                    .help("use the pooling's own padding, or put a ReLU before"));
            }
            window.add(border.padding);
        }
        self.pool(at, window, false)
    }

    fn average_pool(
        &self,
        at: LayerId,
        mut window: Window,
        mut count_include_pad: bool,
        border: Option<Border>,
    ) -> Result<Pool2d, Refusal> {
        if let Some(border) = border {
            let counted = count_include_pad || window.padding == [0; 4];
            if border.value != 0.0 || !counted {
                let reason = "padding before an average pooling that pads differently itself";
                return Err(self
                    .refuse(ErrorKind::Operator, border.layer, reason)
                    .help("pad with zeros in one place"));
            }
            count_include_pad = true;
            window.add(border.padding);
        }
        self.pool(at, window, count_include_pad && window.padding != [0; 4])
    }

    fn pool(&self, at: LayerId, window: Window, count_include_pad: bool) -> Result<Pool2d, Refusal> {
        let [top, left, bottom, right] = window.padding;
        if top.max(bottom) >= window.kernel[0] || left.max(right) >= window.kernel[1] {
            let reason = "a pooling window lies in the padding alone";
            return Err(self.refuse(ErrorKind::Shape, at, reason));
        }
        let Window { kernel, stride, padding } = window;
        let name = self.layers.get(at).name.clone();
        Ok(Pool2d { name, kernel, stride, padding, count_include_pad })
    }

    fn never_negative(&self, mut layer: LayerId) -> bool {
        loop {
            match self.layers.get(layer).operation {
                Operation::Clamp { low, .. } => return low >= 0.0,
                Operation::MaxPool(_) | Operation::Subsample { .. } => {
                    layer = self.layers.get(layer).inputs[0];
                }
                _ => return false,
            }
        }
    }

    fn overflow(&self, layer: LayerId, channel: usize) -> Refusal {
        let reason =
            format!("with its batch norm folded in, channel {channel} has an infinite weight or bias");
        self.refuse(ErrorKind::Value, layer, reason)
            .help("a variance near 0 or a giant scale: is the batch norm's data sound?")
    }
}

impl Window {
    fn add(&mut self, padding: [usize; 4]) {
        for (sum, count) in self.padding.iter_mut().zip(padding) {
            *sum += count;
        }
    }
}

/// The second clamp applied to what the first leaves.
fn merge(first: [f64; 2], second: [f64; 2]) -> [f64; 2] {
    first.map(|bound| bound.max(second[0]).min(second[1]))
}

/// The stride of two subsamplings, one after the other.
pub(super) fn product(first: [usize; 2], second: [usize; 2]) -> [usize; 2] {
    [first[0].saturating_mul(second[0]), first[1].saturating_mul(second[1])]
}

/// `3x3`, `3x3/2` with its stride, `depthwise 3x3`.
pub(super) fn kernel(conv: &Conv2d) -> String {
    let kernel = square(conv.kernel);
    let kernel = if conv.depthwise { format!("depthwise {kernel}") } else { kernel };
    match conv.stride {
        [1, 1] => kernel,
        [vertical, horizontal] if vertical == horizontal => format!("{kernel}/{vertical}"),
        stride => format!("{kernel}/{}", square(stride)),
    }
}

pub(super) fn square([vertical, horizontal]: [usize; 2]) -> String {
    format!("{vertical}x{horizontal}")
}

pub(super) fn activation_note(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "",
        Activation::Relu => ", ReLU",
        Activation::Relu6 => ", ReLU6",
    }
}

fn pool_note(kind: &str, pool: &Pool2d) -> String {
    format!("{}: {kind} {}, stride {}", pool.name, square(pool.kernel), square(pool.stride))
}
