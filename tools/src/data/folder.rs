//! Folders of pictures: one folder per class, or one folder without labels.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use skipstone::Shape;

use super::dataset::{Dataset, Purpose};
use super::error::{DataError, DataProblem};
use crate::picture;

/// Names that picture files end with. Files with other names are left alone: folders gather lists,
/// notes and thumbnails.
const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "bmp", "gif", "webp", "pnm", "pbm", "pgm", "ppm", "pam", "tif", "tiff"];

/// Reads the taken pictures of a folder.
pub(super) fn read(folder: &Path, shape: Shape, purpose: Purpose) -> Result<Dataset, DataError> {
    let Listing { folders, pictures } = list(folder)?;
    let classes = match (folders.first(), pictures.first()) {
        (None, None) => return Err(DataProblem::Empty.at(folder)),
        (Some(class), Some(picture)) => {
            let (class, picture) = (name(class), name(picture));
            return Err(DataProblem::PicturesBesideClasses { picture, class }.at(folder));
        }
        (None, Some(_)) => vec![pictures],
        (Some(_), None) => folders.iter().map(|class| class_pictures(class)).collect::<Result<_, _>>()?,
    };
    // Each picture with its label and its place among its class's pictures.
    let mut pictures: Vec<(usize, usize, &PathBuf)> = classes
        .iter()
        .enumerate()
        .flat_map(|(label, class)| class.iter().enumerate().map(move |(place, path)| (place, label, path)))
        .collect();
    // The first images of a sorted folder would all be of one class; an even spread has to find it sorted.
    if matches!(purpose, Purpose::Evaluation { .. }) {
        pictures.sort_unstable();
    }
    let total = pictures.len();
    let taken: Vec<_> =
        (0..purpose.taken(total)).map(|index| pictures[purpose.position(index, total)]).collect();
    let loaded: Vec<_> = taken.par_iter().map(|(_, _, path)| picture::load(path, shape)).collect();
    let mut images = Vec::with_capacity(loaded.len() * shape.len());
    for picture in loaded {
        images.extend(picture?);
    }
    let labels = (!folders.is_empty()).then(|| taken.iter().map(|(_, label, _)| *label).collect());
    let class_names = folders.iter().map(|class| name(class)).collect();
    Ok(Dataset { shape, images, labels, class_names, files: vec![folder.to_path_buf()] })
}

/// What a folder holds, each sorted by name.
struct Listing {
    folders: Vec<PathBuf>,
    pictures: Vec<PathBuf>,
}

fn list(folder: &Path) -> Result<Listing, DataError> {
    let at_folder = |error| DataProblem::Read(error).at(folder);
    let mut listing = Listing { folders: Vec::new(), pictures: Vec::new() };
    for entry in folder.read_dir().map_err(at_folder)? {
        let path = entry.map_err(at_folder)?.path();
        if name(&path).starts_with('.') {
            continue;
        }
        let is_folder = path.metadata().map_err(|error| DataProblem::Read(error).at(&path))?.is_dir();
        if is_folder {
            listing.folders.push(path);
        } else if is_picture(&path) {
            listing.pictures.push(path);
        }
    }
    listing.folders.sort();
    listing.pictures.sort();
    Ok(listing)
}

fn class_pictures(class: &Path) -> Result<Vec<PathBuf>, DataError> {
    let pictures = list(class)?.pictures;
    if pictures.is_empty() { Err(DataProblem::EmptyClass.at(class)) } else { Ok(pictures) }
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHAPE: Shape = Shape::new(1, 2, 1);

    /// Writes a picture of SHAPE whose first pixel is `value`.
    fn write(folder: &Path, name: &str, value: u8) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), [b"P5 2 1 255\n", &[value, 7][..]].concat()).unwrap();
    }

    fn first_pixels(data: &Dataset) -> Vec<u8> {
        (0..data.len()).map(|index| data.image(index)[0]).collect()
    }

    #[test]
    fn a_folder_of_classes_gives_labels_by_sorted_name() {
        let root = tempfile::tempdir().unwrap();
        for (class, label) in [("dog", 1), ("cat", 0), ("ship", 2)] {
            for picture in (0..4).rev() {
                write(&root.path().join(class), &format!("{picture}.pgm"), label * 10 + picture);
            }
        }
        write(&root.path().join("cat"), ".hidden.pgm", 99);
        write(&root.path().join("cat"), "notes.txt", 99);
        fs::create_dir(root.path().join(".git")).unwrap();
        let data = Dataset::open(root.path(), SHAPE, None).unwrap();
        assert_eq!(data.class_names(), ["cat", "dog", "ship"]);
        assert_eq!(first_pixels(&data), [0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]);
        assert_eq!(data.labels().unwrap(), [0, 1, 2].repeat(4));
        assert_eq!(data.image(1), [10, 7]);
        let some = Dataset::open(root.path(), SHAPE, Some(4)).unwrap();
        assert_eq!(first_pixels(&some), [0, 10, 20, 1], "a limit takes from all classes in turn");
        let spread = Dataset::open_for_calibration(root.path(), SHAPE, 3).unwrap();
        assert_eq!(spread.labels().unwrap(), [0, 1, 2], "an even spread has all classes");
    }

    #[test]
    fn a_folder_of_pictures_has_no_labels() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "b.PGM", 2);
        write(root.path(), "a.png", 1);
        let data = Dataset::open(root.path(), SHAPE, None).unwrap();
        assert_eq!((data.labels(), data.class_names()), (None, &[][..]));
        assert_eq!(first_pixels(&data), [1, 2], "the content tells the format, not the name");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let refusal = || Dataset::open(root.path(), SHAPE, None).unwrap_err();
        assert!(matches!(refusal().problem, DataProblem::Empty));
        write(&root.path().join("cat"), "0.pgm", 0);
        fs::create_dir(root.path().join("dog")).unwrap();
        assert!(matches!(refusal().problem, DataProblem::EmptyClass));
        assert_eq!(refusal().path, root.path().join("dog"));
        write(root.path(), "stray.pgm", 0);
        assert!(refusal().to_string().ends_with(
            ": has pictures (stray.pgm) beside folders (cat); put every picture into the folder of its class"
        ));
    }

    #[test]
    fn a_picture_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        (0..20).for_each(|picture| write(root.path(), &format!("{picture:02}.pgm"), picture));
        for broken in ["13.pgm", "07.pgm"] {
            fs::write(root.path().join(broken), "P5 2 1 255\n").unwrap();
            let error = Dataset::open(root.path(), SHAPE, None).unwrap_err();
            assert_eq!(error.path, root.path().join(broken), "the first one, whichever thread came first");
            assert!(error.to_string().contains(": cannot be decoded: "), "{error}");
        }
    }
}
