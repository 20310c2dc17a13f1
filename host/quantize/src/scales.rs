//! Scales and zero points of all activations.
//!
//! Values that ops only move (pools, joins, reorderings) share one scale with where they come from. A few ops bound the
//! scale of their result from below, because their multiplier must stay under 2^23.

use std::collections::{BTreeSet, HashMap};

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
    /// I8, or I16 for the backbone's output and where a fallback says so.
    pub data_type: DataType,
    /// Smallest and largest integer; of I16 often fewer than the type has.
    pub limits: [i32; 2],
}

impl Quant {
    /// All of I8.
    pub fn i8(scale: f64, zero_point: i32) -> Quant {
        Quant { scale, zero_point, data_type: DataType::I8, limits: [-128, 127] }
    }

    /// I16 of `magnitude` or less, as `limit` steps or less.
    pub fn i16(magnitude: f64, limit: i32) -> Quant {
        let scale = magnitude / f64::from(limit);
        Quant { scale, zero_point: 0, data_type: DataType::I16, limits: [-limit, limit] }
    }

    /// The integer of a real value.
    pub fn quantize(&self, real: f64) -> i32 {
        let [low, high] = self.limits;
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

/// Chooses every value's scale; of those in `wide`, groups by their number in [`groups`], with sixteen bits.
pub(crate) fn choose(
    graph: &FloatGraph,
    calibration: &Calibration,
    input: &QuantizedInput,
    fixed: &HashMap<String, Fixed>,
    method: RangeMethod,
    wide: &BTreeSet<usize>,
) -> Vec<Quant> {
    let groups = groups(graph);
    let input_quant = Quant::i8(input.scale, input.zero_point);
    // All weights are looked at: not where nobody asks.
    let limits = if wide.is_empty() { HashMap::new() } else { wide_limits(graph, &groups) };
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
            return Quant::i8(given.scale, given.zero_point);
        }
        if wide.contains(&group)
            && let Some(seen) = magnitude(calibration, &groups, group)
        {
            return Quant::i16(seen, limits.get(&group).copied().unwrap_or(WIDE_LIMIT));
        }
        let [low, high] = ranges.get(&group).copied().unwrap_or([0.0, 0.0]);
        let scale = (high - low) / 255.0;
        let scale = if scale.is_finite() && scale > 1e-30 { scale } else { 1e-6 };
        let zero_point = (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i32;
        Quant::i8(scale, zero_point)
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
    if let Some(seen) = magnitude(calibration, groups, groups[graph.output]) {
        quants[graph.output] = Quant::i16(seen, WIDE_LIMIT);
    }
}

/// Largest step of sixteen bits around zero.
const WIDE_LIMIT: i32 = 32_767;
/// The same where a table reads them, which has twice as many entries: finer by five bits than eight, and in the cache.
const TABLE_LIMIT: i32 = 4_095;

/// What sixteen bits of a group reach to: a quarter beyond what was seen, since they have room. `None` if nothing was.
fn magnitude(calibration: &Calibration, groups: &[usize], group: usize) -> Option<f64> {
    let members = groups.iter().enumerate().filter(|(_, g)| **g == group);
    let seen = members.filter_map(|(value, _)| calibration.statistics.get(&value));
    let largest = seen.map(|s| s.high.max(-s.low)).fold(0f64, f64::max) * 1.25;
    (largest > 0.0 && largest.is_finite()).then_some(largest)
}

/// By group, the most steps to either side that those who read it sum up within i32, or have entries for.
fn wide_limits(graph: &FloatGraph, groups: &[usize]) -> HashMap<usize, i32> {
    let mut limits = HashMap::new();
    // Half of i32 for a sum, the other for a bias.
    let of_sum = |reach: f64| (f64::from(1 << 30) / reach.max(1.0)) as i32;
    for node in &graph.nodes {
        let limit = match &node.op {
            FloatOp::Conv(conv) => of_sum(conv.weights_reach()),
            FloatOp::AveragePool { window, .. } => of_sum(f64::from(window.kernel[0]) * f64::from(window.kernel[1])),
            // Its weight is small: such means are hardly narrower than what they are of.
            FloatOp::GlobalMean => of_sum(node.inputs.first().map_or(0, |v| graph.n_pixels(*v)) as f64 * 4.0),
            FloatOp::MatMul => {
                let inner = node.inputs.first().and_then(|a| graph.values.get(*a)).map_or(1, |a| a.shape[2]);
                // Both factors may be as wide.
                f64::from(1 << 30).div_euclid(inner as f64).sqrt() as i32
            }
            FloatOp::Unary(_) => TABLE_LIMIT,
            _ => WIDE_LIMIT,
        };
        for input in &node.inputs {
            let entry = limits.entry(groups[*input]).or_insert(WIDE_LIMIT);
            *entry = limit.clamp(1, *entry);
        }
    }
    limits
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
                FloatOp::Mul | FloatOp::MatMul => scale(0) * scale(1) / FACTOR_MAX,
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
                    let [low, high] = quant.limits;
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
pub(crate) fn groups(graph: &FloatGraph) -> Vec<usize> {
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
