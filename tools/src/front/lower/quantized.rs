//! Quantized values: constants are read as the reals that they stand for, scales are noted with the layers.

use std::rc::Rc;

use super::{At, Lowering, State, Tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Constant, Data, Operator, Quantization, ValueId};
use crate::ir::{IntegerWeights, Operation, TensorId};

/// Largest weight of a blob.
const MAX_WEIGHT: u8 = 127;

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

    /// The integers of a layer's weights as the file has them and in its order, if they can stay so.
    pub(super) fn integer_weights(
        &self,
        at: At<'_>,
        outputs: usize,
        real_bias: &[f64],
    ) -> Option<IntegerWeights> {
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
        if quantization.zero_points.iter().any(|&other| other != zero) {
            return None;
        }
        let symmetric = |&weight: &i64| {
            i8::try_from(weight.checked_sub(zero)?).ok().filter(|weight| weight.unsigned_abs() <= MAX_WEIGHT)
        };
        let weights = self.stored(weights)?.iter().map(symmetric).collect::<Option<Vec<i8>>>()?;
        let bias = match bias {
            Some(_) => self.bias(bias, input.scale, &scales)?,
            None => vec![0; outputs],
        };
        let real_bias = real_bias.iter().map(|&bias| bias as f32).collect();
        (bias.len() == outputs).then_some(IntegerWeights { weights, scales, bias, real_bias, input })
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
        if known.zero_point != i8::MIN || is_scores || !self.may_be_negative(tensor.id) {
            return Ok(tensor);
        }
        if let Some(&id) = self.rectified.get(&tensor.id) {
            return Ok(Tensor { id, ..tensor });
        }
        // ReLU6 leaves a range that ends at 6.
        let six = (f64::from(known.scale) * 255.0 - 6.0).abs() < 1e-3;
        let high = if six { 6.0 } else { f64::INFINITY };
        let rectified = self.keep(at, &tensor, Operation::Clamp { low: 0.0, high })?;
        self.rectified.insert(tensor.id, rectified.id);
        Ok(rectified)
    }

    /// Whether a tensor is a sum that no activation follows.
    fn may_be_negative(&self, mut tensor: TensorId) -> bool {
        while let Some((operation, input)) = self.network.made_by(tensor) {
            match operation {
                Operation::Affine { .. } => tensor = input,
                Operation::Conv2d { .. } | Operation::Dense { .. } | Operation::Add => return true,
                Operation::MaxPool(_)
                | Operation::AveragePool { .. }
                | Operation::GlobalAveragePool
                | Operation::Clamp { .. }
                | Operation::Subsample { .. }
                | Operation::Pad { .. }
                | Operation::Softmax { .. } => return false,
            }
        }
        false
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
