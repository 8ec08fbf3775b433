//! Storages and the tensors that lie in them: types, strides, offsets, and the elements as f32.

use std::borrow::Cow;

use super::span::Span;
use crate::front::checkpoint::safetensors;
use crate::front::graph::{Constant, Data, MAX_RANK, elements};

/// Type of a storage's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype(u8);

/// The class of a storage in front of `Storage`, the type's name, and an element's bytes.
const DTYPES: [(&str, &str, usize); 16] = [
    ("Float", "float32", 4),
    ("Half", "float16", 2),
    ("BFloat16", "bfloat16", 2),
    ("Double", "float64", 8),
    ("Long", "int64", 8),
    ("Int", "int32", 4),
    ("Short", "int16", 2),
    ("Char", "int8", 1),
    ("Byte", "uint8", 1),
    ("Bool", "bool", 1),
    ("Untyped", "untyped", 1),
    ("ComplexFloat", "complex64", 8),
    ("ComplexDouble", "complex128", 16),
    ("QInt8", "qint8", 1),
    ("QUInt8", "quint8", 1),
    ("QInt32", "qint32", 4),
];

impl Dtype {
    /// The type of a class of storages, as `FloatStorage`.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        let class = class.strip_suffix("Storage")?;
        let index = DTYPES.iter().position(|(name, ..)| *name == class)?;
        u8::try_from(index).ok().map(Dtype)
    }

    /// Whether PyTorch has a type of this name.
    pub(super) fn is_name(name: &str) -> bool {
        DTYPES.iter().any(|(_, dtype, _)| *dtype == name)
    }

    pub(super) fn name(self) -> &'static str {
        DTYPES[usize::from(self.0)].1
    }

    /// Bytes of an element.
    pub(super) fn bytes(self) -> usize {
        DTYPES[usize::from(self.0)].2
    }

    /// Whether weights have this type.
    pub(super) fn is_float(self) -> bool {
        self.float().is_some()
    }

    fn float(self) -> Option<::safetensors::Dtype> {
        use ::safetensors::Dtype::{BF16, F16, F32, F64};
        [F32, F16, BF16, F64].get(usize::from(self.0)).copied()
    }
}

/// Elements in a row, which tensors are views of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    pub(super) key: Span,
    /// Number of elements.
    pub(super) length: usize,
}

/// A view of a storage.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    /// Elements in front of the first.
    pub(super) offset: usize,
    pub(super) dims: Vec<usize>,
    /// Elements from one index of an axis to the next.
    pub(super) strides: Vec<usize>,
}

impl Tensor {
    /// The number of elements, all of which lie in the storage.
    pub(super) fn check(&self) -> Result<usize, String> {
        let Tensor { storage, offset, dims, strides } = self;
        if dims.len() != strides.len() || dims.len() > MAX_RANK {
            return Err(format!("has {} sizes and {} strides", dims.len(), strides.len()));
        }
        let count = elements(dims).ok_or_else(|| format!("has sizes {dims:?}, which are not possible"))?;
        let reach = dims.iter().zip(strides).try_fold(*offset, |reach, (&size, &stride)| {
            stride.checked_mul(size.saturating_sub(1)).and_then(|steps| reach.checked_add(steps))
        });
        if count > 0 && reach.is_none_or(|reach| reach >= storage.length) {
            return Err(format!(
                "sizes {dims:?}, strides {strides:?} and offset {offset} reach beyond its storage of {} elements",
                storage.length
            ));
        }
        Ok(count)
    }

    /// The elements in row-major order as f32, from the storage's bytes; the tensor is [checked](Self::check).
    pub(super) fn constant(&self, storage: &[u8]) -> Result<Constant, String> {
        let Tensor { storage: Storage { dtype, length, .. }, offset, dims, strides } = self;
        let size = dtype.bytes();
        if length.checked_mul(size).is_none_or(|needed| storage.len() < needed) {
            let found = storage.len();
            return Err(format!("its storage of {length} {} elements has {found} bytes", dtype.name()));
        }
        let count = self.check()?;
        let bytes = match count {
            0 => Cow::Borrowed(&[][..]),
            _ if self.is_contiguous() => {
                Cow::Borrowed(storage.get(offset * size..(offset + count) * size).unwrap_or_default())
            }
            _ => Cow::Owned(gather(storage, *offset, dims, strides, [count, size])),
        };
        let values = dtype.float().and_then(|dtype| safetensors::floats(dtype, &bytes)).unwrap_or_default();
        Constant::new(dims.clone(), Data::Float(values))
            .ok_or_else(|| "has fewer elements than its sizes".into())
    }

    fn is_contiguous(&self) -> bool {
        let mut step = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size <= 1 || stride == step;
            step *= size;
            fits
        })
    }
}

/// `count` elements of `size` bytes each, in row-major order.
fn gather(
    storage: &[u8],
    offset: usize,
    dims: &[usize],
    strides: &[usize],
    [count, size]: [usize; 2],
) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; dims.len()];
    for _ in 0..count {
        let at = offset + index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>();
        gathered.extend_from_slice(storage.get(at * size..(at + 1) * size).unwrap_or_default());
        for (place, &size) in index.iter_mut().zip(dims).rev() {
            *place += 1;
            if *place < size {
                break;
            }
            *place = 0;
        }
    }
    gathered
}
