//! Where a blob's bytes go: the sections of each layer, as the blob's own records place them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use skipstone::host::format::{
    Conv2d, Dense, Finish, GlobalAveragePool, HEADER_BYTES, Header, Layer, Manifest, Operation, Requantize,
    Rounding,
};
use skipstone::host::{Entry, Layer as Parsed};

/// Bytes of flash that each layer takes: weights, biases, multipliers, shifts, padding pixels. A section that
/// layers share counts for the first of them.
pub(crate) fn flash_bytes(blob: &[u8], entries: &[Entry<'_>]) -> Result<Vec<usize>> {
    let damaged = "the blob's records cannot be read";
    let header = Header::read(blob).context(damaged)?;
    let end = HEADER_BYTES.saturating_add(header.manifest_bytes as usize);
    let manifest = blob.get(HEADER_BYTES..end).context(damaged)?;
    let (_, mut records) = postcard::take_from_bytes::<Manifest<'_>>(manifest).context(damaged)?;
    let mut counted = BTreeSet::new();
    let mut bytes = Vec::new();
    for entry in entries {
        let (record, rest) = postcard::take_from_bytes::<Layer<'_>>(records).context(damaged)?;
        records = rest;
        let own = sections(&record.operation, &entry.layer);
        let new = own.into_iter().filter(|(offset, length)| *length > 0 && counted.insert(*offset));
        bytes.push(new.map(|(_, length)| length).sum());
    }
    Ok(bytes)
}

/// Offset and length of each section of a layer.
fn sections(operation: &Operation, layer: &Parsed<'_>) -> Vec<(u32, usize)> {
    let weights = layer.weights().len();
    match operation {
        Operation::Conv2d(Conv2d { channels, weights: at, bias, padding_pixel, requantize, .. }) => {
            let channels = usize::from(*channels);
            let own = [
                (*at, weights),
                (*bias, 4 * channels),
                (*padding_pixel, usize::from(layer.input().channels)),
            ];
            own.into_iter().chain(multipliers(requantize, channels)).collect()
        }
        Operation::Pool2d(_) => Vec::new(),
        Operation::Dense(Dense { outputs, weights: at, bias, finish }) => {
            let own = [(*at, weights), (*bias, 4 * usize::from(*outputs))];
            own.into_iter().chain(finished(finish)).collect()
        }
        Operation::GlobalAveragePool(GlobalAveragePool { finish, .. }) => finished(finish),
    }
}

fn finished(finish: &Finish) -> Vec<(u32, usize)> {
    match finish {
        Finish::Requantize { count, requantize } | Finish::RoundedScores { count, requantize, .. } => {
            multipliers(requantize, usize::from(*count)).collect()
        }
        Finish::Scores { scales, count } => vec![(*scales, 4 * usize::from(*count))],
        Finish::Mean { .. } => Vec::new(),
    }
}

fn multipliers(requantize: &Requantize, count: usize) -> impl Iterator<Item = (u32, usize)> {
    let shifts = match requantize.rounding {
        Rounding::Once { .. } => None,
        Rounding::Twice { shifts } => Some((shifts, count)),
    };
    std::iter::once((requantize.multipliers, 4 * count)).chain(shifts)
}
