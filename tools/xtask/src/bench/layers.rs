//! Attributes each step of a run to its layer, with the runtime's own schedule.

use anyhow::{Context, Result, ensure};
use skipstone::Model;
use skipstone::schedule::{Segment, Tensor};

use super::cycles::{Cost, Counted};
use crate::case::Case;

/// The cost of each layer, and of the rest: input rows, the schedule, softmax.
pub(crate) fn attribute(case: &Case, counted: &Counted) -> Result<(Vec<Cost>, Cost)> {
    let mut storage = Vec::new();
    let layers = steps(&case.model(&mut storage)?)?;
    ensure!(
        layers.len() == counted.steps.len(),
        "the schedule has {} steps, the board executed {}",
        layers.len(),
        counted.steps.len()
    );
    let mut costs = vec![Cost::default(); case.facts.layers.len()];
    let mut in_layers = Cost::default();
    for (layer, cost) in layers.iter().zip(&counted.steps) {
        *costs.get_mut(*layer).context("`skipstone inspect` prints fewer layers")? += *cost;
        in_layers += *cost;
    }
    let rest = Cost {
        instructions: counted.total.instructions - in_layers.instructions,
        cycles: counted.total.cycles - in_layers.cycles,
    };
    Ok((costs, rest))
}

/// The layer of each step of a run that is fed by rows. Steps that read input rows are left out.
fn steps(model: &Model<'_>) -> Result<Vec<usize>> {
    let plan = model.memory_plan(false).context("the blob has no plan")?;
    let (mut stages, mut strips) = (model.stages(), plan.strips.iter());
    let shape = model.input();
    let row_bytes = u32::try_from(shape.row_len())?;
    let mut input = Tensor { rows: shape.height, row_bytes, base: 0, contiguous: false };
    let (mut order, mut before) = (Vec::new(), 0);
    for (index, count) in plan.segments.iter().enumerate() {
        let mut nodes = Vec::new();
        let mut reads = 0;
        for entry in stages.by_ref().take(usize::from(*count)) {
            for layer in entry?.stage.layers(reads, nodes.len() as u16 + 1) {
                let strip = *strips.next().context("the plan has no strip for a layer")?;
                nodes.push(layer.place(strip, 0));
            }
            reads = nodes.len() as u16;
        }
        let segment = Segment { input, nodes: &nodes };
        let mut made = vec![0; nodes.len() + 1];
        // the output of the previous segment is complete
        made[0] = if index == 0 { 0 } else { input.rows };
        while let Some(step) = segment.next(&made) {
            made[usize::from(step.tensor)] += step.count;
            order.extend(usize::from(step.tensor).checked_sub(1).map(|layer| before + layer));
        }
        before += nodes.len();
        input = nodes.last().context("the plan has an empty segment")?.output;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_takes_one_step_per_strip_of_rows() {
        let model =
            Model::parse(skipstone::include_model!("../../../../models/cifar10-resnet8.skip")).unwrap();
        let strips = model.memory_plan(false).unwrap().strips;
        let layers: Vec<_> =
            model.stages().flat_map(|entry| entry.unwrap().stage.layers(0, 1).collect::<Vec<_>>()).collect();
        let expected: Vec<_> = layers
            .iter()
            .zip(strips)
            .map(|(layer, strip)| layer.node.steps().div_ceil((*strip).into()))
            .collect();
        let mut made = vec![0; layers.len()];
        steps(&model).unwrap().into_iter().for_each(|layer| made[layer] += 1);
        assert_eq!(made, expected);
    }
}
