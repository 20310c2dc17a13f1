//! Durable state of one board: samples, heads, bundles, the request log.
//!
//! One directory holds everything: `graft.db` (SQLite), `bundles/<hash>.graft`, `uploads/<hash>.part`, `lock` and
//! `reserve`. What is committed is on the medium: WAL with `synchronous=FULL`; bundles are written, synced, renamed,
//! and their directory synced. What is removed is overwritten (`secure_delete`) and leaves the log at once.
//!
//! - [`open`]: the store, its options, transactions;
//! - [`samples`]: records, embeddings, tombstones, what is set aside;
//! - [`requests`]: the log that makes retries safe;
//! - [`heads`], [`bundles`], [`uploads`]: the rest of a board's state.
//!
//! The store knows no arithmetic: an embedding is a string of int8 with a CRC, a head a string of bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod bundles;
mod error;
mod hardware;
pub mod heads;
mod lock;
pub mod open;
mod place;
pub mod requests;
mod reserve;
pub mod samples;
mod schema;
#[cfg(test)]
mod test_dir;
pub mod uploads;

pub use bundles::{BundleRow, Role};
pub use error::{OpenError, StoreError};
pub use hardware::Hardware;
pub use heads::HeadRow;
pub use open::{Notice, Options, Store, Tx};
pub use requests::RequestKey;
pub use samples::{Added, Counts, Note, Removed};
