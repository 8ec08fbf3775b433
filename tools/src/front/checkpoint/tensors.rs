//! Named tensors, and which of them were asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::front::error::{ErrorKind, Refusal, closest, enumerate};
use crate::front::graph::Constant;

/// Tensors by name. Readers of checkpoint formats (safetensors, PyTorch's) fill it.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    tensors: BTreeMap<String, Entry>,
    /// Where in the file the tensors were found, and what was taken away from their names.
    pub(crate) notes: Vec<String>,
    /// How many prefixes were taken away.
    prefixes: usize,
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

    /// DataParallel and `torch.compile` write a prefix in front of every name: taken away when all have it.
    pub(crate) fn without_wrappers(mut self) -> Self {
        while ["module.", "_orig_mod."].into_iter().any(|prefix| self.take_away(prefix)) {}
        self
    }

    /// Takes a prefix of all names away; `false` where not all have it.
    pub(crate) fn take_away(&mut self, prefix: &str) -> bool {
        /// A hostile file's names may be nothing but prefixes.
        const MOST: usize = 4;
        let has_prefix = |name: &String| name.starts_with(prefix);
        if prefix.is_empty()
            || self.tensors.is_empty()
            || self.prefixes >= MOST
            || !self.tensors.keys().all(has_prefix)
        {
            return false;
        }
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = tensors.map(|(name, entry)| (name[prefix.len()..].to_string(), entry)).collect();
        self.notes.push(format!("'{prefix}' in front of all names is left out"));
        self.prefixes += 1;
        true
    }

    /// Names and elements of the tensors of floats; batch norms' counters are none, whatever their type.
    pub(crate) fn floats(&self) -> impl Iterator<Item = (&str, &Constant)> {
        self.tensors.iter().filter_map(|(name, entry)| match entry {
            Entry::Float(constant) if !name.ends_with(".num_batches_tracked") => Some((&**name, constant)),
            _ => None,
        })
    }

    /// Sizes of a tensor of floats.
    pub(crate) fn dims(&self, name: &str) -> Option<&[usize]> {
        match self.tensors.get(name) {
            Some(Entry::Float(constant)) => Some(&constant.dims),
            _ => None,
        }
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
        let close: BTreeSet<&String> =
            names.iter().take(6).filter_map(|name| closest(name, self.tensors.keys())).collect();
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
        self.floats().map(|(name, _)| name).filter(|name| !used.contains(*name)).map(str::to_owned).collect()
    }
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
        let all = checkpoint(&["module._orig_mod.a", "module._orig_mod.b"]).without_wrappers();
        assert!(all.has("a") && all.has("b"));
        let left_out = |prefix| format!("'{prefix}' in front of all names is left out");
        assert_eq!(all.notes, ["module.", "_orig_mod."].map(left_out));
        let some = checkpoint(&["module.a", "b"]).without_wrappers();
        assert!(some.has("module.a") && some.has("b") && some.notes.is_empty());
        let many = checkpoint(&["module.module.module.module.module.a"]).without_wrappers();
        assert!(many.has("module.a"));
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
