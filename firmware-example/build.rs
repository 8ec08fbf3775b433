//! Chooses the board's memory layout and bakes in the model, its arena sizes and the images.
//!
//! | variable | what | when it is not set |
//! |---|---|---|
//! | `SKIPSTONE_MODEL` | the blob | what `cargo xtask demo` made last |
//! | `SKIPSTONE_IMAGES` | raw images (HWC bytes), one after another | the same |
//! | `SKIPSTONE_KEY` | the public key, with the feature `signature` | none: has to be set |
//! | `SKIPSTONE_UPDATE` | the blob that `update` replaces the first one by | the first one |
//! | `SKIPSTONE_ARENA_BYTES` | arena with the frame in it | what the model asks for |
//! | `SKIPSTONE_ARENA_BYTES_ROWS` | arena when fed by rows | what the model asks for |
//! | `SKIPSTONE_KERNELS` | kernels that the demo links, as `skipstone::Kernels`' bits | what the model needs |
//! | `SKIPSTONE_SHOW_PANICS` | link `panicfree` although it panics, so that its panics can be named | no |

use std::path::{Path, PathBuf};
use std::{env, fs};

use skipstone::Model;

/// Every board: its cargo feature, which is also the name of its linker script in `boards/`.
const BOARDS: [&str; 2] = ["mps2-an386", "nrf52840-dk"];

fn main() {
    if let Err(message) = layout().and_then(|()| inputs()) {
        // Fails the build, and shows the text alone; a failing exit status would surround it with
        // everything else that is printed here.
        println!("cargo::error={message}");
    }
}

/// Writes `memory.x` where cortex-m-rt's `link.x` looks for it. The linker's arguments are given
/// here and not as rustflags: those stay the same for every board, so `core` and the dependencies
/// are built once.
fn layout() -> Result<(), String> {
    let chosen = |board: &&str| {
        let feature = board.to_uppercase().replace('-', "_");
        env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
    };
    let boards: Vec<_> = BOARDS.into_iter().filter(chosen).collect();
    let [board] = boards[..] else {
        let known = BOARDS.join(", ");
        return Err(format!(
            "{} boards are chosen, one is needed ({known}): \
             cargo build --no-default-features --features BOARD",
            boards.len()
        ));
    };
    let script = format!("boards/{board}.x");
    println!("cargo::rerun-if-changed={script}");
    let out = out_dir()?;
    fs::write(out.join("memory.x"), read(Path::new(&script))?).map_err(|e| e.to_string())?;
    // cortex-m-rt's `device` feature looks for the names of the device's interrupts: we use none.
    fs::write(out.join("device.x"), "").map_err(|e| e.to_string())?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-env-changed=SKIPSTONE_SHOW_PANICS");
    if env::var_os("SKIPSTONE_SHOW_PANICS").is_some() {
        // links `panicfree` although it panics, with a note of who calls whom
        for argument in ["--defsym=skipstone_panics=0", "--emit-relocs"] {
            println!("cargo::rustc-link-arg-bin=panicfree={argument}");
        }
    }
    println!("cargo::rustc-env=SKIPSTONE_BOARD={board}");
    Ok(())
}

/// Writes `inputs.rs`: the model, the images and the arena sizes as constants.
fn inputs() -> Result<(), String> {
    let model_path = path_from("SKIPSTONE_MODEL", "../target/demo/cifar10-resnet8.skip")?;
    let images_path = path_from("SKIPSTONE_IMAGES", "../target/demo/photo.raw")?;
    let update_path = path_from("SKIPSTONE_UPDATE", &model_path.to_string_lossy())?;
    let images = read(&images_path)?;
    let (mut blob, mut update) = (Vec::new(), Vec::new());
    let (model, update) = (model(&model_path, &mut blob)?, model(&update_path, &mut update)?);

    let input = model.input();
    let pixels = usize::from(input.height) * usize::from(input.width) * usize::from(input.channels);
    if images.is_empty() || images.len() % pixels != 0 {
        return Err(format!(
            "{}: {} bytes are not a whole number of {}x{}x{} images ({pixels} bytes each)",
            images_path.display(),
            images.len(),
            input.height,
            input.width,
            input.channels,
        ));
    }
    let row_bytes = input.row_len();
    let frame = model.arena_bytes().max(update.arena_bytes());
    let frame = number_from("SKIPSTONE_ARENA_BYTES", frame)?;
    let rows = model.arena_bytes_rows().max(update.arena_bytes_rows());
    let rows = number_from("SKIPSTONE_ARENA_BYTES_ROWS", rows)?;
    let kernels = number_from("SKIPSTONE_KERNELS", model.kernels().into())?;
    let mut source = format!(
        "/// The blob, aligned.
pub static MODEL: &[u8] = skipstone::include_model!({model_path:?});
/// Raw images, one after another.
pub static IMAGES: &[u8] = include_bytes!({images_path:?});
/// Bytes of one image.
pub const IMAGE_BYTES: usize = {pixels};
/// Bytes of one row of an image.
pub const ROW_BYTES: usize = {row_bytes};
/// Bytes of arena that the model needs with the frame in it.
pub const ARENA_BYTES: usize = {frame};
/// Bytes of arena that the model needs when it is fed by rows.
pub const ARENA_BYTES_ROWS: usize = {rows};
/// Kernels to be linked.
pub const KERNELS: u16 = {kernels};
"
    );
    source += &format!(
        "/// A second blob.
pub static UPDATE: &[u8] = skipstone::include_model!({update_path:?});
"
    );
    if env::var_os("CARGO_FEATURE_SIGNATURE").is_some() {
        let key_path = path_from("SKIPSTONE_KEY", "public-key.pub")?;
        source += &format!(
            "/// The owner of its private key may sign networks for this board.
pub static PUBLIC_KEY: &[u8; 32] = include_bytes!({key_path:?});
"
        );
    }
    fs::write(out_dir()?.join("inputs.rs"), source).map_err(|e| e.to_string())
}

/// The model in a file, its blob in `storage`.
fn model<'s>(path: &Path, storage: &'s mut Vec<u8>) -> Result<Model<'s>, String> {
    let blob = read(path)?;
    // A file's bytes lie anywhere, a model wants 16-byte alignment.
    storage.resize(blob.len() + 15, 0);
    let start = storage.as_ptr().align_offset(16);
    let aligned = &mut storage[start..][..blob.len()];
    aligned.copy_from_slice(&blob);
    Model::parse(aligned).map_err(|e| format!("{}: {e}", path.display()))
}

/// The path in an environment variable or the default one, absolute.
fn path_from(variable: &str, default: &str) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={variable}");
    let given = env::var_os(variable);
    let path = PathBuf::from(given.clone().unwrap_or_else(|| default.into()));
    println!("cargo::rerun-if-changed={}", path.display());
    path.canonicalize().map_err(|e| match given {
        Some(_) => format!("{variable} names {}: {e}", path.display()),
        None => format!(
            "{}: {e}; `cargo xtask demo` makes it, or set {variable} to a file of your own",
            path.display()
        ),
    })
}

/// The number in an environment variable, or the default one.
fn number_from(variable: &str, default: usize) -> Result<usize, String> {
    println!("cargo::rerun-if-env-changed={variable}");
    match env::var(variable) {
        Ok(text) => text.parse().map_err(|e| format!("{variable}={text}: {e}")),
        Err(_) => Ok(default),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn out_dir() -> Result<PathBuf, String> {
    env::var_os("OUT_DIR").map(PathBuf::from).ok_or_else(|| "OUT_DIR is not set".into())
}
