//! `skipstone keygen`: a pair of keys, the private one to sign blobs, the public one for the firmware.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use skipstone_tools::signing;

use super::print;

const NOTES: &str = "\
Examples:
  skipstone keygen release.pem
  skipstone keygen release.pem > src/public_key.rs

Writes release.pem, the private key, and release.pub, the public one, and prints that as a Rust constant; in the \
firmware either the constant or

  static PUBLIC_KEY: &[u8; 32] = include_bytes!(\"release.pub\");

The private key is a PKCS#8 file as openssl reads and writes it, not encrypted: keep it where releases are made and \
nowhere else. Whoever has it can sign for every device that trusts the public key. No existing file is replaced.";

/// Make a private key for signing blobs, and its public key for the firmware
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct Arguments {
    /// The private key's file to write; the public key's has the extension .pub
    #[arg(value_name = "KEY.pem")]
    private: PathBuf,
}

/// Runs the command.
pub(crate) fn execute(arguments: &Arguments) -> Result<()> {
    let keys = signing::generate();
    signing::write_keys(&keys, &arguments.private)?;
    print(&constant(&keys.pk))
}

/// The public key in Rust.
fn constant(key: &[u8; 32]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!(" 0x{byte:02x},")).collect::<String>();
    let lines: Vec<String> = key.chunks(8).map(|bytes| format!("   {}\n", line(bytes))).collect();
    format!("/// Signs this device's networks.\npub const PUBLIC_KEY: [u8; 32] = [\n{}];\n", lines.concat())
}
