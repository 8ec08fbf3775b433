//! Runs other programs; errors name the command line.

use std::io::{BufRead, BufReader};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command line, with the program's name without its folder.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a program, with its output to the terminal; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    succeeded(command, status)
}

/// Runs a program and returns its standard output; if it fails, the error contains its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}):\n{}", line(command), String::from_utf8_lossy(&stderr).trim_end());
    }
    String::from_utf8(stdout).with_context(|| format!("the output of `{}` is not UTF-8", line(command)))
}

/// The output of a program, or `None` if it is missing or fails.
pub(crate) fn probe(program: impl Into<PathBuf>, arguments: &[&str]) -> Option<String> {
    output(Command::new(program.into()).args(arguments)).ok()
}

/// Runs a program, passes each line of its output to `each`, and returns its exit status.
pub(crate) fn lines(command: &mut Command, mut each: impl FnMut(String)) -> Result<ExitStatus> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start `{}`", line(command)))?;
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).lines() {
            each(text.with_context(|| format!("reading from `{}`", line(command)))?);
        }
    }
    child.wait().with_context(|| format!("waiting for `{}`", line(command)))
}

/// Runs `cargo test`, shows its output and returns the number of tests that passed and failed; an error if it fails
/// for another reason.
pub(crate) fn tests(command: &mut Command) -> Result<(usize, usize)> {
    let (mut passed, mut failed) = (0, 0);
    let status = lines(command, |line| {
        println!("{line}");
        // "test result: ok. 12 passed; 0 failed; 0 ignored; ..."
        if let Some(result) = line.strip_prefix("test result: ") {
            let numbers: Vec<usize> =
                result.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            passed += numbers.first().unwrap_or(&0);
            failed += numbers.get(1).unwrap_or(&0);
        }
    })?;
    if failed == 0 {
        succeeded(command, status)?;
    }
    Ok((passed, failed))
}

/// An error if the program failed.
pub(crate) fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status})", line(command))
}

/// Builds with cargo and returns the executables that it built or that were up to date.
pub(crate) fn cargo_build(command: &mut Command) -> Result<Vec<PathBuf>> {
    command.arg("--message-format=json-render-diagnostics");
    let mut executables = Vec::new();
    let status = lines(command, |text| {
        let message: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        executables.extend(message["executable"].as_str().map(PathBuf::from));
    })?;
    succeeded(command, status)?;
    Ok(executables)
}

/// Runs a program with a time limit; an error if it fails or exceeds the limit.
pub(crate) fn run_for(limit: Duration, command: &mut Command) -> Result<()> {
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", line(command)))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return succeeded(command, status);
        }
        if start.elapsed() > limit {
            child.kill().and_then(|()| child.wait())?;
            bail!("`{}` was stopped after {} s", line(command), limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
