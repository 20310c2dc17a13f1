//! `graftd`: the daemon on the board. Arguments are few, so they are read by hand and the binary stays small.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use graftd::bench::Bench;
use graftd::{Daemon, DaemonOptions, serve};

mod golden;
#[cfg(unix)]
mod port;

const HELP: &str = "graftd: the daemon of graft on a board

Usage:
  graftd connect [--state DIR]                       answer a host over standard input and output
  graftd serve --port PATH [--baud N] [--state DIR]  answer hosts on a serial line (default 115200 baud)
  graftd serve --pty [--state DIR]                   answer hosts on a new pseudo terminal, whose path is printed
  graftd run BUNDLE INPUT...                         per file: BLAKE3 of its int8 tensor and of its embedding
  graftd golden BUNDLE DIR                           as run for DIR/CLASS/*, then BLAKE3 of a head of each kind
  graftd bench BUNDLE [--runs N] [--threads N]       latency, cost of each layer, memory (50 runs, 1 thread)
  graftd --version | --help

State: --state, $GRAFT_STATE, /var/lib/graft for root, ~/.local/state/graft for others.
GRAFT_ISA names the instruction set of the kernels.

Exit codes: 0 ok, 1 failed, 2 wrong usage.";

/// What was asked for.
enum Command {
    Connect { state: PathBuf },
    Serve { line: Line, state: PathBuf },
    Run { bundle: PathBuf, inputs: Vec<PathBuf> },
    Golden { bundle: PathBuf, dir: PathBuf },
    Bench { bundle: PathBuf, n_runs: usize, n_threads: usize },
    Print(String),
}

/// What `serve` listens on.
enum Line {
    Port { path: PathBuf, baud: u32 },
    Pty,
}

fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1).collect()) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("error: {problem}\nhelp: graftd --help");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Connect { state } => connect(&state),
        Command::Serve { line, state } => serve_line(&line, &state),
        Command::Run { bundle, inputs } => golden::run(&bundle, &inputs),
        Command::Golden { bundle, dir } => golden::golden(&bundle, &dir),
        Command::Bench { bundle, n_runs, n_threads } => {
            Bench::run(&bundle, n_runs, n_threads).map(|bench| print!("{bench}"))
        }
        Command::Print(text) => {
            println!("{text}");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(1)
        }
    }
}

fn connect(state: &Path) -> Result<(), String> {
    let mut daemon = open(state)?;
    let (reader, writer) = (std::io::stdin().lock(), std::io::stdout().lock());
    serve(&mut daemon, reader, writer, &AtomicBool::new(false)).map_err(|error| format!("link broke: {error}"))
}

#[cfg(unix)]
fn serve_line(line: &Line, state: &Path) -> Result<(), String> {
    let mut daemon = open(state)?;
    let opened = match line {
        Line::Port { path, baud } => port::open(path, *baud),
        Line::Pty => port::open_pty().inspect(|pty| println!("{}", pty.path.display())),
    };
    let mut port = opened.map_err(|error| match line {
        Line::Port { path, .. } => format!("cannot open {}: {error}", path.display()),
        Line::Pty => format!("cannot make a pseudo terminal: {error}"),
    })?;
    let writer = port.writer().map_err(|error| format!("cannot write to the line: {error}"))?;
    serve(&mut daemon, &mut port, writer, &AtomicBool::new(false)).map_err(|error| format!("line broke: {error}"))
}

#[cfg(not(unix))]
fn serve_line(_line: &Line, _state: &Path) -> Result<(), String> {
    Err("serial lines are served on Unix only".to_owned())
}

fn open(state: &Path) -> Result<Daemon, String> {
    let options = DaemonOptions { log: |line| eprintln!("graftd: {line}"), ..DaemonOptions::default() };
    Daemon::open(state, options).map_err(|error| error.to_string())
}

fn parse(arguments: Vec<OsString>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else {
        return Err("no command; allowed: connect, serve, run, golden, bench".into());
    };
    let rest: Vec<OsString> = arguments.collect();
    match first.to_str() {
        Some("--help" | "-h" | "help") => Ok(Command::Print(HELP.to_owned())),
        Some("--version" | "-V") => Ok(Command::Print(concat!("graftd ", env!("CARGO_PKG_VERSION")).to_owned())),
        Some("connect") => {
            let [state] = options(rest, ["--state"])?;
            Ok(Command::Connect { state: state_dir(state)? })
        }
        Some("serve") => {
            let (flags, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|argument| argument == "--pty");
            let [state, port, baud] = options(rest, ["--state", "--port", "--baud"])?;
            let line = match (port, flags.is_empty()) {
                (Some(path), true) => Line::Port { path: path.into(), baud: baud_of(baud)? },
                (None, false) => Line::Pty,
                _ => return Err("serve needs one of --port PATH and --pty".to_owned()),
            };
            Ok(Command::Serve { line, state: state_dir(state)? })
        }
        Some("run") => match rest.split_first() {
            Some((bundle, inputs)) if !inputs.is_empty() => {
                Ok(Command::Run { bundle: bundle.into(), inputs: inputs.iter().map(PathBuf::from).collect() })
            }
            _ => Err("run needs BUNDLE and at least one INPUT".to_owned()),
        },
        Some("golden") => match &rest[..] {
            [bundle, dir] => Ok(Command::Golden { bundle: bundle.into(), dir: dir.into() }),
            _ => Err("golden needs BUNDLE and DIR".to_owned()),
        },
        Some("bench") => match rest.split_first() {
            Some((bundle, rest)) => {
                let [runs, threads] = options(rest.to_vec(), ["--runs", "--threads"])?;
                let n_runs = count("--runs", runs, 50, 1_000_000)?;
                Ok(Command::Bench { bundle: bundle.into(), n_runs, n_threads: count("--threads", threads, 1, 64)? })
            }
            None => Err("bench needs BUNDLE".to_owned()),
        },
        _ => Err(format!("unknown command {first:?}; allowed: connect, serve, run, golden, bench")),
    }
}

/// Values of `--name VALUE` options, in the order of `names`.
fn options<const N: usize>(arguments: Vec<OsString>, names: [&str; N]) -> Result<[Option<OsString>; N], String> {
    let mut values = [const { None }; N];
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let slot = names.iter().position(|name| argument == *name).and_then(|i| values.get_mut(i));
        let slot = slot.ok_or_else(|| format!("unknown argument {argument:?}; allowed: {}", names.join(", ")))?;
        *slot = Some(arguments.next().ok_or_else(|| format!("{argument:?} needs a value"))?);
    }
    Ok(values)
}

fn count(name: &str, given: Option<OsString>, default: usize, max: usize) -> Result<usize, String> {
    let Some(text) = given else { return Ok(default) };
    let parsed = text.to_str().and_then(|text| text.parse().ok()).filter(|n| (1..=max).contains(n));
    parsed.ok_or_else(|| format!("{name} is {text:?}; allowed: 1 to {max}"))
}

fn baud_of(baud: Option<OsString>) -> Result<u32, String> {
    let Some(text) = baud else { return Ok(115_200) };
    let parsed = text.to_str().and_then(|text| text.parse().ok()).filter(|baud| *baud > 0);
    parsed.ok_or_else(|| format!("--baud is {text:?}; allowed: a number such as 115200"))
}

fn state_dir(given: Option<OsString>) -> Result<PathBuf, String> {
    if let Some(dir) = given.or_else(|| std::env::var_os("GRAFT_STATE")).filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/graft".into());
    }
    std::env::home_dir()
        .map(|home| home.join(".local/state/graft"))
        .ok_or_else(|| "no home folder for the state; --state DIR names one".to_owned())
}
