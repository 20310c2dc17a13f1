//! `graft export`: a board's head as a file for other programs, alone or behind its backbone.

use std::fs;

use graft_bundle::Bundle;
use graft_client::Board;
use graft_engine::Engine;
use graft_heads::Head;
use serde_json::json;

use super::Done;
use super::collect::read_bundle;
use crate::args::{ExportArgs, ExportFormat, ExportPrecision};
use crate::context::Context;
use crate::devices;
use crate::error::{CliError, Exit, chain};
use crate::export::{Exported, Precision, npz, onnx, onnx_with_backbone, safetensors};
use crate::output::{Unit, amount, count};

/// Runs `graft export`.
///
/// # Errors
/// No head, a file that cannot be written, or whatever stops board or link.
pub fn run(context: &Context, args: &ExportArgs) -> Result<Done, CliError> {
    let backbone = match &args.backbone {
        Some(_) if args.format != ExportFormat::Onnx => {
            return Err(CliError::usage("--backbone goes with --format onnx; the other formats hold a head's numbers"));
        }
        Some(path) => Some(read_bundle(path)?),
        None => None,
    };
    let mut device = devices::one(context)?;
    let pulled = device.call(Board::pull_head)?;
    let head = Head::decode(&pulled).map_err(|error| {
        CliError::new(Exit::Incompatible, format!("{}: {}", device.name, chain(&error)))
            .with_help(format!("compare versions: graft --version and graft device info -d {}", device.name))
    })?;
    let kind = head.kind().name();
    let exported = Exported::of(&head, kind).ok_or_else(|| {
        CliError::failed(format!(
            "{}: a {kind} head is no matrix and cannot be exported; ncm, ncm-euclidean, ncm-trimmed, ridge, lda and logistic can",
            device.name
        ))
        .with_help(format!("graft train -d {} --head ridge", device.name))
    })?;
    let labels: Vec<&str> = head.classes().iter().map(|label| label.as_str()).collect();
    let bytes = match args.format {
        ExportFormat::Onnx => match &backbone {
            Some(bundle) => with_backbone(&exported, &head, bundle, args.precision.into(), &device.name)?,
            None => onnx(&exported),
        },
        ExportFormat::Safetensors => safetensors(&exported),
        ExportFormat::Npz => npz(&exported, &labels),
    };
    let path = args.output.display();
    fs::write(&args.output, &bytes).map_err(|error| {
        CliError::failed(format!("{path}: {error}"))
            .with_help(format!("graft export -d {} -o /tmp/head.onnx", device.name))
    })?;
    context.output.line(format!(
        "{path}: {}{kind} head of {}, embeddings of {}, {}",
        backbone.as_ref().map(|bundle| format!("{} and ", bundle.manifest().name)).unwrap_or_default(),
        count(labels.len() as u64, "class"),
        count(head.embedding_len() as u64, "component"),
        amount(bytes.len() as u64, Unit::Bytes)
    ));
    Ok(Done::ok(json!({
        "schema": "graft.export/1", "device": device.name, "device_id": device.id().to_string(),
        "path": args.output.to_string_lossy(), "bytes": bytes.len(), "kind": kind, "n_classes": labels.len(),
        "embedding_len": head.embedding_len(), "head": head.digest().to_string(), "space": head.space().to_string(),
        "backbone": backbone.as_ref().and_then(|bundle| bundle.file_hash().ok()).map(|hash| hash.to_string()),
        "precision": backbone.as_ref().map(|_| Precision::from(args.precision).name()),
    })))
}

impl From<ExportPrecision> for Precision {
    fn from(precision: ExportPrecision) -> Precision {
        match precision {
            ExportPrecision::Int8 => Precision::Int8,
            ExportPrecision::Float => Precision::Float,
        }
    }
}

fn with_backbone(
    exported: &Exported<'_>,
    head: &Head,
    bundle: &Bundle,
    precision: Precision,
    device: &str,
) -> Result<Vec<u8>, CliError> {
    let manifest = bundle.manifest();
    if manifest.space != head.space() {
        return Err(CliError::new(
            Exit::Incompatible,
            format!("{} has space {:.12}; the head is of space {:.12}", manifest.name, manifest.space, head.space()),
        )
        .with_help(format!("give the bundle that is active there: graft device info -d {device}")));
    }
    // What the engine refuses has no meaning to export.
    Engine::load(bundle).map_err(|error| CliError::failed(format!("{}: {}", manifest.name, chain(&error))))?;
    onnx_with_backbone(exported, bundle, precision).map_err(|error| {
        CliError::failed(format!("{}: {error}", manifest.name))
            .with_help("without --backbone the head alone is written")
    })
}
