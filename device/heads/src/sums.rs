//! Exact sums of int8 embeddings, and centring in wider integers.
//!
//! Class sums are i64, so they do not depend on order and a fold's sums are the whole minus the fold, bit for bit.
//! A class mean is its sum divided by its count, rounded once to a step of 2^-32; from there to the centred value
//! everything is integer, so classes with the same mean differ by exactly zero. With |component| <= 127, C <= 4096
//! and D <= 8192 the bounds are: class mean 2^39 steps, sum over classes 2^51, both exact in f64 as well; products of
//! two centred embeddings 2^117, in i128.

use alloc::vec;
use alloc::vec::Vec;

use graft_kernels::dot::{dot_i8, dot_i16, dots_i16};

use crate::training::Training;
use crate::vector::dot;

/// Steps per unit of a class mean.
const STEPS: i64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 32;
/// Embeddings that every other one is multiplied with before the next ones come: they stay in cache.
const KERNEL_BLOCK: usize = 8;

/// Samples of a class whose products are summed at a time: their columns stay in the second-level cache.
const SCATTER_BLOCK: usize = 256;

/// `numerator / denominator` in steps of 2^-32, rounded to nearest, ties up. `denominator` > 0, |quotient| < 2^30.
fn divide(numerator: i64, denominator: u32) -> i64 {
    let denominator = i64::from(denominator);
    let (quotient, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    // rest < 2^32, so its shifted value needs one bit more than i64 has.
    let fraction = ((rest as u64) << STEP_BITS).saturating_add(denominator as u64 / 2) / denominator as u64;
    (quotient << STEP_BITS) + fraction as i64
}

/// Sums of embeddings per class.
#[derive(Clone)]
pub(crate) struct ClassSums {
    embedding_len: usize,
    /// Samples per class, `[C]`.
    counts: Vec<u32>,
    /// `[C, D]`.
    sums: Vec<i64>,
    /// Sum of squared lengths, `[C]`.
    squares: Vec<i64>,
}

impl ClassSums {
    pub fn of(training: &Training<'_>) -> Self {
        let (n_classes, embedding_len) = (training.n_classes(), training.embedding_len);
        let mut sums = vec![0i64; n_classes * embedding_len];
        let mut squares = vec![0i64; n_classes];
        for sample in &training.samples {
            let row = &mut sums[sample.class * embedding_len..][..embedding_len];
            for (sum, component) in row.iter_mut().zip(sample.embedding) {
                *sum = sum.wrapping_add(i64::from(*component));
            }
            squares[sample.class] += i64::from(dot_i8(sample.embedding, sample.embedding));
        }
        Self { embedding_len, counts: training.counts.clone(), sums, squares }
    }

    /// Takes one sample out again, exactly.
    pub fn remove(&mut self, class: usize, embedding: &[i8]) {
        self.counts[class] -= 1;
        let row = &mut self.sums[class * self.embedding_len..][..self.embedding_len];
        for (sum, component) in row.iter_mut().zip(embedding) {
            *sum -= i64::from(*component);
        }
        self.squares[class] -= i64::from(dot_i8(embedding, embedding));
    }

    /// Means of the classes that have a sample.
    pub fn means(&self) -> ClassMeans {
        let embedding_len = self.embedding_len;
        let classes: Vec<usize> = (0..self.counts.len()).filter(|class| self.counts[*class] > 0).collect();
        let mut rows = Vec::with_capacity(classes.len() * embedding_len);
        let mut total = vec![0; embedding_len];
        let mut scatters = Vec::with_capacity(classes.len());
        for class in &classes {
            let row = rows.len();
            rows.extend(self.mean_of(*class));
            for (total, mean) in total.iter_mut().zip(&rows[row..]) {
                *total += mean;
            }
            scatters.push(self.scatter_of(*class));
        }
        let counts = classes.iter().map(|class| self.counts[*class]).collect();
        ClassMeans { embedding_len, classes, counts, rows, total, scatters }
    }

    /// The mean of a class that has samples, `[D]` in steps of 2^-32.
    fn mean_of(&self, class: usize) -> impl Iterator<Item = i64> + '_ {
        let count = self.counts[class];
        self.sums[class * self.embedding_len..][..self.embedding_len].iter().map(move |sum| divide(*sum, count))
    }

    /// Sum of squared distances to the class mean, n sum |x|^2 - |sum x|^2 over n: zero for one sample, exactly.
    fn scatter_of(&self, class: usize) -> f64 {
        let (sums, count) = (&self.sums[class * self.embedding_len..][..self.embedding_len], self.counts[class]);
        let squared: i128 = sums.iter().map(|sum| i128::from(*sum) * i128::from(*sum)).sum();
        let scatter = i128::from(count) * i128::from(self.squares[class]) - squared;
        scatter as f64 / f64::from(count)
    }
}

/// Means of classes and their mean, the centre, in steps of 2^-32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassMeans {
    embedding_len: usize,
    /// Class numbers, ascending; K of them.
    pub classes: Vec<usize>,
    /// Samples of each, `[K]`.
    pub counts: Vec<u32>,
    /// `[K, D]`.
    rows: Vec<i64>,
    /// Sum over classes, `[D]`: K times the centre.
    total: Vec<i64>,
    /// Sum of squared distances to each mean, `[K]`.
    scatters: Vec<f64>,
}

impl ClassMeans {
    /// Steps per unit of anything centred: the centre is a K-th of integers.
    fn steps(&self) -> i64 {
        self.classes.len() as i64 * STEPS
    }

    /// The centre, `[D]`: the mean of class means, one rounding each.
    pub fn centre(&self) -> Vec<f64> {
        self.total.iter().map(|total| *total as f64 / self.steps() as f64).collect()
    }

    /// Class means `[K, D]` in steps of 1/256, rounded to nearest, ties up; they fit i16 as |component| <= 127.
    pub fn rounded(&self) -> Vec<i16> {
        const SHIFT: u32 = STEP_BITS - 8;
        self.rows.iter().map(|steps| ((steps + (1 << (SHIFT - 1))) >> SHIFT) as i16).collect()
    }

    /// What [`ClassSums::means`] of `sums` is, given that these differ from those behind `self` in `changed` classes only,
    /// ascending: a fold costs as much as its classes, not as all of them.
    pub fn updated(&self, sums: &ClassSums, changed: &[usize]) -> Self {
        let d = self.embedding_len;
        let mut means = self.clone();
        // From the back, so that places before a class that vanishes stay right.
        for class in changed.iter().rev() {
            let Ok(k) = means.classes.binary_search(class) else { continue };
            let row = &mut means.rows[k * d..][..d];
            for (total, mean) in means.total.iter_mut().zip(&*row) {
                *total -= mean;
            }
            means.counts[k] = sums.counts[*class];
            if means.counts[k] == 0 {
                means.rows.drain(k * d..(k + 1) * d);
                means.classes.remove(k);
                means.counts.remove(k);
                means.scatters.remove(k);
                continue;
            }
            for ((mean, total), new) in row.iter_mut().zip(&mut means.total).zip(sums.mean_of(*class)) {
                *mean = new;
                *total += new;
            }
            means.scatters[k] = sums.scatter_of(*class);
        }
        means
    }

    /// The same with other means: for a class number, sums `[D]` and how many values each is of.
    pub fn with_sums(&self, mut sums_of: impl FnMut(usize) -> (Vec<i64>, u32)) -> Self {
        let mut means = self.clone();
        means.rows.clear();
        means.total.fill(0);
        for class in &self.classes {
            let (sums, count) = sums_of(*class);
            let row = sums.iter().map(|sum| divide(*sum, count));
            for (total, mean) in means.total.iter_mut().zip(row) {
                *total += mean;
                means.rows.push(mean);
            }
        }
        means
    }

    /// Class mean minus centre, `[D]`, for the k-th class that has samples; one rounding each.
    pub fn centred_mean(&self, k: usize) -> Vec<f64> {
        let row = &self.rows[k * self.embedding_len..][..self.embedding_len];
        let n_classes = self.classes.len() as i64;
        let centred = row.iter().zip(&self.total).map(|(mean, total)| n_classes * mean - total);
        centred.map(|value| value as f64 / self.steps() as f64).collect()
    }

    /// Mean squared distance of samples to their class mean, pooled over classes, unbiased; 0 where every class has one
    /// sample.
    pub fn variance_within(&self) -> f64 {
        let freedom: u64 = self.counts.iter().map(|count| u64::from(*count) - 1).sum();
        if freedom > 0 { self.scatters.iter().sum::<f64>() / freedom as f64 } else { 0.0 }
    }

    /// Trace of the class-balanced scatter within classes: the sum over classes of the mean squared distance to their mean.
    pub fn balanced_scatter(&self) -> f64 {
        self.scatters.iter().zip(&self.counts).map(|(scatter, count)| scatter / f64::from(*count)).sum()
    }

    /// Trace of the class-balanced scatter around the centre: the same with the distance to the centre.
    pub fn balanced_spread(&self) -> f64 {
        let between = (0..self.classes.len()).map(|k| self.centred_mean(k)).map(|row| dot(&row, &row));
        self.balanced_scatter() + between.sum::<f64>()
    }

    /// Embedding minus centre, `[D]`, one rounding each.
    pub fn centred(&self, embedding: &[i8]) -> Vec<f64> {
        let centred = embedding.iter().zip(&self.total).map(|(x, total)| i64::from(*x) * self.steps() - total);
        centred.map(|value| value as f64 / self.steps() as f64).collect()
    }

    /// Dot products of all pairs of centred embeddings, `[N, N]`; lower triangle filled, one rounding each.
    pub fn kernel(&self, training: &Training<'_>) -> Vec<f64> {
        let samples = &training.samples;
        let n = samples.len();
        let steps = i128::from(self.steps());
        let unit = self.steps() as f64 * self.steps() as f64;
        let along = |x: &i8, total: &i64| i128::from(*x) * i128::from(*total);
        let on_centre: Vec<i128> = samples
            .iter()
            .map(|sample| sample.embedding.iter().zip(&self.total).map(|(x, total)| along(x, total)).sum())
            .collect();
        let centre: i128 = self.total.iter().map(|total| i128::from(*total) * i128::from(*total)).sum();
        let d = self.embedding_len;
        let wide: Vec<i16> = samples.iter().flat_map(|sample| sample.embedding).map(|x| i16::from(*x)).collect();
        let row = |i: usize| &wide[i * d..][..d];
        let mut kernel = vec![0.0; n * n];
        for first in (0..n).step_by(KERNEL_BLOCK) {
            for i in first..n {
                let mut put = |j: usize, raw: i32| {
                    let centred = i128::from(raw) * steps * steps - (on_centre[i] + on_centre[j]) * steps + centre;
                    kernel[i * n + j] = centred as f64 / unit;
                };
                let end = (first + KERNEL_BLOCK).min(i + 1);
                let fours = first + (end - first) / 4 * 4;
                for j in (first..fours).step_by(4) {
                    let raw = dots_i16(row(i), [j, j + 1, j + 2, j + 3].map(row));
                    (j..).zip(raw).for_each(|(j, raw)| put(j, raw));
                }
                (fours..end).for_each(|j| put(j, dot_i16(row(i), row(j))));
            }
        }
        kernel
    }

    /// Class-balanced scatter around the centre, `[D, D]`: sum over classes of the mean outer product of their centred
    /// samples; lower triangle filled.
    ///
    /// Each class's integer Gram is divided by its count with one rounding to a step of 2^-32; the rest is integer.
    /// Every class has samples here.
    pub fn scatter(&self, training: &Training<'_>) -> Vec<f64> {
        let d = self.embedding_len;
        let (mut gram, mut of_class) = (vec![0i64; d * d], vec![0i64; d * d]);
        for (class, count) in training.counts.iter().enumerate() {
            let members: Vec<&[i8]> =
                training.samples.iter().filter(|sample| sample.class == class).map(|s| s.embedding).collect();
            of_class.fill(0);
            members.chunks(SCATTER_BLOCK).for_each(|members| add_products(members, d, &mut of_class));
            for p in 0..d {
                for (sum, products) in gram[p * d..][..=p].iter_mut().zip(&of_class[p * d..]) {
                    *sum += divide(*products, *count);
                }
            }
        }
        let n_classes = self.classes.len() as f64;
        let unit = n_classes * STEPS as f64 * STEPS as f64;
        let mut scatter = vec![0.0; d * d];
        for p in 0..d {
            for q in 0..=p {
                let raw = i128::from(gram[p * d + q]) * i128::from(self.steps());
                let centred = raw - i128::from(self.total[p]) * i128::from(self.total[q]);
                scatter[p * d + q] = centred as f64 / unit;
            }
        }
        scatter
    }
}

/// Adds to the lower triangle of `gram` `[D, D]` the products of all pairs of components, summed over at most
/// [`SCATTER_BLOCK`] members `[D]`.
fn add_products(members: &[&[i8]], d: usize, gram: &mut [i64]) {
    // [n, D] -> [D, n], so that a pair of components is a dot product of two rows.
    let n = members.len();
    let mut columns = vec![0i16; d * n];
    for (i, member) in members.iter().enumerate() {
        for (p, component) in member.iter().enumerate() {
            columns[p * n + i] = i16::from(*component);
        }
    }
    let column = |p: usize| &columns[p * n..][..n];
    for (p, sums) in gram.chunks_exact_mut(d.max(1)).enumerate() {
        let (fours, rest) = sums[..=p].as_chunks_mut::<4>();
        let n_fours = 4 * fours.len();
        for (k, sums) in fours.iter_mut().enumerate() {
            let products = dots_i16(column(p), [0, 1, 2, 3].map(|at| column(4 * k + at)));
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += i64::from(product));
        }
        for (q, sum) in (n_fours..).zip(rest) {
            *sum += i64::from(dot_i16(column(p), column(q)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn division_rounds_to_nearest_in_both_directions() {
        assert_eq!(divide(7, 7), STEPS);
        assert_eq!(divide(-7, 7), -STEPS);
        assert_eq!(divide(1, 3), 1431655765); // 2^32 / 3 = 1431655765.33
        assert_eq!(divide(-1, 3), -1431655765);
        assert_eq!(divide(2, 3), 2863311531); // 2863311530.67
        assert_eq!(divide(i64::from(u32::MAX) * 127, u32::MAX), 127 * STEPS);
        assert_eq!(divide(i64::from(u32::MAX - 1), u32::MAX), STEPS - 1);
    }

    #[test]
    fn equal_class_means_centre_to_exactly_zero() {
        // Three classes of three samples whose mean is no binary fraction.
        let mut rows = Vec::new();
        for class in 0..3 {
            for values in [[1, 2], [1, 5], [2, 9]] {
                rows.push((class, values.to_vec()));
            }
        }
        let set = synthetic::set_of(&rows);
        let means = ClassSums::of(&Training::of(&set).unwrap()).means();
        for k in 0..3 {
            assert_eq!(means.centred_mean(k), [0.0, 0.0]);
        }
    }

    #[test]
    fn removing_a_sample_equals_never_adding_it() {
        let whole = synthetic::clusters(3, 4, 16, 9);
        let training = Training::of(&whole).unwrap();
        let mut sums = ClassSums::of(&training);
        sums.remove(training.samples[5].class, training.samples[5].embedding);
        let mut less = whole.clone();
        less.remove(whole.live().nth(5).unwrap().0);
        let expected = ClassSums::of(&Training::of(&less).unwrap());
        assert_eq!((sums.counts, sums.sums), (expected.counts, expected.sums));
    }

    #[test]
    fn updated_means_are_those_of_the_sums_bit_for_bit() {
        let set = synthetic::clusters(4, 3, 16, 9);
        let training = Training::of(&set).unwrap();
        let whole = ClassSums::of(&training);
        let means = whole.means();
        let of = |class: usize| training.samples.iter().filter(move |sample| sample.class == class);
        // One sample of class 0, two of class 3, and class 1 whole.
        let mut sums = whole.clone();
        of(0).take(1).chain(of(1)).chain(of(3).take(2)).for_each(|sample| sums.remove(sample.class, sample.embedding));
        let updated = means.updated(&sums, &[0, 1, 3]);
        assert_eq!(updated, sums.means());
        assert_eq!(updated.classes, [0, 2, 3]);
    }

    #[test]
    fn rounded_means_are_in_steps_of_a_256th() {
        let rows = [(0, [127i8, -127, 1].to_vec()), (0, [127, -127, 2].to_vec()), (1, [0, 1, -1].to_vec())];
        let set = synthetic::set_of(&rows);
        let means = ClassSums::of(&Training::of(&set).unwrap()).means();
        assert_eq!(means.rounded(), [127 * 256, -127 * 256, 384, 0, 256, -256]);
    }

    #[test]
    fn kernel_and_scatter_agree_with_plain_centring() {
        let set = synthetic::clusters(3, 5, 8, 4);
        let training = Training::of(&set).unwrap();
        let means = ClassSums::of(&training).means();
        let rows: Vec<Vec<f64>> = training.samples.iter().map(|sample| means.centred(sample.embedding)).collect();
        let (kernel, scatter) = (means.kernel(&training), means.scatter(&training));
        let n = rows.len();
        for i in 0..n {
            for j in 0..=i {
                let expected: f64 = rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum();
                assert!((kernel[i * n + j] - expected).abs() < 1e-7, "kernel {i} {j}");
            }
        }
        for p in 0..8 {
            for q in 0..=p {
                let of = |(row, sample): (&Vec<f64>, &crate::training::Sample<'_>)| {
                    row[p] * row[q] / f64::from(training.counts[sample.class])
                };
                let expected: f64 = rows.iter().zip(&training.samples).map(of).sum();
                assert!((scatter[p * 8 + q] - expected).abs() < 1e-6, "scatter {p} {q}");
            }
        }
    }
}
