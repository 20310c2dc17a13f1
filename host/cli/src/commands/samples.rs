//! `graft samples ls|rm|relabel`.

use graft_client::Board;
use graft_wire::message::SampleRow;
use graft_wire::{Label, LabelKind, SampleId, SessionId};
use serde_json::{Value, json};

use super::Done;
use crate::args::SamplesCommand;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::CliError;
use crate::files::{class_label, label_kind};
use crate::interrupt;
use crate::output::{count, plain_table};

/// Fewest digits of an abbreviated id.
const PREFIX_MIN: usize = 4;
/// Digits of ids in tables; unique for some thousand samples.
pub(super) const SHOWN_DIGITS: usize = 10;

/// Runs `graft samples ...`.
///
/// # Errors
/// An id that names none or several samples, or whatever stops board or link.
pub fn run(context: &Context, command: &SamplesCommand) -> Result<Done, CliError> {
    match command {
        SamplesCommand::Ls { class, session } => ls(context, class.as_deref(), session.as_deref()),
        SamplesCommand::Rm { ids, class, session, dry_run } => {
            rm(context, ids, class.as_deref(), session.as_deref(), *dry_run)
        }
        SamplesCommand::Relabel { ids, class } => relabel(context, ids, class),
    }
}

fn ls(context: &Context, class: Option<&str>, session: Option<&str>) -> Result<Done, CliError> {
    let mut device = devices::one(context)?;
    let mut rows = device.call(Board::samples)?;
    rows.retain(|row| matches(row, class, session));
    let mut table = plain_table(&["id", "class", "session", "from"], &[]);
    for row in &rows {
        let label = match row.meta.kind {
            LabelKind::Class => row.meta.label.to_string(),
            LabelKind::Negative => format!("{} (no class)", row.meta.label),
        };
        let from = if row.meta.origin == device.id() { "here".into() } else { format!("{:.8}", row.meta.origin) };
        table.add_row([format!("{:.SHOWN_DIGITS$}", row.id), label, format!("{:.8}", row.meta.session), from]);
    }
    if !rows.is_empty() {
        context.output.table(&table);
    }
    context.output.line(count(rows.len() as u64, "sample"));
    Ok(Done::ok(json!({
        "schema": "graft.samples.ls/1", "device": device.name, "device_id": device.id().to_string(),
        "n": rows.len(), "samples": rows.iter().map(row_json).collect::<Vec<_>>(),
    })))
}

fn rm(
    context: &Context,
    prefixes: &[String],
    class: Option<&str>,
    session: Option<&str>,
    dry_run: bool,
) -> Result<Done, CliError> {
    let mut device = devices::one(context)?;
    let rows = device.call(Board::samples)?;
    let mut ids = resolve(prefixes, &rows, &device)?;
    if class.is_some() || session.is_some() {
        ids.extend(rows.iter().filter(|row| matches(row, class, session)).map(|row| row.id));
    }
    ids.sort();
    ids.dedup();
    if ids.is_empty() {
        return Err(CliError::failed(format!("no live sample of {} is meant", device.name))
            .with_help(format!("graft samples ls -d {}", device.name)));
    }
    let removed = if dry_run {
        for id in &ids {
            context.output.line(format!("would remove {id}"));
        }
        Default::default()
    } else {
        let removed = device.call(|board| board.remove(&ids))?;
        context.output.line(format!("removed {}", count(removed.n_removed, "sample")));
        if device.info.head.is_some() && removed.n_removed > 0 {
            context.output.warn(format!("the head still knows them; train it again: graft train -d {}", device.name));
        }
        removed
    };
    Ok(Done::ok(json!({
        "schema": "graft.samples.rm/1", "device": device.name, "device_id": device.id().to_string(),
        "dry_run": dry_run, "n_removed": removed.n_removed, "n_tombstones": removed.n_tombstones,
        "head_stale": device.info.head.is_some() && removed.n_removed > 0,
        "ids": ids.iter().map(SampleId::to_string).collect::<Vec<_>>(),
    })))
}

fn relabel(context: &Context, prefixes: &[String], class: &str) -> Result<Done, CliError> {
    let label = class_label(class)?;
    let kind = label_kind(label.as_str());
    let mut device = devices::one(context)?;
    let rows = device.call(Board::samples)?;
    let ids = resolve(prefixes, &rows, &device)?;
    let mut changes = Vec::new();
    for id in &ids {
        interrupt::check(|| format!("{} of {} are relabelled", changes.len(), count(ids.len() as u64, "sample")))?;
        let collected = device.call(|board| board.relabel(*id, &label, kind))?;
        context.output.line(format!("{id:.SHOWN_DIGITS$} is {:.SHOWN_DIGITS$} now, {label}", collected.id));
        changes.push(json!({"id": id.to_string(), "new_id": collected.id.to_string(), "added": collected.added}));
    }
    if device.info.head.is_some() {
        context.output.warn(format!("the head is from before; train it again: graft train -d {}", device.name));
    }
    Ok(Done::ok(json!({
        "schema": "graft.samples.relabel/1", "device": device.name, "device_id": device.id().to_string(),
        "label": label.as_str(), "head_stale": device.info.head.is_some(), "samples": changes,
    })))
}

/// Samples that abbreviated ids name, one each.
fn resolve(prefixes: &[String], rows: &[SampleRow], device: &Device) -> Result<Vec<SampleId>, CliError> {
    let help = format!("graft samples ls -d {}", device.name);
    let mut ids = Vec::new();
    for prefix in prefixes {
        ids.push(resolve_one(prefix, rows).map_err(|e| e.with_help(help.clone()))?);
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

fn resolve_one(prefix: &str, rows: &[SampleRow]) -> Result<SampleId, CliError> {
    let prefix = prefix.trim().to_lowercase();
    if prefix.len() < PREFIX_MIN || !prefix.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(CliError::usage(format!(
            "{prefix:?} is no sample id; at least {PREFIX_MIN} hex digits are needed"
        )));
    }
    let mut matching = rows.iter().map(|row| row.id).filter(|id| id.to_string().starts_with(&prefix));
    match (matching.next(), matching.count()) {
        (Some(id), 0) => Ok(id),
        (Some(_), more) => Err(CliError::usage(format!("{prefix} names {} samples; one is needed", more + 1))),
        (None, _) => Err(CliError::failed(format!("no live sample has an id that begins with {prefix}"))),
    }
}

/// True if the row is of the class and the session named, as far as they are.
fn matches(row: &SampleRow, class: Option<&str>, session: Option<&str>) -> bool {
    let of_class = class.is_none_or(|class| Label::new(class).is_ok_and(|label| label == row.meta.label));
    of_class && session.is_none_or(|session| is_session(row.meta.session, session))
}

/// A session is meant by its name or by the first digits of its id.
fn is_session(session: SessionId, meant: &str) -> bool {
    let digits = meant.len() >= PREFIX_MIN && meant.chars().all(|c| c.is_ascii_hexdigit());
    SessionId::named(meant.trim()) == session || (digits && session.to_string().starts_with(&meant.to_lowercase()))
}

fn row_json(row: &SampleRow) -> Value {
    json!({
        "id": row.id.to_string(), "label": row.meta.label.as_str(),
        "negative": row.meta.kind == LabelKind::Negative, "session": row.meta.session.to_string(),
        "origin": row.meta.origin.to_string(), "digest": row.meta.digest.to_string(), "stored_s": row.stored_s,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::{DeviceId, Digest, Part, SampleMeta};

    fn row(n: u8, label: &str, session: SessionId) -> SampleRow {
        let meta = SampleMeta {
            label: Label::new(label).unwrap(),
            session,
            origin: DeviceId([1; 16]),
            digest: Digest([n; 32]),
            part: Part::Whole,
            kind: LabelKind::Class,
        };
        let mut id = [0xab; 16];
        id[2] = n;
        SampleRow { id: SampleId(id), meta, stored_s: None }
    }

    #[test]
    fn ids_are_found_by_their_first_digits() {
        let rows = [row(1, "a", SessionId([1; 8])), row(2, "a", SessionId([1; 8]))];
        assert_eq!(resolve_one("ABAB01", &rows).unwrap(), rows[0].id);
        assert_eq!(resolve_one(&rows[1].id.to_string(), &rows).unwrap(), rows[1].id);
        assert!(resolve_one("abab", &rows).unwrap_err().what.contains("names 2 samples"));
        assert!(resolve_one("abab03", &rows).unwrap_err().what.contains("no live sample"));
        for bad in ["aba", "", "xyzw", "abab01g"] {
            assert_eq!(resolve_one(bad, &rows).unwrap_err().exit.code(), 2, "{bad}");
        }
    }

    #[test]
    fn classes_and_sessions_select_together() {
        let row = row(1, "bolt", SessionId::named("monday"));
        assert!(matches(&row, Some(" bolt "), Some("monday")));
        assert!(!matches(&row, Some("bolt"), Some("tuesday")));
        assert!(!matches(&row, Some("nut"), None));
        let id = row.meta.session.to_string();
        assert!(matches(&row, None, Some(&id[..6])));
        assert!(!matches(&row, None, Some(&id[..3])));
    }
}
