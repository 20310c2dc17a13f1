//! From a bundle's graph, which nobody vouches for, to a program that cannot fail: every index, shape, type, range and
//! blob is checked before anything runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use graft_bundle::graph::{Graph, Requantize, Step, Tensor, Window};
use graft_bundle::{Bundle, DataType, Op, TensorId};

use crate::arena::{Lifetime, Plan};
use crate::error::{Fault, LoadError, STEP_NAME_SHOWN};
use crate::isa::is_available;
use crate::kernel::Kernel;
use crate::lower::lower;
use crate::program::{Program, ProgramStep, ScratchLens, Setup, TensorInfo};

/// Most steps of a graph; networks that fit a board have hundreds.
pub const STEPS_MAX: usize = 16_384;
/// Most bytes of one tensor.
pub const TENSOR_BYTES_MAX: u64 = 1 << 28;
/// Most bytes of the activation arena.
pub const ARENA_BYTES_MAX: u64 = 1 << 30;
/// Largest kernel size, stride, dilation or padding.
pub const WINDOW_MAX: u32 = 4096;
/// Most bytes of an ONNX model that is a step.
pub const MODEL_BYTES_MAX: u64 = 1 << 26;

/// Bytes of a bundle that make another core worth its thread.
const CORE_BYTES_MIN: u64 = 4 << 20;

/// Names of the ops that this engine runs, as [`graft_bundle::Op::name`] spells them.
pub const OPS: [&str; 21] = [
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Dequantize",
    "FloatBinary",
    "FloatConv",
    "FloatMean",
    "FloatSoftmax",
    "FloatUnary",
    "GlobalSum",
    "MatMul",
    "MaxPool",
    "Mul",
    "Onnx",
    "Quantize",
    "Reshape",
    "Resize",
    "Table",
    "Transpose",
    "Upsample",
];

/// Checks everything and plans the memory.
pub(crate) fn program_of(bundle: &Bundle, setup: Setup) -> Result<Program, LoadError> {
    let isa = setup.isa;
    if !is_available(isa) {
        return Err(LoadError::Isa { isa });
    }
    check_ops(&bundle.manifest().ops)?;
    let graph = bundle.graph();
    check_counts(graph)?;
    check_exact(graph, bundle.manifest().exact)?;
    for (id, tensor) in (0..).zip(&graph.tensors) {
        check_tensor(tensor).map_err(|fault| LoadError::Tensor { tensor: id, fault })?;
    }
    let mut tensors: Vec<TensorInfo> = graph.tensors.iter().map(TensorInfo::new).collect();
    check_ends(graph, &tensors, bundle.manifest().embedding_len)?;
    check_order(graph)?;
    narrow_limits(graph, &mut tensors);
    let lowered = |step: &Step, buffer: &mut Vec<u8>| {
        let kernel = lower(bundle, &tensors, step, setup, buffer).map_err(|fault| in_step(step, fault))?;
        Ok(Draft {
            name: step.name.clone(),
            op: op_of(step, graph),
            kernel,
            inputs: step.inputs.clone(),
            output: step.output,
        })
    };
    // Packing weights is most of loading.
    let drafts = on_all_cores(&graph.steps, bundle.file_len(), lowered);
    let mut drafts = drafts.into_iter().collect::<Result<Vec<Draft>, LoadError>>()?;
    if setup.fuse {
        drafts = fused(drafts, graph.output, setup.n_threads);
    }
    let plan = Plan::new(&lifetimes(graph, &drafts, &tensors));
    if plan.bytes() > ARENA_BYTES_MAX {
        return Err(LoadError::Arena { found: plan.bytes(), limit: ARENA_BYTES_MAX });
    }
    let place = |id: &TensorId| plan.places.get(id.0 as usize).copied();
    let scratch = drafts.iter().fold(ScratchLens::default(), |lens, draft| draft.kernel.scratch(isa).max(lens));
    let step = |draft: Draft| {
        let Draft { name, op, kernel, inputs, output } = draft;
        let inputs = inputs.iter().filter_map(place).collect();
        Some(ProgramStep { name, op, kernel, inputs, output: place(&output)?, tensor: output.0 as usize })
    };
    let steps = drafts.into_iter().filter_map(step).collect();
    let (inputs, outputs) = (vec![graph.input.0 as usize], vec![graph.output.0 as usize]);
    Ok(Program { setup, tensors, steps, inputs, outputs, plan, scratch })
}

/// The op's name, with the width of its activations where it is not eight bits. (The backbone's output is wide where it
/// can be, at no cost.)
fn op_of(step: &Step, graph: &Graph) -> String {
    let is_wide = |id: &TensorId| {
        *id != graph.output && graph.tensors.get(id.0 as usize).is_some_and(|t| t.data_type == DataType::I16)
    };
    let wide = step.inputs.iter().chain([&step.output]).any(is_wide);
    format!("{}{}", step.op.name(), if wide { " int16" } else { "" })
}

/// `f` of every item, in order, computed on as many cores as there are and `bytes` of weights are worth, each with a buffer.
fn on_all_cores<T: Sync, R: Send>(items: &[T], bytes: u64, f: impl Fn(&T, &mut Vec<u8>) -> R + Sync) -> Vec<R> {
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|i| *i < items.len()));
        let mut buffer = vec![];
        taken.filter_map(|i| Some((i, f(items.get(i)?, &mut buffer)))).collect::<Vec<_>>()
    };
    let mut results = std::thread::scope(|scope| {
        // Where the system gives no more threads, those that are there do it all.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..n_cores.min(bytes / CORE_BYTES_MIN + 1)).filter_map(spawn).collect();
        let mut results = work();
        for thread in others {
            match thread.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A step that has no places yet.
struct Draft {
    name: String,
    op: String,
    kernel: Kernel,
    inputs: Vec<TensorId>,
    output: TensorId,
}

/// Joins convolutions that follow each other, where nobody else reads what lies between them.
fn fused(drafts: Vec<Draft>, output: TensorId, n_threads: usize) -> Vec<Draft> {
    let mut n_readers: HashMap<TensorId, usize> = HashMap::from([(output, 1)]);
    for input in drafts.iter().flat_map(|draft| &draft.inputs) {
        *n_readers.entry(*input).or_default() += 1;
    }
    let mut fused: Vec<Draft> = Vec::with_capacity(drafts.len());
    for mut draft in drafts {
        if let (Some(last), Kernel::Chain(next)) = (fused.last_mut(), &mut draft.kernel)
            && let Kernel::Chain(chain) = &mut last.kernel
            && draft.inputs == [last.output]
            && n_readers.get(&last.output) == Some(&1)
            && chain.join(next, n_threads)
        {
            last.name = format!("{} + {}", last.name, draft.name);
            last.output = draft.output;
            continue;
        }
        fused.push(draft);
    }
    fused
}

fn check_ops(ops: &[String]) -> Result<(), LoadError> {
    let unknown = ops.iter().filter(|op| !OPS.contains(&op.as_str()));
    let names: Vec<&str> = unknown.map(|op| shown(op)).collect();
    if names.is_empty() { Ok(()) } else { Err(LoadError::UnknownOps { names: names.join(", ") }) }
}

fn check_counts(graph: &Graph) -> Result<(), LoadError> {
    for (what, found, limit) in
        [("steps", graph.steps.len(), STEPS_MAX), ("tensors", graph.tensors.len(), STEPS_MAX + 1)]
    {
        if found > limit {
            return Err(LoadError::TooMany { what, found, limit });
        }
    }
    Ok(())
}

/// The manifest says rightly whether every CPU gives the same bits.
fn check_exact(graph: &Graph, exact: bool) -> Result<(), LoadError> {
    let n_inexact = graph.steps.iter().filter(|step| !step.op.is_exact()).count();
    if exact == (n_inexact == 0) { Ok(()) } else { Err(LoadError::Exact { exact, n_inexact }) }
}

fn check_tensor(tensor: &Tensor) -> Result<(), Fault> {
    if tensor.n_elements() == 0 || tensor.bytes() > TENSOR_BYTES_MAX {
        let allowed = format!("no zeros, at most {TENSOR_BYTES_MAX} bytes");
        return Err(Fault::Shape { what: "it", found: tensor.shape, allowed });
    }
    if !(tensor.scale.is_finite() && tensor.scale > 0.0) {
        return Err(Fault::Number { what: "scale", found: tensor.scale, allowed: "finite and above zero" });
    }
    let (low, high) = match tensor.data_type {
        DataType::I8 | DataType::I16 => range_of(tensor.data_type),
        DataType::I32 | DataType::F32 => (0, 0),
    };
    check_range("zero point", tensor.zero_point.into(), low.into(), high.into())
}

/// Smallest and largest activation of a type.
pub(crate) fn range_of(data_type: DataType) -> (i32, i32) {
    match data_type {
        DataType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::I16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::I32 | DataType::F32 => (i32::MIN, i32::MAX),
    }
}

pub(crate) fn check_range(what: &'static str, found: i64, low: i64, high: i64) -> Result<(), Fault> {
    if (low..=high).contains(&found) { Ok(()) } else { Err(Fault::Range { what, found, low, high }) }
}

/// The graph's input and output.
fn check_ends(graph: &Graph, tensors: &[TensorInfo], embedding_len: u32) -> Result<(), LoadError> {
    let n_tensors = tensors.len();
    let end = |id: graft_bundle::TensorId, what: &'static str, types: &[DataType], allowed: &'static str| {
        let fault = |fault| LoadError::Tensor { tensor: id.0, fault };
        let info = tensors.get(id.0 as usize).ok_or_else(|| fault(Fault::NoTensor { found: id.0, n_tensors }))?;
        let found = info.data_type;
        if types.contains(&found) { Ok(info) } else { Err(fault(Fault::Type { what, found, allowed })) }
    };
    end(graph.input, "graph's input", &[DataType::I8], "I8")?;
    let types = [DataType::I8, DataType::I16, DataType::I32];
    let output = end(graph.output, "graph's output", &types, "I8, I16, I32")?;
    let found = output.dims.len() as u64;
    if found == u64::from(embedding_len) {
        Ok(())
    } else {
        Err(LoadError::EmbeddingLen { found, expected: embedding_len.into() })
    }
}

/// Every index exists; every tensor is written once, before it is read.
fn check_order(graph: &Graph) -> Result<(), LoadError> {
    let n_tensors = graph.tensors.len();
    let mut written = vec![false; n_tensors];
    if let Some(input) = written.get_mut(graph.input.0 as usize) {
        *input = true;
    }
    for step in &graph.steps {
        let no_tensor = |found| in_step(step, Fault::NoTensor { found, n_tensors });
        for input in &step.inputs {
            match written.get(input.0 as usize) {
                Some(true) => {}
                Some(false) => return Err(in_step(step, Fault::Unwritten { found: input.0 })),
                None => return Err(no_tensor(input.0)),
            }
        }
        let output = written.get_mut(step.output.0 as usize).ok_or_else(|| no_tensor(step.output.0))?;
        if *output {
            return Err(in_step(step, Fault::WrittenTwice { found: step.output.0 }));
        }
        *output = true;
    }
    match (0..).zip(&written).find(|(_, written)| !**written) {
        Some((tensor, _)) => Err(LoadError::Tensor { tensor, fault: Fault::NeverWritten }),
        None => Ok(()),
    }
}

/// What each step lets through: sixteen bits that use fewer allow larger sums.
fn narrow_limits(graph: &Graph, tensors: &mut [TensorInfo]) {
    let limits = |tensors: &[TensorInfo], id: &TensorId| tensors.get(id.0 as usize).map(|info| info.limits);
    for step in &graph.steps {
        let written = match &step.op {
            Op::Conv { requantize: Requantize { low, high, .. }, .. }
            | Op::Add { low, high, .. }
            | Op::Mul { low, high, .. }
            | Op::MatMul { low, high, .. }
            | Op::AveragePool { low, high, .. }
            | Op::Quantize { low, high, .. } => Some([*low, *high]),
            // A window that meets no pixel gives the type's smallest.
            Op::MaxPool { window } if !meets_pixels(window) => None,
            Op::MaxPool { .. } | Op::Upsample { .. } | Op::Resize { .. } | Op::Reshape | Op::Transpose { .. } => {
                step.inputs.first().and_then(|input| limits(tensors, input))
            }
            Op::Concat { .. } => {
                let all = step.inputs.iter().filter_map(|input| limits(tensors, input));
                all.reduce(|[a, b], [low, high]| [a.min(low), b.max(high)])
            }
            _ => None,
        };
        if let (Some([low, high]), Some(info)) = (written, tensors.get_mut(step.output.0 as usize)) {
            let [min, max] = info.limits;
            // Limits that are none are refused when the step is lowered.
            info.limits = if low <= high { [low.clamp(min, max), high.clamp(min, max)] } else { [min, max] };
        }
    }
}

/// True if every window holds some element of the picture.
fn meets_pixels(window: &Window) -> bool {
    let Window { kernel, dilation, pad_before, pad_after, .. } = window;
    let within = |pad: &[u32; 2]| pad.iter().zip(kernel).all(|(pad, kernel)| pad < kernel);
    *dilation == [1, 1] && within(pad_before) && within(pad_after)
}

/// From the step that writes a tensor to the last one that reads it; the output stays. Tensors within a step take no
/// memory.
fn lifetimes(graph: &Graph, drafts: &[Draft], tensors: &[TensorInfo]) -> Vec<Lifetime> {
    let unused = |info: &TensorInfo| Lifetime { data_type: info.data_type, len: 0, steps: [0, 0] };
    let mut lifetimes: Vec<Lifetime> = tensors.iter().map(unused).collect();
    let mut lives = |tensor: TensorId, at: usize| {
        let at_tensor = tensor.0 as usize;
        if let (Some(lifetime), Some(info)) = (lifetimes.get_mut(at_tensor), tensors.get(at_tensor)) {
            let start = if lifetime.len == 0 { at } else { lifetime.steps[0] };
            *lifetime = Lifetime { len: info.dims.len(), steps: [start, at], ..*lifetime };
        }
    };
    lives(graph.input, 0);
    for (at, draft) in drafts.iter().enumerate() {
        draft.inputs.iter().for_each(|input| lives(*input, at));
        lives(draft.output, at);
    }
    lives(graph.output, drafts.len());
    lifetimes
}

fn in_step(step: &Step, fault: Fault) -> LoadError {
    LoadError::Step { step: shown(&step.name).to_owned(), op: step.op.name(), fault }
}

/// The beginning of a name.
fn shown(name: &str) -> &str {
    name.char_indices().nth(STEP_NAME_SHOWN).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}
