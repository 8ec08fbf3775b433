//! What can be wrong with a data set: which file, which image, what was found and what to do.

use std::io;
use std::path::{Path, PathBuf};

use skipstone::Shape;
use thiserror::Error;

use crate::ir::MAX_TENSOR_LENGTH;
use crate::picture::{PictureError, PictureProblem};

/// Data that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {problem}", .path.display())]
pub struct DataError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: DataProblem,
}

/// What is wrong in a [`DataError`]. Images count from 0.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the message beside each variant says what its numbers are")]
pub enum DataProblem {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(
        "is no data set of a known kind: \
         use a CIFAR-10 style binary (.bin), a NumPy file (.npy, .npz) or a folder of pictures"
    )]
    UnknownKind,
    #[error("cannot hold images of {0}: sides are at least 1, and at most {MAX_TENSOR_LENGTH} values")]
    Shape(Shape),
    #[error("zero images were asked for; ask for at least one")]
    NoneWanted,
    #[error("holds no images")]
    Empty,

    #[error(
        "its {size} bytes are not a whole number of {record}-byte records (1 label byte and {shape} pixels): \
         the file is cut short, or its images have another size than the network's input"
    )]
    PartialRecord { size: u64, record: usize, shape: Shape },
    #[error("has no {wanted} (only {found}); to use another file, name it instead of its folder")]
    NoRecords { wanted: &'static str, found: String },
    #[error("has several candidates ({0}); name the file to use instead of its folder")]
    SeveralRecords(String),

    #[error("is not a sound NumPy array: {0}")]
    NumpyHeader(&'static str),
    #[error("array `{array}` has type {found} but has to be {expected}")]
    ArrayType { array: &'static str, found: String, expected: &'static str },
    #[error("array `{array}` is in Fortran order; save numpy.ascontiguousarray(...) of it")]
    FortranOrder { array: &'static str },
    #[error("array `{array}` has shape {found:?} but has to be {expected}")]
    ArrayShape { array: &'static str, found: Vec<u64>, expected: String },
    #[error(
        "array `{array}` has to take {expected} bytes by its header but has {found}: the file is damaged"
    )]
    ArraySize { array: &'static str, expected: u128, found: u64 },
    #[error("has no array `{array}` (only {found}); save with numpy.savez(path, images=..., labels=...)")]
    MissingArray { array: &'static str, found: String },
    #[error("array `{array}` claims {size} bytes, which a file of {file} bytes cannot hold")]
    Inflated { array: &'static str, size: u64, file: u64 },
    #[error("is not a sound .npz file: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("has {labels} labels for {images} images")]
    LabelCount { labels: u64, images: usize },
    #[error("image {image} has label {label}; labels are 0 to 65535")]
    LabelValue { image: usize, label: i128 },

    #[error(
        "has pictures ({picture}) beside folders ({class}); put every picture into the folder of its class"
    )]
    PicturesBesideClasses { picture: String, class: String },
    #[error("this class folder holds no pictures; add some, or remove the folder")]
    EmptyClass,
    #[error(transparent)]
    Picture(PictureProblem),

    #[error("class folder `{class}` is none of the network's classes ({names}); rename it to one of them")]
    UnknownClass { class: String, names: String },
    #[error(
        "image {image} has label {label}, but the network has {classes} outputs: labels are 0 to {}",
        classes.saturating_sub(1)
    )]
    LabelRange { image: usize, label: usize, classes: usize },
}

impl DataProblem {
    pub(super) fn at(self, path: &Path) -> DataError {
        DataError { path: path.to_path_buf(), problem: self }
    }
}

impl From<PictureError> for DataError {
    fn from(error: PictureError) -> Self {
        DataProblem::Picture(error.problem).at(&error.path)
    }
}
