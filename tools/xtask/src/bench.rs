//! `cargo xtask bench`: what one picture costs on the emulated Cortex-M4.

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Tool};
use crate::firmware::Build;
use crate::report::Report;
use crate::{emulator, flash_size, setup};

/// The command.
pub(crate) fn run(as_json: bool) -> Result<()> {
    let toolchain = setup::ensure()?;
    let case = Case::photo(&Tool::build()?)?;
    let elf = Build::emulated("demo", &case).run(&toolchain)?;
    let report = Report::new(emulator::run(&elf, |_| {})?.succeeded()?);
    let (instructions, code_bytes) = (report.number("run")?, flash_size::code_bytes(&elf, &case)?);
    let facts = &case.facts;
    if as_json {
        let result = json!([{
            "network": case.name,
            "instructions": instructions,
            "macs": facts.macs,
            "arena_bytes": facts.arena_bytes_rows,
            "blob_bytes": facts.blob_bytes,
            "code_bytes": code_bytes,
            "stack_bytes": report.number("stack")?,
        }]);
        println!("{result:#}");
        return Ok(());
    }
    let per_mac = instructions as f64 / facts.macs as f64;
    println!("{}, one picture, Cortex-M4 (emulated, exact to 40 instructions)", case.name);
    println!("{instructions:>12} instructions, {per_mac:.2} per MAC ({} MACs)", facts.macs);
    println!("{:>12} B of arena, fed by rows", facts.arena_bytes_rows);
    println!("{:>12} B of stack at the deepest", report.number("stack")?);
    println!("{:>12} B of flash for the model", facts.blob_bytes);
    println!("{code_bytes:>12} B of flash for code and constants");
    Ok(())
}
