//! `cargo xtask flash` runs the demo on a real board; `cargo xtask run` runs any program on any board.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::board::{self, Board, Runner};
use crate::case::{Case, Tool};
use crate::firmware::Build;
use crate::{emulator, process, setup};

/// `cargo xtask flash`: builds the demo, flashes it and shows its output.
pub(crate) fn run(board: &'static Board) -> Result<()> {
    // Checked before the builds, which take a while.
    find_probe_rs()?;
    let toolchain = setup::ensure(board)?;
    let case = Case::photo(&Tool::build()?)?;
    let elf = Build { board, ..Build::emulated("demo", &case) }.run(&toolchain)?;
    show_on(board, &elf)
}

/// `cargo xtask run`: runs a program on the board that `SKIPSTONE_BOARD` names and shows its output.
pub(crate) fn show(elf: &Path) -> Result<()> {
    show_on(board::from_environment()?, elf)
}

fn show_on(board: &Board, elf: &Path) -> Result<()> {
    match board.runner {
        Runner::Qemu { .. } => {
            emulator::run_on(board, elf, |line| println!("{line}"))?.succeeded()?;
            Ok(())
        }
        Runner::ProbeRs { chip } => {
            find_probe_rs()?;
            process::run(Command::new("probe-rs").args(["run", "--chip", chip]).arg(elf))
                .context("is the board connected and powered? `probe-rs list` shows the probes that it finds")
        }
    }
}

/// An error that says how to install probe-rs if it is missing.
fn find_probe_rs() -> Result<()> {
    ensure!(
        process::probe("probe-rs", &["--version"]).is_some(),
        "probe-rs, which flashes the board, is not on the PATH; install it with \
         `cargo install --locked probe-rs-tools` (on Linux it also needs udev rules, see \"Probe Setup\" in its \
         documentation)"
    );
    Ok(())
}
