//! The operator graph as a model file states it: nodes with typed operators, constants, names; no understanding yet.
//!
//! Readers (ONNX, TensorFlow Lite) fill it. What a format keeps in attributes or in inputs depending on its
//! version is always an input here. Nodes are in order of execution. Convolution weights are OIHW,
//! whatever the file has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::error::{ErrorKind, Refusal};
use crate::ir::TensorScale;

/// Index into [`Graph::values`].
pub(crate) type ValueId = usize;

/// A whole graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Everything that nodes read and write.
    pub(crate) values: Vec<Value>,
    /// The values that are fed from outside.
    pub(crate) inputs: Vec<Input>,
    /// The results.
    pub(crate) outputs: Vec<ValueId>,
    /// The operators, in order of execution.
    pub(crate) nodes: Vec<Node>,
    /// The layout in which convolutions and poolings see their images.
    pub(crate) layout: Layout,
    /// What the integers of quantized values stand for.
    pub(crate) quantizations: BTreeMap<ValueId, Quantization>,
}

/// real = scale * (integer - zero point), with one pair or with one for each position along an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantization {
    pub(crate) scales: Vec<f32>,
    /// As many as scales.
    pub(crate) zero_points: Vec<i64>,
    pub(crate) axis: usize,
}

/// Something that nodes read or write.
#[derive(Debug, Default)]
pub(crate) struct Value {
    /// Name in the file.
    pub(crate) name: String,
    /// Its elements, when the file holds them.
    pub(crate) constant: Option<Constant>,
}

/// A value that is fed from outside.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) value: ValueId,
    /// Sizes; `None` where the file leaves them open.
    pub(crate) dims: Vec<Option<usize>>,
    /// The element type is an integer: raw pixels.
    pub(crate) integer: bool,
}

/// Order of an image tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Layout {
    /// Batch, channels, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// One operator.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Name in the file; may be empty.
    pub(crate) name: String,
    /// The operator's name in the file's format.
    pub(crate) kind: String,
    pub(crate) operator: Operator,
    /// `None` where an optional input is left out.
    pub(crate) inputs: Vec<Option<ValueId>>,
    /// `None` where an output has no name.
    pub(crate) outputs: Vec<Option<ValueId>>,
}

/// What a node computes. Inputs are listed in their order; `?` marks optional ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operator {
    /// Image, weights, bias?.
    Convolution(Sliding, usize),
    /// Image, scale, shift, mean, variance.
    BatchNormalization { epsilon: f64 },
    /// Tensor, smallest?, largest?.
    Clip,
    /// Two tensors.
    Add,
    /// Two tensors.
    Subtract,
    /// Two tensors.
    Multiply,
    /// Two tensors.
    Divide,
    /// Two tensors.
    Minimum,
    /// Two tensors.
    Maximum,
    /// Image.
    MaxPool(Sliding),
    /// Image.
    AveragePool { sliding: Sliding, count_include_pad: bool },
    /// Image.
    GlobalAveragePool,
    /// Tensor, axes.
    ReduceMean { keep: bool },
    /// Matrix, matrix, bias?.
    Gemm { alpha: f64, beta: f64, transpose_left: bool, transpose_right: bool },
    /// Tensor, matrix.
    MatMul,
    /// Tensor.
    Softmax { axis: i64, logarithm: bool },
    /// Tensor, counts (all axes' beginnings, then all ends), value?, axes?.
    Pad { constant: bool },
    /// Tensor, starts, ends, axes?, steps?.
    Slice,
    /// Tensors.
    Concat { axis: i64 },
    /// Tensor.
    Identity,
    /// Tensor; rounded to the integers of its result's quantization, -128 to 127.
    Quantize,
    /// Tensor.
    Cast { integer: bool },
    /// Tensor, tensor whose element type it gets.
    CastLike,
    /// Tensor; its sizes from `start` to `end`.
    Shape { start: i64, end: i64 },
    /// Tensor, indices.
    Gather { axis: i64 },
    /// Sizes.
    ConstantOfShape { value: Constant },
    /// Tensor, sizes.
    Expand,
    /// Tensor, sizes; a size of 0 keeps the input's, unless `allow_zero`.
    Reshape { allow_zero: bool },
    /// Tensor; becomes a matrix.
    Flatten { axis: i64 },
    /// Tensor, axes?.
    Squeeze,
    /// Tensor, axes.
    Unsqueeze,
    /// Tensor; `None` reverses the axes.
    Transpose { permutation: Option<Vec<usize>> },
    /// An operator that is not supported, and what would help.
    Unsupported { help: String },
}

/// A window that slides over an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sliding {
    /// Sizes of the window; empty where they follow from the weights.
    pub(crate) kernel: Vec<usize>,
    /// Empty: 1.
    pub(crate) strides: Vec<usize>,
    /// Empty: 1.
    pub(crate) dilations: Vec<usize>,
    pub(crate) padding: Padding,
    /// The number of positions is rounded up instead of down.
    pub(crate) ceil: bool,
}

/// How an image is padded before a window slides over it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Padding {
    /// All axes' beginnings, then all ends; empty: none.
    Explicit(Vec<usize>),
    /// As much as makes the output's size the input's divided by the stride, rounded up.
    Same {
        /// An odd one goes to the end.
        upper: bool,
    },
}

/// A tensor whose elements the file holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    pub(crate) dims: Vec<usize>,
    pub(crate) data: Data,
}

/// Elements in row-major order. Floats of every width are f32 here, integers i64.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f32>),
    Integer(Vec<i64>),
}

/// Tensors with more axes than this are refused: nothing that is understood has them.
pub(crate) const MAX_RANK: usize = 8;

impl Constant {
    /// `None` if the number of elements is not the product of the sizes.
    pub(crate) fn new(dims: Vec<usize>, data: Data) -> Option<Self> {
        let length = match &data {
            Data::Float(values) => values.len(),
            Data::Integer(values) => values.len(),
        };
        (dims.len() <= MAX_RANK && elements(&dims) == Some(length)).then_some(Constant { dims, data })
    }

    /// A vector of integers, as axes and sizes are.
    pub(crate) fn integers(values: Vec<i64>) -> Self {
        Constant { dims: vec![values.len()], data: Data::Integer(values) }
    }

    /// A scalar.
    pub(crate) fn scalar(value: f32) -> Self {
        Constant { dims: Vec::new(), data: Data::Float(vec![value]) }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Integer(values) => values.len(),
        }
    }

    /// The elements as f32; one that is not finite is refused by its tensor's name and its index.
    pub(crate) fn finite(&self, tensor: &str) -> Result<Cow<'_, [f32]>, Refusal> {
        let values = match &self.data {
            Data::Float(values) => Cow::Borrowed(&values[..]),
            Data::Integer(values) => Cow::Owned(values.iter().map(|&v| v as f32).collect()),
        };
        let Some(first) = values.iter().position(|value| !value.is_finite()) else {
            return Ok(values);
        };
        let (mut rest, mut index) = (first, vec![0; self.dims.len()]);
        for (place, &size) in index.iter_mut().zip(&self.dims).rev() {
            *place = rest % size;
            rest /= size;
        }
        let count = values.iter().filter(|value| !value.is_finite()).count();
        let reason = format!(
            "the element at {index:?} is {} ({count} of {} are not finite)",
            values[first],
            values.len()
        );
        Err(Refusal::new(ErrorKind::Value, tensor, reason)
            .help("the training diverged or the file is damaged: take an earlier checkpoint"))
    }
}

impl Quantization {
    /// The integers that are nearest to a tensor of floats; `None` for integers and where the scales are
    /// others than its sizes ask for.
    pub(crate) fn integers(&self, constant: &Constant) -> Option<Constant> {
        let Data::Float(values) = &constant.data else { return None };
        let position = self.positions(&constant.dims)?;
        let integer = |(index, &value): (usize, &f32)| {
            let at = position(index);
            // NaN becomes 0
            let steps = (value / self.scales[at]).round_ties_even() as i64;
            steps.saturating_add(self.zero_points[at]).clamp(-128, 127)
        };
        let values = values.iter().enumerate().map(integer).collect();
        Some(Constant { dims: constant.dims.clone(), data: Data::Integer(values) })
    }

    /// Which scale belongs to the element at an index; `None` where the sizes ask for other ones.
    fn positions(&self, dims: &[usize]) -> Option<impl Fn(usize) -> usize> {
        let size = if self.scales.len() > 1 { *dims.get(self.axis)? } else { 1 };
        let behind = dims.get(self.axis + 1..).unwrap_or_default().iter().product::<usize>().max(1);
        (size == self.scales.len()).then_some(move |index: usize| index / behind % size)
    }

    /// What a tensor's integers stand for; `None` if it holds floats or has other sizes.
    pub(crate) fn reals(&self, constant: &Constant) -> Option<Constant> {
        let Data::Integer(values) = &constant.data else { return None };
        let position = self.positions(&constant.dims)?;
        let real = |(index, &value): (usize, &i64)| {
            let at = position(index);
            (value.saturating_sub(self.zero_points[at]) as f64 * f64::from(self.scales[at])) as f32
        };
        let values = values.iter().enumerate().map(real).collect();
        Some(Constant { dims: constant.dims.clone(), data: Data::Float(values) })
    }

    /// The one int8 scale and zero point.
    pub(crate) fn uniform(&self) -> Option<TensorScale> {
        match (&self.scales[..], &self.zero_points[..]) {
            (&[scale], &[zero_point]) => Some(TensorScale { scale, zero_point: zero_point.try_into().ok()? }),
            _ => None,
        }
    }
}

/// Number of elements of a tensor with these sizes; `None` if they are absurd.
///
/// The bound also holds for the sizes beside a zero, so that strides and sums of sizes never overflow.
pub(crate) fn elements(dims: &[usize]) -> Option<usize> {
    const MAX: usize = 1 << 40;
    let product = dims.iter().try_fold(1usize, |product, &size| {
        product.checked_mul(size.max(1)).filter(|&product| product <= MAX)
    })?;
    Some(if dims.contains(&0) { 0 } else { product })
}

impl Node {
    /// How messages name the node.
    pub(crate) fn place(&self, graph: &Graph) -> String {
        if !self.name.is_empty() {
            return format!("node '{}' ({})", self.name, self.kind);
        }
        match self.outputs.iter().flatten().next() {
            Some(&value) => format!("the {} node that makes '{}'", self.kind, graph.values[value].name),
            None => format!("a {} node", self.kind),
        }
    }
}
