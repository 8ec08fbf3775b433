//! Classifies one image; prints the result and its cost.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, Cost, Percent, board, exit, inputs, measure, stack};
use skipstone::{Arena, Model, Network};
use static_cell::ConstStaticCell;

static NETWORK: ConstStaticCell<Recognizer> = ConstStaticCell::new(Recognizer::empty());
static ARENA: ConstStaticCell<Arena<{ inputs::ARENA_BYTES_ROWS }>> = ConstStaticCell::new(Arena::new());

/// A network that links only the kernels that its model needs.
type Recognizer = Network<'static, 16, { inputs::KERNELS }>;

#[entry]
fn main() -> ! {
    let image = &inputs::IMAGES[..inputs::IMAGE_BYTES];
    let [mut parse, mut set_up, mut run] = [Cost::default(); 3];
    let model = unwrap!(measure(&mut parse, || Model::parse(inputs::MODEL)));
    let (network, arena) = (NETWORK.take(), ARENA.take());
    unwrap!(measure(&mut set_up, || network.set_up(model, arena)));
    let scores = unwrap!(measure(&mut run, || network.run(image)));

    let input = model.input();
    println!("board   {=str}, clock {=u32} MHz", board::NAME, board::CLOCK_HZ / 1_000_000);
    println!("model   {=str}, {=usize} B of flash", model.name(), model.blob_bytes());
    println!("arena   {=usize} B, fed by rows", inputs::ARENA_BYTES_ROWS);
    println!("network {=usize} B in addition to the arena", size_of::<Recognizer>());
    println!("input   {=u16}x{=u16}x{=u16} pixels", input.height, input.width, input.channels);
    println!("scores  {}", Bits(scores.values()));
    for class in scores.top::<3>() {
        println!("saw     {=str} {}", model.label(class.index).unwrap_or("?"), Percent(class.probability));
    }
    for (name, cost) in [("parse  ", parse), ("set up ", set_up), ("run    ", run)] {
        println!("{=str} {=u64} {=str}, {=usize} B of stack", name, cost.time, board::UNIT, cost.stack);
    }
    println!("stack   {=usize} B at most", stack::high_water());
    exit()
}
