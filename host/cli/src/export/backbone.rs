//! Backbone and head as one ONNX graph, for machines that have ONNX Runtime and no board.
//!
//! In: for pictures `pixels` u8 `[N, H, W, C]`, a picture after the bundle's geometry, whose normalisation is part of the
//! graph; for arrays `input` f32 `[N, ...]` in the original model's layout. Out: `label` i64 `[N]`, `scores` f32 `[N, C]`,
//! `embedding` int8 `[N, D]`. Tensors are channels first inside.
//!
//! [`Precision::Int8`] quantizes and dequantizes at every int8 tensor (QDQ), which runtimes fuse into integer operators;
//! [`Precision::Float`] keeps the limits of the tensors and rounds no activation. Neither gives graft's bits: a runtime
//! rounds with other multipliers, so an embedding can differ by a step, and so can a label where two classes are close.

use std::borrow::Cow;

use graft_bundle::graph::{Blob, DataType, MULTIPLIER_ONE, Op, POSITION_ONE, Step, Tensor, TensorId, Window};
use graft_bundle::input::{Channels, Filter, Geometry, ImageSpec};
use graft_bundle::{Bundle, Graph};
use serde_json::json;

use super::Exported;
use super::onnx::add_head;
use super::onnx_graph::{Element, OnnxGraph, integer, integers, text};
use super::protobuf::Message;

/// A factor this close to 1 is the rounding of an integer multiplier.
const FACTOR_ROUNDING: f64 = 1e-3;

/// Numbers of the exported backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// QDQ.
    Int8,
    /// Activations in f32; weights are the int8 ones, dequantized.
    Float,
}

impl Precision {
    /// As the command line, the file's metadata and `--json` name it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Int8 => "int8",
            Precision::Float => "float",
        }
    }
}

/// Integer limits of an int8 tensor that nothing else limits.
const FULL: (i32, i32) = (i8::MIN as i32, i8::MAX as i32);

/// Why a bundle cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexportable {
    /// An op without a counterpart here.
    #[error("step {step:?} ({op}) has no ONNX counterpart here")]
    Op {
        /// Its name.
        step: String,
        /// Its op.
        op: &'static str,
    },
    /// Tensors or blobs that are not there.
    #[error("bundle is malformed: {0}")]
    Malformed(&'static str),
}

/// The bytes of the file. The bundle must be one that the engine accepts.
///
/// # Errors
/// [`Unexportable`].
pub fn onnx_with_backbone(head: &Exported<'_>, bundle: &Bundle, precision: Precision) -> Result<Vec<u8>, Unexportable> {
    let mut writer = Writer { onnx: OnnxGraph::default(), bundle, graph: bundle.graph(), precision, n_scaled: 0 };
    writer.input()?;
    for step in &bundle.graph().steps {
        writer.step(step)?;
    }
    writer.embedding();
    add_head(&mut writer.onnx, head, "embedding_f32");
    let manifest = bundle.manifest();
    writer.onnx.output("embedding", Element::I8, &[manifest.embedding_len as usize]);
    let mut metadata = head.metadata.clone();
    metadata.retain(|(key, _)| *key != "formula");
    metadata.push(("backbone", manifest.name.clone()));
    let hash = bundle.file_hash().map_err(|_| Unexportable::Malformed("the file cannot be read any more"))?;
    metadata.push(("bundle", hash.to_string()));
    metadata.push(("precision", precision.name().to_owned()));
    metadata.push(("picture", manifest.input.image.as_ref().map_or_else(String::new, picture)));
    Ok(writer.onnx.finish("graft_backbone_and_head", &metadata))
}

/// How a picture becomes `pixels`, as JSON.
fn picture(image: &ImageSpec) -> String {
    let channels = match image.channels {
        Channels::Rgb => "rgb",
        Channels::Bgr => "bgr",
        Channels::Grey => "grey",
    };
    let geometry = match image.geometry {
        Geometry::Squash => json!("squash"),
        Geometry::ShortestCrop { shorter_side } => json!({ "shortest_crop": shorter_side }),
        Geometry::Letterbox { fill } => json!({ "letterbox": fill }),
        Geometry::Strokes => json!("strokes"),
    };
    let filter = match image.filter {
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
        Filter::Nearest => "nearest",
    };
    let size = [image.height, image.width];
    json!({ "size": size, "channels": channels, "geometry": geometry, "filter": filter }).to_string()
}

/// Weights `[positions, n]` of `n` elements at each position.
fn interpolation(positions: &[i32], n: usize) -> Vec<Vec<f32>> {
    let row = |position: &i32| {
        let place = f64::from(*position) / f64::from(POSITION_ONE);
        (0..n).map(|i| (1.0 - (place - i as f64).abs()).max(0.0) as f32).collect()
    };
    positions.iter().map(row).collect()
}

struct Writer<'a> {
    onnx: OnnxGraph,
    bundle: &'a Bundle,
    graph: &'a Graph,
    precision: Precision,
    /// Tensors multiplied on their own so far.
    n_scaled: u32,
}

/// Name of the tensor's real values, channels first.
fn name(id: TensorId) -> String {
    format!("t{}", id.0)
}

impl Writer<'_> {
    fn tensor(&self, id: TensorId) -> Result<&Tensor, Unexportable> {
        self.graph.tensors.get(id.0 as usize).ok_or(Unexportable::Malformed("a tensor is missing"))
    }

    fn blob(&self, blob: Blob) -> Result<Cow<'_, [u8]>, Unexportable> {
        self.bundle.blob(blob).map_err(|_| Unexportable::Malformed("a blob lies outside the payload"))
    }

    fn i8s(&self, blob: Blob) -> Result<Vec<i8>, Unexportable> {
        Ok(self.blob(blob)?.iter().map(|byte| *byte as i8).collect())
    }

    fn i16s(&self, blob: Blob) -> Result<Vec<i16>, Unexportable> {
        Ok(self.blob(blob)?.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
    }

    fn f32s(&self, blob: Blob) -> Result<Vec<f32>, Unexportable> {
        Ok(self.blob(blob)?.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    fn i32s(&self, blob: Blob) -> Result<Vec<i32>, Unexportable> {
        let bytes = self.blob(blob)?;
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
    }

    fn input(&mut self) -> Result<(), Unexportable> {
        let id = self.graph.input;
        let (bundle, tensor) = (self.bundle, self.tensor(id)?.clone());
        let raw = "input_real";
        let [h, w, c] = tensor.shape.map(|side| side as usize);
        let spec = &bundle.manifest().input;
        if let Some(image) = &spec.image {
            self.onnx.input("pixels", Element::U8, &[h, w, c]);
            self.onnx.node("Cast", &["pixels"], "pixel", [integer("to", Element::I32 as u64)]);
            self.onnx.i32s("first_of_channel", &[c], (0..c as i32).map(|channel| 256 * channel));
            self.onnx.node("Add", &["pixel", "first_of_channel"], "entry", []);
            self.onnx.f32s(
                "normalised",
                &[image.table.len()],
                image.table.iter().map(|byte| tensor.real((*byte as i8).into()) as f32),
            );
            self.onnx.node("Gather", &["normalised", "entry"], "channels_last", []);
            self.channels_first("channels_last", raw);
        } else {
            let shape: Vec<usize> = spec.array.shape.iter().map(|side| *side as usize).collect();
            self.onnx.input("input", Element::F32, &shape);
            if spec.array.channels_first {
                self.onnx.i64s("input_shape", &[0, c as i64, h as i64, w as i64]);
                self.onnx.node("Reshape", &["input", "input_shape"], raw, []);
            } else {
                self.onnx.i64s("input_shape", &[0, h as i64, w as i64, c as i64]);
                self.onnx.node("Reshape", &["input", "input_shape"], "channels_last", []);
                self.channels_first("channels_last", raw);
            }
        }
        self.land(id, raw, Some(FULL))
    }

    fn channels_last(&mut self, from: &str, to: &str) {
        self.onnx.node("Transpose", &[from], to, [integers("perm", [0, 2, 3, 1])]);
    }

    fn channels_first(&mut self, from: &str, to: &str) {
        self.onnx.node("Transpose", &[from], to, [integers("perm", [0, 3, 1, 2])]);
    }

    /// From a step's real result to its tensor: within its limits, and on its integers where precision and type say so.
    fn land(&mut self, id: TensorId, raw: &str, limits: Option<(i32, i32)>) -> Result<(), Unexportable> {
        let tensor = self.tensor(id)?.clone();
        let name = name(id);
        let quantized = self.precision == Precision::Int8 && tensor.data_type == DataType::I8;
        let clamped = format!("{name}_clamped");
        let mut from = raw;
        // Quantizing clamps to the whole range by itself.
        if let Some((low, high)) = limits.filter(|limits| !quantized || *limits != FULL) {
            let [lowest, highest] = [format!("{name}_low"), format!("{name}_high")];
            self.onnx.f32s(&lowest, &[], [tensor.real(low) as f32]);
            self.onnx.f32s(&highest, &[], [tensor.real(high) as f32]);
            self.onnx.node("Clip", &[from, &lowest, &highest], &clamped, []);
            from = &clamped;
        }
        if quantized {
            let [scale, zero, q] = ["scale", "zero", "q"].map(|what| format!("{name}_{what}"));
            self.onnx.f32s(&scale, &[], [tensor.scale as f32]);
            self.onnx.i8s(&zero, &[], [tensor.zero_point as i8]);
            self.onnx.node("QuantizeLinear", &[from, &scale, &zero], &q, []);
            self.onnx.node("DequantizeLinear", &[&q, &scale, &zero], &name, []);
        } else {
            self.onnx.node("Identity", &[from], &name, []);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Unexportable> {
        let raw = format!("{}_real", name(step.output));
        let inputs: Vec<String> = step.inputs.iter().map(|id| name(*id)).collect();
        let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let (Some(&first), Some(&x)) = (step.inputs.first(), names.first()) else {
            return Err(Unexportable::Malformed("a step has no input"));
        };
        let (from, to) = (self.tensor(first)?.clone(), self.tensor(step.output)?.clone());
        // What a multiplier means to real values.
        let factor = |multiplier: i32| f64::from(multiplier) / MULTIPLIER_ONE * to.scale / from.scale;
        // Of ops that requantize; the others only move values that are within theirs.
        let mut limits = None;
        match &step.op {
            Op::Conv { window, groups, weights, bias, requantize } => {
                limits = Some((requantize.low, requantize.high));
                let scales: Vec<f64> = self.i32s(requantize.multipliers)?.iter().map(|m| factor(*m)).collect();
                let (weights, bias) = (self.i8s(*weights)?, self.i32s(*bias)?);
                let shape = [to.shape[2], from.shape[2] / groups.max(&1), window.kernel[0], window.kernel[1]];
                let [w, b] =
                    self.conv_constants(&raw, &shape.map(|side| side as usize), &weights, &bias, &scales, from.scale);
                let group = [integer("group", u64::from(*groups))];
                self.onnx.node("Conv", &[x, &w, &b], &raw, window_attributes(window, true).chain(group));
            }
            Op::Add { multipliers, shift, low, high } => {
                limits = Some((*low, *high));
                let mut terms = Vec::new();
                for ((id, input), multiplier) in step.inputs.iter().zip(&inputs).zip(multipliers) {
                    let scale = self.tensor(*id)?.scale;
                    let factor = f64::from(*multiplier) / f64::from(1u32 << shift) * to.scale / scale;
                    terms.push(self.scaled(input, factor));
                }
                let terms: Vec<&str> = terms.iter().map(String::as_str).collect();
                self.onnx.node("Add", &terms, &raw, []);
            }
            Op::Mul { multiplier, low, high } => {
                limits = Some((*low, *high));
                let (Some(&second), Some(&y)) = (step.inputs.get(1), names.get(1)) else {
                    return Err(Unexportable::Malformed("a Mul has one input"));
                };
                let scaled = self.scaled(x, factor(*multiplier) / self.tensor(second)?.scale);
                self.onnx.node("Mul", &[&scaled, y], &raw, []);
            }
            Op::MatMul { multiplier, low, high } => {
                limits = Some((*low, *high));
                let (Some(&second), Some(&y)) = (step.inputs.get(1), names.get(1)) else {
                    return Err(Unexportable::Malformed("a MatMul has one input"));
                };
                let scaled = self.scaled(x, factor(*multiplier) / self.tensor(second)?.scale);
                let [a, b, product] = ["first", "second", "product"].map(|what| format!("{raw}_{what}"));
                self.channels_last(&scaled, &a);
                self.channels_last(y, &b);
                self.onnx.node("MatMul", &[&a, &b], &product, []);
                self.channels_first(&product, &raw);
            }
            Op::AveragePool { window, count_pad, multiplier, low, high } if window.dilation == [1, 1] => {
                limits = Some((*low, *high));
                let scaled = self.scaled(x, factor(*multiplier));
                let counts = [integer("count_include_pad", u64::from(*count_pad))];
                self.onnx.node("AveragePool", &[&scaled], &raw, window_attributes(window, false).chain(counts));
            }
            Op::GlobalSum => {
                let n_pixels = f64::from(from.shape[0]) * f64::from(from.shape[1]);
                let scaled = self.scaled(x, n_pixels * to.scale / from.scale);
                self.onnx.node("GlobalAveragePool", &[&scaled], &raw, []);
            }
            Op::MaxPool { window } => self.onnx.node("MaxPool", &names, &raw, window_attributes(window, true)),
            Op::Table { table } => {
                let entries: Vec<i32> = match to.data_type {
                    DataType::I8 => self.i8s(*table)?.into_iter().map(i32::from).collect(),
                    _ => self.i16s(*table)?.into_iter().map(i32::from).collect(),
                };
                self.table(x, &from, &entries, &to, &raw);
            }
            Op::Concat { axis } => {
                let axis = *AXES.get(*axis as usize).ok_or(Unexportable::Malformed("a Concat has no such axis"))?;
                self.onnx.node("Concat", &names, &raw, [integer("axis", axis)]);
            }
            Op::Upsample { factor } => {
                let factors = format!("{raw}_factors");
                self.onnx.f32s(&factors, &[4], [1.0, 1.0, factor[0] as f32, factor[1] as f32]);
                let nearest = [
                    text("mode", "nearest"),
                    text("coordinate_transformation_mode", "asymmetric"),
                    text("nearest_mode", "floor"),
                ];
                self.onnx.node("Resize", &[x, "", &factors], &raw, nearest);
            }
            Op::Resize { rows, columns } => {
                // Interpolation along an axis is a product with a matrix of two weights per row.
                let [above, left, of_rows] = ["rows", "columns", "of_rows"].map(|what| format!("{raw}_{what}"));
                let [h, w] = [from.shape[0], from.shape[1]].map(|size| size as usize);
                let (rows, columns) = (self.i32s(*rows)?, self.i32s(*columns)?);
                self.onnx.f32s(&above, &[rows.len(), h], interpolation(&rows, h).into_iter().flatten());
                let weights = interpolation(&columns, w);
                let turned = (0..w).flat_map(|i| weights.iter().filter_map(move |row| row.get(i).copied()));
                self.onnx.f32s(&left, &[w, columns.len()], turned);
                self.onnx.node("MatMul", &[&above, x], &of_rows, []);
                self.onnx.node("MatMul", &[&of_rows, &left], &raw, []);
            }
            Op::FloatSoftmax => self.onnx.node("Softmax", &names, &raw, [integer("axis", 1)]),
            Op::Reshape => {
                let [last, shape, shaped] = ["last", "shape", "shaped"].map(|what| format!("{raw}_{what}"));
                self.channels_last(x, &last);
                let [h, w, c] = to.shape.map(i64::from);
                self.onnx.i64s(&shape, &[0, h, w, c]);
                self.onnx.node("Reshape", &[&last, &shape], &shaped, []);
                self.channels_first(&shaped, &raw);
            }
            Op::Transpose { axes } => {
                // Output axes are batch, channels, height, width.
                let mut perm = vec![0];
                let [h, w, c] = *axes;
                for axis in [c, h, w] {
                    perm.push(*AXES.get(axis as usize).ok_or(Unexportable::Malformed("a Transpose has no such axis"))?);
                }
                self.onnx.node("Transpose", &names, &raw, [integers("perm", perm)]);
            }
            Op::Dequantize { .. } => self.onnx.node("Identity", &[x], &raw, []),
            Op::Quantize { low, high, .. } => {
                limits = Some((*low, *high));
                self.onnx.node("Identity", &[x], &raw, []);
            }
            Op::FloatConv { window, groups, weights, bias } => {
                let (weights, bias) = (self.f32s(*weights)?, self.f32s(*bias)?);
                let shape = [to.shape[2], from.shape[2] / groups.max(&1), window.kernel[0], window.kernel[1]];
                let shape = shape.map(|side| side as usize);
                let names = ["weights", "bias"].map(|what| format!("{raw}_{what}"));
                self.onnx.f32s(&names[0], &shape, channels_first(&weights, &shape).map(|(_, w)| w));
                self.onnx.f32s(&names[1], &[shape[0]], bias);
                let group = [integer("group", u64::from(*groups))];
                self.onnx.node("Conv", &[x, &names[0], &names[1]], &raw, window_attributes(window, true).chain(group));
            }
            other => return Err(Unexportable::Op { step: step.name.clone(), op: other.name() }),
        }
        self.land(step.output, &raw, limits)
    }

    /// Weights and bias of a convolution, `[out_c, in_c, h, w]` and `[out_c]`; returns their names.
    fn conv_constants(
        &mut self,
        prefix: &str,
        shape: &[usize; 4],
        weights: &[i8],
        bias: &[i32],
        scales: &[f64],
        scale_in: f64,
    ) -> [String; 2] {
        let out_c = shape[0];
        let weights: Vec<(usize, i8)> = channels_first(weights, shape).collect();
        let names = ["weights", "bias"].map(|what| format!("{prefix}_{what}"));
        if self.precision == Precision::Float {
            let scale = |o: usize| scales.get(o).copied().unwrap_or(1.0);
            self.onnx.f32s(&names[0], shape, weights.iter().map(|(o, w)| (f64::from(*w) * scale(*o)) as f32));
            let bias = bias.iter().enumerate().map(|(o, b)| (f64::from(*b) * scale(o) * scale_in) as f32);
            self.onnx.f32s(&names[1], &[out_c], bias);
            return names;
        }
        let constants = |what: &str| ["q", "scale", "zero"].map(|part| format!("{prefix}_{what}_{part}"));
        let [q, scale, zero] = constants("weights");
        self.onnx.i8s(&q, shape, weights.into_iter().map(|(_, w)| w));
        self.onnx.f32s(&scale, &[out_c], scales.iter().map(|s| *s as f32));
        self.onnx.i8s(&zero, &[out_c], vec![0; out_c]);
        self.onnx.node("DequantizeLinear", &[&q, &scale, &zero], &names[0], [integer("axis", 0)]);
        let [q, scale, zero] = constants("bias");
        self.onnx.i32s(&q, &[out_c], bias.iter().copied());
        self.onnx.f32s(&scale, &[out_c], scales.iter().map(|s| (s * scale_in) as f32));
        self.onnx.i32s(&zero, &[out_c], vec![0; out_c]);
        self.onnx.node("DequantizeLinear", &[&q, &scale, &zero], &names[1], [integer("axis", 0)]);
        names
    }

    /// A table of integers as one of real values, entered at the nearest integer.
    fn table(&mut self, input: &str, from: &Tensor, table: &[i32], to: &Tensor, output: &str) {
        let [scale, zero, q, entry, values] =
            ["scale", "zero", "q", "entry", "values"].map(|what| format!("{output}_table_{what}"));
        if from.data_type == DataType::I8 {
            self.onnx.f32s(&scale, &[], [from.scale as f32]);
            self.onnx.u8s(&zero, &[], [(from.zero_point + 128) as u8]);
            self.onnx.node("QuantizeLinear", &[input, &scale, &zero], &q, []);
        } else {
            // QuantizeLinear knows 16 bits only from opset 21 on.
            let [steps, whole, first, last, half] =
                ["steps", "whole", "first", "last", "half"].map(|what| format!("{output}_table_{what}"));
            let n = (table.len() / 2) as f32;
            self.onnx.f32s(&scale, &[], [(1.0 / from.scale) as f32]);
            self.onnx.node("Mul", &[input, &scale], &steps, []);
            self.onnx.node("Round", &[&steps], &whole, []);
            self.onnx.f32s(&zero, &[], [from.zero_point as f32 + n]);
            self.onnx.node("Add", &[&whole, &zero], &half, []);
            self.onnx.f32s(&first, &[], [0.0]);
            self.onnx.f32s(&last, &[], [2.0 * n - 1.0]);
            self.onnx.node("Clip", &[&half, &first, &last], &q, []);
        }
        self.onnx.node("Cast", &[&q], &entry, [integer("to", Element::I32 as u64)]);
        self.onnx.f32s(&values, &[table.len()], table.iter().map(|q| to.real(*q) as f32));
        self.onnx.node("Gather", &[&values, &entry], output, []);
    }

    /// `input` times `factor`, which is nothing to do where integers stand for it closely.
    fn scaled(&mut self, input: &str, factor: f64) -> String {
        if (factor - 1.0).abs() < FACTOR_ROUNDING {
            return input.to_owned();
        }
        self.n_scaled += 1;
        let [scaled, constant] = ["scaled", "factor"].map(|what| format!("{what}_{}", self.n_scaled));
        self.onnx.f32s(&constant, &[], [factor as f32]);
        self.onnx.node("Mul", &[input, &constant], &scaled, []);
        scaled
    }

    /// The embedding's whole numbers as f32 (`embedding_f32`) and int8.
    fn embedding(&mut self) {
        let manifest = self.bundle.manifest();
        let d = manifest.embedding_len as usize;
        let output = name(self.graph.output);
        self.onnx.node("Transpose", &[&output], "output_last", [integers("perm", [0, 2, 3, 1])]);
        self.onnx.i64s("output_shape", &[0, d as i64]);
        self.onnx.node("Reshape", &["output_last", "output_shape"], "output_flat", []);
        self.onnx.unit_rows("output_flat", "output_unit");
        self.onnx.f32s("steps_per_unit", &[], [manifest.inv_scale as f32]);
        self.onnx.node("Mul", &["output_unit", "steps_per_unit"], "output_steps", []);
        self.onnx.node("Round", &["output_steps"], "output_whole", []);
        self.onnx.f32s("embedding_low", &[], [-127.0]);
        self.onnx.f32s("embedding_high", &[], [127.0]);
        self.onnx.node("Clip", &["output_whole", "embedding_low", "embedding_high"], "embedding_f32", []);
        self.onnx.node("Cast", &["embedding_f32"], "embedding", [integer("to", Element::I8 as u64)]);
    }
}

/// Weights `[out_c, h, w, in_c]` in the order `[out_c, in_c, h, w]`, which `shape` has, each with its output channel.
fn channels_first<T: Copy + Default>(weights: &[T], shape: &[usize; 4]) -> impl Iterator<Item = (usize, T)> {
    let ([out_c, in_c, h, w], at) = (*shape, |i: usize| weights.get(i).copied().unwrap_or_default());
    let taps = h * w;
    let of_input = move |o: usize, i: usize| (0..taps).map(move |tap| (o, at((o * taps + tap) * in_c + i)));
    (0..out_c).flat_map(move |o| (0..in_c).flat_map(move |i| of_input(o, i)))
}

/// Where height, width and channels stand, channels first.
const AXES: [u64; 3] = [2, 3, 1];

/// Kernel (a Conv has it from its weights, too), strides, padding and, where the operator knows them, dilations.
fn window_attributes(window: &Window, dilations: bool) -> impl Iterator<Item = Message> {
    let pair = |pair: [u32; 2]| pair.map(u64::from);
    let pads = window.pad_before.into_iter().chain(window.pad_after).map(u64::from);
    let dilations = dilations.then(|| integers("dilations", pair(window.dilation)));
    let kernel = integers("kernel_shape", pair(window.kernel));
    [kernel, integers("strides", pair(window.stride)), integers("pads", pads)].into_iter().chain(dilations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::head;
    use crate::test_bundles::{bundle_of, inexact_bundle};
    use graft_bundle::file::BundleWriter;
    use graft_bundle::graph::Requantize;
    use graft_wire::message::HeadChoice;

    /// 1x1 convolution to int16, reshaped.
    fn wide_bundle() -> Bundle {
        let mut writer = BundleWriter::new();
        let weights = writer.push_i8(&[1, 2, 3]);
        let bias = writer.push_i32(&[0; 3]);
        let multipliers = writer.push_i32(&[1 << 22; 3]);
        let requantize = Requantize { multipliers, low: -32_768, high: 32_767 };
        let window = Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], pad_before: [0; 2], pad_after: [0; 2] };
        let tensor = |shape, data_type| Tensor { shape, data_type, scale: 0.5, zero_point: 0 };
        let step = |op, from, to| Step { name: String::new(), op, inputs: vec![TensorId(from)], output: TensorId(to) };
        let graph = Graph {
            tensors: vec![
                tensor([1, 1, 1], DataType::I8),
                tensor([1, 1, 3], DataType::I16),
                tensor([3, 1, 1], DataType::I16),
            ],
            steps: vec![step(Op::Conv { window, groups: 1, weights, bias, requantize }, 0, 1), step(Op::Reshape, 1, 2)],
            input: TensorId(0),
            output: TensorId(2),
        };
        bundle_of(writer, &graph, true)
    }

    #[test]
    fn tracts_float_code_is_refused_by_name() {
        let head = head(HeadChoice::Ridge);
        let exported = Exported::of(&head, "ridge").unwrap();
        let error = onnx_with_backbone(&exported, &inexact_bundle(), Precision::Int8).unwrap_err();
        assert_eq!(error.to_string(), "step \"norm\" (Onnx) has no ONNX counterpart here");
    }

    #[test]
    fn an_op_that_moves_values_does_not_limit_them() {
        let head = head(HeadChoice::Ridge);
        let exported = Exported::of(&head, "ridge").unwrap();
        for precision in [Precision::Int8, Precision::Float] {
            let bytes = onnx_with_backbone(&exported, &wide_bundle(), precision).unwrap();
            let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(has("t1_high") && !has("t2_high"), "{precision:?}: int16 values pass a Reshape");
            assert!(has("t2") && has("Reshape"));
        }
    }
}
