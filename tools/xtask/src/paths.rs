//! Where things are in the repository.

use std::env;
use std::path::{Path, PathBuf};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    // `cargo run` says where the package is now; what the compiler saw is for a copied program.
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The firmware's workspace.
pub(crate) fn firmware() -> PathBuf {
    root().join("firmware-example")
}

/// Networks, their weights and pictures.
pub(crate) fn models() -> PathBuf {
    root().join("models")
}

/// What the demo and the checks make; firmware-example's build script looks here too.
pub(crate) fn output() -> PathBuf {
    root().join("target").join("demo")
}
