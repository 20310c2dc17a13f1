//! Typed calls to a board, however it is reached.
//!
//! ```text
//! board     one method per request; paging, resuming and owned answers
//! connect   address -> link -> hello
//! link      one request there, its answer back: `framed` over bytes, `local` in the same process
//! tty, ssh  the byte streams under `framed`
//! sim       boards on pseudo terminals, to be reached like real ones
//! ```
//! Retries are safe because a request keeps its id: the board answers a repeated one from its log. Nothing here
//! decides or prints; errors say what failed, and `help()` names one thing to try.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod address;
pub mod board;
pub mod connect;
pub mod framed;
pub mod link;
mod local;
pub mod owned;
pub mod seen;
#[cfg(unix)]
pub mod sim;
mod ssh;
mod tty;

pub use address::{Address, AddressError};
pub use board::{Board, CallError};
pub use connect::{ConnectError, ConnectOptions, Timeouts, sim_dir};
pub use link::{LinkError, Patience, Transport};
pub use owned::{
    BenchReport, Collected, EvaluationReport, InputRef, Merged, NewSample, OwnedLayer, OwnedRecord, PredictionReport,
    Removed, ReviewReport, TrainReport,
};
pub use seen::Seen;
