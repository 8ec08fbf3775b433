//! Chooses for every layer an algorithm and a strip height: the fewest predicted cycles that budgets of RAM and flash
//! allow.
//!
//! Equal layers are chosen for together. Every choice has a *footprint*, the bytes that one of its steps reads, makes
//! and uses as scratch memory. For each possible limit on footprints the fastest choices within it are tried, from the
//! loosest on; the planner gives a lower bound for the arena that each would need. Of those that fit the budget the
//! fastest is kept, and then single choices are made faster while the budget lasts.

pub mod encode;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::ValueEnum;
use skipstone::host::schedule::Node;
use skipstone::host::{Algorithm, Layer, MAX_STEP_ROWS, predicted_cycles};

use self::encode::{encode, fixed_bytes};
use crate::blob::Blob;
use crate::ir::IntegerNetwork;
use crate::plan::layers::Prepared;
use crate::plan::{Plan, Planner};

/// The core that a blob is made for. Blobs run everywhere; they are fast on the core that they were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Target {
    /// Cortex-M4, M7 and M33: kernels for the DSP extension.
    #[default]
    CortexM4,
    /// The reference kernels: plain loops, the smallest RAM footprint.
    Reference,
}

/// What to optimize a plan for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Goal {
    /// The fewest cycles.
    Speed,
    /// The fewest cycles in 32 KiB of RAM, and in a fifth more flash than the weights need.
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
    /// What to optimize for.
    pub goal: Goal,
    /// Maximum arena size in bytes, the frame in it.
    pub ram: Option<usize>,
    /// Maximum blob size in bytes.
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
struct Problem {
    /// The group of each layer; its choices' nodes for this very layer.
    layers: Vec<(usize, Vec<Node>)>,
    groups: Vec<Group>,
    /// For the input fed by rows, and for the frame in the arena.
    planners: [Planner; 2],
}

/// A choice for each group.
type Picks = Vec<usize>;

/// Chooses, plans and encodes a network as wished.
///
/// # Errors
/// A budget cannot be met: by how much, and what would fit.
pub fn assemble(network: &IntegerNetwork, wishes: &Wishes, max_tensors: usize) -> Result<Blob> {
    let prepared = Prepared::new(network);
    let layers = prepared.layers()?;
    let planners = [false, true].map(|frame| Planner::new(network.input, frame, max_tensors));
    let problem = Problem::new(&layers, wishes, planners);
    let smallest = problem.smallest();
    let input_rows = usize::from(network.input.height);
    let entries: usize = problem.nodes(&smallest).iter().map(|node| node.entries() as usize).sum();
    let fixed = fixed_bytes(network, &layers, 2 * entries + input_rows + 1)?;
    let plain = problem.weight_bytes(&smallest) + fixed;
    let flash = wishes.flash.unwrap_or(match wishes.goal {
        Goal::Speed => usize::MAX,
        Goal::Balanced | Goal::Memory => plain + plain / 5,
    });
    if flash < plain {
        bail!(
            "the blob needs at least {plain} bytes of flash, {} more than --flash {flash} allows\n  help: give --flash {plain}, or a smaller network",
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
    // placing may miss what the bound promises by a little
    let mut aim = ram;
    loop {
        let (picks, bound) = problem.within_ram(&within, aim)?;
        let nodes = problem.nodes(&picks);
        let [_, framed] = &problem.planners;
        let frame: Plan = framed.plan(&nodes)?;
        let needed = frame.arena_bytes;
        if needed <= ram || bound > aim {
            if needed > ram && wishes.ram.is_some() {
                bail!(
                    "the network needs an arena of at least {needed} bytes, {} more than --ram {ram} allows\n  help: give --ram {needed}, or a smaller network",
                    needed - ram
                );
            }
            let [fed, _] = &problem.planners;
            let algorithms: Vec<Algorithm> = problem.chosen(&picks).map(|choice| choice.algorithm).collect();
            return encode(network, &layers, &algorithms, &fed.plan(&nodes)?, &frame);
        }
        aim = aim.saturating_sub((needed - ram).max(64));
    }
}

impl Problem {
    fn new(layers: &[Layer<'_>], wishes: &Wishes, planners: [Planner; 2]) -> Self {
        let mut problem = Problem { layers: Vec::new(), groups: Vec::new(), planners };
        let algorithms: Vec<Algorithm> = match wishes.target {
            Target::CortexM4 => Algorithm::ALL
                .iter()
                .rev()
                .copied()
                .filter(|&algorithm| algorithm != Algorithm::Reference)
                .collect(),
            Target::Reference => Vec::new(),
        };
        let mut known = BTreeMap::<String, usize>::new();
        for layer in layers {
            let choices = choices(layer, &algorithms, wishes.ram.is_some());
            // what is equal except for names, weights and tensors
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
            problem.layers.push((group, nodes));
        }
        problem
    }

    fn nodes(&self, picks: &Picks) -> Vec<Node> {
        self.layers.iter().map(|(group, nodes)| nodes[picks[*group]]).collect()
    }

    fn chosen<'p>(&'p self, picks: &'p Picks) -> impl Iterator<Item = &'p Choice> {
        self.layers.iter().map(|(group, _)| &self.groups[*group].choices[picks[*group]])
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
        Ok(self.planners[1].lower_bound(&self.nodes(picks))?)
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
}

/// The ways to compute a layer, the fastest first; the reference kernels, which use no scratch memory, are among them if
/// no other algorithm supports it or RAM is `tight`.
fn choices(plain: &Layer<'_>, algorithms: &[Algorithm], tight: bool) -> Vec<Choice> {
    let mut choices = Vec::new();
    let mut add = |algorithm: Algorithm, strip: u8| {
        let layer = plain.with_algorithm(algorithm);
        let Some(node) = layer.place(0, strip, 0) else { return };
        let [stride, kernel] = [node.window.stride[0], node.window.kernel[0]].map(usize::from);
        let rows = (usize::from(strip) - 1) * stride + kernel;
        if usize::from(strip) + rows > MAX_STEP_ROWS || u16::from(strip) > node.output.rows.max(2) {
            return;
        }
        let (input_row, weight_bytes) = match layer.convolution() {
            Some(layer) => (layer.input().row_len(), layer.packed_bytes(algorithm)),
            None => (0, 0),
        };
        let footprint = node.scratch_bytes as usize
            + rows * input_row
            + usize::from(strip) * node.output.row_bytes as usize;
        let cycles = predicted_cycles(&layer, strip);
        choices.push(Choice { algorithm, node, cycles, weight_bytes, footprint });
    };
    let mut supported = false;
    for algorithm in algorithms {
        if plain.convolution().is_some_and(|layer| layer.is_supported_by(*algorithm)) {
            supported = true;
            algorithm.strips().iter().for_each(|strip| add(*algorithm, *strip));
        }
    }
    if !supported || tight {
        add(Algorithm::Reference, 1);
    }
    choices.sort_by_key(|choice| (choice.cycles, choice.footprint));
    choices
}
