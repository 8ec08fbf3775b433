//! Counts instructions and models cycles with `cycles/m4cycles.py`, in total and for each step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{packages, paths, process};

/// The function of firmware-example's `bench` that is counted.
const FUNCTION: &str = "bench::run";

/// The runtime's function that executes one step of the schedule.
const STEPS: &str = "Memory::run";

/// Instructions and cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Cost {
    /// Executed instructions.
    pub(crate) instructions: u64,
    /// Modelled cycles of a Cortex-M4.
    pub(crate) cycles: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.instructions += other.instructions;
        self.cycles += other.cycles;
    }
}

/// The counts of one run.
#[derive(Deserialize)]
pub(crate) struct Counted {
    /// The whole run.
    #[serde(flatten)]
    pub(crate) total: Cost,
    /// Each step of the schedule, in order.
    pub(crate) steps: Vec<Cost>,
}

/// A Python environment with the packages that the script needs.
pub(crate) struct Counter {
    python: PathBuf,
}

impl Counter {
    /// Finds the environment; creates it if it is missing or its requirements have changed.
    pub(crate) fn ensure() -> Result<Counter> {
        let environment = environment();
        let python = environment.join("bin").join("python");
        if !Counter::is_ready() {
            Counter::announce();
            if process::probe("python3", &["-c", "import ensurepip, venv"]).is_none() {
                packages::install(&["python3-venv"])?;
            }
            process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            let mut install_packages = Command::new(&python);
            install_packages.args(install).args(["--only-binary", ":all:", "--requirement"]);
            process::run(install_packages.arg(requirements()))?;
            fs::copy(requirements(), stamp()).context("keeping a copy of requirements.txt")?;
        }
        Ok(Counter { python })
    }

    /// Whether the environment exists and is up to date.
    pub(crate) fn is_ready() -> bool {
        let [made_from, wanted] = [stamp(), requirements()].map(|path| fs::read(path).ok());
        made_from.is_some() && made_from == wanted
    }

    /// Prints what will be installed and why, to standard error: standard output may be JSON.
    pub(crate) fn announce() {
        eprintln!("Missing, to be installed in {}:", environment().display());
        eprintln!(
            "- the Python packages capstone, pyelftools and unicorn, with which `cargo xtask bench` counts cycles"
        );
    }

    /// Runs the firmware `bench` until its inference has ended, and counts.
    pub(crate) fn count(&self, elf: &Path) -> Result<Counted> {
        let mut command = Command::new(&self.python);
        command.arg(scripts().join("m4cycles.py")).arg(elf);
        let text = process::output(command.args(["--function", FUNCTION, "--steps", STEPS]))?;
        serde_json::from_str(&text).context("m4cycles.py printed invalid JSON")
    }

    /// Runs the script's own tests.
    pub(crate) fn test(&self) -> Result<()> {
        process::run(Command::new(&self.python).args(["-m", "unittest", "--quiet"]).current_dir(scripts()))
    }
}

fn environment() -> PathBuf {
    paths::root().join("target").join("cycles")
}

/// A copy of the requirements that the environment was created from.
fn stamp() -> PathBuf {
    environment().join("requirements.txt")
}

fn scripts() -> PathBuf {
    paths::root().join("tools").join("xtask").join("cycles")
}

fn requirements() -> PathBuf {
    scripts().join("requirements.txt")
}
