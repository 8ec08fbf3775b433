//! `skipstone verify`: whether a device with a public key would take a blob.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use skipstone::error::SignatureError;
use skipstone::update::signature::Signed;
use skipstone_tools::blob::Blob;
use skipstone_tools::signing;

use super::{parse, print};

const EXAMPLES: &str = "\
Examples:
  skipstone verify resnet8-signed.skip --key release.pub

Exit code 0 where Model::parse_signed takes the blob, 1 where it does not.";

/// Check a signed blob with the public key, as the firmware does it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The signed blob (.skip)
    blob: PathBuf,

    /// The public key: the .pub file of 'skipstone keygen'
    #[arg(long, value_name = "KEY.pub")]
    key: PathBuf,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let Arguments { blob, key } = arguments;
    let public_key = signing::read_public(key)?;
    let bytes = Blob::read(blob)?;
    let signed = Signed::verify(&bytes, &public_key).map_err(|error| match error {
        // the file that the message is about
        SignatureError::Key => anyhow!("{}: {error}", key.display()),
        _ => anyhow!("{}: {error}", blob.display()),
    })?;
    let model = parse(signed.blob, blob)?;
    print(&format!(
        "{}: {} is signed by the owner of {}, sequence number {}\n",
        blob.display(),
        super::text::printable(model.name()),
        key.display(),
        signed.sequence
    ))
}
