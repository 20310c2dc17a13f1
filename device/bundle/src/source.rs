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
        match self {
            Self::Memory(bytes) => stretch_of(bytes, range).map(Cow::Borrowed),
            Self::File(..) => {
                let mut bytes = vec![];
                self.read_with(range, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The same with a buffer of the caller's, which grows to the largest stretch that is read: fresh memory costs more than
    /// reading into it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with<'a>(&'a self, range: Range<u64>, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], BundleError> {
        match self {
            Self::Memory(bytes) => stretch_of(bytes, range),
            Self::File(_, len) if range.start > range.end || range.end > *len => Err(ends_early()),
            Self::File(file, _) => {
                let len = (range.end - range.start) as usize;
                if buffer.len() < len {
                    // Nothing of it is worth being moved.
                    buffer.clear();
                    buffer.resize(len, 0);
                }
                let bytes = buffer.get_mut(..len).ok_or_else(ends_early)?;
                read_exact_at(file, bytes, range.start).map_err(unreadable)?;
                Ok(bytes)
            }
        }
    }
}

fn stretch_of(bytes: &[u8], range: Range<u64>) -> Result<&[u8], BundleError> {
    let place = |at: u64| usize::try_from(at).map_err(|_| ends_early());
    bytes.get(place(range.start)?..place(range.end)?).ok_or_else(ends_early)
}

fn ends_early() -> BundleError {
    BundleError::Read("it ends early".to_owned())
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
