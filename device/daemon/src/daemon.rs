//! The daemon: opens its state, looks requests up in the log, and hands them to their handlers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graft_store::{BundleRow, Hardware, Note, OpenError, Options, RequestKey, Role, Store, StoreError};
use graft_wire::hello::End;
use graft_wire::{DecodeError, Digest, Hello, Request, RequestEnvelope, Response, WireError};

use crate::active::Active;
use crate::answer::{Failure, encode};

/// How to run a daemon. The clock and the log are arguments so that tests can lie about the one and read the other.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Name of the board for people; `None`: the host name.
    pub name: Option<String>,
    /// Name of this program, for whoever finds the state directory locked.
    pub program: String,
    /// How long to wait for another holder of the state directory.
    pub lock_wait: Duration,
    /// What the device id is bound to.
    pub hardware: Hardware,
    /// Seconds since 1970, or `None` while the clock cannot be trusted.
    pub clock: fn() -> Option<u64>,
    /// Takes one line for the board's log.
    pub log: fn(&str),
}

impl Default for DaemonOptions {
    /// As on a board, with a silent log.
    fn default() -> Self {
        let store = Options::default();
        let Options { program, lock_wait, hardware, .. } = store;
        Self { name: None, program, lock_wait, hardware, clock: system_clock, log: |_| {} }
    }
}

/// One board: its durable state and what of it lies in memory. One per state directory.
pub struct Daemon {
    pub(crate) store: Store,
    pub(crate) active: Option<Active>,
    pub(crate) name: String,
    options: DaemonOptions,
}

/// A request that is being handled: what its handler needs to answer and to record the answer.
pub(crate) struct Exchange {
    pub key: RequestKey,
}

impl Exchange {
    pub fn encode(&self, response: Response<'_>) -> Vec<u8> {
        encode(self.key.id, Ok(response))
    }
}

impl Daemon {
    /// Opens the state in `state_dir`, made if it is missing, with the bundle that was active.
    ///
    /// A bundle that cannot be read any more gives way to the previous one, and the log says so.
    ///
    /// # Errors
    /// [`OpenError`]: in use by another program, on a network file system, of a newer graft, or unusable.
    pub fn open(state_dir: &Path, options: DaemonOptions) -> Result<Self, OpenError> {
        let store_options = Options {
            program: options.program.clone(),
            lock_wait: options.lock_wait,
            hardware: options.hardware.clone(),
            ..Options::default()
        };
        let store = Store::open(state_dir, &store_options)?;
        for notice in store.notices() {
            (options.log)(&notice.to_string());
        }
        let name = options.name.clone().unwrap_or_else(host_name);
        let mut daemon = Self { store, active: None, name, options };
        daemon.load().map_err(|source| OpenError::Database { dir: state_dir.to_path_buf(), source })?;
        Ok(daemon)
    }

    /// What this board says first on every link.
    pub fn hello(&self) -> Hello {
        Hello::new(End::Board, self.store.device().0)
    }

    /// Answers one request: bytes of a `RequestEnvelope` in, bytes of a `ResponseEnvelope` out. Anything may come in;
    /// what cannot be read is answered as malformed.
    pub fn handle(&mut self, request: &[u8]) -> Vec<u8> {
        // No handler panics by intent. Should one, the host gets an answer, and memory is read anew from the store,
        // which a half-done transaction has left as it was.
        match catch_unwind(AssertUnwindSafe(|| self.answer(request))) {
            Ok(response) => response,
            Err(_) => {
                self.log("a request made its handler panic; state is read anew");
                if let Err(error) = self.load() {
                    self.active = None;
                    self.log(&error.to_string());
                }
                let request_id = RequestEnvelope::decode(request).map_or(0, |envelope| envelope.request_id);
                encode(request_id, Err(WireError::Storage))
            }
        }
    }

    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let envelope = match RequestEnvelope::decode(request) {
            Ok(envelope) => envelope,
            Err(DecodeError::TooLong { .. }) => return encode(0, Err(WireError::TooLong)),
            Err(_) => return encode(0, Err(WireError::Malformed)),
        };
        let RequestEnvelope { client, request_id, body } = envelope;
        let key = RequestKey { client, id: request_id, hash: Digest::of(request) };
        let outcome = if body.changes_state() {
            match self.store.recorded(&key) {
                Ok(Some(response)) => Ok(response),
                Ok(None) => self.dispatch(&Exchange { key }, body),
                Err(error) => Err(error.into()),
            }
        } else {
            self.dispatch(&Exchange { key }, body)
        };
        outcome.unwrap_or_else(|failure| {
            if let Some(line) = &failure.log {
                self.log(line);
            }
            encode(request_id, Err(failure.wire))
        })
    }

    fn dispatch(&mut self, exchange: &Exchange, body: Request<'_>) -> Result<Vec<u8>, Failure> {
        match body {
            Request::DeviceInfo => self.device_info(exchange),
            Request::ReadManifest { offset } => self.read_manifest(exchange, offset),
            Request::UploadBegin { bytes, hash } => self.upload_begin(exchange, &hash, bytes),
            Request::UploadChunk { hash, offset, bytes } => self.upload_chunk(exchange, &hash, offset, bytes),
            Request::BundleInstall { hash, activate } => self.bundle_install(exchange, &hash, activate),
            Request::BundleActivate { hash } => self.bundle_activate(exchange, &hash),
            Request::BundleRollback => self.bundle_rollback(exchange),
            Request::Collect { space, label, session, digest, part, kind, input } => {
                let device = self.store.device();
                let meta = graft_wire::SampleMeta { label, session, origin: device, digest, part, kind };
                self.collect(exchange, &space, meta, input)
            }
            Request::ListSamples { after } => self.list_samples(exchange, after),
            Request::RemoveSamples { ids } => self.remove_samples(exchange, ids),
            Request::Relabel { id, label, kind } => self.relabel(exchange, id, label, kind),
            Request::Train { head, force } => self.train(exchange, head, force),
            Request::TrainChecked { head, force, unknown } => self.train_checked(exchange, head, force, unknown),
            Request::Review => self.review(exchange),
            Request::Bench { n_runs, n_threads } => self.bench(exchange, n_runs, n_threads),
            Request::Predict { space, input } => self.predict(exchange, &space, input),
            Request::Evaluate { head } => self.evaluate(exchange, head),
            Request::PullRecords { space, after } => self.pull_records(exchange, &space, after),
            Request::PullTombstones { after } => self.pull_tombstones(exchange, after),
            Request::PushRecords { space, records, tombstones } => {
                self.push_records(exchange, &space, records, tombstones)
            }
            Request::PullHead { offset } => self.pull_head(exchange, offset),
            Request::PushHead { head } => self.push_head(exchange, head),
            Request::ListIds { space, after } => self.list_ids(exchange, &space, after),
            Request::PullById { space, ids } => self.pull_by_id(exchange, &space, ids),
        }
    }

    /// Reads what is active from the store into memory.
    fn load(&mut self) -> Result<(), StoreError> {
        self.active = None;
        let Some(row) = self.store.bundle(Role::Active)? else { return Ok(()) };
        match self.load_bundle(row) {
            Ok(active) => self.active = Some(active),
            Err(Failure { wire, log }) => {
                self.log(&format!("active bundle cannot be used: {}", log.unwrap_or_else(|| wire.to_string())));
                let Some(previous) = self.store.bundle(Role::Previous)? else { return Ok(()) };
                let hash = previous.hash;
                let Ok(active) = self.load_bundle(previous) else { return Ok(()) };
                self.store.transaction_freeing(|tx| {
                    tx.deactivate()?;
                    tx.activate(&hash)
                })?;
                self.log(&format!("went back to the previous bundle {hash:.12}"));
                self.active = Some(active);
            }
        }
        Ok(())
    }

    fn load_bundle(&mut self, row: BundleRow) -> Result<Active, Failure> {
        let bundle = crate::bundles::read_checked(self.store.open_bundle(&row.hash)?)?;
        let (active, n_damaged) = Active::load(&mut self.store, row, &bundle, None)?;
        if n_damaged > 0 {
            self.log(&format!("{n_damaged} damaged samples were set aside"));
        }
        Ok(active)
    }

    pub(crate) fn log(&self, line: &str) {
        (self.options.log)(line);
    }

    /// The note for a sample that is stored now.
    pub(crate) fn note(&self) -> Note {
        Note { stored_s: (self.options.clock)(), source: None }
    }
}

/// Boards start in 1970 or at the time of their image until the network sets their clock; 2025 is before any of ours.
fn system_clock() -> Option<u64> {
    const TRUSTED_FROM_S: u64 = 1_735_689_600; // 2025-01-01
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    (now_s >= TRUSTED_FROM_S).then_some(now_s)
}

fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let from_environment = || std::env::var("COMPUTERNAME").or_else(|_| std::env::var("HOSTNAME"));
    match kernel.trim() {
        "" => from_environment().unwrap_or_else(|_| "board".to_owned()),
        name => name.to_owned(),
    }
}
