//! What can be held finer than int8, and what that costs.

use std::collections::{BTreeSet, HashMap};

use crate::float_graph::{FloatGraph, FloatNode, FloatOp, ValueId};
use crate::scales::groups;

/// Cost of one multiply-accumulate with sixteen-bit activations, in those of int8: measured on x86-64 with AVX-512, where
/// the difference is largest.
const WIDE_COST: u64 = 4;
/// The same of one sixteen-bit value written: it is requantized in f64, and what int8 fuses is not fused.
const WIDE_ELEMENT_COST: u64 = 64;
/// Cost of one multiply-accumulate in exact float, whose order of summation is fixed.
const FLOAT_COST: u64 = 12;

/// One step away from int8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fallback {
    /// The values of a group (see [`groups`]) have sixteen bits.
    Wide(usize),
    /// The convolution that writes this value is computed in float.
    Float(ValueId),
}

/// A fallback that a graph has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub fallback: Fallback,
    /// About how many int8 multiply-accumulates' time it takes; never 0.
    pub cost: u64,
}

/// Fallbacks that a bundle is built with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fallbacks {
    /// Groups with sixteen bits.
    pub wide: BTreeSet<usize>,
    /// Outputs of convolutions in float.
    pub float: BTreeSet<ValueId>,
}

impl FromIterator<Fallback> for Fallbacks {
    fn from_iter<I: IntoIterator<Item = Fallback>>(fallbacks: I) -> Self {
        let mut all = Fallbacks::default();
        for fallback in fallbacks {
            match fallback {
                Fallback::Wide(group) => all.wide.insert(group),
                Fallback::Float(value) => all.float.insert(value),
            };
        }
        all
    }
}

/// Every fallback of a graph: first sixteen bits, then float. `is_stated` is true of values whose scale the model states:
/// they keep it.
pub(crate) fn candidates(graph: &FloatGraph, is_stated: impl Fn(ValueId) -> bool) -> [Vec<Candidate>; 2] {
    let groups = groups(graph);
    let group = |value: &ValueId| groups.get(*value).copied().unwrap_or(*value);
    // The network's input has eight bits from the start; its output has more already where it can.
    let mut fixed: BTreeSet<usize> = [group(&graph.input), group(&graph.output)].into();
    fixed.extend((0..graph.values.len()).filter(|value| is_stated(*value)).map(|value| group(&value)));
    let mut costs: HashMap<usize, u64> = HashMap::new();
    let mut float = vec![];
    for node in &graph.nodes {
        let touched: BTreeSet<usize> = node.inputs.iter().chain([&node.output]).map(group).collect();
        for group in touched.difference(&fixed) {
            *costs.entry(*group).or_default() +=
                graph.macs(node) * WIDE_COST + elements(graph, node) * WIDE_ELEMENT_COST;
        }
        if matches!(node.op, FloatOp::Conv(_)) {
            let cost = graph.macs(node) * FLOAT_COST + elements(graph, node) * WIDE_ELEMENT_COST;
            float.push(Candidate { fallback: Fallback::Float(node.output), cost });
        }
    }
    let mut wide: Vec<Candidate> =
        costs.into_iter().map(|(group, cost)| Candidate { fallback: Fallback::Wide(group), cost: cost + 1 }).collect();
    wide.sort_unstable_by_key(|candidate| candidate.fallback);
    [wide, float]
}

/// Elements that a node writes.
fn elements(graph: &FloatGraph, node: &FloatNode) -> u64 {
    graph.values.get(node.output).map_or(0, |value| value.shape.iter().map(|size| *size as u64).product())
}

/// The nodes that a fallback is about: those that compute a group's values (not those that only move them), or the
/// convolution.
pub(crate) fn nodes_of(graph: &FloatGraph, fallback: Fallback) -> Vec<&FloatNode> {
    let groups = groups(graph);
    let is_of = |node: &&FloatNode| match fallback {
        Fallback::Float(value) => node.output == value,
        Fallback::Wide(group) => groups.get(node.output) == Some(&group) && !node.op.keeps_scale(),
    };
    graph.nodes.iter().filter(is_of).collect()
}
