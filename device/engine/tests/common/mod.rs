//! Builds small graphs in code.
#![allow(dead_code, reason = "each test program uses a part")]

use graft_bundle::file::{BundleWriter, Case, Draft};
use graft_bundle::graph::{Graph, Op, Requantize, Step, Tensor, Window};
use graft_bundle::manifest::seeded_bytes;
use graft_bundle::{ArraySpec, Bundle, DataType, InputSpec, TensorId, UncheckedBundle};

/// A graph under construction with its payload.
#[derive(Clone)]
pub struct Net {
    pub writer: BundleWriter,
    pub graph: Graph,
    pub embedding_len: Option<u32>,
    /// What the manifest says; the truth if None.
    pub exact: Option<bool>,
    seed: u32,
}

pub fn square(kernel: u32, stride: u32, pad: u32) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], pad_before: [pad; 2], pad_after: [pad; 2] }
}

impl Net {
    pub fn new(shape: [u32; 3], zero_point: i32) -> Self {
        let input = Tensor { shape, data_type: DataType::I8, scale: 0.5, zero_point };
        let graph = Graph { tensors: vec![input], steps: vec![], input: TensorId(0), output: TensorId(0) };
        Self { writer: BundleWriter::new(), graph, embedding_len: None, exact: None, seed: 1 }
    }

    pub fn input(&self) -> TensorId {
        self.graph.input
    }

    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.graph.tensors[id.0 as usize]
    }

    /// Appends a step and its output, which becomes the graph's.
    pub fn step(&mut self, op: Op, inputs: &[TensorId], output: Tensor) -> TensorId {
        let id = TensorId(self.graph.tensors.len() as u32);
        let name = format!("{}_{}", op.name().to_lowercase(), self.graph.steps.len());
        self.graph.tensors.push(output);
        self.graph.steps.push(Step { name, op, inputs: inputs.to_vec(), output: id });
        self.graph.output = id;
        id
    }

    /// A tensor like another.
    pub fn like(&self, id: TensorId, shape: [u32; 3]) -> Tensor {
        Tensor { shape, ..self.tensor(id).clone() }
    }

    pub fn bytes(&mut self, n: usize) -> Vec<i8> {
        self.seed += 1;
        seeded_bytes(self.seed * 7919).take(n).map(|b| (b as i8).max(-127)).collect()
    }

    pub fn conv(&mut self, x: TensorId, out_c: u32, window: Window, groups: u32, to: DataType) -> TensorId {
        let [h, w, c] = self.tensor(x).shape;
        let along = |axis: usize, size: u32| {
            let reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1;
            (size + window.pad_before[axis] + window.pad_after[axis] - reach) / window.stride[axis] + 1
        };
        let per_channel = window.kernel[0] * window.kernel[1] * c / groups;
        let weights = self.bytes((out_c * per_channel) as usize);
        let weights = self.writer.push_i8(&weights);
        let bias: Vec<i32> = self.bytes(out_c as usize).iter().map(|b| i32::from(*b) * 40).collect();
        let bias = self.writer.push_i32(&bias);
        let scale = (1 << 22) / (per_channel as i32 + 3) / if to == DataType::I8 { 40 } else { 1 };
        let multipliers: Vec<i32> = self.bytes(out_c as usize).iter().map(|b| (scale + i32::from(*b)).max(1)).collect();
        let multipliers = self.writer.push_i32(&multipliers);
        let (low, high) = if to == DataType::I8 { (-120, 127) } else { (-32_000, 32_767) };
        let output = Tensor {
            shape: [along(0, h), along(1, w), out_c],
            data_type: to,
            scale: 0.25,
            zero_point: if to == DataType::I8 { -7 } else { 500 },
        };
        let requantize = Requantize { multipliers, low, high };
        self.step(Op::Conv { window, groups, weights, bias, requantize }, &[x], output)
    }

    pub fn global_sum(&mut self, x: TensorId) -> TensorId {
        let c = self.tensor(x).shape[2];
        let output = Tensor { shape: [1, 1, c], data_type: DataType::I32, scale: 0.25, zero_point: 0 };
        self.step(Op::GlobalSum, &[x], output)
    }

    pub fn file(&self, cases: &[Case]) -> Vec<u8> {
        let input = self.graph.tensors.get(self.graph.input.0 as usize);
        let shape = input.map_or(vec![1], |t| t.shape.to_vec());
        let output = self.graph.tensors.get(self.graph.output.0 as usize);
        let embedding_len = output.map_or(1, |t| t.n_elements().clamp(1, 8192) as u32);
        let draft = Draft {
            name: "net".into(),
            input: InputSpec {
                array: ArraySpec { shape, channels_first: false, inv_scale: 2.0, zero_point: 0 },
                image: None,
            },
            embedding_len: self.embedding_len.unwrap_or(embedding_len),
            inv_scale: 300.0,
            exact: self.exact.unwrap_or(!self.graph.steps.iter().any(|step| matches!(step.op, Op::Onnx { .. }))),
            origin: "test".into(),
            licence: "MIT".into(),
            board_class: String::new(),
            epoch: 1,
        };
        self.writer.clone().finish(&draft, &self.graph, cases).unwrap()
    }

    pub fn bundle(&self) -> Bundle {
        open(self.file(&[]))
    }
}

pub fn open(file: Vec<u8>) -> Bundle {
    UncheckedBundle::read(file).unwrap().check().unwrap()
}

pub fn seeded(seed: u32, n: usize) -> Vec<i8> {
    seeded_bytes(seed).take(n).map(|b| b as i8).collect()
}

/// Inverted residual, as MobileNetV2 has them, with its residual addition.
pub fn mobile_net() -> Net {
    let mut net = Net::new([13, 11, 3], 5);
    let stem = net.conv(net.input(), 10, square(3, 2, 1), 1, DataType::I8);
    let expanded = net.conv(stem, 37, square(1, 1, 0), 1, DataType::I8);
    let deep = net.conv(expanded, 37, square(3, 1, 1), 37, DataType::I8);
    let projected = net.conv(deep, 10, square(1, 1, 0), 1, DataType::I8);
    let add = Op::Add { multipliers: [1 << 16, (1 << 16) - 77], shift: 17, low: -128, high: 127 };
    let output = Tensor { zero_point: 12, ..net.like(stem, net.tensor(stem).shape) };
    let sum = net.step(add, &[stem, projected], output);
    let last = net.conv(sum, 24, square(1, 1, 0), 2, DataType::I8);
    net.global_sum(last);
    net
}

/// Every other integer op.
pub fn branched_net() -> Net {
    let mut net = Net::new([8, 9, 6], -3);
    let x = net.input();
    let shape = net.tensor(x).shape;
    let pool = Window { pad_after: [0, 1], ..square(3, 2, 1) };
    let max = net.step(Op::MaxPool { window: pool }, &[x], net.like(x, [4, 5, 6]));
    let average = Op::AveragePool { window: pool, count_pad: false, multiplier: 5_000_000, low: -128, high: 100 };
    let average = net.step(average, &[x], net.like(x, [4, 5, 6]));
    let joined = net.step(Op::Concat { axis: 2 }, &[max, average, max], net.like(x, [4, 5, 18]));
    let table: Vec<i8> = (0..256).map(|i| ((i * i) % 251) as u8 as i8).collect();
    let table = net.writer.push_i8(&table);
    let bent = net.step(Op::Table { table }, &[joined], Tensor { zero_point: 9, ..net.like(joined, [4, 5, 18]) });
    let wide = net.conv(bent, 18, square(1, 1, 0), 1, DataType::I16);
    let gate = Op::AveragePool {
        window: Window { kernel: [4, 5], ..square(1, 1, 0) },
        count_pad: true,
        multiplier: 1 << 22,
        low: -128,
        high: 127,
    };
    let gate = net.step(gate, &[bent], net.like(x, [1, 1, 18]));
    let scaled = Op::Mul { multiplier: 90_000, low: -32_768, high: 32_767 };
    let scaled = net.step(scaled, &[wide, gate], net.like(wide, [4, 5, 18]));
    let narrow = net.conv(scaled, 6, square(3, 1, 1), 3, DataType::I8);
    let large = net.step(Op::Upsample { factor: [2, 2] }, &[narrow], net.like(narrow, [8, 10, 6]));
    let turned = net.step(Op::Transpose { axes: [1, 2, 0] }, &[large], net.like(large, [10, 6, 8]));
    let flat = net.step(Op::Reshape, &[turned], net.like(turned, [10, 1, 48]));
    let deep = net.conv(
        flat,
        48,
        Window { kernel: [3, 1], stride: [2, 1], dilation: [2, 1], pad_before: [3, 0], pad_after: [1, 0] },
        48,
        DataType::I16,
    );
    assert_eq!(shape, [8, 9, 6]);
    net.global_sum(deep);
    net
}

/// Products of activations, eight bits and sixteen.
pub fn product_net() -> Net {
    let mut net = Net::new([4, 5, 7], -20);
    let a = net.conv(net.input(), 6, square(1, 1, 0), 1, DataType::I8);
    let b = net.step(Op::Transpose { axes: [0, 2, 1] }, &[net.input()], net.like(net.input(), [4, 7, 5]));
    let wide = Tensor { shape: [4, 7, 6], data_type: DataType::I16, scale: 0.01, zero_point: 0 };
    let product = Op::MatMul { multiplier: 300_000, low: -3_000, high: 2_000 };
    let product = net.step(product, &[b, a], wide);
    let narrow = Tensor { shape: [4, 5, 6], data_type: DataType::I8, scale: 0.1, zero_point: 3 };
    let again = Op::MatMul { multiplier: 400, low: -128, high: 127 };
    let again = net.step(again, &[net.input(), product], narrow);
    let place = net.writer.push_i32(&[0, 3_333, 6_144, 2_048, 1]);
    let columns = net.writer.push_i32(&[8_192, 1]);
    let resized = net.step(Op::Resize { rows: place, columns }, &[again], net.like(again, [5, 2, 6]));
    net.conv(resized, 9, square(1, 1, 0), 1, DataType::I16);
    let wide = net.graph.output;
    let rows = net.writer.push_i32(&[0, 8_191, 8_192, 4_095]);
    let columns = net.writer.push_i32(&[2_048, 77, 0]);
    let wide = net.step(Op::Resize { rows, columns }, &[wide], net.like(wide, [4, 3, 9]));
    net.global_sum(wide);
    net
}

/// Sixteen bits between eight: tables of every width, and sums that only their limits keep within i32.
pub fn wide_net() -> Net {
    let mut net = Net::new([7, 6, 5], -20);
    let wide = |shape| Tensor { shape, data_type: DataType::I16, scale: 0.01, zero_point: 0 };
    let entries: Vec<i16> = (-128..128).map(|i: i16| i * 16 - (i * i) / 9).collect();
    let table = net.writer.push_i16(&entries);
    let x = net.step(Op::Table { table }, &[net.input()], wide([7, 6, 5]));
    let (multiplier, low, high) = ((1 << 23) - 1, -900, 4_000);
    let pool = Op::AveragePool { window: square(2, 1, 0), count_pad: true, multiplier, low, high };
    let x = net.step(pool, &[x], wide([6, 5, 5]));
    let x = net.step(Op::MaxPool { window: square(3, 1, 1) }, &[x], wide([6, 5, 5]));
    let mut conv = |x, out_c: u32, kernel: u32, groups: u32, limits: [i32; 2]| {
        let id = net.conv(x, out_c, square(kernel, 1, kernel / 2), groups, DataType::I16);
        let Some(Step { op: Op::Conv { requantize, .. }, .. }) = net.graph.steps.last_mut() else { panic!() };
        [requantize.low, requantize.high] = limits;
        net.graph.tensors[id.0 as usize].zero_point = 0;
        id
    };
    // 121 weights of up to 127 on 11 channels: past 2^31 with all sixteen bits.
    let x = conv(x, 11, 3, 1, [-3_000, 8_000]);
    let x = conv(x, 4, 11, 1, [-32_768, 32_767]);
    let x = conv(x, 4, 3, 4, [-32_768, 32_767]);
    let x = conv(x, 6, 1, 2, [-500, 500]);
    let entries: Vec<i16> = net.bytes(998).iter().map(|b| i16::from(*b) * 90).collect();
    let table = net.writer.push_i16(&entries);
    let x = net.step(Op::Table { table }, &[x], wide([6, 5, 6]));
    let entries = net.bytes(1 << 16);
    let table = net.writer.push_i8(&entries);
    let x = net.step(Op::Table { table }, &[x], Tensor { data_type: DataType::I8, ..wide([6, 5, 6]) });
    net.global_sum(x);
    net
}

/// A float island between integers; the output is I16.
pub fn float_net() -> Net {
    use graft_bundle::graph::{FloatFunction as F, FloatFunction2 as F2};
    let mut net = Net::new([5, 6, 4], 1);
    let float = |shape| Tensor { shape, data_type: DataType::F32, scale: 1.0, zero_point: 0 };
    let x = net.step(Op::Dequantize { scale: 0.031 }, &[net.input()], float([5, 6, 4]));
    let weights: Vec<f32> = net.bytes(7 * 9 * 4).iter().map(|b| f32::from(*b) / 97.0).collect();
    let weights = net.writer.push_f32(&weights);
    let bias = net.writer.push_f32(&[0.1, -0.2, 0.3, 0.0, 1.0, -1.0, 0.7]);
    let conv = Op::FloatConv { window: square(3, 1, 1), groups: 1, weights, bias };
    let mut y = net.step(conv, &[x], float([5, 6, 7]));
    for function in [F::HardSwish, F::Tanh, F::Sigmoid, F::Clip(0.1, 0.95), F::Erf, F::Abs, F::Sqrt, F::Exp, F::Relu] {
        y = net.step(Op::FloatUnary { function }, &[y], float([5, 6, 7]));
    }
    let soft = net.step(Op::FloatSoftmax, &[y], float([5, 6, 7]));
    let mean = net.step(Op::FloatMean, &[soft], float([1, 1, 7]));
    let mut z = soft;
    for function in [F2::Sub, F2::Mul, F2::Div, F2::Add] {
        z = net.step(Op::FloatBinary { function }, &[z, if function == F2::Div { y } else { mean }], float([5, 6, 7]));
    }
    let end = net.step(Op::FloatMean, &[z], float([1, 1, 7]));
    let output = Tensor { shape: [1, 1, 7], data_type: DataType::I16, scale: 1e-4, zero_point: -40 };
    net.step(Op::Quantize { inv_scale: 1e4, low: -32_768, high: 32_767 }, &[end], output);
    net
}

/// A node of an ONNX model, named after its output.
#[cfg(feature = "inexact")]
pub fn node(op: &str, inputs: &[&str], output: &str) -> tract_onnx::pb::NodeProto {
    tract_onnx::pb::NodeProto {
        name: format!("n_{output}"),
        op_type: op.into(),
        input: inputs.iter().map(|input| input.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// A model of float inputs `x0`, `x1` and so on, and the output `y`.
#[cfg(feature = "inexact")]
pub fn model(inputs: &[&[i64]], nodes: Vec<tract_onnx::pb::NodeProto>) -> tract_onnx::pb::ModelProto {
    use tract_onnx::pb::{
        GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto,
        type_proto,
    };
    let input = |(i, dims): (usize, &&[i64])| {
        let dim = |size: &i64| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*size)),
            ..Default::default()
        };
        let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
        let value = Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, shape }));
        let r#type = Some(TypeProto { value, ..Default::default() });
        ValueInfoProto { name: format!("x{i}"), r#type, ..Default::default() }
    };
    let graph = GraphProto {
        node: nodes,
        input: inputs.iter().enumerate().map(input).collect(),
        output: vec![ValueInfoProto { name: "y".into(), ..Default::default() }],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }
}

/// Positions multiplied with their softmax, `y = softmax(x0) * transposed(x1)`, both `[1, 20, 6]`, in float, between two
/// convolutions.
#[cfg(feature = "inexact")]
pub fn onnx_net() -> Net {
    let nodes = vec![
        node("Softmax", &["x0"], "s"),
        tract_onnx::pb::NodeProto {
            attribute: vec![tract_onnx::pb::AttributeProto {
                name: "perm".into(),
                r#type: 7,
                ints: vec![0, 2, 1],
                ..Default::default()
            }],
            ..node("Transpose", &["x1"], "t")
        },
        node("MatMul", &["s", "t"], "y"),
    ];
    onnx_net_of(&prost::Message::encode_to_vec(&model(&[&[1, 20, 6], &[1, 20, 6]], nodes)))
}

/// The same net around another model.
pub fn onnx_net_of(model: &[u8]) -> Net {
    let mut net = Net::new([4, 5, 3], 2);
    let x = net.conv(net.input(), 6, square(3, 1, 1), 1, DataType::I8);
    let float = |shape| Tensor { shape, data_type: DataType::F32, scale: 1.0, zero_point: 0 };
    let floats = net.step(Op::Dequantize { scale: 0.03 }, &[x], float([4, 5, 6]));
    let model = net.writer.push(model);
    let products = net.step(Op::Onnx { model }, &[floats, floats], float([1, 20, 20]));
    let output = Tensor { shape: [1, 20, 20], data_type: DataType::I8, scale: 0.02, zero_point: 3 };
    let y = net.step(Op::Quantize { inv_scale: 50.0, low: -128, high: 127 }, &[products], output);
    net.conv(y, 9, square(1, 1, 0), 1, DataType::I8);
    let last = net.graph.output;
    net.global_sum(last);
    net
}
