//! Attributes each step of a run to its layer, with the runtime's own schedule.

use anyhow::{Context, Result, ensure};
use skipstone::Model;
use skipstone::host::schedule::{Segment, Tensor};

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
    let (mut layers, mut strips) = (model.layers(), plan.strips.iter());
    let shape = model.input();
    let row_bytes = u32::try_from(shape.row_len())?;
    let mut input = Tensor { rows: shape.height, row_bytes, base: 0, contiguous: false };
    let (mut order, mut first) = (Vec::new(), 0u16);
    for (index, count) in plan.segments.iter().enumerate() {
        let mut nodes = Vec::new();
        for entry in layers.by_ref().take(usize::from(*count)) {
            let strip = *strips.next().context("the plan has no strip for a layer")?;
            let node = entry?.layer.place(first, strip, 0);
            nodes.push(node.context("a layer reads a tensor of another segment")?);
        }
        let segment = Segment { first, input, nodes: &nodes };
        let mut made = vec![0; nodes.len() + 1];
        // the output of the previous segment is complete
        made[0] = if index == 0 { 0 } else { input.rows };
        while let Some(step) = segment.next(&made) {
            made[usize::from(step.tensor)] += step.count;
            order.extend((first + step.tensor).checked_sub(1).filter(|_| step.tensor > 0).map(usize::from));
        }
        first += u16::from(*count);
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
        let layers = model.layers().map(|entry| entry.unwrap().layer.node);
        let expected: Vec<_> =
            layers.zip(strips).map(|(node, strip)| node.steps().div_ceil((*strip).into())).collect();
        let mut made = vec![0; expected.len()];
        steps(&model).unwrap().into_iter().for_each(|layer| made[layer] += 1);
        assert_eq!(made, expected);
    }
}
