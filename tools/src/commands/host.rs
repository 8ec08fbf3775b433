//! The runtime on this machine: an arena from the heap, and a network in it.

use anyhow::{Result, bail};
use skipstone::{Model, Network};

/// Tensors that a segment may have here; a board needs no more than the plan's longest segment.
const TENSORS: usize = 512;

/// Largest arena that is tried: far beyond any microcontroller, far below this machine's memory.
const MAX_ARENA: usize = 64 << 20;

/// A network that is ready to run on this machine.
pub(crate) type HostNetwork<'a> = Network<'a, TENSORS>;

/// Sets up the model's network, fed by rows as on a board, and hands it to `work`.
pub(crate) fn with_network<T>(
    model: Model<'_>,
    work: impl FnOnce(HostNetwork<'_>) -> Result<T>,
) -> Result<T> {
    let mut arena = arena(model.arena_bytes_rows())?;
    work(Network::new(model, bytemuck::cast_slice_mut(&mut arena))?)
}

/// Proves both of the model's memory plans.
pub(crate) fn prove(model: Model<'_>) -> Result<()> {
    with_network(model, |_| Ok(()))?;
    let mut arena = arena(model.arena_bytes())?;
    HostNetwork::with_frame(model, bytemuck::cast_slice_mut(&mut arena))?;
    Ok(())
}

/// At least `bytes` bytes, aligned as an arena must be.
fn arena(bytes: usize) -> Result<Vec<u128>> {
    if bytes > MAX_ARENA {
        bail!(
            "its plan asks for an arena of {bytes} bytes; more than {MAX_ARENA} are not tried: convert the model again"
        );
    }
    Ok(vec![0; bytes.div_ceil(size_of::<u128>())])
}
