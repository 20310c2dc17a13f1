//! A file becomes the tensor that its board's bundle takes, on the host, with the code the board itself would use.

use std::path::Path;

use graft_bundle::{InputSpec, Manifest};
use graft_input::{Limits, prepare};
use graft_wire::Digest;

use crate::error::chain;
use crate::files::read_capped;

/// Prepares files for one bundle.
pub struct Preparer {
    spec: InputSpec,
    limits: Limits,
}

/// A prepared file.
pub struct Prepared {
    /// BLAKE3 of the file.
    pub digest: Digest,
    /// int8, as the bundle takes it.
    pub tensor: Vec<i8>,
}

impl Preparer {
    /// For the bundle of `manifest`.
    pub fn new(manifest: &Manifest) -> Self {
        Self { spec: manifest.input.clone(), limits: Limits::default() }
    }

    /// Reads, decodes and prepares a file.
    ///
    /// # Errors
    /// The reason as one line without the path.
    pub fn prepare(&self, path: &Path) -> Result<Prepared, String> {
        let bytes = read_capped(path, self.limits.file_bytes_max)?;
        if bytes.is_empty() {
            return Err("empty file".into());
        }
        let tensor = prepare(&bytes, &self.spec, &self.limits).map_err(|e| chain(&e))?;
        Ok(Prepared { digest: Digest::of(&bytes), tensor })
    }
}
