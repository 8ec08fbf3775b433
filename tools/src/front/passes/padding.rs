//! Padding into the convolution or pooling behind it, where that changes nothing.

use super::{Edit, refuse};
use crate::front::error::{ErrorKind, Refusal};
use crate::ir::{FloatNetwork, Operation, TensorId, Window, output_shape};

/// Rows and columns added before a layer.
struct Border {
    padding: [usize; 4],
    value: f64,
    /// The tensor that they are added to.
    source: TensorId,
    /// The first layer that adds some.
    layer: usize,
}

/// Folds all padding of rows and columns; padding of channels is left to the additions.
pub(super) fn fold(network: &mut FloatNetwork) -> Result<(), Refusal> {
    let mut edit = Edit::new(network);
    for index in 0..edit.len() {
        let border = if edit[index].operation.window().is_some() { border(&edit, index)? } else { None };
        let mut operation = edit[index].operation.clone();
        match &mut operation {
            Operation::Conv2d { window, .. } => {
                if let Some(border) = &border {
                    convolution(&edit, window, border)?;
                }
            }
            Operation::MaxPool(window) => {
                if let Some(border) = &border {
                    max_pool(&edit, window, border)?;
                }
            }
            Operation::AveragePool { window, count_include_pad } => {
                if let Some(border) = &border {
                    average_pool(&edit, window, count_include_pad, border)?;
                }
                *count_include_pad &= window.padding != [0; 4];
            }
            Operation::Pad { padding: [0, 0, 0, 0], value, .. } if *value != 0.0 => {
                let reason = format!("adds channels of {value}");
                return Err(refuse(ErrorKind::Operator, &edit[index], reason).help("shortcuts add zeros"));
            }
            Operation::Pad { .. }
            | Operation::Dense { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Clamp { .. }
            | Operation::Add
            | Operation::Subsample { .. }
            | Operation::Softmax { .. } => continue,
        }
        if let Some(border) = border {
            output_shape(&operation, &[edit.shape(border.source)])
                .map_err(|problem| refuse(ErrorKind::Shape, &edit[index], problem.to_string()))?;
            edit[index].inputs[0] = border.source;
        }
        edit[index].operation = operation;
    }
    edit.finish();
    refuse_others(&Edit::new(network))
}

/// The padding that only this layer reads, all of it taken together.
fn border(edit: &Edit<'_>, index: usize) -> Result<Option<Border>, Refusal> {
    let rows = |layer: usize| match &edit[layer].operation {
        Operation::Pad { padding, channels: [0, 0], value } if *padding != [0; 4] => Some((*padding, *value)),
        _ => None,
    };
    // from the last to the first
    let mut pads = Vec::new();
    let mut at = index;
    while let Some(pad) = edit.private_producer(at).filter(|&layer| rows(layer).is_some()) {
        pads.push(pad);
        at = pad;
    }
    let Some(&layer) = pads.last() else { return Ok(None) };
    let (mut sum, mut first) = (Window { padding: [0; 4], ..Window::POINT }, None);
    for &pad in pads.iter().rev() {
        let Some((padding, value)) = rows(pad) else { continue };
        let around = *first.get_or_insert(value);
        if around != value {
            let reason = format!("pads with {value} around {around}");
            return Err(refuse(ErrorKind::Operator, &edit[pad], reason));
        }
        sum.pad(padding);
    }
    let (padding, value) = (sum.padding, first.unwrap_or(0.0));
    Ok(Some(Border { padding, value, source: edit[layer].inputs[0], layer }))
}

fn convolution(edit: &Edit<'_>, window: &mut Window, border: &Border) -> Result<(), Refusal> {
    if border.value != 0.0 {
        let reason = format!("pads with {} before a convolution", border.value);
        return Err(refuse(ErrorKind::Operator, &edit[border.layer], reason).help("pad with zeros"));
    }
    window.pad(border.padding);
    Ok(())
}

fn max_pool(edit: &Edit<'_>, window: &mut Window, border: &Border) -> Result<(), Refusal> {
    // Zeros around values that are never negative lose against them, or tie.
    let loses =
        border.value <= -f64::from(f32::MAX) || border.value == 0.0 && never_negative(edit, border.source);
    if !loses {
        let reason = format!("pads with {} before a max pooling", border.value);
        return Err(refuse(ErrorKind::Operator, &edit[border.layer], reason)
            .help("use the pooling's own padding, or put a ReLU before"));
    }
    window.pad(border.padding);
    Ok(())
}

fn average_pool(
    edit: &Edit<'_>,
    window: &mut Window,
    count_include_pad: &mut bool,
    border: &Border,
) -> Result<(), Refusal> {
    let counted = *count_include_pad || window.padding == [0; 4];
    if border.value != 0.0 || !counted {
        let reason = "padding before an average pooling that pads differently itself";
        return Err(
            refuse(ErrorKind::Operator, &edit[border.layer], reason).help("pad with zeros in one place")
        );
    }
    *count_include_pad = true;
    window.pad(border.padding);
    Ok(())
}

fn never_negative(edit: &Edit<'_>, mut tensor: TensorId) -> bool {
    while let Some(layer) = tensor.checked_sub(1) {
        match edit[layer].operation {
            Operation::Clamp { low, .. } => return low >= 0.0,
            Operation::MaxPool(_) | Operation::Subsample { .. } => tensor = edit[layer].inputs[0],
            Operation::Conv2d { .. }
            | Operation::Dense { .. }
            | Operation::AveragePool { .. }
            | Operation::GlobalAveragePool
            | Operation::Affine { .. }
            | Operation::Add
            | Operation::Pad { .. }
            | Operation::Softmax { .. } => return false,
        }
    }
    false
}

/// Refuses the first padding of rows and columns that is left.
fn refuse_others(edit: &Edit<'_>) -> Result<(), Refusal> {
    for index in 0..edit.len() {
        let Operation::Pad { padding, channels, .. } = edit[index].operation else { continue };
        if padding == [0; 4] {
            continue;
        }
        if channels != [0; 2] {
            let reason = "adds rows or columns and channels at once";
            return Err(refuse(ErrorKind::Operator, &edit[index], reason).help("pad in two steps"));
        }
        let help = "padding is folded into the convolution or pooling directly after it";
        let reason = match edit.only_reader(index + 1) {
            Some(next) => format!("cannot be fused with {}, which follows", edit[next].place),
            None if edit.is_output(index + 1) => "pads an output".into(),
            None => {
                let reason = "the padded image is read by several nodes";
                return Err(refuse(ErrorKind::Topology, &edit[index], reason)
                    .help("pad separately for each, or in the convolution itself"));
            }
        };
        return Err(refuse(ErrorKind::Topology, &edit[index], reason).help(help));
    }
    Ok(())
}
