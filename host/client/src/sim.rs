//! Boards on pseudo terminals: `graft sim --devices N --pty`. Other commands reach them like real ones, as
//! `serial:/dev/pts/N`, and each runs the daemon's own code.
//!
//! A board's state lies where `sim:NAME` would look for it; while it runs here, its lock keeps others away.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use graftd::{OpenError, serve};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::address::{Address, BAUD_DEFAULT, is_sim_name};
use crate::framed::is_pause;
use crate::local::open_daemon;
use crate::tty::{TtyReader, TtyWriter, make_raw};

/// Time in which a client must take something off a full line.
const UNREAD_WAIT: Duration = Duration::from_secs(1);

/// A running simulated board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtyBoard {
    /// Its name, the same as in `sim:NAME`.
    pub name: String,
    /// Its terminal, such as `/dev/pts/3`.
    pub path: String,
}

impl PtyBoard {
    /// The address to reach it by.
    pub fn address(&self) -> Address {
        Address::Serial { path: self.path.clone(), baud: BAUD_DEFAULT }
    }
}

/// Why simulated boards could not be started or ended badly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A name that cannot be a folder.
    #[error("name of a simulated board is {name:?}, which cannot be a folder")]
    Name {
        /// The name.
        name: String,
    },
    /// The system gave no pseudo terminal.
    #[error("pseudo terminal cannot be opened: {0}")]
    Pty(io::Error),
    /// The daemon cannot use its state.
    #[error("simulated board {name} cannot be started: {source}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: Box<OpenError>,
    },
    /// A board ended by itself.
    #[error("simulated board {name} ended: {reason}")]
    Ended {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Running simulated boards; dropping them stops them.
#[derive(Debug)]
pub struct PtyBoards {
    boards: Vec<PtyBoard>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl PtyBoards {
    /// Starts one board per name; their state lies under `data_dir`.
    ///
    /// # Errors
    /// [`SimError`]; boards already started are stopped again.
    pub fn start(data_dir: &Path, names: &[String]) -> Result<Self, SimError> {
        let mut boards = Self { boards: Vec::new(), stop: Arc::default(), threads: Vec::new() };
        for name in names {
            if !is_sim_name(name) {
                return Err(SimError::Name { name: name.clone() });
            }
            boards.start_one(data_dir, name)?;
        }
        Ok(boards)
    }

    /// The boards, in the order of their names as given.
    pub fn boards(&self) -> &[PtyBoard] {
        &self.boards
    }

    /// Name of a board that ended by itself, if one did.
    pub fn ended(&self) -> Option<&str> {
        let ended = self.threads.iter().position(JoinHandle::is_finished)?;
        self.boards.get(ended).map(|board| board.name.as_str())
    }

    /// Stops all boards after the request under way.
    ///
    /// # Errors
    /// [`SimError::Ended`] if one had ended with an error before.
    pub fn stop(mut self) -> Result<(), SimError> {
        self.stop.store(true, Ordering::SeqCst);
        let mut result = Ok(());
        for (board, thread) in self.boards.iter().zip(self.threads.drain(..)) {
            let reason = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it panicked".to_owned(),
            };
            result = Err(SimError::Ended { name: board.name.clone(), reason });
        }
        result
    }

    fn start_one(&mut self, data_dir: &Path, name: &str) -> Result<(), SimError> {
        let (master, slave, path) = open_pty().map_err(SimError::Pty)?;
        let (opened, is_open) = channel();
        let stop = Arc::clone(&self.stop);
        let place = (data_dir.to_owned(), name.to_owned());
        let thread = thread::spawn(move || run(&place.0, &place.1, master, slave, &opened, &stop));
        match is_open.recv() {
            Ok(None) => {
                self.boards.push(PtyBoard { name: name.to_owned(), path });
                self.threads.push(thread);
                Ok(())
            }
            Ok(Some(source)) => Err(SimError::Open { name: name.to_owned(), source }),
            Err(_) => Err(SimError::Ended { name: name.to_owned(), reason: "it panicked".to_owned() }),
        }
    }
}

impl Drop for PtyBoards {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // Its outcome is of interest to `stop` only.
            let _ = thread.join();
        }
    }
}

/// Opens the daemon in its own thread, because what it holds need not move between threads, and serves.
fn run(
    data_dir: &Path,
    name: &str,
    master: OwnedFd,
    slave: OwnedFd,
    opened: &Sender<Option<Box<OpenError>>>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut daemon = match open_daemon(data_dir, name) {
        Ok(daemon) => daemon,
        Err(error) => {
            // The receiver waits for exactly this.
            let _ = opened.send(Some(Box::new(error)));
            return Ok(());
        }
    };
    let _ = opened.send(None);
    let master = Arc::new(master);
    let line = LossyWriter { port: TtyWriter::new(Arc::clone(&master), UNREAD_WAIT), lost: false };
    let served = serve(&mut daemon, TtyReader(master), line, stop);
    drop(slave);
    served
}

/// A serial line loses what nobody reads, where a pseudo terminal would hold the board until its client is back.
struct LossyWriter {
    port: TtyWriter,
    lost: bool,
}

impl Write for LossyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Once a client is gone, waiting again for each frame of a long answer would keep the next client out.
        let written = if self.lost { self.port.write_now(bytes) } else { self.port.write(bytes) };
        self.lost = matches!(&written, Err(error) if is_pause(error.kind()));
        if self.lost { Ok(bytes.len()) } else { written }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A raw pseudo terminal: its board's side, its line's side, and the path of the latter.
///
/// The line's side stays open here, so that a client that closes it does not hang up the board, and its raw settings
/// stay.
fn open_pty() -> io::Result<(OwnedFd, OwnedFd, String)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?.into_string().map_err(|_| io::ErrorKind::InvalidData)?;
    let slave = rustix::fs::open(path.as_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut settings = tcgetattr(&slave)?;
    make_raw(&mut settings);
    tcsetattr(&slave, OptionalActions::Now, &settings)?;
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    Ok((master, slave, path))
}
