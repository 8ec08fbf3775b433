//! Labelled images for calibration and evaluation, whatever they are stored in.
//!
//! | kind | what is expected |
//! |---|---|
//! | `.bin` file | records of a label byte and the image's planes (CHW), as CIFAR-10's; of any size |
//! | folder of `.bin` files | to evaluate `test[_batch].bin`, else `train.bin` or `data_batch_*.bin` |
//! | `.npy` file | images, `uint8`: (N, H, W, C), or (N, H, W) with one channel, or (N, C, H, W) |
//! | `.npz` file | `images` as above and, if they are known, `labels`: integers, (N) or (N, 1) |
//! | folder of folders | a class per folder, its pictures inside; labels count the folders sorted by name |
//! | folder of pictures | images without labels |
//!
//! Records and arrays have to have the network's shape (an array that fits as HWC and as CHW is HWC);
//! pictures are brought to it by [`picture`](crate::picture).
//!
//! Files are untrusted: no content makes a reader panic, and none makes it hold more than a small multiple
//! of the file's bytes (of 1032 times as many in an `.npz`, DEFLATE's limit; of 1 GiB for a picture).

mod dataset;
mod error;
mod folder;
mod numpy;
mod records;

use std::path::{Path, PathBuf};

pub use dataset::Dataset;
use dataset::Purpose;
pub use error::{DataError, DataProblem};
use skipstone::Shape;

use crate::ir::MAX_TENSOR_LENGTH;

impl Dataset {
    /// Reads images of shape `expected` for evaluation: all, or the first `limit`.
    ///
    /// In a folder of classes a limit takes from all classes in turn.
    pub fn open(path: &Path, expected: Shape, limit: Option<usize>) -> Result<Self, DataError> {
        Self::read(path, expected, Purpose::Evaluation { limit: limit.unwrap_or(usize::MAX) })
    }

    /// Reads `count` images of shape `expected`, spread evenly over the data, for calibration: fewer only
    /// where there are fewer.
    pub fn open_for_calibration(path: &Path, expected: Shape, count: usize) -> Result<Self, DataError> {
        Self::read(path, expected, Purpose::Calibration { count })
    }

    fn read(path: &Path, shape: Shape, purpose: Purpose) -> Result<Self, DataError> {
        if shape.is_empty() || shape.len() > MAX_TENSOR_LENGTH {
            return Err(DataProblem::Shape(shape).at(path));
        }
        if purpose.taken(usize::MAX) == 0 {
            return Err(DataProblem::NoneWanted.at(path));
        }
        let metadata = path.metadata().map_err(|error| DataProblem::Read(error).at(path))?;
        if metadata.is_dir() {
            return match records::find(path, purpose)? {
                Some(files) => records::read(files, shape, purpose),
                None => folder::read(path, shape, purpose),
            };
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("bin")) {
            return records::read(vec![path.to_path_buf()], shape, purpose);
        }
        numpy::read(path, shape, purpose)
    }

    /// Shape of every image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of images, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.images.len() / self.shape.len()
    }

    /// The bytes of an image, in HWC order.
    ///
    /// # Panics
    ///
    /// If there is no image with this index.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.images[index * self.shape.len()..][..self.shape.len()]
    }

    /// One label per image, if the labels are known.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// Names of the classes by label; empty unless the data is a folder of classes.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The files or the folder that the images were read from.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Brings the labels to those of a network with `classes` outputs called `names` (empty if unknown).
    ///
    /// Folders of classes find their output by name, so that they need not be all there; without names they
    /// count in sorted order. Other labels are output numbers already and are checked to be below `classes`.
    pub fn match_classes(mut self, names: &[String], classes: usize) -> Result<Self, DataError> {
        let result = self.relabel(names, classes);
        result.map_err(|problem| problem.at(&self.files[0]))?;
        Ok(self)
    }

    fn relabel(&mut self, names: &[String], classes: usize) -> Result<(), DataProblem> {
        let Some(labels) = &mut self.labels else { return Ok(()) };
        if !self.class_names.is_empty() && !names.is_empty() {
            let output_of = |class: &String| {
                names
                    .iter()
                    .position(|name| name == class)
                    .or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(class)))
                    .ok_or_else(|| DataProblem::UnknownClass {
                        class: class.clone(),
                        names: names.join(", "),
                    })
            };
            let outputs = self.class_names.iter().map(output_of).collect::<Result<Vec<usize>, _>>()?;
            labels.iter_mut().for_each(|label| *label = outputs[*label]);
            self.class_names = names.to_vec();
        }
        match labels.iter().position(|label| *label >= classes) {
            Some(image) => Err(DataProblem::LabelRange { image, label: labels[image], classes }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::dataset::append_planes;
    use super::*;

    const CALIBRATION: fn(usize) -> Purpose = |count| Purpose::Calibration { count };

    fn positions(purpose: Purpose, total: usize) -> Vec<usize> {
        (0..purpose.taken(total)).map(|index| purpose.position(index, total)).collect()
    }

    #[test]
    fn evaluation_takes_the_first_and_calibration_an_even_spread() {
        assert_eq!(positions(Purpose::Evaluation { limit: 3 }, 10), [0, 1, 2]);
        assert_eq!(positions(Purpose::Evaluation { limit: usize::MAX }, 4), [0, 1, 2, 3]);
        assert_eq!(positions(CALIBRATION(3), 10), [1, 5, 8]);
        assert_eq!(positions(CALIBRATION(5), 10), [1, 3, 5, 7, 9]);
        assert_eq!(positions(CALIBRATION(99), 4), [0, 1, 2, 3]);
        assert_eq!(positions(CALIBRATION(1), 1), [0]);
        for total in 1..50 {
            for count in 1..=total {
                let positions = positions(CALIBRATION(count), total);
                assert!(
                    positions.len() == count
                        && positions.is_sorted_by(|a, b| a < b)
                        && positions[count - 1] < total
                );
            }
        }
        assert_eq!(CALIBRATION(2).position(1, usize::MAX), usize::MAX / 4 * 3 + 2, "no overflow");
    }

    #[test]
    fn planes_become_pixels() {
        let mut images = vec![9];
        append_planes(&[1, 2, 3, 4, 10, 20, 30, 40, 100, 101, 102, 103], 3, &mut images);
        assert_eq!(images, [9, 1, 10, 100, 2, 20, 101, 3, 30, 102, 4, 40, 103]);
    }

    fn dataset(labels: &[usize], classes: &[&str]) -> Dataset {
        Dataset {
            shape: Shape::new(1, 1, 1),
            images: (0..labels.len() as u8).collect(),
            labels: Some(labels.to_vec()),
            class_names: classes.iter().map(|name| name.to_string()).collect(),
            files: vec!["data".into()],
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn folders_of_classes_find_their_output_by_name() {
        let network = names(&["cat", "Dog", "ship", "dog"]);
        let matched = dataset(&[0, 1, 2, 1], &["dog", "cat", "SHIP"]).match_classes(&network, 4).unwrap();
        assert_eq!(matched.labels().unwrap(), [3, 0, 2, 0]);
        assert_eq!(matched.class_names(), network);
        let error = dataset(&[0], &["horse"]).match_classes(&network, 4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "data: class folder `horse` is none of the network's classes (cat, Dog, ship, dog); \
             rename it to one of them"
        );
    }

    #[test]
    fn labels_without_names_are_output_numbers_and_have_to_exist() {
        for (classes, network) in [(&[][..], names(&["a", "b", "c"])), (&["x", "y", "z"], names(&[]))] {
            let good = dataset(&[0, 2, 1], classes);
            assert_eq!(good.clone().match_classes(&network, 3).unwrap(), good);
            let error = good.match_classes(&network, 2).unwrap_err();
            assert_eq!(
                error.to_string(),
                "data: image 1 has label 2, but the network has 2 outputs: labels are 0 to 1"
            );
        }
        let unlabelled = Dataset { labels: None, ..dataset(&[0], &[]) };
        assert!(unlabelled.match_classes(&[], 1).is_ok());
    }

    #[test]
    fn what_cannot_be_a_data_set_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cat.txt");
        std::fs::write(&file, "meow").unwrap();
        let shape = Shape::new(1, 1, 1);
        let problem = |path: &Path, shape, limit| Dataset::open(path, shape, limit).unwrap_err().problem;
        assert!(matches!(problem(&file, shape, None), DataProblem::UnknownKind));
        assert!(matches!(problem(&folder.path().join("missing"), shape, None), DataProblem::Read(_)));
        assert!(matches!(problem(&file, shape, Some(0)), DataProblem::NoneWanted));
        let empty = Shape::new(0, 1, 1);
        assert!(matches!(problem(&file, empty, None), DataProblem::Shape(refused) if refused == empty));
        let huge = Shape::new(u16::MAX, u16::MAX, u16::MAX);
        assert!(matches!(problem(&file, huge, None), DataProblem::Shape(refused) if refused == huge));
    }
}
