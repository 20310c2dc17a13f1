//! The sets and heads pulled from boards, as immutable files named by their content.
//!
//! ```text
//! sets/SPACE/HASH.set               records of one space
//! sets/SPACE/DEVICE-DIGEST.head     a head as its board trained it
//! sets/tombstones/HASH.ids          removed ids; they hold in every space
//! ```
//! What the store knows is the union of its files, so writing needs no lock: each writer adds a file with all it has
//! read plus what is new (write, fsync, rename, fsync the folder), then deletes the files it has read. Two writers at
//! once leave two files, whose union is right; a crash leaves a file too many. Rewriting also drops what a tombstone
//! has removed, so that forgetting reaches the disk. A database would bring locks and add nothing to a union.
//!
//! A file, little-endian: magic `"graftset"`, version u16, zero u16, embedding length D u32 (0 for ids), space `[32]`
//! (zeros for ids); then records as `graft_wire::message::Record` items, or ids `[16]`; then BLAKE3 of all before
//! `[32]`, which is also its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use graft_heads::{SampleSet, SetError};
use graft_wire::limits::EMBEDDING_LEN_MAX;
use graft_wire::message::{Batch, Record, push_item};
use graft_wire::{DeviceId, Digest, SampleId, SpaceId};

use crate::files::{io_text, read_capped};

const MAGIC: &[u8; 8] = b"graftset";
/// Version written, and the only one read.
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 48;
const HASH_BYTES: usize = 32;
/// Longest file; 1.6 million samples of 1,280 components.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Longest head: 4,096 classes of 8,192 weights in f64, and a margin.
const HEAD_BYTES_MAX: u64 = 300 << 20;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("host store: {}: {}", path.display(), io_text(source))]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A sample does not fit into its space.
    #[error("host store: {0}")]
    Set(#[from] SetError),
    /// A set grew over what a file holds.
    #[error("host store: set of {found} bytes is over the limit of {FILE_BYTES_MAX}")]
    TooLong {
        /// Bytes needed.
        found: u64,
    },
}

/// The store under one data directory.
#[derive(Clone, Debug)]
pub struct HostStore {
    dir: PathBuf,
}

/// The set of one space with the files it was read from.
#[derive(Debug)]
pub struct StoredSet {
    /// Live records and all tombstones.
    pub set: SampleSet,
    /// Files that could not be read and were left alone: damaged, or of a newer version.
    pub unreadable: Vec<PathBuf>,
    read: Vec<PathBuf>,
}

/// A head as it was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// The board that trained it.
    pub device: DeviceId,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
    /// Where it lies.
    pub path: PathBuf,
}

impl HostStore {
    /// The store of `data_dir`; nothing is created before something is saved.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("sets") }
    }

    /// Spaces that have records, ascending.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        let names = names_in(&self.dir)?;
        let mut spaces: Vec<SpaceId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        spaces.retain(|space| names_in(&self.space_dir(*space)).is_ok_and(|n| n.iter().any(|n| n.ends_with(".set"))));
        Ok(spaces)
    }

    /// Reads the set of a space; an unknown one is empty.
    ///
    /// # Errors
    /// [`StoreError`] if a folder cannot be read; unreadable files are listed in the result instead.
    pub fn load(&self, space: SpaceId, embedding_len: usize) -> Result<StoredSet, StoreError> {
        let mut stored =
            StoredSet { set: SampleSet::new(space, embedding_len), unreadable: Vec::new(), read: Vec::new() };
        for (dir, ending) in [(self.tombstone_dir(), ".ids"), (self.space_dir(space), ".set")] {
            for name in names_in(&dir)?.iter().filter(|name| name.ends_with(ending)) {
                let path = dir.join(name);
                let added = match read_capped(&path, FILE_BYTES_MAX) {
                    // Another writer has replaced it between the listing and now by a file that holds as much.
                    Err(_) if !path.exists() => return self.load(space, embedding_len),
                    Err(_) => None,
                    Ok(bytes) => add_file(&bytes, &mut stored.set),
                };
                match added {
                    Some(()) => stored.read.push(path),
                    None => stored.unreadable.push(path),
                }
            }
        }
        Ok(stored)
    }

    /// Writes what `stored.set` holds and deletes the files it was read from.
    ///
    /// # Errors
    /// [`StoreError`]; the files it was read from are still there then.
    pub fn save(&self, stored: &mut StoredSet) -> Result<(), StoreError> {
        let set = &stored.set;
        let mut written = Vec::new();
        let ids: Vec<u8> = set.tombstones().flat_map(|id| id.0).collect();
        if !ids.is_empty() {
            let bytes = file_bytes(0, SpaceId([0; 32]), &ids);
            written.push(write_file(&self.tombstone_dir(), "ids", &bytes)?);
        }
        let mut records = Vec::new();
        for (_, meta, embedding) in set.live().chain(set.set_aside()) {
            let embedding: Vec<u8> = embedding.iter().map(|x| x.to_le_bytes()[0]).collect();
            let record = Record { meta: meta.clone(), embedding: &embedding };
            push_item(&mut records, &record).map_err(|_| StoreError::TooLong { found: records.len() as u64 })?;
        }
        if records.len() as u64 > FILE_BYTES_MAX - (HEADER_BYTES + HASH_BYTES) as u64 {
            return Err(StoreError::TooLong { found: records.len() as u64 });
        }
        if !records.is_empty() {
            let bytes = file_bytes(set.embedding_len() as u32, set.space(), &records);
            written.push(write_file(&self.space_dir(set.space()), "set", &bytes)?);
        }
        for path in stored.read.iter().filter(|path| !written.contains(path)) {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(path)(e)),
                _ => {}
            }
        }
        stored.read = written;
        Ok(())
    }

    /// Keeps a head as its board trained it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn save_head(&self, space: SpaceId, device: DeviceId, bytes: &[u8]) -> Result<StoredHead, StoreError> {
        let digest = Digest::of(bytes);
        let path = write_named(&self.space_dir(space), &format!("{device}-{digest}.head"), bytes)?;
        Ok(StoredHead { device, digest, path })
    }

    /// Heads of a space, by device and digest.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn heads(&self, space: SpaceId) -> Result<Vec<StoredHead>, StoreError> {
        let dir = self.space_dir(space);
        let heads = names_in(&dir)?.into_iter().filter_map(|name| {
            let (device, digest) = name.strip_suffix(".head")?.split_once('-')?;
            Some(StoredHead { device: device.parse().ok()?, digest: digest.parse().ok()?, path: dir.join(&name) })
        });
        Ok(heads.collect())
    }

    /// The bytes of a head.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be read or its bytes are not those of its digest.
    pub fn read_head(&self, head: &StoredHead) -> Result<Vec<u8>, StoreError> {
        let bytes = read_capped(&head.path, HEAD_BYTES_MAX).map_err(|e| at(&head.path)(io::Error::other(e)))?;
        if Digest::of(&bytes) != head.digest {
            return Err(at(&head.path)(io::Error::other("head is damaged: its bytes do not match its digest")));
        }
        Ok(bytes)
    }

    fn space_dir(&self, space: SpaceId) -> PathBuf {
        self.dir.join(space.to_string())
    }

    fn tombstone_dir(&self) -> PathBuf {
        self.dir.join("tombstones")
    }
}

/// Ids of tombstones in `set` as a set of their own.
pub fn tombstones(set: &SampleSet) -> BTreeSet<SampleId> {
    set.tombstones().collect()
}

fn file_bytes(embedding_len: u32, space: SpaceId, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + HASH_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&embedding_len.to_le_bytes());
    bytes.extend_from_slice(&space.0);
    bytes.extend_from_slice(body);
    let hash = Digest::of(&bytes);
    bytes.extend_from_slice(&hash.0);
    bytes
}

/// Adds a file's content to `set`; `None` if it is damaged or not for this set. The set is only touched after the
/// hash has matched.
fn add_file(bytes: &[u8], set: &mut SampleSet) -> Option<()> {
    let (content, hash) = bytes.split_last_chunk::<HASH_BYTES>()?;
    if Digest::of(content).0 != *hash {
        return None;
    }
    let (header, body) = content.split_first_chunk::<HEADER_BYTES>()?;
    let rest = header.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (zeros, rest) = rest.split_first_chunk::<2>()?;
    let (embedding_len, space) = rest.split_first_chunk::<4>()?;
    if u16::from_le_bytes(*version) != VERSION || *zeros != [0, 0] {
        return None;
    }
    let embedding_len = u32::from_le_bytes(*embedding_len) as usize;
    if embedding_len == 0 {
        let (ids, rest) = body.as_chunks::<16>();
        if !rest.is_empty() {
            return None;
        }
        ids.iter().for_each(|id| _ = set.remove(SampleId(*id)));
        return Some(());
    }
    if embedding_len > EMBEDDING_LEN_MAX || embedding_len != set.embedding_len() || *space != set.space().0 {
        return None;
    }
    for record in Batch::<Record<'_>>::new(body).iter() {
        let record = record.ok()?;
        let embedding: Vec<i8> = record.embedding.iter().map(|x| i8::from_le_bytes([*x])).collect();
        set.insert(record.meta, &embedding).ok()?;
    }
    Some(())
}

/// Names in a folder, sorted; none if it does not exist.
fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(at(dir))?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn write_file(dir: &Path, ending: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let hash = bytes.last_chunk::<HASH_BYTES>().map_or(Digest([0; 32]), |hash| Digest(*hash));
    write_named(dir, &format!("{hash}.{ending}"), bytes)
}

/// Write, fsync, rename, fsync the folder. A file of that name holds these bytes already.
fn write_named(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    let path = dir.join(name);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(dir).map_err(at(dir))?;
    let part = dir.join(format!("{name}.{}.part", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        sync_dir(dir)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&part);
        at(&path)(e)
    })?;
    Ok(path)
}

/// Makes a rename durable; Windows has no such call and does not need it.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::TestDir;
    use graft_wire::{Label, LabelKind, Part, SampleMeta, SessionId};

    const SPACE: SpaceId = SpaceId([7; 32]);

    fn meta(n: u8) -> SampleMeta {
        SampleMeta {
            label: Label::new("bolt").unwrap(),
            session: SessionId([n; 8]),
            origin: DeviceId([2; 16]),
            digest: Digest([n; 32]),
            part: Part::Whole,
            kind: LabelKind::Class,
        }
    }

    fn add(store: &HostStore, numbers: &[u8]) {
        let mut stored = store.load(SPACE, 2).unwrap();
        for n in numbers {
            stored.set.insert(meta(*n), &[*n as i8, -5]).unwrap();
        }
        store.save(&mut stored).unwrap();
    }

    fn files(dir: &Path) -> Vec<String> {
        names_in(dir).unwrap()
    }

    #[test]
    fn saves_add_up_to_the_union_in_one_file() {
        let dir = TestDir::new("union");
        let store = HostStore::new(&dir.0);
        assert!(store.load(SPACE, 2).unwrap().set.is_empty());
        assert!(store.spaces().unwrap().is_empty());
        add(&store, &[1, 2]);
        add(&store, &[2, 3]);
        let stored = store.load(SPACE, 2).unwrap();
        assert_eq!(stored.set.len(), 3);
        assert_eq!(stored.set.get(meta(3).sample_id()).unwrap().1, [3, -5]);
        assert_eq!(files(&store.space_dir(SPACE)).len(), 1);
        assert_eq!(store.spaces().unwrap(), [SPACE]);
    }

    #[test]
    fn two_writers_at_once_lose_nothing() {
        let dir = TestDir::new("writers");
        let store = HostStore::new(&dir.0);
        add(&store, &[1]);
        let mut a = store.load(SPACE, 2).unwrap();
        let mut b = store.load(SPACE, 2).unwrap();
        a.set.insert(meta(2), &[2, 2]).unwrap();
        b.set.insert(meta(3), &[3, 3]).unwrap();
        store.save(&mut a).unwrap();
        store.save(&mut b).unwrap();
        assert_eq!(store.load(SPACE, 2).unwrap().set.len(), 3);
    }

    #[test]
    fn what_is_removed_leaves_the_disk_and_stays_removed() {
        let dir = TestDir::new("removed");
        let store = HostStore::new(&dir.0);
        add(&store, &[1, 2]);
        let mut stored = store.load(SPACE, 2).unwrap();
        stored.set.remove(meta(1).sample_id());
        store.save(&mut stored).unwrap();
        let space_dir = store.space_dir(SPACE);
        let [name] = &files(&space_dir)[..] else { panic!("one file") };
        let bytes = fs::read(space_dir.join(name)).unwrap();
        assert!(!bytes.windows(32).any(|w| w == [1; 32]), "record is still in the file");
        add(&store, &[1]);
        let stored = store.load(SPACE, 2).unwrap();
        assert!(stored.set.get(meta(1).sample_id()).is_none());
        assert_eq!(tombstones(&stored.set).len(), 1);
    }

    #[test]
    fn damaged_files_are_named_and_left_alone() {
        let dir = TestDir::new("damaged");
        let store = HostStore::new(&dir.0);
        add(&store, &[1]);
        let space_dir = store.space_dir(SPACE);
        let path = space_dir.join(&files(&space_dir)[0]);
        let mut bytes = fs::read(&path).unwrap();
        for i in 0..bytes.len() {
            bytes[i] ^= 1;
            assert!(add_file(&bytes, &mut SampleSet::new(SPACE, 2)).is_none(), "byte {i}");
            assert!(add_file(&bytes[..i], &mut SampleSet::new(SPACE, 2)).is_none(), "length {i}");
            bytes[i] ^= 1;
        }
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut stored = store.load(SPACE, 2).unwrap();
        assert_eq!(stored.unreadable, std::slice::from_ref(&path));
        store.save(&mut stored).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn heads_are_kept_by_device_and_checked() {
        let dir = TestDir::new("heads");
        let store = HostStore::new(&dir.0);
        let head = store.save_head(SPACE, DeviceId([1; 16]), b"head").unwrap();
        assert_eq!(store.heads(SPACE).unwrap(), std::slice::from_ref(&head));
        assert_eq!(store.read_head(&head).unwrap(), b"head");
        fs::write(&head.path, b"heap").unwrap();
        assert!(store.read_head(&head).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn the_format_is_golden() {
        let bytes = file_bytes(2, SPACE, b"body");
        assert_eq!(&bytes[..16], b"graftset\x01\0\0\0\x02\0\0\0");
        assert_eq!(bytes.len(), HEADER_BYTES + 4 + HASH_BYTES);
        assert_eq!(Digest::of(&bytes[..52]).0, bytes[52..]);
    }
}
