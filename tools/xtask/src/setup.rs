//! `cargo xtask setup`: finds out what is missing for the firmware, says so, and installs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::Counter;
use crate::emulator::QEMU;
use crate::toolchain::{self, TARGET, Toolchain};
use crate::{packages, process};

/// Debian's Rust, kept current by its security team, with the sources of `core`.
const DEBIAN_RUST: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Debian's package of LLVM's linker.
const DEBIAN_LINKER: &str = "lld";

/// A server that does not answer must not hold everything up.
const FETCH_LIMIT: Duration = Duration::from_secs(180);

/// What is not there.
struct Missing {
    toolchain: bool,
    emulator: bool,
}

impl Missing {
    fn find() -> Missing {
        Missing { toolchain: Toolchain::find().is_none(), emulator: emulator().is_none() }
    }

    fn nothing(&self) -> bool {
        !self.toolchain && !self.emulator
    }

    /// Says what will be installed, how and why.
    fn announce(&self) {
        println!("Missing, and to be installed:");
        if self.toolchain {
            let debian = DEBIAN_RUST.join(" ");
            println!("- the Rust target {TARGET}: the firmware's processor, a Cortex-M4 with FPU");
            if !toolchain::debian_forced() {
                println!("    rustup target add {TARGET}");
                println!("  or, where that cannot be fetched and the system has apt-get,");
            }
            println!("  Debian's Rust, which builds `core` from source (beside rustup's, not instead of it)");
            println!("    apt-get install {debian}");
        }
        if self.emulator {
            println!("- {QEMU}: emulates the board, so that none has to be attached");
            println!("    apt-get install {QEMU}");
        }
    }
}

/// The command: installs what is missing, or says that nothing is.
pub(crate) fn run(dry_run: bool) -> Result<()> {
    let missing = Missing::find();
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
    let toolchain = ensure()?;
    Counter::ensure()?;
    println!("Everything is there: {}; {}", toolchain.describe(), emulator().unwrap_or_default());
    Ok(())
}

/// The toolchain for the firmware; installs what is missing, and is silent where nothing is.
pub(crate) fn ensure() -> Result<Toolchain> {
    let missing = Missing::find();
    if !missing.nothing() {
        missing.announce();
        install(&missing)?;
    }
    if emulator().is_none() {
        bail!("{QEMU} is still missing after its installation; is it on the PATH?");
    }
    Toolchain::find().with_context(|| {
        format!(
            "the Rust target {TARGET} is still missing; with rustup: `rustup target add {TARGET}`, \
             on Debian 12 or later: `apt-get install {} {DEBIAN_LINKER}`",
            DEBIAN_RUST.join(" ")
        )
    })
}

fn install(missing: &Missing) -> Result<()> {
    let mut wanted = Vec::new();
    if missing.toolchain && !target_added() {
        if !toolchain::debian_compiler() {
            wanted.extend(DEBIAN_RUST);
        }
        if toolchain::linker().is_none() {
            wanted.push(DEBIAN_LINKER);
        }
    }
    if missing.emulator {
        wanted.push(QEMU);
    }
    if wanted.is_empty() { Ok(()) } else { packages::install(&wanted) }
}

/// Lets rustup fetch the target; false where there is no rustup or it cannot.
fn target_added() -> bool {
    if toolchain::debian_forced() || process::probe("rustup", &["--version"]).is_none() {
        return false;
    }
    let mut rustup = Command::new("rustup");
    // Its reason is enough; it prints its own stack where backtraces are asked for.
    rustup.args(["target", "add", TARGET]).env_remove("RUST_BACKTRACE");
    let added = process::run_for(FETCH_LIMIT, &mut rustup);
    if let Err(error) = &added {
        println!("{error:#}; going on with Debian's Rust");
    }
    added.is_ok()
}

/// The emulator's first line about itself.
fn emulator() -> Option<String> {
    let text = process::probe(QEMU, &["--version"])?;
    text.lines().next().map(str::to_string)
}
