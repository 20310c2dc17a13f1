//! Already quantized models: QuantizeLinear and DequantizeLinear taken out, what they state kept.
//!
//! After this pass the model is an ordinary float one: weights are dequantized, a quantize-dequantize pair on an
//! activation is a Clip to what its integers span (quantizers drop a Relu whose work the pair does). Scale and zero point
//! are kept by tensor name and used in place of calibrated ranges, so that the integers mean what the model's author
//! measured.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use crate::attributes::{int, integer};
use crate::error::ImportError;
use crate::onnx_file::node_name;

/// Scale and zero point that a model states for an activation, as int8 (uint8 minus 128).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fixed {
    /// Real value per step.
    pub scale: f64,
    /// Integer of real zero.
    pub zero_point: i32,
}

/// Attribute that marks a Clip made from a pair: once scales are those stated, the integers clip by themselves.
pub(crate) const STATED: &str = "graft_stated";

/// Takes quantization nodes out of a model. Empty if there were none.
///
/// # Errors
/// [`ImportError::Graph`] where a scale or zero point is not constant, not positive, or of another type than 8 bits.
pub(crate) fn strip(model: &mut ModelProto) -> Result<HashMap<String, Fixed>, ImportError> {
    let mut fixed = HashMap::new();
    let Some(graph) = model.graph.as_mut() else { return Ok(fixed) };
    if !graph.node.iter().any(|n| n.op_type == "DequantizeLinear") {
        return Ok(fixed);
    }
    let constants = constants(graph);
    let mut replaced: HashMap<String, String> = HashMap::new();
    let mut quantized: HashMap<String, (String, Fixed)> = HashMap::new();
    let mut dequantized: HashMap<String, String> = HashMap::new();
    let mut weights: Vec<TensorProto> = vec![];
    let mut kept = vec![];
    for mut node in std::mem::take(&mut graph.node) {
        for input in &mut node.input {
            if let Some(other) = replaced.get(input) {
                input.clone_from(other);
            }
        }
        let output = node.output.first().cloned().unwrap_or_default();
        let input = node.input.first().cloned().unwrap_or_default();
        match &node.op_type[..] {
            "QuantizeLinear" => {
                let parameters = Parameters::of(&node, &constants)?;
                if let Some(tensor) = constants.get(&input) {
                    // A constant quantized inside the graph: its dequantized value is what counts.
                    let values = numbers(tensor);
                    let rounded: Vec<f64> = parameters.round(&values, &tensor.dims);
                    weights.push(floats(&format!("{output}{ROUNDED}"), &tensor.dims, &rounded));
                    quantized.insert(output.clone(), (format!("{output}{ROUNDED}"), parameters.fixed(&node)?));
                } else {
                    quantized.insert(output, (input, parameters.activation(&node)?));
                }
            }
            "DequantizeLinear" => {
                if let Some((source, stated)) = quantized.get(&input) {
                    if constants.contains_key(source) || source.ends_with(ROUNDED) {
                        replaced.insert(output, source.clone());
                    } else if let Some(first) = dequantized.get(&input) {
                        // One pair may be dequantized once per reader.
                        replaced.insert(output, first.clone());
                    } else {
                        dequantized.insert(input.clone(), output.clone());
                        fixed.insert(output.clone(), *stated);
                        kept.push(clip(&node, source, &output, stated, &mut weights));
                    }
                } else if let Some(tensor) = constants.get(&input) {
                    let parameters = Parameters::of(&node, &constants)?;
                    let values = parameters.dequantize(&numbers(tensor), &tensor.dims);
                    weights.push(floats(&output, &tensor.dims, &values));
                } else {
                    kept.push(node);
                }
            }
            _ => kept.push(node),
        }
    }
    graph.node = kept;
    graph.initializer.extend(weights);
    // A second dequantization may have been a graph output.
    for output in &mut graph.output {
        if let Some(other) = replaced.get(&output.name) {
            output.name.clone_from(other);
        }
    }
    Ok(fixed)
}

/// Ends the name of a constant that was quantized inside the graph.
const ROUNDED: &str = "_graft_rounded";

/// The Clip that stands for a pair.
fn clip(node: &NodeProto, source: &str, output: &str, stated: &Fixed, constants: &mut Vec<TensorProto>) -> NodeProto {
    let bound = |q: i32| stated.scale * f64::from(q - stated.zero_point);
    let [low, high] = ["low", "high"].map(|end| format!("{output}_graft_{end}"));
    constants.push(floats(&low, &[], &[bound(-128)]));
    constants.push(floats(&high, &[], &[bound(127)]));
    NodeProto {
        name: node_name(node),
        op_type: "Clip".into(),
        input: vec![source.into(), low, high],
        output: vec![output.into()],
        attribute: vec![integer(STATED, 1)],
        ..Default::default()
    }
}

/// Initializers and Constant nodes by name.
pub(crate) fn constants(graph: &GraphProto) -> HashMap<String, TensorProto> {
    let mut constants: HashMap<String, TensorProto> =
        graph.initializer.iter().map(|t| (t.name.clone(), t.clone())).collect();
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        let value = node.attribute.iter().find_map(|a| a.t.clone());
        if let (Some(output), Some(value)) = (node.output.first(), value) {
            constants.insert(output.clone(), value);
        }
    }
    constants
}

/// Scales and zero points of one node, per tensor or per slice of `axis`.
struct Parameters {
    scales: Vec<f64>,
    zero_points: Vec<f64>,
    unsigned: bool,
    axis: i64,
}

impl Parameters {
    fn of(node: &NodeProto, constants: &HashMap<String, TensorProto>) -> Result<Parameters, ImportError> {
        let broken = |reason: String| ImportError::Graph { node: node_name(node), reason };
        let constant = |index: usize| node.input.get(index).filter(|i| !i.is_empty()).map(|i| constants.get(i));
        let scales = match constant(1) {
            Some(Some(tensor)) => numbers(tensor),
            _ => return Err(broken("its scale is not a constant".into())),
        };
        let (zero_points, data_type) = match constant(2) {
            None => (vec![], int(node, "output_dtype", 2) as i32),
            Some(Some(tensor)) => (numbers(tensor), tensor.data_type),
            Some(None) => return Err(broken("its zero point is not a constant".into())),
        };
        if scales.is_empty() || scales.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(broken(format!("its scale is {scales:?}; allowed is a positive number")));
        }
        Ok(Parameters { scales, zero_points, unsigned: data_type == 2, axis: int(node, "axis", 1) })
    }

    /// As the parameters of an activation.
    fn activation(&self, node: &NodeProto) -> Result<Fixed, ImportError> {
        if self.scales.len() != 1 {
            let reason = format!("an activation has {} scales; 1 is supported", self.scales.len());
            return Err(ImportError::Graph { node: node_name(node), reason });
        }
        self.fixed(node)
    }

    fn fixed(&self, node: &NodeProto) -> Result<Fixed, ImportError> {
        let zero_point = self.zero_points.first().copied().unwrap_or(0.0) - if self.unsigned { 128.0 } else { 0.0 };
        if !(-128.0..=127.0).contains(&zero_point) {
            let reason = format!("its zero point is {zero_point} as int8; activations of 8 bits are supported");
            return Err(ImportError::Graph { node: node_name(node), reason });
        }
        Ok(Fixed { scale: self.scales.first().copied().unwrap_or(1.0), zero_point: zero_point as i32 })
    }

    /// Index of the parameters of element `i`.
    fn index(&self, i: usize, dims: &[i64]) -> usize {
        if self.scales.len() == 1 {
            return 0;
        }
        let rank = dims.len() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis }.clamp(0, rank) as usize;
        let inner: usize = dims.iter().skip(axis + 1).map(|d| *d as usize).product();
        (i / inner.max(1)) % self.scales.len()
    }

    fn dequantize(&self, values: &[f64], dims: &[i64]) -> Vec<f64> {
        let one = |(i, v): (usize, &f64)| {
            let at = self.index(i, dims);
            let zero = self.zero_points.get(at).or(self.zero_points.first()).copied().unwrap_or(0.0);
            (v - zero) * self.scales.get(at).copied().unwrap_or(1.0)
        };
        values.iter().enumerate().map(one).collect()
    }

    /// Quantized and dequantized again.
    fn round(&self, values: &[f64], dims: &[i64]) -> Vec<f64> {
        let (low, high) = if self.unsigned { (0.0, 255.0) } else { (-128.0, 127.0) };
        let one = |(i, v): (usize, &f64)| {
            let at = self.index(i, dims);
            let zero = self.zero_points.get(at).or(self.zero_points.first()).copied().unwrap_or(0.0);
            let scale = self.scales.get(at).copied().unwrap_or(1.0);
            (((v / scale).round_ties_even() + zero).clamp(low, high) - zero) * scale
        };
        values.iter().enumerate().map(one).collect()
    }
}

/// Elements of a tensor whose length was checked.
pub(crate) fn numbers(tensor: &TensorProto) -> Vec<f64> {
    let raw = &tensor.raw_data;
    if raw.is_empty() {
        return match tensor.data_type {
            1 => tensor.float_data.iter().map(|v| f64::from(*v)).collect(),
            11 => tensor.double_data.clone(),
            7 => tensor.int64_data.iter().map(|v| *v as f64).collect(),
            _ => tensor.int32_data.iter().map(|v| f64::from(*v)).collect(),
        };
    }
    let chunks = |n: usize| raw.chunks_exact(n);
    match tensor.data_type {
        1 => chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap_or_default()))).collect(),
        2 => raw.iter().map(|b| f64::from(*b)).collect(),
        3 => raw.iter().map(|b| f64::from(*b as i8)).collect(),
        4 => chunks(2).map(|b| f64::from(u16::from_le_bytes(b.try_into().unwrap_or_default()))).collect(),
        5 => chunks(2).map(|b| f64::from(i16::from_le_bytes(b.try_into().unwrap_or_default()))).collect(),
        6 => chunks(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap_or_default()))).collect(),
        7 => chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()) as f64).collect(),
        11 => chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect(),
        _ => vec![],
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f64]) -> TensorProto {
    let raw_data = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, raw_data, ..Default::default() }
}
