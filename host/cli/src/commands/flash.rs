//! `graft flash`: upload, hash check and self-test on the board, then activation.
//!
//! The upload is named by its hash and goes on where it stopped. Before the embedding space changes, the command says
//! what that means for samples and head, and asks.

use graft_bundle::Bundle;
use graft_client::CallError;
use graft_wire::Digest;
use graft_wire::message::{BundleInstalled, DeviceInfo};
use serde_json::{Value, json};

use super::Done;
use super::collect::read_bundle;
use super::device::bundle_json;
use crate::args::FlashArgs;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::{CliError, chain};
use crate::files::quoted;
use crate::interrupt;
use crate::output::{Unit, amount, count};

/// Runs `graft flash`.
///
/// # Errors
/// A file that is no sound bundle, a board that refuses it, or a missing answer where the space changes.
pub fn run(context: &Context, args: &FlashArgs) -> Result<Done, CliError> {
    let bundle = read_bundle(&args.bundle)?;
    let manifest = bundle.manifest();
    context.output.note(format!(
        "bundle: {} ({}, {} components, space {:.12}{})",
        manifest.name,
        amount(bundle.file_len(), Unit::Bytes),
        manifest.embedding_len,
        manifest.space,
        if manifest.exact { "" } else { ", not exact: embeddings may differ between CPUs" }
    ));
    devices::each(context, "graft.flash/1", |device| flash(context, args, &bundle, device))
}

fn flash(context: &Context, args: &FlashArgs, bundle: &Bundle, device: &mut Device) -> Result<Value, CliError> {
    let output = &context.output;
    let hash = bundle.file_hash().map_err(|error| CliError::failed(chain(&error)))?;
    let result = |device: &Device, outcome, installed| result(device, bundle, &hash, outcome, installed);
    let left_behind = left_behind(&device.info, bundle);
    if device.info.bundle.as_ref().is_some_and(|active| active.hash == hash) {
        output.line(format!("{} is active on {} already; nothing to do", bundle.manifest().name, device.name));
        return Ok(result(device, "active_already", None));
    }
    if args.dry_run {
        output.line(format!("would send {} to {}", amount(bundle.file_len(), Unit::Bytes), device.name));
        if let Some(text) = &left_behind {
            output.line(text);
        }
        return Ok(result(device, "dry_run", None));
    }
    let asks = left_behind.is_some() && !args.yes && !args.no_activate;
    if let Some(text) = &left_behind {
        output.warn(text);
    }
    // Asked before a long upload, and before anything has changed.
    if asks {
        let _at_once = interrupt::ExitAtOnce::new("nothing was sent");
        match output.confirm(&format!("activate {} on {}?", bundle.manifest().name, device.name)) {
            Some(true) => {}
            Some(false) => {
                output.line("not sent; nothing has changed");
                return Ok(result(device, "declined", None));
            }
            None => {
                return Err(CliError::usage(format!(
                    "{}: activation needs an answer, and there is no terminal",
                    device.name
                ))
                .with_help(format!("graft flash {} -d {} --yes", quoted(&args.bundle), device.name)));
            }
        }
    }
    upload(context, device, bundle)?;
    let installed = device.call(|board| board.install(hash, !args.no_activate))?;
    let cases = if installed.n_cases == 1 {
        "its own case".into()
    } else {
        format!("all {} of its own cases", installed.n_cases)
    };
    output.line(format!("{} passed {cases} on {}", installed.bundle.name, device.name));
    if installed.active {
        output.line(format!(
            "active; {} in its space, {}",
            count(installed.n_samples, "sample"),
            if installed.has_head { "its head is active" } else { "no head" }
        ));
        output.hint(match installed.n_samples {
            0 => format!("graft collect -d {} --class NAME --from DIR", device.name),
            _ => format!("graft train -d {}", device.name),
        });
    } else {
        output.line("not activated; the present bundle stays active");
        output.note(format!("activate it: graft flash {} -d {}", quoted(&args.bundle), device.name));
    }
    Ok(result(device, if installed.active { "activated" } else { "installed" }, Some(&installed)))
}

fn upload(context: &Context, device: &mut Device, bundle: &Bundle) -> Result<(), CliError> {
    let bytes = bundle.file_bytes().map_err(|error| CliError::failed(chain(&error)))?;
    let mut progress = context.output.progress("sending", bytes.len() as u64, Unit::Bytes);
    let mut sent = 0;
    let uploaded = device.try_call(|board| {
        board.upload(&bytes, &mut |done, total| {
            sent = done;
            progress.at_of(done, total);
        })
    });
    drop(progress);
    match uploaded {
        Ok(_) => Ok(()),
        Err(CallError::Interrupted) => Err(CliError::interrupted(format!(
            "{} are on {}, which keeps its bundle; the same command again goes on there",
            amount(sent, Unit::Bytes),
            device.name
        ))),
        Err(error) => Err(devices::call_error(&error, &device.name)),
    }
}

/// What the board leaves behind when `bundle` becomes active; `None` if nothing.
fn left_behind(info: &DeviceInfo, bundle: &Bundle) -> Option<String> {
    let active = info.bundle.as_ref()?;
    let space = bundle.manifest().space;
    if active.space == space || (info.n_samples == 0 && info.head.is_none()) {
        return None;
    }
    let head = if info.head.is_some() { " and its head" } else { "" };
    Some(format!(
        "the space changes from {:.12} to {space:.12}: {}{head} of {} stay stored but unused until it is active again \
         (graft device rollback)",
        active.space,
        count(info.n_samples, "sample"),
        active.name,
    ))
}

fn result(
    device: &Device,
    bundle: &Bundle,
    hash: &Digest,
    outcome: &str,
    installed: Option<&BundleInstalled>,
) -> Value {
    let manifest = bundle.manifest();
    json!({
        "device": device.name, "device_id": device.id().to_string(), "outcome": outcome,
        "active": installed.map_or(outcome == "active_already", |i| i.active),
        "hash": hash.to_string(), "space": manifest.space.to_string(),
        "bytes": bundle.file_len(), "n_cases": installed.map(|i| i.n_cases),
        "n_samples": installed.map(|i| i.n_samples), "has_head": installed.map(|i| i.has_head),
        "previous": device.info.bundle.as_ref().map(bundle_json),
    })
}
