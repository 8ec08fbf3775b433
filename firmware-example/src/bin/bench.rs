//! What one picture costs: counts parsing, setting up and running, and prints nothing in between.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, board, exit, inputs, measure, stack};
use skipstone::{Arena, Model, Network, Scores};
use static_cell::ConstStaticCell;

static ARENA: ConstStaticCell<Arena<{ inputs::ARENA_BYTES_ROWS }>> = ConstStaticCell::new(Arena::new());

#[cfg(not(feature = "signature"))]
fn parse() -> Result<Model<'static>, skipstone::ParseError> {
    Model::parse(inputs::MODEL)
}

#[cfg(feature = "signature")]
fn parse() -> Result<Model<'static>, skipstone::SignatureError> {
    Model::parse_signed(inputs::MODEL, inputs::PUBLIC_KEY)
}

/// The function that `cargo xtask bench` looks for: all that is executed in it is the run's.
#[inline(never)]
fn run<'n>(network: &'n mut Network) -> Scores<'n> {
    unwrap!(network.run(&inputs::IMAGES[..inputs::IMAGE_BYTES]))
}

#[entry]
fn main() -> ! {
    let (model, parse) = measure(|| unwrap!(parse()));
    let (mut network, new) = measure(|| -> Network { unwrap!(Network::new(model, ARENA.take())) });
    let (scores, run) = measure(|| run(&mut network));
    println!("scores  {}", Bits(scores.values()));
    for (name, cost) in [("parse  ", parse), ("new    ", new), ("run    ", run)] {
        println!("{=str} {=u64} {=str}, {=usize} B of stack", name, cost.time, board::UNIT, cost.stack);
    }
    println!("stack   {=usize} B at the deepest", stack::high_water());
    exit()
}
