//! Tests the kernels on this core: every algorithm against the reference, with random shapes and extreme values,
//! then whole blocks. The host runs the same tests.
#![no_std]
#![no_main]

extern crate alloc;

#[path = "../../../src/kernels/tests/layers.rs"]
#[allow(dead_code)] // the library's own tests use the rest
mod layers;
#[path = "../../../src/kernels/tests/naive.rs"]
#[allow(dead_code)]
mod naive;
#[path = "../../../tests/runtime/naive_block.rs"]
mod naive_block;
#[path = "../../../src/kernels/tests/random.rs"]
mod random;

use alloc::vec;

use cortex_m_rt::entry;
use defmt::println;
use embedded_alloc::LlffHeap;
use firmware_example::exit;

use naive_block::NaiveBlock;
use random::Random;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

const HEAP_BYTES: usize = 208 * 1024;

const BLOCKS: u64 = 100;

#[entry]
fn main() -> ! {
    // SAFETY: called once, before the first allocation.
    unsafe {
        embedded_alloc::init!(HEAP, HEAP_BYTES);
    }

    skipstone::host::self_test(|kernels, what, cases| {
        println!("tested  {=usize} cases: {=str}, {=str}", cases, kernels, what);
    });
    for seed in 0..BLOCKS {
        let block = NaiveBlock::random(&mut Random::new(seed));
        let checked = block.checked();
        let mut output = vec![99; checked.output().len()];
        let ran = checked.run(&block.input.values, &mut vec![0; checked.scratch_len()], &mut output);
        assert!(ran.is_ok() && output == block.run().values, "block with seed {seed}");
    }
    println!("tested  {=u64} blocks", BLOCKS);
    exit()
}
