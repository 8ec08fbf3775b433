//! `cargo xtask flash`: the demo on a real board, through probe-rs.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::board::Board;
use crate::case::{Case, Tool};
use crate::firmware::Build;
use crate::{process, setup};

/// The command.
pub(crate) fn run(board: Board) -> Result<()> {
    let chip = board.chip().with_context(|| format!("{} cannot be flashed", board.name()))?;
    // Before the builds, which take a while.
    ensure!(
        process::probe("probe-rs", &["--version"]).is_some(),
        "probe-rs is not on the PATH: it flashes the board and shows what it prints; \
         `cargo install --locked probe-rs-tools` installs it (and on Linux, probe-rs's page \
         \"Probe Setup\" has the udev rules)"
    );
    let toolchain = setup::ensure()?;
    let case = Case::photo(&Tool::build()?)?;
    let elf = Build { board, ..Build::emulated("demo", &case) }.run(&toolchain)?;
    process::run(Command::new("probe-rs").args(["run", "--chip", chip]).arg(elf))
        .context("is the board attached and powered? `probe-rs list` shows what is found")
}
