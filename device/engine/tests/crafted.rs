//! Crafted graphs: whatever the bytes say, loading refuses or the graph runs, with the same result on every set of
//! instructions; nothing panics. `PROPTEST_CASES` makes a long search of it.

mod common;

use common::{Net, branched_net, float_net, mobile_net, product_net, seeded, wide_net};
use graft_bundle::TensorId;
use graft_bundle::graph::{Graph, Op, Tensor, Window};
use graft_engine::{Engine, Isa, Tracer, available_isas};
use proptest::prelude::*;

/// Graphs whose arena and work are small enough to be run in a test.
const RUN_BYTES_MAX: u64 = 1 << 20;
const RUN_MACS_MAX: u64 = 1 << 22;

fn nets() -> [Net; 5] {
    [mobile_net(), branched_net(), float_net(), wide_net(), product_net()]
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
    for isa in available_isas() {
        for n_threads in [1, 2] {
            let mut twin = Engine::load_with(&net.bundle(), isa, n_threads).unwrap();
            assert_eq!(twin.output(&input).unwrap(), output, "{isa}, {n_threads} threads");
        }
    }
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

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(1500), ..ProptestConfig::default() }
}

fn window_of(op: &mut Op) -> Option<&mut Window> {
    match op {
        Op::Conv { window, .. } | Op::FloatConv { window, .. } => Some(window),
        Op::AveragePool { window, .. } | Op::MaxPool { window } => Some(window),
        _ => None,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn damaged_graph_bytes_are_refused_or_run(
        which in 0usize..5, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
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
        which in 0usize..5, at in any::<usize>(), axis in 0usize..3, value in edge(), what in 0usize..6,
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
    fn extreme_windows_are_refused_or_run(
        which in 0usize..5, at in any::<usize>(), changes in prop::collection::vec((0usize..5, 0usize..2, edge()), 1..4),
        groups in prop::option::of(edge()), fit in any::<bool>(),
    ) {
        let mut net = nets()[which].clone();
        let windowed: Vec<usize> =
            (0..net.graph.steps.len()).filter(|i| window_of(&mut net.graph.steps[*i].op).is_some()).collect();
        let step = windowed[at % windowed.len()];
        let [input, output] = [net.graph.steps[step].inputs[0], net.graph.steps[step].output];
        let window = window_of(&mut net.graph.steps[step].op).unwrap();
        for (field, axis, value) in changes {
            let Window { kernel, stride, dilation, pad_before, pad_after } = window;
            [kernel, stride, dilation, pad_before, pad_after][field][axis] = value;
        }
        // The output as the window wants it, or all of these are refused for that.
        if fit {
            let shape = net.graph.tensors[input.0 as usize].shape;
            let sizes = [0, 1].map(|axis| {
                let [kernel, stride, dilation, before, after] = [
                    window.kernel, window.stride, window.dilation, window.pad_before, window.pad_after,
                ].map(|field| i128::from(field[axis]));
                (i128::from(shape[axis]) + before + after - dilation * (kernel - 1) - 1) / stride.max(1) + 1
            });
            for (axis, size) in sizes.into_iter().enumerate() {
                net.graph.tensors[output.0 as usize].shape[axis] = size.clamp(0, 1 << 20) as u32;
            }
        }
        if let (Op::Conv { groups: field, .. }, Some(groups)) = (&mut net.graph.steps[step].op, groups) {
            *field = groups;
        }
        survives(&net);
    }

    #[test]
    fn payload_of_any_bytes_is_refused_or_runs(which in 0usize..5, fill in any::<[u8; 7]>()) {
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
