//! Parses the firmware's output: each line is a name and its value.

use anyhow::{Context, Result};

/// The lines of a successful run.
pub(crate) struct Report(Vec<String>);

impl Report {
    /// Lines as the emulator returns them.
    pub(crate) fn new(lines: Vec<String>) -> Report {
        Report(lines)
    }

    /// The value of every line with this name, in order.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let after = move |line: &'_ String| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        self.0.iter().filter(move |line| after(line)).map(move |line| line[name.len()..].trim())
    }

    /// The value of the first line with this name.
    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.all(name).next().with_context(|| format!("the firmware printed no line `{name}`"))
    }

    /// The number at the start of the first line with this name.
    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        let text = self.text(name)?;
        let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
        number.with_context(|| format!("the firmware printed `{name} {text}`, expected a number"))
    }

    /// Stack in bytes of parsing, setting up and running.
    pub(crate) fn stacks(&self) -> Result<[u64; 3]> {
        let stack = |name| {
            let text = self.text(name)?;
            let bytes = text.split_once(", ").and_then(|(_, stack)| stack.split(' ').next()?.parse().ok());
            bytes.with_context(|| format!("the firmware printed `{name} {text}`, expected a stack size"))
        };
        Ok([stack("parse")?, stack("set up")?, stack("run")?])
    }

    /// All lines, to compare runs.
    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_name() {
        let report = Report::new(
            ["run     120 instructions", "running late", "saw cat", "saw dog"].map(Into::into).to_vec(),
        );
        assert_eq!(report.number("run").unwrap(), 120);
        assert_eq!(report.all("saw").collect::<Vec<_>>(), ["cat", "dog"]);
        assert!(report.text("missing").unwrap_err().to_string().contains("`missing`"));
        assert!(report.number("saw").is_err());
        assert!(report.stacks().is_err());
        let lines =
            ["parse 1 cycles, 2 B of stack", "set up 3 cycles, 4 B of stack", "run 5 x, 6 B of stack"];
        assert_eq!(Report::new(lines.map(Into::into).to_vec()).stacks().unwrap(), [2, 4, 6]);
    }
}
