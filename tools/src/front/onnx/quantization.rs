//! QuantizeLinear and DequantizeLinear: what the integers of their tensors stand for, checked.
//!
//! Activations of uint8 are int8 here, 128 less. Constants stay as the file has them, zero points too.

use super::attributes::Attributes;
use super::{Reader, tensor};
use crate::front::error::{ErrorKind, Refusal};
use crate::front::graph::{Data, Quantization, ValueId};

/// What makes a file that can be converted.
const SETTINGS: &str = "quantize with quantize_static(quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, \
                        weight_type=QuantType.QInt8)";

impl Reader {
    /// What the integers stand for that a QuantizeLinear makes or a DequantizeLinear reads.
    pub(super) fn quantization(
        &mut self,
        kind: &str,
        attributes: &Attributes,
        inputs: &[Option<ValueId>],
        place: &str,
    ) -> Result<(Quantization, i32), Refusal> {
        let refuse = |kind, reason: String| Refusal::new(kind, place, reason);
        let input = |index: usize| inputs.get(index).copied().flatten();
        let read = input(0).ok_or_else(|| refuse(ErrorKind::Damaged, "its input 0 is missing".into()))?;
        if attributes.integer("block_size", 0) != 0 {
            let reason = "quantizes by blocks".into();
            return Err(refuse(ErrorKind::Operator, reason).help(SETTINGS));
        }
        let scales = self.scales(input(1), place)?;
        let element = self.quantized_type(kind, attributes, read, input(2), place)?;
        let constant = self.graph.values[read].constant.as_ref();
        let dims = constant.map(|constant| constant.dims.clone());
        let stored = constant.is_some() && kind == "DequantizeLinear";
        let zero_points = self.zero_points(input(2), scales.len(), element, place)?;
        let middle = if element == tensor::UINT8 { 128 } else { 0 };
        if stored && zero_points.iter().any(|&zero| zero != middle) {
            let reason = format!("its integers are not symmetric: zero is {}", zero_points[0]);
            return Err(refuse(ErrorKind::Operator, reason).help(format!(
                "{SETTINGS}; extra_options={{'WeightSymmetric': True}} is its default for QInt8"
            )));
        }
        let shift = if stored { 0 } else { middle };
        let zero_points = zero_points.iter().map(|&zero| zero - shift).collect();
        let mut quantization = Quantization { scales, zero_points, axis: 0 };
        if quantization.scales.len() > 1 {
            quantization.axis = self.axis(attributes, dims.as_deref(), read, &quantization, place)?;
        }
        if kind == "DequantizeLinear"
            && self.graph.quantizations.get(&read).is_some_and(|q| *q != quantization)
        {
            let reason = "reads integers by another scale or zero point than they were made with".into();
            return Err(refuse(ErrorKind::Operator, reason).help(SETTINGS));
        }
        Ok((quantization, element))
    }

    fn scales(&mut self, id: Option<ValueId>, place: &str) -> Result<Vec<f32>, Refusal> {
        let refuse = |kind, reason: &str| Refusal::new(kind, place, reason);
        let id = id.ok_or_else(|| refuse(ErrorKind::Damaged, "its scale is missing"))?;
        let constant = self.graph.values[id].constant.as_ref().ok_or_else(|| {
            refuse(ErrorKind::Operator, "its scale is not a constant in the file").help(
                "quantize statically; 'onnxsim' folds constants: python -m onnxsim model.onnx simple.onnx",
            )
        })?;
        let Data::Float(scales) = &constant.data else {
            return Err(refuse(ErrorKind::Damaged, "its scale is an integer"));
        };
        if let Some(element) = self.types.get(&id).filter(|element| **element != tensor::FLOAT) {
            let reason = format!("quantizes {} values", tensor::name(*element));
            return Err(refuse(ErrorKind::Operator, &reason)
                .help(format!("quantize the float32 model, not one of another type: {SETTINGS}")));
        }
        if constant.dims.len() > 1 || scales.is_empty() {
            let reason = format!("its scale has sizes {:?}", constant.dims);
            return Err(
                refuse(ErrorKind::Operator, &reason).help("one scale, or one per channel, is possible")
            );
        }
        if let Some(scale) = scales.iter().find(|scale| !scale.is_normal() || **scale < 0.0) {
            return Err(refuse(ErrorKind::Value, &format!("has the scale {scale}")).help(
                "quantize again: the calibration data or the weights have values that are not finite",
            ));
        }
        self.left = self.left.checked_sub(12 * scales.len()).ok_or_else(|| {
            refuse(ErrorKind::Damaged, "scales that many nodes share unfold to many times the file's size")
        })?;
        Ok(scales.clone())
    }

    /// The ONNX type of the integers: int8 or uint8, or int32 for biases.
    fn quantized_type(
        &self,
        kind: &str,
        attributes: &Attributes,
        read: ValueId,
        zero_point: Option<ValueId>,
        place: &str,
    ) -> Result<i32, Refusal> {
        let of = |id: &ValueId| self.types.get(id).copied();
        let stated = zero_point.as_ref().and_then(of);
        let element = if kind == "QuantizeLinear" {
            let attribute = i32::try_from(attributes.integer("output_dtype", 0)).unwrap_or(-1);
            stated.or(Some(attribute).filter(|&element| element != 0)).unwrap_or(tensor::UINT8)
        } else {
            let element = of(&read).or(stated);
            element.ok_or_else(|| {
                Refusal::new(ErrorKind::Operator, place, "reads integers whose type is not known")
                    .help(SETTINGS)
            })?
        };
        let bias = kind == "DequantizeLinear" && element == tensor::INT32;
        if stated.is_some_and(|stated| stated != element) {
            let reason = "its zero point is of another type than its integers";
            return Err(Refusal::new(ErrorKind::Damaged, place, reason));
        }
        if bias || matches!(element, tensor::INT8 | tensor::UINT8) {
            return Ok(element);
        }
        let reason = format!("quantizes to {}; int8 and uint8 are possible", tensor::name(element));
        Err(Refusal::new(ErrorKind::Operator, place, reason).help(SETTINGS))
    }

    /// One zero point for each scale; 0 where the file has none.
    fn zero_points(
        &self,
        id: Option<ValueId>,
        count: usize,
        element: i32,
        place: &str,
    ) -> Result<Vec<i64>, Refusal> {
        let Some(id) = id else { return Ok(vec![0; count]) };
        let refuse = |kind, reason: String| Refusal::new(kind, place, reason);
        let Some(Data::Integer(values)) = self.graph.values[id].constant.as_ref().map(|c| &c.data) else {
            let reason = "its zero point is not an integer constant in the file".into();
            return Err(refuse(ErrorKind::Operator, reason).help(SETTINGS));
        };
        if values.len() != count {
            let reason = format!("has {} zero points for {count} scales", values.len());
            return Err(refuse(ErrorKind::Damaged, reason));
        }
        let possible = match element {
            tensor::INT8 => -128..=127,
            tensor::UINT8 => 0..=255,
            _ => 0..=0,
        };
        match values.iter().find(|zero| !possible.contains(*zero)) {
            Some(zero) => Err(refuse(ErrorKind::Value, format!("has the zero point {zero}"))),
            None => Ok(values.clone()),
        }
    }

    /// The axis that several scales belong to: that of a constant, or of the constant's integers.
    fn axis(
        &self,
        attributes: &Attributes,
        dims: Option<&[usize]>,
        read: ValueId,
        quantization: &Quantization,
        place: &str,
    ) -> Result<usize, Refusal> {
        let axis = attributes.integer("axis", 1);
        let Some(dims) = dims else {
            // Weights that are floats in the file: their QuantizeLinear has seen the sizes.
            let before = self.graph.quantizations.get(&read);
            let before = before.filter(|before| before.scales.len() == quantization.scales.len());
            return before.map(|before| before.axis).ok_or_else(|| {
                Refusal::new(ErrorKind::Operator, place, "quantizes each channel of an activation by itself")
                    .help("quantize activations per tensor, weights alone per channel")
            });
        };
        let from = if axis < 0 { dims.len() as i64 } else { 0 };
        let index = axis.checked_add(from).and_then(|axis| usize::try_from(axis).ok());
        let count = quantization.scales.len();
        index.filter(|&index| dims.get(index) == Some(&count)).ok_or_else(|| {
            let reason = format!("has {count} scales along axis {axis} of {dims:?}");
            Refusal::new(ErrorKind::Damaged, place, reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto;
    use super::super::tests::{node, read_nodes};
    use super::*;
    use crate::front::graph::{Graph, Operator};

    fn constant(name: &str, data_type: i32, dims: &[i64], raw: &[u8]) -> proto::Node {
        let (dims, raw_data) = (dims.to_vec(), Some(raw.to_vec().into()));
        let t = Some(proto::Tensor { dims, data_type, raw_data, ..proto::Tensor::default() });
        node("Constant", &[], name, vec![proto::Attribute { name: "value".into(), t, ..Default::default() }])
    }

    fn floats(name: &str, dims: &[i64], values: &[f32]) -> proto::Node {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        constant(name, tensor::FLOAT, dims, &raw)
    }

    fn integer(name: &str, i: i64) -> proto::Attribute {
        proto::Attribute { name: name.into(), i, ..Default::default() }
    }

    /// What the last node of these makes.
    fn quantization(opset: i64, nodes: Vec<proto::Node>) -> Result<Quantization, Refusal> {
        let graph: Graph = read_nodes(opset, nodes)?;
        let output = graph.nodes.last().unwrap().outputs[0].unwrap();
        Ok(graph.quantizations[&output].clone())
    }

    /// The input quantized by this scale and zero point.
    fn quantized(scale: proto::Node, zero: Option<proto::Node>) -> Result<Quantization, Refusal> {
        let inputs: &[&str] = if zero.is_some() { &["x", "s", "z"] } else { &["x", "s"] };
        let node = node("QuantizeLinear", inputs, "q", vec![]);
        quantization(13, [scale].into_iter().chain(zero).chain([node]).collect())
    }

    /// Weights of 2 x 3 with these scales and zero points.
    fn weights(
        element: i32,
        scales: &[f32],
        zero: &[u8],
        attributes: Vec<proto::Attribute>,
    ) -> Result<Quantization, Refusal> {
        let width = if element == tensor::INT32 { 4 } else { 1 };
        let dims = [scales.len() as i64];
        quantization(
            21,
            vec![
                constant("w", element, &[2, 3], &vec![7; 6 * width]),
                floats("s", &dims, scales),
                constant("z", element, &[(zero.len() / width) as i64], zero),
                node("DequantizeLinear", &["w", "s", "z"], "y", attributes),
            ],
        )
    }

    #[test]
    fn activations_become_int8() {
        let scale = || floats("s", &[], &[0.5]);
        let found = |zero: Option<proto::Node>| quantized(scale(), zero).unwrap().zero_points[0];
        assert_eq!(found(Some(constant("z", tensor::INT8, &[], &[0xfb]))), -5);
        assert_eq!(found(Some(constant("z", tensor::UINT8, &[], &[123]))), -5);
        // none is a zero of uint8
        assert_eq!(found(None), -128);
        let node = node("QuantizeLinear", &["x", "s"], "q", vec![integer("output_dtype", 3)]);
        assert_eq!(quantization(21, vec![scale(), node]).unwrap().zero_points, [0]);
    }

    #[test]
    fn the_integers_of_a_quantize_linear_are_read_as_they_were_made() {
        let nodes = |second: &'static str| {
            let quantize = node("QuantizeLinear", &["x", "s"], "q", vec![]);
            let read = node("DequantizeLinear", &["q", second], "y", vec![]);
            vec![floats("s", &[], &[0.5]), floats("t", &[], &[0.25]), quantize, read]
        };
        let same = read_nodes(10, nodes("s")).unwrap();
        assert_eq!(same.nodes[0].operator, Operator::Quantize);
        assert_eq!(same.quantizations.values().map(|q| q.zero_points[0]).collect::<Vec<_>>(), [-128; 2]);
        let other = read_nodes(10, nodes("t")).unwrap_err();
        assert!(other.reason.contains("another scale"), "{other}");
    }

    #[test]
    fn weights_have_scales_along_an_axis() {
        let axis = |axis| vec![integer("axis", axis)];
        let found = weights(tensor::INT8, &[0.5, 0.25], &[0, 0], axis(0)).unwrap();
        assert_eq!((found.axis, &found.scales[..]), (0, &[0.5, 0.25][..]));
        assert_eq!(weights(tensor::INT8, &[0.5, 0.25], &[0, 0], axis(-2)).unwrap().axis, 0);
        // 1 is the default
        assert_eq!(weights(tensor::INT8, &[1.0; 3], &[0; 3], vec![]).unwrap().axis, 1);
        assert_eq!(weights(tensor::UINT8, &[1.0], &[128], vec![]).unwrap().zero_points, [128]);
        for wrong in [axis(1), axis(2), axis(-3), axis(i64::MIN), axis(i64::MAX)] {
            let refusal = weights(tensor::INT8, &[0.5, 0.25], &[0, 0], wrong).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Damaged);
            assert!(refusal.reason.contains("has 2 scales along axis"), "{refusal}");
        }
    }

    #[test]
    fn damaged_scales_are_refused() {
        for bad in [0.0, -0.5, f32::NAN, f32::INFINITY, 1e-40] {
            let refusal = quantized(floats("s", &[], &[bad]), None).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Value);
            assert!(refusal.reason.contains("has the scale"), "{refusal}");
        }
        let empty = quantized(floats("s", &[0], &[]), None).unwrap_err();
        assert!(empty.reason.contains("sizes [0]"), "{empty}");
        let integer = quantized(constant("s", tensor::INT8, &[], &[1]), None).unwrap_err();
        assert!(integer.reason.contains("is an integer"), "{integer}");
    }

    #[test]
    fn scales_of_half_precision_are_refused() {
        let refusal = quantized(constant("s", 10, &[], &[0, 0x3c]), None).unwrap_err();
        assert!(refusal.reason.contains("quantizes float16"), "{refusal}");
        assert!(refusal.help.contains("float32"), "{refusal}");
    }

    #[test]
    fn damaged_zero_points_are_refused() {
        let axis = || vec![integer("axis", 0)];
        let count = weights(tensor::INT8, &[0.5, 0.25], &[0], axis()).unwrap_err();
        assert!(count.reason.contains("1 zero points for 2 scales"), "{count}");
        let bias = weights(tensor::INT32, &[0.5], &[1, 0, 0, 0], vec![]).unwrap_err();
        assert!(bias.reason.contains("has the zero point 1"), "{bias}");
        let kind = quantized(floats("s", &[], &[0.5]), Some(floats("z", &[], &[0.0]))).unwrap_err();
        assert!(kind.reason.contains("quantizes to float32"), "{kind}");
        let nodes = vec![
            constant("w", tensor::INT8, &[1], &[7]),
            floats("s", &[], &[0.5]),
            constant("z", tensor::UINT8, &[], &[128]),
            node("DequantizeLinear", &["w", "s", "z"], "y", vec![]),
        ];
        assert!(quantization(13, nodes).unwrap_err().reason.contains("of another type"));
    }

    #[test]
    fn asymmetric_weights_are_refused() {
        let refusal = weights(tensor::INT8, &[0.5], &[3], vec![]).unwrap_err();
        assert!(refusal.reason.contains("zero is 3"), "{refusal}");
        assert!(refusal.help.contains("QInt8"), "{refusal}");
    }

    #[test]
    fn blocks_are_refused() {
        let refusal = weights(tensor::INT8, &[0.5], &[0], vec![integer("block_size", 3)]).unwrap_err();
        assert!(refusal.reason.contains("by blocks"), "{refusal}");
    }

    #[test]
    fn activations_with_a_scale_per_channel_are_refused() {
        let refusal = quantized(floats("s", &[2], &[0.5; 2]), None).unwrap_err();
        assert!(refusal.reason.contains("each channel of an activation"), "{refusal}");
    }

    #[test]
    fn scales_from_elsewhere_are_refused() {
        let nodes = vec![node("QuantizeLinear", &["x", "x"], "q", vec![])];
        let refusal = quantization(13, nodes).unwrap_err();
        assert!(refusal.reason.contains("not a constant in the file"), "{refusal}");
        let missing = quantization(13, vec![node("QuantizeLinear", &["x"], "q", vec![])]).unwrap_err();
        assert!(missing.reason.contains("its scale is missing"), "{missing}");
    }
}
