//! Predicted cycles of a layer on a Cortex-M4 without flash wait states.
//!
//! The planner chooses by it, `skipstone inspect` shows it. Each term counts the turns of a kernel's loop and weighs
//! them with the cycles that one turn was measured to take (`cargo xtask bench --layers`). `cargo xtask bench` fails if
//! the sum for a network is further than a tenth from the measured cycles. The board never runs this.

use crate::base::quantization::{Addition, Rounding};
use crate::kernels;
use crate::net::layer::{Layer, Operation};
use crate::ops::{Conv2d, Reduction, Windowed};

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
    kernels::cycles(layer, strip) + epilogue(layer, addition) * layer.output.len() as u64
}
