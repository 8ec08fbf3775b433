//! `skipstone sign`: puts a signature behind a blob.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use skipstone::update::signature::TRAILER_BYTES;
use skipstone_tools::blob::{Blob, write_atomically};
use skipstone_tools::signing;

use super::text::grouped;
use super::{check_output, parse, print};

const NOTES: &str = "\
Examples:
  skipstone sign resnet8.skip --key release.pem --output resnet8-signed.skip
  skipstone sign resnet8.skip --key release.pem --sequence 7 --output update.skip

The firmware checks it with Model::parse_signed and the public key; firmware without that feature runs signed blobs \
like any other. What is signed is the file without its last 64 bytes, by Ed25519; openssl checks it as well:

  head -c -64 resnet8-signed.skip > message; tail -c 64 resnet8-signed.skip > signature
  openssl pkeyutl -verify -rawin -in message -sigfile signature -inkey release.pem";

/// Sign a blob, so that devices can tell that it is yours
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The blob (.skip); a signature that it has already is replaced
    blob: PathBuf,

    /// The private key, from 'skipstone keygen'
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,

    /// Sequence number: higher than that of every earlier release for the same devices, which run the highest
    #[arg(long, value_name = "N", default_value_t = 1)]
    sequence: u32,

    /// The file to write
    #[arg(short, long, value_name = "OUT.skip")]
    output: PathBuf,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { blob, key, sequence, output } = arguments;
    check_output(output, &[blob, key])?;
    let bytes = Blob::read(blob)?;
    let length = parse(&bytes, blob)?.blob_bytes();
    let signed = signing::sign(&bytes[..length], &signing::read_private(key)?, *sequence);
    write_atomically(output, &signed)?;
    print(&format!(
        "{}: signed, sequence number {sequence}, {} bytes, {TRAILER_BYTES} of them for the signature\n",
        output.display(),
        grouped(signed.len() as u64)
    ))
}
