//! The whole engine with every kernel, linked without a way to panic: `cargo xtask test "panic free"`.
//!
//! It is linked, not run. Its panic handler calls a function that does not exist, so that the linker refuses
//! the program if any panic is left in it; nothing is known of the inputs, so that none is optimized away.
#![no_std]
#![no_main]

#[path = "../interrupts.rs"]
mod interrupts;

use core::hint::black_box;
use core::panic::PanicInfo;

use cortex_m_rt::entry;
use skipstone::{Model, Network};

unsafe extern "C" {
    fn skipstone_panics() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: it is never linked.
    unsafe { skipstone_panics() }
}

#[entry]
fn main() -> ! {
    black_box(engine());
    loop {
        cortex_m::asm::wfi();
    }
}

/// Everything that firmware does with a network.
fn engine() -> Option<f32> {
    let model = Model::parse(bytes()).ok()?;
    model.verify().ok()?;
    black_box(model.label(black_box(0)));
    let mut network: Network = Network::new(model, memory()).ok()?;
    let mut sum = network.run(bytes()).ok()?.top::<3>().first()?.probability;
    network.set_up(model, memory()).ok()?;
    let scores = network.run_rows(|row, buffer| _ = black_box((row, buffer))).ok()?;
    sum += scores.values().iter().sum::<f32>();
    network.restart();
    sum += network.push_row(bytes()).ok()??.values().iter().sum::<f32>();
    network.swap(model).ok()?;
    let mut network: Network = Network::with_frame(model, memory()).ok()?;
    black_box(network.input_mut());
    sum += network.run_frame().ok()?.top::<1>().first()?.score;
    sum += network.output(black_box("features"))?.real().sum::<f32>();
    Some(sum + f32::from(*network.outputs().last()?.values()?.first()?))
}

/// Some bytes, for all that the compiler knows.
fn bytes() -> &'static [u8] {
    black_box(&[])
}

fn memory() -> &'static mut [u8] {
    black_box(&mut [])
}
