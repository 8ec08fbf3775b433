//! The stored instruction counts; new ones may exceed them by at most 1 %.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::paths;

const UPDATE: &str =
    "to accept the new counts, run `cargo xtask bench --update` and explain them in the commit";

/// Instructions of one inference for each network and mode, and the compiler that built the firmware.
#[derive(Deserialize, Serialize)]
pub(crate) struct Baseline {
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// Reads the baseline in the repository.
    pub(crate) fn read() -> Result<Baseline> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a valid baseline", path.display()))
    }

    /// Returns a line for each count with the stored one. If the compiler is the same, a count that is more than
    /// 1 % higher or not stored is an error.
    pub(crate) fn check(&self, compiler: &str, counts: &BTreeMap<String, u64>) -> Result<Vec<String>> {
        let (mut lines, mut grown) = (Vec::new(), Vec::new());
        for (name, count) in counts {
            let stored = self.instructions.get(name);
            let line = match stored {
                Some(stored) => {
                    let percent = 100.0 * (*count as f64 / *stored as f64 - 1.0);
                    format!("{name}: {stored} -> {count} instructions ({percent:+.2} %)")
                }
                None => format!("{name}: {count} instructions, not in the baseline"),
            };
            if stored.is_none_or(|stored| count * 100 > stored * 101) {
                grown.push(line.clone());
            }
            lines.push(line);
        }
        if compiler != self.compiler {
            let Baseline { compiler: stored, .. } = self;
            lines.insert(0, format!("not compared: the baseline is from {stored}, this is {compiler}"));
        } else if !grown.is_empty() {
            bail!("more than 1 % above the baseline: {}\n{UPDATE}", grown.join("; "));
        }
        Ok(lines)
    }

    /// Adds counts to the stored ones and prints what changed. Counts from another compiler are dropped.
    pub(crate) fn update(mut self, compiler: String, counts: BTreeMap<String, u64>) -> Result<()> {
        if compiler != self.compiler {
            println!("{} -> {compiler}: dropping all other counts", self.compiler);
            self.instructions.clear();
        }
        for (name, count) in &counts {
            match self.instructions.get(name) {
                Some(stored) => println!("{name}: {stored} -> {count} instructions"),
                None => println!("{name}: {count} instructions"),
            }
        }
        self.compiler = compiler;
        self.instructions.extend(counts);
        let path = path();
        let text = serde_json::to_string_pretty(&self)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

fn path() -> PathBuf {
    paths::root().join("tools").join("xtask").join("bench-baseline.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u64) -> BTreeMap<String, u64> {
        BTreeMap::from([("resnet8 default".to_string(), count)])
    }

    fn baseline() -> Baseline {
        Baseline { compiler: "rustc 1".into(), instructions: counts(1000) }
    }

    #[test]
    fn an_increase_by_one_percent_passes() {
        let lines = baseline().check("rustc 1", &counts(1010)).unwrap();
        assert_eq!(lines, ["resnet8 default: 1000 -> 1010 instructions (+1.00 %)"]);
    }

    #[test]
    fn a_larger_increase_fails_and_is_named() {
        let error = baseline().check("rustc 1", &counts(1011)).unwrap_err().to_string();
        assert!(error.contains("resnet8 default: 1000 -> 1011 instructions (+1.10 %)"), "{error}");
        assert!(error.contains("cargo xtask bench --update"), "{error}");
    }

    #[test]
    fn a_count_that_is_not_stored_fails() {
        let other = BTreeMap::from([("resnet8 speed".to_string(), 1)]);
        let error = baseline().check("rustc 1", &other).unwrap_err().to_string();
        assert!(error.contains("resnet8 speed: 1 instructions, not in the baseline"), "{error}");
    }

    #[test]
    fn counts_of_another_compiler_are_reported_and_not_compared() {
        let lines = baseline().check("rustc 2", &counts(2000)).unwrap();
        assert_eq!(lines[0], "not compared: the baseline is from rustc 1, this is rustc 2");
        assert!(lines[1].contains("+100.00 %"), "{lines:?}");
    }

    #[test]
    fn the_stored_baseline_is_valid() {
        Baseline::read().unwrap();
    }
}
