//! Reading a model's files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{ErrorKind, Refusal};

/// Larger files are refused: no network for a microcontroller is near.
const MAX_BYTES: u64 = 1 << 29;

/// A regular file's bytes.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Refusal> {
    let refuse = |reason: String| Refusal::new(ErrorKind::File, "", reason);
    let failed = |error: std::io::Error| refuse(format!("cannot be read: {error}"));
    // Before it is opened: opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(refuse("is not a file".into()).help("give a model file"));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refuse(format!(
            "is larger than {} MB; networks for microcontrollers are far smaller",
            MAX_BYTES >> 20
        )));
    }
    Ok(bytes)
}
