//! The memory plans as pictures: time from left to right, addresses from the bottom up, a colour for each tensor.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};
use maud::{Markup, html};
use skipstone::Model;

use super::words::layer_names;
use crate::commands::occupancy::parts;
use crate::commands::report::Report;
use crate::commands::text::{grouped, printable};

/// Turn of the colour circle from one tensor to the next: neighbours differ, few are alike.
const TURN: usize = 137;

/// The bytes of a row in the arena while it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    address: usize,
    bytes: usize,
    /// Step that makes it; that of the last to read it.
    steps: (usize, usize),
}

/// A plan's rows over time.
struct Trace {
    arena_bytes: usize,
    steps: usize,
    /// Name of each tensor, and its rows.
    tensors: Vec<(String, Vec<Life>)>,
    /// Steps at which a segment ends and the next begins.
    cuts: Vec<usize>,
}

pub(super) fn section(model: &Model<'_>, report: &Report) -> Result<Markup> {
    let (rows, frame) = (trace(model, report, false)?, trace(model, report, true)?);
    Ok(html! {
        section {
            h2 { "RAM over time" }
            p.quiet {
                "Each box is a row of a tensor: where it lies in the arena (address 0 at the bottom), from the \
                 step that makes it to the last that reads it. Dashed lines are cuts between segments."
            }
            (picture("Fed by rows", &rows))
            (picture("Frame in the arena", &frame))
            ul.legend {
                @for (index, (name, _)) in rows.tensors.iter().enumerate() {
                    li { i style=(format!("background:{}", colour(index))) {} (printable(name)) }
                }
            }
        }
    })
}

fn colour(tensor: usize) -> String {
    format!("hsl({} var(--saturation) var(--lightness))", tensor * TURN % 360)
}

fn picture(title: &str, trace: &Trace) -> Markup {
    let Trace { arena_bytes, steps, tensors, cuts } = trace;
    html! {
        h3 { (title) ": " (grouped(*arena_bytes as u64)) " bytes" }
        div.wide.plan {
            svg viewBox=(format!("0 0 {steps} {arena_bytes}")) preserveAspectRatio="none" role="img"
                aria-label=(format!("the arena over time, {title}")) {
                @for (index, (name, lives)) in tensors.iter().enumerate() {
                    path style=(format!("fill:{}", colour(index))) d=(boxes(lives, *arena_bytes)) {
                        title { (printable(name)) }
                    }
                }
                @for cut in cuts {
                    line.cut x1=(cut) x2=(cut) y1="0" y2=(arena_bytes) {}
                }
            }
            div.axis.quiet { span { "step 0" } span { "step " (grouped(*steps as u64)) } }
        }
    }
}

/// A path of boxes; the arena's first byte is at the bottom.
fn boxes(lives: &[Life], arena_bytes: usize) -> String {
    let mut path = String::new();
    for Life { address, bytes, steps: (from, to) } in lives {
        let top = arena_bytes.saturating_sub(address + bytes);
        let width = to + 1 - from;
        // writing to a string does not fail
        let _ = write!(path, "M{from} {top}h{width}v{bytes}h-{width}z");
    }
    path
}

/// Follows the schedule of the model's plan for a frame in the arena, or for an input fed by rows. The
/// plan must be proved.
fn trace(model: &Model<'_>, report: &Report, frame: bool) -> Result<Trace> {
    let plan = model.memory_plan(frame).context("the blob has no memory plan")?;
    let mut lives = BTreeMap::<(usize, u16), Life>::new();
    let (mut now, mut cuts, mut scratch) = (0, Vec::new(), Vec::new());
    for part in &parts(model, &plan, frame)? {
        let (first, segment) = (part.first, part.segment());
        let mut made = vec![0; part.nodes.len() + 1];
        made[0] = part.input_rows;
        if first > 0 {
            cuts.push(now);
        }
        let mut touch = |tensor: u16, row: u16, step: usize| {
            let (shape, id) = (segment.tensor(tensor), (first + usize::from(tensor), row));
            let life = Life {
                address: plan.address(shape, row),
                bytes: shape.row_bytes as usize,
                steps: (step, step),
            };
            lives.entry(id).or_insert(life).steps.1 = step;
        };
        while let Some(step) = segment.next(&made) {
            for tensor in 0..made.len() as u16 {
                let begun = 0..segment.begun(&made, tensor);
                begun
                    .filter(|row| segment.is_alive(&made, tensor, *row))
                    .for_each(|row| touch(tensor, row, now));
            }
            let new = match segment.node(step.tensor) {
                Some(node) if node.reduction => 0..1, // its sums
                _ => step.first..step.first + step.count,
            };
            new.for_each(|row| touch(step.tensor, row, now));
            if let Some(memory) = segment.node(step.tensor).and_then(|node| node.scratch(step.first)) {
                let (address, bytes) = (plan.address(memory, 0), memory.row_bytes as usize);
                scratch.push(Life { address, bytes, steps: (now, now) });
            }
            made[usize::from(step.tensor)] += step.count;
            now += 1;
        }
    }
    // outputs stay until the run ends
    for (index, entry) in model.layers().enumerate() {
        if entry?.output.is_some() {
            let rows = lives.range_mut((index + 1, 0)..=(index + 1, u16::MAX));
            rows.for_each(|(_, life)| life.steps.1 = now.saturating_sub(1));
        }
    }
    let names = std::iter::once("input".to_owned()).chain(layer_names(report));
    let mut tensors: Vec<(String, Vec<Life>)> = names.map(|name| (name, Vec::new())).collect();
    for ((tensor, _), life) in lives {
        tensors.get_mut(tensor).context("the plan has too many layers")?.1.push(life);
    }
    if !scratch.is_empty() {
        tensors.push(("scratch".to_owned(), scratch));
    }
    Ok(Trace { arena_bytes: plan.arena_bytes, steps: now, tensors, cuts })
}
