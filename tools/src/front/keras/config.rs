//! A model's configuration: its layers, their settings, and which reads which.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::MAX_RANK;

/// More layers, or calls of layers, than in any network that fits a microcontroller.
const MAX_CALLS: usize = 1 << 12;

/// The class of input layers.
pub(super) const INPUT: &str = "InputLayer";

/// A result: a layer, the how-manieth call of it, and which of that call's results.
pub(super) type Reference = (String, u64, u64);

/// The model's layers in the order of the file, and what is wanted of them.
pub(super) struct Model<'v> {
    pub(super) layers: Vec<Layer<'v>>,
    /// The results that are the model's.
    pub(super) outputs: Vec<Reference>,
}

/// One layer.
pub(super) struct Layer<'v> {
    pub(super) class: &'v str,
    pub(super) name: String,
    /// Kind and number, as `conv2d_3`.
    pub(super) number: String,
    /// What each call of it reads; an input layer has one call that reads nothing.
    pub(super) calls: Vec<Vec<Reference>>,
    /// The shape of what it reads, where the file says it: an input layer's own.
    shape: Option<&'v Value>,
    settings: &'v Map<String, Value>,
}

fn damaged(reason: impl Into<String>) -> Refusal {
    Refusal::new(ErrorKind::Damaged, "the model's configuration", reason)
}

impl<'v> Model<'v> {
    /// The model in a configuration.
    pub(super) fn read(config: &'v Value) -> Result<Self, Refusal> {
        let class = config.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let settings = config.get("config").ok_or_else(|| damaged("has no settings"))?;
        match class {
            "Functional" | "Model" => Model::functional(settings),
            "Sequential" => Model::sequential(settings),
            _ => {
                let reason = format!("the model is a {class}, a class of its own");
                Err(Refusal::new(ErrorKind::Operator, "the model", reason).help(
                    "functional and sequential models say how their layers are connected: wrap it, \
                     keras.Model(inputs, model.call(inputs)), and save that, or export it to ONNX",
                ))
            }
        }
    }

    fn functional(settings: &'v Value) -> Result<Self, Refusal> {
        let mut layers = Layer::list(settings.get("layers"))?;
        let nodes = settings.get("layers").and_then(Value::as_array).into_iter().flatten();
        for (layer, value) in layers.iter_mut().zip(nodes) {
            let calls = value.get("inbound_nodes").and_then(Value::as_array).into_iter().flatten();
            let input = (layer.class == INPUT).then(Vec::new);
            layer.calls = input.into_iter().chain(calls.map(references)).collect();
        }
        if layers.iter().map(|layer| layer.calls.len()).sum::<usize>() > MAX_CALLS {
            return Err(damaged(format!("calls layers more than {MAX_CALLS} times")));
        }
        let outputs = settings.get("output_layers").map(references).unwrap_or_default();
        Ok(Model { layers, outputs })
    }

    fn sequential(settings: &'v Value) -> Result<Self, Refusal> {
        // The first versions of Keras wrote the list alone.
        let mut layers = Layer::list(settings.get("layers").or(Some(settings)))?;
        if let Some(first) = layers.first().filter(|first| first.class != INPUT) {
            let input = Layer::input(first, settings.get("build_input_shape"));
            layers.insert(0, input);
        }
        let mut before = None;
        for layer in &mut layers {
            layer.calls = vec![before.into_iter().collect()];
            before = Some((layer.name.clone(), 0, 0));
        }
        Ok(Model { layers, outputs: before.into_iter().collect() })
    }
}

/// The results that are named in a value, in order.
///
/// Keras 2 writes `["conv2d", 0, 0]`, possibly with settings behind, Keras 3 the same as
/// `keras_history` of an object. JSON of more than 128 levels was refused by its reader.
fn references(value: &Value) -> Vec<Reference> {
    let (mut found, mut rest) = (Vec::new(), vec![value]);
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(items) => match &items[..] {
                [Value::String(layer), Value::Number(call), Value::Number(result), ..] => {
                    let number = |number: &serde_json::Number| number.as_u64().unwrap_or(u64::MAX);
                    found.push((layer.clone(), number(call), number(result)));
                }
                _ => rest.extend(items.iter().rev()),
            },
            Value::Object(fields) => rest.extend(fields.values().rev()),
            _ => {}
        }
    }
    found
}

impl<'v> Layer<'v> {
    fn list(layers: Option<&'v Value>) -> Result<Vec<Self>, Refusal> {
        let layers = layers.and_then(Value::as_array).ok_or_else(|| damaged("has no layers"))?;
        if layers.len() > MAX_CALLS {
            return Err(damaged(format!("has {} layers; {MAX_CALLS} are possible", layers.len())));
        }
        let mut counts = HashMap::new();
        let layer = |value: &'v Value| {
            let class = value.get("class_name").and_then(Value::as_str);
            let settings = value.get("config").and_then(Value::as_object);
            let (Some(class), Some(settings)) = (class, settings) else {
                return Err(damaged("has a layer without a class or without settings"));
            };
            let own = value.get("name").or(settings.get("name")).and_then(Value::as_str);
            let kind = snake_case(class);
            let count = counts.entry(kind.clone()).or_insert(0);
            let number = if *count == 0 { kind } else { format!("{kind}_{count}") };
            *count += 1;
            let name = own.map_or_else(|| number.clone(), str::to_string);
            let shape = settings.get("batch_shape").or(settings.get("batch_input_shape"));
            Ok(Layer { class, name, number, calls: Vec::new(), shape, settings })
        };
        layers.iter().map(layer).collect()
    }

    /// The input of a sequential model without an input layer: its first layer or the model has the shape.
    fn input(first: &Layer<'v>, built: Option<&'v Value>) -> Self {
        let name = String::from("input");
        let shape = first.shape.or(built);
        Layer { class: INPUT, number: name.clone(), name, calls: Vec::new(), shape, settings: first.settings }
    }

    /// How messages name the layer.
    pub(super) fn place(&self) -> String {
        format!("layer '{}' ({})", self.name, self.class)
    }

    /// Sizes of the input that an input layer stands for, the batch's first; `None` for open ones.
    pub(super) fn input_dims(&self) -> Result<Vec<Option<usize>>, Refusal> {
        let Some(shape) = self.shape.and_then(Value::as_array).filter(|shape| shape.len() <= MAX_RANK) else {
            return Err(Refusal::new(ErrorKind::DynamicShape, self.place(), "has no usable shape").help(
                "begin the model with keras.Input(shape=(height, width, channels)) before it is saved",
            ));
        };
        let size = |size: &Value| size.as_u64().and_then(|size| usize::try_from(size).ok());
        Ok(shape.iter().map(|value| size(value).filter(|&size| size > 0)).collect())
    }

    /// A setting that is there and not `null`.
    pub(super) fn setting(&self, key: &str) -> Option<&'v Value> {
        self.settings.get(key).filter(|value| !value.is_null())
    }

    /// A setting of text.
    pub(super) fn text(&self, key: &str) -> Option<&'v str> {
        self.setting(key).and_then(Value::as_str)
    }

    /// A setting that is true or false.
    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.setting(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// A setting that is a number, or `default` where it is missing.
    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, Refusal> {
        match self.numbers(key)?[..] {
            [] => Ok(default),
            [number] => Ok(number),
            _ => Err(self.unusable(key)),
        }
    }

    /// A setting of numbers, however they are grouped; none where it is missing.
    pub(super) fn numbers(&self, key: &str) -> Result<Vec<f64>, Refusal> {
        let (mut numbers, mut rest) = (Vec::new(), Vec::from_iter(self.setting(key)));
        while let Some(value) = rest.pop() {
            match value {
                Value::Number(number) => numbers.push(number.as_f64().ok_or_else(|| self.unusable(key))?),
                Value::Array(items) => rest.extend(items.iter().rev()),
                _ => return Err(self.unusable(key)),
            }
        }
        Ok(numbers)
    }

    /// A setting of `count` sizes, or of one that serves all; none where it is missing.
    pub(super) fn sizes(&self, key: &str, count: usize) -> Result<Vec<usize>, Refusal> {
        let size = |number: f64| {
            let whole = number.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(&number);
            if whole { Ok(number as usize) } else { Err(self.unusable(key)) }
        };
        let sizes: Vec<usize> = self.numbers(key)?.into_iter().map(size).collect::<Result<_, _>>()?;
        match sizes[..] {
            [size] => Ok(vec![size; count]),
            _ if sizes.is_empty() || sizes.len() == count => Ok(sizes),
            _ => Err(self.unusable(key)),
        }
    }

    fn unusable(&self, key: &str) -> Refusal {
        let value = self.settings.get(key).map_or(String::new(), Value::to_string);
        let shown: String = value.chars().take(40).collect();
        Refusal::new(ErrorKind::Damaged, self.place(), format!("has the unusable setting {key} = {shown}"))
    }
}

/// Keras' name for a layer of this class, when it has none of its own: `conv2d` for `Conv2D`.
fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        let starts_word = letters.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let ends_word = index > 0 && letters[index - 1].is_ascii_lowercase();
        if index > 0 && letter.is_ascii_uppercase() && (starts_word || ends_word) {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_keras_gives() {
        let cases = [
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("ReLU", "re_lu"),
            ("PReLU", "p_re_lu"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
            ("LSTM", "lstm"),
            ("ConvLSTM2D", "conv_lstm2d"),
        ];
        for (class, name) in cases {
            assert_eq!(snake_case(class), name);
        }
    }
}
