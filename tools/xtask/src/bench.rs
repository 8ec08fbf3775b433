//! `cargo xtask bench`: what one picture costs on the emulated Cortex-M4, and whether it has become more.

mod baseline;
mod cycles;
mod layers;
mod networks;
mod tables;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};

use self::baseline::Baseline;
use self::cycles::Cost;
pub(crate) use self::cycles::Counter;
use self::networks::Mode;
pub(crate) use self::networks::{MODES, Network};
use crate::case::{Case, Tool};
use crate::firmware::Build;
use crate::report::Report;
use crate::toolchain::Toolchain;
use crate::{emulator, flash_size, setup};

/// How far the two emulators may be apart: QEMU's count begins and ends with a tick of 40 instructions,
/// and holds the calls around the run and a few instructions each time that its clock overflows.
const AGREEMENT: u64 = 80;

const NOTES: &str = "\
QEMU counts instructions, exact to 40; --check and --update use these alone. A second emulator attributes \
them to layers and models a Cortex-M4's cycles for memory without wait states; both must agree.

JSON keys: network, mode, instructions, cycles, predicted_cycles, macs, arena_bytes (frame in it), arena_bytes_rows (fed by \
rows, as it is measured), blob_bytes, code_bytes, stack_bytes, parse_instructions, set_up_instructions, \
verify_instructions, layers \
(name, macs, instructions, cycles).";

/// What to measure and what to do with it.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The networks to measure [default: all]
    #[arg(value_enum, value_name = "NETWORK")]
    networks: Vec<Network>,

    /// The way of conversion to measure [default: all]
    #[arg(long, value_parser = mode_parser())]
    mode: Option<&'static Mode>,

    /// Print JSON for machines
    #[arg(long)]
    json: bool,

    /// Print the cost of each layer, too
    #[arg(long)]
    layers: bool,

    /// Fail where instructions grew by more than 1 % over the stored baseline
    #[arg(long, conflicts_with_all = ["json", "layers", "update"])]
    check: bool,

    /// Store the instructions as the new baseline
    #[arg(long, conflicts_with_all = ["json", "layers"])]
    update: bool,
}

fn mode_parser() -> impl TypedValueParser<Value = &'static Mode> {
    let names = PossibleValuesParser::new(MODES.iter().map(|mode| mode.name));
    names.try_map(|name| MODES.iter().find(|mode| mode.name == name).ok_or("no such mode"))
}

impl Arguments {
    fn selected(&self) -> impl Iterator<Item = (Network, &'static Mode)> {
        let all = <Network as clap::ValueEnum>::value_variants();
        let networks = if self.networks.is_empty() { all } else { &self.networks };
        let modes = MODES.iter().filter(|mode| self.mode.is_none_or(|wanted| wanted == *mode));
        networks.iter().flat_map(move |network| modes.clone().map(|mode| (*network, mode)))
    }
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let toolchain = setup::ensure()?;
    let tool = Tool::build()?;
    if arguments.check || arguments.update {
        let mut counts = BTreeMap::new();
        for (network, mode) in arguments.selected() {
            counts.insert(key(network, mode), instructions(network, mode, &tool, &toolchain)?);
        }
        let (baseline, compiler) = (Baseline::read()?, toolchain.compiler()?);
        if arguments.update {
            return baseline.update(compiler, counts);
        }
        for line in baseline.check(&compiler, &counts)? {
            println!("{line}");
        }
        return Ok(());
    }
    let counter = Counter::ensure()?;
    let mut measurements: Vec<Measurement> = Vec::new();
    for (network, mode) in arguments.selected() {
        eprintln!("measuring {}, {}", network.name(), mode.name);
        let case = network.case(mode, &tool)?;
        let measurement = Measurement::take(network.name(), mode.name, case, &toolchain, &counter)?;
        measurement.check_prediction()?;
        measurements.push(measurement);
    }
    if arguments.json {
        println!("{:#}", Value::Array(measurements.iter().map(Measurement::json).collect()));
        return Ok(());
    }
    if arguments.layers {
        measurements.iter().for_each(|measurement| print!("{}", tables::layers(measurement)));
    }
    print!("{}", tables::summary(&measurements));
    if let Some(first) = measurements.first() {
        println!("\n{}", first.signature(&tool, &toolchain)?);
    }
    Ok(())
}

/// Compares one network in every mode with the baseline: a line for each.
pub(crate) fn check_resnet8(tool: &Tool, toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut counts = BTreeMap::new();
    for mode in MODES {
        counts.insert(key(Network::Resnet8, mode), instructions(Network::Resnet8, mode, tool, toolchain)?);
    }
    Baseline::read()?.check(&toolchain.compiler()?, &counts)
}

/// How the baseline calls it.
fn key(network: Network, mode: &Mode) -> String {
    format!("{} {}", network.name(), mode.name)
}

/// Instructions of one run, counted by QEMU.
fn instructions(network: Network, mode: &Mode, tool: &Tool, toolchain: &Toolchain) -> Result<u64> {
    emulate(&network.case(mode, tool)?, toolchain)?.1.number("run")
}

/// Builds the bench firmware and runs it in QEMU; the scores must be the host's.
fn emulate(case: &Case, toolchain: &Toolchain) -> Result<(PathBuf, Report)> {
    let elf = Build::emulated("bench", case).run(toolchain)?;
    let report = Report::new(emulator::run(&elf, |_| {})?.succeeded()?);
    let (board, host) = (report.text("scores")?, &case.on_host()?.scores[0]);
    ensure!(board == host, "{}: scores differ:\nboard {board}\nhost  {host}", case.name);
    Ok((elf, report))
}

/// One network in one mode, measured.
pub(crate) struct Measurement {
    network: &'static str,
    mode: &'static str,
    case: Case,
    /// Of the run; its instructions are QEMU's.
    run: Cost,
    parse_instructions: u64,
    set_up_instructions: u64,
    verify_instructions: u64,
    code_bytes: u64,
    stack_bytes: u64,
    /// Of each layer, and of what is not in a layer.
    layers: Vec<Cost>,
    rest: Cost,
}

impl Measurement {
    /// Runs a case in both emulators, which must agree.
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

    /// The planner's prediction is within a tenth of what was measured.
    fn check_prediction(&self) -> Result<()> {
        let (predicted, measured) = (self.case.facts.cycles, self.run.cycles);
        ensure!(
            predicted.abs_diff(measured) <= measured / 10,
            "{}: {predicted} cycles are predicted, {measured} were measured: fit src/net/cost.rs again",
            self.case.name
        );
        Ok(())
    }

    /// What it costs to run this network signed: code, and instructions and stack of `Model::parse_signed`.
    fn signature(&self, tool: &Tool, toolchain: &Toolchain) -> Result<String> {
        let case = self.case.signed(tool, 1)?;
        let (elf, report) = emulate(&case, toolchain)?;
        let code_bytes = flash_size::code_bytes(&elf, &case)?;
        let (parse, stack) = (report.number("parse")?, report.text("parse")?.rsplit(", ").next());
        Ok(tables::signature(self, code_bytes, parse, stack.unwrap_or_default()))
    }

    /// In a line, for a check's outcome.
    pub(crate) fn summary(&self) -> String {
        let Cost { instructions, cycles } = self.run;
        let layers = self.layers.len();
        format!("{instructions} instructions in both emulators, {cycles} model cycles, {layers} layers")
    }

    fn json(&self) -> Value {
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
