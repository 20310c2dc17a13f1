//! Layers held finer than int8: each operator with sixteen bits and in float, and the search for those that need it.

use graft_engine::available_isas;

use super::*;
use crate::fallback::{Candidate, Fallbacks};
use crate::inputs::load_folder;
use crate::model::Model;
use crate::prepared::Prepared;

/// Everything held finer is nearer to float than int8 is.
pub(super) fn agrees(name: &str, proto: &ModelProto, shape: &[usize], cut: &str) {
    let folder = Folder::new(&format!("finer-{name}"));
    let (path, options) = (folder.model(proto), QuantizeOptions::new(folder.arrays(shape, 24)));
    let model = Model::open(&path, &ImportOptions::default()).unwrap();
    let (graph, _, _) = model.cut(cut).unwrap();
    let samples = load_folder(&options.calibration, 24, 0, &model.input, None).unwrap().samples;
    let prepared = Prepared::new(&model, graph, None, &samples, &options, name.into(), &mut |_| {}).unwrap();
    let tensors = prepared.tensors(&samples).unwrap();
    let loss = |candidates: &[Candidate]| {
        let fallbacks: Fallbacks = candidates.iter().map(|candidate| candidate.fallback).collect();
        prepared.loss(&mut prepared.build(&fallbacks).unwrap().engine, &tensors)
    };
    let [wide, float] = prepared.candidates();
    let all = [wide.clone(), float].concat();
    let [int8, int16, finest] = [loss(&[]), loss(&wide), loss(&all)];
    // What the eight bits of input and embedding cost stays.
    assert!(int16 < int8 + 1e-5, "{name}: {int16} with sixteen bits, {int8} with eight");
    assert!(finest < int8 * 0.7 + 1e-5, "{name}: {finest} with all that is finer, {int8} with eight bits");
}

/// Channels so unlike in size that eight bits for all of a tensor leave the small ones next to nothing.
fn uneven() -> ModelProto {
    let sizes: Vec<f32> = (0..8).map(|i| 4f32.powi(i % 4 - 3)).collect();
    let undo: Vec<f32> = sizes.iter().map(|size| 1.0 / size).collect();
    Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .floats("sizes", &[1, 8, 1, 1], &sizes)
        .node("Mul", &["a", "sizes"], "small", &[])
        .node("HardSwish", &["small"], "bent", &[])
        .floats("undo", &[1, 8, 1, 1], &undo)
        .node("Mul", &["bent", "undo"], "even", &[])
        .conv("even", "b", 8, 8, 3, 2, 8)
        .node("Relu", &["b"], "br", &[])
        .conv("br", "c", 8, 12, 1, 1, 1)
        .node("GlobalAveragePool", &["c"], "features", &[])
        .model(&["features"])
}

fn quantized(folder: &Folder, model: &ModelProto, max_loss: Option<f64>) -> Result<Quantized, QuantizeError> {
    let mut options = QuantizeOptions::new(folder.arrays(&[3, 8, 8], 40));
    options.max_loss = max_loss;
    quantize(&folder.model(model), &options, &mut |_| {})
}

#[test]
fn a_budget_is_kept_by_the_layers_that_need_it() {
    let folder = Folder::new("budget");
    let model = uneven();
    let loose = quantized(&folder, &model, Some(0.9)).unwrap();
    let plain = quantized(&folder, &model, None).unwrap();
    assert_eq!(loose.bundle_bytes, plain.bundle_bytes);
    assert_eq!((loose.report.fallbacks.len(), loose.report.slowdown), (0, None));
    let loss_int8 = loose.report.loss_int8.unwrap();

    let budget = loss_int8 / 3.0;
    let Quantized { bundle_bytes, report } = quantized(&folder, &model, Some(budget)).unwrap();
    assert_eq!((report.max_loss, report.n_verified, report.exact), (Some(budget), 32, true));
    let loss = 1.0 - report.cosine_mean.unwrap();
    assert!(loss <= budget && report.loss_int8 == Some(loss_int8), "{loss} of {budget}; {loss_int8} in int8");
    assert!(!report.fallbacks.is_empty());
    for fallback in &report.fallbacks {
        assert!(fallback.loss_without.is_none_or(|loss| loss > budget), "{fallback:?} is not needed");
        assert!(!fallback.layers.is_empty(), "{fallback:?}");
    }
    let precisions: Vec<&str> = report.layers.iter().map(|layer| layer.precision).collect();
    assert!(precisions.contains(&"int16"), "{precisions:?}");
    // The bits are those of the self-tests on every set of instructions.
    let bundle = graft_bundle::UncheckedBundle::read(bundle_bytes.clone()).unwrap().check().unwrap();
    for isa in available_isas() {
        let n = graft_engine::Engine::load_with(&bundle, isa, 1).unwrap().self_test(&bundle);
        assert_eq!(n, Ok(3), "{isa}");
    }
    let again = quantized(&folder, &model, Some(budget)).unwrap();
    assert_eq!(again.bundle_bytes, bundle_bytes, "a search ends the same way every time");
}

#[test]
fn weights_that_eight_bits_lose_are_computed_in_float() {
    // Large weights for a small channel leave those of the other channels a step or two.
    let weight = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0 * if (i / 9).is_multiple_of(8) { 64.0 } else { 1.0 };
    let weights: Vec<f32> = (0..8 * 8 * 9).map(weight).collect();
    let sizes: Vec<f32> = (0..8).map(|c| if c == 0 { 1.0 / 64.0 } else { 1.0 }).collect();
    let model = Build::new("x", &[0, 3, 8, 8])
        .conv("x", "a", 3, 8, 3, 1, 1)
        .floats("sizes", &[1, 8, 1, 1], &sizes)
        .node("Mul", &["a", "sizes"], "small", &[])
        .node("Relu", &["small"], "ar", &[])
        .floats("w", &[8, 8, 3, 3], &weights)
        .node("Conv", &["ar", "w"], "b", &[("pads", Attribute::Ints(vec![1; 4]))])
        .conv("b", "c", 8, 24, 1, 1, 1)
        .node("GlobalAveragePool", &["c"], "features", &[])
        .model(&["features"]);
    let folder = Folder::new("outlier");
    let loss_int8 = quantized(&folder, &model, Some(0.9)).unwrap().report.loss_int8.unwrap();
    let report = quantized(&folder, &model, Some(loss_int8 / 6.0)).unwrap().report;
    assert!(report.loss_int16.unwrap() > loss_int8 / 6.0, "{:?}", report.loss_int16);
    let float: Vec<&str> = report
        .fallbacks
        .iter()
        .filter(|f| f.precision == "float")
        .flat_map(|f| &f.layers)
        .map(String::as_str)
        .collect();
    assert_eq!(float, ["n_b"], "{:#?}", report.fallbacks);
    let held: Vec<&str> = report.layers.iter().filter(|l| l.precision == "float").map(|l| l.op).collect();
    assert_eq!(held, ["Dequantize", "FloatConv", "Quantize"]);
}

#[test]
fn a_budget_that_nothing_keeps_names_what_can_be_had() {
    let folder = Folder::new("no-budget");
    let error = quantized(&folder, &uneven(), Some(1e-9)).unwrap_err();
    let QuantizeError::Loss { budget, least, n_inputs, .. } = error else { panic!("{error}") };
    assert_eq!((budget, n_inputs), (1e-9, 32));
    assert!(quantized(&folder, &uneven(), Some(least * 1.01)).is_ok());
}
