//! Files built table by table: what operators become, and every refusal.

use super::*;
use crate::front::lower::lower;
use crate::front::tests::{Understood, weighted};
use crate::ir::{Activation, FloatNetwork, IntegerWeights, Operation, TensorScale, Weights};
use schema::{operator_name, tensor};

type Fields = Vec<(usize, Field)>;

/// A field's value.
#[derive(Clone)]
enum Field {
    Byte(u8),
    Int(i32),
    Float(f32),
    Long(i64),
    Bytes(Vec<u8>),
    Ints(Vec<i32>),
    Longs(Vec<i64>),
    Floats(Vec<f32>),
    Table(Fields),
    Tables(Vec<Fields>),
    /// A list that has the same table so many times.
    Repeated(usize, Fields),
}
use Field::{Byte, Bytes, Float, Floats, Int, Ints, Long, Longs, Tables};

fn put32(file: &mut [u8], at: usize, value: usize) {
    file[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

/// Appends a table and what it refers to; where it lies.
fn append(file: &mut Vec<u8>, fields: &Fields) -> usize {
    let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
    let vtable = file.len();
    let start = vtable + 4 + 2 * slots;
    file.resize(start + 4 + 8 * fields.len(), 0);
    let mut write16 = |at: usize, value: usize| {
        file[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    };
    write16(vtable, 4 + 2 * slots);
    write16(vtable + 2, 4 + 8 * fields.len());
    for (index, (slot, _)) in fields.iter().enumerate() {
        write16(vtable + 4 + 2 * slot, 4 + 8 * index);
    }
    put32(file, start, start - vtable);
    for (index, (_, field)) in fields.iter().enumerate() {
        let at = start + 4 + 8 * index;
        let mut vector = |count: usize, bytes: Vec<u8>| {
            let here = file.len();
            put32(file, at, here - at);
            file.extend((count as u32).to_le_bytes());
            file.extend(bytes);
        };
        match field {
            Byte(value) => file[at] = *value,
            Int(value) => file[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            Float(value) => file[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            Long(value) => file[at..at + 8].copy_from_slice(&value.to_le_bytes()),
            Bytes(bytes) => vector(bytes.len(), bytes.clone()),
            Ints(values) => vector(values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Longs(values) => vector(values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Floats(values) => vector(values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Field::Table(fields) => {
                let table = append(file, fields);
                put32(file, at, table - at);
            }
            Field::Repeated(count, fields) => {
                vector(*count, vec![0; 4 * count]);
                let first = file.len() - 4 * count;
                let table = append(file, fields);
                (0..*count).for_each(|index| put32(file, first + 4 * index, table - first - 4 * index));
            }
            Tables(tables) => {
                vector(tables.len(), vec![0; 4 * tables.len()]);
                let first = file.len() - 4 * tables.len();
                for (index, fields) in tables.iter().enumerate() {
                    let table = append(file, fields);
                    put32(file, first + 4 * index, table - first - 4 * index);
                }
            }
        }
    }
    start
}

/// A network as it is drawn.
#[derive(Clone)]
struct Sketch {
    tensors: Vec<Fields>,
    buffers: Vec<Fields>,
    codes: Vec<Fields>,
    operators: Vec<Fields>,
    version: i32,
}

const FLOAT32: u8 = 0;
const INT32: u8 = 2;
const UINT8: u8 = 3;
const INT16: u8 = 7;
const INT8: u8 = 9;

impl Sketch {
    /// An input of 1 x 4 x 4 x 2; tensor 0.
    fn new(element: u8) -> Self {
        let mut sketch =
            Sketch { tensors: vec![], buffers: vec![vec![]], codes: vec![], operators: vec![], version: 3 };
        sketch.tensor("input", element, &[1, 4, 4, 2]);
        sketch
    }

    fn tensor(&mut self, name: &str, element: u8, dims: &[i32]) -> i32 {
        self.tensors.push(vec![
            (tensor::NAME, Bytes(name.into())),
            (tensor::TYPE, Byte(element)),
            (tensor::SHAPE, Ints(dims.to_vec())),
        ]);
        self.tensors.len() as i32 - 1
    }

    fn constant(&mut self, name: &str, element: u8, dims: &[i32], data: Vec<u8>) -> i32 {
        self.buffers.push(vec![(schema::buffer::DATA, Bytes(data))]);
        let id = self.tensor(name, element, dims);
        self.set(id, tensor::BUFFER, Int(self.buffers.len() as i32 - 1));
        id
    }

    fn floats(&mut self, name: &str, dims: &[i32], values: &[f32]) -> i32 {
        self.constant(name, FLOAT32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn ints(&mut self, dims: &[i32], values: &[i32]) -> i32 {
        self.constant("sizes", INT32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn set(&mut self, id: i32, slot: usize, field: Field) {
        self.tensors[id as usize].push((slot, field));
    }

    fn quantize(&mut self, id: i32, scales: &[f32], zero_points: &[i64], axis: i32) -> i32 {
        let fields = vec![
            (schema::quantization::SCALE, Floats(scales.to_vec())),
            (schema::quantization::ZERO_POINT, Longs(zero_points.to_vec())),
            (schema::quantization::DIMENSION, Int(axis)),
        ];
        self.set(id, tensor::QUANTIZATION, Field::Table(fields));
        id
    }

    /// An operator that makes a tensor of 1 x 4 x 4 x 2 of this type.
    fn operator(&mut self, kind: &str, inputs: &[i32], options: Fields, element: u8) -> i32 {
        let code = (0..162).find(|&code| operator_name(code) == kind).unwrap();
        let code = if code < 127 {
            vec![(schema::operator_code::DEPRECATED_BUILTIN, Byte(code as u8))]
        } else {
            let placeholder = (schema::operator_code::DEPRECATED_BUILTIN, Byte(127));
            vec![placeholder, (schema::operator_code::BUILTIN, Int(code as i32))]
        };
        self.codes.push(code);
        let name = format!("model/layer{}/{kind}", self.operators.len());
        let output = self.tensor(&name, element, &[1, 4, 4, 2]);
        self.operators.push(vec![
            (schema::operator::CODE, Int(self.codes.len() as i32 - 1)),
            (schema::operator::INPUTS, Ints(inputs.to_vec())),
            (schema::operator::OUTPUTS, Ints(vec![output])),
            (schema::operator::OPTIONS, Field::Table(options)),
        ]);
        output
    }

    /// A 1 x 1 convolution of two channels with weights of 1, 2, 3, 4 and a fused activation.
    fn conv(&mut self, x: i32, activation: u8) -> i32 {
        let weights = self.floats("model/conv/Conv2D", &[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
        self.operator("CONV_2D", &[x, weights], window(activation, 3), FLOAT32)
    }

    /// The file, which gives this tensor.
    fn file(&self, output: i32) -> Vec<u8> {
        let graph = vec![
            (schema::subgraph::TENSORS, Tables(self.tensors.clone())),
            (schema::subgraph::INPUTS, Ints(vec![0])),
            (schema::subgraph::OUTPUTS, Ints(vec![output])),
            (schema::subgraph::OPERATORS, Tables(self.operators.clone())),
        ];
        let model = vec![
            (schema::model::VERSION, Int(self.version)),
            (schema::model::OPERATOR_CODES, Tables(self.codes.clone())),
            (schema::model::SUBGRAPHS, Tables(vec![graph])),
            (schema::model::BUFFERS, Tables(self.buffers.clone())),
        ];
        let mut file = b"\0\0\0\0TFL3".to_vec();
        let root = append(&mut file, &model);
        put32(&mut file, 0, root);
        file
    }

    fn understood(&self, output: i32) -> Result<FloatNetwork, Refusal> {
        let file = self.file(output);
        assert!(is_tflite(&file));
        Ok(Understood::new(lower(read(&file)?, file.len(), &[])?.network)?.network)
    }

    #[track_caller]
    fn refused(&self, output: i32, kind: ErrorKind, place: &str, reason: &str) {
        let refusal = self.understood(output).unwrap_err();
        assert_eq!(refusal.kind, kind, "{refusal}");
        assert!(refusal.place.contains(place) && refusal.reason.contains(reason), "{refusal}");
    }
}

/// Settings of a window: VALID padding, strides of 1, an activation in its slot.
fn window(activation: u8, slot: usize) -> Fields {
    vec![(0, Byte(1)), (1, Int(1)), (2, Int(1)), (slot, Byte(activation))]
}

/// An int8 convolution and pooling, as their file has them.
fn int8() -> (Sketch, i32) {
    let mut s = Sketch::new(INT8);
    s.quantize(0, &[0.5], &[-3], 0);
    let weights = s.constant("model/conv/Conv2D", INT8, &[2, 1, 1, 2], vec![1, 2, 253, 127]);
    s.quantize(weights, &[0.25, 0.125], &[0, 0], 0);
    let bias = s.ints(&[2], &[1000, i32::MIN + 1]);
    s.quantize(bias, &[0.125, 0.0625], &[0, 0], 0);
    let y = s.operator("CONV_2D", &[0, weights, bias], window(1, 3), INT8);
    let y = s.quantize(y, &[2.0], &[-128], 0);
    (s, y)
}

#[test]
fn weights_are_transposed_and_activations_fused() {
    let mut s = Sketch::new(FLOAT32);
    let y = s.conv(0, 3);
    let found = s.understood(y).unwrap();
    let [conv] = &found.layers[..] else { panic!("{:?}", found.layers) };
    assert_eq!((&*conv.name, conv.activation), ("conv", Activation::RELU6));
    assert_eq!(weighted(conv).weights, [1.0, 2.0, 3.0, 4.0]);
    assert_eq!((found.input_scale, conv.parameters.scale), (None, None));

    let mut s = Sketch::new(FLOAT32);
    let weights = s.floats("w", &[1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let options = [window(0, 4), vec![(3, Int(1))]].concat();
    let y = s.operator("DEPTHWISE_CONV_2D", &[0, weights], options, FLOAT32);
    let found = s.understood(y).unwrap();
    let conv = weighted(&found.layers[0]);
    let expected = (true, [2, 1], &[1.0, 2.0, 3.0, 4.0][..]);
    assert_eq!((conv.depthwise, conv.window.kernel, &conv.weights[..]), expected);
    assert_eq!(found.layers[0].name, "layer0");
}

#[test]
fn scales_zero_points_weights_and_biases_are_kept() {
    let (s, y) = int8();
    let found = s.understood(y).unwrap();
    let [conv] = &found.layers[..] else { panic!("{:?}", found.layers) };
    assert_eq!(weighted(conv).weights, [0.25, 0.5, -0.375, 15.875]);
    let [input, made] = [(0.5, -3), (2.0, -128)].map(|(scale, zero_point)| TensorScale { scale, zero_point });
    assert_eq!((found.input_scale, conv.parameters.scale), (Some(input), Some(made)));
    let integers = IntegerWeights {
        weights: vec![1, 2, -3, 127],
        scales: vec![0.25, 0.125],
        bias: vec![1000, i32::MIN + 1],
        real_bias: vec![125.0, (i32::MIN + 1) as f32 * 0.0625],
        input,
    };
    assert_eq!(conv.parameters.weights, Weights::Integers(integers));
}

#[test]
fn uint8_is_int8_with_another_zero() {
    let (int8, y) = int8();
    let expected = int8.understood(y).unwrap();
    let mut s = Sketch::new(UINT8);
    s.quantize(0, &[0.5], &[125], 0);
    let weights = s.constant("model/conv/Conv2D", UINT8, &[2, 1, 1, 2], vec![129, 130, 125, 255]);
    s.quantize(weights, &[0.25, 0.125], &[128, 128], 0);
    let bias = s.ints(&[2], &[1000, i32::MIN + 1]);
    s.quantize(bias, &[0.125, 0.0625], &[], 0);
    let y = s.operator("CONV_2D", &[0, weights, bias], window(1, 3), UINT8);
    s.quantize(y, &[2.0], &[0], 0);
    assert_eq!(s.understood(y).unwrap(), expected);
}

#[test]
fn what_a_blob_has_no_integers_for_is_taken_as_floats() {
    // less their zero point, weights of -128 are one too many
    for (zero_point, weight, kept) in [(0, 128, false), (1, 129, false), (1, 5, true)] {
        let mut s = Sketch::new(INT8);
        s.quantize(0, &[0.5], &[-3], 0);
        let weights = s.constant("w", INT8, &[2, 1, 1, 2], vec![1, 2, 3, weight]);
        s.quantize(weights, &[0.25], &[zero_point], 0);
        let y = s.operator("CONV_2D", &[0, weights], window(0, 3), INT8);
        s.quantize(y, &[2.0], &[0], 0);
        let found = s.understood(y).unwrap();
        let conv = &found.layers[0];
        assert_eq!(weighted(conv).weights[0], 0.25 * (1 - zero_point) as f32);
        let integers = matches!(conv.parameters.weights, Weights::Integers(_));
        assert_eq!(integers, kept, "{zero_point}, {weight}");
    }
}

#[test]
fn quantize_and_dequantize_change_no_value() {
    let mut s = Sketch::new(FLOAT32);
    let x = s.operator("QUANTIZE", &[0], vec![], INT8);
    s.quantize(x, &[0.5], &[-3], 0);
    let half = s.constant("half", 1, &[2, 1, 1, 2], vec![0, 0x3c, 0, 0x40, 0, 0x3c, 0, 0]);
    let weights = s.operator("DEQUANTIZE", &[half], vec![], FLOAT32);
    let y = s.operator("CONV_2D", &[x, weights], window(0, 3), FLOAT32);
    let y = s.operator("DEQUANTIZE", &[y], vec![], FLOAT32);
    let found = s.understood(y).unwrap();
    assert_eq!(weighted(&found.layers[0]).weights, [1.0, 2.0, 1.0, 0.0]);
    assert_eq!(found.input_scale, Some(TensorScale { scale: 0.5, zero_point: -3 }));
}

#[test]
fn slices_become_starts_ends_and_lost_axes() {
    let slice = |masks: [i32; 5], starts: &[i32], ends: &[i32], steps: &[i32]| {
        let mut s = Sketch::new(FLOAT32);
        let shape = s.operator("SHAPE", &[0], vec![], INT32);
        let lists = [starts, ends, steps].map(|list| s.ints(&[list.len() as i32], list));
        let options = masks.iter().enumerate().map(|(slot, &mask)| (slot, Int(mask))).collect();
        let y = s.operator("STRIDED_SLICE", &[shape, lists[0], lists[1], lists[2]], options, INT32);
        let rest = s.ints(&[], &[-1]);
        let target = s.operator("PACK", &[y, rest], vec![(1, Int(0))], INT32);
        let y = s.conv(0, 0);
        s.understood_reshape(y, target)
    };
    // x.shape[0], x.shape[-4], x.shape[::-1][3] ... each is the batch
    assert_eq!(slice([0, 0, 0, 0, 1], &[0], &[1], &[1]).unwrap(), [1, 32]);
    assert_eq!(slice([0, 0, 0, 0, 1], &[-4], &[0], &[1]).unwrap(), [1, 32]);
    assert!(slice([0, 0, 1, 0, 1], &[0], &[1], &[1]).unwrap_err().reason.contains("ellipsis"));
}

impl Sketch {
    /// The sizes that a RESHAPE of `x` to the constant `target` has.
    fn understood_reshape(&mut self, x: i32, target: i32) -> Result<Vec<usize>, Refusal> {
        let y = self.operator("RESHAPE", &[x, target], vec![], FLOAT32);
        let weights = self.floats("w", &[3, 32], &[0.5; 96]);
        let y = self.operator("FULLY_CONNECTED", &[y, weights], vec![], FLOAT32);
        let found = self.understood(y)?;
        let dense = found.layers.last().unwrap();
        assert!(matches!(dense.operation, Operation::Dense { .. }));
        Ok(vec![1, found.shape(dense.inputs[0]).len()])
    }
}

#[test]
fn damaged_files_are_refused_by_what_is_wrong() {
    let mut s = Sketch::new(FLOAT32);
    let y = s.conv(0, 0);
    let file = s.file(y);
    for length in 0..file.len() {
        let refusal = read(&file[..length]).err();
        assert!(refusal.is_none_or(|refusal| refusal.kind == ErrorKind::Damaged), "cut to {length}");
    }
    let changed = |change: &dyn Fn(&mut Sketch), place: &str, reason: &str| {
        let mut s = s.clone();
        change(&mut s);
        s.refused(y, ErrorKind::Damaged, place, reason);
    };
    changed(&|s| s.version = 2, "", "version 2");
    changed(&|s| s.operators[0][0].1 = Int(7), "", "no operator code 7");
    changed(&|s| s.operators[0][1].1 = Ints(vec![0, 99]), "CONV_2D", "tensor 99 of 3");
    changed(&|s| s.operators[0][1].1 = Ints(vec![0, -1]), "CONV_2D", "input 1 is missing");
    changed(&|s| s.operators[0][2].1 = Ints(vec![]), "CONV_2D", "no output");
    changed(&|s| s.set(1, tensor::BUFFER, Int(9)), "", "no buffer 9");
    changed(&|s| s.buffers[1][0].1 = Bytes(vec![0; 15]), "tensor 'model/conv/Conv2D'", "has 15 bytes");
    changed(&|s| s.operators[0][3].1 = Field::Table(vec![(1, Int(-1))]), "CONV_2D", "has -1 among");
    let mut empty = Vec::from(*b"\x0c\0\0\0TFL3\x06\0\x08\0\x04\0\0\0");
    empty.extend([6, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(read(&empty).unwrap_err().kind, ErrorKind::Damaged);
}

#[test]
fn quantizations_that_break_the_rules_are_refused() {
    let refused = |scales: &[f32], zeros: &[i64], axis: i32, kind, reason: &str| {
        let mut s = Sketch::new(INT8);
        s.quantize(0, scales, zeros, axis);
        s.refused(0, kind, "tensor 'input'", reason);
    };
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        refused(&[scale], &[0], 0, ErrorKind::Value, "has the scale");
    }
    refused(&[1.0], &[128], 0, ErrorKind::Value, "zero point 128");
    refused(&[1.0], &[i64::MIN], 0, ErrorKind::Value, "zero point -9223372036854775808");
    refused(&[1.0; 3], &[0], 3, ErrorKind::Damaged, "3 scales along axis 3");
    refused(&[1.0; 2], &[0], 9, ErrorKind::Damaged, "2 scales along axis 9");
    refused(&[1.0; 2], &[0; 3], 3, ErrorKind::Damaged, "3 zero points for 2 scales");
    let mut s = Sketch::new(INT8);
    let fields = vec![(schema::quantization::SCALE, Floats(vec![1.0])), (4, Byte(2))];
    s.set(0, tensor::QUANTIZATION, Field::Table(fields));
    s.refused(0, ErrorKind::Operator, "tensor 'input'", "by blocks");
    let mut s = Sketch::new(INT32);
    s.quantize(0, &[1.0], &[1], 0);
    s.refused(0, ErrorKind::Value, "tensor 'input'", "zero point 1");
}

#[test]
fn operators_and_settings_without_a_layer_are_refused_by_name() {
    let refused = |kind: &str, options: Fields, reason: &str| {
        let mut s = Sketch::new(FLOAT32);
        let y = s.conv(0, 0);
        let y = s.operator(kind, &[y, y], options, FLOAT32);
        let refusal = s.understood(y).unwrap_err();
        assert_eq!(
            (refusal.kind, &*refusal.place),
            (ErrorKind::Operator, &*format!("node 'layer1' ({kind})"))
        );
        assert!(refusal.reason.contains(reason), "{refusal}");
        refusal.help
    };
    let help = refused("HARD_SWISH", vec![], "unsupported operator HARD_SWISH");
    assert!(help.contains("ReLU6"));
    assert!(refused("GELU", vec![], "GELU").contains("ReLU6"));
    assert!(refused("SPACE_TO_BATCH_ND", vec![], "SPACE_TO_BATCH_ND").contains("dilation"));
    assert!(refused("WHILE", vec![], "WHILE").contains("recurrence"));
    assert!(refused("ARG_MAX", vec![], "ARG_MAX").contains("scores"));
    assert!(refused("RESIZE_BILINEAR", vec![], "RESIZE").contains("enlarge"));
    refused("SOFTMAX", vec![(0, Float(2.0))], "beta 2");
    refused("ADD", vec![(0, Byte(4))], "fused activation number 4");
    refused("TRANSPOSE", vec![], "input 1 is not a short constant");
    refused("MIRROR_PAD", vec![], "repeats or mirrors");

    let mut s = Sketch::new(FLOAT32);
    let weights = s.floats("w", &[1, 32], &[0.0; 32]);
    let y = s.operator("FULLY_CONNECTED", &[0, weights], vec![(1, Byte(1))], FLOAT32);
    s.refused(y, ErrorKind::Operator, "(FULLY_CONNECTED)", "shuffled");

    let mut s = Sketch::new(FLOAT32);
    let y = s.conv(0, 0);
    s.codes[0] = vec![(0, Byte(32)), (schema::operator_code::CUSTOM, Bytes(b"TFLite_Detection".into()))];
    s.refused(y, ErrorKind::Operator, "(TFLite_Detection)", "unsupported operator TFLite_Detection");
}

#[test]
fn element_types_without_a_place_are_refused_by_name() {
    let s = Sketch::new(INT16);
    s.refused(0, ErrorKind::Operator, "input 'input'", "INT16");
    let s = Sketch::new(5);
    s.refused(0, ErrorKind::Operator, "input 'input'", "STRING");
    let mut s = Sketch::new(INT8);
    let y = s.operator("RELU", &[0], vec![], INT16);
    s.refused(y, ErrorKind::Operator, "(RELU)", "has 16 bits");
    for (element, name) in [(17, "INT4"), (99, "number 99")] {
        let mut s = Sketch::new(FLOAT32);
        s.constant("w", element, &[2], vec![0]);
        s.refused(0, ErrorKind::Operator, "tensor 'w'", name);
    }
    let mut s = Sketch::new(FLOAT32);
    let w = s.floats("w", &[1], &[1.0]);
    s.set(w, tensor::SPARSITY, Field::Table(vec![]));
    s.refused(0, ErrorKind::Operator, "tensor 'w'", "sparsely");
    let mut s = Sketch::new(FLOAT32);
    let w = s.tensor("w", FLOAT32, &[1]);
    s.set(w, tensor::EXTERNAL_BUFFER, Int(1));
    s.refused(0, ErrorKind::ExternalData, "tensor 'w'", "another file");
    let mut s = Sketch::new(FLOAT32);
    s.tensor("w", FLOAT32, &[1; 9]);
    s.refused(0, ErrorKind::Shape, "tensor 'w'", "9 axes");
}

#[test]
fn data_behind_the_flatbuffer_is_found() {
    let mut s = Sketch::new(FLOAT32);
    let y = s.conv(0, 0);
    let data = |offset: i64, size: i64| {
        vec![(schema::buffer::OFFSET, Long(offset)), (schema::buffer::SIZE, Long(size))]
    };
    s.buffers[1] = data(2, 16);
    let length = s.file(y).len();
    s.buffers[1] = data(length as i64, 16);
    let mut file = s.file(y);
    file.extend([1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()));
    let weights = read(&file).unwrap().values[1].constant.clone().unwrap();
    assert_eq!(weights.data, Data::Float(vec![1.0, 2.0, 3.0, 4.0]));
    file.pop();
    assert!(read(&file).unwrap_err().reason.contains("buffer 1 is outside"));
}

#[test]
fn shared_tables_cannot_unfold_without_bound() {
    let s = Sketch::new(FLOAT32);
    let mut tensor = s.tensors[0].clone();
    tensor[0].1 = Bytes(vec![b'x'; 100_000]);
    let graph = vec![(schema::subgraph::TENSORS, Field::Repeated(4000, tensor))];
    let model = vec![
        (schema::model::VERSION, Int(3)),
        (schema::model::SUBGRAPHS, Tables(vec![graph])),
        (schema::model::BUFFERS, Tables(vec![vec![]])),
    ];
    let mut file = b"\0\0\0\0TFL3".to_vec();
    let root = append(&mut file, &model);
    put32(&mut file, 0, root);
    let refusal = read(&file).unwrap_err();
    assert!(refusal.reason.contains("many times the file's size"), "{refusal}");
}
