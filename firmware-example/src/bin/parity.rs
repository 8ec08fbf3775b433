//! Runs every baked-in image, fed by rows and from the arena, and prints the scores' bits.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use defmt::{println, unwrap};
use firmware_example::{Bits, exit, inputs};
use skipstone::{Arena, Model, Network};
use static_cell::ConstStaticCell;

static ROWS: ConstStaticCell<Arena<{ inputs::ARENA_BYTES_ROWS }>> = ConstStaticCell::new(Arena::new());
static FRAME: ConstStaticCell<Arena<{ inputs::ARENA_BYTES }>> = ConstStaticCell::new(Arena::new());

#[entry]
fn main() -> ! {
    let model = unwrap!(Model::parse(inputs::MODEL));
    let mut by_rows: Network = unwrap!(Network::new(model, ROWS.take()));
    let mut in_arena: Network = unwrap!(Network::with_frame(model, FRAME.take()));
    println!("arena {=usize} B, fed by rows {=usize} B", inputs::ARENA_BYTES, inputs::ARENA_BYTES_ROWS);

    for (index, image) in inputs::IMAGES.chunks_exact(inputs::IMAGE_BYTES).enumerate() {
        let feed = |row: usize, buffer: &mut [u8]| {
            buffer.copy_from_slice(&image[row * buffer.len()..][..buffer.len()]);
        };
        println!("rows {=usize} {}", index, Bits(unwrap!(by_rows.run_rows(feed)).values()));
        in_arena.input_mut().copy_from_slice(image);
        println!("frame {=usize} {}", index, Bits(unwrap!(in_arena.run_frame()).values()));
    }
    exit()
}
