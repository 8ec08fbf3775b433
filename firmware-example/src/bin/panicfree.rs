//! Links only if nothing in the runtime, with every kernel, can panic: `cargo xtask test "panic free"`.
//!
//! It is linked, not run. The panic handler calls an undefined function, so linking fails if any panic is left.
//! `black_box` hides the inputs from the compiler, which otherwise could remove panics that they rule out.
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
    // SAFETY: never called: a program that contains this call does not link.
    unsafe { skipstone_panics() }
}

#[entry]
fn main() -> ! {
    black_box(engine());
    loop {
        cortex_m::asm::wfi();
    }
}

/// Uses everything that firmware uses of the runtime.
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

/// Bytes that the compiler knows nothing about.
fn bytes() -> &'static [u8] {
    black_box(&[])
}

/// Memory that the compiler knows nothing about.
fn memory() -> &'static mut [u8] {
    black_box(&mut [])
}
