//! What the passes say of layers: remarks for the notes, and refusals.

use std::collections::BTreeMap;

use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{Layer, Real};

/// Words about layers, by name and place.
#[derive(Debug, Default)]
pub(crate) struct Remarks(BTreeMap<(String, String), String>);

impl Remarks {
    pub(super) fn add(&mut self, layer: &Layer<Real>, words: &str) {
        self.0.entry((layer.name.clone(), layer.place.clone())).or_default().push_str(words);
    }

    /// The words about a layer; empty if there are none.
    pub(crate) fn get(&self, layer: &Layer<Real>) -> &str {
        self.0.get(&(layer.name.clone(), layer.place.clone())).map_or("", String::as_str)
    }
}

/// The refusal of a layer.
pub(super) fn refuse(kind: ErrorKind, layer: &Layer<Real>, reason: impl Into<String>) -> Refusal {
    Refusal::new(kind, &layer.place, reason)
}
