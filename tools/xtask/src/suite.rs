//! Runs a list of checks and sums up the results.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// The result of a check that did not end with an error.
pub(crate) struct Outcome {
    passed: usize,
    failed: usize,
    detail: String,
}

impl Outcome {
    /// It passed; `detail` gives the figures.
    pub(crate) fn pass(detail: impl Into<String>) -> Outcome {
        Outcome { passed: 1, failed: 0, detail: detail.into() }
    }

    /// It cannot run here, for the reason `why`.
    pub(crate) fn skip(why: impl Into<String>) -> Outcome {
        Outcome { passed: 0, failed: 0, detail: why.into() }
    }

    /// It consists of many tests.
    pub(crate) fn tests(passed: usize, failed: usize) -> Outcome {
        Outcome { passed, failed, detail: format!("{passed} tests passed, {failed} failed") }
    }
}

/// The results so far.
pub(crate) struct Suite<'a> {
    only: &'a [String],
    lines: Vec<String>,
    passed: usize,
    failed: usize,
}

impl<'a> Suite<'a> {
    /// A suite that runs only the checks whose names contain one of the words in `only`; if it is empty, all checks.
    pub(crate) fn new(only: &'a [String]) -> Suite<'a> {
        Suite { only, lines: Vec::new(), passed: 0, failed: 0 }
    }

    /// Runs a check. The suite continues after a failure.
    pub(crate) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) {
        if !self.only.is_empty() && !self.only.iter().any(|word| name.contains(word)) {
            return;
        }
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = work().unwrap_or_else(|error| {
            println!("{error:#}");
            Outcome {
                passed: 0,
                failed: 1,
                detail: error.to_string().lines().next().unwrap_or_default().into(),
            }
        });
        let verdict = match (outcome.passed, outcome.failed) {
            (0, 0) => "skip",
            (_, 0) => "pass",
            _ => "FAIL",
        };
        self.passed += outcome.passed;
        self.failed += outcome.failed;
        let line = format!("{verdict}  {name} ({:.1} s): {}", start.elapsed().as_secs_f64(), outcome.detail);
        println!("{line}");
        self.lines.push(line);
    }

    /// Prints the summary; the exit status is success if no check failed.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n== summary");
        for line in &self.lines {
            println!("{line}");
        }
        if self.lines.is_empty() {
            println!("no check has a name with {}", self.only.join(" or "));
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && !self.lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
