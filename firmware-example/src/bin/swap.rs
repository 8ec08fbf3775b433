//! Two models take turns in one network and one arena, both in statics.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, exit, inputs};
use skipstone::{Arena, Model, Network};
use static_cell::ConstStaticCell;

/// Large enough for either model.
const ARENA_BYTES: usize =
    larger(skipstone::arena_bytes_rows(inputs::MODEL), skipstone::arena_bytes_rows(inputs::UPDATE));
const TENSORS: usize = larger(skipstone::tensors(inputs::MODEL), skipstone::tensors(inputs::UPDATE));
const KERNELS: u16 = skipstone::kernels(inputs::MODEL) | skipstone::kernels(inputs::UPDATE);

static NETWORK: ConstStaticCell<Network<'static, TENSORS, KERNELS>> = ConstStaticCell::new(Network::empty());
static ARENA: ConstStaticCell<Arena<ARENA_BYTES>> = ConstStaticCell::new(Arena::new());

#[entry]
fn main() -> ! {
    let models = [inputs::MODEL, inputs::UPDATE].map(|blob| unwrap!(Model::parse(blob)));
    let network = NETWORK.take();
    unwrap!(network.set_up(models[0], ARENA.take()));
    for (turn, model) in [0, 1, 0, 1].into_iter().enumerate() {
        unwrap!(network.swap(models[model]));
        // the first image's bytes, as many as the model reads
        let bytes = models[model].input().len().min(inputs::IMAGE_BYTES);
        let scores = unwrap!(network.run(&inputs::IMAGES[..bytes]));
        println!("turn {=usize} model {=usize} {}", turn, model, Bits(scores.values()));
    }
    exit()
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
