//! Counts instructions and models cycles, in total and step by step, with `cycles/m4cycles.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{packages, paths, process};

/// The function that is counted, in firmware-example's `bench`.
const FUNCTION: &str = "bench::run";

/// The executor's function that makes one step of the schedule.
const STEPS: &str = "Memory::run";

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Cost {
    /// Instructions that were executed.
    pub(crate) instructions: u64,
    /// Cycles that a Cortex-M4 takes for them, by the model.
    pub(crate) cycles: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.instructions += other.instructions;
        self.cycles += other.cycles;
    }
}

/// A run, counted.
#[derive(Deserialize)]
pub(crate) struct Counted {
    /// The whole run.
    #[serde(flatten)]
    pub(crate) total: Cost,
    /// Each step of the schedule, in order.
    pub(crate) steps: Vec<Cost>,
}

/// The script, and a Python that has what it needs.
pub(crate) struct Counter {
    python: PathBuf,
}

impl Counter {
    /// Finds it; sets the Python environment up where it is missing or not the one that is asked for.
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

    /// Whether nothing has to be set up.
    pub(crate) fn is_ready() -> bool {
        let [made_from, wanted] = [stamp(), requirements()].map(|path| fs::read(path).ok());
        made_from.is_some() && made_from == wanted
    }

    /// Says what will be set up and why; not where the JSON goes.
    pub(crate) fn announce() {
        eprintln!("Missing, and to be installed in {}:", environment().display());
        eprintln!(
            "- the Python packages capstone, pyelftools and unicorn: `cargo xtask bench` counts cycles with them"
        );
    }

    /// Runs the firmware's `bench` until its run has ended, and counts.
    pub(crate) fn count(&self, elf: &Path) -> Result<Counted> {
        let mut command = Command::new(&self.python);
        command.arg(scripts().join("m4cycles.py")).arg(elf);
        let text = process::output(command.args(["--function", FUNCTION, "--steps", STEPS]))?;
        serde_json::from_str(&text).context("m4cycles.py printed other than its JSON")
    }

    /// Runs the script's own tests.
    pub(crate) fn test(&self) -> Result<()> {
        process::run(Command::new(&self.python).args(["-m", "unittest", "--quiet"]).current_dir(scripts()))
    }
}

fn environment() -> PathBuf {
    paths::root().join("target").join("cycles")
}

/// What the environment was made from.
fn stamp() -> PathBuf {
    environment().join("requirements.txt")
}

fn scripts() -> PathBuf {
    paths::root().join("tools").join("xtask").join("cycles")
}

fn requirements() -> PathBuf {
    scripts().join("requirements.txt")
}
