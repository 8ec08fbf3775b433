//! Every board, one row each. The firmware's build script and `cargo xtask` both compile this file.

/// A board that the firmware runs on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Board {
    /// Its name, for `SKIPSTONE_BOARD` and `--board`.
    pub(crate) name: &'static str,
    /// What it is, for help texts.
    pub(crate) about: &'static str,
    /// Rust's target triple.
    pub(crate) target: &'static str,
    /// Frequency in Hz of the clock that times are measured with.
    pub(crate) clock_hz: u32,
    /// Memory layout, a file in this folder.
    pub(crate) linker_script: &'static str,
    /// What runs a program on it.
    pub(crate) runner: Runner,
}

impl Board {
    /// The file with its clock, logger and exit, in `src/board/`.
    pub(crate) fn module(&self) -> String {
        self.name.replace('-', "_") + ".rs"
    }
}

/// What runs a program on a board and shows its output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// QEMU.
    Qemu {
        /// The emulator's program.
        program: &'static str,
        /// Its argument `-M`.
        machine: &'static str,
    },
    /// probe-rs, through a debug probe.
    ProbeRs {
        /// The chip, as probe-rs names it.
        chip: &'static str,
    },
}

/// The boards. The first one is the default.
pub(crate) const BOARDS: &[Board] = &[
    Board {
        name: "mps2-an386",
        about: "QEMU's model of Arm's MPS2 with the AN386 image, Cortex-M4F",
        target: "thumbv7em-none-eabihf",
        clock_hz: 25_000_000,
        linker_script: "mps2-an386.x",
        runner: Runner::Qemu { program: "qemu-system-arm", machine: "mps2-an386" },
    },
    Board {
        name: "nrf52840-dk",
        about: "Nordic's nRF52840-DK, Cortex-M4F at 64 MHz",
        target: "thumbv7em-none-eabihf",
        clock_hz: 64_000_000,
        linker_script: "nrf52840-dk.x",
        runner: Runner::ProbeRs { chip: "nRF52840_xxAA" },
    },
];
