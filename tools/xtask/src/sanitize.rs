//! `cargo xtask sanitize`: tests under AddressSanitizer and valgrind; see `docs/robustness.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::suite::{Outcome, Suite};
use crate::toolchain::{Nightly, host_cargo};
use crate::{packages, paths, process};

/// The only supported host.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The host tool's tests: importers, readers, the command line. Tests that evaluate whole data sets are left out.
const TOOLS: &[&str] = &["--lib", "--test=import", "--test=cli"];

/// Tests to run under valgrind, which is about 50 times slower: the portable versions of the kernels, and the executor
/// with every kind of layer. They take 1 to 2 minutes.
const UNDER_VALGRIND: [(&str, &str); 4] = [
    ("--lib", "kernels"),
    ("--test=runtime", "executor"),
    ("--test=runtime", "whole_tensors"),
    ("--test=runtime", "blocks"),
];

/// The command; `only` as in `cargo xtask test`.
pub(crate) fn run(only: &[String]) -> Result<ExitCode> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "`cargo xtask sanitize` supports only {HOST}"
    );
    let mut suite = Suite::new(only);
    suite.check("address sanitizer, runtime", || address_sanitizer("skipstone", &["--lib", "--tests"]));
    suite.check("address sanitizer, tools", || address_sanitizer("skipstone-tools", TOOLS));
    suite.check("valgrind", valgrind);
    Ok(suite.finish())
}

/// Runs a package's tests under AddressSanitizer, which checks every memory access.
fn address_sanitizer(package: &str, which: &[&str]) -> Result<Outcome> {
    let mut command = Nightly::find()?.cargo();
    command.args(["test", "--quiet", "--no-fail-fast", "--package", package]).args(which);
    // with an explicit target, build scripts and macros are compiled without the sanitizer
    command.args(["--target", HOST, "--target-dir"]).arg(folder("asan"));
    command.env("RUSTFLAGS", "-Zsanitizer=address");
    // clap and others keep memory until the end, which is not a leak
    command.env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=1");
    let (passed, failed) = process::tests(&mut command)?;
    Ok(Outcome::tests(passed, failed))
}

/// Runs some tests under valgrind, which also finds uses of uninitialized memory.
fn valgrind() -> Result<Outcome> {
    if process::probe("valgrind", &["--version"]).is_none() {
        println!("Installing valgrind: apt-get install valgrind");
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
        ensure!(good + bad > 0, "no test has a name with {filter}");
        (passed, failed) = (passed + good, failed + bad);
    }
    Ok(Outcome::tests(passed, failed))
}

/// A target directory of its own, because all dependencies are compiled with other flags.
fn folder(name: &str) -> PathBuf {
    paths::root().join("target").join(name)
}
