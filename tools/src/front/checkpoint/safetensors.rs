//! safetensors files: named tensors of f32, f16, bf16 or f64, all brought to f32.

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::tensors::{Checkpoint, Entry};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data};

/// Whether the bytes begin like a safetensors file: the header's length, then its JSON.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    // No header is longer than 2^32 bytes, so that four bytes are zero.
    bytes.get(4..8) == Some(&[0; 4]) && bytes.get(8) == Some(&b'{')
}

/// The file's tensors.
pub(crate) fn read(bytes: &[u8]) -> Result<Checkpoint, Refusal> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        Refusal::new(ErrorKind::Damaged, "", format!("is a damaged safetensors file: {error}"))
            .help("the file may be cut short: compare its size with the original's")
    })?;
    let mut checkpoint = Checkpoint::default();
    for (name, view) in file.iter() {
        let entry = match floats(view.dtype(), view.data()) {
            Some(values) => {
                let constant = Constant::new(view.shape().to_vec(), Data::Float(values));
                let place = || format!("tensor '{name}'");
                Entry::Float(constant.ok_or_else(|| {
                    let reason = format!("has sizes {:?}, which are not possible", view.shape());
                    Refusal::new(ErrorKind::Damaged, place(), reason)
                })?)
            }
            None => Entry::Other(format!("{:?}", view.dtype())),
        };
        checkpoint.insert(name, entry);
    }
    Ok(checkpoint.without_wrappers())
}

/// Elements as f32; `None` for types that weights do not have.
pub(crate) fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    fn read<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        data.as_chunks().0.iter().map(|&chunk| convert(chunk)).collect()
    }
    match dtype {
        Dtype::F32 => Some(read(data, f32::from_le_bytes)),
        Dtype::F16 => Some(read(data, |bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => Some(read(data, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        Dtype::F64 => Some(read(data, |bytes| f64::from_le_bytes(bytes) as f32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_float_type_becomes_f32() {
        let header = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},
            "b":{"dtype":"BF16","shape":[1,1],"data_offsets":[2,4]},
            "c":{"dtype":"I64","shape":[],"data_offsets":[4,12]}}"#;
        let mut data = vec![0x00, 0x3e, 0xc0, 0x3f];
        data.extend([0; 8]);
        let bytes = file(header, &data);
        assert!(is_safetensors(&bytes));
        let tensors = read(&bytes).unwrap();
        assert_eq!(tensors.get("a").unwrap().data, Data::Float(vec![1.5]));
        assert_eq!(tensors.get("b").unwrap().dims, [1, 1]);
        assert_eq!(tensors.get("b").unwrap().data, Data::Float(vec![1.5]));
        assert_eq!(tensors.get("c").unwrap_err().kind, ErrorKind::Value);
    }

    #[test]
    fn damage_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let whole = file(header, &[0; 8]);
        assert!(read(&whole).is_ok());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]).unwrap_err().kind, ErrorKind::Damaged);
        }
        let wrong = header.replace("[2]", "[3]");
        assert_eq!(read(&file(&wrong, &[0; 8])).unwrap_err().kind, ErrorKind::Damaged);
    }
}
