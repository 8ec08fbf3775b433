//! The repository's commands: `cargo xtask setup`, `demo`, `test`, `bench`, `fuzz`, `sanitize`, `deny`, `msrv`, `flash`,
//! `emulate`.

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

/// skipstone's commands for people and CI alike.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and emulating the firmware needs and is missing.
    Setup {
        /// Say what would be installed, and install nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Recognise a photo on an emulated Cortex-M4, from trained weights to the answer.
    Demo,
    /// Run every check that CI runs.
    Test {
        /// Run only the checks whose names contain one of these words.
        only: Vec<String>,
    },
    /// Print what one picture costs on the emulated Cortex-M4, or check that it did not become more.
    Bench(bench::Arguments),
    /// Check licences, sources, duplicates and advisories of every dependency, before a release.
    Deny,
    /// Build every crate with the oldest compiler that is promised, before a release.
    Msrv,
    /// Look for inputs that break something (needs Rust's nightly toolchain); lists the targets without one.
    Fuzz(fuzz::Arguments),
    /// Run tests under AddressSanitizer (needs Rust's nightly toolchain) and under valgrind.
    Sanitize {
        /// Run only the checks whose names contain one of these words.
        only: Vec<String>,
    },
    /// Build the demo for a real board, flash it and show what it prints.
    Flash {
        /// The board that is attached.
        #[arg(long, value_enum)]
        board: Board,
    },
    /// Run a firmware file in the emulator and show what it prints; firmware-example's runner.
    Emulate {
        /// The file to run, as cargo built it.
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
        Command::Emulate { elf } => emulator::show(&elf)?,
    }
    Ok(ExitCode::SUCCESS)
}
