//! `cargo xtask demo`: from trained weights to a photo recognised on an emulated Cortex-M4.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::case::{Case, PHOTO, Tool};
use crate::firmware::Build;
use crate::report::Report;
use crate::{emulator, flash_size, paths, picture, process, setup};

/// The command.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ensure()?;

    title("Building the host tool");
    let tool = Tool::build()?.talking();

    title("Converting: trained weights to a checked blob");
    let case = Case::photo(&tool)?;

    title("What the host says");
    let photo = paths::models().join(PHOTO);
    process::run(tool.command("run").arg(&case.blob).arg(&photo))?;

    title("Building the firmware");
    let elf = Build::emulated("demo", &case).run(&toolchain)?;

    title("What an emulated Cortex-M4 says");
    let host = case.on_host()?;
    let pixels = fs::read(&case.images).with_context(|| format!("reading {}", case.images.display()))?;
    println!("{}", picture::draw(&pixels, host.width, host.channels));
    let run = emulator::run(&elf, |line| println!("{line}"))?;
    let report = Report::new(run.succeeded()?);

    let (instructions, macs) = (report.number("run")?, case.facts.macs);
    println!();
    println!("{:.2} instructions per MAC ({macs} MACs)", instructions as f64 / macs as f64);
    println!("{} B of code and constants beside the model", flash_size::code_bytes(&elf, &case)?);
    let scores = report.text("scores")?;
    ensure!(scores == host.scores[0], "board and host differ:\nboard {scores}\nhost  {}", host.scores[0]);
    println!("Board and host agree in every bit of the scores.");
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}
