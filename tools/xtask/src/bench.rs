//! `cargo xtask bench`: what one picture costs on the emulated Cortex-M4, and whether it has become more.

mod baseline;
mod cycles;
mod layers;
mod measurement;
mod networks;
mod tables;

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

use self::baseline::Baseline;
pub(crate) use self::cycles::Counter;
pub(crate) use self::measurement::Measurement;
use self::measurement::emulate;
use self::networks::Mode;
pub(crate) use self::networks::{MODES, Network};
use crate::case::Tool;
use crate::toolchain::Toolchain;
use crate::{flash_size, setup};

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
        println!("\n{}", signature(first, &tool, &toolchain)?);
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

/// What it costs to run a measured network signed: code, and instructions and stack of `Model::parse_signed`.
fn signature(plain: &Measurement, tool: &Tool, toolchain: &Toolchain) -> Result<String> {
    let case = plain.case.signed(tool, 1)?;
    let (elf, report) = emulate(&case, toolchain)?;
    let code_bytes = flash_size::code_bytes(&elf, &case)?;
    let (parse, stack) = (report.number("parse")?, report.text("parse")?.rsplit(", ").next());
    Ok(tables::signature(plain, code_bytes, parse, stack.unwrap_or_default()))
}
