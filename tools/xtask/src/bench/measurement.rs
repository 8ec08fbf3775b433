//! Measures one network in one mode in both emulators.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cycles::{Cost, Counter};
use super::layers;
use crate::case::Case;
use crate::firmware::Build;
use crate::report::Report;
use crate::toolchain::Toolchain;
use crate::{emulator, flash_size};

/// Maximum difference between the two emulators' counts, in instructions. QEMU's count starts and ends at a tick of
/// 40 instructions, and includes the calls around the run and a few instructions at each overflow of its clock.
const AGREEMENT: u64 = 80;

/// Builds the bench firmware and runs it in QEMU; an error if its scores differ from the host's.
pub(crate) fn emulate(case: &Case, toolchain: &Toolchain) -> Result<(PathBuf, Report)> {
    let elf = Build::emulated("bench", case).run(toolchain)?;
    let report = Report::new(emulator::run(&elf, |_| {})?.succeeded()?);
    let (board, host) = (report.text("scores")?, &case.on_host()?.scores[0]);
    ensure!(board == host, "{}: scores differ:\nboard {board}\nhost  {host}", case.name);
    Ok((elf, report))
}

/// One network in one mode, measured.
pub(crate) struct Measurement {
    pub(crate) network: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) case: Case,
    /// Cost of the run; QEMU counted the instructions.
    pub(crate) run: Cost,
    pub(crate) parse_instructions: u64,
    pub(crate) set_up_instructions: u64,
    pub(crate) verify_instructions: u64,
    pub(crate) code_bytes: u64,
    pub(crate) stack_bytes: u64,
    /// Cost of each layer.
    pub(crate) layers: Vec<Cost>,
    /// Cost of everything outside the layers.
    pub(crate) rest: Cost,
}

impl Measurement {
    /// Runs a case in both emulators; an error if their counts disagree.
    pub(crate) fn take(
        network: &'static str,
        mode: &'static str,
        case: Case,
        toolchain: &Toolchain,
        counter: &Counter,
    ) -> Result<Measurement> {
        let (elf, report) = emulate(&case, toolchain)?;
        let counted = counter.count(&elf)?;
        let instructions = report.number("run")?;
        ensure!(
            instructions.abs_diff(counted.total.instructions) <= AGREEMENT,
            "{}: QEMU counted {instructions} instructions, m4cycles.py {}",
            case.name,
            counted.total.instructions
        );
        let (layers, rest) = layers::attribute(&case, &counted).with_context(|| case.name.clone())?;
        Ok(Measurement {
            network,
            mode,
            run: Cost { instructions, cycles: counted.total.cycles },
            parse_instructions: report.number("parse")?,
            set_up_instructions: report.number("set up")?,
            verify_instructions: report.number("verify")?,
            code_bytes: flash_size::code_bytes(&elf, &case)?,
            stack_bytes: report.number("stack")?,
            case,
            layers,
            rest,
        })
    }

    /// An error unless the planner's prediction is within 10 % of the measured cycles.
    pub(crate) fn check_prediction(&self) -> Result<()> {
        let (predicted, measured) = (self.case.facts.cycles, self.run.cycles);
        ensure!(
            predicted.abs_diff(measured) <= measured / 10,
            "{}: predicted {predicted} cycles, measured {measured}: update the coefficients in src/net/cost.rs",
            self.case.name
        );
        Ok(())
    }

    /// One line, for the outcome of a check.
    pub(crate) fn summary(&self) -> String {
        let Cost { instructions, cycles } = self.run;
        let layers = self.layers.len();
        format!("{instructions} instructions in both emulators, {cycles} model cycles, {layers} layers")
    }

    pub(crate) fn json(&self) -> Value {
        let facts = &self.case.facts;
        let layers = facts.layers.iter().zip(&self.layers).map(|(layer, cost)| {
            let Cost { instructions, cycles } = cost;
            json!({"name": layer.name, "macs": layer.macs, "instructions": instructions, "cycles": cycles})
        });
        json!({
            "network": self.network,
            "mode": self.mode,
            "instructions": self.run.instructions,
            "cycles": self.run.cycles,
            "predicted_cycles": facts.cycles,
            "macs": facts.macs,
            "arena_bytes": facts.arena_bytes,
            "arena_bytes_rows": facts.arena_bytes_rows,
            "blob_bytes": facts.blob_bytes,
            "code_bytes": self.code_bytes,
            "stack_bytes": self.stack_bytes,
            "parse_instructions": self.parse_instructions,
            "set_up_instructions": self.set_up_instructions,
            "verify_instructions": self.verify_instructions,
            "layers": layers.collect::<Vec<_>>(),
        })
    }
}
