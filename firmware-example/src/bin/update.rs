//! Replaces its network in the field: a power cut, a forger and a proper update, with RAM in flash's place.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, exit, inputs};
use skipstone::update::slots::{Update, UpdateError, newest_first};
use skipstone::{Arena, Network};
use static_cell::ConstStaticCell;

#[path = "../../../tests/runtime/nor_flash.rs"]
mod nor_flash;

use nor_flash::{Fault, Flash};

/// As the nRF52840's flash: words of 4 bytes, pages of 4 KiB.
const WORD: usize = 4;
const PAGE: usize = 4096;

/// A slot has room for either network.
const SLOT: usize = {
    let (first, second) = (inputs::MODEL.len(), inputs::UPDATE.len());
    (if first > second { first } else { second }).next_multiple_of(PAGE)
};

type Board = Flash<{ 2 * SLOT }, WORD, PAGE>;

static FLASH: ConstStaticCell<Board> = ConstStaticCell::new(Board::new(1));
static ARENA: ConstStaticCell<Arena<{ inputs::ARENA_BYTES_ROWS }>> = ConstStaticCell::new(Arena::new());

#[entry]
fn main() -> ! {
    let (flash, arena) = (FLASH.take(), ARENA.take());
    unwrap!(write(flash, 0, inputs::MODEL, None).ok());
    let mut running = start("factory", flash, arena);

    // the power fails when half of the new network is written
    flash.power = SLOT + inputs::UPDATE.len() / 2;
    let cut_off = write(flash, 1 - running, inputs::UPDATE, None);
    defmt::assert!(matches!(cut_off, Err(UpdateError::Flash(Fault::Power))));
    flash.power = usize::MAX;
    running = start("torn", flash, arena);

    // somebody has changed one bit of it on the way
    unwrap!(write(flash, 1 - running, inputs::UPDATE, Some(inputs::UPDATE.len() / 2)).ok());
    running = start("forged", flash, arena);

    unwrap!(write(flash, 1 - running, inputs::UPDATE, None).ok());
    start("updated", flash, arena);
    exit()
}

/// What a board does at its start: finds the newest network that is whole and signed, and runs it. Returns its slot.
fn start(moment: &str, flash: &Board, arena: &mut [u8]) -> usize {
    let slots = newest_first(flash.slots(), inputs::PUBLIC_KEY);
    let slot = slots.flatten().find(|slot| Network::<16>::new(slot.model, arena).is_ok());
    let slot = unwrap!(slot, "no slot holds a network");
    let mut network: Network = unwrap!(Network::new(slot.model, arena));
    let scores = unwrap!(network.run(&inputs::IMAGES[..inputs::IMAGE_BYTES]));
    println!("{=str} {=usize} {=u32} {}", moment, slot.index, slot.sequence, Bits(scores.values()));
    slot.index
}

/// Receives an image, in the pieces in which a radio delivers it, and writes it into a slot.
fn write(
    flash: &mut Board,
    slot: usize,
    image: &[u8],
    flipped: Option<usize>,
) -> Result<(), UpdateError<Fault>> {
    let begin = (slot * SLOT) as u32;
    let mut update = Update::begin(flash, begin..begin + SLOT as u32)?;
    let mut buffer = [0; 50];
    for (index, piece) in image.chunks(buffer.len()).enumerate() {
        let received = &mut buffer[..piece.len()];
        received.copy_from_slice(piece);
        let place = flipped.and_then(|at| at.checked_sub(index * 50)).and_then(|at| received.get_mut(at));
        if let Some(byte) = place {
            *byte ^= 1;
        }
        update.write(received)?;
    }
    update.finish()
}
