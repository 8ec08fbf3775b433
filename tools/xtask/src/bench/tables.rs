//! Formats measurements as tables of at most 80 columns, with published figures of other engines.

use comfy_table::{CellAlignment, Table, TableStyle};

use super::cycles::Cost;
use super::measurement::Measurement;

/// Clocks in MHz: nRF52840, NUCLEO-L4R5ZI (used for the published figures), STM32F407.
const MEGAHERTZ: [u64; 3] = [64, 120, 168];

/// Cycles on silicon per modelled cycle, at 120 MHz from flash with wait states.
const CALIBRATION: f64 = 1.15;

/// Other engines on ResNet-8: engine, instructions per MAC, cycles per MAC and milliseconds. MLPerf Tiny's published
/// results on silicon (NUCLEO-L4R5ZI at 120 MHz); the last two were measured with our cycle model.
const PEERS: [[&str; 4]; 8] = [
    ["TensorFlow Lite Micro, reference kernels, v0.5", "", "6.76", "704"],
    ["microTVM + CMSIS-NN, v1.0", "", "3.74", "390"],
    ["ONNC + CMSIS-NN, v1.1", "", "2.85", "297"],
    ["Bosch, v1.1", "", "1.72", "179"],
    ["Plumerai, v1.1", "", "1.61", "168"],
    ["ST X-CUBE-AI, v1.2 (the record)", "", "1.585", "165"],
    ["TensorFlow Lite Micro + CMSIS-NN, in this model", "2.39", "2.85", ""],
    ["CMSIS-NN alone, in this model", "2.29", "2.75", ""],
];

/// All measurements, and other engines for comparison.
pub(crate) fn summary(measurements: &[Measurement]) -> String {
    let mut counts = table(&["network", "mode", "MACs", "instructions", "/MAC", "cycles", "/MAC"], "<<>>>>>");
    let mut times = table(
        &["network", "mode", "64 MHz", "120 MHz", "168 MHz", "120 MHz x 1.15", "cycles/MAC x 1.15"],
        "<<>>>>>",
    );
    let mut sizes = table(&["network", "mode", "arena", "by rows", "blob", "code", "stack"], "<<>>>>>");
    let mut once = table(&["network", "mode", "parse", "set up", "verify"], "<<>>>");
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
        let arenas = [facts.arena_bytes, facts.arena_bytes_rows];
        let bytes = arenas.into_iter().chain([facts.blob_bytes, each.code_bytes, each.stack_bytes]);
        sizes.add_row(name.iter().cloned().chain(bytes.map(grouped)));
        let starts = [each.parse_instructions, each.set_up_instructions, each.verify_instructions];
        once.add_row(name.iter().cloned().chain(starts.map(grouped)));
    }
    let mut peers = table(&["ResNet-8 on a Cortex-M4", "instr./MAC", "cycles/MAC", "ms"], "<>>>");
    peers.add_rows(PEERS);
    format!(
        "One image, fed by rows, on a Cortex-M4. Instruction counts are exact to 40.
Cycles are modelled, for memory without wait states; published firmware took
{CALIBRATION} times as many on silicon.

{}
Milliseconds according to the model, and scaled to silicon by this factor.

{}
Bytes: arena with the frame in it, arena if fed by rows, blob and code in
flash, maximum stack.

{}
Instructions to parse and set up, once, and to run `Model::verify`.

{}
Other engines: MLPerf Tiny's published results on silicon (NUCLEO-L4R5ZI,
120 MHz), and two measured with this model.

{}",
        lines(&counts),
        lines(&times),
        lines(&sizes),
        lines(&once),
        lines(&peers)
    )
}

/// The cost of running a network signed: code size, and instructions and stack of parsing.
pub(crate) fn signature(plain: &Measurement, code_bytes: u64, instructions: u64, stack: &str) -> String {
    let Measurement { network, mode, .. } = plain;
    let [code_before, before] = [plain.code_bytes, plain.parse_instructions].map(grouped);
    format!(
        "{network}, {mode}, signed: {} B of code and constants
({code_before} B unsigned); parsing takes {} instructions and
{stack} ({before} instructions unsigned).",
        grouped(code_bytes),
        grouped(instructions)
    )
}

/// One measurement, layer by layer.
pub(crate) fn layers(measurement: &Measurement) -> String {
    let Measurement { network, mode, case, run, .. } = measurement;
    let header = ["layer", "window", "instructions", "/MAC", "cycles", "/MAC", "%"];
    let mut table = table(&header, "<<>>>>>");
    let mut add = |name: &str, window: &str, macs: u64, cost: Cost| {
        let share = format!("{:.1}", 100.0 * cost.cycles as f64 / run.cycles as f64);
        let [instructions, cycles] = per_mac(cost, macs);
        let counts = [grouped(cost.instructions), instructions, grouped(cost.cycles), cycles, share];
        table.add_row([name, window].into_iter().chain(counts.iter().map(String::as_str)));
    };
    for (layer, cost) in case.facts.layers.iter().zip(&measurement.layers) {
        add(&layer.name, &layer.window, layer.macs, *cost);
    }
    add("rest", "", 0, measurement.rest);
    add("total", "", case.facts.macs, *run);
    format!("{network}, {mode}, by layer; `rest` is input rows, schedule and softmax\n\n{}\n", lines(&table))
}

/// Instructions and cycles per MAC; empty if there are no MACs.
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

/// A table whose columns are aligned left (`<`) or right (`>`).
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::case::{Case, Facts, Layer};

    /// Numbers of ResNet-56 on the reference kernels, the widest that occur.
    fn measurement() -> Measurement {
        let run = Cost { instructions: 1_051_234_567, cycles: 1_690_123_456 };
        let layer = Layer { name: "layer2.0 projection".into(), window: "3x3/2 +".into(), macs: 125_000_000 };
        let layers = vec![layer];
        let (arena_bytes, arena_bytes_rows) = (36_864, 36_864);
        let facts = Facts {
            layers,
            arena_bytes,
            arena_bytes_rows,
            blob_bytes: 1_420_123,
            macs: 125_000_000,
            cycles: 100_000_000,
        };
        let (name, blob, images) = (String::new(), PathBuf::new(), PathBuf::new());
        let case = Case { name, blob, key: None, images, facts };
        let (network, mode, rest) = ("resnet56", "balanced", Cost::default());
        let (parse_instructions, set_up_instructions) = (20_000_000, 10_000_000);
        let (code_bytes, stack_bytes, layers) = (40_960, 10_948, vec![run]);
        Measurement {
            network,
            mode,
            case,
            run,
            parse_instructions,
            set_up_instructions,
            verify_instructions: 10_000_000,
            code_bytes,
            stack_bytes,
            layers,
            rest,
        }
    }

    #[test]
    fn tables_fit_a_terminal_of_80_columns() {
        let measurement = measurement();
        let signature = signature(&measurement, 1_234_567, 120_000_000, "12345 B of stack");
        let text = layers(&measurement) + &summary(&[measurement]) + &signature;
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 12_501_632].map(grouped), ["0", "999", "1,000", "12,501,632"]);
    }
}
