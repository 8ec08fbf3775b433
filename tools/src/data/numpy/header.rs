//! What precedes the data in a `.npy` file: the array's type, order and shape.
//!
//! The header is a Python dictionary of three known entries. It is read by hand: the crates for it parse
//! any Python literal by recursion and multiply the dimensions unchecked: a hostile file ends the process.
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{ErrorKind, Read};

use crate::data::DataProblem;

/// The header of an array.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    /// The type as it is written, for messages.
    pub(super) descr: String,
    /// `u` unsigned, `i` signed, `b` bool, and others.
    pub(super) kind: char,
    big_endian: bool,
    /// Bytes of one item.
    pub(super) item: usize,
    /// At least one dimension.
    pub(super) shape: Vec<u64>,
    /// Bytes of the header itself.
    length: u64,
}

impl Header {
    pub(super) fn read(reader: &mut impl Read, array: &'static str) -> Result<Header, DataProblem> {
        let mut read = |bytes: &mut [u8]| {
            reader.read_exact(bytes).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => DataProblem::NumpyHeader("it is cut short"),
                _ => DataProblem::Read(error),
            })
        };
        let mut start = [0; 8];
        read(&mut start)?;
        if start[..6] != *b"\x93NUMPY" {
            return Err(DataProblem::NumpyHeader("it does not begin as one"));
        }
        let wide = match start[6] {
            1 => false,
            2 | 3 => true,
            _ => return Err(DataProblem::NumpyHeader("its version is unknown")),
        };
        let mut length = [0; 4];
        read(&mut length[..if wide { 4 } else { 2 }])?;
        let length = u32::from_le_bytes(length);
        // Version 1 cannot be longer, and only structured types ever are.
        if length > u16::MAX.into() {
            return Err(DataProblem::NumpyHeader("its header is too long"));
        }
        let mut text = vec![0; length as usize];
        read(&mut text)?;
        let length = u64::from(length) + if wide { 12 } else { 10 };
        let text =
            std::str::from_utf8(&text).map_err(|_| DataProblem::NumpyHeader("its header is not text"))?;
        let entries =
            Entries::parse(text).ok_or(DataProblem::NumpyHeader("its header is not the usual one"))?;
        let (Some(descr), Some(fortran_order), Some(shape)) =
            (entries.descr, entries.fortran_order, entries.shape)
        else {
            return Err(DataProblem::NumpyHeader("its header lacks descr, fortran_order or shape"));
        };
        if shape.is_empty() {
            return Err(DataProblem::NumpyHeader("it is a single value"));
        }
        if fortran_order && shape.len() > 1 {
            return Err(DataProblem::FortranOrder { array });
        }
        let (kind, big_endian, item) =
            item_type(&descr).ok_or(DataProblem::NumpyHeader("its type is not a plain number"))?;
        Ok(Header { descr, kind, big_endian, item, shape, length })
    }

    /// Checks that the data is exactly as long as the shape says; returns the first dimension.
    pub(super) fn check_size(&self, array: &'static str, size: u64) -> Result<usize, DataProblem> {
        // Dimensions come from the file: their product may exceed any integer.
        let bytes =
            self.shape.iter().try_fold(self.item as u128, |bytes, side| bytes.checked_mul((*side).into()));
        let expected = bytes.unwrap_or(u128::MAX).saturating_add(self.length.into());
        if expected != u128::from(size) {
            return Err(DataProblem::ArraySize { array, expected, found: size });
        }
        // Fits: unless another dimension is 0, which callers exclude, it is at most `size`.
        usize::try_from(self.shape[0]).map_err(|_| DataProblem::ArraySize { array, expected, found: size })
    }

    /// The value of an item of an integer type, of 1 to 8 bytes.
    pub(super) fn integer(&self, bytes: &[u8]) -> i128 {
        let append = |value: i128, byte: &u8| (value << 8) | i128::from(*byte);
        let value =
            if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) };
        let unused = 128 - 8 * bytes.len() as u32;
        if self.kind == 'i' { (value << unused) >> unused } else { value }
    }
}

/// Kind, byte order and size of a type such as `<i4` or `|u1`: `None` for all but numbers of up to 16 bytes.
fn item_type(descr: &str) -> Option<(char, bool, usize)> {
    let mut chars = descr.chars();
    let big_endian = match chars.next()? {
        '>' => true,
        '<' | '|' | '=' => false,
        _ => return None,
    };
    let kind = chars.next().filter(|kind| kind.is_ascii_alphabetic())?;
    let item: usize = chars.as_str().parse().ok()?;
    let largest = if matches!(kind, 'u' | 'i' | 'b') { 8 } else { 16 };
    (1..=largest).contains(&item).then_some((kind, big_endian, item))
}

/// The entries of a header's dictionary.
#[derive(Debug, Default)]
struct Entries {
    descr: Option<String>,
    fortran_order: Option<bool>,
    shape: Option<Vec<u64>>,
}

impl Entries {
    /// `None` for anything but a dictionary of the three entries, each of its own type.
    fn parse(text: &str) -> Option<Entries> {
        let mut entries = Entries::default();
        let mut rest = after(text, "{")?;
        while after(rest, "}").is_none() {
            let key;
            (key, rest) = string(rest)?;
            rest = after(rest, ":")?;
            match key {
                "descr" => {
                    let value;
                    (value, rest) = string(rest)?;
                    entries.descr = Some(value.to_string());
                }
                "fortran_order" => {
                    let yes = after(rest, "True");
                    entries.fortran_order = Some(yes.is_some());
                    rest = yes.or_else(|| after(rest, "False"))?;
                }
                "shape" => {
                    let value;
                    (value, rest) = tuple(rest)?;
                    entries.shape = Some(value);
                }
                _ => return None,
            }
            rest = after(rest, ",").unwrap_or(rest);
        }
        after(rest, "}")?.trim().is_empty().then_some(entries)
    }
}

/// What follows `token` and the white space before it.
fn after<'t>(text: &'t str, token: &str) -> Option<&'t str> {
    text.trim_start().strip_prefix(token)
}

/// A quoted string without escapes, and what follows it.
fn string(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// A tuple of unsigned integers, and what follows it.
fn tuple(text: &str) -> Option<(Vec<u64>, &str)> {
    let (items, rest) = after(text, "(")?.split_once(')')?;
    let items = items.trim();
    let items = items.strip_suffix(',').unwrap_or(items);
    if items.is_empty() {
        return Some((Vec::new(), rest));
    }
    // Python 2 wrote long integers with an L.
    let number = |item: &str| item.trim().trim_end_matches('L').parse().ok();
    Some((items.split(',').map(number).collect::<Option<_>>()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Header, DataProblem> {
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((text.len() as u16).to_le_bytes());
        file.extend(text.as_bytes());
        Header::read(&mut &file[..], "images")
    }

    #[test]
    fn headers_as_numpy_writes_them_are_read() {
        let header =
            parse("{'descr': '|u1', 'fortran_order': False, 'shape': (5, 8, 8, 3), }      \n").unwrap();
        assert_eq!((header.kind, header.item, &header.shape[..]), ('u', 1, &[5, 8, 8, 3][..]));
        let header = parse("{'descr': '>i4', 'fortran_order': False, 'shape': (1797,), }\n").unwrap();
        assert_eq!(
            (header.kind, header.item, header.big_endian, &header.shape[..]),
            ('i', 4, true, &[1797][..])
        );
        let python2 = parse("{'shape': (7L, 2L), 'fortran_order': False, \"descr\": '<f8'}").unwrap();
        assert_eq!((python2.kind, &python2.shape[..]), ('f', &[7, 2][..]));
    }

    #[test]
    fn other_headers_are_refused() {
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '|u1', 'fortran_order': False}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)} and more",
            "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (1,)}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'more': 'x'}",
            "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '|u0', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<u16', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '', 'fortran_order': False, 'shape': (1,)}",
            &"(".repeat(60_000),
        ] {
            assert!(matches!(parse(text), Err(DataProblem::NumpyHeader(_))), "{text}");
        }
        let fortran = parse("{'descr': '|u1', 'fortran_order': True, 'shape': (5, 8)}");
        assert!(matches!(fortran, Err(DataProblem::FortranOrder { .. })));
        for file in
            [&b"PK"[..], b"\x93NUMPX\x01\0\0\0", b"\x93NUMPY\x04\0\0\0", b"\x93NUMPY\x02\0\xff\xff\xff\xff"]
        {
            assert!(Header::read(&mut &file[..], "images").is_err());
        }
    }

    #[test]
    fn the_size_has_to_be_what_the_shape_says() {
        let text = "{'descr': '<i2', 'fortran_order': False, 'shape': (3, 5), }";
        let header = parse(text).unwrap();
        let size = 10 + text.len() as u64 + 30;
        assert_eq!(header.check_size("labels", size).unwrap(), 3);
        assert!(
            header.check_size("labels", size - 1).is_err() && header.check_size("labels", size + 1).is_err()
        );
        let huge = parse(&text.replace("3, 5", "18446744073709551615, 18446744073709551615, 2")).unwrap();
        assert!(huge.check_size("labels", u64::MAX).is_err());
    }

    #[test]
    fn integers_of_every_type_have_their_value() {
        let value = |descr: &str, bytes: &[u8]| {
            parse(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}"))
                .unwrap()
                .integer(bytes)
        };
        assert_eq!(value("|u1", &[255]), 255);
        assert_eq!(value("|i1", &[255]), -1);
        assert_eq!(value("|b1", &[1]), 1);
        assert_eq!(value("<u2", &[1, 2]), 0x201);
        assert_eq!(value(">u2", &[1, 2]), 0x102);
        assert_eq!(value("<i4", &[0xFE, 0xFF, 0xFF, 0xFF]), -2);
        assert_eq!(value(">i8", &[0, 0, 0, 0, 0, 0, 1, 0]), 256);
        assert_eq!(value("<u8", &[255; 8]), u64::MAX.into());
        assert_eq!(value("<i8", &[0, 0, 0, 0, 0, 0, 0, 128]), i64::MIN.into());
    }
}
