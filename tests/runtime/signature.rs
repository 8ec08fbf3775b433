//! Signed blobs: what openssl signed is taken, anything that the key's owner did not sign is not.

use std::path::Path;

use skipstone::Model;
use skipstone::error::{ParseError, SignatureError};
use skipstone::host::format::HEADER_BYTES;
use skipstone::update::signature::{MARK, Signed, TRAILER_BYTES};
use skipstone_tools::blob::Blob;
use skipstone_tools::signing::{self, KeyPair};

use crate::networks;

/// The private key of RFC 8032's first test vector, which everybody knows.
const KNOWN_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----";

/// The small network with sequence number 1, signed with the known key by OpenSSL 3:
/// `openssl pkeyutl -sign -rawin -inkey known.pem -in message`.
fn signed_by_openssl() -> Blob {
    Blob::read(&data("signed.skip")).unwrap()
}

fn public_key() -> [u8; 32] {
    signing::read_public(&data("signed.pub")).unwrap()
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Whether the bytes are refused for their signature, so that nothing else in them was looked at.
fn is_refused(bytes: &[u8]) -> bool {
    let error = Model::parse_signed(bytes, &public_key()).expect_err("not signed");
    matches!(
        error,
        SignatureError::Unsigned
            | SignatureError::Mismatch
            | SignatureError::Blob(ParseError::NotABlob | ParseError::Truncated { .. })
    )
}

#[test]
fn what_openssl_signed_is_taken_and_signed_alike_here() {
    let bytes = signed_by_openssl();
    let signed = Signed::verify(&bytes, &public_key()).unwrap();
    assert_eq!((signed.blob.len() + TRAILER_BYTES, signed.sequence), (bytes.len(), 1));
    assert_eq!(Model::parse_signed(&bytes, &public_key()).unwrap().classes(), 3);
    assert_eq!(Model::parse(&bytes).unwrap().blob_bytes(), signed.blob.len());
    let keys = KeyPair::from_pem(KNOWN_KEY).unwrap();
    assert_eq!(signing::sign(signed.blob, &keys, 1), *bytes);
}

#[test]
fn no_bit_of_a_signed_blob_can_be_changed() {
    let bytes = signed_by_openssl();
    for bit in 0..8 * bytes.len() {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(&changed), "bit {bit}");
    }
}

#[test]
fn a_signed_blob_cannot_be_cut_or_stretched() {
    let bytes = signed_by_openssl();
    for length in 0..bytes.len() {
        assert!(is_refused(&bytes[..length]), "{length} bytes");
    }
    // what lies behind is nobody's business: a slot is longer than a blob
    let behind = Blob::from(&[&bytes[..], &[0xA5; 100]].concat()[..]);
    assert_eq!(
        Signed::verify(&behind, &public_key()).unwrap().blob,
        Signed::verify(&bytes, &public_key()).unwrap().blob
    );
    // but nothing can be put in, whether or not the length in the header says so
    let (blob, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    for foreign in [1, 4, 16, TRAILER_BYTES] {
        let mut stretched = [blob, &vec![0; foreign], trailer].concat();
        assert_eq!(Signed::verify(&stretched, &public_key()).unwrap_err(), SignatureError::Unsigned);
        let total = (blob.len() + foreign) as u32;
        stretched[8..12].copy_from_slice(&total.to_le_bytes());
        assert_eq!(Signed::verify(&stretched, &public_key()).unwrap_err(), SignatureError::Mismatch);
    }
}

#[test]
fn no_length_in_the_header_but_the_signed_one_is_taken() {
    let bytes = signed_by_openssl();
    let signed = (bytes.len() - TRAILER_BYTES) as u32;
    let extremes = [i32::MAX as u32, u32::MAX - TRAILER_BYTES as u32, u32::MAX - 1, u32::MAX];
    for total in (0..2 * signed).chain(extremes).filter(|total| *total != signed) {
        let mut changed = bytes.to_vec();
        changed[8..12].copy_from_slice(&total.to_le_bytes());
        assert!(is_refused(&changed), "{total}");
    }
}

#[test]
fn an_unsigned_blob_and_one_signed_by_somebody_else() {
    let blob = networks::planned(&networks::small());
    assert_eq!(Model::parse_signed(&blob, &public_key()).unwrap_err(), SignatureError::Unsigned);
    let others = signing::sign(&blob, &signing::generate(), 1);
    assert_eq!(Model::parse_signed(&others, &public_key()).unwrap_err(), SignatureError::Mismatch);
    // the same bytes, signed as a message of another kind
    let bytes = signed_by_openssl();
    let keys = KeyPair::from_pem(KNOWN_KEY).unwrap();
    let signature = keys.sk.sign(&*blob, None);
    let other_kind = [&bytes[..bytes.len() - signature.len()], signature.as_ref()].concat();
    assert_eq!(Model::parse_signed(&other_kind, &public_key()).unwrap_err(), SignatureError::Mismatch);
}

#[test]
fn what_is_signed_is_still_checked() {
    let keys = signing::generate();
    let mut blob = networks::planned(&networks::small()).to_vec();
    blob[HEADER_BYTES] ^= 1;
    let signed = Blob::from(&signing::sign(&blob, &keys, 1)[..]);
    let error = Model::parse_signed(&signed, &keys.pk).unwrap_err();
    assert!(matches!(error, SignatureError::Blob(ParseError::Checksum { .. })), "{error}");
}

/// A second signature made from a valid one (S + L for S) is no way to make a second valid file.
#[test]
fn a_signature_has_one_form() {
    let mut bytes = signed_by_openssl().to_vec();
    let at = bytes.len() - 32;
    let mut carry = 0;
    for (place, order) in bytes[at..].iter_mut().zip(ORDER) {
        let sum = u16::from(*place) + u16::from(order) + carry;
        (*place, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(Signed::verify(&bytes, &public_key()).unwrap_err(), SignatureError::Mismatch);
}

/// The order L of the base point, little-endian (RFC 8032, 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// For a public key of small order anybody can make signatures: R = the key, S = 0 fits one message in eight or
/// better. Such keys, and encodings that are not canonical, sign nothing.
#[test]
fn weak_keys_are_refused() {
    let blob = networks::planned(&networks::small());
    let mut weak = Vec::new();
    let order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    for point in order_8 {
        let bytes: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&point[2 * i..2 * i + 2], 16).unwrap()).collect();
        weak.push(<[u8; 32]>::try_from(bytes).unwrap());
    }
    // y = 0 (order 4), 1 (order 1) and -1 (order 2), and the same plus p where that fits
    for (low, high) in [(0, 0), (1, 0), (0xec, 0x7f), (0xed, 0x7f), (0xee, 0x7f)] {
        let mut point = if high == 0 { [0; 32] } else { [0xff; 32] };
        (point[0], point[31]) = (low, high);
        weak.push(point);
    }
    for mut key in weak.clone() {
        key[31] ^= 0x80; // the other sign of x
        weak.push(key);
    }
    for key in weak {
        for sequence in 0..16u32 {
            let forged = [&blob[..], &MARK, &sequence.to_le_bytes(), &key, &[0; 32]].concat();
            assert_eq!(Signed::verify(&forged, &key).unwrap_err(), SignatureError::Key, "{key:02x?}");
        }
    }
    let no_point = [2; 32];
    let bytes = signed_by_openssl();
    assert_eq!(Signed::verify(&bytes, &no_point).unwrap_err(), SignatureError::Key);
}

#[test]
fn errors_say_what_to_do() {
    for (error, advice) in [
        (SignatureError::Unsigned, "skipstone sign"),
        (SignatureError::Key, "skipstone keygen"),
        (SignatureError::Mismatch, "sign the blob"),
        (SignatureError::Blob(ParseError::Truncated { needed: 99, given: 98 }), "99 bytes, 98 given"),
    ] {
        assert!(error.to_string().contains(advice), "{error}");
    }
}
