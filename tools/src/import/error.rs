//! Why a model was refused: the file, the node or tensor, the reason and what would help.

use std::path::PathBuf;

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
    /// The file cannot be read, is no regular file or is too large.
    File,
    /// The content is of no format that is known here.
    Format,
    /// The content is of a known format, but breaks its rules.
    Damaged,
    /// The file calls functions or holds objects of a program, none of which is executed here.
    Code,
    /// Weights lie in another file.
    ExternalData,
    /// Height, width or channels are not fixed.
    DynamicShape,
    /// An operator, or an operator's setting, that no layer of the engine has.
    Operator,
    /// Layers are connected in a way that is neither a chain nor a residual block.
    Topology,
    /// Sizes that do not fit together, are zero or too large.
    Shape,
    /// A weight or parameter that is not a number, infinite or out of its range.
    Value,
    /// Mean or standard deviation do not fit the input.
    Preprocessing,
    /// As many labels as outputs are needed.
    Labels,
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
    fn long_enumerations_are_cut() {
        let names: Vec<_> = (0..9).map(|i| i.to_string()).collect();
        assert_eq!(enumerate(&names), "'0', '1', '2', '3', '4', '5' and 3 more");
    }
}
