//! A converted network and its input images, which both the host and the board run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use skipstone::{Model, Network};

use crate::toolchain::host_cargo;
use crate::{paths, process};

/// The image of the demo, in `models`.
pub(crate) const PHOTO: &str = "cat.png";

/// Number of digit images in the parity check.
pub(crate) const DIGITS: usize = 120;

/// The host tool's program.
pub(crate) struct Tool {
    program: PathBuf,
    /// Show its output during conversion.
    verbose: bool,
}

impl Tool {
    /// Builds `skipstone` with optimizations.
    pub(crate) fn build() -> Result<Tool> {
        let mut command = host_cargo();
        command.args(["build", "--release", "--bin", "skipstone"]);
        let built = process::cargo_build(&mut command).context("building the host tool")?;
        let program = built.into_iter().next().context("cargo did not build the program `skipstone`")?;
        Ok(Tool { program, verbose: false })
    }

    /// The tool, with its output shown during conversion.
    pub(crate) fn verbose(self) -> Tool {
        Tool { verbose: true, ..self }
    }

    /// `skipstone SUBCOMMAND` in the repository's root.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(paths::root()).arg(subcommand);
        command
    }
}

/// The output of `skipstone inspect`.
#[derive(Clone)]
pub(crate) struct Facts {
    /// The layers in order of execution.
    pub(crate) layers: Vec<Layer>,
    /// Arena size in bytes with the frame in it.
    pub(crate) arena_bytes: u64,
    /// Arena size in bytes if fed by rows.
    pub(crate) arena_bytes_rows: u64,
    /// Blob size in bytes.
    pub(crate) blob_bytes: u64,
    /// Multiply-accumulate operations of one inference.
    pub(crate) macs: u64,
    /// Predicted cycles of one inference.
    pub(crate) cycles: u64,
}

/// A layer, as `skipstone inspect` prints it.
#[derive(Clone)]
pub(crate) struct Layer {
    /// The name of its block, and its own.
    pub(crate) name: String,
    /// Window and stride, and `+` if it adds the shortcut: `3x3/2 +`.
    pub(crate) window: String,
    /// Multiply-accumulate operations of one inference.
    pub(crate) macs: u64,
}

/// The inputs of a case.
pub(crate) struct Source<'s> {
    /// Name of the case and of its blob.
    pub(crate) name: &'s str,
    /// The trained network.
    pub(crate) network: PathBuf,
    /// Additional arguments of `skipstone convert`.
    pub(crate) arguments: &'s [&'s str],
    /// File in `models` with the calibration images.
    pub(crate) calibration: &'s str,
    /// File in `models` with the images to run.
    pub(crate) pictures: &'s str,
    /// Name of the file for the raw images.
    pub(crate) raw: &'s str,
    /// Maximum number of images to run.
    pub(crate) limit: Option<usize>,
}

impl<'s> Source<'s> {
    /// One photo, for a network with CIFAR-10's input shape.
    pub(crate) fn photo(name: &'s str, network: PathBuf, arguments: &'s [&'s str]) -> Source<'s> {
        let (calibration, raw) = ("cifar10-calibration.npz", "photo.raw");
        Source { name, network, arguments, calibration, pictures: PHOTO, raw, limit: None }
    }
}

/// A converted network and the images that it runs on.
#[derive(Clone)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    /// The blob.
    pub(crate) blob: PathBuf,
    /// The file with the public key, if the blob is signed.
    pub(crate) key: Option<PathBuf>,
    /// Raw images, the bytes that the network reads, stored consecutively.
    pub(crate) images: PathBuf,
    /// Facts about the blob.
    pub(crate) facts: Facts,
}

/// The result of a case on the host.
pub(crate) struct OnHost {
    /// Image width in pixels.
    pub(crate) width: usize,
    /// Bytes per pixel.
    pub(crate) channels: usize,
    /// For each image, the hexadecimal bits of each score, as the firmware prints them.
    pub(crate) scores: Vec<String>,
}

impl Case {
    /// ResNet-8, trained on CIFAR-10, and one photo.
    pub(crate) fn photo(tool: &Tool) -> Result<Case> {
        let name = "cifar10-resnet8";
        Case::make(tool, &Source::photo(name, paths::models().join(name).with_extension("toml"), &[]))
    }

    /// The digits network, and its first [`DIGITS`] test images.
    pub(crate) fn digits(tool: &Tool) -> Result<Case> {
        let source = Source {
            name: "digits",
            network: paths::models().join("digits.toml"),
            arguments: &[],
            calibration: "digits-calibration.npz",
            pictures: "digits-test.npz",
            raw: "digits.raw",
            limit: Some(DIGITS),
        };
        Case::make(tool, &source)
    }

    /// Converts the network and prepares the images.
    pub(crate) fn make(tool: &Tool, source: &Source<'_>) -> Result<Case> {
        let output = paths::output();
        fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
        let (blob, images) = (output.join(format!("{}.skip", source.name)), output.join(source.raw));
        let mut convert = tool.command("convert");
        convert.arg(&source.network).arg("-o").arg(&blob).args(source.arguments);
        convert.arg("--calibrate").arg(paths::models().join(source.calibration));
        if tool.verbose { process::run(&mut convert) } else { process::output(&mut convert).map(drop) }?;

        let mut preprocess = tool.command("preprocess");
        preprocess.arg(&blob).arg(paths::models().join(source.pictures)).arg("-o").arg(&images);
        preprocess.args(source.limit.map(|limit| format!("--limit={limit}")));
        process::output(&mut preprocess)?;
        let facts = inspect(tool, &blob)?;
        Ok(Case { name: source.name.into(), blob, key: None, images, facts })
    }

    /// Parses the network's model; `storage` holds its blob.
    pub(crate) fn model<'s>(&self, storage: &'s mut Vec<u8>) -> Result<Model<'s>> {
        let bytes = read(&self.blob)?;
        let blob = aligned(storage, bytes.len());
        blob.copy_from_slice(&bytes);
        Model::parse(blob).with_context(|| format!("parsing {}", self.blob.display()))
    }

    /// Runs the network on the host with the runtime that runs on the board.
    pub(crate) fn on_host(&self) -> Result<OnHost> {
        let input = self.model(&mut Vec::new())?.input();
        let scores = self.scores(&self.image_bytes()?)?;
        Ok(OnHost { width: input.width.into(), channels: input.channels.into(), scores })
    }

    /// The bytes of the images.
    pub(crate) fn image_bytes(&self) -> Result<Vec<u8>> {
        read(&self.images)
    }

    /// The bits of the scores of the first image in `bytes`.
    pub(crate) fn scores_of(&self, bytes: &[u8]) -> Result<String> {
        let length = self.model(&mut Vec::new())?.input().len();
        let image = bytes.get(..length).with_context(|| format!("an image has {length} bytes"))?;
        Ok(self.scores(image)?.remove(0))
    }

    /// The bits of the scores of each image in `bytes`.
    fn scores(&self, bytes: &[u8]) -> Result<Vec<String>> {
        let (mut blob, mut arena) = (Vec::new(), Vec::new());
        let model = self.model(&mut blob)?;
        let arena = aligned(&mut arena, model.arena_bytes_rows());
        let mut network: Network = Network::new(model, arena)?;
        let mut scores = Vec::new();
        for image in bytes.chunks(model.input().len()) {
            let bits = network.run(image)?.values().iter().map(|score| format!("{:08x}", score.to_bits()));
            scores.push(bits.collect::<Vec<_>>().join(" "));
        }
        Ok(scores)
    }
}

fn inspect(tool: &Tool, blob: &Path) -> Result<Facts> {
    let text = process::output(tool.command("inspect").arg(blob).arg("--json"))?;
    let json: Value =
        serde_json::from_str(&text).context("`skipstone inspect --json` printed invalid JSON")?;
    let number = |key: &str| match json[key].as_u64() {
        Some(number) => Ok(number),
        None => bail!("`skipstone inspect {} --json` has no number `{key}`", blob.display()),
    };
    Ok(Facts {
        layers: layers(&json).with_context(|| format!("the layers of {}", blob.display()))?,
        arena_bytes: number("arena_bytes")?,
        arena_bytes_rows: number("arena_bytes_rows")?,
        blob_bytes: number("blob_bytes")?,
        macs: number("macs")?,
        cycles: number("cycles")?,
    })
}

fn layers(report: &Value) -> Result<Vec<Layer>> {
    let layers = report["layers"].as_array().context("`skipstone inspect --json` has no `layers`")?;
    let layer = |layer: &Value| {
        let block =
            layer["block"].as_u64().and_then(|index| report["blocks"][index as usize]["name"].as_str());
        let names = [block, layer["name"].as_str()].into_iter().flatten();
        let (kernel, stride) = (&layer["window"]["kernel"], &layer["window"]["stride"]);
        let mut window =
            if kernel.is_null() { String::new() } else { format!("{}x{}", kernel[0], kernel[1]) };
        if stride[0].as_u64() > Some(1) {
            window += &format!("/{}", stride[0]);
        }
        if layer["adds_shortcut"] == true {
            window += " +";
        }
        let macs = layer["macs"].as_u64().context("a layer has no `macs`")?;
        Ok(Layer { name: names.collect::<Vec<_>>().join(" "), window, macs })
    };
    layers.iter().map(layer).collect()
}

/// `length` zero bytes in `storage`, aligned to 16 bytes, as blobs and arenas must be.
fn aligned(storage: &mut Vec<u8>, length: usize) -> &mut [u8] {
    storage.resize(length + 15, 0);
    let start = storage.as_ptr().align_offset(16);
    &mut storage[start..start + length]
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
