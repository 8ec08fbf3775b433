//! `cargo xtask sanitize`: tests under AddressSanitizer and under valgrind; `docs/robustness.md` is about it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::suite::{Outcome, Suite};
use crate::toolchain::{Nightly, host_cargo};
use crate::{packages, paths, process};

/// The only hosts that both tools are used on here.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The tool's tests: importers, readers, the command line. Those that evaluate whole data sets are left out.
const TOOLS: &[&str] = &["--lib", "--test=import", "--test=cli"];

/// Tests that run under valgrind, some fifty times slower than alone: the kernels' portable twins and
/// their pointers, and the executor with every kind of layer. In a minute or two.
const UNDER_VALGRIND: [(&str, &str); 4] = [
    ("--lib", "kernels"),
    ("--test=runtime", "executor"),
    ("--test=runtime", "whole_tensors"),
    ("--test=runtime", "blocks"),
];

/// The command; `only` as in `cargo xtask test`.
pub(crate) fn run(only: &[String]) -> Result<ExitCode> {
    ensure!(cfg!(all(target_arch = "x86_64", target_os = "linux")), "sanitizers are set up for {HOST} alone");
    let mut suite = Suite::new(only);
    suite.check("address sanitizer, runtime", || address_sanitizer("skipstone", &["--lib", "--tests"]));
    suite.check("address sanitizer, tools", || address_sanitizer("skipstone-tools", TOOLS));
    suite.check("valgrind", valgrind);
    Ok(suite.finish())
}

/// A package's tests, every access checked.
fn address_sanitizer(package: &str, which: &[&str]) -> Result<Outcome> {
    let mut command = Nightly::find()?.cargo();
    command.args(["test", "--quiet", "--no-fail-fast", "--package", package]).args(which);
    // with a target named, build scripts and macros are compiled without the sanitizer
    command.args(["--target", HOST, "--target-dir"]).arg(folder("asan"));
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    // what clap and others keep to the end is no leak
    command.env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=1");
    let (passed, failed) = process::tests(&mut command)?;
    Ok(Outcome::tests(passed, failed))
}

/// Some tests, every access and every use of what was never written checked.
fn valgrind() -> Result<Outcome> {
    if process::probe("valgrind", &["--version"]).is_none() {
        println!("Missing, and to be installed:\n- valgrind\n    apt-get install valgrind");
        packages::install(&["valgrind"])?;
    }
    let (mut passed, mut failed) = (0, 0);
    for (target, filter) in UNDER_VALGRIND {
        let mut command = host_cargo();
        command.args(["test", "--quiet", "--package", "skipstone", target, filter]);
        command.env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
            "valgrind --quiet --error-exitcode=97 --errors-for-leak-kinds=none",
        );
        let (good, bad) = process::tests(&mut command).with_context(|| format!("{target} {filter}"))?;
        ensure!(good + bad > 0, "no test's name contains {filter}");
        (passed, failed) = (passed + good, failed + bad);
    }
    Ok(Outcome::tests(passed, failed))
}

/// Where sanitized programs are built: their dependencies are compiled in another way.
fn folder(name: &str) -> PathBuf {
    paths::root().join("target").join(name)
}
