//! An ONNX model made ready: read, its input chosen and shaped, every tensor known, lowered as far as it goes.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use graft_bundle::file::EMBEDDING_LEN_MAX;
use serde::Serialize;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, ModelProto, TensorShapeProto, ValueInfoProto, tensor_shape_proto};

use crate::attributes::integer;
use crate::cuts::{self, Cut};
use crate::error::{ImportError, Refused};
use crate::float_graph::FloatGraph;
use crate::inspect::{self, InspectedInput};
use crate::known::{ELEMENTS_MAX, KnownTensors, examine};
use crate::lower::{Lowered, NodeClass, Walked, lower};
use crate::lower_layers::FLATTENED;
use crate::onnx_file::{self, node_name};
use crate::qdq::{self, Fixed};
use crate::qoperator;
use crate::view::View;

/// How to read a model.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Which input, where there are several.
    pub input: Option<String>,
    /// Its shape with the batch, where the file leaves more than the batch open.
    pub input_shape: Option<Vec<usize>>,
    /// Operators without an integer or exact form run in tract's own float code: not the same bits on every CPU.
    pub allow_inexact: bool,
}

/// The chosen input.
#[derive(Clone, Debug, Serialize)]
pub struct ModelInput {
    /// ONNX name.
    pub name: String,
    /// With the batch, which is 1.
    pub shape: Vec<usize>,
    /// `[N, C, H, W]` rather than `[N, H, W, C]`; for other ranks false.
    pub channels_first: bool,
    /// The model takes bytes 0..255 rather than floats.
    pub bytes: bool,
}

/// A model, lowered. Make it with [`Model::open`].
pub struct Model {
    pub(crate) proto: ModelProto,
    pub(crate) known: KnownTensors,
    pub(crate) lowered: Lowered,
    pub(crate) input: ModelInput,
    /// Scales and zero points that an already quantized model states, by tensor.
    pub(crate) fixed: HashMap<String, Fixed>,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) suggested: Option<String>,
    /// What looks like the embedding, but is reached with [`ImportOptions::allow_inexact`] alone.
    pub(crate) beyond: Option<String>,
    allow_inexact: bool,
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`ImportError`] if it cannot be read or its input is ambiguous. Unsupported operators are no error here.
    pub fn open(path: &Path, options: &ImportOptions) -> Result<Model, ImportError> {
        Model::from_proto(onnx_file::read(path)?, options)
    }

    /// From a decoded and checked model.
    pub(crate) fn from_proto(mut proto: ModelProto, options: &ImportOptions) -> Result<Model, ImportError> {
        qoperator::expand(&mut proto)?;
        mark_flattened(&mut proto);
        scales_as_inputs(&mut proto);
        let fixed = qdq::strip(&mut proto)?;
        let Some(graph) = proto.graph.as_mut() else { return Err(ImportError::NoCut) };
        let input = choose_input(graph, options)?;
        let known = examine(&mut proto)?;
        let outputs: Vec<String> = proto.graph.iter().flat_map(|g| &g.output).map(|o| o.name.clone()).collect();
        let Some(graph) = proto.graph.as_ref() else { return Err(ImportError::NoCut) };
        let (shape, view) = input_view(&input);
        let mut lowered = lower(
            Walked {
                onnx: graph,
                opsets: &proto,
                known: &known.tensors,
                input: &input.name,
                shape,
                view: &view,
                outputs: &outputs,
            },
            options.allow_inexact,
        );
        explain(&mut lowered.refused, &known);
        let (cuts, suggested, beyond) = cuts::find(graph, &known.tensors, &lowered);
        let allow_inexact = options.allow_inexact;
        Ok(Model { beyond, known, lowered, input, fixed, cuts, suggested, proto, allow_inexact })
    }

    /// The input.
    pub fn input(&self) -> &ModelInput {
        &self.input
    }

    /// Nodes that cannot be quantized, wherever they are.
    pub fn refused(&self) -> &[Refused] {
        &self.lowered.refused
    }

    /// Places to cut, in network order.
    pub fn cut_candidates(&self) -> &[Cut] {
        &self.cuts
    }

    /// The cut that was asked for, or the suggested one.
    ///
    /// # Errors
    /// [`ImportError::UnknownCut`], [`ImportError::NoCut`].
    pub fn choose_cut(&self, wanted: Option<&str>) -> Result<String, ImportError> {
        let candidates = || self.cuts.iter().map(|c| c.tensor.clone()).collect::<Vec<_>>();
        match wanted {
            Some(name) if name == self.input.name => {
                Err(ImportError::BadCut { name: name.into(), reason: "it is the input itself".into() })
            }
            Some(name) if self.lowered.items.contains_key(name) => Ok(name.into()),
            Some(name) if self.known.tensors.contains_key(name) => {
                Err(ImportError::BadCut { name: name.into(), reason: "it does not depend on the input".into() })
            }
            Some(name) => {
                // It may be there, but behind nodes that nothing is known of.
                let Some(graph) = self.proto.graph.as_ref() else { return Err(ImportError::NoCut) };
                let refused = self.refused_among(&ancestors(graph, &[name.to_string()]));
                if refused.is_empty() {
                    return Err(ImportError::UnknownCut { name: name.into(), candidates: candidates() });
                }
                Err(ImportError::Refused { refused, tract_can: false })
            }
            // What is in the way there says why there is nothing to suggest.
            None => self.suggested.clone().or_else(|| self.beyond.clone()).ok_or(ImportError::NoCut),
        }
    }

    /// The float graph up to a cut, its length, and whether a pool was added.
    ///
    /// # Errors
    /// [`ImportError::Refused`] naming every node before the cut that has no integer form, [`ImportError::OtherInputs`],
    /// [`ImportError::BadCut`].
    pub(crate) fn cut(&self, tensor: &str) -> Result<(FloatGraph, usize, bool), ImportError> {
        let Some(graph) = self.proto.graph.as_ref() else { return Err(ImportError::NoCut) };
        let before = ancestors(graph, &[tensor.to_string()]);
        let others: Vec<String> =
            graph.input.iter().map(|i| &i.name).filter(|n| **n != self.input.name).cloned().collect();
        let others: Vec<String> = others.into_iter().filter(|n| before.tensors.contains(n)).collect();
        if !others.is_empty() {
            return Err(ImportError::OtherInputs { cut: tensor.into(), input: self.input.name.clone(), others });
        }
        let refused = self.refused_among(&before);
        if !refused.is_empty() {
            let tract_can = refused.iter().all(|r| self.lowered.class_of(&r.node) == Some(NodeClass::TractFloat));
            return Err(ImportError::Refused { refused, tract_can });
        }
        // Walked again for this cut: its tensor must stay as it is, and nothing after it may fuse into it.
        let (shape, view) = input_view(&self.input);
        let needed: Vec<_> = graph.node.iter().filter(|n| before.nodes.contains(&node_name(n))).cloned().collect();
        let part = GraphProto { node: needed, ..Default::default() };
        let walked = Walked {
            onnx: &part,
            opsets: &self.proto,
            known: &self.known.tensors,
            input: &self.input.name,
            shape,
            view: &view,
            outputs: &[tensor.to_string()],
        };
        let lowered = lower(walked, self.allow_inexact);
        // Pieces end at the cut now, which they may not be able to.
        if !lowered.refused.is_empty() {
            return Err(ImportError::Refused { refused: lowered.refused, tract_can: false });
        }
        let bad_cut = |reason| ImportError::BadCut { name: tensor.into(), reason };
        let (graph, embedding_len, pooled) = lowered.cut(tensor).map_err(bad_cut)?;
        if embedding_len > EMBEDDING_LEN_MAX {
            let reason = format!("it has {embedding_len} components; at most {EMBEDDING_LEN_MAX} are supported");
            return Err(bad_cut(reason));
        }
        Ok((graph, embedding_len, pooled))
    }

    /// Refused nodes among those that a tensor is made from.
    fn refused_among(&self, before: &Ancestors) -> Vec<Refused> {
        self.lowered.refused.iter().filter(|r| before.nodes.contains(&r.node)).cloned().collect()
    }
}

/// Before opset 13 a Softmax takes all axes from its own on as one.
fn mark_flattened(proto: &mut ModelProto) {
    let is_old = inspect::opset(proto) < 13;
    let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
    for node in nodes.filter(|node| is_old && node.op_type == "Softmax") {
        node.attribute.push(integer(FLATTENED, 1));
    }
}

/// Upsample of opset 7 states its scales as an attribute, later ones as an input.
fn scales_as_inputs(proto: &mut ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Upsample" && node.input.len() == 1) {
        let Some(stated) = node.attribute.iter().find(|a| a.name == "scales") else { continue };
        let scales: Vec<f64> = stated.floats.iter().map(|scale| f64::from(*scale)).collect();
        let name = format!("graft scales of {}", node_name(node));
        graph.initializer.push(qdq::floats(&name, &[scales.len() as i64], &scales));
        node.input.push(name);
    }
}

/// What a set of tensors is made from.
pub(crate) struct Ancestors {
    /// Names of nodes.
    pub nodes: HashSet<String>,
    /// Names of tensors, the asked ones too.
    pub tensors: HashSet<String>,
}

/// All nodes and tensors that `of` depends on.
pub(crate) fn ancestors(graph: &GraphProto, of: &[String]) -> Ancestors {
    let mut found = Ancestors { nodes: HashSet::new(), tensors: of.iter().cloned().collect() };
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|o| found.tensors.contains(o)) {
            found.nodes.insert(node_name(node));
            found.tensors.extend(node.input.iter().filter(|i| !i.is_empty()).cloned());
        }
    }
    found
}

/// tract's own complaint is the better reason where it has one.
fn explain(refused: &mut Vec<Refused>, known: &KnownTensors) {
    refused.retain(|r| !known.after_failed.contains(&r.node));
    for entry in refused {
        if let Some(failed) = known.failed.iter().find(|f| f.node == entry.node) {
            entry.reason = failed.reason.clone();
        }
    }
}

fn describe(info: &ValueInfoProto) -> (Vec<Option<usize>>, String, i32) {
    let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return (vec![], "no tensor".into(), 0);
    };
    let (mut dims, mut text) = (vec![], vec![]);
    for dim in tensor.shape.iter().flat_map(|s| &s.dim) {
        use tensor_shape_proto::dimension::Value;
        let (known, shown) = match &dim.value {
            Some(Value::DimValue(v)) => (usize::try_from(*v).ok().filter(|v| *v > 0), v.to_string()),
            Some(Value::DimParam(p)) => (None, p.clone()),
            None => (None, "?".into()),
        };
        dims.push(known);
        text.push(shown);
    }
    (dims, text.join(","), tensor.elem_type)
}

/// An input as the file states it.
pub(crate) fn stated_input(info: &ValueInfoProto) -> InspectedInput {
    let (_, text, element_type) = describe(info);
    InspectedInput { name: info.name.clone(), element_type, shape: text.split(',').map(str::to_string).collect() }
}

/// Picks the input, makes its shape concrete in the graph, and says what it is.
fn choose_input(graph: &mut GraphProto, options: &ImportOptions) -> Result<ModelInput, ImportError> {
    let constants: HashSet<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    // Old exporters list weights among the inputs.
    graph.input.retain(|i| !constants.contains(&i.name));
    let names: Vec<String> = graph.input.iter().map(|i| i.name.clone()).collect();
    let name = match (&options.input, &names[..]) {
        (Some(name), _) if names.contains(name) => name.clone(),
        (Some(name), _) => return Err(ImportError::UnknownInput { name: name.clone(), names }),
        (None, [only]) => only.clone(),
        (None, _) => return Err(ImportError::SeveralInputs { names }),
    };
    let Some(info) = graph.input.iter_mut().find(|i| i.name == name) else {
        return Err(ImportError::UnknownInput { name, names });
    };
    let (stated, text, elem_type) = describe(info);
    if !matches!(elem_type, 1 | 2 | 10) {
        let reason = format!("its data type is {elem_type}; float32 (1), uint8 (2) and float16 (10) are supported");
        return Err(ImportError::Graph { node: name, reason });
    }
    let shape: Vec<usize> = match &options.input_shape {
        Some(given) => {
            let bad = |reason: &str| ImportError::BadShape {
                input: name.clone(),
                shape: text.clone(),
                given: given.clone(),
                reason: reason.into(),
            };
            if !stated.is_empty() && stated.len() != given.len() {
                return Err(bad("another number of axes"));
            }
            if given.first() != Some(&1) && given.len() > 1 {
                return Err(bad("the batch must be 1"));
            }
            if stated.iter().zip(given).skip(1).any(|(s, g)| s.is_some_and(|s| s != *g)) {
                return Err(bad("a fixed dimension differs"));
            }
            given.clone()
        }
        None => {
            if let ([Some(n), _, ..], true) = (&stated[..], stated.len() > 1)
                && *n > 1
            {
                return Err(ImportError::Batch { input: name.clone(), shape: text, n: *n });
            }
            let rest: Option<Vec<usize>> = stated.iter().skip(1).copied().collect();
            let rest = rest.filter(|_| !stated.is_empty());
            let rest = rest.ok_or_else(|| ImportError::OpenShape { input: name.clone(), shape: text.clone() })?;
            if stated.len() == 1 {
                stated.iter().filter_map(|d| *d).collect()
            } else {
                std::iter::once(1).chain(rest).collect()
            }
        }
    };
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
    if shape.is_empty() || shape.len() > 4 || n == 0 || n > ELEMENTS_MAX {
        let reason = format!("its shape is {shape:?}; 1 to 4 axes and at most {ELEMENTS_MAX} elements are supported");
        return Err(ImportError::Graph { node: name, reason });
    }
    if let Some(TypeValue::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut()) {
        let dimension = |d: &usize| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*d as i64)),
            ..Default::default()
        };
        tensor.shape = Some(TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    }
    let looks_like_channels = |d: usize| matches!(d, 1 | 3 | 4);
    let channels_first = match shape[..] {
        [_, a, _, c] => looks_like_channels(a) || !looks_like_channels(c),
        _ => false,
    };
    Ok(ModelInput { name, shape, channels_first, bytes: elem_type == 2 })
}

/// `[H, W, C]` of the input tensor and how the ONNX input is found in it.
pub(crate) fn input_view(input: &ModelInput) -> ([usize; 3], View) {
    match input.shape[..] {
        [_, c, h, w] if input.channels_first => ([h, w, c], View::new(4, &[h, w, c], &[2, 3, 1])),
        [_, h, w, c] => ([h, w, c], View::new(4, &[h, w, c], &[1, 2, 3])),
        [_, a, b] => ([1, a, b], View::new(3, &[a, b], &[1, 2])),
        [_, d] => ([1, 1, d], View::new(2, &[d], &[1])),
        [d] => ([1, 1, d], View::new(1, &[d], &[0])),
        _ => ([1, 1, 1], View::new(input.shape.len(), &[], &[])),
    }
}
