//! `cargo xtask demo`: converts trained weights and classifies a photo on an emulated Cortex-M4.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::board::EMULATED;
use crate::case::{Case, PHOTO, Tool};
use crate::firmware::Build;
use crate::report::Report;
use crate::{emulator, flash_size, paths, picture, process, setup};

/// The command.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ensure(EMULATED)?;

    title("Building the host tool");
    let tool = Tool::build()?.verbose();

    title("Converting the trained weights to a blob");
    let case = Case::photo(&tool)?;

    title("Result on the host");
    let photo = paths::models().join(PHOTO);
    process::run(tool.command("run").arg(&case.blob).arg(&photo))?;

    title("Building the firmware");
    let elf = Build::emulated("demo", &case).run(&toolchain)?;

    title("Result on an emulated Cortex-M4");
    let host = case.on_host()?;
    let pixels = fs::read(&case.images).with_context(|| format!("reading {}", case.images.display()))?;
    println!("{}", picture::draw(&pixels, host.width, host.channels));
    let run = emulator::run(&elf, |line| println!("{line}"))?;
    let report = Report::new(run.succeeded()?);

    let (instructions, macs) = (report.number("run")?, case.facts.macs);
    println!();
    println!("{:.2} instructions per MAC ({macs} MACs)", instructions as f64 / macs as f64);
    println!("{} B of code and constants, not counting the model", flash_size::code_bytes(&elf, &case)?);
    let scores = report.text("scores")?;
    ensure!(scores == host.scores[0], "scores differ:\nboard {scores}\nhost  {}", host.scores[0]);
    println!("The scores of board and host are identical, bit for bit.");
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}
