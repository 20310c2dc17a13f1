//! A link over a byte stream: frames out, frames in, the same request again after silence.
//!
//! A thread reads and hands over what came, because not every stream can be waited on with a time limit. Answers are
//! matched by request id: late and repeated ones are dropped, and a board's answer to a repeated request is the one
//! from its log.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use graft_wire::Hello;
use graft_wire::frame::{Decoder, Frames, Kind, Message};
use graft_wire::hello::End;
use graft_wire::limits::{FRAME_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX};

use crate::link::{LinkError, Patience, Transport};
use crate::seen::{Recent, Seen};

/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// Reads that may wait to be handled: 1 MiB, more than a board sends unasked.
const READS_MAX: usize = 256;
/// How often the interrupt flag is looked at while waiting.
const TICK: Duration = Duration::from_millis(50);
/// After an interrupt: time left for the answer under way, so that what is reported is what the board did.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// Time between two hellos: the first may have met a console, or a board that was still starting.
const HELLO_AGAIN: Duration = Duration::from_secs(1);

/// Both directions of a byte stream and what must live as long as they do.
pub struct ByteStream {
    /// Blocks at most about 100 ms (`TimedOut` or `WouldBlock`) if `ends_by_itself`; 0 bytes at the end.
    pub reader: Box<dyn Read + Send>,
    /// Gives `TimedOut` where the other side takes nothing.
    pub writer: Box<dyn Write + Send>,
    /// The process at the other end, if we started it.
    pub owner: Option<Box<dyn Owner>>,
    /// True if `reader` returns regularly, so that closing can wait for it: a port opened again must not lose bytes
    /// to a reader of before.
    pub ends_by_itself: bool,
    /// See [`Transport::chunk_bytes`].
    pub chunk_bytes: usize,
}

/// What stands behind a stream and can say why it ended.
pub trait Owner {
    /// Its last words, such as a process's standard error.
    fn last_words(&mut self) -> Option<String>;
}

/// Why a board did not say hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GreetError {
    /// No hello in time.
    Silent(Seen),
    /// A hello that cannot be read.
    Unreadable,
    /// The stream ended.
    Gone {
        /// What ended it.
        reason: String,
    },
    /// The user interrupted.
    Interrupted,
}

enum Event {
    Bytes(Vec<u8>),
    Closed(String),
}

/// A framed link. Dropping it ends its stream.
pub struct FramedLink {
    writer: Box<dyn Write + Send>,
    events: Receiver<Event>,
    decoder: Decoder<Vec<u8>>,
    /// Bytes that came after the last message taken.
    pending: Vec<u8>,
    recent: Recent,
    echoed: bool,
    counter: u16,
    payload_bytes_max: usize,
    chunk_bytes: usize,
    interrupted: &'static AtomicBool,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    owner: Option<Box<dyn Owner>>,
}

impl fmt::Debug for FramedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramedLink").field("stats", &self.decoder.stats()).finish_non_exhaustive()
    }
}

impl FramedLink {
    /// A link over `stream`; once `interrupted` is set, it stops waiting.
    pub fn new(stream: ByteStream, interrupted: &'static AtomicBool) -> Self {
        let ByteStream { mut reader, writer, owner, ends_by_itself, chunk_bytes } = stream;
        let (sender, events) = sync_channel(READS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let thread_stop = Arc::clone(&stop);
        let thread = thread::spawn(move || read_all(&mut *reader, &sender, &thread_stop));
        Self {
            writer,
            events,
            // Zeroed pages cost nothing until a long message needs them.
            decoder: Decoder::new(vec![0; MESSAGE_BYTES_MAX]),
            pending: Vec::new(),
            recent: Recent::default(),
            echoed: false,
            counter: 0,
            payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX,
            chunk_bytes,
            interrupted,
            stop,
            thread: ends_by_itself.then_some(thread),
            owner,
        }
    }

    /// Says hello and waits for the board's, `wait` in all.
    ///
    /// # Errors
    /// [`GreetError`] with what was seen instead.
    pub fn greet(&mut self, hello: &Hello, wait: Duration) -> Result<Hello, GreetError> {
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.send(Kind::Hello, &hello.encode()).or_else(|e| self.greet_error(e))?;
            let board = |message: &Message<'_>| match (message.kind, Hello::decode(message.bytes)) {
                (Kind::Hello, Ok(Hello { end: End::Host, .. })) => None, // Our own, echoed.
                (Kind::Hello, hello) => Some(hello),
                _ => None,
            };
            match self.receive(board, left.min(HELLO_AGAIN), Duration::ZERO) {
                Ok(Some(Ok(hello))) => {
                    self.payload_bytes_max = hello.frame_payload_bytes_max as usize;
                    return Ok(hello);
                }
                Ok(Some(Err(_))) => return Err(GreetError::Unreadable),
                Ok(None) => {}
                Err(e) => self.greet_error(e)?,
            }
        }
        Err(GreetError::Silent(self.seen()))
    }

    /// A silence while sending is no end: a port may take nothing while a board starts.
    fn greet_error(&self, error: LinkError) -> Result<(), GreetError> {
        match error {
            LinkError::Gone { reason } => Err(GreetError::Gone { reason }),
            LinkError::Interrupted => Err(GreetError::Interrupted),
            LinkError::Timeout { .. } | LinkError::Stalled | LinkError::TooLong { .. } => Ok(()),
        }
    }

    fn seen(&self) -> Seen {
        if self.echoed { Seen::Echo } else { self.recent.diagnose() }
    }

    /// Sends one message. An interrupt between two frames leaves half a message, which the board drops.
    fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), LinkError> {
        self.counter = self.counter.wrapping_add(1);
        let too_long = |_| LinkError::TooLong { found: message.len(), limit: MESSAGE_BYTES_MAX };
        let mut frames =
            Frames::new(kind, self.counter, message).map_err(too_long)?.with_payload_max(self.payload_bytes_max);
        while let Some(bytes) = frames.next_frame() {
            if self.interrupted.load(Ordering::SeqCst) {
                return Err(LinkError::Interrupted);
            }
            if let Err(error) = self.writer.write_all(bytes) {
                return Err(self.write_error(&error));
            }
        }
        self.writer.flush().map_err(|error| self.write_error(&error))
    }

    fn write_error(&mut self, error: &io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => LinkError::Stalled,
            _ => self.gone(error.to_string()),
        }
    }

    fn gone(&mut self, reason: String) -> LinkError {
        let words = self.owner.as_mut().and_then(|owner| owner.last_words());
        LinkError::Gone { reason: words.unwrap_or(reason) }
    }

    /// Waits for a message that `wanted` takes; `None` after `silence` without a frame that belongs to one. Once
    /// interrupted, it waits for `grace` more.
    fn receive<T>(
        &mut self,
        mut wanted: impl FnMut(&Message<'_>) -> Option<T>,
        silence: Duration,
        grace: Duration,
    ) -> Result<Option<T>, LinkError> {
        let mut end = Instant::now() + silence;
        let mut interrupt_seen = false;
        loop {
            let n_frames = self.decoder.stats().n_frames;
            let mut n_stale = 0u32;
            let mut rest = &self.pending[..];
            let mut taken = None;
            while let Some(message) = self.decoder.push(&mut rest) {
                self.echoed |= message.kind == Kind::Request;
                self.echoed |= Hello::decode(message.bytes).is_ok_and(|hello| hello.end == End::Host);
                taken = wanted(&message);
                if taken.is_some() {
                    break;
                }
                n_stale += 1;
            }
            self.pending = rest.to_vec();
            if taken.is_some() {
                return Ok(taken);
            }
            // A long answer on a slow line is no silence; answers to something else are.
            if n_stale == 0 && self.decoder.stats().n_frames != n_frames && !interrupt_seen {
                end = Instant::now() + silence;
            }
            if !interrupt_seen && self.interrupted.load(Ordering::SeqCst) {
                interrupt_seen = true;
                end = Instant::now() + grace;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if interrupt_seen { Err(LinkError::Interrupted) } else { Ok(None) };
            }
            match self.events.recv_timeout(left.min(TICK)) {
                Ok(Event::Bytes(bytes)) => {
                    self.recent.push(&bytes);
                    self.pending = bytes;
                }
                Ok(Event::Closed(reason)) => return Err(self.gone(reason)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone("its stream ended".to_owned())),
            }
        }
    }
}

impl Transport for FramedLink {
    fn exchange(&mut self, request_id: u64, message: &[u8], patience: Patience) -> Result<Vec<u8>, LinkError> {
        // Sending a long request over a slow line takes its time; silence counts from its end.
        let mut waited = Duration::ZERO;
        let mut n_tries = 0u32;
        loop {
            self.send(Kind::Request, message)?;
            n_tries = n_tries.saturating_add(1);
            let answer = |response: &Message<'_>| is_answer(response, request_id).then(|| response.bytes.to_vec());
            if let Some(response) = self.receive(answer, patience.retry_after, INTERRUPT_GRACE)? {
                return Ok(response);
            }
            waited += patience.retry_after;
            if waited >= patience.give_up_after {
                let stats = self.decoder.stats();
                let n_damaged = stats.n_bad.saturating_add(stats.n_oversized);
                return Err(LinkError::Timeout { waited, n_tries, n_damaged });
            }
        }
    }

    fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }
}

impl Drop for FramedLink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.owner = None;
        if let Some(thread) = self.thread.take() {
            // The thread may wait to hand over bytes that nobody wants any more.
            while !thread.is_finished() {
                let _ = self.events.recv_timeout(Duration::from_millis(1));
            }
        }
    }
}

/// True for the response to `request_id`. Id 0 is a board's answer to what it could not read, which is ours: it reads
/// in order, and whole messages only.
fn is_answer(message: &Message<'_>, request_id: u64) -> bool {
    let id = postcard::take_from_bytes::<u64>(message.bytes).map(|(id, _)| id);
    message.kind == Kind::Response && id.is_ok_and(|id| id == request_id || id == 0)
}

fn read_all(reader: &mut dyn Read, events: &SyncSender<Event>, stop: &AtomicBool) {
    let mut buffer = [0u8; READ_BYTES];
    while !stop.load(Ordering::SeqCst) {
        let event = match reader.read(&mut buffer) {
            Ok(0) => Event::Closed("the other side closed the connection".to_owned()),
            Ok(n_bytes) => Event::Bytes(buffer.get(..n_bytes).unwrap_or_default().to_vec()),
            Err(e) if is_pause(e.kind()) => continue,
            Err(e) => Event::Closed(e.to_string()),
        };
        let closed = matches!(event, Event::Closed(_));
        if events.send(event).is_err() || closed {
            return;
        }
    }
}

/// True for errors that mean that nothing came just now.
pub(crate) fn is_pause(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
