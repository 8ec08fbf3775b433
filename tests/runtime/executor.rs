//! The executor, fed by rows or with the frame in its arena, equals the plain evaluation stage by stage,
//! bit for bit: random networks, every way to cut them into segments, strips of random heights.

use skipstone::stage::Stage;
use skipstone::{Model, Network, Shape};
use skipstone_tools::blob::{Blob, Unplanned};
use skipstone_tools::planner::{self, Plan};

use crate::memory::Memory;
use crate::networks::{self, bits};
use crate::random::Random;

const TENSORS: usize = 64;

/// As the planner cuts it, with long segments and with as short ones as there can be.
#[test]
fn plans_of_the_planner() {
    for seed in 0..100 {
        let network = networks::network(seed);
        networks::with_stages(&network, |stages| {
            let longest = stages.iter().map(|stage| stage.layers(0, 1).count()).max().unwrap();
            for max_tensors in [TENSORS, longest + 1, longest + 2] {
                let plan = |frame| planner::plan(stages, network.input, frame, max_tensors).unwrap();
                let (rows, frame) = (plan(false), plan(true));
                for plan in [&rows, &frame] {
                    assert!(longest_segment(stages, plan) <= max_tensors);
                }
                check(&network, stages, &rows, &frame, &format!("seed {seed}, {max_tensors} tensors"));
            }
        });
    }
}

/// Every way to cut a network into segments.
#[test]
fn every_segmentation() {
    let networks = (1000..).map(|seed| (seed, networks::network(seed)));
    for (seed, network) in networks.filter(|(_, network)| network.names.len() <= 6).take(15) {
        networks::with_stages(&network, |stages| {
            for cuts in 0..1u32 << (stages.len() - 1) {
                let segments = segments(stages.len(), cuts);
                let plan = |frame| planner::plan_as(stages, network.input, frame, &segments, &[]).unwrap();
                check(&network, stages, &plan(false), &plan(true), &format!("seed {seed}, {segments:?}"));
            }
        });
    }
}

/// Strips of any height that a step can hold, under any segmentation.
#[test]
fn strips() {
    let mut tall = 0;
    for seed in 2000..2200 {
        let network = networks::network(seed);
        let random = &mut Random::new(!seed);
        networks::with_stages(&network, |stages| {
            let strips = random_strips(random, stages);
            tall += strips.iter().filter(|strip| **strip > 1).count();
            let segments = segments(stages.len(), random.bits() as u32);
            let plan = |frame| planner::plan_as(stages, network.input, frame, &segments, &strips).unwrap();
            let what = format!("seed {seed}, segments {segments:?}, strips {strips:?}");
            check(&network, stages, &plan(false), &plan(true), &what);
        });
    }
    assert!(tall > 500, "{tall} strips of more than one row");
}

/// Runs a network in all ways on two images, one after the other: nothing of the first may stay behind.
fn check(network: &Unplanned, stages: &[Stage<'_>], rows: &Plan, frame: &Plan, what: &str) {
    let blob: Blob = network.clone().assemble(rows, frame).unwrap();
    let model = Model::parse(&blob).unwrap();
    let random = &mut Random::new(rows.arena_bytes as u64);
    let images = [networks::image(random, network.input), networks::image(random, network.input)];
    let expected = images.each_ref().map(|image| networks::expected(stages, network.softmax, image));

    let mut memory = Memory::new(model.arena_bytes_rows());
    let mut fed: Network<TENSORS> = Network::new(model, memory.bytes()).unwrap();
    let mut memory = Memory::new(model.arena_bytes());
    let mut framed = Network::<TENSORS>::with_frame(model, memory.bytes()).unwrap();
    for (image, expected) in images.iter().zip(&expected) {
        assert_eq!(bits(fed.run(image).unwrap().values()), *expected, "{what}: from a slice");

        let row_len = network.input.row_len();
        let mut next = 0;
        let scores = fed.run_rows(|row, buffer| {
            assert_eq!(row, next, "{what}: rows come in order, each once");
            next += 1;
            buffer.copy_from_slice(&image[row * row_len..][..row_len]);
        });
        assert_eq!(bits(scores.unwrap().values()), *expected, "{what}: by rows");
        assert_eq!(next, rows_needed(stages, network.input, rows), "{what}: rows asked for");

        framed.input_mut().copy_from_slice(image);
        assert_eq!(bits(framed.run().unwrap().values()), *expected, "{what}: frame in the arena");
    }
}

/// Input rows that the first segment reads, from its last layer (which makes all its rows) backwards.
fn rows_needed(stages: &[Stage<'_>], input: Shape, plan: &Plan) -> usize {
    let mut layers = Vec::new();
    for stage in &stages[..usize::from(plan.segments[0])] {
        // a stage's tensor 0 is the output of the layer before it
        let before = layers.len() as u16;
        layers.extend(stage.layers(0, 1).map(|mut layer| {
            layer.node.reads += before;
            if let Some(shortcut) = &mut layer.node.shortcut {
                shortcut.tensor += before;
            }
            layer.node
        }));
    }
    let mut needed = vec![0; layers.len() + 1];
    needed[layers.len()] = usize::from(layers.last().unwrap().output.rows);
    for (index, node) in layers.iter().enumerate().rev() {
        let strip = usize::from(plan.strips[index]);
        let steps = if node.reduction { node.input_rows } else { node.output.rows };
        let asked = if node.reduction { usize::from(steps) } else { needed[index + 1] };
        let made = asked.next_multiple_of(strip).min(usize::from(steps));
        let [stride, kernel, top] =
            [node.window.stride[0], node.window.kernel[0], node.window.padding[0]].map(usize::from);
        let end = ((made - 1) * stride + kernel).saturating_sub(top).min(usize::from(node.input_rows));
        let reads = &mut needed[usize::from(node.reads)];
        *reads = end.max(*reads);
        if let Some(shortcut) = node.shortcut {
            let reads = &mut needed[usize::from(shortcut.tensor)];
            *reads = ((made - 1) * usize::from(shortcut.stride) + 1).max(*reads);
        }
    }
    assert!(needed[0] <= usize::from(input.height));
    needed[0]
}

/// Tensors of the segment that has most.
fn longest_segment(stages: &[Stage<'_>], plan: &Plan) -> usize {
    let mut rest = stages.iter();
    let tensors = plan.segments.iter().map(|count| {
        let segment = rest.by_ref().take(usize::from(*count));
        1 + segment.map(|stage| stage.layers(0, 1).count()).sum::<usize>()
    });
    tensors.max().unwrap()
}

/// The segments of `stages` stages with a cut behind stage i where bit i of `cuts` is set.
pub(crate) fn segments(stages: usize, cuts: u32) -> Vec<usize> {
    let mut segments = vec![1];
    for stage in 1..stages {
        match cuts >> (stage - 1) & 1 {
            0 => *segments.last_mut().unwrap() += 1,
            _ => segments.push(1),
        }
    }
    segments
}

/// A strip height for each layer, of those that a step can hold.
pub(crate) fn random_strips(random: &mut Random, stages: &[Stage<'_>]) -> Vec<u8> {
    let layers = stages.iter().flat_map(|stage| stage.layers(0, 1));
    let strip = layers.map(|layer| {
        let [stride, kernel] = [layer.node.window.stride[0], layer.node.window.kernel[0]].map(usize::from);
        if layer.node.reduction {
            return 1;
        }
        let tallest =
            (1..).take_while(|strip| strip + (strip - 1) * stride + kernel <= skipstone::MAX_STEP_ROWS);
        random.size(1, tallest.last().unwrap()) as u8
    });
    strip.collect()
}
