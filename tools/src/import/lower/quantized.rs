//! Quantized values: constants are read as the reals that they stand for, scales are noted with the layers.

use std::rc::Rc;

use super::{At, Lowering, State};
use crate::import::error::{ErrorKind, Refusal};
use crate::import::graph::{Constant, Data, Operator, Quantization, ValueId};
use crate::import::layers::LayerId;
use crate::network::LayerScales;

/// Largest weight of a blob.
const MAX_WEIGHT: i64 = 127;

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
        let symmetric = quantization.zero_points.iter().all(|&zero| zero == 0)
            && self.stored(weights)?.iter().all(|weight| weight.abs() <= MAX_WEIGHT);
        let bias = match bias {
            Some(_) => {
                self.quantization(bias)?;
                let bias = self.stored(bias)?.iter().map(|&bias| i32::try_from(bias).ok());
                bias.collect::<Option<Vec<_>>>()?
            }
            None => vec![0; outputs],
        };
        (symmetric && bias.len() == outputs).then_some(LayerScales { input, weights: scales, bias })
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
