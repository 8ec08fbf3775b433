//! A camera delivers rows to a network under an async executor; other tasks run in between.
//!
//! The network never waits for a row: [`Network::push_row`] computes what the row makes possible and returns. So one
//! task awaits rows, and no frame buffer exists anywhere.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use defmt::{println, unwrap};
use embassy_executor::Spawner;
use embassy_futures::yield_now;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::channel::Channel;
use firmware_example::{Bits, Percent, exit, inputs};
use skipstone::{Arena, Model, Network};
use static_cell::ConstStaticCell;

static NETWORK: ConstStaticCell<Recognizer> = ConstStaticCell::new(Network::empty());
static ARENA: ConstStaticCell<Arena<{ skipstone::arena_bytes_rows(inputs::MODEL) }>> =
    ConstStaticCell::new(Arena::new());

/// A network with room for its model's tensors, linked with its model's kernels.
type Recognizer =
    Network<'static, { skipstone::tensors(inputs::MODEL) }, { skipstone::kernels(inputs::MODEL) }>;

/// Rows on their way from the camera: the one that is being read, and the next.
static ROWS: Channel<CriticalSectionRawMutex, [u8; inputs::ROW_BYTES], 2> = Channel::new();

/// How often the third task ran.
static BEATS: AtomicU32 = AtomicU32::new(0);

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    spawner.spawn(unwrap!(camera().ok()));
    spawner.spawn(unwrap!(heartbeat().ok()));

    let model = unwrap!(Model::parse(inputs::MODEL));
    let network = NETWORK.take();
    unwrap!(network.set_up(model, ARENA.take()));
    for image in 0..2 {
        let before = BEATS.load(Ordering::Relaxed);
        let mut rows = 0;
        loop {
            let row = ROWS.receive().await;
            rows += 1;
            if let Some(scores) = unwrap!(network.push_row(&row)) {
                println!("async {=u32} {}", image, Bits(scores.values()));
                for class in scores.top::<1>() {
                    println!(
                        "saw {=str} {}",
                        model.label(class.index).unwrap_or("?"),
                        Percent(class.probability)
                    );
                }
                break;
            }
        }
        let beats = BEATS.load(Ordering::Relaxed) - before;
        println!("{=u32} rows received; another task ran {=u32} times in between", rows, beats);
    }
    exit()
}

/// Stands in for a camera's DMA interrupt: sends the rows of the built-in image, over and over.
#[embassy_executor::task]
async fn camera() {
    for row in inputs::IMAGES[..inputs::IMAGE_BYTES].chunks_exact(inputs::ROW_BYTES).cycle() {
        let mut copy = [0; inputs::ROW_BYTES];
        copy.copy_from_slice(row);
        ROWS.send(copy).await;
    }
}

/// Anything else that the firmware does.
#[embassy_executor::task]
async fn heartbeat() {
    loop {
        BEATS.store(BEATS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        yield_now().await;
    }
}
