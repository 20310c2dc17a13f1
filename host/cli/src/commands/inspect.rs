//! `graft inspect`: what a model is and what would become of it; what a bundle says of itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use graft_bundle::file::MAGIC;
use graft_quantize::{ImportError, ImportOptions, Inspection, NodeClass, Refused, inspect};
use serde_json::{Value, json};

use super::Done;
use super::collect::read_bundle;
use crate::args::{InspectArgs, ModelArgs};
use crate::context::Context;
use crate::error::{CliError, chain};
use crate::files::quoted;
use crate::interrupt;
use crate::output::{Output, Unit, amount, count, plain_table};

/// Runs `graft inspect`.
///
/// # Errors
/// A model or bundle that cannot be read. Unsupported operators are findings.
pub fn run(context: &Context, args: &InspectArgs) -> Result<Done, CliError> {
    if is_bundle(&args.model.model) {
        return inspect_bundle(&context.output, &args.model.model);
    }
    let _at_once = interrupt::ExitAtOnce::new("nothing was changed");
    let found = inspect(&args.model.model, &import_options(&args.model)).map_err(|e| import_error(&e, &args.model))?;
    print(&context.output, args, &found);
    let mut object = serde_json::to_value(&found).map_err(|e| CliError::failed(chain(&e)))?;
    if let Value::Object(all) = &mut object {
        let mut with_schema = serde_json::Map::new();
        with_schema.insert("schema".into(), "graft.inspect/1".into());
        with_schema.insert("model".into(), json!(args.model.model.to_string_lossy()));
        with_schema.append(all);
        object = Value::Object(with_schema);
    }
    Ok(Done::ok(object))
}

/// True of a file that begins like a bundle.
fn is_bundle(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *MAGIC
}

/// What a bundle says of itself.
fn inspect_bundle(output: &Output, path: &Path) -> Result<Done, CliError> {
    let bundle = read_bundle(path)?;
    let manifest = bundle.manifest();
    let inexact: Vec<&str> = bundle.graph().steps.iter().filter(|s| !s.op.is_exact()).map(|s| &s.name[..]).collect();
    output.line(format!("{} ({}, {})", manifest.name, amount(bundle.file_len(), Unit::Bytes), manifest.made_by));
    output.line(format!("space       {:.12}, {} components", manifest.space, manifest.embedding_len));
    if manifest.exact {
        output.line("exact       the same bits on every CPU");
    } else {
        let layers = count(inexact.len() as u64, "layer");
        output.line(format!("not exact   embeddings may differ between CPUs: tract's float code runs {layers}"));
        inexact.iter().for_each(|name| output.detail(format!("tract's float: {name}")));
    }
    output.line(format!("ops         {}", manifest.ops.join(", ")));
    for (what, text) in [("origin", &manifest.origin), ("licence", &manifest.licence)] {
        if !text.is_empty() {
            output.line(format!("{what:<11} {text}"));
        }
    }
    Ok(Done::ok(json!({
        "schema": "graft.inspect_bundle/1", "bundle": path.to_string_lossy(), "name": manifest.name,
        "bytes": bundle.file_len(), "made_by": manifest.made_by, "space": manifest.space.to_string(),
        "embedding_len": manifest.embedding_len, "exact": manifest.exact, "inexact_layers": inexact,
        "ops": manifest.ops, "origin": manifest.origin, "licence": manifest.licence, "epoch": manifest.epoch,
    })))
}

/// How the model is read, as `inspect` and `quantize` say it.
pub fn import_options(args: &ModelArgs) -> ImportOptions {
    let input_shape = (!args.input_shape.is_empty()).then(|| args.input_shape.clone());
    ImportOptions { input: args.input.clone(), input_shape, allow_inexact: false }
}

/// A model that cannot be used, with what to type.
pub fn import_error(error: &ImportError, args: &ModelArgs) -> CliError {
    let model = quoted(&args.model);
    let help = match error {
        ImportError::Read { .. } => format!("look at it: ls -la {model}"),
        ImportError::SeveralInputs { names } | ImportError::UnknownInput { names, .. } => {
            format!("graft inspect {model} --input {}", names.first().map_or("NAME", |n| n))
        }
        ImportError::OpenShape { .. } | ImportError::BadShape { .. } => {
            format!("state it, batch 1 first: graft inspect {model} --input-shape 1,3,224,224")
        }
        ImportError::Batch { shape, .. } => {
            let rest: String = shape.split(',').skip(1).map(|size| format!(",{size}")).collect();
            format!(
                "if it is the batch, state 1: --input-shape 1{rest}; if the model has no batch axis, export it with one"
            )
        }
        ImportError::UnknownCut { .. } | ImportError::BadCut { .. } | ImportError::NoCut => {
            format!("see where it can be cut: graft inspect {model}")
        }
        ImportError::Refused { .. } => format!("see every node, and cuts before them: graft inspect {model}"),
        ImportError::ExternalData { .. } | ImportError::ExternalPath { .. } => {
            "put the model's data files into its own folder, as they were exported".into()
        }
        _ => "export the model to ONNX again".into(),
    };
    CliError::failed(chain(error)).with_help(help)
}

fn print(output: &Output, args: &InspectArgs, found: &Inspection) {
    output.line(format!("{} (opset {}, {} parameters)", found.producer, found.opset, big(found.n_parameters)));
    for input in &found.inputs {
        let chosen = found.chosen_input.as_ref().is_some_and(|c| c.name == input.name) && found.inputs.len() > 1;
        output.line(format!(
            "input   {} [{}]{}",
            input.name,
            input.shape.join(", "),
            if chosen { "  <- chosen" } else { "" }
        ));
    }
    for name in &found.outputs {
        output.line(format!("output  {name}"));
    }
    if found.chosen_input.is_none() {
        let name = found.inputs.first().map_or("NAME", |input| &input.name);
        output.note(format!("several inputs; name one: graft inspect {} --input {name}", quoted(&args.model.model)));
        return;
    }
    if !found.cuts.is_empty() {
        let mut table = plain_table(&["cut at", "components", "multiply-adds", ""], &[1, 2]);
        for cut in &found.cuts {
            let mut remarks = Vec::new();
            if found.suggested_cut.as_ref() == Some(&cut.tensor) {
                remarks.push("suggested");
            }
            if cut.pooled {
                remarks.push("with a mean over height and width");
            }
            match (cut.possible, cut.needs_inexact) {
                (true, _) => {}
                (false, true) => remarks.push("with --allow-inexact"),
                (false, false) => remarks.push("not possible: unsupported operators before it"),
            }
            table.add_row([cut.tensor.clone(), cut.embedding_len.to_string(), big(cut.macs), remarks.join(", ")]);
        }
        output.table(&table);
    }
    for (class, ops) in by_class(found) {
        output.line(format!("{}: {ops}", class_text(class)));
    }
    for Refused { node, op, reason } in &found.refused {
        output.line(format!("cannot be quantized: {op} {node}: {reason}"));
    }
    match (&found.suggested_cut, found.refused_before_cut.len()) {
        (Some(_), 0) => output.hint(format!("graft quantize {} --calib DIR", quoted(&args.model.model))),
        (Some(cut), n) => {
            output.warn(format!("{} before {cut} cannot be quantized; choose an earlier cut", count(n as u64, "node")))
        }
        (None, _) => output.warn("no tensor looks like an embedding; choose one with --cut"),
    }
}

fn by_class(found: &Inspection) -> BTreeMap<NodeClass, String> {
    let mut classes: BTreeMap<NodeClass, String> = BTreeMap::new();
    for operator in &found.operators {
        let text = classes.entry(operator.class).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&format!("{} {}", operator.n, operator.op));
    }
    classes
}

fn class_text(class: NodeClass) -> &'static str {
    match class {
        NodeClass::Folded => "constant, folded",
        NodeClass::Integer => "runs as integers",
        NodeClass::ExactFloat => "runs as exact float",
        NodeClass::TractFloat => "tract's float only, with --allow-inexact",
        NodeClass::Unsupported => "unsupported",
    }
}

/// `300.8 M`.
pub fn big(n: u64) -> String {
    match n {
        0..=9_999 => n.to_string(),
        10_000..=999_999 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Global;
    use crate::files::tests::TestDir;
    use crate::test_bundles::inexact_bundle;

    #[test]
    fn errors_say_what_to_type() {
        let args = ModelArgs { model: "my model.onnx".into(), input: None, input_shape: vec![] };
        let error = import_error(&ImportError::SeveralInputs { names: vec!["a".into(), "b".into()] }, &args);
        assert_eq!(error.what, "the model has 2 inputs (a, b); name one");
        assert_eq!(error.help, "graft inspect 'my model.onnx' --input a");
        let error = import_error(&ImportError::NoCut, &args);
        assert_eq!(error.help, "see where it can be cut: graft inspect 'my model.onnx'");
    }

    #[test]
    fn a_bundle_says_whether_it_is_exact() {
        let dir = TestDir::new("inspect-bundle");
        let path = dir.0.join("normed.graft");
        std::fs::write(&path, inexact_bundle().file_bytes().unwrap()).unwrap();
        assert!(is_bundle(&path) && !is_bundle(&dir.0) && !is_bundle(Path::new("/nowhere")));
        let output = Output::new(&Global { json: true, ..Global::default() });
        let object = inspect_bundle(&output, &path).unwrap().object;
        assert_eq!((&object["exact"], &object["inexact_layers"]), (&json!(false), &json!(["norm"])));
        assert_eq!((&object["name"], &object["ops"]), (&json!("normed"), &json!(["Dequantize", "Onnx", "Quantize"])));
        std::fs::write(&path, b"graft\0b\n").unwrap();
        assert!(inspect_bundle(&output, &path).is_err(), "a bundle of a header alone");
    }

    #[test]
    fn large_numbers_are_short() {
        assert_eq!(big(9_999), "9999");
        assert_eq!(big(392_808), "392.8 k");
        assert_eq!(big(300_774_272), "300.8 M");
    }
}
