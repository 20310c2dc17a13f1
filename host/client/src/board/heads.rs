//! Heads on a board: train, predict, evaluate, pull and push.

use graft_wire::message::{HeadChoice, HeadInfo};
use graft_wire::{Digest, Request, Response, SpaceId, WireError};

use super::{Board, CallError, items, other_kind};
use crate::owned::{BenchReport, EvaluationReport, InputRef, OwnedLayer, PredictionReport, ReviewReport, TrainReport};

/// Longest head taken: `[8192, 4096]` in f64, doubled.
const HEAD_BYTES_MAX: u32 = 1 << 29;

impl Board {
    /// Trains a head from the stored embeddings and activates it.
    ///
    /// # Errors
    /// [`CallError`]; the head of before stays active if the board refused.
    pub fn train(&mut self, head: HeadChoice, force: bool) -> Result<HeadInfo, CallError> {
        self.call(Request::Train { head, force }, read_head)
    }

    /// The same with a promised rate of false rejects (`unknown`), and held against the active head: unless forced, the
    /// head of before stays if the new one does worse on what both know.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::HeadWorse`], [`WireError::TooFewToPromise`], [`WireError::BadRate`].
    pub fn train_checked(
        &mut self,
        head: HeadChoice,
        force: bool,
        unknown: Option<f64>,
    ) -> Result<TrainReport, CallError> {
        self.call(Request::TrainChecked { head, force, unknown }, |response| match response {
            Response::Trained { head, rejection, comparison } => Ok(TrainReport { head, rejection, comparison }),
            _ => Err(other_kind()),
        })
    }

    /// Samples that may carry a wrong label, and near duplicates.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::TooFewClasses`] where labels cannot be doubted.
    pub fn review(&mut self) -> Result<ReviewReport, CallError> {
        self.call(Request::Review, |response| match response {
            Response::Review { counts, doubtful, duplicates } => {
                Ok(ReviewReport { counts, doubtful: items(&doubtful)?, duplicates: items(&duplicates)? })
            }
            _ => Err(other_kind()),
        })
    }

    /// Embeds and classifies.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NoHead`] if nothing was trained.
    pub fn predict(&mut self, space: SpaceId, input: InputRef<'_>) -> Result<PredictionReport, CallError> {
        let bytes = input.to_bytes();
        self.call(Request::Predict { space, input: bytes.input() }, |response| match response {
            Response::Prediction { prediction, scores } => Ok(PredictionReport { prediction, scores: items(&scores)? }),
            _ => Err(other_kind()),
        })
    }

    /// Evaluates a head by leaving out samples of the set.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NothingToLeaveOut`] where it cannot be known.
    pub fn evaluate(&mut self, head: HeadChoice) -> Result<EvaluationReport, CallError> {
        self.call(Request::Evaluate { head }, |response| match response {
            Response::Evaluation { summary, classes, confusion } => {
                let (classes, confusion) = (items(&classes)?, items(&confusion)?);
                let n_classes = classes.len();
                let inside = |index: u16| usize::from(index) < n_classes;
                if !confusion.iter().all(|cell| inside(cell.truth) && inside(cell.predicted)) {
                    return Err(CallError::Unexpected("its confusion matrix names classes that it does not list"));
                }
                Ok(EvaluationReport { summary, classes, confusion })
            }
            _ => Err(other_kind()),
        })
    }

    /// Times the active bundle on the board.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NoBundle`] if there is none.
    pub fn bench(&mut self, n_runs: u32, n_threads: u32) -> Result<BenchReport, CallError> {
        self.call(Request::Bench { n_runs, n_threads }, |response| match response {
            Response::Bench { summary, layers } => {
                let layers = items(&layers)?.into_iter().map(OwnedLayer::from).collect();
                Ok(BenchReport { summary, layers })
            }
            _ => Err(other_kind()),
        })
    }

    /// Bytes of the active head, checked against the digest that the board names.
    ///
    /// # Errors
    /// [`CallError`]; [`WireError::NoHead`] if there is none.
    pub fn pull_head(&mut self) -> Result<Vec<u8>, CallError> {
        let head = self.info()?.head.ok_or(CallError::Refused(WireError::NoHead))?;
        let bytes = self.stretches(|offset| Request::PullHead { offset }, HEAD_BYTES_MAX)?;
        if Digest::of(&bytes) != head.digest {
            return Err(CallError::Unexpected("what was read changed meanwhile; repeat the command"));
        }
        Ok(bytes)
    }

    /// Activates a head without its set.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::TooLong`] for a head over the longest message.
    pub fn push_head(&mut self, head: &[u8]) -> Result<HeadInfo, CallError> {
        self.call(Request::PushHead { head }, read_head)
    }
}

fn read_head(response: Response<'_>) -> Result<HeadInfo, CallError> {
    match response {
        Response::Head(head) => Ok(head),
        _ => Err(other_kind()),
    }
}
