//! A step that is an ONNX model: operators without an integer or exact form, in tract's own float code.
//!
//! The model comes from a bundle, which nobody vouches for, and tract trusts what it reads: it allocates by stated shapes,
//! folds constants and panics on what it does not expect. So the model is checked before tract sees it (every tensor as
//! long as its shape says, nothing computed from constants alone, no graphs within nodes), every shape that tract finds
//! is checked before anything runs, and panics are caught at its edge.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use tract_onnx::prelude::*;

use crate::check::{ARENA_BYTES_MAX, STEPS_MAX, TENSOR_BYTES_MAX};
use crate::error::{EmbedError, Fault, STEP_NAME_SHOWN};

/// Characters of a reason that tract gives.
const REASON_SHOWN: usize = 300;
/// Operators whose result is a constant, though they read data: what is computed from it would be folded at load.
const FOLDED: [&str; 2] = ["Shape", "Size"];
/// ONNX code of float32.
const FLOAT32: i32 = 1;
/// ONNX code of int64.
const INT64: i32 = 7;
/// ONNX code of bool.
const BOOL: i32 = 9;

/// A model, ready to run.
#[derive(Clone)]
pub(crate) struct OnnxModel {
    plan: Arc<TypedRunnableModel>,
    /// Shapes of the inputs.
    inputs: Vec<Vec<usize>>,
    n_bytes: usize,
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnnxModel({} bytes)", self.n_bytes)
    }
}

impl OnnxModel {
    /// Checks an encoded model whose inputs and output must have so many elements, and plans it.
    ///
    /// # Errors
    /// [`Fault::Model`].
    pub(crate) fn load(bytes: &[u8], inputs: &[usize], output: usize) -> Result<OnnxModel, Fault> {
        let refused = |reason: String| Fault::Model { reason: shown(&reason, REASON_SHOWN).to_owned() };
        let proto = guarded(|| tract_onnx::onnx().proto_model_for_read(&mut &*bytes)).map_err(refused)?;
        let shapes = check(&proto).map_err(refused)?;
        let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
        if lens != inputs {
            return Err(refused(format!("has inputs of {lens:?} elements; allowed: {inputs:?}")));
        }
        let model = guarded(|| reader().parse(&proto, None)?.model.into_typed()).map_err(refused)?;
        let found = check_facts(&model).map_err(refused)?;
        if found != output {
            return Err(refused(format!("has an output of {found} elements; allowed: {output}")));
        }
        // tract's rewriting fails on a few graphs that it runs as they are.
        let plan = guarded(|| model.clone().into_optimized())
            .and_then(|rewritten| check_facts(&rewritten).map(|_| rewritten))
            .and_then(|rewritten| guarded(|| rewritten.into_runnable()))
            .or_else(|_| guarded(|| model.into_runnable()))
            .map_err(refused)?;
        Ok(OnnxModel { plan, inputs: shapes, n_bytes: bytes.len() })
    }

    /// Runs it; allocates, unlike other kernels.
    ///
    /// Shapes: elements in row-major order of the model's shapes.
    ///
    /// # Errors
    /// [`EmbedError::Engine`] with what tract says.
    pub(crate) fn run(&self, inputs: &[&[f32]], output: &mut [f32]) -> Result<(), EmbedError> {
        let run = || {
            let tensor = |(shape, values): (&Vec<usize>, &&[f32])| Tensor::from_shape(shape, values).map(TValue::from);
            let inputs = self.inputs.iter().zip(inputs).map(tensor).collect::<TractResult<_>>()?;
            let results = self.plan.run(inputs)?;
            let result = results.first().map(|result| result.try_as_plain_ram()).transpose()?;
            let values = result.as_ref().map(|result| result.as_slice::<f32>()).transpose()?.unwrap_or_default();
            if values.len() != output.len() {
                return Err(TractError::msg(format!("{} values instead of {}", values.len(), output.len())));
            }
            output.copy_from_slice(values);
            Ok(())
        };
        guarded(run).map_err(|error| EmbedError::Engine(format!("ONNX model: {}", shown(&error, REASON_SHOWN))))
    }

    /// Bytes of the encoded model.
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// Stated shapes of inner tensors are not believed.
fn reader() -> tract_onnx::Onnx {
    tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true)
}

/// Runs what may panic on odd graphs, and makes its panic an error message.
fn guarded<T>(run: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("makes tract fail: {}", text.unwrap_or("no message")))
        }
    }
}

/// The beginning of a text.
fn shown(text: &str, n_chars: usize) -> &str {
    text.char_indices().nth(n_chars).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

fn name(text: &str) -> &str {
    shown(text, STEP_NAME_SHOWN)
}

/// Shapes of the inputs, if nothing in the model makes tract allocate beyond its bytes.
fn check(model: &ModelProto) -> Result<Vec<Vec<usize>>, String> {
    let graph = model.graph.as_ref().ok_or("holds no graph")?;
    if !model.functions.is_empty() || !model.training_info.is_empty() || !graph.sparse_initializer.is_empty() {
        return Err("holds functions, training or sparse tensors".into());
    }
    let n_nodes = graph.node.len();
    if n_nodes > STEPS_MAX {
        return Err(format!("has {n_nodes} nodes; allowed: at most {STEPS_MAX}"));
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    let shapes = graph.input.iter().map(input_shape).collect::<Result<Vec<_>, _>>()?;
    check_nodes(graph)?;
    Ok(shapes)
}

fn input_shape(info: &ValueInfoProto) -> Result<Vec<usize>, String> {
    let name = name(&info.name);
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(format!("has an input `{name}` that is no tensor"));
    };
    if tensor.elem_type != FLOAT32 {
        return Err(format!("has an input `{name}` of ONNX type {}; allowed: {FLOAT32}, float32", tensor.elem_type));
    }
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match dim.value {
        Some(Dimension::DimValue(size)) => usize::try_from(size).ok().filter(|size| *size > 0),
        _ => None,
    });
    let dims: Option<Vec<usize>> = dims.collect();
    let fits = |dims: &Vec<usize>| bytes_of(dims.iter().map(|dim| *dim as u64), 4).is_some();
    dims.filter(fits).ok_or_else(|| format!("has an input `{name}` of an open shape, or over {TENSOR_BYTES_MAX} bytes"))
}

/// Every node reads what is there, and something that depends on the input.
fn check_nodes(graph: &GraphProto) -> Result<(), String> {
    let mut constant: HashSet<&str> = graph.initializer.iter().map(|tensor| &tensor.name[..]).collect();
    let mut variable: HashSet<&str> = graph.input.iter().map(|input| &input.name[..]).collect();
    if variable.len() != graph.input.len() || variable.iter().any(|input| constant.contains(input)) {
        return Err("has two tensors of one name".into());
    }
    constant.insert("");
    for node in &graph.node {
        let (op, at) = (name(&node.op_type), name(&node.name));
        if FOLDED.contains(&&node.op_type[..]) {
            return Err(format!("has a node `{at}` of operator {op}, whose result is constant"));
        }
        if let Some(input) = node.input.iter().find(|i| !constant.contains(&i[..]) && !variable.contains(&i[..])) {
            return Err(format!("has a node `{at}` ({op}) that reads `{}`, which nothing writes", name(input)));
        }
        if !node.input.iter().any(|input| variable.contains(&input[..])) {
            return Err(format!("has a node `{at}` ({op}) that depends on no input"));
        }
        check_attributes(node)?;
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if constant.contains(&output[..]) || !variable.insert(output) {
                return Err("has two tensors of one name".into());
            }
        }
    }
    match &graph.output[..] {
        [output] if variable.contains(&output.name[..]) => Ok(()),
        [output] => Err(format!("has an output `{}`, which no node writes", name(&output.name))),
        outputs => Err(format!("has {} outputs; allowed: one", outputs.len())),
    }
}

fn check_attributes(node: &NodeProto) -> Result<(), String> {
    let at = name(&node.name);
    for attribute in &node.attribute {
        if attribute.g.is_some() || !attribute.graphs.is_empty() {
            return Err(format!("has a node `{at}` that holds a graph of its own"));
        }
        if !attribute.tensors.is_empty() || attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
            return Err(format!("has a node `{at}` that holds several or sparse tensors"));
        }
        if let Some(integer) = attribute.ints.iter().chain([&attribute.i]).find(|i| !is_small(**i)) {
            return Err(format!("has a node `{at}` with an attribute of {integer}; allowed: 32 bits"));
        }
        // tract's rewriting does not end for axes that are no permutation.
        let is_permutation = (0..attribute.ints.len() as i64).all(|axis| attribute.ints.contains(&axis));
        if attribute.name == "perm" && !is_permutation {
            return Err(format!("has a node `{at}` with the axes {:?}; allowed: a permutation", attribute.ints));
        }
        attribute.t.iter().try_for_each(check_tensor)?;
    }
    Ok(())
}

/// Sums and products of a few of such integers do not wrap in 64 bits.
fn is_small(integer: i64) -> bool {
    i32::try_from(integer).is_ok()
}

/// Raw bytes, as many as the shape needs, of a type that tract reads as they are.
fn check_tensor(tensor: &TensorProto) -> Result<(), String> {
    let at = name(&tensor.name);
    if tensor.data_location.unwrap_or(0) != 0 || !tensor.external_data.is_empty() {
        return Err(format!("has a tensor `{at}` that wants external data"));
    }
    let element_bytes = match tensor.data_type {
        2 | 3 | BOOL => 1,
        10 => 2,
        FLOAT32 | 6 => 4,
        INT64 | 11 => 8,
        other => return Err(format!("has a tensor `{at}` of ONNX type {other}")),
    };
    let dims: Option<Vec<u64>> = tensor.dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let expected = dims.and_then(|dims| bytes_of(dims.into_iter(), element_bytes));
    let found = tensor.raw_data.len() as u64;
    let others = tensor.float_data.len()
        + tensor.int32_data.len()
        + tensor.string_data.len()
        + tensor.int64_data.len()
        + tensor.double_data.len()
        + tensor.uint64_data.len();
    if expected != Some(found) || others > 0 {
        return Err(format!("has a tensor `{at}` of {found} raw bytes and shape {:?}", tensor.dims));
    }
    let (words, _) = tensor.raw_data.as_chunks::<8>();
    if tensor.data_type == INT64 && !words.iter().all(|word| is_small(i64::from_le_bytes(*word))) {
        return Err(format!("has a tensor `{at}` of integers beyond 32 bits"));
    }
    if tensor.data_type == BOOL && tensor.raw_data.iter().any(|byte| *byte > 1) {
        return Err(format!("has a tensor `{at}` of truth values beyond 1"));
    }
    Ok(())
}

/// Bytes of a tensor; None if it is too large.
fn bytes_of(mut dims: impl Iterator<Item = u64>, element_bytes: u64) -> Option<u64> {
    dims.try_fold(element_bytes, |n, dim| n.checked_mul(dim)).filter(|bytes| *bytes <= TENSOR_BYTES_MAX)
}

/// Elements of the output, if every shape is known and what lies between the nodes is no larger than an arena may be.
fn check_facts(model: &TypedModel) -> Result<usize, String> {
    let mut total = 0u64;
    for node in model.nodes() {
        for output in &node.outputs {
            let shape = output.fact.shape.as_concrete();
            let shape = shape.ok_or_else(|| format!("has a node `{}` of an open shape", name(&node.name)))?;
            let bytes = bytes_of(shape.iter().map(|dim| *dim as u64), output.fact.datum_type.size_of() as u64);
            let bytes = bytes.ok_or_else(|| {
                format!(
                    "has a node `{}` of shape {shape:?}; allowed: at most {TENSOR_BYTES_MAX} bytes",
                    name(&node.name)
                )
            })?;
            total = total.saturating_add(bytes);
        }
    }
    if total > ARENA_BYTES_MAX {
        return Err(format!("has tensors of {total} bytes; allowed: at most {ARENA_BYTES_MAX}"));
    }
    let fact =
        model.outputs.first().ok_or("has no output").and_then(|o| model.outlet_fact(*o).map_err(|_| "is broken"))?;
    if fact.datum_type != DatumType::F32 {
        return Err(format!("has an output of {:?}; allowed: F32", fact.datum_type));
    }
    Ok(fact.shape.as_concrete().unwrap_or_default().iter().product())
}
