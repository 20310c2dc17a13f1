//! What tract knows about every tensor of a graph: its shape, and its value where it does not depend on the input.
//!
//! Exporters compute shapes inside the graph (Shape, Gather, Concat, Reshape) and weights too (Transpose, Mul of a
//! norm). tract evaluates all of it while it infers shapes; here its answers are collected by tensor name. A node that
//! tract cannot take is found by bisection and set aside with everything after it, so that `inspect` can name all such
//! nodes at once.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Once};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_hir::internal::InferenceOp;

use crate::attributes::text;
use crate::error::{ImportError, Refused};
use crate::onnx_file::node_name;

/// Shape and, for constants, value.
#[derive(Clone, Debug)]
pub struct Known {
    /// As ONNX orders it.
    pub shape: Vec<usize>,
    /// Value of a tensor that does not depend on the input.
    pub constant: Option<Arc<Tensor>>,
    /// Type of an element.
    pub data_type: DatumType,
}

/// Answers for a whole graph.
#[derive(Clone, Debug, Default)]
pub struct KnownTensors {
    /// By tensor name.
    pub tensors: HashMap<String, Known>,
    /// Nodes that tract cannot take.
    pub failed: Vec<Refused>,
    /// Names of nodes that were not examined because they come after a failed one.
    pub after_failed: HashSet<String>,
}

/// Most elements of a tensor: 64 M, a 4,600 x 4,600 picture.
pub const ELEMENTS_MAX: usize = 1 << 26;
/// Rounds of setting a failing node aside before giving up on a graph.
const FAILURES_MAX: usize = 32;

/// Asks tract about every tensor. `model` is left as it was.
///
/// # Errors
/// [`ImportError::Float`] if tract fails in more places than it is worth to look for.
pub fn examine(model: &mut ModelProto) -> Result<KnownTensors, ImportError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(KnownTensors::default()) };
    let all_nodes = std::mem::take(&mut graph.node);
    let outputs = std::mem::take(&mut graph.output);
    let result = examine_nodes(model, &all_nodes);
    if let Some(graph) = model.graph.as_mut() {
        graph.node = all_nodes;
        graph.output = outputs;
    }
    result
}

fn examine_nodes(model: &mut ModelProto, all_nodes: &[NodeProto]) -> Result<KnownTensors, ImportError> {
    let register = reader().op_register;
    let mut known = KnownTensors::default();
    let mut failed: Vec<usize> = vec![];
    for (index, node) in all_nodes.iter().enumerate() {
        if !register.0.contains_key(&node.op_type) {
            failed.push(index);
            let reason = if node.domain.is_empty() { String::new() } else { format!(" of domain {}", node.domain) };
            let reason = format!("the operator{reason} is not known");
            known.failed.push(Refused { node: node_name(node), op: node.op_type.clone(), reason });
        }
    }
    for _ in 0..FAILURES_MAX {
        let alive = independent_of(all_nodes, &failed);
        match facts_of(model, all_nodes, &alive) {
            Ok(tensors) => {
                known.tensors = tensors;
                let alive: HashSet<usize> = alive.into_iter().collect();
                let dead = (0..all_nodes.len()).filter(|i| !alive.contains(i) && !failed.contains(i));
                known.after_failed = dead.filter_map(|i| all_nodes.get(i)).map(node_name).collect();
                return Ok(known);
            }
            Err(mut message) => {
                // The longest prefix that works ends before the culprit.
                let (mut works, mut fails) = (0, alive.len());
                while works + 1 < fails {
                    let middle = (works + fails) / 2;
                    match facts_of(model, all_nodes, &alive[..middle]) {
                        Ok(_) => works = middle,
                        Err(m) => (fails, message) = (middle, m),
                    }
                }
                let culprit = alive.get(fails.saturating_sub(1)).copied();
                let Some((culprit, node)) = culprit.and_then(|c| Some((c, all_nodes.get(c)?))) else {
                    return Err(ImportError::Float { message });
                };
                failed.push(culprit);
                known.failed.push(Refused { node: node_name(node), op: node.op_type.clone(), reason: message });
            }
        }
    }
    Err(ImportError::Float { message: format!("more than {FAILURES_MAX} nodes cannot be read") })
}

/// Indices of the nodes that read nothing from `failed` ones, directly or not.
fn independent_of(nodes: &[NodeProto], failed: &[usize]) -> Vec<usize> {
    let mut dead: HashSet<&str> = HashSet::new();
    let mut alive = vec![];
    for (index, node) in nodes.iter().enumerate() {
        if failed.contains(&index) || node.input.iter().any(|i| dead.contains(&i[..])) {
            dead.extend(node.output.iter().filter(|o| !o.is_empty()).map(|o| &o[..]));
        } else {
            alive.push(index);
        }
    }
    alive
}

/// Facts of all tensors of a graph of the given nodes, or what tract complained about.
fn facts_of(
    model: &mut ModelProto,
    all_nodes: &[NodeProto],
    alive: &[usize],
) -> Result<HashMap<String, Known>, String> {
    let Some(graph) = model.graph.as_mut() else { return Ok(HashMap::new()) };
    graph.node = alive.iter().filter_map(|i| all_nodes.get(*i)).cloned().collect();
    let names: Vec<String> = tensor_names(graph);
    graph.output = names.iter().map(|name| ValueInfoProto { name: name.clone(), ..Default::default() }).collect();
    let typed = guarded(|| {
        let parsed = reader().parse(model, None)?;
        if let Some(name) = parsed.unresolved_inputs.first() {
            bail!("nothing writes `{name}`");
        }
        parsed.model.into_typed()
    })?;
    let mut tensors = HashMap::new();
    for (name, outlet) in names.into_iter().zip(&typed.outputs) {
        let fact = typed.outlet_fact(*outlet).map_err(|e| format!("{e:#}"))?;
        if let Some(shape) = fact.shape.as_concrete() {
            let n = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
            if n.is_none_or(|n| n > ELEMENTS_MAX) {
                return Err(format!("`{name}` is of shape {shape:?}; at most {ELEMENTS_MAX} elements are supported"));
            }
            let (constant, data_type) = (fact.konst.clone(), fact.datum_type);
            tensors.insert(name, Known { shape: shape.to_vec(), constant, data_type });
        }
    }
    Ok(tensors)
}

/// Initializers and outputs of nodes.
fn tensor_names(graph: &GraphProto) -> Vec<String> {
    let initializers = graph.initializer.iter().map(|t| &t.name);
    let outputs = graph.node.iter().flat_map(|n| &n.output);
    let mut seen = HashSet::new();
    initializers.chain(outputs).filter(|n| !n.is_empty() && seen.insert(&n[..])).cloned().collect()
}

/// tract's ONNX reader; stated shapes of inner tensors are ignored, they may carry the exporter's symbols. Beside its own
/// operators it takes Upsample, and Resize of opset 10 as it was meant.
pub fn reader() -> tract_onnx::Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    onnx.op_register.insert("Upsample", resize_10);
    onnx.op_register.insert("Resize", |ctx, node| match ctx.onnx_operator_set_version {
        10 => resize_10(ctx, node),
        _ => tract_resize(ctx, node),
    });
    onnx
}

/// What tract makes of a node.
type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn tract_resize(ctx: &ParsingContext<'_>, node: &NodeProto) -> Built {
    match tract_onnx::onnx().op_register.0.get("Resize") {
        Some(build) => build(ctx, node),
        None => bail!("tract has no Resize"),
    }
}

/// Resize of opset 10, which Upsample was before: nearest pixels by rounding down, which tract (0.23.9) does not know.
fn resize_10(ctx: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let ctx = ParsingContext { onnx_operator_set_version: 10, ..ctx.clone() };
    let mut node = NodeProto { op_type: "Resize".into(), ..node.clone() };
    node.attribute.retain(|attribute| attribute.name == "mode");
    node.attribute.push(text("nearest_mode", "floor"));
    tract_resize(&ctx, &node)
}

thread_local! {
    /// A panic here becomes an error.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic on odd graphs, and makes its panic an error message; nothing of it is printed.
pub fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                others(panic);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_GUARDED.set(outer);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("internal failure: {}", text.unwrap_or("no message")))
        }
    }
}
