//! Any image file to the raw bytes that a network takes: cropped, resized, in its number of channels.
//!
//! - The format (PNG, JPEG, BMP, GIF, WebP, PNM, TIFF) is told by the file's content; of an animation
//!   the first frame is taken; a camera's note of how it was held (EXIF orientation) is followed.
//! - 16-bit samples are rounded to 8 bits. Transparency is laid over white, as a page or a viewer shows
//!   it, unless the network takes four channels (RGBA).
//! - Gray is ITU-R BT.601 luma, with the weights and the rounding of Pillow's `convert("L")`, because
//!   that is what networks of one channel have usually been trained on.
//! - The largest centred part with the network's aspect ratio is resized with a Lanczos filter of three
//!   lobes. A picture that has the network's size already keeps its every byte.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageReader, Limits, Luma, Pixel, Rgb};
use skipstone::Shape;
use thiserror::Error;

use crate::ir::MAX_TENSOR_LENGTH;

/// Most bytes that one picture may take, from its decoder to the network's channels: a photo of 130 megapixels
/// fits, a bomb does not.
const MAX_DECODED: u64 = 768 << 20;

/// A picture file that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {problem}", .path.display())]
pub struct PictureError {
    /// The picture file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: PictureProblem,
}

/// What is wrong in a [`PictureError`].
#[derive(Debug, Error)]
pub enum PictureProblem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The content is of no format that is known here.
    #[error("is not a picture in a known format (PNG, JPEG, BMP, GIF, WebP, PNM, TIFF)")]
    Format,
    /// The content is damaged, or of a kind that the decoder does not support.
    #[error("cannot be decoded: {0}")]
    Decode(#[source] image::ImageError),
    /// The picture has no pixels.
    #[error("is {0}x{1} pixels: it has none")]
    Empty(u32, u32),
    /// The network takes something that is not a picture.
    #[error("cannot fill a network input of {0}: pictures have 1, 3 or 4 channels")]
    Shape(Shape),
}

/// Reads a picture file as the network's input: `shape`'s bytes in HWC order.
pub fn load(path: &Path, shape: Shape) -> Result<Vec<u8>, PictureError> {
    let in_file = |problem| PictureError { path: path.to_path_buf(), problem };
    let file = std::fs::read(path).map_err(|error| in_file(PictureProblem::Read(error)))?;
    decode(&file, shape).map_err(in_file)
}

/// Decodes a picture file's content to the network's input: `shape`'s bytes in HWC order.
pub fn decode(file: &[u8], shape: Shape) -> Result<Vec<u8>, PictureProblem> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader =
        ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(PictureProblem::Read)?;
    if reader.format().is_none() {
        return Err(PictureProblem::Format);
    }
    reader.limits(limits.clone());
    let picture = reader
        .into_decoder()
        .and_then(|mut decoder| {
            limits.reserve(needed(&decoder))?;
            // A picture with a damaged note about its orientation is still a picture.
            let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
            let mut picture = DynamicImage::from_decoder(decoder)?;
            picture.apply_orientation(orientation);
            Ok(picture)
        })
        .map_err(PictureProblem::Decode)?;
    fit(picture, shape)
}

/// Bytes of a picture while it is turned, or brought to RGB by way of RGBA.
fn needed(decoder: &impl ImageDecoder) -> u64 {
    let (width, height) = decoder.dimensions();
    let (decoded, pixels) = (decoder.total_bytes(), u64::from(width) * u64::from(height));
    let converted = if decoder.color_type().has_alpha() { 4 + 3 } else { 3 };
    decoded.saturating_mul(2).max(decoded.saturating_add(pixels.saturating_mul(converted)))
}

/// Brings a decoded picture to the network's channels and size: `shape`'s bytes in HWC order.
fn fit(picture: DynamicImage, shape: Shape) -> Result<Vec<u8>, PictureProblem> {
    if picture.width() == 0 || picture.height() == 0 {
        return Err(PictureProblem::Empty(picture.width(), picture.height()));
    }
    if shape.is_empty() || shape.len() > MAX_TENSOR_LENGTH {
        return Err(PictureProblem::Shape(shape));
    }
    match shape.channels {
        1 => Ok(resize(gray(&rgb_over_white(picture)), shape)),
        3 => Ok(resize(rgb_over_white(picture), shape)),
        4 => Ok(resize(picture.into_rgba8(), shape)),
        _ => Err(PictureProblem::Shape(shape)),
    }
}

fn rgb_over_white(picture: DynamicImage) -> ImageBuffer<Rgb<u8>, Vec<u8>> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    ImageBuffer::from_fn(picture.width(), picture.height(), |x, y| {
        let [red, green, blue, alpha] = picture.get_pixel(x, y).0;
        // Rounded; an opaque pixel keeps its colour exactly.
        let blend = |colour| {
            let (colour, alpha) = (u32::from(colour), u32::from(alpha));
            ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        Rgb([red, green, blue].map(blend))
    })
}

fn gray(picture: &ImageBuffer<Rgb<u8>, Vec<u8>>) -> ImageBuffer<Luma<u8>, Vec<u8>> {
    ImageBuffer::from_fn(picture.width(), picture.height(), |x, y| {
        let [red, green, blue] = picture.get_pixel(x, y).0.map(u32::from);
        // 0.299, 0.587 and 0.114 in 16 fractional bits. They sum to one: what is gray stays as it is.
        Luma([((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8])
    })
}

fn resize<P>(picture: ImageBuffer<P, Vec<u8>>, shape: Shape) -> Vec<u8>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let target = (u32::from(shape.width), u32::from(shape.height));
    if picture.dimensions() == target {
        return picture.into_raw();
    }
    let (width, height) = crop_size(picture.dimensions(), target);
    let (x, y) = ((picture.width() - width) / 2, (picture.height() - height) / 2);
    let cropped = imageops::crop_imm(&picture, x, y, width, height).to_image();
    if cropped.dimensions() == target {
        return cropped.into_raw();
    }
    imageops::resize(&cropped, target.0, target.1, FilterType::Lanczos3).into_raw()
}

/// Width and height of the largest part of a picture with the target's aspect ratio.
fn crop_size((width, height): (u32, u32), target: (u32, u32)) -> (u32, u32) {
    let (wide, high) = (u64::from(width), u64::from(height));
    let (target_wide, target_high) = (u64::from(target.0), u64::from(target.1));
    // `part` = `side` * `ratio` rounded, at least one pixel; it never exceeds the side that it is cut from.
    let part = |side: u64, over: u64, under: u64| ((side * over + under / 2) / under).max(1) as u32;
    if wide * target_high > high * target_wide {
        (part(high, target_wide, target_high).min(width), height)
    } else {
        (width, part(wide, target_high, target_wide).min(height))
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, LumaA, Rgba};

    use super::*;

    const RGB_2X2: Shape = Shape::new(2, 2, 3);

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn rgb(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> ImageBuffer<Rgb<u8>, Vec<u8>> {
        ImageBuffer::from_fn(width, height, |x, y| Rgb(pixel(x, y)))
    }

    #[test]
    fn a_picture_of_the_right_size_keeps_every_byte() {
        let picture = rgb(7, 5, |x, y| [(x * 36) as u8, (y * 63) as u8, (x * y * 10) as u8]);
        let bytes = picture.as_raw().clone();
        for format in
            [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Pnm, ImageFormat::Tiff, ImageFormat::WebP]
        {
            let file = encode(picture.clone(), format);
            assert_eq!(decode(&file, Shape::new(5, 7, 3)).unwrap(), bytes, "{format:?}");
        }
        let gray = ImageBuffer::from_fn(7, 5, |x, y| Luma([(x * 36 + y) as u8]));
        let file = encode(gray.clone(), ImageFormat::Png);
        assert_eq!(decode(&file, Shape::new(5, 7, 1)).unwrap(), *gray.as_raw());
    }

    #[test]
    fn a_crop_to_the_right_size_keeps_every_byte_of_the_centre() {
        let picture = rgb(6, 2, |x, y| [x as u8, y as u8, 0]);
        let file = encode(picture, ImageFormat::Png);
        assert_eq!(decode(&file, RGB_2X2).unwrap(), [2, 0, 0, 3, 0, 0, 2, 1, 0, 3, 1, 0]);
        let tall = rgb(2, 5, |x, y| [x as u8, y as u8, 0]);
        let file = encode(tall, ImageFormat::Png);
        assert_eq!(decode(&file, RGB_2X2).unwrap(), [0, 1, 0, 1, 1, 0, 0, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_crop_has_the_aspect_ratio_of_the_network() {
        assert_eq!(crop_size((640, 480), (32, 32)), (480, 480));
        assert_eq!(crop_size((480, 640), (32, 32)), (480, 480));
        assert_eq!(crop_size((100, 100), (40, 20)), (100, 50));
        assert_eq!(crop_size((100, 100), (20, 30)), (67, 100));
        assert_eq!(crop_size((1, 10000), (32, 32)), (1, 1));
        assert_eq!(crop_size((10000, 1), (1, 65535)), (1, 1));
        assert_eq!(crop_size((u32::MAX, u32::MAX), (65535, 1)).0, u32::MAX);
    }

    #[test]
    fn downscaling_averages_and_does_not_shift() {
        // Left half black, right half white, in 64 columns: so is the result in 4.
        let file = encode(rgb(64, 64, |x, _| if x < 32 { [0; 3] } else { [255; 3] }), ImageFormat::Png);
        let bytes = decode(&file, Shape::new(4, 4, 1)).unwrap();
        for row in bytes.chunks_exact(4) {
            assert!(row[0] < 8 && row[1] < 40 && row[2] > 215 && row[3] > 247, "{row:?}");
            assert_eq!(u32::from(row[0]) + u32::from(row[3]), 255, "{row:?}");
        }
        // A fine checkerboard becomes even gray; taking single pixels would leave it black and white.
        let file = encode(rgb(64, 64, |x, y| [255 * ((x + y) % 2) as u8; 3]), ImageFormat::Png);
        let bytes = decode(&file, Shape::new(4, 4, 3)).unwrap();
        assert!(bytes.iter().all(|value| (124..=131).contains(value)), "{bytes:?}");
    }

    #[test]
    fn colours_become_gray_as_in_pillow() {
        // Pillow 13: Image.fromarray(...).convert("L") of these eight colours.
        let colours = [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([12, 200, 77], 130),
            ([255, 255, 255], 255),
            ([1, 2, 3], 2),
            ([127, 127, 127], 127),
            ([250, 128, 114], 163),
        ];
        let file = encode(rgb(8, 1, |x, _| colours[x as usize].0), ImageFormat::Png);
        assert_eq!(decode(&file, Shape::new(1, 8, 1)).unwrap(), colours.map(|(_, gray)| gray));
    }

    #[test]
    fn transparency_lies_over_white_unless_the_network_takes_it() {
        let pixels = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 255, 128], [255, 0, 0, 51]];
        let picture: ImageBuffer<Rgba<u8>, _> = ImageBuffer::from_raw(2, 2, pixels.concat()).unwrap();
        let file = encode(picture, ImageFormat::Png);
        let expected = [[10, 20, 30], [255, 255, 255], [127, 177, 255], [255, 204, 204]];
        assert_eq!(decode(&file, RGB_2X2).unwrap(), expected.concat());
        assert_eq!(decode(&file, Shape::new(2, 2, 4)).unwrap(), pixels.concat());
        let gray: ImageBuffer<LumaA<u8>, _> = ImageBuffer::from_raw(2, 1, vec![9, 255, 9, 0]).unwrap();
        assert_eq!(decode(&encode(gray, ImageFormat::Png), Shape::new(1, 2, 1)).unwrap(), [9, 255]);
    }

    #[test]
    fn sixteen_bits_are_rounded_to_eight() {
        let samples = vec![0, 128, 129, 257, 32768, 65406, 65407, 65535];
        let picture: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(8, 1, samples).unwrap();
        let bytes = decode(&encode(picture, ImageFormat::Png), Shape::new(1, 8, 1)).unwrap();
        assert_eq!(bytes, [0, 0, 1, 1, 128, 254, 255, 255]);
    }

    #[test]
    fn a_small_picture_is_enlarged() {
        let file = encode(rgb(1, 1, |_, _| [200, 100, 50]), ImageFormat::Png);
        assert_eq!(decode(&file, RGB_2X2).unwrap(), [200, 100, 50].repeat(4));
    }

    #[test]
    fn a_jpeg_held_sideways_is_turned() {
        let picture = rgb(16, 8, |x, _| if x < 8 { [0; 3] } else { [255; 3] });
        let mut file = encode(picture, ImageFormat::Jpeg);
        let upright = decode(&file, Shape::new(8, 16, 1)).unwrap();
        assert!(upright[0] < 20 && upright[15] > 235);
        // An APP1 segment, just after the start of the image, that says: orientation 6, turn right.
        let exif: &[u8] =
            b"\xFF\xE1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(exif.len(), 2 + 0x22);
        file.splice(2..2, exif.iter().copied());
        let turned = decode(&file, Shape::new(16, 8, 1)).unwrap();
        assert!(turned[..8].iter().all(|value| *value < 20), "the left side is on top: {turned:?}");
        assert!(turned[120..].iter().all(|value| *value > 235), "the right side is below: {turned:?}");
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let good = encode(rgb(2, 2, |_, _| [1, 2, 3]), ImageFormat::Png);
        assert!(matches!(decode(b"", RGB_2X2), Err(PictureProblem::Format)));
        assert!(matches!(decode(b"no picture at all", RGB_2X2), Err(PictureProblem::Format)));
        for end in 0..good.len() - 12 {
            assert!(decode(&good[..end], RGB_2X2).is_err(), "cut at {end}");
        }
        assert!(matches!(
            decode(b"P6 0 3 255\n", RGB_2X2),
            Err(PictureProblem::Decode(_) | PictureProblem::Empty(..))
        ));
        // A bomb: a header that claims 60,000 x 60,000 pixels.
        let bomb = b"P6 60000 60000 255\n";
        assert!(matches!(decode(bomb, RGB_2X2), Err(PictureProblem::Decode(image::ImageError::Limits(_)))));
        for shape in
            [Shape::new(2, 2, 2), Shape::new(2, 2, 5), Shape::new(0, 2, 3), Shape::new(65535, 65535, 3)]
        {
            assert!(matches!(decode(&good, shape), Err(PictureProblem::Shape(refused)) if refused == shape));
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let path = Path::new("no/such/cat.png");
        let message = load(path, RGB_2X2).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{}: cannot be read: ", path.display())), "{message}");
    }
}
