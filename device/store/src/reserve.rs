//! A file that is given up when the disk is full, so that deleting still works.
//!
//! SQLite needs space to delete, too: the change goes through its log first.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The reserve of one state directory.
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self { path: dir.join("reserve"), bytes }
    }

    /// Makes the file if it is missing and half its size would stay free. Returns whether it is there.
    ///
    /// Real bytes, not a hole: a sparse file reserves nothing.
    pub(crate) fn keep(&self, free_bytes: u64) -> bool {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() == self.bytes) {
            return true;
        }
        if free_bytes < self.bytes.saturating_add(self.bytes / 2) {
            return false;
        }
        let written = self.write();
        if written.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        written.is_ok()
    }

    /// Gives the space back; true if there was any.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }

    fn write(&self) -> std::io::Result<()> {
        let mut file = File::create(&self.path)?;
        let block = [0x5a_u8; 4096];
        let mut left = self.bytes;
        while left > 0 {
            let n = left.min(block.len() as u64);
            file.write_all(block.get(..n as usize).unwrap_or(&block))?;
            left -= n;
        }
        file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[test]
    fn kept_released_and_made_again() {
        let dir = TestDir::new();
        let reserve = Reserve::new(dir.path(), 10_000);
        assert!(!reserve.keep(14_999));
        assert!(reserve.keep(15_000));
        assert_eq!(fs::metadata(dir.path().join("reserve")).unwrap().len(), 10_000);
        assert!(reserve.release() && !reserve.release());
        assert!(reserve.keep(u64::MAX));
    }
}
