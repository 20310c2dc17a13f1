//! The integers against the float network: cosine of embeddings, signal to noise of layers.

use std::collections::HashMap;

use graft_bundle::TensorId;
use graft_engine::{Engine, Tracer};

use crate::calibrate::Probe;
use crate::error::QuantizeError;
use crate::float_graph::{FloatGraph, ValueId};
use crate::input_spec::{PictureInput, QuantizedInput};
use crate::inputs::Sample;
use crate::model::ModelInput;

/// What verification found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified {
    /// Cosine of each sample.
    pub cosines: Vec<f64>,
    /// By value: decibels.
    pub snr_db: HashMap<ValueId, f64>,
}

/// Two networks that should agree, and what translates between them.
pub(crate) struct Pair<'a> {
    pub engine: &'a mut Engine,
    /// Of the same bundle.
    pub tracer: &'a mut Tracer,
    pub probe: &'a Probe,
    pub graph: &'a FloatGraph,
    pub tensors: &'a HashMap<ValueId, TensorId>,
}

/// Compares on each sample.
///
/// # Errors
/// [`QuantizeError::Bundle`] if the engine fails, [`crate::ImportError::Float`] if tract does.
pub(crate) fn verify(
    pair: Pair<'_>,
    samples: &[Sample],
    input: &ModelInput,
    picture: Option<&PictureInput>,
    quantized: &QuantizedInput,
) -> Result<Verified, QuantizeError> {
    let Pair { engine, tracer, probe, graph, tensors } = pair;
    let bundle = |message: String| QuantizeError::Bundle { message };
    let mut found = Verified::default();
    let mut energies: HashMap<ValueId, [f64; 2]> = HashMap::new();
    for sample in samples {
        let tensor = sample.tensor(quantized).map_err(bundle)?;
        let embedding = engine.embed(&tensor).map_err(|e| bundle(e.to_string()))?;
        let traced: HashMap<TensorId, Vec<f32>> =
            tracer.run(&tensor).map_err(|e| bundle(e.to_string()))?.into_iter().collect();
        let float = probe.values(&sample.floats(input, picture))?;
        let embedding: Vec<f32> = embedding.iter().map(|e| f32::from(*e)).collect();
        found.cosines.push(cosine(&embedding, &float.output));
        for (value, float) in &float.values {
            let Some(integer) = tensors.get(value).and_then(|t| traced.get(t)) else { continue };
            let energy = energies.entry(*value).or_default();
            // Equalized channels are compared at the size that the float network gives them.
            let factors = graph.values.get(*value).and_then(|v| v.factors.as_ref());
            for (i, (f, q)) in float.iter().zip(integer).enumerate() {
                let factor = factors.and_then(|f| f.get(i % f.len().max(1))).copied().unwrap_or(1.0);
                let (f, q) = (f64::from(*f), f64::from(*q) / factor);
                energy[0] += f * f;
                energy[1] += (f - q) * (f - q);
            }
        }
    }
    let db =
        |[signal, noise]: [f64; 2]| if noise > 0.0 && signal > 0.0 { 10.0 * (signal / noise).log10() } else { 99.0 };
    found.snr_db = energies.into_iter().map(|(value, energy)| (value, db(energy))).collect();
    Ok(found)
}

/// Cosine between two vectors; 0 if one has no direction.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norm = (dot(a, a) * dot(b, b)).sqrt();
    if norm > 0.0 { dot(a, b) / norm } else { 0.0 }
}
