//! Operators without an integer or exact form: refused, or in tract's own float code where that is allowed.

use graft_bundle::UncheckedBundle;

use super::*;
use crate::fallback::Fallbacks;
use crate::inputs::load_folder;
use crate::prepared::Prepared;

fn allowed(folder: &Folder, model: &ModelProto, shape: &[usize], cut: &str) -> Result<Quantized, QuantizeError> {
    let mut options = QuantizeOptions::new(folder.arrays(shape, 24));
    options.import.allow_inexact = true;
    options.cut = Some(cut.into());
    quantize(&folder.model(model), &options, &mut |_| {})
}

/// A network that is refused, and close to float where its refused operators run in it. Returns the pieces' nodes.
fn agrees(name: &str, model: ModelProto, shape: &[usize], cut: &str) -> (Report, Vec<Vec<String>>) {
    let error = report_of(name, &model, shape, cut).unwrap_err();
    let QuantizeError::Import(ImportError::Refused { tract_can, .. }) = error else { panic!("{name}: {error}") };
    assert!(tract_can, "{name}");
    let folder = Folder::new(&format!("inexact-{name}"));
    let Quantized { bundle_bytes, report } = allowed(&folder, &model, shape, cut).unwrap();
    assert!(!report.exact);
    assert!(report.cosine_min.unwrap() > 0.99, "{name}: cosine {:?}\n{:#?}", report.cosine_min, report.layers);
    let bundle = UncheckedBundle::read(bundle_bytes).unwrap().check().unwrap();
    assert!(!bundle.manifest().exact && bundle.manifest().ops.contains(&"Onnx".into()), "{name}");
    let n_steps = report.layers.iter().filter(|layer| layer.precision == "float (tract)").count();
    assert_eq!(n_steps, report.inexact.len(), "{name}");
    let nodes = report.inexact.iter().map(|piece| piece.nodes.clone()).collect();
    (report, nodes)
}

/// Mean over the channels, and what a norm does with it, as exporters without LayerNormalization spell it.
fn spelled_out_norm(build: Build, input: &str, output: &str) -> Build {
    let axes = || [("axes", Attribute::Ints(vec![1]))];
    build
        .floats("two", &[], &[2.0])
        .floats("epsilon", &[], &[1e-6])
        .random("gamma", &[8, 1, 1])
        .random("beta", &[8, 1, 1])
        .node("ReduceMean", &[input], "mean", &axes())
        .node("Sub", &[input, "mean"], "centred", &[])
        .node("Pow", &["centred", "two"], "squared", &[])
        .node("ReduceMean", &["squared"], "variance", &axes())
        .node("Add", &["variance", "epsilon"], "above", &[])
        .node("Sqrt", &["above"], "deviation", &[])
        .node("Div", &["centred", "deviation"], "normed", &[])
        .node("Mul", &["normed", "gamma"], "scaled", &[])
        .node("Add", &["scaled", "beta"], output, &[])
}

fn norm_model() -> ModelProto {
    let build = Build::new("x", &[0, 3, 8, 6]).conv("x", "a", 3, 8, 3, 1, 1);
    spelled_out_norm(build, "a", "n").conv("n", "b", 8, 10, 3, 2, 1).model(&["b"])
}

#[test]
fn a_norm_over_channels_is_one_piece_however_it_is_spelled() {
    let (report, pieces) = agrees("norm", norm_model(), &[3, 8, 6], "b");
    let names = ["n_mean", "n_centred", "n_squared", "n_variance", "n_above", "n_deviation", "n_normed"];
    assert_eq!(pieces, [names]);
    assert_eq!(report.inexact[0].operators, ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div"]);
    assert_eq!(report.inexact[0].layer, "n_normed");
    // Gamma and beta are a convolution of their own again.
    let steps = ["Conv", "Dequantize", "Onnx", "Quantize", "Conv", "Conv", "GlobalSum"];
    assert_eq!(ops(&report), steps);
    assert_eq!(
        report.warnings,
        [
            "not exact: tract's float code runs 7 nodes, so embeddings may differ between CPUs, and samples of two boards may \
          not be equal byte for byte"
        ]
    );
}

#[test]
fn without_anything_to_suggest_what_is_in_the_way_is_named() {
    let model = Build::new("x", &[0, 3, 8, 6])
        .node("LRN", &["x"], "l", &[("size", Attribute::Int(3))])
        .conv("l", "a", 3, 8, 3, 1, 1)
        .model(&["a"]);
    let folder = Folder::new("inexact-in-the-way");
    let options = QuantizeOptions::new(folder.arrays(&[3, 8, 6], 24));
    let error = quantize(&folder.model(&model), &options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, QuantizeError::Import(ImportError::Refused { tract_can: true, .. })), "{error}");
}

#[test]
fn nothing_runs_in_float_that_has_another_form() {
    let folder = Folder::new("inexact-exact");
    let exact =
        quantize(&folder.model(&conv_model()), &QuantizeOptions::new(folder.arrays(&[3, 8, 8], 24)), &mut |_| {});
    let allowed = allowed(&folder, &conv_model(), &[3, 8, 8], "a").unwrap();
    assert_eq!(allowed.bundle_bytes, exact.unwrap().bundle_bytes);
    assert!(allowed.report.exact && allowed.report.inexact.is_empty());
}

#[test]
fn layer_normalization_agrees() {
    let model = Build::new("x", &[0, 12, 16])
        .random("w", &[16, 20])
        .node("MatMul", &["x", "w"], "a", &[])
        .random("gamma", &[20])
        .random("beta", &[20])
        .node("LayerNormalization", &["a", "gamma", "beta"], "n", &[])
        .random("v", &[20, 9])
        .node("MatMul", &["n", "v"], "b", &[])
        .model(&["b"]);
    let (report, pieces) = agrees("layer-norm", model, &[12, 16], "b");
    assert_eq!(pieces, [["n_n"]]);
    assert_eq!(ops(&report)[..5], ["Conv", "Dequantize", "Onnx", "Quantize", "Conv"]);
}

#[test]
fn an_operator_of_its_own_agrees() {
    let model = Build::new("x", &[0, 3, 6, 5])
        .conv("x", "a", 3, 7, 3, 1, 1)
        .node("LogSoftmax", &["a"], "s", &[("axis", Attribute::Int(1))])
        .conv("s", "b", 7, 10, 3, 1, 1)
        .model(&["b"]);
    let (_, pieces) = agrees("log-softmax", model, &[3, 6, 5], "b");
    assert_eq!(pieces, [["n_s"]]);
}

#[test]
fn a_piece_may_be_first_or_last() {
    let model = Build::new("x", &[0, 3, 6, 5])
        .node("LogSoftmax", &["x"], "s", &[("axis", Attribute::Int(1))])
        .conv("s", "a", 3, 7, 3, 1, 1)
        .node("ReduceL2", &["a"], "l", &[("axes", Attribute::Ints(vec![2, 3])), ("keepdims", Attribute::Int(0))])
        .model(&["l"]);
    let (report, pieces) = agrees("ends", model, &[3, 6, 5], "l");
    assert_eq!(pieces, [["n_s"], ["n_l"]]);
    assert_eq!(report.layers.last().map(|layer| layer.precision), Some("float"), "sixteen bits of output");
}

#[test]
fn what_others_read_ends_a_piece() {
    // The first one is read by a convolution, too: two pieces, with int8 between.
    let model = Build::new("x", &[0, 3, 6, 5])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("LogSoftmax", &["a"], "s", &[("axis", Attribute::Int(1))])
        .node("LogSoftmax", &["s"], "t", &[("axis", Attribute::Int(2))])
        .conv("s", "b", 8, 8, 1, 1, 1)
        .conv("t", "c", 8, 8, 1, 1, 1)
        .node("Add", &["b", "c"], "d", &[])
        .model(&["d"]);
    let (_, pieces) = agrees("two", model, &[3, 6, 5], "d");
    assert_eq!(pieces, [["n_s"], ["n_t"]]);
}

#[test]
fn tensors_that_are_no_floats_stay_within_a_piece() {
    let model = Build::new("x", &[0, 3, 6, 5])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .conv("x", "b", 3, 8, 3, 1, 1)
        .node("Greater", &["a", "b"], "g", &[])
        .node("Cast", &["g"], "f", &[("to", Attribute::Int(1))])
        .conv("f", "c", 8, 9, 1, 1, 1)
        .model(&["c"]);
    let (_, pieces) = agrees("greater", model, &[3, 6, 5], "c");
    assert_eq!(pieces, [["n_g", "n_f"]]);
}

#[test]
fn half_floats_are_cast_at_the_edges_of_a_piece() {
    let model = Build::new("x", &[0, 3, 6, 5])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("Cast", &["a"], "h", &[("to", Attribute::Int(10))])
        .node("ReduceMean", &["h"], "s", &[("axes", Attribute::Ints(vec![1]))])
        .node("Cast", &["s"], "f", &[("to", Attribute::Int(1))])
        .conv("f", "b", 1, 9, 1, 1, 1)
        .model(&["b"]);
    let (_, pieces) = agrees("half", model, &[3, 6, 5], "b");
    assert_eq!(pieces, [["n_s"]]);
}

#[test]
fn recurrent_layers_agree() {
    let build = Build::new("x", &[0, 12, 16])
        .random("w", &[16, 10])
        .node("MatMul", &["x", "w"], "a", &[])
        .node("Transpose", &["a"], "time", &[("perm", Attribute::Ints(vec![1, 0, 2]))])
        .random("lw", &[1, 32, 10])
        .random("lr", &[1, 32, 8])
        .node_of("LSTM", &["time", "lw", "lr"], &["all", "last"], &[("hidden_size", Attribute::Int(8))])
        .ints("all_shape", &[12, 1, 8])
        .node("Reshape", &["all", "all_shape"], "flat", &[])
        .ints("last_shape", &[1, 8])
        .node("Reshape", &["last", "last_shape"], "vector", &[])
        .random("o", &[8, 12])
        .node("MatMul", &["vector", "o"], "y", &[])
        .model(&["y"]);
    let (report, pieces) = agrees("lstm", build, &[12, 16], "y");
    assert_eq!(pieces, [["n_all"]]);
    assert_eq!(report.inexact[0].operators, ["LSTM"]);
}

#[test]
fn each_output_of_a_node_is_a_model() {
    let model = Build::new("x", &[0, 8, 6])
        .random("w", &[6, 6])
        .node("MatMul", &["x", "w"], "a", &[])
        .ints("k", &[4])
        .node_of("TopK", &["a", "k"], &["most", "where"], &[("axis", Attribute::Int(-1))])
        .node("Cast", &["where"], "place", &[("to", Attribute::Int(1))])
        .node("Add", &["most", "place"], "both", &[])
        .random("v", &[4, 9])
        .node("MatMul", &["both", "v"], "y", &[])
        .model(&["y"]);
    let (_, pieces) = agrees("topk", model, &[8, 6], "y");
    assert_eq!(pieces, [["n_most", "n_place", "n_both"]]);
    let model = Build::new("x", &[0, 8, 6])
        .random("lw", &[1, 20, 6])
        .random("lr", &[1, 20, 5])
        .node("Transpose", &["x"], "time", &[("perm", Attribute::Ints(vec![1, 0, 2]))])
        .node_of("LSTM", &["time", "lw", "lr"], &["all", "last", "cell"], &[("hidden_size", Attribute::Int(5))])
        .ints("shape", &[1, 5])
        .node("Reshape", &["last", "shape"], "l", &[])
        .node("Reshape", &["cell", "shape"], "c", &[])
        .random("v", &[5, 9])
        .node("MatMul", &["l", "v"], "lv", &[])
        .node("MatMul", &["c", "v"], "cv", &[])
        .node("Add", &["lv", "cv"], "y", &[])
        .model(&["y"]);
    let (_, pieces) = agrees("lstm2", model, &[8, 6], "y");
    assert_eq!(pieces, [["n_all"], ["n_all"]]);
}

#[test]
fn what_tract_cannot_run_stays_refused() {
    let model = Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .node("LRN", &["a"], "l", &[("size", Attribute::Int(3))])
        .node("Frobnicate", &["l"], "f", &[])
        .conv("f", "b", 8, 8, 3, 1, 1)
        .node("ArgMax", &["l"], "m", &[("axis", Attribute::Int(1))])
        .model(&["b", "m"]);
    let folder = Folder::new("inexact-refused");
    let text = |cut: &str| allowed(&folder, &model, &[3, 8, 8], cut).unwrap_err().to_string();
    assert_eq!(
        text("f"),
        "1 of the nodes before the cut cannot be quantized: Frobnicate `n_f` (the operator is not known)"
    );
    assert_eq!(
        text("m"),
        "1 of the nodes before the cut cannot be quantized: ArgMax `n_m` (`m` is of type I64; pieces in float give floats)"
    );
    assert!(!allowed(&folder, &model, &[3, 8, 8], "l").unwrap().report.exact);

    let path = folder.model(&model);
    let found = |allow_inexact| inspect(&path, &ImportOptions { allow_inexact, ..Default::default() }).unwrap();
    let cut = |tensor: &str, found: &Inspection| {
        found.cuts.iter().find(|cut| cut.tensor == tensor).map(|cut| (cut.possible, cut.needs_inexact))
    };
    assert_eq!(cut("a", &found(false)), Some((true, false)));
    assert_eq!(cut("l", &found(true)), Some((true, true)));
}

#[test]
fn a_budget_holds_what_pieces_read_and_write_finer() {
    let folder = Folder::new("inexact-finer");
    let mut options = QuantizeOptions::new(folder.arrays(&[3, 8, 6], 24));
    options.import.allow_inexact = true;
    let model = Model::open(&folder.model(&norm_model()), &options.import).unwrap();
    let (graph, _, _) = model.cut("b").unwrap();
    let samples = load_folder(&options.calibration, 24, 0, &model.input, None).unwrap().samples;
    let prepared = Prepared::new(&model, graph, None, &samples, &options, "norm".into(), &mut |_| {}).unwrap();
    let tensors = prepared.tensors(&samples).unwrap();
    let [wide, _] = prepared.candidates();
    let loss = |fallbacks: &Fallbacks| prepared.loss(&mut prepared.build(fallbacks).unwrap().engine, &tensors);
    let (int8, int16) = (loss(&Fallbacks::default()), loss(&wide.iter().map(|c| c.fallback).collect()));
    assert!(int16 < int8 * 0.7, "{int16} with sixteen bits, {int8} with eight");
    // A budget alone brings no operator into float.
    options.import.allow_inexact = false;
    options.max_loss = Some(0.5);
    options.cut = Some("b".into());
    assert!(quantize(&folder.model(&norm_model()), &options, &mut |_| {}).is_err());
}
