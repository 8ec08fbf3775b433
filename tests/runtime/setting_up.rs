//! What `Network::new` and runs refuse, and networks at the ends of what the format can say.

use skipstone::error::{RunError, SetUpError};
use skipstone::host::format::{Header, MAX_TENSORS};
use skipstone::host::plan::{MAX_VISITS, Proof};
use skipstone::host::schedule::{Segment, Tensor};
use skipstone::host::{Addition, Clamp, Kernels, Residual, Softmax};
use skipstone::{Model, Network, Shape};
use skipstone_tools::blob::Blob;
use skipstone_tools::ir::{
    Activation, Finish, Integer, IntegerNetwork, Layer, Operation, Output, Preprocessing, Requantize,
    Rounding, Shortcut, Window,
};
use skipstone_tools::plan::Plan;

use crate::memory::Memory;
use crate::networks::{self, bits, encoded, scores_of};
use crate::parts::Parts;

#[test]
fn an_arena_that_is_too_small_or_misaligned() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    for (frame, needed) in [(false, model.arena_bytes_rows()), (true, model.arena_bytes())] {
        let mut memory = Memory::new(needed + 16);
        let mut error = |from: usize, len: usize| {
            let arena = &mut memory.bytes()[from..from + len];
            match frame {
                false => Network::<16>::new(model, arena).err(),
                true => Network::<16>::with_frame(model, arena).err(),
            }
        };
        for given in [0, 1, needed - 1] {
            assert_eq!(error(0, given), Some(SetUpError::Arena { needed, given }));
        }
        assert_eq!(error(0, needed), None);
        assert_eq!(error(0, needed + 1), None);
        for offset in 1..=8 {
            let expected = (offset % 4 != 0).then_some(SetUpError::Misaligned);
            assert_eq!(error(offset, needed), expected, "at {offset}");
        }
    }
}

/// `TENSORS` counts a segment's input and an output for each layer.
#[test]
fn a_segment_with_too_many_tensors() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    let plans = [false, true].map(|frame| model.memory_plan(frame).unwrap());
    let longest = plans.iter().flat_map(|plan| plan.segments).max().unwrap();
    assert_eq!((usize::from(*longest) + 1, model.tensors()), (TENSORS, TENSORS));
    assert_eq!(skipstone::tensors(&blob), TENSORS);

    const TENSORS: usize = 7;
    const TOO_FEW: usize = TENSORS - 1;
    let mut memory = Memory::new(model.arena_bytes_rows());
    assert!(Network::<TENSORS>::new(model, memory.bytes()).is_ok());
    let refused = |given| Some(SetUpError::Tensors { needed: TENSORS, given });
    assert_eq!(Network::<TOO_FEW>::new(model, memory.bytes()).err(), refused(TOO_FEW));
    assert_eq!(Network::<1>::new(model, memory.bytes()).err(), refused(1));
    assert_eq!(Network::<0>::new(model, memory.bytes()).err(), refused(0));
}

#[test]
fn a_network_without_the_kernels_it_needs() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    const NEEDED: u16 = Kernels::REFERENCE | Kernels::POOLING;
    assert_eq!((model.kernels(), skipstone::kernels(&blob)), (NEEDED, NEEDED));
    let mut memory = Memory::new(model.arena_bytes_rows());
    assert!(Network::<16, NEEDED>::new(model, memory.bytes()).is_ok());
    let error = Network::<16, { Kernels::REFERENCE }>::new(model, memory.bytes()).err();
    assert_eq!(error, Some(SetUpError::Kernels { needed: NEEDED, given: Kernels::REFERENCE }));
}

/// Each call says which other one is missing before it.
#[test]
fn a_network_without_a_model_an_arena_or_a_frame() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    let mut memory = [model.arena_bytes_rows(), model.arena_bytes()].map(Memory::new);
    let [rows, frame] = &mut memory;
    let mut network = Network::<16>::empty();
    assert_eq!(network.swap(model), Err(SetUpError::NoArena));
    assert_eq!(network.run(&[0; 128]).err(), Some(RunError::Empty));
    assert_eq!(network.run_rows(|_, _| panic!("a row is asked for")).err(), Some(RunError::Empty));
    assert_eq!(network.push_row(&[0; 16]).err(), Some(RunError::Empty));
    assert_eq!(network.run_frame().err(), Some(RunError::Empty));
    assert!(network.input_mut().is_empty() && network.outputs().next().is_none());

    network.set_up(model, rows.bytes()).unwrap();
    assert!(network.input_mut().is_empty());
    assert_eq!(network.run_frame().err(), Some(RunError::NoFrame));
    assert!(network.run(&[0; 128]).is_ok());
    network.set_up_with_frame(model, frame.bytes()).unwrap();
    assert_eq!(network.input_mut().len(), 128);
    assert!(network.run_frame().is_ok());
}

/// After an error the network has no model, but an arena for the next one.
#[test]
fn a_network_that_refuses_a_model_takes_the_next() {
    let good = networks::planned(&networks::small());
    let mut parts = Parts::of(&good);
    let rows = parts.section(&[u16::MAX; 200]);
    parts.manifest.rows.rows = rows;
    let bad = parts.blob();
    let (good, bad) = (Model::parse(&good).unwrap(), Model::parse(&bad).unwrap());
    let mut memory = Memory::new(good.arena_bytes_rows());
    let mut network = Network::<16>::empty();
    assert_eq!(network.set_up(bad, memory.bytes()), Err(SetUpError::Plan { tensor: 0, row: 0 }));
    assert_eq!(network.run(&[0; 128]).err(), Some(RunError::Empty));
    network.swap(good).unwrap();
    let scores = bits(network.run(&[7; 128]).unwrap().values());
    assert_eq!(network.swap(bad), Err(SetUpError::Plan { tensor: 0, row: 0 }));
    assert_eq!(network.run(&[0; 128]).err(), Some(RunError::Empty));
    assert!(network.outputs().next().is_none());
    network.swap(good).unwrap();
    assert_eq!(bits(network.run(&[7; 128]).unwrap().values()), scores);
}

/// A row table with an entry too few is a plan that misplaces the rows after its end.
#[test]
fn a_row_table_that_ends_too_early() {
    let good = networks::planned(&networks::small());
    let mut parts = Parts::of(&good);
    parts.manifest.rows.row_count -= 1;
    let blob = parts.blob();
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(model.arena_bytes_rows());
    let error = Network::<16>::new(model, memory.bytes()).err();
    assert_eq!(error, Some(SetUpError::Plan { tensor: 11, row: 0 }));
}

/// The blob as it was parsed is not the blob that is set up: bits that set-up reads are flipped in between.
#[test]
fn flash_that_changes_before_the_set_up_is_found_or_harmless() {
    let good = networks::planned(&networks::small());
    let len = good.len();
    let memory = Box::leak(Box::new(Memory::new(len))).bytes();
    memory.copy_from_slice(&good);
    let first: *mut u8 = memory.as_mut_ptr();
    // SAFETY: both are this test's own memory. The test is about bytes that change while a shared slice refers to them.
    #[allow(unsafe_code)]
    let (blob, flip) = unsafe {
        let flip = |at: usize, bit: usize| {
            first.add(at).write_volatile(first.add(at).read_volatile() ^ 1 << bit);
        };
        (core::slice::from_raw_parts(first, len), flip)
    };
    let model = Model::parse(blob).unwrap();
    let mut arena = Memory::new(model.arena_bytes());
    let mut changed = 0;
    for bit in 0..8 * len {
        flip(bit / 8, bit % 8);
        match Network::<16>::with_frame(model, arena.bytes()) {
            Ok(mut network) => assert!(network.run(&[1; 128]).is_ok()),
            Err(SetUpError::Changed) => changed += 1,
            Err(error) => assert!(matches!(error, SetUpError::Plan { .. }), "bit {bit}: {error}"),
        }
        flip(bit / 8, bit % 8);
    }
    assert!(changed > 1000, "{changed}");
}

#[test]
fn an_image_of_the_wrong_length() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(model.arena_bytes_rows());
    let mut network: Network = Network::new(model, memory.bytes()).unwrap();
    let needed = 8 * 8 * 2;
    for given in [0, 1, needed - 1, needed + 1, 2 * needed] {
        assert_eq!(network.run(&vec![0; given]).err(), Some(RunError::Input { needed, given }));
    }
    // and nothing of it remains
    assert!(network.run(&vec![0; needed]).is_ok());
}

#[test]
fn a_row_of_the_wrong_length_does_not_end_the_image() {
    let blob = networks::planned(&networks::small());
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(model.arena_bytes_rows());
    let mut network: Network = Network::new(model, memory.bytes()).unwrap();
    let image: Vec<u8> = (0..128).map(|pixel| pixel * 37 % 251).map(|pixel: u32| pixel as u8).collect();
    let expected = bits(network.run(&image).unwrap().values());
    let mut scores = None;
    for row in image.chunks(16) {
        for given in [0, 15, 17, 128] {
            let error = network.push_row(&vec![9; given]).err();
            assert_eq!(error, Some(RunError::Input { needed: 16, given }));
        }
        scores = network.push_row(row).unwrap().map(|scores| bits(scores.values()));
    }
    assert_eq!(scores, Some(expected));
}

/// Softmax in the network: the scores are probabilities.
#[test]
fn softmax_in_the_network() {
    let mut network = networks::small();
    let scores = |network: &IntegerNetwork| {
        let blob = networks::planned(network);
        let model = Model::parse(&blob).unwrap();
        let mut memory = Memory::new(model.arena_bytes_rows());
        let mut runner: Network = Network::new(model, memory.bytes()).unwrap();
        let scores = runner.run(&[200; 128]).unwrap();
        (scores.values().to_vec(), scores.probabilities().collect::<Vec<f32>>())
    };
    let (normalized, same) = scores(&network);
    network.outputs[0].softmax = Softmax::None;
    let (raw, probabilities) = scores(&network);
    assert_eq!(bits(&normalized), bits(&probabilities));
    assert_eq!(bits(&normalized), bits(&same));
    assert_ne!(bits(&normalized), bits(&raw));
    assert!((normalized.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

/// A network without a planner, whose row table is put down by hand.
fn run_by_hand(network: &IntegerNetwork, plan: &Plan, image: &[u8]) -> (Vec<u32>, Vec<u32>) {
    // the frame needs a plan too; one that is never proved
    let blob = encoded(network, plan, plan);
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(plan.arena_bytes);
    let mut runner = Network::<MAX_TENSORS>::new(model, memory.bytes()).unwrap();
    let scores = bits(runner.run(image).unwrap().values());
    (scores, scores_of(&networks::expected(network, image)))
}

/// 65,534 layers: tensors have 16-bit numbers, and the input is one of them.
#[test]
fn as_many_layers_as_there_can_be() {
    const BLOCKS: usize = 21_844;
    // x / 2 rounded; `adds` says that half of the tensor two before is added
    let one = |reads: usize, adds: bool| {
        let requantize = Requantize {
            multipliers: vec![1 << 29],
            rounding: Rounding::Once { shift: 30 },
            clamp: Clamp::none(0),
        };
        let window = Window { kernel: [1; 2], stride: [1; 2], padding: [0; 4] };
        let operation = Operation::Conv2d { window, outputs: 1, depthwise: false };
        let mut one = layer(reads, Shape::new(1, 1, 1), operation, Finish::Requantize(requantize));
        let parameters = &mut one.parameters;
        (parameters.weights, parameters.bias, parameters.padding_pixel) = (vec![1], vec![0], vec![0]);
        if adds {
            parameters.addition =
                Some(Addition::Fused(Residual { zero_point: 3, multiplier: 1 << 29, shift: 0 }));
            one.shortcut = Some(Shortcut { tensor: reads - 2, stride: [1; 2], channels_before: 0 });
        }
        one
    };
    let mut layers = vec![one(0, false)];
    for block in 0..BLOCKS {
        let reads = 1 + 3 * block;
        layers.extend([one(reads, false), one(reads + 1, false), one(reads + 2, true)]);
    }
    layers.push(scores(layers.len(), 1));
    assert_eq!(layers.len(), usize::from(u16::MAX) - 1);
    let network = network(Shape::new(1, 1, 1), layers);
    // the shortcut's row, onto which the block's output is added, and two rows of the path
    let rows = [vec![1, 0], [1, 2, 0].repeat(BLOCKS), vec![1]].concat();
    let mut segments = vec![1 + 45];
    segments.extend(vec![45; (BLOCKS - 15) / 15]);
    segments.push(3 * (BLOCKS % 15) as u8 + 1);
    let plan = Plan { arena_bytes: 12, strips: vec![1; 3 * BLOCKS + 2], rows, segments };
    let (scores, expected) = run_by_hand(&network, &plan, &[228]);
    assert_eq!(scores, expected);
}

/// A layer more than that is an error of the encoder, not of the board.
#[test]
fn more_layers_than_there_can_be_are_not_encoded() {
    let pool = |reads| max_pool(reads, Shape::new(1, 1, 1), [1, 1], [1, 1], [0; 4]);
    for (count, possible) in [(65_534, true), (65_535, false)] {
        let layers: Vec<Layer<Integer>> = (0..count).map(pool).collect();
        let mut network = network(Shape::new(1, 1, 1), layers);
        network.outputs[0].tensor = count;
        let plan = Plan {
            arena_bytes: 4,
            rows: vec![0; count + 1],
            strips: vec![1; count],
            segments: [vec![47; count / 47], vec![(count % 47) as u8]].concat(),
        };
        let encoded = networks::with_layers(&network, |layers| {
            let algorithms = vec![skipstone::host::Algorithm::Reference; count];
            skipstone_tools::assemble::encode::encode(&network, layers, &algorithms, &plan, &plan)
        });
        assert_eq!(encoded.is_ok(), possible, "{count} layers");
        assert!(encoded.is_err() || Model::parse(&encoded.unwrap()).is_ok());
    }
}

/// As many rows as a shape can have, under the largest windows and strides. Rows are stored in rings.
#[test]
fn as_many_rows_as_there_can_be() {
    for (kernel, stride, padding) in [(15, 1, 7), (15, 7, 14), (1, 7, 0)] {
        let input = Shape::new(HEIGHT, 1, 1);
        let pool = max_pool(0, input, [kernel, 1], [stride, 1], [padding, 0, padding, 0]);
        let pooled = pool.shape;
        let network = network(input, vec![pool, scores(1, 1)]);
        let mut rows: Vec<u16> = (0..HEIGHT).map(|row| row % 16).collect();
        rows.extend(vec![16; usize::from(pooled.height)]);
        rows.push(17);
        let plan = Plan { arena_bytes: 72, rows, strips: vec![1; 2], segments: vec![2] };
        let image: Vec<u8> = (0..HEIGHT).map(|row| (row / 7) as u8).collect();
        let (scores, expected) = run_by_hand(&network, &plan, &image);
        assert_eq!(scores, expected);
    }
    const HEIGHT: u16 = 65_535;
}

/// A segment that keeps as many rows as there can be: the proof visits each word a few times, it does not
/// look at all rows for each.
#[test]
fn the_proof_takes_as_long_as_the_rows_are() {
    const HEIGHT: u16 = 65_535;
    let input = Shape::new(HEIGHT, 1, 1);
    let network = network(input, vec![max_pool(0, input, [1, 1], [1, 1], [0; 4]), scores(1, 1)]);
    // the input's rows in one place, the other's each in its own; the sums on the input's
    let rows = [vec![0; HEIGHT.into()], (1..=HEIGHT).collect(), vec![0]].concat();
    let plan = Plan { arena_bytes: 4 << 16, rows, strips: vec![1; 2], segments: vec![1, 1] };
    let blob: Blob = encoded(&network, &plan, &plan);
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(plan.arena_bytes);
    assert!(Network::<16>::new(model, memory.bytes()).is_ok());

    let (plan, mut words) = (model.memory_plan(false).unwrap(), vec![0; 1 << 16]);
    let mut input = Tensor { rows: HEIGHT, row_bytes: 1, base: 0, contiguous: false };
    let (mut proof, mut base) = (Proof::new(&plan, &mut words), u32::from(HEIGHT));
    for (first, entry) in (0..).zip(model.layers()) {
        let node = entry.unwrap().layer.place(first, 1, base).unwrap();
        let mut made = [if first == 0 { 0 } else { input.rows }, 0];
        proof.segment(&Segment { first, input, nodes: &[node] }, &mut made).unwrap();
        base += node.entries();
        input = node.output;
    }
    // an input row is made and read, a kept one made, read twice where it is made, and read
    let visits = 6 * u32::from(HEIGHT);
    assert!(proof.visits() <= visits + 2, "{} words visited", proof.visits());
    assert!(proof.visits() >= visits - 2, "{} words visited", proof.visits());
}

/// Rows so many and so long that their proof would take too long.
#[test]
fn rows_with_too_many_words() {
    const CHANNELS: u16 = 2000;
    let error = |height: u16| {
        let input = Shape::new(height, 1, CHANNELS);
        let pool = max_pool(0, input, [15, 1], [1, 1], [7, 0, 7, 0]);
        let network = network(input, vec![pool, scores(1, CHANNELS)]);
        let place = |row: u16| row * CHANNELS / 4;
        let input = (0..height).map(|row| place(row % 16));
        let rows = input.chain(vec![place(16); height.into()]).chain([place(17)]).collect();
        let arena_bytes = 4 * usize::from(place(17) + CHANNELS);
        let plan = Plan { arena_bytes, rows, strips: vec![1; 2], segments: vec![2] };
        let blob = encoded(&network, &plan, &plan);
        let mut memory = Memory::new(arena_bytes);
        Network::<16>::new(Model::parse(&blob).unwrap(), memory.bytes()).err()
    };
    assert_eq!(error(1000), None);
    assert_eq!(error(u16::MAX), Some(SetUpError::Rows { limit: MAX_VISITS }));
}

/// The sizes that firmware reads from an embedded blob at compile time are the model's.
#[test]
fn sizes_at_compile_time_are_those_of_the_model() {
    static DIGITS: &[u8] = skipstone::include_model!("../../models/digits.skip");
    const SIZES: [usize; 3] =
        [skipstone::tensors(DIGITS), skipstone::arena_bytes(DIGITS), skipstone::arena_bytes_rows(DIGITS)];
    let model = Model::parse(DIGITS).unwrap();
    assert_eq!(SIZES, [model.tensors(), model.arena_bytes(), model.arena_bytes_rows()]);
    let mut memory = Memory::new(skipstone::arena_bytes_rows(DIGITS));
    let mut network = Network::<'_, { skipstone::tensors(DIGITS) }, { skipstone::kernels(DIGITS) }>::empty();
    assert_eq!(network.set_up(model, memory.bytes()), Ok(()));
    for other in [&b"SKIP"[..], &[], &include_bytes!("../data/version-3.skip")[..]] {
        assert_eq!(Header::read(other), None);
        assert_eq!(skipstone::kernels(other), Kernels::ALL);
        assert_eq!(skipstone::tensors(other) + skipstone::arena_bytes(other), 0);
        assert_eq!(skipstone::arena_bytes_rows(other), 0);
    }
}

/// Global average pooling to class scores.
fn scores(reads: usize, classes: u16) -> Layer<Integer> {
    layer(reads, Shape::new(1, 1, classes), Operation::GlobalAveragePool, Finish::Scores(vec![0.5]))
}

fn max_pool(
    reads: usize,
    input: Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
) -> Layer<Integer> {
    let window = Window { kernel, stride, padding };
    let side = |size: u16, at: usize| {
        ((usize::from(size) + padding[at] + padding[at + 2] - kernel[at]) / stride[at] + 1) as u16
    };
    let shape = Shape::new(side(input.height, 0), side(input.width, 1), input.channels);
    layer(reads, shape, Operation::MaxPool(window), Finish::Keep)
}

fn layer(reads: usize, shape: Shape, operation: Operation, finish: Finish) -> Layer<Integer> {
    Layer {
        name: String::new(),
        place: String::new(),
        inputs: vec![reads],
        shortcut: None,
        operation,
        activation: Activation::NONE,
        shape,
        parameters: networks::integers(finish),
    }
}

/// A network whose last layer makes the output.
fn network(input: Shape, layers: Vec<Layer<Integer>>) -> IntegerNetwork {
    IntegerNetwork {
        name: String::new(),
        input,
        preprocessing: Preprocessing { mean: vec![0.0], std: vec![1.0] },
        input_scale: None,
        outputs: vec![Output { name: String::new(), tensor: layers.len(), softmax: Softmax::None }],
        layers,
        labels: Vec::new(),
    }
}
