//! The float network, run by tract: the reference that the integers are measured against.

use std::path::Path;
use std::sync::Arc;

use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;

use crate::error::ImportError;
use crate::known::{guarded, reader};
use crate::model::{ImportOptions, Model, ModelInput, ancestors};
use crate::onnx_file::node_name;

/// The float network up to some of its tensors, ready to run.
pub struct FloatRun {
    plan: Arc<TypedRunnableModel>,
    input: ModelInput,
    /// Places among the tensors where the input itself is asked for, which tract does not take.
    is_input: Vec<bool>,
}

impl FloatRun {
    /// Plans the part of the model that computes `tensors` (ONNX names).
    ///
    /// # Errors
    /// [`ImportError::Float`] if tract cannot.
    pub fn new(model: &Model, tensors: &[String]) -> Result<FloatRun, ImportError> {
        let Some(graph) = model.proto.graph.as_ref() else { return Err(ImportError::NoCut) };
        let is_input: Vec<bool> = tensors.iter().map(|tensor| *tensor == model.input.name).collect();
        let computed = tensors.iter().filter(|tensor| **tensor != model.input.name);
        let needed = ancestors(graph, tensors);
        let part = GraphProto {
            node: graph.node.iter().filter(|n| needed.nodes.contains(&node_name(n))).cloned().collect(),
            name: graph.name.clone(),
            initializer: graph.initializer.iter().filter(|t| needed.tensors.contains(&t.name)).cloned().collect(),
            input: graph.input.iter().filter(|i| i.name == model.input.name).cloned().collect(),
            output: computed.map(|t| ValueInfoProto { name: t.clone(), ..Default::default() }).collect(),
            ..Default::default()
        };
        let proto = ModelProto {
            ir_version: model.proto.ir_version,
            opset_import: model.proto.opset_import.clone(),
            graph: Some(part),
            ..Default::default()
        };
        // tract's rewriting fails on a few graphs that it runs as they are (0.23.9: a strided Slice after a Reshape).
        let plan = guarded(|| reader().parse(&proto, None)?.model.into_optimized()?.into_runnable())
            .or_else(|_| guarded(|| reader().parse(&proto, None)?.model.into_typed()?.into_runnable()))
            .map_err(|message| ImportError::Float { message })?;
        Ok(FloatRun { plan, input: model.input.clone(), is_input })
    }

    /// Runs on one input in the original model's layout; returns the tensors' values in ONNX order.
    ///
    /// # Errors
    /// [`ImportError::Float`] if tract fails or the input has another length.
    pub fn run(&self, input: &[f32]) -> Result<Vec<Vec<f32>>, ImportError> {
        let outputs = guarded(|| {
            let mut tensor = Tensor::from_shape(&self.input.shape, input)?;
            let wanted = self.plan.model().input_fact(0)?.datum_type;
            if wanted != DatumType::F32 {
                tensor = tensor.cast_to_dt(wanted)?.into_owned();
            }
            let outputs = self.plan.run(tvec!(tensor.into()))?;
            let mut outputs = outputs.iter();
            let mut values = vec![];
            for is_input in &self.is_input {
                if *is_input {
                    values.push(input.to_vec());
                } else if let Some(output) = outputs.next() {
                    let floats = output.cast_to_dt(DatumType::F32)?;
                    values.push(floats.try_as_plain_ram()?.as_slice::<f32>()?.to_vec());
                }
            }
            Ok(values)
        });
        outputs.map_err(|message| ImportError::Float { message })
    }
}

/// A float backbone up to its cut, for programs that compare int8 with float.
pub struct FloatBackbone {
    run: FloatRun,
    pool: Option<Pool>,
    embedding_len: usize,
}

/// Mean over the positions of a picture, `[outer, positions, inner]` in ONNX order.
#[derive(Clone, Copy)]
struct Pool {
    n_positions: usize,
    channels_last: bool,
}

impl FloatBackbone {
    /// Reads a model and cuts it where [`crate::quantize`] would.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn open(path: &Path, options: &ImportOptions, cut: Option<&str>) -> Result<FloatBackbone, ImportError> {
        let model = Model::open(path, options)?;
        let cut = model.choose_cut(cut)?;
        FloatBackbone::new(&model, &cut)
    }

    /// Of a model that is already open.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn new(model: &Model, cut: &str) -> Result<FloatBackbone, ImportError> {
        let (_, embedding_len, pooled) = model.cut(cut)?;
        let run = FloatRun::new(model, &[cut.to_string()])?;
        let shape = model.known.tensors.get(cut).map(|k| k.shape.clone()).unwrap_or_default();
        let n_positions = shape.iter().product::<usize>() / embedding_len.max(1);
        let channels_last = shape.get(1) != Some(&embedding_len);
        let pool = pooled.then_some(Pool { n_positions, channels_last });
        Ok(FloatBackbone { run, pool, embedding_len })
    }

    /// Length D.
    pub fn embedding_len(&self) -> usize {
        self.embedding_len
    }

    /// The backbone's output `[D]`, not normalised, of one input in the original model's layout.
    ///
    /// # Errors
    /// [`ImportError::Float`].
    pub fn output(&self, input: &[f32]) -> Result<Vec<f32>, ImportError> {
        let mut outputs = self.run.run(input)?;
        let values = outputs.pop().unwrap_or_default();
        let Some(pool) = self.pool else { return Ok(values) };
        let mut sums = vec![0f64; self.embedding_len];
        for (i, value) in values.iter().enumerate() {
            let channel = if pool.channels_last { i % self.embedding_len } else { i / pool.n_positions };
            if let Some(sum) = sums.get_mut(channel) {
                *sum += f64::from(*value);
            }
        }
        Ok(sums.iter().map(|s| (s / pool.n_positions as f64) as f32).collect())
    }

    /// The L2-normalised output.
    ///
    /// # Errors
    /// [`ImportError::Float`]; a zero output stays zero.
    pub fn embed(&self, input: &[f32]) -> Result<Vec<f32>, ImportError> {
        let output = self.output(input)?;
        let norm = output.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        Ok(output.iter().map(|v| if norm > 0.0 { (f64::from(*v) / norm) as f32 } else { 0.0 }).collect())
    }
}
