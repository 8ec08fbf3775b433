//! The program `skipstone`: its commands, its exit code, and how an error reaches the person.

mod commands;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{convert, eval, inspect, keygen, preprocess, run, sign, text, verify};

const EXAMPLES: &str = "\
Examples:
  skipstone convert resnet8.onnx --calibrate images/ --output resnet8.skip
  skipstone inspect resnet8.skip
  skipstone eval resnet8.skip --data test.bin --against resnet8.onnx
  skipstone run resnet8.skip cat.png

Exit code: 0 success, 1 failure (the message on standard error says what, where and what to do), 2 \
wrong usage. RAYON_NUM_THREADS limits the cores that are used.";

/// int8 residual networks for microcontrollers: convert, inspect, evaluate, run and sign them on this machine.
///
/// A network runs here with the very code that runs on the board: the answers are the same, bit for bit.
#[derive(Parser)]
#[command(name = "skipstone", version, after_help = EXAMPLES, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Convert(convert::Arguments),
    Inspect(inspect::Arguments),
    Eval(eval::Arguments),
    Run(run::Arguments),
    Preprocess(preprocess::Arguments),
    Keygen(keygen::Arguments),
    Sign(sign::Arguments),
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Convert(arguments) => convert::execute(&arguments),
        Command::Inspect(arguments) => inspect::execute(&arguments),
        Command::Eval(arguments) => eval::execute(&arguments),
        Command::Run(arguments) => run::execute(&arguments),
        Command::Preprocess(arguments) => preprocess::execute(&arguments),
        Command::Keygen(arguments) => keygen::execute(&arguments),
        Command::Sign(arguments) => sign::execute(&arguments),
        Command::Verify(arguments) => verify::execute(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // names in a message may come from a file; where standard error is closed, the exit code has to do
            let _ = io::stderr().write_all(text::printable(&format!("error: {error:#}\n")).as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of standard output has gone, as `head` does: no failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_broken))
}
