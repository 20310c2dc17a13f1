//! An ONNX file in memory: decoded, with its external data, sorted, and with every tensor as long as its shape says.
//!
//! tract trusts what it is given (it allocates by stated shapes and panics on unknown types), so that all of this is
//! checked before it sees the model.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::prelude::Framework;

use crate::error::ImportError;

/// Largest model file, and largest sum of external data. Backbones for small boards are a hundredth of it.
pub const MODEL_BYTES_MAX: u64 = 2 << 30;
/// Largest tensor that a graph may generate from a shape alone (1 GiB of f32).
const GENERATED_ELEMENTS_MAX: u64 = 1 << 28;

/// Reads and checks a model.
///
/// # Errors
/// [`ImportError`] if it cannot be read, is no ONNX, names data outside its folder, or contradicts itself.
pub fn read(path: &Path) -> Result<ModelProto, ImportError> {
    let unreadable = |e: std::io::Error| ImportError::Read { path: path.into(), message: e.to_string() };
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    if bytes > MODEL_BYTES_MAX {
        return Err(ImportError::TooLarge { what: path.display().to_string(), bytes, bytes_max: MODEL_BYTES_MAX });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(unreadable)?;
    let not_onnx = |reason: String| ImportError::NotOnnx { path: path.into(), reason };
    let mut model =
        tract_onnx::onnx().proto_model_for_read(&mut &content[..]).map_err(|e| not_onnx(format!("{:#}", e)))?;
    drop(content);
    if model.graph.as_ref().is_none_or(|g| g.node.is_empty()) {
        return Err(not_onnx("it holds no graph".into()));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    load_external_data(&mut model, folder)?;
    check(&mut model)?;
    Ok(model)
}

/// Checks a decoded model and puts its nodes in order; what [`read`] does after reading.
///
/// # Errors
/// [`ImportError`] naming the tensor or node that contradicts itself.
pub fn check(model: &mut ModelProto) -> Result<(), ImportError> {
    let Some(graph) = model.graph.as_mut() else {
        return Err(ImportError::Graph { node: String::new(), reason: "there is no graph".into() });
    };
    for tensor in &graph.initializer {
        check_tensor(tensor, &tensor.name)?;
    }
    for node in &graph.node {
        for tensor in node.attribute.iter().filter_map(|a| a.t.as_ref()) {
            check_tensor(tensor, &node_name(node))?;
        }
    }
    name_nodes(graph);
    sort_nodes(graph)?;
    check_generated(graph)
}

/// The node's name, or its first output where it has none.
pub fn node_name(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

/// tract refuses two nodes of one name; exporters write them.
fn name_nodes(graph: &mut GraphProto) {
    let mut seen = HashSet::new();
    for node in &mut graph.node {
        let name = node_name(node);
        node.name = if seen.insert(name.clone()) { name } else { node.output.first().cloned().unwrap_or(name) };
        seen.insert(node.name.clone());
    }
}

/// Replaces external data by the bytes themselves.
fn load_external_data(model: &mut ModelProto, folder: &Path) -> Result<(), ImportError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(()) };
    let mut budget = MODEL_BYTES_MAX;
    let attributes = graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.t.as_mut());
    for tensor in graph.initializer.iter_mut().chain(attributes) {
        if tensor.data_location != Some(1) {
            continue;
        }
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.clone());
        let location = entry("location").unwrap_or_default();
        let path = inside(folder, &location)
            .ok_or_else(|| ImportError::ExternalPath { tensor: tensor.name.clone(), location: location.clone() })?;
        let wrong =
            |reason: String| ImportError::ExternalData { tensor: tensor.name.clone(), path: path.clone(), reason };
        let mut file = File::open(&path).map_err(|e| wrong(e.to_string()))?;
        let size = file.metadata().map_err(|e| wrong(e.to_string()))?.len();
        let number = |key: &str, otherwise: u64| match entry(key) {
            None => Ok(otherwise),
            Some(text) => text.parse::<u64>().map_err(|_| wrong(format!("{key} is `{text}`; allowed is a number"))),
        };
        let offset = number("offset", 0)?;
        let length = number("length", size.saturating_sub(offset))?;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(wrong(format!("{length} bytes at {offset} are wanted; the file has {size}")));
        }
        budget = budget.checked_sub(length).ok_or_else(|| ImportError::TooLarge {
            what: "the model's external data".into(),
            bytes: MODEL_BYTES_MAX - budget + length,
            bytes_max: MODEL_BYTES_MAX,
        })?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset)).map_err(|e| wrong(e.to_string()))?;
        file.take(length).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
        tensor.raw_data = bytes;
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}

/// The path of a stated location if it lies in `folder`, also after following links.
fn inside(folder: &Path, location: &str) -> Option<PathBuf> {
    let plain = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !plain {
        return None;
    }
    let path = folder.join(location);
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder).then_some(path),
        // A missing file: the caller's open says so, with its name.
        _ => Some(path),
    }
}

/// Bytes of an element of ONNX data type `code`; None for those that no backbone holds (strings, complex, ...).
fn element_bytes(code: i32) -> Option<u64> {
    match code {
        2 | 3 | 9 => Some(1),   // u8, i8, bool
        4 | 5 | 10 => Some(2),  // u16, i16, f16
        1 | 6 | 12 => Some(4),  // f32, i32, u32
        7 | 11 | 13 => Some(8), // i64, f64, u64
        _ => None,
    }
}

fn check_tensor(tensor: &TensorProto, name: &str) -> Result<(), ImportError> {
    let Some(width) = element_bytes(tensor.data_type) else {
        let reason = format!("its tensor has data type {}; floats, integers and booleans are read", tensor.data_type);
        return Err(ImportError::Graph { node: name.into(), reason });
    };
    let expected = tensor
        .dims
        .iter()
        .try_fold(width, |n, d| u64::try_from(*d).ok().and_then(|d| n.checked_mul(d)))
        .ok_or_else(|| ImportError::Graph { node: name.into(), reason: format!("shape {:?}", tensor.dims) })?;
    let typed = |n: usize| n as u64 * width;
    let found = if !tensor.raw_data.is_empty() {
        tensor.raw_data.len() as u64
    } else {
        match tensor.data_type {
            1 => typed(tensor.float_data.len()),
            11 => typed(tensor.double_data.len()),
            7 => typed(tensor.int64_data.len()),
            12 | 13 => typed(tensor.uint64_data.len()),
            _ => typed(tensor.int32_data.len()),
        }
    };
    if found != expected {
        return Err(ImportError::TensorData { tensor: name.into(), shape: tensor.dims.clone(), found, expected });
    }
    Ok(())
}

/// Topological order, stable; ONNX demands it, not every exporter keeps to it.
fn sort_nodes(graph: &mut GraphProto) -> Result<(), ImportError> {
    let mut produced: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        for output in node.output.iter().filter(|o| !o.is_empty()) {
            if produced.insert(output, index).is_some() {
                let reason = format!("tensor `{output}` is written twice");
                return Err(ImportError::Graph { node: node_name(node), reason });
            }
        }
    }
    let known: HashSet<&str> =
        graph.input.iter().map(|i| &i.name[..]).chain(graph.initializer.iter().map(|i| &i.name[..])).collect();
    let mut n_waiting = vec![0usize; graph.node.len()];
    let mut readers: Vec<Vec<usize>> = vec![vec![]; graph.node.len()];
    for (index, node) in graph.node.iter().enumerate() {
        for input in node.input.iter().filter(|i| !i.is_empty()) {
            match produced.get(&input[..]) {
                Some(writer) => {
                    n_waiting[index] += 1;
                    readers[*writer].push(index);
                }
                None if known.contains(&input[..]) => {}
                None => {
                    let reason = format!("it reads `{input}`, which nothing writes");
                    return Err(ImportError::Graph { node: node_name(node), reason });
                }
            }
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..graph.node.len()).filter(|i| n_waiting[*i] == 0).collect();
    let mut order = Vec::with_capacity(graph.node.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for reader in &readers[index] {
            n_waiting[*reader] -= 1;
            if n_waiting[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    if order.len() < graph.node.len() {
        let stuck = n_waiting.iter().position(|n| *n > 0).and_then(|i| graph.node.get(i));
        let node = stuck.map(node_name).unwrap_or_default();
        return Err(ImportError::Graph { node, reason: "it depends on itself".into() });
    }
    let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    Ok(())
}

/// Refuses shapes in constants that would make tract allocate without bound.
fn check_generated(graph: &GraphProto) -> Result<(), ImportError> {
    let mut constants: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (&t.name[..], t)).collect();
    for node in graph.node.iter().filter(|n| n.op_type == "Constant") {
        if let (Some(output), Some(tensor)) = (node.output.first(), node.attribute.iter().find_map(|a| a.t.as_ref())) {
            constants.insert(output, tensor);
        }
    }
    for node in &graph.node {
        let perm = node.attribute.iter().find(|a| a.name == "perm").map(|a| &a.ints[..]).unwrap_or_default();
        if node.op_type == "Transpose" && !(0..perm.len() as i64).all(|axis| perm.contains(&axis)) {
            // tract's rewriting does not end for it.
            let reason = format!("its axes are {perm:?}; a permutation is needed");
            return Err(ImportError::Graph { node: node_name(node), reason });
        }
        let shape_input = match &node.op_type[..] {
            "ConstantOfShape" => 0,
            "Expand" | "Tile" => 1,
            _ => continue,
        };
        let Some(shape) = node.input.get(shape_input).and_then(|i| constants.get(&i[..])) else { continue };
        let dims = if shape.raw_data.is_empty() {
            shape.int64_data.clone()
        } else {
            shape.raw_data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default())).collect()
        };
        let n = dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
        if n.is_none_or(|n| n > GENERATED_ELEMENTS_MAX) {
            let reason = format!("it makes a tensor of shape {dims:?}; at most {GENERATED_ELEMENTS_MAX} elements");
            return Err(ImportError::Graph { node: node_name(node), reason });
        }
    }
    Ok(())
}
