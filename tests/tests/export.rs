//! `graft export --backbone` against the board whose head it holds, run by tract.

use std::path::Path;

use graft_bundle::file::Draft;
use graft_bundle::graph::{Graph, Op, Step, Tensor as GraphTensor};
use graft_bundle::{ArraySpec, Bundle, BundleWriter, DataType, InputSpec, TensorId, UncheckedBundle};
use graft_cli::export::{Exported, Precision, onnx_with_backbone};
use graft_engine::Engine;
use graft_heads::{Head, SampleSet};
use graft_input::{Limits, decode_picture, geometry};
use graft_tests::{graft, quantize_glyphs, read_bundle, workspace_root};
use graft_wire::message::HeadChoice;
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId};
use serde_json::Value;
use tract_onnx::prelude::*;

fn run(data_dir: &Path, arguments: &[&str]) -> String {
    let output = graft(data_dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The picture's bytes after the bundle's geometry.
fn pixels(bundle: &Bundle, path: &str) -> Tensor {
    let spec = bundle.manifest().input.image.as_ref().unwrap();
    let picture = decode_picture(&std::fs::read(path).unwrap(), &Limits::default()).unwrap();
    let shape = [1, spec.height as usize, spec.width as usize, spec.channels.count() as usize];
    Tensor::from_shape(&shape, &geometry(&picture, spec).unwrap()).unwrap()
}

#[test]
fn backbone_and_head_say_what_the_board_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let models = workspace_root().join("models/glyphs");
    let path = |below: &str| models.join(below).to_str().unwrap().to_owned();
    let bundle_path = at("glyphs.graft");
    quantize_glyphs(bundle_path.as_ref(), "unit");
    let bundle = read_bundle(bundle_path.as_ref()).unwrap();
    run(dir.path(), &["-q", "flash", &bundle_path, "-d", "sim:a"]);
    run(dir.path(), &["-q", "collect", "-d", "sim:a", "--from", &path("demo/board-a")]);
    // A linear head and one with a centre.
    for head in ["ridge", "ncm"] {
        run(dir.path(), &["-q", "train", "-d", "sim:a", "--head", head, "--force"]);
        let said = run(dir.path(), &["-q", "predict", "-d", "sim:a", "--json", &path("demo/test")]);
        let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(said.len() >= 20, "{} predictions", said.len());
        for precision in ["int8", "float"] {
            let onnx = at(&format!("{head}-{precision}.onnx"));
            let export = ["-q", "export", "-d", "sim:a", "--backbone", &bundle_path];
            run(dir.path(), &[&export[..], &["--precision", precision, "-o", &onnx]].concat());
            let labels = labels(&onnx);
            let model = tract_onnx::onnx().model_for_path(&onnx).unwrap();
            let shape = pixels(&bundle, said[0]["input"].as_str().unwrap()).shape().to_vec();
            let fact = InferenceFact::dt_shape(u8::datum_type(), &shape);
            let plan = model.with_input_fact(0, fact).unwrap().into_typed().unwrap().into_runnable().unwrap();
            let n_equal = said.iter().filter(|said| {
                let input = pixels(&bundle, said["input"].as_str().unwrap());
                let outputs = plan.run(tvec!(input.into())).unwrap();
                let scores = outputs[1].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
                let (best, score) = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
                assert_eq!(outputs[0].cast_to_scalar::<i64>().unwrap(), best as i64);
                let expected = said["scores"][0]["score"].as_f64().unwrap();
                assert!((f64::from(*score) - expected).abs() < 0.05, "{head} {precision}: {score}, board {expected}");
                labels[best] == said["scores"][0]["label"].as_str().unwrap()
            });
            let n_equal = n_equal.count();
            assert!(n_equal * 100 >= said.len() * 98, "{head} {precision}: {n_equal} of {}", said.len());
        }
    }
}

/// Attention of `[2, 4, 6]` on itself, then more columns: what only networks on text and for segmentation have.
fn attention() -> Bundle {
    let mut writer = BundleWriter::new();
    let tensor = |shape, data_type, scale, zero_point| GraphTensor { shape, data_type, scale, zero_point };
    let int8 = |shape, scale, zero_point| tensor(shape, DataType::I8, scale, zero_point);
    let multiplier = |factor: f64| (factor * f64::from(1 << 22)) as i32;
    let [rows, columns] = [writer.push_u32(&[0, 2_048, 700]), writer.push_u32(&[0, 1_024, 6_144])];
    let (low, high) = (-128, 127);
    let step = |op, inputs: &[u32], output| Step {
        name: format!("step {output}"),
        op,
        inputs: inputs.iter().copied().map(TensorId).collect(),
        output: TensorId(output),
    };
    let graph = Graph {
        tensors: vec![
            int8([2, 4, 6], 0.02, 5),
            int8([2, 6, 4], 0.02, 5),
            int8([2, 4, 4], 0.05, -20),
            tensor([2, 4, 4], DataType::F32, 1.0, 0),
            tensor([2, 4, 4], DataType::F32, 1.0, 0),
            int8([2, 4, 4], 1.0 / 255.0, -128),
            int8([2, 4, 6], 0.02, 3),
            int8([3, 3, 6], 0.02, 3),
            int8([1, 1, 54], 0.02, 3),
        ],
        steps: vec![
            step(Op::Transpose { axes: [0, 2, 1] }, &[0], 1),
            step(Op::MatMul { multiplier: multiplier(0.02 * 0.02 / 0.05), low, high }, &[0, 1], 2),
            step(Op::Dequantize { scale: 0.05 }, &[2], 3),
            step(Op::FloatSoftmax, &[3], 4),
            step(Op::Quantize { inv_scale: 255.0, low, high }, &[4], 5),
            step(Op::MatMul { multiplier: multiplier(1.0 / 255.0), low, high }, &[5, 0], 6),
            step(Op::Resize { rows, columns }, &[6], 7),
            step(Op::Reshape, &[7], 8),
        ],
        input: TensorId(0),
        output: TensorId(8),
    };
    let array = ArraySpec { shape: vec![2, 4, 6], channels_first: false, inv_scale: 50.0, zero_point: 5 };
    let draft = Draft {
        name: "attention".into(),
        input: InputSpec { array, image: None },
        embedding_len: 54,
        inv_scale: 300.0,
        exact: true,
        origin: String::new(),
        licence: String::new(),
        board_class: String::new(),
        epoch: 1,
    };
    UncheckedBundle::read(writer.finish(&draft, &graph, &[]).unwrap()).unwrap().check().unwrap()
}

#[test]
fn products_of_activations_embed_as_on_the_board() {
    let bundle = attention();
    let mut engine = Engine::load(&bundle).unwrap();
    let input = |seed: u32| -> Vec<i8> {
        graft_bundle::manifest::seeded_bytes(seed).take(48).map(|byte| byte as i8 / 2).collect()
    };
    let mut set = SampleSet::new(bundle.manifest().space, 54);
    for seed in 0..4u8 {
        let meta = SampleMeta {
            label: Label::new(if seed % 2 == 0 { "a" } else { "b" }).unwrap(),
            session: SessionId([seed; 8]),
            origin: DeviceId([1; 16]),
            digest: Digest([seed; 32]),
            part: Part::Whole,
            kind: LabelKind::Class,
        };
        set.insert(meta, &engine.embed(&input(seed.into())).unwrap()).unwrap();
    }
    let head = Head::train(&set, HeadChoice::Ridge).unwrap();
    let exported = Exported::of(&head, "ridge").unwrap();
    for precision in [Precision::Int8, Precision::Float] {
        let file = onnx_with_backbone(&exported, &bundle, precision).unwrap();
        let model = tract_onnx::onnx().model_for_read(&mut file.as_slice()).unwrap();
        let fact = InferenceFact::dt_shape(f32::datum_type(), [1, 2, 4, 6]);
        let plan = model.with_input_fact(0, fact).unwrap().into_typed().unwrap().into_runnable().unwrap();
        for seed in 10..20 {
            let input = input(seed);
            let real: Vec<f32> = input.iter().map(|q| 0.02 * (f32::from(*q) - 5.0)).collect();
            let outputs = plan.run(tvec!(Tensor::from_shape(&[1, 2, 4, 6], &real).unwrap().into())).unwrap();
            let found = outputs[2].try_as_plain_ram().unwrap().as_slice::<i8>().unwrap().to_vec();
            let expected = engine.embed(&input).unwrap();
            let furthest = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(furthest <= 3, "{precision:?}: {furthest} steps apart\n{found:?}\n{expected:?}");
            assert!(expected.iter().any(|q| q.abs_diff(expected[0]) > 20), "{expected:?} tests nothing");
        }
    }
}

/// Labels in the file's metadata.
fn labels(path: &str) -> Vec<String> {
    let proto = tract_onnx::onnx().proto_model_for_path(path).unwrap();
    let labels = proto.metadata_props.iter().find(|entry| entry.key == "labels").unwrap();
    serde_json::from_str(&labels.value).unwrap()
}

#[test]
fn another_bundle_or_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let models = workspace_root().join("models/glyphs");
    let path = |below: &str| models.join(below).to_str().unwrap().to_owned();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [mine, other] = [at("mine.graft"), at("other.graft")];
    for (bundle, norm) in [(&mine, "unit"), (&other, "tf")] {
        quantize_glyphs(bundle.as_ref(), norm);
    }
    run(dir.path(), &["-q", "flash", &mine, "-d", "sim:a"]);
    run(dir.path(), &["-q", "collect", "-d", "sim:a", "--from", &path("demo/board-a")]);
    run(dir.path(), &["-q", "train", "-d", "sim:a"]);
    let fails = |arguments: &[&str]| {
        let export = ["-q", "export", "-d", "sim:a", "-o", &at("x")];
        let output = graft(dir.path()).args([&export[..], arguments].concat()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = fails(&["--backbone", &other]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("the head is of space") && text.contains("graft device info -d sim:a"), "{text}");
    assert_eq!(fails(&["--backbone", &mine, "--format", "npz"]).0, 2);
    assert_eq!(fails(&["--precision", "float"]).0, 2, "it needs --backbone");
    let (code, text) = fails(&["--backbone", &path("model.onnx")]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not a graft bundle"), "{text}");
    assert!(!dir.path().join("x").exists());
}
