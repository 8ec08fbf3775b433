//! ONNX operators, of every version, as the graph's operators: settings that later became inputs are inputs here.

use super::attributes::Attributes;
use super::{Reader, tensor};
use crate::front::error::Refusal;
use crate::front::graph::{Constant, Operator, ValueId};

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
