//! `cargo xtask setup`: finds what the firmware needs and is missing, lists it and installs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::Counter;
use crate::board::{Board, EMULATED, Runner};
use crate::toolchain::{self, Toolchain};
use crate::{packages, process};

/// Debian's Rust, which its security team keeps current, and the sources of `core`.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Debian's package with LLVM's linker.
const DEBIAN_LINKER: &str = "lld";

/// Gives up if rustup's server does not answer in this time.
const FETCH_LIMIT: Duration = Duration::from_secs(180);

/// What a board needs and is missing.
struct Missing {
    board: &'static Board,
    toolchain: bool,
    emulator: bool,
}

impl Missing {
    fn find(board: &'static Board) -> Missing {
        let toolchain = Toolchain::find(board.target).is_none();
        Missing { board, toolchain, emulator: emulator(board) == Emulator::Missing }
    }

    fn nothing(&self) -> bool {
        !self.toolchain && !self.emulator
    }

    /// Prints what will be installed, how and why.
    fn announce(&self) {
        let target = self.board.target;
        println!("Missing:");
        if self.toolchain {
            let debian = DEBIAN_RUST.join(" ");
            println!("- the Rust target {target}, which the firmware is compiled for");
            if !toolchain::debian_forced() {
                println!("    rustup target add {target}");
                println!("  or, if that fails and the system has apt-get,");
            }
            println!("  Debian's Rust, which builds `core` from source (in addition to rustup's)");
            println!("    apt-get install {debian}");
        }
        if self.emulator {
            let program = qemu(self.board).unwrap_or_default();
            println!("- {program}, which emulates the board");
            println!("    apt-get install {program}");
        }
    }
}

/// The command: installs what is missing for the emulated board and for `cargo xtask bench`.
pub(crate) fn run(dry_run: bool) -> Result<()> {
    let missing = Missing::find(EMULATED);
    let counter_missing = !Counter::is_ready();
    if dry_run && (counter_missing || !missing.nothing()) {
        if !missing.nothing() {
            missing.announce();
        }
        if counter_missing {
            Counter::announce();
        }
        return Ok(());
    }
    let toolchain = ensure(EMULATED)?;
    Counter::ensure()?;
    let emulator = match emulator(EMULATED) {
        Emulator::Installed(version) => version,
        Emulator::Missing | Emulator::NotNeeded => String::new(),
    };
    println!("Everything is installed: {}; {emulator}", toolchain.describe());
    Ok(())
}

/// The toolchain for a board. Installs it and the board's emulator if they are missing; otherwise prints nothing.
pub(crate) fn ensure(board: &'static Board) -> Result<Toolchain> {
    let missing = Missing::find(board);
    if !missing.nothing() {
        missing.announce();
        install(&missing)?;
    }
    if let (Emulator::Missing, Some(program)) = (emulator(board), qemu(board)) {
        bail!("{program} was installed but cannot be run; is it on the PATH?");
    }
    let target = board.target;
    Toolchain::find(target).with_context(|| {
        format!(
            "the Rust target {target} is still missing; install it with `rustup target add {target}`, \
             or on Debian 12 or later with `apt-get install {} {DEBIAN_LINKER}`",
            DEBIAN_RUST.join(" ")
        )
    })
}

fn install(missing: &Missing) -> Result<()> {
    let mut wanted = Vec::new();
    if missing.toolchain && !target_added(missing.board.target) {
        if !toolchain::debian_compiler() {
            wanted.extend(DEBIAN_RUST);
        }
        if toolchain::linker().is_none() {
            wanted.push(DEBIAN_LINKER);
        }
    }
    if missing.emulator {
        wanted.extend(qemu(missing.board));
    }
    if wanted.is_empty() { Ok(()) } else { packages::install(&wanted) }
}

/// Installs the target with rustup; false if there is no rustup or it fails.
fn target_added(target: &str) -> bool {
    if toolchain::debian_forced() || process::probe("rustup", &["--version"]).is_none() {
        return false;
    }
    let mut rustup = Command::new("rustup");
    // With RUST_BACKTRACE, rustup would print its own stack in addition to the reason.
    rustup.args(["target", "add", target]).env_remove("RUST_BACKTRACE");
    let added = process::run_for(FETCH_LIMIT, &mut rustup);
    if let Err(error) = &added {
        println!("{error:#}; falling back to Debian's Rust");
    }
    added.is_ok()
}

/// Whether a board's emulator can be run.
#[derive(PartialEq, Eq)]
enum Emulator {
    /// It can; the first line that it prints about itself.
    Installed(String),
    Missing,
    /// The board is not emulated.
    NotNeeded,
}

fn emulator(board: &Board) -> Emulator {
    let Some(program) = qemu(board) else { return Emulator::NotNeeded };
    match process::probe(program, &["--version"]) {
        Some(text) => Emulator::Installed(text.lines().next().unwrap_or_default().to_string()),
        None => Emulator::Missing,
    }
}

/// The program that emulates a board, which is also the name of its Debian package.
fn qemu(board: &Board) -> Option<&'static str> {
    match board.runner {
        Runner::Qemu { program, .. } => Some(program),
        Runner::ProbeRs { .. } => None,
    }
}
