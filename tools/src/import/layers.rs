//! The layer graph: what was understood of a model, as layers over H x W x C images whose shapes are checked as each is added.
//!
//! Operator graphs are lowered to it, descriptions of checkpoints build it directly, and
//! [`super::recognize`] turns it into the network.

use skipstone::Shape;

use super::affine::Affine;
use super::error::{ErrorKind, Refusal};
use crate::network::{LayerScales, TensorScale};

/// Index of a layer, in order of execution; 0 is the input.
pub(crate) type LayerId = usize;

/// The input's layer.
pub(crate) const INPUT: LayerId = 0;

/// A tensor of more elements is refused; products of its sizes then never overflow.
const MAX_ELEMENTS: u64 = 1 << 31;

/// The layers, in order of execution.
#[derive(Debug)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    /// Bytes of weights that layers may still hold.
    allowance: usize,
}

/// One layer and where it comes from.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Name in the network.
    pub(crate) name: String,
    /// How messages name the layer's origin in the file.
    pub(crate) place: String,
    /// What it reads; two layers for an addition, none for the input, else one.
    pub(crate) inputs: Vec<LayerId>,
    /// Shape of what it makes.
    pub(crate) shape: Shape,
    pub(crate) operation: Operation,
    /// How the file has quantized what it makes.
    pub(crate) scale: Option<TensorScale>,
    /// How the file has quantized its weights.
    pub(crate) scales: Option<LayerScales>,
}

/// What a layer computes.
#[derive(Debug)]
pub(crate) enum Operation {
    Input,
    Convolution(Convolution),
    /// Over the whole tensor, flattened in HWC order; weights are output by input.
    Dense {
        weights: Vec<f32>,
        bias: Vec<f64>,
    },
    /// Batch norm and everything like it; `norm` says in a message what it is.
    Affine {
        affine: Affine,
        norm: &'static str,
    },
    /// min(max(x, low), high).
    Clamp {
        low: f64,
        high: f64,
    },
    Add,
    MaxPool(Window),
    AveragePool {
        window: Window,
        count_include_pad: bool,
    },
    GlobalAveragePool,
    /// Every n-th row and column, from the first.
    Subsample {
        stride: [usize; 2],
    },
    /// Constant rows and columns (top, left, bottom, right) and channels (in front, behind) around.
    Pad {
        padding: [usize; 4],
        channels: [usize; 2],
        value: f64,
    },
    Softmax {
        logarithm: bool,
    },
}

/// A window that slides over an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Top, left, bottom, right.
    pub(crate) padding: [usize; 4],
}

/// A convolution, before its batch norm is folded in.
#[derive(Debug)]
pub(crate) struct Convolution {
    pub(crate) window: Window,
    pub(crate) outputs: usize,
    /// One filter per channel.
    pub(crate) depthwise: bool,
    /// OHWI; HWC when depthwise.
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f64>,
}

/// How many bytes of weights a file of this size may unfold to: an honest file's f16 weights double,
/// are widened to f64 here and there, and may be shared by a few layers.
pub(crate) fn allowance(file_bytes: usize) -> usize {
    file_bytes.saturating_mul(8).saturating_add(1 << 22)
}

impl Layers {
    /// An input of this height, width and channels; weights of up to `allowance` bytes.
    pub(crate) fn new(
        place: impl Into<String>,
        input: [usize; 3],
        allowance: usize,
    ) -> Result<Self, Refusal> {
        let place = place.into();
        let [height, width, channels] = input;
        let shape = shape(height, width, channels)
            .map_err(|reason| Refusal::new(ErrorKind::Shape, place.clone(), reason))?;
        let mut layers = Layers { layers: Vec::new(), allowance };
        layers.push("input".into(), place, &[], shape, Operation::Input);
        Ok(layers)
    }

    pub(crate) fn get(&self, layer: LayerId) -> &Layer {
        &self.layers[layer]
    }

    pub(crate) fn shape(&self, layer: LayerId) -> Shape {
        self.layers[layer].shape
    }

    pub(crate) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Adds a layer after checking its shapes and sizes.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        place: impl Into<String>,
        inputs: &[LayerId],
        operation: Operation,
    ) -> Result<LayerId, Refusal> {
        let place = place.into();
        let shapes: Vec<Shape> = inputs.iter().map(|&input| self.shape(input)).collect();
        let shape = output_shape(&operation, &shapes)
            .map_err(|reason| Refusal::new(ErrorKind::Shape, place.clone(), reason))?;
        let bytes = operation.bytes();
        self.allowance = self.allowance.checked_sub(bytes).ok_or_else(|| {
            let reason = "weights that many layers share unfold to many times the file's size";
            Refusal::new(ErrorKind::Shape, place.clone(), reason)
        })?;
        self.push(name.into(), place, inputs, shape, operation);
        Ok(self.layers.len() - 1)
    }

    fn push(&mut self, name: String, place: String, inputs: &[LayerId], shape: Shape, operation: Operation) {
        let inputs = inputs.to_vec();
        self.layers.push(Layer { name, place, inputs, shape, operation, scale: None, scales: None });
    }

    /// Notes how the file has quantized what a layer makes.
    pub(crate) fn set_scale(&mut self, layer: LayerId, scale: TensorScale) {
        self.layers[layer].scale = Some(scale);
    }

    /// Notes how the file has quantized a layer's weights.
    pub(crate) fn set_scales(&mut self, layer: LayerId, scales: Option<LayerScales>) {
        self.layers[layer].scales = scales;
    }
}

impl Operation {
    fn bytes(&self) -> usize {
        match self {
            Operation::Convolution(conv) => conv.weights.len() * 4 + conv.bias.len() * 8,
            Operation::Dense { weights, bias } => weights.len() * 4 + bias.len() * 8,
            Operation::Affine { affine, .. } => affine.scale.len() * 16,
            _ => 0,
        }
    }
}

impl Window {
    /// Output height and width.
    fn output(&self, input: Shape) -> Result<[usize; 2], String> {
        let sizes = [usize::from(input.height), usize::from(input.width)];
        let mut output = [0; 2];
        for axis in 0..2 {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            if kernel == 0 || stride == 0 {
                return Err("a kernel or stride of 0".into());
            }
            let padded = self.padding[axis]
                .checked_add(self.padding[axis + 2])
                .and_then(|both| both.checked_add(sizes[axis]))
                .filter(|&padded| padded <= usize::from(u16::MAX))
                .ok_or("the padded image has more than 65535 rows or columns")?;
            if kernel > padded {
                return Err(format!(
                    "a {} x {} kernel does not fit into its input of {input}",
                    self.kernel[0], self.kernel[1]
                ));
            }
            output[axis] = (padded - kernel) / stride + 1;
        }
        Ok(output)
    }

    /// Top, left, bottom and right, so that the output's size is the input's divided by the stride,
    /// rounded up; of an odd number the larger half comes last, or first.
    pub(crate) fn same_padding(
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

    /// As [`Window::output`]; no window may lie in the padding alone.
    fn pooled(&self, input: Shape) -> Result<[usize; 2], String> {
        let reaches = |axis: usize| self.padding[axis].max(self.padding[axis + 2]) < self.kernel[axis];
        if !(reaches(0) && reaches(1)) {
            return Err("a pooling window lies in the padding alone".into());
        }
        self.output(input)
    }

    /// Whether the window is one position without padding: with a stride, a subsampling.
    pub(crate) fn is_point(&self) -> bool {
        self.kernel == [1, 1] && self.padding == [0; 4]
    }
}

fn shape(height: usize, width: usize, channels: usize) -> Result<Shape, String> {
    let size = |size: usize, of: &str| {
        u16::try_from(size)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| format!("a {of} of {size}; sizes from 1 to 65535 are possible"))
    };
    let shape = Shape::new(size(height, "height")?, size(width, "width")?, size(channels, "channel count")?);
    if height as u64 * width as u64 * channels as u64 > MAX_ELEMENTS {
        return Err(format!("a tensor of {height} x {width} x {channels} is too large"));
    }
    Ok(shape)
}

fn output_shape(operation: &Operation, inputs: &[Shape]) -> Result<Shape, String> {
    let input = *inputs.first().ok_or("no input")?;
    let [height, width, channels] = [input.height, input.width, input.channels].map(usize::from);
    let expect = |what: &str, found: usize, needed: usize| {
        if found == needed {
            Ok(())
        } else {
            Err(format!("{what}: {needed} needed for an input of {input}, {found} found"))
        }
    };
    match operation {
        Operation::Input => Err("a second input".into()),
        Operation::Convolution(conv) => {
            let [rows, columns] = conv.window.output(input)?;
            let positions = conv.window.kernel[0] * conv.window.kernel[1];
            if conv.depthwise {
                expect("filters", conv.outputs, channels)?;
                expect("weights", conv.weights.len(), positions * channels)?;
            } else {
                expect("weights", conv.weights.len(), positions * channels * conv.outputs)?;
            }
            expect("biases", conv.bias.len(), conv.outputs)?;
            shape(rows, columns, conv.outputs)
        }
        Operation::Dense { weights, bias } => {
            expect("weights", weights.len(), height * width * channels * bias.len())?;
            shape(1, 1, bias.len())
        }
        Operation::Affine { affine, .. } => {
            expect("channels of scale", affine.scale.len(), channels)?;
            expect("channels of shift", affine.shift.len(), channels)?;
            Ok(input)
        }
        Operation::Clamp { .. } | Operation::Softmax { .. } => Ok(input),
        Operation::Add => match inputs {
            [left, right] if left == right => Ok(*left),
            [left, right] => Err(format!("adds a tensor of {right} to one of {left}")),
            _ => Err("an addition of other than two tensors".into()),
        },
        Operation::MaxPool(window) | Operation::AveragePool { window, .. } => {
            let [rows, columns] = window.pooled(input)?;
            shape(rows, columns, channels)
        }
        Operation::GlobalAveragePool => shape(1, 1, channels),
        Operation::Subsample { stride } => {
            if stride.contains(&0) {
                return Err("a stride of 0".into());
            }
            shape(height.div_ceil(stride[0]), width.div_ceil(stride[1]), channels)
        }
        Operation::Pad { padding: [top, left, bottom, right], channels: [before, after], .. } => {
            let grown = |size: usize, a: &usize, b: &usize| size.saturating_add(*a).saturating_add(*b);
            shape(grown(height, top, bottom), grown(width, left, right), grown(channels, before, after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        Layers::new("input", [8, 8, 3], allowance(0)).unwrap()
    }

    fn window(kernel: usize, stride: usize, padding: usize) -> Window {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 4] }
    }

    fn reason(result: Result<LayerId, Refusal>) -> String {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Shape);
        refusal.reason
    }

    #[test]
    fn shapes_follow_windows() {
        let mut layers = layers();
        let conv = Convolution {
            window: window(3, 2, 1),
            outputs: 4,
            depthwise: false,
            weights: vec![0.0; 3 * 3 * 3 * 4],
            bias: vec![0.0; 4],
        };
        let conv = layers.add("c", "c", &[INPUT], Operation::Convolution(conv)).unwrap();
        assert_eq!(layers.shape(conv), Shape::new(4, 4, 4));
        let pool = layers.add("p", "p", &[conv], Operation::MaxPool(window(3, 2, 1))).unwrap();
        assert_eq!(layers.shape(pool), Shape::new(2, 2, 4));
        let stride = [2, 2];
        let sub = layers.add("s", "s", &[conv], Operation::Subsample { stride }).unwrap();
        assert_eq!(layers.shape(sub), Shape::new(2, 2, 4));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut layers = layers();
        let pool = |w| Operation::MaxPool(w);
        assert!(reason(layers.add("p", "p", &[INPUT], pool(window(9, 1, 0)))).contains("fit"));
        assert!(reason(layers.add("p", "p", &[INPUT], pool(window(2, 1, 2)))).contains("padding"));
        assert!(reason(layers.add("p", "p", &[INPUT], pool(window(0, 1, 0)))).contains("padding"));
        let dense = Operation::Dense { weights: vec![0.0; 7], bias: vec![0.0; 1] };
        let reason = reason(layers.add("d", "d", &[INPUT], dense));
        assert_eq!(reason, "weights: 192 needed for an input of 8x8x3, 7 found");
    }

    #[test]
    fn same_padding_keeps_the_size() {
        assert_eq!(Window::same_padding([32, 32], [3, 3], [2, 2], true), [0, 0, 1, 1]);
        assert_eq!(Window::same_padding([32, 32], [3, 3], [2, 2], false), [1, 1, 0, 0]);
        assert_eq!(Window::same_padding([33, 32], [3, 1], [2, 2], true), [1, 0, 1, 0]);
        assert_eq!(Window::same_padding([8, 8], [1, 1], [2, 2], true), [0; 4]);
    }

    #[test]
    fn zero_and_giant_sizes_are_refused() {
        for input in [[0, 8, 3], [8, 8, 0], [65536, 1, 1], [65535, 65535, 3]] {
            assert_eq!(Layers::new("input", input, 0).unwrap_err().kind, ErrorKind::Shape);
        }
    }

    #[test]
    fn weights_are_bounded_by_the_allowance() {
        let mut layers = Layers::new("input", [1, 1, 8], 100).unwrap();
        let dense = || Operation::Dense { weights: vec![0.0; 8], bias: vec![0.0; 1] };
        layers.add("d", "d", &[INPUT], dense()).unwrap();
        layers.add("d", "d", &[INPUT], dense()).unwrap();
        assert!(reason(layers.add("d", "d", &[INPUT], dense())).contains("share"));
    }
}
