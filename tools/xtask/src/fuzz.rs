//! `cargo xtask fuzz`: coverage-guided fuzzing; see `docs/robustness.md`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::case::Tool;
use crate::suite::Outcome;
use crate::toolchain::{Nightly, host_cargo};
use crate::{paths, process};

/// The model formats, of which each is a target. The table does not need the rest of the tool.
#[path = "../../src/front/formats.rs"]
#[allow(dead_code, unreachable_pub, reason = "the rest of the table is the tool's")]
mod formats;

/// A fuzz target: a program in `fuzz/fuzz_targets` and its seed files.
struct Target {
    name: &'static str,
    about: String,
    program: &'static str,
    /// Folders, and the suffix of the file names in each.
    seeds: Vec<(&'static str, String)>,
}

const DATA: &str = "tests/data";
const OWN: &str = "fuzz/seeds";
const BLOBS: &str = "target/fuzz/blobs";

/// Model, calibration images and arguments of the seed blobs. They are small, and together contain every kind of
/// layer, block, algorithm and rounding.
const CONVERSIONS: [(&str, Option<&str>, &[&str]); 9] = [
    ("tiny.onnx", Some("tiny.npz"), &["--optimize", "speed"]),
    ("tiny.th", Some("tiny.npz"), &["--input", "8x8", "--target", "reference"]),
    ("keywords.onnx", Some("keywords.npz"), &[]),
    ("depthwise.onnx", Some("depthwise.npz"), &[]),
    ("bottleneck.onnx", Some("bottleneck.npz"), &[]),
    ("resnet-option-a.onnx", Some("resnet-option-a.npz"), &["--optimize", "memory"]),
    ("inverted-torch.onnx", Some("inverted-torch.npz"), &[]),
    ("tflite-option-a-int8.tflite", None, &["--rounding", "tflite-exact"]),
    ("tflite-mean-int8.tflite", None, &["--rounding", "tflite-exact"]),
];

/// Name, description, program and seeds of the targets that are not model formats.
type Row = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const OTHERS: [Row; 4] = [
    ("bytes", "arbitrary bytes as a blob: parse, set up, run", "bytes", &[(BLOBS, ".skip"), (DATA, ".skip")]),
    (
        "blob",
        "damaged blobs with a valid checksum: rejected, or correct scores",
        "blob",
        // ResNet-8 for the Winograd kernels, for which the others are too small
        &[(BLOBS, ".skip"), ("models", "resnet8.skip")],
    ),
    (
        "dataset",
        "CIFAR records, .npy and .npz",
        "dataset",
        &[(DATA, ".npz"), ("models", ".npz"), (OWN, ".npy")],
    ),
    (
        "picture",
        "images: PNG, JPEG, BMP, GIF, WebP, PNM, TIFF",
        "picture",
        &[("models", ".png"), (OWN, ".picture")],
    ),
];

/// All targets: one for each model format, and the others.
fn targets() -> Vec<Target> {
    let others = OTHERS.map(|(name, about, program, seeds)| Target {
        name,
        about: about.into(),
        program,
        seeds: seeds.iter().map(|(folder, suffix)| (*folder, suffix.to_string())).collect(),
    });
    others.into_iter().chain(formats::FORMATS.iter().map(of_format)).collect()
}

fn of_format(format: &formats::Format) -> Target {
    let about = format!("{} files: import, quantize, run", format.name);
    // A description's seeds hold its checkpoint too.
    let (program, seeds) = match format.target {
        "description" => ("description", vec![(OWN, ".description".into())]),
        _ => {
            let suffix = |extension: &&str| [DATA, "models"].map(|folder| (folder, format!(".{extension}")));
            ("import", format.extensions.iter().flat_map(suffix).collect())
        }
    };
    Target { name: format.target, about, program, seeds }
}

/// Number of mutations of each seed in `cargo xtask test`.
const MUTATIONS: usize = 20;

/// An input that takes longer is reported.
const TIMEOUT_SECONDS: u32 = 20;

/// An input for which the process needs more memory, including the sanitizer's, is reported.
const MEMORY_MIB: u32 = 6144;

/// The command's arguments.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to fuzz; without it, the targets are listed.
    target: Option<String>,
    /// Stop after so long.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(name) = &arguments.target else {
        for target in targets() {
            println!("{:12} {}", target.name, target.about);
        }
        return Ok(());
    };
    let target = targets()
        .into_iter()
        .find(|target| target.name == name)
        .with_context(|| format!("unknown fuzz target `{name}`; `cargo xtask fuzz` lists the targets"))?;
    let nightly = Nightly::find()?;
    cargo_fuzz()?;
    blobs(&Tool::build()?)?;
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|kind| folder().join(kind).join(target.name));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let seeds: Vec<String> = target.seeds()?.iter().map(|seed| seed.display().to_string()).collect();
    let mut command = nightly.cargo();
    // the planner's and the quantizer's threads would only get into each other's way
    command.env("RAYON_NUM_THREADS", "1").args(["fuzz", "run", target.program]).arg(&corpus).arg("--");
    command.arg(format!("-seed_inputs={}", seeds.join(",")));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={}", arguments.seconds));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg("-print_final_stats=1");
    process::run(&mut command).with_context(|| {
        format!(
            "target `{name}` found something, or could not be built. An input that fails lies in {}; \
             docs/robustness.md says how it becomes a test",
            artifacts.display()
        )
    })
}

/// The check: all seeds, and some mutations of each, on the installed compiler.
pub(crate) fn seeds(tool: &Tool) -> Result<Outcome> {
    blobs(tool)?;
    let (mut runs, targets) = (0, targets());
    for target in &targets {
        let mut command = host_cargo();
        command.args(["run", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"]);
        command.args(["--bin", target.program, "--"]).args(target.seeds()?);
        let text = process::output(command.env("MUTATIONS", MUTATIONS.to_string()))
            .with_context(|| format!("fuzz target `{}`", target.name))?;
        let count = text.split_whitespace().next().and_then(|word| word.parse::<usize>().ok());
        runs += count.with_context(|| format!("fuzz target `{}` printed {text:?}", target.name))?;
    }
    Ok(Outcome::pass(format!("{} targets, {runs} runs", targets.len())))
}

impl Target {
    /// The files to begin with.
    fn seeds(&self) -> Result<Vec<PathBuf>> {
        let mut seeds = Vec::new();
        for (folder, suffix) in &self.seeds {
            let folder = paths::root().join(folder);
            let listed =
                fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            let files = listed.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            seeds.extend(files.filter(|path| path.to_string_lossy().ends_with(suffix)));
        }
        if seeds.is_empty() {
            bail!("fuzz target `{}` has no seeds", self.name);
        }
        seeds.sort();
        Ok(seeds)
    }
}

/// Makes the blobs to begin with.
fn blobs(tool: &Tool) -> Result<()> {
    let folder = paths::root().join(BLOBS);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (model, images, arguments) in CONVERSIONS {
        let data = paths::root().join(DATA);
        let mut convert = tool.command("convert");
        convert
            .arg(data.join(model))
            .arg("-o")
            .arg(folder.join(model).with_extension("skip"))
            .args(arguments);
        convert.args(images.iter().flat_map(|images| ["--calibrate".into(), data.join(images)]));
        process::output(&mut convert)?;
    }
    Ok(())
}

/// Where what was found lies.
fn folder() -> PathBuf {
    paths::root().join("target").join("fuzz")
}

/// Installs cargo-fuzz where it is missing.
fn cargo_fuzz() -> Result<()> {
    if process::probe("cargo-fuzz", &["fuzz", "--version"]).is_some() {
        return Ok(());
    }
    println!("Missing, and to be installed:\n- cargo-fuzz\n    cargo install --locked cargo-fuzz");
    let mut command = host_cargo();
    command.args(["install", "--locked", "cargo-fuzz"]);
    process::run(&mut command)
        .context("cargo-fuzz cannot be installed; it needs a C++ compiler and access to crates.io")?;
    if process::probe("cargo-fuzz", &["fuzz", "--version"]).is_none() {
        bail!("cargo-fuzz is still missing after its installation; is cargo's bin folder on the PATH?");
    }
    Ok(())
}
