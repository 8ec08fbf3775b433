//! `skipstone keygen`, `sign` and `verify`: the files that they write, and what they refuse.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use skipstone::Model;
use skipstone_tools::blob::Blob;
use tempfile::TempDir;

/// A folder with a blob, a pair of keys, and the blob signed with sequence number 7.
fn signed() -> TempDir {
    let folder = TempDir::new().unwrap();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits.skip");
    fs::copy(digits, folder.path().join("digits.skip")).unwrap();
    printed(&folder, "keygen key.pem");
    printed(&folder, "sign digits.skip --key key.pem --sequence 7 -o signed.skip");
    folder
}

fn skipstone(folder: &TempDir, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skipstone"));
    command.args(line.split_whitespace()).current_dir(folder).output().expect("skipstone starts")
}

fn printed(folder: &TempDir, line: &str) -> String {
    let output = skipstone(folder, line);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "skipstone {line}\n{stderr}");
    stdout
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).unwrap()
}

/// Names and contents of all files.
fn files(folder: &TempDir) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap_or_default())).collect();
    files.sort();
    files
}

#[test]
fn keys_are_written_for_their_owner_and_for_the_firmware() {
    let folder = TempDir::new().unwrap();
    let constant = printed(&folder, "keygen key.pem");
    let numbers = constant.split_once("[\n").unwrap().1.split_once(']').unwrap().0;
    let key: Vec<u8> = numbers
        .split(',')
        .filter_map(|number| u8::from_str_radix(number.trim().strip_prefix("0x")?, 16).ok())
        .collect();
    assert_eq!((key.len(), key), (32, read(&folder, "key.pub")));
    assert!(read(&folder, "key.pem").starts_with(b"-----BEGIN PRIVATE KEY-----"));
    #[cfg(unix)]
    for (name, mode) in [("key.pem", 0o600), ("key.pub", 0o644)] {
        use std::os::unix::fs::PermissionsExt;
        let permissions = fs::metadata(folder.path().join(name)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{name}");
    }
    assert_ne!(constant, printed(&folder, "keygen other.pem"));
}

#[test]
fn a_signed_blob_is_the_blob_and_its_signature() {
    let folder = signed();
    let (blob, signed) = (read(&folder, "digits.skip"), read(&folder, "signed.skip"));
    assert_eq!(signed[..blob.len()], blob);
    assert!(printed(&folder, "verify signed.skip --key key.pub").contains("sequence number 7"));
    let key = <[u8; 32]>::try_from(&read(&folder, "key.pub")[..]).unwrap();
    assert!(Model::parse_signed(&Blob::from(&signed[..]), &key).is_ok());
    let inspected = |name| printed(&folder, &format!("inspect {name} --json"));
    assert_eq!(inspected("signed.skip"), inspected("digits.skip"));

    // a second signature takes the first one's place
    printed(&folder, "sign signed.skip --key key.pem --sequence 8 -o again.skip");
    assert_eq!(read(&folder, "again.skip").len(), signed.len());
    assert!(printed(&folder, "verify again.skip --key key.pub").contains("sequence number 8"));
}

#[test]
fn what_is_refused_says_what_to_do_and_leaves_nothing_behind() {
    let folder = signed();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let signed = read(&folder, "signed.skip");
    let mut changed = signed.clone();
    changed[1000] ^= 1;
    write("changed.skip", &changed);
    write("cut.skip", &signed[..signed.len() - 1]);
    write("weak.pub", &[0; 32]);
    write("lone.pub", b"somebody's");
    printed(&folder, "keygen other.pem");
    let cases: &[(&str, &[&str])] = &[
        ("keygen key.pem", &["key.pub: ", "not replaced"]),
        ("keygen lone.pem", &["lone.pub: ", "not replaced"]),
        ("keygen new.pub", &["new.pub: ", "name the private key otherwise"]),
        ("keygen missing/key.pem", &["missing/key.pub: ", "does the folder exist?"]),
        ("sign digits.skip --key key.pub -o new.skip", &["key.pub: "]),
        ("sign digits.skip --key digits.skip -o new.skip", &["digits.skip: "]),
        ("sign digits.skip --key lone.pub -o new.skip", &["lone.pub: is no private key", "skipstone keygen"]),
        ("sign digits.skip --key missing.pem -o new.skip", &["missing.pem: ", "No such file"]),
        ("sign changed.skip --key key.pem -o new.skip", &["changed.skip: ", "CRC-32"]),
        ("sign key.pem --key key.pem -o new.skip", &["key.pem: ", "not a skipstone blob"]),
        ("sign digits.skip --key key.pem -o digits.skip", &["digits.skip: is an input"]),
        ("sign digits.skip --key key.pem -o key.pem", &["key.pem: is an input"]),
        ("verify signed.skip --key other.pub", &["signed.skip: ", "not this key's"]),
        ("verify changed.skip --key key.pub", &["changed.skip: ", "not this key's"]),
        ("verify digits.skip --key key.pub", &["digits.skip: ", "not signed", "skipstone sign"]),
        ("verify cut.skip --key key.pub", &["cut.skip: ", "truncated"]),
        ("verify signed.skip --key key.pem", &["key.pem: is no public key", ".pub file"]),
        ("verify signed.skip --key weak.pub", &["weak.pub: ", "skipstone keygen"]),
        ("verify key.pem --key key.pub", &["key.pem: ", "not a skipstone blob"]),
    ];
    let before = files(&folder);
    for (line, parts) in cases {
        let output = skipstone(&folder, line);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "skipstone {line}\n{message}");
        for part in *parts {
            assert!(message.contains(part), "skipstone {line}\n{part:?} is missing in\n{message}");
        }
        assert!(message.starts_with("error: ") && output.stdout.is_empty(), "skipstone {line}\n{message}");
        assert!(files(&folder) == before, "skipstone {line} has changed a file");
    }
    // a private key that is there already is not replaced, and no public key is left in its place
    fs::remove_file(folder.path().join("key.pub")).unwrap();
    let before = files(&folder);
    assert_eq!(skipstone(&folder, "keygen key.pem").status.code(), Some(1));
    assert!(files(&folder) == before);
    // the number of a sequence
    assert_eq!(skipstone(&folder, "sign digits.skip --key key.pem --sequence x -o a").status.code(), Some(2));
}

#[test]
fn the_commands_explain_themselves() {
    let folder = TempDir::new().unwrap();
    for command in ["keygen", "sign", "verify"] {
        let help = printed(&folder, &format!("{command} --help"));
        assert!(help.contains(&format!("Examples:\n  skipstone {command} ")), "{help}");
    }
}
