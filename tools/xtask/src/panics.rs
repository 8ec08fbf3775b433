//! Checks at link time that nothing in the runtime can panic; if something can, names the functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind};

use crate::case::Case;
use crate::firmware::Build;
use crate::process;
use crate::toolchain::Toolchain;

/// The program that links only if it cannot panic.
const PROGRAM: &str = "panicfree";

/// The undefined function that its panic handler calls.
const HANDLER_CALLS: &str = "skipstone_panics";

/// If set, the build script defines that function.
const SHOW: &str = "SKIPSTONE_SHOW_PANICS";

/// Links the program with the runtime optimized for size, as in firmware-example's profile, and for speed. The error
/// names the functions that can panic.
pub(crate) fn check(case: &Case, toolchain: &Toolchain) -> Result<()> {
    for level in ["\"s\"", "3"] {
        let command = || {
            let mut command = toolchain.cargo("build");
            Build::emulated(PROGRAM, case).describe_to(&mut command);
            command.arg("--config").arg(format!("profile.release.package.skipstone.opt-level={level}"));
            command.args(["--quiet", "--bin", PROGRAM]);
            command
        };
        let Err(error) = process::output(&mut command()) else { continue };
        if !format!("{error:#}").contains(HANDLER_CALLS) {
            return Err(error.context(format!("building {PROGRAM}")));
        }
        let elf = process::cargo_build(command().env(SHOW, "1"))?;
        let elf = elf.first().with_context(|| format!("cargo did not build the program `{PROGRAM}`"))?;
        let holders = holders(elf)?.into_iter().collect::<Vec<_>>().join(", ");
        bail!(
            "the runtime can panic in {holders} (at opt-level {level})\n\
             help: `llvm-objdump -dlC {}` shows where these call core::panicking",
            elf.display()
        );
    }
    Ok(())
}

/// The functions that lead to a panic. Functions of `core`, and code that the compiler shares among functions, are
/// replaced by their callers.
fn holders(elf: &Path) -> Result<BTreeSet<String>> {
    let name = elf.display();
    let bytes = fs::read(elf).with_context(|| format!("reading {name}"))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{name} is not an ELF file"))?;
    // functions by address, without the last bit, which marks Thumb code
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        functions.insert(symbol.address() & !1, symbol.name().unwrap_or_default());
    }
    let function_at = |address: u64| functions.range(..=address & !1).next_back().map(|(_, name)| *name);
    let mut callers = BTreeMap::<&str, BTreeSet<String>>::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        for (address, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index)?;
            let called = match symbol.kind() {
                SymbolKind::Section => None,
                _ if symbol.name() == Ok(HANDLER_CALLS) => Some(HANDLER_CALLS),
                _ => function_at(symbol.address()),
            };
            if let (Some(called), Some(caller)) = (called, function_at(address)) {
                callers.entry(called).or_default().insert(caller.to_owned());
            }
        }
    }
    let (mut found, mut seen, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![HANDLER_CALLS.to_owned()]);
    while let Some(called) = next.pop() {
        for caller in callers.get(&*called).into_iter().flatten() {
            let readable = format!("{:#}", rustc_demangle::demangle(caller));
            let passes_on = ["core::", "<core::", "__rustc::", "OUTLINED_FUNCTION"];
            if !passes_on.iter().any(|prefix| readable.starts_with(prefix)) {
                found.insert(readable);
            } else if seen.insert(caller.clone()) {
                next.push(caller.clone());
            }
        }
    }
    Ok(found)
}
