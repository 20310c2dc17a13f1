//! Graphs run by the engine against a second, naive interpreter: every tensor, bit for bit.

mod common;
#[path = "common/naive.rs"]
mod naive;

use common::{Net, branched_net, float_net, mobile_net, onnx_net_of, open, product_net, seeded, square, wide_net};
use graft_bundle::DataType;
use graft_bundle::file::{Case, CaseInput};
use graft_engine::{EmbedError, Engine, Isa, SelfTestError, Tracer, available_isas};
use naive::Values;

fn agrees_with_naive(net: &Net) {
    for isa in available_isas() {
        agrees_with_naive_on(net, isa, 1);
        agrees_with_naive_on(net, isa, 3);
    }
}

fn agrees_with_naive_on(net: &Net, isa: Isa, n_threads: usize) {
    let bundle = net.bundle();
    let mut engine = Engine::load_with(&bundle, isa, n_threads).unwrap();
    let mut tracer = Tracer::load(&bundle, isa).unwrap();
    for seed in 0..3 {
        let input = seeded(seed, engine.input_len());
        let expected = naive::evaluate(&bundle, &input);
        let traced = tracer.run(&input).unwrap();
        assert_eq!(traced.len(), bundle.graph().tensors.len());
        for (id, values) in &traced {
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let real = naive::real(&bundle, id.0 as usize, &expected[id.0 as usize]);
            assert_eq!(bits(values), bits(&real), "tensor {}", id.0);
        }
        // The planned run shares memory between tensors; tracing checks the plan, this checks tract around it.
        let output = bundle.graph().output.0 as usize;
        let Values::Int(values) = &expected[output] else { panic!() };
        let zero_point = i64::from(bundle.graph().tensors[output].zero_point);
        let centred: Vec<i32> = values.iter().map(|v| (v - zero_point) as i32).collect();
        assert_eq!(engine.output(&input).unwrap(), centred);
        assert!(centred.iter().any(|v| *v != centred[0]), "a constant output tests nothing");
        let norm = (centred.iter().map(|v| i64::from(*v).pow(2)).sum::<i64>() as f64).sqrt();
        let embedding: Vec<i8> = (centred.iter())
            .map(|v| (300.0 * f64::from(*v) / norm).round_ties_even().clamp(-127.0, 127.0) as i8)
            .collect();
        assert_eq!(engine.embed(&input).unwrap(), embedding);
    }
}

#[test]
fn inverted_residual_equals_the_naive_interpreter() {
    agrees_with_naive(&mobile_net());
}

#[test]
fn every_integer_op_equals_the_naive_interpreter() {
    agrees_with_naive(&branched_net());
}

#[test]
fn sixteen_bits_equal_the_naive_interpreter() {
    agrees_with_naive(&wide_net());
}

#[test]
fn products_of_activations_equal_the_naive_interpreter() {
    agrees_with_naive(&product_net());
}

#[test]
fn every_float_op_equals_the_naive_interpreter() {
    agrees_with_naive(&float_net());
}

#[test]
fn the_nets_hold_every_op() {
    let mut ops: Vec<String> = [mobile_net(), branched_net(), float_net(), product_net(), onnx_net_of(&[])]
        .iter()
        .flat_map(|n| n.bundle().manifest().ops.clone())
        .collect();
    ops.sort();
    ops.dedup();
    assert_eq!(ops, graft_engine::OPS);
}

#[test]
fn an_inference_leaves_no_trace_in_the_next() {
    let bundle = mobile_net().bundle();
    let (a, b) = (seeded(1, 13 * 11 * 3), seeded(2, 13 * 11 * 3));
    let mut engine = Engine::load(&bundle).unwrap();
    let first = engine.embed(&a).unwrap();
    assert_ne!(engine.embed(&b).unwrap(), first);
    assert_eq!(engine.embed(&a).unwrap(), first);
}

#[test]
fn memory_is_reused_and_costs_are_listed() {
    let net = mobile_net();
    let engine = Engine::load(&net.bundle()).unwrap();
    let all: u64 = net.graph.tensors.iter().map(|t| t.bytes()).sum();
    assert!(engine.arena_bytes() < all * 7 / 10, "{} of {all}", engine.arena_bytes());
    let stem = engine.step_costs().next().unwrap();
    assert_eq!((stem.name, stem.op, stem.n_macs), ("conv_0", "Conv", 7 * 6 * 10 * 27));
    let wide = Engine::load(&wide_net().bundle()).unwrap();
    let ops: Vec<&str> = wide.step_costs().map(|step| step.op).take(4).collect();
    assert_eq!(ops, ["Table int16", "AveragePool int16", "MaxPool int16", "Conv int16"]);
    assert_eq!((engine.input_len(), engine.embedding_len()), (13 * 11 * 3, 24));
}

#[test]
fn an_engine_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Engine>();
}

#[test]
fn inputs_without_embedding_are_refused() {
    let mut net = Net::new([2, 2, 3], 0);
    net.global_sum(net.input());
    let mut engine = Engine::load(&net.bundle()).unwrap();
    let short = engine.embed(&[1; 11]).unwrap_err();
    assert_eq!(short, EmbedError::InputLength { found: 11, expected: 12 });
    assert_eq!(short.to_string(), "input tensor has 11 values; this bundle takes 12");
    let zero = engine.embed(&[0; 12]).unwrap_err();
    assert_eq!(zero.to_string(), "backbone output is zero in every element; the input has no embedding");
    assert_eq!(engine.output(&[0; 12]).unwrap(), [0, 0, 0]);
    assert_eq!(engine.embed(&[9; 12]).unwrap(), [127; 3], "the engine still works");

    let net = Net::new([1, 1, 4], 0);
    let mut engine = Engine::load(&net.bundle()).unwrap();
    let saturated = engine.embed(&[127, -128, 127, 127]).unwrap_err();
    assert_eq!(saturated.to_string(), "backbone output is saturated in every element; the input has no embedding");
    assert!(engine.embed(&[127, -128, 127, 126]).is_ok());
}

#[test]
fn self_tests_compare_every_byte() {
    let mut net = Net::new([4, 4, 3], 0);
    let x = net.conv(net.input(), 8, square(3, 1, 1), 1, DataType::I8);
    net.global_sum(x);
    let mut engine = Engine::load(&net.bundle()).unwrap();
    let stored = seeded(3, 48);
    let case = |input, expected| Case { input, expected };
    let first = case(CaseInput::Stored(stored.clone()), engine.embed(&stored).unwrap());
    let second = case(CaseInput::Seeded(9), engine.embed(&seeded(9, 48)).unwrap());
    let bundle = open(net.file(&[first.clone(), second.clone()]));
    assert_eq!(Engine::load(&bundle).unwrap().self_test(&bundle), Ok(2));

    let mut other = second;
    other.expected[0] ^= 1;
    other.expected[7] ^= 1;
    let bundle = open(net.file(&[first.clone(), other]));
    let error = Engine::load(&bundle).unwrap().self_test(&bundle).unwrap_err();
    assert_eq!(error, SelfTestError::Differs { case: 1, n_bytes: 2, embedding_len: 8 });
    assert_eq!(error.to_string(), "self-test case 1: 2 of 8 embedding bytes differ");

    let short = case(CaseInput::Stored(vec![1; 5]), first.expected.clone());
    let bundle = open(net.file(&[short]));
    let error = Engine::load(&bundle).unwrap().self_test(&bundle).unwrap_err();
    assert_eq!(error.to_string(), "self-test case 0: input tensor has 5 values; this bundle takes 48");
    let cut = Case { expected: first.expected[1..].to_vec(), ..first };
    let bundle = open(net.file(&[cut]));
    let error = Engine::load(&bundle).unwrap().self_test(&bundle).unwrap_err();
    assert_eq!(error.to_string(), "self-test case 0: its input or expected embedding is not in the bundle");
}
