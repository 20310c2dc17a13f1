//! Scales and zero points of all activations.
//!
//! Values that ops only move (pools, joins, reorderings) share one scale with where they come from. A few ops bound the
//! scale of their result from below, because their multiplier must stay under 2^23.

use std::collections::HashMap;

use graft_bundle::graph::DataType;

use crate::calibrate::Calibration;
use crate::float_graph::{FloatGraph, FloatNode, FloatOp, ValueId};
use crate::input_spec::QuantizedInput;
use crate::qdq::Fixed;
use crate::unary::Unary;

/// How a value is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quant {
    /// Real value per step.
    pub scale: f64,
    /// Integer of real zero.
    pub zero_point: i32,
    /// I8, or I16 for the backbone's output.
    pub data_type: DataType,
}

impl Quant {
    /// Smallest and largest integer.
    pub fn limits(&self) -> [i32; 2] {
        match self.data_type {
            DataType::I8 => [-128, 127],
            _ => [-32_768, 32_767],
        }
    }

    /// The integer of a real value.
    pub fn quantize(&self, real: f64) -> i32 {
        let [low, high] = self.limits();
        let q = (real / self.scale).round_ties_even() + f64::from(self.zero_point);
        // NaN (a function outside its domain) becomes the smallest.
        q.clamp(f64::from(low), f64::from(high)) as i32
    }
}

/// How ranges are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeMethod {
    /// What was seen.
    MinMax,
    /// The range with the least mean squared error.
    LeastError,
    /// One value in 10,000 may lie outside on each side.
    Percentile,
}

/// Joins inputs that others read, too, through a requantization of their own: else one wide branch would take its
/// neighbours' readers down with it.
pub(crate) fn separate_joined(graph: &mut FloatGraph) {
    let n_readers = graph.n_readers();
    let mut nodes = vec![];
    for mut node in std::mem::take(&mut graph.nodes) {
        if matches!(node.op, FloatOp::Concat { .. }) {
            for input in &mut node.inputs {
                if n_readers.get(*input).is_some_and(|n| *n > 1) || *input == graph.input {
                    let Some(value) = graph.values.get(*input).cloned() else { continue };
                    let output = graph.values.len();
                    graph.values.push(value);
                    let (op, name) = (FloatOp::Unary(Unary::X), node.name.clone());
                    nodes.push(FloatNode { name, op, inputs: vec![*input], output, clamp: None });
                    *input = output;
                }
            }
        }
        nodes.push(node);
    }
    graph.nodes = nodes;
}

/// Chooses every value's scale.
pub(crate) fn choose(
    graph: &FloatGraph,
    calibration: &Calibration,
    input: &QuantizedInput,
    fixed: &HashMap<String, Fixed>,
    method: RangeMethod,
) -> Vec<Quant> {
    let groups = groups(graph);
    let input_quant = Quant { scale: input.scale, zero_point: input.zero_point, data_type: DataType::I8 };
    let mut ranges: HashMap<usize, [f64; 2]> = HashMap::new();
    let mut stated: HashMap<usize, Fixed> = HashMap::new();
    let produced = graph.nodes.iter().map(|n| (n.output, Some(n))).chain([(graph.input, None)]);
    for (value, node) in produced {
        let group = groups[value];
        if let Some(source) = graph.values.get(value).and_then(|v| v.source.as_ref())
            && let Some(given) = fixed.get(&source.tensor)
        {
            // Of a join, the last one stated is the join's own.
            stated.insert(group, *given);
        }
        // A value that is only moved has its source's range.
        if node.is_some_and(|n| n.op.keeps_scale()) {
            continue;
        }
        let own = calibration.statistics.get(&value).map(|s| match method {
            RangeMethod::MinMax => [s.low, s.high],
            RangeMethod::LeastError => s.best_range(),
            RangeMethod::Percentile => s.percentile_range(0.9999),
        });
        let inherited = || {
            let input = node.and_then(|n| n.inputs.first())?;
            ranges.get(&groups[*input]).copied()
        };
        let own = graph.values.get(value).and_then(|v| v.range).or(own);
        let range = own.or_else(inherited).unwrap_or([0.0, 0.0]);
        let entry = ranges.entry(group).or_insert(range);
        *entry = [entry[0].min(range[0]), entry[1].max(range[1])];
    }
    let of_group = |group: usize| -> Quant {
        if group == groups[graph.input] {
            return input_quant;
        }
        if let Some(given) = stated.get(&group) {
            return Quant { scale: given.scale, zero_point: given.zero_point, data_type: DataType::I8 };
        }
        let [low, high] = ranges.get(&group).copied().unwrap_or([0.0, 0.0]);
        let scale = (high - low) / 255.0;
        let scale = if scale.is_finite() && scale > 1e-30 { scale } else { 1e-6 };
        let zero_point = (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i32;
        Quant { scale, zero_point, data_type: DataType::I8 }
    };
    let mut quants: Vec<Quant> = groups.iter().map(|g| of_group(*g)).collect();
    widen_output(graph, calibration, &groups, &mut quants);
    respect_bounds(graph, &groups, &mut quants);
    quants
}

/// The backbone's own output gets 16 bits where an op that can write them writes it: it is normalised next, so that the
/// width costs nothing. (Sixteen bits for the tensor before a last global sum gained nothing: 0.99769 either way on
/// MobileNetV2 with flowers.)
fn widen_output(graph: &FloatGraph, calibration: &Calibration, groups: &[usize], quants: &mut [Quant]) {
    let writer = graph.nodes.iter().find(|n| n.output == graph.output);
    let alone = groups.iter().filter(|g| **g == groups[graph.output]).count() == 1;
    let n_readers = graph.n_readers().get(graph.output).copied();
    if !alone || n_readers != Some(1) || !writer.is_some_and(|n| n.op.takes_clamp()) {
        return;
    }
    let Some(seen) = calibration.statistics.get(&graph.output) else { return };
    // A quarter beyond what was seen: sixteen bits have room.
    let magnitude = seen.high.max(-seen.low) * 1.25;
    if magnitude > 0.0 && magnitude.is_finite() {
        quants[graph.output] = Quant { scale: magnitude / 32_767.0, zero_point: 0, data_type: DataType::I16 };
    }
}

/// Largest real factor of a multiplier: M / 2^22 with M under 2^23, with some room.
const FACTOR_MAX: f64 = 1.999;

/// Coarsens scales until every multiplier fits.
fn respect_bounds(graph: &FloatGraph, groups: &[usize], quants: &mut [Quant]) {
    for _ in 0..graph.nodes.len().min(64) {
        let mut changed = false;
        for node in &graph.nodes {
            let scale = |i: usize| node.inputs.get(i).and_then(|v| quants.get(*v)).map_or(0.0, |q| q.scale);
            let least = match &node.op {
                FloatOp::Mul => scale(0) * scale(1) / FACTOR_MAX,
                FloatOp::AveragePool { .. } => scale(0) / FACTOR_MAX,
                // Multipliers of an addition: at most 2^21 at the smallest shift of 1.
                FloatOp::Add { .. } => scale(0).max(scale(1)) / f64::from(1 << 19),
                FloatOp::Conv(conv) => {
                    scale(0) * f64::from(conv.weights.iter().fold(0f32, |m, w| m.max(w.abs()))) / 127.0 / FACTOR_MAX
                }
                _ => 0.0,
            };
            let group = groups[node.output];
            if least > quants[node.output].scale {
                let stretch = least * 1.000_001 / quants[node.output].scale;
                for (value, _) in groups.iter().enumerate().filter(|(_, g)| **g == group) {
                    let quant = &mut quants[value];
                    // The range grows around real zero.
                    let [low, high] = quant.limits();
                    let reach = f64::from(quant.zero_point - low);
                    quant.scale *= stretch;
                    quant.zero_point =
                        if quant.zero_point == 0 { 0 } else { (low + (reach / stretch) as i32).clamp(low, high) };
                }
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Group of each value: values that share a scale have one.
fn groups(graph: &FloatGraph) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..graph.values.len()).collect();
    fn root(parent: &mut [usize], mut v: ValueId) -> usize {
        while parent[v] != v {
            parent[v] = parent[parent[v]];
            v = parent[v];
        }
        v
    }
    for node in graph.nodes.iter().filter(|n| n.op.keeps_scale() && n.clamp.is_none()) {
        for input in &node.inputs {
            let (a, b) = (root(&mut parent, *input), root(&mut parent, node.output));
            // The input's group stays itself, so that its quantization is found under its own root.
            let (keep, join) = if a == graph.input || b != graph.input { (a, b) } else { (b, a) };
            parent[join] = keep;
        }
    }
    (0..graph.values.len()).map(|v| root(&mut parent, v)).collect()
}
