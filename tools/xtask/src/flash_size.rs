//! Flash size of a program without its embedded model and images.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection, SectionFlags, SectionKind, elf};

use crate::case::Case;

/// Size of code and constants in bytes: everything that is written to flash, including initial values of statics, but
/// not the model and the images.
pub(crate) fn code_bytes(elf: &Path, case: &Case) -> Result<u64> {
    let name = elf.display();
    let bytes = fs::read(elf).with_context(|| format!("reading {name}"))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{name} is not an ELF file"))?;
    let mut total = 0;
    let mut embedded = Vec::new();
    for input in [&case.blob, &case.images] {
        embedded.push((input, fs::read(input).with_context(|| format!("reading {}", input.display()))?, 0));
    }
    for section in file.sections().filter(in_flash) {
        total += section.size();
        let data = section.data().with_context(|| format!("{name}: reading a section"))?;
        for (_, input, count) in &mut embedded {
            *count += occurrences(data, input);
        }
    }
    for (path, input, count) in embedded {
        // The input is subtracted once, so it must occur once.
        if count != 1 {
            bail!("{name} contains {} {count} times, expected once", path.display());
        }
        total -= input.len() as u64;
    }
    Ok(total)
}

/// Whether a section is written to flash: loaded, and not just zeroed.
fn in_flash(section: &object::Section<'_, '_>) -> bool {
    let SectionFlags::Elf { sh_flags } = section.flags() else { return false };
    sh_flags & u64::from(elf::SHF_ALLOC) != 0 && section.kind() != SectionKind::UninitializedData
}

fn occurrences(data: &[u8], part: &[u8]) -> usize {
    // Compares at every offset; nearly all comparisons end at the first byte.
    data.windows(part.len().max(1)).filter(|window| *window == part).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occurrences_are_counted() {
        assert_eq!(occurrences(b"abcabcab", b"abc"), 2);
        assert_eq!(occurrences(b"ab", b"abc"), 0);
    }
}
