//! Flash that changes after a network was set up: a run ends, in scores or in `RunError::Changed`.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use skipstone::error::RunError;
use skipstone::host::format::{HEADER_BYTES, Header};
use skipstone::{Model, Network};
use skipstone_tools::blob::Blob;
use skipstone_tools::plan::Planner;

use crate::executor::segments;
use crate::networks::{self, answers, encoded, nodes};

/// Far longer than any run here takes: a run that takes longer is endless.
const ENDLESS: Duration = Duration::from_secs(120);

/// Flips one bit of the blob, as failing flash does, unknown to its readers.
#[allow(unsafe_code)]
fn flip(blob: &Blob, byte: usize, bit: usize) {
    let address = blob.as_ptr().wrapping_add(byte).cast_mut();
    // SAFETY: the byte is inside the blob, whose memory is on the heap and mutable. The network holds shared
    // references to it, which is what this test is about: no call that reads it is active, and `black_box` keeps
    // the compiler from remembering what it was.
    unsafe { address.write_volatile(address.read_volatile() ^ 1 << bit) };
    core::hint::black_box(blob);
}

/// The bytes that a run reads beside weights: the manifest, and both plans' tables.
fn read_in_runs(blob: &Blob) -> Vec<usize> {
    let model = Model::parse(blob).unwrap();
    let manifest = Header::read(blob).unwrap().manifest_bytes as usize;
    let mut bytes: Vec<usize> = (0..HEADER_BYTES + manifest).collect();
    for frame in [false, true] {
        let plan = model.memory_plan(frame).unwrap();
        let tables: [&[u8]; 3] = [bytemuck::cast_slice(plan.rows), plan.strips, plan.segments];
        for table in tables {
            let start = table.as_ptr() as usize - blob.as_ptr() as usize;
            bytes.extend(start..start + table.len());
        }
    }
    bytes.sort_unstable();
    bytes.dedup();
    bytes
}

/// Flips every `nth` of those bits; returns how many runs gave scores and how many gave an error.
pub(crate) fn flip_bits(blob: &[u8], nth: usize) -> [usize; 2] {
    let (blob, (sender, receiver)) = (Blob::from(blob), channel());
    let runs = thread::spawn(move || run_all(&blob, nth, &sender));
    let mut last = None;
    loop {
        match receiver.recv_timeout(ENDLESS) {
            Ok(place) => last = Some(place),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return runs.join().unwrap(),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                panic!("the run with (byte, bit) {last:?} flipped does not end")
            }
        }
    }
}

fn run_all(blob: &Blob, nth: usize, progress: &Sender<(usize, usize)>) -> [usize; 2] {
    let bytes = read_in_runs(blob);
    let model = Model::parse(blob).unwrap();
    let image: Vec<u8> = (0..model.input().len()).map(|index| (index * 97 % 256) as u8).collect();
    let arena_bytes = model.arena_bytes().max(model.arena_bytes_rows());
    let mut ended = [0; 2];
    for frame in [false, true] {
        let mut arena = vec![0u128; arena_bytes.div_ceil(16)];
        let mut network = Network::<48>::empty();
        let arena: &mut [u8] = bytemuck::cast_slice_mut(&mut arena);
        match frame {
            false => network.set_up(model, arena).unwrap(),
            true => network.set_up_with_frame(model, arena).unwrap(),
        }
        let scores = network.run(&image).unwrap().values().len();
        let expected = answers(&network);
        for index in (0..bytes.len() * 8).step_by(nth) {
            let (byte, bit) = (bytes[index / 8], index % 8);
            progress.send((byte, bit)).unwrap();
            flip(blob, byte, bit);
            let outcome = network.run(&image).map(|scores| scores.values().len());
            // outputs are whole or missing, too
            assert!(network.outputs().all(|output| output.real().count() == output.shape().len()));
            flip(blob, byte, bit);
            match outcome {
                Ok(count) => assert_eq!(count, scores),
                Err(error) => assert_eq!(error, RunError::Changed, "byte {byte}, bit {bit}"),
            }
            ended[usize::from(outcome.is_err())] += 1;
            // and the network recovers with its flash
            assert!(network.run(&image).is_ok(), "byte {byte}, bit {bit}");
            assert_eq!(answers(&network), expected, "byte {byte}, bit {bit}");
        }
    }
    ended
}

#[test]
fn a_run_ends_whichever_bit_of_the_digits_changes() {
    let [scores, changed] = flip_bits(include_bytes!("../../models/digits.skip"), 1);
    assert!(scores > 1000 && changed > 1000, "{scores} runs gave scores, {changed} did not");
}

#[test]
fn a_run_ends_whichever_bit_of_resnet8_changes() {
    let [scores, changed] = flip_bits(include_bytes!("../../models/cifar10-resnet8.skip"), 211);
    assert!(scores > 10 && changed > 10, "{scores} runs gave scores, {changed} did not");
}

#[test]
fn a_run_ends_whichever_bit_of_a_network_in_many_segments_changes() {
    let (mut networks, mut ended) = (0, [0; 2]);
    for network in (9000..).map(networks::network) {
        let blob = networks::with_layers(&network, |layers| {
            let (nodes, planner) = (nodes(layers, &[]), |frame| Planner::new(network.input, frame, 48));
            let cuts = segments(&planner(false).cuts(&nodes).unwrap(), !0);
            let plan = |frame| planner(frame).plan_as(&nodes, &cuts).unwrap();
            (cuts.len() >= 5).then(|| encoded(&network, &plan(false), &plan(true)))
        });
        let Some(blob) = blob else { continue };
        let [good, changed] = flip_bits(&blob, 7);
        ended = [ended[0] + good, ended[1] + changed];
        networks += 1;
        if networks == 6 {
            break;
        }
    }
    assert!(ended[0] > 1000 && ended[1] > 1000, "{ended:?}");
}
