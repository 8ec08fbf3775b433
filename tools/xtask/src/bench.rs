//! `cargo xtask bench`: measures one inference on the emulated Cortex-M4 and compares it with the baseline.

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
use crate::board::EMULATED;
use crate::case::Tool;
use crate::toolchain::Toolchain;
use crate::{flash_size, setup};

const NOTES: &str = "\
QEMU counts instructions to within 40. --check and --update use only these counts. A second emulator \
attributes them to layers and models the cycles of a Cortex-M4 without wait states; its instruction count \
must agree with QEMU's.

JSON keys: network, mode, instructions, cycles, predicted_cycles, macs, arena_bytes (with the frame in it), \
arena_bytes_rows (fed by rows, as measured), blob_bytes, code_bytes, stack_bytes, parse_instructions, \
set_up_instructions, verify_instructions, layers (name, macs, instructions, cycles).";

/// The command's arguments.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The networks to measure [default: all]
    #[arg(value_enum, value_name = "NETWORK")]
    networks: Vec<Network>,

    /// The conversion mode to measure [default: all]
    #[arg(long, value_parser = mode_parser())]
    mode: Option<&'static Mode>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Also print the cost of each layer
    #[arg(long)]
    layers: bool,

    /// Fail if an instruction count is more than 1 % above the stored baseline
    #[arg(long, conflicts_with_all = ["json", "layers", "update"])]
    check: bool,

    /// Store the instruction counts as the new baseline
    #[arg(long, conflicts_with_all = ["json", "layers"])]
    update: bool,
}

fn mode_parser() -> impl TypedValueParser<Value = &'static Mode> {
    let names = PossibleValuesParser::new(MODES.iter().map(|mode| mode.name));
    names.try_map(|name| MODES.iter().find(|mode| mode.name == name).ok_or("unknown mode"))
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
    let toolchain = setup::ensure(EMULATED)?;
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

/// Compares ResNet-8 with the baseline in every mode; returns a line for each.
pub(crate) fn check_resnet8(tool: &Tool, toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut counts = BTreeMap::new();
    for mode in MODES {
        counts.insert(key(Network::Resnet8, mode), instructions(Network::Resnet8, mode, tool, toolchain)?);
    }
    Baseline::read()?.check(&toolchain.compiler()?, &counts)
}

/// Its key in the baseline.
fn key(network: Network, mode: &Mode) -> String {
    format!("{} {}", network.name(), mode.name)
}

/// Instructions of one inference, counted by QEMU.
fn instructions(network: Network, mode: &Mode, tool: &Tool, toolchain: &Toolchain) -> Result<u64> {
    emulate(&network.case(mode, tool)?, toolchain)?.1.number("run")
}

/// The cost of running a measured network signed: code size, and instructions and stack of `Model::parse_signed`.
fn signature(plain: &Measurement, tool: &Tool, toolchain: &Toolchain) -> Result<String> {
    let case = plain.case.signed(tool, 1)?;
    let (elf, report) = emulate(&case, toolchain)?;
    let code_bytes = flash_size::code_bytes(&elf, &case)?;
    let (parse, stack) = (report.number("parse")?, report.text("parse")?.rsplit(", ").next());
    Ok(tables::signature(plain, code_bytes, parse, stack.unwrap_or_default()))
}
