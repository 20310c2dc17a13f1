//! Real pseudo terminals, a real child process: what a port or ssh does to a connection.
#![cfg(unix)]

mod fake;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use graft_client::sim::PtyBoards;
use graft_client::{Address, Board, CallError, ConnectError, ConnectOptions, Timeouts, sim_dir};
use graft_wire::Hello;
use graft_wire::frame::{Frames, Kind};
use graft_wire::hello::End;

/// A folder of its own for one test, removed at its end.
struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        let name = format!("graft-client-{}-{}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn boards(dir: &TestDir, names: &[&str]) -> PtyBoards {
    PtyBoards::start(&dir.0, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn connect(address: &Address) -> Result<Board, ConnectError> {
    Board::connect(address, &ConnectOptions::default())
}

#[test]
fn boards_on_ptys_answer_one_client_after_another() {
    let dir = TestDir::new();
    let boards = boards(&dir, &["left", "right"]);
    let [left, right] = boards.boards() else { panic!("two boards") };
    assert_ne!(left.path, right.path);
    for _ in 0..3 {
        for board in [left, right] {
            let mut board = connect(&board.address()).unwrap();
            let info = board.info().unwrap();
            assert_eq!(info.device, board.device());
            assert_eq!(info.bundle, None);
        }
    }
    assert!(sim_dir(&dir.0, "left").is_dir());
    assert_eq!(boards.ended(), None);
    boards.stop().unwrap();
}

#[test]
fn long_messages_cross_a_pty() {
    let dir = TestDir::new();
    let boards = boards(&dir, &["one"]);
    let mut board = connect(&boards.boards()[0].address()).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| i.wrapping_mul(i) as u8).collect();
    let mut last = (0, 0);
    board.upload(&bytes, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last, (300_000, 300_000));
}

#[test]
fn a_client_that_left_in_the_middle_harms_nobody() {
    let dir = TestDir::new();
    let boards = boards(&dir, &["one"]);
    let address = boards.boards()[0].address();
    let mut port = fs::OpenOptions::new().write(true).open(&boards.boards()[0].path).unwrap();
    // Half a message, then more requests than the line holds answers for, none of them read.
    port.write_all(&[0, 5, 1, 2]).unwrap();
    let hello = Hello::new(End::Host, [0; 16]).encode();
    for counter in 0..2000 {
        let mut frames = Frames::new(Kind::Hello, counter, &hello).unwrap();
        while let Some(bytes) = frames.next_frame() {
            port.write_all(bytes).unwrap();
        }
    }
    drop(port);
    let mut board = connect(&address).unwrap();
    assert!(board.info().is_ok());
    assert_eq!(boards.ended(), None);
}

#[test]
fn one_port_serves_one_client_at_a_time() {
    let dir = TestDir::new();
    let boards = boards(&dir, &["one"]);
    let address = boards.boards()[0].address();
    let path = &boards.boards()[0].path;
    let first = connect(&address).unwrap();
    let error = connect(&address).unwrap_err();
    assert_eq!(error.to_string(), format!("serial port {path} cannot be opened: it is in use by another program"));
    assert_eq!(error.help().unwrap(), format!("see which program holds it: fuser {path}"));
    drop(first);
    assert!(connect(&address).is_ok());
}

#[test]
fn a_board_that_stops_is_noticed_and_named() {
    let dir = TestDir::new();
    let boards = boards(&dir, &["one"]);
    let mut board = connect(&boards.boards()[0].address()).unwrap();
    boards.stop().unwrap();
    let error = board.info().unwrap_err();
    assert!(error.to_string().starts_with("board went away: "), "{error}");
}

#[test]
fn ports_that_are_none_are_named() {
    for (path, message, help) in [
        ("/dev/null", "serial port /dev/null cannot be opened: it is not a serial port", "ls /dev/serial/by-id"),
        (
            "/dev/ttyNONE",
            "serial port /dev/ttyNONE cannot be opened: No such file or directory (os error 2)",
            "ls /dev/serial/by-id",
        ),
    ] {
        let error = connect(&format!("serial:{path}").parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.help().unwrap().contains(help));
    }
}

#[test]
fn names_that_leave_the_data_directory_are_refused() {
    let dir = TestDir::new();
    let error = PtyBoards::start(&dir.0, &["../one".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "name of a simulated board is \"../one\", which cannot be a folder");
    let error = connect(&Address::Sim("../one".to_owned())).unwrap_err();
    assert_eq!(error.to_string(), "name of a simulated board is \"../one\", which cannot be a folder");
}

#[test]
fn a_simulated_board_lives_under_the_data_directory() {
    let dir = TestDir::new();
    let options = ConnectOptions { data_dir: dir.0.clone(), ..ConnectOptions::default() };
    let address: Address = "sim:desk".parse().unwrap();
    let device = Board::connect(&address, &options).unwrap().info().unwrap().device;
    assert!(sim_dir(&dir.0, "desk").is_dir());
    let mut again = Board::connect(&address, &options).unwrap();
    assert_eq!(again.info().unwrap().device, device);
    assert_eq!(again.address(), &address);
}

#[test]
fn an_interrupt_ends_calls_in_the_same_process_too() {
    let dir = TestDir::new();
    let options = ConnectOptions { data_dir: dir.0.clone(), ..fake::options() };
    let mut board = Board::connect(&Address::Sim("desk".to_owned()), &options).unwrap();
    options.interrupted.store(true, Ordering::SeqCst);
    assert_eq!(board.info(), Err(CallError::Interrupted));
    options.interrupted.store(false, Ordering::SeqCst);
    assert!(board.info().is_ok());
}

/// Options whose ssh is a shell script of ours.
fn with_ssh(dir: &TestDir, script: &str) -> ConnectOptions {
    let path = dir.0.join("ssh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    ConnectOptions { ssh_program: path, ..ConnectOptions::default() }
}

fn ssh_address() -> Address {
    "ssh:pi@board".parse().unwrap()
}

#[test]
fn what_ssh_says_is_shown() {
    let dir = TestDir::new();
    let options = with_ssh(&dir, "echo 'sh: 1: graftd: not found' >&2; exit 127");
    let error = Board::connect(&ssh_address(), &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ssh:pi@board ended before a board said hello: ssh ended with exit status: 127: sh: 1: graftd: not found"
    );
    assert_eq!(error.help().unwrap(), "see that graftd is installed there: ssh pi@board graftd --version");
}

#[test]
fn a_missing_ssh_is_named() {
    let options = ConnectOptions { ssh_program: "/nowhere/ssh".into(), ..ConnectOptions::default() };
    let error = Board::connect(&ssh_address(), &options).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/ssh cannot be started: No such file or directory (os error 2)");
    assert_eq!(error.help().unwrap(), "install an OpenSSH client");
}

#[test]
fn a_board_behind_ssh_says_hello_and_its_process_ends_with_the_connection() {
    let dir = TestDir::new();
    let hello = fake::hello().encode();
    let mut frames = Frames::new(Kind::Hello, 1, &hello).unwrap();
    let octal: String = frames.next_frame().unwrap().iter().map(|byte| format!("\\{byte:03o}")).collect();
    let args = dir.0.join("args");
    let pid = dir.0.join("pid");
    let script =
        format!("echo \"$@\" > {}; echo $$ > {}; printf '{octal}'; exec sleep 100", args.display(), pid.display());
    let board = Board::connect(&ssh_address(), &with_ssh(&dir, &script)).unwrap();
    assert_eq!(board.hello(), &fake::hello());
    let args = fs::read_to_string(args).unwrap();
    assert!(args.ends_with("-- pi@board graftd connect\n"), "{args}");
    drop(board);
    let process = PathBuf::from("/proc").join(fs::read_to_string(pid).unwrap().trim());
    assert!(!process.exists(), "ssh is left behind");
}

#[test]
fn a_silent_ssh_is_no_board() {
    let dir = TestDir::new();
    let options = with_ssh(&dir, "exec sleep 100");
    let timeouts = Timeouts { hello_ssh: Duration::from_millis(1200), ..Timeouts::default() };
    let start = Instant::now();
    let error = Board::connect(&ssh_address(), &ConnectOptions { timeouts, ..options }).unwrap_err();
    assert_eq!(error.to_string(), "no hello from a board at ssh:pi@board within 1 s; seen: nothing");
    assert!(start.elapsed() < Duration::from_secs(5));
}
