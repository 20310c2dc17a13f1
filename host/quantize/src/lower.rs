//! From ONNX nodes to our float graph: the walk, and what all operators share.
//!
//! Every node is tried, so that all that cannot be quantized is named at once: a refused node leaves a value of its
//! shape behind and the walk goes on. Batch norms, scalings and clamps fold into the layer before them; chains of
//! element-wise operators stay one expression until someone needs the numbers ([`crate::unary`]); Reshape and Transpose
//! are views ([`crate::view`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::prelude::Tensor;

use crate::attributes::{floats_of, ints_of};
use crate::error::Refused;
use crate::float_graph::{Conv, FloatGraph, FloatNode, FloatOp, Select, Source, Value, ValueId, point_window};
use crate::known::Known;
use crate::onnx_file::node_name;
use crate::pieces::{Piece, plan};
use crate::unary::Unary;
use crate::view::View;

/// How a node will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeClass {
    /// Does not depend on the input: computed once, here.
    Folded,
    /// Integers, or nothing at all (views, folded norms, fused activations).
    Integer,
    /// Exact float ops of ours.
    ExactFloat,
    /// tract's own float code can run it, in a bundle that is not exact
    /// ([`ImportOptions::allow_inexact`](crate::ImportOptions::allow_inexact)).
    TractFloat,
    /// Neither.
    Unsupported,
}

/// A node with its class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassifiedNode {
    /// ONNX name.
    pub node: String,
    /// Operator type.
    pub op: String,
    /// How it will run.
    pub class: NodeClass,
}

/// Result of a walk.
#[derive(Debug)]
pub struct Lowered {
    /// Complete up to `outputs` if nothing before them was refused.
    pub graph: FloatGraph,
    /// All that cannot be quantized.
    pub refused: Vec<Refused>,
    /// Every node.
    pub nodes: Vec<ClassifiedNode>,
    /// Where each data-dependent ONNX tensor is found.
    pub(crate) items: HashMap<String, Data>,
}

/// A data-dependent ONNX tensor: `unary(value)`, padded, seen through a view.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub value: ValueId,
    pub view: View,
    pub unary: Unary,
    /// Zeros around height and width that wait for a convolution to take them: top, left, bottom, right.
    pub pad: Option<[u32; 4]>,
    /// Nobody else reads the value, so that it may change.
    pub sole: bool,
}

/// Which ONNX axes are height, width and channels; an axis that is absent has length 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub h: Vec<usize>,
    pub w: Vec<usize>,
    pub c: Vec<usize>,
}

impl Layout {
    pub fn nchw() -> Layout {
        Layout { h: vec![2], w: vec![3], c: vec![1] }
    }
}

/// The walk's state.
pub(crate) struct Lowering<'a> {
    pub known: &'a HashMap<String, Known>,
    pub graph: FloatGraph,
    pub items: HashMap<String, Data>,
    /// Node that writes each value.
    pub producer: HashMap<ValueId, usize>,
    n_readers: HashMap<String, usize>,
}

/// An operator's reason for not being lowered.
pub(crate) type Reason = String;

/// What is walked.
#[derive(Clone, Copy)]
pub struct Walked<'a> {
    /// Nodes in order.
    pub onnx: &'a GraphProto,
    /// What their operators mean.
    pub opsets: &'a ModelProto,
    /// All tensors.
    pub known: &'a HashMap<String, Known>,
    /// The input, found through `view` in a value of `shape`.
    pub input: &'a str,
    /// `[H, W, C]`.
    pub shape: [usize; 3],
    /// Of the input.
    pub view: &'a View,
    /// Tensors that stay as they are.
    pub outputs: &'a [String],
}

/// Walks a graph. With `allow_inexact` tract's own float code runs what has no other form.
pub fn lower(walked: Walked<'_>, allow_inexact: bool) -> Lowered {
    let mut lowered = walk(walked, &[]);
    if !allow_inexact {
        return lowered;
    }
    let mut wanted = HashSet::new();
    // What comes after a piece finds its input in another order, which it may have no form for: again with that in a piece.
    loop {
        let n = wanted.len();
        let refused = lowered.refused.iter().filter(|r| lowered.class_of(&r.node) == Some(NodeClass::TractFloat));
        wanted.extend(refused.map(|r| r.node.clone()));
        if wanted.len() == n {
            return lowered;
        }
        lowered = walk(walked, &plan(walked.onnx, walked.known, walked.outputs, &mut wanted));
    }
}

/// One walk with these pieces.
fn walk(walked: Walked<'_>, pieces: &[Piece]) -> Lowered {
    let Walked { onnx, opsets, known, input, shape, view, outputs } = walked;
    let mut n_readers: HashMap<String, usize> = HashMap::new();
    for name in onnx.node.iter().flat_map(|n| &n.input).chain(outputs) {
        *n_readers.entry(name.clone()).or_default() += 1;
    }
    let mut walk =
        Lowering { known, graph: FloatGraph::default(), items: HashMap::new(), producer: HashMap::new(), n_readers };
    walk.graph.values.push(Value::new(shape, Some(Source { tensor: input.into(), view: view.clone() })));
    walk.items.insert(input.into(), Data { value: 0, view: view.clone(), unary: Unary::X, pad: None, sole: false });
    // By node, the piece that it is in.
    let in_piece: HashMap<usize, &Piece> =
        pieces.iter().flat_map(|piece| piece.nodes.iter().map(move |node| (*node, piece))).collect();
    let (mut refused, mut nodes) = (vec![], vec![]);
    for (index, node) in onnx.node.iter().enumerate() {
        let outputs = || node.output.iter().filter(|o| !o.is_empty());
        let constant = outputs().all(|o| known.get(o).is_some_and(|k| k.constant.is_some()));
        let class = if constant {
            NodeClass::Folded
        } else if let Some(piece) = in_piece.get(&index) {
            // A piece comes where its last node is; what only it reads is of no use to others.
            walk.leave_unknown(node);
            let added = if piece.nodes.last() == Some(&index) { walk.piece(onnx, opsets, piece) } else { Ok(()) };
            if let Err(reason) = &added {
                refused.push(Refused { node: node_name(node), op: node.op_type.clone(), reason: reason.clone() });
            }
            if added.is_ok() { NodeClass::TractFloat } else { NodeClass::Unsupported }
        } else {
            match walk.checked_node(node) {
                Ok(()) if node.op_type == "Softmax" => NodeClass::ExactFloat,
                Ok(()) => NodeClass::Integer,
                Err(reason) => {
                    let readable = outputs().all(|o| known.contains_key(o));
                    refused.push(Refused { node: node_name(node), op: node.op_type.clone(), reason });
                    walk.leave_unknown(node);
                    if readable { NodeClass::TractFloat } else { NodeClass::Unsupported }
                }
            }
        };
        nodes.push(ClassifiedNode { node: node_name(node), op: node.op_type.clone(), class });
    }
    Lowered { graph: walk.graph, refused, nodes, items: walk.items }
}

impl Lowered {
    /// How a node runs, by its name.
    pub fn class_of(&self, node: &str) -> Option<NodeClass> {
        self.nodes.iter().find(|n| n.node == node).map(|n| n.class)
    }

    /// Makes `tensor` the graph's output: a vector `[1, 1, D]`, pooled over height and width if it is a picture, and
    /// drops what does not lead there. Returns D and whether it was pooled.
    pub fn cut(self, tensor: &str) -> Result<(FloatGraph, usize, bool), Reason> {
        let known = HashMap::new();
        let mut walk = Lowering {
            known: &known,
            producer: self.graph.nodes.iter().enumerate().map(|(i, n)| (n.output, i)).collect(),
            graph: self.graph,
            items: self.items,
            n_readers: HashMap::new(),
        };
        let data = walk.solid(tensor)?;
        let layout = walk.layout_of(&data.view)?;
        let [h, w, c] = walk.sizes(&data.view, &layout);
        let mut value = data.value;
        let pooled = h * w > 1;
        if pooled {
            let picture = walk.in_memory(&data, &layout, tensor)?;
            value = walk.push(tensor, FloatOp::GlobalMean, vec![picture], [1, 1, c], None);
        } else {
            // The embedding's order is the ONNX tensor's.
            let all: Vec<usize> = (0..data.view.axes.len()).collect();
            let flat = Layout { h: vec![], w: vec![], c: all };
            if walk.graph.values[value].shape != [1, 1, c]
                || !View::is_memory_order(&data.view.walk(&flat.c).unwrap_or_default())
            {
                value = walk.in_memory(&data, &flat, tensor)?;
            }
        }
        let mut graph = walk.graph;
        graph.output = value;
        prune(&mut graph);
        Ok((graph, c, pooled))
    }
}

/// Drops nodes that the output does not need.
fn prune(graph: &mut FloatGraph) {
    let mut needed = vec![false; graph.values.len()];
    needed[graph.output] = true;
    let mut kept = vec![];
    for node in std::mem::take(&mut graph.nodes).into_iter().rev() {
        if needed[node.output] {
            for input in &node.inputs {
                needed[*input] = true;
            }
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
}

impl Lowering<'_> {
    /// Lowers a node and compares the shapes of its outputs with tract's.
    fn checked_node(&mut self, node: &NodeProto) -> Result<(), Reason> {
        self.node(node)?;
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if let (Some(data), Some(known)) = (self.items.get(output), self.known.get(output)) {
                let mut shape = data.view.shape();
                if let (Some([top, left, bottom, right]), [.., h, w]) = (data.pad, &mut shape[..]) {
                    (*h, *w) = (*h + (top + bottom) as usize, *w + (left + right) as usize);
                }
                if shape != known.shape {
                    return Err(format!("output `{output}` came out as {shape:?}; {:?} is right", known.shape));
                }
            }
        }
        Ok(())
    }

    /// After a refused node: values of the right shape that nothing computes.
    fn leave_unknown(&mut self, node: &NodeProto) {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            let Some(known) = self.known.get(output) else {
                self.items.remove(output);
                continue;
            };
            let dims = &known.shape;
            let (sizes, axes): (Vec<usize>, Vec<usize>) = match dims.len() {
                4 => (vec![dims[2], dims[3], dims[1]], vec![2, 3, 1]),
                n => (dims.clone(), (0..n).collect()),
            };
            let shape = match sizes[..] {
                [h, w, c] if dims.len() == 4 => [h, w, c],
                _ => [1, 1, sizes.iter().product()],
            };
            let value = self.graph.values.len();
            self.graph.values.push(Value::new(shape, None));
            let view = View::new(dims.len(), &sizes, &axes);
            self.items.insert(output.clone(), Data { value, view, unary: Unary::X, pad: None, sole: false });
        }
    }

    // What an operator reads.

    /// Input `index` of a node, if it is there.
    pub fn input<'n>(&self, node: &'n NodeProto, index: usize) -> Option<&'n str> {
        node.input.get(index).map(|s| &s[..]).filter(|s| !s.is_empty())
    }

    /// Constant input as a tensor.
    pub fn constant(&self, node: &NodeProto, index: usize) -> Option<Arc<Tensor>> {
        self.known.get(self.input(node, index)?)?.constant.clone()
    }

    /// Constant input as floats with its shape.
    pub fn floats(&self, node: &NodeProto, index: usize) -> Option<(Vec<usize>, Vec<f32>)> {
        let tensor = self.constant(node, index)?;
        Some((tensor.shape().to_vec(), floats_of(&tensor)?))
    }

    /// Constant input as integers.
    pub fn ints(&self, node: &NodeProto, index: usize) -> Option<Vec<i64>> {
        ints_of(&*self.constant(node, index)?)
    }

    /// Data input as it is, perhaps with a pending function or padding.
    pub fn data(&self, node: &NodeProto, index: usize) -> Result<Data, Reason> {
        let name = self.input(node, index).ok_or_else(|| format!("input {index} is missing"))?;
        self.items.get(name).cloned().ok_or_else(|| match self.known.get(name) {
            Some(known) if known.constant.is_some() => format!("input {index} is a constant"),
            _ => format!("input `{name}` comes from a node that cannot be read"),
        })
    }

    /// Data input `index` as plain numbers.
    pub fn solid_input(&mut self, node: &NodeProto, index: usize) -> Result<Data, Reason> {
        self.data(node, index)?;
        let name = node.input.get(index).cloned().unwrap_or_default();
        self.solid(&name)
    }

    /// Tensor `name` with its pending function and padding carried out.
    pub fn solid(&mut self, name: &str) -> Result<Data, Reason> {
        let mut data = self.items.get(name).cloned().ok_or_else(|| format!("`{name}` does not depend on the input"))?;
        if let Some([top, left, bottom, right]) = data.pad {
            let layout = self.layout_of(&data.view)?;
            let [h, w, c] = self.sizes(&data.view, &layout);
            let input = self.in_memory(&data, &layout, name)?;
            let window =
                graft_bundle::graph::Window { pad_before: [top, left], pad_after: [bottom, right], ..point_window() };
            let shape = [h + (top + bottom) as usize, w + (left + right) as usize, c];
            let op = FloatOp::Select(Select { window, tap: [0, 0], channels: None });
            let value = self.push(name, op, vec![input], shape, None);
            data = Data {
                value,
                view: self.view_of(data.view.axes.len(), shape, &layout),
                unary: Unary::X,
                pad: None,
                sole: data.sole,
            };
            self.found_in(name, &data);
        }
        if data.unary != Unary::X {
            data = self.carry_out(name, data);
        }
        self.items.insert(name.into(), data.clone());
        Ok(data)
    }

    /// Computes a pending function: in the layer before it if that can take it, else as a table.
    fn carry_out(&mut self, name: &str, mut data: Data) -> Data {
        let unary = std::mem::replace(&mut data.unary, Unary::X);
        if data.sole && self.fuse(data.value, &unary) {
            self.found_in(name, &data);
            return data;
        }
        let shape = self.graph.values[data.value].shape;
        data.value = self.push(name, FloatOp::Unary(unary), vec![data.value], shape, None);
        data.sole = self.is_read_once(name);
        self.found_in(name, &data);
        data
    }

    /// Puts a function into the node that writes `value`; false if that node cannot take it.
    pub fn fuse(&mut self, value: ValueId, unary: &Unary) -> bool {
        let Some(node) = self.producer.get(&value).and_then(|p| self.graph.nodes.get_mut(*p)) else { return false };
        if node.clamp.is_some() {
            return false;
        }
        if let Some(clamp) = unary.as_clamp()
            && node.op.takes_clamp()
        {
            node.clamp = Some(clamp);
            return true;
        }
        if let (FloatOp::Conv(conv), Some((a, b))) = (&mut node.op, unary.as_affine()) {
            conv.weights.iter_mut().for_each(|w| *w = (f64::from(*w) * a) as f32);
            conv.bias.iter_mut().for_each(|bias| *bias = (f64::from(*bias) * a + b) as f32);
            return true;
        }
        false
    }

    /// Data after one more function, fused at once where that is possible.
    pub fn apply(&mut self, node: &NodeProto, data: Data, wrap: impl FnOnce(Unary) -> Unary) {
        let name = node.output.first().cloned().unwrap_or_default();
        let sole = self.still_sole(&data, &name);
        let mut data = Data { sole, ..data };
        data.unary = wrap(std::mem::replace(&mut data.unary, Unary::X));
        // A clamp or scaling of a layer's own output; anything else waits, it may be part of a larger function.
        // Sole refers to the input here: nobody else may see the layer before the function.
        if self.input_sole(node) && data.unary != Unary::X && self.fuse(data.value, &data.unary.clone()) {
            data.unary = Unary::X;
            self.found_in(&name, &data);
        }
        self.items.insert(name, data);
    }

    /// True if this node alone sees the value behind its first data input.
    fn input_sole(&self, node: &NodeProto) -> bool {
        node.input.iter().filter_map(|i| self.items.get(i)).all(|d| d.sole)
    }

    /// True if one node alone reads a tensor.
    pub fn is_read_once(&self, name: &str) -> bool {
        self.n_readers.get(name) == Some(&1)
    }

    /// Whether a tensor derived from `data` is the value's only reader.
    pub fn still_sole(&self, data: &Data, name: &str) -> bool {
        data.sole && self.is_read_once(name)
    }

    /// Stores a view of the same value under a new name.
    pub fn rename(&mut self, node: &NodeProto, data: Data, view: View) {
        let name = node.output.first().cloned().unwrap_or_default();
        let sole = self.still_sole(&data, &name);
        self.items.insert(name, Data { view, sole, ..data });
    }

    // What an operator writes.

    /// Adds a node and its value.
    pub fn push(
        &mut self,
        name: &str,
        op: FloatOp,
        inputs: Vec<ValueId>,
        shape: [usize; 3],
        clamp: Option<(f64, f64)>,
    ) -> ValueId {
        let value = self.graph.values.len();
        self.graph.values.push(Value::new(shape, None));
        self.producer.insert(value, self.graph.nodes.len());
        self.graph.nodes.push(FloatNode { name: name.into(), op, inputs, output: value, clamp });
        value
    }

    /// Adds a node that writes the ONNX node's first output.
    pub fn emit(&mut self, node: &NodeProto, op: FloatOp, inputs: Vec<ValueId>, shape: [usize; 3], view: View) {
        let name = node.output.first().cloned().unwrap_or_default();
        let value = self.push(&node_name(node), op, inputs, shape, None);
        let data = Data { value, view, unary: Unary::X, pad: None, sole: self.is_read_once(&name) };
        self.found_in(&name, &data);
        self.items.insert(name, data);
    }

    /// Notes that an ONNX tensor holds a value's numbers.
    pub fn found_in(&mut self, tensor: &str, data: &Data) {
        if let Some(value) = self.graph.values.get_mut(data.value) {
            value.source = Some(Source { tensor: tensor.into(), view: data.view.clone() });
        }
    }

    // Memory order.

    /// The axes of a picture or vector. Channels first, unless memory says that it is channels last.
    pub fn layout_of(&self, view: &View) -> Result<Layout, Reason> {
        let in_memory = |axes: &[usize]| view.walk(axes).is_some_and(|w| View::is_memory_order(&w));
        match view.axes.len() {
            4 if !in_memory(&[2, 3, 1]) && in_memory(&[1, 2, 3]) => Ok(Layout { h: vec![1], w: vec![2], c: vec![3] }),
            4 => Ok(Layout::nchw()),
            3 if !in_memory(&[2, 1]) && in_memory(&[1, 2]) => Ok(Layout { h: vec![], w: vec![1], c: vec![2] }),
            3 => Ok(Layout { h: vec![], w: vec![2], c: vec![1] }),
            2 => Ok(Layout { h: vec![], w: vec![], c: vec![1] }),
            1 => Ok(Layout { h: vec![], w: vec![], c: vec![0] }),
            rank => Err(format!("it works on {rank} axes; pictures and vectors have 1 to 4")),
        }
    }

    /// `[H, W, C]` of a view in a layout.
    pub fn sizes(&self, view: &View, layout: &Layout) -> [usize; 3] {
        let shape = view.shape();
        let size = |axes: &[usize]| axes.iter().filter_map(|a| shape.get(*a)).product();
        [size(&layout.h), size(&layout.w), size(&layout.c)]
    }

    /// The view of a fresh `[H, W, C]` value whose axes are single ones.
    pub fn view_of(&self, rank: usize, shape: [usize; 3], layout: &Layout) -> View {
        let axis = |axes: &[usize]| axes.first().copied();
        let parts = [(shape[0], axis(&layout.h)), (shape[1], axis(&layout.w)), (shape[2], axis(&layout.c))];
        let parts: Vec<(usize, usize)> = parts.into_iter().filter_map(|(size, axis)| Some((size, axis?))).collect();
        let (sizes, axes): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        View::new(rank, &sizes, &axes)
    }

    /// The value whose memory is the tensor as `[H, W, C]`; reorders only if it has to.
    pub fn in_memory(&mut self, data: &Data, layout: &Layout, name: &str) -> Result<ValueId, Reason> {
        let axes: Vec<usize> = layout.h.iter().chain(&layout.w).chain(&layout.c).copied().collect();
        let walk =
            data.view.walk(&axes).ok_or_else(|| format!("its batch is not 1 (shape {:?})", data.view.shape()))?;
        let shape = self.sizes(&data.view, layout);
        let mut value = data.value;
        if !View::is_memory_order(&walk) {
            let (sizes, permutation) = data.view.runs(&walk);
            let [a, b, c] =
                pad3(&sizes).ok_or_else(|| format!("it reorders {} axes at once; at most 3", sizes.len()))?;
            value = self.reshape(value, [a, b, c], name);
            let extra = 3 - sizes.len();
            let axes: Vec<u32> = (0..extra).chain(permutation.iter().map(|p| p + extra)).map(|a| a as u32).collect();
            let axes: [u32; 3] = axes.try_into().map_err(|_| "reordering".to_string())?;
            let old = [a, b, c];
            value = self.push(name, FloatOp::Transpose(axes), vec![value], axes.map(|a| old[a as usize]), None);
        }
        value = self.reshape(value, shape, name);
        if value != data.value && View::is_memory_order(&walk) {
            // The same memory: statistics of the ONNX tensor are this value's, too.
            let source = self.graph.values.get(data.value).and_then(|v| v.source.clone());
            if let Some(value) = self.graph.values.get_mut(value) {
                value.source = source;
            }
        }
        Ok(value)
    }

    /// Another shape of the same memory.
    pub fn reshape(&mut self, value: ValueId, shape: [usize; 3], name: &str) -> ValueId {
        if self.graph.values.get(value).is_some_and(|v| v.shape == shape) {
            return value;
        }
        self.push(name, FloatOp::Reshape, vec![value], shape, None)
    }

    /// The convolution that writes `value` and may still be changed by a per-channel factor or sum.
    pub fn open_conv(&mut self, data: &Data) -> Option<&mut Conv> {
        if !data.sole || data.unary != Unary::X || data.pad.is_some() {
            return None;
        }
        let node = self.graph.nodes.get_mut(*self.producer.get(&data.value)?)?;
        match (&mut node.op, node.clamp) {
            (FloatOp::Conv(conv), None) => Some(conv),
            _ => None,
        }
    }
}

/// Sizes with ones in front, so that there are three.
fn pad3(sizes: &[usize]) -> Option<[usize; 3]> {
    match *sizes {
        [a] => Some([1, 1, a]),
        [a, b] => Some([1, a, b]),
        [a, b, c] => Some([a, b, c]),
        _ => None,
    }
}
