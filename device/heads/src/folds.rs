//! What is left out together, and which samples count.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use graft_wire::message::Protocol;
use graft_wire::{Digest, SessionId};

use crate::training::Training;

/// Leaving out by session must let at least this share of the samples count (percent), else inputs are left out.
const COUNTING_PERCENT_MIN: usize = 80;

/// Folds of one protocol.
pub(crate) struct Plan {
    pub protocol: Protocol,
    /// Folds in which at least one sample counts.
    pub folds: Vec<Fold>,
    /// Samples that count.
    pub n: usize,
}

/// Samples that one head is asked about, and those it must not have seen.
pub(crate) struct Fold {
    /// Indices of the samples that count, ascending.
    pub test: Vec<usize>,
    /// Indices left out, ascending: the fold, and every part of an input that is in it.
    pub removed: Vec<usize>,
}

/// Sessions and samples behind a set that cannot be evaluated.
pub(crate) struct NothingLeft {
    pub n_sessions: u32,
}

/// Indices of samples that belong together, ascending.
struct Groups {
    by_session: BTreeMap<SessionId, Vec<usize>>,
    by_input: BTreeMap<Digest, Vec<usize>>,
}

impl Groups {
    fn of(training: &Training<'_>) -> Self {
        let (mut by_session, mut by_input): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
        for (i, sample) in training.samples.iter().enumerate() {
            by_session.entry(sample.meta.session).or_default().push(i);
            by_input.entry(sample.meta.digest).or_default().push(i);
        }
        Self { by_session, by_input }
    }
}

impl Plan {
    /// By session; by input where sessions leave under 80 % of the samples to count.
    ///
    /// A sample counts only if its class keeps a sample outside the fold, and another class does too: one class alone
    /// would always be right.
    ///
    /// # Errors
    /// [`NothingLeft`] if no sample counts either way.
    pub fn of(training: &Training<'_>) -> Result<Self, NothingLeft> {
        let Groups { by_session, by_input } = Groups::of(training);
        let plan = |protocol, groups: Vec<Vec<usize>>| {
            let folds: Vec<Fold> = groups.into_iter().filter_map(|group| fold(training, &by_input, group)).collect();
            Self { protocol, n: folds.iter().map(|fold| fold.test.len()).sum(), folds }
        };
        let n_sessions = by_session.len() as u32;
        let sessions = plan(Protocol::LeaveOneSessionOut, by_session.into_values().collect());
        if sessions.n > 0 && 100 * sessions.n >= COUNTING_PERCENT_MIN * training.samples.len() {
            return Ok(sessions);
        }
        let inputs = plan(Protocol::LeaveOneOut, by_input.values().cloned().collect());
        if inputs.n > 0 { Ok(inputs) } else { Err(NothingLeft { n_sessions }) }
    }
}

/// Folds for calibration: every sample whose class keeps another input is tested once.
///
/// A sample's whole session is left out where its class has samples in another session, else its input alone. Of more
/// than `n_max` samples the first by id are tested; ids are hashes, so that these are a random part.
pub(crate) fn calibration_folds(training: &Training<'_>, n_max: usize) -> Vec<Fold> {
    let Groups { by_session, by_input } = Groups::of(training);
    let mut tested = vec![false; training.samples.len()];
    let mut folds = Vec::new();
    for group in by_session.into_values().chain(by_input.values().cloned()) {
        let Some(mut fold) = fold(training, &by_input, group) else { continue };
        fold.test.retain(|i| *i < n_max && !tested[*i]);
        fold.test.iter().for_each(|i| tested[*i] = true);
        if !fold.test.is_empty() {
            folds.push(fold);
        }
    }
    folds
}

fn fold(training: &Training<'_>, by_input: &BTreeMap<Digest, Vec<usize>>, group: Vec<usize>) -> Option<Fold> {
    let inputs: BTreeSet<Digest> = group.iter().map(|i| training.samples[*i].meta.digest).collect();
    let removed: BTreeSet<usize> = inputs.iter().flat_map(|input| &by_input[input]).copied().collect();
    let mut left = training.counts.clone();
    for i in &removed {
        left[training.samples[*i].class] -= 1;
    }
    if left.iter().filter(|count| **count > 0).count() < 2 {
        return None;
    }
    let test: Vec<usize> = group.into_iter().filter(|i| left[training.samples[*i].class] > 0).collect();
    (!test.is_empty()).then(|| Fold { test, removed: removed.into_iter().collect() })
}

/// Folds in about `n_groups` groups that can be left out together: every tested class keeps a sample. Indices into
/// `folds`; folds that begin with one class spread over the groups.
pub(crate) fn grouped(training: &Training<'_>, folds: &[Fold], n_groups: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..folds.len()).collect();
    order.sort_by_key(|at| (folds[*at].test.first().map(|i| training.samples[*i].class), *at));
    let n_groups = n_groups.min(folds.len());
    // Per group its folds, what it takes, and which classes it tests.
    let mut groups: Vec<(Vec<usize>, BTreeSet<usize>, BTreeSet<usize>)> = vec![Default::default(); n_groups];
    for (number, at) in order.into_iter().enumerate() {
        let fits = |group: &(Vec<usize>, BTreeSet<usize>, BTreeSet<usize>)| {
            let mut left = training.counts.clone();
            let new = folds[at].removed.iter().filter(|i| !group.1.contains(i));
            group.1.iter().chain(new).for_each(|i| left[training.samples[*i].class] -= 1);
            let classes = folds[at].test.iter().map(|i| training.samples[*i].class);
            left.iter().filter(|left| **left > 0).count() >= 2
                && classes.chain(group.2.iter().copied()).all(|class| left[class] > 0)
        };
        let next = (0..groups.len()).map(|shift| (number + shift) % n_groups.max(1));
        let place = next.into_iter().find(|place| fits(&groups[*place])).unwrap_or(groups.len());
        if place == groups.len() {
            groups.push(Default::default());
        }
        let (members, removed, tested) = &mut groups[place];
        members.push(at);
        removed.extend(&folds[at].removed);
        tested.extend(folds[at].test.iter().map(|i| training.samples[*i].class));
    }
    groups.into_iter().map(|(members, ..)| members).filter(|members| !members.is_empty()).collect()
}

/// What each sample was taken for, by index; None where it does not count.
pub(crate) struct Predictions(pub Vec<Option<usize>>);

impl Predictions {
    pub fn none(n: usize) -> Self {
        Self(vec![None; n])
    }

    /// Mean over classes with a sample that counts of the share that is right.
    pub fn balanced_accuracy(&self, training: &Training<'_>) -> f64 {
        let tally = self.tally(training);
        let shares = tally.iter().filter(|(n, _)| *n > 0).map(|(n, n_correct)| f64::from(*n_correct) / f64::from(*n));
        let n_classes = tally.iter().filter(|(n, _)| *n > 0).count();
        if n_classes == 0 { 0.0 } else { shares.sum::<f64>() / n_classes as f64 }
    }

    /// Per class: samples that count, and right ones among them.
    pub fn tally(&self, training: &Training<'_>) -> Vec<(u32, u32)> {
        let mut tally = vec![(0, 0); training.n_classes()];
        for (sample, predicted) in training.samples.iter().zip(&self.0) {
            if let Some(predicted) = predicted {
                let (n, n_correct) = &mut tally[sample.class];
                *n += 1;
                *n_correct += u32::from(*predicted == sample.class);
            }
        }
        tally
    }
}
