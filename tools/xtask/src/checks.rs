//! `cargo xtask test`: all checks, on the host and on the emulated board.

use std::cell::OnceCell;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{self, Counter, MODES, Measurement, Network};
use crate::board::{self, BOARDS, Board, EMULATED};
use crate::case::{Case, DIGITS, Tool};
use crate::firmware::{Build, CAMERA, SELF_TEST};
use crate::report::Report;
use crate::suite::{Outcome, Suite};
use crate::toolchain::{Toolchain, host_cargo, is_installed};
use crate::{
    dependencies, directions, emulator, flash_size, fuzz, packaging, panics, paths, process, setup, signature,
};

/// Maximum size in bytes of the demo's code and constants, with every kernel, without the model.
const MAX_CODE_BYTES: u64 = 40 * 1024;

/// Maximum stack in bytes of parsing, setting up and running, each below its caller's frame.
const MAX_STACK_BYTES: u64 = 2048;

/// Budgets of ResNet-8: mode, maximum arena size in bytes with the frame in it, maximum blob size in bytes.
const BUDGETS: [(&str, u64, u64); 3] =
    [("speed", 36 << 10, 420 << 10), ("balanced", 32 << 10, 100 << 10), ("memory", 12_800, 100 << 10)];

/// Number of images on which ResNet-56 is compared, and its maximum arena size in bytes.
const DEEP: (usize, u64) = (20, 18_432);

/// Targets and rustflags: Cortex-M0, M3, M33 with the DSP extension, 32-bit RISC-V.
const OTHER_CORES: [(&str, &str); 4] = [
    ("thumbv6m-none-eabi", ""),
    ("thumbv7m-none-eabi", ""),
    ("thumbv8m.main-none-eabihf", "--cfg skipstone_dsp -C target-cpu=cortex-m33"),
    ("riscv32imac-unknown-none-elf", ""),
];

/// The class that the photo shows.
const PHOTO_CLASS: &str = "cat";

/// The command.
pub(crate) fn run(only: &[String]) -> Result<ExitCode> {
    let bench = Bench {
        toolchain: setup::ensure(EMULATED)?,
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
    for board in board::flashable() {
        suite.check(&format!("board {}", board.name), || bench.real_board(board));
    }
    suite.check("emulated clock", || bench.clock());
    suite.check("emulated kernels", || bench.kernels());
    suite.check("emulated photo", || bench.photo_is_recognised());
    suite.check("emulated arena", || bench.arena_is_exact());
    suite.check("emulated parity, photo", || bench.parity(bench.photo()?, 1));
    suite.check("emulated parity, digits", || bench.parity(bench.digits()?, DIGITS));
    suite.check("emulated parity, ResNet-56", || bench.deep());
    suite.check("emulated camera", || bench.camera());
    suite.check("emulated swap", || bench.swap());
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
    // The build script includes the boards' modules, where `cargo fmt` does not find them.
    let modules = BOARDS.iter().map(|board| format!("src/board/{}", board.module()));
    let mut rustfmt = Command::new("rustfmt");
    process::run(rustfmt.current_dir(paths::firmware()).args(["--check", "--edition=2024"]).args(modules))?;
    process::run(host_cargo().current_dir(paths::root().join("fuzz")).args(["fmt", "--check"]))?;
    Ok(Outcome::pass("all workspaces are formatted"))
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

/// The runtime builds for other cores, most of which do not have the instructions of the assembly kernels.
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
        said.push(format!("skipped, install with `rustup target add {}`", missing.join(" ")));
    }
    let said = said.join("; ");
    Ok(if there.is_empty() { Outcome::skip(said) } else { Outcome::pass(said) })
}

/// What the firmware checks share, created on first use.
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

    /// Builds a program for the emulated board and runs it; an error if it fails.
    fn emulate(&self, program: &str, case: &Case) -> Result<Report> {
        let elf = Build::emulated(program, case).run(&self.toolchain)?;
        Ok(Report::new(emulator::run(&elf, |_| {})?.succeeded()?))
    }

    fn lint_firmware(&self) -> Result<Outcome> {
        if self.toolchain.is_debian() {
            return Ok(Outcome::skip(
                "Debian's Rust has no clippy, and the target is not installed in rustup's",
            ));
        }
        let photo = self.photo()?;
        let signed = photo.signed(self.tool()?, 1)?;
        let mut builds = vec![(self.toolchain.clone(), Build::emulated("", &signed))];
        for board in BOARDS {
            builds.push((setup::ensure(board)?, Build { board, ..Build::emulated("", photo) }));
        }
        for (toolchain, build) in builds {
            let mut command = toolchain.cargo("clippy");
            build.describe_to(&mut command);
            process::run(command.args(["--", "-D", "warnings"]))?;
        }
        // only this program: the feature needs a heap, which the others do not have
        let mut command = self.toolchain.cargo("clippy");
        Build::emulated(SELF_TEST, photo).describe_to(&mut command);
        process::run(command.args(["--bin", SELF_TEST, "--", "-D", "warnings"]))?;
        let mut command = self.toolchain.cargo("clippy");
        Build::emulated(CAMERA, photo).describe_to(&mut command);
        process::run(command.args(["--", "-D", "warnings"]))?;
        Ok(Outcome::pass("no warnings for any board, nor with `signature`, `self-test` or `embassy`"))
    }

    fn real_board(&self, board: &'static Board) -> Result<Outcome> {
        let case = self.photo()?;
        let elf = Build { board, ..Build::emulated("demo", case) }.run(&setup::ensure(board)?)?;
        let code = flash_size::code_bytes(&elf, case)?;
        Ok(Outcome::pass(format!("builds and links; {code} B of code and constants")))
    }

    /// The clock counts the instructions of loops of known length, including overflows of SysTick's 24 bits.
    fn clock(&self) -> Result<Outcome> {
        let report = self.emulate("clock", self.photo()?)?;
        let mut longest = 0;
        for line in report.all("spin") {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [executed, counted] = numbers[..] else { bail!("the firmware printed `spin {line}`") };
            // A tick is 40 instructions, and the call around the loop takes a few more.
            ensure!(counted.abs_diff(executed) <= 80, "counted {counted} instructions, executed {executed}");
            longest = longest.max(executed);
        }
        ensure!(longest > 40 << 24, "no loop was long enough to overflow SysTick");
        Ok(Outcome::pass(format!("exact to 80 of {longest} instructions")))
    }

    /// The kernels pass their tests on the core that they are written for.
    fn kernels(&self) -> Result<Outcome> {
        let report = self.emulate(SELF_TEST, self.photo()?)?;
        let mut cases = 0;
        for line in report.all("tested") {
            let count = line.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
            match count {
                Some(count @ 1..) => cases += count,
                _ => bail!("no cases were tested: `{line}`"),
            }
        }
        ensure!(cases > 0, "no cases were tested: {:#?}", report.lines());
        Ok(Outcome::pass(format!("{cases} cases, identical to the reference")))
    }

    fn photo_is_recognised(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let report = self.emulate("demo", case)?;
        let saw = report.text("saw")?;
        ensure!(saw.starts_with(PHOTO_CLASS), "the board recognised `{saw}`, expected {PHOTO_CLASS}");
        let (board, host) = (report.text("scores")?, &case.on_host()?.scores[0]);
        ensure!(board == host, "scores differ:\nboard {board}\nhost  {host}");
        let again = self.emulate("demo", case)?;
        ensure!(again.lines() == report.lines(), "the output of a second run differs: {:#?}", again.lines());
        let (run, stack) = (report.number("run")?, report.number("stack")?);
        let per_mac = run as f64 / case.facts.macs as f64;
        Ok(Outcome::pass(format!(
            "{saw}; {run} instructions ({per_mac:.2} per MAC), the same in a second run; {stack} B of stack"
        )))
    }

    /// The network runs with the arena size that `skipstone inspect` prints, and is rejected with one byte less.
    fn arena_is_exact(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let (frame, rows) = (case.facts.arena_bytes, case.facts.arena_bytes_rows);
        let stated = self.emulate("demo", case)?.number("arena")?;
        ensure!(stated == rows, "`skipstone inspect` prints {rows} B, the board ran with {stated} B");
        let elf =
            Build { arena_bytes_rows: rows - 1, ..Build::emulated("demo", case) }.run(&self.toolchain)?;
        let refusal = emulator::run(&elf, |_| {})?.failed()?.join("\n");
        for number in [rows, rows - 1] {
            ensure!(refusal.contains(&number.to_string()), "the error does not contain {number}: {refusal}");
        }
        Ok(Outcome::pass(format!(
            "{frame} B with the frame in it, {rows} B if fed by rows; one byte less is rejected"
        )))
    }

    /// Board and host compute identical scores, fed by rows and with the frame in the arena.
    fn parity(&self, case: &Case, images: usize) -> Result<Outcome> {
        let host = case.on_host()?.scores;
        ensure!(host.len() == images, "{} images, expected {images}", host.len());
        let report = self.emulate("parity", case)?;
        for how in ["rows", "frame"] {
            let mut board = report.all(how);
            for (index, host) in host.iter().enumerate() {
                let line = board.next().with_context(|| format!("no line `{how}` for image {index}"))?;
                let scores = line.split_once(' ').map_or("", |(_, scores)| scores);
                ensure!(scores == host, "image {index}, {how}:\nboard {scores}\nhost  {host}");
            }
        }
        Ok(Outcome::pass(format!("{images} images, by rows and by frame: identical scores")))
    }

    /// A deep network runs in little RAM.
    fn deep(&self) -> Result<Outcome> {
        let (pictures, most) = DEEP;
        let case = Network::deep(self.tool()?, pictures)?;
        let arena = case.facts.arena_bytes;
        ensure!(arena <= most, "the arena is {arena} B, at most {most} B are allowed");
        self.parity(&case, pictures)?;
        Ok(Outcome::pass(format!(
            "{arena} B of arena; {pictures} images, by rows and by frame: identical scores"
        )))
    }

    /// Under an async executor, a network takes rows from a camera task while another task runs in between.
    fn camera(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let (report, host) = (self.emulate(CAMERA, case)?, &case.on_host()?.scores[0]);
        for image in 0..2 {
            let expected = format!("{image} {host}");
            let mut lines = report.all("async");
            ensure!(
                lines.any(|line| line == expected),
                "image {image}: the host's scores are missing: {host}"
            );
        }
        let others =
            report.lines().iter().filter_map(|line| line.split_once(" rows received; another task ran "));
        let times: Vec<u32> = others.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok()).collect();
        ensure!(times.len() == 2 && !times.contains(&0), "another task did not run in between: {times:?}");
        Ok(Outcome::pass(format!("2 images by rows; another task ran {times:?} times; identical scores")))
    }

    /// One network and one arena run two models in turn.
    fn swap(&self) -> Result<Outcome> {
        let (photo, digits) = (self.photo()?, self.digits()?);
        let build = Build { update: Some(digits), ..Build::emulated("swap", photo) };
        let report = Report::new(emulator::run(&build.run(&self.toolchain)?, |_| {})?.succeeded()?);
        let bytes = photo.image_bytes()?;
        let hosts = [photo.scores_of(&bytes)?, digits.scores_of(&bytes)?];
        for (turn, model) in [0, 1, 0, 1].into_iter().enumerate() {
            let expected = format!("{turn} model {model} {}", hosts[model]);
            let board: Vec<_> = report.all("turn").collect();
            ensure!(board.contains(&&*expected), "expected `turn {expected}`, the board printed {board:#?}");
        }
        Ok(Outcome::pass("two models, four turns: identical scores"))
    }

    /// A network is updated in the field; after an interrupted or forged update, the old one runs.
    fn update(&self) -> Result<Outcome> {
        signature::check_update(self.tool()?, self.digits()?, &self.toolchain).map(Outcome::pass)
    }

    /// ResNet-8 stays within its budgets in each mode.
    fn budgets(&self) -> Result<Outcome> {
        let mut lines = Vec::new();
        for (name, arena, blob) in BUDGETS {
            let mode = MODES.iter().find(|mode| mode.name == name).context("a mode is missing")?;
            let facts = Network::Resnet8.case(mode, self.tool()?)?.facts;
            ensure!(
                facts.arena_bytes <= arena,
                "{name}: {} B of arena, at most {arena} allowed",
                facts.arena_bytes
            );
            ensure!(
                facts.blob_bytes <= blob,
                "{name}: {} B of blob, at most {blob} allowed",
                facts.blob_bytes
            );
            lines.push(format!("{name}: {} B of arena, {} B of blob", facts.arena_bytes, facts.blob_bytes));
        }
        Ok(Outcome::pass(lines.join("; ")))
    }

    /// Nothing in the runtime can panic, checked at link time.
    fn panic_free(&self) -> Result<Outcome> {
        panics::check(self.photo()?, &self.toolchain)?;
        Ok(Outcome::pass("links without a panic, with the runtime optimized for size and for speed"))
    }

    /// Parsing, setting up and running need at most [`MAX_STACK_BYTES`].
    fn stack(&self) -> Result<Outcome> {
        let mut lines = Vec::new();
        let mut check = |name: &str, program: &str, case: &Case| -> Result<()> {
            let stacks = self.emulate(program, case)?.stacks()?;
            let deepest = stacks.iter().max().copied().unwrap_or_default();
            ensure!(
                deepest <= MAX_STACK_BYTES,
                "{name}: {stacks:?} B of stack to parse, set up and run; at most {MAX_STACK_BYTES} allowed"
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
        Ok(Outcome::pass(format!("{}; at most {MAX_STACK_BYTES} B allowed", lines.join(", "))))
    }

    fn flash_size(&self) -> Result<Outcome> {
        let case = self.photo()?;
        let code = |all_kernels| -> Result<u64> {
            let elf = Build { all_kernels, ..Build::emulated("demo", case) }.run(&self.toolchain)?;
            flash_size::code_bytes(&elf, case)
        };
        let (all, own) = (code(true)?, code(false)?);
        ensure!(all <= MAX_CODE_BYTES, "{all} B of code and constants, at most {MAX_CODE_BYTES} allowed");
        Ok(Outcome::pass(format!(
            "{own} B of code and constants; {all} B with every kernel, at most {MAX_CODE_BYTES} allowed"
        )))
    }

    /// Both emulators count the same instructions, and the cycle model passes its tests.
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

/// The cell's value, created on first use.
fn shared<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}
