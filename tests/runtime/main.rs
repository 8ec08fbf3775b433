//! The runtime's tests: layers and blocks against an oracle, the executor against plain evaluation,
//! the blob and the memory plan against every kind of damage.

extern crate alloc;

mod blocks;
mod changed_flash;
mod damage;
mod executor;
#[path = "../../src/kernels/tests/layers.rs"]
mod layers;
mod memory;
#[path = "../../src/kernels/tests/naive.rs"]
mod naive;
mod naive_block;
mod networks;
mod nor_flash;
mod parameters;
mod parts;
mod proof;
#[path = "../../src/kernels/tests/random.rs"]
mod random;
mod refusals;
mod requantization;
mod scores;
mod setting_up;
mod signature;
mod slots;
mod whole_tensors;
