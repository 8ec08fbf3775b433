//! NumPy's `.npy` arrays and `.npz` archives, as far as images and labels need them.

mod header;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use header::Header;
use skipstone::Shape;
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::dataset::{Dataset, Purpose, append_planes, for_each_taken};
use super::error::{DataError, DataProblem};

/// DEFLATE cannot make more of one byte.
const MAX_EXPANSION: u64 = 1032;

/// Reads the taken images, and labels, of an `.npy` or `.npz` file, told by its content.
pub(super) fn read(path: &Path, shape: Shape, purpose: Purpose) -> Result<Dataset, DataError> {
    let read = || {
        let mut file = BufReader::new(File::open(path)?);
        let size = file.get_ref().metadata()?.len();
        let mut magic = Vec::new();
        file.by_ref().take(6).read_to_end(&mut magic)?;
        file.rewind()?;
        match &magic[..] {
            b"\x93NUMPY" => Ok((read_images(file, size, shape, purpose)?.0, None)),
            [b'P', b'K', 3, 4, ..] => read_archive(file, size, shape, purpose),
            [] => Err(DataProblem::Empty),
            _ => Err(DataProblem::UnknownKind),
        }
    };
    let (images, labels) = read().map_err(|problem| problem.at(path))?;
    Ok(Dataset { shape, images, labels, class_names: Vec::new(), files: vec![path.to_path_buf()] })
}

type ImagesAndLabels = (Vec<u8>, Option<Vec<usize>>);

fn read_archive(
    file: BufReader<File>,
    size: u64,
    shape: Shape,
    purpose: Purpose,
) -> Result<ImagesAndLabels, DataProblem> {
    let mut archive = ZipArchive::new(file)?;
    let Some(mut member) = open_member(&mut archive, "images", "images.npy", size)? else {
        let found: Vec<String> =
            archive.file_names().take(8).filter_map(|name| Some(name.ok()?.into())).collect();
        return Err(DataProblem::MissingArray { array: "images", found: found.join(", ") });
    };
    let length = member.size();
    let (images, total) = read_images(&mut member, length, shape, purpose)?;
    // The archive's checksum is compared at the end of a member.
    io::copy(&mut member, &mut io::sink())?;
    drop(member);
    let Some(mut member) = open_member(&mut archive, "labels", "labels.npy", size)? else {
        return Ok((images, None));
    };
    let length = member.size();
    let labels = read_labels(&mut member, length, total, purpose)?;
    io::copy(&mut member, &mut io::sink())?;
    Ok((images, Some(labels)))
}

/// A member of the archive, whose size is one that the archive can really hold.
fn open_member<'a>(
    archive: &'a mut ZipArchive<BufReader<File>>,
    array: &'static str,
    name: &str,
    file: u64,
) -> Result<Option<ZipFile<'a, BufReader<File>>>, DataProblem> {
    match archive.by_name(name) {
        Ok(member) if member.size() / MAX_EXPANSION > file => {
            Err(DataProblem::Inflated { array, size: member.size(), file })
        }
        Ok(member) => Ok(Some(member)),
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The taken images of an array of `size` bytes with its header, and how many images there are in all.
fn read_images(
    mut reader: impl Read,
    size: u64,
    shape: Shape,
    purpose: Purpose,
) -> Result<(Vec<u8>, usize), DataProblem> {
    let array = "images";
    let header = Header::read(&mut reader, array)?;
    if header.kind != 'u' || header.item != 1 {
        let expected =
            "uint8 (pixels 0 to 255): save images.astype(numpy.uint8), after * 255 if they end at 1";
        return Err(DataProblem::ArrayType { array, found: header.descr, expected });
    }
    let [height, width, channels] = [shape.height, shape.width, shape.channels].map(u64::from);
    let planar = match header.shape[..] {
        [_, h, w, c] if [h, w, c] == [height, width, channels] => false,
        [_, h, w] if [h, w, 1] == [height, width, channels] => false,
        [_, c] if [1, 1, c] == [height, width, channels] => false,
        [_, c, h, w] if [h, w, c] == [height, width, channels] => true,
        _ => {
            let expected = format!("(N, {height}, {width}, {channels})");
            return Err(DataProblem::ArrayShape { array, found: header.shape, expected });
        }
    };
    let total = header.check_size(array, size)?;
    if total == 0 {
        return Err(DataProblem::Empty);
    }
    let mut images = Vec::new();
    for_each_taken(reader, shape.len(), total, purpose, |_, image| {
        match planar {
            true => append_planes(image, shape.channels.into(), &mut images),
            false => images.extend_from_slice(image),
        }
        Ok(())
    })?;
    Ok((images, total))
}

/// The labels of the taken images.
fn read_labels(
    mut reader: impl Read,
    size: u64,
    images: usize,
    purpose: Purpose,
) -> Result<Vec<usize>, DataProblem> {
    let array = "labels";
    let header = Header::read(&mut reader, array)?;
    if !matches!(header.kind, 'u' | 'i' | 'b') {
        let expected = "integers, one class number for each image";
        return Err(DataProblem::ArrayType { array, found: header.descr, expected });
    }
    if !matches!(header.shape[..], [_] | [_, 1]) {
        return Err(DataProblem::ArrayShape { array, found: header.shape, expected: format!("({images},)") });
    }
    let total = header.check_size(array, size)?;
    if total != images {
        return Err(DataProblem::LabelCount { labels: total as u64, images });
    }
    let mut labels = Vec::new();
    for_each_taken(reader, header.item, total, purpose, |image, bytes| {
        let label = header.integer(bytes);
        labels.push(u16::try_from(label).map_err(|_| DataProblem::LabelValue { image, label })?.into());
        Ok(())
    })?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Cursor, Write};
    use std::path::PathBuf;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    const SHAPE: Shape = Shape::new(2, 1, 3);

    fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    fn archive(method: CompressionMethod, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// A file that goes with its folder.
    fn write(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn open(content: &[u8]) -> Result<Dataset, DataProblem> {
        let (_folder, path) = write(content);
        Dataset::open(&path, SHAPE, None).map_err(|error| error.problem)
    }

    fn pixels() -> Vec<u8> {
        (0..24).collect()
    }

    #[test]
    fn an_array_gives_images_whatever_the_order_of_its_axes() {
        let images = open(&array("|u1", "4, 2, 1, 3", &pixels())).unwrap();
        assert_eq!(
            (images.len(), images.labels(), images.image(3)),
            (4, None, &[18, 19, 20, 21, 22, 23][..])
        );
        let planar = open(&array("|u1", "4, 3, 2, 1", &pixels())).unwrap();
        assert_eq!(planar.image(3), [18, 20, 22, 19, 21, 23]);
        let (_folder, path) = write(&array("|u1", "4, 2, 3", &pixels()));
        assert_eq!(Dataset::open(&path, Shape::new(2, 3, 1), None).unwrap().image(1), [6, 7, 8, 9, 10, 11]);
        // With as many rows as channels both orders would fit: HWC wins.
        let (_folder, path) = write(&array("|u1", "1, 3, 2, 3", &pixels()[..18]));
        assert_eq!(Dataset::open(&path, Shape::new(3, 2, 3), None).unwrap().image(0), &pixels()[..18]);
    }

    fn images() -> (&'static str, Vec<u8>) {
        ("images.npy", array("|u1", "4, 2, 1, 3", &pixels()))
    }

    #[test]
    fn an_archive_gives_images_and_labels() {
        let little: Vec<u8> = [3i64, 257, 0, 263].into_iter().flat_map(i64::to_le_bytes).collect();
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            for labels in [array("<i8", "4,", &little), array(">u2", "4, 1", &[0, 3, 1, 1, 0, 0, 1, 7])] {
                let data = open(&archive(method, &[("labels.npy", labels), images()])).unwrap();
                assert_eq!(data.labels().unwrap(), [3, 257, 0, 263]);
                assert_eq!(data.image(1), [6, 7, 8, 9, 10, 11]);
            }
            let unlabelled = open(&archive(method, &[images()])).unwrap();
            assert_eq!((unlabelled.labels(), unlabelled.image(1)), (None, &[6, 7, 8, 9, 10, 11][..]));
        }
        let labels = ("labels.npy", array("|u1", "4,", &[3, 2, 1, 0]));
        let (_folder, path) = write(&archive(CompressionMethod::Deflated, &[images(), labels]));
        let some = Dataset::open_for_calibration(&path, SHAPE, 2).unwrap();
        assert_eq!((some.labels().unwrap(), some.image(1)), (&[2, 0][..], &pixels()[18..]));
    }

    #[test]
    fn arrays_that_cannot_be_used_are_refused() {
        let stored = |members: &[(&str, Vec<u8>)]| archive(CompressionMethod::Stored, members);
        let labels = |labels: Vec<u8>| stored(&[images(), ("labels.npy", labels)]);
        let cases = [
            (vec![], "holds no images"),
            (array("|u1", "0, 2, 1, 3", &[]), "holds no images"),
            (array("<f4", "1, 2, 1, 3", &[0; 24]), "array `images` has type <f4 but has to be uint8"),
            (array("|u1", "4, 6", &pixels()), "array `images` has shape [4, 6] but has to be (N, 2, 1, 3)"),
            (
                array("|u1", "4, 2, 1, 3", &pixels()[..23]),
                "array `images` has to take 100 bytes by its header but has 99",
            ),
            (array("|u1", "999999999999, 2, 1, 3", &pixels()), "array `images` has to take 60000000000"),
            (stored(&[("x.npy", vec![]), ("y.npy", vec![])]), "has no array `images` (only x.npy, y.npy)"),
            (labels(array("|u1", "3,", &[0; 3])), "has 3 labels for 4 images"),
            (labels(array("|i1", "4,", &[0, 0, 255, 0])), "image 2 has label -1; labels are 0 to 65535"),
            (labels(array("<u4", "4,", &[1; 16])), "image 0 has label 16843009; labels are 0 to 65535"),
            (labels(array("<f8", "4,", &[0; 32])), "array `labels` has type <f8 but has to be integers"),
            (labels(array("|u1", "4, 2", &[0; 8])), "array `labels` has shape [4, 2] but has to be (4,)"),
            (b"PK\x03\x04 and no archive".to_vec(), "is not a sound .npz file"),
            (b"\x93NUMPY".to_vec(), "is not a sound NumPy array: it is cut short"),
        ];
        for (content, expected) in cases {
            let message = open(&content).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message:?} does not start with {expected:?}");
        }
    }

    #[test]
    fn a_changed_byte_in_an_archive_is_an_error_or_changes_nothing() {
        let labels = ("labels.npy", array("|u1", "4,", &[3, 2, 1, 0]));
        let content = archive(CompressionMethod::Deflated, &[images(), labels]);
        let good = open(&content).unwrap();
        let (_folder, path) = write(&content);
        let mut refused = 0;
        for index in 0..content.len() {
            let mut changed = content.clone();
            changed[index] ^= 0x11;
            fs::write(&path, &changed).unwrap();
            match Dataset::open(&path, SHAPE, None) {
                // The second array may lose its name: it is then not there, and that is legal.
                Ok(data) => {
                    assert_eq!(data.images, good.images, "byte {index}");
                    assert!(data.labels == good.labels || data.labels.is_none(), "byte {index}");
                }
                Err(_) => refused += 1,
            }
            fs::write(&path, &content[..index]).unwrap();
            assert!(Dataset::open(&path, SHAPE, None).is_err(), "cut at {index}");
        }
        assert!(refused > content.len() / 2, "{refused} of {}", content.len());
    }

    #[test]
    fn a_member_that_claims_more_than_the_archive_can_hold_is_refused() {
        let mut content = archive(CompressionMethod::Deflated, &[images()]);
        let directory = content.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
        content[directory + 24..][..4].copy_from_slice(&0xF000_0000u32.to_le_bytes());
        assert!(matches!(open(&content), Err(DataProblem::Inflated { size: 0xF000_0000, .. })));
    }
}
