//! Pieces of a network that run in tract's own float code: which nodes belong together, and their models.
//!
//! A piece has any number of inputs and one node whose outputs are read outside of it. Such a piece is closed: a path that
//! leaves it leaves it at that node, so that coming back would be a cycle. The largest ones are found in one pass from the
//! outputs back: a node joins the piece that all of its readers are in (a maximal cluster of one output;
//! Alippi, Fornaciari, Pozzi and Sami, "A DAG-based design approach for reconfigurable VLIW processors", DATE 1999).

use std::collections::{HashMap, HashSet};

use prost::Message;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use tract_onnx::prelude::{DatumType, Tensor, f16};

use crate::attributes::{integer, integers};
use crate::float_graph::{FloatOp, OnnxPiece, PieceNode};
use crate::known::Known;
use crate::lower::{Data, Lowering, Reason};
use crate::onnx_file::node_name;
use crate::unary::Unary;
use crate::view::View;

/// Nodes that run together.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Indices of the nodes, ascending; the last one alone is read outside.
    pub nodes: Vec<usize>,
    /// Its outputs that are read.
    pub outputs: Vec<String>,
}

/// Pieces that hold all nodes named in `wanted`, and the cheap ones between them. Tensors named in `outputs` are read
/// outside. `wanted` grows by nodes around tensors that are no floats, since pieces exchange only those.
pub(crate) fn plan(
    onnx: &GraphProto,
    known: &HashMap<String, Known>,
    outputs: &[String],
    wanted: &mut HashSet<String>,
) -> Vec<Piece> {
    loop {
        let pieces = Planner::new(onnx, known, outputs).pieces(wanted);
        let n = wanted.len();
        let no_float =
            |tensor: &String| known.get(tensor).is_some_and(|k| k.constant.is_none() && !is_float(k.data_type));
        for piece in &pieces {
            let members = || piece.nodes.iter().filter_map(|i| onnx.node.get(*i));
            let gives_others = piece.outputs.iter().any(no_float);
            for node in &onnx.node {
                // Whoever reads any output of the last node, so that it may join them.
                let reads = gives_others && node.input.iter().any(|input| piece.outputs.contains(input));
                let writes =
                    |output: &String| no_float(output) && members().any(|member| member.input.contains(output));
                if reads || node.output.iter().any(writes) {
                    wanted.insert(node_name(node));
                }
            }
        }
        if wanted.len() == n {
            return pieces;
        }
    }
}

/// True of types that a piece takes and gives, as float32.
fn is_float(data_type: DatumType) -> bool {
    matches!(data_type, DatumType::F32 | DatumType::F16)
}

/// Operators that cost next to nothing: between others in float they stay there, since going to int8 and back would lose
/// what a norm or an attention needs.
fn is_cheap(op: &str) -> bool {
    matches!(
        op,
        "Abs"
            | "Add"
            | "Cast"
            | "Clip"
            | "Concat"
            | "Div"
            | "Erf"
            | "Exp"
            | "Flatten"
            | "Identity"
            | "Log"
            | "Max"
            | "Min"
            | "Mul"
            | "Neg"
            | "Pow"
            | "Reciprocal"
            | "Relu"
            | "Reshape"
            | "Sigmoid"
            | "Slice"
            | "Sqrt"
            | "Squeeze"
            | "Sub"
            | "Tanh"
            | "Transpose"
            | "Unsqueeze"
    )
}

/// Who reads what.
struct Planner<'a> {
    onnx: &'a GraphProto,
    known: &'a HashMap<String, Known>,
    outputs: HashSet<&'a str>,
    readers: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Planner<'a> {
    fn new(onnx: &'a GraphProto, known: &'a HashMap<String, Known>, outputs: &'a [String]) -> Self {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in onnx.node.iter().enumerate() {
            for input in node.input.iter().filter(|i| !i.is_empty()) {
                readers.entry(input).or_default().push(index);
            }
        }
        Planner { onnx, known, outputs: outputs.iter().map(|o| &o[..]).collect(), readers }
    }

    fn readers(&self, tensor: &str) -> &[usize] {
        self.readers.get(tensor).map(Vec::as_slice).unwrap_or_default()
    }

    fn is_constant(&self, node: &NodeProto) -> bool {
        let mut outputs = node.output.iter().filter(|o| !o.is_empty());
        outputs.all(|o| self.known.get(o).is_some_and(|k| k.constant.is_some()))
    }

    fn pieces(&self, wanted: &HashSet<String>) -> Vec<Piece> {
        let nodes = &self.onnx.node;
        let is_wanted: Vec<bool> =
            nodes.iter().map(|n| wanted.contains(&node_name(n)) && !self.is_constant(n)).collect();
        let is_cheap: Vec<bool> =
            nodes.iter().map(|n| is_cheap(&n.op_type) && n.output.len() == 1 && !self.is_constant(n)).collect();
        // Cheap nodes that come after a wanted one with nothing but cheap ones between.
        let mut after: HashSet<&str> = HashSet::new();
        let mut is_after = vec![false; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            is_after[index] = is_cheap[index] && node.input.iter().any(|input| after.contains(&input[..]));
            if is_wanted[index] || is_after[index] {
                after.extend(node.output.iter().filter(|o| !o.is_empty()).map(|o| &o[..]));
            }
        }
        let mut piece_of: Vec<Option<usize>> = vec![None; nodes.len()];
        let mut pieces: Vec<Piece> = vec![];
        for (index, node) in nodes.iter().enumerate().rev() {
            if !is_wanted[index] && !is_after[index] {
                continue;
            }
            let written = || node.output.iter().filter(|o| !o.is_empty());
            let leaves = written().any(|o| self.outputs.contains(&o[..]));
            let mut readers = written().flat_map(|o| self.readers(o)).map(|reader| piece_of[*reader]);
            let first = readers.next().flatten().filter(|first| !leaves && readers.all(|other| other == Some(*first)));
            if let Some(piece) = first {
                piece_of[index] = Some(piece);
                pieces[piece].nodes.push(index);
            } else if is_wanted[index] {
                piece_of[index] = Some(pieces.len());
                let is_read = |o: &&String| self.outputs.contains(&o[..]) || !self.readers(o).is_empty();
                pieces.push(Piece { nodes: vec![index], outputs: written().filter(is_read).cloned().collect() });
            }
        }
        for piece in &mut pieces {
            piece.nodes.reverse();
        }
        pieces
    }
}

impl Lowering<'_> {
    /// Adds a piece: one model for each of its outputs.
    pub(crate) fn piece(&mut self, onnx: &GraphProto, opsets: &ModelProto, piece: &Piece) -> Result<(), Reason> {
        let nodes: Vec<&NodeProto> = piece.nodes.iter().filter_map(|i| onnx.node.get(*i)).collect();
        let name = nodes.last().map(|node| node_name(node)).unwrap_or_default();
        let mut built = PieceModel::default();
        let (mut values, mut views) = (vec![], vec![]);
        for node in &nodes {
            if node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty()) {
                return Err(format!("{} `{}` holds a graph of its own", node.op_type, node_name(node)));
            }
            for input in node.input.iter().filter(|input| !input.is_empty()) {
                if !built.named.insert(input.clone()) {
                    continue;
                }
                let known = self.known.get(input);
                if let Some(constant) = known.and_then(|k| k.constant.as_ref()) {
                    built.graph.initializer.push(initializer(input, constant)?);
                } else {
                    let data_type = known.map_or(DatumType::F32, |k| k.data_type);
                    if !is_float(data_type) {
                        return Err(format!("`{input}` is of type {data_type:?}; pieces in float take floats"));
                    }
                    let data = self.solid(input)?;
                    built.input(input, data_type, &data.view);
                    values.push(data.value);
                    views.push(data.view);
                }
            }
            built.named.extend(node.output.iter().cloned());
            built.graph.node.push(plain(node));
        }
        for output in &piece.outputs {
            let known = self.known.get(output).ok_or_else(|| format!("the shape of `{output}` is not known"))?;
            if !is_float(known.data_type) {
                return Err(format!("`{output}` is of type {:?}; pieces in float give floats", known.data_type));
            }
            let (shape, view, perm) = self.laid_out(&known.shape, &views);
            let op = FloatOp::Onnx(OnnxPiece {
                model: built.model(opsets, output, known.data_type, perm),
                nodes: nodes.iter().map(|n| PieceNode { node: node_name(n), op: n.op_type.clone() }).collect(),
            });
            let value = self.push(&name, op, values.clone(), shape, None);
            let sole = self.is_read_once(output);
            let data = Data { value, view, unary: Unary::X, pad: None, sole };
            self.found_in(output, &data);
            self.items.insert(output.clone(), data);
        }
        Ok(())
    }

    /// How an output of an ONNX shape lies in memory, and in what order of its axes, if not row-major: as the piece's
    /// inputs do where they are pictures or sequences, so that layers in int8 before and after it need not turn them around.
    fn laid_out(&self, onnx_shape: &[usize], inputs: &[View]) -> ([usize; 3], View, Option<Vec<i64>>) {
        let rank = onnx_shape.len();
        let all: Vec<usize> = (0..rank).collect();
        let plain = View::new(rank, onnx_shape, &all);
        let like = inputs.iter().find(|view| view.axes.len() == rank).and_then(|view| {
            let layout = self.layout_of(view).ok()?;
            let order = [&layout.h[..], &layout.w, &layout.c].concat();
            View::is_memory_order(&view.walk(&order)?).then_some((layout, order))
        });
        let is_one = |axis: &usize| onnx_shape.get(*axis) == Some(&1);
        match like {
            Some((layout, order)) if all.iter().all(|axis| order.contains(axis) || is_one(axis)) => {
                let shape = self.sizes(&plain, &layout);
                let mut perm: Vec<usize> = all.iter().copied().filter(|axis| !order.contains(axis)).collect();
                perm.extend(order);
                let perm = (perm != all).then(|| perm.iter().map(|axis| *axis as i64).collect());
                (shape, self.view_of(rank, shape, &layout), perm)
            }
            _ => (three(onnx_shape), plain, None),
        }
    }
}

/// `[H, W, C]` of a row-major tensor of any number of axes.
fn three(shape: &[usize]) -> [usize; 3] {
    let sizes: Vec<usize> = shape.iter().copied().filter(|size| *size != 1).collect();
    match sizes[..] {
        [] => [1, 1, 1],
        [c] => [1, 1, c],
        [w, c] => [1, w, c],
        [ref h @ .., w, c] => [h.iter().product(), w, c],
    }
}

/// A piece's graph in the making.
#[derive(Default)]
struct PieceModel {
    graph: GraphProto,
    named: HashSet<String>,
}

impl PieceModel {
    /// Adds an input: our value as it lies in memory, reordered by the model itself. So no axes are too many, and no step
    /// of ours moves bytes that tract moves anyway.
    fn input(&mut self, name: &str, data_type: DatumType, view: &View) {
        let (shape, walk) = (view.shape(), view.axes.concat());
        let in_order = View::is_memory_order(&walk);
        let mut nodes = vec![];
        if data_type == DatumType::F16 {
            nodes.push(("Cast", vec![], integer("to", FLOAT16)));
        }
        if !in_order {
            nodes.push(("Transpose", vec![], integers("perm", walk.iter().map(|factor| *factor as i64).collect())));
            let sizes = format!("{name} sizes");
            let raw_data = shape.iter().flat_map(|size| (*size as i64).to_le_bytes()).collect();
            let (dims, name) = (vec![shape.len() as i64], sizes.clone());
            self.graph.initializer.push(TensorProto { name, dims, data_type: 7, raw_data, ..Default::default() });
            nodes.push(("Reshape", vec![sizes], integer("allowzero", 0)));
        }
        // The last one writes the tensor itself.
        let n = nodes.len();
        let stage = |i: usize| if i == n { name.to_owned() } else { format!("{name} in memory {i}") };
        self.graph.input.push(value_info(&stage(0), if in_order { &shape } else { &view.factors }));
        for (i, (op, more_inputs, attribute)) in nodes.into_iter().enumerate() {
            let mut node = added(op, &stage(i), &stage(i + 1), attribute);
            node.input.extend(more_inputs);
            self.graph.node.push(node);
        }
    }

    /// The encoded model of one output, its axes reordered where `perm` says so.
    fn model(&self, opsets: &ModelProto, output: &str, data_type: DatumType, perm: Option<Vec<i64>>) -> Vec<u8> {
        let mut graph = self.graph.clone();
        let mut name = output.to_owned();
        let cast = (data_type == DatumType::F16).then(|| ("Cast", integer("to", FLOAT32)));
        for (op, attribute) in perm.map(|perm| ("Transpose", integers("perm", perm))).into_iter().chain(cast) {
            let next = format!("{output} after {op}");
            graph.node.push(added(op, &name, &next, attribute));
            name = next;
        }
        graph.output = vec![ValueInfoProto { name, ..Default::default() }];
        let (ir_version, opset_import) = (opsets.ir_version, opsets.opset_import.clone());
        ModelProto { ir_version, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
    }
}

/// ONNX code of float32.
const FLOAT32: i64 = 1;
/// ONNX code of float16.
const FLOAT16: i64 = 10;

/// A node that the ONNX file does not have.
fn added(op: &str, input: &str, output: &str, attribute: AttributeProto) -> NodeProto {
    NodeProto {
        // Unlike any name of the file.
        name: format!("graft: {output}"),
        op_type: op.into(),
        input: vec![input.into()],
        output: vec![output.into()],
        attribute: vec![attribute],
        ..Default::default()
    }
}

fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dimension =
        |size: &usize| Dimension { value: Some(dimension::Value::DimValue(*size as i64)), ..Default::default() };
    let shape = Some(TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let value = Some(TypeValue::TensorType(TensorType { elem_type: 1, shape }));
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value, ..Default::default() }), ..Default::default() }
}

/// A node without texts for people, its integers within 32 bits (see [`narrow`]).
fn plain(node: &NodeProto) -> NodeProto {
    let mut node = NodeProto { doc_string: String::new(), ..node.clone() };
    for attribute in &mut node.attribute {
        attribute.doc_string.clear();
        attribute.i = narrow(attribute.i);
        attribute.ints.iter_mut().for_each(|i| *i = narrow(*i));
    }
    node
}

/// Within 32 bits: larger ones stand for "to the end", and no tensor of a bundle is that long.
fn narrow(integer: i64) -> i64 {
    integer.clamp(i32::MIN.into(), i32::MAX.into())
}

/// A constant as raw bytes.
fn initializer(name: &str, constant: &Tensor) -> Result<TensorProto, Reason> {
    macro_rules! raw {
        ($code:literal, $type:ty, $bytes:expr) => {{
            let cast = constant.cast_to::<$type>().map_err(|e| format!("constant `{name}`: {e:#}"))?;
            let values = cast.to_plain_array_view::<$type>().map_err(|e| format!("constant `{name}`: {e:#}"))?;
            ($code, values.iter().flat_map($bytes).collect())
        }};
    }
    let (data_type, raw_data): (i32, Vec<u8>) = match constant.datum_type() {
        DatumType::F32 => raw!(1, f32, |v| v.to_le_bytes()),
        DatumType::F16 => raw!(10, f16, |v| v.to_le_bytes()),
        DatumType::F64 => raw!(11, f64, |v| v.to_le_bytes()),
        DatumType::U8 => raw!(2, u8, |v| v.to_le_bytes()),
        DatumType::I8 => raw!(3, i8, |v| v.to_le_bytes()),
        DatumType::I32 => raw!(6, i32, |v| v.to_le_bytes()),
        DatumType::Bool => raw!(9, bool, |v| [u8::from(*v)]),
        DatumType::I64 | DatumType::TDim => raw!(7, i64, |v| narrow(*v).to_le_bytes()),
        other => return Err(format!("constant `{name}` is of type {other:?}")),
    };
    let dims = constant.shape().iter().map(|size| *size as i64).collect();
    Ok(TensorProto { name: name.into(), dims, data_type, raw_data, ..Default::default() })
}
