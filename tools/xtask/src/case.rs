//! A network with real images: made by the host tool, run by the host, to be run by the board.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use skipstone::{Model, Network};

use crate::toolchain::host_cargo;
use crate::{paths, process};

/// The picture of the demo.
pub(crate) const PHOTO: &str = "cat.png";

/// Images of digits in the parity check.
pub(crate) const DIGITS: usize = 120;

/// The host tool, built.
pub(crate) struct Tool {
    program: PathBuf,
    talks: bool,
}

impl Tool {
    /// Builds `skipstone` in release.
    pub(crate) fn build() -> Result<Tool> {
        let mut command = host_cargo();
        command.args(["build", "--release", "--bin", "skipstone"]);
        let built = process::cargo_build(&mut command).context("building the host tool")?;
        let program = built.into_iter().next().context("cargo made no program `skipstone`")?;
        Ok(Tool { program, talks: false })
    }

    /// The tool, showing what it prints while it converts.
    pub(crate) fn talking(self) -> Tool {
        Tool { talks: true, ..self }
    }

    /// `skipstone SUBCOMMAND`, run from the repository's root.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(paths::root()).arg(subcommand);
        command
    }
}

/// What `skipstone inspect` states.
#[derive(Clone)]
pub(crate) struct Facts {
    /// Each layer that runs, in order.
    pub(crate) layers: Vec<Layer>,
    /// Bytes of arena, with the frame in it.
    pub(crate) arena_bytes: u64,
    /// Bytes of arena, fed by rows.
    pub(crate) arena_bytes_rows: u64,
    /// Bytes of the blob.
    pub(crate) blob_bytes: u64,
    /// Multiplications and additions of one run.
    pub(crate) macs: u64,
    /// Predicted cycles of one run.
    pub(crate) cycles: u64,
}

/// A layer in `skipstone inspect`'s words.
#[derive(Clone)]
pub(crate) struct Layer {
    /// Its block's name and its own.
    pub(crate) name: String,
    /// Window and stride, and `+` where it adds the shortcut: `3x3/2 +`.
    pub(crate) window: String,
    /// Multiplications and additions of one run.
    pub(crate) macs: u64,
}

/// What a case is made from.
pub(crate) struct Source<'s> {
    /// The case's name, and its blob's.
    pub(crate) name: &'s str,
    /// The trained network.
    pub(crate) network: PathBuf,
    /// Further arguments of `skipstone convert`.
    pub(crate) arguments: &'s [&'s str],
    /// File in `models` with images for the calibration.
    pub(crate) calibration: &'s str,
    /// File in `models` with the images to run.
    pub(crate) pictures: &'s str,
    /// File for these images, raw.
    pub(crate) raw: &'s str,
    /// Most images to run.
    pub(crate) limit: Option<usize>,
}

impl<'s> Source<'s> {
    /// One photo, for a network that was trained on CIFAR-10 or looks like it.
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
    /// The public key's file, where the blob is signed and the firmware shall run no other.
    pub(crate) key: Option<PathBuf>,
    /// Raw images, exactly the bytes that the network sees, one after another.
    pub(crate) images: PathBuf,
    /// What the blob is.
    pub(crate) facts: Facts,
}

/// A case as the host sees it.
pub(crate) struct OnHost {
    /// Pixels in a row of an image.
    pub(crate) width: usize,
    /// Bytes of a pixel.
    pub(crate) channels: usize,
    /// For each image the bits of each score in hexadecimal, as the firmware prints them.
    pub(crate) scores: Vec<String>,
}

impl Case {
    /// ResNet-8 trained on CIFAR-10, and one photo.
    pub(crate) fn photo(tool: &Tool) -> Result<Case> {
        let name = "cifar10-resnet8";
        Case::make(tool, &Source::photo(name, paths::models().join(name).with_extension("toml"), &[]))
    }

    /// The digits' network, and the first hundred and some of their test images.
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
        if tool.talks { process::run(&mut convert) } else { process::output(&mut convert).map(drop) }?;

        let mut preprocess = tool.command("preprocess");
        preprocess.arg(&blob).arg(paths::models().join(source.pictures)).arg("-o").arg(&images);
        preprocess.args(source.limit.map(|limit| format!("--limit={limit}")));
        process::output(&mut preprocess)?;
        let facts = inspect(tool, &blob)?;
        Ok(Case { name: source.name.into(), blob, key: None, images, facts })
    }

    /// The network's model; its blob lies in `storage`.
    pub(crate) fn model<'s>(&self, storage: &'s mut Vec<u8>) -> Result<Model<'s>> {
        let bytes = read(&self.blob)?;
        let blob = aligned(storage, bytes.len());
        blob.copy_from_slice(&bytes);
        Model::parse(blob).with_context(|| format!("parsing {}", self.blob.display()))
    }

    /// Runs the network on the host, by the code that runs on the board.
    pub(crate) fn on_host(&self) -> Result<OnHost> {
        let (mut blob, mut arena) = (Vec::new(), Vec::new());
        let model = self.model(&mut blob)?;
        let arena = aligned(&mut arena, model.arena_bytes_rows());
        let mut network: Network = Network::new(model, arena)?;
        let mut scores = Vec::new();
        for image in read(&self.images)?.chunks(model.input().len()) {
            let bits = network.run(image)?.values().iter().map(|score| format!("{:08x}", score.to_bits()));
            scores.push(bits.collect::<Vec<_>>().join(" "));
        }
        let input = model.input();
        Ok(OnHost { width: input.width.into(), channels: input.channels.into(), scores })
    }
}

fn inspect(tool: &Tool, blob: &Path) -> Result<Facts> {
    let text = process::output(tool.command("inspect").arg(blob).arg("--json"))?;
    let json: Value =
        serde_json::from_str(&text).context("`skipstone inspect --json` printed other than JSON")?;
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

/// `length` zeros in `storage`, aligned to 16 as blobs and arenas are.
fn aligned(storage: &mut Vec<u8>, length: usize) -> &mut [u8] {
    storage.resize(length + 15, 0);
    let start = storage.as_ptr().align_offset(16);
    &mut storage[start..start + length]
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
