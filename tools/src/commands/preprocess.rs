//! `skipstone preprocess`: the very bytes that a network sees of a picture, for firmware and tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use skipstone_tools::blob::{Blob, write_atomically};
use skipstone_tools::data::Dataset;
use skipstone_tools::picture;

use super::text::grouped;
use super::{check_output, parse, print};

const EXAMPLES: &str = "\
Examples:
  skipstone preprocess resnet8.skip cat.png --output cat.raw
  skipstone preprocess digits.skip digits-test.npz --limit 100 --output digits.raw

The file holds height x width x channels bytes, row by row, pixel by pixel, channel by channel (HWC), raw \
pixel values 0 to 255: what Network::run takes on the board. 'skipstone run' shows the network the same.";

/// Write the raw bytes that the network sees of a picture
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The blob (.skip) whose network is to see the picture
    blob: PathBuf,

    /// Any picture file (PNG, JPEG, BMP, GIF, WebP, PNM, TIFF); cropped and resized to the network's input;
    /// with --limit data as 'eval' reads it
    image: PathBuf,

    /// Take so many images of a data set and write them one after another
    #[arg(long, value_name = "N", value_parser = super::count)]
    limit: Option<usize>,

    /// The file to write
    #[arg(short, long, value_name = "OUT.raw")]
    output: PathBuf,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { blob, image, limit, output } = arguments;
    check_output(output, &[blob, image])?;
    let bytes = Blob::read(blob)?;
    let shape = parse(&bytes, blob)?.input();
    let pixels = match limit {
        None => picture::load(image, shape)?,
        Some(_) => {
            let data = Dataset::open(image, shape, *limit)?;
            (0..data.len()).flat_map(|index| data.image(index).iter().copied()).collect()
        }
    };
    write_atomically(output, &pixels)?;
    print(&format!("{}: {shape}, {} bytes\n", output.display(), grouped(pixels.len() as u64)))
}
