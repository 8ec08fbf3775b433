//! How fields are decoded.

use serde::{Deserialize, Deserializer};

/// Decodes a field in a function of its own: inlined for every field, numbers would be most of the reader's
/// code.
#[inline(never)]
pub(crate) fn outlined<'de, T: Deserialize<'de>, D: Deserializer<'de>>(decoder: D) -> Result<T, D::Error> {
    T::deserialize(decoder)
}
