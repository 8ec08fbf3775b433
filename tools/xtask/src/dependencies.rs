//! Checks the dependencies against `deny.toml`, and that the crates build with the oldest supported compiler.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::suite::Outcome;
use crate::toolchain::host_cargo;
use crate::{packaging, paths, process};

/// cargo-deny's checks that need no network.
const OFFLINE: &[&str] = &["bans", "licenses", "sources"];

/// Lints of cargo-deny about unused exceptions: each workspace uses only some of `deny.toml`'s.
const OTHERS_EXCEPTIONS: [&str; 3] =
    ["unmatched-skip", "unnecessary-skip", "license-exception-not-encountered"];

/// The oldest supported compiler: `rust-version` of the workspace.
const OLDEST_COMPILER: &str = env!("CARGO_PKG_RUST_VERSION");

/// `cargo xtask deny`: all checks of cargo-deny, which is installed if it is missing.
pub(crate) fn deny() -> Result<()> {
    if !deny_is_installed() {
        println!("Installing cargo-deny, which takes a few minutes to compile");
        process::run(host_cargo().args(["install", "--locked", "cargo-deny"]))?;
    }
    check_all(OFFLINE)?;
    check_all(&["advisories"])
        .context("an advisory applies, or the advisory database could not be fetched from GitHub (see above)")
}

/// The check of `cargo xtask test`: licences, sources and duplicates. Skipped if cargo-deny is not installed.
pub(crate) fn check() -> Result<Outcome> {
    if !deny_is_installed() {
        return Ok(Outcome::skip("cargo-deny is not installed; `cargo xtask deny` installs it"));
    }
    check_all(OFFLINE)?;
    Ok(Outcome::pass(format!(
        "{} of {} workspaces comply with deny.toml",
        OFFLINE.join(", "),
        workspaces().len()
    )))
}

fn check_all(what: &[&str]) -> Result<()> {
    for manifest in workspaces() {
        let mut command = host_cargo();
        command.args(["deny", "--workspace", "--locked", "--manifest-path"]).arg(manifest);
        command.arg("--config").arg(paths::root().join("deny.toml")).arg("check");
        command.args(OTHERS_EXCEPTIONS.iter().flat_map(|lint| ["--allow", lint])).args(what);
        process::run(&mut command)?;
    }
    Ok(())
}

fn deny_is_installed() -> bool {
    process::output(host_cargo().args(["deny", "--version"])).is_ok()
}

/// The manifests of the repository's workspaces.
fn workspaces() -> Vec<PathBuf> {
    let manifests =
        [paths::root(), paths::firmware(), paths::root().join("fuzz")].map(|path| path.join("Cargo.toml"));
    manifests.into_iter().filter(|manifest| manifest.is_file()).collect()
}

/// `cargo xtask msrv`: builds every crate of the workspace with the oldest compiler, which is installed if it is
/// missing.
pub(crate) fn msrv() -> Result<()> {
    if oldest_compiler().is_none() {
        println!("Installing Rust {OLDEST_COMPILER}, the oldest supported version");
        let arguments = ["toolchain", "install", OLDEST_COMPILER, "--profile", "minimal"];
        process::run(Command::new("rustup").args(arguments))?;
    }
    process::run(oldest_cargo().args(["check", "--workspace", "--all-features"]))?;
    println!("Every crate builds with {}", oldest_compiler().unwrap_or_default());
    Ok(())
}

/// The check of `cargo xtask test`: the runtime builds with the oldest compiler. Skipped if that is not installed.
pub(crate) fn check_oldest_compiler() -> Result<Outcome> {
    let Some(compiler) = oldest_compiler() else {
        return Ok(Outcome::skip(format!(
            "Rust {OLDEST_COMPILER} is not installed; `cargo xtask msrv` installs it"
        )));
    };
    for features in packaging::feature_sets()? {
        process::run(oldest_cargo().args(["check", "--quiet", "--package", "skipstone"]).args(features))?;
    }
    Ok(Outcome::pass(format!(
        "the runtime builds with {compiler}, without features, with each one and with all"
    )))
}

/// The version of the oldest compiler, if rustup has it.
fn oldest_compiler() -> Option<String> {
    let version = process::probe("rustup", &["run", OLDEST_COMPILER, "rustc", "--version"])?;
    Some(version.trim().to_string())
}

fn oldest_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", OLDEST_COMPILER, "cargo"]).current_dir(paths::root());
    // the outer cargo sets these for its own compiler
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}
