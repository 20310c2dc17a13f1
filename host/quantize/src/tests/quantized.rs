//! Models that are quantized already, as pairs around operators and as operators on integers.

use graft_bundle::UncheckedBundle;
use graft_bundle::graph::Blob;

use super::*;

#[test]
fn stated_scales_of_a_quantized_model_are_kept() {
    let model = Build::new("x", &[0, 3, 6, 6])
        .floats("xs", &[], &[0.016])
        .bytes("xz", &[], 2, &[128])
        .node("QuantizeLinear", &["x", "xs", "xz"], "xq", &[])
        .node("DequantizeLinear", &["xq", "xs", "xz"], "xd", &[])
        .bytes("wq", &[4, 3, 1, 1], 3, &[127, 3, 200, 40, 129, 90, 7, 60, 250, 33, 127, 1])
        .floats("ws", &[4], &[0.01, 0.02, 0.005, 0.013])
        .bytes("wz", &[4], 3, &[0; 4])
        .node("DequantizeLinear", &["wq", "ws", "wz"], "w", &[("axis", Attribute::Int(0))])
        .node("Conv", &["xd", "w"], "a", &[])
        // Zero point 0 as uint8: the pair does a Relu's work.
        .floats("as", &[], &[0.02])
        .bytes("az", &[], 2, &[0])
        .node("QuantizeLinear", &["a", "as", "az"], "aq", &[])
        .node("DequantizeLinear", &["aq", "as", "az"], "ad", &[])
        .model(&["ad"]);
    let report = agrees("qdq", model, &[3, 6, 6], "ad");
    assert_eq!(ops(&report), ["Conv", "GlobalSum"]);
    assert_eq!(report.n_stated_scales, 1);
}

/// Scales, zero points and weights of the two models below.
fn stated() -> Build {
    Build::new("x", &[0, 3, 6, 6])
        .floats("xs", &[], &[0.016])
        .bytes("xz", &[], 2, &[128])
        .bytes("wq", &[4, 3, 1, 1], 3, &[127, 3, 200, 40, 129, 90, 7, 60, 250, 33, 127, 1])
        .floats("ws", &[4], &[0.01, 0.02, 0.005, 0.013])
        .bytes("wz", &[4], 3, &[0; 4])
        .floats("as", &[], &[0.02])
        .bytes("az", &[], 2, &[0])
        .floats("ss", &[], &[0.03])
        .bytes("sz", &[], 2, &[3])
        .floats("ps", &[], &[0.025])
        .bytes("pz", &[], 2, &[5])
        .bytes("vq", &[4, 7], 3, &(0..28).map(|i| i * 9).collect::<Vec<u8>>())
        .floats("vs", &[7], &[0.01, 0.02, 0.03, 0.011, 0.012, 0.013, 0.014])
        .bytes("vz", &[7], 3, &[0; 7])
        .floats("gs", &[], &[0.05])
        .bytes("gz", &[], 2, &[120])
}

#[test]
fn operators_on_integers_are_what_pairs_around_operators_are() {
    let steps = [50i32, -70, 900, 3];
    let bias: Vec<u8> = steps.iter().flat_map(|v| v.to_le_bytes()).collect();
    let real: Vec<f32> = steps
        .iter()
        .zip([0.01f32, 0.02, 0.005, 0.013])
        .map(|(v, s)| (f64::from(*v) * f64::from(0.016f32) * f64::from(s)) as f32)
        .collect();
    let operators = stated()
        .node("QuantizeLinear", &["x", "xs", "xz"], "xq", &[])
        .bytes("bias", &[4], 6, &bias)
        .node("QLinearConv", &["xq", "xs", "xz", "wq", "ws", "wz", "as", "az", "bias"], "aq", &[])
        .node("MaxPool", &["aq"], "mq", &[("kernel_shape", Attribute::Ints(vec![1, 1]))])
        .node("QLinearAdd", &["aq", "as", "az", "mq", "as", "az", "ss", "sz"], "sq", &[])
        .node(
            "QLinearGlobalAveragePool",
            &["sq", "ss", "sz", "ps", "pz"],
            "pq",
            &[("channels_last", Attribute::Int(0))],
        )
        .node("Flatten", &["pq"], "fq", &[])
        .node("QGemm", &["fq", "ps", "pz", "vq", "vs", "vz", "", "gs", "gz"], "gq", &[])
        .node("DequantizeLinear", &["gq", "gs", "gz"], "g", &[])
        .model(&["g"]);
    let pairs = stated()
        .node("QuantizeLinear", &["x", "xs", "xz"], "xq", &[])
        .node("DequantizeLinear", &["xq", "xs", "xz"], "xd", &[])
        .node("DequantizeLinear", &["wq", "ws", "wz"], "w", &[("axis", Attribute::Int(0))])
        .floats("bias", &[4], &real)
        .node("Conv", &["xd", "w", "bias"], "a", &[])
        .node("QuantizeLinear", &["a", "as", "az"], "aq", &[])
        .node("DequantizeLinear", &["aq", "as", "az"], "ad", &[])
        .node("MaxPool", &["ad"], "m", &[("kernel_shape", Attribute::Ints(vec![1, 1]))])
        .node("QuantizeLinear", &["m", "as", "az"], "mq", &[])
        .node("DequantizeLinear", &["mq", "as", "az"], "md", &[])
        .node("Add", &["ad", "md"], "s", &[])
        .node("QuantizeLinear", &["s", "ss", "sz"], "sq", &[])
        .node("DequantizeLinear", &["sq", "ss", "sz"], "sd", &[])
        .node("GlobalAveragePool", &["sd"], "p", &[])
        .node("QuantizeLinear", &["p", "ps", "pz"], "pq", &[])
        .node("DequantizeLinear", &["pq", "ps", "pz"], "pd", &[])
        .node("Flatten", &["pd"], "f", &[])
        .node("QuantizeLinear", &["f", "ps", "pz"], "fq", &[])
        .node("DequantizeLinear", &["fq", "ps", "pz"], "fd", &[])
        .node("DequantizeLinear", &["vq", "vs", "vz"], "v", &[("axis", Attribute::Int(1))])
        .node("Gemm", &["fd", "v"], "gr", &[])
        .node("QuantizeLinear", &["gr", "gs", "gz"], "gq", &[])
        .node("DequantizeLinear", &["gq", "gs", "gz"], "g", &[])
        .model(&["g"]);
    let folder = Folder::new("qoperator");
    let made = |model: &ModelProto| {
        let mut options = QuantizeOptions::new(folder.arrays(&[3, 6, 6], 24));
        options.cut = Some("g".into());
        let bytes = quantize(&folder.model(model), &options, &mut |_| {}).unwrap().bundle_bytes;
        let bundle = UncheckedBundle::read(bytes).unwrap().check().unwrap();
        let mut graph = bundle.graph().clone();
        graph.steps.iter_mut().for_each(|step| step.name.clear());
        let weights = Blob { offset: 0, bytes: bundle.manifest().graph.offset };
        let weights = bundle.blob(weights).unwrap().into_owned();
        (graph, weights)
    };
    assert_eq!(made(&operators), made(&pairs));
    let report = agrees("qoperator", operators, &[3, 6, 6], "g");
    assert!(ops(&report).contains(&"Add"), "{:?}", ops(&report));
}

#[test]
fn an_operator_on_integers_without_an_input_is_named() {
    let model = stated()
        .node("QuantizeLinear", &["x", "xs", "xz"], "xq", &[])
        .node("QLinearConv", &["xq", "xs", "xz", "wq", "ws", "wz"], "aq", &[])
        .node("DequantizeLinear", &["aq", "as", "az"], "a", &[])
        .model(&["a"]);
    let error = report_of("qoperator_cut", &model, &[3, 6, 6], "a").unwrap_err().to_string();
    assert!(error.contains("its input 6 is missing"), "{error}");
}
