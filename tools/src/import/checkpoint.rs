//! The named tensors of a checkpoint, whatever file they come from, and which of them were asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::error::{ErrorKind, Refusal, enumerate};
use super::graph::Constant;

/// Tensors by name. Readers of checkpoint formats (safetensors now) fill it.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    tensors: BTreeMap<String, Entry>,
    used: RefCell<BTreeSet<String>>,
}

/// A tensor of a checkpoint.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Its elements.
    Float(Constant),
    /// A type that no weight has (counters, flags), by name.
    Other(String),
}

impl Checkpoint {
    pub(crate) fn insert(&mut self, name: impl Into<String>, entry: Entry) {
        self.tensors.insert(name.into(), entry);
    }

    /// DataParallel writes `module.` in front of every name: taken away when all have it.
    pub(crate) fn without_common_prefix(mut self) -> Self {
        const PREFIX: &str = "module.";
        if !self.tensors.is_empty() && self.tensors.keys().all(|name| name.starts_with(PREFIX)) {
            let tensors = std::mem::take(&mut self.tensors).into_iter();
            self.tensors = tensors.map(|(name, entry)| (name[PREFIX.len()..].to_string(), entry)).collect();
        }
        self
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether any tensor's name begins with this.
    pub(crate) fn has_prefix(&self, prefix: &str) -> bool {
        let mut from = self.tensors.range(prefix.to_string()..);
        from.next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// A tensor of floats.
    pub(crate) fn get(&self, name: &str) -> Result<&Constant, Refusal> {
        self.used.borrow_mut().insert(name.to_string());
        match self.tensors.get(name) {
            Some(Entry::Float(constant)) => Ok(constant),
            Some(Entry::Other(kind)) => {
                let reason = format!("has elements of type {kind}");
                Err(Refusal::new(ErrorKind::Value, format!("tensor '{name}'"), reason)
                    .help("weights may be f32, f16, bf16 or f64"))
            }
            None => Err(self.missing(&[name.to_string()])),
        }
    }

    /// The refusal of a description that names tensors which are not there.
    pub(crate) fn missing(&self, names: &[String]) -> Refusal {
        let close: BTreeSet<&String> = names.iter().take(6).filter_map(|name| self.closest(name)).collect();
        let close: Vec<String> = close.into_iter().cloned().collect();
        let reason = format!("has no tensor {}", enumerate(names));
        let help = match (close.is_empty(), self.tensors.is_empty()) {
            (false, _) => format!("close names that it has: {}", enumerate(&close)),
            (_, false) => {
                let all: Vec<String> = self.tensors.keys().cloned().collect();
                format!("it has {}", enumerate(&all))
            }
            _ => "it has no tensors at all".into(),
        };
        Refusal::new(ErrorKind::MissingTensor, "", reason).help(help)
    }

    /// Tensors of floats that were not asked for.
    pub(crate) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let floats = self.tensors.iter().filter(|(_, entry)| matches!(entry, Entry::Float(_)));
        floats.map(|(name, _)| name).filter(|name| !used.contains(*name)).cloned().collect()
    }

    /// The name that a typing error would most likely have been meant for.
    fn closest(&self, name: &str) -> Option<&String> {
        /// A hostile file cannot make this slow.
        const SEARCHED: usize = 4096;
        const LONGEST: usize = 128;
        if name.len() > LONGEST {
            return None;
        }
        let candidates = self.tensors.keys().take(SEARCHED).filter(|other| other.len() <= LONGEST);
        let (distance, closest) =
            candidates.map(|other| (distance(name.as_bytes(), other.as_bytes()), other)).min()?;
        (distance <= name.len() / 3).then_some(closest)
    }
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

    fn checkpoint(names: &[&str]) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        for name in names {
            checkpoint.insert(*name, Entry::Float(Constant::scalar(1.0)));
        }
        checkpoint
    }

    #[test]
    fn distances() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"bn1.weight", b"bn1.weight"), 0);
    }

    #[test]
    fn missing_tensors_come_with_close_names() {
        let tensors = checkpoint(&["layer1.0.conv1.weight", "linear.weight", "linear.bias"]);
        let refusal = tensors.get("layer1.0.conv.weight").unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::MissingTensor);
        assert_eq!(refusal.reason, "has no tensor 'layer1.0.conv.weight'");
        assert_eq!(refusal.help, "close names that it has: 'layer1.0.conv1.weight'");
        let refusal = tensors.get("q").unwrap_err();
        assert!(refusal.help.starts_with("it has 'layer1.0.conv1.weight', 'linear.bias'"));
    }

    #[test]
    fn a_prefix_is_taken_away_only_when_all_have_it() {
        let all = checkpoint(&["module.a", "module.b"]).without_common_prefix();
        assert!(all.has("a") && all.has("b"));
        let some = checkpoint(&["module.a", "b"]).without_common_prefix();
        assert!(some.has("module.a") && some.has("b"));
    }

    #[test]
    fn unused_tensors_are_known() {
        let mut tensors = checkpoint(&["a", "b"]);
        tensors.insert("num_batches_tracked", Entry::Other("I64".into()));
        tensors.get("a").unwrap();
        assert_eq!(tensors.unused(), ["b"]);
        assert_eq!(tensors.get("num_batches_tracked").unwrap_err().kind, ErrorKind::Value);
    }
}
