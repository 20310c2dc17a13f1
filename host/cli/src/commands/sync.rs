//! `graft sync`: boards' sample sets and heads into the host store, by union.

use std::collections::{BTreeMap, BTreeSet};

use graft_client::Board;
use graft_wire::{DeviceId, SampleId, SpaceId};
use serde_json::{Value, json};

use super::Done;
use crate::args::SyncArgs;
use crate::context::Context;
use crate::devices::{self, Device};
use crate::error::{CliError, chain};
use crate::host_store::{HostStore, StoreError, StoredSet, tombstones};
use crate::interrupt;
use crate::output::{Unit, count};

/// Records asked for at once; the board may send fewer, and the client asks again.
const PULL_IDS: usize = 256;

/// What a board has that the host lacks, and the other way round.
pub struct Difference {
    /// Ids that are live on the board and unknown to the host.
    pub to_host: Vec<SampleId>,
    /// Tombstones of the board that the host lacks.
    pub tombstones_to_host: Vec<SampleId>,
    /// Ids that are live in the host's set and unknown to the board.
    pub to_board: Vec<SampleId>,
    /// Tombstones of the host that the board lacks.
    pub tombstones_to_board: Vec<SampleId>,
}

/// Ids of a set, whosever it is.
#[derive(Clone, Default)]
pub struct Ids {
    live: BTreeSet<SampleId>,
    removed: BTreeSet<SampleId>,
}

impl Ids {
    fn add(&mut self, other: &Ids) {
        self.removed.extend(&other.removed);
        self.live.extend(&other.live);
        self.live.retain(|id| !self.removed.contains(id));
    }

    fn of(stored: &StoredSet) -> Self {
        Self { live: stored.set.live().map(|(id, _, _)| id).collect(), removed: tombstones(&stored.set) }
    }
}

/// The boards of one space as they were found.
#[derive(Default)]
struct Space {
    embedding_len: usize,
    boards: Vec<(String, Ids)>,
}

/// Runs `graft sync`.
///
/// # Errors
/// No device, a host store that fails, or with one device whatever stops it.
pub fn run(context: &Context, args: &SyncArgs) -> Result<Done, CliError> {
    let store = HostStore::new(&context.data_dir);
    let mut spaces: BTreeMap<SpaceId, Space> = BTreeMap::new();
    let mut done = devices::each(context, "graft.sync/1", |device| {
        let (result, ids) = pull(context, args, &store, device)?;
        let bundle = device.bundle()?;
        let space = spaces.entry(bundle.space).or_default();
        space.embedding_len = bundle.embedding_len as usize;
        space.boards.push((device.name.clone(), ids));
        Ok(result)
    })?;
    let mut sets = Vec::new();
    for (id, space) in &spaces {
        let stored = load(context, &store, *id, space.embedding_len)?;
        show_to_push(context, space, &stored, &mut done.object);
        sets.push(show_set(context, args, &stored, space));
    }
    if spaces.len() > 1 {
        context.output.warn(format!(
            "boards work in {} spaces; sets of different spaces stay apart: flash one bundle on all",
            spaces.len()
        ));
    }
    if let Value::Object(object) = &mut done.object {
        object.insert("dry_run".into(), args.dry_run.into());
        object.insert("sets".into(), sets.into());
    }
    Ok(done)
}

/// What each board would get: known only when all boards were heard.
fn show_to_push(context: &Context, space: &Space, stored: &StoredSet, object: &mut Value) {
    let mut union = Ids::of(stored);
    space.boards.iter().for_each(|(_, ids)| union.add(ids));
    for (name, ids) in &space.boards {
        let difference = compare(&union, ids);
        let (n, n_removals) = (difference.to_board.len(), difference.tombstones_to_board.len());
        context.output.line(format!("{name}: {} to push", changes(n, n_removals)));
        let devices = object.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten();
        for device in devices.filter(|d| d.get("device").and_then(Value::as_str) == Some(name)) {
            if let Value::Object(device) = device {
                device.insert("n_to_push".into(), n.into());
                device.insert("n_removals_to_push".into(), n_removals.into());
            }
        }
    }
}

fn show_set(context: &Context, args: &SyncArgs, stored: &StoredSet, space: &Space) -> Value {
    let set = &stored.set;
    let boards: BTreeSet<DeviceId> = set.live().map(|(_, meta, _)| meta.origin).collect();
    if !args.dry_run {
        context.output.line(format!(
            "host set of space {:.12}: {} of {} from {}",
            set.space(),
            count(set.len() as u64, "sample"),
            count(set.n_classes() as u64, "class"),
            count(boards.len() as u64, "board"),
        ));
        let to: Vec<String> = space.boards.iter().map(|(name, _)| format!("-d {name}")).collect();
        context.output.hint(format!("graft push {}", to.join(" ")));
    }
    json!({
        "space": set.space().to_string(), "n_samples": set.len(), "n_classes": set.n_classes(),
        "n_boards": boards.len(), "n_tombstones": set.tombstones().count(), "set_digest": set.digest().to_string(),
    })
}

/// `3 samples`, `3 samples and 1 removal`.
pub fn changes(n: usize, n_removals: usize) -> String {
    let samples = count(n as u64, "sample");
    if n_removals == 0 { samples } else { format!("{samples} and {}", count(n_removals as u64, "removal")) }
}

fn pull(context: &Context, args: &SyncArgs, store: &HostStore, device: &mut Device) -> Result<(Value, Ids), CliError> {
    let (space, embedding_len) = device.bundle().map(|b| (b.space, b.embedding_len as usize))?;
    let mut stored = load(context, store, space, embedding_len)?;
    let ids = ids_of(device, space)?;
    let difference = compare(&Ids::of(&stored), &ids);
    let n_before = stored.set.len();
    let mut n_set_aside = 0;
    let mut head = None;
    if !args.dry_run {
        n_set_aside = pull_records(context, device, &mut stored, &difference.to_host, space)?;
        difference.tombstones_to_host.iter().for_each(|id| _ = stored.set.remove(*id));
        store.save(&mut stored).map_err(|e| store_error(&e))?;
        if device.info.head.is_some() {
            let bytes = device.call(Board::pull_head)?;
            head = Some(store.save_head(space, device.id(), &bytes).map_err(|e| store_error(&e))?);
        }
    }
    let would = if args.dry_run { "would come" } else { "came" };
    context.output.line(format!(
        "{}: {} on the board; {} {would} to the host",
        device.name,
        count(device.info.n_samples, "sample"),
        changes(difference.to_host.len(), difference.tombstones_to_host.len()),
    ));
    if device.info.n_other_space > 0 {
        context.output.note(format!(
            "{}: {} have no embedding in the active space and stay there",
            device.name,
            count(device.info.n_other_space, "sample")
        ));
    }
    if n_set_aside > 0 {
        context.output.warn(format!(
            "{}: {} contradict what the host has; set aside",
            device.name,
            count(n_set_aside, "record")
        ));
    }
    let result = json!({
        "device": device.name, "device_id": device.id().to_string(), "space": space.to_string(),
        "embedding_len": embedding_len, "n_on_board": device.info.n_samples, "n_on_host_before": n_before,
        "n_new": difference.to_host.len(), "n_removals": difference.tombstones_to_host.len(),
        "n_to_push": difference.to_board.len(), "n_removals_to_push": difference.tombstones_to_board.len(),
        "n_set_aside": n_set_aside, "n_other_space": device.info.n_other_space,
        "head": head.map(|h| h.digest.to_string()),
    });
    Ok((result, ids))
}

/// Compares the host's set with a board by ids alone.
///
/// # Errors
/// Whatever stops board or link.
pub fn difference(stored: &StoredSet, device: &mut Device, space: SpaceId) -> Result<Difference, CliError> {
    Ok(compare(&Ids::of(stored), &ids_of(device, space)?))
}

fn ids_of(device: &mut Device, space: SpaceId) -> Result<Ids, CliError> {
    let live = device.call(|board| board.list_ids(space))?.into_iter().collect();
    let removed = device.call(Board::pull_tombstones)?.into_iter().collect();
    Ok(Ids { live, removed })
}

fn compare(host: &Ids, board: &Ids) -> Difference {
    let unknown_to = |known: &Ids, live: &BTreeSet<SampleId>| {
        live.iter().filter(|id| !known.live.contains(id) && !known.removed.contains(id)).copied().collect()
    };
    Difference {
        to_host: unknown_to(host, &board.live),
        tombstones_to_host: board.removed.difference(&host.removed).copied().collect(),
        to_board: unknown_to(board, &host.live),
        tombstones_to_board: host.removed.difference(&board.removed).copied().collect(),
    }
}

/// Pulls records into the set; returns how many contradict it.
fn pull_records(
    context: &Context,
    device: &mut Device,
    stored: &mut StoredSet,
    ids: &[SampleId],
    space: SpaceId,
) -> Result<u64, CliError> {
    let mut progress = context.output.progress("pulling", ids.len() as u64, Unit::Items);
    let n_before = stored.set.n_set_aside();
    let mut n_pulled = 0;
    for ids in ids.chunks(PULL_IDS) {
        interrupt::check(|| format!("nothing of {} was kept, other boards' sets are safe", device.name))?;
        for record in device.call(|board| board.pull_by_id(space, ids))? {
            let inserted = stored.set.insert(record.meta, &record.embedding);
            inserted.map_err(|e| CliError::failed(chain(&e)).at(&device.name))?;
        }
        n_pulled += ids.len() as u64;
        progress.at(n_pulled);
    }
    Ok(stored.set.n_set_aside().saturating_sub(n_before) as u64)
}

/// Reads the host's set and warns of files that cannot be read.
///
/// # Errors
/// A store that fails.
pub fn load(context: &Context, store: &HostStore, space: SpaceId, embedding_len: usize) -> Result<StoredSet, CliError> {
    let stored = store.load(space, embedding_len).map_err(|e| store_error(&e))?;
    for path in &stored.unreadable {
        context.output.warn(format!(
            "host store: {} is damaged or of another version and was left alone; sync again from the boards",
            path.display()
        ));
    }
    Ok(stored)
}

/// A failure of the host store, with what to do.
pub fn store_error(error: &StoreError) -> CliError {
    CliError::failed(chain(error))
        .with_help("boards keep what they have; make room or set GRAFT_DATA_DIR, then: graft sync -d DEVICE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::TestDir;
    use graft_wire::{Digest, Label, LabelKind, Part, SampleMeta, SessionId};

    #[test]
    fn removed_samples_never_travel() {
        let meta = |n: u8| SampleMeta {
            label: Label::new("a").unwrap(),
            session: SessionId([n; 8]),
            origin: DeviceId([1; 16]),
            digest: Digest([n; 32]),
            part: Part::Whole,
            kind: LabelKind::Class,
        };
        let id = |n: u8| meta(n).sample_id();
        let dir = TestDir::new("compare");
        let mut stored = HostStore::new(&dir.0).load(SpaceId([0; 32]), 2).unwrap();
        for n in [1, 2, 3] {
            stored.set.insert(meta(n), &[1, 2]).unwrap();
        }
        stored.set.remove(id(3));
        // The board has 1, 3 and 4 live; it has removed 2 and 5.
        let difference =
            compare(&Ids::of(&stored), &Ids { live: [id(1), id(3), id(4)].into(), removed: [id(2), id(5)].into() });
        assert_eq!(difference.to_host, [id(4)]);
        assert_eq!(BTreeSet::from_iter(difference.tombstones_to_host), BTreeSet::from([id(2), id(5)]));
        assert!(difference.to_board.is_empty());
        assert_eq!(difference.tombstones_to_board, [id(3)]);
    }
}
