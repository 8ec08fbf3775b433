//! Quantized values: constants are read as the reals that they stand for, scales are noted with the layers.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{At, Lowering, State, Tensor};
use crate::import::error::{ErrorKind, Refusal};
use crate::import::graph::{Constant, Data, Node, Operator, Quantization, ValueId};
use crate::import::layers::{LayerId, Operation};
use crate::network::LayerScales;

/// Largest weight of a blob.
const MAX_WEIGHT: u64 = 127;

impl Lowering {
    fn quantization(&self, id: Option<ValueId>) -> Option<&Quantization> {
        self.graph.quantizations.get(&id?)
    }

    /// Integers that stand for reals become those, unless the node hands them on as they are.
    pub(super) fn read_as_reals(&self, at: At<'_>, inputs: &mut [Option<State>]) -> Result<(), Refusal> {
        let hands_on = matches!(
            at.node.operator,
            Operator::Identity | Operator::Transpose { .. } | Operator::Reshape { .. }
        );
        let result = self.quantization(at.node.outputs.first().copied().flatten()).filter(|_| hands_on);
        for (state, id) in inputs.iter_mut().zip(&at.node.inputs) {
            let (Some(State::Constant(constant)), Some(known)) = (&*state, self.quantization(*id)) else {
                continue;
            };
            let same = |result: &Quantization| {
                (&result.scales, &result.zero_points) == (&known.scales, &known.zero_points)
            };
            if matches!(constant.data, Data::Float(_)) || result.is_some_and(same) {
                continue;
            }
            let reals = known.reals(constant).ok_or_else(|| {
                let reason = "reads a quantized tensor whose scales do not fit its sizes";
                Refusal::new(ErrorKind::Damaged, at.place, reason)
            })?;
            *state = Some(State::Constant(Rc::new(reals)));
        }
        Ok(())
    }

    /// Notes how the file has quantized the weights of a layer, where it can stay so.
    pub(super) fn note_scales(&mut self, at: At<'_>, layer: LayerId, outputs: usize) {
        let scales = self.layer_scales(at, outputs);
        self.layers.set_scales(layer, scales);
    }

    fn layer_scales(&self, at: At<'_>, outputs: usize) -> Option<LayerScales> {
        let [input, weights, bias] = [0, 1, 2].map(|index| at.node.inputs.get(index).copied().flatten());
        let input = self.quantization(input)?.uniform()?;
        let quantization = self.quantization(weights)?;
        let outputs_last = !matches!(
            at.node.operator,
            Operator::Convolution(..) | Operator::Gemm { transpose_right: true, .. }
        );
        let scales = match &quantization.scales[..] {
            [scale] => vec![*scale],
            scales if scales.len() == outputs && quantization.axis == usize::from(outputs_last) => {
                scales.to_vec()
            }
            _ => return None,
        };
        // Factors of the whole sum are no layer's here: they are multiplied into the weights.
        if matches!(at.node.operator, Operator::Gemm { alpha, beta, .. } if (alpha, beta) != (1.0, 1.0)) {
            return None;
        }
        let zero = *quantization.zero_points.first()?;
        let symmetric = quantization.zero_points.iter().all(|&other| other == zero)
            && self.stored(weights)?.iter().all(|&weight| weight.abs_diff(zero) <= MAX_WEIGHT);
        let bias = match bias {
            Some(_) => self.bias(bias, input.scale, &scales)?,
            None => vec![0; outputs],
        };
        (symmetric && bias.len() == outputs).then_some(LayerScales { input, weights: scales, bias })
    }

    /// Biases in steps of the input's scale times the weights': those of the file, or what is nearest to
    /// them where the file has other steps, or floats.
    fn bias(&self, id: Option<ValueId>, input: f32, weights: &[f32]) -> Option<Vec<i32>> {
        let State::Constant(constant) = self.states.get(id?)?.as_ref()? else { return None };
        let step = |index: usize| f64::from(input) * f64::from(weights[index.min(weights.len() - 1)]);
        let nearest = |values: &[f32]| {
            let steps =
                values.iter().enumerate().map(|(index, &value)| (f64::from(value) / step(index)).round());
            steps.map(|steps| (steps.abs() <= f64::from(i32::MAX)).then_some(steps as i32)).collect()
        };
        let values = match &constant.data {
            Data::Float(values) => return nearest(values),
            Data::Integer(values) => values,
        };
        let known = self.quantization(id)?;
        let same = |(index, &scale): (usize, &f32)| (f64::from(scale) / step(index) - 1.0).abs() < 1e-6;
        let same_steps = known.scales.len() >= weights.len()
            && known.scales.iter().enumerate().all(same)
            && known.zero_points.iter().all(|&zero| zero == 0);
        if same_steps {
            return values.iter().map(|&bias| i32::try_from(bias).ok()).collect();
        }
        match known.reals(constant)?.data {
            Data::Float(values) => nearest(&values),
            Data::Integer(_) => None,
        }
    }

    /// Floats of the file, rounded as it says.
    pub(super) fn quantize_constant(&mut self, at: At<'_>, constant: &Constant) -> Result<State, Refusal> {
        self.budget.0 = self.budget.0.checked_sub(constant.len()).ok_or_else(|| {
            let reason = "its result is many times the file's size";
            Refusal::new(ErrorKind::Damaged, at.place, reason)
        })?;
        let known = self.quantization(at.node.outputs.first().copied().flatten());
        let integers = known.and_then(|known| known.integers(constant)).ok_or_else(|| {
            let reason = "quantizes a tensor that its scales do not fit";
            Refusal::new(ErrorKind::Damaged, at.place, reason)
        })?;
        Ok(State::Constant(Rc::new(integers)))
    }

    /// What depends on the image, quantized. Where the lowest integer stands for zero, no negative value
    /// is left: ONNX Runtime takes out the ReLU before it, and here it is put back.
    pub(super) fn quantize(&mut self, at: At<'_>, inputs: &[Option<State>]) -> Result<Tensor, Refusal> {
        let tensor = self.tensor(at, inputs, 0)?.clone();
        let output = at.node.outputs.first().copied().flatten();
        let Some(known) = self.quantization(output).and_then(Quantization::uniform) else {
            let reason = "quantizes each channel of an activation by itself";
            return Err(Refusal::new(ErrorKind::Operator, at.place, reason)
                .help("quantize activations per tensor, weights alone per channel"));
        };
        let is_scores = output.is_some_and(|id| self.scores.contains(&id));
        if known.zero_point != i8::MIN || is_scores || !self.may_be_negative(tensor.layer) {
            return Ok(tensor);
        }
        if let Some(&layer) = self.rectified.get(&tensor.layer) {
            return Ok(Tensor { layer, ..tensor });
        }
        // ReLU6 leaves a range that ends at 6.
        let six = (f64::from(known.scale) * 255.0 - 6.0).abs() < 1e-3;
        let high = if six { 6.0 } else { f64::INFINITY };
        let rectified = self.keep(at, &tensor, Operation::Clamp { low: 0.0, high })?;
        self.rectified.insert(tensor.layer, rectified.layer);
        Ok(rectified)
    }

    /// Whether a layer is a sum that no activation follows.
    fn may_be_negative(&self, mut layer: LayerId) -> bool {
        loop {
            match self.layers.get(layer).operation {
                Operation::Affine { .. } => layer = self.layers.get(layer).inputs[0],
                Operation::Convolution(_) | Operation::Dense { .. } | Operation::Add => return true,
                _ => return false,
            }
        }
    }

    /// The integers of a constant as the file has them.
    fn stored(&self, id: Option<ValueId>) -> Option<&[i64]> {
        match self.states.get(id?)?.as_ref()? {
            State::Constant(constant) => match &**constant {
                Constant { data: Data::Integer(values), .. } => Some(values),
                Constant { .. } => None,
            },
            State::Tensor(_) => None,
        }
    }
}

/// The values that the output is made of by nothing but a softmax and changes of its sizes.
pub(super) fn scores(nodes: &[Node], output: ValueId) -> BTreeSet<ValueId> {
    let mut scores = BTreeSet::from([output]);
    for node in nodes.iter().rev() {
        let passes = matches!(
            node.operator,
            Operator::Identity
                | Operator::Quantize
                | Operator::Softmax { .. }
                | Operator::Reshape { .. }
                | Operator::Flatten { .. }
                | Operator::Squeeze
        );
        if passes && node.outputs.iter().flatten().any(|id| scores.contains(id)) {
            scores.extend(node.inputs.first().copied().flatten());
        }
    }
    scores
}
