//! `cargo xtask test`: everything that must hold, on the host and on the emulated board.

use std::cell::OnceCell;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{self, Counter, MODES, Measurement, Network};
use crate::board::Board;
use crate::case::{Case, DIGITS, Tool};
use crate::firmware::{Build, SELF_TEST};
use crate::report::Report;
use crate::suite::{Outcome, Suite};
use crate::toolchain::{Toolchain, host_cargo, is_installed};
use crate::{
    dependencies, directions, emulator, flash_size, fuzz, packaging, panics, paths, process, setup, signature,
};

/// Code and constants of the demo beside its model, with every kernel.
const MAX_CODE_BYTES: u64 = 40 * 1024;

/// Stack of parsing, of setting up and of running, each below its caller's frame.
const MAX_STACK_BYTES: u64 = 2048;

/// What ResNet-8 may need: mode, bytes of arena with the frame in it, bytes of blob.
const BUDGETS: [(&str, u64, u64); 3] =
    [("speed", 36 << 10, 420 << 10), ("balanced", 32 << 10, 100 << 10), ("memory", 12_800, 100 << 10)];

/// Pictures on which ResNet-56 is compared, and the arena that it may need.
const DEEP: (usize, u64) = (20, 18_432);

/// Cortex-M0, M3, M33 with its DSP extension, and a 32-bit RISC-V; and how they are built.
const OTHER_CORES: [(&str, &str); 4] = [
    ("thumbv6m-none-eabi", ""),
    ("thumbv7m-none-eabi", ""),
    ("thumbv8m.main-none-eabihf", "--cfg skipstone_dsp -C target-cpu=cortex-m33"),
    ("riscv32imac-unknown-none-elf", ""),
];

/// What the photo shows.
const PHOTO_CLASS: &str = "cat";

/// The command.
pub(crate) fn run(only: &[String]) -> Result<ExitCode> {
    let bench = Bench {
        toolchain: setup::ensure()?,
        tool: OnceCell::new(),
        photo: OnceCell::new(),
        digits: OnceCell::new(),
    };
    let mut suite = Suite::new(only);
    suite.check("format", format);
    suite.check("module directions", directions::check);
    suite.check("lint", lint);
    suite.check("lint firmware", || bench.lint_firmware());
    suite.check("host tests", host_tests);
    suite.check("fuzz seeds", || fuzz::seeds(bench.tool()?));
    suite.check("documentation", packaging::check_documentation);
    suite.check("packaged crate", packaging::check);
    suite.check("other cores", other_cores);
    suite.check("dependencies", dependencies::check);
    suite.check("oldest compiler", dependencies::check_oldest_compiler);
    suite.check("board nrf52840-dk", || bench.real_board());
    suite.check("emulated clock", || bench.clock());
    suite.check("emulated kernels", || bench.kernels());
    suite.check("emulated photo", || bench.photo_is_recognised());
    suite.check("emulated arena", || bench.arena_is_exact());
    suite.check("emulated parity, photo", || bench.parity(bench.photo()?, 1));
    suite.check("emulated parity, digits", || bench.parity(bench.digits()?, DIGITS));
    suite.check("emulated parity, ResNet-56", || bench.deep());
    suite.check("emulated update", || bench.update());
    suite.check("budgets", || bench.budgets());
    suite.check("panic free", || bench.panic_free());
    suite.check("stack", || bench.stack());
    suite.check("flash size", || bench.flash_size());
    suite.check("bench counts", || bench.counts());
    suite.check("bench baseline", || bench.baseline());
    Ok(suite.finish())
}

fn format() -> Result<Outcome> {
    process::run(host_cargo().args(["fmt", "--all", "--check"]))?;
    process::run(host_cargo().current_dir(paths::firmware()).args(["fmt", "--check"]))?;
    process::run(host_cargo().current_dir(paths::root().join("fuzz")).args(["fmt", "--check"]))?;
    Ok(Outcome::pass("all workspaces are as rustfmt writes them"))
}

fn lint() -> Result<Outcome> {
    let arguments =
        ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    process::run(host_cargo().args(arguments))?;
    Ok(Outcome::pass("no warnings"))
}

fn host_tests() -> Result<Outcome> {
    let mut command = host_cargo();
    command.args(["test", "--quiet", "--workspace", "--no-fail-fast"]);
    let (passed, failed) = process::tests(&mut command)?;
    Ok(Outcome::tests(passed, failed))
}

/// The runtime compiles for cores that have none of the instructions that we use in assembly.
fn other_cores() -> Result<Outcome> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (target, flags) in OTHER_CORES {
        if !is_installed(target) {
            missing.push(target);
            continue;
        }
        let mut command = host_cargo();
        command.args(["build", "--quiet", "--package", "skipstone", "--target", target]);
        process::run(command.env("RUSTFLAGS", flags))?;
        there.push(target);
    }
    let mut said = Vec::new();
    if !there.is_empty() {
        said.push(format!("builds for {}", there.join(", ")));
    }
    if !missing.is_empty() {
        said.push(format!("not tried, for want of `rustup target add {}`", missing.join(" ")));
    }
    let said = said.join("; ");
    Ok(if there.is_empty() { Outcome::skip(said) } else { Outcome::pass(said) })
}

/// What the checks on firmware share, made when the first of them needs it.
struct Bench {
    toolchain: Toolchain,
    tool: OnceCell<Tool>,
    photo: OnceCell<Case>,
    digits: OnceCell<Case>,
}

impl Bench {
    fn tool(&self) -> Result<&Tool> {
        shared(&self.tool, Tool::build)
    }

    fn photo(&self) -> Result<&Case> {
        shared(&self.photo, || Case::photo(self.tool()?))
    }

    fn digits(&self) -> Result<&Case> {
        shared(&self.digits, || Case::digits(self.tool()?))
    }

    /// Builds a program for the emulator and runs it to its proper end.
    fn emulate(&self, program: &str, case: &Case) -> Result<Report> {
        let elf = Build::emulated(program, case).run(&self.toolchain)?;
        Ok(Report::new(emulator::run(&elf, |_| {})?.succeeded()?))
    }

    fn lint_firmware(&self) -> Result<Outcome> {
        if let Toolchain::Debian { .. } = self.toolchain {
            return Ok(Outcome::skip(
                "Debian's Rust has no clippy, and rustup's has no `core` for this target",
            ));
        }
        let photo = self.photo()?;
        let signed = photo.signed(self.tool()?, 1)?;
        let real = Build { board: Board::Nrf52840Dk, ..Build::emulated("", photo) };
        for build in [Build::emulated("", photo), real, Build::emulated("", &signed)] {
            let mut command = self.toolchain.cargo("clippy");
            build.describe_to(&mut command);
            process::run(command.args(["--", "-D", "warnings"]))?;
        }
        // alone: the other programs have no heap, which the feature asks for
        let mut command = self.toolchain.cargo("clippy");
        Build::emulated(SELF_TEST, photo).describe_to(&mut command);
        process::run(command.args(["--bin", SELF_TEST, "--", "-D", "warnings"]))?;
        Ok(Outcome::pass("no warnings for either board, with `signature` or `self-test`"))
    }

    fn real_board(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let elf = Build { board: Board::Nrf52840Dk, ..Build::emulated("demo", case) }.run(&self.toolchain)?;
        let code = flash_size::code_bytes(&elf, case)?;
        Ok(Outcome::pass(format!("builds and links; {code} B of code and constants")))
    }

    /// SysTick counts instructions: loops of known length, and across the overflow of its 24 bits.
    fn clock(&self) -> Result<Outcome> {
        let report = self.emulate("clock", self.photo()?)?;
        let mut longest = 0;
        for line in report.all("spin") {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [executed, counted] = numbers[..] else { bail!("the firmware printed `spin {line}`") };
            // A tick is 40 instructions, and the call around the loop takes a few.
            ensure!(counted.abs_diff(executed) <= 80, "{executed} instructions were counted as {counted}");
            longest = longest.max(executed);
        }
        ensure!(longest > 40 << 24, "no loop was long enough for SysTick to overflow");
        Ok(Outcome::pass(format!("exact to 80 instructions in {longest}")))
    }

    /// The kernels' own tests, on the core that they are for.
    fn kernels(&self) -> Result<Outcome> {
        let report = self.emulate(SELF_TEST, self.photo()?)?;
        let mut cases = 0;
        for line in report.all("tested") {
            let count = line.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
            match count {
                Some(count @ 1..) => cases += count,
                _ => bail!("nothing was tested: `{line}`"),
            }
        }
        ensure!(cases > 0, "nothing was tested: {:#?}", report.lines());
        Ok(Outcome::pass(format!("{cases} cases: every bit as the oracle says")))
    }

    fn photo_is_recognised(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let report = self.emulate("demo", case)?;
        let saw = report.text("saw")?;
        ensure!(saw.starts_with(PHOTO_CLASS), "the board saw `{saw}`, the photo shows a {PHOTO_CLASS}");
        let (board, host) = (report.text("scores")?, &case.on_host()?.scores[0]);
        ensure!(board == host, "scores differ:\nboard {board}\nhost  {host}");
        let again = self.emulate("demo", case)?;
        ensure!(again.lines() == report.lines(), "a second run printed something else: {:#?}", again.lines());
        let (run, stack) = (report.number("run")?, report.number("stack")?);
        let per_mac = run as f64 / case.facts.macs as f64;
        Ok(Outcome::pass(format!(
            "{saw}; {run} instructions, twice ({per_mac:.2} per MAC); {stack} B of stack"
        )))
    }

    /// The network runs in exactly the bytes that `skipstone inspect` states, and not in one less.
    fn arena_is_exact(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let (frame, rows) = (case.facts.arena_bytes, case.facts.arena_bytes_rows);
        let stated = self.emulate("demo", case)?.number("arena")?;
        ensure!(stated == rows, "inspect states {rows} B fed by rows, the board ran in {stated}");
        let elf =
            Build { arena_bytes_rows: rows - 1, ..Build::emulated("demo", case) }.run(&self.toolchain)?;
        let refusal = emulator::run(&elf, |_| {})?.failed()?.join("\n");
        for number in [rows, rows - 1] {
            ensure!(refusal.contains(&number.to_string()), "the refusal does not name {number}: {refusal}");
        }
        Ok(Outcome::pass(format!(
            "{frame} B with the frame in it, {rows} B fed by rows, one less is refused"
        )))
    }

    /// Board and host give the same bits, fed by rows and with the frame in the arena.
    fn parity(&self, case: &Case, images: usize) -> Result<Outcome> {
        let host = case.on_host()?.scores;
        ensure!(host.len() == images, "{} images, {images} expected", host.len());
        let report = self.emulate("parity", case)?;
        for how in ["rows", "frame"] {
            let mut board = report.all(how);
            for (index, host) in host.iter().enumerate() {
                let line = board.next().with_context(|| format!("no line `{how}` for image {index}"))?;
                let scores = line.split_once(' ').map_or("", |(_, scores)| scores);
                ensure!(scores == host, "image {index}, {how}:\nboard {scores}\nhost  {host}");
            }
        }
        Ok(Outcome::pass(format!("{images} images, twice each: every bit of every score")))
    }

    /// A deep network in little RAM.
    fn deep(&self) -> Result<Outcome> {
        let (pictures, most) = DEEP;
        let case = Network::deep(self.tool()?, pictures)?;
        let arena = case.facts.arena_bytes;
        ensure!(arena <= most, "{arena} B of arena, {most} allowed");
        self.parity(&case, pictures)?;
        Ok(Outcome::pass(format!(
            "{arena} B of arena; {pictures} images, twice each: every bit of every score"
        )))
    }

    /// A network is replaced in the field: torn and forged images fall back.
    fn update(&self) -> Result<Outcome> {
        signature::check_update(self.tool()?, self.digits()?, &self.toolchain).map(Outcome::pass)
    }

    /// ResNet-8 in each mode needs no more than it may.
    fn budgets(&self) -> Result<Outcome> {
        let mut lines = Vec::new();
        for (name, arena, blob) in BUDGETS {
            let mode = MODES.iter().find(|mode| mode.name == name).context("a mode is missing")?;
            let facts = Network::Resnet8.case(mode, self.tool()?)?.facts;
            ensure!(facts.arena_bytes <= arena, "{name}: {} B of arena, {arena} allowed", facts.arena_bytes);
            ensure!(facts.blob_bytes <= blob, "{name}: {} B of blob, {blob} allowed", facts.blob_bytes);
            lines.push(format!("{name}: {} B of arena, {} B of blob", facts.arena_bytes, facts.blob_bytes));
        }
        Ok(Outcome::pass(lines.join("; ")))
    }

    /// Nothing in the engine can panic: the linker says so.
    fn panic_free(&self) -> Result<Outcome> {
        panics::check(self.photo()?, &self.toolchain)?;
        Ok(Outcome::pass("links without a panic, the runtime compiled for size and for speed"))
    }

    /// Parsing, setting up and running stay within [`MAX_STACK_BYTES`].
    fn stack(&self) -> Result<Outcome> {
        let mut lines = Vec::new();
        let mut check = |name: &str, program: &str, case: &Case| -> Result<()> {
            let stacks = self.emulate(program, case)?.stacks()?;
            let deepest = stacks.iter().max().copied().unwrap_or_default();
            ensure!(
                deepest <= MAX_STACK_BYTES,
                "{name}: {stacks:?} B of stack to parse, set up and run; {MAX_STACK_BYTES} allowed"
            );
            lines.push(format!("{name} {deepest} B"));
            Ok(())
        };
        check("digits", "demo", self.digits()?)?;
        check("cifar10-resnet8", "demo", self.photo()?)?;
        for network in [Network::Resnet8, Network::Resnet20, Network::Resnet56] {
            for mode in MODES {
                let case = network.case(mode, self.tool()?)?;
                check(&case.name, "bench", &case)?;
            }
        }
        Ok(Outcome::pass(format!("{}; {MAX_STACK_BYTES} B allowed", lines.join(", "))))
    }

    fn flash_size(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let code = |all_kernels| -> Result<u64> {
            let elf = Build { all_kernels, ..Build::emulated("demo", case) }.run(&self.toolchain)?;
            flash_size::code_bytes(&elf, case)
        };
        let (all, own) = (code(true)?, code(false)?);
        ensure!(all <= MAX_CODE_BYTES, "{all} B of code and constants, {MAX_CODE_BYTES} allowed");
        Ok(Outcome::pass(format!(
            "{own} B of code and constants; {all} B with every kernel, {MAX_CODE_BYTES} allowed"
        )))
    }

    /// Both emulators count the same instructions; the model of cycles passes its own tests.
    fn counts(&self) -> Result<Outcome> {
        let counter = Counter::ensure()?;
        counter.test()?;
        let case = Case::digits(self.tool()?)?;
        let measurement = Measurement::take("digits", "default", case, &self.toolchain, &counter)?;
        Ok(Outcome::pass(measurement.summary()))
    }

    fn baseline(&self) -> Result<Outcome> {
        let lines = bench::check_resnet8(self.tool()?, &self.toolchain)?;
        Ok(Outcome::pass(lines.join("; ")))
    }
}

/// The cell's value, made now where no check has made it before.
fn shared<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}
