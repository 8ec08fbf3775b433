//! Runs firmware in QEMU: decodes its output, stops it if it hangs, and checks how it ends.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use defmt_decoder::{DecodeError, StreamDecoder, Table};

use crate::board::{Board, EMULATED, Runner};
use crate::process;

/// No input or output except semihosting. With `-icount shift=0`, an instruction takes one nanosecond of virtual
/// time, so that the board's timers count instructions.
const ARGUMENTS: &[&str] = &[
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

/// Time limit for one program, generous even for a slow computer.
const LIMIT: Duration = Duration::from_secs(300);

/// The firmware's last line. If output is lost or the ELF is wrong, QEMU still exits with success.
const SENTINEL: &str = "skipstone: done";

/// The output and exit status of a program.
pub(crate) struct Run {
    lines: Vec<String>,
    status: ExitStatus,
}

impl Run {
    /// The lines of a successful run, without the sentinel; an error if the run failed or is incomplete.
    pub(crate) fn succeeded(mut self) -> Result<Vec<String>> {
        let printed = || if self.lines.is_empty() { "nothing".into() } else { self.lines.join("\n") };
        if !self.status.success() {
            bail!("the firmware failed (QEMU: {}); it printed:\n{}", self.status, printed());
        }
        if self.lines.last().is_none_or(|line| line != SENTINEL) {
            bail!(
                "the firmware's output is incomplete, it does not end with `{SENTINEL}`; it printed:\n{}",
                printed()
            );
        }
        self.lines.pop();
        Ok(self.lines)
    }

    /// The lines of a run that must fail; an error if it did not.
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

/// Runs a program on the default board and passes each line that it prints to `each`.
pub(crate) fn run(elf: &Path, each: impl FnMut(&str)) -> Result<Run> {
    run_on(EMULATED, elf, each)
}

/// Runs a program on an emulated board and passes each line that it prints to `each`.
pub(crate) fn run_on(board: &Board, elf: &Path, mut each: impl FnMut(&str)) -> Result<Run> {
    let Runner::Qemu { program, machine } = board.runner else { bail!("{} is not emulated", board.name) };
    let name = elf.display();
    let bytes = fs::read(elf).with_context(|| format!("reading {name}"))?;
    let table = Table::parse(&bytes).with_context(|| format!("{name}: reading its log messages"))?;
    let table = table.with_context(|| format!("{name} has no log messages: was it linked with defmt.x?"))?;

    let mut command = Command::new(program);
    command
        .args(["-M", machine])
        .args(ARGUMENTS)
        .arg("-kernel")
        .arg(elf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let missing = || format!("cannot start {program}; `cargo xtask setup` installs it");
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
        format!("`{}`; its last line was: {last}", process::line(&command))
    })?;
    let status = child.wait().context("waiting for QEMU")?;
    Ok(Run { lines, status })
}

/// Reads in a thread, so that the receiver can wait with a time limit.
fn receive(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // After a read error the sentinel is missing, which is reported.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Decodes frames until the output ends; an error if that takes longer than [`LIMIT`].
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
            Err(RecvTimeoutError::Timeout) => bail!("stopped after {} s", LIMIT.as_secs()),
        }
        loop {
            match decoder.decode() {
                Ok(frame) => each(frame.display_message().to_string()),
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => bail!("the output is not a valid log message"),
            }
        }
    }
}
