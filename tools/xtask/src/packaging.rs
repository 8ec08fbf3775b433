//! The runtime as its users get it: the packaged crate builds alone, and its documentation has no broken links.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::suite::Outcome;
use crate::toolchain::host_cargo;
use crate::{paths, process};

/// The crate that is published.
const CRATE: &str = "skipstone";

/// Makes broken links and all other warnings of rustdoc errors.
const RUSTDOC_FLAGS: (&str, &str) = ("RUSTDOCFLAGS", "-D warnings");

/// Packages the crate, unpacks it, and compiles its documentation and its tests there.
pub(crate) fn check() -> Result<Outcome> {
    // Offline: whatever the crate needs has been fetched to build this program and the tests.
    let package = ["package", "--quiet", "--package", CRATE, "--allow-dirty", "--no-verify", "--offline"];
    process::run(host_cargo().args(package))?;
    let name = format!("{CRATE}-{}", env!("CARGO_PKG_VERSION"));
    let archive = target().join("package").join(format!("{name}.crate"));
    let unpacked = unpack(&archive, &name)?;
    for arguments in [&["doc", "--all-features", "--no-deps"][..], &["test", "--no-run"]] {
        let mut command = host_cargo();
        command.current_dir(&unpacked).args(arguments);
        command.args(["--quiet", "--offline", "--target-dir"]).arg(target());
        process::run(command.env(RUSTDOC_FLAGS.0, RUSTDOC_FLAGS.1))?;
    }
    let bytes = fs::metadata(&archive).with_context(|| format!("reading {}", archive.display()))?.len();
    Ok(Outcome::pass(format!(
        "documentation and tests of {name} compile from its {} KiB",
        bytes.div_ceil(1024)
    )))
}

/// Unpacks the archive below the target directory; returns the folder of the crate.
fn unpack(archive: &Path, name: &str) -> Result<PathBuf> {
    let folder = target().join("unpacked");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    process::run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&folder))?;
    let unpacked = folder.join(name);
    let manifest = unpacked.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    // A workspace of its own: cargo would otherwise take it for a member of the repository's. Profiles of
    // packages that it does not have are warnings.
    let text = text.split("\n[profile.").next().unwrap_or(&text);
    fs::write(&manifest, format!("{text}\n[workspace]\n"))
        .with_context(|| format!("writing {}", manifest.display()))?;
    Ok(unpacked)
}

/// Compiles the documentation: of the workspace with all features, of the runtime with each set of features.
pub(crate) fn check_documentation() -> Result<Outcome> {
    let mut command = host_cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps", "--lib", "--all-features"]);
    process::run(command.env(RUSTDOC_FLAGS.0, RUSTDOC_FLAGS.1))?;
    let sets = feature_sets()?;
    let mut broken = Vec::new();
    for features in &sets {
        let mut command = host_cargo();
        command.args(["doc", "--quiet", "--package", CRATE, "--no-deps", "--lib"]).args(features);
        if let Err(error) = process::run(command.env(RUSTDOC_FLAGS.0, RUSTDOC_FLAGS.1)) {
            println!("{error:#}");
            broken.push(features.join(" "));
        }
    }
    ensure!(broken.is_empty(), "rustdoc warns about {CRATE} with {}", broken.join("; "));
    Ok(Outcome::pass(format!("no warnings with {} sets of features", sets.len())))
}

/// cargo's arguments for each set of the runtime's features: none, each alone, all.
pub(crate) fn feature_sets() -> Result<Vec<Vec<String>>> {
    let text =
        process::output(host_cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&text).context("`cargo metadata` printed invalid JSON")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == CRATE);
    let features = package.and_then(|package| package["features"].as_object());
    let features = features.with_context(|| format!("`cargo metadata` lists no features of {CRATE}"))?;
    let mut sets = vec![vec!["--no-default-features".to_string()]];
    for feature in features.keys().filter(|feature| *feature != "default") {
        sets.push(vec!["--no-default-features".to_string(), "--features".to_string(), feature.clone()]);
    }
    sets.push(vec!["--all-features".to_string()]);
    Ok(sets)
}

fn target() -> PathBuf {
    paths::root().join("target")
}
