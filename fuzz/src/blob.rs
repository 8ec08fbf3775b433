//! Blobs: whatever they hold, they are refused, or run to an end with the right scores.

use std::mem::size_of;

use skipstone::host::format::{HEADER_BYTES, Header, Manifest, WEIGHTS_ALIGN};
use skipstone::host::{Algorithm, Kernels, Layer, Softmax, checksum};
use skipstone::{Model, Network, Scores};
use skipstone_tools::blob::Blob;
use skipstone_tools::layerwise::{self, Values};

use crate::{Bytes, Plain, Random};

/// What a board may give: larger plans are refused.
const ARENA: usize = 64 << 10;

/// Products of one image that are computed.
const MAX_MACS: u64 = 1 << 22;

/// Values of a tensor that are computed.
const MAX_VALUES: usize = 1 << 18;

/// Parses, sets up and runs: nothing panics, and a plan that is accepted gives the outputs that the layers give without
/// a plan.
pub fn check(bytes: &[u8]) {
    outputs(bytes, false);
}

/// As [`check`], of a blob whose weights are a network's where it is `honest`; the bits of the outputs.
pub fn outputs(bytes: &[u8], honest: bool) -> Option<Vec<Vec<u32>>> {
    let blob = Blob::from(bytes);
    let model = Model::parse(&blob).ok()?;
    assert!(model.labels().count() == 0 || model.labels().count() == model.classes());
    let entries: Vec<_> = model.layers().map(|entry| entry.unwrap()).collect();
    let layers: Vec<Layer<'_>> = entries.iter().map(|entry| entry.layer.clone()).collect();
    assert_eq!(model.verify(), Ok(()));
    let macs = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.macs()));
    let values = layers.iter().map(|layer| layer.output().len()).chain([model.input().len()]).max();
    let runs = macs <= MAX_MACS && values.is_some_and(|values| values <= MAX_VALUES);
    let determined = honest || layers.iter().all(is_determined);
    let image: Vec<u8> = match runs {
        true => (0..model.input().len()).map(|index| ((index * 167) >> 2) as u8).collect(),
        false => Vec::new(),
    };

    let mut expected = None;
    let mut compare = |network: &Network<'_, 48>, how: &str| {
        let expected: &Vec<Option<Vec<u32>>> = expected.get_or_insert_with(|| {
            let made = layerwise::run_layers(&layers, &image).unwrap();
            let outputs =
                entries.iter().zip(&made).filter_map(|(entry, values)| Some((entry.output?.1, values)));
            outputs.map(|(softmax, values)| bits(softmax, values)).collect()
        });
        if !determined {
            return;
        }
        let found = network.outputs().map(|output| match output.scores() {
            Some(scores) => scores.values().iter().map(|score| score.to_bits()).collect(),
            None => integers(output.values().unwrap()),
        });
        let found: Vec<Vec<u32>> = found.collect();
        assert_eq!(found.len(), expected.len(), "{how}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(expected.as_ref().is_none_or(|expected| expected == found), "{how}");
        }
    };
    // of exactly its size, so that a sanitizer sees the first byte after it
    let mut arena = vec![0u128; model.arena_bytes_rows().min(ARENA).div_ceil(16)];
    if let Ok(mut network) = Network::<48>::new(model, bytemuck::cast_slice_mut(&mut arena))
        && runs
    {
        network.run(&image).unwrap();
        compare(&network, "fed by rows");
    }
    let mut arena = vec![0u128; model.arena_bytes().min(ARENA).div_ceil(16)];
    if let Ok(mut network) = Network::<48>::with_frame(model, bytemuck::cast_slice_mut(&mut arena))
        && runs
    {
        network.input_mut().copy_from_slice(&image);
        network.run_frame().unwrap();
        compare(&network, "frame in the arena");
    }
    expected?.into_iter().collect()
}

/// Whether a layer's weights decide its output. Transformed ones need not stem from any filter.
fn is_determined(layer: &Layer<'_>) -> bool {
    layer
        .convolution()
        .is_none_or(|conv| !matches!(conv.algorithm(), Algorithm::Winograd | Algorithm::Winograd4))
}

/// The bits of a layer's result as an output; `None` after TensorFlow Lite's softmax, which has tests of its own.
fn bits(softmax: Softmax, values: &Values) -> Option<Vec<u32>> {
    match (values, softmax) {
        (Values::Integers(values), _) => Some(integers(values)),
        (Values::Scores(scores), Softmax::None) => Some(scores.iter().map(|score| score.to_bits()).collect()),
        (Values::Scores(scores), Softmax::Float) => {
            Some(Scores::new(scores, false).probabilities().map(f32::to_bits).collect())
        }
        (Values::Scores(_), Softmax::Fixed(_)) => None,
    }
}

fn integers(values: &[i8]) -> Vec<u32> {
    values.iter().map(|value| i32::from(*value) as u32).collect()
}

/// Changes the manifest, the plans' tables or the weights, and repairs the header mostly.
pub fn mutate(bytes: &mut Bytes, random: &mut Random, plain: &mut Plain<'_>) {
    let parts = manifest_end(bytes).and_then(|end| {
        let weights = bytes.get(end.next_multiple_of(WEIGHTS_ALIGN)..)?;
        Some((bytes.get(HEADER_BYTES..end)?.to_vec(), weights.to_vec()))
    });
    let Some((mut manifest, mut weights)) = parts else { return plain(bytes) };
    match random.u8(..9) {
        0 | 1 => plain(&mut manifest),
        2 | 3 => number(&mut manifest, weights.len(), random),
        4 => splice(&mut manifest, random),
        5 | 6 => table(&manifest, &mut weights, random),
        7 => parameter(&mut weights, random),
        _ => plain(&mut weights),
    }
    let header = std::mem::take(bytes);
    *bytes = header[..HEADER_BYTES].to_vec();
    bytes.extend(&manifest);
    bytes.resize(bytes.len().next_multiple_of(WEIGHTS_ALIGN), 0);
    bytes.extend(weights);
    if random.u8(..32) == 0 {
        return plain(bytes);
    }
    repair(bytes, manifest.len());
}

fn manifest_end(bytes: &[u8]) -> Option<usize> {
    HEADER_BYTES.checked_add(Header::read(bytes)?.manifest_bytes as usize)
}

/// Gives bytes the lengths, the kernels and the checksum of a blob with a manifest of this length.
fn repair(bytes: &mut [u8], manifest: usize) {
    let Some(header) = Header::read(bytes) else { return };
    let (total, manifest_bytes) = (bytes.len() as u32, manifest as u32);
    let header = Header { kernels: Kernels::ALL, total, manifest_bytes, ..header };
    bytes[..HEADER_BYTES].copy_from_slice(&header.write());
    let crc = checksum(bytes).to_le_bytes();
    bytes[Header::CRC_OFFSET..][..crc.len()].copy_from_slice(&crc);
}

/// Sets a number of the manifest, as postcard encodes it, to an end of some range.
fn number(manifest: &mut Bytes, weights: usize, random: &mut Random) {
    if manifest.is_empty() {
        return;
    }
    let at = random.usize(..manifest.len());
    let length = manifest[at..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let end = manifest.len().min(at + length);
    let length = weights as u32;
    let ends = [0, 1, 2, 127, 128, 255, 256, 4096, 32767, 65535, length - length.min(4), length, 1 << 31, !0];
    let any = random.u32(..=length) & !3;
    let value = random.choice(ends).filter(|_| random.bool()).unwrap_or(any);
    manifest.splice(at..end, postcard::to_allocvec(&value).unwrap_or_default());
}

/// Repeats a part of the manifest elsewhere, or leaves it out.
fn splice(manifest: &mut Bytes, random: &mut Random) {
    if manifest.is_empty() {
        return;
    }
    let from = random.usize(..manifest.len());
    let part = from..manifest.len().min(from + random.usize(1..48));
    if random.bool() {
        let copy = manifest[part].to_vec();
        let to = random.usize(..manifest.len());
        manifest.splice(to..to, copy);
    } else {
        manifest.drain(part);
    }
}

/// Changes an entry of a plan's tables.
fn table(manifest: &[u8], weights: &mut [u8], random: &mut Random) {
    let Ok((manifest, _)) = postcard::take_from_bytes::<Manifest<'_>>(manifest) else { return };
    let plan = if random.bool() { manifest.rows } else { manifest.frame };
    let entry = |offset: u32, index: usize| (offset as usize).checked_add(index);
    if random.u8(..4) > 0 {
        let row =
            entry(plan.rows, size_of::<u16>() * random.usize(..(plan.row_count as usize).clamp(1, 1 << 16)));
        let Some(row) = row.and_then(|at| weights.get_mut(at..)?.first_chunk_mut()) else { return };
        let address = u16::from_le_bytes(*row);
        let moved = address.wrapping_add_signed(random.i16(-3..=3));
        let arena = (ARENA / 4) as u16;
        let anywhere = random.u16(..=arena);
        let moved = random.choice([moved, moved, anywhere, arena, u16::MAX]).unwrap_or(address);
        *row = moved.to_le_bytes();
    } else {
        let offset = if random.bool() { plan.strips } else { plan.segments };
        let at = entry(offset, random.usize(..16));
        if let Some(height) = at.and_then(|at| weights.get_mut(at)) {
            *height = random.choice([0, 1, 2, 3, 4, 8, 15, 255]).unwrap_or(0);
        }
    }
}

/// Sets a word (a bias, a multiplier, a scale) to an end of its range.
fn parameter(weights: &mut [u8], random: &mut Random) {
    let ends = [0, 1, -1, i32::MAX, i32::MIN, 1 << 30, 0x7f80_0000, 0x7fc0_0000, 0x0000_0001, -0x7f7f_7f80];
    let words = weights.len() / 4;
    if words == 0 {
        return;
    }
    let at = 4 * random.usize(..words);
    weights[at..at + 4].copy_from_slice(&random.choice(ends).unwrap_or(0).to_le_bytes());
}
