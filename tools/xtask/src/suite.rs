//! A list of checks as it runs: a line for each, and at the end how many passed.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// How a check ended that could be made.
pub(crate) struct Outcome {
    passed: usize,
    failed: usize,
    detail: String,
}

impl Outcome {
    /// It holds; `detail` says in figures what.
    pub(crate) fn pass(detail: impl Into<String>) -> Outcome {
        Outcome { passed: 1, failed: 0, detail: detail.into() }
    }

    /// It cannot be made here; `why` not.
    pub(crate) fn skip(why: impl Into<String>) -> Outcome {
        Outcome { passed: 0, failed: 0, detail: why.into() }
    }

    /// It was many tests.
    pub(crate) fn tests(passed: usize, failed: usize) -> Outcome {
        Outcome { passed, failed, detail: format!("{passed} tests passed, {failed} failed") }
    }
}

/// The checks made so far.
pub(crate) struct Suite<'a> {
    only: &'a [String],
    lines: Vec<String>,
    passed: usize,
    failed: usize,
}

impl<'a> Suite<'a> {
    /// A suite of those checks whose names contain one of the words in `only`; of all where it is empty.
    pub(crate) fn new(only: &'a [String]) -> Suite<'a> {
        Suite { only, lines: Vec::new(), passed: 0, failed: 0 }
    }

    /// Makes a check. A failed one does not end the suite: the others have something to say as well.
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

    /// Sums up; the exit status says whether all passed.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n== summary");
        for line in &self.lines {
            println!("{line}");
        }
        if self.lines.is_empty() {
            println!("no check's name contains {}", self.only.join(" or "));
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && !self.lines.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
