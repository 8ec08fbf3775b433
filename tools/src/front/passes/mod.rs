//! Passes: from every operation that a file has, one layer each, to the fused layers that the runtime has.
//!
//! | pass | removes | by |
//! |---|---|---|
//! | [`affine`] | batch norm, arithmetic with constants | folding them into the weights before, or the preprocessing |
//! | [`padding`] | rows and columns of padding | the window behind |
//! | [`subsample`] | subsampling before a 1x1 convolution | its stride |
//! | [`additions`] | additions, padded shortcuts | the [`Shortcut`](crate::ir::Shortcut) of the convolution that completes the sum |
//! | [`activations`] | clamps | the activation of the layer before |
//! | [`softmax`] | softmax at the end | a property of the output |
//! | [`trim`] | rows and columns that an average pooling leaves out | less padding, global average pooling |
//! | [`leftovers`] | other subsampling | max pooling of one position |
//!
//! At the end, [`order`] sorts the layers. Each pass goes over the list once, through an [`Edit`], and refuses by name what it cannot remove.

mod activations;
mod additions;
mod affine;
mod edit;
mod leftovers;
mod order;
mod padding;
mod remarks;
mod softmax;
mod subsample;
mod trim;

use super::error::{ErrorKind, Refusal};
use crate::ir::{Affine, FloatNetwork, INPUT};
use edit::Edit;
pub(crate) use remarks::Remarks;
use remarks::refuse;

/// What the passes found out about a network, beside changing it.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What the model does to its input before the first layer.
    pub(crate) normalization: Option<Affine>,
    /// What a note says of a layer, beyond what the layer is.
    pub(crate) remarks: Remarks,
    /// The outputs that are probabilities where the file has their logarithm.
    pub(crate) logarithms: Vec<String>,
}

/// Runs all passes.
pub(crate) fn run(network: &mut FloatNetwork) -> Result<Findings, Refusal> {
    let mut findings = Findings::default();
    findings.normalization = affine::fold(network, &mut findings.remarks)?;
    padding::fold(network)?;
    subsample::fold(network);
    additions::fuse(network)?;
    activations::fuse(network)?;
    softmax::remove(network, &mut findings.logarithms)?;
    trim::trim(network, &mut findings.remarks);
    leftovers::replace(network)?;
    order::sort(network);
    if network.layers.is_empty() {
        return Err(Refusal::new(ErrorKind::Topology, "", "has no layers"));
    }
    if let Some(output) = network.outputs.iter().find(|output| output.tensor == INPUT) {
        let place = format!("output '{}'", output.name);
        return Err(Refusal::new(ErrorKind::Topology, place, "is the input itself").help("leave it out"));
    }
    Ok(findings)
}

/// Removes the layers that no output needs.
pub(crate) fn remove_unread(network: &mut FloatNetwork) {
    Edit::new(network).finish();
}
