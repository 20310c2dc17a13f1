//! Tiny bundles for tests, built in code.

use graft_bundle::file::{BundleWriter, Draft};
use graft_bundle::graph::{DataType, Graph, Op, Step, Tensor, TensorId};
use graft_bundle::{ArraySpec, Bundle, InputSpec, UncheckedBundle};

/// Of a graph whose embedding has three components.
pub fn bundle_of(writer: BundleWriter, graph: &Graph, exact: bool) -> Bundle {
    let array = ArraySpec { shape: vec![1], channels_first: false, inv_scale: 2.0, zero_point: 0 };
    let draft = Draft {
        name: "normed".into(),
        input: InputSpec { array, image: None },
        embedding_len: 3,
        inv_scale: 300.0,
        exact,
        origin: "here".into(),
        licence: String::new(),
        board_class: String::new(),
        epoch: 1,
    };
    UncheckedBundle::read(writer.finish(&draft, graph, &[]).unwrap()).unwrap().check().unwrap()
}

/// An ONNX model, which no engine would take, between a step into float and one out of it.
pub fn inexact_bundle() -> Bundle {
    let mut writer = BundleWriter::new();
    let model = writer.push(b"a model");
    let tensor = |data_type| Tensor { shape: [1, 1, 3], data_type, scale: 1.0, zero_point: 0 };
    let step = |op, from| Step { name: "norm".into(), op, inputs: vec![TensorId(from)], output: TensorId(from + 1) };
    let graph = Graph {
        tensors: [DataType::I8, DataType::F32, DataType::F32, DataType::I8].map(tensor).to_vec(),
        steps: vec![
            step(Op::Dequantize { scale: 1.0 }, 0),
            step(Op::Onnx { model }, 1),
            step(Op::Quantize { inv_scale: 1.0, low: -128, high: 127 }, 2),
        ],
        input: TensorId(0),
        output: TensorId(3),
    };
    bundle_of(writer, &graph, false)
}
