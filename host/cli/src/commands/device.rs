//! `graft device info` and `graft device rollback`.

use graft_client::Board;
use graft_wire::message::{BundleInfo, DeviceInfo};
use serde_json::{Value, json};

use super::Done;
use super::train::head_json;
use crate::args::DeviceCommand;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::CliError;
use crate::output::{Unit, amount, count};

/// Runs `graft device ...`.
///
/// # Errors
/// Whatever stops board or link; for `rollback`, a board without a previous bundle.
pub fn run(context: &Context, command: &DeviceCommand) -> Result<Done, CliError> {
    match command {
        DeviceCommand::Info => devices::each(context, "graft.device.info/1", |device| {
            for line in info_lines(&device.info) {
                context.output.line(line);
            }
            Ok(info_json(device))
        }),
        DeviceCommand::Rollback => {
            devices::each(context, "graft.device.rollback/1", |device| rollback(context, device))
        }
    }
}

fn rollback(context: &Context, device: &mut Device) -> Result<Value, CliError> {
    let installed = device.call(Board::rollback)?;
    context.output.line(format!("{} is active again ({:.12})", installed.bundle.name, installed.bundle.hash));
    context.output.line(format!(
        "{} in its space, {}",
        count(installed.n_samples, "sample"),
        if installed.has_head { "with a head" } else { "no head" }
    ));
    Ok(json!({
        "device": device.name, "device_id": device.id().to_string(), "bundle": bundle_json(&installed.bundle),
        "n_samples": installed.n_samples, "has_head": installed.has_head, "n_cases": installed.n_cases,
    }))
}

fn info_lines(info: &DeviceInfo) -> Vec<String> {
    let bundle = |bundle: &Option<BundleInfo>| match bundle {
        None => "none".to_owned(),
        Some(b) => format!(
            "{} ({:.12}, {}, {} components, space {:.12}{})",
            b.name,
            b.hash,
            amount(b.bytes, Unit::Bytes),
            b.embedding_len,
            b.space,
            if b.exact { "" } else { ", not exact" }
        ),
    };
    let mut samples = format!("{} of {}", count(info.n_samples, "sample"), count(info.n_classes, "class"));
    if info.n_other_space > 0 {
        samples.push_str(&format!(", {} without an embedding in this space", info.n_other_space));
    }
    if info.n_tombstones > 0 {
        samples.push_str(&format!(", {} removed", info.n_tombstones));
    }
    if info.n_set_aside > 0 {
        samples.push_str(&format!(", {} set aside as damaged or contradictory", info.n_set_aside));
    }
    let head = match &info.head {
        None => "none".to_owned(),
        Some(head) => format!(
            "{} on {} of {}{}",
            head.kind.name(),
            count(head.n_samples, "sample"),
            count(head.n_classes, "class"),
            if head.stale { "; samples have changed since: graft train" } else { "" }
        ),
    };
    vec![
        format!("id        {}", info.device),
        format!("name      {}", info.name),
        format!("graftd    {} on {} ({})", info.version, info.arch, info.isa),
        format!("bundle    {}", bundle(&info.bundle)),
        format!("previous  {}", bundle(&info.previous)),
        format!("samples   {samples}"),
        format!("head      {head}"),
        format!("free      {}", amount(info.free_bytes, Unit::Bytes)),
    ]
}

fn info_json(device: &Device) -> Value {
    let info = &device.info;
    json!({
        "device": device.name, "device_id": info.device.to_string(), "name": info.name.as_str(),
        "version": info.version.as_str(), "arch": info.arch.as_str(), "isa": info.isa.as_str(),
        "bundle": info.bundle.as_ref().map(bundle_json), "previous": info.previous.as_ref().map(bundle_json),
        "head": info.head.as_ref().map(head_json), "n_samples": info.n_samples, "n_classes": info.n_classes,
        "n_other_space": info.n_other_space, "n_tombstones": info.n_tombstones, "n_set_aside": info.n_set_aside,
        "set_digest": info.set_digest.to_string(), "free_bytes": info.free_bytes,
    })
}

/// A bundle on a board, for `--json`.
pub fn bundle_json(bundle: &BundleInfo) -> Value {
    json!({
        "name": bundle.name.as_str(), "hash": bundle.hash.to_string(), "space": bundle.space.to_string(),
        "embedding_len": bundle.embedding_len, "bytes": bundle.bytes, "exact": bundle.exact,
    })
}
