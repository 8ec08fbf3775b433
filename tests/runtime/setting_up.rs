//! What `Network::new` and `run` refuse, and networks at the ends of what the format can say.

use skipstone::plan::{MAX_VISITS, Proof};
use skipstone::schedule::{Segment, Tensor};
use skipstone::schema::{self, Finish, GlobalAveragePool, Operation, Pool2d};
use skipstone::stage::Stage;
use skipstone::{
    Algorithm, Clamp, Model, Network, NewError, Pooling, Residual, RunError, Shape, Softmax, Window,
};
use skipstone_tools::blob::{Unplanned, Weights};
use skipstone_tools::planner::Plan;

use crate::memory::Memory;
use crate::networks::{self, bits};

#[test]
fn an_arena_that_is_too_small_or_misaligned() {
    let blob = networks::planned(networks::small());
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
            assert_eq!(error(0, given), Some(NewError::Arena { needed, given }));
        }
        assert_eq!(error(0, needed), None);
        assert_eq!(error(0, needed + 1), None);
        for offset in 1..=8 {
            let expected = (offset % 4 != 0).then_some(NewError::Misaligned);
            assert_eq!(error(offset, needed), expected, "at {offset}");
        }
    }
}

/// `TENSORS` counts a segment's input and an output for each layer.
#[test]
fn a_segment_with_too_many_tensors() {
    let blob = networks::planned(networks::small());
    let model = Model::parse(&blob).unwrap();
    let mut rest = model.stages();
    let tensors = model.memory_plan(false).unwrap().segments.iter().map(|stages| {
        let segment = rest.by_ref().take(usize::from(*stages));
        1 + segment.map(|entry| entry.unwrap().stage.layers(0, 1).count()).sum::<usize>()
    });
    let longest = tensors.max().unwrap();
    assert_eq!(longest, TENSORS);

    const TENSORS: usize = 8;
    const TOO_FEW: usize = TENSORS - 1;
    let mut memory = Memory::new(model.arena_bytes_rows());
    assert!(Network::<TENSORS>::new(model, memory.bytes()).is_ok());
    let error = Network::<TOO_FEW>::new(model, memory.bytes()).err();
    assert_eq!(error, Some(NewError::Tensors { given: TOO_FEW }));
    assert_eq!(Network::<1>::new(model, memory.bytes()).err(), Some(NewError::Tensors { given: 1 }));
    assert_eq!(Network::<0>::new(model, memory.bytes()).err(), Some(NewError::Tensors { given: 0 }));
}

#[test]
fn an_image_of_the_wrong_length() {
    let blob = networks::planned(networks::small());
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(model.arena_bytes_rows());
    let mut network: Network = Network::new(model, memory.bytes()).unwrap();
    let needed = 8 * 8 * 2;
    for given in [0, 1, needed - 1, needed + 1, 2 * needed] {
        assert_eq!(network.run(&vec![0; given]).err(), Some(RunError::Input { needed, given }));
    }
    // and nothing of it stays behind
    assert!(network.run(&vec![0; needed]).is_ok());
}

/// Softmax in the network: the scores are probabilities.
#[test]
fn softmax_in_the_network() {
    let mut network = networks::small();
    let scores = |network: &Unplanned| {
        let blob = networks::planned(network.clone());
        let model = Model::parse(&blob).unwrap();
        let mut memory = Memory::new(model.arena_bytes_rows());
        let mut runner: Network = Network::new(model, memory.bytes()).unwrap();
        let scores = runner.run(&[200; 128]).unwrap();
        (scores.values().to_vec(), scores.probabilities().collect::<Vec<f32>>())
    };
    let (normalized, same) = scores(&network);
    network.softmax = Softmax::None;
    let (raw, probabilities) = scores(&network);
    assert_eq!(bits(&normalized), bits(&probabilities));
    assert_eq!(bits(&normalized), bits(&same));
    assert_ne!(bits(&normalized), bits(&raw));
    assert!((normalized.iter().sum::<f32>() - 1.0).abs() < 1e-5);
}

/// A network without a planner, whose row table is put down by hand.
fn run_by_hand(network: &Unplanned, plan: &Plan, image: &[u8]) -> (Vec<u32>, Vec<u32>) {
    // the frame needs a plan too; one that is never proved
    let blob = network.clone().assemble(plan, plan).unwrap();
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(plan.arena_bytes);
    let mut runner = Network::<64>::new(model, memory.bytes()).unwrap();
    let scores = bits(runner.run(image).unwrap().values());
    let expected = networks::with_stages(network, |stages: &[Stage<'_>]| {
        networks::expected(stages, Softmax::None, image)
    });
    (scores, expected)
}

/// 65,538 layers: more than 16 bits count.
#[test]
fn more_layers_than_sixteen_bits_count() {
    const BLOCKS: usize = 21_846;
    let mut weights = Weights::default();
    let one = schema::Conv2d {
        algorithm: Algorithm::Reference,
        channels: 1,
        depthwise: false,
        window: Window::square(1, 1, 0),
        weights: weights.section(&[1i8]),
        bias: weights.section(&[0i32]),
        padding_pixel: weights.section(&[0i8]),
        requantize: schema::Requantize {
            multipliers: weights.section(&[1i32 << 29]),
            rounding: schema::Rounding::Once { shift: 30 },
            clamp: Clamp::none(0),
        },
        scale: 1.0,
    };
    // x / 2 rounded, three times, added to x / 2
    let addition = Residual { zero_point: 3, multiplier: 1 << 29, shift: 0 }.into();
    let block = schema::Block {
        path: [one.clone(), one.clone(), one].into_iter().collect(),
        addition,
        scale: 1.0,
        shortcut: schema::Shortcut::Identity,
    };
    let mut operations = vec![Operation::Block(block); BLOCKS];
    operations.push(scores(&mut weights));
    let network = unplanned(Shape::new(1, 1, 1), operations, weights);
    // the shortcut's row, onto which the block's output is added, and two rows of the path
    let rows = [vec![0], [1, 2, 0].repeat(BLOCKS), vec![1]].concat();
    let stages = BLOCKS + 1;
    let mut segments = vec![20u8; stages / 20];
    segments.push((stages % 20) as u8);
    let plan = Plan { arena_bytes: 12, strips: vec![1; 3 * BLOCKS + 1], rows, segments };
    let (scores, expected) = run_by_hand(&network, &plan, &[228]);
    assert_eq!(scores, expected);
}

/// As many rows as a shape can have, under the largest windows and strides. Their rows lie in rings.
#[test]
fn as_many_rows_as_there_can_be() {
    let windows = [
        Window { kernel: [15, 1], stride: [1, 1], padding: [7, 0, 7, 0] },
        Window { kernel: [15, 1], stride: [7, 1], padding: [14, 0, 14, 0] },
        Window { kernel: [1, 1], stride: [7, 1], padding: [0; 4] },
    ];
    for window in windows {
        let mut weights = Weights::default();
        let input = Shape::new(HEIGHT, 1, 1);
        let pooled = window.output(input, 1).unwrap();
        let pool = Operation::Pool2d(Pool2d { window, kind: Pooling::Max });
        let network = unplanned(input, vec![pool, scores(&mut weights)], weights);
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
    let mut weights = Weights::default();
    let pool = Operation::Pool2d(Pool2d { window: Window::square(1, 1, 0), kind: Pooling::Max });
    let network = unplanned(Shape::new(HEIGHT, 1, 1), vec![pool, scores(&mut weights)], weights);
    // the input's rows in one place, the other's each in its own; the sums on the input's
    let rows = [vec![0; HEIGHT.into()], (1..=HEIGHT).collect(), vec![0]].concat();
    let plan = Plan { arena_bytes: 4 << 16, rows, strips: vec![1; 2], segments: vec![1, 1] };
    let blob = network.assemble(&plan, &plan).unwrap();
    let model = Model::parse(&blob).unwrap();
    let mut memory = Memory::new(plan.arena_bytes);
    assert!(Network::<16>::new(model, memory.bytes()).is_ok());

    let (plan, mut words) = (model.memory_plan(false).unwrap(), vec![0; 1 << 16]);
    let mut input = Tensor { rows: HEIGHT, row_bytes: 1, base: 0, contiguous: false };
    let (mut proof, mut base) = (Proof::new(&plan, &mut words), u32::from(HEIGHT));
    for (index, entry) in model.stages().enumerate() {
        let node = entry.unwrap().stage.layers(0, 1).next().unwrap().place(1, base);
        let mut made = [if index == 0 { 0 } else { input.rows }, 0];
        proof.segment(&Segment { input, nodes: &[node] }, &mut made).unwrap();
        base += node.entries();
        input = node.output;
    }
    // an input row is made and read, a kept one made, read twice where it is made, taken over and read
    let visits = 7 * u32::from(HEIGHT);
    assert!(proof.visits() <= visits + 2, "{} words visited", proof.visits());
}

/// Rows so many and so long that their proof would take too long.
#[test]
fn rows_with_too_many_words() {
    const CHANNELS: u16 = 2000;
    let mut weights = Weights::default();
    let window = Window { kernel: [15, 1], stride: [1, 1], padding: [7, 0, 7, 0] };
    let pool = Operation::Pool2d(Pool2d { window, kind: Pooling::Max });
    let error = |height: u16, weights: Weights, operations| {
        let network = unplanned(Shape::new(height, 1, CHANNELS), operations, weights);
        let place = |row: u16| row * CHANNELS / 4;
        let input = (0..height).map(|row| place(row % 16));
        let rows = input.chain(vec![place(16); height.into()]).chain([place(17)]).collect();
        let arena_bytes = 4 * usize::from(place(17) + CHANNELS);
        let plan = Plan { arena_bytes, rows, strips: vec![1; 2], segments: vec![2] };
        let blob = network.assemble(&plan, &plan).unwrap();
        let mut memory = Memory::new(arena_bytes);
        Network::<16>::new(Model::parse(&blob).unwrap(), memory.bytes()).err()
    };
    let operations = vec![pool, scores(&mut weights)];
    assert_eq!(error(1000, weights.clone(), operations.clone()), None);
    assert_eq!(error(u16::MAX, weights, operations), Some(NewError::Rows { limit: MAX_VISITS }));
}

/// Global average pooling to one class score.
fn scores(weights: &mut Weights) -> Operation {
    let finish = Finish::Scores { scales: weights.section(&[0.5f32]), count: 1 };
    Operation::GlobalAveragePool(GlobalAveragePool { zero_point: 0, finish })
}

fn unplanned(input: Shape, operations: Vec<Operation>, weights: Weights) -> Unplanned {
    Unplanned {
        name: String::new(),
        input,
        softmax: Softmax::None,
        labels: Vec::new(),
        names: vec![String::new(); operations.len()],
        operations,
        weights,
    }
}
