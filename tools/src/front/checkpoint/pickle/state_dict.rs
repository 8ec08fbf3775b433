//! Where in a checkpoint the state dict lies: at the top, or under one of the names that training programs use.

use std::collections::BTreeSet;

use super::globals::SAVE_WEIGHTS;
use super::storage::Tensor;
use super::values::{Object, Pickle, Value};
use crate::front::error::{ErrorKind, Refusal, enumerate};

/// A dictionary of tensors by name.
pub(super) struct StateDict {
    dict: Value,
    /// Where it was found, for a person.
    pub(super) note: String,
}

/// Names of state dicts; where a checkpoint has several, the first is taken.
const NAMES: [&str; 9] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "ema",
    "state_dict_ema",
];

/// Dictionaries are searched for so many levels below the top.
const LEVELS: usize = 2;

/// The checkpoint's state dict: the dictionary that holds weights.
pub(super) fn find(pickle: &Pickle<'_>) -> Result<StateDict, Refusal> {
    let refuse = |reason: String| Refusal::new(ErrorKind::Format, "", reason).help(SAVE_WEIGHTS);
    if pickle.dict(pickle.root).is_none() {
        return Err(refuse("holds no dictionary of tensors by name".into()));
    }
    if has_weights(pickle, pickle.root) {
        return Ok(StateDict { dict: pickle.root, note: "PyTorch checkpoint: a state dict".into() });
    }
    let mut seen = BTreeSet::new();
    let mut level = vec![Candidate { above: None, name: "", dict: pickle.root }];
    for _ in 0..LEVELS {
        let mut below = Vec::new();
        for parent in level {
            let above = (!parent.name.is_empty()).then_some(parent.name);
            for (name, value) in pickle.dict(parent.dict).into_iter().flatten() {
                let Value::Object(index) = value else { continue };
                if matches!(pickle.object(value), Some(Object::Dict(_))) && seen.insert(index) {
                    below.push(Candidate { above, name, dict: value });
                }
            }
        }
        let mut found: Vec<&Candidate<'_>> =
            below.iter().filter(|candidate| has_weights(pickle, candidate.dict)).collect();
        found.sort_by_key(|candidate| candidate.rank());
        let names: Vec<String> = found.iter().take(NAMES.len()).map(|candidate| candidate.path()).collect();
        match found[..] {
            [] => level = below,
            [first, second, ..] if first.rank() == second.rank() => {
                let reason = format!("has several dictionaries of weights: {}", enumerate(&names));
                return Err(refuse(reason));
            }
            [first, ..] => {
                let others = match names.len() {
                    1 => String::new(),
                    _ => format!("; not taken: {}", enumerate(&names[1..])),
                };
                let note = format!("PyTorch checkpoint: the state dict under '{}'{others}", names[0]);
                return Ok(StateDict { dict: first.dict, note });
            }
        }
    }
    Err(refuse("holds no tensors of weights by name".into()))
}

/// A dictionary below the top.
struct Candidate<'a> {
    /// Name of the dictionary that it lies in, unless that is the top.
    above: Option<&'a str>,
    name: &'a str,
    dict: Value,
}

impl Candidate<'_> {
    fn rank(&self) -> usize {
        NAMES.iter().position(|name| *name == self.name).unwrap_or(NAMES.len())
    }

    fn path(&self) -> String {
        self.above.map_or(self.name.into(), |above| format!("{above}.{}", self.name))
    }
}

/// Whether one of its entries is a tensor with axes, as counters and scores are not.
fn has_weights(pickle: &Pickle<'_>, dict: Value) -> bool {
    let is_weight = |value: Value| pickle.tensor(value).is_some_and(|tensor| tensor.dims.len() > 1);
    pickle.dict(dict).is_some_and(|mut entries| entries.any(|(_, value)| is_weight(value)))
}

impl StateDict {
    /// The tensors by name, in the file's order.
    pub(super) fn tensors<'p>(
        &self,
        pickle: &'p Pickle<'_>,
    ) -> impl Iterator<Item = (&'p str, &'p Tensor)> + use<'p> {
        let entries = pickle.dict(self.dict).into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name, pickle.tensor(value)?)))
    }
}
