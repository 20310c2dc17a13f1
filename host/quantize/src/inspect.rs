//! What a model is and what would become of it, without running it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use tract_onnx::pb::ModelProto;

use crate::cuts::Cut;
use crate::error::{ImportError, Refused};
use crate::lower::{ClassifiedNode, NodeClass};
use crate::model::{ImportOptions, Model, ModelInput, ancestors};

/// Findings.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Who wrote the file.
    pub producer: String,
    /// Operator set of the default domain.
    pub opset: i64,
    /// All inputs.
    pub inputs: Vec<InspectedInput>,
    /// The one that was examined; None if there are several and none was named.
    pub chosen_input: Option<ModelInput>,
    /// All outputs.
    pub outputs: Vec<String>,
    /// Where to cut.
    pub suggested_cut: Option<String>,
    /// Other places, in network order, the suggested one among them.
    pub cuts: Vec<Cut>,
    /// Every node with how it would run.
    pub nodes: Vec<ClassifiedNode>,
    /// Counted by class and operator.
    pub operators: Vec<OperatorCount>,
    /// Nodes that cannot be quantized, all at once, with reasons.
    pub refused: Vec<Refused>,
    /// Those of them before the suggested cut; quantizing needs this to be empty.
    pub refused_before_cut: Vec<Refused>,
    /// Already quantized (QuantizeLinear and DequantizeLinear): activations with a stated scale.
    pub n_stated_scales: usize,
    /// Trained values.
    pub n_parameters: u64,
}

/// An input as the file states it.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedInput {
    /// ONNX name.
    pub name: String,
    /// ONNX element type code.
    pub element_type: i32,
    /// Dimensions; symbols as they are written, `?` where there is nothing.
    pub shape: Vec<String>,
}

/// How many nodes of one operator run in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorCount {
    /// How they run.
    pub class: NodeClass,
    /// ONNX operator.
    pub op: String,
    /// How many.
    pub n: usize,
}

/// Inspects the model at `path`.
///
/// A model with several inputs and none named still gets its inputs and outputs listed, with nothing examined.
///
/// # Errors
/// [`ImportError`] if it cannot be read or `options` do not fit it. Unsupported operators are findings, not errors.
pub fn inspect(path: &Path, options: &ImportOptions) -> Result<Inspection, ImportError> {
    let proto = crate::onnx_file::read(path)?;
    let graph = proto.graph.as_ref().ok_or(ImportError::NoCut)?;
    let initializers: std::collections::HashSet<&str> = graph.initializer.iter().map(|t| &t.name[..]).collect();
    let real_inputs = graph.input.iter().filter(|i| !initializers.contains(&i.name[..]));
    let mut inspection = Inspection {
        producer: format!("{} {}", proto.producer_name, proto.producer_version).trim().to_string(),
        opset: opset(&proto),
        inputs: real_inputs.map(crate::model::stated_input).collect(),
        chosen_input: None,
        outputs: graph.output.iter().map(|o| o.name.clone()).collect(),
        suggested_cut: None,
        cuts: vec![],
        nodes: vec![],
        operators: vec![],
        refused: vec![],
        refused_before_cut: vec![],
        n_stated_scales: 0,
        n_parameters: graph.initializer.iter().map(|t| t.dims.iter().map(|d| *d as u64).product::<u64>()).sum(),
    };
    let model = match Model::from_proto(proto, options) {
        Ok(model) => model,
        Err(ImportError::SeveralInputs { .. }) => return Ok(inspection),
        Err(e) => return Err(e),
    };
    let mut counts: BTreeMap<(NodeClass, String), usize> = BTreeMap::new();
    for node in &model.lowered.nodes {
        *counts.entry((node.class, node.op.clone())).or_default() += 1;
    }
    inspection.operators = counts.into_iter().map(|((class, op), n)| OperatorCount { class, op, n }).collect();
    inspection.refused_before_cut = match (&model.suggested, model.proto.graph.as_ref()) {
        (Some(cut), Some(graph)) => {
            let before = ancestors(graph, std::slice::from_ref(cut)).nodes;
            model.lowered.refused.iter().filter(|r| before.contains(&r.node)).cloned().collect()
        }
        _ => vec![],
    };
    inspection.n_stated_scales = model.fixed.len();
    inspection.chosen_input = Some(model.input);
    inspection.suggested_cut = model.suggested;
    inspection.cuts = model.cuts;
    inspection.refused = model.lowered.refused;
    inspection.nodes = model.lowered.nodes;
    Ok(inspection)
}

/// Version of ONNX's own operators.
pub(crate) fn opset(proto: &ModelProto) -> i64 {
    let own = proto.opset_import.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx");
    own.map_or(0, |o| o.version)
}
