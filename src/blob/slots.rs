//! Replacing the network in the field: two slots in flash, of which the newer one that is whole and signed runs.
//!
//! Each slot is a range of whole flash pages in which one signed blob lies, from the slot's first byte on. An update
//! erases the slot that does not run and writes the new blob there; nothing else is ever changed. While that goes on,
//! and wherever the power fails, the other slot holds a whole network. There is no flag, table or counter to keep:
//! the signature says whether a slot is whole and who made it, and the sequence number in it, signed too, which is newer.
//!
//! ```
//! use skipstone::{Arena, Network, update::slots};
//! # use core::convert::Infallible;
//! # use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
//! # struct Flash([u8; 8192]);
//! # impl ErrorType for Flash { type Error = Infallible; }
//! # impl ReadNorFlash for Flash {
//! #     const READ_SIZE: usize = 1;
//! #     fn read(&mut self, _: u32, _: &mut [u8]) -> Result<(), Infallible> { Ok(()) }
//! #     fn capacity(&self) -> usize { 8192 }
//! # }
//! # impl NorFlash for Flash {
//! #     const WRITE_SIZE: usize = 4;
//! #     const ERASE_SIZE: usize = 4096;
//! #     fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> { Ok(self.0[from as usize..to as usize].fill(255)) }
//! #     fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Infallible> { Ok(self.0[at as usize..][..bytes.len()].copy_from_slice(bytes)) }
//! # }
//! # let mut flash = Flash([0; 8192]);
//! # static MODEL: &[u8] = skipstone::include_model!("../../tests/data/signed.skip");
//! # static PUBLIC_KEY: &[u8; 32] = include_bytes!("../../tests/data/signed.pub");
//! # let (slot_0, slot_1) = (MODEL, &[255; 4096][..]);
//! # let image = MODEL;
//! let mut arena = Arena::<{ 8 * 1024 }>::new();
//!
//! // at start-up: the newest of the two that this firmware can run
//! let running = slots::newest_first([slot_0, slot_1], PUBLIC_KEY)
//!     .flatten()
//!     .find(|slot| Network::<16>::new(slot.model, &mut arena).is_ok())
//!     .expect("one slot was filled in the factory");
//!
//! // an update arrives, in pieces of any length
//! let spare = [0..4096, 4096..8192][1 - running.index].clone();
//! let mut update = slots::Update::begin(&mut flash, spare)?;
//! for piece in image.chunks(100) {
//!     update.write(piece)?;
//! }
//! update.finish()?; // and start again
//! # assert_eq!((running.index, running.sequence), (0, 1));
//! # assert_eq!(flash.0[4096..][..image.len()], *image);
//! # Ok::<(), slots::UpdateError<Infallible>>(())
//! ```
//!
//! # What the flash has to be
//! The runtime reads weights in place, so the slots lie in flash that the core can address. Slices of a slot are
//! made anew after it was written: the compiler takes what a `&[u8]` shows for constant. Whether code and weights
//! can be read from flash while another page is erased is the part's property (most stall; some need code in RAM).
//!
//! * **Granularity.** A slot begins and ends at multiples of `NorFlash::ERASE_SIZE`, and a blob's alignment asks for a
//!   multiple of 4, which that is. Every write is a multiple of `WRITE_SIZE` at a multiple of it, padded with 0xFF at
//!   the end, and no word is written twice between erases: flash with error correction allows no more.
//! * **Wear.** An update erases each page of one slot once and writes it once, and updates take turns: flash that is
//!   specified for N erases takes 2 N updates. Failed ones count, and all of them hit the slot that does not run.
//! * **Sequence numbers.** `skipstone sign --sequence` sets them; each release has a higher one than the last. An image
//!   with a lower one than the running network's loses, however well it is signed: that is the protection from
//!   rollback. Of equal ones slot 0 wins. Where both slots can be lost, compare [`Slot::sequence`] with a
//!   lowest one in the firmware, too.

use core::fmt;
use core::ops::Range;

use embedded_storage::nor_flash::NorFlash;

use crate::base::error::SignatureError;
use crate::blob::model::Model;
use crate::blob::signature::{Signed, Unverified};

/// Bytes that are gathered before they are written: a multiple of every usual `WRITE_SIZE`, and the page of an
/// external flash.
const PAGE: usize = 256;

/// A slot whose blob is whole and signed.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// Which of the two: 0 or 1.
    pub index: usize,
    /// The blob's signed sequence number.
    pub sequence: u32,
    /// The network.
    pub model: Model<'a>,
}

/// The networks in both slots, the one with the higher sequence number first. A slot is checked when the iterator
/// gets there: take the first that serves, and the other one costs nothing.
///
/// # Errors
/// For a slot that is empty, torn, forged or from another world, why [`Model::parse_signed`] refuses it. The sequence
/// number of such a slot is believed for the order alone.
pub fn newest_first<'a>(
    slots: [&'a [u8]; 2],
    public_key: &'a [u8; 32],
) -> impl Iterator<Item = Result<Slot<'a>, SignatureError>> {
    let claimed = |bytes| Unverified::find(bytes).ok().map(|found| found.sequence);
    let [first, second] = slots;
    let in_order = claimed(first) >= claimed(second);
    let (first, second) = ((0, first), (1, second));
    let order = if in_order { [first, second] } else { [second, first] };
    order.into_iter().map(|(index, bytes)| {
        let Signed { blob, sequence } = Signed::verify(bytes, public_key)?;
        let model = Model::parse(blob).map_err(SignatureError::Blob)?;
        Ok(Slot { index, sequence, model })
    })
}

/// A slot being written.
///
/// Dropped before [`finish`](Update::finish), it leaves a slot that [`newest_first`] refuses.
#[derive(Debug)]
pub struct Update<'f, F> {
    flash: &'f mut F,
    /// What is left of the slot, from where `page` will be written.
    free: Range<u32>,
    page: [u8; PAGE],
    filled: usize,
}

impl<'f, F: NorFlash> Update<'f, F> {
    /// Erases a slot, given as offsets in the flash: never the one that runs.
    ///
    /// # Errors
    /// The flash's, where the slot is not made of whole pages, lies outside, or cannot be erased.
    pub fn begin(flash: &'f mut F, slot: Range<u32>) -> Result<Self, UpdateError<F::Error>> {
        const { assert!(F::WRITE_SIZE > 0 && PAGE.is_multiple_of(F::WRITE_SIZE)) };
        flash.erase(slot.start, slot.end).map_err(UpdateError::Flash)?;
        Ok(Update { flash, free: slot, page: [0xFF; PAGE], filled: 0 })
    }

    /// Writes the next bytes of the signed blob, as many as there are.
    ///
    /// # Errors
    /// [`UpdateError::Full`] where the slot has no room for them, or the flash's.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UpdateError<F::Error>> {
        let room = self.free.len().saturating_sub(self.filled);
        if bytes.len() > room {
            return Err(UpdateError::Full { room, given: bytes.len() });
        }
        for byte in bytes {
            if let Some(place) = self.page.get_mut(self.filled) {
                *place = *byte;
                self.filled += 1;
            }
            if self.filled == PAGE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what has been kept back to fill whole words. Whether the slot now holds a signed network,
    /// [`newest_first`] says.
    ///
    /// # Errors
    /// The flash's.
    pub fn finish(mut self) -> Result<(), UpdateError<F::Error>> {
        if self.filled > 0 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), UpdateError<F::Error>> {
        let words = self.filled.div_ceil(F::WRITE_SIZE).saturating_mul(F::WRITE_SIZE);
        let words = self.page.get(..words).unwrap_or(&self.page);
        self.flash.write(self.free.start, words).map_err(UpdateError::Flash)?;
        self.free.start = self.free.start.saturating_add(words.len() as u32);
        (self.page, self.filled) = ([0xFF; PAGE], 0);
        Ok(())
    }
}

/// An update that could not be written. The slot that runs is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum UpdateError<E> {
    /// The blob is larger than the slot.
    Full {
        /// Bytes that the slot still has room for.
        room: usize,
        /// Bytes given.
        given: usize,
    },
    /// The flash could not be erased or written.
    Flash(E),
}

impl<E: fmt::Debug> fmt::Display for UpdateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::Full { room, given } => {
                write!(
                    f,
                    "the slot has room for {room} bytes more, {given} given: make slots larger or the network smaller"
                )
            }
            UpdateError::Flash(error) => write!(f, "the flash could not be erased or written: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for UpdateError<E> {}
