//! What the kernels cost: predicted cycles of a layer on a Cortex-M4 without flash wait states.
//!
//! The planner chooses by it, `skipstone inspect` shows it. Each term counts what a loop of a kernel does
//! and weighs it with the cycles that one turn was measured to take (`cargo xtask bench --layers`). `cargo
//! xtask bench` fails where the sum for a network is further than a tenth from what it measured. The
//! board never runs this.

use crate::base::quantization::{Addition, Rounding};
use crate::kernels::dsp::{direct, winograd};
use crate::net::layer::{Layer, Operation};
use crate::ops::{Algorithm, Conv2d, Reduction, Windowed};

/// The executor's work for a step, and for each row that a step reads or makes.
const STEP: u64 = 2200;
const STEP_ROW: u64 = 200;

/// Predicted cycles of a layer for one image, in strips of `strip` rows.
pub fn predicted_cycles(layer: &Layer<'_>, strip: u8) -> u64 {
    let node = &layer.node;
    let steps = u64::from(node.steps().div_ceil(u16::from(strip.max(1))));
    let rows =
        u64::from(strip.max(1) - 1) * u64::from(node.window.stride[0]) + u64::from(node.window.kernel[0]);
    let executor = steps * (STEP + STEP_ROW * (rows + u64::from(strip)));
    executor
        + match &layer.operation {
            Operation::Windowed(Windowed::Conv2d(layer)) => conv2d(layer, None, strip.into()),
            Operation::Addition(Windowed::Conv2d(layer), join) => {
                conv2d(layer, Some(&join.addition), strip.into())
            }
            Operation::Windowed(Windowed::Pool2d(layer))
            | Operation::Addition(Windowed::Pool2d(layer), _) => {
                30 * layer.output.len() as u64 * layer.window.positions() as u64
            }
            Operation::Reduction(Reduction::Dense(layer)) => {
                5 * layer.weights.len() as u64 + 40 * layer.bias.len() as u64 * u64::from(layer.input.height)
            }
            Operation::Reduction(Reduction::GlobalAveragePool(layer)) => 14 * layer.input.len() as u64,
        }
}

/// Cycles of rounding and storing an output.
fn epilogue(layer: &Conv2d<'_>, addition: Option<&Addition>) -> u64 {
    match (layer.requantize.rounding(), addition) {
        (Rounding::Once { .. }, None) => 10,
        (Rounding::Once { .. }, Some(Addition::Fused(_))) => 17,
        (Rounding::Twice { .. }, None) => 80,
        (_, Some(_)) => 200,
    }
}

fn conv2d(layer: &Conv2d<'_>, addition: Option<&Addition>, strip: usize) -> u64 {
    let (input, output) = (layer.input, layer.output);
    let [channels, outputs] = [input.channels, output.channels].map(usize::from);
    let (height, width) = (usize::from(output.height), usize::from(output.width));
    let epilogue = epilogue(layer, addition);
    let cycles = match layer.algorithm {
        Algorithm::Reference => return 10 * layer.macs() + (60 + epilogue) * output.len() as u64,
        Algorithm::Direct if layer.depthwise => {
            return 6 * layer.macs() + (20 + epilogue) * output.len() as u64;
        }
        Algorithm::Direct => {
            let tiles = height * width.div_ceil(4);
            let pairs = direct::pairs(&layer.window, channels);
            // of four windows, row by row; where pixels are no whole words the edges are put together first
            let edges = if channels.is_multiple_of(4) { 0 } else { 300 };
            let widen = 12 * pairs + 100 * usize::from(layer.window.kernel[0]) + edges;
            let parts = pairs.div_ceil(96);
            tiles * (widen + outputs.div_ceil(2) * (173 * pairs / 10 + 60 * parts))
        }
        _ => {
            let at_run_time =
                matches!(layer.algorithm, Algorithm::WinogradAtRunTime | Algorithm::Winograd4AtRunTime);
            let form = winograd::shape(&layer.window, layer.algorithm);
            let strips = height.div_ceil(strip.max(1));
            // an odd last row takes as long as a tile's
            let tile_rows = (height / strip.max(1)) * strip.div_ceil(form.tile)
                + (height % strip.max(1)).div_ceil(form.tile);
            let groups = tile_rows * width.div_ceil(4 * form.tile);
            // of sixteen channels' values, of the outputs of two channels, of two channels' weights
            let (transform, sums, filter) = match (form.tile, layer.window.stride[0]) {
                (4, _) => (15_500, 2300, 360),
                (_, 1) => (7200, 440, 165),
                _ => (12_800, 440, 165),
            };
            let rounds = channels / 16;
            let products = form.slots * (128 * rounds + 12 * (rounds - 1)) + form.groups * 17;
            let filters = if at_run_time { strips * outputs * channels / 2 * filter } else { 0 };
            // rows that are no whole groups are stored value by value
            let part = if width.is_multiple_of(4 * form.tile) { 0 } else { 480 * form.tile * form.tile };
            groups * (rounds * transform + outputs / 2 * (products + sums + part + 500)) + filters
        }
    };
    cycles as u64 + epilogue * output.len() as u64
}
