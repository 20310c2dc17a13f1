//! Training, predicting, evaluating; heads on their way out and in.

use std::time::Instant;

use graft_heads::{Comparison, Duplicates, EvaluateError, Head, Judged, Suspects, duplicates, evaluate, suspects};
use graft_wire::message::{
    ClassScore, DoubtfulSample, DuplicatePair, HeadChoice, HeadComparison, HeadInfo, Input, Prediction, RejectionInfo,
    ReviewCounts,
};
use graft_wire::{Batch, Response, SpaceId, WireError};

use crate::active::{ActiveHead, micros};
use crate::answer::{Failure, Page};
use crate::bundles::stretch;
use crate::daemon::{Daemon, Exchange};

/// Scores in a response, best first.
const SCORES_MAX: usize = 16;
/// Doubtful samples in a response, worst first.
const DOUBTFUL_MAX: usize = 1000;

impl Daemon {
    /// A pure function of the set in memory; no input is embedded again. Rejects nothing, compares with nothing.
    pub(crate) fn train(&mut self, exchange: &Exchange, choice: HeadChoice, force: bool) -> Result<Vec<u8>, Failure> {
        let (head, train_us) = self.trained(choice, force, None)?;
        self.install(exchange, head, train_us, Response::Head)
    }

    /// The same with a promised rate of false rejects, and not for the worse unless forced.
    pub(crate) fn train_checked(
        &mut self,
        exchange: &Exchange,
        choice: HeadChoice,
        force: bool,
        unknown: Option<f64>,
    ) -> Result<Vec<u8>, Failure> {
        let (head, train_us) = self.trained(choice, force, unknown)?;
        let active = self.active()?;
        let old = active.head.as_ref().map(|old| &old.head);
        let comparison = old.and_then(|old| Comparison::of(old, &head, &active.set));
        if let Some(Comparison { n, n_correct_old, n_correct_new }) = comparison.filter(|c| c.is_loss() && !force) {
            return Err(WireError::HeadWorse { n, n_correct_old, n_correct_new }.into());
        }
        let comparison = comparison.map(|Comparison { n, n_correct_old, n_correct_new }| HeadComparison {
            n,
            n_correct_old,
            n_correct_new,
        });
        let rejection = head.calibration().map(|calibration| RejectionInfo {
            n: calibration.n(),
            rate: calibration.rate(),
            n_negatives: calibration.n_negatives(),
            n_negatives_rejected: calibration.rate().map_or(0, |rate| calibration.n_negatives_rejected(rate)),
            negatives_rate: calibration.rate_for_negatives(),
        });
        self.install(exchange, head, train_us, |head| Response::Trained { head, rejection, comparison })
    }

    /// Makes a head of the set in memory the active one, in one transaction with the response.
    fn install(
        &mut self,
        exchange: &Exchange,
        head: Head,
        train_us: u32,
        response: impl FnOnce(HeadInfo) -> Response<'static>,
    ) -> Result<Vec<u8>, Failure> {
        let active = self.active()?;
        let space = active.row.space;
        let bytes = head.encode();
        let trained = ActiveHead::new(head, false, false);
        let response = exchange.encode(response(active.head_info(&trained, train_us)));
        self.activate_head(exchange, &space, &bytes, trained, &response)?;
        Ok(response)
    }

    /// A calibrated head of the set in memory, with the time it took in µs.
    fn trained(&self, choice: HeadChoice, force: bool, unknown: Option<f64>) -> Result<(Head, u32), Failure> {
        let active = self.active()?;
        let held = u32::try_from(active.set.n_class_samples()).unwrap_or(u32::MAX);
        if let Some(ActiveHead { head, pushed: true, .. }) = &active.head
            && head.n_samples() > held
            && !force
        {
            return Err(WireError::HeadKnowsMore { head: head.n_samples(), held }.into());
        }
        let started = Instant::now();
        let (head, calibrated) = Head::train_calibrated(&active.set, choice, unknown)?;
        match calibrated {
            // Without a promise a head is worth having even if it cannot be calibrated.
            Err(error) if unknown.is_none() => self.log(&format!("head is not calibrated: {error}")),
            outcome => outcome?,
        }
        Ok((head, micros(started)))
    }

    /// Samples and pairs that deserve a look.
    pub(crate) fn review(&mut self, exchange: &Exchange) -> Result<Vec<u8>, Failure> {
        let set = &self.active()?.set;
        let Suspects { ranked, n_assessed } = suspects(set)?;
        let Duplicates { pairs, n_pairs, n_compared } = duplicates(set);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let counts = ReviewCounts {
            n_assessed,
            n_doubtful: number(ranked.len()),
            n_suspected: number(ranked.iter().filter(|suspect| suspect.is_suspected()).count()),
            n_compared,
            n_duplicates: n_pairs,
        };
        let doubtful = Page::all(ranked.iter().take(DOUBTFUL_MAX).map(|suspect| DoubtfulSample {
            id: suspect.id,
            label: suspect.label.clone(),
            looks_like: suspect.looks_like.clone(),
            margin: suspect.margin,
            suspected: suspect.is_suspected(),
        }));
        let duplicates = Page::all(pairs.iter().map(|pair| DuplicatePair {
            a: pair.a,
            b: pair.b,
            cosine: pair.cosine,
            labels_differ: pair.labels_differ,
        }));
        let (doubtful, duplicates) = (Batch::new(doubtful.bytes()), Batch::new(duplicates.bytes()));
        Ok(exchange.encode(Response::Review { counts, doubtful, duplicates }))
    }

    pub(crate) fn push_head(&mut self, exchange: &Exchange, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let active = self.active()?;
        let space = active.row.space;
        let head =
            Head::decode(bytes).map_err(|error| Failure { wire: WireError::BadHead, log: Some(error.to_string()) })?;
        if head.space() != space {
            return Err(WireError::SpaceMismatch { active: space, requested: head.space() }.into());
        }
        if head.embedding_len() != active.set.embedding_len() {
            return Err(WireError::BadHead.into());
        }
        // A head of the very set that is here could have been trained here.
        let pushed = head.set_digest() != active.set.digest();
        let head = ActiveHead::new(head, pushed, false);
        let response = exchange.encode(Response::Head(active.head_info(&head, 0)));
        self.activate_head(exchange, &space, bytes, head, &response)?;
        Ok(response)
    }

    fn activate_head(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        bytes: &[u8],
        head: ActiveHead,
        response: &[u8],
    ) -> Result<(), Failure> {
        self.store.transaction::<_, Failure>(|tx| {
            tx.put_head(space, bytes, head.pushed)?;
            Ok(tx.record(&exchange.key, response)?)
        })?;
        if let Some(active) = &mut self.active {
            active.head = Some(head);
        }
        Ok(())
    }

    pub(crate) fn pull_head(&mut self, exchange: &Exchange, offset: u32) -> Result<Vec<u8>, Failure> {
        let head = self.active()?.head.as_ref().ok_or(WireError::NoHead)?;
        Ok(exchange.encode(stretch(&head.head.encode(), offset)))
    }

    /// A stale head still predicts: what it knows is not wrong, and the device info says that it is stale.
    pub(crate) fn predict(
        &mut self,
        exchange: &Exchange,
        space: &SpaceId,
        input: Input<'_>,
    ) -> Result<Vec<u8>, Failure> {
        // Before the backbone runs.
        if self.active_in(space)?.head.is_none() {
            return Err(WireError::NoHead.into());
        }
        let (embedding, embed_us) = self.embed(input)?;
        let active = self.active()?;
        let head = active.head.as_ref().ok_or(WireError::NoHead)?;
        let started = Instant::now();
        let Judged { classified, probability, p_value, unknown } = head.head.judge(&embedding);
        let head_us = micros(started);
        let mut scores: Vec<ClassScore> = head
            .head
            .classes()
            .iter()
            .zip(&classified.scores)
            .map(|(label, score)| ClassScore { label: label.clone(), score: *score })
            .collect();
        // A stable sort leaves ties in the order of labels, as the head breaks them.
        scores.sort_by(|a, b| b.score.total_cmp(&a.score));
        scores.truncate(SCORES_MAX);
        let prediction = Prediction {
            label: head.head.classes().get(classified.best).filter(|_| unknown != Some(true)).cloned(),
            unknown,
            score: classified.scores.get(classified.best).copied().unwrap_or(f64::NAN),
            probability,
            p_value,
            head: head.digest,
            space: active.row.space,
            embed_us,
            head_us,
        };
        let scores = Page::all(&scores);
        Ok(exchange.encode(Response::Prediction { prediction, scores: Batch::new(scores.bytes()) }))
    }

    pub(crate) fn evaluate(&mut self, exchange: &Exchange, choice: HeadChoice) -> Result<Vec<u8>, Failure> {
        let evaluation = evaluate(&self.active()?.set, choice).map_err(|error| match error {
            EvaluateError::Train(error) => error.into(),
            EvaluateError::NothingToLeaveOut { n_samples, n_sessions, .. } => {
                WireError::NothingToLeaveOut { n_samples, n_sessions }.into()
            }
            error => Failure { wire: WireError::Unsolvable, log: Some(error.to_string()) },
        })?;
        let (classes, confusion) = (Page::all(&evaluation.classes), Page::all(&evaluation.confusion));
        Ok(exchange.encode(Response::Evaluation {
            summary: evaluation.summary,
            classes: Batch::new(classes.bytes()),
            confusion: Batch::new(confusion.bytes()),
        }))
    }
}
