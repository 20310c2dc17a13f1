//! The daemon behind a byte stream, and the program itself.

mod host;

use std::io::Cursor;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use graft_wire::frame::{Decoder, Frames, Kind};
use graft_wire::hello::End;
use graft_wire::{Hello, Request, ResponseEnvelope};
use host::{Board, first};

fn frames(kind: Kind, counter: u16, message: &[u8]) -> Vec<u8> {
    let mut frames = Frames::new(kind, counter, message).unwrap();
    let mut line = Vec::new();
    while let Some(bytes) = frames.next_frame() {
        line.extend_from_slice(bytes);
    }
    line
}

fn messages(mut line: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut decoder = Decoder::new(vec![0; 1 << 20]);
    let mut found = Vec::new();
    while let Some(message) = decoder.push(&mut line) {
        found.push((message.kind, message.bytes.to_vec()));
    }
    found
}

#[test]
fn hellos_and_requests_are_answered_and_noise_is_passed_over() {
    let mut board = Board::with(&first());
    let mut line = b"U-Boot 2024.01\r\nlogin: ".to_vec();
    line.extend(frames(Kind::Hello, 0, &Hello::new(End::Host, [3; 16]).encode()));
    line.extend(b"\0noise\0");
    let request = board.encode(Request::DeviceInfo);
    line.extend(frames(Kind::Request, 1, &request));
    line.extend(frames(Kind::Request, 2, b"nonsense"));
    let mut out = Vec::new();
    let daemon = board.daemon.as_mut().unwrap();
    let hello = daemon.hello();
    graftd::serve(daemon, Cursor::new(line), &mut out, &AtomicBool::new(false)).unwrap();
    let answers = messages(&out);
    let kinds: Vec<_> = answers.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Hello, Kind::Response, Kind::Response]);
    assert_eq!(Hello::decode(&answers[0].1), Ok(hello));
    let response = ResponseEnvelope::decode(&answers[1].1).unwrap();
    assert_eq!(response.request_id, board.request_id);
    assert!(response.body.is_ok());
}

#[test]
fn a_set_stop_ends_the_service() {
    let mut board = Board::new();
    let daemon = board.daemon.as_mut().unwrap();
    let mut out = Vec::new();
    let line = frames(Kind::Hello, 0, &Hello::new(End::Host, [3; 16]).encode());
    graftd::serve(daemon, Cursor::new(line), &mut out, &AtomicBool::new(true)).unwrap();
    assert_eq!(out, Vec::<u8>::new());
}

fn graftd(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_graftd")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_program_explains_itself() {
    assert_eq!(graftd(&["--version"]), (Some(0), format!("graftd {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    assert!(graftd(&["--help"]).1.contains("Exit codes: 0 ok, 1 failed, 2 wrong usage."));
    let (code, _, error) = graftd(&["fly"]);
    let expected = "error: unknown command \"fly\"; allowed: connect, serve, run, golden, bench\nhelp: graftd --help\n";
    assert_eq!((code, error.as_str()), (Some(2), expected));
    let (code, _, error) = graftd(&["serve", "--port"]);
    assert_eq!((code, error.as_str()), (Some(2), "error: \"--port\" needs a value\nhelp: graftd --help\n"));
    let (code, _, error) = graftd(&["run", "/no/such.graft", "x"]);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: cannot read /no/such.graft: "), "{error}");
}

#[test]
fn connect_answers_over_standard_streams() {
    let mut board = Board::new();
    board.daemon = None;
    let mut child = Command::new(env!("CARGO_BIN_EXE_graftd"))
        .args(["connect", "--state"])
        .arg(board.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &frames(Kind::Hello, 0, &Hello::new(End::Host, [3; 16]).encode())).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers = messages(&output.stdout);
    assert_eq!(Hello::decode(&answers[0].1).unwrap().end, End::Board);
}

#[cfg(unix)]
#[test]
fn serve_answers_one_host_after_the_other_on_a_pseudo_terminal() {
    use std::io::{BufRead, BufReader, Read, Write};

    let mut board = Board::new();
    board.daemon = None;
    let mut child = Command::new(env!("CARGO_BIN_EXE_graftd"))
        .args(["serve", "--pty", "--state"])
        .arg(board.state())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut path = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut path).unwrap();
    for _ in 0..2 {
        let mut host = std::fs::OpenOptions::new().read(true).write(true).open(path.trim()).unwrap();
        host.write_all(&frames(Kind::Hello, 0, &Hello::new(End::Host, [3; 16]).encode())).unwrap();
        let (mut line, mut bytes) = (Vec::new(), [0; 512]);
        while messages(&line).is_empty() {
            let n_bytes = host.read(&mut bytes).unwrap();
            line.extend_from_slice(&bytes[..n_bytes]);
        }
        assert_eq!(Hello::decode(&messages(&line)[0].1).unwrap().end, End::Board);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn golden_prints_hashes_of_tensors_embeddings_and_heads() {
    let board = Board::new();
    let bundle = board.dir.join("tiny.graft");
    std::fs::write(&bundle, first()).unwrap();
    for (class, axis) in [("a", 0), ("b", 1)] {
        let dir = board.dir.join("inputs").join(class);
        std::fs::create_dir_all(&dir).unwrap();
        for n in 0..2u8 {
            std::fs::write(dir.join(format!("{n}.npy")), npy(&host::tensor(axis, n))).unwrap();
        }
    }
    std::fs::write(board.dir.join("inputs/a/.hidden"), b"x").unwrap();
    let inputs = board.dir.join("inputs");
    let (code, out, error) = graftd(&["golden", bundle.to_str().unwrap(), inputs.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 13);
    let tensor = graft_wire::Digest::of(&host::tensor(0, 0));
    assert!(lines[0].starts_with(&format!("a/0.npy {tensor} ")), "{out}");
    let heads: Vec<_> = lines[5..].iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    let old = ["head ncm", "head ridge", "head lda", "head logistic", "head knn", "head rp"];
    assert_eq!(heads, [&old[..], &["head ncm-euclidean", "head ncm-trimmed"]].concat(), "{out}");
    assert_eq!(graftd(&["golden", bundle.to_str().unwrap(), inputs.to_str().unwrap()]).1, out);
    let file = inputs.join("a/0.npy");
    let (_, run, _) = graftd(&["run", bundle.to_str().unwrap(), file.to_str().unwrap()]);
    assert_eq!(run.trim_end().strip_prefix("0.npy "), lines[0].strip_prefix("a/0.npy "));
}

/// A NumPy file of `[8, 1, 1]` u8.
fn npy(values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 1, 1), }}", values.len());
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}
