//! Where the bytes of a bundle lie: in memory, or in a file that is read as needed, so that a board holds weights once.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;

use crate::file::BundleError;

#[derive(Debug)]
pub(crate) enum Source {
    Memory(Vec<u8>),
    /// With its length.
    File(File, u64),
}

impl Source {
    /// # Errors
    /// [`BundleError::Read`].
    pub fn of_file(file: File) -> Result<Self, BundleError> {
        let len = file.metadata().map_err(unreadable)?.len();
        Ok(Self::File(file, len))
    }

    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// A stretch, which the caller has compared with the length: nothing is allocated beyond it.
    ///
    /// # Errors
    /// [`BundleError::Read`].
    pub fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, BundleError> {
        let out_of_range = || BundleError::Read("it ends early".to_owned());
        if range.start > range.end || range.end > self.len() {
            return Err(out_of_range());
        }
        match self {
            Self::Memory(bytes) => {
                let stretch = bytes.get(range.start as usize..range.end as usize).ok_or_else(out_of_range)?;
                Ok(Cow::Borrowed(stretch))
            }
            Self::File(file, _) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                read_exact_at(file, &mut bytes, range.start).map_err(unreadable)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

fn unreadable(error: io::Error) -> BundleError {
    BundleError::Read(error.to_string())
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match std::os::windows::fs::FileExt::seek_read(file, rest, offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}
