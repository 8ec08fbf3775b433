//! The blob on the host: its aligned bytes, and files of them.

use std::io::Write;
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, bail};

/// Bytes aligned to 16, as a blob must lie in memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob {
    words: Vec<u128>,
    len: usize,
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        let mut words = vec![0u128; bytes.len().div_ceil(size_of::<u128>())];
        bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Blob { words, len: bytes.len() }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

impl Blob {
    /// Reads a file.
    ///
    /// # Errors
    /// Where the file cannot be read; its content is not looked at.
    pub fn read(path: &Path) -> anyhow::Result<Blob> {
        let bytes =
            std::fs::read(path).with_context(|| format!("{}: cannot read the blob", path.display()))?;
        Ok(Blob::from(&bytes[..]))
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// Where the folder of `path` does not exist or cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_atomically(path, self)
    }
}

/// Writes a file whole or not at all: a temporary file beside it, then a rename.
///
/// # Errors
/// Where the folder of `path` does not exist or cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{}: is a folder; name a file to write", path.display());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = || format!("{}: cannot write there; does the folder exist?", path.display());
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}
