//! Why a model was refused: the file, the node or tensor, the reason and what would help.

use std::path::PathBuf;

use crate::ir::VarianceError;

/// A model that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {refusal}", file.display())]
pub struct ImportError {
    /// The file at fault (a description's weights file has errors of its own).
    pub file: PathBuf,
    /// What is wrong in it.
    pub refusal: Refusal,
}

/// What is wrong, without the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}{}", prefix(place), suffix(help))]
pub struct Refusal {
    /// The kind of error, for programs and tests.
    pub kind: ErrorKind,
    /// The node, tensor, input or line; empty when it is the file as a whole.
    pub place: String,
    /// What is wrong there.
    pub reason: String,
    /// What would help; empty when nothing is known to.
    pub help: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file cannot be read, is not a regular file or is too large.
    File,
    /// The content is of an unknown format.
    Format,
    /// The content is of a known format, but breaks its rules.
    Damaged,
    /// The file calls functions or holds objects of a program, which are not executed.
    Code,
    /// Weights lie in another file.
    ExternalData,
    /// Height, width or channels are not fixed.
    DynamicShape,
    /// An operator, or an operator's setting, that is not supported.
    Operator,
    /// Layers are connected in a way that is not supported.
    Topology,
    /// Sizes that do not fit together, are zero or too large.
    Shape,
    /// A weight or parameter that is not a number, infinite or out of its range.
    Value,
    /// Mean or standard deviation do not fit the input.
    Preprocessing,
    /// There are other than one label for each output.
    Labels,
    /// A wanted output that the model does not have.
    Output,
    /// The description names tensors that the weights file does not have.
    MissingTensor,
    /// The weights file has tensors that the network does not have.
    UnusedTensor,
    /// The description's text breaks the rules of its format.
    Description,
}

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Refusal { kind, place: place.into(), reason: reason.into(), help: String::new() }
    }

    /// The refusal of a batch norm; `tensor` is its variance.
    pub(crate) fn variance(error: &VarianceError, tensor: &str) -> Self {
        Refusal::new(ErrorKind::Value, format!("tensor '{tensor}'"), error.to_string())
            .help("check that this tensor is the running variance")
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

fn prefix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}: ") }
}

fn suffix(help: &str) -> String {
    if help.is_empty() { String::new() } else { format!("\n  help: {help}") }
}

/// The first few of many names, for a message.
pub(crate) fn enumerate(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut text = names.iter().take(SHOWN).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// The name that a typing error most likely stands for.
pub(crate) fn closest<'n>(name: &str, names: impl Iterator<Item = &'n String>) -> Option<&'n String> {
    /// A hostile file cannot make this slow.
    const SEARCHED: usize = 4096;
    const LONGEST: usize = 128;
    if name.len() > LONGEST {
        return None;
    }
    let candidates = names.take(SEARCHED).filter(|other| other.len() <= LONGEST);
    let (distance, closest) =
        candidates.map(|other| (distance(name.as_bytes(), other.as_bytes()), other)).min()?;
    (distance <= name.len() / 3).then_some(closest)
}

/// Levenshtein's: insertions, deletions and replacements that lead from one name to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_file_place_reason_and_help() {
        let refusal = Refusal::new(ErrorKind::Operator, "node 'a' (LSTM)", "is recurrent");
        let error = ImportError { file: "m.onnx".into(), refusal: refusal.clone().help("leave it") };
        assert_eq!(error.to_string(), "m.onnx: node 'a' (LSTM): is recurrent\n  help: leave it");
        let bare = Refusal { place: String::new(), ..refusal };
        assert_eq!(bare.to_string(), "is recurrent");
    }

    #[test]
    fn distances() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"bn1.weight", b"bn1.weight"), 0);
    }

    #[test]
    fn long_enumerations_are_cut() {
        let names: Vec<_> = (0..9).map(|i| i.to_string()).collect();
        assert_eq!(enumerate(&names), "'0', '1', '2', '3', '4', '5' and 3 more");
    }
}
