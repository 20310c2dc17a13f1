//! A board in this process: the daemon's own code on a state directory, without frames or threads.

use std::path::Path;

use graft_wire::Hello;
use graftd::{Daemon, DaemonOptions, Hardware, OpenError};

use crate::connect::sim_dir;
use crate::link::{LinkError, Patience, Transport};

/// Bytes worth one message.
const CHUNK_BYTES: usize = 64 << 10;

/// Opens the simulated board `name`. Its name stands for its hardware, so that a copied state folder shows what a
/// cloned card does.
pub(crate) fn open_daemon(data_dir: &Path, name: &str) -> Result<Daemon, OpenError> {
    let options = DaemonOptions {
        name: Some(name.to_owned()),
        program: format!("graft (sim:{name})"),
        hardware: Hardware::Fixed(format!("sim:{name}")),
        ..DaemonOptions::default()
    };
    Daemon::open(&sim_dir(data_dir, name), options)
}

/// The link to a daemon held by this process.
pub(crate) struct LocalLink {
    daemon: Daemon,
}

impl LocalLink {
    pub(crate) fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }

    pub(crate) fn hello(&self) -> Hello {
        self.daemon.hello()
    }
}

impl Transport for LocalLink {
    fn exchange(&mut self, _request_id: u64, message: &[u8], _patience: Patience) -> Result<Vec<u8>, LinkError> {
        Ok(self.daemon.handle(message))
    }

    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES
    }
}
