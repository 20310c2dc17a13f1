//! `graft export --backbone` against the board whose head it holds, run by tract.

use std::path::Path;

use graft_bundle::Bundle;
use graft_input::{Limits, decode_picture, geometry};
use graft_tests::{graft, quantize_glyphs, read_bundle, workspace_root};
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
