//! Where a network may be cut: tensors that everything after them is computed from, and which of them is the embedding.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use tract_onnx::pb::{GraphProto, NodeProto};

use crate::attributes::int;
use crate::known::Known;
use crate::lower::{Lowered, NodeClass};
use crate::model::ancestors;
use crate::qdq::STATED;
use crate::unary::Unary;

/// At most so many candidates, the last ones; earlier cuts make poor embeddings.
const CUTS_MAX: usize = 12;

/// A place to cut.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Cut {
    /// ONNX tensor.
    pub tensor: String,
    /// Its ONNX shape.
    pub shape: Vec<usize>,
    /// Length D of the embedding.
    pub embedding_len: usize,
    /// A mean over height and width is added.
    pub pooled: bool,
    /// Multiply-accumulates up to here.
    pub macs: u64,
    /// Nothing before it is refused.
    pub possible: bool,
    /// It is possible with [`ImportOptions::allow_inexact`](crate::ImportOptions::allow_inexact), and not without.
    pub needs_inexact: bool,
}

/// Candidates in network order, the suggested one among all tensors, and the one that would be if inexact operators were
/// allowed, where that is another.
pub(crate) fn find(
    graph: &GraphProto,
    known: &HashMap<String, Known>,
    lowered: &Lowered,
) -> (Vec<Cut>, Option<String>, Option<String>) {
    let refused: HashSet<&str> = lowered.refused.iter().map(|r| &r.node[..]).collect();
    let possible = |tensor: &str| {
        lowered.items.contains_key(tensor)
            && ancestors(graph, &[tensor.to_string()]).nodes.iter().all(|n| !refused.contains(&n[..]))
    };
    let in_tract: HashSet<&str> =
        (lowered.nodes.iter().filter(|n| n.class == NodeClass::TractFloat)).map(|n| &n.node[..]).collect();
    let needs_inexact = |tensor: &str| {
        let before = ancestors(graph, &[tensor.to_string()]).nodes;
        let refused_for_good = before.iter().any(|n| refused.contains(&n[..]) && !in_tract.contains(&n[..]));
        !refused_for_good && before.iter().any(|n| in_tract.contains(&n[..]))
    };
    let narrow = bottlenecks(graph, lowered);
    let embedding = embedding(graph, known, lowered);
    let wanted = embedding.clone().filter(|t| possible(t));
    // The last name of each value that is complete there: after its norm and activation, flattened.
    let mut last_name: Vec<&str> = vec![];
    let mut values: Vec<usize> = vec![];
    for tensor in &narrow {
        let Some(data) = lowered.items.get(*tensor) else { continue };
        let own = lowered.graph.values.get(data.value).and_then(|v| v.source.as_ref());
        let complete = data.unary == Unary::X && own.is_some() && data.value != lowered.graph.input;
        if !complete {
            continue;
        }
        match values.iter().position(|v| *v == data.value) {
            Some(at) if wanted.as_deref() != Some(last_name[at]) => last_name[at] = tensor,
            Some(_) => {}
            None => {
                values.push(data.value);
                last_name.push(tensor);
            }
        }
    }
    let skip = last_name.len().saturating_sub(CUTS_MAX);
    let mut tensors: Vec<&str> = last_name.into_iter().skip(skip).collect();
    if let Some(wanted) = &wanted
        && !tensors.contains(&&wanted[..])
    {
        tensors.push(wanted);
    }
    let cuts: Vec<Cut> =
        tensors.into_iter().filter_map(|t| cut_at(t, known, lowered, possible(t), needs_inexact(t))).collect();
    let suggested = wanted.or_else(|| cuts.iter().rev().find(|c| c.possible).map(|c| c.tensor.clone()));
    // Without something that looks like the embedding, the last place.
    let last = || cuts.last().filter(|c| c.needs_inexact && !c.possible).map(|c| c.tensor.clone());
    let beyond = match embedding {
        Some(embedding) => Some(embedding).filter(|t| !possible(t) && needs_inexact(t)),
        None => last(),
    };
    (cuts, suggested, beyond)
}

fn cut_at(
    tensor: &str,
    known: &HashMap<String, Known>,
    lowered: &Lowered,
    possible: bool,
    needs_inexact: bool,
) -> Option<Cut> {
    let shape = known.get(tensor)?.shape.clone();
    let data = lowered.items.get(tensor)?;
    let value = lowered.graph.values.get(data.value)?;
    let channels_last = shape.len() > 2
        && data
            .view
            .walk(&(0..shape.len()).collect::<Vec<_>>())
            .is_some_and(|w| crate::view::View::is_memory_order(&w));
    let n: usize = shape.iter().product();
    let (embedding_len, pooled) = match shape[..] {
        [_, c, h, w] if h * w > 1 => {
            if channels_last {
                (w, true)
            } else {
                (c, true)
            }
        }
        [_, a, b] if a > 1 && b > 1 => {
            if channels_last {
                (b, true)
            } else {
                (a, true)
            }
        }
        _ => (n, false),
    };
    let mut needed = vec![false; lowered.graph.values.len()];
    if let Some(needed) = needed.get_mut(data.value) {
        *needed = true;
    }
    let mut macs = if pooled { value.shape.iter().product::<usize>() as u64 } else { 0 };
    for node in lowered.graph.nodes.iter().rev() {
        if needed[node.output] {
            macs += lowered.graph.macs(node);
            node.inputs.iter().for_each(|i| needed[*i] = true);
        }
    }
    Some(Cut { tensor: tensor.into(), shape, embedding_len, pooled, macs, possible, needs_inexact })
}

/// Tensors that alone carry everything the outputs need, in network order.
fn bottlenecks<'g>(graph: &'g GraphProto, lowered: &Lowered) -> Vec<&'g str> {
    let outputs: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let leads_out = ancestors(graph, &outputs);
    let data = |name: &String| lowered.items.contains_key(name) && leads_out.tensors.contains(name);
    let mut waiting: HashMap<&str, usize> = HashMap::new();
    for name in graph.node.iter().flat_map(|n| &n.input).chain(&outputs).filter(|n| data(n)) {
        *waiting.entry(name).or_default() += 1;
    }
    let mut live: HashSet<&str> = graph.input.iter().map(|i| &i.name[..]).filter(|n| waiting.contains_key(n)).collect();
    let mut found = vec![];
    for node in &graph.node {
        if !node.output.iter().any(&data) {
            continue;
        }
        for input in node.input.iter().filter(|i| data(i)) {
            if let Some(n) = waiting.get_mut(&input[..]) {
                *n -= 1;
                if *n == 0 {
                    live.remove(&input[..]);
                }
            }
        }
        live.extend(node.output.iter().filter(|o| data(o)).map(|o| &o[..]));
        if let (1, Some(only)) = (live.len(), live.iter().next()) {
            found.push(*only);
        }
    }
    found
}

/// What goes into the classifier, or the output of a network without one.
fn embedding(graph: &GraphProto, known: &HashMap<String, Known>, lowered: &Lowered) -> Option<String> {
    let producer: HashMap<&str, &NodeProto> =
        graph.node.iter().flat_map(|n| n.output.iter().map(move |o| (&o[..], n))).collect();
    let data_inputs = |node: &NodeProto| -> Vec<String> {
        node.input.iter().filter(|i| lowered.items.contains_key(*i)).cloned().collect()
    };
    let output = graph.output.first()?.name.clone();
    let mut tensor = output.clone();
    let (mut probabilities, mut pooled_after) = (false, false);
    loop {
        let node = producer.get(&tensor[..])?;
        let inputs = data_inputs(node);
        let [input] = &inputs[..] else { return None };
        match &node.op_type[..] {
            "Gemm" | "MatMul" => return Some(without_dropout(input, &producer)),
            "Conv" => {
                let point = known.get(&tensor).is_some_and(|k| k.shape.iter().skip(2).product::<usize>() == 1);
                let classifier = probabilities || (point && !pooled_after);
                return Some(if classifier { without_dropout(input, &producer) } else { output });
            }
            "Softmax" | "LogSoftmax" => probabilities = true,
            "GlobalAveragePool" | "AveragePool" | "ReduceMean" => pooled_after = true,
            "Sigmoid" | "Flatten" | "Reshape" | "Squeeze" | "Identity" | "Dropout" | "Cast" | "Relu" | "Clip"
            | "Add" | "Mul" | "Transpose" | "BatchNormalization" => {}
            _ => return None,
        }
        tensor = input.clone();
    }
}

fn without_dropout(tensor: &str, producer: &HashMap<&str, &NodeProto>) -> String {
    let mut tensor = tensor;
    while let Some(node) = producer.get(tensor)
        && (matches!(&node.op_type[..], "Dropout" | "Identity") || int(node, STATED, 0) != 0)
        && let Some(input) = node.input.first()
    {
        tensor = input;
    }
    tensor.into()
}
