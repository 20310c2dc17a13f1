//! Bundles: upload, installation with its self-test, activation, rollback.

use std::fs::File;

use graft_bundle::{Bundle, BundleError, UncheckedBundle};
use graft_engine::{Engine, Fault, LoadError, SelfTestError, detect_isa};
use graft_store::{BundleRow, Role};
use graft_wire::error::BundleFault;
use graft_wire::limits::CHUNK_BYTES_MAX;
use graft_wire::message::{BundleInfo, BundleInstalled, Name};
use graft_wire::{Digest, Response, WireError};

use crate::active::{Active, load_head};
use crate::answer::Failure;
use crate::daemon::{Daemon, Exchange};

impl Daemon {
    pub(crate) fn read_manifest(&mut self, exchange: &Exchange, offset: u32) -> Result<Vec<u8>, Failure> {
        Ok(exchange.encode(stretch(&self.active()?.manifest, offset)))
    }

    pub(crate) fn upload_begin(&mut self, exchange: &Exchange, hash: &Digest, bytes: u64) -> Result<Vec<u8>, Failure> {
        let offset = self.store.begin_upload(hash, bytes)?;
        Ok(exchange.encode(Response::UploadAt { offset }))
    }

    pub(crate) fn upload_chunk(
        &mut self,
        exchange: &Exchange,
        hash: &Digest,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let offset = self.store.append_upload(hash, offset, bytes)?;
        Ok(exchange.encode(Response::UploadAt { offset }))
    }

    /// Order as `graft_store::bundles` describes it: a stop at any point leaves the bundle from before active.
    pub(crate) fn bundle_install(
        &mut self,
        exchange: &Exchange,
        hash: &Digest,
        activate: bool,
    ) -> Result<Vec<u8>, Failure> {
        let file = self.store.open_upload(hash)?;
        let was_installed = self.store.installed(hash).is_ok();
        let tested = read_checked(file).and_then(|bundle| {
            self.store.begin_trial(hash)?;
            let tested = self.test(bundle);
            if tested.is_err() {
                self.store.end_trial()?;
            }
            tested
        });
        let (bundle, engine, n_cases) = match tested {
            Ok(tested) => tested,
            Err(failure) => {
                // An upload whose bytes are right and whose bundle is not will not get better.
                if !was_installed && !matches!(failure.wire, WireError::DiskFull | WireError::Storage) {
                    self.store.discard_upload(hash)?;
                }
                return Err(failure);
            }
        };
        let manifest = bundle.manifest();
        let row = BundleRow {
            hash: *hash,
            name: manifest.name.clone(),
            space: manifest.space,
            embedding_len: manifest.embedding_len,
            bytes: bundle.file_len(),
            exact: manifest.exact,
        };
        let is_active = self.active.as_ref().is_some_and(|active| active.row.hash == *hash);
        let response = self.installed(exchange, &row, n_cases, activate || is_active)?;
        self.store.promote_upload(hash)?;
        self.store.transaction::<_, Failure>(|tx| {
            tx.put_bundle(&row)?;
            if activate {
                tx.activate(hash)?
            } else {
                tx.stand_by(hash)?
            }
            Ok(tx.record(&exchange.key, &response)?)
        })?;
        self.settle(row, &bundle, engine, activate)?;
        Ok(response)
    }

    pub(crate) fn bundle_activate(&mut self, exchange: &Exchange, hash: &Digest) -> Result<Vec<u8>, Failure> {
        let row = self.store.installed(hash)?;
        let (bundle, engine, n_cases) = self.test(read_checked(self.store.open_bundle(hash)?)?)?;
        let response = self.installed(exchange, &row, n_cases, true)?;
        self.store.transaction_freeing(|tx| {
            tx.activate(hash)?;
            tx.record(&exchange.key, &response)
        })?;
        self.settle(row, &bundle, engine, true)?;
        Ok(response)
    }

    pub(crate) fn bundle_rollback(&mut self, exchange: &Exchange) -> Result<Vec<u8>, Failure> {
        let previous = self.store.bundle(Role::Previous)?.ok_or(WireError::NoPrevious)?;
        self.bundle_activate(exchange, &previous.hash)
    }

    /// Loads a bundle and runs its own cases. The active engine makes room first: a small board holds one network.
    fn test(&mut self, bundle: Bundle) -> Result<(Bundle, Engine, u32), Failure> {
        if let Some(active) = &mut self.active {
            active.engine = None;
        }
        let mut engine = load_engine(&bundle)?;
        match engine.self_test(&bundle) {
            Ok(n_cases) => Ok((bundle, engine, n_cases)),
            Err(error) => Err(Failure { wire: self_test_failure(&error, &bundle), log: Some(error.to_string()) }),
        }
    }

    fn installed(&self, exchange: &Exchange, row: &BundleRow, n_cases: u32, active: bool) -> Result<Vec<u8>, Failure> {
        let n_samples = self.store.counts(Some(&row.space))?.n_in_space;
        let has_head = active && load_head(&self.store, &row.space, row.embedding_len)?.is_some();
        let bundle = bundle_info(row);
        let installed = BundleInstalled { bundle, n_cases, active, n_samples, has_head };
        Ok(exchange.encode(Response::BundleInstalled(installed)))
    }

    /// Brings memory and folder in step with a committed installation or activation.
    fn settle(&mut self, row: BundleRow, bundle: &Bundle, engine: Engine, activate: bool) -> Result<(), Failure> {
        if activate {
            self.active = None;
            let (active, n_damaged) = Active::load(&mut self.store, row, bundle, Some(engine))?;
            self.active = Some(active);
            if n_damaged > 0 {
                self.log(&format!("{n_damaged} damaged samples were set aside"));
            }
        }
        // A file that stays behind is swept at the next start.
        if let Err(error) = self.store.sweep_bundles() {
            self.log(&format!("cannot remove old bundles: {error}"));
        }
        Ok(())
    }
}

/// A stretch of a longer byte string, as much as a chunk holds.
pub(crate) fn stretch(whole: &[u8], offset: u32) -> Response<'_> {
    let rest = whole.get(offset as usize..).unwrap_or_default();
    let bytes = rest.get(..CHUNK_BYTES_MAX).unwrap_or(rest);
    Response::Bytes { total: u32::try_from(whole.len()).unwrap_or(u32::MAX), bytes }
}

pub(crate) fn bundle_info(row: &BundleRow) -> BundleInfo {
    BundleInfo {
        name: name(&row.name),
        hash: row.hash,
        space: row.space,
        embedding_len: row.embedding_len,
        bytes: row.bytes,
        exact: row.exact,
    }
}

/// As much of a text as a name holds.
pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::new();
    for c in text.chars() {
        if name.push(c).is_err() {
            break;
        }
    }
    name
}

/// Parses a bundle and checks every hash in it. Its weights stay in the file until an engine packs them.
pub(crate) fn read_checked(file: File) -> Result<Bundle, Failure> {
    UncheckedBundle::open(file).and_then(UncheckedBundle::check).map_err(|error| {
        let wire = match error {
            BundleError::Read(_) => WireError::Storage,
            BundleError::Version { .. } => WireError::BadBundle(BundleFault::Version),
            BundleError::ChunkHash { .. } | BundleError::Space => WireError::BadBundle(BundleFault::Hash),
            _ => WireError::BadBundle(BundleFault::Format),
        };
        Failure { wire, log: Some(error.to_string()) }
    })
}

/// Plans a bundle for this machine's kernels, or those that `GRAFT_ISA` names.
pub(crate) fn load_engine(bundle: &Bundle) -> Result<Engine, Failure> {
    let refused = |log: String| Failure { wire: WireError::BadBundle(BundleFault::Unsupported), log: Some(log) };
    let isa = detect_isa().map_err(|error| refused(error.to_string()))?;
    Engine::load_with(bundle, isa, 1).map_err(|error| match error {
        LoadError::Step { fault: Fault::Unreadable { .. }, .. } => {
            Failure { wire: WireError::Storage, log: Some(error.to_string()) }
        }
        error => refused(error.to_string()),
    })
}

/// A case without any embedding differs in all of it.
fn self_test_failure(error: &SelfTestError, bundle: &Bundle) -> WireError {
    let embedding_len = bundle.manifest().embedding_len;
    match *error {
        SelfTestError::Differs { case, n_bytes, .. } => WireError::SelfTest { case, n_bytes },
        // The wire has no cosine: a direction that is wrong counts as every byte.
        SelfTestError::Far { case, .. } | SelfTestError::Embed { case, .. } => {
            WireError::SelfTest { case, n_bytes: embedding_len }
        }
        _ => WireError::BadBundle(BundleFault::Format),
    }
}
