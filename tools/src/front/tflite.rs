//! TensorFlow Lite files (`.tflite`): the flatbuffer of a float or int8 network becomes an operator graph.
//!
//! Images are NHWC, weights are transposed to the graph's order by nodes that folding evaluates. Where
//! tensors are quantized, their scales and zero points go along ([`Graph::quantizations`]); uint8
//! is int8 here, 128 less.
//!
//! Memory: whatever tables share, what is made of them is at most sixteen times the file's size
//! and a few megabytes. Tables are counted before they are read.

mod flatbuffer;
mod operators;
mod schema;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use super::error::{ErrorKind, Refusal};
use super::graph::{Constant, Data, Graph, Input, Layout, MAX_RANK, Quantization, Value, ValueId};
use flatbuffer::Table;
use schema::TensorType;

/// Whether the bytes are a TensorFlow Lite file, whole or damaged.
pub(crate) fn is_tflite(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"TFL3")
}

/// The file's graph.
pub(crate) fn read(bytes: &[u8]) -> Result<Graph, Refusal> {
    let damaged = |reason: String| Refusal::new(ErrorKind::Damaged, "", reason);
    let model = Table::root(bytes)?;
    let version = model.integer(schema::model::VERSION, 0)?;
    if version != schema::VERSION {
        return Err(damaged(format!("is of version {version} of its format; {} is known", schema::VERSION)));
    }
    let subgraphs = model.tables(schema::model::SUBGRAPHS)?;
    let graph = subgraphs.first().ok_or_else(|| damaged("has no graph".into()))?;
    let mut reader = Reader {
        bytes,
        buffers: model.tables(schema::model::BUFFERS)?,
        tensors: graph.tables(schema::subgraph::TENSORS)?,
        graph: Graph { layout: Layout::Nhwc, ..Graph::default() },
        budget: bytes.len().saturating_mul(16).saturating_add(1 << 20),
    };
    let mut kinds = Vec::new();
    for code in model.tables(schema::model::OPERATOR_CODES)? {
        kinds.push(reader.kind(code)?);
    }
    for index in 0..reader.tensors.len() {
        reader.tensor(index)?;
    }
    reader.inputs(graph)?;
    for operator in graph.tables(schema::subgraph::OPERATORS)? {
        let code = operator.index(schema::operator::CODE)?;
        let kind = kinds.get(code).ok_or_else(|| damaged(format!("has no operator code {code}")))?;
        reader.operator(kind, operator)?;
    }
    for id in reader.values(graph, schema::subgraph::OUTPUTS, "the graph")? {
        reader.graph.outputs.extend(id);
    }
    Ok(reader.graph)
}

/// A tensor's index is its value's.
struct Reader<'a> {
    bytes: &'a [u8],
    buffers: Vec<Table<'a>>,
    tensors: Vec<Table<'a>>,
    graph: Graph,
    /// Bytes that may still be made of the file's.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| {
            let reason = "what its tables share unfolds to many times the file's size";
            Refusal::new(ErrorKind::Damaged, "", reason)
        })?;
        Ok(())
    }

    /// Text, of which anything in the file may be the bytes.
    fn text(&mut self, bytes: &[u8]) -> Result<String, Refusal> {
        self.charge(3 * bytes.len())?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// An operator's name.
    fn kind(&mut self, code: Table<'_>) -> Result<String, Refusal> {
        // Numbers that one byte did not hold got a field of their own.
        let old = usize::from(code.byte(schema::operator_code::DEPRECATED_BUILTIN)?);
        let number = old.max(code.index(schema::operator_code::BUILTIN)?);
        if number == schema::CUSTOM {
            return self.text(code.bytes(schema::operator_code::CUSTOM)?);
        }
        Ok(schema::operator_name(number))
    }

    /// Values by the indices of their tensors, -1 for an optional one that is left out.
    fn values(
        &mut self,
        table: &Table<'a>,
        slot: usize,
        place: &str,
    ) -> Result<Vec<Option<ValueId>>, Refusal> {
        let indices = table.numbers(slot)?;
        self.charge(16 * indices.len())?;
        let ids = indices.iter().map(|&index| match i32::from_le_bytes(index) {
            -1 => Ok(None),
            index => match usize::try_from(index).ok().filter(|&index| index < self.tensors.len()) {
                Some(index) => Ok(Some(index)),
                None => {
                    let reason = format!("names tensor {index} of {}", self.tensors.len());
                    Err(Refusal::new(ErrorKind::Damaged, place, reason))
                }
            },
        });
        ids.collect()
    }

    fn element_type(&self, tensor: usize) -> Result<TensorType, Refusal> {
        self.tensors[tensor].byte(schema::tensor::TYPE).map(TensorType)
    }

    /// A tensor's sizes; negative ones are open.
    fn dims(&self, tensor: usize) -> Result<Vec<i32>, Refusal> {
        let sizes = self.tensors[tensor].numbers(schema::tensor::SHAPE)?;
        if sizes.len() > MAX_RANK {
            let reason = format!("has {} axes, more than {MAX_RANK}", sizes.len());
            return Err(Refusal::new(ErrorKind::Shape, self.place(tensor), reason));
        }
        Ok(sizes.iter().map(|&size| i32::from_le_bytes(size)).collect())
    }

    /// How messages name a tensor that has been read.
    fn place(&self, tensor: usize) -> String {
        let name = self.graph.values.get(tensor).map_or("", |value| &value.name);
        if name.is_empty() { format!("tensor {tensor}") } else { format!("tensor '{name}'") }
    }

    /// Reads a tensor's name, elements and quantization.
    fn tensor(&mut self, index: usize) -> Result<(), Refusal> {
        let tensor = self.tensors[index];
        let name = self.text(tensor.bytes(schema::tensor::NAME)?)?;
        self.graph.values.push(Value { name, constant: None });
        let element = self.element_type(index)?;
        let dims = self.dims(index)?;
        if let Some(quantization) = self.quantization(index, element, &dims)? {
            self.graph.quantizations.insert(index, quantization);
        }
        let refuse = |kind, reason: String| Refusal::new(kind, self.place(index), reason);
        if tensor.index(schema::tensor::EXTERNAL_BUFFER)? != 0 {
            let reason = "its elements are in another file, which is not read".into();
            return Err(refuse(ErrorKind::ExternalData, reason).help("export with the weights in the file"));
        }
        let Some(raw) = self.buffer(tensor.index(schema::tensor::BUFFER)?)? else { return Ok(()) };
        if tensor.table(schema::tensor::SPARSITY)?.is_some() {
            return Err(refuse(ErrorKind::Operator, "its elements are stored sparsely".into())
                .help("convert without sparsity (tf.lite.Optimize.EXPERIMENTAL_SPARSITY)"));
        }
        let dims = dims.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let unknown = format!("has elements of type {}, which no network here needs", element.name());
        let unknown = refuse(ErrorKind::Operator, unknown).help("weights may be float or int8");
        let damaged = refuse(ErrorKind::Damaged, format!("has {} bytes, but sizes {dims:?}", raw.len()));
        self.charge(8 * raw.len())?;
        let shift = if self.graph.quantizations.contains_key(&index) { zero_of(element) } else { 0 };
        let data = elements(raw, element, shift).ok_or(unknown)?;
        let constant = dims.and_then(|dims| Constant::new(dims, data?)).ok_or(damaged)?;
        self.graph.values[index].constant = Some(constant);
        Ok(())
    }

    /// A buffer's bytes; `None` where it is empty, as those of all tensors but constants are.
    fn buffer(&self, index: usize) -> Result<Option<&'a [u8]>, Refusal> {
        let damaged = |reason| Refusal::new(ErrorKind::Damaged, "", reason);
        let buffer = self.buffers.get(index).ok_or_else(|| damaged(format!("has no buffer {index}")))?;
        let data = buffer.bytes(schema::buffer::DATA)?;
        // Large files have their data behind the flatbuffer; 0 and 1 mean that they do not.
        let offset = buffer.long(schema::buffer::OFFSET)?;
        if !data.is_empty() || offset <= 1 {
            return Ok(Some(data).filter(|data| !data.is_empty()));
        }
        let range =
            usize::try_from(offset).ok().zip(usize::try_from(buffer.long(schema::buffer::SIZE)?).ok());
        let data = range.and_then(|(offset, size)| self.bytes.get(offset..)?.get(..size));
        data.map(Some).ok_or_else(|| damaged(format!("buffer {index} is outside of the file")))
    }

    fn quantization(
        &mut self,
        index: usize,
        element: TensorType,
        dims: &[i32],
    ) -> Result<Option<Quantization>, Refusal> {
        let Some(table) = self.tensors[index].table(schema::tensor::QUANTIZATION)? else { return Ok(None) };
        let scales = table.numbers(schema::quantization::SCALE)?;
        // Floats may have one as well: what they were before, or were trained to become.
        if scales.is_empty() || !element.is_integer() {
            return Ok(None);
        }
        self.charge(12 * scales.len())?;
        let refuse = |kind, reason: String| Err(Refusal::new(kind, self.place(index), reason));
        if table.byte(schema::quantization::DETAILS_TYPE)? != 0 {
            return refuse(ErrorKind::Operator, "is quantized by blocks or in a custom way".into());
        }
        let scales: Vec<f32> = scales.iter().map(|&scale| f32::from_le_bytes(scale)).collect();
        if let Some(scale) = scales.iter().find(|scale| !scale.is_normal() || **scale < 0.0) {
            return refuse(ErrorKind::Value, format!("has the scale {scale}"));
        }
        let axis = table.index(schema::quantization::DIMENSION)?;
        let size = dims.get(axis).and_then(|&size| usize::try_from(size).ok());
        if scales.len() > 1 && size != Some(scales.len()) {
            let reason = format!("has {} scales along axis {axis} of {dims:?}", scales.len());
            return refuse(ErrorKind::Damaged, reason);
        }
        let stored = table.numbers(schema::quantization::ZERO_POINT)?;
        if stored.len() > 1 && stored.len() != scales.len() {
            let reason = format!("has {} zero points for {} scales", stored.len(), scales.len());
            return refuse(ErrorKind::Damaged, reason);
        }
        let zero_point = |index: usize| {
            let stored = stored.get(index).or(stored.first());
            stored.map_or(0, |&zero| i64::from_le_bytes(zero)).saturating_sub(zero_of(element))
        };
        let zero_points: Vec<i64> = (0..scales.len()).map(zero_point).collect();
        let eight_bits = matches!(element, TensorType::INT8 | TensorType::UINT8);
        let possible = if eight_bits { -128..=127 } else { 0..=0 };
        if let Some(zero) = zero_points.iter().find(|zero| !possible.contains(*zero)) {
            let reason = format!("has the zero point {}", zero.saturating_add(zero_of(element)));
            return refuse(ErrorKind::Value, reason);
        }
        Ok(Some(Quantization { scales, zero_points, axis }))
    }

    fn inputs(&mut self, graph: &Table<'a>) -> Result<(), Refusal> {
        for id in self.values(graph, schema::subgraph::INPUTS, "the graph")?.into_iter().flatten() {
            let place = || format!("input '{}'", self.graph.values[id].name);
            let element = self.element_type(id)?;
            if !element.is_float() && !element.is_integer() || element == TensorType::INT16 {
                let reason = format!("has elements of type {}", element.name());
                return Err(Refusal::new(ErrorKind::Operator, place(), reason)
                    .help("convert with a float, int8 or uint8 input"));
            }
            let mut sizes = self.dims(id)?;
            let signature = self.tensors[id].numbers(schema::tensor::SHAPE_SIGNATURE)?;
            if signature.len() == sizes.len() {
                sizes = signature.iter().map(|&size| i32::from_le_bytes(size)).collect();
            }
            let size = |size: i32| usize::try_from(size).ok().filter(|&size| size > 0);
            let dims = sizes.into_iter().map(size).collect();
            self.graph.inputs.push(Input { value: id, dims, integer: element.is_integer() });
        }
        Ok(())
    }
}

/// What is subtracted of quantized integers, so that they are those of int8.
fn zero_of(element: TensorType) -> i64 {
    if element == TensorType::UINT8 { 128 } else { 0 }
}

/// A buffer's elements; `None` inside if their bytes do not come out even, outside for other types.
fn elements(raw: &[u8], element: TensorType, shift: i64) -> Option<Option<Data>> {
    fn read<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let (chunks, rest) = raw.as_chunks();
        rest.is_empty().then(|| chunks.iter().map(|&chunk| convert(chunk)).collect())
    }
    Some(match element {
        TensorType::FLOAT32 => read(raw, f32::from_le_bytes).map(Data::Float),
        TensorType::FLOAT16 => read(raw, |b| f16::from_le_bytes(b).to_f32()).map(Data::Float),
        TensorType::BFLOAT16 => read(raw, |b| bf16::from_le_bytes(b).to_f32()).map(Data::Float),
        TensorType::FLOAT64 => read(raw, |b| f64::from_le_bytes(b) as f32).map(Data::Float),
        TensorType::INT8 => read(raw, |b| i8::from_le_bytes(b).into()).map(Data::Integer),
        TensorType::UINT8 => read(raw, |[b]| i64::from(b) - shift).map(Data::Integer),
        TensorType::BOOL => read(raw, |[b]| i64::from(b)).map(Data::Integer),
        TensorType::INT32 => read(raw, |b| i32::from_le_bytes(b).into()).map(Data::Integer),
        TensorType::INT64 => read(raw, i64::from_le_bytes).map(Data::Integer),
        _ => return None,
    })
}
