//! How numbers, names and tables look on a terminal.

use comfy_table::{CellAlignment, Table, TableStyle};

/// Maximum characters of a name in a table: two levels of names and five numbers fit 80 columns.
const MAX_NAME: usize = 16;

/// Columns of a terminal.
const COLUMNS: usize = 80;

/// A table without lines, of columns that are aligned left (`<`) or right (`>`) as `alignment` says.
pub(crate) fn table(header: &[&str], alignment: &str) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(header.to_vec());
    for (column, side) in table.column_iter_mut().zip(alignment.chars()) {
        column.set_padding((0, 2));
        column.set_cell_alignment(if side == '<' { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

/// The table's lines, without spaces at their ends.
pub(crate) fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// 12501632 as `12,501,632`.
pub(crate) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that may come from a file, safe for a terminal: control characters other than line ends are replaced.
pub(crate) fn printable(text: &str) -> String {
    let is_unsafe = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A line broken between words so that it fits 80 columns, every line but the first indented.
pub(crate) fn wrapped(line: &str, indent: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for word in line.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if width > 0 && width + length > COLUMNS {
            text.truncate(text.trim_end().len());
            text = text + "\n" + indent;
            width = indent.len();
        }
        text.push_str(word);
        width += word.chars().count();
    }
    text
}

/// A name from a file as a table's cell: on one line, cut in the middle if it is too long.
pub(crate) fn shortened(name: &str) -> String {
    let name: Vec<char> = printable(name).replace('\n', " ").chars().collect();
    if name.len() <= MAX_NAME {
        return name.into_iter().collect();
    }
    let end = name.len() - MAX_NAME / 2;
    name[..MAX_NAME - MAX_NAME / 2 - 1].iter().chain(&['…']).chain(&name[end..]).collect()
}

/// A part of a whole, in percent; 0 of an empty whole.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (12_501_632, "12,501,632")];
        for (number, text) in cases {
            assert_eq!(grouped(number as u64), text);
        }
        assert_eq!(grouped(-1), grouped(u64::MAX));
    }

    #[test]
    fn names_from_files_cannot_reach_the_terminal_as_commands() {
        assert_eq!(printable("a\x1b[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\n");
        assert_eq!(shortened("a\x1b\nb"), "a\u{fffd} b");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("layer1.0"), "layer1.0");
        let short = shortened("model/resnet/stage3/block2/Conv2D_BiasAdd");
        assert_eq!(short, "model/r…_BiasAdd");
        assert_eq!(short.chars().count(), MAX_NAME);
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("  short", "    "), "  short");
        let found = wrapped(&"word ".repeat(20), "    ");
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines[0], "word ".repeat(16).trim_end());
        assert_eq!(lines[1], format!("    {}", "word ".repeat(4)));
    }

    #[test]
    fn tables_have_aligned_columns_and_no_space_at_the_end() {
        let mut table = table(&["layer", "MACs"], "<>");
        table.add_row(["conv1", "7"]);
        table.add_row(["a", "1,000"]);
        assert_eq!(lines(&table), "layer   MACs\nconv1      7\na      1,000\n");
    }

    #[test]
    fn percentages_of_nothing_are_zero() {
        assert_eq!(percent(0, 0), 0.0);
        assert_eq!(percent(1, 4), 25.0);
    }
}
