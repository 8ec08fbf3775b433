//! The images that were read, and what they are for.

use std::io::{self, Read};
use std::path::PathBuf;

use skipstone::Shape;

use super::error::DataProblem;

/// Images of one shape, raw bytes in HWC order, with their labels if these are known. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub(super) shape: Shape,
    pub(super) images: Vec<u8>,
    pub(super) labels: Option<Vec<usize>>,
    pub(super) class_names: Vec<String>,
    pub(super) files: Vec<PathBuf>,
}

/// What the images are for. It decides which of a data set's files, and which of their images, are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The first images of the test files.
    Evaluation { limit: usize },
    /// Images spread evenly over the training files.
    Calibration { count: usize },
}

impl Purpose {
    /// How many of `total` images are taken.
    pub(super) fn taken(self, total: usize) -> usize {
        match self {
            Purpose::Evaluation { limit: count } | Purpose::Calibration { count } => count.min(total),
        }
    }

    /// Position among all `total` images of the taken image number `index`; it grows with `index`.
    pub(super) fn position(self, index: usize, total: usize) -> usize {
        match self {
            Purpose::Evaluation { .. } => index,
            // The middle of each of `taken` equal parts: a sorted data set gives images of all classes.
            Purpose::Calibration { .. } => {
                let (taken, middle) = (self.taken(total) as u128, 2 * index as u128 + 1);
                (middle * total as u128 / (2 * taken)) as usize
            }
        }
    }
}

/// Appends an image that is stored as planes (CHW) in HWC order.
pub(super) fn append_planes(planes: &[u8], channels: usize, images: &mut Vec<u8>) {
    let pixels = planes.len() / channels;
    images.extend((0..planes.len()).map(|index| planes[index % channels * pixels + index / channels]));
}

/// Reads `total` records of `record` bytes each and calls `each` with the position and the bytes of every
/// taken one.
pub(super) fn for_each_taken(
    mut reader: impl Read,
    record: usize,
    total: usize,
    purpose: Purpose,
    mut each: impl FnMut(usize, &[u8]) -> Result<(), DataProblem>,
) -> Result<(), DataProblem> {
    let mut bytes = vec![0; record];
    let mut next = 0;
    for index in 0..purpose.taken(total) {
        let position = purpose.position(index, total);
        let skipped = (position - next) as u64 * record as u64;
        io::copy(&mut reader.by_ref().take(skipped), &mut io::sink())?;
        reader.read_exact(&mut bytes)?;
        each(position, &bytes)?;
        next = position + 1;
    }
    Ok(())
}
