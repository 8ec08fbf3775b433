//! The proof of the memory plan is sound: whatever stands in the tables, `Network::new` refuses the plan or
//! the scores are right. And it is not too strict: plans that are changed without harm pass.

use std::collections::BTreeMap;
use std::ops::Range;

use skipstone::error::{ParseError, SetUpError};
use skipstone::host::format::MAX_TENSORS;
use skipstone::host::plan::ROW_ALIGN;
use skipstone::host::schedule::Node;
use skipstone::{Model, Network, Shape};
use skipstone_tools::blob::Blob;
use skipstone_tools::ir::IntegerNetwork;
use skipstone_tools::plan::{Plan, Planner};

use crate::executor::{random_plans, random_strips, segments};
use crate::memory::Memory;
use crate::networks::{self, Answer, answers, encoded, nodes};
use crate::parts::Parts;
use crate::random::Random;

const TENSORS: usize = MAX_TENSORS;

/// A network with a plan that is good, and what it should answer.
struct Case<'c> {
    input: Shape,
    nodes: &'c [Node],
    /// The numbers of layers after which it can be cut.
    cuts: Vec<usize>,
    blob: &'c Blob,
    frame: bool,
    plan: &'c Plan,
    image: &'c [u8],
    expected: Vec<Answer>,
}

/// Calls `run` with random networks, fed by rows and with the frame in the arena.
fn each_case(seeds: Range<u64>, run: impl FnMut(&Case<'_>, &mut Random)) {
    each_case_of(networks::network, seeds, run);
}

fn each_case_of(
    network: fn(u64) -> IntegerNetwork,
    seeds: Range<u64>,
    mut run: impl FnMut(&Case<'_>, &mut Random),
) {
    for seed in seeds {
        let network = network(seed);
        let (random, input) = (&mut Random::new(!seed), network.input);
        networks::with_layers(&network, |layers| {
            let strips = if random.one_in(2) { random_strips(random, layers) } else { Vec::new() };
            let nodes = &nodes(layers, &strips)[..];
            let (_, plans) = random_plans(random, &network, nodes);
            let blob = &encoded(&network, &plans[0], &plans[1]);
            let image = &networks::image(random, input)[..];
            let expected = networks::expected(&network, image);
            for (frame, plan) in [(false, &plans[0]), (true, &plans[1])] {
                let cuts = Planner::new(input, frame, TENSORS).cuts(nodes).unwrap();
                run(
                    &Case { input, nodes, cuts, blob, frame, plan, image, expected: expected.clone() },
                    random,
                );
            }
        });
    }
}

/// What becomes of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Accepted,
    /// By the proof.
    Misplaced,
    /// By `Model::parse`: its tables do not fit the layers.
    Inconsistent,
}

impl Case<'_> {
    /// Runs the network with another plan in an arena of exactly its size; accepted, it must be right.
    fn try_plan(&self, plan: &Plan, what: &str) -> Fate {
        let mut parts = Parts::of(self.blob);
        let [rows, strips, segments] =
            [parts.section(&plan.rows), parts.section(&plan.strips), parts.section(&plan.segments)];
        *parts.arena_bytes(self.frame) = plan.arena_bytes as u32;
        let record = parts.plan(self.frame);
        (record.rows, record.strips, record.segments) = (rows, strips, segments);
        (record.row_count, record.segment_count) = (plan.rows.len() as u32, plan.segments.len() as u16);
        parts.header.tensors = self.longest(plan);
        let blob = parts.blob();

        let model = match Model::parse(&blob) {
            Ok(model) => model,
            Err(ParseError::Plan) => return Fate::Inconsistent,
            Err(error) => panic!("{what}: {error}"),
        };
        let mut memory = Memory::new(plan.arena_bytes);
        let mut network = Network::<TENSORS>::empty();
        let set_up = match self.frame {
            false => network.set_up(model, memory.bytes()),
            true => network.set_up_with_frame(model, memory.bytes()),
        };
        match set_up {
            Ok(()) => {}
            Err(SetUpError::Plan { .. }) => return Fate::Misplaced,
            Err(error) => panic!("{what}: {error}"),
        }
        assert!(!self.cut_wrongly(plan), "{what}: accepted, but a layer reads across a cut");
        assert!(network.run(self.image).is_ok(), "{what}: accepted, but does not run");
        assert_eq!(answers(&network), self.expected, "{what}: accepted, but wrong");
        Fate::Accepted
    }

    /// Tensors of the longest segment, of the other plan's as well.
    fn longest(&self, plan: &Plan) -> u16 {
        let other = Model::parse(self.blob).unwrap().memory_plan(!self.frame).unwrap();
        u16::from(plan.segments.iter().chain(other.segments).copied().max().unwrap_or(0)) + 1
    }

    /// Whether a segment ends where it must not.
    fn cut_wrongly(&self, plan: &Plan) -> bool {
        let mut end = 0;
        plan.segments.iter().any(|layers| {
            end += usize::from(*layers);
            !self.cuts.contains(&end)
        })
    }
}

/// Tables changed at random: refused, or right.
#[test]
fn a_plan_that_is_accepted_is_right() {
    let mut fates = BTreeMap::new();
    each_case(3000..3250, |case, random| {
        assert_eq!(case.try_plan(case.plan, "unchanged"), Fate::Accepted);
        for attempt in 0..30 {
            let mut plan = case.plan.clone();
            let kind = random.size(0, KINDS.len() - 1);
            for _ in 0..random.size(1, 2) {
                KINDS[kind].1(case, &mut plan, random);
            }
            let what = format!("{} ({attempt}) to {plan:?}, frame {}", KINDS[kind].0, case.frame);
            let fate = case.try_plan(&plan, &what);
            *fates.entry((KINDS[kind].0, fate)).or_insert(0) += 1;
        }
    });
    println!("{fates:#?}");
    let count = |fate| fates.iter().filter(|((_, found), _)| *found == fate).map(|(_, count)| count).sum();
    let (accepted, misplaced, inconsistent): (i32, i32, i32) =
        (count(Fate::Accepted), count(Fate::Misplaced), count(Fate::Inconsistent));
    let all = accepted + misplaced + inconsistent;
    assert!(accepted > all / 10, "{accepted} of {all} accepted");
    assert!(misplaced > all / 3, "{misplaced} of {all} misplaced");
    for (kind, _) in KINDS {
        assert!(fates.keys().any(|(name, fate)| *name == kind && *fate != Fate::Accepted), "{kind}");
    }
}

/// A row that is added in place on its shortcut's row, moved a little: pixels of the shortcut would be
/// overwritten before they are taken.
#[test]
fn half_in_place_is_refused_or_right() {
    let mut refused = 0;
    each_case_of(networks::doubling, 3500..3550, |case, _| {
        for row in 0..case.plan.rows.len() {
            for by in [-2, -1, 1, 2] {
                let mut plan = case.plan.clone();
                plan.rows[row] = plan.rows[row].saturating_add_signed(by);
                let fate = case.try_plan(&plan, &format!("row {row} of {plan:?} moved by {by}"));
                refused += usize::from(fate != Fate::Accepted);
            }
        }
    });
    assert!(refused > 1000, "{refused}");
}

/// A row, or all of them, in memory of its own disturbs nobody.
#[test]
fn rows_in_memory_of_their_own_are_accepted() {
    each_case(4000..4100, |case, random| {
        let row_bytes = row_bytes(case);
        let movable = usize::from(case.frame)..case.plan.rows.len();
        let all = random.one_in(2);
        let mut plan = case.plan.clone();
        for row in movable.clone() {
            if all || row == random.size(movable.start, movable.end - 1) {
                plan.rows[row] = (plan.arena_bytes / ROW_ALIGN) as u16;
                plan.arena_bytes += row_bytes[row].next_multiple_of(ROW_ALIGN);
            }
        }
        assert_eq!(case.try_plan(&plan, "rows of their own"), Fate::Accepted);
    });
}

/// The arena turned upside down, and pushed up.
#[test]
fn the_mirrored_plan_is_accepted() {
    each_case(5000..5100, |case, random| {
        if case.frame {
            return; // its rows cannot be turned around one by one
        }
        let mut plan = case.plan.clone();
        let units = (plan.arena_bytes / ROW_ALIGN) as u16;
        for (address, bytes) in plan.rows.iter_mut().zip(row_bytes(case)) {
            // a row that is never made may stand anywhere
            *address = units.saturating_sub(*address + bytes.div_ceil(ROW_ALIGN) as u16);
        }
        let up = random.size(0, 9);
        plan.rows.iter_mut().for_each(|address| *address += up as u16);
        plan.arena_bytes += up * ROW_ALIGN;
        assert_eq!(case.try_plan(&plan, "mirrored"), Fate::Accepted);
    });
}

/// One byte less than the plan needs is too little.
#[test]
fn an_arena_that_ends_too_early_is_refused() {
    each_case(6000..6100, |case, _| {
        let end = case.plan.rows.iter().zip(row_bytes(case)).map(|(at, bytes)| usize::from(*at) * 4 + bytes);
        let plan = Plan { arena_bytes: end.max().unwrap() - 1, ..case.plan.clone() };
        assert_eq!(case.try_plan(&plan, "one byte less"), Fate::Misplaced);
    });
}

/// A way to change a plan.
type Change = fn(&Case<'_>, &mut Plan, &mut Random);

const KINDS: [(&str, Change); 10] = [
    ("a row moves a little", |_, plan, random| {
        let row = any_row(plan, random);
        plan.rows[row] = plan.rows[row].saturating_add_signed(random.between(-3, 3) as i16);
    }),
    ("a row moves anywhere", |_, plan, random| {
        let row = any_row(plan, random);
        plan.rows[row] = random.size(0, plan.arena_bytes / ROW_ALIGN) as u16;
    }),
    ("a row moves to another", |_, plan, random| {
        let (row, other) = (any_row(plan, random), any_row(plan, random));
        plan.rows[row] = plan.rows[other];
    }),
    ("two rows change places", |_, plan, random| {
        let (row, other) = (any_row(plan, random), any_row(plan, random));
        plan.rows.swap(row, other);
    }),
    ("neighbours change places", |_, plan, random| {
        let row = any_row(plan, random).min(plan.rows.len().saturating_sub(2));
        if let [a, b, ..] = &mut plan.rows[row..] {
            core::mem::swap(a, b);
        }
    }),
    ("rows after one move", |_, plan, random| {
        let (first, by) = (any_row(plan, random), random.between(-2, 2) as i16);
        plan.rows[first..].iter_mut().for_each(|row| *row = row.saturating_add_signed(by));
    }),
    ("a strip changes", |_, plan, random| {
        let layer = random.size(0, plan.strips.len() - 1);
        plan.strips[layer] = random.size(0, 5) as u8;
    }),
    ("the cuts change", |case, plan, random| {
        let cuts = segments(&case.cuts, random.bits() as u32);
        plan.segments = cuts.iter().map(|layers| *layers as u8).collect();
        if random.one_in(8) {
            plan.segments[0] = random.size(0, 3) as u8;
        }
    }),
    ("the cuts change to any", |case, plan, random| {
        let cuts: Vec<usize> = (1..=case.nodes.len()).collect();
        let cuts = segments(&cuts, random.bits() as u32);
        plan.segments = cuts.iter().map(|layers| *layers as u8).collect();
    }),
    ("the arena's size changes", |_, plan, random| {
        plan.arena_bytes = plan.arena_bytes.saturating_add_signed(random.between(-20, 20) as isize);
    }),
];

fn any_row(plan: &Plan, random: &mut Random) -> usize {
    random.size(0, plan.rows.len() - 1)
}

/// Bytes of the row of each entry of the row table; of a frame or an output, all their bytes.
fn row_bytes(case: &Case<'_>) -> Vec<usize> {
    let input = case.input;
    let mut bytes = match case.frame {
        true => vec![input.len()],
        false => vec![input.row_len(); usize::from(input.height)],
    };
    for node in case.nodes {
        let output = node.output;
        let rows = if output.contiguous { usize::from(output.rows) } else { 1 };
        bytes.extend(vec![output.row_bytes as usize * rows; output.entries() as usize]);
    }
    bytes
}
