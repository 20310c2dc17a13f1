//! From an address to a board that has said hello.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use graft_wire::hello::End;
use graft_wire::{ClientId, Hello};
use graftd::OpenError;

use crate::address::{Address, is_sim_name};
use crate::board::Board;
use crate::framed::{ByteStream, FramedLink, GreetError};
use crate::link::Transport;
use crate::local::{LocalLink, open_daemon};
use crate::seen::Seen;
use crate::tty::OpenPortError;
use crate::{ssh, tty};

static NEVER: AtomicBool = AtomicBool::new(false);

/// How to connect and how long to wait.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where simulated boards keep their state, see [`sim_dir`].
    pub data_dir: PathBuf,
    /// Once true, calls end at the next safe point.
    pub interrupted: &'static AtomicBool,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// The ssh program.
    pub ssh_program: PathBuf,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a hello on a serial port.
    pub hello: Duration,
    /// For a hello over ssh: name look-up, keys, perhaps a passphrase to be typed.
    pub hello_ssh: Duration,
    /// After this silence a request is sent again.
    pub retry: Duration,
    /// After this silence a board is gone; for what it does at once.
    pub quick: Duration,
    /// The same for running a backbone once.
    pub embed: Duration,
    /// The same for self-tests, training, evaluation.
    pub work: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            hello: seconds(3),
            hello_ssh: seconds(60),
            retry: seconds(10),
            quick: seconds(30),
            embed: seconds(120),
            work: seconds(600),
        }
    }
}

impl Default for ConnectOptions {
    /// State of simulated boards in the current folder, no interrupts.
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("."),
            interrupted: &NEVER,
            timeouts: Timeouts::default(),
            ssh_program: PathBuf::from("ssh"),
        }
    }
}

/// Where the simulated board `name` keeps its state.
pub fn sim_dir(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("sim").join(name)
}

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A simulated board's state cannot be used.
    #[error("simulated board {name} cannot be started: {source}")]
    Sim {
        /// Its name.
        name: String,
        /// Why.
        source: Box<OpenError>,
    },
    /// An [`Address::Sim`] made by hand with a name that [`Address`]'s parser refuses.
    #[error("name of a simulated board is {name:?}, which cannot be a folder")]
    SimName {
        /// The name.
        name: String,
    },
    /// A serial port cannot be opened.
    #[error("serial port {path} cannot be opened: {source}")]
    Port {
        /// Its path.
        path: String,
        /// Why.
        source: OpenPortError,
    },
    /// ssh cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Ssh {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing on this link is a board.
    #[error("no hello from a board at {address} within {:.0} s; seen: {seen}", waited.as_secs_f64())]
    NoHello {
        /// Where.
        address: Address,
        /// What came instead.
        seen: Seen,
        /// How long.
        waited: Duration,
    },
    /// The link ended before a hello.
    #[error("{address} ended before a board said hello: {reason}")]
    Gone {
        /// Where.
        address: Address,
        /// What ended it; for ssh, what it printed.
        reason: String,
    },
    /// No message version in common.
    #[error(
        "board at {address} speaks message versions {} to {}; this graft speaks {} to {}",
        board.version_oldest, board.version, host.version_oldest, host.version
    )]
    Incompatible {
        /// Where.
        address: Address,
        /// What the board said.
        board: Box<Hello>,
        /// What we said.
        host: Box<Hello>,
    },
    /// A hello that this version cannot read.
    #[error("hello of the board at {address} cannot be read; it is no graftd, or far newer than this graft")]
    UnreadableHello {
        /// Where.
        address: Address,
    },
    /// The system gave no random bytes for a client id.
    #[error("system gives no random bytes")]
    Random,
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
}

impl ConnectError {
    /// One thing to try.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            ConnectError::Sim { source, .. } => match **source {
                OpenError::Locked { .. } => {
                    "end that program, or reach the board through the port that it serves".to_owned()
                }
                _ => "name a local folder with room: --data-dir DIR or GRAFT_DATA_DIR".to_owned(),
            },
            ConnectError::Port { path, source: OpenPortError::Io(e) } => match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    "allow it once, then log in again: sudo usermod -aG dialout \"$USER\"".to_owned()
                }
                io::ErrorKind::NotFound => "see which ports there are: ls /dev/serial/by-id /dev/pts".to_owned(),
                _ => format!("look at the port: ls -l {path}"),
            },
            ConnectError::Port { path, source: OpenPortError::InUse } => {
                format!("see which program holds it: fuser {path}")
            }
            ConnectError::Port { source: OpenPortError::NotATerminal, .. } => {
                "see which ports there are: ls /dev/serial/by-id /dev/pts".to_owned()
            }
            ConnectError::Port { path, source: OpenPortError::Baud { .. } } => {
                format!("name a common speed, for example -d serial:{path}@115200")
            }
            ConnectError::Ssh { .. } => "install an OpenSSH client".to_owned(),
            ConnectError::NoHello { address: Address::Ssh { host }, .. }
            | ConnectError::Gone { address: Address::Ssh { host }, .. } => {
                format!("see that graftd is installed there: ssh {host} graftd --version")
            }
            ConnectError::NoHello { address: Address::Serial { path, .. }, seen, .. } => seen.help(path),
            ConnectError::Gone { .. } => {
                "see that the cable is in and the board is on, then repeat the command".to_owned()
            }
            ConnectError::Incompatible { host, board, .. } if board.version_oldest > host.version => {
                "update graft on this computer".to_owned()
            }
            ConnectError::Incompatible { .. } => "update graftd on the board".to_owned(),
            ConnectError::UnreadableHello { .. } => "bring graft and graftd to the same version".to_owned(),
            _ => return None,
        })
    }
}

/// Opens the link and exchanges hellos.
pub(crate) fn connect(address: &Address, options: &ConnectOptions) -> Result<Board, ConnectError> {
    match address {
        Address::Sim(name) => local(name, address, options),
        Address::Serial { path, baud } => {
            let failed = |source| ConnectError::Port { path: path.clone(), source };
            let stream = tty::open(path, *baud).map_err(failed)?;
            over_stream(stream, address, options.timeouts.hello, options)
        }
        Address::Ssh { host } => {
            let failed = |source| ConnectError::Ssh { program: options.ssh_program.clone(), source };
            let stream = ssh::open(&options.ssh_program, host).map_err(failed)?;
            over_stream(stream, address, options.timeouts.hello_ssh, options)
        }
    }
}

/// Exchanges hellos over a stream that is open already and waits `wait` for the board's; `address` is for errors.
pub(crate) fn over_stream(
    stream: ByteStream,
    address: &Address,
    wait: Duration,
    options: &ConnectOptions,
) -> Result<Board, ConnectError> {
    let client = new_client()?;
    let mut link = FramedLink::new(stream, options.interrupted);
    let address = address.clone();
    match link.greet(&our_hello(client), wait) {
        Ok(hello) => agreed(Box::new(link), hello, address, client, options),
        Err(GreetError::Silent(seen)) => Err(ConnectError::NoHello { address, seen, waited: wait }),
        Err(GreetError::Unreadable) => Err(ConnectError::UnreadableHello { address }),
        Err(GreetError::Gone { reason }) => Err(ConnectError::Gone { address, reason }),
        Err(GreetError::Interrupted) => Err(ConnectError::Interrupted),
    }
}

fn local(name: &str, address: &Address, options: &ConnectOptions) -> Result<Board, ConnectError> {
    if !is_sim_name(name) {
        return Err(ConnectError::SimName { name: name.to_owned() });
    }
    let client = new_client()?;
    let failed = |source| ConnectError::Sim { name: name.to_owned(), source: Box::new(source) };
    let link = LocalLink::new(open_daemon(&options.data_dir, name).map_err(failed)?);
    let hello = link.hello();
    agreed(Box::new(link), hello, address.clone(), client, options)
}

/// Two hellos that share a version make a board.
fn agreed(
    link: Box<dyn Transport>,
    hello: Hello,
    address: Address,
    client: ClientId,
    options: &ConnectOptions,
) -> Result<Board, ConnectError> {
    let ours = our_hello(client);
    if ours.speaks_with(&hello) {
        return Ok(Board::new(link, hello, address, client, options));
    }
    Err(ConnectError::Incompatible { address, board: Box::new(hello), host: Box::new(ours) })
}

/// An id per connection: two boards opened by one process may turn out to be the same one, and ids of requests count
/// within a client.
fn new_client() -> Result<ClientId, ConnectError> {
    let mut id = [0u8; 8];
    getrandom::fill(&mut id).map_err(|_| ConnectError::Random)?;
    Ok(ClientId(id))
}

fn our_hello(client: ClientId) -> Hello {
    let mut id = [0u8; 16];
    id.iter_mut().zip(client.0).for_each(|(to, from)| *to = from);
    Hello::new(End::Host, id)
}
