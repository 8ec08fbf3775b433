//! Updates in the field over simulated flash: wherever the power fails, a whole network comes up.

use embedded_storage::nor_flash::NorFlashErrorKind;
use skipstone::Network;
use skipstone::error::SignatureError;
use skipstone::update::slots::{Update, UpdateError, newest_first};
use skipstone_tools::blob::Blob;
use skipstone_tools::signing::{self, KeyPair};

use crate::memory::Memory;
use crate::networks::{self, bits};
use crate::nor_flash::{Fault, Flash};
use crate::random::Random;

const PAGE: usize = 256;
const SLOT: usize = 9 * PAGE;

/// Words of 8 bytes, as in an STM32L4's flash.
type Board = Flash<{ 2 * SLOT }, 8, PAGE>;

/// A signed network, and what it answers.
struct Release {
    image: Vec<u8>,
    sequence: u32,
    scores: Vec<u32>,
}

/// What every test has: a key, and releases 1 to 4 that differ in their weights and lengths.
struct Maker {
    keys: KeyPair,
    releases: Vec<Release>,
}

impl Maker {
    fn new() -> Self {
        let keys = signing::generate();
        let releases = (1..=4).map(|sequence| release(&keys, sequence)).collect();
        Maker { keys, releases }
    }

    /// The release that comes up when the board starts; panics unless it is one, whole.
    fn boots(&self, board: &Board) -> u32 {
        self.running(board).expect("no network comes up").1
    }

    /// Slot and release that come up.
    fn running(&self, board: &Board) -> Option<(usize, u32)> {
        let mut arena = Memory::new(4096);
        let slot = newest_first(board.slots(), &self.keys.pk)
            .flatten()
            .find(|slot| Network::<16>::new(slot.model, arena.bytes()).is_ok())?;
        let mut network = Network::<16>::new(slot.model, arena.bytes()).unwrap();
        let scores = bits(network.run(&picture()).unwrap().values());
        let release = self.releases.iter().find(|release| release.sequence == slot.sequence).unwrap();
        assert_eq!(scores, release.scores, "release {} is not itself", slot.sequence);
        Some((slot.index, slot.sequence))
    }

    /// Writes an image into the slot that does not run, in pieces.
    fn update(&self, board: &mut Board, image: &[u8], piece: usize) -> Result<(), UpdateError<Fault>> {
        let spare = 1 - self.running(board).map_or(1, |(index, _)| index);
        write(board, spare, image, piece)
    }

    /// A board as it leaves the factory: release 1 in slot 0.
    fn factory(&self) -> Board {
        let mut board = Board::new(1);
        write(&mut board, 0, &self.releases[0].image, 100).unwrap();
        assert_eq!(self.running(&board), Some((0, 1)));
        board
    }
}

fn write(board: &mut Board, slot: usize, image: &[u8], piece: usize) -> Result<(), UpdateError<Fault>> {
    let start = (slot * SLOT) as u32;
    let mut update = Update::begin(board, start..start + SLOT as u32)?;
    for piece in image.chunks(piece) {
        update.write(piece)?;
    }
    update.finish()
}

fn picture() -> Vec<u8> {
    networks::image(&mut Random::new(5), networks::small().input)
}

fn release(keys: &KeyPair, sequence: u32) -> Release {
    let mut network = networks::small_of(sequence.into());
    network.name = "x".repeat(sequence as usize);
    let scores = networks::scores_of(&networks::expected(&network, &picture()));
    let image = signing::sign(&networks::planned(&network), keys, sequence);
    Release { image, sequence, scores }
}

#[test]
fn wherever_the_power_fails_the_old_or_the_new_network_comes_up() {
    let maker = Maker::new();
    let mut board = maker.factory();
    let mut random = Random::new(1);
    for release in &maker.releases[1..] {
        let (old, new) = (release.sequence - 1, release.sequence);
        let is_either = |board: &Board| [old, new].contains(&maker.boots(board));
        let steps = SLOT + release.image.len().next_multiple_of(8);
        for step in 0..steps {
            let mut cut = board.clone();
            cut.power = step;
            let outcome = maker.update(&mut cut, &release.image, 90);
            assert_eq!(outcome, Err(UpdateError::Flash(Fault::Power)), "after {step} bytes");
            assert!(is_either(&cut), "after {step} bytes");
            if step % 16 == 0 {
                // it tries again, fails again, and succeeds in the end
                cut.power = random.size(0, steps - 1);
                let again = maker.update(&mut cut, &release.image, 64);
                assert!(again.is_err() && is_either(&cut), "after {step} bytes, again");
                cut.power = usize::MAX;
                maker.update(&mut cut, &release.image, 1000).unwrap();
                assert_eq!(maker.boots(&cut), new);
            }
        }
        board.power = steps;
        maker.update(&mut board, &release.image, 7).unwrap();
        assert_eq!((maker.boots(&board), board.power), (new, 0));
    }
}

/// Whether all is well with the new one or not, the older one stays until the next update.
#[test]
fn forged_damaged_unsigned_and_older_images_fall_back() {
    let maker = Maker::new();
    let mut board = maker.factory();
    maker.update(&mut board, &maker.releases[1].image, 100).unwrap();
    let newer = &maker.releases[2];
    let mut damaged = newer.image.clone();
    damaged[1000] ^= 1;
    let mut renumbered = newer.image.clone();
    let sequence = renumbered.len() - 68;
    renumbered[sequence] = 9;
    let forged = release(&signing::generate(), 9).image;
    let unsigned = newer.image[..newer.image.len() - 76].to_vec();
    let mut unknown = unsigned.clone();
    unknown[4] = 9; // format version
    let unknown = signing::sign(&unknown, &maker.keys, 9);
    let refusals = [
        (damaged, SignatureError::Mismatch),
        (renumbered, SignatureError::Mismatch),
        (forged, SignatureError::Mismatch),
        (unsigned, SignatureError::Unsigned),
    ];
    for (image, refusal) in refusals {
        maker.update(&mut board, &image, 100).unwrap();
        assert_eq!(maker.running(&board), Some((1, 2)));
        let errors: Vec<_> = newest_first(board.slots(), &maker.keys.pk).filter_map(Result::err).collect();
        assert_eq!(errors, [refusal]);
    }
    for image in [&unknown, &maker.releases[0].image] {
        maker.update(&mut board, image, 100).unwrap();
        assert_eq!(maker.running(&board), Some((1, 2)));
    }
    maker.update(&mut board, &newer.image, 100).unwrap();
    assert_eq!(maker.running(&board), Some((0, 3)));
}

#[test]
fn the_newer_slot_comes_first_whichever_it_is() {
    let maker = Maker::new();
    let mut board = maker.factory();
    for release in &maker.releases[1..] {
        maker.update(&mut board, &release.image, 100).unwrap();
        let slots = newest_first(board.slots(), &maker.keys.pk).map(Result::unwrap);
        let order: Vec<_> = slots.map(|slot| (slot.index, slot.sequence)).collect();
        let (newer, sequence) = ((release.sequence as usize + 1) % 2, release.sequence);
        assert_eq!(order, [(newer, sequence), (1 - newer, sequence - 1)]);
    }
}

#[test]
fn empty_flash_has_no_network() {
    let maker = Maker::new();
    let board = Board::new(1);
    assert_eq!(maker.running(&board), None);
    assert_eq!(newest_first(board.slots(), &maker.keys.pk).filter(Result::is_err).count(), 2);
}

#[test]
fn an_image_or_a_slot_that_does_not_fit() {
    let maker = Maker::new();
    let mut board = maker.factory();
    let given = SLOT + 1;
    let error = maker.update(&mut board, &vec![0; given], given).unwrap_err();
    assert_eq!(error, UpdateError::Full { room: SLOT, given });
    let error = maker.update(&mut board, &vec![0; given], 100).unwrap_err();
    assert_eq!(error, UpdateError::Full { room: SLOT % 100, given: SLOT % 100 + 1 });
    assert!(maker.update(&mut board, &[0; SLOT], 100).is_ok(), "exactly full");
    for (slot, kind) in [
        (100..SLOT as u32, NorFlashErrorKind::NotAligned),
        (0..SLOT as u32 + 8, NorFlashErrorKind::NotAligned),
        (0..4 * SLOT as u32, NorFlashErrorKind::OutOfBounds),
    ] {
        let error = Update::begin(&mut board, slot).err().unwrap();
        assert_eq!(error, UpdateError::Flash(Fault::Arguments(kind)));
    }
    assert_eq!(maker.boots(&board), 1);
}

/// Whatever the word's size and the pieces' lengths, the image arrives, and no word is written twice.
#[test]
fn every_granularity() {
    fn arrives<const WORD: usize, const PAGE: usize>(image: &[u8]) {
        let mut flash = Flash::<8192, WORD, PAGE>::new(1);
        for piece in [1, 3, WORD, 255, 256, 257, image.len()] {
            let mut update = Update::begin(&mut flash, 0..4096).unwrap();
            image.chunks(piece).for_each(|piece| update.write(piece).unwrap());
            update.finish().unwrap();
            let [slot, other] = flash.slots();
            let (written, rest) = slot.split_at(image.len());
            assert_eq!(written, image);
            assert!(rest.iter().chain(other).all(|byte| *byte == 0xFF));
        }
    }
    let image = Blob::from(&Maker::new().releases[3].image[..]);
    arrives::<1, 4096>(&image);
    arrives::<2, 1024>(&image);
    arrives::<4, 4096>(&image);
    arrives::<8, 2048>(&image);
    arrives::<32, 128>(&image);
    arrives::<256, 256>(&image);
}
