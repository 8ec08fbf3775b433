//! Signed blobs: a signature behind the blob, checked before anything in it is believed.
//!
//! `docs/format.md` has the layout. [`Model::parse`] ignores what lies behind a blob, so a signed one also runs where
//! this module is left out. `docs/security.md` says what a signature promises, and what not.

use ed25519_compact::{Error, PublicKey, Signature};

use crate::base::error::{ParseError, SignatureError};
use crate::blob::format::{HEADER_BYTES, MAGIC};
use crate::blob::model::Model;

/// Stands behind a blob that is signed. It belongs to what is signed, so that no other kind of message that the same
/// key may sign is taken for a blob; its last byte is the version of this layout.
pub const MARK: [u8; 8] = *b"SKIPSIG1";

/// Bytes that are signed besides the blob: the mark and the sequence number.
const SUFFIX_BYTES: usize = MARK.len() + size_of::<u32>();

/// Bytes that signing adds to a blob: mark, sequence number and signature.
pub const TRAILER_BYTES: usize = SUFFIX_BYTES + Signature::BYTES;

/// A blob that was signed by the owner of a key.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The blob, for [`Model::parse`].
    pub blob: &'a [u8],
    /// Its signed sequence number: of two blobs for a device, the higher one is newer.
    pub sequence: u32,
}

impl<'a> Signed<'a> {
    /// Checks the signature. All that is read before is the blob's first four bytes and its length, which say where
    /// the signature lies; what lies behind the signature is ignored, so that a whole flash slot can be given.
    ///
    /// `cargo xtask bench` prints what that takes in code, instructions and stack.
    ///
    /// # Errors
    /// [`SignatureError`] unless the owner of `public_key` signed exactly these bytes. Keys for which anybody can sign
    /// (points of small order) and encodings that are not canonical are refused.
    pub fn verify(bytes: &'a [u8], public_key: &[u8; 32]) -> Result<Self, SignatureError> {
        let Unverified { message, blob, sequence, signature } = Unverified::find(bytes)?;
        let verified = PublicKey::new(*public_key).verify(message, &Signature::new(signature));
        verified.map_err(|error| match error {
            Error::InvalidPublicKey | Error::WeakPublicKey => SignatureError::Key,
            _ => SignatureError::Mismatch,
        })?;
        Ok(Signed { blob, sequence })
    }
}

impl<'a> Model<'a> {
    /// Checks a signed blob: first that the owner of `public_key` signed it, then what [`Model::parse`] checks.
    /// `skipstone keygen` makes the keys, `skipstone sign` signs.
    ///
    /// ```
    /// use skipstone::Model;
    ///
    /// static MODEL: &[u8] = skipstone::include_model!("../../tests/data/signed.skip");
    /// static PUBLIC_KEY: &[u8; 32] = include_bytes!("../../tests/data/signed.pub");
    /// let model = Model::parse_signed(MODEL, PUBLIC_KEY)?;
    /// # assert_eq!(model.classes(), 3);
    /// # Ok::<(), skipstone::error::SignatureError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Signed::verify`], and [`SignatureError::Blob`] where what was signed does not parse.
    pub fn parse_signed(bytes: &'a [u8], public_key: &[u8; 32]) -> Result<Self, SignatureError> {
        let signed = Signed::verify(bytes, public_key)?;
        Model::parse(signed.blob).map_err(SignatureError::Blob)
    }
}

/// The parts of a signed blob, which anybody may have written.
pub(crate) struct Unverified<'a> {
    message: &'a [u8],
    blob: &'a [u8],
    pub(crate) sequence: u32,
    signature: [u8; Signature::BYTES],
}

impl<'a> Unverified<'a> {
    pub(crate) fn find(bytes: &'a [u8]) -> Result<Self, SignatureError> {
        let truncated = |needed| SignatureError::Blob(ParseError::Truncated { needed, given: bytes.len() });
        let &[s, k, i, p, _, _, _, _, a, b, c, d] = bytes.first_chunk().ok_or(truncated(HEADER_BYTES))?;
        if [s, k, i, p] != MAGIC {
            return Err(SignatureError::Blob(ParseError::NotABlob));
        }
        let total = u32::from_le_bytes([a, b, c, d]) as usize;
        let (blob, behind) = bytes.split_at_checked(total).ok_or(truncated(total))?;
        let sequence = behind.strip_prefix(&MARK).ok_or(SignatureError::Unsigned)?;
        let cut_off = truncated(total.saturating_add(TRAILER_BYTES));
        let (sequence, signature) = sequence.split_first_chunk().ok_or(cut_off)?;
        let signature = *signature.first_chunk().ok_or(cut_off)?;
        let message = bytes.get(..total.saturating_add(SUFFIX_BYTES)).ok_or(cut_off)?;
        Ok(Unverified { message, blob, sequence: u32::from_le_bytes(*sequence), signature })
    }
}
