//! The executor equals the plain evaluation layer by layer, bit for bit, in every output and however it is fed: random
//! networks, every way to cut them into segments, strips of random heights.

use std::sync::LazyLock;

use skipstone::host::format::MAX_TENSORS;
use skipstone::host::schedule::Node;
use skipstone::host::{Layer, MAX_STEP_ROWS};
use skipstone::{Model, Network};
use skipstone_tools::blob::Blob;
use skipstone_tools::ir::IntegerNetwork;
use skipstone_tools::plan::{Plan, Planner};

use crate::memory::Memory;
use crate::networks::{self, Answer, answers, bits, encoded, nodes, scores_of};
use crate::random::Random;

const TENSORS: usize = MAX_TENSORS;

#[test]
fn plans_of_the_planner_give_the_bits_of_plain_evaluation() {
    for seed in 0..100 {
        let network = networks::network(seed);
        networks::with_layers(&network, |layers| {
            let nodes = nodes(layers, &[]);
            let longest = longest_run(&network, &nodes);
            for max_tensors in [TENSORS, longest + 1, longest + 2] {
                let plan = |frame| Planner::new(network.input, frame, max_tensors).plan(&nodes).unwrap();
                let (rows, frame) = (plan(false), plan(true));
                check(&network, layers, &rows, &frame, &format!("seed {seed}, {max_tensors} tensors"));
            }
        });
    }
}

#[test]
fn every_segmentation_gives_the_bits_of_plain_evaluation() {
    let (mut networks, mut most) = (0, 0);
    for seed in 1000.. {
        let network = networks::network(seed);
        networks::with_layers(&network, |layers| {
            let (nodes, planner) = (nodes(layers, &[]), |frame| Planner::new(network.input, frame, TENSORS));
            let cuts = planner(false).cuts(&nodes).unwrap();
            if !(3..=6).contains(&cuts.len()) {
                return;
            }
            networks += 1;
            most = most.max(cuts.len());
            for chosen in 0..1u32 << (cuts.len() - 1) {
                let segments = segments(&cuts, chosen);
                let plan = |frame| planner(frame).plan_as(&nodes, &segments).unwrap();
                let what = format!("seed {seed}, {segments:?}");
                check(&network, layers, &plan(false), &plan(true), &what);
            }
        });
        if networks == 12 {
            break;
        }
    }
    assert_eq!(most, 6);
}

/// Strips of any height that a step can hold, under any segmentation.
#[test]
fn strips_of_any_height_give_the_bits_of_plain_evaluation() {
    let mut tall = 0;
    for seed in 2000..2200 {
        let network = networks::network(seed);
        let random = &mut Random::new(!seed);
        networks::with_layers(&network, |layers| {
            let strips = random_strips(random, layers);
            tall += strips.iter().filter(|strip| **strip > 1).count();
            let nodes = nodes(layers, &strips);
            let (segments, plan) = random_plans(random, &network, &nodes);
            let what = format!("seed {seed}, segments {segments:?}, strips {strips:?}");
            check(&network, layers, &plan[0], &plan[1], &what);
        });
    }
    assert!(tall > 500, "{tall} strips of more than one row");
}

/// The random networks have every kind of output, else the tests above see less than they seem to.
#[test]
fn random_networks_have_outputs_of_all_kinds() {
    let mut found = [0; 5];
    for network in (0..150).map(networks::network) {
        let scores = networks::with_layers(&network, |layers| {
            let scores = network.outputs.iter().filter(|output| layers[output.tensor - 1].gives_scores());
            scores.count()
        });
        let int8 = network.outputs.len() - scores;
        let kinds = [scores == 1 && int8 == 0, scores > 1, int8 > 0 && scores > 0, scores == 0, int8 > 3];
        kinds.into_iter().zip(&mut found).for_each(|(is, count)| *count += usize::from(is));
    }
    assert!(found.iter().all(|count| *count > 3), "{found:?}");
}

/// Runs a network in all ways on two images, one after the other: nothing of the first may remain.
fn check(network: &IntegerNetwork, layers: &[Layer<'_>], rows: &Plan, frame: &Plan, what: &str) {
    let blob: Blob = encoded(network, rows, frame);
    let model = Model::parse(&blob).unwrap();
    static OTHER: LazyLock<Blob> = LazyLock::new(|| networks::planned(&networks::small()));
    let other = Model::parse(&OTHER).unwrap();
    let random = &mut Random::new(rows.arena_bytes as u64);
    let row_len = network.input.row_len();
    let images = [networks::image(random, network.input), networks::image(random, network.input)];
    let expected = images.each_ref().map(|image| networks::expected(network, image));

    let mut memory = Memory::new(model.arena_bytes_rows());
    let mut fed: Network<TENSORS> =
        Network::new(model, memory.bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(fed.outputs().count(), 0, "{what}: outputs before the first run");
    let asked = rows_needed(network, layers, rows);
    for (image, expected) in images.iter().zip(&expected) {
        check_runs(&mut fed, image, expected, what);
        assert_eq!(check_fed(&mut fed, image, expected, what), asked, "{what}: rows asked for");
        check_pushed(&mut fed, random, row_len, image, expected, what);
    }

    let mut memory = Memory::new(model.arena_bytes());
    let mut framed = Network::<TENSORS>::with_frame(model, memory.bytes()).unwrap();
    for (image, expected) in images.iter().zip(&expected) {
        framed.input_mut().copy_from_slice(image);
        let scores = bits(framed.run_frame().unwrap().values());
        check_answers(&framed, &scores, expected, what, "frame in the arena");
        check_runs(&mut framed, image, expected, what);
        assert_eq!(check_fed(&mut framed, image, expected, what), usize::from(network.input.height));
        check_pushed(&mut framed, random, row_len, image, expected, what);
    }

    for frame in [false, true] {
        let bytes = |model: &Model<'_>| if frame { model.arena_bytes() } else { model.arena_bytes_rows() };
        let mut memory = Memory::new(bytes(&model).max(bytes(&other)));
        let mut network = Network::<TENSORS>::empty();
        match frame {
            false => network.set_up(model, memory.bytes()).unwrap(),
            true => network.set_up_with_frame(model, memory.bytes()).unwrap(),
        }
        for (image, expected) in images.iter().zip(&expected) {
            check_runs(&mut network, image, expected, what);
            network.swap(other).unwrap();
            assert_eq!(network.outputs().count(), 0, "{what}: outputs of the network before");
            assert!(network.run(&[1; 128]).is_ok());
            network.swap(model).unwrap();
            assert_eq!(network.outputs().count(), 0, "{what}: outputs of the network before");
            check_runs(&mut network, image, expected, what);
        }
    }
}

/// From a slice.
fn check_runs(network: &mut Network<'_, TENSORS>, image: &[u8], expected: &[Answer], what: &str) {
    let scores = bits(network.run(image).unwrap().values());
    check_answers(network, &scores, expected, what, "from a slice");
}

/// By a closure; returns the number of rows asked for.
fn check_fed(network: &mut Network<'_, TENSORS>, image: &[u8], expected: &[Answer], what: &str) -> usize {
    let mut next = 0;
    let scores = network.run_rows(|row, buffer| {
        assert_eq!(row, next, "{what}: rows come in order, each once");
        next += 1;
        let len = buffer.len();
        buffer.copy_from_slice(&image[row * len..][..len]);
    });
    let scores = bits(scores.unwrap().values());
    check_answers(network, &scores, expected, what, "by rows");
    next
}

/// Row by row: scores on the last row only; after a few rows of another image that are discarded.
fn check_pushed(
    network: &mut Network<'_, TENSORS>,
    random: &mut Random,
    row_len: usize,
    image: &[u8],
    expected: &[Answer],
    what: &str,
) {
    let height = image.len() / row_len;
    for _ in 0..random.size(0, height - 1) {
        let row = random.int8s(row_len);
        assert_eq!(network.push_row(bytemuck::cast_slice(&row)), Ok(None), "{what}: the image before");
    }
    network.restart();
    let mut scores = None;
    for (row, pixels) in image.chunks(row_len).enumerate() {
        let pushed = network.push_row(pixels).unwrap();
        assert_eq!(pushed.is_some(), row + 1 == height, "{what}: scores on the last row only");
        scores = pushed.map(|scores| bits(scores.values()));
    }
    check_answers(network, &scores.unwrap(), expected, what, "pushed");
}

fn check_answers(network: &Network<'_, TENSORS>, scores: &[u32], expected: &[Answer], what: &str, how: &str) {
    assert_eq!(scores, scores_of(expected), "{what}: {how}");
    assert_eq!(answers(network), expected, "{what}: outputs, {how}");
    assert_eq!(network.output("no such output"), None);
}

/// Input rows that the first segment reads: backwards from its last layer, which makes all its rows, as the outputs do.
fn rows_needed(network: &IntegerNetwork, layers: &[Layer<'_>], plan: &Plan) -> usize {
    let count = usize::from(plan.segments[0]);
    let nodes = &nodes(layers, &plan.strips)[..count];
    let mut needed = vec![0; count + 1];
    for (index, node) in nodes.iter().enumerate().rev() {
        let strip = usize::from(node.strip);
        let steps = usize::from(node.steps());
        let all = index + 1 == count || node.kept || (node.reduction && needed[index + 1] > 0);
        let asked = if all { steps } else { needed[index + 1] };
        if asked == 0 {
            continue; // nobody reads it
        }
        let made = asked.next_multiple_of(strip).min(steps);
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
    assert!(needed[0] <= usize::from(network.input.height));
    needed[0]
}

/// Layers of the longest run that cannot be cut.
fn longest_run(network: &IntegerNetwork, nodes: &[Node]) -> usize {
    let cuts = Planner::new(network.input, false, TENSORS).cuts(nodes).unwrap();
    segments(&cuts, !0).into_iter().max().unwrap()
}

/// The segments between the cuts that `chosen` has bits for, and the last.
pub(crate) fn segments(cuts: &[usize], chosen: u32) -> Vec<usize> {
    let (mut segments, mut start) = (Vec::new(), 0);
    for (index, cut) in cuts.iter().enumerate() {
        if index + 1 == cuts.len() || chosen >> index & 1 == 1 {
            segments.push(cut - start);
            start = *cut;
        }
    }
    segments
}

/// Plans with random cuts: for an input fed by rows, and for a frame in the arena.
pub(crate) fn random_plans(
    random: &mut Random,
    network: &IntegerNetwork,
    nodes: &[Node],
) -> (Vec<usize>, [Plan; 2]) {
    let planners = [false, true].map(|frame| Planner::new(network.input, frame, TENSORS));
    let cuts = planners[0].cuts(nodes).unwrap();
    let segments = segments(&cuts, random.bits() as u32);
    let plans = planners.map(|planner| planner.plan_as(nodes, &segments).unwrap());
    (segments, plans)
}

/// A strip height for each layer, of those that a step can hold.
pub(crate) fn random_strips(random: &mut Random, layers: &[Layer<'_>]) -> Vec<u8> {
    let strip = layers.iter().map(|layer| {
        let [stride, kernel] = [layer.node.window.stride[0], layer.node.window.kernel[0]].map(usize::from);
        if layer.node.reduction {
            return 1;
        }
        let tallest = (1..).take_while(|strip| strip + (strip - 1) * stride + kernel <= MAX_STEP_ROWS);
        random.size(1, tallest.last().unwrap()) as u8
    });
    strip.collect()
}
