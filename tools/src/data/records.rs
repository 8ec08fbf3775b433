//! CIFAR-10's binary layout for images of any size: a label byte, then the image's planes (CHW).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use skipstone::Shape;

use super::dataset::{Dataset, Purpose, append_planes, for_each_taken};
use super::error::{DataError, DataProblem};

/// The files that serve the purpose in a folder of `.bin` files; `None` if it holds no such files.
pub(super) fn find(folder: &Path, purpose: Purpose) -> Result<Option<Vec<PathBuf>>, DataError> {
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(|error| DataProblem::Read(error).at(folder))? {
        let name = entry.map_err(|error| DataProblem::Read(error).at(folder))?.file_name();
        names.extend(name.into_string().ok().filter(|name| name.ends_with(".bin")));
    }
    if names.is_empty() {
        return Ok(None);
    }
    // By length first, so that batch 10 comes after batch 9.
    names.sort_by_key(|name| (name.len(), name.clone()));
    let (one, several, wanted) = match purpose {
        Purpose::Evaluation { .. } => ("test.bin", "test_batch", "test.bin or test_batch.bin"),
        Purpose::Calibration { .. } => ("train.bin", "data_batch_", "train.bin or data_batch_*.bin"),
    };
    let batches: Vec<&String> = names.iter().filter(|name| name.starts_with(several)).collect();
    let files = match (names.iter().any(|name| name == one), batches.is_empty()) {
        (true, true) => vec![folder.join(one)],
        (false, false) => batches.iter().map(|name| folder.join(name)).collect(),
        (true, false) => {
            let candidates = format!("{one}, {}", batches[0]);
            return Err(DataProblem::SeveralRecords(candidates).at(folder));
        }
        (false, true) => {
            let found = names.join(", ");
            return Err(DataProblem::NoRecords { wanted, found }.at(folder));
        }
    };
    Ok(Some(files))
}

/// Reads the taken records of the files, which count as one sequence.
pub(super) fn read(files: Vec<PathBuf>, shape: Shape, purpose: Purpose) -> Result<Dataset, DataError> {
    let record = 1 + shape.len();
    let mut total = 0;
    let mut reader: Box<dyn Read> = Box::new(io::empty());
    for path in &files {
        let (file, records) = open(path, record, shape).map_err(|problem| problem.at(path))?;
        total += records;
        reader = Box::new(reader.chain(file));
    }
    let mut images = Vec::new();
    let mut labels = Vec::new();
    for_each_taken(reader, record, total, purpose, |_, record| {
        labels.push(record[0].into());
        append_planes(&record[1..], shape.channels.into(), &mut images);
        Ok(())
    })
    .map_err(|problem| problem.at(&files[0]))?;
    Ok(Dataset { shape, images, labels: Some(labels), class_names: Vec::new(), files })
}

/// A file and its number of records, which is whole and at least 1.
fn open(path: &Path, record: usize, shape: Shape) -> Result<(BufReader<File>, usize), DataProblem> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size == 0 {
        return Err(DataProblem::Empty);
    }
    if !size.is_multiple_of(record as u64) {
        return Err(DataProblem::PartialRecord { size, record, shape });
    }
    Ok((BufReader::new(file), (size / record as u64) as usize))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHAPE: Shape = Shape::new(2, 1, 3);

    /// `count` records of SHAPE whose labels and pixels follow from their number.
    fn records(first: u8, count: u8) -> Vec<u8> {
        (first..first + count).flat_map(|record| [record, 10, 11, 20, 21, 30, record]).collect()
    }

    fn pixels(record: u8) -> [u8; 6] {
        [10, 20, 30, 11, 21, record]
    }

    #[test]
    fn a_file_of_records_gives_its_images_and_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signs.BIN");
        fs::write(&path, records(0, 5)).unwrap();
        let data = Dataset::open(&path, SHAPE, None).unwrap();
        assert_eq!((data.len(), data.shape(), data.files()), (5, SHAPE, &[path.clone()][..]));
        assert_eq!(data.labels().unwrap(), [0, 1, 2, 3, 4]);
        (0..5).for_each(|index| assert_eq!(data.image(index.into()), pixels(index)));
        assert_eq!(Dataset::open(&path, SHAPE, Some(2)).unwrap().labels().unwrap(), [0, 1]);
        assert_eq!(Dataset::open_for_calibration(&path, SHAPE, 2).unwrap().labels().unwrap(), [1, 3]);
    }

    #[test]
    fn a_folder_gives_test_images_for_evaluation_and_training_images_for_calibration() {
        for (test, train) in [
            ("test.bin", &["train.bin"][..]),
            ("test_batch.bin", &["data_batch_1.bin", "data_batch_2.bin", "data_batch_10.bin"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("readme.html"), "").unwrap();
            fs::write(folder.path().join(test), records(100, 3)).unwrap();
            for (batch, name) in train.iter().enumerate() {
                fs::write(folder.path().join(name), records(batch as u8 * 2, 2)).unwrap();
            }
            let data = Dataset::open(folder.path(), SHAPE, None).unwrap();
            assert_eq!(data.labels().unwrap(), [100, 101, 102]);
            assert_eq!(data.files(), [folder.path().join(test)]);
            let data = Dataset::open_for_calibration(folder.path(), SHAPE, 99).unwrap();
            assert_eq!(data.labels().unwrap(), Vec::from_iter(0..train.len() * 2));
            assert_eq!(data.image(1), pixels(1));
            assert_eq!(data.files().len(), train.len());
        }
    }

    #[test]
    fn a_folder_without_the_right_file_says_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.bin"), records(0, 1)).unwrap();
        let message = Dataset::open(folder.path(), SHAPE, None).unwrap_err().to_string();
        let expected = ": has no test.bin or test_batch.bin (only train.bin); \
                        to use another file, name it instead of its folder";
        assert!(message.ends_with(expected), "{message}");
        fs::write(folder.path().join("data_batch_1.bin"), records(0, 1)).unwrap();
        let error = Dataset::open_for_calibration(folder.path(), SHAPE, 1).unwrap_err();
        assert!(matches!(error.problem, DataProblem::SeveralRecords(_)));
    }

    #[test]
    fn a_file_that_is_cut_short_or_empty_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.bin");
        for size in 1..records(0, 2).len() {
            fs::write(&path, &records(0, 2)[..size]).unwrap();
            let expected = format!(
                "{}: its {size} bytes are not a whole number of 7-byte records \
                 (1 label byte and 2x1x3 pixels): the file is cut short, or its images have \
                 another size than the network's input",
                path.display()
            );
            match Dataset::open(folder.path(), SHAPE, None) {
                Ok(data) => assert_eq!((size, data.len()), (7, 1)),
                Err(error) => assert_eq!(error.to_string(), expected),
            }
        }
        fs::write(&path, []).unwrap();
        assert!(matches!(Dataset::open(&path, SHAPE, None).unwrap_err().problem, DataProblem::Empty));
    }
}
