//! Fuzz targets: what each does with its bytes, how they are mutated, and the memory that they may take.
//!
//! A target is a property that holds for all bytes: no panic, no access out of bounds (AddressSanitizer
//! looks on), an end in bounded time, and no more memory than [`memory::within`] allows.
//! `docs/robustness.md` says how they are run.

pub mod archive;
pub mod blob;
pub mod data;
pub mod import;
pub mod memory;

use std::path::Path;

/// Random choices of a mutation.
pub type Random = fastrand::Rng;

/// Bytes that are being mutated.
pub type Bytes = Vec<u8>;

/// A mutation of any bytes: libFuzzer's own, or [`scatter`].
pub type Plain<'p> = dyn FnMut(&mut Bytes) + 'p;

/// A mutation that knows the format, and leaves parts of the file to a plain one.
pub type Mutate = fn(&mut Bytes, &mut Random, &mut Plain<'_>);

/// The entry of a fuzz target: libFuzzer's or, without `--cfg fuzzing`, a program that runs the files
/// that it is given and some mutations of each.
#[macro_export]
macro_rules! target {
    ($body:path, $mutate:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutated(data, size, max_size, seed, $mutate, libfuzzer_sys::fuzzer_mutate)
        });
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $body(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> std::process::ExitCode {
            $crate::replay($body, $mutate)
        }
    };
}

/// libFuzzer's calling convention for [`Mutate`].
pub fn mutated(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    mutate: Mutate,
    plain: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut bytes = data[..size].to_vec();
    mutate(&mut bytes, &mut Random::with_seed(seed.into()), &mut |part| {
        let size = part.len();
        part.resize(size + 64, 0);
        let size = plain(part, size, size + 64);
        part.truncate(size);
    });
    bytes.truncate(max_size);
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// Leaves all to the plain mutation.
pub fn plain(bytes: &mut Bytes, _: &mut Random, plain: &mut Plain<'_>) {
    plain(bytes);
}

/// Runs the files in the program's arguments, and of each as many mutations as `MUTATIONS` says. A panic names the file and the mutation.
pub fn replay(body: fn(&[u8]), mutate: Mutate) -> std::process::ExitCode {
    let mutations = std::env::var("MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut runs = 0;
    for path in std::env::args_os().skip(1) {
        let Ok(seed) = std::fs::read(&path) else {
            eprintln!("{}: cannot be read", Path::new(&path).display());
            return std::process::ExitCode::FAILURE;
        };
        for mutation in 0..=mutations {
            let place = || format!("{}, mutation {mutation}", Path::new(&path).display());
            let told = Told(place());
            let mut bytes = seed.clone();
            let mut random = Random::with_seed(mutation);
            for _ in 0..mutation.min(3) {
                let mut inner = random.fork();
                mutate(&mut bytes, &mut random, &mut |part| scatter(part, &mut inner));
            }
            body(&bytes);
            runs += 1;
            drop(told);
        }
    }
    println!("{runs} runs");
    std::process::ExitCode::SUCCESS
}

/// Says what was being run when a panic passes by.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("while running {}", self.0);
        }
    }
}

/// Bytes changed, left out, put in and repeated: what takes libFuzzer's place where it is not there.
pub fn scatter(bytes: &mut Bytes, random: &mut Random) {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
        let at = random.usize(..bytes.len());
        match random.u8(..8) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, random.u8(..)),
            2 => bytes.truncate(at),
            3 => bytes[at] ^= 1 << random.u8(..8),
            4 => {
                let end = bytes.len().min(at + random.usize(1..64));
                let to = random.usize(..bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(to..to, part);
            }
            5 => bytes[at] = random.u8(..),
            _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
        }
    }
}
