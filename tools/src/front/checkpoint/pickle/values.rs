//! What a pickle's instructions make: small values on the stack, and objects that values refer to by index.

use super::globals::Global;
use super::span::{Span, text};
use super::storage::{Storage, Tensor};

/// A value; copies are cheap, and refer to the same object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Flag(bool),
    Integer(i64),
    Text(Span),
    Global(Global),
    /// Index into [`Pickle::objects`].
    Object(u32),
    /// Plain data that no weight needs: other numbers, sets, an optimizer's settings.
    Other,
}

/// An object that values refer to.
#[derive(Debug)]
pub(super) enum Object {
    List(Vec<Value>),
    Tuple(Vec<Value>),
    /// Key and value; of equal keys the last one counts.
    Dict(Vec<[Value; 2]>),
    Storage(Storage),
    Tensor(Box<Tensor>),
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) objects: Vec<Object>,
    /// What the pickle holds.
    pub(super) root: Value,
    /// The first byte behind it.
    pub(super) end: usize,
}

impl<'a> Pickle<'a> {
    /// A text's characters.
    pub(super) fn text(&self, span: Span) -> &'a str {
        text(self.bytes, span)
    }

    pub(super) fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(index as usize),
            _ => None,
        }
    }

    /// A dictionary's entries that have text as their key.
    pub(super) fn dict(&self, value: Value) -> Option<impl DoubleEndedIterator<Item = (&'a str, Value)>> {
        let Some(Object::Dict(entries)) = self.object(value) else { return None };
        Some(entries.iter().filter_map(|[key, value]| match key {
            Value::Text(span) => Some((self.text(*span), *value)),
            _ => None,
        }))
    }

    pub(super) fn tensor(&self, value: Value) -> Option<&Tensor> {
        match self.object(value) {
            Some(Object::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }
}
