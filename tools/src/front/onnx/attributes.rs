//! A node's attributes.

use prost::bytes::Bytes;

use super::{proto, tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Padding, Sliding};

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
        list.into_iter().map(|bytes| proto::decode(bytes, place)).collect::<Result<_, _>>().map(Attributes)
    }

    pub(super) fn get(&self, name: &str) -> Option<&proto::Attribute> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |attribute| attribute.i)
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.integer(name, default.into()) != 0
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |attribute| attribute.f)
    }

    pub(super) fn integers(&self, name: &str) -> Option<&[i64]> {
        self.get(name).map(|attribute| &attribute.ints[..])
    }

    /// Sizes that cannot be negative; none where the attribute is missing.
    pub(super) fn sizes(&self, name: &str, place: &str) -> Result<Vec<usize>, Refusal> {
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

    pub(super) fn sliding(&self, place: &str) -> Result<Sliding, Refusal> {
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
