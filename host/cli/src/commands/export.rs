//! `graft export`: a board's head as a file for other programs.

use std::fs;

use graft_client::Board;
use graft_heads::Head;
use serde_json::json;

use super::Done;
use super::train::kind_name;
use crate::args::{ExportArgs, ExportFormat};
use crate::context::Context;
use crate::devices;
use crate::error::{CliError, Exit, chain};
use crate::export::{Exported, npz, onnx, safetensors};
use crate::output::{Unit, amount, count};

/// Runs `graft export`.
///
/// # Errors
/// No head, a file that cannot be written, or whatever stops board or link.
pub fn run(context: &Context, args: &ExportArgs) -> Result<Done, CliError> {
    let mut device = devices::one(context)?;
    let pulled = device.call(Board::pull_head)?;
    let head = Head::decode(&pulled).map_err(|error| {
        CliError::new(Exit::Incompatible, format!("{}: {}", device.name, chain(&error)))
            .with_help(format!("compare versions: graft --version and graft device info -d {}", device.name))
    })?;
    let kind = kind_name(head.kind());
    let exported = Exported::of(&head, kind).ok_or_else(|| {
        CliError::failed(format!(
            "{}: a {kind} head is no matrix and cannot be exported; ncm, ridge, lda and logistic can",
            device.name
        ))
        .with_help(format!("graft train -d {} --head ridge", device.name))
    })?;
    let labels: Vec<&str> = head.classes().iter().map(|label| label.as_str()).collect();
    let bytes = match args.format {
        ExportFormat::Onnx => onnx(&exported),
        ExportFormat::Safetensors => safetensors(&exported),
        ExportFormat::Npz => npz(&exported, &labels),
    };
    let path = args.output.display();
    fs::write(&args.output, &bytes).map_err(|error| {
        CliError::failed(format!("{path}: {error}"))
            .with_help(format!("graft export -d {} -o /tmp/head.onnx", device.name))
    })?;
    context.output.line(format!(
        "{path}: {kind} head of {}, embeddings of {}, {}",
        count(labels.len() as u64, "class"),
        count(head.embedding_len() as u64, "component"),
        amount(bytes.len() as u64, Unit::Bytes)
    ));
    Ok(Done::ok(json!({
        "schema": "graft.export/1", "device": device.name, "device_id": device.id().to_string(),
        "path": args.output.to_string_lossy(), "bytes": bytes.len(), "kind": kind, "n_classes": labels.len(),
        "embedding_len": head.embedding_len(), "head": head.digest().to_string(), "space": head.space().to_string(),
    })))
}
