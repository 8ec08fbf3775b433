//! The stored instruction counts, and whether new ones are within 1 % of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::paths;

/// How to store new counts.
const UPDATE: &str = "`cargo xtask bench --update` stores the new counts; commit them with their reason";

/// Instructions of one run of each network in each mode, and the compiler that made the firmware.
#[derive(Deserialize, Serialize)]
pub(crate) struct Baseline {
    compiler: String,
    instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// The one in the repository.
    pub(crate) fn read() -> Result<Baseline> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
    }

    /// A line for each count that says how it compares; an error where the compiler is the same and one
    /// grew by more than 1 % or is not known.
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
            lines.insert(0, format!("not judged: the baseline is of {stored}, this is {compiler}"));
        } else if !grown.is_empty() {
            bail!("grown by more than 1 % over the baseline: {}\n{UPDATE}", grown.join("; "));
        }
        Ok(lines)
    }

    /// Stores counts beside those that the same compiler gave before, and says what changed.
    pub(crate) fn update(mut self, compiler: String, counts: BTreeMap<String, u64>) -> Result<()> {
        if compiler != self.compiler {
            println!("{} -> {compiler}: all other counts are dropped", self.compiler);
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
    fn one_percent_more_passes() {
        let lines = baseline().check("rustc 1", &counts(1010)).unwrap();
        assert_eq!(lines, ["resnet8 default: 1000 -> 1010 instructions (+1.00 %)"]);
    }

    #[test]
    fn more_than_one_percent_more_fails_and_names_it() {
        let error = baseline().check("rustc 1", &counts(1011)).unwrap_err().to_string();
        assert!(error.contains("resnet8 default: 1000 -> 1011 instructions (+1.10 %)"), "{error}");
        assert!(error.contains("cargo xtask bench --update"), "{error}");
    }

    #[test]
    fn what_is_not_stored_fails() {
        let other = BTreeMap::from([("resnet8 speed".to_string(), 1)]);
        let error = baseline().check("rustc 1", &other).unwrap_err().to_string();
        assert!(error.contains("resnet8 speed: 1 instructions, not in the baseline"), "{error}");
    }

    #[test]
    fn another_compiler_is_not_judged_visibly() {
        let lines = baseline().check("rustc 2", &counts(2000)).unwrap();
        assert_eq!(lines[0], "not judged: the baseline is of rustc 1, this is rustc 2");
        assert!(lines[1].contains("+100.00 %"), "{lines:?}");
    }

    #[test]
    fn the_stored_baseline_can_be_read() {
        Baseline::read().unwrap();
    }
}
