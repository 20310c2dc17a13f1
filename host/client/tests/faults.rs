//! What a user sees when the line or the board misbehaves, and that a retry never runs anything twice.

mod fake;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Line, Then, address, connect, encode, hello, info, options, serve, start};
use graft_client::{Board, CallError, ConnectError, LinkError, Seen, Timeouts};
use graft_wire::frame::Kind;
use graft_wire::{DecodeError, Hello, Request, Response, SampleId, WireError};
use proptest::prelude::*;

/// What connecting to a port gives that says `text` and no hello.
fn refused(text: &'static [u8]) -> ConnectError {
    connect(start(move |line| line.raw(text), |_, _, _| Then::GoOn)).unwrap_err()
}

fn check(error: &ConnectError, message: &str, help: &str) {
    assert_eq!(error.to_string(), message);
    let found = error.help().unwrap_or_default();
    assert!(found.contains(help), "help is {found:?}");
}

#[test]
fn no_hello_says_what_was_seen_and_one_thing_to_try() {
    let message = |seen: &str| format!("no hello from a board at serial:/dev/ttyTEST within 0 s; seen: {seen}");
    check(&refused(b""), &message("nothing"), "systemctl status graftd");
    check(
        &refused(b"\r\nRaspbian GNU/Linux 12 raspberrypi ttyS0\r\n\r\nraspberrypi login: "),
        &message("a login prompt"),
        "sudo systemctl disable --now serial-getty@",
    );
    check(&refused(b"pi@raspberrypi:~ $ "), &message("a shell prompt"), "a console runs on this port");
    check(&refused(b"[    0.000000] Booting Linux on physical CPU 0x0\r\n"), &message("boot text"), "is starting");
    check(&refused(b"T=21.5 H=40\r\nT=21.6"), &message("\"T=21.5 H=40\\r\\nT=21.6\""), "another program");
    check(&refused(&[0x81; 50]), &message("50 bytes that are no text"), "serial:/dev/ttyTEST@9600");
    let echo = start(
        |_| {},
        |kind, bytes, line| {
            line.send(kind, bytes);
            Then::GoOn
        },
    );
    check(&connect(echo).unwrap_err(), &message("an echo of what was sent"), "RX and TX");
}

#[test]
fn garbage_before_the_hello_is_skipped() {
    let stream = start(
        |line| line.raw(b"U-Boot 2024.01\r\n\0\x07garbage\0"),
        |kind, _, line| {
            if kind == Kind::Hello {
                line.raw(&[b'x'; 5000]);
                line.hello();
            }
            Then::GoOn
        },
    );
    assert_eq!(connect(stream).unwrap().hello(), &hello());
}

#[test]
fn a_lost_hello_is_said_again() {
    let mut n_hellos = 0;
    let stream = start(
        |_| {},
        move |_, _, line| {
            n_hellos += 1;
            if n_hellos == 2 {
                line.hello();
            }
            Then::GoOn
        },
    );
    let options = options();
    let timeouts = Timeouts { hello: Duration::from_secs(3), ..options.timeouts };
    let options = graft_client::ConnectOptions { timeouts, ..options };
    assert!(Board::over_stream(stream, &address(), &options).is_ok());
}

#[test]
fn versions_without_overlap_are_refused() {
    let board = |version_oldest, version| {
        start(
            |_| {},
            move |_, _, line: &mut Line| {
                line.send(Kind::Hello, &Hello { version_oldest, version, ..hello() }.encode());
                Then::GoOn
            },
        )
    };
    check(
        &connect(board(2, 3)).unwrap_err(),
        "board at serial:/dev/ttyTEST speaks message versions 2 to 3; this graft speaks 1 to 1",
        "update graft on this computer",
    );
    check(
        &connect(board(0, 0)).unwrap_err(),
        "board at serial:/dev/ttyTEST speaks message versions 0 to 0; this graft speaks 1 to 1",
        "update graftd on the board",
    );
    assert!(connect(board(0, 9)).is_ok());
}

#[test]
fn a_hello_of_another_layout_is_refused() {
    let stream = start(
        |_| {},
        |_, _, line| {
            line.send(Kind::Hello, b"hi");
            Then::GoOn
        },
    );
    check(
        &connect(stream).unwrap_err(),
        "hello of the board at serial:/dev/ttyTEST cannot be read; it is no graftd, or far newer than this graft",
        "same version",
    );
}

#[test]
fn a_link_that_ends_before_the_hello_is_named() {
    let stream = start(|_| {}, |_, _, _| Then::Vanish);
    check(
        &connect(stream).unwrap_err(),
        "serial:/dev/ttyTEST ended before a board said hello: the other side closed the connection",
        "cable",
    );
}

/// A board that runs removals, remembers outcomes by request id as graftd does, and counts what it ran.
#[derive(Default)]
struct Logged {
    outcomes: HashMap<u64, Vec<u8>>,
    n_run: u32,
}

impl Logged {
    fn outcome(&mut self, request_id: u64) -> Vec<u8> {
        let Self { outcomes, n_run } = self;
        let run = || {
            *n_run += 1;
            encode(request_id, Ok(Response::Removed { n_removed: *n_run, n_tombstones: 0 }))
        };
        outcomes.entry(request_id).or_insert_with(run).clone()
    }
}

/// The outcome of one removal on a board whose n-th message to or from it meets `fault`.
fn remove_through(mut fault: impl FnMut(u32, Vec<u8>, &mut Line) + Send + 'static) -> (Board, Arc<Mutex<Logged>>) {
    let logged = Arc::new(Mutex::new(Logged::default()));
    let on_board = Arc::clone(&logged);
    let mut n_requests = 0;
    let stream = serve(move |request, line| {
        n_requests += 1;
        let outcome = on_board.lock().unwrap().outcome(request.request_id);
        let frames = line.frames(Kind::Response, &outcome);
        fault(n_requests, frames, line);
        Then::GoOn
    });
    (connect(stream).unwrap(), logged)
}

#[test]
fn a_lost_answer_is_fetched_again_without_running_twice() {
    let (mut board, logged) = remove_through(|n, frames, line| {
        if n > 1 {
            line.raw(&frames);
        }
    });
    assert_eq!(board.remove(&[SampleId([1; 16])]).unwrap().n_removed, 1);
    assert_eq!(logged.lock().unwrap().n_run, 1);
}

#[test]
fn a_damaged_answer_is_fetched_again() {
    let (mut board, logged) = remove_through(|n, mut frames, line| {
        if n == 1 {
            frames[5] ^= 0x10;
        }
        line.raw(&frames);
    });
    assert_eq!(board.remove(&[SampleId([1; 16])]).unwrap().n_removed, 1);
    assert_eq!(logged.lock().unwrap().n_run, 1);
}

#[test]
fn repeated_and_late_answers_are_dropped() {
    let (mut board, logged) = remove_through(|n, frames, line| {
        if n == 1 {
            line.answer(999, Err(WireError::Storage));
        }
        line.raw(&frames);
        line.raw(&frames);
        line.hello();
    });
    for n in 1..5 {
        assert_eq!(board.remove(&[SampleId([n as u8; 16])]).unwrap().n_removed, n);
    }
    assert_eq!(logged.lock().unwrap().n_run, 4);
}

#[test]
fn a_silent_board_times_out_and_says_how_often_it_was_asked() {
    let mut board = connect(serve(|_, _| Then::GoOn)).unwrap();
    let error = board.info().unwrap_err();
    assert_eq!(error.to_string(), "board did not answer within 0.3 s; 3 tries, 0 damaged frames seen");
    assert!(error.help().unwrap().contains("see whether graftd still runs"));
}

#[test]
fn a_noisy_line_is_told_from_a_silent_one() {
    let mut board = connect(serve(|_, line| {
        line.raw(b"\0noise\0");
        Then::GoOn
    }))
    .unwrap();
    let error = board.info().unwrap_err();
    assert_eq!(error.to_string(), "board did not answer within 0.3 s; 3 tries, 3 damaged frames seen");
    assert!(error.help().unwrap().contains("lower baud rate"));
}

#[test]
fn a_board_that_vanishes_keeps_what_it_acknowledged() {
    let stream = serve(|request, line| {
        match request.body {
            Request::UploadBegin { .. } => line.answer(request.request_id, Ok(Response::UploadAt { offset: 0 })),
            Request::UploadChunk { offset: 2000.., .. } => return Then::Vanish,
            Request::UploadChunk { offset, bytes, .. } => {
                let offset = offset + bytes.len() as u64;
                line.answer(request.request_id, Ok(Response::UploadAt { offset }));
            }
            _ => panic!("uploads only"),
        }
        Then::GoOn
    });
    let mut board = connect(stream).unwrap();
    let mut done = 0;
    let error = board.upload(&[7; 10_000], &mut |now, _| done = now).unwrap_err();
    assert_eq!(done, 2000);
    assert_eq!(error.to_string(), "board went away: the other side closed the connection");
    assert!(error.help().unwrap().contains("what was acknowledged is kept"));
    assert!(matches!(board.info(), Err(CallError::Link(LinkError::Gone { .. }))), "and it stays away");
}

#[test]
fn an_interrupt_ends_between_two_chunks() {
    let stream = serve(|request, line| {
        let offset = match request.body {
            Request::UploadChunk { offset, bytes, .. } => offset + bytes.len() as u64,
            _ => 0,
        };
        line.answer(request.request_id, Ok(Response::UploadAt { offset }));
        Then::GoOn
    });
    let options = options();
    let mut board = Board::over_stream(stream, &address(), &options).unwrap();
    let mut done = 0;
    let interrupted = options.interrupted;
    let mut progress = |now, _| {
        done = now;
        interrupted.store(now == 3000, Ordering::SeqCst);
    };
    assert_eq!(board.upload(&[7; 10_000], &mut progress), Err(CallError::Interrupted));
    assert_eq!(done, 3000);
    interrupted.store(false, Ordering::SeqCst);
    assert!(board.upload(&[7; 100], &mut |_, _| ()).is_ok(), "the board is left usable");
}

#[test]
fn an_interrupt_still_takes_the_answer_under_way() {
    let options = options();
    let interrupted = options.interrupted;
    let stream = serve(move |request, line| {
        interrupted.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(150));
        line.answer(request.request_id, Ok(Response::DeviceInfo(info())));
        Then::GoOn
    });
    let mut board = Board::over_stream(stream, &address(), &options).unwrap();
    assert_eq!(board.info(), Ok(info()));
    assert_eq!(board.info(), Err(CallError::Interrupted));
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let answers = |body: Result<Response<'static>, WireError>| {
        connect(serve(move |request, line| {
            line.answer(request.request_id, body.clone());
            Then::GoOn
        }))
        .unwrap()
    };
    let mut board = answers(Err(WireError::NoBundle));
    assert_eq!(board.info().unwrap_err().to_string(), "board has no active bundle");
    let mut board = answers(Ok(Response::UploadAt { offset: 0 }));
    let error = board.info().unwrap_err();
    assert_eq!(error.to_string(), "board's answer makes no sense: it answers another request");
    assert!(error.help().unwrap().contains("same version"));
    let mut board = connect(serve(|request, line| {
        line.send(Kind::Response, &[request.request_id as u8, 0, 200]);
        Then::GoOn
    }))
    .unwrap();
    let error = board.info().unwrap_err();
    assert_eq!(error, CallError::Protocol(DecodeError::Malformed));
    assert_eq!(error.to_string(), "board's answer cannot be read: message is malformed or from a newer version");
}

#[test]
fn what_the_board_could_not_read_is_its_refusal() {
    let mut board = connect(serve(|_, line| {
        line.answer(0, Err(WireError::Malformed));
        Then::GoOn
    }))
    .unwrap();
    assert_eq!(board.info(), Err(CallError::Refused(WireError::Malformed)));
}

#[test]
fn limits_of_the_board_are_kept() {
    let mut n_longest = 0;
    let stream = start(
        |_| {},
        move |kind, bytes, line| {
            if kind == Kind::Hello {
                let small = Hello { message_bytes_max: 500, frame_payload_bytes_max: 64, ..hello() };
                line.send(Kind::Hello, &small.encode());
            } else {
                n_longest = bytes.len().max(n_longest);
                line.answer(u64::from(bytes[8]), Ok(Response::UploadAt { offset: n_longest as u64 }));
            }
            Then::GoOn
        },
    );
    let mut board = connect(stream).unwrap();
    let error = board.push_head(&[0; 600]).unwrap_err();
    assert_eq!(error, CallError::TooLong { found: 612, limit: 500 });
    assert_eq!(error.to_string(), "request of 612 bytes is over the board's limit of 500");
}

#[test]
fn seen_is_part_of_the_error() {
    assert!(matches!(refused(b"login: "), ConnectError::NoHello { seen: Seen::LoginPrompt, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the line loses, repeats or damages: each removal runs once, and its own outcome is returned.
    #[test]
    fn every_call_runs_once_on_a_bad_line(faults in prop::collection::vec(0..5u8, 1..12)) {
        let (mut board, logged) = remove_through(move |n, mut frames, line| {
            match faults[n as usize % faults.len()] {
                0 => {}
                1 => line.raw(&[&frames[..], &frames[..]].concat()),
                2 => {
                    let at = n as usize % frames.len();
                    frames[at] ^= 1 << (n % 8);
                    line.raw(&frames);
                }
                3 => line.raw(&frames[..frames.len() / 2]),
                _ => line.raw(&frames),
            }
        });
        // A line that is never good ends in a timeout, which is no answer, but what ran ran once.
        for n in 1..=4u32 {
            match board.remove(&[SampleId([n as u8; 16])]) {
                Ok(removed) => prop_assert_eq!(removed.n_removed, n),
                Err(CallError::Link(LinkError::Timeout { .. })) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
            prop_assert_eq!(logged.lock().unwrap().n_run, n);
        }
    }
}
