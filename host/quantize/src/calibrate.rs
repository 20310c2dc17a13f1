//! Running the float network over the calibration inputs: ranges, channel means, embeddings.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::error::{ImportError, QuantizeError};
use crate::float_graph::{FloatGraph, FloatOp, ValueId};
use crate::float_run::FloatRun;
use crate::inputs::Sample;
use crate::model::Model;
use crate::ranges::Statistics;

/// Threads that run the network: as many as keep one reader busy.
const N_RUNNERS: usize = 2;

/// A float network whose inner values can be looked at.
pub struct Probe {
    run: FloatRun,
    tensors: Vec<String>,
    values: Vec<Probed>,
    output: Output,
}

/// Where the embedding comes from.
struct Output {
    tensor: usize,
    /// Memory order of the value, and how many neighbouring elements make one channel's mean.
    order: Vec<usize>,
    embedding_len: usize,
}

/// A value and how its ONNX tensor is laid over it.
struct Probed {
    value: ValueId,
    tensor: usize,
    n_channels: usize,
    /// Neighbouring ONNX elements of one channel; 0 if channels lie in no such simple way.
    inner: usize,
    /// ONNX index of each element in our memory order.
    order: Option<Vec<usize>>,
}

impl Probe {
    /// Plans a run that yields every value in `wanted` that has an ONNX source, and the graph's output.
    ///
    /// # Errors
    /// [`ImportError::Float`].
    pub fn new(model: &Model, graph: &FloatGraph, wanted: &[ValueId], with_order: bool) -> Result<Probe, ImportError> {
        let (mut tensors, mut values, mut index) = (vec![], vec![], HashMap::new());
        let mut tensor_index = |name: &String, tensors: &mut Vec<String>| {
            *index.entry(name.clone()).or_insert_with(|| {
                tensors.push(name.clone());
                tensors.len() - 1
            })
        };
        for value in wanted {
            let Some(described) = graph.values.get(*value) else { continue };
            let Some(source) = described.source.as_ref().filter(|_| *value != graph.input) else { continue };
            let n_channels = described.shape[2];
            values.push(Probed {
                value: *value,
                tensor: tensor_index(&source.tensor, &mut tensors),
                n_channels,
                inner: inner_of(&source.view, n_channels),
                order: with_order.then(|| source.view.memory_order()),
            });
        }
        // The output, or what it is the mean of.
        let mut output = graph.output;
        if let Some(node) = graph.nodes.iter().find(|n| n.output == output)
            && matches!(node.op, FloatOp::GlobalMean)
            && graph.values.get(output).is_some_and(|v| v.source.is_none())
        {
            output = node.inputs.first().copied().unwrap_or(output);
        }
        // Reshapes and reorderings without a source of their own: the value they come from, in its memory order.
        let source = source_of(graph, output).ok_or_else(|| ImportError::BadCut {
            name: "output".into(),
            reason: "the float network does not hold it".into(),
        })?;
        let tensor = tensor_index(&source.0, &mut tensors);
        let embedding_len = graph.values.get(graph.output).map_or(0, |v| v.shape[2]);
        let run = FloatRun::new(model, &tensors)?;
        Ok(Probe { run, tensors, values, output: Output { tensor, order: source.1, embedding_len } })
    }

    /// Calls `each` with every probed value's ONNX numbers and returns the output `[D]`; `outputs` are the run's.
    fn read(
        &self,
        outputs: &[Vec<f32>],
        mut each: impl FnMut(&Probed, &[f32]) -> Result<(), QuantizeError>,
    ) -> Result<Vec<f32>, QuantizeError> {
        for probed in &self.values {
            each(probed, outputs.get(probed.tensor).map(Vec::as_slice).unwrap_or_default())?;
        }
        let values = outputs.get(self.output.tensor).map(Vec::as_slice).unwrap_or_default();
        let mut sums = vec![0f64; self.output.embedding_len];
        let n = (self.output.order.len() / sums.len().max(1)).max(1) as f64;
        for (i, at) in self.output.order.iter().enumerate() {
            let d = i % sums.len().max(1);
            if let (Some(sum), Some(v)) = (sums.get_mut(d), values.get(*at)) {
                *sum += f64::from(*v);
            }
        }
        Ok(sums.iter().map(|s| (s / n) as f32).collect())
    }

    /// Statistics of every probed value over the samples, and every sample's float output. While one sample's numbers
    /// are looked at, the network runs the next ones in threads of their own; the order stays that of the samples.
    ///
    /// # Errors
    /// [`QuantizeError::NotFinite`] naming tensor and input, [`ImportError::Float`].
    pub fn statistics(
        &self,
        samples: &[Sample],
        floats: impl Fn(&Sample) -> Vec<f32> + Sync,
        progress: impl FnMut(usize),
    ) -> Result<Calibration, QuantizeError> {
        std::thread::scope(|scope| {
            let floats = &floats;
            let runs = (0..N_RUNNERS).map(|runner| {
                let (sender, receiver) = sync_channel(1);
                // An error ends the reading; then nobody receives, and the rest need not be run.
                scope.spawn(move || {
                    let mut own = samples.iter().skip(runner).step_by(N_RUNNERS);
                    own.try_for_each(|sample| sender.send(self.run.run(&floats(sample))))
                });
                receiver
            });
            self.gather(samples, runs.collect(), progress)
        })
    }

    fn gather(
        &self,
        samples: &[Sample],
        runners: Vec<Receiver<Result<Vec<Vec<f32>>, ImportError>>>,
        mut progress: impl FnMut(usize),
    ) -> Result<Calibration, QuantizeError> {
        let mut found = Calibration::default();
        for (done, (sample, runner)) in samples.iter().zip(runners.iter().cycle()).enumerate() {
            // A runner that panicked sends no more; the scope panics when it joins it.
            let Ok(outputs) = runner.recv() else { break };
            let not_finite = |tensor: usize| QuantizeError::NotFinite {
                tensor: self.tensors.get(tensor).cloned().unwrap_or_default(),
                input: sample.path.display().to_string(),
            };
            let output = self.read(&outputs?, |probed, values| {
                let n_channels = if probed.inner > 0 { probed.n_channels } else { 0 };
                let statistics = found.statistics.entry(probed.value).or_insert_with(|| Statistics::new(n_channels));
                if statistics.add(values, probed.inner) { Ok(()) } else { Err(not_finite(probed.tensor)) }
            })?;
            if output.iter().any(|v| !v.is_finite()) {
                return Err(not_finite(self.output.tensor));
            }
            found.outputs.push(output);
            progress(done + 1);
        }
        Ok(found)
    }

    /// The values of one input in our memory order, and the output `[D]`.
    ///
    /// # Errors
    /// [`ImportError::Float`].
    pub fn values(&self, input: &[f32]) -> Result<FloatValues, QuantizeError> {
        let mut found = HashMap::new();
        let output = self.read(&self.run.run(input)?, |probed, values| {
            if let Some(order) = &probed.order {
                found.insert(
                    probed.value,
                    order.iter().map(|at| values.get(*at).copied().unwrap_or_default()).collect(),
                );
            }
            Ok(())
        })?;
        Ok(FloatValues { values: found, output })
    }
}

/// One input's float values.
#[derive(Clone, Debug)]
pub struct FloatValues {
    /// In our memory order, by value.
    pub values: HashMap<ValueId, Vec<f32>>,
    /// `[D]`.
    pub output: Vec<f32>,
}

/// What the float network showed on the calibration inputs.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    /// By value.
    pub statistics: HashMap<ValueId, Statistics>,
    /// Float output `[D]` of each sample.
    pub outputs: Vec<Vec<f32>>,
}

/// Neighbouring ONNX elements of one channel, where ONNX counts channel by channel; 1 for channels last; else 0.
fn inner_of(view: &crate::view::View, n_channels: usize) -> usize {
    let order = &view.factors;
    let walk: Vec<usize> = view.axes.iter().flatten().copied().collect();
    if n_channels == 1 {
        return order.iter().product();
    }
    // The memory's last factors make up the channels.
    let mut channels = vec![];
    let mut product = 1;
    for factor in (0..order.len()).rev() {
        if product == n_channels {
            break;
        }
        product *= order[factor];
        channels.insert(0, factor);
    }
    if product != n_channels {
        return 0;
    }
    let start = walk.iter().position(|f| Some(f) == channels.first());
    match start {
        Some(start) if walk.get(start..start + channels.len()) == Some(&channels[..]) => {
            walk.iter().skip(start + channels.len()).filter_map(|f| order.get(*f)).product()
        }
        _ => 0,
    }
}

/// ONNX tensor and memory order of a value, looking through reshapes and reorderings.
fn source_of(graph: &FloatGraph, value: ValueId) -> Option<(String, Vec<usize>)> {
    if let Some(source) = graph.values.get(value).and_then(|v| v.source.as_ref()) {
        return Some((source.tensor.clone(), source.view.memory_order()));
    }
    let node = graph.nodes.iter().find(|n| n.output == value)?;
    let (tensor, order) = source_of(graph, *node.inputs.first()?)?;
    match node.op {
        FloatOp::Reshape => Some((tensor, order)),
        FloatOp::Transpose(axes) => {
            let shape = graph.values.get(*node.inputs.first()?)?.shape;
            let strides = [shape[1] * shape[2], shape[2], 1];
            let [a, b, c] = axes.map(|a| a as usize);
            let mut moved = Vec::with_capacity(order.len());
            for i in 0..shape[a] {
                for j in 0..shape[b] {
                    moved.extend(
                        (0..shape[c])
                            .filter_map(|k| order.get(i * strides[a] + j * strides[b] + k * strides[c]).copied()),
                    );
                }
            }
            Some((tensor, moved))
        }
        _ => None,
    }
}
