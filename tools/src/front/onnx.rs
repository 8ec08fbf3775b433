//! ONNX files (`.onnx`): the protobuf of a network, float or quantized in the QDQ format, becomes an operator graph.
//!
//! Memory: elements are at most eight times their bytes in the file (integers of one byte become
//! i64), names and lists of inputs at most sixteen times. Fields, nodes and attributes are counted
//! before they are decoded.

mod attributes;
mod external;
mod operators;
mod proto;
mod quantization;
mod tensor;

use std::collections::HashMap;
use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;

use super::error::{ErrorKind, Refusal};
use super::graph::{Constant, Graph, Input, Layout, Node, Operator, Value, ValueId};
use attributes::Attributes;
use external::External;
use proto::{MAX_FIELDS, decode};

/// More nodes or tensors than in any network that fits a microcontroller.
const MAX_ITEMS: usize = 1 << 16;

/// Whether the bytes look like an ONNX file, whole or damaged.
///
/// Every exporter writes `ir_version` (field 1, a varint) first; a file without must have a graph.
pub(crate) fn is_onnx(bytes: &[u8]) -> bool {
    let has_graph = || proto::Model::decode(bytes).is_ok_and(|model| model.graph.is_some());
    let fields = || proto::count_fields(bytes).is_some_and(|count| count <= MAX_FIELDS);
    bytes.first() == Some(&0x08) || fields() && has_graph()
}

/// The file's graph, and the bytes of the file and of those beside it that hold its weights.
///
/// `folder` is where files beside the model are looked for.
pub(crate) fn read(bytes: Vec<u8>, folder: &Path) -> Result<(Graph, usize), Refusal> {
    let length = bytes.len();
    let model: proto::Model = decode(Bytes::from(bytes), "the model")?;
    let graph =
        model.graph.ok_or_else(|| Refusal::new(ErrorKind::Damaged, "", "is an ONNX file without a graph"))?;
    let graph: proto::Graph = decode(graph, "the graph")?;
    let counts = [&graph.node, &graph.initializer, &graph.input, &graph.output, &model.opset_import];
    if let Some(list) = counts.iter().find(|list| list.len() > MAX_ITEMS) {
        let reason = format!("has {} nodes or tensors; {MAX_ITEMS} are possible", list.len());
        return Err(Refusal::new(ErrorKind::Damaged, "the graph", reason));
    }
    let mut reader = Reader {
        graph: Graph::default(),
        names: HashMap::new(),
        opset: i64::MAX,
        external: External::new(folder),
        types: HashMap::new(),
        left: length.saturating_mul(16).saturating_add(1 << 20),
    };
    for set in model.opset_import {
        let set: proto::OperatorSet = decode(set, "the operator set")?;
        if is_standard(&set.domain) {
            reader.opset = set.version;
        }
    }
    reader.initializers(graph.initializer)?;
    reader.inputs(graph.input)?;
    for node in graph.node {
        reader.node(decode(node, "a node")?)?;
    }
    reader.outputs(graph.output)?;
    Ok((reader.graph, length.saturating_add(reader.external.len())))
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

struct Reader {
    graph: Graph,
    names: HashMap<String, ValueId>,
    opset: i64,
    external: External,
    /// ONNX types of constants, of inputs and of what is quantized.
    types: HashMap<ValueId, i32>,
    /// Bytes of scales and zero points that may still be made: nodes may share them.
    left: usize,
}

impl Reader {
    /// Adds a value; names are unique in ONNX.
    fn define(&mut self, name: String, constant: Option<Constant>) -> Result<ValueId, Refusal> {
        let id = self.graph.values.len();
        if self.names.insert(name.clone(), id).is_some() {
            let reason = "is made twice";
            return Err(Refusal::new(ErrorKind::Damaged, format!("value '{name}'"), reason));
        }
        self.graph.values.push(Value { name, constant });
        Ok(id)
    }

    /// Adds a value without a name: what newer versions of an operator have as an input.
    fn constant(&mut self, constant: Constant) -> ValueId {
        self.graph.values.push(Value { name: String::new(), constant: Some(constant) });
        self.graph.values.len() - 1
    }

    fn initializers(&mut self, tensors: Vec<Bytes>) -> Result<(), Refusal> {
        for bytes in tensors {
            let mut tensor: proto::Tensor = decode(bytes, "a tensor")?;
            let place = format!("tensor '{}'", tensor.name);
            if external::is_external(&tensor) {
                tensor = self.external.fetch(tensor, &place)?;
            }
            let constant = tensor::constant(&tensor, &place)?;
            let value = self.define(tensor.name, Some(constant))?;
            self.types.insert(value, tensor.data_type);
        }
        Ok(())
    }

    fn inputs(&mut self, inputs: Vec<Bytes>) -> Result<(), Refusal> {
        for bytes in inputs {
            let info: proto::ValueInfo = decode(bytes, "an input")?;
            // Before IR version 4, weights were listed among the inputs.
            if self.names.contains_key(&info.name) {
                continue;
            }
            let place = format!("input '{}'", info.name);
            let Some(tensor) = info.kind.and_then(|kind| kind.tensor) else {
                return Err(Refusal::new(ErrorKind::Shape, place, "is not a tensor"));
            };
            let element = tensor::element(tensor.elem_type).ok_or_else(|| {
                let reason = format!("has elements of ONNX type {}", tensor.elem_type);
                Refusal::new(ErrorKind::Operator, place.clone(), reason)
                    .help("export the float network with a float input")
            })?;
            let Some(shape) = tensor.shape.filter(|shape| shape.dim.len() <= 8) else {
                return Err(Refusal::new(ErrorKind::DynamicShape, place, "has no usable shape")
                    .help("export with an example input of the size that the board will see"));
            };
            let mut dims = Vec::new();
            for bytes in shape.dim {
                let dimension: proto::Dimension = decode(bytes, "an input's size")?;
                let size = dimension.dim_value.and_then(|size| usize::try_from(size).ok());
                dims.push(size.filter(|&size| size > 0));
            }
            let value = self.define(info.name, None)?;
            self.types.insert(value, tensor.elem_type);
            let integer = element == tensor::Element::Integer;
            self.graph.inputs.push(Input { value, dims, integer });
        }
        Ok(())
    }

    fn node(&mut self, node: proto::Node) -> Result<(), Refusal> {
        let kind = if is_standard(&node.domain) {
            node.op_type.clone()
        } else {
            format!("{}.{}", node.domain, node.op_type)
        };
        let place = match node.output.first() {
            _ if !node.name.is_empty() => format!("node '{}' ({kind})", node.name),
            Some(output) => format!("the {kind} node that makes '{output}'"),
            None => format!("a {kind} node"),
        };
        let attributes = Attributes::decode(node.attribute, &place)?;
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match self.names.get(name) {
                Some(&id) => Some(id),
                None if name.is_empty() => None,
                None => {
                    let reason = format!("reads '{name}', which nothing before it produces");
                    return Err(Refusal::new(ErrorKind::Damaged, place, reason));
                }
            });
        }
        if kind == "Constant" {
            let constant = attributes.constant(&place)?;
            let output = node.output.into_iter().next().unwrap_or_default();
            let value = self.define(output, Some(constant))?;
            self.types.extend(attributes.element_type().map(|element| (value, element)));
            return Ok(());
        }
        // ONNX Runtime has these two in a domain of its own as well.
        let name = kind.strip_prefix("com.microsoft.").unwrap_or(&kind);
        let quantization = match name {
            "QuantizeLinear" | "DequantizeLinear" => {
                let quantization = self.quantization(name, &attributes, &inputs, &place)?;
                inputs.truncate(1);
                Some(quantization)
            }
            _ => None,
        };
        let operator = self.operator(&kind, &attributes, &mut inputs, &place)?;
        let mut outputs = Vec::new();
        for name in node.output {
            outputs.push(if name.is_empty() { None } else { Some(self.define(name, None)?) });
        }
        if let (Some((quantization, element)), Some(&Some(output))) = (quantization, outputs.first()) {
            self.graph.quantizations.insert(output, quantization);
            if operator == Operator::Quantize {
                self.types.insert(output, element);
            }
        }
        self.graph.nodes.push(Node { name: node.name, kind, operator, inputs, outputs });
        Ok(())
    }

    fn outputs(&mut self, outputs: Vec<Bytes>) -> Result<(), Refusal> {
        for bytes in outputs {
            let info: proto::ValueInfo = decode(bytes, "an output")?;
            let id = *self.names.get(&info.name).ok_or_else(|| {
                let place = format!("output '{}'", info.name);
                Refusal::new(ErrorKind::Damaged, place, "is not produced by any node")
            })?;
            self.graph.outputs.push(id);
        }
        self.graph.layout = Layout::Nchw;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::graph::{Data, Padding};
    use crate::front::tests::Understood;

    /// A file of these nodes over an input `x` of 1 x 1 x 4 x 4 and a scalar `zero`.
    fn model(opset: i64, nodes: Vec<proto::Node>) -> Vec<u8> {
        let encoded = |m: Vec<u8>| Bytes::from(m);
        let last = nodes.last().and_then(|node| node.output.first().cloned()).unwrap_or_default();
        let zero =
            proto::Tensor { data_type: 1, float_data: vec![0.0], name: "zero".into(), ..Default::default() };
        let graph = proto::Graph {
            node: nodes.iter().map(|node| encoded(node.encode_to_vec())).collect(),
            initializer: vec![encoded(zero.encode_to_vec())],
            input: vec![encoded(info("x", &[1, 1, 4, 4], 1).encode_to_vec())],
            output: vec![encoded(info(&last, &[], 1).encode_to_vec())],
            sparse_initializer: Vec::new(),
        };
        let set = proto::OperatorSet { domain: String::new(), version: opset };
        let model = proto::Model {
            graph: Some(encoded(graph.encode_to_vec())),
            opset_import: vec![encoded(set.encode_to_vec())],
        };
        model.encode_to_vec()
    }

    fn info(name: &str, dims: &[i64], elem_type: i32) -> proto::ValueInfo {
        let dim = |&size: &i64| {
            proto::Dimension { dim_value: Some(size), ..Default::default() }.encode_to_vec().into()
        };
        let shape = Some(proto::TensorShape { dim: dims.iter().map(dim).collect() });
        let tensor = Some(proto::TensorType { elem_type, shape });
        proto::ValueInfo { name: name.into(), kind: Some(proto::Type { tensor }) }
    }

    pub(super) fn node(
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<proto::Attribute>,
    ) -> proto::Node {
        proto::Node {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.into()],
            op_type: op_type.into(),
            attribute: attributes.iter().map(|a| a.encode_to_vec().into()).collect(),
            ..Default::default()
        }
    }

    fn ints(name: &str, ints: &[i64]) -> proto::Attribute {
        proto::Attribute { name: name.into(), ints: ints.to_vec(), ..Default::default() }
    }

    fn text(name: &str, text: &'static str) -> proto::Attribute {
        proto::Attribute { name: name.into(), s: Bytes::from(text), ..Default::default() }
    }

    pub(super) fn read_nodes(opset: i64, nodes: Vec<proto::Node>) -> Result<Graph, Refusal> {
        Ok(read(model(opset, nodes), Path::new(""))?.0)
    }

    /// The elements of a node's input, which was an attribute in the file.
    fn input(graph: &Graph, index: usize) -> Data {
        let id = graph.nodes.last().unwrap().inputs[index].unwrap();
        graph.values[id].constant.clone().unwrap().data
    }

    #[test]
    fn settings_of_older_versions_become_inputs() {
        let float = |name: &str, f| proto::Attribute { name: name.into(), f, ..Default::default() };
        let clip = node("Clip", &["x"], "y", vec![float("min", 0.0), float("max", 6.0)]);
        let graph = read_nodes(6, vec![clip]).unwrap();
        assert_eq!((input(&graph, 1), input(&graph, 2)), (Data::Float(vec![0.0]), Data::Float(vec![6.0])));

        let pad =
            node("Pad", &["x"], "y", vec![ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1]), text("mode", "constant")]);
        let graph = read_nodes(2, vec![pad]).unwrap();
        assert_eq!(input(&graph, 1), Data::Integer(vec![0, 0, 1, 1, 0, 0, 1, 1]));
        assert_eq!(graph.nodes[0].operator, Operator::Pad { constant: true });

        let starts = vec![ints("starts", &[0]), ints("ends", &[9]), ints("axes", &[2])];
        let graph = read_nodes(1, vec![node("Slice", &["x"], "y", starts)]).unwrap();
        assert_eq!(input(&graph, 3), Data::Integer(vec![2]));

        let graph = read_nodes(11, vec![node("Squeeze", &["x"], "y", vec![ints("axes", &[0])])]).unwrap();
        assert_eq!(input(&graph, 1), Data::Integer(vec![0]));
        for (opset, axis) in [(12, 1), (13, -1)] {
            let graph = read_nodes(opset, vec![node("Softmax", &["x"], "y", vec![])]).unwrap();
            assert_eq!(graph.nodes[0].operator, Operator::Softmax { axis, logarithm: false });
        }
    }

    #[test]
    fn auto_pad_is_read() {
        let pool = |mode| -> Result<Padding, Refusal> {
            let attributes = vec![ints("kernel_shape", &[2, 2]), text("auto_pad", mode)];
            let graph = read_nodes(17, vec![node("MaxPool", &["x"], "y", attributes)])?;
            match &graph.nodes[0].operator {
                Operator::MaxPool(sliding) => Ok(sliding.padding.clone()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(pool("SAME_UPPER"), Ok(Padding::Same { upper: true }));
        assert_eq!(pool("SAME_LOWER"), Ok(Padding::Same { upper: false }));
        assert_eq!(pool("VALID"), Ok(Padding::Explicit(vec![])));
        assert_eq!(pool("NOTSET"), Ok(Padding::Explicit(vec![])));
        assert_eq!(pool("SIDEWAYS").map_err(|refusal| refusal.kind), Err(ErrorKind::Damaged));
    }

    #[test]
    fn a_file_is_read_whole_or_refused() {
        let bytes = model(17, vec![node("GlobalAveragePool", &["x"], "y", vec![])]);
        assert!(is_onnx(&bytes));
        let (graph, length) = read(bytes.clone(), Path::new("")).unwrap();
        assert_eq!(length, bytes.len());
        let lowered = crate::front::lower::lower(graph, length, &[]).unwrap();
        assert_eq!(Understood::new(lowered.network).unwrap().network.layers.len(), 1);
        assert_eq!(read(Vec::new(), Path::new("")).unwrap_err().kind, ErrorKind::Damaged);
        assert_eq!(
            read(bytes[..bytes.len() - 1].to_vec(), Path::new("")).unwrap_err().kind,
            ErrorKind::Damaged
        );
    }

    #[test]
    fn graphs_that_break_onnx_rules_are_damaged() {
        let relu = |input: &str, output: &str| node("Relu", &[input], output, vec![]);
        let refused = |nodes| read_nodes(17, nodes).unwrap_err();
        let unknown = refused(vec![relu("later", "y"), relu("x", "later")]);
        assert_eq!(unknown.kind, ErrorKind::Damaged);
        assert_eq!(unknown.place, "the Relu node that makes 'y'");
        assert!(unknown.reason.contains("reads 'later', which nothing before it produces"));
        let twice = refused(vec![relu("x", "y"), relu("x", "y")]);
        assert_eq!((&*twice.place, &*twice.reason), ("value 'y'", "is made twice"));
        let many = vec![ints("axes", &[]); 65];
        assert_eq!(refused(vec![node("Relu", &["x"], "y", many)]).reason, "has 65 attributes");
        let negative = node("MaxPool", &["x"], "y", vec![ints("kernel_shape", &[-1, 2])]);
        assert_eq!(refused(vec![negative]).reason, "has -1 among its kernel_shape");
        assert_eq!(refused(vec![]).reason, "is not produced by any node");
        let empty = proto::Graph { node: vec![Bytes::new(); MAX_ITEMS + 1], ..Default::default() };
        let graph = Some(empty.encode_to_vec().into());
        let model = proto::Model { graph, opset_import: Vec::new() };
        assert!(read(model.encode_to_vec(), Path::new("")).unwrap_err().reason.contains("65537 nodes"));
    }

    #[test]
    fn operators_of_other_domains_and_training_are_not_taken_for_standard_ones() {
        let unsupported = |node: proto::Node| {
            let graph = read_nodes(17, vec![node]).unwrap();
            let found = matches!(graph.nodes[0].operator, Operator::Unsupported { .. });
            found.then(|| graph.nodes[0].kind.clone())
        };
        let fused = proto::Node { domain: "com.microsoft".into(), ..node("Conv", &["x"], "y", vec![]) };
        assert_eq!(unsupported(fused).as_deref(), Some("com.microsoft.Conv"));
        let training = proto::Attribute { name: "training_mode".into(), i: 1, ..Default::default() };
        let norm = node("BatchNormalization", &["x"], "y", vec![training]);
        assert_eq!(unsupported(norm).as_deref(), Some("BatchNormalization"));
        assert_eq!(unsupported(node("Sum", &["x", "x", "x"], "y", vec![])).as_deref(), Some("Sum"));
        assert_eq!(unsupported(node("Sum", &["x", "x"], "y", vec![])), None);
    }

    #[test]
    fn inputs_are_tensors_of_numbers() {
        let mut reader = Reader {
            graph: Graph::default(),
            names: HashMap::new(),
            opset: 17,
            external: External::new(Path::new("")),
            types: HashMap::new(),
            left: 0,
        };
        let mut input = |info: proto::ValueInfo| {
            reader.inputs(vec![info.encode_to_vec().into()]).map_err(|refusal| refusal.kind)
        };
        assert_eq!(input(info("a", &[1, 3, 8, 8], 2)), Ok(()));
        assert_eq!(input(info("b", &[1, 3, 8, 8], 8)), Err(ErrorKind::Operator));
        assert_eq!(input(proto::ValueInfo { name: "c".into(), kind: None }), Err(ErrorKind::Shape));
        let tensor = Some(proto::TensorType { elem_type: 1, shape: None });
        let open = proto::ValueInfo { name: "d".into(), kind: Some(proto::Type { tensor }) };
        assert_eq!(input(open), Err(ErrorKind::DynamicShape));
        let [open] = &reader.graph.inputs[..] else { panic!("{:?}", reader.graph.inputs) };
        assert!(open.integer);
    }
}
