//! `cargo xtask fuzz`: coverage-guided fuzzing; see `docs/robustness.md`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::case::Tool;
use crate::suite::Outcome;
use crate::toolchain::{Nightly, host_cargo};
use crate::{paths, process};

/// A fuzz target: a program in `fuzz/fuzz_targets` and its seed files.
struct Target {
    name: &'static str,
    about: &'static str,
    program: &'static str,
    /// Folders, and the suffix of the file names in each.
    seeds: &'static [(&'static str, &'static str)],
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

const TARGETS: [Target; 10] = [
    Target {
        name: "bytes",
        about: "arbitrary bytes as a blob: parse, set up, run",
        program: "bytes",
        seeds: &[(BLOBS, ".skip"), (DATA, ".skip")],
    },
    Target {
        name: "blob",
        about: "damaged blobs with a valid checksum: rejected, or correct scores",
        program: "blob",
        // ResNet-8 for the Winograd kernels, for which the others are too small
        seeds: &[(BLOBS, ".skip"), ("models", "resnet8.skip")],
    },
    Target {
        name: "onnx",
        about: "ONNX files: import, quantize, run",
        program: "import",
        seeds: &[(DATA, ".onnx")],
    },
    Target {
        name: "tflite",
        about: "TensorFlow Lite files: import, quantize, run",
        program: "import",
        seeds: &[(DATA, ".tflite")],
    },
    Target {
        name: "keras",
        about: "Keras files: import, quantize, run",
        program: "import",
        seeds: &[(DATA, ".h5"), (DATA, ".keras")],
    },
    Target {
        name: "torch",
        about: "PyTorch checkpoints: import, quantize, run",
        program: "import",
        seeds: &[(DATA, ".pt"), (DATA, ".th")],
    },
    Target {
        name: "safetensors",
        about: "safetensors checkpoints: import, quantize, run",
        program: "import",
        seeds: &[(DATA, ".safetensors"), ("models", ".safetensors")],
    },
    Target {
        name: "description",
        about: "TOML descriptions with their checkpoints: import, quantize, run",
        program: "description",
        seeds: &[(OWN, ".description")],
    },
    Target {
        name: "dataset",
        about: "CIFAR records, .npy and .npz",
        program: "dataset",
        seeds: &[(DATA, ".npz"), ("models", ".npz"), (OWN, ".npy")],
    },
    Target {
        name: "picture",
        about: "images: PNG, JPEG, BMP, GIF, WebP, PNM, TIFF",
        program: "picture",
        seeds: &[("models", ".png"), (OWN, ".picture")],
    },
];

/// Number of mutations of each seed in `cargo xtask test`.
const MUTATIONS: usize = 20;

/// An input that takes longer is reported.
const TIMEOUT_SECONDS: u32 = 20;

/// An input for which the process needs more memory, including the sanitizer's, is reported.
const MEMORY_MIB: u32 = 6144;

/// The command's arguments.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The target to fuzz; if omitted, lists the targets
    target: Option<String>,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// The command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Some(name) = &arguments.target else {
        for target in &TARGETS {
            println!("{:12} {}", target.name, target.about);
        }
        return Ok(());
    };
    let target = TARGETS
        .iter()
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
    // one thread for the planner and the quantizer, so that runs are reproducible
    command.env("RAYON_NUM_THREADS", "1").args(["fuzz", "run", target.program]).arg(&corpus).arg("--");
    command.arg(format!("-seed_inputs={}", seeds.join(",")));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-max_total_time={}", arguments.seconds));
    command.arg(format!("-timeout={TIMEOUT_SECONDS}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg("-print_final_stats=1");
    process::run(&mut command).with_context(|| {
        format!(
            "target `{name}` found a failing input, or could not be built; failing inputs are in {}, and \
             docs/robustness.md says how to turn them into tests",
            artifacts.display()
        )
    })
}

/// The check of `cargo xtask test`: runs all seeds and [`MUTATIONS`] of each, with the installed compiler.
pub(crate) fn seeds(tool: &Tool) -> Result<Outcome> {
    blobs(tool)?;
    let mut runs = 0;
    for target in &TARGETS {
        let mut command = host_cargo();
        command.args(["run", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"]);
        command.args(["--bin", target.program, "--"]).args(target.seeds()?);
        let text = process::output(command.env("MUTATIONS", MUTATIONS.to_string()))
            .with_context(|| format!("fuzz target `{}`", target.name))?;
        let count = text.split_whitespace().next().and_then(|word| word.parse::<usize>().ok());
        runs += count.with_context(|| format!("fuzz target `{}` printed {text:?}", target.name))?;
    }
    Ok(Outcome::pass(format!("{} targets, {runs} runs", TARGETS.len())))
}

impl Target {
    /// The seed files.
    fn seeds(&self) -> Result<Vec<PathBuf>> {
        let mut seeds = Vec::new();
        for (folder, ending) in self.seeds {
            let folder = paths::root().join(folder);
            let listed =
                fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
            let files = listed.filter_map(|entry| entry.ok().map(|entry| entry.path()));
            seeds.extend(files.filter(|path| path.to_string_lossy().ends_with(ending)));
        }
        if seeds.is_empty() {
            bail!("fuzz target `{}` has no seeds", self.name);
        }
        seeds.sort();
        Ok(seeds)
    }
}

/// Converts the seed blobs.
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

/// The folder for corpora and findings.
fn folder() -> PathBuf {
    paths::root().join("target").join("fuzz")
}

/// Installs cargo-fuzz if it is missing.
fn cargo_fuzz() -> Result<()> {
    if process::probe("cargo-fuzz", &["fuzz", "--version"]).is_some() {
        return Ok(());
    }
    println!("Installing cargo-fuzz: cargo install --locked cargo-fuzz");
    let mut command = host_cargo();
    command.args(["install", "--locked", "cargo-fuzz"]);
    process::run(&mut command).context(
        "installing cargo-fuzz failed; it needs a C++ compiler and access to the package registry",
    )?;
    if process::probe("cargo-fuzz", &["fuzz", "--version"]).is_none() {
        bail!("cargo-fuzz was installed but cannot be run; is cargo's bin folder on the PATH?");
    }
    Ok(())
}
