//! Serial ports and pseudo terminals, raw, eight bits, no parity, no flow control.
//!
//! On Unix both are files set up by termios: one code path, which tests reach through a pseudo terminal. The port is
//! locked (`flock`) while it is open, so that two programs never share its bytes; other serial tools honour that lock.

use std::io;

use crate::framed::ByteStream;

/// Bytes worth one message: 0.7 s at 115,200 baud.
const CHUNK_BYTES: usize = 8 << 10;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPortError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file that is no terminal.
    #[error("it is not a serial port")]
    NotATerminal,
    /// Locked by another program.
    #[error("it is in use by another program")]
    InUse,
    /// The driver does not take this speed.
    #[error("it does not take {baud} baud")]
    Baud {
        /// Bits per second.
        baud: u32,
    },
}

#[cfg(unix)]
pub(crate) use unix::{TtyReader, TtyWriter, make_raw, open};

#[cfg(unix)]
mod unix {
    use std::io::{self, Read, Write};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{FlockOperation, Mode, OFlags, flock};
    use rustix::io::Errno;
    use rustix::termios::{ControlModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

    use super::{ByteStream, CHUNK_BYTES, OpenPortError};

    /// Longest wait of one read, so that its thread can end.
    const READ_WAIT: Duration = Duration::from_millis(100);
    /// Time in which a port must take at least one byte.
    const WRITE_WAIT: Duration = Duration::from_secs(5);

    /// Opens, locks and sets up a port; what waits in it from before is discarded.
    pub(crate) fn open(path: &str, baud: u32) -> Result<ByteStream, OpenPortError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
        if !isatty(&port) {
            return Err(OpenPortError::NotATerminal);
        }
        match flock(&port, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenPortError::InUse),
            Err(e) => return Err(io::Error::from(e).into()),
        }
        let mut settings = tcgetattr(&port).map_err(io::Error::from)?;
        make_raw(&mut settings);
        settings.set_speed(baud).map_err(|_| OpenPortError::Baud { baud })?;
        tcsetattr(&port, OptionalActions::Flush, &settings).map_err(io::Error::from)?;
        let port = Arc::new(port);
        Ok(ByteStream {
            reader: Box::new(TtyReader(Arc::clone(&port))),
            writer: Box::new(TtyWriter::new(port, WRITE_WAIT)),
            owner: None,
            ends_by_itself: true,
            chunk_bytes: CHUNK_BYTES,
        })
    }

    /// Bytes as they are: no echo, no line editing, 8N1, no flow control, modem lines ignored.
    pub(crate) fn make_raw(settings: &mut Termios) {
        settings.make_raw();
        settings.control_modes.remove(ControlModes::CSIZE | ControlModes::PARENB | ControlModes::CSTOPB);
        settings.control_modes.remove(ControlModes::CRTSCTS);
        settings.control_modes.insert(ControlModes::CS8 | ControlModes::CREAD | ControlModes::CLOCAL);
    }

    /// Reads a non-blocking terminal; `TimedOut` if nothing came for a while.
    pub(crate) struct TtyReader(pub(crate) Arc<OwnedFd>);

    impl Read for TtyReader {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            wait(&self.0, PollFlags::IN, READ_WAIT)?;
            // After a hang-up, reading gives 0 or an error, both of which end the stream.
            Ok(rustix::io::read(&*self.0, buffer)?)
        }
    }

    /// Writes a non-blocking terminal; `TimedOut` if it takes nothing for `longest`.
    pub(crate) struct TtyWriter {
        port: Arc<OwnedFd>,
        longest: Duration,
    }

    impl TtyWriter {
        pub(crate) fn new(port: Arc<OwnedFd>, longest: Duration) -> Self {
            Self { port, longest }
        }

        /// Writes what the terminal takes without waiting; `WouldBlock` if that is nothing.
        pub(crate) fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::io::write(&*self.port, bytes)?)
        }
    }

    impl Write for TtyWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            loop {
                match self.write_now(bytes) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        wait(&self.port, PollFlags::OUT, self.longest)?;
                    }
                    written => return written,
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn wait(port: &OwnedFd, flags: PollFlags, longest: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(longest).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut ports = [PollFd::new(port, flags)];
        if poll(&mut ports, Some(&timeout))? == 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// Opens a COM port.
#[cfg(windows)]
pub(crate) fn open(path: &str, baud: u32) -> Result<ByteStream, OpenPortError> {
    use std::time::Duration;

    let port = serialport::new(path, baud).timeout(Duration::from_millis(100)).open().map_err(io::Error::from)?;
    port.clear(serialport::ClearBuffer::Input).map_err(io::Error::from)?;
    let reader = port.try_clone().map_err(io::Error::from)?;
    Ok(ByteStream {
        reader: Box::new(reader),
        writer: Box::new(port),
        owner: None,
        ends_by_itself: true,
        chunk_bytes: CHUNK_BYTES,
    })
}
