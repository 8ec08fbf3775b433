//! Keras' layers as the graph's operators.

use super::config::Layer;
use super::layers::{Builder, COUNT, Tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Operator, Padding, Sliding, ValueId};

impl Builder {
    /// What a layer that is no input computes.
    pub(super) fn operators(
        &mut self,
        layer: &Layer<'_>,
        input: Tensor,
        inputs: &[Tensor],
    ) -> Result<Tensor, Refusal> {
        if layer.text("data_format").is_some_and(|format| format != "channels_last") {
            let reason = "has its channels first";
            return Err(Refusal::new(ErrorKind::Operator, layer.place(), reason)
                .help("save the model with data_format='channels_last', Keras' default"));
        }
        let Tensor { value: x, rank } = input;
        Ok(match layer.class {
            "Conv2D" => {
                let weights = self.filters(layer, &["kernel"])?;
                let groups = layer.sizes("groups", 1)?.first().copied().unwrap_or(1);
                let kernel = self.transposed(layer, weights[0], [3, 2, 0, 1]);
                let convolution = Operator::Convolution(sliding(layer, "")?, groups);
                let operands: Vec<ValueId> = [x, kernel].into_iter().chain(weights[1..].to_vec()).collect();
                let output = self.node(layer, convolution, &operands, rank);
                self.activation(layer, output)?
            }
            "DepthwiseConv2D" => {
                let weights = self.filters(layer, &["kernel"])?;
                let (kernel, channels) = self.depthwise(layer, weights[0])?;
                let convolution = Operator::Convolution(sliding(layer, "")?, channels);
                let operands: Vec<ValueId> = [x, kernel].into_iter().chain(weights[1..].to_vec()).collect();
                let output = self.node(layer, convolution, &operands, rank);
                self.activation(layer, output)?
            }
            "SeparableConv2D" => {
                let weights = self.filters(layer, &["depthwise_kernel", "pointwise_kernel"])?;
                let (kernel, channels) = self.depthwise(layer, weights[0])?;
                let convolution = Operator::Convolution(sliding(layer, "")?, channels);
                let between = self.part(layer, "depthwise", convolution, &[x, kernel]);
                let kernel = self.transposed(layer, weights[1], [3, 2, 0, 1]);
                let operands: Vec<ValueId> =
                    [between.value, kernel].into_iter().chain(weights[2..].to_vec()).collect();
                let output = self.part(layer, "pointwise", Operator::Convolution(POINT, 1), &operands);
                self.activation(layer, output)?
            }
            "Dense" => {
                let weights = self.filters(layer, &["kernel"])?;
                let product =
                    Operator::Gemm { alpha: 1.0, beta: 1.0, transpose_left: false, transpose_right: false };
                let operands: Vec<ValueId> = [x].into_iter().chain(weights).collect();
                let output = self.node(layer, product, &operands, rank);
                self.activation(layer, output)?
            }
            "BatchNormalization" | "BatchNormalizationV1" => self.batch_norm(layer, input)?,
            "Activation" => self.activation(layer, input)?,
            "ReLU" => {
                for setting in ["negative_slope", "threshold"] {
                    if layer.number(setting, 0.0)? != 0.0 {
                        return Ok(self.unsupported(layer, input, ACTIVATIONS));
                    }
                }
                self.clip(layer, input, layer.number("max_value", f64::INFINITY)?)
            }
            "Softmax" => self.softmax(layer, input, layer.number("axis", -1.0)?, false),
            "Add" => match inputs {
                [left, right] => self.node(layer, Operator::Add, &[left.value, right.value], rank),
                _ => self.unsupported(
                    layer,
                    input,
                    "a block adds two tensors; three-way sums are not supported",
                ),
            },
            "MaxPooling2D" => {
                let pool = Operator::MaxPool(sliding(layer, "pool_size")?);
                self.node(layer, pool, &[x], rank)
            }
            "AveragePooling2D" => {
                let sliding = sliding(layer, "pool_size")?;
                let pool = Operator::AveragePool { sliding, count_include_pad: false };
                self.node(layer, pool, &[x], rank)
            }
            "GlobalAveragePooling2D" => {
                let keep = layer.flag("keepdims", false);
                let axes = self.integers(vec![1, 2]);
                let rank = if keep { rank } else { rank.saturating_sub(2) };
                self.node(layer, Operator::ReduceMean { keep }, &[x, axes], rank)
            }
            "Flatten" => self.node(layer, Operator::Flatten { axis: 1 }, &[x], 2),
            "Reshape" => {
                let sizes =
                    layer.numbers("target_shape")?.iter().map(|&size| size as i64).collect::<Vec<_>>();
                let rank = sizes.len() + 1;
                // 0 keeps the batch.
                let sizes = self.integers([0].into_iter().chain(sizes).collect());
                self.node(layer, Operator::Reshape { allow_zero: false }, &[x, sizes], rank)
            }
            "ZeroPadding2D" => {
                let [top, bottom, left, right] = match layer.sizes("padding", 4)?[..] {
                    [top, bottom, left, right] => [top, bottom, left, right].map(|count| count as i64),
                    _ => [1; 4],
                };
                let counts = self.integers(vec![0, top, left, 0, 0, bottom, right, 0]);
                self.node(layer, Operator::Pad { constant: true }, &[x, counts], rank)
            }
            "Rescaling" => {
                let (scale, offset) = (layer.numbers("scale")?, layer.numbers("offset")?);
                let scale = self.floats(if scale.is_empty() { &[1.0] } else { &scale });
                let scaled = self.node(layer, Operator::Multiply, &[x, scale], rank);
                let offset = self.floats(if offset.is_empty() { &[0.0] } else { &offset });
                self.node(layer, Operator::Add, &[scaled.value, offset], rank)
            }
            "Normalization" => self.normalization(layer, input)?,
            // What changes its input in training alone.
            "Dropout"
            | "SpatialDropout2D"
            | "GaussianDropout"
            | "GaussianNoise"
            | "AlphaDropout"
            | "ActivityRegularization"
            | "Identity"
            | "RandomFlip"
            | "RandomRotation"
            | "RandomZoom"
            | "RandomTranslation"
            | "RandomContrast"
            | "RandomBrightness" => self.node(layer, Operator::Identity, &[x], rank),
            class => self.unsupported(layer, input, advice(class)),
        })
    }

    /// A layer that is refused if the model's output needs it.
    fn unsupported(&mut self, layer: &Layer<'_>, input: Tensor, help: &str) -> Tensor {
        let operator = Operator::Unsupported { help: help.into() };
        self.node(layer, operator, &[input.value], input.rank)
    }

    /// Kernels, and the bias if the layer uses one.
    fn filters(&mut self, layer: &Layer<'_>, kernels: &[&str]) -> Result<Vec<ValueId>, Refusal> {
        let mut roles = kernels.to_vec();
        if layer.flag("use_bias", true) {
            roles.push("bias");
        }
        self.weights(layer, &roles)
    }

    /// A depthwise kernel (height, width, channels, multiplier) as that of a convolution of as many
    /// groups as channels; their number.
    fn depthwise(&mut self, layer: &Layer<'_>, kernel: ValueId) -> Result<(ValueId, usize), Refusal> {
        let [height, width, channels, multiplier] = match self.dims(kernel) {
            &[height, width, channels, multiplier] => [height, width, channels, multiplier],
            other => {
                let reason = format!("its kernel has sizes {other:?}");
                return Err(Refusal::new(ErrorKind::Shape, layer.place(), reason));
            }
        };
        let by_channel = self.transposed(layer, kernel, [2, 3, 0, 1]);
        let sizes = [channels.saturating_mul(multiplier), 1, height, width];
        Ok((self.reshaped(layer, by_channel, sizes.map(|size| size as i64).to_vec()), channels))
    }

    fn batch_norm(&mut self, layer: &Layer<'_>, input: Tensor) -> Result<Tensor, Refusal> {
        let last = input.rank as f64 - 1.0;
        let axis = layer.number("axis", -1.0)?;
        if axis != -1.0 && axis != last {
            let reason = format!("normalises axis {axis} of {}, not the channels", input.rank);
            return Err(Refusal::new(ErrorKind::Operator, layer.place(), reason)
                .help("batch norm over the channels, the last axis, is folded into the layer before it"));
        }
        let optional = [("scale", "gamma"), ("center", "beta")];
        let mut roles: Vec<&str> = optional
            .into_iter()
            .filter_map(|(setting, role)| layer.flag(setting, true).then_some(role))
            .collect();
        roles.extend(["moving_mean", "moving_variance"]);
        let weights = self.weights(layer, &roles)?;
        let find = |role| roles.iter().position(|found| *found == role).map(|index| weights[index]);
        let [gamma, beta, mean, variance] = ["gamma", "beta", "moving_mean", "moving_variance"].map(find);
        let count = mean.map_or(0, |mean| self.len(mean));
        let mut vector = |weight: Option<ValueId>, value: f32| {
            let same = || Constant { dims: vec![count], data: Data::Float(vec![value; count]) };
            weight.unwrap_or_else(|| self.constant(same()))
        };
        let (gamma, beta) = (vector(gamma, 1.0), vector(beta, 0.0));
        let (mean, variance) = (vector(mean, 0.0), vector(variance, 1.0));
        let operator = Operator::BatchNormalization { epsilon: layer.number("epsilon", 1e-3)? };
        Ok(self.node(layer, operator, &[input.value, gamma, beta, mean, variance], input.rank))
    }

    /// (x - mean) / max(sqrt(variance), epsilon), the moments being settings or weights.
    fn normalization(&mut self, layer: &Layer<'_>, input: Tensor) -> Result<Tensor, Refusal> {
        const EPSILON: f64 = 1e-7;
        let last = input.rank as f64 - 1.0;
        let channels = layer.numbers("axis")?.iter().all(|&axis| axis == -1.0 || axis == last);
        if layer.flag("invert", false) || !channels {
            let help =
                "a normalisation by channel, and not inverted, is folded into mean and standard deviation";
            return Ok(self.unsupported(layer, input, help));
        }
        let (mut mean, mut variance) = (layer.numbers("mean")?, layer.numbers("variance")?);
        if mean.is_empty() {
            let weights = self.weights(layer, &["mean", "variance", COUNT])?;
            (mean, variance) = (self.values(weights[0]), self.values(weights[1]));
        }
        let deviation: Vec<f64> = variance.iter().map(|variance| variance.sqrt().max(EPSILON)).collect();
        let mean = self.floats(&mean);
        let centred = self.node(layer, Operator::Subtract, &[input.value, mean], input.rank);
        let deviation = self.floats(&deviation);
        Ok(self.node(layer, Operator::Divide, &[centred.value, deviation], input.rank))
    }

    /// The activation that a layer names, behind `output`.
    fn activation(&mut self, layer: &Layer<'_>, output: Tensor) -> Result<Tensor, Refusal> {
        let setting = layer.setting("activation");
        let named = |value: &serde_json::Value| value.as_str().map(str::to_string);
        // An object: a function that was registered, or a layer.
        let object = |key: &str| setting.and_then(|setting| setting.get(key)).and_then(named);
        let name = setting.and_then(named).or(object("config")).or(object("class_name"));
        Ok(match name.as_deref() {
            None | Some("linear") => output,
            Some("relu") => self.clip(layer, output, f64::INFINITY),
            Some("relu6") => self.clip(layer, output, 6.0),
            Some("softmax") => self.softmax(layer, output, -1.0, false),
            Some("log_softmax") => self.softmax(layer, output, -1.0, true),
            Some(name) => {
                let help = format!("its activation is {name}; {ACTIVATIONS}");
                self.unsupported(layer, output, &help)
            }
        })
    }

    fn clip(&mut self, layer: &Layer<'_>, input: Tensor, largest: f64) -> Tensor {
        let bounds = [0.0, largest].map(|bound| self.floats(&[bound]));
        self.node(layer, Operator::Clip, &[input.value, bounds[0], bounds[1]], input.rank)
    }

    fn softmax(&mut self, layer: &Layer<'_>, input: Tensor, axis: f64, logarithm: bool) -> Tensor {
        let axis = axis as i64;
        self.node(layer, Operator::Softmax { axis, logarithm }, &[input.value], input.rank)
    }
}

/// The window of a 1 x 1 convolution.
const POINT: Sliding = Sliding {
    kernel: Vec::new(),
    strides: Vec::new(),
    dilations: Vec::new(),
    padding: Padding::Explicit(Vec::new()),
    ceil: false,
};

/// A layer's window; `kernel` is the setting with its sizes, empty where they follow from the weights.
fn sliding(layer: &Layer<'_>, kernel: &str) -> Result<Sliding, Refusal> {
    let kernel = layer.sizes(kernel, 2)?;
    let mut strides = layer.sizes("strides", 2)?;
    if strides.is_empty() {
        strides = kernel.clone(); // pooling's default
    }
    let padding = match layer.text("padding") {
        None | Some("valid") => Padding::Explicit(Vec::new()),
        Some("same") => Padding::Same { upper: true },
        Some(other) => {
            let reason = format!("has padding '{other}'");
            return Err(
                Refusal::new(ErrorKind::Operator, layer.place(), reason).help("use 'same' or 'valid'")
            );
        }
    };
    let dilations = layer.sizes("dilation_rate", 2)?;
    Ok(Sliding { kernel, strides, dilations, padding, ceil: false })
}

const ACTIVATIONS: &str = "activations are ReLU and ReLU6: train with one of them";

/// The help for an unsupported layer.
fn advice(class: &str) -> &'static str {
    match class {
        "LeakyReLU" | "PReLU" | "ELU" | "ThresholdedReLU" => ACTIVATIONS,
        "LSTM" | "GRU" | "SimpleRNN" | "RNN" | "Bidirectional" | "ConvLSTM2D" | "TimeDistributed" => {
            "recurrence is not supported; use a convolutional network"
        }
        "Functional" | "Model" | "Sequential" => {
            "a model within the model: build one model of all layers, keras.Model(inner.input, outputs)"
        }
        "Lambda" | "TFOpLambda" | "SlicingOpLambda" | "TensorFlowOpLayer" => {
            "what it computes is Python: use layers instead (keras.layers.Add for x + y), or export to ONNX"
        }
        "Conv1D"
        | "DepthwiseConv1D"
        | "SeparableConv1D"
        | "MaxPooling1D"
        | "AveragePooling1D"
        | "GlobalAveragePooling1D" => "use the layer for two axes, with a height of 1",
        "Concatenate" => "residual networks add their branches; DenseNet and Inception join them",
        "Multiply" | "Attention" | "MultiHeadAttention" => {
            "blocks add; gates (squeeze-and-excitation, attention) are not supported"
        }
        "GlobalMaxPooling2D" => "use global average pooling, or a max pooling of a fixed size",
        "LayerNormalization" | "GroupNormalization" | "UnitNormalization" => {
            "only batch normalization can be folded into convolutions"
        }
        "Conv2DTranspose" | "UpSampling2D" => {
            "layers that enlarge their input are not supported; classifiers are"
        }
        "Resizing" | "CenterCrop" | "RandomCrop" | "Cropping2D" | "Permute" => {
            "move this step out of the network: give the images as it leaves them"
        }
        _ => {
            "supported layers are Conv2D, DepthwiseConv2D, SeparableConv2D, Dense, MaxPooling2D, AveragePooling2D, \
             GlobalAveragePooling2D, Add, BatchNormalization, ReLU and Softmax"
        }
    }
}
