//! The arrays of the fixtures' `.npz` files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The bytes of an array behind NumPy's header, or `None` if the archive does not have it.
pub(crate) fn bytes(path: &Path, name: &str) -> Option<Vec<u8>> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).ok()?.read_to_end(&mut bytes).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    Some(bytes.split_off(10 + header))
}

/// An array of bytes.
pub(crate) fn images(path: &Path) -> Vec<u8> {
    bytes(path, "images").unwrap()
}

/// An array of f32.
pub(crate) fn floats(path: &Path, name: &str) -> Option<Vec<f32>> {
    let bytes = bytes(path, name)?;
    Some(bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
}

/// An array of i8.
pub(crate) fn integers(path: &Path, name: &str) -> Vec<i8> {
    bytes(path, name).unwrap().into_iter().map(u8::cast_signed).collect()
}
