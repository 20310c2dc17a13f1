//! Nearest neighbours by centred cosine: the baseline that learns nothing and keeps the samples.
//!
//! Query and samples are centred by the mean of class means, as for nearest class mean. The k nearest vote; the score of a
//! class is its share of votes, and less than half a vote more the nearer its nearest sample is: `(votes + (1 + cosine) / 4)
//! / k`. So equal votes go to the class with the nearest sample, and if even these are equally near, to the smaller label.
//! Of equally near samples the ones with the smaller ids vote.
//!
//! k is the one of 9, 5, 3, 1 with the best class-balanced leave-one-out accuracy, ties to the smaller; none is tried that
//! outnumbers the smallest class. A head keeps at most 2,048 samples and 2 MiB of them (but one of each class): the first
//! by id, as many of each class as of any other that has them. Ids are hashes, so these are a random part.

use alloc::vec;
use alloc::vec::Vec;

use graft_kernels::dot::dot_i8;

use crate::basis::Basis;
use crate::folds::Fold;
use crate::grid::balanced_accuracy;
use crate::sums::ClassMeans;
use crate::training::{TrainError, Training};
use crate::vector::{add_scaled, dot, dot_with};

/// Numbers of neighbours tried, in the order in which later ones win ties.
const K_GRID: [usize; 4] = [9, 5, 3, 1];
/// Most neighbours that vote.
pub(crate) const K_MAX: u32 = 9;
/// Most samples of a head, unless it has more classes.
const SAMPLES_MAX: usize = 2048;
/// Most bytes of samples, unless one of each class is more.
const BYTES_MAX: usize = 2 << 20;

/// Samples and their centre.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Knn {
    pub k: u32,
    /// Mean of class means, `[D]`.
    pub centre: Vec<f64>,
    /// Class of every sample, `[N]`.
    pub classes: Vec<u16>,
    /// int8 `[N, D]`, ascending by sample id.
    pub rows: Vec<i8>,
    /// Of centred samples, `[N]`.
    lengths: Vec<f64>,
    n_classes: usize,
}

impl Knn {
    /// The head of some samples; `rows` has D components for each of `classes`.
    pub fn new(k: u32, centre: Vec<f64>, classes: Vec<u16>, rows: Vec<i8>, n_classes: usize) -> Self {
        let length = |row: &[i8]| {
            let centred: Vec<f64> = row.iter().zip(&centre).map(|(x, centre)| f64::from(*x) - centre).collect();
            libm::sqrt(dot(&centred, &centred))
        };
        let lengths = rows.chunks_exact(centre.len().max(1)).map(length).collect();
        Self { k, centre, classes, rows, lengths, n_classes }
    }

    /// # Errors
    /// [`TrainError::NoSpread`] if every class has the same mean.
    pub fn fit(training: &Training<'_>, means: &ClassMeans, k: u32) -> Result<Self, TrainError> {
        if means.balanced_spread() - means.balanced_scatter() <= 0.0 {
            return Err(training.no_spread());
        }
        let (mut classes, mut rows) = (Vec::new(), Vec::new());
        for i in kept(training) {
            // At most 4,096 classes, checked when the training view was made.
            classes.push(training.samples[i].class as u16);
            rows.extend_from_slice(training.samples[i].embedding);
        }
        Ok(Self::new(k, means.centre(), classes, rows, training.n_classes()))
    }

    /// `[C]`, in 0..=1.5. `embedding`: int8 `[D]`.
    pub fn scores(&self, embedding: &[i8]) -> Vec<f64> {
        let query: Vec<f64> = embedding.iter().zip(&self.centre).map(|(x, centre)| f64::from(*x) - centre).collect();
        let (length, on_centre) = (libm::sqrt(dot(&query, &query)), dot(&query, &self.centre));
        let rows = self.rows.chunks_exact(self.centre.len().max(1)).zip(&self.lengths).zip(&self.classes);
        let near = rows
            .map(|((row, own), class)| (cosine(dot_with(&query, row) - on_centre, length * own), usize::from(*class)));
        Neighbours::of(near, self.n_classes).scores(self.k as usize)
    }
}

/// Picks k by leaving one sample out at a time, with the centre as it is.
pub(crate) fn choose_k(training: &Training<'_>, means: &ClassMeans) -> u32 {
    let least = training.counts.iter().copied().min().unwrap_or(1) as usize;
    let grid: Vec<usize> = K_GRID.into_iter().filter(|k| *k <= least).collect();
    if grid.len() < 2 {
        return 1;
    }
    let (cosines, kept) = (Cosines::of(training, &means.centre()), kept(training));
    let neighbours = |i: usize| {
        let others = kept.iter().filter(|j| **j != i);
        let near = others.map(|j| (cosines.between(training, i, *j), training.samples[*j].class));
        Neighbours::of(near, training.n_classes())
    };
    let all: Vec<Neighbours> = (0..training.samples.len()).map(neighbours).collect();
    let mut best = (1, 0.0);
    for k in grid {
        let accuracy = balanced_accuracy(training, |i| all[i].scores(k)).unwrap_or(0.0);
        if accuracy >= best.1 {
            best = (k as u32, accuracy);
        }
    }
    best.0
}

/// Scores of every fold's test samples by the neighbours and the centre without the fold: `[folds][test][C]`. A class of
/// which the fold leaves nothing scores minus infinity. Takes n_test N D integer multiplications.
pub(crate) fn left_out_scores(basis: &Basis<'_>, folds: &[Fold], k: u32) -> Vec<Vec<Vec<f64>>> {
    let training = basis.training;
    let kept = kept(training);
    let whole = Moving::of(training, &kept, basis.means);
    let of_fold = |fold: &Fold| -> Vec<Vec<f64>> {
        let means = basis.means_without(fold);
        let cosines = whole.without(training, &kept, fold, &means);
        let left: Vec<(usize, usize)> =
            kept.iter().copied().enumerate().filter(|(_, j)| fold.removed.binary_search(j).is_err()).collect();
        let of_sample = |i: &usize| {
            let embedding = training.samples[*i].embedding;
            let on_centre = dot_with(&means.centre(), embedding);
            let length = cosines.length(embedding, on_centre);
            let near = left.iter().map(|(place, j)| {
                let product = f64::from(dot_i8(embedding, training.samples[*j].embedding));
                let product = product - on_centre - cosines.on_centre[*place] + cosines.squared;
                (cosine(product, length * cosines.lengths[*place]), training.samples[*j].class)
            });
            let mut scores = Neighbours::of(near, training.n_classes()).scores(k as usize);
            for (class, score) in scores.iter_mut().enumerate() {
                if means.classes.binary_search(&class).is_err() {
                    *score = f64::NEG_INFINITY;
                }
            }
            scores
        };
        fold.test.iter().map(of_sample).collect()
    };
    folds.iter().map(of_fold).collect()
}

/// Samples that a head keeps, ascending.
fn kept(training: &Training<'_>) -> Vec<usize> {
    let n_max = SAMPLES_MAX.min(BYTES_MAX / training.embedding_len.max(1)).max(training.n_classes());
    let n_with = |each: u32| training.counts.iter().map(|count| (*count).min(each) as usize).sum::<usize>();
    let most = training.counts.iter().copied().max().unwrap_or(0);
    let each = (1..=most).rev().find(|each| n_with(*each) <= n_max).unwrap_or(1);
    let mut seen = vec![0; training.n_classes()];
    let mut is_kept = |i: &usize| {
        let seen = &mut seen[training.samples[*i].class];
        *seen += 1;
        *seen <= each
    };
    (0..training.samples.len()).filter(|i| is_kept(i)).collect()
}

/// 0 where one of both lies on the centre.
fn cosine(product: f64, lengths: f64) -> f64 {
    if lengths > 0.0 { (product / lengths).clamp(-1.0, 1.0) } else { 0.0 }
}

/// What centring some samples takes.
struct Cosines {
    /// Products with the centre.
    on_centre: Vec<f64>,
    /// Of centred samples.
    lengths: Vec<f64>,
    /// Of the centre.
    squared: f64,
}

impl Cosines {
    /// Of all samples.
    fn of(training: &Training<'_>, centre: &[f64]) -> Self {
        let on_centre: Vec<f64> = training.samples.iter().map(|sample| dot_with(centre, sample.embedding)).collect();
        let mut cosines = Self { on_centre, lengths: Vec::new(), squared: dot(centre, centre) };
        let samples = training.samples.iter().zip(&cosines.on_centre);
        cosines.lengths = samples.map(|(sample, on)| cosines.length(sample.embedding, *on)).collect();
        cosines
    }

    fn length(&self, embedding: &[i8], on_centre: f64) -> f64 {
        let squared = f64::from(dot_i8(embedding, embedding)) - 2.0 * on_centre + self.squared;
        libm::sqrt(squared.max(0.0))
    }

    fn between(&self, training: &Training<'_>, i: usize, j: usize) -> f64 {
        let product = f64::from(dot_i8(training.samples[i].embedding, training.samples[j].embedding));
        let product = product - self.on_centre[i] - self.on_centre[j] + self.squared;
        cosine(product, self.lengths[i] * self.lengths[j])
    }
}

/// Products of kept samples with sums of classes: what they are with a centre that lacks a fold follows.
struct Moving {
    /// With the sum of all class means, `[N]`.
    on_means: Vec<f64>,
    /// With every class's mean, `[C, N]`.
    on_mean: Vec<f64>,
    /// Squared lengths, `[N]`.
    squares: Vec<f64>,
}

impl Moving {
    fn of(training: &Training<'_>, kept: &[usize], means: &ClassMeans) -> Self {
        let centre = means.centre();
        let n_classes = training.n_classes();
        let embeddings = || kept.iter().map(|j| training.samples[*j].embedding);
        let on_centre: Vec<f64> = embeddings().map(|x| dot_with(&centre, x)).collect();
        let mut on_mean = Vec::with_capacity(n_classes * kept.len());
        for class in 0..n_classes {
            let mean = means.centred_mean(class);
            on_mean.extend(embeddings().zip(&on_centre).map(|(x, on_centre)| dot_with(&mean, x) + on_centre));
        }
        let on_means = on_centre.iter().map(|on_centre| on_centre * n_classes as f64).collect();
        Self { on_means, on_mean, squares: embeddings().map(|x| f64::from(dot_i8(x, x))).collect() }
    }

    /// Of kept samples, with the centre of `means`, which lack the fold.
    fn without(&self, training: &Training<'_>, kept: &[usize], fold: &Fold, means: &ClassMeans) -> Cosines {
        let n = kept.len();
        let mut gone = vec![0u32; training.n_classes()];
        fold.removed.iter().for_each(|i| gone[training.samples[*i].class] += 1);
        // The mean m of n becomes (n m - what goes) / (n - r) = m + (r m - what goes) / (n - r).
        let mut on_means = self.on_means.clone();
        for (class, gone) in gone.iter().enumerate().filter(|(_, gone)| **gone > 0) {
            let left = training.counts[class] - gone;
            let factor = if left > 0 { f64::from(*gone) / f64::from(left) } else { -1.0 };
            add_scaled(&mut on_means, factor, &self.on_mean[class * n..][..n]);
        }
        for i in &fold.removed {
            let sample = &training.samples[*i];
            let left = training.counts[sample.class] - gone[sample.class];
            if left > 0 {
                for (on_means, j) in on_means.iter_mut().zip(kept) {
                    *on_means -= f64::from(dot_i8(sample.embedding, training.samples[*j].embedding)) / f64::from(left);
                }
            }
        }
        let centre = means.centre();
        let squared = dot(&centre, &centre);
        let on_centre: Vec<f64> = on_means.iter().map(|on| on / means.classes.len() as f64).collect();
        let length = |(square, on): (&f64, &f64)| libm::sqrt((square - 2.0 * on + squared).max(0.0));
        let lengths = self.squares.iter().zip(&on_centre).map(length).collect();
        Cosines { on_centre, lengths, squared }
    }
}

/// What votes take: the classes of the nearest samples, nearest first, and how near each class comes.
struct Neighbours {
    nearest: Vec<usize>,
    /// Largest cosine of each class, -1 for none, `[C]`.
    cosines: Vec<f64>,
}

impl Neighbours {
    /// From cosine and class of samples, ascending by id.
    fn of(samples: impl Iterator<Item = (f64, usize)>, n_classes: usize) -> Self {
        let mut cosines = vec![-1.0; n_classes];
        let mut nearest: Vec<(f64, usize)> = Vec::with_capacity(K_MAX as usize + 1);
        for (cosine, class) in samples {
            if cosine > cosines[class] {
                cosines[class] = cosine;
            }
            if nearest.len() < K_MAX as usize || nearest.last().is_some_and(|(last, _)| cosine > *last) {
                let place = nearest.partition_point(|(other, _)| *other >= cosine);
                nearest.insert(place, (cosine, class));
                nearest.truncate(K_MAX as usize);
            }
        }
        Self { nearest: nearest.into_iter().map(|(_, class)| class).collect(), cosines }
    }

    /// Scores `[C]` by the first k.
    fn scores(&self, k: usize) -> Vec<f64> {
        let mut scores: Vec<f64> = self.cosines.iter().map(|cosine| (1.0 + cosine) / 4.0).collect();
        self.nearest.iter().take(k).for_each(|class| scores[*class] += 1.0);
        scores.iter_mut().for_each(|score| *score /= k as f64);
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basis::Whole;
    use crate::folds::Plan;
    use crate::set::SampleSet;
    use crate::synthetic;
    use crate::vector::argmax;

    fn knn(rows: &[(u32, Vec<i8>)], k: u32) -> Knn {
        let set = synthetic::set_of(rows);
        let training = Training::of(&set).unwrap();
        Knn::fit(&training, &crate::sums::ClassSums::of(&training).means(), k).unwrap()
    }

    #[test]
    fn votes_decide_and_nearness_breaks_their_ties() {
        // Centre (0, 0): class means are (8, 2) and (-8, -2).
        let rows: Vec<(u32, Vec<i8>)> =
            [(0, [10, 0]), (0, [6, 4]), (1, [-10, 0]), (1, [-6, -4])].map(|(class, row)| (class, row.to_vec())).into();
        let scores = knn(&rows, 1).scores(&[5, 0]);
        assert!((scores[0] - 1.5).abs() < 1e-12, "one vote and (1 + 1) / 4: {scores:?}");
        let scores = knn(&rows, 3).scores(&[5, 0]);
        assert!((scores[0] - 2.5 / 3.0).abs() < 1e-12, "{scores:?}");
        // Two votes each; class 1 is nearer.
        assert_eq!(argmax(&knn(&rows, 4).scores(&[-1, -1])), 1);
    }

    #[test]
    fn neighbours_are_those_of_plain_sorting() {
        let rows = synthetic::rows(4, 8, 20, 9);
        let centre: Vec<f64> = {
            let mean = |class: usize, p: usize| {
                rows[8 * class..][..8].iter().map(|(_, row)| f64::from(row[p])).sum::<f64>() / 8.0
            };
            (0..20).map(|p| (0..4).map(|class| mean(class, p)).sum::<f64>() / 4.0).collect()
        };
        let centred = |row: &[i8]| -> Vec<f64> { row.iter().zip(&centre).map(|(x, c)| f64::from(*x) - c).collect() };
        let head = knn(&rows, 5);
        for (_, query) in synthetic::rows(4, 5, 20, 10) {
            let query = centred(&query);
            let mut near: Vec<(f64, u32)> = rows
                .iter()
                .map(|(class, row)| {
                    let row = centred(row);
                    (dot(&query, &row) / (dot(&query, &query) * dot(&row, &row)).sqrt(), *class)
                })
                .collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            let query: Vec<i8> = query.iter().zip(&centre).map(|(x, c)| (x + c).round() as i8).collect();
            for (class, score) in head.scores(&query).iter().enumerate() {
                let votes = near[..5].iter().filter(|(_, other)| *other as usize == class).count();
                let best = near.iter().find(|(_, other)| *other as usize == class).unwrap().0;
                assert!((score - (votes as f64 + (1.0 + best) / 4.0) / 5.0).abs() < 1e-12);
            }
        }
    }

    fn assert_folds_equal_fits(set: &SampleSet, k: u32) {
        let training = Training::of(set).unwrap();
        let whole = Whole::of(&training);
        let plan = Plan::of(&training).ok().unwrap();
        let ids: Vec<_> = set.live().map(|(id, ..)| id).collect();
        let basis = Basis::new(&training, &whole);
        for (fold, scores) in plan.folds.iter().zip(left_out_scores(&basis, &plan.folds, k)) {
            let mut rest = set.clone();
            fold.removed.iter().for_each(|i| assert!(rest.remove(ids[*i])));
            let rest = Training::of(&rest).unwrap();
            let head = Knn::fit(&rest, &crate::sums::ClassSums::of(&rest).means(), k).unwrap();
            for (i, scores) in fold.test.iter().zip(scores) {
                let expected = head.scores(training.samples[*i].embedding);
                let left = training.labels.iter().zip(&scores).filter(|(label, _)| rest.labels.contains(label));
                assert!(left.zip(expected).all(|((_, a), b)| (a - b).abs() < 1e-9), "{scores:?}");
                let gone = scores.iter().filter(|score| **score == f64::NEG_INFINITY).count();
                assert_eq!(gone, training.n_classes() - rest.n_classes());
            }
        }
    }

    #[test]
    fn folds_equal_heads_trained_without_them() {
        assert_folds_equal_fits(&synthetic::clusters(3, 6, 16, 1), 3);
        // Sessions across classes; class 9 lies in one of them.
        let mut set = SampleSet::new(synthetic::SPACE, 12);
        let mut rows = synthetic::rows(4, 9, 12, 3);
        rows.truncate(31);
        rows.extend(synthetic::rows(1, 2, 12, 77).into_iter().map(|(_, row)| (9, row)));
        for (number, (class, row)) in rows.into_iter().enumerate() {
            let number = number as u32;
            let session = synthetic::meta(0, if class == 9 { 3 } else { number % 7 }).session;
            set.insert(graft_wire::SampleMeta { session, ..synthetic::meta(class, number) }, &row).unwrap();
        }
        assert_folds_equal_fits(&set, 3);
    }

    #[test]
    fn a_head_keeps_as_many_of_each_class() {
        let mut rows: Vec<(u32, Vec<i8>)> = (0..3000u32).map(|i| (0, [1, (i % 100) as i8].to_vec())).collect();
        rows.extend((0..30).map(|i| (1, [100, i as i8].to_vec())));
        let set = synthetic::set_of(&rows);
        let kept = kept(&Training::of(&set).unwrap());
        assert_eq!(kept.len(), SAMPLES_MAX);
    }

    #[test]
    fn neighbours_do_not_outnumber_the_smallest_class() {
        let mut rows = synthetic::rows(3, 12, 16, 2);
        rows.truncate(26);
        let set = synthetic::set_of(&rows);
        let training = Training::of(&set).unwrap();
        assert!(choose_k(&training, &crate::sums::ClassSums::of(&training).means()) <= 2);
    }
}
