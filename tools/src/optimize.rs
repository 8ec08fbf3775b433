//! Chooses for every convolution how it is computed and in how tall strips: the fewest predicted cycles that
//! budgets of RAM and flash allow.
//!
//! Layers of the same shapes are chosen for together. Every choice has a *footprint*, the bytes that one of
//! its steps reads, makes and uses as scratch. For each possible limit on footprints the fastest choices
//! within it are tried, from the loosest on; the arena that each would need is bounded from below by the
//! planner. Of those that fit the budget the fastest is kept, and then single choices are made faster
//! while the budget lasts.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::ValueEnum;
use skipstone::schedule::Node;
use skipstone::stage::{Layer, Stage};
use skipstone::{Algorithm, MAX_STEP_ROWS, Stages, predicted_cycles};

use crate::blob::{Blob, Unplanned};
use crate::planner::{self, Plan};

/// The core that a blob is made for. Blobs run everywhere; they are fast where they were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Target {
    /// Cortex-M4, M7 and M33: kernels for the DSP extension.
    #[default]
    CortexM4,
    /// The reference kernels: the obvious loops, the least RAM.
    Reference,
}

/// What a plan is to have most of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Goal {
    /// The fewest cycles.
    Speed,
    /// The fewest cycles in 32 KiB of RAM and a fifth more flash than the weights take.
    #[default]
    Balanced,
    /// The least RAM without falling back to the reference kernels (which --ram may do).
    Memory,
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The core.
    pub target: Target,
    /// What counts.
    pub goal: Goal,
    /// Most bytes of the arena, the frame in it.
    pub ram: Option<usize>,
    /// Most bytes of the blob.
    pub flash: Option<usize>,
}

/// RAM of a balanced plan that has no budget.
const BALANCED_RAM: usize = 32 * 1024;

/// A way to compute a layer.
#[derive(Debug, Clone, Copy)]
struct Choice {
    algorithm: Algorithm,
    node: Node,
    cycles: u64,
    weight_bytes: usize,
    footprint: usize,
}

/// Layers that are computed alike.
struct Group {
    layers: usize,
    /// The fastest first.
    choices: Vec<Choice>,
}

/// A network whose layers have choices.
struct Problem<'u> {
    unplanned: &'u Unplanned,
    /// The group of each layer, stage by stage; its choices' nodes for this very layer.
    stages: Vec<Vec<(usize, Vec<Node>)>>,
    groups: Vec<Group>,
    max_tensors: usize,
}

/// A choice for each group.
type Picks = Vec<usize>;

/// Plans a network as wished: the blob, and both its plans' predicted cycles.
///
/// # Errors
/// Where a budget cannot be met, by how much, and what would fit.
pub fn assemble(unplanned: &Unplanned, wishes: &Wishes, max_tensors: usize) -> Result<Blob> {
    let problem = Problem::new(unplanned, wishes, max_tensors)?;
    let fixed = problem.blob(&problem.smallest())?.len() - problem.weight_bytes(&problem.smallest());
    let plain = problem.weight_bytes(&problem.smallest()) + fixed;
    let flash = wishes.flash.unwrap_or(match wishes.goal {
        Goal::Speed => usize::MAX,
        Goal::Balanced | Goal::Memory => plain + plain / 5,
    });
    if flash < plain {
        bail!(
            "the blob takes {plain} bytes of flash at least, {} more than --flash {flash} allows\n  help: give --flash {plain}, or a smaller network",
            plain - flash
        );
    }
    let ram = match (wishes.ram, wishes.goal) {
        (Some(ram), _) => ram,
        (None, Goal::Balanced) => BALANCED_RAM,
        (None, Goal::Speed) => usize::MAX,
        (None, Goal::Memory) => 0,
    };
    let within = problem.within_flash(flash.saturating_sub(fixed));
    // what the bound promises, placing may miss by a little
    let mut aim = ram;
    loop {
        let (picks, bound) = problem.within_ram(&within, aim)?;
        let blob = problem.blob(&picks)?;
        let needed = skipstone::Model::parse(&blob)?.arena_bytes();
        if needed <= ram || bound > aim {
            if needed > ram && wishes.ram.is_some() {
                bail!(
                    "the network needs an arena of {needed} bytes at least, {} more than --ram {ram} allows\n  help: give --ram {needed}, or a smaller network",
                    needed - ram
                );
            }
            return Ok(blob);
        }
        aim = aim.saturating_sub((needed - ram).max(64));
    }
}

impl<'u> Problem<'u> {
    fn new(unplanned: &'u Unplanned, wishes: &Wishes, max_tensors: usize) -> Result<Self> {
        let mut problem = Problem { unplanned, stages: Vec::new(), groups: Vec::new(), max_tensors };
        let algorithms = match wishes.target {
            Target::CortexM4 => &[
                Algorithm::Winograd4,
                Algorithm::Winograd4AtRunTime,
                Algorithm::Winograd,
                Algorithm::WinogradAtRunTime,
                Algorithm::Direct,
            ][..],
            Target::Reference => &[Algorithm::Reference],
        };
        let (plain, weights) = unplanned.encode()?;
        let plain = stages(unplanned, &plain, &weights)?;
        // the network once for each algorithm, which the layers that it does not serve do not have
        let mut variants = Vec::new();
        for algorithm in algorithms {
            let served = plain.iter().flat_map(|stage| stage.layers(0, 1)).map(|layer| {
                let served = layer.convolution().is_some_and(|layer| layer.is_served_by(*algorithm));
                if served { *algorithm } else { Algorithm::Reference }
            });
            let variant = unplanned.with_algorithms(&served.collect::<Vec<_>>())?;
            variants.push(variant.encode()?);
        }
        let mut layers = Vec::new();
        for (records, weights) in &variants {
            layers.push(stages(unplanned, records, weights)?);
        }
        let mut known = BTreeMap::<String, usize>::new();
        for (index, stage) in plain.iter().enumerate() {
            let variants: Vec<Vec<Layer<'_>>> =
                layers.iter().map(|stages| stages[index].layers(0, 1).collect()).collect();
            let mut placed = Vec::new();
            for (place, layer) in stage.layers(0, 1).enumerate() {
                let variants = variants.iter().map(|stage| &stage[place]);
                let choices = choices(&layer, variants, wishes.ram.is_some());
                // what is equal but for names, weights and places
                let key = format!(
                    "{:?}",
                    choices.iter().map(|choice| (choice.cycles, choice.footprint)).collect::<Vec<_>>()
                );
                let nodes = choices.iter().map(|choice| choice.node).collect();
                let group = *known.entry(key).or_insert_with(|| {
                    problem.groups.push(Group { layers: 0, choices });
                    problem.groups.len() - 1
                });
                problem.groups[group].layers += 1;
                placed.push((group, nodes));
            }
            problem.stages.push(placed);
        }
        Ok(problem)
    }

    fn nodes(&self, picks: &Picks) -> Vec<Vec<Node>> {
        let stage = |stage: &Vec<(usize, Vec<Node>)>| {
            stage.iter().map(|(group, nodes)| nodes[picks[*group]]).collect()
        };
        self.stages.iter().map(stage).collect()
    }

    fn sum(&self, picks: &Picks, of: impl Fn(&Choice) -> u64) -> u64 {
        let groups = self.groups.iter().zip(picks);
        groups.map(|(group, pick)| group.layers as u64 * of(&group.choices[*pick])).sum()
    }

    fn cycles(&self, picks: &Picks) -> u64 {
        self.sum(picks, |choice| choice.cycles)
    }

    fn weight_bytes(&self, picks: &Picks) -> usize {
        self.sum(picks, |choice| choice.weight_bytes as u64) as usize
    }

    /// The choices with the smallest weights, of those the fastest.
    fn smallest(&self) -> Picks {
        let smallest = |group: &Group| {
            let choices = group.choices.iter().enumerate();
            choices.min_by_key(|(_, choice)| choice.weight_bytes).map_or(0, |(index, _)| index)
        };
        self.groups.iter().map(smallest).collect()
    }

    /// The choices of each group that may be taken when the weights must fit `flash` bytes: all of the
    /// fastest that fit, given up where a byte saves the least cycles.
    fn within_flash(&self, flash: usize) -> Vec<Vec<usize>> {
        let mut picks: Picks = vec![0; self.groups.len()];
        while self.weight_bytes(&picks) > flash {
            let changes = self.groups.iter().enumerate().flat_map(|(group, Group { layers, choices })| {
                let now = &choices[picks[group]];
                let smaller = choices.iter().enumerate().skip(picks[group]);
                smaller.filter(|(_, choice)| choice.weight_bytes < now.weight_bytes).map(
                    move |(to, choice)| {
                        let saved = (now.weight_bytes - choice.weight_bytes) * layers;
                        let lost = (choice.cycles - now.cycles) * *layers as u64;
                        (lost as f64 / saved as f64, group, to)
                    },
                )
            });
            let Some((_, group, to)) = changes.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            picks[group] = to;
        }
        let allowed = |(group, pick): (&Group, &usize)| {
            let most = group.choices[*pick].weight_bytes;
            (0..group.choices.len()).filter(|index| group.choices[*index].weight_bytes <= most).collect()
        };
        self.groups.iter().zip(&picks).map(allowed).collect()
    }

    fn bound(&self, picks: &Picks) -> Result<usize> {
        Ok(planner::lower_bound_nodes(self.nodes(picks), self.unplanned.input, true, self.max_tensors)?)
    }

    /// The fastest of the `allowed` choices whose arena's bound is at most `ram`, or those of the
    /// smallest bound; and the bound.
    fn within_ram(&self, allowed: &[Vec<usize>], ram: usize) -> Result<(Picks, usize)> {
        let footprint = |group: usize, choice: usize| self.groups[group].choices[choice].footprint;
        let mut limits: Vec<usize> = allowed
            .iter()
            .enumerate()
            .flat_map(|(group, allowed)| allowed.iter().map(move |choice| footprint(group, *choice)))
            .collect();
        limits.sort_unstable();
        limits.dedup();
        let mut best: Option<(bool, u64, usize, Picks)> = None;
        for limit in limits.into_iter().rev() {
            let picks: Picks = allowed
                .iter()
                .enumerate()
                .map(|(group, allowed)| {
                    let fits = allowed.iter().find(|choice| footprint(group, **choice) <= limit);
                    let least = allowed.iter().min_by_key(|choice| footprint(group, **choice));
                    fits.or(least).copied().unwrap_or(0)
                })
                .collect();
            let bound = self.bound(&picks)?;
            // what fits comes before what does not; then the fastest, or the smallest
            let rank = (bound > ram, if bound > ram { bound as u64 } else { 0 }, self.cycles(&picks));
            let better = best.as_ref().is_none_or(|(over, cycles, least, _)| {
                rank < (*over, if *over { *least as u64 } else { 0 }, *cycles)
            });
            if better {
                best = Some((bound > ram, rank.2, bound, picks));
            }
        }
        let (_, _, bound, mut picks) = best.unwrap_or_default();
        // single groups made faster, the one that gains most first, in no more than that
        let most = bound.max(ram.min(bound));
        let budget = if bound > ram { bound } else { ram };
        loop {
            let mut changes: Vec<(u64, usize, usize)> = Vec::new();
            for (group, allowed) in allowed.iter().enumerate() {
                let Group { layers, choices } = &self.groups[group];
                for choice in allowed.iter().filter(|choice| **choice < picks[group]) {
                    let gain = (choices[picks[group]].cycles - choices[*choice].cycles) * *layers as u64;
                    changes.push((gain, group, *choice));
                }
            }
            changes.sort_unstable_by(|a, b| b.cmp(a));
            let mut changed = false;
            for (_, group, choice) in changes {
                let before = std::mem::replace(&mut picks[group], choice);
                if self.bound(&picks)? <= budget {
                    changed = true;
                    break;
                }
                picks[group] = before;
            }
            if !changed {
                return Ok((picks, most));
            }
        }
    }

    /// The network with these choices, planned.
    fn blob(&self, picks: &Picks) -> Result<Blob> {
        let chosen =
            self.stages.iter().flatten().map(|(group, _)| self.groups[*group].choices[picks[*group]]);
        let algorithms: Vec<Algorithm> = chosen.map(|choice| choice.algorithm).collect();
        let plan = |frame| -> Result<Plan> {
            let input = self.unplanned.input;
            Ok(planner::plan_nodes(self.nodes(picks), input, frame, self.max_tensors)?)
        };
        self.unplanned.with_algorithms(&algorithms)?.assemble(&plan(false)?, &plan(true)?)
    }
}

fn stages<'a>(unplanned: &Unplanned, records: &'a [u8], weights: &'a [u8]) -> Result<Vec<Stage<'a>>> {
    let stages = Stages::new(records, unplanned.names.len() as u16, weights, unplanned.input);
    Ok(stages.map(|entry| entry.map(|entry| entry.stage)).collect::<Result<_, _>>()?)
}

/// The ways to compute a layer, the fastest first, of which `variants` show the algorithms; where RAM is
/// `tight` the reference kernels too, which use no scratch memory.
fn choices<'l, 'a: 'l>(
    plain: &Layer<'a>,
    variants: impl Iterator<Item = &'l Layer<'a>>,
    tight: bool,
) -> Vec<Choice> {
    let mut choices = Vec::new();
    let mut add = |layer: &Layer<'_>, strip: u8| {
        let node = layer.place(strip, 0);
        let [stride, kernel] = [node.window.stride[0], node.window.kernel[0]].map(usize::from);
        let rows = (usize::from(strip) - 1) * stride + kernel;
        if usize::from(strip) + rows > MAX_STEP_ROWS || u16::from(strip) > node.output.rows.max(2) {
            return;
        }
        let (algorithm, input_row, weight_bytes) = match layer.convolution() {
            Some(layer) => (layer.algorithm(), layer.input().row_len(), layer.weight_len()),
            None => (Algorithm::Reference, 0, 0),
        };
        let footprint = node.scratch_bytes as usize
            + rows * input_row
            + usize::from(strip) * node.output.row_bytes as usize;
        choices.push(Choice {
            algorithm,
            node,
            cycles: predicted_cycles(layer, strip),
            weight_bytes,
            footprint,
        });
    };
    let mut served = false;
    for layer in variants {
        let strips: &[u8] = match layer.convolution().map(|layer| layer.algorithm()) {
            Some(Algorithm::Winograd) => &[2],
            Some(Algorithm::WinogradAtRunTime) => &[2, 4, 6],
            Some(Algorithm::Winograd4 | Algorithm::Winograd4AtRunTime) => &[4],
            Some(Algorithm::Direct) => &[1],
            Some(Algorithm::Reference) | None => &[],
        };
        served |= !strips.is_empty();
        strips.iter().for_each(|strip| add(layer, *strip));
    }
    if !served || tight {
        add(plain, 1);
    }
    choices.sort_by_key(|choice| (choice.cycles, choice.footprint));
    choices
}
