//! Bundles on a board: upload with resume, installation, activation, rollback, manifest.

use graft_bundle::Manifest;
use graft_bundle::file::{MANIFEST_BYTES_MAX, decode_manifest};
use graft_wire::limits::CHUNK_BYTES_MAX;
use graft_wire::message::BundleInstalled;
use graft_wire::{DecodeError, Digest, Request, Response, WireError};

use super::{Board, CallError, other_kind};

/// Times that an upload follows the board to another offset before it gives up.
const REWINDS_MAX: u32 = 16;

impl Board {
    /// Manifest of the active bundle.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NoBundle`] if none is active.
    pub fn manifest(&mut self) -> Result<Manifest, CallError> {
        let bytes = self.stretches(|offset| Request::ReadManifest { offset }, MANIFEST_BYTES_MAX)?;
        decode_manifest(&bytes).map_err(|_| CallError::Protocol(DecodeError::Malformed))
    }

    /// Brings a file to the board, going on where an earlier attempt ended; returns its hash.
    ///
    /// `progress` gets bytes on the board and bytes in all, first what an earlier attempt left.
    ///
    /// # Errors
    /// [`CallError`]; what was acknowledged stays on the board for the next attempt.
    pub fn upload(&mut self, bytes: &[u8], progress: &mut dyn FnMut(u64, u64)) -> Result<Digest, CallError> {
        let hash = Digest::of(bytes);
        let total = bytes.len() as u64;
        let chunk_bytes = self.link.chunk_bytes().min(CHUNK_BYTES_MAX);
        let mut offset = self.call(Request::UploadBegin { bytes: total, hash }, read_offset)?;
        let mut n_rewinds = 0;
        loop {
            let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
            let rest = rest.ok_or(CallError::Unexpected("it holds more of the upload than there is"))?;
            progress(offset, total);
            if rest.is_empty() {
                return Ok(hash);
            }
            let chunk = rest.get(..chunk_bytes).unwrap_or(rest);
            match self.call(Request::UploadChunk { hash, offset, bytes: chunk }, read_offset) {
                Ok(now) if now > offset => offset = now,
                Ok(_) => return Err(CallError::Unexpected("its upload does not advance")),
                // The answer to an earlier chunk was lost, or the board restarted and lost a chunk.
                Err(CallError::Refused(WireError::UploadOffset { expected, .. })) if n_rewinds < REWINDS_MAX => {
                    n_rewinds += 1;
                    offset = expected;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks an uploaded bundle, runs its self-test and, if asked, activates it.
    ///
    /// # Errors
    /// [`CallError`]; after any refusal the previous bundle is kept.
    pub fn install(&mut self, hash: Digest, activate: bool) -> Result<BundleInstalled, CallError> {
        self.call(Request::BundleInstall { hash, activate }, read_installed)
    }

    /// Activates an installed bundle.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::UnknownBundle`] if it is not there.
    pub fn activate(&mut self, hash: Digest) -> Result<BundleInstalled, CallError> {
        self.call(Request::BundleActivate { hash }, read_installed)
    }

    /// Goes back to the previous bundle.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NoPrevious`] if there is none.
    pub fn rollback(&mut self) -> Result<BundleInstalled, CallError> {
        self.call(Request::BundleRollback, read_installed)
    }
}

fn read_offset(response: Response<'_>) -> Result<u64, CallError> {
    match response {
        Response::UploadAt { offset } => Ok(offset),
        _ => Err(other_kind()),
    }
}

fn read_installed(response: Response<'_>) -> Result<BundleInstalled, CallError> {
    match response {
        Response::BundleInstalled(installed) => Ok(installed),
        _ => Err(other_kind()),
    }
}
