//! `graft push`: the host's merged set, or a head alone, to boards.

use graft_client::OwnedRecord;
use graft_heads::Head;
use graft_wire::SpaceId;
use serde_json::{Value, json};

use super::Done;
use super::sync::{changes, difference, load, store_error};
use super::train::{choice, head_json};
use crate::args::PushArgs;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::{CliError, Exit, chain};
use crate::host_store::{HostStore, StoredSet};
use crate::interrupt;
use crate::output::{Unit, count};

/// Records per request; the client splits further where a message would grow too long.
const PUSH_RECORDS: usize = 256;
/// Fewest digits of an abbreviated digest.
const PREFIX_MIN: usize = 4;

/// Runs `graft push`.
///
/// # Errors
/// Nothing to send, a head that does not fit (exit code 4), or whatever stops boards or links.
pub fn run(context: &Context, args: &PushArgs) -> Result<Done, CliError> {
    let store = HostStore::new(&context.data_dir);
    devices::each(context, "graft.push/1", |device| {
        let (space, embedding_len) = device.bundle().map(|b| (b.space, b.embedding_len as usize))?;
        let stored = load(context, &store, space, embedding_len)?;
        if args.head_only {
            push_head(context, args, &store, &stored, device, space)
        } else {
            push_set(context, args, &store, &stored, device, space)
        }
    })
}

fn push_set(
    context: &Context,
    args: &PushArgs,
    store: &HostStore,
    stored: &StoredSet,
    device: &mut Device,
    space: SpaceId,
) -> Result<Value, CliError> {
    if stored.set.is_empty() && stored.set.tombstones().next().is_none() {
        return Err(nothing_stored(store, device, space));
    }
    let difference = difference(stored, device, space)?;
    let (n_records, n_removals) = (difference.to_board.len(), difference.tombstones_to_board.len());
    let (mut n_added, mut n_removed, mut n_set_aside) = (0, 0, 0);
    if args.dry_run {
        context.output.line(format!("would send to {}: {}", device.name, changes(n_records, n_removals)));
    } else {
        let mut progress = context.output.progress("pushing", n_records as u64, Unit::Items);
        // Removals first: they free space, and nothing that was removed can come back.
        let mut requests = vec![(Vec::new(), &difference.tombstones_to_board[..])];
        for ids in difference.to_board.chunks(PUSH_RECORDS) {
            let records = ids.iter().filter_map(|id| {
                let (meta, embedding) = stored.set.get(*id)?;
                Some(OwnedRecord { meta: meta.clone(), embedding: embedding.to_vec() })
            });
            requests.push((records.collect(), &[]));
        }
        let mut n_sent = 0;
        for (records, tombstones) in &requests {
            interrupt::check(|| format!("{n_sent} of {} are on {}", count(n_records as u64, "sample"), device.name))?;
            if records.is_empty() && tombstones.is_empty() {
                continue;
            }
            let merged = device.call(|board| board.push_records(space, records, tombstones))?;
            n_added += merged.n_added;
            n_removed += merged.n_removed;
            n_set_aside += merged.n_set_aside;
            n_sent += records.len();
            progress.at(n_sent as u64);
        }
        drop(progress);
        context.output.line(format!(
            "{}: {} added, {} removed; it holds the union now",
            device.name,
            count(n_added, "sample"),
            n_removed
        ));
        if n_set_aside > 0 {
            context.output.warn(format!(
                "{}: {} contradict what the board has; set aside",
                device.name,
                count(n_set_aside, "record")
            ));
        }
        if n_added + n_removed > 0 {
            context.output.hint(format!("graft train -d {}", device.name));
        }
    }
    Ok(json!({
        "device": device.name, "device_id": device.id().to_string(), "space": space.to_string(),
        "dry_run": args.dry_run, "head_only": false, "n_to_push": n_records, "n_removals_to_push": n_removals,
        "n_added": n_added, "n_removed": n_removed, "n_set_aside": n_set_aside,
    }))
}

fn push_head(
    context: &Context,
    args: &PushArgs,
    store: &HostStore,
    stored: &StoredSet,
    device: &mut Device,
    space: SpaceId,
) -> Result<Value, CliError> {
    let (head, bytes) = match &args.digest {
        Some(prefix) => pulled_head(store, space, prefix)?,
        None if stored.set.is_empty() => return Err(nothing_stored(store, device, space)),
        None => {
            let head = Head::train(&stored.set, choice(args.head)).map_err(|e| {
                CliError::failed(format!("host set: {}", chain(&e)))
                    .with_help(format!("pull more classes: graft sync -d {}", device.name))
            })?;
            let bytes = head.encode();
            (head, bytes)
        }
    };
    let what = format!(
        "{} head on {} of {}",
        head.kind().name(),
        count(head.n_samples(), "sample"),
        count(head.classes().len() as u64, "class")
    );
    let info = if args.dry_run {
        context.output.line(format!("would send to {}: {what}", device.name));
        None
    } else {
        let info = device.call(|board| board.push_head(&bytes))?;
        context.output.line(format!("{}: {what} is active; its own samples are unchanged", device.name));
        Some(info)
    };
    Ok(json!({
        "device": device.name, "device_id": device.id().to_string(), "space": space.to_string(),
        "dry_run": args.dry_run, "head_only": true, "digest": head.digest().to_string(), "bytes": bytes.len(),
        "head": info.as_ref().map(head_json),
    }))
}

/// A head that was pulled, by the first digits of its digest.
fn pulled_head(store: &HostStore, space: SpaceId, prefix: &str) -> Result<(Head, Vec<u8>), CliError> {
    let prefix = prefix.trim().to_lowercase();
    if prefix.len() < PREFIX_MIN || !prefix.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(CliError::usage(format!("--digest {prefix:?}: at least {PREFIX_MIN} hex digits are needed")));
    }
    let mut heads = store.heads(space).map_err(|e| store_error(&e))?;
    // The same head pulled from two boards is one head.
    heads.sort_by_key(|head| head.digest);
    heads.dedup_by_key(|head| head.digest);
    let known: Vec<String> = heads.iter().map(|head| format!("{:.12}", head.digest)).collect();
    heads.retain(|head| head.digest.to_string().starts_with(&prefix));
    let [stored] = &heads[..] else {
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        let what = format!("{} pulled heads of space {space:.12} begin with {prefix}; known are {known}", heads.len());
        return Err(CliError::failed(what).with_help("graft sync -d DEVICE"));
    };
    let bytes = store.read_head(stored).map_err(|e| store_error(&e))?;
    let head = Head::decode(&bytes).map_err(|e| CliError::failed(chain(&e)).at(stored.path.display()))?;
    Ok((head, bytes))
}

fn nothing_stored(store: &HostStore, device: &Device, space: SpaceId) -> CliError {
    let spaces = store.spaces().unwrap_or_default();
    let help = format!("graft sync -d {} (and the boards whose samples it should get)", device.name);
    if spaces.is_empty() {
        return CliError::failed("host store is empty; nothing to push").with_help(help);
    }
    let known: Vec<String> = spaces.iter().map(|space| format!("{space:.12}")).collect();
    let what = format!("{} works in space {space:.12}; the host store has sets of {}", device.name, known.join(", "));
    CliError::new(Exit::Incompatible, what).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::TestDir;
    use graft_wire::DeviceId;

    #[test]
    fn pulled_heads_are_named_by_their_first_digits() {
        let dir = TestDir::new("pulled");
        let store = HostStore::new(&dir.0);
        let space = SpaceId([1; 32]);
        assert_eq!(pulled_head(&store, space, "abc").err().unwrap().exit, Exit::Usage);
        assert!(pulled_head(&store, space, "abcd").err().unwrap().what.contains("known are none"));
        let head = store.save_head(space, DeviceId([1; 16]), b"no head").unwrap();
        let error = pulled_head(&store, space, &head.digest.to_string()[..8]).err().unwrap();
        assert_eq!(error.exit, Exit::Failed, "{error}");
    }
}
