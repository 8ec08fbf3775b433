//! What calls make: tensors, dictionaries, plain data; everything else is refused by its name.

use super::globals::{Global, SAVE_WEIGHTS};
use super::machine::{Fault, Machine};
use super::span::{Span, text};
use super::storage::{Storage, Tensor};
use super::values::{Object, Value};
use crate::front::graph::MAX_RANK;

use Fault::{Code, Damaged};

impl Machine<'_> {
    fn path(&self, name: [Span; 2]) -> String {
        /// Longer names are cut in messages.
        const SHOWN: usize = 80;
        let [module, function] = name.map(|span| text(self.bytes, span));
        format!("{module}.{function}").chars().filter(|c| !c.is_control()).take(SHOWN).collect()
    }

    pub(super) fn calls(&self, name: [Span; 2]) -> Fault {
        const HELP: &str = "if the file comes from a stranger, do not open it in Python either; if it is yours, save the \
             weights alone: torch.save(model.state_dict(), 'weights.pth')";
        Code(format!("calls `{}`, which is not read: nothing is executed here", self.path(name)), HELP)
    }

    fn is_object_of(&self, name: [Span; 2]) -> Fault {
        let path = self.path(name);
        let reason =
            format!("holds an object of the class `{path}`: a whole model, say, and not its weights alone");
        Code(reason, SAVE_WEIGHTS)
    }

    /// What `callable` makes of its arguments.
    pub(super) fn call(&mut self, callable: Value, arguments: Value) -> Result<(), Fault> {
        let Value::Global(mut global) = callable else {
            return Err(Damaged("calls something that is not a function"));
        };
        let mut items = self.items(arguments).ok_or(Damaged("arguments that are not a tuple"))?;
        if let (Global::RebuildFromType, &[Value::Global(inner), _, inner_arguments, ..]) = (global, items) {
            global = inner;
            items = self.items(inner_arguments).ok_or(Damaged("arguments that are not a tuple"))?;
        }
        match (global, items) {
            (Global::Dict, _) => {
                let pairs = items.first().copied();
                let dict = self.dictionary(pairs);
                self.object(dict);
            }
            (Global::Size | Global::RebuildParameter, &[first, ..]) => self.stack.push(first),
            (Global::RebuildTensor, &[storage, offset, sizes, strides, ..]) => {
                let tensor = self.tensor(storage, offset, [sizes, strides]);
                let tensor = tensor.ok_or(Damaged("a tensor of impossible storage, sizes or strides"))?;
                self.object(Object::Tensor(Box::new(tensor)));
            }
            (Global::Skipped, _) => self.stack.push(Value::Other),
            (Global::Foreign(index), _) => return Err(self.calls(self.foreign[index as usize])),
            _ => return Err(Damaged("a call of something else, or with too few arguments")),
        }
        Ok(())
    }

    /// Python 2 gives an ordered dictionary's pairs as a list in its arguments. They are moved, so that no
    /// list is copied again and again.
    fn dictionary(&mut self, pairs: Option<Value>) -> Object {
        let list = match pairs {
            Some(Value::Object(index)) => self.objects.get_mut(index as usize),
            _ => None,
        };
        let pairs = match list {
            Some(Object::List(pairs)) => std::mem::take(pairs),
            _ => Vec::new(),
        };
        let entry = |&pair: &Value| self.items(pair)?.try_into().ok();
        Object::Dict(pairs.iter().filter_map(entry).collect())
    }

    fn tensor(&self, storage: Value, offset: Value, [sizes, strides]: [Value; 2]) -> Option<Tensor> {
        let Value::Object(index) = storage else { return None };
        let Some(Object::Storage(storage)) = self.objects.get(index as usize) else { return None };
        let natural = |value: &Value| match value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        let list = |value: Value| {
            let items = self.items(value).filter(|items| items.len() <= MAX_RANK)?;
            items.iter().map(natural).collect::<Option<Vec<_>>>()
        };
        Some(Tensor {
            storage: *storage,
            offset: natural(&offset)?,
            dims: list(sizes)?,
            strides: list(strides)?,
        })
    }

    /// `class.__new__(...)`.
    pub(super) fn instance(&mut self, class: Value) -> Result<(), Fault> {
        match class {
            Value::Global(Global::Dict) => self.object(Object::Dict(Vec::new())),
            Value::Global(Global::Skipped) => self.stack.push(Value::Other),
            Value::Global(Global::Foreign(index)) => {
                return Err(self.is_object_of(self.foreign[index as usize]));
            }
            _ => return Err(Damaged("an object of something that is not a class")),
        }
        Ok(())
    }

    /// Attributes of an object, which are skipped: a dictionary's hold a state dict's version.
    pub(super) fn build(&mut self, object: Value) -> Result<(), Fault> {
        let is_dict = |index: u32| matches!(self.objects.get(index as usize), Some(Object::Dict(_)));
        match object {
            Value::Other => {}
            Value::Object(index) if is_dict(index) => {}
            Value::Global(Global::Foreign(index)) => {
                let path = self.path(self.foreign[index as usize]);
                return Err(Code(format!("changes `{path}`: nothing is executed here"), SAVE_WEIGHTS));
            }
            _ => return Err(Damaged("sets attributes of something that has none")),
        }
        self.stack.push(object);
        Ok(())
    }

    /// `('storage', class, key, device, length, view)`.
    pub(super) fn persistent(&mut self, value: Value) -> Result<(), Fault> {
        let items = self.items(value).ok_or(Damaged("a persistent id that is not a tuple"))?;
        let kind = match items.first() {
            Some(&Value::Text(kind)) => text(self.bytes, kind),
            _ => "",
        };
        let storage = match items[..] {
            [_, Value::Global(Global::Foreign(index)), ..] if kind == "module" => {
                return Err(self.is_object_of(self.foreign[index as usize]));
            }
            [_, Value::Global(Global::Foreign(index)), ..] => {
                let path = self.path(self.foreign[index as usize]);
                let reason = format!("has tensors of `{path}`, a type that is not known");
                return Err(Code(reason, "weights may be f32, f16, bf16 or f64"));
            }
            [
                _,
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                _,
                Value::Integer(length),
                ref view @ ..,
            ] if kind == "storage" => {
                if !matches!(view, [] | [Value::None]) {
                    let reason = "has storages that are parts of other storages, as PyTorch wrote before 0.4";
                    return Err(Code(reason.into(), "load and save the file again with a newer PyTorch"));
                }
                let length = usize::try_from(length).map_err(|_| Damaged("a storage of negative length"))?;
                Storage { dtype, key, length }
            }
            _ => return Err(Damaged("a persistent id that names no storage")),
        };
        self.object(Object::Storage(storage));
        Ok(())
    }
}
