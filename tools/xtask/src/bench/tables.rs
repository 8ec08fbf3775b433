//! Measurements as tables for people, none wider than 80 columns, with what others reach beside them.

use comfy_table::{CellAlignment, Table, TableStyle};

use super::Measurement;
use super::cycles::Cost;

/// Clocks for which times are given: nRF52840, NUCLEO-L4R5ZI (the peers'), STM32F407.
const MEGAHERTZ: [u64; 3] = [64, 120, 168];

/// Cycles that silicon took for the model's, at 120 MHz from flash with wait states.
const CALIBRATION: f64 = 1.15;

/// What others published for ResNet-8 (MLPerf Tiny's result logs): engine, milliseconds and cycles per MAC
/// on silicon, a NUCLEO-L4R5ZI (Cortex-M4) at 120 MHz.
const ON_SILICON: [(&str, u32, f64); 6] = [
    ("TensorFlow Lite Micro, reference kernels, v0.5", 704, 6.76),
    ("microTVM + CMSIS-NN, v1.0", 390, 3.74),
    ("ONNC + CMSIS-NN, v1.1", 297, 2.85),
    ("Bosch, v1.1", 179, 1.72),
    ("Plumerai, v1.1", 168, 1.61),
    ("ST X-CUBE-AI, v1.2", 165, 1.585),
];

/// What others' code takes in the same model: engine, instructions and cycles per MAC.
const IN_THE_MODEL: [(&str, f64, f64); 2] =
    [("TensorFlow Lite Micro + CMSIS-NN", 2.389, 2.85), ("CMSIS-NN", 2.289, 2.75)];

/// All measurements, and the peers.
pub(crate) fn summary(measurements: &[Measurement]) -> String {
    let mut counts = table(&["network", "mode", "MACs", "instructions", "/MAC", "cycles", "/MAC"], "<<>>>>>");
    let mut times = table(
        &["network", "mode", "64 MHz", "120 MHz", "168 MHz", "120 MHz, silicon", "cycles/MAC"],
        "<<>>>>>",
    );
    let mut sizes =
        table(&["network", "mode", "arena", "by rows", "blob", "code", "stack", "start-up"], "<<>>>>>>");
    for each in measurements {
        let (facts, run) = (&each.case.facts, each.run);
        let [instructions, cycles] = per_mac(run, facts.macs);
        let name = [each.network.to_string(), each.mode.to_string()];
        let numbers = [grouped(facts.macs), grouped(run.instructions), instructions];
        counts.add_row(name.iter().chain(&numbers).chain(&[grouped(run.cycles), cycles]));
        let model = run.cycles as f64;
        let silicon = model * CALIBRATION;
        let mut time = MEGAHERTZ.map(|clock| milliseconds(model, clock)).to_vec();
        time.extend([milliseconds(silicon, 120), format!("{:.2}", silicon / facts.macs as f64)]);
        times.add_row(name.iter().chain(&time));
        let start = each.parse_instructions + each.new_instructions;
        let bytes = [facts.arena_bytes, facts.arena_bytes_rows, facts.blob_bytes];
        let bytes = bytes.into_iter().chain([each.code_bytes, each.stack_bytes, start]).map(grouped);
        sizes.add_row(name.iter().cloned().chain(bytes));
    }
    let mut peers = table(&["peers, ResNet-8 on a Cortex-M4", "", "/MAC", "", "/MAC"], "<>>>>");
    for (engine, milliseconds, cycles) in ON_SILICON {
        let time = format!("{milliseconds} ms");
        peers.add_row([engine, "", "", &time, &format!("{cycles:.2}")]);
    }
    for (engine, instructions, cycles) in IN_THE_MODEL {
        let [instructions, cycles] = [instructions, cycles].map(|number| format!("{number:.2}"));
        peers.add_row([engine, "instructions", &instructions, "model", &cycles]);
    }
    format!(
        "One picture, run fed by rows, Cortex-M4. Instructions are exact to 40. Cycles are a model's, for
memory without wait states; silicon took {CALIBRATION} times as many for published firmware.

{}
Milliseconds by the model; as silicon, {CALIBRATION} times the model's cycles.

{}
Bytes: arena with the frame in it | fed by rows, blob and code in flash, deepest stack.
Instructions of the start-up: parse and new, once.

{}
Published for silicon: MLPerf Tiny, NUCLEO-L4R5ZI at 120 MHz. In the model: our own runs.

{}",
        lines(&counts),
        lines(&times),
        lines(&sizes),
        lines(&peers)
    )
}

/// A measurement, layer by layer.
pub(crate) fn layers(measurement: &Measurement) -> String {
    let Measurement { network, mode, case, run, .. } = measurement;
    let header = ["layer", "window", "MACs", "instructions", "/MAC", "cycles", "/MAC", "share"];
    let mut table = table(&header, "<<>>>>>>");
    let mut add = |name: &str, window: &str, macs: u64, cost: Cost| {
        let share = format!("{:.1} %", 100.0 * cost.cycles as f64 / run.cycles as f64);
        let [instructions, cycles] = per_mac(cost, macs);
        let macs = if macs > 0 { grouped(macs) } else { String::new() };
        let counts = [grouped(cost.instructions), instructions, grouped(cost.cycles), cycles];
        table.add_row(
            [name, window, &macs].into_iter().chain(counts.iter().map(String::as_str)).chain([&*share]),
        );
    };
    for (layer, cost) in case.facts.layers.iter().zip(&measurement.layers) {
        add(&layer.name, &layer.window, layer.macs, *cost);
    }
    add("rest", "", 0, measurement.rest);
    add("total", "", case.facts.macs, *run);
    format!(
        "{network}, {mode}: layer by layer; the rest is input rows, schedule and softmax\n\n{}\n",
        lines(&table)
    )
}

/// Instructions and cycles per MAC, empty where there are none.
fn per_mac(cost: Cost, macs: u64) -> [String; 2] {
    [cost.instructions, cost.cycles].map(|count| match macs {
        0 => String::new(),
        _ => format!("{:.2}", count as f64 / macs as f64),
    })
}

fn milliseconds(cycles: f64, megahertz: u64) -> String {
    let milliseconds = cycles / (megahertz as f64 * 1e3);
    if milliseconds < 1000.0 { format!("{milliseconds:.1}") } else { grouped(milliseconds as u64) }
}

/// A table of columns that are aligned left (`<`) or right (`>`).
fn table(header: &[&str], alignment: &str) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(header.to_vec());
    for (column, side) in table.column_iter_mut().zip(alignment.chars()) {
        column.set_padding((0, 2));
        column.set_cell_alignment(if side == '<' { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// 12501632 as `12,501,632`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
