//! `skipstone preprocess`: the very bytes that a network sees of a picture, for firmware and tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use skipstone_tools::blob::{Blob, write_atomically};
use skipstone_tools::picture;

use super::text::grouped;
use super::{check_output, parse, print};

const EXAMPLES: &str = "\
Example:
  skipstone preprocess resnet8.skip cat.png --output cat.raw

The file holds height x width x channels bytes, row by row, pixel by pixel, channel by channel (HWC), raw \
pixel values 0 to 255: what Network::run takes on the board. 'skipstone run' shows the network the same.";

/// Write the raw bytes that the network sees of a picture
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The blob (.skip) whose network is to see the picture
    blob: PathBuf,

    /// Any picture file (PNG, JPEG, BMP, GIF, WebP, PNM, TIFF); cropped and resized to the network's input
    image: PathBuf,

    /// The file to write
    #[arg(short, long, value_name = "OUT.raw")]
    output: PathBuf,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { blob, image, output } = arguments;
    check_output(output, &[blob, image])?;
    let bytes = Blob::read(blob)?;
    let shape = parse(&bytes, blob)?.input();
    let pixels = picture::load(image, shape)?;
    write_atomically(output, &pixels)?;
    print(&format!("{}: {shape}, {} bytes\n", output.display(), grouped(pixels.len() as u64)))
}
