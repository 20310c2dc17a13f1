//! The crate from end to end on tiny models: each operator's integer form against tract's float one, and every error
//! that a user may meet, word by word.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb::{ModelProto, StringStringEntryProto};

use crate::test_models::{Attribute, Build};
use crate::*;

mod attention;
mod finer;
mod inexact;
mod quantized;
mod resizing;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("graft-quantize-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn model(&self, model: &ModelProto) -> PathBuf {
        self.write("model.onnx", &model.encode_to_vec())
    }

    /// `n` arrays of seeded values, standing for activations of a usual size.
    fn arrays(&self, shape: &[usize], n: u32) -> PathBuf {
        let len: usize = shape.iter().product();
        for i in 0..n {
            let values = graft_bundle::manifest::seeded_bytes(100 + i).take(len).map(|b| f32::from(b as i8) / 64.0);
            self.write(&format!("calib/{i}.npy"), &npy(shape, values));
        }
        self.0.join("calib")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn npy(shape: &[usize], values: impl Iterator<Item = f32>) -> Vec<u8> {
    let shape = shape.iter().map(|d| format!("{d},")).collect::<String>();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(values.flat_map(f32::to_le_bytes));
    bytes
}

/// Quantizes at a cut and returns the report.
fn report_of(name: &str, model: &ModelProto, shape: &[usize], cut: &str) -> Result<Report, QuantizeError> {
    let folder = Folder::new(name);
    let path = folder.model(model);
    let mut options = QuantizeOptions::new(folder.arrays(shape, 24));
    options.cut = Some(cut.into());
    quantize(&path, &options, &mut |_| {}).map(|q| q.report)
}

/// A network whose integers must agree with float: cosine of embeddings and no layer under `snr_min_db`.
fn agrees(name: &str, model: ModelProto, shape: &[usize], cut: &str) -> Report {
    let report = report_of(name, &model, shape, cut).unwrap();
    finer::agrees(name, &model, shape, cut);
    // Eight bits give about 40 dB per layer on such inputs; a wrong layout or sign gives about 0.
    assert!(report.cosine_min.unwrap() > 0.995, "{name}: cosine {:?}\n{:#?}", report.cosine_min, report.layers);
    report
}

fn ops(report: &Report) -> Vec<&'static str> {
    report.layers.iter().map(|l| l.op).collect()
}

// Operators.

#[test]
fn convolutions_norms_and_clamps_become_one_step_each() {
    let model = Build::new("x", &[0, 3, 10, 12])
        .conv("x", "a", 3, 8, 3, 2, 1)
        .floats("g", &[8], &[0.5, 1.0, 1.5, 2.0, 0.7, 0.9, 1.1, 0.3])
        .random("beta", &[8])
        .random("mean", &[8])
        .floats("var", &[8], &[0.5, 1.0, 1.5, 2.0, 0.7, 0.9, 1.1, 0.3])
        .node("BatchNormalization", &["a", "g", "beta", "mean", "var"], "b", &[])
        .floats("zero", &[], &[0.0])
        .floats("six", &[], &[6.0])
        .node("Clip", &["b", "zero", "six"], "c", &[])
        .conv("c", "d", 8, 8, 3, 1, 8)
        .node("Relu", &["d"], "e", &[])
        .conv("e", "f", 8, 5, 1, 1, 1)
        .node("GlobalAveragePool", &["f"], "p", &[])
        .node("Flatten", &["p"], "features", &[])
        .random("fc", &[5, 3])
        .node("Gemm", &["features", "fc"], "logits", &[])
        .model(&["logits"]);
    let report = agrees("conv", model, &[3, 10, 12], "features");
    assert_eq!(ops(&report), ["Conv", "Conv", "Conv", "GlobalSum"]);
    assert_eq!(report.embedding_len, 5);
    assert_eq!(report.n_verified, 8);
    assert!(report.exact);
    assert_eq!(report.warnings, [] as [String; 0]);
}

#[test]
fn the_input_is_no_cut() {
    let model = Build::new("x", &[0, 3, 8, 8]).conv("x", "a", 3, 8, 3, 2, 1).model(&["a"]);
    let error = report_of("no-cut", &model, &[3, 8, 8], "x").unwrap_err();
    assert_eq!(error.to_string(), "cannot cut at `x`: it is the input itself");
}

#[test]
fn the_classifiers_input_is_suggested() {
    let model = Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 2, 1)
        .node("GlobalAveragePool", &["a"], "p", &[])
        .node("Flatten", &["p"], "features", &[])
        .random("fc", &[8, 3])
        .node("Gemm", &["features", "fc"], "logits", &[])
        .node("LogSoftmax", &["logits"], "probabilities", &[])
        .model(&["probabilities"]);
    let folder = Folder::new("suggest");
    let found = inspect(&folder.model(&model), &ImportOptions::default()).unwrap();
    assert_eq!(found.suggested_cut.as_deref(), Some("features"));
    assert_eq!(found.inputs[0].shape, ["N", "3", "8", "8"]);
    assert_eq!(found.outputs, ["probabilities"]);
    let cut = found.cuts.iter().find(|c| c.tensor == "features").unwrap();
    // 4 x 4 pixels, 8 x 27 weights; then the mean of 128 values.
    assert_eq!((cut.embedding_len, cut.pooled, cut.macs), (8, false, 16 * 8 * 27 + 128));
    assert_eq!(found.refused.len(), 1);
    assert_eq!(found.refused[0].op, "LogSoftmax");
    assert_eq!(found.refused_before_cut, []);
}

#[test]
fn a_linear_layer_after_flatten_reads_channels_last() {
    let model = Build::new("x", &[0, 3, 4, 4])
        .conv("x", "a", 3, 6, 3, 2, 1)
        .node("Relu", &["a"], "r", &[])
        .node("Flatten", &["r"], "flat", &[])
        .random("w", &[24, 7])
        .random("b", &[7])
        .node("Gemm", &["flat", "w", "b"], "y", &[])
        .model(&["y"]);
    let report = agrees("flatten", model.clone(), &[3, 4, 4], "y");
    assert_eq!(ops(&report), ["Conv", "Reshape", "Conv"]);
    // As an embedding, the flattened map keeps ONNX order.
    agrees("flat", model, &[3, 4, 4], "flat");
}

#[test]
fn residuals_pools_and_joins_agree() {
    let window = |op| -> Vec<(&str, Attribute)> {
        vec![
            ("kernel_shape", Attribute::Ints(vec![3, 3])),
            ("strides", Attribute::Ints(vec![2, 2])),
            (op, Attribute::Ints(vec![1; 4])),
        ]
    };
    let model = Build::new("x", &[0, 3, 9, 9])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("Relu", &["a"], "ar", &[])
        .conv("ar", "b", 8, 8, 3, 1, 1)
        .node("Add", &["b", "ar"], "s", &[])
        .node("MaxPool", &["s"], "m", &window("pads"))
        .node("AveragePool", &["s"], "v", &window("pads"))
        .node("Sub", &["m", "v"], "diff", &[])
        .node("Concat", &["m", "diff"], "joined", &[("axis", Attribute::Int(1))])
        .conv("joined", "z", 16, 4, 1, 1, 1)
        .model(&["z"]);
    let report = agrees("residual", model, &[3, 9, 9], "z");
    assert!(report.pooled);
    assert!(ops(&report).contains(&"Table"), "a joined tensor that others read gets its own scale: {:?}", ops(&report));
}

#[test]
fn squeeze_and_excite_and_spelled_out_activations_agree() {
    let model = Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("Sigmoid", &["a"], "gate", &[])
        .node("Mul", &["a", "gate"], "swish", &[])
        .node("GlobalAveragePool", &["swish"], "mean", &[])
        .conv("mean", "fc1", 8, 4, 1, 1, 1)
        .node("Relu", &["fc1"], "fc1r", &[])
        .conv("fc1r", "fc2", 4, 8, 1, 1, 1)
        .node("HardSigmoid", &["fc2"], "weight", &[])
        .node("Mul", &["weight", "swish"], "scaled", &[])
        .floats("three", &[], &[3.0])
        .floats("zero", &[], &[0.0])
        .floats("six", &[], &[6.0])
        .conv("scaled", "t", 8, 8, 1, 1, 1)
        .node("Add", &["t", "three"], "t3", &[])
        .node("Clip", &["t3", "zero", "six"], "t6", &[])
        .node("Mul", &["t", "t6"], "tm", &[])
        .node("Div", &["tm", "six"], "hswish", &[])
        .model(&["hswish"]);
    let report = agrees("se", model, &[3, 8, 8], "hswish");
    // Each activation is one table, however it was spelled: swish, hard sigmoid, hard swish.
    assert_eq!(ops(&report).iter().filter(|op| **op == "Table").count(), 3);
    assert_eq!(ops(&report).iter().filter(|op| **op == "Mul").count(), 1);
}

#[test]
fn channels_last_models_need_no_transposition() {
    let model = Build::new("x", &[0, 8, 8, 3])
        .node("Transpose", &["x"], "t", &[("perm", Attribute::Ints(vec![0, 3, 1, 2]))])
        .conv("t", "a", 3, 8, 3, 1, 1)
        .node("Transpose", &["a"], "back", &[("perm", Attribute::Ints(vec![0, 2, 3, 1]))])
        .random("bias", &[8])
        .node("Add", &["back", "bias"], "biased", &[])
        .node("Relu", &["biased"], "r", &[])
        .ints("axes", &[1, 2])
        .node(
            "ReduceMean",
            &["r"],
            "features",
            &[("axes", Attribute::Ints(vec![1, 2])), ("keepdims", Attribute::Int(0))],
        )
        .model(&["features"]);
    let report = agrees("nhwc", model, &[8, 8, 3], "features");
    assert_eq!(ops(&report), ["Conv", "GlobalSum"]);
}

#[test]
fn shuffles_slices_and_padding_agree() {
    let model = Build::new("x", &[0, 4, 8, 8])
        .conv("x", "a", 4, 8, 3, 1, 2)
        .ints("split", &[1, 2, 4, 8, 8])
        .ints("merged", &[1, 8, 8, 8])
        .node("Reshape", &["a", "split"], "a5", &[])
        .node("Transpose", &["a5"], "a5t", &[("perm", Attribute::Ints(vec![0, 2, 1, 3, 4]))])
        .node("Reshape", &["a5t", "merged"], "shuffled", &[])
        .ints("starts", &[1, 1, 0])
        .ints("ends", &[7, 8, 8])
        .ints("axes", &[1, 2, 3])
        .ints("steps", &[2, 2, 2])
        .node("Slice", &["shuffled", "starts", "ends", "axes", "steps"], "sliced", &[])
        .ints("pads", &[0, 1, 0, 0, 0, 2, 0, 0])
        .node("Pad", &["sliced", "pads"], "padded", &[])
        .ints("around", &[0, 0, 1, 0, 0, 0, 0, 1])
        .node("Pad", &["padded", "around"], "bordered", &[])
        .conv("bordered", "b", 6, 5, 3, 1, 1)
        .node_of("Split", &["b"], &["b1", "b2"], &[("axis", Attribute::Int(1))])
        .model(&["b1", "b2"]);
    let mut model = model;
    // Five channels cannot be split evenly: three and two.
    if let Some(graph) = model.graph.as_mut() {
        let split = Build::default().ints("sizes", &[3, 2]).model(&[]).graph.unwrap().initializer;
        graph.initializer.extend(split);
        graph.node.last_mut().unwrap().input.push("sizes".into());
    }
    agrees("shuffle", model.clone(), &[4, 8, 8], "b");
    agrees("split", model, &[4, 8, 8], "b2");
}

#[test]
fn what_makes_tract_take_all_memory_is_refused() {
    let text = |model: &ModelProto| report_of("bomb", model, &[3, 8, 8], "y").unwrap_err().to_string();
    let with = |op: &'static str, inputs: &[&str], attributes: &[(&str, Attribute)]| {
        Build::new("x", &[0, 3, 8, 8])
            .conv("x", "a", 3, 4, 3, 1, 1)
            .floats("scales", &[4], &[1.0, 1.0, 1e5, 1e5])
            .node(op, inputs, "y", attributes)
            .model(&["y"])
    };
    let resize = with("Resize", &["a", "", "scales"], &[]);
    assert_eq!(
        text(&resize),
        "1 of the nodes before the cut cannot be quantized: Resize `n_y` (`y` is of shape [1, 4, 800000, 800000]; at most \
         67108864 elements are supported)"
    );
    let transpose = with("Transpose", &["a"], &[("perm", Attribute::Ints(vec![0, 1, 1, 2]))]);
    assert_eq!(text(&transpose), "the graph is broken at `n_y`: its axes are [0, 1, 1, 2]; a permutation is needed");
}

#[test]
fn a_fixed_batch_is_not_taken_for_one_input() {
    let model = Build::new("x", &[16, 32]).random("w", &[32, 8]).node("MatMul", &["x", "w"], "y", &[]).model(&["y"]);
    let error = report_of("batch", &model, &[32], "y").unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `x` has shape [16,32]: its first axis, the batch, is fixed at 16; one input at a time is embedded"
    );
}

#[test]
fn vectors_run_through_matmul_and_bias() {
    let model = Build::new("x", &[0, 20])
        .random("w", &[20, 12])
        .random("b", &[12])
        .node("MatMul", &["x", "w"], "m", &[])
        .node("Add", &["m", "b"], "mb", &[])
        .node("Tanh", &["mb"], "y", &[])
        .model(&["y"]);
    let report = agrees("vector", model, &[20], "mb");
    assert_eq!(ops(&report), ["Conv"]);
}

#[test]
fn the_bundle_is_the_same_for_the_same_inputs() {
    let model = Build::new("x", &[0, 3, 8, 8]).conv("x", "a", 3, 8, 3, 1, 1).model(&["a"]);
    let folder = Folder::new("same");
    let path = folder.model(&model);
    let options = QuantizeOptions::new(folder.arrays(&[3, 8, 8], 24));
    let bytes = || quantize(&path, &options, &mut |_| {}).unwrap().bundle_bytes;
    assert_eq!(bytes(), bytes());
}

#[test]
fn an_expected_embedding_is_compared() {
    let model = Build::new("x", &[0, 3, 8, 8]).conv("x", "a", 3, 8, 3, 1, 1).model(&["a"]);
    let folder = Folder::new("expect");
    let path = folder.model(&model);
    let calib = folder.arrays(&[3, 8, 8], 24);
    let float = FloatBackbone::open(&path, &ImportOptions::default(), None).unwrap();
    let input = calib.join("3.npy");
    let values: Vec<f32> =
        fs::read(&input).unwrap()[128..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mine = folder.write("mine.npy", &npy(&[8], float.embed(&values).unwrap().into_iter()));
    let mut options = QuantizeOptions::new(calib);
    options.expect = Some((input.clone(), mine));
    let found = quantize(&path, &options, &mut |_| {}).unwrap().report.expect.unwrap();
    assert!(found.cosine_float > 0.999_999, "{found:?}");
    assert!(found.cosine_bundle > 0.99, "{found:?}");
    options.expect = Some((input, folder.write("short.npy", &npy(&[7], (0..7).map(|v| v as f32)))));
    let error = quantize(&path, &options, &mut |_| {}).unwrap_err().to_string();
    assert!(error.ends_with("short.npy: it has 7 values; the embedding has 8"), "{error}");
}

// Bad input.

fn open_error(name: &str, model: &ModelProto, options: &ImportOptions) -> String {
    let folder = Folder::new(name);
    let path = folder.model(model);
    match Model::open(&path, options) {
        Ok(_) => panic!("{name} was accepted"),
        Err(e) => e
            .to_string()
            .replace(&path.display().to_string(), "model.onnx")
            .replace(&folder.0.display().to_string(), "folder"),
    }
}

fn conv_model() -> ModelProto {
    Build::new("x", &[0, 3, 8, 8]).conv("x", "a", 3, 8, 3, 1, 1).model(&["a"])
}

#[test]
fn every_cut_off_file_is_an_error() {
    let whole = conv_model().encode_to_vec();
    let folder = Folder::new("cut-off");
    for n in (0..whole.len()).step_by(7) {
        let path = folder.write("model.onnx", &whole[..n]);
        assert!(Model::open(&path, &ImportOptions::default()).is_err(), "{n} bytes of {}", whole.len());
    }
    let path = folder.write("model.onnx", b"#!/bin/sh\necho no model\n");
    let error = Model::open(&path, &ImportOptions::default()).err().unwrap().to_string();
    assert!(error.contains("model.onnx is not a readable ONNX file: "), "{error}");
    let error = Model::open(Path::new("/nowhere/model.onnx"), &ImportOptions::default()).err().unwrap().to_string();
    assert!(error.starts_with("cannot read /nowhere/model.onnx: "), "{error}");
}

#[test]
fn external_data_stays_inside_the_folder() {
    let with = |location: &str, length: &str| {
        let mut model = conv_model();
        let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        tensor.external_data = vec![entry("location", location), entry("offset", "16"), entry("length", length)];
        tensor.data_location = Some(1);
        tensor.raw_data = vec![];
        model
    };
    for location in ["/etc/passwd", "../weights.bin", "a/../../weights.bin", ""] {
        let text =
            format!("tensor `a_w` wants its data from `{location}`; only files inside the model's own folder are read");
        assert_eq!(open_error("external", &with(location, "864"), &ImportOptions::default()), text);
    }
    let missing = open_error("missing", &with("weights.bin", "864"), &ImportOptions::default());
    assert!(missing.starts_with("external data of tensor `a_w` in folder/weights.bin: "), "{missing}");
    let folder = Folder::new("external-good");
    folder.write("weights.bin", &[0; 16 + 864]);
    let path = folder.model(&with("weights.bin", "864"));
    assert!(Model::open(&path, &ImportOptions::default()).is_ok());
    let path = folder.model(&with("weights.bin", "865"));
    let error = Model::open(&path, &ImportOptions::default()).err().unwrap().to_string();
    assert!(error.ends_with("weights.bin: 865 bytes at 16 are wanted; the file has 880"), "{error}");
}

#[test]
fn contradictions_are_named() {
    let options = ImportOptions::default();
    let mut short = conv_model();
    short.graph.as_mut().unwrap().initializer[0].raw_data.truncate(100);
    assert_eq!(open_error("short", &short, &options), "tensor `a_w` holds 100 bytes; its shape [8, 3, 3, 3] needs 864");
    let mut huge = conv_model();
    huge.graph.as_mut().unwrap().initializer[0].dims = vec![i64::MAX, i64::MAX];
    assert!(open_error("huge", &huge, &options).starts_with("the graph is broken at `a_w`: shape ["));
    let cycle =
        Build::new("x", &[1, 3]).node("Add", &["x", "b"], "a", &[]).node("Relu", &["a"], "b", &[]).model(&["b"]);
    assert_eq!(open_error("cycle", &cycle, &options), "the graph is broken at `n_a`: it depends on itself");
    let dangling = Build::new("x", &[1, 3]).node("Add", &["x", "ghost"], "a", &[]).model(&["a"]);
    assert_eq!(
        open_error("ghost", &dangling, &options),
        "the graph is broken at `n_a`: it reads `ghost`, which nothing writes"
    );
    let bomb = Build::new("x", &[1, 3]).ints("n", &[1 << 20, 1 << 20]).node("ConstantOfShape", &["n"], "c", &[]).node(
        "Add",
        &["x", "c"],
        "a",
        &[],
    );
    let text =
        "the graph is broken at `n_c`: it makes a tensor of shape [1048576, 1048576]; at most 268435456 elements";
    assert_eq!(open_error("bomb", &bomb.model(&["a"]), &options), text);
}

#[test]
fn inputs_are_chosen_and_shaped() {
    let two = || {
        Build::new("x", &[0, 3])
            .input("y", &[0, 3], 1)
            .node("Add", &["x", "y"], "a", &[])
            .node("Relu", &["x"], "b", &[])
            .model(&["a", "b"])
    };
    let named = |input: &str| ImportOptions { input: Some(input.into()), ..Default::default() };
    assert_eq!(open_error("two", &two(), &ImportOptions::default()), "the model has 2 inputs (x, y); name one");
    assert_eq!(open_error("two", &two(), &named("z")), "the model has no input `z`; it has x, y");
    let folder = Folder::new("two-named");
    let path = folder.model(&two());
    let model = Model::open(&path, &named("x")).unwrap();
    assert_eq!(
        model.cut("a").unwrap_err().to_string(),
        "`a` also depends on input y; choose a cut that depends on `x` alone"
    );
    assert!(model.cut("b").is_ok());
    assert_eq!(inspect(&path, &ImportOptions::default()).unwrap().inputs.len(), 2);

    let open = Build::new("x", &[0, 3, 0, 0]).conv("x", "a", 3, 8, 3, 1, 1).model(&["a"]);
    assert_eq!(
        open_error("open", &open, &ImportOptions::default()),
        "input `x` has shape [N,3,N,N]; only the batch may be open"
    );
    let shaped = |shape: &[usize]| ImportOptions { input_shape: Some(shape.to_vec()), ..Default::default() };
    let text = "input shape [1, 4, 8, 8] does not fit input `x` [N,3,N,N]: a fixed dimension differs";
    assert_eq!(open_error("bad", &open, &shaped(&[1, 4, 8, 8])), text);
    assert!(open_error("batch", &open, &shaped(&[2, 3, 8, 8])).ends_with("the batch must be 1"));
    assert!(Model::open(&folder.model(&open), &shaped(&[1, 3, 8, 8])).is_ok());
}

#[test]
fn unknown_cuts_and_unsupported_operators_are_listed() {
    let model = Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("LRN", &["a"], "l", &[("size", Attribute::Int(3))])
        .node("Frobnicate", &["l"], "f", &[])
        .conv("f", "b", 8, 8, 3, 1, 1)
        .model(&["b"]);
    let folder = Folder::new("unsupported");
    let path = folder.model(&model);
    let opened = Model::open(&path, &ImportOptions::default()).unwrap();
    let unknown = opened.choose_cut(Some("feature")).unwrap_err().to_string();
    assert_eq!(unknown, "the model has no tensor `feature` to cut at; candidates are a");
    assert_eq!(opened.choose_cut(None).unwrap(), "a");
    let refused = opened.cut("l").unwrap_err().to_string();
    assert_eq!(
        refused,
        "1 of the nodes before the cut cannot be quantized: LRN `n_l` (the operator has no integer or exact form)"
    );
    let found = inspect(&path, &ImportOptions::default()).unwrap();
    let named: Vec<&str> = found.refused.iter().map(|r| &r.op[..]).collect();
    assert_eq!(named, ["LRN", "Frobnicate"]);
    let class = |op: &str| found.nodes.iter().find(|n| n.op == op).unwrap().class;
    assert_eq!(class("LRN"), NodeClass::TractFloat);
    assert_eq!(class("Frobnicate"), NodeClass::Unsupported);
}

#[test]
fn calibration_folders_are_checked() {
    let folder = Folder::new("calib");
    let path = folder.model(&conv_model());
    let run = |calib: &Path| quantize(&path, &QuantizeOptions::new(calib), &mut |_| {});
    let text = |calib: &Path| run(calib).unwrap_err().to_string().replace(&folder.0.display().to_string(), "folder");
    fs::create_dir_all(folder.0.join("empty")).unwrap();
    folder.write("empty/notes.txt", b"nothing");
    folder.write("empty/.hidden.npy", &npy(&[3, 8, 8], (0..192).map(|v| v as f32)));
    assert_eq!(text(&folder.0.join("empty")), "no usable calibration input in folder/empty: 0 files seen, 0 skipped");
    assert!(text(&folder.0.join("nowhere")).starts_with("cannot read folder folder/nowhere: "));
    folder.write("wrong/a.npy", &npy(&[3, 8, 9], (0..216).map(|v| v as f32)));
    let expected = "no usable calibration input in folder/wrong: 1 files seen, 1 skipped; the first: folder/wrong/a.npy: \
        its shape is [3, 8, 9]; the model takes [1, 3, 8, 8]";
    assert_eq!(text(&folder.0.join("wrong")), expected);
    folder.write("nan/a.npy", &npy(&[3, 8, 8], (0..192).map(|v| if v == 5 { f32::NAN } else { 1.0 })));
    assert!(text(&folder.0.join("nan")).ends_with("its element 5 is NaN; only finite values are taken"));
    folder.write("photo/a.png", b"\x89PNG\r\n\x1a\n");
    // Two good ones beside a bad one: used, counted, and warned about.
    folder.write("few/a.npy", &npy(&[2, 3, 8, 8], (0..384).map(|v| (v % 17) as f32)));
    folder.write("few/b.npy", b"\x93NUMPY");
    let report = run(&folder.0.join("few")).unwrap().report;
    assert_eq!((report.n_calibration, report.skipped.len()), (2, 1));
    assert_eq!(report.warnings, ["2 calibration inputs; ranges are safer from 20 on"]);
}

#[test]
fn pictures_need_a_stated_normalisation() {
    let folder = Folder::new("norm");
    let path = folder.model(&conv_model());
    // The smallest grey PNG: one black pixel.
    let png = [
        0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0,
        0, 0, 0x3A, 0x7E, 0x9B, 0x55, 0, 0, 0, 10, b'I', b'D', b'A', b'T', 0x78, 0x9C, 0x63, 0x60, 0, 0, 0, 2, 0, 1,
        0x48, 0xAF, 0xA4, 0x71, 0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82,
    ];
    folder.write("photos/a.png", &png);
    let mut options = QuantizeOptions::new(folder.0.join("photos"));
    let error = quantize(&path, &options, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "the model takes pictures, but how they are normalised is not stated");
    options.input.norm = Some(Norm::Unit);
    options.input.crop_ratio = Some(1.5);
    let error = quantize(&path, &options, &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "--crop-ratio is 1.5; allowed is above 0 and at most 1");
}

#[test]
fn a_model_without_signal_is_refused() {
    let model = Build::new("x", &[0, 3, 8, 8])
        .floats("w", &[4, 3, 1, 1], &[0.0; 12])
        .node("Conv", &["x", "w"], "a", &[])
        .model(&["a"]);
    let error = report_of("zero", &model, &[3, 8, 8], "a").unwrap_err().to_string();
    assert_eq!(
        error,
        "the embedding is zero on every calibration input; choose another cut or check the preprocessing"
    );
    let model = Build::new("x", &[0, 3, 8, 8])
        .floats("w", &[1, 3, 1, 1], &[f32::INFINITY, 0.0, 0.0])
        .node("Conv", &["x", "w"], "a", &[])
        .model(&["a"]);
    let error = report_of("infinite", &model, &[3, 8, 8], "a").unwrap_err().to_string();
    assert!(error.starts_with("tensor `a` is not finite on "), "{error}");
}

// Real models, where they are.

fn assets() -> Option<PathBuf> {
    let place = std::env::var_os("GRAFT_ASSETS").map(PathBuf::from);
    let place = place.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets"));
    if place.join("models").is_dir() {
        return Some(place);
    }
    eprintln!("skipped: no assets at {}", place.display());
    None
}

#[test]
fn every_real_model_is_inspected() {
    let Some(assets) = assets() else { return };
    let mut n = 0;
    let mut folders = vec![assets.join("models")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx") {
                let found = inspect(&path, &ImportOptions::default()).unwrap();
                assert!(!found.inputs.is_empty() && !found.outputs.is_empty());
                n += 1;
            }
        }
    }
    assert!(n > 0);
}

#[test]
fn mobilenet_is_close_to_float() {
    let Some(assets) = assets() else { return };
    let mut options = QuantizeOptions::new(assets.join("data/flowers"));
    options.input.norm = Some(Norm::Tf);
    (options.n_calibration, options.n_verify) = (20, 4);
    let made =
        quantize(&assets.join("models/mobilenet_v1_025_128_imagenet/model.onnx"), &options, &mut |_| {}).unwrap();
    let report = made.report;
    assert_eq!((report.cut.as_str(), report.embedding_len), ("features", 256));
    // 0.998 when it was written.
    assert!(report.cosine_mean.unwrap() > 0.995, "{:?}", report.cosine_mean);
}

// Exports of other programs, with the numbers that ONNX Runtime gives for them.

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// Little-endian f32 values of a version 1 `.npy`.
fn values_of(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_pytorch_export_gives_onnx_runtimes_features() {
    let model = fixture("torch_export/model.onnx");
    let found = inspect(&model, &ImportOptions::default()).unwrap();
    assert_eq!(found.refused, []);
    let float = FloatBackbone::open(&model, &ImportOptions::default(), None).unwrap();
    assert_eq!(float.embedding_len(), 24);
    let (inputs, features) =
        (values_of(&fixture("torch_export/input.npy")), values_of(&fixture("torch_export/features.npy")));
    for (input, expected) in inputs.chunks_exact(3 * 16 * 16).zip(features.chunks_exact(24)) {
        for (ours, theirs) in float.output(input).unwrap().iter().zip(expected) {
            // f32 sums in another order.
            assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
        }
    }
    let calibration = Folder::new("torch");
    calibration.write("input.npy", &fs::read(fixture("torch_export/input.npy")).unwrap());
    let report = quantize(&model, &QuantizeOptions::new(&calibration.0), &mut |_| {}).unwrap().report;
    assert!(report.cosine_min.unwrap() > 0.999, "{:?}", report.cosine_min);
}

#[test]
fn a_quantized_model_gives_onnx_runtimes_logits() {
    for (model, logits) in [("model.onnx", "logits.npy"), ("model_s8.onnx", "logits_s8.npy")] {
        let model = fixture("qdq").join(model);
        let folder = Folder::new("qdq-fixture");
        let inputs = values_of(&fixture("qdq/input.npy"));
        let expected = values_of(&fixture("qdq").join(logits));
        let found = inspect(&model, &ImportOptions::default()).unwrap();
        assert_eq!(found.suggested_cut.as_deref(), Some("features"));
        assert!(found.n_stated_scales >= 5, "{}", found.n_stated_scales);
        for (i, (input, expected)) in inputs.chunks_exact(3 * 12 * 12).zip(expected.chunks_exact(5)).enumerate() {
            let file = folder.write(&format!("calib/{i}.npy"), &npy(&[3, 12, 12], input.iter().copied()));
            let theirs = folder.write(&format!("{i}.npy"), &npy(&[5], expected.iter().copied()));
            let mut options = QuantizeOptions::new(folder.0.join("calib"));
            options.cut = Some("logits".into());
            options.expect = Some((file, theirs));
            let found = quantize(&model, &options, &mut |_| {}).unwrap().report.expect.unwrap();
            // They round every tensor as the file says; so do our integers, but for weights of -128 and the last layer.
            assert!(found.cosine_bundle > 0.999, "{found:?}");
        }
    }
}
