//! A connected board: one method per request, with paging, resuming and owned answers.
//!
//! Everything a method returns was acknowledged by the board; what it does not return may or may not have happened,
//! and repeating the call is safe.

mod bundles;
mod heads;
mod samples;
mod sets;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use graft_wire::limits::MESSAGE_BYTES_MAX;
use graft_wire::message::DeviceInfo;
use graft_wire::{
    Batch, ClientId, DecodeError, DeviceId, Hello, Request, RequestEnvelope, Response, ResponseEnvelope, SampleId,
    WireError,
};
use serde::Deserialize;

use crate::address::Address;
use crate::connect::{ConnectError, ConnectOptions, Timeouts, connect, over_stream};
use crate::framed::ByteStream;
use crate::link::{LinkError, Patience, Transport};

/// A board that said hello.
pub struct Board {
    link: Box<dyn Transport>,
    hello: Hello,
    address: Address,
    client: ClientId,
    last_request_id: u64,
    interrupted: &'static AtomicBool,
    timeouts: Timeouts,
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer came.
    #[error(transparent)]
    Link(LinkError),
    /// The board refused.
    #[error(transparent)]
    Refused(WireError),
    /// The answer cannot be read.
    #[error("board's answer cannot be read: {0}")]
    Protocol(DecodeError),
    /// The answer makes no sense.
    #[error("board's answer makes no sense: {0}")]
    Unexpected(&'static str),
    /// The request is longer than the board takes.
    #[error("request of {found} bytes is over the board's limit of {limit}")]
    TooLong {
        /// Its length.
        found: usize,
        /// The board's limit.
        limit: usize,
    },
    /// The user interrupted between two requests, or while one was under way.
    #[error("interrupted")]
    Interrupted,
}

impl CallError {
    /// One thing to try.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            CallError::Link(error) => return error.help(),
            CallError::Protocol(_) | CallError::Unexpected(_) | CallError::Refused(WireError::Malformed) => {
                "bring graft and graftd to the same version"
            }
            CallError::Refused(WireError::NoBundle) => "flash a bundle first: graft flash BUNDLE -d DEVICE",
            CallError::Refused(WireError::NoHead) => "train one first: graft train -d DEVICE",
            CallError::Refused(WireError::DiskFull) => {
                "make room: graft samples rm -d DEVICE, which works on a full disk"
            }
            CallError::Refused(WireError::UnknownUpload | WireError::HashMismatch { .. }) => {
                "repeat the upload: graft flash BUNDLE -d DEVICE"
            }
            _ => return None,
        };
        Some(help.to_owned())
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, hello, client, last_request_id, .. } = self;
        write!(f, "Board({address}, {hello:?}, {client:?}, request {last_request_id})")
    }
}

impl Board {
    /// Opens the link and waits for the board's hello.
    ///
    /// # Errors
    /// [`ConnectError`], which says what was seen instead of a board.
    pub fn connect(address: &Address, options: &ConnectOptions) -> Result<Self, ConnectError> {
        connect(address, options)
    }

    /// The same over a stream that is open already; `address` serves for messages.
    ///
    /// # Errors
    /// [`ConnectError`], which says what was seen instead of a board.
    pub fn over_stream(stream: ByteStream, address: &Address, options: &ConnectOptions) -> Result<Self, ConnectError> {
        over_stream(stream, address, options.timeouts.hello, options)
    }

    pub(crate) fn new(
        link: Box<dyn Transport>,
        hello: Hello,
        address: Address,
        client: ClientId,
        options: &ConnectOptions,
    ) -> Self {
        let ConnectOptions { interrupted, timeouts, .. } = *options;
        Self { link, hello, address, client, last_request_id: 0, interrupted, timeouts }
    }

    /// How it was reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it said about itself: versions and limits.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Its random id.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.hello.id)
    }

    /// What it is and holds.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn info(&mut self) -> Result<DeviceInfo, CallError> {
        self.call(Request::DeviceInfo, |response| match response {
            Response::DeviceInfo(info) => Ok(info),
            _ => Err(other_kind()),
        })
    }

    /// One request, answered.
    fn call<T>(
        &mut self,
        body: Request<'_>,
        read: impl FnOnce(Response<'_>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        if self.interrupted.load(Ordering::SeqCst) {
            return Err(CallError::Interrupted);
        }
        let patience = self.patience(&body);
        self.last_request_id += 1;
        let request_id = self.last_request_id;
        let envelope = RequestEnvelope { client: self.client, request_id, body };
        let limit = MESSAGE_BYTES_MAX.min(self.hello.message_bytes_max as usize);
        // Postcard fails only for types that it cannot hold; ours it can.
        let message = postcard::to_allocvec(&envelope).map_err(|_| CallError::Protocol(DecodeError::Malformed))?;
        if message.len() > limit {
            return Err(CallError::TooLong { found: message.len(), limit });
        }
        let response = self.link.exchange(request_id, &message, patience).map_err(|error| self.link_error(error))?;
        let response = ResponseEnvelope::decode(&response).map_err(CallError::Protocol)?;
        read(response.body.map_err(CallError::Refused)?)
    }

    fn link_error(&self, error: LinkError) -> CallError {
        // Ctrl-C reaches an ssh child as well; that its link ends then is no fault of the board.
        if self.interrupted.load(Ordering::SeqCst) || error == LinkError::Interrupted {
            return CallError::Interrupted;
        }
        CallError::Link(error)
    }

    fn patience(&self, request: &Request<'_>) -> Patience {
        let Timeouts { retry, quick, embed, work, .. } = self.timeouts;
        let give_up_after = match request {
            Request::BundleInstall { .. }
            | Request::BundleActivate { .. }
            | Request::BundleRollback
            | Request::Train { .. }
            | Request::TrainChecked { .. }
            | Request::Review
            | Request::Bench { .. }
            | Request::PushRecords { .. }
            | Request::PushHead { .. }
            | Request::Evaluate { .. } => work,
            Request::Collect { .. } | Request::Predict { .. } => embed,
            _ => quick,
        };
        // A repeated read is run again, so a slow one must not pile up behind itself; a repeated change costs the
        // board one look into its log.
        let slow_read = matches!(
            request,
            Request::Predict { .. } | Request::Evaluate { .. } | Request::Review | Request::Bench { .. }
        );
        let retry_after = if slow_read { give_up_after / 2 } else { retry };
        Patience { retry_after: retry_after.min(give_up_after), give_up_after }
    }

    /// Reads pages until an empty one. Ids must ascend, so that a confused board cannot keep us for ever.
    fn pages<T>(
        &mut self,
        request: impl Fn(Option<SampleId>) -> Request<'static>,
        read: impl Fn(Response<'_>) -> Result<Vec<T>, CallError>,
        id: impl Fn(&T) -> SampleId,
    ) -> Result<Vec<T>, CallError> {
        let mut items: Vec<T> = Vec::new();
        let mut after = None;
        loop {
            let page = self.call(request(after), &read)?;
            if page.is_empty() {
                return Ok(items);
            }
            for item in page {
                let id = id(&item);
                if after.is_some_and(|after| id <= after) {
                    return Err(CallError::Unexpected("ids do not ascend"));
                }
                after = Some(id);
                items.push(item);
            }
        }
    }

    /// Reads a longer byte string stretch by stretch, at most `limit` bytes.
    fn stretches(&mut self, request: impl Fn(u32) -> Request<'static>, limit: u32) -> Result<Vec<u8>, CallError> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut expected = None;
        loop {
            let offset = bytes.len() as u32; // At most `limit`, checked below.
            let total = self.call(request(offset), |response| match response {
                Response::Bytes { total, bytes: more } => {
                    bytes.extend_from_slice(more);
                    Ok(total)
                }
                _ => Err(other_kind()),
            })?;
            if *expected.get_or_insert(total) != total {
                return Err(CallError::Unexpected("what was read changed meanwhile; repeat the command"));
            }
            if total > limit {
                return Err(CallError::Unexpected("it announces more bytes than this version holds"));
            }
            match bytes.len() {
                n if n == total as usize => return Ok(bytes),
                n if n < total as usize && n > offset as usize => {}
                _ => return Err(CallError::Unexpected("its stretch of bytes is empty or too long")),
            }
        }
    }
}

/// The answer is of another kind than the request asks for.
fn other_kind() -> CallError {
    CallError::Unexpected("it answers another request")
}

/// The items of a batch.
fn items<'a, T: Deserialize<'a>>(batch: &Batch<'a, T>) -> Result<Vec<T>, CallError> {
    batch.iter().collect::<Result<_, _>>().map_err(CallError::Protocol)
}
