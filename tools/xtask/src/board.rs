//! The boards that the firmware knows.

use clap::ValueEnum;

/// A board: a cargo feature of firmware-example, which brings its linker script and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    /// QEMU's MPS2 with the AN386 image: Cortex-M4F, emulated.
    #[value(name = "mps2-an386", skip)]
    Mps2An386,
    /// Nordic's nRF52840-DK: Cortex-M4F at 64 MHz, with a debug probe on it.
    #[value(name = "nrf52840-dk")]
    Nrf52840Dk,
}

impl Board {
    /// Its name, which is also the feature's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Board::Mps2An386 => "mps2-an386",
            Board::Nrf52840Dk => "nrf52840-dk",
        }
    }

    /// The chip, as probe-rs calls it; none where no probe can be attached.
    pub(crate) fn chip(self) -> Option<&'static str> {
        match self {
            Board::Mps2An386 => None,
            Board::Nrf52840Dk => Some("nRF52840_xxAA"),
        }
    }
}
