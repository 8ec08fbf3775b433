//! Builds the firmware for a board, with an embedded model and images.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use skipstone::host::Kernels;

use crate::board::{self, Board, EMULATED};
use crate::case::Case;
use crate::toolchain::Toolchain;
use crate::{paths, process};

/// The program that tests the kernels. It needs the feature `self-test`.
pub(crate) const SELF_TEST: &str = "kernels";

/// The program that runs under an async executor. It needs the feature `embassy`.
pub(crate) const CAMERA: &str = "camera";

/// What to build.
pub(crate) struct Build<'a> {
    /// The program, one of firmware-example's binaries.
    pub(crate) program: &'a str,
    pub(crate) board: &'static Board,
    /// The model and the images.
    pub(crate) case: &'a Case,
    /// The second network: `update` installs it, if it is signed, and `swap` runs it in turn with the first.
    pub(crate) update: Option<&'a Case>,
    /// Arena size in bytes with the frame in it.
    pub(crate) arena_bytes: u64,
    /// Arena size in bytes if fed by rows.
    pub(crate) arena_bytes_rows: u64,
    /// Link all kernels into the demo, not only those that the model needs.
    pub(crate) all_kernels: bool,
}

impl<'a> Build<'a> {
    /// A program for the emulated board, with the arena sizes that `skipstone inspect` prints.
    pub(crate) fn emulated(program: &'a str, case: &'a Case) -> Build<'a> {
        let (arena_bytes, arena_bytes_rows) = (case.facts.arena_bytes, case.facts.arena_bytes_rows);
        Build {
            program,
            board: EMULATED,
            case,
            update: None,
            arena_bytes,
            arena_bytes_rows,
            all_kernels: false,
        }
    }

    /// Builds it; returns the ELF file, which the next build does not overwrite.
    pub(crate) fn run(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        let board = self.board.name;
        let mut command = toolchain.cargo("build");
        self.describe_to(&mut command);
        command.args(["--bin", self.program]);
        let what = format!("building firmware-example's {} for {board}", self.program);
        let built = process::cargo_build(&mut command).context(what)?;
        let built =
            built.first().with_context(|| format!("cargo did not build a program `{}`", self.program))?;
        let kept = paths::output().join(format!("{}-{}-{board}.elf", self.case.name, self.program));
        fs::copy(built, &kept)
            .with_context(|| format!("copying {} to {}", built.display(), kept.display()))?;
        Ok(kept)
    }

    /// Adds the features, and the environment variables that the build script reads.
    pub(crate) fn describe_to(&self, cargo: &mut Command) {
        cargo.arg("--release").env(board::VARIABLE, self.board.name);
        if self.program == SELF_TEST {
            cargo.args(["--features", "self-test"]);
        }
        if self.program == CAMERA {
            cargo.args(["--features", "embassy"]);
        }
        if let Some(key) = &self.case.key {
            cargo.args(["--features", "signature"]).env("SKIPSTONE_KEY", key);
        }
        if let Some(update) = self.update {
            cargo.env("SKIPSTONE_UPDATE", &update.blob);
        }
        cargo.env("SKIPSTONE_MODEL", &self.case.blob);
        cargo.env("SKIPSTONE_IMAGES", &self.case.images);
        cargo.env("SKIPSTONE_ARENA_BYTES", self.arena_bytes.to_string());
        cargo.env("SKIPSTONE_ARENA_BYTES_ROWS", self.arena_bytes_rows.to_string());
        if self.all_kernels {
            cargo.env("SKIPSTONE_KERNELS", Kernels::ALL.to_string());
        }
    }
}
