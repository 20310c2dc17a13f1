//! What a board says about itself.

use graft_store::Role;
use graft_wire::message::DeviceInfo;
use graft_wire::{Digest, Response};

use crate::answer::Failure;
use crate::bundles::{bundle_info, name};
use crate::daemon::{Daemon, Exchange};

impl Daemon {
    pub(crate) fn device_info(&mut self, exchange: &Exchange) -> Result<Vec<u8>, Failure> {
        let active = self.active.as_ref();
        let counts = self.store.counts(active.map(|active| &active.row.space))?;
        let previous = self.store.bundle(Role::Previous)?;
        let isa = match active.and_then(|active| active.engine.as_ref()) {
            Some(engine) => engine.isa().name(),
            None => graft_engine::detect_isa().map_or("unknown", |isa| isa.name()),
        };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let n_samples = active.map_or(counts.n_records, |active| number(active.set.len()));
        let info = DeviceInfo {
            device: self.store.device(),
            name: name(&self.name),
            version: name(env!("CARGO_PKG_VERSION")),
            arch: name(std::env::consts::ARCH),
            isa: name(isa),
            bundle: active.map(|active| bundle_info(&active.row)),
            previous: previous.as_ref().map(bundle_info),
            head: active.and_then(|active| Some(active.head_info(active.head.as_ref()?, 0))),
            n_samples,
            n_classes: active.map_or(counts.n_classes, |active| number(active.set.n_classes())),
            n_other_space: counts.n_records.saturating_sub(n_samples),
            n_tombstones: counts.n_tombstones,
            n_set_aside: counts.n_set_aside,
            set_digest: active.map_or(Digest([0; 32]), |active| active.set.digest()),
            free_bytes: self.store.free_bytes(),
        };
        Ok(exchange.encode(Response::DeviceInfo(info)))
    }
}
