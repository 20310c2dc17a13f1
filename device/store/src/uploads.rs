//! Bundles on their way in: `uploads/<hash>.part`, resumable at the byte where the link broke.
//!
//! One upload at a time: starting another drops what an abandoned one left, so that half bundles never fill a card.
//! Bytes count as arrived only after they are synced, because the host will not send them again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use graft_wire::Digest;

use crate::error::StoreError;
use crate::open::Store;

/// The upload under way.
pub(crate) struct Upload {
    hash: Digest,
    bytes: u64,
    offset: u64,
    file: File,
}

impl Store {
    pub(crate) fn upload_path(&self, hash: &Digest) -> PathBuf {
        self.dir.join("uploads").join(format!("{hash}.part"))
    }

    /// Starts or resumes the upload of `bytes` bytes that hash to `hash`. Returns the byte to continue at; equal to
    /// `bytes` if nothing is missing, also for a bundle that is installed.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] if the rest cannot fit; [`StoreError::Io`].
    pub fn begin_upload(&mut self, hash: &Digest, bytes: u64) -> Result<u64, StoreError> {
        if fs::metadata(self.bundle_path(hash)).is_ok_and(|meta| meta.len() == bytes) {
            return Ok(bytes);
        }
        self.upload = None;
        let path = self.upload_path(hash);
        self.drop_other_uploads(&path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open upload", &path))?;
        let mut offset = file.seek(SeekFrom::End(0)).map_err(StoreError::io("read", &path))?;
        if offset > bytes {
            file.set_len(0).map_err(StoreError::io("empty", &path))?;
            offset = file.seek(SeekFrom::Start(0)).map_err(StoreError::io("read", &path))?;
        }
        if self.free_bytes() < bytes - offset {
            return Err(StoreError::DiskFull);
        }
        self.upload = Some(Upload { hash: *hash, bytes, offset, file });
        Ok(offset)
    }

    /// Appends to the upload; returns where it stands. A chunk that was appended before is answered, not repeated.
    ///
    /// # Errors
    /// [`StoreError::UnknownUpload`] if another upload or none is under way, [`StoreError::UploadOffset`] for a gap,
    /// [`StoreError::UploadTooLong`], [`StoreError::DiskFull`], [`StoreError::Io`].
    pub fn append_upload(&mut self, hash: &Digest, offset: u64, chunk: &[u8]) -> Result<u64, StoreError> {
        let path = self.upload_path(hash);
        let Some(upload) = self.upload.as_mut().filter(|upload| upload.hash == *hash) else {
            return Err(StoreError::UnknownUpload(*hash));
        };
        let end = offset.saturating_add(chunk.len() as u64);
        if end > upload.bytes {
            return Err(StoreError::UploadTooLong { bytes: upload.bytes, found: end });
        }
        if offset < upload.offset && end <= upload.offset {
            return Ok(upload.offset);
        }
        if offset != upload.offset {
            return Err(StoreError::UploadOffset { found: offset, expected: upload.offset });
        }
        let written = upload.file.write_all(chunk).and_then(|()| upload.file.sync_data());
        if let Err(error) = written {
            // Nothing after the last synced byte is believed.
            let (len, file) = (upload.offset, &mut upload.file);
            if file.set_len(len).and_then(|()| file.seek(SeekFrom::Start(len))).is_err() {
                self.upload = None;
            }
            return Err(StoreError::io("write", &path)(error));
        }
        upload.offset = end;
        Ok(end)
    }

    /// The file of a finished upload, or of the installed bundle of this hash, after its hash was checked. An
    /// upload whose bytes are wrong is dropped.
    ///
    /// # Errors
    /// [`StoreError::UnknownUpload`] if there is none or it is not complete, [`StoreError::HashMismatch`],
    /// [`StoreError::Io`].
    pub fn open_upload(&mut self, hash: &Digest) -> Result<File, StoreError> {
        if self.bundle_path(hash).exists() {
            return self.open_bundle(hash);
        }
        let path = self.upload_path(hash);
        let (file, found) = open_hashed(&path, StoreError::UnknownUpload(*hash))?;
        if found == *hash {
            return Ok(file);
        }
        // Short is not wrong: after a restart nobody knows how long it is to become.
        let under_way = self.upload.as_ref().filter(|upload| upload.hash == *hash);
        if under_way.is_none_or(|upload| upload.offset < upload.bytes) {
            return Err(StoreError::UnknownUpload(*hash));
        }
        self.discard_upload(hash)?;
        Err(StoreError::HashMismatch { found, expected: *hash })
    }

    /// Drops an upload; one that does not exist is dropped already.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn discard_upload(&mut self, hash: &Digest) -> Result<(), StoreError> {
        self.upload = None;
        let path = self.upload_path(hash);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn drop_other_uploads(&self, keep: &Path) -> Result<(), StoreError> {
        let folder = self.dir.join("uploads");
        for entry in fs::read_dir(&folder).map_err(StoreError::io("list", &folder))? {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            if path != keep {
                fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// A file and its hash; it need not fit into memory. `missing` is the error for one that is not there.
pub(crate) fn open_hashed(path: &Path, missing: StoreError) -> Result<(File, Digest), StoreError> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing,
        _ => StoreError::io("read", path)(error),
    })?;
    let mut hasher = blake3::Hasher::new();
    let mut stretch = vec![0; 64 << 10];
    loop {
        match file.read(&mut stretch) {
            Ok(0) => return Ok((file, Digest(*hasher.finalize().as_bytes()))),
            Ok(n) => hasher.update(stretch.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::Options;
    use crate::test_dir::{TestDir, contents};

    fn open(dir: &TestDir) -> Store {
        Store::open(dir.path(), &Options { reserve_bytes: 0, ..Options::default() }).unwrap()
    }

    #[test]
    fn an_upload_resumes_after_a_restart() {
        let dir = TestDir::new();
        let (content, hash) = (b"a bundle of bytes", Digest::of(b"a bundle of bytes"));
        let mut store = open(&dir);
        assert_eq!(store.begin_upload(&hash, 17).unwrap(), 0);
        assert_eq!(store.append_upload(&hash, 0, &content[..5]).unwrap(), 5);
        drop(store);
        let mut store = open(&dir);
        assert!(matches!(store.append_upload(&hash, 5, b"x"), Err(StoreError::UnknownUpload(_))));
        assert!(matches!(store.open_upload(&hash), Err(StoreError::UnknownUpload(_))));
        assert_eq!(store.begin_upload(&hash, 17).unwrap(), 5);
        assert!(matches!(store.open_upload(&hash), Err(StoreError::UnknownUpload(_))));
        assert_eq!(store.append_upload(&hash, 5, &content[5..]).unwrap(), 17);
        assert_eq!(contents(store.open_upload(&hash).unwrap()), content);
    }

    #[test]
    fn gaps_excess_and_repeats_are_told_apart() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let hash = Digest::of(b"abcdef");
        store.begin_upload(&hash, 6).unwrap();
        store.append_upload(&hash, 0, b"abc").unwrap();
        let gap = store.append_upload(&hash, 4, b"e").unwrap_err();
        assert_eq!(gap.to_string(), "upload continues at byte 3, the chunk starts at 4");
        let excess = store.append_upload(&hash, 3, b"defg").unwrap_err();
        assert_eq!(excess.to_string(), "upload of 6 bytes got 7");
        assert_eq!(store.append_upload(&hash, 0, b"abc").unwrap(), 3);
        store.append_upload(&hash, 3, b"def").unwrap();
        assert_eq!(contents(store.open_upload(&hash).unwrap()), b"abcdef");
    }

    #[test]
    fn wrong_bytes_are_dropped() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let hash = Digest::of(b"abcdef");
        store.begin_upload(&hash, 6).unwrap();
        store.append_upload(&hash, 0, b"abcdeX").unwrap();
        assert!(matches!(store.open_upload(&hash), Err(StoreError::HashMismatch { .. })));
        assert_eq!(store.begin_upload(&hash, 6).unwrap(), 0);
    }

    #[test]
    fn a_new_upload_drops_an_abandoned_one() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        store.begin_upload(&old, 3).unwrap();
        store.append_upload(&old, 0, b"ol").unwrap();
        store.begin_upload(&new, 3).unwrap();
        assert!(!store.upload_path(&old).exists() && store.upload_path(&new).exists());
    }

    #[test]
    fn what_cannot_fit_is_refused_at_once() {
        let dir = TestDir::new();
        let mut store = open(&dir);
        assert!(matches!(store.begin_upload(&Digest::of(b""), u64::MAX / 2), Err(StoreError::DiskFull)));
    }
}
