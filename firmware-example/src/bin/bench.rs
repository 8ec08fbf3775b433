//! What one picture costs: counts parsing, setting up and running, and prints nothing in between.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, Cost, board, exit, inputs, measure, stack};
use skipstone::error::RunError;
use skipstone::{Arena, Model, Network, Scores};
use static_cell::ConstStaticCell;

static NETWORK: ConstStaticCell<Network> = ConstStaticCell::new(Network::empty());
static ARENA: ConstStaticCell<Arena<{ inputs::ARENA_BYTES_ROWS }>> = ConstStaticCell::new(Arena::new());

#[cfg(not(feature = "signature"))]
fn model() -> Result<Model<'static>, skipstone::error::ParseError> {
    Model::parse(inputs::MODEL)
}

#[cfg(feature = "signature")]
fn model() -> Result<Model<'static>, skipstone::error::SignatureError> {
    Model::parse_signed(inputs::MODEL, inputs::PUBLIC_KEY)
}

/// The function that `cargo xtask bench` looks for: all that is executed in it is the run's.
#[inline(never)]
fn run<'n>(network: &'n mut Network) -> Result<Scores<'n>, RunError> {
    network.run(&inputs::IMAGES[..inputs::IMAGE_BYTES])
}

#[entry]
fn main() -> ! {
    let [mut parse, mut set_up, mut ran, mut verify] = [Cost::default(); 4];
    let model = unwrap!(measure(&mut parse, model));
    let (network, arena) = (NETWORK.take(), ARENA.take());
    unwrap!(measure(&mut set_up, || network.set_up(model, arena)));
    let scores = unwrap!(measure(&mut ran, || run(network)));
    unwrap!(measure(&mut verify, || model.verify()));
    println!("scores  {}", Bits(scores.values()));
    for (name, cost) in [("parse  ", parse), ("set up ", set_up), ("run    ", ran), ("verify ", verify)] {
        println!("{=str} {=u64} {=str}, {=usize} B of stack", name, cost.time, board::UNIT, cost.stack);
    }
    println!("stack   {=usize} B at the deepest", stack::high_water());
    exit()
}
