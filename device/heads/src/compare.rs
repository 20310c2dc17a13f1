//! A new head against the one it would replace, on what both know.
//!
//! Both are asked about the set's samples of the old head's classes, and the new one may only answer with those. So adding
//! a class costs nothing, and what shows is what the change of samples or of the kind of head did to the old classes.
//! Both have seen most of these samples; a comparison of two heads, not a measure of either.

use graft_wire::{Label, LabelKind};

use crate::head::Head;
use crate::set::SampleSet;

/// A new head may get this share of the samples less right than the old one.
pub const LOSS_MAX: f64 = 0.05;
/// Fewer samples say nothing.
pub const SAMPLES_MIN: u32 = 20;
/// Most samples asked about: the first by id.
const SAMPLES_MAX: usize = 4096;

/// Right answers of two heads on the same samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Samples of classes that both know.
    pub n: u32,
    /// Right by the old head.
    pub n_correct_old: u32,
    /// Right by the new head among the old classes.
    pub n_correct_new: u32,
}

impl Comparison {
    /// Asks both heads; None under [`SAMPLES_MIN`] samples, or under two classes that both know.
    pub fn of(old: &Head, new: &Head, set: &SampleSet) -> Option<Self> {
        if (old.space(), old.embedding_len()) != (new.space(), new.embedding_len()) {
            return None;
        }
        let shared = |label: &Label| old.classes().binary_search(label).is_ok();
        if new.classes().iter().filter(|label| shared(label)).count() < 2 {
            return None;
        }
        let both = |label: &Label| shared(label) && new.classes().binary_search(label).is_ok();
        let mut comparison = Self { n: 0, n_correct_old: 0, n_correct_new: 0 };
        let samples = set.live().filter(|(_, meta, _)| meta.kind == LabelKind::Class && both(&meta.label));
        for (_, meta, embedding) in samples.take(SAMPLES_MAX) {
            comparison.n += 1;
            let is_right = |head: &Head| best_among(head, embedding, both) == Some(&meta.label);
            comparison.n_correct_old += u32::from(is_right(old));
            comparison.n_correct_new += u32::from(is_right(new));
        }
        (comparison.n >= SAMPLES_MIN).then_some(comparison)
    }

    /// True if the new head loses more than [`LOSS_MAX`].
    pub fn is_loss(&self) -> bool {
        f64::from(self.n_correct_old.saturating_sub(self.n_correct_new)) > LOSS_MAX * f64::from(self.n)
    }
}

/// The best of the allowed classes; ties go to the smaller label.
fn best_among<'a>(head: &'a Head, embedding: &[i8], allowed: impl Fn(&Label) -> bool) -> Option<&'a Label> {
    let scores = head.classify(embedding).scores;
    let mut best: Option<(&Label, f64)> = None;
    for (label, score) in head.classes().iter().zip(scores).filter(|(label, _)| allowed(label)) {
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((label, score));
        }
    }
    best.map(|(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;
    use alloc::vec::Vec;
    use graft_wire::message::HeadChoice;

    fn head(rows: &[(u32, Vec<i8>)]) -> Head {
        Head::train(&synthetic::set_of(rows), HeadChoice::Ncm).unwrap()
    }

    #[test]
    fn wrong_labels_are_a_loss() {
        let rows = synthetic::rows_with_noise(3, 10, 64, 7, 20);
        let wrong: Vec<(u32, Vec<i8>)> = rows.iter().map(|(class, row)| ((class + 1) % 3, row.clone())).collect();
        let comparison = Comparison::of(&head(&rows), &head(&wrong), &synthetic::set_of(&rows)).unwrap();
        assert_eq!(comparison, Comparison { n: 30, n_correct_old: 30, n_correct_new: 0 });
        assert!(comparison.is_loss());
    }

    #[test]
    fn adding_a_class_is_none_even_if_it_takes_samples_of_the_others() {
        let mut rows = synthetic::rows_with_noise(2, 10, 64, 7, 20);
        let old = head(&rows);
        rows.extend(rows.clone().into_iter().take(10).map(|(_, row)| (7, row)));
        let new = head(&rows);
        let comparison = Comparison::of(&old, &new, &synthetic::set_of(&rows)).unwrap();
        assert_eq!((comparison.n, comparison.n_correct_old), (20, 20));
        assert!(!comparison.is_loss(), "{comparison:?}");
    }

    #[test]
    fn a_loss_is_more_than_five_in_a_hundred() {
        let of = |n_correct_new| Comparison { n: 100, n_correct_old: 90, n_correct_new }.is_loss();
        assert_eq!((of(90), of(85), of(84), of(100)), (false, false, true, false));
    }

    #[test]
    fn too_little_in_common_says_nothing() {
        let rows = synthetic::rows_with_noise(2, 9, 64, 7, 20);
        assert_eq!(Comparison::of(&head(&rows), &head(&rows), &synthetic::set_of(&rows)), None, "18 samples");
        let others: Vec<(u32, Vec<i8>)> = rows.iter().map(|(class, row)| (class + 1, row.clone())).collect();
        let many: Vec<(u32, Vec<i8>)> = synthetic::rows_with_noise(2, 20, 64, 7, 20);
        assert_eq!(Comparison::of(&head(&others), &head(&many), &synthetic::set_of(&many)), None, "one class");
    }
}
