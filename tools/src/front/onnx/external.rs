//! Weights in files beside the model, as PyTorch's exporter writes them (`model.onnx.data`) unless told otherwise.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use prost::bytes::Bytes;

use super::proto::{self, Entry, Tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::file::read_file;

/// The files beside a model, each read once.
pub(super) struct External {
    folder: PathBuf,
    files: HashMap<String, Bytes>,
    /// Bytes that tensors may still take: they do not overlap in honest files.
    left: usize,
}

/// Whether a tensor's elements lie in another file.
pub(super) fn is_external(tensor: &Tensor) -> bool {
    tensor.data_location == 1 || !tensor.external_data.is_empty()
}

impl External {
    /// Files in this folder.
    pub(super) fn new(folder: &Path) -> Self {
        External { folder: folder.into(), files: HashMap::new(), left: 0 }
    }

    /// Bytes of all files that were read.
    pub(super) fn len(&self) -> usize {
        self.files.values().map(Bytes::len).sum()
    }

    /// The elements of a tensor, in place of those that it lacks.
    pub(super) fn fetch(&mut self, mut tensor: Tensor, place: &str) -> Result<Tensor, Refusal> {
        let refuse = |reason: String| {
            Refusal::new(ErrorKind::ExternalData, place, reason)
                .help("keep the model and its data together, or save it whole with onnx.save(model, file)")
        };
        let (mut location, mut offset, mut length) = (None, 0, None);
        for entry in &tensor.external_data {
            let Entry { key, value } = proto::decode(entry.clone(), place)?;
            let number = || value.parse::<usize>().map_err(|_| refuse(format!("has {key} '{value}'")));
            match key.as_str() {
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                "location" => location = Some(value),
                _ => {}
            }
        }
        let location =
            location.ok_or_else(|| refuse("its elements are in another file without a name".into()))?;
        let name = format!("its elements are in another file, '{location}', ");
        // ONNX demands it: a model from a stranger reaches nothing outside of its folder.
        if !Path::new(&location).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(refuse(format!("{name}which is not beside the model")));
        }
        if !self.files.contains_key(&location) {
            let bytes = read_file(&self.folder.join(&location))
                .map_err(|refusal| refuse(format!("{name}which {}", refusal.reason)))?;
            self.left = self.left.saturating_add(bytes.len());
            self.files.insert(location.clone(), bytes.into());
        }
        let file = &self.files[&location];
        let end = match length {
            Some(length) => offset.checked_add(length),
            None => Some(file.len()),
        };
        let end = end.filter(|&end| offset <= end && end <= file.len());
        let end = end.ok_or_else(|| refuse(format!("{name}which ends before them")))?;
        self.left =
            self.left.checked_sub(end - offset).ok_or_else(|| refuse(format!("{name}several times over")))?;
        tensor.external_data.clear();
        tensor.data_location = 0;
        tensor.raw_data = Some(file.slice(offset..end));
        Ok(tensor)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message;

    use super::*;

    fn tensor(entries: &[(&str, &str)]) -> Tensor {
        let entry = |&(key, value): &(&str, &str)| Entry { key: key.into(), value: value.into() };
        let external_data = entries.iter().map(|e| entry(e).encode_to_vec().into()).collect();
        Tensor { external_data, data_location: 1, ..Tensor::default() }
    }

    #[test]
    fn elements_come_from_the_file_beside() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.data"), [1, 2, 3, 4, 5, 6]).unwrap();
        let mut external = External::new(folder.path());
        let mut fetch = |entries: &[(&str, &str)]| {
            external.fetch(tensor(entries), "t").map(|tensor| tensor.raw_data.unwrap().to_vec())
        };
        let at = |offset, length| [("location", "m.data"), ("offset", offset), ("length", length)];
        assert_eq!(fetch(&at("2", "3")), Ok(vec![3, 4, 5]));
        assert_eq!(fetch(&at("6", "0")), Ok(vec![]));
        let kind = |result: Result<Vec<u8>, Refusal>| result.unwrap_err().kind;
        for (offset, length) in
            [("2", "5"), ("7", "0"), ("18446744073709551615", "1"), ("-1", "1"), ("", "1")]
        {
            assert_eq!(kind(fetch(&at(offset, length))), ErrorKind::ExternalData);
        }
        assert_eq!(fetch(&[("location", "m.data"), ("offset", "3")]), Ok(vec![4, 5, 6]));
        assert!(fetch(&at("0", "1")).unwrap_err().reason.contains("several times over"));
    }

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), [0; 4]).unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let absolute = folder.path().join("secret").display().to_string();
        for location in ["../secret", "./../secret", &absolute, ""] {
            let refusal = External::new(&inner).fetch(tensor(&[("location", location)]), "t").unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::ExternalData, "{location}");
        }
        assert!(External::new(&inner).fetch(tensor(&[("offset", "0")]), "t").is_err());
    }
}
