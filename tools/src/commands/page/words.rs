//! Words and numbers that several parts of the page show.

use crate::commands::report::Report;

/// Names of the layers in order.
pub(super) fn layer_names(report: &Report) -> impl Iterator<Item = String> {
    report.layers.iter().map(|layer| layer.name.clone())
}

/// A number with three significant digits.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    if digits > 7 { format!("{value:.2e}") } else { format!("{value:.*}", digits.max(0) as usize) }
}
