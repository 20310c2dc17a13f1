//! What every link does: carry one request to the board and its answer back.

use std::time::Duration;

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence after which the same request is sent again; its id makes that safe.
    pub retry_after: Duration,
    /// Silence after which the board counts as gone; at least `retry_after`.
    pub give_up_after: Duration,
}

/// A way to a board.
pub trait Transport {
    /// Sends `message`, an encoded request of id `request_id`, and returns the encoded response of that id.
    ///
    /// # Errors
    /// [`LinkError`]; the board may or may not have carried out the request.
    fn exchange(&mut self, request_id: u64, message: &[u8], patience: Patience) -> Result<Vec<u8>, LinkError>;

    /// Bytes that are worth one message in a longer transfer: less on a slow line, so that progress shows and a
    /// damaged message costs little.
    fn chunk_bytes(&self) -> usize;
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The board is silent.
    #[error(
        "board did not answer within {:.1} s; {n_tries} tries, {n_damaged} damaged frames seen",
        waited.as_secs_f64()
    )]
    Timeout {
        /// Time since the first try.
        waited: Duration,
        /// Times the request was sent.
        n_tries: u32,
        /// Frames that arrived damaged on this link so far.
        n_damaged: u32,
    },
    /// The line is up, but nothing more can be sent.
    #[error("board takes no more bytes")]
    Stalled,
    /// The link ended.
    #[error("board went away: {reason}")]
    Gone {
        /// What ended it.
        reason: String,
    },
    /// The user interrupted; the board is left usable.
    #[error("interrupted")]
    Interrupted,
    /// The message is longer than any frame sequence may be.
    #[error("request of {found} bytes is over the limit of {limit}")]
    TooLong {
        /// Its length.
        found: usize,
        /// Length allowed.
        limit: usize,
    },
}

impl LinkError {
    /// One thing to try.
    pub fn help(&self) -> Option<String> {
        match self {
            LinkError::Timeout { n_damaged: 1.., .. } => Some(
                "frames arrive damaged: check cable and ground, or name a lower baud rate (serial:PATH@57600)".into(),
            ),
            LinkError::Timeout { .. } | LinkError::Stalled => {
                Some("see whether graftd still runs on the board, then repeat the command".into())
            }
            LinkError::Gone { .. } => {
                Some("what was acknowledged is kept on the board; connect it again and repeat the command".into())
            }
            LinkError::Interrupted | LinkError::TooLong { .. } => None,
        }
    }
}
