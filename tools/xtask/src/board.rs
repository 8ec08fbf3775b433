//! The boards of the firmware: `firmware-example/boards/boards.rs` lists them.

use std::env;

use anyhow::{Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

#[path = "../../../firmware-example/boards/boards.rs"]
#[allow(dead_code, reason = "the firmware's build script reads the other columns")]
mod table;

pub(crate) use table::{BOARDS, Board, Runner};

/// The default board, which is emulated: the one that demo, tests and bench run on.
pub(crate) const EMULATED: &Board = &BOARDS[0];

/// Selects the firmware's board.
pub(crate) const VARIABLE: &str = "SKIPSTONE_BOARD";

/// The boards with a debug probe.
pub(crate) fn flashable() -> impl Iterator<Item = &'static Board> {
    BOARDS.iter().filter(|board| matches!(board.runner, Runner::ProbeRs { .. }))
}

/// Parses the name of a board that can be flashed.
pub(crate) fn parser() -> impl TypedValueParser<Value = &'static Board> {
    let names = flashable().map(|board| PossibleValue::new(board.name).help(board.about));
    PossibleValuesParser::new(names).try_map(|name| named(&name))
}

/// The board that [`VARIABLE`] names, or the emulated one.
pub(crate) fn from_environment() -> Result<&'static Board> {
    env::var(VARIABLE).map_or(Ok(EMULATED), |name| named(&name))
}

fn named(name: &str) -> Result<&'static Board> {
    match BOARDS.iter().find(|board| board.name == name) {
        Some(board) => Ok(board),
        None => {
            let known: Vec<_> = BOARDS.iter().map(|board| board.name).collect();
            bail!("unknown board `{name}`; the boards are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    #[test]
    fn every_board_has_its_linker_script_and_its_module() {
        for board in BOARDS {
            for file in [
                paths::firmware().join("boards").join(board.linker_script),
                paths::firmware().join("src").join("board").join(board.module()),
            ] {
                assert!(file.is_file(), "{}: {} is missing", board.name, file.display());
            }
        }
    }

    #[test]
    fn the_default_board_is_emulated() {
        assert!(matches!(EMULATED.runner, Runner::Qemu { .. }));
    }
}
