//! Zip archives (PyTorch's and Keras's files, `.npz`), mutated member by member: their checksums stay right.

use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::{Bytes, Plain, Random};

/// Members that are too long to be worth it.
const MAX_MEMBER: u64 = 1 << 20;

/// Mutates one member of an archive mostly; of other files all.
pub fn mutate(bytes: &mut Bytes, random: &mut Random, plain: &mut Plain<'_>) {
    if random.u8(..8) == 0 {
        return plain(bytes);
    }
    match mutated(bytes, random, plain) {
        Some(archive) => *bytes = archive,
        None => plain(bytes),
    }
}

fn mutated(bytes: &[u8], random: &mut Random, plain: &mut Plain<'_>) -> Option<Bytes> {
    if !bytes.starts_with(b"PK") {
        return None;
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let chosen = random.usize(..archive.len().max(1));
    for index in 0..archive.len() {
        let member = archive.by_index(index).ok()?;
        let name = member.name().ok()?.into_owned();
        let stored = member.compression() == CompressionMethod::Stored;
        let mut content = Vec::new();
        member.take(MAX_MEMBER).read_to_end(&mut content).ok()?;
        if index == chosen {
            plain(&mut content);
        }
        let method = if stored { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        writer.start_file(name, SimpleFileOptions::default().compression_method(method)).ok()?;
        writer.write_all(&content).ok()?;
    }
    Some(writer.finish().ok()?.into_inner())
}
