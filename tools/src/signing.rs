//! Keys as files, and the signature that goes behind a blob; see `docs/format.md`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
pub use ed25519_compact::KeyPair;
use ed25519_compact::PublicKey;
use skipstone::update::signature::MARK;

/// A new pair of keys, from the system's random numbers.
pub fn generate() -> KeyPair {
    KeyPair::generate()
}

/// Where the public key lies that belongs to a private key's file.
pub fn public_path(private: &Path) -> PathBuf {
    private.with_extension("pub")
}

/// Writes the private key (PKCS#8 as PEM, readable for its owner alone) and beside it the public one (32 bytes, for
/// `include_bytes!`).
///
/// # Errors
/// Where one of the two files exists already, or cannot be written; then neither is left.
pub fn write_keys(keys: &KeyPair, private: &Path) -> anyhow::Result<()> {
    let public = public_path(private);
    if public == private {
        bail!("{}: is the public key's name; name the private key otherwise, as key.pem", private.display());
    }
    create(&public, keys.pk.as_slice(), 0o644)?;
    let written = create(private, keys.sk.to_pem().as_bytes(), 0o600);
    if written.is_err() {
        std::fs::remove_file(&public).with_context(|| format!("{}: cannot be removed", public.display()))?;
    }
    written
}

/// Writes a file whole or not at all, and never over another one.
fn create(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = || format!("{}: cannot write there; does the folder exist?", path.display());
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = builder.tempfile_in(folder).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.persist_noclobber(path).with_context(|| {
        format!("{}: exists or cannot be written; keys are not replaced: name another file", path.display())
    })?;
    Ok(())
}

/// Reads a private key as [`write_keys`] and `openssl genpkey -algorithm ed25519` write it.
///
/// # Errors
/// Where the file cannot be read or holds anything else.
pub fn read_private(path: &Path) -> anyhow::Result<KeyPair> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot read the private key", path.display()))?;
    match KeyPair::from_pem(&text) {
        Ok(keys) => Ok(keys),
        Err(_) => bail!(
            "{}: is no private key (Ed25519, PKCS#8, PEM)\n  help: 'skipstone keygen' makes one",
            path.display()
        ),
    }
}

/// Reads a public key.
///
/// # Errors
/// Where the file cannot be read or is not 32 bytes long.
pub fn read_public(path: &Path) -> anyhow::Result<[u8; PublicKey::BYTES]> {
    let bytes =
        std::fs::read(path).with_context(|| format!("{}: cannot read the public key", path.display()))?;
    match <[u8; PublicKey::BYTES]>::try_from(&bytes[..]) {
        Ok(key) => Ok(key),
        Err(_) => bail!(
            "{}: is no public key ({} bytes, not {})\n  help: give the .pub file that 'skipstone keygen' has written",
            path.display(),
            bytes.len(),
            PublicKey::BYTES
        ),
    }
}

/// A blob with its signature behind it.
pub fn sign(blob: &[u8], keys: &KeyPair, sequence: u32) -> Vec<u8> {
    let message = [blob, &MARK, &sequence.to_le_bytes()].concat();
    let signature = keys.sk.sign(&message, None);
    [&message[..], signature.as_ref()].concat()
}
