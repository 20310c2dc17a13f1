//! A float network with all that was measured on it, and the bundles that can be made of it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use graft_bundle::file::{Case, Draft};
use graft_bundle::{Bundle, UncheckedBundle};
use graft_engine::Engine;

use crate::calibrate::{Calibration, Probe};
use crate::equalize::equalize;
use crate::error::QuantizeError;
use crate::fallback::{Candidate, Fallback, Fallbacks, candidates, nodes_of};
use crate::float_graph::{FloatGraph, FloatOp, ValueId};
use crate::input_spec::{PictureInput, QuantizedInput, quantized_input};
use crate::inputs::{Content, Sample};
use crate::integer::{Context, Integer, build};
use crate::model::Model;
use crate::quantize::{Progress, QuantizeOptions};
use crate::report::FallbackReport;
use crate::scales::{RangeMethod, choose, separate_joined};
use crate::search::{Found, Kept, search};
use crate::verify::cosine;

/// The largest component of a normalised embedding may grow by this factor over what calibration showed before it is
/// clipped at 127.
const EMBEDDING_HEADROOM: f64 = 1.1;
/// Two bundles are timed in turns for so long, a few inferences each.
const TIMED: Duration = Duration::from_millis(1000);
const TIMED_TOGETHER: usize = 8;

/// What every bundle of a model has in common.
pub(crate) struct Prepared<'a> {
    pub model: &'a Model,
    pub graph: FloatGraph,
    pub input: QuantizedInput,
    pub n_equalized: usize,
    /// Share of embedding components that are clipped.
    pub clip_rate: f64,
    calibration: Calibration,
    means: HashMap<ValueId, Vec<f64>>,
    ranges: RangeMethod,
    draft: Draft,
}

/// A bundle in the making.
pub(crate) struct Made {
    pub integer: Integer,
    pub draft: Draft,
    pub bytes: Vec<u8>,
    pub bundle: Bundle,
    pub engine: Engine,
}

impl<'a> Prepared<'a> {
    /// Runs the float network over the samples.
    pub fn new(
        model: &'a Model,
        mut graph: FloatGraph,
        picture: Option<&PictureInput>,
        samples: &[Sample],
        options: &QuantizeOptions,
        name: String,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Prepared<'a>, QuantizeError> {
        separate_joined(&mut graph);
        let of = samples.len();
        let probe = Probe::new(model, &graph, &probed_values(&graph), false)?;
        let floats = |sample: &Sample| sample.floats(&model.input, picture);
        let mut calibration = probe.statistics(samples, floats, |n| progress(Progress::Calibrated { n, of }))?;
        let mut range = [0f64; 2];
        if picture.is_none() {
            for sample in samples {
                if let Content::Floats(values) = &sample.content {
                    range = values.iter().fold(range, |[l, h], v| [l.min((*v).into()), h.max((*v).into())]);
                }
            }
        }
        let input = quantized_input(&model.input, picture, range);
        let n_equalized = if options.equalize { equalize(&mut graph, &mut calibration, &model.fixed) } else { 0 };
        let means = calibration.statistics.iter().map(|(v, s)| (*v, s.means())).collect();
        let (inv_scale, clip_rate) = embedding_scale(&calibration.outputs)?;
        let draft = Draft {
            name,
            input: input.spec.clone(),
            embedding_len: graph.values.get(graph.output).map_or(0, |value| value.shape[2] as u32),
            inv_scale,
            exact: !graph.nodes.iter().any(|node| matches!(node.op, FloatOp::Onnx(_))),
            origin: options.origin.clone(),
            licence: options.licence.clone(),
            board_class: options.board_class.clone(),
            epoch: options.epoch,
        };
        Ok(Prepared { model, graph, input, n_equalized, clip_rate, calibration, means, ranges: options.ranges, draft })
    }

    /// Activations whose scales the model states.
    pub fn n_stated(&self) -> usize {
        (0..self.graph.values.len()).filter(|value| self.is_stated(*value)).count()
    }

    fn is_stated(&self, value: ValueId) -> bool {
        let source = self.graph.values.get(value).and_then(|value| value.source.as_ref());
        source.is_some_and(|source| self.model.fixed.contains_key(&source.tensor))
    }

    /// The bundle with these fallbacks, without self-tests.
    pub fn build(&self, fallbacks: &Fallbacks) -> Result<Made, QuantizeError> {
        let (calibration, fixed) = (&self.calibration, &self.model.fixed);
        let quants = choose(&self.graph, calibration, &self.input, fixed, self.ranges, &fallbacks.wide);
        let context = Context {
            graph: &self.graph,
            quants: &quants,
            means: &self.means,
            input_offsets: &self.input.offsets,
            float: &fallbacks.float,
        };
        let integer = build(&context)?;
        let bytes = finish(&integer, &self.draft, &[])?;
        let (bundle, engine) = load_bundle(&bytes)?;
        Ok(Made { integer, draft: self.draft.clone(), bytes, bundle, engine })
    }

    /// Everything that can be held finer, sixteen bits before float.
    pub fn candidates(&self) -> [Vec<Candidate>; 2] {
        candidates(&self.graph, |value| self.is_stated(value))
    }

    /// Finds fallbacks that keep the mean loss on these samples, the first ones of the calibration, within the budget.
    pub fn search(
        &self,
        budget: f64,
        samples: &[Sample],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Found, QuantizeError> {
        let tensors = self.tensors(samples)?;
        let measure = |set: &[Fallback]| {
            let mut made = self.build(&set.iter().copied().collect()).ok()?;
            Some(self.loss(&mut made.engine, &tensors))
        };
        let stages = self.candidates();
        search(&stages, budget, &measure, &mut |n| progress(Progress::Searched { n })).map_err(|least| match least {
            Some(least) => {
                QuantizeError::Loss { budget, least, n_inputs: tensors.len(), n_stated_scales: self.n_stated() }
            }
            // The reason why not even int8 can be built.
            None => match self.build(&Fallbacks::default()) {
                Err(error) => error,
                Ok(_) => QuantizeError::Bundle { message: "it was built now, but not before".into() },
            },
        })
    }

    /// Mean of 1 - cosine to the float embeddings; an input without an embedding counts as 1.
    pub fn loss(&self, engine: &mut Engine, tensors: &[Vec<i8>]) -> f64 {
        let cosines = tensors.iter().zip(&self.calibration.outputs).map(|(tensor, float)| {
            engine.embed(tensor).map_or(0.0, |embedding| {
                let embedding: Vec<f32> = embedding.iter().map(|e| f32::from(*e)).collect();
                cosine(&embedding, float)
            })
        });
        1.0 - cosines.sum::<f64>() / tensors.len().max(1) as f64
    }

    /// What a fallback is about, and why it is needed.
    pub fn explain(&self, kept: &Kept) -> FallbackReport {
        let nodes = nodes_of(&self.graph, kept.fallback);
        FallbackReport {
            layers: nodes.iter().map(|node| node.name.clone()).collect(),
            precision: match kept.fallback {
                Fallback::Wide(_) => "int16",
                Fallback::Float(_) => "float",
            },
            macs: nodes.iter().map(|node| self.graph.macs(node)).sum(),
            loss_without: kept.loss_without,
        }
    }

    /// Time of an inference over that of one all in int8, on this computer; None if either cannot be timed.
    pub fn slowdown(&self, made: &mut Made, samples: &[Sample]) -> Option<f64> {
        let mut int8 = self.build(&Fallbacks::default()).ok()?;
        let tensors = self.tensors(samples).ok()?;
        let mut times: [Vec<f64>; 2] = Default::default();
        let begun = Instant::now();
        for tensors in tensors.chunks(TIMED_TOGETHER).cycle().take_while(|_| begun.elapsed() < TIMED) {
            for (engine, times) in [&mut made.engine, &mut int8.engine].into_iter().zip(&mut times) {
                // The first one finds the other's weights in the caches.
                let warm = tensors.first().map(|tensor| engine.embed(tensor));
                warm?.ok()?;
                for tensor in tensors {
                    let start = Instant::now();
                    engine.embed(tensor).ok()?;
                    times.push(start.elapsed().as_secs_f64());
                }
            }
        }
        let [with, without] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied()
        });
        Some(with? / without?)
    }

    pub fn tensors(&self, samples: &[Sample]) -> Result<Vec<Vec<i8>>, QuantizeError> {
        let tensors = samples.iter().map(|sample| sample.tensor(&self.input));
        tensors.collect::<Result<_, _>>().map_err(|message| QuantizeError::Bundle { message })
    }
}

/// Values whose ranges or channel means are needed.
fn probed_values(graph: &FloatGraph) -> Vec<ValueId> {
    let mut wanted: HashSet<ValueId> = HashSet::new();
    for node in &graph.nodes {
        if !node.op.keeps_scale() {
            wanted.insert(node.output);
        }
        if matches!(node.op, FloatOp::Conv(_)) {
            wanted.extend(&node.inputs);
        }
    }
    let mut wanted: Vec<ValueId> = wanted.into_iter().collect();
    wanted.sort_unstable();
    wanted
}

/// Steps per unit of the embedding, and the share of components it clips.
fn embedding_scale(outputs: &[Vec<f32>]) -> Result<(f64, f64), QuantizeError> {
    let normalised: Vec<f64> = outputs
        .iter()
        .flat_map(|output| {
            let norm = output.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
            output.iter().filter(move |_| norm > 0.0).map(move |v| (f64::from(*v) / norm).abs())
        })
        .collect();
    let largest = normalised.iter().fold(0f64, |m, v| m.max(*v));
    if largest == 0.0 {
        return Err(QuantizeError::NoSignal);
    }
    // No component of a unit vector exceeds 1.
    let inv_scale = 127.0 / (largest * EMBEDDING_HEADROOM).min(1.0);
    let n_clipped = normalised.iter().filter(|v| **v * inv_scale > 127.5).count();
    Ok((inv_scale, n_clipped as f64 / normalised.len() as f64))
}

pub(crate) fn finish(integer: &Integer, draft: &Draft, cases: &[Case]) -> Result<Vec<u8>, QuantizeError> {
    let written = integer.writer.clone().finish(draft, &integer.graph, cases);
    written.map_err(|e| QuantizeError::Bundle { message: e.to_string() })
}

pub(crate) fn load_bundle(bytes: &[u8]) -> Result<(Bundle, Engine), QuantizeError> {
    let failed = |e: &dyn std::fmt::Display| QuantizeError::Bundle { message: e.to_string() };
    let unchecked = UncheckedBundle::read(bytes.to_vec()).map_err(|e| failed(&e))?;
    let bundle = unchecked.check().map_err(|e| failed(&e))?;
    let isa = graft_engine::detect_isa().map_err(|e| failed(&e))?;
    let engine = Engine::load_with(&bundle, isa, 1).map_err(|e| failed(&e))?;
    Ok((bundle, engine))
}
