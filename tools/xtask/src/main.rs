//! `cargo xtask`: the commands for developing this repository.

mod bench;
mod board;
mod case;
mod checks;
mod demo;
mod dependencies;
mod directions;
mod emulator;
mod firmware;
mod flash;
mod flash_size;
mod fuzz;
mod packages;
mod packaging;
mod panics;
mod paths;
mod picture;
mod process;
mod report;
mod sanitize;
mod setup;
mod signature;
mod suite;
mod toolchain;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::board::Board;

/// Commands for developing skipstone, the same for people and CI.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the tools that building and emulating the firmware needs
    Setup {
        /// Only print what would be installed
        #[arg(long)]
        dry_run: bool,
    },
    /// Convert a trained network and classify a photo on an emulated Cortex-M4
    Demo,
    /// Run all checks, as CI does
    Test {
        /// Run only the checks whose names contain one of these words
        #[arg(value_name = "WORD")]
        only: Vec<String>,
    },
    /// Measure one inference on the emulated Cortex-M4, or compare it with the
    /// stored baseline
    Bench(bench::Arguments),
    /// Check licences, sources, duplicates and advisories of all dependencies
    Deny,
    /// Build all crates with the oldest supported compiler
    Msrv,
    /// Fuzz a target, or list the targets (needs Rust's nightly toolchain)
    Fuzz(fuzz::Arguments),
    /// Run tests under AddressSanitizer (needs Rust's nightly toolchain) and
    /// valgrind
    Sanitize {
        /// Run only the checks whose names contain one of these words
        #[arg(value_name = "WORD")]
        only: Vec<String>,
    },
    /// Build the demo for a real board, flash it and show its output
    Flash {
        /// The board that is connected
        #[arg(long, value_parser = board::parser())]
        board: &'static Board,
    },
    /// Run a firmware file on its board (cargo's runner in firmware-example)
    ///
    /// SKIPSTONE_BOARD selects the board. The default is the emulated one.
    Run {
        /// The ELF file that cargo built
        elf: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = run(Arguments::parse().command);
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { dry_run } => setup::run(dry_run)?,
        Command::Demo => demo::run()?,
        Command::Test { only } => return checks::run(&only),
        Command::Bench(arguments) => bench::run(&arguments)?,
        Command::Deny => dependencies::deny()?,
        Command::Msrv => dependencies::msrv()?,
        Command::Fuzz(arguments) => fuzz::run(&arguments)?,
        Command::Sanitize { only } => return sanitize::run(&only),
        Command::Flash { board } => flash::run(board)?,
        Command::Run { elf } => flash::show(&elf)?,
    }
    Ok(ExitCode::SUCCESS)
}
