//! What can go wrong while opening and while using a store.

use std::io;
use std::path::{Path, PathBuf};

use graft_wire::Digest;
use rusqlite::ErrorCode;

/// Why a state directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another program, or this one a second time, works on the directory.
    #[error("state in {} is in use by {holder}; waited {waited_s} s", dir.display())]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// Program and process id as the holder wrote them.
        holder: String,
        /// How long this opener waited.
        waited_s: u64,
    },
    /// Locks and syncs of network file systems cannot be relied on.
    #[error("state in {} lies on {kind}, a network file system; a local one is needed", dir.display())]
    NetworkFileSystem {
        /// The state directory.
        dir: PathBuf,
        /// Its name, such as `NFS`.
        kind: &'static str,
    },
    /// The database was written by a newer graft.
    #[error("state in {} has format {found}; this graft knows up to {known}", dir.display())]
    Newer {
        /// The state directory.
        dir: PathBuf,
        /// Format seen.
        found: i64,
        /// Newest format known.
        known: i64,
    },
    /// A file or folder of the state could not be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The database could not be used.
    #[error("database in {} failed: {source}", dir.display())]
    Database {
        /// The state directory.
        dir: PathBuf,
        /// The store's answer.
        source: StoreError,
    },
    /// No random numbers for a device id.
    #[error("operating system gave no random numbers: {0}")]
    Random(getrandom::Error),
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| OpenError::Io { what, path: path.to_path_buf(), source }
    }
}

/// Why a store operation failed; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space is left.
    #[error("disk is full; nothing was stored")]
    DiskFull,
    /// SQLite failed.
    #[error("database failed: {0}")]
    Database(rusqlite::Error),
    /// A file failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A row that holds what no graft writes.
    #[error("database holds a damaged {0}")]
    Damaged(&'static str),
    /// A request id came again with another body.
    #[error("request id {0} was used before with another body")]
    RequestReused(u64),
    /// A request id from before the log.
    #[error("request id {id} is older than the log, which starts after {floor}")]
    RequestTooOld {
        /// The id.
        id: u64,
        /// Newest id that is refused.
        floor: u64,
    },
    /// A request id beyond what the log can count.
    #[error("request id {0} is over the limit of 2^63 - 1")]
    RequestId(u64),
    /// The bytes of an upload or a bundle do not hash to its name.
    #[error("file hashes to {found:.12}, expected {expected:.12}")]
    HashMismatch {
        /// Hash of what arrived.
        found: Digest,
        /// Hash announced.
        expected: Digest,
    },
    /// A chunk that does not continue its upload.
    #[error("upload continues at byte {expected}, the chunk starts at {found}")]
    UploadOffset {
        /// Where the chunk starts.
        found: u64,
        /// Where the upload stands.
        expected: u64,
    },
    /// More bytes than announced.
    #[error("upload of {bytes} bytes got {found}")]
    UploadTooLong {
        /// Bytes announced.
        bytes: u64,
        /// Bytes there would be.
        found: u64,
    },
    /// No upload of this name is under way, or it is not complete.
    #[error("no complete upload {0:.12}")]
    UnknownUpload(Digest),
    /// No bundle of this hash is installed.
    #[error("no bundle {0:.12} is installed")]
    UnknownBundle(Digest),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
            _ => StoreError::Io { what, path: path.to_path_buf(), source },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    /// SQLite reports ENOSPC of every write as SQLITE_FULL.
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull,
            _ => StoreError::Database(error),
        }
    }
}
