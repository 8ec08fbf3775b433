//! The Rust toolchain for the firmware: rustup's with the target installed, or Debian's, which builds `core`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{paths, process};

/// The oldest compiler that builds the firmware: the workspace's `rust-version`, as major and minor version.
const OLDEST: (u32, u32) = (1, 88);

/// Where Debian's packages install programs.
const DEBIAN: &str = "/usr/bin";

/// A cargo that can build for a target without an operating system.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    target: &'static str,
    rust: Rust,
}

/// Where a toolchain comes from.
#[derive(Clone, Debug)]
enum Rust {
    /// The cargo that runs this program. `core` for the target is installed.
    Installed,
    /// Debian's cargo and rustc. `core` is built from Debian's source package.
    Debian {
        /// A linker for the target, which Debian's rustc does not include.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// A toolchain that can build for the target, if there is one.
    pub(crate) fn find(target: &'static str) -> Option<Toolchain> {
        if !debian_forced() && is_installed(target) {
            return Some(Toolchain { target, rust: Rust::Installed });
        }
        if !debian_compiler() {
            return None;
        }
        Some(Toolchain { target, rust: Rust::Debian { linker: linker()? } })
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        match &self.rust {
            Rust::Installed => format!("the installed Rust toolchain, with {}", self.target),
            Rust::Debian { linker } => {
                format!(
                    "Debian's Rust in {DEBIAN}, which builds `core` from source, with {}",
                    linker.display()
                )
            }
        }
    }

    /// Whether it is Debian's, which has no clippy.
    pub(crate) fn is_debian(&self) -> bool {
        matches!(self.rust, Rust::Debian { .. })
    }

    /// The version of its compiler.
    pub(crate) fn compiler(&self) -> Result<String> {
        let rustc = match self.rust {
            Rust::Installed => PathBuf::from("rustc"),
            Rust::Debian { .. } => Path::new(DEBIAN).join("rustc"),
        };
        Ok(process::output(Command::new(rustc).arg("--version"))?.trim().to_string())
    }

    /// `cargo SUBCOMMAND` in the firmware's workspace, for the target.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self.rust {
            Rust::Installed => host_cargo(),
            Rust::Debian { .. } => Command::new(Path::new(DEBIAN).join("cargo")),
        };
        command.current_dir(paths::firmware()).args([subcommand, "--target", self.target]);
        if let Rust::Debian { linker } = &self.rust {
            // `-Zbuild-std` is unstable; the firmware itself is stable Rust.
            command.arg("-Zbuild-std=core,alloc").env("RUSTC_BOOTSTRAP", "1");
            command.env("RUSTC", Path::new(DEBIAN).join("rustc"));
            let triple = self.target.to_uppercase().replace(['-', '.'], "_");
            command.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
            command.env("PATH", path_from(DEBIAN));
            // rustup and the outer cargo set these for their own compiler.
            for name in ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO", "RUSTC_WRAPPER"] {
                command.env_remove(name);
            }
        }
        command
    }
}

/// The cargo that runs this program.
pub(crate) fn host_cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// rustup's nightly toolchain, which fuzzing and sanitizers need.
#[derive(Clone, Debug)]
pub(crate) struct Nightly;

impl Nightly {
    /// The toolchain; the error says how to install it.
    pub(crate) fn find() -> Result<Nightly> {
        process::probe("rustup", &["run", "nightly", "cargo", "--version"])
            .map(|_| Nightly)
            .context("this needs Rust's nightly toolchain: run `rustup toolchain install nightly`")
    }

    /// Its cargo.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]).current_dir(paths::root());
        // the outer cargo sets these for its own compiler
        for name in ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "CARGO", "RUSTC", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command
    }
}

/// Whether the user wants Debian's toolchain even if rustup's has the target.
pub(crate) fn debian_forced() -> bool {
    env::var_os("SKIPSTONE_SETUP").is_some_and(|value| value == "debian")
}

/// Whether Debian's cargo, rustc and the sources of `core` are installed and new enough.
pub(crate) fn debian_compiler() -> bool {
    let rustc = Path::new(DEBIAN).join("rustc");
    let new_enough =
        process::probe(&rustc, &["--version"]).is_some_and(|text| version(&text) >= Some(OLDEST));
    let sources = sysroot(rustc).map(|path| path.join("lib/rustlib/src/rust/library/core/Cargo.toml"));
    new_enough && Path::new(DEBIAN).join("cargo").is_file() && sources.is_some_and(|path| path.is_file())
}

/// A linker for the target: rustup's or LLVM's.
pub(crate) fn linker() -> Option<PathBuf> {
    let bundled = sysroot("rustc").and_then(|sysroot| {
        let version = process::probe("rustc", &["--version", "--verbose"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "))?;
        Some(sysroot.join("lib/rustlib").join(host).join("bin/rust-lld"))
    });
    let system = (14..40).rev().map(|version| format!("ld.lld-{version}"));
    let system = std::iter::once("ld.lld".to_string()).chain(system);
    let system = system.map(|name| Path::new(DEBIAN).join(name));
    bundled.into_iter().chain(system).find(|path| path.is_file())
}

fn sysroot(rustc: impl Into<PathBuf>) -> Option<PathBuf> {
    process::probe(rustc, &["--print", "sysroot"]).map(|text| PathBuf::from(text.trim()))
}

/// Whether rustup's toolchain has `core` for this target.
pub(crate) fn is_installed(target: &str) -> bool {
    sysroot("rustc").is_some_and(|path| path.join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Major and minor version in `rustc 1.95.0 (...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// PATH, with a folder added in front.
fn path_from(folder: &str) -> OsString {
    let rest = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from(folder)).chain(env::split_paths(&rest));
    env::join_paths(folders).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_rustc() {
        assert_eq!(version("rustc 1.95.0 (59807616e 2026-04-14)"), Some((1, 95)));
        assert_eq!(version("rustc 1.96.0 (ac68faa20) (built from a source tarball)"), Some((1, 96)));
        assert_eq!(version("rustc"), None);
    }
}
