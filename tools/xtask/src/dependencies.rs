//! What the crates are built from: dependencies as `deny.toml` wants them, and the oldest compiler.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::suite::Outcome;
use crate::toolchain::host_cargo;
use crate::{packaging, paths, process};

/// What cargo-deny checks without a database from the network.
const OFFLINE: &[&str] = &["bans", "licenses", "sources"];

/// Of `deny.toml`'s exceptions each workspace meets some.
const OTHERS_EXCEPTIONS: [&str; 3] =
    ["unmatched-skip", "unnecessary-skip", "license-exception-not-encountered"];

/// The oldest compiler that is promised: `rust-version` of the workspace.
const OLDEST_COMPILER: &str = env!("CARGO_PKG_RUST_VERSION");

/// `cargo xtask deny`: everything that cargo-deny checks, which is installed where it is missing.
pub(crate) fn deny() -> Result<()> {
    if !deny_is_installed() {
        println!("Missing, and to be installed: cargo-deny, which takes some minutes to compile");
        process::run(host_cargo().args(["install", "--locked", "cargo-deny"]))?;
    }
    check_all(OFFLINE)?;
    check_all(&["advisories"]).context(
        "no advisory was checked, or one applies (see above); the database is fetched from github.com/RustSec/advisory-db",
    )
}

/// The check of `cargo xtask test`: licences, sources and duplicates, where cargo-deny is installed.
pub(crate) fn check() -> Result<Outcome> {
    if !deny_is_installed() {
        return Ok(Outcome::skip(
            "cargo-deny is not installed: `cargo xtask deny` does that, in some minutes",
        ));
    }
    check_all(OFFLINE)?;
    Ok(Outcome::pass(format!(
        "{} of {} workspaces are as deny.toml wants them",
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

/// Manifests of the repository's workspaces.
fn workspaces() -> Vec<PathBuf> {
    let manifests =
        [paths::root(), paths::firmware(), paths::root().join("fuzz")].map(|path| path.join("Cargo.toml"));
    manifests.into_iter().filter(|manifest| manifest.is_file()).collect()
}

/// `cargo xtask msrv`: every crate of the workspace builds with the oldest compiler, which rustup installs where it is
/// missing.
pub(crate) fn msrv() -> Result<()> {
    if oldest_compiler().is_none() {
        println!("Missing, and to be installed: Rust {OLDEST_COMPILER}, the oldest that is promised");
        let arguments = ["toolchain", "install", OLDEST_COMPILER, "--profile", "minimal"];
        process::run(Command::new("rustup").args(arguments))?;
    }
    process::run(oldest_cargo().args(["check", "--workspace", "--all-features"]))?;
    println!("Every crate builds with {}", oldest_compiler().unwrap_or_default());
    Ok(())
}

/// The check of `cargo xtask test`: what goes into firmware builds with the oldest compiler, where that is installed.
pub(crate) fn check_oldest_compiler() -> Result<Outcome> {
    let Some(compiler) = oldest_compiler() else {
        return Ok(Outcome::skip(format!(
            "Rust {OLDEST_COMPILER} is not installed: `cargo xtask msrv` does that"
        )));
    };
    for features in packaging::feature_sets()? {
        process::run(oldest_cargo().args(["check", "--quiet", "--package", "skipstone"]).args(features))?;
    }
    Ok(Outcome::pass(format!("the runtime builds with {compiler}, each feature alone and all together")))
}

/// The oldest compiler's version, where rustup has it.
fn oldest_compiler() -> Option<String> {
    let version = process::probe("rustup", &["run", OLDEST_COMPILER, "rustc", "--version"])?;
    Some(version.trim().to_string())
}

fn oldest_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", OLDEST_COMPILER, "cargo"]).current_dir(paths::root());
    // what the outer cargo says about its own toolchain
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}
