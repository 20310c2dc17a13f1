//! Steps that are ONNX models: what they compute, what bundles with them say of themselves, and what is refused.
#![cfg(feature = "inexact")]

mod common;

use common::{Net, mobile_net, model, node, onnx_net, onnx_net_of, open, seeded};
use graft_bundle::TensorId;
use graft_bundle::file::{Case, CaseInput};
use graft_bundle::graph::{Blob, Op, Tensor};
use graft_engine::{Engine, INEXACT_COSINE_MIN, Isa, SelfTestError, Tracer, available_isas};
use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, tensor_shape_proto, type_proto,
};

const SHAPE: &[i64] = &[1, 20, 6];

/// The model of [`onnx_net`], changed.
fn changed(change: impl FnOnce(&mut ModelProto)) -> String {
    let nodes = vec![node("Softmax", &["x0"], "s"), node("Add", &["s", "x1"], "a"), node("MatMul", &["a", "w"], "y")];
    let mut model = model(&[SHAPE, SHAPE], nodes);
    let weights = (0..120).flat_map(|i| (i as f32 / 60.0 - 1.0).to_le_bytes()).collect();
    let w = TensorProto { name: "w".into(), dims: vec![6, 20], data_type: 1, raw_data: weights, ..Default::default() };
    model.graph.as_mut().unwrap().initializer.push(w);
    change(&mut model);
    refusal(&onnx_net_of(&model.encode_to_vec()))
}

fn refusal(net: &Net) -> String {
    match Engine::load(&net.bundle()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string().replace("step \"onnx_2\" (Onnx): ", ""),
    }
}

fn nodes(model: &mut ModelProto) -> &mut Vec<NodeProto> {
    &mut model.graph.as_mut().unwrap().node
}

fn weights(model: &mut ModelProto) -> &mut TensorProto {
    &mut model.graph.as_mut().unwrap().initializer[0]
}

/// A constant of integers.
fn ints(name: &str, values: &[i64]) -> TensorProto {
    let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto { name: name.into(), dims: vec![values.len() as i64], data_type: 7, raw_data, ..Default::default() }
}

#[test]
fn a_model_gives_what_it_says() {
    let bundle = onnx_net().bundle();
    let input = seeded(4, 60);
    let values = Tracer::load(&bundle, Isa::Scalar).unwrap().run(&input).unwrap();
    let of = |tensor: u32| &values.iter().find(|(id, _)| *id == TensorId(tensor)).unwrap().1;
    let (x, y) = (of(2), of(3));
    assert_eq!((x.len(), y.len()), (120, 400));
    for (i, row) in x.chunks(6).enumerate() {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f32 = row.iter().map(|v| (v - largest).exp()).sum();
        for (j, other) in x.chunks(6).enumerate() {
            let expected: f32 = row.iter().zip(other).map(|(a, b)| (a - largest).exp() / sum * b).sum();
            let found = y[20 * i + j];
            // Six products of numbers up to 4, in f32, in any order.
            assert!((found - expected).abs() < 1e-5, "{i}, {j}: {found} and {expected}");
        }
    }
    let mut engine = Engine::load(&bundle).unwrap();
    let embedding = engine.embed(&input).unwrap();
    for isa in available_isas() {
        for n_threads in [1, 3] {
            let mut twin = Engine::load_with(&bundle, isa, n_threads).unwrap();
            assert_eq!(twin.embed(&input).unwrap(), embedding, "one CPU, one result: {isa}, {n_threads}");
        }
    }
    assert_ne!(engine.embed(&seeded(5, 60)).unwrap(), embedding);
    assert_eq!(engine.embed(&input).unwrap(), embedding, "nothing is carried over");
    assert!(engine.packed_bytes() > 0);
}

#[test]
fn manifests_say_whether_a_bundle_is_exact() {
    assert!(!onnx_net().bundle().manifest().exact);
    let says = |mut net: Net, exact: bool| {
        net.exact = Some(exact);
        refusal(&net)
    };
    assert_eq!(says(onnx_net(), true), "manifest says exact = true; 1 of the graph's steps are in tract's float code");
    assert_eq!(
        says(mobile_net(), false),
        "manifest says exact = false; 0 of the graph's steps are in tract's float code"
    );
}

#[test]
fn self_tests_of_inexact_bundles_compare_directions() {
    let input = seeded(3, 60);
    let mut engine = Engine::load(&onnx_net().bundle()).unwrap();
    let expected = engine.embed(&input).unwrap();
    let tested = |expected: Vec<i8>| {
        let case = Case { input: CaseInput::Stored(input.clone()), expected };
        let bundle = open(onnx_net().file(&[case]));
        Engine::load(&bundle).unwrap().self_test(&bundle)
    };
    let off_by = |step: i8| {
        let mut other = expected.clone();
        other[0] = if other[0] > 0 { other[0] - step } else { other[0] + step };
        other
    };
    assert_eq!(tested(expected.clone()), Ok(1));
    assert_eq!(tested(off_by(1)), Ok(1), "a step of rounding is no fault");
    let error = tested(off_by(40)).unwrap_err();
    assert!(matches!(error, SelfTestError::Far { case: 0, allowed: INEXACT_COSINE_MIN, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("self-test case 0: cosine to the expected embedding is 0.9"), "{text}");
    assert!(text.ends_with("; allowed: at least 0.999"), "{text}");
    assert!(tested(vec![0; 9]).unwrap_err().to_string().contains("is NaN"));
}

#[test]
fn lengths_and_types_are_those_of_the_step() {
    assert_eq!(changed(|_| ()), "accepted");
    let of = |inputs: &[&[i64]], nodes| refusal(&onnx_net_of(&model(inputs, nodes).encode_to_vec()));
    assert_eq!(
        of(&[SHAPE, &[1, 20, 5]], vec![node("Relu", &["x0"], "y")]),
        "model has inputs of [120, 100] elements; allowed: [120, 120]"
    );
    assert_eq!(
        of(&[SHAPE], vec![node("Relu", &["x0"], "y")]),
        "model has inputs of [120] elements; allowed: [120, 120]"
    );
    assert_eq!(
        of(&[SHAPE, SHAPE], vec![node("Relu", &["x0"], "y")]),
        "model has an output of 120 elements; allowed: 400"
    );
    let greater = vec![node("Unsqueeze", &["x1", "axes"], "u"), node("Greater", &["x0", "u"], "y")];
    let mut bools = model(&[SHAPE, SHAPE], greater);
    bools.graph.as_mut().unwrap().initializer.push(ints("axes", &[0]));
    assert_eq!(refusal(&onnx_net_of(&bools.encode_to_vec())), "model has an output of Bool; allowed: F32");
    let mut net = onnx_net();
    net.graph.steps[2].inputs = vec![TensorId(1), TensorId(2)];
    assert_eq!(refusal(&net), "input is I8; allowed: F32");
    net.graph.steps[2].inputs.clear();
    assert_eq!(refusal(&net), "has 0 inputs; allowed: one or more");
    let blob = |bytes| {
        let mut net = onnx_net();
        net.graph.steps[2].op = Op::Onnx { model: Blob { offset: 0, bytes } };
        refusal(&net)
    };
    assert_eq!(blob(0), "length of the model is 0; allowed: 1 to 67108864");
    assert_eq!(blob(1 << 40), "length of the model is 1099511627776; allowed: 1 to 67108864");
    assert_eq!(blob(1 << 25), "model at byte 0 with 33554432 bytes is not aligned or leaves the payload");
}

#[test]
fn models_that_could_take_the_machine_down_are_refused() {
    assert!(
        refusal(&onnx_net_of(b"#!/bin/sh")).starts_with("model failed to decode"),
        "{}",
        refusal(&onnx_net_of(b"#!/bin/sh"))
    );
    assert_eq!(refusal(&onnx_net_of(&[0x08, 8])), "model holds no graph");
    let external = |model: &mut ModelProto| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        weights(model).external_data = vec![entry("location", "/etc/passwd")];
        weights(model).data_location = Some(1);
    };
    assert_eq!(changed(external), "model has a tensor `w` that wants external data");
    assert_eq!(
        changed(|m| weights(m).dims = vec![1 << 40, 1 << 40]),
        "model has a tensor `w` of 480 raw bytes and shape [1099511627776, 1099511627776]"
    );
    assert_eq!(
        changed(|m| weights(m).dims = vec![6, -20]),
        "model has a tensor `w` of 480 raw bytes and shape [6, -20]"
    );
    assert_eq!(changed(|m| weights(m).data_type = 8), "model has a tensor `w` of ONNX type 8");
    assert_eq!(
        changed(|m| weights(m).float_data.push(0.0)),
        "model has a tensor `w` of 480 raw bytes and shape [6, 20]"
    );
    let truth = |m: &mut ModelProto| (weights(m).data_type, weights(m).dims) = (9, vec![480]);
    assert_eq!(changed(truth), "model has a tensor `w` of truth values beyond 1");
    let large = |m: &mut ModelProto| *weights(m) = ints("w", &[1 << 40]);
    assert_eq!(changed(large), "model has a tensor `w` of integers beyond 32 bits");

    let bomb = |m: &mut ModelProto| {
        m.graph.as_mut().unwrap().initializer.push(ints("n", &[1 << 20, 1 << 20]));
        nodes(m).insert(0, node("ConstantOfShape", &["n"], "c"));
    };
    assert_eq!(changed(bomb), "model has a node `n_c` (ConstantOfShape) that depends on no input");
    let shape = |m: &mut ModelProto| nodes(m).push(node("Shape", &["x0"], "c"));
    assert_eq!(changed(shape), "model has a node `n_c` of operator Shape, whose result is constant");
    let tile = |m: &mut ModelProto| {
        m.graph.as_mut().unwrap().initializer.push(ints("n", &[1 << 20, 1 << 20, 1]));
        *nodes(m) = vec![node("Tile", &["x0", "n"], "c"), node("Relu", &["c"], "y")];
    };
    assert_eq!(
        changed(tile),
        "model has a node `n_c` of shape [1048576, 20971520, 6]; allowed: at most 268435456 bytes"
    );
    let many = |m: &mut ModelProto| {
        m.graph.as_mut().unwrap().initializer.push(ints("n", &[1 << 10, 1 << 7, 1]));
        *nodes(m) = vec![node("Tile", &["x0", "n"], "c0")];
        (0..17).for_each(|i| nodes(m).push(node("Exp", &[&format!("c{i}")], &format!("c{}", i + 1))));
        nodes(m).push(node("Relu", &["c17"], "y"));
    };
    assert_eq!(changed(many), "model has tensors of 1195377628 bytes; allowed: at most 1073741824");
    let subgraph = |m: &mut ModelProto| {
        let g = m.graph.clone();
        nodes(m)[0].attribute.push(AttributeProto { name: "body".into(), r#type: 5, g, ..Default::default() });
    };
    assert_eq!(changed(subgraph), "model has a node `n_s` that holds a graph of its own");
    let attribute = |m: &mut ModelProto| {
        nodes(m)[0].attribute.push(AttributeProto {
            name: "axis".into(),
            r#type: 2,
            i: i64::MAX,
            ..Default::default()
        });
    };
    assert_eq!(changed(attribute), "model has a node `n_s` with an attribute of 9223372036854775807; allowed: 32 bits");
    let axes = |m: &mut ModelProto| {
        let perm = AttributeProto { name: "perm".into(), r#type: 7, ints: vec![2, 2, 1], ..Default::default() };
        nodes(m).insert(0, NodeProto { attribute: vec![perm], ..node("Transpose", &["x0"], "c") });
    };
    assert_eq!(changed(axes), "model has a node `n_c` with the axes [2, 2, 1]; allowed: a permutation");
    assert_eq!(
        changed(|m| nodes(m)[1].input[0] = "ghost".into()),
        "model has a node `n_a` (Add) that reads `ghost`, which nothing writes"
    );
    assert_eq!(changed(|m| nodes(m)[1].output[0] = "s".into()), "model has two tensors of one name");
    assert_eq!(
        changed(|m| m.graph.as_mut().unwrap().output[0].name = "w".into()),
        "model has an output `w`, which no node writes"
    );
    assert_eq!(changed(|m| m.graph.as_mut().unwrap().output.clear()), "model has 0 outputs; allowed: one");
    let open = |m: &mut ModelProto| {
        let r#type = m.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = &mut r#type.value else { panic!() };
        tensor.shape.as_mut().unwrap().dim[0].value = Some(tensor_shape_proto::dimension::Value::DimParam("N".into()));
    };
    assert_eq!(changed(open), "model has an input `x0` of an open shape, or over 268435456 bytes");
    let unknown = changed(|m| nodes(m)[0].op_type = "Frobnicate".repeat(100));
    assert!(unknown.starts_with("model ") && unknown.len() < 320, "{unknown}");
}

/// `PROPTEST_CASES` makes a long search of it.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(300), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_models_are_refused_or_run(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let net = onnx_net();
        let Op::Onnx { model } = net.graph.steps[2].op else { panic!() };
        let mut bytes = net.bundle().blob(model).unwrap().into_owned();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut engine) = Engine::load(&onnx_net_of(&bytes).bundle()) {
            // tract may still say no; it must not panic.
            let _ = engine.output(&seeded(1, 60));
        }
    }
}

#[test]
fn tensors_beside_the_model_are_checked_as_ever() {
    let mut net = onnx_net();
    net.graph.tensors[3] = Tensor { shape: [20, 4, 5], ..net.graph.tensors[3].clone() };
    assert!(refusal(&net).starts_with("step \"quantize_3\" (Quantize): output has shape"), "{}", refusal(&net));
}
