//! Runs firmware in QEMU: decodes what it prints, stops it when it hangs, and demands a proper end.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::process;

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-arm";

/// QEMU's board, and nothing but semihosting in and out. With `-icount shift=0` an instruction takes
/// a nanosecond of virtual time, so that the board's timers count instructions.
const ARGUMENTS: &[&str] = &[
    "-M",
    "mps2-an386",
    "-icount",
    "shift=0",
    "-display",
    "none",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-semihosting-config",
    "enable=on,target=native",
];

/// Longer than any of our programs takes on a slow computer.
const LIMIT: Duration = Duration::from_secs(300);

/// The firmware's last line. Lost output and an ELF that prints nothing both exit with success.
const SENTINEL: &str = "skipstone: done";

/// What a program printed and how it ended.
pub(crate) struct Run {
    lines: Vec<String>,
    status: ExitStatus,
}

impl Run {
    /// The lines of a run that ended well, without the last one; an error for any other run.
    pub(crate) fn succeeded(mut self) -> Result<Vec<String>> {
        let printed = || if self.lines.is_empty() { "nothing".into() } else { self.lines.join("\n") };
        if !self.status.success() {
            bail!("the firmware failed (QEMU: {}); it printed:\n{}", self.status, printed());
        }
        if self.lines.last().is_none_or(|line| line != SENTINEL) {
            bail!(
                "the firmware's output is not complete: no `{SENTINEL}` at its end; it printed:\n{}",
                printed()
            );
        }
        self.lines.pop();
        Ok(self.lines)
    }

    /// The lines of a run that was meant to fail; an error for one that did not.
    pub(crate) fn failed(self) -> Result<Vec<String>> {
        if self.status.code() == Some(1) {
            return Ok(self.lines);
        }
        bail!(
            "the firmware should have failed (QEMU: {}); it printed:\n{}",
            self.status,
            self.lines.join("\n")
        )
    }
}

/// Runs a program and shows its output as it comes; an error unless it ends well.
pub(crate) fn show(elf: &Path) -> Result<()> {
    run(elf, |line| println!("{line}"))?.succeeded()?;
    Ok(())
}

/// Runs a program and gives each line that it prints to `each`.
pub(crate) fn run(elf: &Path, mut each: impl FnMut(&str)) -> Result<Run> {
    let name = elf.display();
    let bytes = fs::read(elf).with_context(|| format!("reading {name}"))?;
    let table = Table::parse(&bytes).with_context(|| format!("{name}: its log messages cannot be read"))?;
    let table = table.with_context(|| format!("{name} has no log messages: was it linked with defmt.x?"))?;

    let mut command = Command::new(QEMU);
    command.args(ARGUMENTS).arg("-kernel").arg(elf).stdin(Stdio::null()).stdout(Stdio::piped());
    let missing = || format!("cannot start {}; `cargo xtask setup` installs it", QEMU);
    let mut child = command.spawn().with_context(missing)?;
    let stdout = child.stdout.take().context("QEMU's output is not connected")?;

    let mut lines = Vec::new();
    let output = receive(stdout);
    let mut decoder = table.new_stream_decoder();
    let decoded = decode(&output, decoder.as_mut(), |line| {
        each(&line);
        lines.push(line);
    });
    if decoded.is_err() {
        child.kill().and_then(|()| child.wait())?;
    }
    decoded.with_context(|| {
        let last = lines.last().map_or("nothing", String::as_str);
        format!("`{}`, which printed last: {last}", process::line(&command))
    })?;
    let status = child.wait().context("waiting for QEMU")?;
    Ok(Run { lines, status })
}

/// Reads in a thread, so that the other end can stop waiting.
fn receive(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // A read error ends the output as its end does; the missing last line tells.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Decodes frames until the output ends or [`LIMIT`] is over.
fn decode(
    output: &Receiver<Vec<u8>>,
    decoder: &mut dyn StreamDecoder,
    mut each: impl FnMut(String),
) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        match output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => decoder.received(&bytes),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("still running after {} s, stopped", LIMIT.as_secs()),
        }
        loop {
            match decoder.decode() {
                Ok(frame) => each(frame.display_message().to_string()),
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => bail!("printed something that is not a log message"),
            }
        }
    }
}
