//! Near duplicates that make evaluation too good, or contradict each other.
//!
//! Two samples of almost the same embedding in two sessions are no two sessions: what is left out has been seen. Two under
//! different labels cannot both be right. Parts of one input are left out together already and are not compared, unless the
//! same part has two labels.

use alloc::vec::Vec;

use graft_kernels::dot::dot_i8;
use graft_wire::{SampleId, SampleMeta};

use crate::set::SampleSet;

/// Cosine of stored embeddings from which on two samples are near duplicates.
///
/// Largest cosines between different inputs: flowers 0.90, hand signs 0.94, Arabic words 0.96, CLINC150 0.99 (sentences
/// that differ in a word); of 2,000 spoken digits 2.7 % have a neighbour over it, the same word of the same speaker.
pub const COSINE_MIN: f64 = 0.98;
/// Most samples that are compared: the first by id. 1,500 of 1,280 components take about a second on a small board.
pub const SAMPLES_MAX: usize = 1500;
/// Most pairs that are returned: those with the largest cosine.
pub const PAIRS_MAX: usize = 100;

/// Two samples that are nearly the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Duplicate {
    /// The one with the smaller id.
    pub a: SampleId,
    /// The other.
    pub b: SampleId,
    /// Cosine of their embeddings, in `COSINE_MIN..=1`.
    pub cosine: f64,
    /// They say different things.
    pub labels_differ: bool,
}

/// Outcome of [`duplicates`].
#[derive(Clone, Debug, PartialEq)]
pub struct Duplicates {
    /// Contradictions first, then by cosine, largest first, ties by id; at most [`PAIRS_MAX`].
    pub pairs: Vec<Duplicate>,
    /// Pairs found.
    pub n_pairs: u32,
    /// Samples compared.
    pub n_compared: u32,
}

/// Near duplicates among the live samples of `set`, negatives included, that differ in label or session.
pub fn duplicates(set: &SampleSet) -> Duplicates {
    let samples: Vec<(SampleId, &SampleMeta, &[i8])> = set.live().take(SAMPLES_MAX).collect();
    let squares: Vec<f64> = samples.iter().map(|(.., x)| f64::from(dot_i8(x, x))).collect();
    let mut pairs = Vec::new();
    for (i, (a, meta, x)) in samples.iter().enumerate() {
        for (j, (b, other, y)) in samples.iter().enumerate().skip(i + 1) {
            let labels_differ = (&meta.label, meta.kind) != (&other.label, other.kind);
            let contradicts = labels_differ && meta.part == other.part;
            if (meta.digest == other.digest && !contradicts) || (meta.session == other.session && !labels_differ) {
                continue;
            }
            let cosine = f64::from(dot_i8(x, y)) / libm::sqrt(squares[i] * squares[j]);
            if cosine >= COSINE_MIN {
                pairs.push(Duplicate { a: *a, b: *b, cosine: cosine.min(1.0), labels_differ });
            }
        }
    }
    let n_pairs = pairs.len() as u32;
    pairs.sort_by(|a, b| {
        let worse = b.labels_differ.cmp(&a.labels_differ).then_with(|| b.cosine.total_cmp(&a.cosine));
        worse.then_with(|| (a.a, a.b).cmp(&(b.a, b.b)))
    });
    pairs.truncate(PAIRS_MAX);
    Duplicates { pairs, n_pairs, n_compared: samples.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{self, meta};
    use alloc::vec;

    fn with(extra: SampleMeta) -> Duplicates {
        let rows = synthetic::rows(2, 4, 64, 3);
        let mut set = synthetic::set_of(&rows);
        let mut row = rows[0].1.clone();
        row[0] += 1;
        set.insert(extra, &row).unwrap();
        duplicates(&set)
    }

    #[test]
    fn one_input_under_two_labels_is_found() {
        let first = meta(0, 0);
        let found = with(SampleMeta { label: meta(1, 0).label, ..first.clone() });
        assert!(found.n_pairs == 1 && found.pairs[0].labels_differ, "{found:?}");
        let other_part = SampleMeta { part: graft_wire::Part::Window { start_ms: 1, len_ms: 2 }, ..first };
        assert_eq!(with(other_part).n_pairs, 0);
    }

    #[test]
    fn the_same_thing_in_two_sessions_or_under_two_labels_is_found() {
        let found = with(meta(0, 90));
        assert_eq!((found.n_pairs, found.n_compared), (1, 9));
        assert!(found.pairs[0].cosine > 0.99 && !found.pairs[0].labels_differ, "{found:?}");
        let mut ids = vec![meta(0, 0).sample_id(), meta(0, 90).sample_id()];
        ids.sort();
        assert_eq!(vec![found.pairs[0].a, found.pairs[0].b], ids);
        let session = meta(0, 0).session;
        assert!(with(SampleMeta { session, ..meta(1, 90) }).pairs[0].labels_differ);
    }

    #[test]
    fn frames_of_one_session_and_parts_of_one_input_are_no_news() {
        let session = meta(0, 0).session;
        assert_eq!(with(SampleMeta { session, ..meta(0, 90) }).n_pairs, 0);
        let digest = meta(0, 0).digest;
        assert_eq!(with(SampleMeta { digest, ..meta(0, 90) }).n_pairs, 0);
    }

    #[test]
    fn contradictions_come_first_and_the_list_ends() {
        let mut set = SampleSet::new(synthetic::SPACE, 2);
        for number in 0..20 {
            set.insert(meta(u32::from(number == 19), number), &[100, 1]).unwrap();
        }
        let found = duplicates(&set);
        assert_eq!((found.n_pairs, found.pairs.len()), (190, PAIRS_MAX));
        assert!(found.pairs[..19].iter().all(|pair| pair.labels_differ) && !found.pairs[19].labels_differ);
        assert_eq!(found.pairs[0].cosine, 1.0);
    }

    #[test]
    fn zeros_resemble_nothing() {
        let mut set = SampleSet::new(synthetic::SPACE, 2);
        set.insert(meta(0, 0), &[0, 0]).unwrap();
        set.insert(meta(0, 1), &[0, 0]).unwrap();
        assert_eq!(duplicates(&set).n_pairs, 0);
    }
}
