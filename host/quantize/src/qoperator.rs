//! Models of operators that compute on integers (QLinearConv and its like), rewritten as what they mean: dequantize, the
//! operator on real numbers, quantize. [`qdq`](crate::qdq) then reads them as any other model that states its scales.
//!
//! Source: ONNX's QLinearConv and QLinearMatMul, and the operators of domain com.microsoft in ONNX Runtime's
//! docs/ContribOperators.md.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use crate::attributes::{int, integer};
use crate::error::ImportError;
use crate::onnx_file::node_name;
use crate::qdq::{constants, floats, numbers};

/// Operators that move or choose elements and compute nothing: on integers they do what they do on real numbers.
const MOVES: [&str; 9] =
    ["Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// Inputs of an operator on integers. Each number is the index of a tensor that scale and zero point follow.
struct Layout {
    /// On real numbers.
    op: &'static str,
    operands: Vec<usize>,
    /// Of the output's scale.
    output: usize,
    /// int32 values in steps of the product of the operands' scales.
    bias: Option<usize>,
    /// Of the channels of the second operand, where each has its own scale.
    axis: i64,
}

impl Layout {
    fn of(node: &NodeProto) -> Option<Layout> {
        let one = |op| Layout { op, operands: vec![0], output: 3, bias: None, axis: 0 };
        let two = |op, axis| Layout { op, operands: vec![0, 3], output: 6, bias: None, axis };
        Some(match &node.op_type[..] {
            "QLinearConv" => Layout { bias: Some(8), ..two("Conv", 0) },
            "QLinearMatMul" => two("MatMul", -1),
            "QGemm" => {
                Layout { bias: Some(6), output: 7, ..two("Gemm", if int(node, "transB", 0) == 0 { 1 } else { 0 }) }
            }
            "QLinearAdd" => two("Add", 0),
            "QLinearMul" => two("Mul", 0),
            // With the channels in front, as in all that is read here.
            "QLinearGlobalAveragePool" if int(node, "channels_last", 0) == 0 => one("GlobalAveragePool"),
            "QLinearAveragePool" if int(node, "channels_last", 0) == 0 => one("AveragePool"),
            "QLinearSigmoid" => one("Sigmoid"),
            "QLinearLeakyRelu" => one("LeakyRelu"),
            "QLinearSoftmax" => one("Softmax"),
            "QLinearConcat" => {
                let operands = (2..node.input.len()).step_by(3).collect();
                Layout { op: "Concat", operands, output: 0, bias: None, axis: 0 }
            }
            _ => return None,
        })
    }
}

/// Rewrites them all; a model without any stays as it is.
///
/// # Errors
/// [`ImportError::Graph`] where an input is missing, or a bias or its scales are not constants.
pub(crate) fn expand(model: &mut ModelProto) -> Result<(), ImportError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(()) };
    if !graph.node.iter().any(|node| Layout::of(node).is_some()) {
        return Ok(());
    }
    let mut expansion = Expansion::new(graph);
    for node in std::mem::take(&mut graph.node) {
        expansion.node(node)?;
    }
    graph.node = expansion.nodes;
    graph.initializer.extend(expansion.constants_made);
    Ok(())
}

struct Expansion {
    constants: HashMap<String, TensorProto>,
    /// Of the model, and those that were made.
    names: HashSet<String>,
    nodes: Vec<NodeProto>,
    constants_made: Vec<TensorProto>,
    /// Scale and zero point of what nodes give in integers.
    quantized: HashMap<String, [String; 2]>,
    /// Real numbers by the name of their integers.
    real: HashMap<String, String>,
}

impl Expansion {
    fn new(graph: &GraphProto) -> Expansion {
        let constants = constants(graph);
        let tensors = graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
        let names = tensors.chain(constants.keys()).cloned().collect();
        let (quantized, real) = (HashMap::new(), HashMap::new());
        Expansion { constants, names, nodes: vec![], constants_made: vec![], quantized, real }
    }

    fn node(&mut self, node: NodeProto) -> Result<(), ImportError> {
        let first = node.input.first().cloned().unwrap_or_default();
        if node.op_type == "QuantizeLinear" {
            let [scale, zero_point] = [1, 2].map(|i| node.input.get(i).cloned().unwrap_or_default());
            for output in &node.output {
                self.quantized.insert(output.clone(), [scale.clone(), zero_point.clone()]);
            }
            self.nodes.push(node);
        } else if let Some(layout) = Layout::of(&node) {
            self.computes(&node, layout)?;
        } else if MOVES.contains(&&node.op_type[..])
            && let Some([scale, zero_point]) = self.quantized.get(&first).cloned()
        {
            let mut moved = node;
            if let Some(input) = moved.input.first_mut() {
                *input = self.real_of(&first, &scale, &zero_point, None, &moved.name);
            }
            self.quantize(moved, &scale, &zero_point);
        } else {
            self.nodes.push(node);
        }
        Ok(())
    }

    /// An operator on integers.
    fn computes(&mut self, node: &NodeProto, layout: Layout) -> Result<(), ImportError> {
        let Layout { op, operands, output, bias, axis } = layout;
        let input = |i: usize| node.input.get(i).filter(|name| !name.is_empty()).cloned();
        let missing =
            |i: usize| ImportError::Graph { node: node_name(node), reason: format!("its input {i} is missing") };
        let mut inputs = vec![];
        let mut scales = vec![];
        for (nth, i) in operands.into_iter().enumerate() {
            let [tensor, scale] = [i, i + 1].map(|i| input(i).ok_or_else(|| missing(i)));
            let (tensor, scale) = (tensor?, scale?);
            let axis = if nth == 0 { None } else { Some(axis) };
            inputs.push(self.real_of(&tensor, &scale, &input(i + 2).unwrap_or_default(), axis, &node.name));
            scales.push(scale);
        }
        if let Some(bias) = bias.and_then(input) {
            inputs.push(self.real_bias(node, &bias, &scales)?);
        }
        let attribute = node.attribute.iter().filter(|a| a.name != "channels_last").cloned().collect();
        let real = NodeProto { op_type: op.into(), domain: String::new(), input: inputs, attribute, ..node.clone() };
        match input(output) {
            Some(scale) => self.quantize(real, &scale, &input(output + 1).unwrap_or_default()),
            // QGemm may give real numbers.
            None if node.op_type == "QGemm" => self.nodes.push(real),
            None => return Err(missing(output)),
        }
        Ok(())
    }

    /// Name of the real numbers of an integer tensor. `axis` has the channels of a constant.
    fn real_of(&mut self, tensor: &str, scale: &str, zero_point: &str, axis: Option<i64>, reader: &str) -> String {
        // A constant may have another meaning for each of its readers.
        let key = if self.constants.contains_key(tensor) { format!("{tensor} of {reader}") } else { tensor.to_owned() };
        if let Some(real) = self.real.get(&key) {
            return real.clone();
        }
        let wanted = tensor.strip_suffix("_quantized").map_or_else(|| format!("{tensor}_real"), str::to_owned);
        let real = self.new_name(wanted);
        self.real.insert(key, real.clone());
        let input =
            [tensor, scale, zero_point].map(str::to_owned).into_iter().filter(|name| !name.is_empty()).collect();
        let attribute = axis.map(|axis| integer("axis", axis));
        self.nodes.push(NodeProto {
            name: real.clone(),
            op_type: "DequantizeLinear".into(),
            input,
            output: vec![real.clone()],
            attribute: attribute.into_iter().collect(),
            ..NodeProto::default()
        });
        real
    }

    /// Name of the real numbers of an int32 bias.
    fn real_bias(&mut self, node: &NodeProto, bias: &str, scales: &[String]) -> Result<String, ImportError> {
        let constant = |name: &str| {
            let reason = || format!("its {name} is not a constant");
            self.constants
                .get(name)
                .map(|tensor| (numbers(tensor), tensor.dims.clone()))
                .ok_or_else(|| ImportError::Graph { node: node_name(node), reason: reason() })
        };
        let (mut values, dims) = constant(bias)?;
        for scale in scales {
            let (scale, _) = constant(scale)?;
            for (value, at) in values.iter_mut().zip((0..scale.len().max(1)).cycle()) {
                *value *= scale.get(at).copied().unwrap_or(1.0);
            }
        }
        let real = self.new_name(format!("{bias}_real"));
        self.constants_made.push(floats(&real, &dims, &values));
        Ok(real)
    }

    /// The node, whose outputs are integers, on real numbers, and their quantization.
    fn quantize(&mut self, mut node: NodeProto, scale: &str, zero_point: &str) {
        let outputs = std::mem::take(&mut node.output);
        node.output = outputs
            .iter()
            .map(|output| self.new_name(format!("{}_exact", output.strip_suffix("_quantized").unwrap_or(output))))
            .collect();
        let pairs: Vec<(String, String)> = node.output.iter().cloned().zip(outputs).collect();
        self.nodes.push(node);
        for (exact, output) in pairs {
            self.quantized.insert(output.clone(), [scale.to_owned(), zero_point.to_owned()]);
            let input = [&exact[..], scale, zero_point].map(str::to_owned);
            self.nodes.push(NodeProto {
                name: format!("{exact}_quantized"),
                op_type: "QuantizeLinear".into(),
                input: input.into_iter().filter(|name| !name.is_empty()).collect(),
                output: vec![output],
                ..NodeProto::default()
            });
        }
    }

    /// One that no tensor has.
    fn new_name(&mut self, wanted: String) -> String {
        let mut name = wanted;
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}
