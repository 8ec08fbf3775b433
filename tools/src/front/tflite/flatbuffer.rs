//! FlatBuffers read in place: tables, vectors and strings, every offset checked before it is followed.
//!
//! A table begins with the (signed) distance back to its vtable: u16 bytes of the vtable, u16 bytes
//! of the table, then for each field a u16 offset from the table's start, 0 where the field has its
//! default. Vectors, strings and tables are stored elsewhere; their field holds the distance to them.

use crate::front::error::{ErrorKind, Refusal};

/// More tables in a vector than in any network that fits a microcontroller.
const MAX_TABLES: usize = 1 << 16;

/// A table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    start: usize,
    vtable: usize,
    /// Bytes of the vtable.
    length: usize,
}

/// What reaches past the file's end, or is no place in it.
fn damaged(position: usize) -> Refusal {
    let reason = format!("what it has at byte {position} is outside of the file");
    Refusal::new(ErrorKind::Damaged, "", reason)
        .help("the file may be cut short: compare its size with the original's")
}

fn array<const N: usize>(bytes: &[u8], position: usize) -> Result<[u8; N], Refusal> {
    let rest = bytes.get(position..).and_then(|rest| rest.first_chunk());
    rest.copied().ok_or_else(|| damaged(position))
}

fn unsigned16(bytes: &[u8], position: usize) -> Result<usize, Refusal> {
    array(bytes, position).map(|value| u16::from_le_bytes(value).into())
}

fn unsigned32(bytes: &[u8], position: usize) -> Result<usize, Refusal> {
    array(bytes, position).map(|value| u32::from_le_bytes(value) as usize)
}

/// The place that the offset at `position` leads to.
fn follow(bytes: &[u8], position: usize) -> Result<usize, Refusal> {
    let target = position.checked_add(unsigned32(bytes, position)?);
    target.filter(|&target| target < bytes.len()).ok_or_else(|| damaged(position))
}

impl<'a> Table<'a> {
    /// The table that the file begins with.
    pub(super) fn root(bytes: &'a [u8]) -> Result<Self, Refusal> {
        Table::at(bytes, follow(bytes, 0)?)
    }

    fn at(bytes: &'a [u8], start: usize) -> Result<Self, Refusal> {
        let back = i64::from(i32::from_le_bytes(array(bytes, start)?));
        let vtable = usize::try_from(start as i64 - back).map_err(|_| damaged(start))?;
        Ok(Table { bytes, start, vtable, length: unsigned16(bytes, vtable)? })
    }

    /// Where a field's value lies; `None` if it has its default.
    fn field(&self, slot: usize) -> Result<Option<usize>, Refusal> {
        let entry = 4 + 2 * slot;
        if entry + 2 > self.length {
            return Ok(None);
        }
        let offset = unsigned16(self.bytes, self.vtable + entry)?;
        Ok((offset > 0).then_some(self.start + offset))
    }

    fn scalar<const N: usize>(&self, slot: usize) -> Result<Option<[u8; N]>, Refusal> {
        self.field(slot)?.map(|position| array(self.bytes, position)).transpose()
    }

    /// A number of one byte, or a flag.
    pub(super) fn byte(&self, slot: usize) -> Result<u8, Refusal> {
        Ok(self.scalar(slot)?.map_or(0, |[byte]| byte))
    }

    /// A number of four bytes.
    pub(super) fn integer(&self, slot: usize, default: i32) -> Result<i32, Refusal> {
        Ok(self.scalar(slot)?.map_or(default, i32::from_le_bytes))
    }

    /// A number of four bytes that is an index or a count.
    pub(super) fn index(&self, slot: usize) -> Result<usize, Refusal> {
        Ok(self.scalar(slot)?.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize))
    }

    /// A number of eight bytes that is an offset or a length.
    pub(super) fn long(&self, slot: usize) -> Result<u64, Refusal> {
        Ok(self.scalar(slot)?.map_or(0, u64::from_le_bytes))
    }

    /// A floating-point number.
    pub(super) fn float(&self, slot: usize) -> Result<f32, Refusal> {
        Ok(self.scalar(slot)?.map_or(0.0, f32::from_le_bytes))
    }

    /// A table.
    pub(super) fn table(&self, slot: usize) -> Result<Option<Table<'a>>, Refusal> {
        let Some(position) = self.field(slot)? else { return Ok(None) };
        Table::at(self.bytes, follow(self.bytes, position)?).map(Some)
    }

    /// The bytes of a vector whose elements have `size` bytes each; empty where there is none.
    fn elements(&self, slot: usize, size: usize) -> Result<(usize, &'a [u8]), Refusal> {
        let Some(position) = self.field(slot)? else { return Ok((0, &[])) };
        let start = follow(self.bytes, position)?;
        let length = unsigned32(self.bytes, start)?.checked_mul(size);
        let rest = self.bytes.get(start + 4..);
        let elements = length.zip(rest).and_then(|(length, rest)| rest.get(..length));
        elements.map(|elements| (start + 4, elements)).ok_or_else(|| damaged(start))
    }

    /// A vector of bytes, or a string.
    pub(super) fn bytes(&self, slot: usize) -> Result<&'a [u8], Refusal> {
        Ok(self.elements(slot, 1)?.1)
    }

    /// A vector of numbers of N bytes.
    pub(super) fn numbers<const N: usize>(&self, slot: usize) -> Result<&'a [[u8; N]], Refusal> {
        Ok(self.elements(slot, N)?.1.as_chunks().0)
    }

    /// A vector of tables; too long a one is refused, before anything is read.
    pub(super) fn tables(&self, slot: usize) -> Result<Vec<Table<'a>>, Refusal> {
        let (start, elements) = self.elements(slot, 4)?;
        let count = elements.len() / 4;
        if count > MAX_TABLES {
            let reason = format!("has {count} tables in one list; {MAX_TABLES} are possible");
            return Err(Refusal::new(ErrorKind::Damaged, "", reason));
        }
        let places = (0..count).map(|index| follow(self.bytes, start + 4 * index));
        places.map(|place| Table::at(self.bytes, place?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root table of three fields: the integer 7, the bytes "ab", and a default.
    fn file() -> Vec<u8> {
        let mut file = vec![14, 0, 0, 0];
        file.extend([10, 0, 12, 0, 4, 0, 8, 0, 0, 0]); // vtable at 4
        file.extend([10, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0]); // table at 14
        file.extend([2, 0, 0, 0, b'a', b'b']); // vector at 26
        file
    }

    #[test]
    fn fields_are_read_or_have_their_defaults() {
        let file = file();
        let table = Table::root(&file).unwrap();
        assert_eq!((table.integer(0, 1), table.bytes(1)), (Ok(7), Ok(&b"ab"[..])));
        assert_eq!((table.integer(2, 5), table.integer(9, 6), table.bytes(9)), (Ok(5), Ok(6), Ok(&[][..])));
        assert!(table.table(3).unwrap().is_none() && table.tables(4).unwrap().is_empty());
        assert_eq!(table.numbers::<2>(1).unwrap_err().kind, ErrorKind::Damaged);
    }

    #[test]
    fn no_byte_can_make_it_read_outside() {
        let file = file();
        for length in 0..file.len() {
            let cut = &file[..length];
            let read = Table::root(cut).and_then(|table| table.bytes(1).map(<[u8]>::len));
            assert_eq!(read.unwrap_err().kind, ErrorKind::Damaged, "cut to {length}");
        }
        for position in 0..file.len() {
            for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
                let mut bent = file.clone();
                bent[position] = value;
                let Ok(table) = Table::root(&bent) else { continue };
                // Whatever comes of it, it comes.
                let _ = (table.integer(0, 0), table.bytes(1), table.tables(1), table.long(1));
                let _ = table.table(1).map(|inner| inner.map(|inner| inner.bytes(0)));
            }
        }
    }

    #[test]
    fn lists_that_are_too_long_are_refused_before_they_are_read() {
        let mut file = file();
        let count = MAX_TABLES + 1;
        file.truncate(26);
        file.extend((count as u32).to_le_bytes());
        file.resize(30 + 4 * count, 0);
        let refusal = Table::root(&file).unwrap().tables(1).unwrap_err();
        assert!(refusal.reason.contains("65537 tables"), "{refusal}");
    }
}
