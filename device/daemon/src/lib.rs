//! The daemon on the board, as a library: bytes of a request in, bytes of a response out.
//!
//! [`Daemon::handle`] is the whole of it; [`serve`] puts it behind a byte stream, and the host tool runs the very same
//! code in its own process for simulated boards. Handlers are grouped by what they touch: `bundles`,
//! `samples`, `heads`, `sync`, `info`; `answer` holds what they share.
//!
//! Order of every change: check, compute, one transaction that holds the effect and its recorded response, and only
//! then the state in memory. So a repeated request is answered from the log, and a power cut finds either nothing or
//! all of it.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod active;
mod answer;
pub mod bench;
mod bundles;
mod daemon;
mod heads;
mod info;
mod samples;
mod serve;
mod sync;

pub use daemon::{Daemon, DaemonOptions};
pub use graft_store::{Hardware, OpenError};
pub use serve::serve;
