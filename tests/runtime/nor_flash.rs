//! NOR flash as it is: bits only fall until a page is erased, a word is written once, and where the power fails what
//! was being changed can be anything. The firmware example's `update` runs on this file, too.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

/// `BYTES` of flash in pages of `PAGE`, written in words of `WORD` bytes.
#[derive(Clone)]
#[repr(C, align(16))]
pub(crate) struct Flash<const BYTES: usize, const WORD: usize, const PAGE: usize> {
    bytes: [u8; BYTES],
    /// Bytes that can still be erased or written before the power fails.
    pub(crate) power: usize,
    rubbish: u32,
}

/// Why flash was not changed as it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power failed before that or in the middle of it.
    Power,
    /// The word is not erased.
    WrittenTwice,
    /// The arguments.
    Arguments(NorFlashErrorKind),
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Fault::Arguments(kind) => *kind,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl<const BYTES: usize, const WORD: usize, const PAGE: usize> Flash<BYTES, WORD, PAGE> {
    /// Erased flash with power enough for everything.
    pub(crate) const fn new(seed: u32) -> Self {
        Flash { bytes: [0xFF; BYTES], power: usize::MAX, rubbish: seed | 1 }
    }

    /// The slots at its beginning and in its middle, as the core sees them.
    pub(crate) fn slots(&self) -> [&[u8]; 2] {
        let (first, second) = self.bytes.split_at(BYTES / 2);
        [first, second]
    }

    /// A random byte (Marsaglia's xorshift).
    fn random(&mut self) -> u8 {
        self.rubbish ^= self.rubbish << 13;
        self.rubbish ^= self.rubbish >> 17;
        self.rubbish ^= self.rubbish << 5;
        (self.rubbish >> 11) as u8
    }

    /// Takes the power for so many bytes; false where it does not suffice, with `at` and what follows changed to
    /// anything if it has begun: each byte as it was, erased, some of its bits risen, or any other.
    fn powered(&mut self, at: usize, bytes: usize) -> bool {
        if self.power >= bytes {
            self.power -= bytes;
            return true;
        }
        if self.power > 0 {
            let kind = self.random();
            for index in at..at + bytes {
                let random = self.random();
                let way = if kind % 5 == 4 { random } else { kind % 5 };
                match way % 4 {
                    0 => {}
                    1 => self.bytes[index] = 0xFF,
                    2 => self.bytes[index] |= random,
                    _ => self.bytes[index] = random,
                }
            }
        }
        self.power = 0;
        false
    }
}

impl<const BYTES: usize, const WORD: usize, const PAGE: usize> ErrorType for Flash<BYTES, WORD, PAGE> {
    type Error = Fault;
}

impl<const BYTES: usize, const WORD: usize, const PAGE: usize> ReadNorFlash for Flash<BYTES, WORD, PAGE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        check_read(self, offset, bytes.len()).map_err(Fault::Arguments)?;
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        BYTES
    }
}

impl<const BYTES: usize, const WORD: usize, const PAGE: usize> NorFlash for Flash<BYTES, WORD, PAGE> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        check_erase(self, from, to).map_err(Fault::Arguments)?;
        for page in (from as usize..to as usize).step_by(PAGE) {
            if !self.powered(page, PAGE) {
                return Err(Fault::Power);
            }
            self.bytes[page..page + PAGE].fill(0xFF);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        check_write(self, offset, bytes.len()).map_err(Fault::Arguments)?;
        for (index, word) in bytes.chunks(WORD).enumerate() {
            let at = offset as usize + index * WORD;
            if self.bytes[at..at + WORD].iter().any(|byte| *byte != 0xFF) {
                return Err(Fault::WrittenTwice);
            }
            if !self.powered(at, WORD) {
                return Err(Fault::Power);
            }
            for (place, byte) in self.bytes[at..].iter_mut().zip(word) {
                *place &= byte;
            }
        }
        Ok(())
    }
}
