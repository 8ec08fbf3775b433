//! Writes a blob: header, manifest and weights, once.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use skipstone::host::format::{self, HEADER_BYTES, Header, WEIGHTS_ALIGN};
use skipstone::host::{Algorithm, Kernels, Layer, SECTION_ALIGN, checksum};

use crate::blob::Blob;
use crate::ir::{self, IntegerNetwork};
use crate::plan::Plan;

/// The blob's parameters as they grow: aligned sections, equal ones stored once.
#[derive(Debug, Default)]
struct Sections {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Sections {
    /// Appends a section and returns its offset. Values are stored little-endian.
    fn add<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Result<u32> {
        // the runtime, and so this tool, exists on little-endian machines only
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if let Some(offset) = self.known.get(bytes) {
            return Ok(*offset);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(SECTION_ALIGN), 0);
        let offset = u32::try_from(self.bytes.len()).context("a blob has at most 4 GiB")?;
        self.bytes.extend(bytes);
        self.known.insert(bytes.to_vec(), offset);
        Ok(offset)
    }
}

/// The blob of a network whose `layers` are computed by `algorithms`, with its plans for an input fed by rows and for a
/// frame in the arena.
///
/// # Errors
/// The network is too large for the format, or a label contains a zero byte.
pub fn encode(
    network: &IntegerNetwork,
    layers: &[Layer<'_>],
    algorithms: &[Algorithm],
    rows: &Plan,
    frame: &Plan,
) -> Result<Blob> {
    let mut sections = Sections::default();
    let mut records = Vec::new();
    let mut kernels = 0;
    for (index, (layer, algorithm)) in network.layers.iter().zip(algorithms).enumerate() {
        let output = network.outputs.iter().find(|output| output.tensor == index + 1);
        let record = record(layer, &layers[index], *algorithm, output, &mut sections)
            .with_context(|| layer.name.clone())?;
        records.extend(postcard::to_allocvec(&record)?);
        kernels |= Kernels::of(&layers[index].with_algorithm(*algorithm));
        kernels |= output.map_or(0, |output| output.softmax.kernels());
    }
    let mut plan = |plan: &Plan| -> Result<format::Plan> {
        Ok(format::Plan {
            rows: sections.add(&plan.rows)?,
            row_count: u32::try_from(plan.rows.len())?,
            strips: sections.add(&plan.strips)?,
            segments: sections.add(&plan.segments)?,
            segment_count: u16::try_from(plan.segments.len())?,
        })
    };
    let plans = [plan(rows)?, plan(frame)?];
    let labels = labels(&network.labels)?;
    let manifest = format::Manifest {
        name: &network.name,
        input: network.input.into(),
        layers: layer_count(network)?,
        labels: sections.add(labels.as_bytes())?,
        labels_len: labels.len() as u32,
        rows: plans[0],
        frame: plans[1],
    };
    let mut manifest = postcard::to_allocvec(&manifest)?;
    manifest.extend(records);

    let weights_start = (HEADER_BYTES + manifest.len()).next_multiple_of(WEIGHTS_ALIGN);
    let longest = rows.segments.iter().chain(&frame.segments).copied().max().unwrap_or(0);
    let mut header = Header {
        kernels,
        total: u32::try_from(weights_start + sections.bytes.len()).context("a blob has at most 4 GiB")?,
        crc: 0,
        arena_bytes: u32::try_from(frame.arena_bytes)?,
        arena_bytes_rows: u32::try_from(rows.arena_bytes)?,
        tensors: u16::from(longest) + 1,
        manifest_bytes: u32::try_from(manifest.len())?,
    };
    let mut bytes = header.write().to_vec();
    bytes.extend(&manifest);
    bytes.resize(weights_start, 0);
    bytes.extend(&sections.bytes);
    header.crc = checksum(&bytes);
    bytes[..HEADER_BYTES].copy_from_slice(&header.write());
    Ok(Blob::from(&bytes[..]))
}

/// Bytes of a blob beside the packed weights of its convolutions, whose plans have `entries` rows and scratch memories
/// in both their tables together: within a few bytes.
///
/// # Errors
/// As [`encode`].
pub fn fixed_bytes(network: &IntegerNetwork, layers: &[Layer<'_>], entries: usize) -> Result<usize> {
    let mut sections = HashSet::<Vec<u8>>::new();
    let mut manifest = network.name.len() + 48;
    for (index, (layer, real)) in network.layers.iter().zip(layers).enumerate() {
        let mut own = Sections::default();
        let output = network.outputs.iter().find(|output| output.tensor == index + 1);
        let record = record(layer, real, Algorithm::Reference, output, &mut own)?;
        // offsets take one to three bytes more than in a blob of this layer alone
        manifest += postcard::to_allocvec(&record)?.len() + 6;
        let weights = real.convolution().map(|_| bytemuck::cast_slice(&layer.parameters.weights));
        sections.extend(own.known.into_keys().filter(|section| Some(&section[..]) != weights));
    }
    let aligned = |bytes: usize| bytes.next_multiple_of(SECTION_ALIGN);
    let sections: usize = sections.iter().map(|section| aligned(section.len())).sum();
    let tables = 2 * entries + 4 * aligned(network.layers.len());
    Ok(HEADER_BYTES + manifest + sections + tables + labels(&network.labels)?.len() + WEIGHTS_ALIGN)
}

/// Number of layers; the input and what each layer makes are tensors with 16-bit numbers.
fn layer_count(network: &IntegerNetwork) -> Result<u16> {
    let layers = u16::try_from(network.layers.len()).ok().filter(|layers| *layers < u16::MAX);
    layers.context("a network has at most 65534 layers")
}

fn labels(labels: &[String]) -> Result<String> {
    let mut text = String::new();
    for label in labels {
        if label.contains('\0') {
            bail!("the class label {label:?} contains a zero byte");
        }
        text.push_str(label);
        text.push('\0');
    }
    Ok(text)
}

fn record<'n>(
    layer: &'n ir::Layer<ir::Integer>,
    real: &Layer<'_>,
    algorithm: Algorithm,
    output: Option<&'n ir::Output>,
    sections: &mut Sections,
) -> Result<format::Layer<'n>> {
    let weights = weights(real, algorithm, sections)?;
    let mut failed = None;
    let mut store = |section: &[u8]| {
        sections.add(section).unwrap_or_else(|error| {
            failed = Some(error);
            0
        })
    };
    let planned = real.with_algorithm(algorithm).operation;
    let operation = format::Operation::new(&planned, weights, &mut store);
    if let Some(error) = failed {
        return Err(error);
    }
    let ir::TensorScale { scale, zero_point } = layer.parameters.scale;
    Ok(format::Layer {
        name: &layer.name,
        output: output.map(|output| format::Output { name: &output.name, softmax: output.softmax.into() }),
        reads: real.node.reads,
        quantization: format::Quantization { scale, zero_point },
        shortcut: real.node.shortcut.and_then(|read| format::Shortcut::new(&planned, read.tensor)),
        operation,
    })
}

/// A layer's weights, packed for its algorithm.
fn weights(layer: &Layer<'_>, algorithm: Algorithm, sections: &mut Sections) -> Result<u32> {
    if layer.weights().is_empty() {
        return Ok(0);
    }
    let Some(conv) = layer.convolution() else { return sections.add(layer.weights()) };
    let mut words = vec![0u32; conv.packed_bytes(algorithm) / size_of::<u32>()];
    match conv.pack(layer.weights(), algorithm, &mut words) {
        true => sections.add(&words),
        false => sections.add(layer.weights()),
    }
}
