//! A full disk refuses new samples, loses none, and lets samples be removed.
//!
//! A real one where this process may mount a small tmpfs (as root on Linux), and SQLite's page limit everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use graft_store::{Options, Store, StoreError};
use graft_wire::{DeviceId, Digest, Label, LabelKind, Part, SampleMeta, SessionId, SpaceId};

const SPACE: SpaceId = SpaceId([7; 32]);

fn meta(n: u32) -> SampleMeta {
    SampleMeta {
        label: Label::new("bolt").unwrap(),
        session: SessionId([1; 8]),
        origin: DeviceId([2; 16]),
        digest: Digest::of(&n.to_le_bytes()),
        part: Part::Whole,
        kind: LabelKind::Class,
    }
}

/// Stores samples until the disk is full; returns how many were acknowledged.
fn fill(store: &mut Store) -> u32 {
    for n in 0..20_000u32 {
        let added = store.transaction::<_, StoreError>(|tx| tx.add(&meta(n), &SPACE, &[n as i8 | 1; 1280], None));
        match added {
            Ok(_) => {}
            Err(StoreError::DiskFull) => return n,
            Err(error) => panic!("expected a full disk, got: {error}"),
        }
    }
    panic!("the disk never got full");
}

fn n_loaded(store: &mut Store) -> u32 {
    let mut n = 0;
    assert_eq!(store.load_space(&SPACE, 1280, |_, _| n += 1).unwrap(), 0);
    n
}

/// Fills, checks that nothing is lost, removes, and stores again. `fill_rest` takes what no sample fits into.
fn story(dir: &Path, options: &Options, fill_rest: impl FnOnce()) {
    let mut store = Store::open(dir, options).unwrap();
    let n_stored = fill(&mut store);
    fill_rest();
    assert!(n_stored > 10, "only {n_stored} samples fitted");
    assert_eq!(n_loaded(&mut store), n_stored);
    drop(store);

    // A board with a full disk starts, knows what it knew, and lets go of samples.
    let mut store = Store::open(dir, options).unwrap();
    assert_eq!(n_loaded(&mut store), n_stored);
    for n in 0..n_stored / 2 {
        assert!(store.transaction_freeing(|tx| tx.remove(&meta(n).sample_id())).unwrap().was_live);
    }
    assert_eq!(n_loaded(&mut store), n_stored - n_stored / 2);
    store.transaction::<_, StoreError>(|tx| tx.add(&meta(50_000), &SPACE, &[1; 1280], None)).unwrap();
    drop(store);
    let mut store = Store::open(dir, options).unwrap();
    assert_eq!(n_loaded(&mut store), n_stored - n_stored / 2 + 1);
}

#[test]
fn a_page_limit_refuses_and_loses_nothing() {
    let dir = std::env::temp_dir().join(format!("graft-store-pages-{}", std::process::id()));
    let options = Options { pages_max: Some(100), reserve_bytes: 0, ..Options::default() };
    story(&dir, &options, || ());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_full_file_system_refuses_loses_nothing_and_deletes_from_the_reserve() {
    let Some(mount) = Mount::tmpfs("4m") else {
        eprintln!("skipped: this process may not mount a tmpfs");
        return;
    };
    let options = Options { reserve_bytes: 512 << 10, lock_wait: Duration::ZERO, ..Options::default() };
    let dir = mount.0.join("state");
    story(&dir, &options, || {
        assert!(dir.join("reserve").exists());
        let _ = std::fs::write(mount.0.join("ballast"), vec![1u8; 4 << 20]);
    });
    std::fs::remove_file(mount.0.join("ballast")).unwrap();
    drop(Store::open(&dir, &options).unwrap());
    assert!(dir.join("reserve").exists());
}

/// A mounted folder, unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(size: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("graft-store-tmpfs-{}", std::process::id()));
        std::fs::create_dir_all(&path).ok()?;
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            let _ = std::fs::remove_dir(&path);
        }
        mounted.then_some(Self(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}
