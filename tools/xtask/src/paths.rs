//! Paths in the repository.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable to the current location; otherwise, the location at compile time.
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The firmware's workspace.
pub(crate) fn firmware() -> PathBuf {
    root().join("firmware-example")
}

/// Trained networks and their test images.
pub(crate) fn models() -> PathBuf {
    root().join("models")
}

/// Output of the demo and the checks, which firmware-example's build script reads by default.
pub(crate) fn output() -> PathBuf {
    root().join("target").join("demo")
}
