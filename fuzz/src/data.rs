//! Images: data sets of every kind that is one file, and pictures.

use std::fs;

use skipstone::Shape;
use skipstone_tools::data::Dataset;
use skipstone_tools::picture;

use crate::import::folder;
use crate::memory::{Bound, within};

/// What reading a data set may take: an archive's images unfold, DEFLATE's limit being 1032.
pub const DATASET: Bound = Bound { multiple: 4 * 1032, constant: 1 << 20 };

/// What a picture may take, whatever its file claims.
pub const PICTURE: Bound = Bound { multiple: 16, constant: 1 << 30 };

/// Shapes of the images in the repository's data, and a small one.
const SHAPES: [Shape; 4] =
    [Shape::new(8, 8, 1), Shape::new(8, 8, 3), Shape::new(32, 32, 3), Shape::new(2, 1, 3)];

/// Reads the bytes as records, and as an array or an archive, of several shapes.
pub fn check_dataset(bytes: &[u8]) {
    for name in ["data.bin", "data.npz"] {
        let path = folder().join(name);
        fs::write(&path, bytes).unwrap();
        for shape in SHAPES {
            let data = within(DATASET, bytes.len(), || Dataset::open(&path, shape, None));
            let Ok(data) = data else { continue };
            assert!(data.image(data.len() - 1).len() == shape.len());
            assert!(data.labels().is_none_or(|labels| labels.len() == data.len()));
            let three = Dataset::open_for_calibration(&path, shape, 3).unwrap();
            assert_eq!(three.len(), data.len().min(3));
            let _ = data.match_classes(&[], 10);
        }
    }
}

/// Decodes a picture to one, three or four channels.
pub fn check_picture(bytes: &[u8]) {
    let channels = [1, 3, 4][bytes.len() % 3];
    let shape = Shape::new(8, 12, channels);
    if let Ok(pixels) = within(PICTURE, bytes.len(), || picture::decode(bytes, shape)) {
        assert_eq!(pixels.len(), shape.len());
    }
}
