//! ONNX operators, of every version, as the graph's operators: settings that later became inputs are inputs here.

use prost::bytes::Bytes;

use super::{Reader, proto, tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Operator, Padding, Sliding, ValueId};

/// More settings than any operator has.
const MAX_ATTRIBUTES: usize = 64;

/// A node's settings.
pub(super) struct Attributes(Vec<proto::Attribute>);

impl Attributes {
    pub(super) fn decode(list: Vec<Bytes>, place: &str) -> Result<Self, Refusal> {
        if list.len() > MAX_ATTRIBUTES {
            let reason = format!("has {} attributes", list.len());
            return Err(Refusal::new(ErrorKind::Damaged, place, reason));
        }
        list.into_iter().map(|bytes| super::decode(bytes, place)).collect::<Result<_, _>>().map(Attributes)
    }

    fn get(&self, name: &str) -> Option<&proto::Attribute> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |attribute| attribute.i)
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.integer(name, default.into()) != 0
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |attribute| attribute.f)
    }

    fn integers(&self, name: &str) -> Option<&[i64]> {
        self.get(name).map(|attribute| &attribute.ints[..])
    }

    /// Sizes that cannot be negative; none where the attribute is missing.
    fn sizes(&self, name: &str, place: &str) -> Result<Vec<usize>, Refusal> {
        let sizes = self.integers(name).unwrap_or_default().iter().map(|&size| {
            usize::try_from(size).ok().filter(|&size| size <= usize::from(u16::MAX)).ok_or_else(|| {
                Refusal::new(ErrorKind::Operator, place, format!("has {size} among its {name}"))
            })
        });
        sizes.collect()
    }

    /// The ONNX type of the value of a Constant node, where a tensor states it.
    pub(super) fn element_type(&self) -> Option<i32> {
        self.get("value").and_then(|attribute| attribute.t.as_ref()).map(|tensor| tensor.data_type)
    }

    /// The value of a Constant node.
    pub(super) fn constant(&self, place: &str) -> Result<Constant, Refusal> {
        let vector = |data: Data, length: usize| Constant { dims: vec![length], data };
        if let Some(value) = self.get("value").and_then(|attribute| attribute.t.as_ref()) {
            tensor::constant(value, place)
        } else if let Some(value) = self.get("value_float") {
            Ok(Constant::scalar(value.f))
        } else if let Some(value) = self.get("value_int") {
            Ok(Constant { dims: Vec::new(), data: Data::Integer(vec![value.i]) })
        } else if let Some(value) = self.get("value_floats") {
            Ok(vector(Data::Float(value.floats.clone()), value.floats.len()))
        } else if let Some(value) = self.get("value_ints") {
            Ok(vector(Data::Integer(value.ints.clone()), value.ints.len()))
        } else {
            let reason = "holds no tensor of numbers";
            Err(Refusal::new(ErrorKind::Operator, place, reason))
        }
    }

    fn sliding(&self, place: &str) -> Result<Sliding, Refusal> {
        let mode = self.get("auto_pad").map(|attribute| attribute.s.clone()).unwrap_or_default();
        let padding = match &mode[..] {
            b"" | b"NOTSET" => Padding::Explicit(self.sizes("pads", place)?),
            b"VALID" => Padding::Explicit(Vec::new()),
            b"SAME_UPPER" => Padding::Same { upper: true },
            b"SAME_LOWER" => Padding::Same { upper: false },
            other => {
                let reason = format!("has auto_pad '{}'", String::from_utf8_lossy(other));
                return Err(Refusal::new(ErrorKind::Damaged, place, reason));
            }
        };
        Ok(Sliding {
            kernel: self.sizes("kernel_shape", place)?,
            strides: self.sizes("strides", place)?,
            dilations: self.sizes("dilations", place)?,
            padding,
            ceil: self.flag("ceil_mode", false),
        })
    }
}

/// Sets input `index`, making room for it.
fn set(inputs: &mut Vec<Option<ValueId>>, index: usize, value: ValueId) {
    if inputs.len() <= index {
        inputs.resize(index + 1, None);
    }
    inputs[index] = Some(value);
}

impl Reader {
    /// Before they became inputs, an operator's axes, counts and bounds were attributes.
    fn integers_as_input(
        &mut self,
        attributes: &Attributes,
        name: &str,
        inputs: &mut Vec<Option<ValueId>>,
        index: usize,
    ) {
        if let Some(values) = attributes.integers(name) {
            let value = self.constant(Constant::integers(values.to_vec()));
            set(inputs, index, value);
        }
    }

    fn float_as_input(
        &mut self,
        attributes: &Attributes,
        name: &str,
        inputs: &mut Vec<Option<ValueId>>,
        index: usize,
    ) {
        if let Some(attribute) = attributes.get(name) {
            let value = self.constant(Constant::scalar(attribute.f));
            set(inputs, index, value);
        }
    }

    /// The operator of this name.
    pub(super) fn operator(
        &mut self,
        kind: &str,
        attributes: &Attributes,
        inputs: &mut Vec<Option<ValueId>>,
        place: &str,
    ) -> Result<Operator, Refusal> {
        let a = attributes;
        Ok(match kind {
            "Conv" => {
                Operator::Convolution(a.sliding(place)?, usize::try_from(a.integer("group", 1)).unwrap_or(0))
            }
            "BatchNormalization" if a.flag("training_mode", false) => {
                unsupported("export in evaluation mode: model.eval() before the export")
            }
            "BatchNormalization" => Operator::BatchNormalization { epsilon: a.float("epsilon", 1e-5).into() },
            "Relu" => {
                let zero = self.constant(Constant::scalar(0.0));
                set(inputs, 1, zero);
                Operator::Clip
            }
            "Clip" => {
                self.float_as_input(a, "min", inputs, 1);
                self.float_as_input(a, "max", inputs, 2);
                Operator::Clip
            }
            "Add" => Operator::Add,
            "Sub" => Operator::Subtract,
            "Mul" => Operator::Multiply,
            "Div" => Operator::Divide,
            "Min" if inputs.len() == 2 => Operator::Minimum,
            "Max" if inputs.len() == 2 => Operator::Maximum,
            "Sum" | "Min" | "Max" if inputs.len() == 1 => Operator::Identity,
            "Sum" if inputs.len() == 2 => Operator::Add,
            "Sum" => unsupported("a block adds two tensors; three-way sums are not supported"),
            "MaxPool" => Operator::MaxPool(a.sliding(place)?),
            "AveragePool" => Operator::AveragePool {
                sliding: a.sliding(place)?,
                count_include_pad: a.flag("count_include_pad", false),
            },
            "GlobalAveragePool" => Operator::GlobalAveragePool,
            "ReduceMean" => {
                self.integers_as_input(a, "axes", inputs, 1);
                let keep = a.flag("keepdims", true);
                let nothing = inputs.len() < 2 && a.flag("noop_with_empty_axes", false);
                if nothing { Operator::Identity } else { Operator::ReduceMean { keep } }
            }
            "Gemm" => Operator::Gemm {
                alpha: a.float("alpha", 1.0).into(),
                beta: a.float("beta", 1.0).into(),
                transpose_left: a.flag("transA", false),
                transpose_right: a.flag("transB", false),
            },
            "MatMul" => Operator::MatMul,
            "Softmax" | "LogSoftmax" => Operator::Softmax {
                axis: a.integer("axis", if self.opset < 13 { 1 } else { -1 }),
                logarithm: kind == "LogSoftmax",
            },
            "Pad" => {
                for name in ["pads", "paddings"] {
                    self.integers_as_input(a, name, inputs, 1);
                }
                self.float_as_input(a, "value", inputs, 2);
                let mode = a.get("mode").map(|attribute| &attribute.s[..]);
                Operator::Pad { constant: matches!(mode, None | Some(b"" | b"constant")) }
            }
            "Slice" => {
                for (index, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
                    self.integers_as_input(a, name, inputs, index + 1);
                }
                Operator::Slice
            }
            "Concat" => Operator::Concat { axis: a.integer("axis", 1) },
            "Identity" | "Dropout" => Operator::Identity,
            "Cast" => {
                let to = i32::try_from(a.integer("to", 0)).unwrap_or(0);
                match tensor::element(to) {
                    Some(element) => Operator::Cast { integer: element == tensor::Element::Integer },
                    None => unsupported("casts to floats and integers alone are understood"),
                }
            }
            "CastLike" => Operator::CastLike,
            "QuantizeLinear" | "com.microsoft.QuantizeLinear" => Operator::Quantize,
            "DequantizeLinear" | "com.microsoft.DequantizeLinear" => Operator::Identity,
            "Shape" => Operator::Shape { start: a.integer("start", 0), end: a.integer("end", i64::MAX) },
            "Gather" => Operator::Gather { axis: a.integer("axis", 0) },
            "ConstantOfShape" => {
                let value = a.get("value").and_then(|attribute| attribute.t.as_ref());
                let value = value.map(|value| tensor::constant(value, place)).transpose()?;
                Operator::ConstantOfShape { value: value.unwrap_or(Constant::scalar(0.0)) }
            }
            "Expand" => Operator::Expand,
            "Reshape" => {
                self.integers_as_input(a, "shape", inputs, 1);
                Operator::Reshape { allow_zero: a.flag("allowzero", false) }
            }
            "Flatten" => Operator::Flatten { axis: a.integer("axis", 1) },
            "Squeeze" => {
                self.integers_as_input(a, "axes", inputs, 1);
                Operator::Squeeze
            }
            "Unsqueeze" => {
                self.integers_as_input(a, "axes", inputs, 1);
                Operator::Unsqueeze
            }
            "Transpose" => {
                let permutation = match a.integers("perm") {
                    Some(_) => Some(a.sizes("perm", place)?),
                    None => None,
                };
                Operator::Transpose { permutation }
            }
            _ => unsupported(advice(kind)),
        })
    }
}

fn unsupported(help: &str) -> Operator {
    Operator::Unsupported { help: help.into() }
}

/// The help for an unsupported operator.
fn advice(kind: &str) -> &'static str {
    match kind {
        "LSTM" | "GRU" | "RNN" | "Scan" | "Loop" | "If" => {
            "recurrence and control flow are not supported; use a convolutional network"
        }
        "Sigmoid" | "HardSigmoid" | "HardSwish" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu"
        | "Gelu" | "Tanh" | "Mish" | "Softplus" | "Erf" | "Swish" => {
            "activations are ReLU and ReLU6: train with one of them"
        }
        "ConvInteger"
        | "MatMulInteger"
        | "DynamicQuantizeLinear"
        | "com.microsoft.DynamicQuantizeMatMul"
        | "com.microsoft.MatMulIntegerToFloat" => {
            "dynamic quantization finds its scales at run time: give the float model and calibration \
             images (--calibrate), or quantize it with quantize_static(quant_format=QuantFormat.QDQ)"
        }
        kind if kind.starts_with("QLinear")
            || kind.starts_with("com.microsoft.QLinear")
            || kind == "com.microsoft.QGemm" =>
        {
            "quantize with quant_format=QuantFormat.QDQ instead of QOperator, or give the float model and \
             calibration images (--calibrate)"
        }
        "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" | "LpNormalization" => {
            "only batch normalization can be folded into convolutions"
        }
        "ConvTranspose" | "Resize" | "Upsample" | "DepthToSpace" => {
            "layers that enlarge their input are not supported; classifiers are"
        }
        "ArgMax" | "TopK" => "end the network at the scores: the best classes are picked at run time",
        "GlobalMaxPool" | "ReduceMax" => "use global average pooling, or a max pooling of a fixed size",
        "ReduceSum" | "ReduceProd" => "use the mean: global average pooling",
        _ => {
            "supported are convolution, depthwise convolution, dense, max and average pooling, \
             residual addition, ReLU, ReLU6 and softmax; 'onnxsim' may simplify the graph to those"
        }
    }
}
