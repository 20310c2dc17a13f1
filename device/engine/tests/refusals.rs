//! Every way in which a graph cannot be run, with the text that says so.

mod common;

use common::{Net, branched_net, float_net, mobile_net, open, product_net, square, wide_net};
use graft_bundle::DataType::{self, F32, I8, I16, I32};
use graft_bundle::TensorId;
use graft_bundle::graph::{Blob, FloatFunction, Op, Step, Tensor, Window};
use graft_engine::{Engine, LoadError};

fn refusal(net: &Net) -> String {
    match Engine::load(&net.bundle()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The net with one part changed, and what the engine says.
fn changed(mut net: Net, change: impl FnOnce(&mut Net)) -> String {
    assert_eq!(refusal(&net), "accepted");
    change(&mut net);
    refusal(&net)
}

fn position(net: &Net, op: &str) -> usize {
    net.graph.steps.iter().position(|step| step.op.name() == op).unwrap()
}

/// Changes the first step of that op.
fn op(net: Net, name: &str, change: impl FnOnce(&mut Op)) -> String {
    changed(net, |net| {
        let at = position(net, name);
        change(&mut net.graph.steps[at].op);
    })
}

/// Changes the tensor that the first step of that op writes.
fn output(net: Net, name: &str, change: impl FnOnce(&mut Tensor)) -> String {
    changed(net, |net| {
        let id = net.graph.steps[position(net, name)].output.0;
        change(&mut net.graph.tensors[id as usize]);
    })
}

/// Gives the first step of that op other inputs.
fn inputs(net: Net, name: &str, ids: &[u32]) -> String {
    changed(net, |net| {
        let at = position(net, name);
        net.graph.steps[at].inputs = ids.iter().copied().map(TensorId).collect();
    })
}

macro_rules! field {
    ($variant:ident, $field:ident, $value:expr) => {
        |op: &mut Op| {
            let Op::$variant { $field, .. } = op else { panic!() };
            *$field = $value;
        }
    };
}

#[test]
fn tensors() {
    let input = |change: fn(&mut Tensor)| changed(mobile_net(), |net| change(&mut net.graph.tensors[0]));
    assert_eq!(
        input(|t| t.shape[1] = 0),
        "tensor 0: it has shape [13, 0, 3]; allowed: no zeros, at most 268435456 bytes"
    );
    assert_eq!(
        input(|t| t.shape = [u32::MAX; 3]),
        "tensor 0: it has shape [4294967295, 4294967295, 4294967295]; allowed: no zeros, at most 268435456 bytes"
    );
    assert_eq!(input(|t| t.scale = f64::NAN), "tensor 0: scale is NaN; allowed: finite and above zero");
    assert_eq!(input(|t| t.zero_point = 128), "tensor 0: zero point is 128; allowed: -128 to 127");
    assert_eq!(input(|t| t.data_type = I16), "tensor 0: graph's input is I16; allowed: I8");
    let sum = |change: fn(&mut Tensor)| output(mobile_net(), "GlobalSum", change);
    assert_eq!(sum(|t| t.zero_point = 1), "tensor 7: zero point is 1; allowed: 0 to 0");
    assert_eq!(sum(|t| t.data_type = F32), "tensor 7: graph's output is F32; allowed: I8, I16, I32");
    assert_eq!(
        changed(mobile_net(), |net| net.embedding_len = Some(25)),
        "graph's output has 24 elements; the manifest says 25"
    );
    assert_eq!(
        changed(mobile_net(), |net| net.graph.output = TensorId(99)),
        "tensor 99: names tensor 99; the graph has 8"
    );
    let extra = Tensor { shape: [1, 1, 1], data_type: I8, scale: 1.0, zero_point: 0 };
    assert_eq!(changed(mobile_net(), |net| net.graph.tensors.push(extra)), "tensor 8: no step writes it");
}

#[test]
fn order_of_steps() {
    assert_eq!(inputs(mobile_net(), "Add", &[1, 50]), "step \"add_4\" (Add): names tensor 50; the graph has 8");
    assert_eq!(inputs(mobile_net(), "Add", &[1, 6]), "step \"add_4\" (Add): reads tensor 6 before it is written");
    assert_eq!(inputs(mobile_net(), "Add", &[1, 5]), "step \"add_4\" (Add): reads tensor 5 before it is written");
    assert_eq!(inputs(mobile_net(), "Add", &[1]), "step \"add_4\" (Add): has 1 inputs; allowed: two");
    assert_eq!(inputs(mobile_net(), "Conv", &[0, 0]), "step \"conv_0\" (Conv): has 2 inputs; allowed: one");
    assert_eq!(inputs(branched_net(), "Concat", &[]), "step \"concat_2\" (Concat): has 0 inputs; allowed: one or more");
    let twice = changed(mobile_net(), |net| net.graph.steps[4].output = TensorId(2));
    assert_eq!(twice, "step \"add_4\" (Add): writes tensor 2, which is written already");
    let input = changed(mobile_net(), |net| net.graph.steps[4].output = TensorId(0));
    assert_eq!(input, "step \"add_4\" (Add): writes tensor 0, which is written already");
    let many = changed(mobile_net(), |net| {
        let step = Step { name: String::new(), op: Op::Reshape, inputs: vec![TensorId(0)], output: TensorId(1) };
        net.graph.steps = vec![step; 16_385];
    });
    assert_eq!(many, "graph has 16385 steps; allowed: at most 16384");
}

#[test]
fn long_names_are_cut() {
    let error = changed(mobile_net(), |net| {
        net.graph.steps[0].name = format!("{}\n", "é".repeat(5000));
        net.graph.steps[0].inputs.clear();
    });
    assert_eq!(error, format!("step \"{}\" (Conv): has 0 inputs; allowed: one", "é".repeat(100)));
}

#[test]
fn ops_of_a_later_version_are_named() {
    // The encoder cannot name an op that it does not have; a byte of the manifest can.
    let mut file = mobile_net().file(&[]);
    let name = b"GlobalSum";
    let at = file.windows(name.len()).position(|w| w == name).unwrap();
    file[at..at + name.len()].copy_from_slice(b"GlobalMax");
    let error = Engine::load(&open(file)).map(|_| ()).unwrap_err();
    assert_eq!(error, LoadError::UnknownOps { names: "GlobalMax".into() });
    assert_eq!(error.to_string(), "bundle needs ops that this engine does not have: GlobalMax");
}

#[test]
fn convolutions() {
    let conv = |change: fn(&mut Op)| op(mobile_net(), "Conv", change);
    let groups = conv(field!(Conv, groups, 2));
    assert_eq!(
        groups,
        "step \"conv_0\" (Conv): has 2 groups for 3 input and 10 output channels; allowed: a divisor of both"
    );
    assert_eq!(
        conv(field!(Conv, groups, 0)),
        "step \"conv_0\" (Conv): has 0 groups for 3 input and 10 output channels; allowed: a divisor of both"
    );
    let window = |change: fn(&mut Window)| {
        op(mobile_net(), "Conv", |op| {
            let Op::Conv { window, .. } = op else { panic!() };
            change(window);
        })
    };
    let in_conv = |text: &str| format!("step \"conv_0\" (Conv): {text}");
    assert_eq!(window(|w| w.kernel[0] = 0), in_conv("kernel size is 0; allowed: 1 to 4096"));
    assert_eq!(window(|w| w.stride[1] = 0), in_conv("stride is 0; allowed: 1 to 4096"));
    assert_eq!(window(|w| w.dilation[1] = u32::MAX), in_conv("dilation is 4294967295; allowed: 1 to 4096"));
    assert_eq!(window(|w| w.pad_after[1] = 4097), in_conv("padding is 4097; allowed: 0 to 4096"));
    assert_eq!(
        window(|w| w.kernel[0] = 16),
        in_conv("window of [16, 3] does not fit input [13, 11, 3] with its padding")
    );
    assert_eq!(window(|w| w.stride = [1, 2]), in_conv("output has shape [7, 6, 10]; allowed: [13, 6, 10]"));
    assert_eq!(window(|w| (w.kernel[0], w.pad_after[0]) = (4, 2)), in_conv("weights has 270 bytes; allowed: 360"));
    let blob = Blob { offset: 1, bytes: 270 };
    assert_eq!(
        op(mobile_net(), "Conv", field!(Conv, weights, blob)),
        in_conv("weights at byte 1 with 270 bytes is not aligned or leaves the payload")
    );
    let blob = Blob { offset: 1 << 40, bytes: 270 };
    assert_eq!(
        op(mobile_net(), "Conv", field!(Conv, weights, blob)),
        in_conv("weights at byte 1099511627776 with 270 bytes is not aligned or leaves the payload")
    );
    let blob = Blob { offset: u64::MAX - 63, bytes: 40 };
    assert_eq!(
        op(mobile_net(), "Conv", field!(Conv, bias, blob)),
        in_conv("bias at byte 18446744073709551552 with 40 bytes is not aligned or leaves the payload")
    );
    assert_eq!(output(mobile_net(), "Conv", |t| t.data_type = I32), "tensor 1: zero point is -7; allowed: 0 to 0");
    assert_eq!(
        output(mobile_net(), "Conv", |t| (t.data_type, t.zero_point) = (I32, 0)),
        in_conv("output is I32; allowed: I8, I16")
    );
}

/// A 1x1 convolution with these values.
fn small_conv(x: DataType, weights: &[i8], bias: i32, multiplier: i32, range: [i32; 2]) -> String {
    let c = weights.len() as u32;
    let mut net = Net::new([1, 1, c], 0);
    let id = if x == I16 {
        let wide = Tensor { data_type: I16, zero_point: 0, ..net.tensor(net.input()).clone() };
        let square = Op::Mul { multiplier: 1, low: -32_768, high: 1 };
        net.step(square, &[net.input(), net.input()], wide)
    } else {
        net.input()
    };
    net.conv(id, 1, square(1, 1, 0), 1, I8);
    let (w, b, m) = (net.writer.push_i8(weights), net.writer.push_i32(&[bias]), net.writer.push_i32(&[multiplier]));
    let Some(Op::Conv { weights, bias, requantize, .. }) = net.graph.steps.last_mut().map(|s| &mut s.op) else {
        panic!()
    };
    (*weights, *bias, requantize.multipliers, requantize.low, requantize.high) = (w, b, m, range[0], range[1]);
    refusal(&net)
}

#[test]
fn values_of_convolutions() {
    let full = [-128, 127];
    let in_conv = |text: &str| format!("step \"conv_0\" (Conv): {text}");
    assert_eq!(small_conv(I8, &[127, -127], 0, (1 << 23) - 1, full), "accepted");
    assert_eq!(small_conv(I8, &[127, -128], 0, 1, full), in_conv("weight is -128; allowed: -127 to 127"));
    assert_eq!(small_conv(I8, &[1], 0, 0, full), in_conv("multiplier is 0; allowed: 1 to 8388607"));
    assert_eq!(small_conv(I8, &[1], 0, 1 << 23, full), in_conv("multiplier is 8388608; allowed: 1 to 8388607"));
    assert_eq!(small_conv(I8, &[1], 0, 1, [-129, 0]), in_conv("smallest output is -129; allowed: -128 to 0"));
    assert_eq!(small_conv(I8, &[1], 0, 1, [0, 128]), in_conv("largest output is 128; allowed: -128 to 127"));
    assert_eq!(small_conv(I8, &[1], 0, 1, [5, 4]), in_conv("smallest output is 5; allowed: -128 to 4"));
    // 2 * 255 = 510 is the reach of the products.
    assert_eq!(small_conv(I8, &[2], i32::MAX - 510, 1, full), "accepted");
    assert_eq!(
        small_conv(I8, &[2], i32::MAX - 509, 1, full),
        in_conv("sum of output channel 0 can reach 2147483648; allowed: less than 2147483648")
    );
    assert_eq!(
        small_conv(I8, &[0], i32::MIN, 1, full),
        in_conv("sum of output channel 0 can reach 2147483648; allowed: less than 2147483648")
    );
    assert_eq!(small_conv(I16, &[127; 516], 0, 1, full), "accepted");
    assert_eq!(
        small_conv(I16, &[127; 517], 0, 1, full),
        "step \"conv_1\" (Conv): sum of output channel 0 can reach 2151514112; allowed: less than 2147483648"
    );
}

#[test]
fn elementwise_ops() {
    let in_add = |text: &str| format!("step \"add_4\" (Add): {text}");
    let add = |change: fn(&mut Op)| op(mobile_net(), "Add", change);
    assert_eq!(add(field!(Add, shift, 0)), in_add("shift is 0; allowed: 1 to 24"));
    assert_eq!(add(field!(Add, shift, 25)), in_add("shift is 25; allowed: 1 to 24"));
    let large = add(field!(Add, multipliers, [1, i32::MIN]));
    assert_eq!(large, in_add("multiplier is -2147483648; allowed: -2097152 to 2097152"));
    assert_eq!(add(field!(Add, low, 300)), in_add("smallest output is 300; allowed: -128 to 127"));
    assert_eq!(
        inputs(mobile_net(), "Add", &[1, 3]),
        in_add("second input has shape [7, 6, 37]; allowed: [7, 6, 10], [1, 1, 10] or [1, 1, 1]")
    );
    assert_eq!(
        output(mobile_net(), "Add", |t| t.shape = [6, 7, 10]),
        in_add("output has shape [6, 7, 10]; allowed: [7, 6, 10]")
    );
    let in_mul = |text: &str| format!("step \"mul_6\" (Mul): {text}");
    assert_eq!(
        op(branched_net(), "Mul", field!(Mul, multiplier, -1)),
        in_mul("multiplier is -1; allowed: 1 to 8388607")
    );
    assert_eq!(
        inputs(branched_net(), "Mul", &[5, 0]),
        in_mul("second input has shape [8, 9, 6]; allowed: [4, 5, 18], [1, 1, 18] or [1, 1, 1]")
    );
    let in_table = |text: &str| format!("step \"table_3\" (Table): {text}");
    let blob = Blob { offset: 0, bytes: 255 };
    assert_eq!(op(branched_net(), "Table", field!(Table, table, blob)), in_table("table has 255 bytes; allowed: 256"));
    assert_eq!(output(branched_net(), "Table", |t| t.data_type = I16), in_table("table has 256 bytes; allowed: 512"));
    let float = |t: &mut Tensor| (t.data_type, t.zero_point) = (F32, 0);
    assert_eq!(output(branched_net(), "Table", float), in_table("output is F32; allowed: I8, I16"));
    assert_eq!(
        output(branched_net(), "Table", |t| t.shape = [5, 4, 18]),
        in_table("output has shape [5, 4, 18]; allowed: [4, 5, 18]")
    );
}

#[test]
fn tables_of_sixteen_bits() {
    let sized = |bytes| {
        let mut net = wide_net();
        // The second table reads I16.
        let tables = net.graph.steps.iter_mut().filter_map(|step| match &mut step.op {
            Op::Table { table } => Some(table),
            _ => None,
        });
        tables.skip(1).take(1).for_each(|table| table.bytes = bytes);
        refusal(&net)
    };
    let text = |text: &str| format!("step \"table_7\" (Table): {text}");
    assert_eq!(sized(2), text("table entries is 1; allowed: 2 to 65536"));
    assert_eq!(sized(2 * 65_538), text("table entries is 65538; allowed: 2 to 65536"));
    assert_eq!(sized(2 * 997), text("table has 1994 bytes; allowed: 1992"));
    assert_eq!(sized(2 * 996), "accepted");
}

#[test]
fn sums_are_bounded_by_what_the_writer_lets_through() {
    let mut net = wide_net();
    for step in &mut net.graph.steps {
        if let Op::Conv { requantize, .. } = &mut step.op {
            [requantize.low, requantize.high] = [-32_768, 32_767];
        }
    }
    let text = refusal(&net);
    assert!(text.starts_with("step \"conv_4\" (Conv): sum of output channel 0 can reach "), "{text}");
}

#[test]
fn pools() {
    let outside = Window { pad_before: [4, 1], ..square(3, 2, 1) };
    let net = |window: Window, shape| {
        let mut net = Net::new([5, 5, 2], 0);
        let output = net.like(net.input(), shape);
        net.step(Op::MaxPool { window }, &[net.input()], output);
        refusal(&net)
    };
    assert_eq!(net(square(3, 2, 1), [3, 3, 2]), "accepted");
    assert_eq!(
        net(outside, [4, 3, 2]),
        "step \"maxpool_0\" (MaxPool): window of [3, 3] does not fit input [5, 5, 2] with its padding"
    );
    assert_eq!(
        net(square(3, 2, 1), [3, 3, 1]),
        "step \"maxpool_0\" (MaxPool): output has shape [3, 3, 1]; allowed: [3, 3, 2]"
    );
    assert_eq!(
        output(branched_net(), "MaxPool", |t| t.scale = 3.0),
        "step \"maxpool_0\" (MaxPool): output has scale 3 and zero point -3, input 0.5 and -3; allowed: equal"
    );
    assert_eq!(
        output(branched_net(), "MaxPool", |t| t.data_type = I16),
        "step \"maxpool_0\" (MaxPool): output is I16; allowed: the input's type"
    );
    assert_eq!(
        op(branched_net(), "AveragePool", field!(AveragePool, multiplier, 0)),
        "step \"averagepool_1\" (AveragePool): multiplier is 0; allowed: 1 to 8388607"
    );
    assert_eq!(
        output(mobile_net(), "GlobalSum", |t| t.shape = [24, 1, 1]),
        "step \"globalsum_6\" (GlobalSum): output has shape [24, 1, 1]; allowed: [1, 1, 24]"
    );
    assert_eq!(
        output(mobile_net(), "GlobalSum", |t| t.data_type = I16),
        "step \"globalsum_6\" (GlobalSum): output is I16; allowed: I32"
    );
    let mut large = Net::new([4096, 4096, 1], 127);
    large.global_sum(large.input());
    assert_eq!(
        refusal(&large),
        "step \"globalsum_0\" (GlobalSum): sum of output channel 0 can reach 4278190080; allowed: less than 2147483648"
    );
}

#[test]
fn moves() {
    let in_concat = |text: &str| format!("step \"concat_2\" (Concat): {text}");
    assert_eq!(op(branched_net(), "Concat", field!(Concat, axis, 3)), in_concat("axis is 3; allowed: 0 to 2"));
    assert_eq!(
        op(branched_net(), "Concat", field!(Concat, axis, 0)),
        in_concat("output has shape [4, 5, 18]; allowed: [12, 5, 6]")
    );
    assert_eq!(
        inputs(branched_net(), "Concat", &[1, 0, 2]),
        in_concat("input has shape [8, 9, 6]; allowed: [4, 5, 6] but for axis 2")
    );
    let in_upsample = |text: &str| format!("step \"upsample_8\" (Upsample): {text}");
    assert_eq!(
        op(branched_net(), "Upsample", field!(Upsample, factor, [2, 0])),
        in_upsample("factor is 0; allowed: 1 to 4096")
    );
    assert_eq!(
        op(branched_net(), "Upsample", field!(Upsample, factor, [2, 3])),
        in_upsample("output has shape [8, 10, 6]; allowed: [8, 15, 6]")
    );
    assert_eq!(
        op(branched_net(), "Transpose", field!(Transpose, axes, [0, 1, 1])),
        "step \"transpose_9\" (Transpose): axes are [0, 1, 1]; allowed: a permutation of [0, 1, 2]"
    );
    assert_eq!(
        output(branched_net(), "Transpose", |t| t.shape = [10, 8, 6]),
        "step \"transpose_9\" (Transpose): output has shape [10, 8, 6]; allowed: [10, 6, 8]"
    );
    assert_eq!(
        output(branched_net(), "Reshape", |t| t.shape = [10, 1, 47]),
        "step \"reshape_10\" (Reshape): output has shape [10, 1, 47]; allowed: any of 480 elements"
    );
    assert_eq!(
        output(branched_net(), "Reshape", |t| t.zero_point = 1),
        "step \"reshape_10\" (Reshape): output has scale 0.25 and zero point 1, input 0.25 and -7; allowed: equal"
    );
}

#[test]
fn products_of_activations() {
    let in_matmul = |text: &str| format!("step \"matmul_2\" (MatMul): {text}");
    assert_eq!(
        inputs(product_net(), "MatMul", &[2, 2]),
        in_matmul("second input has shape [4, 7, 5]; allowed: [4, 5, any]")
    );
    assert_eq!(
        output(product_net(), "MatMul", |t| t.shape = [4, 6, 7]),
        in_matmul("output has shape [4, 6, 7]; allowed: [4, 7, 6]")
    );
    assert_eq!(
        op(product_net(), "MatMul", field!(MatMul, multiplier, 0)),
        in_matmul("multiplier is 0; allowed: 1 to 8388607")
    );
    assert_eq!(
        op(product_net(), "MatMul", field!(MatMul, low, -40_000)),
        in_matmul("smallest output is -40000; allowed: -32768 to 2000")
    );
    assert_eq!(inputs(product_net(), "MatMul", &[2]), in_matmul("has 1 inputs; allowed: two"));
    let in_second = |text: &str| format!("step \"matmul_3\" (MatMul): {text}");
    assert_eq!(
        output(product_net(), "MatMul", |t| t.zero_point = 5),
        in_second("zero point of I16 is 5; allowed: 0 to 0")
    );
    // 40,000 products of 255 * 255.
    let mut long = Net::new([2, 40_000, 1], -128);
    let row = long.step(Op::Reshape, &[long.input()], long.like(long.input(), [2, 1, 40_000]));
    let scalar = Tensor { scale: 1.0, ..long.like(row, [2, 1, 1]) };
    long.step(Op::MatMul { multiplier: 1, low: -128, high: 127 }, &[row, long.input()], scalar);
    assert_eq!(
        refusal(&long),
        "step \"matmul_1\" (MatMul): sum of output channel 0 can reach 2601000000; allowed: less than 2147483648"
    );
}

#[test]
fn positions() {
    let in_resize = |text: &str| format!("step \"resize_4\" (Resize): {text}");
    let placed = |positions: &[i32]| {
        changed(product_net(), |net| {
            let at = position(net, "Resize");
            let blob = net.writer.push_i32(positions);
            field!(Resize, rows, blob)(&mut net.graph.steps[at].op);
        })
    };
    assert_eq!(placed(&[0, 1, 2, 3, 6_144]), "accepted");
    assert_eq!(placed(&[0, 1, 2, 3, 6_145]), in_resize("row is 6145; allowed: 0 to 6144"));
    assert_eq!(placed(&[0, 1, 2, 3, -1]), in_resize("row is 4294967295; allowed: 0 to 6144"));
    assert_eq!(placed(&[0, 1, 2, 3]), in_resize("row has 16 bytes; allowed: 20"));
    assert_eq!(
        output(product_net(), "Resize", |t| t.shape = [5, 2, 5]),
        in_resize("output has shape [5, 2, 5]; allowed: [5, 2, 6]")
    );
    assert_eq!(
        output(product_net(), "Resize", |t| t.zero_point = 9),
        in_resize("output has scale 0.1 and zero point 9, input 0.1 and 3; allowed: equal")
    );
}

#[test]
fn floats() {
    let in_first = |text: &str| format!("step \"dequantize_0\" (Dequantize): {text}");
    assert_eq!(
        op(float_net(), "Dequantize", field!(Dequantize, scale, 0.0)),
        in_first("scale is 0; allowed: finite and above zero")
    );
    assert_eq!(output(float_net(), "Dequantize", |t| t.data_type = I8), in_first("output is I8; allowed: F32"));
    assert_eq!(
        op(float_net(), "Quantize", field!(Quantize, inv_scale, f32::INFINITY)),
        "step \"quantize_18\" (Quantize): inverse scale is inf; allowed: finite and above zero"
    );
    assert_eq!(
        op(float_net(), "Quantize", field!(Quantize, high, 40_000)),
        "step \"quantize_18\" (Quantize): largest output is 40000; allowed: -32768 to 32767"
    );
    let clip = |low, high| op(float_net(), "FloatUnary", field!(FloatUnary, function, FloatFunction::Clip(low, high)));
    assert_eq!(
        clip(1.0, 0.0),
        "step \"floatunary_2\" (FloatUnary): lower bound is 1; allowed: a number, at most the upper bound"
    );
    assert_eq!(
        clip(f32::NAN, 0.0),
        "step \"floatunary_2\" (FloatUnary): lower bound is NaN; allowed: a number, at most the upper bound"
    );
    let weights = changed(float_net(), |net| {
        let blob = net.writer.push_f32(&[f32::NAN; 252]);
        let Op::FloatConv { weights, .. } = &mut net.graph.steps[1].op else { panic!() };
        *weights = blob;
    });
    assert_eq!(weights, "step \"floatconv_1\" (FloatConv): weights is NaN; allowed: finite");
    assert_eq!(inputs(float_net(), "FloatConv", &[0]), "step \"floatconv_1\" (FloatConv): input is I8; allowed: F32");
    assert_eq!(
        output(float_net(), "FloatMean", |t| t.shape = [1, 7, 1]),
        "step \"floatmean_12\" (FloatMean): output has shape [1, 7, 1]; allowed: [1, 1, 7]"
    );
    assert_eq!(
        output(float_net(), "FloatSoftmax", |t| t.shape = [6, 5, 7]),
        "step \"floatsoftmax_11\" (FloatSoftmax): output has shape [6, 5, 7]; allowed: [5, 6, 7]"
    );
    assert_eq!(
        inputs(float_net(), "FloatBinary", &[12, 0]),
        "step \"floatbinary_13\" (FloatBinary): second input is I8; allowed: F32"
    );
}

#[test]
fn activations_that_fit_no_board() {
    let mut net = Net::new([4096, 4096, 16], 0);
    // Five tensors of 256 MiB, all alive until the concatenations.
    let mut ids = vec![net.input()];
    for _ in 0..4 {
        let add = Op::Add { multipliers: [1, 1], shift: 1, low: -128, high: 127 };
        let output = net.like(net.input(), [4096, 4096, 16]);
        ids.push(net.step(add, &[net.input(), net.input()], output));
    }
    let mut last = ids[0];
    for id in ids {
        let add = Op::Add { multipliers: [1, 1], shift: 1, low: -128, high: 127 };
        let output = net.like(id, [4096, 4096, 16]);
        last = net.step(add, &[id, last], output);
    }
    let window = square(4096, 1, 0);
    let output = net.like(last, [1, 1, 16]);
    net.step(Op::AveragePool { window, count_pad: true, multiplier: 1, low: 0, high: 1 }, &[last], output);
    assert_eq!(
        refusal(&net),
        "step \"averagepool_9\" (AveragePool): sum of output channel 0 can reach 2147483648; allowed: less than 2147483648"
    );
    let window = square(4096, 1, 0);
    if let Some(step) = net.graph.steps.last_mut() {
        step.op = Op::MaxPool { window };
    }
    assert_eq!(refusal(&net), "graph needs 1610612736 bytes for activations; allowed: at most 1073741824");
}

#[cfg(not(feature = "inexact"))]
#[test]
fn onnx_models_where_nothing_runs_them() {
    assert_eq!(
        refusal(&common::onnx_net_of(b"model")),
        "step \"onnx_2\" (Onnx): this engine is built without tract's float code (cargo feature `inexact`)"
    );
}
