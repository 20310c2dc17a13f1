//! The whole way: model and calibration folder in, bundle and report out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use graft_bundle::Graph;
use graft_bundle::file::{Case, CaseInput};
use graft_bundle::graph::{DataType, Step};
use graft_bundle::manifest::seeded_bytes;
use graft_engine::Tracer;
use graft_input::{Limits, decode_npy};

use crate::calibrate::Probe;
use crate::error::{QuantizeError, SpecError, three_digits};
use crate::fallback::Fallbacks;
use crate::float_graph::{FloatGraph, FloatNode, FloatOp, ValueId};
use crate::input_spec::{InputOptions, PictureInput, picture_input, picture_size, read_config};
use crate::inputs::{LoadError, Sample, load, load_folder};
use crate::model::{ImportOptions, Model};
use crate::prepared::{Made, Prepared, finish, load_bundle};
use crate::report::{Expectation, InexactReport, LayerReport, Report, Timings};
use crate::scales::RangeMethod;
use crate::verify::{Pair, Verified, cosine, verify};

/// Calibration inputs beyond this bring nothing (ranges have settled) but time.
pub const CALIBRATION_MAX: usize = 200;
/// Fewer than this are warned about.
pub const CALIBRATION_FEW: usize = 20;
/// An inference so many times as long as in int8 is warned about.
const SLOW: f64 = 10.0;
/// Below this mean cosine to the float embeddings something is wrong.
const COSINE_FAR: f64 = 0.95;
/// A loss is measured on so many inputs at least.
const SEARCHED_MIN: usize = 32;
/// Seeds of the self-test inputs that are generated on the board.
const SELF_TEST_SEEDS: [u32; 2] = [1, 2];

/// What to do.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// How to read the model.
    pub import: ImportOptions,
    /// Where to cut; the suggested place if None.
    pub cut: Option<String>,
    /// Folder (or file) of calibration inputs.
    pub calibration: PathBuf,
    /// Use at most so many of them, capped by [`CALIBRATION_MAX`].
    pub n_calibration: usize,
    /// Compare on so many of them; 0 to skip.
    pub n_verify: usize,
    /// Chooses among the files.
    pub seed: u64,
    /// Preprocessing.
    pub input: InputOptions,
    /// How ranges are chosen.
    pub ranges: RangeMethod,
    /// Largest mean of 1 - cosine between int8 and float embeddings: layers are held finer until it is kept.
    pub max_loss: Option<f64>,
    /// Cross-layer equalization. Off by default: with weights per channel there is little to gain, and a channel that
    /// fills its 8 bits clips what calibration has not shown. Mean cosine on all photos, off and on: MobileNetV2 flowers
    /// 0.9975, 0.9967, hand signs 0.9969, 0.9971; MobileNetV1-0.25 0.9983, 0.9982 and 0.9964, 0.9962; SqueezeNet 1.1
    /// flowers 0.9989, 0.9987; ResNet-20 0.9996 both.
    pub equalize: bool,
    /// The user's own embedding of one input, `.npy`, to compare with.
    pub expect: Option<(PathBuf, PathBuf)>,
    /// Name of the bundle; from the model's path if None.
    pub name: Option<String>,
    /// Free text.
    pub origin: String,
    /// Free text.
    pub licence: String,
    /// Free text.
    pub board_class: String,
    /// Counts releases.
    pub epoch: u64,
}

impl QuantizeOptions {
    /// Defaults for a calibration folder.
    pub fn new(calibration: impl Into<PathBuf>) -> QuantizeOptions {
        QuantizeOptions {
            import: ImportOptions::default(),
            cut: None,
            calibration: calibration.into(),
            n_calibration: CALIBRATION_MAX,
            n_verify: 8,
            seed: 0,
            input: InputOptions::default(),
            ranges: RangeMethod::LeastError,
            max_loss: None,
            equalize: false,
            expect: None,
            name: None,
            origin: String::new(),
            licence: String::new(),
            board_class: String::new(),
            epoch: 0,
        }
    }

    /// Inputs that integers and float are compared on: a loss is to be kept on more than a few.
    fn n_verified(&self) -> usize {
        if self.max_loss.is_some() { self.n_verify.max(SEARCHED_MIN) } else { self.n_verify }
    }
}

/// How far a quantization is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Model read and lowered.
    Imported,
    /// Calibration inputs decoded.
    Decoded {
        /// How many.
        n: usize,
    },
    /// Calibration inputs run.
    Calibrated {
        /// So far.
        n: usize,
        /// Of so many.
        of: usize,
    },
    /// Sets of fallbacks measured so far.
    Searched {
        /// How many.
        n: usize,
    },
    /// The integer graph is written.
    Quantized,
    /// Compared with float.
    Verified,
}

/// A finished bundle.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The file.
    pub bundle_bytes: Vec<u8>,
    /// What was done and how good it is.
    pub report: Report,
}

/// Quantizes the model at `path`.
///
/// # Errors
/// [`QuantizeError`]; nothing is written anywhere.
pub fn quantize(
    path: &Path,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Quantized, QuantizeError> {
    let mut timings = Timings::default();
    let mut clock = Clock(Instant::now());
    let model = Model::open(path, &options.import)?;
    let cut = model.choose_cut(options.cut.as_deref())?;
    let (graph, _, pooled) = model.cut(&cut)?;
    let picture = settle_input(path, &model, &options.input)?;
    timings.import_ms = clock.lap();
    progress(Progress::Imported);
    let n = options.n_calibration.clamp(1, CALIBRATION_MAX);
    let loaded = load_folder(&options.calibration, n, options.seed, &model.input, picture.as_ref())?;
    timings.decode_ms = clock.lap();
    progress(Progress::Decoded { n: loaded.samples.len() });

    let name = options.name.clone().unwrap_or_else(|| bundle_name(path));
    let prepared = Prepared::new(&model, graph, picture.as_ref(), &loaded.samples, options, name, progress)?;
    timings.calibrate_ms = clock.lap();
    let verified_samples: Vec<Sample> = loaded.samples.iter().take(options.n_verified()).cloned().collect();
    let found = match options.max_loss {
        Some(budget) => Some(prepared.search(budget, &verified_samples, progress)?),
        None => None,
    };
    timings.search_ms = clock.lap();
    let fallbacks: Fallbacks = found.iter().flat_map(|found| &found.kept).map(|kept| kept.fallback).collect();
    let mut made = prepared.build(&fallbacks)?;
    let case_input = loaded
        .samples
        .first()
        .map(|s| s.tensor(&prepared.input))
        .transpose()
        .map_err(|message| QuantizeError::Bundle { message })?;
    made.add_self_tests(case_input)?;
    timings.quantize_ms = clock.lap();
    progress(Progress::Quantized);

    let verified = made.verify(&prepared, picture.as_ref(), &verified_samples)?;
    let expect = options
        .expect
        .as_ref()
        .map(|(input, expected)| made.expect(&prepared, picture.as_ref(), input, expected))
        .transpose()?;
    let is_finer = fallbacks != Fallbacks::default();
    let slowdown = if is_finer { prepared.slowdown(&mut made, &verified_samples) } else { None };
    timings.verify_ms = clock.lap();
    progress(Progress::Verified);

    let mut report = made.report(&prepared, &verified, &verified_samples);
    report.max_loss = options.max_loss;
    if let Some(found) = found {
        report.loss_int8 = Some(found.loss_int8);
        report.fallbacks = found.kept.iter().map(|kept| prepared.explain(kept)).collect();
        report.loss_int16 = found.loss_first_stage.filter(|_| !fallbacks.float.is_empty());
        report.slowdown = slowdown;
    }
    report.cut = cut;
    report.pooled = pooled;
    report.input = picture.map(|p| p.echo);
    report.n_calibration = loaded.samples.len();
    report.n_seen = loaded.n_seen;
    report.skipped = loaded.skipped;
    report.timings = timings;
    report.expect = expect;
    if report.n_calibration < CALIBRATION_FEW {
        let (n, plural) = (report.n_calibration, if report.n_calibration == 1 { "" } else { "s" });
        let what = if report.max_loss.is_some() { "ranges and the loss" } else { "ranges" };
        report.warnings.push(format!("{n} calibration input{plural}; {what} are safer from {CALIBRATION_FEW} on"));
    }
    if let Some(beyond) = model.beyond.as_ref().filter(|_| options.cut.is_none()) {
        let text = format!(
            "cut at `{}`, before operators that have no integer or exact form; --allow-inexact reaches `{beyond}`",
            report.cut
        );
        report.warnings.push(text);
    }
    if let Some(cosine) = report.cosine_mean.filter(|cosine| *cosine < COSINE_FAR) {
        let text = format!(
            "embeddings are far from float's: cosine {} on average; -v lists the noisiest layers, --max-loss holds them finer",
            three_digits(cosine)
        );
        report.warnings.push(text);
    }
    if !report.exact {
        let n: usize = report.inexact.iter().map(|piece| piece.nodes.len()).sum();
        let text = format!(
            "not exact: tract's float code runs {n} nodes, so embeddings may differ between CPUs, and samples of two boards may \
             not be equal byte for byte"
        );
        report.warnings.push(text);
    }
    if let Some(slowdown) = report.slowdown.filter(|slowdown| *slowdown >= SLOW) {
        let text =
            format!("an inference takes {slowdown:.0} times as long as in int8; a larger loss needs fewer layers");
        report.warnings.push(text);
    }
    Ok(Quantized { bundle_bytes: made.bytes, report })
}

/// The settled preprocessing of a model's pictures: options over `preprocessor_config.json`.
pub(crate) fn settle_input(
    path: &Path,
    model: &Model,
    options: &InputOptions,
) -> Result<Option<PictureInput>, QuantizeError> {
    let config = match picture_size(&model.input) {
        Some([height, width, _]) => read_config(path, height, width)?,
        None => None,
    };
    Ok(picture_input(&model.input, &options.clone().or(config.unwrap_or_default()))?)
}

impl Made {
    /// One calibration input as it is, and two generated ones that reach the extremes. An input without a direction
    /// makes no case.
    fn add_self_tests(&mut self, stored: Option<Vec<i8>>) -> Result<(), QuantizeError> {
        let n = self.engine.input_len();
        let seeded = SELF_TEST_SEEDS
            .map(|seed| (CaseInput::Seeded(seed), seeded_bytes(seed).take(n).map(|b| b as i8).collect::<Vec<i8>>()));
        let stored = stored.map(|tensor| (CaseInput::Stored(tensor.clone()), tensor));
        let mut cases = vec![];
        for (input, tensor) in stored.into_iter().chain(seeded) {
            if let Ok(expected) = self.engine.embed(&tensor) {
                cases.push(Case { input, expected });
            }
        }
        self.bytes = finish(&self.integer, &self.draft, &cases)?;
        (self.bundle, self.engine) = load_bundle(&self.bytes)?;
        self.engine.self_test(&self.bundle).map_err(|e| QuantizeError::Bundle { message: e.to_string() })?;
        Ok(())
    }

    fn verify(
        &mut self,
        prepared: &Prepared<'_>,
        picture: Option<&PictureInput>,
        samples: &[Sample],
    ) -> Result<Verified, QuantizeError> {
        if samples.is_empty() {
            return Ok(Verified::default());
        }
        let values: Vec<ValueId> = prepared.graph.nodes.iter().map(|n| n.output).collect();
        let probe = Probe::new(prepared.model, &prepared.graph, &values, true)?;
        let failed = |e: graft_engine::LoadError| QuantizeError::Bundle { message: e.to_string() };
        let mut tracer = Tracer::load(&self.bundle, self.engine.isa()).map_err(failed)?;
        let pair = Pair {
            engine: &mut self.engine,
            tracer: &mut tracer,
            probe: &probe,
            graph: &prepared.graph,
            tensors: &self.integer.tensors,
        };
        verify(pair, samples, &prepared.model.input, picture, &prepared.input)
    }

    /// Compares the user's own embedding with both networks'.
    fn expect(
        &mut self,
        prepared: &Prepared<'_>,
        picture: Option<&PictureInput>,
        input: &Path,
        expected: &Path,
    ) -> Result<Expectation, QuantizeError> {
        let unusable = |path: &Path, reason: String| QuantizeError::Expect { path: path.into(), reason };
        let mut contents = load(input, &prepared.model.input, picture).map_err(|e| match e {
            LoadError::NormMissing => QuantizeError::Input(SpecError::NormMissing),
            LoadError::File(reason) => unusable(input, reason),
        })?;
        let content = contents.pop().filter(|_| contents.is_empty());
        let content = content.ok_or_else(|| unusable(input, "it holds several inputs; 1 is expected".into()))?;
        let sample = Sample { path: input.into(), content };
        let bytes = std::fs::read(expected).map_err(|e| unusable(expected, e.to_string()))?;
        let array = decode_npy(&bytes, &Limits::default()).map_err(|e| unusable(expected, e.to_string()))?;
        let d = self.engine.embedding_len();
        if array.values.len() != d {
            return Err(unusable(expected, format!("it has {} values; the embedding has {d}", array.values.len())));
        }
        let tensor = sample.tensor(&prepared.input).map_err(|reason| unusable(input, reason))?;
        let embedding = self.engine.embed(&tensor).map_err(|e| unusable(input, e.to_string()))?;
        let embedding: Vec<f32> = embedding.iter().map(|e| f32::from(*e)).collect();
        let probe = Probe::new(prepared.model, &prepared.graph, &[], false)?;
        let float = probe.values(&sample.floats(&prepared.model.input, picture))?.output;
        Ok(Expectation {
            input: input.into(),
            cosine_float: cosine(&array.values, &float),
            cosine_bundle: cosine(&array.values, &embedding),
        })
    }

    fn report(&self, prepared: &Prepared<'_>, verified: &Verified, samples: &[Sample]) -> Report {
        let notes = &self.integer.notes;
        let layers: Vec<LayerReport> = notes
            .iter()
            .filter_map(|note| {
                let step = self.integer.graph.steps.get(note.step)?;
                Some(LayerReport {
                    name: step.name.clone(),
                    op: step.op.name(),
                    macs: note.macs,
                    precision: precision(&self.integer.graph, step),
                    snr_db: note.value.and_then(|value| verified.snr_db.get(&value)).copied(),
                    n_coarser: note.n_coarser,
                    n_wide: note.n_wide,
                })
            })
            .collect();
        let worst = verified.cosines.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        let n = verified.cosines.len();
        Report {
            embedding_len: self.engine.embedding_len(),
            bundle_bytes: self.bytes.len(),
            macs: prepared.graph.nodes.iter().map(|n| prepared.graph.macs(n)).sum(),
            exact: self.draft.exact,
            inexact: inexact(&prepared.graph),
            n_verified: n,
            cosine_mean: (n > 0).then(|| verified.cosines.iter().sum::<f64>() / n as f64),
            cosine_min: worst.map(|(_, c)| *c),
            worst_file: worst.and_then(|(i, _)| samples.get(i)).map(|s| s.path.clone()),
            inv_scale: self.draft.inv_scale,
            clip_rate: prepared.clip_rate,
            n_stated_scales: prepared.n_stated(),
            n_equalized: prepared.n_equalized,
            n_coarser_channels: notes.iter().map(|n| n.n_coarser).sum(),
            n_wide_channels: notes.iter().map(|n| n.n_wide).sum(),
            layers,
            ..Report::default()
        }
    }
}

/// What tract runs.
fn inexact(graph: &FloatGraph) -> Vec<InexactReport> {
    let piece = |node: &FloatNode| match &node.op {
        FloatOp::Onnx(piece) => Some(InexactReport {
            layer: node.name.clone(),
            nodes: piece.nodes.iter().map(|n| n.node.clone()).collect(),
            operators: piece.nodes.iter().map(|n| n.op.clone()).collect(),
        }),
        _ => None,
    };
    graph.nodes.iter().filter_map(piece).collect()
}

/// What a step's numbers are, as reports name it.
fn precision(graph: &Graph, step: &Step) -> &'static str {
    if !step.op.is_exact() {
        return "float (tract)";
    }
    let tensors = step.inputs.iter().chain([&step.output]).filter_map(|id| graph.tensors.get(id.0 as usize));
    let types: Vec<DataType> = tensors.map(|tensor| tensor.data_type).collect();
    if types.contains(&DataType::F32) {
        "float"
    } else if types.contains(&DataType::I16) {
        "int16"
    } else {
        "int8"
    }
}

/// The file's stem, or its folder's name where the file is called like all others; at most 64 bytes.
fn bundle_name(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = path.canonicalize().ok().and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()));
    let name = if stem == "model" { folder.unwrap_or(stem) } else { stem };
    let mut end = name.len().min(64);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    if end == 0 { "backbone".into() } else { name[..end].into() }
}

struct Clock(Instant);

impl Clock {
    /// Milliseconds since the last lap.
    fn lap(&mut self) -> f64 {
        let ms = self.0.elapsed().as_secs_f64() * 1e3;
        self.0 = Instant::now();
        ms
    }
}
