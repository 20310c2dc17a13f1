//! A sample that was acknowledged is there after the process was killed in the middle of storing others.
//!
//! The child is this test binary run again; it prints each sample id after its commit, the parent kills it (SIGKILL)
//! at a moment of its own and opens what is left. What the operating system has not written when power goes is SQLite's
//! `synchronous=FULL`, which `settings_are_the_durable_ones` holds.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use graft_store::{Added, Options, RequestKey, Store, StoreError};
use graft_wire::{ClientId, DeviceId, Digest, Label, LabelKind, Part, SampleId, SampleMeta, SessionId, SpaceId};

const SPACE: SpaceId = SpaceId([7; 32]);
const CLIENT: ClientId = ClientId([1; 8]);
const CHILD_DIR: &str = "GRAFT_STORE_CRASH_DIR";

fn meta(n: u64) -> SampleMeta {
    SampleMeta {
        label: Label::new("bolt").unwrap(),
        session: SessionId(n.to_le_bytes()),
        origin: DeviceId([2; 16]),
        digest: Digest::of(&n.to_le_bytes()),
        part: Part::Whole,
        kind: LabelKind::Class,
    }
}

fn embedding(n: u64) -> Vec<i8> {
    (0..1280u64).map(|i| ((n * 31 + i * 7) % 255) as i8 as i16 as i8).map(|v| v.max(-127)).collect()
}

/// Not a test by itself: what the parent starts and kills.
#[test]
fn child_stores_samples_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let mut store = Store::open(Path::new(&dir), &Options::default()).unwrap();
    let start = u64::from(store.counts(None).unwrap().n_records);
    let mut out = std::io::stdout();
    for n in start.. {
        let key = RequestKey { client: CLIENT, id: n + 1, hash: Digest::of(&n.to_le_bytes()) };
        store
            .transaction::<_, StoreError>(|tx| {
                assert_eq!(tx.add(&meta(n), &SPACE, &embedding(n), None)?, Added::New);
                tx.record(&key, &meta(n).sample_id().0)
            })
            .unwrap();
        writeln!(out, "stored {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn acknowledged_samples_survive_a_kill() {
    let dir = std::env::temp_dir().join(format!("graft-store-crash-{}", std::process::id()));
    let mut n_stored = 0;
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_stores_samples_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            // The harness prints on the same stream; only our lines count.
            out.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("stored ")?.parse().ok()).last()
        });
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let last: Option<u64> = reader.join().unwrap();
        n_stored = last.map_or(n_stored, |n| n + 1);

        let mut store = Store::open(&dir, &Options::default()).unwrap();
        let mut found = std::collections::BTreeMap::<SampleId, Vec<i8>>::new();
        let n_damaged = store
            .load_space(&SPACE, 1280, |meta, embedding| {
                found.insert(meta.sample_id(), embedding.to_vec());
            })
            .unwrap();
        assert_eq!(n_damaged, 0);
        assert!(found.len() as u64 >= n_stored, "{} of {n_stored} samples are left", found.len());
        for n in 0..n_stored {
            let id = meta(n).sample_id();
            assert_eq!(found.get(&id), Some(&embedding(n)), "sample {n}");
        }
        // The log agrees with the samples, also for one that was stored and not acknowledged any more.
        for n in n_stored.saturating_sub(100)..n_stored + 2 {
            let key = RequestKey { client: CLIENT, id: n + 1, hash: Digest::of(&n.to_le_bytes()) };
            let recorded = store.recorded(&key).unwrap();
            assert_eq!(recorded.is_some(), found.contains_key(&meta(n).sample_id()), "request of sample {n}");
        }
    }
    assert!(n_stored > 5, "only {n_stored} samples were stored: the test did not test");
    std::fs::remove_dir_all(&dir).unwrap();
}
