//! A serial line or a pseudo terminal as a byte stream: raw, blocking, without any terminal's kindness.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{ControlModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// An open line.
pub struct Port {
    file: File,
    /// What a host opens, for a pseudo terminal; else the device.
    pub path: PathBuf,
    is_pty: bool,
}

/// Opens a serial device at `baud`, 8N1, no flow control.
pub fn open(path: &Path, baud: u32) -> io::Result<Port> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut termios = tcgetattr(&file)?;
    raw(&mut termios);
    termios.set_speed(baud)?;
    tcsetattr(&file, OptionalActions::Flush, &termios)?;
    Ok(Port { file, path: path.to_path_buf(), is_pty: false })
}

/// Makes a pseudo terminal; a host opens [`Port::path`].
pub fn open_pty() -> io::Result<Port> {
    let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    // Raw before any host is there, or its first bytes would be echoed.
    let mut termios = tcgetattr(&master)?;
    raw(&mut termios);
    tcsetattr(&master, OptionalActions::Now, &termios)?;
    let name = ptsname(&master, Vec::new())?;
    Ok(Port { file: File::from(master), path: OsStr::from_bytes(name.to_bytes()).into(), is_pty: true })
}

fn raw(termios: &mut Termios) {
    termios.make_raw();
    termios.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    termios.control_modes &= !(ControlModes::CRTSCTS | ControlModes::CSTOPB);
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
}

impl Port {
    /// The other direction of the same line.
    pub fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Read for Port {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.file.read(bytes) {
            // Nobody has the pseudo terminal open at the moment; the next host may come any time.
            Err(error) if self.is_pty && error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                thread::sleep(HOST_POLL);
                Err(io::ErrorKind::TimedOut.into())
            }
            read => read,
        }
    }
}

const HOST_POLL: Duration = Duration::from_millis(50);
