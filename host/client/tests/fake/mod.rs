//! A board at the other end of two pipes that does whatever a test tells it to.
#![allow(dead_code)] // Each test program uses its part.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use graft_client::framed::ByteStream;
use graft_client::{Address, Board, ConnectError, ConnectOptions, Timeouts};
use graft_wire::frame::{Decoder, Frames, Kind};
use graft_wire::hello::End;
use graft_wire::limits::MESSAGE_BYTES_MAX;
use graft_wire::message::DeviceInfo;
use graft_wire::{DeviceId, Digest, Hello, RequestEnvelope, Response, ResponseEnvelope, WireError};

/// What a script does next.
#[derive(PartialEq, Eq)]
pub enum Then {
    GoOn,
    Vanish,
}

/// The board's end of the line.
pub struct Line {
    to_host: PipeWriter,
    counter: u16,
    pub payload_bytes_max: usize,
}

impl Line {
    pub fn raw(&mut self, bytes: &[u8]) {
        // The host may have hung up, which is its right.
        let _ = self.to_host.write_all(bytes);
    }

    pub fn frames(&mut self, kind: Kind, message: &[u8]) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        let mut frames = Frames::new(kind, self.counter, message).unwrap().with_payload_max(self.payload_bytes_max);
        let mut line = Vec::new();
        while let Some(bytes) = frames.next_frame() {
            line.extend_from_slice(bytes);
        }
        line
    }

    pub fn send(&mut self, kind: Kind, message: &[u8]) {
        let line = self.frames(kind, message);
        self.raw(&line);
    }

    pub fn hello(&mut self) {
        self.send(Kind::Hello, &hello().encode());
    }

    pub fn answer(&mut self, request_id: u64, body: Result<Response<'_>, WireError>) {
        self.send(Kind::Response, &encode(request_id, body));
    }
}

pub fn encode(request_id: u64, body: Result<Response<'_>, WireError>) -> Vec<u8> {
    postcard::to_allocvec(&ResponseEnvelope { request_id, body }).unwrap()
}

pub fn hello() -> Hello {
    Hello::new(End::Board, [0x0d; 16])
}

pub fn address() -> Address {
    "serial:/dev/ttyTEST".parse().unwrap()
}

/// Starts a board whose `begin` runs at once and whose `script` runs for every message.
pub fn start(
    begin: impl FnOnce(&mut Line) + Send + 'static,
    mut script: impl FnMut(Kind, &[u8], &mut Line) -> Then + Send + 'static,
) -> ByteStream {
    let (from_host, writer): (PipeReader, PipeWriter) = pipe().unwrap();
    let (reader, to_host) = pipe().unwrap();
    thread::spawn(move || {
        let mut from_host = from_host;
        let mut line = Line { to_host, counter: 0, payload_bytes_max: 2048 };
        begin(&mut line);
        let mut decoder = Decoder::new(vec![0; MESSAGE_BYTES_MAX]);
        let mut buffer = [0u8; 4096];
        while let Ok(n_bytes @ 1..) = from_host.read(&mut buffer) {
            let mut rest = &buffer[..n_bytes];
            while let Some(message) = decoder.push(&mut rest) {
                if script(message.kind, message.bytes, &mut line) == Then::Vanish {
                    return;
                }
            }
        }
    });
    ByteStream {
        reader: Box::new(reader),
        writer: Box::new(writer),
        owner: None,
        ends_by_itself: false,
        chunk_bytes: 1000,
    }
}

/// A board that says hello and answers requests by `answer`.
pub fn serve(mut answer: impl FnMut(RequestEnvelope<'_>, &mut Line) -> Then + Send + 'static) -> ByteStream {
    start(
        |_| {},
        move |kind, bytes, line| match kind {
            Kind::Hello => {
                line.hello();
                Then::GoOn
            }
            Kind::Request => answer(RequestEnvelope::decode(bytes).unwrap(), line),
            Kind::Response => panic!("a host sends no responses"),
        },
    )
}

/// Short waits, and a flag of the test's own.
pub fn options() -> ConnectOptions {
    let ms = Duration::from_millis;
    let timeouts =
        Timeouts { hello: ms(300), hello_ssh: ms(5000), retry: ms(100), quick: ms(300), embed: ms(300), work: ms(300) };
    let interrupted = Box::leak(Box::new(AtomicBool::new(false)));
    ConnectOptions { timeouts, interrupted, ..ConnectOptions::default() }
}

pub fn connect(stream: ByteStream) -> Result<Board, ConnectError> {
    Board::over_stream(stream, &address(), &options())
}

pub fn info() -> DeviceInfo {
    let name = |text: &str| text.try_into().unwrap();
    DeviceInfo {
        device: DeviceId([0x0d; 16]),
        name: name("fake"),
        version: name("0"),
        arch: name("x86_64"),
        isa: name("scalar"),
        bundle: None,
        previous: None,
        head: None,
        n_samples: 0,
        n_classes: 0,
        n_other_space: 0,
        n_tombstones: 0,
        n_set_aside: 0,
        set_digest: Digest([0; 32]),
        free_bytes: 1,
    }
}
