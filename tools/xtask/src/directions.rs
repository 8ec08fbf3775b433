//! Checks the direction of imports: no module imports one above it, and no files import each other.

mod circles;
mod modules;
mod references;
mod resolve;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use self::modules::Tree;
use self::resolve::Import;
use crate::paths;
use crate::suite::Outcome;

/// A folder of Rust files and the order of its top-level modules.
struct Layers {
    folder: &'static str,
    /// Name of the library crate, by which `main.rs` in the same folder imports it.
    library: &'static str,
    /// From bottom to top: a module imports only what is before it. If empty, only circles are checked.
    order: &'static [&'static str],
}

/// Every folder that is checked.
const LAYERS: [Layers; 3] = [
    Layers {
        folder: "src",
        library: "skipstone",
        order: &["base", "ops", "kernels", "net", "blob", "run", "lib"],
    },
    Layers {
        folder: "tools/src",
        library: "skipstone_tools",
        order: &[
            "blob",
            "signing",
            "ir",
            "picture",
            "data",
            "float",
            "calibrate",
            "front",
            "fit",
            "quantize",
            "plan",
            "assemble",
            "layerwise",
            "convert",
            "lib",
            "commands",
            "main",
        ],
    },
    Layers { folder: "tools/xtask/src", library: "xtask", order: &[] },
];

/// The check of `cargo xtask test`.
pub(crate) fn check() -> Result<Outcome> {
    let (mut files, mut imports, mut violations) = (0, 0, Vec::new());
    for layers in &LAYERS {
        let sources = read(&paths::root().join(layers.folder))?;
        files += sources.len();
        imports += examine(layers, &sources, &mut violations)?;
    }
    violations.iter().for_each(|violation| println!("{violation}"));
    if violations.is_empty() {
        return Ok(Outcome::pass(format!("{imports} imports among {files} files, all in one direction")));
    }
    bail!("{} violations of the module order", violations.len());
}

/// Adds a message for each violation in one folder; returns its number of imports.
fn examine(
    layers: &Layers,
    sources: &BTreeMap<String, String>,
    violations: &mut Vec<String>,
) -> Result<usize> {
    let tree = Tree::parse(sources, layers.library).with_context(|| layers.folder.to_string())?;
    ensure!(tree.has_modules(), "{}: no lib.rs or main.rs", layers.folder);
    let imports = resolve::imports(&tree);
    violations.extend(upward(layers, &imports));
    for circle in circles::find(&imports) {
        violations.push(describe(layers.folder, &circle));
    }
    Ok(imports.len())
}

/// A message for each import from a module that is above the importing one, and for each module without a rank.
fn upward(layers: &Layers, imports: &[Import]) -> Vec<String> {
    let Layers { folder, order, .. } = layers;
    if order.is_empty() {
        return Vec::new();
    }
    let rank = |module: &str| order.iter().position(|name| *name == module);
    let (mut messages, mut unranked) = (Vec::new(), BTreeMap::new());
    for import in imports {
        let Import { from, line, to, path } = import;
        let [importing, imported] = [from, to].map(|file| top_level(file));
        for module in [importing, imported].into_iter().filter(|module| rank(module).is_none()) {
            unranked.entry(module).or_insert((from, line));
        }
        if let (Some(lower), Some(upper)) = (rank(importing), rank(imported))
            && lower < upper
        {
            messages.push(format!(
                "{folder}/{from}:{line}: `{importing}` imports `{imported}`, which is above it: {path}, \
                 defined in {folder}/{to}\n  order from bottom to top: {}",
                order.join(", ")
            ));
        }
    }
    messages.extend(unranked.into_iter().map(|(module, (file, line))| {
        format!(
            "{folder}/{file}:{line}: `{module}` has no place in the order of {folder}: \
             add it to LAYERS in tools/xtask/src/directions.rs"
        )
    }));
    messages
}

/// A circle as a chain of imports, one per line.
fn describe(folder: &str, circle: &[&Import]) -> String {
    let mut message = format!("{folder}: {} files import each other in a circle", circle.len());
    for Import { from, line, to, path } in circle {
        message += &format!("\n  {folder}/{from}:{line} imports {folder}/{to}: {path}");
    }
    message
}

/// The top-level module that a file belongs to: `data` for `data.rs` and `data/folder.rs`.
fn top_level(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The Rust files below a folder, by their path in it.
fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut sources = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(prefix) = pending.pop() {
        let listed = folder.join(&prefix);
        let entries = fs::read_dir(&listed).with_context(|| format!("listing {}", listed.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                pending.push(name + "/");
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(entry.path())
                    .with_context(|| format!("reading {}", entry.path().display()))?;
                sources.insert(name, text);
            }
        }
    }
    Ok(sources)
}
