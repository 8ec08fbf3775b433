//! The files around the pickle: the zip archive, and the legacy row of pickles and storages.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use zip::{CompressionMethod, ZipArchive};

use super::elements::{Storages, checkpoint};
use super::globals::SAVE_WEIGHTS;
use super::machine;
use super::state_dict;
use super::storage::Dtype;
use super::values::{Object, Pickle, Value};
use crate::front::checkpoint::tensors::Checkpoint;
use crate::front::error::{ErrorKind, Refusal, enumerate};

fn damaged(place: impl Into<String>, reason: impl Into<String>) -> Refusal {
    Refusal::new(ErrorKind::Damaged, place, reason)
        .help("the file may be cut short: compare its size with the original's")
}

fn big_endian() -> Refusal {
    Refusal::new(ErrorKind::Format, "", "was saved on a big-endian machine")
        .help("load and save it again on another machine")
}

/// The tensors of a zip archive (`torch.save` since PyTorch 1.6).
pub(crate) fn read_zip(bytes: &[u8]) -> Result<Checkpoint, Refusal> {
    let mut archive = Archive::open(bytes)?;
    if archive.has("byteorder") && archive.read("byteorder")? != b"little" {
        return Err(big_endian());
    }
    let text = archive.read("data.pkl")?;
    let pickle = machine::read(&text, 0)?;
    let found = state_dict::find(&pickle)?;
    let needed = found.tensors(&pickle).filter(|(_, tensor)| tensor.storage.dtype.is_float());
    let keys: BTreeSet<&str> = needed.map(|(_, tensor)| pickle.text(tensor.storage.key)).collect();
    let mut storages = Storages::new();
    for key in keys {
        storages.insert(key, Cow::Owned(archive.read(&format!("data/{key}"))?));
    }
    checkpoint(&pickle, &found, &storages, bytes.len())
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder that all lies in: `archive`, or the name that the file had.
    folder: String,
    /// Bytes that may still be read: files that do not lie in each other have no more than the archive.
    left: usize,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| damaged("", format!("is a damaged zip archive: {error}")))?;
        let names = || zip.file_names().flatten();
        let folder = names().find_map(|name| name.strip_suffix("/data.pkl").map(str::to_owned));
        let refuse = |reason: String| Refusal::new(ErrorKind::Format, "", reason);
        let Some(folder) = folder else {
            let names: Vec<String> = names().map(|name| name.escape_debug().to_string()).collect();
            let reason =
                format!("is a zip archive, but no checkpoint of PyTorch: it holds {}", enumerate(&names));
            return Err(refuse(reason).help("checkpoints are written by torch.save"));
        };
        if zip.index_for_name(&format!("{folder}/constants.pkl")).is_some() {
            let reason = "is a TorchScript archive: a program, which is not read".into();
            return Err(refuse(reason).help(
                "save its weights, in Python: torch.save(torch.jit.load('model.pt').state_dict(), 'weights.pth')",
            ));
        }
        Ok(Archive { zip, folder, left: bytes.len() })
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}/{name}", self.folder)).is_some()
    }

    /// A file of the archive; its checksum is compared.
    fn read(&mut self, name: &str) -> Result<Vec<u8>, Refusal> {
        let path = format!("{}/{name}", self.folder);
        let place = || format!("'{name}' in the archive");
        let file = self.zip.by_name(&path).map_err(|error| damaged(place(), error.to_string()))?;
        if file.compression() != CompressionMethod::Stored {
            let reason = "is compressed, as torch.save never does";
            return Err(Refusal::new(ErrorKind::Format, place(), reason).help("load and save the file again"));
        }
        let size = usize::try_from(file.size()).ok();
        let Some(left) = size.and_then(|size| self.left.checked_sub(size)) else {
            return Err(damaged(place(), "does not fit into the archive: its files lie in each other"));
        };
        self.left = left;
        let mut bytes = Vec::new();
        file.take(size.unwrap_or(0) as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| damaged(place(), error.to_string()))?;
        Ok(bytes)
    }
}

/// What the first pickle of a legacy checkpoint ends with: its magic number, and the last instruction.
const MAGIC: [u8; 11] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The only version of the legacy format that there is.
const PROTOCOL: i64 = 1001;

/// The tensors of a legacy checkpoint (`torch.save` before PyTorch 1.6).
pub(crate) fn read_legacy(bytes: &[u8]) -> Result<Checkpoint, Refusal> {
    let magic = machine::read(bytes, 0)?;
    if !bytes[..magic.end].ends_with(&MAGIC) {
        let reason = "is a Python pickle that torch.save did not write";
        return Err(Refusal::new(ErrorKind::Format, "", reason).help(SAVE_WEIGHTS));
    }
    let protocol = machine::read(bytes, magic.end)?;
    if protocol.root != Value::Integer(PROTOCOL) {
        return Err(damaged("", "is a legacy checkpoint of an unknown version"));
    }
    let system = machine::read(bytes, protocol.end)?;
    let little = system.dict(system.root).and_then(|mut all| all.find(|(name, _)| *name == "little_endian"));
    if little.is_some_and(|(_, value)| value == Value::Flag(false)) {
        return Err(big_endian());
    }
    let pickle = machine::read(bytes, system.end)?;
    let found = state_dict::find(&pickle)?;
    let storages = legacy_storages(&pickle)?;
    checkpoint(&pickle, &found, &storages, bytes.len())
}

/// The storages behind the pickle: a list of keys, then for each its length and its elements.
fn legacy_storages<'a>(pickle: &Pickle<'a>) -> Result<Storages<'a>, Refusal> {
    let mut dtypes: BTreeMap<&str, Dtype> = BTreeMap::new();
    for object in &pickle.objects {
        if let Object::Storage(storage) = object {
            dtypes.insert(pickle.text(storage.key), storage.dtype);
        }
    }
    let bytes = pickle.bytes;
    let keys = machine::read(bytes, pickle.end)?;
    let Some(Object::List(list)) = keys.object(keys.root) else {
        return Err(damaged("", "has no list of storages"));
    };
    let mut storages = Storages::new();
    let mut at = keys.end;
    for key in list {
        let Value::Text(key) = key else { return Err(damaged("", "has a storage without a key")) };
        let key = keys.text(*key);
        let place = || format!("storage '{key}'");
        let dtype = dtypes.get(key).ok_or_else(|| damaged(place(), "is not known to any tensor"))?;
        let cut = || damaged(place(), "is not all there");
        let length = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        at += length.len();
        let end = usize::try_from(u64::from_le_bytes(*length)).ok();
        let end = end.and_then(|length| length.checked_mul(dtype.bytes())?.checked_add(at));
        let elements = end.and_then(|end| bytes.get(at..end)).ok_or_else(cut)?;
        storages.insert(key, Cow::Borrowed(elements));
        at += elements.len();
    }
    Ok(storages)
}
