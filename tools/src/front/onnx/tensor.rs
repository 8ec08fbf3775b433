//! ONNX tensors as constants: every float type widened or narrowed to f32, every integer type to i64.

use half::{bf16, f16};

use super::external::is_external;
use super::proto::Tensor;
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, MAX_RANK};

/// What an element type is to the importer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Float,
    Integer,
}

pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT8: i32 = 3;
pub(super) const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;
const FLOAT16: i32 = 10;
const DOUBLE: i32 = 11;
const BFLOAT16: i32 = 16;

/// How messages name an element type.
pub(super) fn name(data_type: i32) -> String {
    const NAMES: [&str; 24] = [
        "undefined",
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "float64",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
    ];
    let known = usize::try_from(data_type).ok().and_then(|index| NAMES.get(index));
    known.map_or_else(|| format!("ONNX type {data_type}"), |name| name.to_string())
}

/// `None` for types that no network here needs.
pub(super) fn element(data_type: i32) -> Option<Element> {
    match data_type {
        FLOAT | FLOAT16 | BFLOAT16 | DOUBLE => Some(Element::Float),
        UINT8 | INT8 | INT32 | INT64 | BOOL => Some(Element::Integer),
        _ => None,
    }
}

/// The tensor's elements; `place` is its name in messages.
pub(super) fn constant(tensor: &Tensor, place: &str) -> Result<Constant, Refusal> {
    let damaged = |reason: String| Refusal::new(ErrorKind::Damaged, place, reason);
    if is_external(tensor) {
        let reason = "its elements are in another file, as only an initializer's may";
        return Err(Refusal::new(ErrorKind::ExternalData, place, reason)
            .help("save the model whole: onnx.save(onnx.load('model.onnx'), 'whole.onnx')"));
    }
    if tensor.dims.len() > MAX_RANK {
        let rank = tensor.dims.len();
        return Err(Refusal::new(ErrorKind::Shape, place, format!("has {rank} axes, more than {MAX_RANK}")));
    }
    let dims: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&size| usize::try_from(size).map_err(|_| damaged(format!("has a size of {size}"))))
        .collect::<Result<_, _>>()?;
    let data = match &tensor.raw_data {
        Some(raw) => from_bytes(raw, tensor.data_type),
        None => from_fields(tensor),
    };
    let data = data.ok_or_else(|| unknown_type(tensor.data_type, place))?.map_err(damaged)?;
    let count = match &data {
        Data::Float(values) => values.len(),
        Data::Integer(values) => values.len(),
    };
    Constant::new(dims, data)
        .ok_or_else(|| damaged(format!("has {count} elements, but sizes {:?}", tensor.dims)))
}

fn unknown_type(data_type: i32, place: &str) -> Refusal {
    let reason = format!("has elements of type {}, which no network here needs", name(data_type));
    Refusal::new(ErrorKind::Operator, place, reason)
        .help("float weights may be f32, f16, bf16 or f64, quantized ones and activations int8 or uint8")
}

/// Fixed-width little-endian elements. `None` if the type is unknown.
fn from_bytes(raw: &[u8], data_type: i32) -> Option<Result<Data, String>> {
    fn read<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
        let (chunks, rest) = raw.as_chunks::<N>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|&chunk| convert(chunk)).collect())
        } else {
            Err(format!("has {} bytes, no multiple of its {N}-byte elements", raw.len()))
        }
    }
    Some(match data_type {
        FLOAT => read(raw, f32::from_le_bytes).map(Data::Float),
        FLOAT16 => read(raw, |b| f16::from_le_bytes(b).to_f32()).map(Data::Float),
        BFLOAT16 => read(raw, |b| bf16::from_le_bytes(b).to_f32()).map(Data::Float),
        DOUBLE => read(raw, |b| f64::from_le_bytes(b) as f32).map(Data::Float),
        UINT8 | BOOL => read(raw, |[b]| i64::from(b)).map(Data::Integer),
        INT8 => read(raw, |b| i64::from(i8::from_le_bytes(b))).map(Data::Integer),
        INT32 => read(raw, |b| i64::from(i32::from_le_bytes(b))).map(Data::Integer),
        INT64 => read(raw, i64::from_le_bytes).map(Data::Integer),
        _ => return None,
    })
}

/// Elements in the field of their type; 16-bit floats are bit patterns in `int32_data`.
fn from_fields(tensor: &Tensor) -> Option<Result<Data, String>> {
    let narrow = |convert: fn(u16) -> f32| {
        let values = tensor.int32_data.iter().map(|&bits| u16::try_from(bits).map(convert));
        let values: Result<Vec<f32>, _> = values.collect();
        values.map(Data::Float).map_err(|_| "has a 16-bit float of more than 16 bits".to_string())
    };
    Some(match tensor.data_type {
        FLOAT => Ok(Data::Float(tensor.float_data.clone())),
        FLOAT16 => narrow(|bits| f16::from_bits(bits).to_f32()),
        BFLOAT16 => narrow(|bits| bf16::from_bits(bits).to_f32()),
        DOUBLE => Ok(Data::Float(tensor.double_data.iter().map(|&v| v as f32).collect())),
        UINT8 | BOOL | INT8 | INT32 => {
            Ok(Data::Integer(tensor.int32_data.iter().map(|&v| v.into()).collect()))
        }
        INT64 => Ok(Data::Integer(tensor.int64_data.clone())),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(data_type: i32, dims: &[i64], bytes: &[u8]) -> Result<Constant, Refusal> {
        let raw_data = Some(bytes.to_vec().into());
        constant(&Tensor { dims: dims.to_vec(), data_type, raw_data, ..Tensor::default() }, "t")
    }

    fn floats(values: &[f32]) -> Data {
        Data::Float(values.to_vec())
    }

    #[test]
    fn every_float_type_becomes_f32() {
        let expected = floats(&[1.5, -2.0]);
        let as_f32: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let as_f64: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(raw(FLOAT, &[2], &as_f32).unwrap().data, expected);
        assert_eq!(raw(DOUBLE, &[2], &as_f64).unwrap().data, expected);
        assert_eq!(raw(FLOAT16, &[2], &[0x00, 0x3e, 0x00, 0xc0]).unwrap().data, expected);
        assert_eq!(raw(BFLOAT16, &[2], &[0xc0, 0x3f, 0x00, 0xc0]).unwrap().data, expected);
        let typed = |tensor: Tensor| constant(&Tensor { dims: vec![2], ..tensor }, "t").unwrap().data;
        let bits = |data_type, bits: [i32; 2]| {
            typed(Tensor { data_type, int32_data: bits.to_vec(), ..Tensor::default() })
        };
        assert_eq!(bits(FLOAT16, [0x3e00, 0xc000]), expected);
        assert_eq!(bits(BFLOAT16, [0x3fc0, 0xc000]), expected);
        let double_data = vec![1.5, -2.0];
        assert_eq!(typed(Tensor { data_type: DOUBLE, double_data, ..Tensor::default() }), expected);
        let float_data = vec![1.5, -2.0];
        assert_eq!(typed(Tensor { data_type: FLOAT, float_data, ..Tensor::default() }), expected);
    }

    #[test]
    fn a_double_beyond_f32_becomes_infinite_and_is_caught_as_a_weight() {
        let values = raw(DOUBLE, &[1], &1e300f64.to_le_bytes()).unwrap();
        assert_eq!(values.data, floats(&[f32::INFINITY]));
    }

    #[test]
    fn wrong_lengths_and_types_are_refused() {
        let kind = |result: Result<Constant, Refusal>| result.unwrap_err().kind;
        assert_eq!(kind(raw(FLOAT, &[1], &[0; 5])), ErrorKind::Damaged);
        assert_eq!(kind(raw(FLOAT, &[2], &[0; 4])), ErrorKind::Damaged);
        assert_eq!(kind(raw(FLOAT, &[-1], &[0; 4])), ErrorKind::Damaged);
        assert_eq!(kind(raw(FLOAT, &[i64::MAX, i64::MAX], &[])), ErrorKind::Damaged);
        assert_eq!(kind(raw(FLOAT, &[1; 9], &[0; 4])), ErrorKind::Shape);
        assert_eq!(kind(raw(8, &[1], &[0; 4])), ErrorKind::Operator);
        let int32_data = vec![0x1_0000];
        let wide = Tensor { dims: vec![1], data_type: FLOAT16, int32_data, ..Tensor::default() };
        assert_eq!(kind(constant(&wide, "t")), ErrorKind::Damaged);
    }
}
