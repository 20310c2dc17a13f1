//! Crafted graphs: whatever the bytes say, loading refuses or the graph runs; nothing panics.

mod common;

use common::{Net, branched_net, float_net, mobile_net, seeded};
use graft_bundle::TensorId;
use graft_bundle::graph::{Graph, Tensor};
use graft_engine::{Engine, Isa, Tracer};
use proptest::prelude::*;

/// Graphs whose arena and work are small enough to be run in a test.
const RUN_BYTES_MAX: u64 = 1 << 20;
const RUN_MACS_MAX: u64 = 1 << 22;

fn nets() -> [Net; 3] {
    [mobile_net(), branched_net(), float_net()]
}

/// Loads and, if it loads, runs. Returns whether it ran.
fn survives(net: &Net) -> bool {
    let Ok(mut engine) = Engine::load(&net.bundle()) else { return false };
    let n_macs: u64 = engine.step_costs().map(|step| step.n_macs).fold(0, u64::saturating_add);
    if engine.arena_bytes() > RUN_BYTES_MAX || n_macs > RUN_MACS_MAX {
        return false;
    }
    let input = seeded(5, engine.input_len());
    // An output without direction is an answer, too; a fault of the engine is not.
    let output = engine.output(&input).unwrap();
    assert_eq!(output.len(), engine.embedding_len());
    Tracer::load(&net.bundle(), Isa::Scalar).unwrap().run(&input).unwrap();
    true
}

/// Numbers at the edges of what a field may hold.
fn edge() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), 2u32..20, Just(127), Just(4096), Just(1 << 16), Just(1 << 28), Just(u32::MAX)]
}

fn tensor_of(graph: &mut Graph, at: usize) -> &mut Tensor {
    let n = graph.tensors.len();
    &mut graph.tensors[at % n]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn damaged_graph_bytes_are_refused_or_run(
        which in 0usize..3, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut net = nets()[which].clone();
        let mut bytes = postcard::to_allocvec(&net.graph).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(graph) = postcard::from_bytes(&bytes) {
            net.graph = graph;
            survives(&net);
        }
    }

    #[test]
    fn extreme_fields_are_refused_or_run(
        which in 0usize..3, at in any::<usize>(), axis in 0usize..3, value in edge(), what in 0usize..6,
    ) {
        let mut net = nets()[which].clone();
        let n_steps = net.graph.steps.len();
        match what {
            0 => tensor_of(&mut net.graph, at).shape[axis] = value,
            1 => tensor_of(&mut net.graph, at).zero_point = value as i32,
            2 => net.graph.steps[at % n_steps].output = TensorId(value),
            3 => net.graph.steps[at % n_steps].inputs = vec![TensorId(value); axis],
            4 => net.graph.output = TensorId(value),
            _ => net.graph.input = TensorId(value),
        }
        survives(&net);
    }

    #[test]
    fn payload_of_any_bytes_is_refused_or_runs(which in 0usize..3, fill in any::<[u8; 7]>()) {
        // The same graph over other weights, biases and multipliers.
        let net = nets()[which].clone();
        let mut other = net.clone();
        other.writer = graft_bundle::BundleWriter::new();
        let n = net.file(&[]).len();
        other.writer.push(&fill.iter().copied().cycle().take(n).collect::<Vec<_>>());
        survives(&other);
    }
}

#[test]
fn what_is_not_damaged_runs() {
    assert!(nets().iter().all(survives));
}
