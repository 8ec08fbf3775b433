//! The stack machine: the instructions that `torch.save` writes, and nothing that runs code.
//!
//! Instructions of text pickles (protocol 0), of extension registries, of buffers outside of the file
//! and for undoing the stack are unknown here, as checkpoints have none. `INST` and `OBJ`, which
//! only call, are known to be refused by what they call.

use std::collections::HashMap;

use super::globals::{self, Global, SAVE_WEIGHTS};
use super::span::{Span, text};
use super::values::{Object, Pickle, Value};
use crate::front::error::{ErrorKind, Refusal};

/// More are refused: a network of a thousand layers with its optimizer has a tenth of them.
pub(super) const MAX_INSTRUCTIONS: usize = 2_000_000;

/// The state of the machine, between two instructions.
pub(super) struct Machine<'a> {
    pub(super) bytes: &'a [u8],
    at: usize,
    pub(super) stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    pub(super) objects: Vec<Object>,
    /// Module and name of what is not read.
    pub(super) foreign: Vec<[Span; 2]>,
}

/// Why an instruction is refused.
pub(super) enum Fault {
    /// No Python writes such a pickle.
    Damaged(&'static str),
    /// What the pickle does that nobody does here, and what would help.
    Code(String, &'static str),
}

use Fault::{Code, Damaged};

/// Reads the pickle that begins at `start`.
pub(super) fn read(bytes: &[u8], start: usize) -> Result<Pickle<'_>, Refusal> {
    let mut machine = Machine {
        bytes,
        at: start,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Vec::new(),
        foreign: Vec::new(),
    };
    for _ in 0..MAX_INSTRUCTIONS {
        let at = machine.at;
        let refuse = |fault| {
            let (kind, reason, help) = match fault {
                Damaged(reason) => (ErrorKind::Damaged, reason.to_string(), "the file may be cut short"),
                Code(reason, help) => (ErrorKind::Code, reason, help),
            };
            Refusal::new(kind, format!("pickle, byte {at}"), reason).help(help)
        };
        if let Some(root) = machine.step().map_err(refuse)? {
            return Ok(Pickle { bytes, objects: machine.objects, root, end: machine.at });
        }
    }
    let reason = format!("a pickle of more than {MAX_INSTRUCTIONS} instructions");
    Err(Refusal::new(ErrorKind::Format, "", reason).help(SAVE_WEIGHTS))
}

const EMPTY_STACK: Fault = Damaged("an instruction finds nothing on the stack");
const CUT: Fault = Damaged("ends in the middle of a pickle");

impl Machine<'_> {
    /// The value that the pickle holds, behind its last instruction.
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        let opcode = self.number::<1>()? as u8;
        match opcode {
            b'.' => return self.pop().map(Some),
            // Protocol, frame: nothing to do.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'(' => self.marks.push(self.stack.len()),

            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Flag(true)),
            0x89 => self.stack.push(Value::Flag(false)),
            b'K' => self.integer::<1>()?,
            b'M' => self.integer::<2>()?,
            b'J' => {
                let number = self.number::<4>()? as i32;
                self.stack.push(Value::Integer(number.into()));
            }
            0x8a => self.long()?,
            b'G' => self.other(8)?,
            b'X' | b'T' => self.text::<4>()?,
            0x8c | b'U' => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'B' => self.blob::<4>()?,
            b'C' => self.blob::<1>()?,
            0x8e | 0x96 => self.blob::<8>()?,

            b']' => self.object(Object::List(Vec::new())),
            b')' => self.object(Object::Tuple(Vec::new())),
            b'}' => self.object(Object::Dict(Vec::new())),
            0x8f => self.stack.push(Value::Other),
            b't' => {
                let items = self.marked()?;
                self.object(Object::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(opcode - 0x84))?;
                self.object(Object::Tuple(items));
            }
            b'a' => {
                let items = self.last(1)?;
                self.append(items)?;
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.last(2)?;
                self.set(items)?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(items)?;
            }
            0x91 => {
                self.marked()?;
                self.stack.push(Value::Other);
            }

            b'h' => self.recall::<1>()?,
            b'j' => self.recall::<4>()?,
            b'q' => self.remember::<1>()?,
            b'r' => self.remember::<4>()?,
            0x94 => {
                let index = self.memo.len() as u32;
                self.memorize(index)?;
            }

            b'c' => {
                let name = [self.line()?, self.line()?];
                self.global(name);
            }
            0x93 => {
                let items = self.last(2)?;
                let [Value::Text(module), Value::Text(name)] = items[..] else {
                    return Err(Damaged("a global's name is not text"));
                };
                self.global([module, name]);
            }
            b'Q' => {
                let value = self.pop()?;
                self.persistent(value)?;
            }
            b'R' => {
                let [callable, arguments] = self.pair()?;
                self.call(callable, arguments)?;
            }
            0x81 => {
                let [class, _] = self.pair()?;
                self.instance(class)?;
            }
            0x92 => {
                let items = self.last(3)?;
                self.instance(items[0])?;
            }
            b'b' => {
                let [object, _] = self.pair()?;
                self.build(object)?;
            }
            b'i' => {
                let name = [self.line()?, self.line()?];
                return Err(self.calls(name));
            }
            b'o' => {
                let class = self.marked()?.first().copied();
                return Err(match class {
                    Some(Value::Global(Global::Foreign(index))) => self.calls(self.foreign[index as usize]),
                    _ => Damaged("an object of no class"),
                });
            }
            _ => {
                let reason = format!("has the instruction {opcode:#04x}, which is not read");
                return Err(Code(reason, SAVE_WEIGHTS));
            }
        }
        Ok(None)
    }

    /// The next bytes; text and numbers of up to 4 GB lie where a [`Span`] can say.
    fn take(&mut self, length: usize) -> Result<Span, Fault> {
        let start = self.at;
        let end = start.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(CUT)?;
        self.at = end;
        let place = |at: usize| u32::try_from(at).map_err(|_| Damaged("is larger than 4 GB"));
        Ok(Span { start: place(start)?, end: place(end)? })
    }

    fn skip(&mut self, length: usize) -> Result<(), Fault> {
        self.take(length).map(drop)
    }

    /// A little-endian number of N bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, Fault> {
        let span = self.take(N)?;
        Ok(self.little_endian(span))
    }

    fn little_endian(&self, span: Span) -> u64 {
        let bytes = &self.bytes[span.start as usize..span.end as usize];
        bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    fn length<const N: usize>(&mut self) -> Result<usize, Fault> {
        usize::try_from(self.number::<N>()?).map_err(|_| CUT)
    }

    fn integer<const N: usize>(&mut self) -> Result<(), Fault> {
        let number = self.number::<N>()?;
        self.stack.push(Value::Integer(number as i64));
        Ok(())
    }

    /// Two's complement of up to 255 bytes; no size or stride has more than 8.
    fn long(&mut self) -> Result<(), Fault> {
        let length = self.length::<1>()?;
        let span = self.take(length)?;
        let number = self.little_endian(span);
        self.stack.push(match length {
            0 => Value::Integer(0),
            1..=8 => {
                let unused = 64 - 8 * length as u32;
                Value::Integer(((number << unused) as i64) >> unused)
            }
            _ => Value::Other,
        });
        Ok(())
    }

    fn other(&mut self, length: usize) -> Result<(), Fault> {
        self.skip(length)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn blob<const N: usize>(&mut self) -> Result<(), Fault> {
        let length = self.length::<N>()?;
        self.other(length)
    }

    /// Text that is not UTF-8 (bytes of Python 2) names no tensor.
    fn text<const N: usize>(&mut self) -> Result<(), Fault> {
        let length = self.length::<N>()?;
        let span = self.take(length)?;
        let utf8 = str::from_utf8(&self.bytes[span.start as usize..span.end as usize]).is_ok();
        self.stack.push(if utf8 { Value::Text(span) } else { Value::Other });
        Ok(())
    }

    /// A line without its end.
    fn line(&mut self) -> Result<Span, Fault> {
        /// Longer than any name; a hostile file cannot make many names slow.
        const LONGEST: usize = 512;
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(LONGEST)];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        if str::from_utf8(&rest[..length]).is_err() {
            return Err(Damaged("a name that is not text"));
        }
        let span = self.take(length)?;
        self.skip(1)?;
        Ok(span)
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let above = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= above {
            return Err(EMPTY_STACK);
        }
        self.stack.pop().ok_or(EMPTY_STACK)
    }

    fn pair(&mut self) -> Result<[Value; 2], Fault> {
        let second = self.pop()?;
        Ok([self.pop()?, second])
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value>, Fault> {
        let above = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= above);
        Ok(self.stack.split_off(start.ok_or(EMPTY_STACK)?))
    }

    /// What lies above the last mark, which is taken away.
    fn marked(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or(Damaged("an instruction finds no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn object(&mut self, object: Object) {
        // One for each instruction at most: the count fits.
        self.stack.push(Value::Object(self.objects.len() as u32));
        self.objects.push(object);
    }

    /// The object on top of the stack, which stays there; `None` for what is skipped.
    fn top(&mut self) -> Result<Option<&mut Object>, Fault> {
        match self.stack.last() {
            Some(Value::Object(index)) => Ok(self.objects.get_mut(*index as usize)),
            Some(Value::Other) => Ok(None),
            Some(_) => Err(Damaged("fills something that holds nothing")),
            None => Err(EMPTY_STACK),
        }
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        match self.top()? {
            Some(Object::List(list)) => list.extend(items),
            Some(_) => return Err(Damaged("appends to something that is not a list")),
            None => {}
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        let (pairs, []) = items.as_chunks::<2>() else { return Err(Damaged("a key without a value")) };
        match self.top()? {
            Some(Object::Dict(entries)) => entries.extend(pairs),
            Some(_) => return Err(Damaged("sets entries of something that is not a dictionary")),
            None => {}
        }
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), Fault> {
        let index = self.number::<N>()? as u32;
        let value = self.memo.get(&index).ok_or(Damaged("recalls what was not remembered"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn remember<const N: usize>(&mut self) -> Result<(), Fault> {
        let index = self.number::<N>()? as u32;
        self.memorize(index)
    }

    fn memorize(&mut self, index: u32) -> Result<(), Fault> {
        let value = self.stack.last().ok_or(EMPTY_STACK)?;
        self.memo.insert(index, *value);
        Ok(())
    }

    fn global(&mut self, name: [Span; 2]) {
        let [module, function] = name.map(|span| text(self.bytes, span));
        let global = globals::find(module, function).unwrap_or_else(|| {
            self.foreign.push(name);
            Global::Foreign(self.foreign.len() as u32 - 1)
        });
        self.stack.push(Value::Global(global));
    }

    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Object(index) => match self.objects.get(index as usize) {
                Some(Object::List(items) | Object::Tuple(items)) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }
}
