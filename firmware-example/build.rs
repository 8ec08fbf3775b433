//! Selects the board and embeds the model, its arena sizes and the images.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `SKIPSTONE_BOARD` | the board, a row of `boards/boards.rs` | the first row |
//! | `SKIPSTONE_MODEL` | the blob | written by the last `cargo xtask demo` |
//! | `SKIPSTONE_IMAGES` | raw images (HWC bytes), stored consecutively | written by the last `cargo xtask demo` |
//! | `SKIPSTONE_KEY` | the public key; required by the feature `signature` | none |
//! | `SKIPSTONE_UPDATE` | the second blob: `update` replaces the first one with it, `swap` runs both | the first one |
//! | `SKIPSTONE_ARENA_BYTES` | arena size with the frame in it | what the model needs |
//! | `SKIPSTONE_ARENA_BYTES_ROWS` | arena size if fed by rows | what the model needs |
//! | `SKIPSTONE_KERNELS` | kernels to link into the demo, the bits of `skipstone::Kernels` | what the model needs |
//! | `SKIPSTONE_SHOW_PANICS` | if set, links `panicfree` even if it can panic, to find out where | not set |

use std::path::{Path, PathBuf};
use std::{env, fs};

use skipstone::Model;

#[path = "boards/boards.rs"]
#[allow(dead_code, reason = "`cargo xtask` reads the other columns")]
mod boards;

use boards::{BOARDS, Board};

fn main() {
    let built = board().and_then(|board| {
        select(board)?;
        link(board)?;
        inputs()
    });
    if let Err(message) = built {
        // Fails the build and shows this message only. With a failing exit status, cargo would also show
        // everything else that is printed here.
        println!("cargo::error={message}");
    }
}

/// The selected board.
fn board() -> Result<&'static Board, String> {
    println!("cargo::rerun-if-env-changed=SKIPSTONE_BOARD");
    let Ok(name) = env::var("SKIPSTONE_BOARD") else { return Ok(&BOARDS[0]) };
    BOARDS.iter().find(|board| board.name == name).ok_or_else(|| {
        let known: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
        format!("SKIPSTONE_BOARD={name}: unknown board; the boards are {}", known.join(", "))
    })
}

/// Writes `board.rs`: the board's module and the constants of its row.
fn select(board: &Board) -> Result<(), String> {
    let target = env::var("TARGET").unwrap_or_default();
    if target != board.target {
        return Err(format!("{} needs `--target {}`, this build is for {target}", board.name, board.target));
    }
    let module = Path::new("src/board").join(board.module());
    let module = module.canonicalize().map_err(|e| format!("{}: {e}", module.display()))?;
    let source = format!(
        "#[path = {module:?}]
mod selected;
/// The board's name.
pub const NAME: &str = {:?};
/// Frequency in Hz of the clock that times are measured with.
pub const CLOCK_HZ: u32 = {};
",
        board.name, board.clock_hz
    );
    fs::write(out_dir()?.join("board.rs"), source).map_err(|e| e.to_string())
}

/// Passes the memory layout and arguments to the linker.
///
/// The arguments are given here instead of in rustflags, which therefore are the same for every board: `core`
/// and the dependencies are built once.
fn link(board: &Board) -> Result<(), String> {
    let script = Path::new("boards").join(board.linker_script);
    println!("cargo::rerun-if-changed={}", script.display());
    let out = out_dir()?;
    // cortex-m-rt's `link.x` includes `memory.x`.
    fs::write(out.join("memory.x"), read(&script)?).map_err(|e| e.to_string())?;
    // With cortex-m-rt's feature `device`, `link.x` includes the names of the device's interrupts: none here.
    fs::write(out.join("device.x"), "").map_err(|e| e.to_string())?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-env-changed=SKIPSTONE_SHOW_PANICS");
    if env::var_os("SKIPSTONE_SHOW_PANICS").is_some() {
        // Defines the missing symbol, and keeps the relocations, which say who calls whom.
        for argument in ["--defsym=skipstone_panics=0", "--emit-relocs"] {
            println!("cargo::rustc-link-arg-bin=panicfree={argument}");
        }
    }
    Ok(())
}

/// Writes `inputs.rs`: constants with the model, the images and the arena sizes.
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
            "{}: {} bytes are not a multiple of the image size, {}x{}x{} = {pixels} bytes",
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
/// Raw images, stored consecutively.
pub static IMAGES: &[u8] = include_bytes!({images_path:?});
/// Size of one image in bytes.
pub const IMAGE_BYTES: usize = {pixels};
/// Bytes of one row of an image.
pub const ROW_BYTES: usize = {row_bytes};
/// Arena size in bytes with the frame in it.
pub const ARENA_BYTES: usize = {frame};
/// Arena size in bytes if fed by rows.
pub const ARENA_BYTES_ROWS: usize = {rows};
/// The kernels to link.
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
            "/// Only networks signed with its private key run on this board.
pub static PUBLIC_KEY: &[u8; 32] = include_bytes!({key_path:?});
"
        );
    }
    fs::write(out_dir()?.join("inputs.rs"), source).map_err(|e| e.to_string())
}

/// Parses the model in a file; `storage` holds its blob.
fn model<'s>(path: &Path, storage: &'s mut Vec<u8>) -> Result<Model<'s>, String> {
    let blob = read(path)?;
    // A model needs 16-byte alignment, which a vector does not guarantee.
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
        Some(_) => format!("{variable}={}: {e}", path.display()),
        None => format!(
            "{}: {e}; run `cargo xtask demo` to create it, or set {variable} to your own file",
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
