//! The messages of `onnx.proto` that the importer reads, written by hand so that no compiler of protobuf is needed.
//!
//! Lists of messages are kept as the bytes of each, which share the file's memory, and decoded one
//! at a time: an empty message takes two bytes in the file and hundreds decoded. Fields are counted
//! before anything is decoded.

use prost::Message;
use prost::bytes::Bytes;

use crate::front::error::{ErrorKind, Refusal};

/// More fields than in any of its messages.
pub(super) const MAX_FIELDS: usize = 1 << 18;

/// A message, if it is not larger than any may be; `what` names it.
pub(super) fn decode<M: Message + Default>(bytes: Bytes, what: &str) -> Result<M, Refusal> {
    let damaged = |reason: String| {
        Refusal::new(ErrorKind::Damaged, what, reason)
            .help("the file may be cut short: compare its size with the original's")
    };
    match count_fields(&bytes) {
        Some(count) if count <= MAX_FIELDS => {}
        Some(count) => return Err(damaged(format!("has {count} fields; {MAX_FIELDS} are possible"))),
        None => return Err(damaged("is cut short, or no protobuf".into())),
    }
    M::decode(bytes).map_err(|error| damaged(format!("cannot be decoded: {error}")))
}

/// The file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub(super) graph: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(super) opset_import: Vec<Bytes>,
}

/// A version of a set of operators.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

/// The network.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    /// [`Node`]s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) node: Vec<Bytes>,
    /// [`Tensor`]s.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) initializer: Vec<Bytes>,
    /// [`ValueInfo`]s.
    #[prost(bytes = "bytes", repeated, tag = "11")]
    pub(super) input: Vec<Bytes>,
    /// [`ValueInfo`]s.
    #[prost(bytes = "bytes", repeated, tag = "12")]
    pub(super) output: Vec<Bytes>,
    /// Not read.
    #[prost(bytes = "bytes", repeated, tag = "15")]
    pub(super) sparse_initializer: Vec<Bytes>,
}

/// An operator.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    /// [`Attribute`]s.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) attribute: Vec<Bytes>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

/// An operator's setting.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, tag = "2")]
    pub(super) f: f32,
    #[prost(int64, tag = "3")]
    pub(super) i: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) s: Bytes,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<Tensor>,
    #[prost(float, repeated, tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
}

/// A constant tensor.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(super) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(super) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(super) raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    pub(super) double_data: Vec<f64>,
    /// [`Entry`]s.
    #[prost(bytes = "bytes", repeated, tag = "13")]
    pub(super) external_data: Vec<Bytes>,
    /// 1: the elements lie in another file.
    #[prost(int32, tag = "14")]
    pub(super) data_location: i32,
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// Name and type of an input or output.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<Type>,
}

/// A type; only tensors' are read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor: Option<TensorType>,
}

/// A tensor's type.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShape>,
}

/// A tensor's sizes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorShape {
    /// [`Dimension`]s.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) dim: Vec<Bytes>,
}

/// One size; open when there is no number.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, tag = "2")]
    pub(super) dim_param: String,
}

/// Number of fields in a message, those inside of its fields not counted; `None` if it is damaged.
pub(super) fn count_fields(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            // Groups, which ONNX does not have.
            _ => return None,
        };
        bytes = bytes.get(length..)?;
        count += 1;
    }
    Some(count)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let length = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    Some(number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_without_decoding() {
        let node = Node { input: vec!["a".into(), "bc".into()], name: "n".into(), ..Node::default() };
        let bytes = node.encode_to_vec();
        assert_eq!(count_fields(&bytes), Some(3));
        assert_eq!(count_fields(&bytes[..bytes.len() - 1]), None);
        let tensor = Tensor { dims: vec![300], float_data: vec![0.0; 9], ..Tensor::default() };
        assert_eq!(count_fields(&tensor.encode_to_vec()), Some(2));
        let attribute = Attribute { f: 1.0, i: -1, ..Attribute::default() };
        assert_eq!(count_fields(&attribute.encode_to_vec()), Some(2));
        assert_eq!(count_fields(&[]), Some(0));
        assert_eq!(count_fields(&[0xff; 12]), None);
        assert_eq!(count_fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), None);
        assert_eq!(count_fields(&[0x0b]), None);
    }
}
