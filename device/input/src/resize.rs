//! Resizing, equal to the 8-bit resampling of Pillow up to 12 bit for bit (`ImagingResample` in Pillow's `Resample.c`; nearest:
//! `ImagingScaleAffine` in `Geometry.c`), because backbones were trained behind it and users compare with it.
//!
//! Two passes, first along rows, then along columns, with u8 between them. For each result position an [`Axis`] lists
//! the source positions it takes and their weights: the filter, stretched by the scale when shrinking, sampled in f64
//! with `+ - * /` alone (so the same bits everywhere), normalised, and rounded to 22-bit fixed point. A pass is
//! `clamp((2^21 + sum(weight * value)) >> 22)`.
//!
//! Pillow takes columns before rows for pictures more than 100 times as high as wide, and Pillow 13 wherever that is
//! cheaper (some upright photos); it then differs by a step here and there. Rows first is kept: one rule, and what the
//! usual backbones were trained with.
//!
//! Only the rows and columns of a window of the result are computed, so that a centre crop of a very long picture costs
//! no more than what is kept.

use std::ops::Range;

use graft_bundle::input::Filter;

/// Bits after the point of a weight: 32 less 8 for the value and 2 for headroom.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// How one side of the result is made from one side of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    taps: Vec<Taps>,
}

/// One result position: consecutive source positions and their weights in units of 2^-22.
#[derive(Clone, Debug, PartialEq)]
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

impl Axis {
    /// The positions `window` of a side of `source` pixels brought to `target` pixels; `window` lies within
    /// `0..target`, `source` is at least 1.
    pub fn new(filter: Filter, source: usize, target: u64, window: Range<u64>) -> Axis {
        let taps = match filter {
            Filter::Bilinear => weighted(triangle, 1.0, source, target, window),
            Filter::Bicubic => weighted(keys_cubic, 2.0, source, target, window),
            Filter::Nearest => nearest(source, target, window),
        };
        Axis { taps }
    }

    /// Source positions that are needed.
    fn span(&self) -> Range<usize> {
        let start = self.taps.iter().map(|taps| taps.start).min().unwrap_or(0);
        let end = self.taps.iter().map(|taps| taps.start + taps.weights.len()).max().unwrap_or(0);
        start..end
    }
}

/// Bilinear when enlarging.
fn triangle(x: f64) -> f64 {
    let x = if x < 0.0 { -x } else { x };
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

/// Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -0.5.
fn keys_cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = if x < 0.0 { -x } else { x };
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// `precompute_coeffs` and `normalize_coeffs_8bpc`; the order of operations is theirs.
fn weighted(filter: fn(f64) -> f64, radius: f64, source: usize, target: u64, window: Range<u64>) -> Vec<Taps> {
    let scale = source as f64 / target as f64;
    let filter_scale = if scale < 1.0 { 1.0 } else { scale };
    let support = radius * filter_scale;
    let inv_filter_scale = 1.0 / filter_scale;
    let taps_of = |position: u64| {
        let center = (position as f64 + 0.5) * scale;
        // `as` truncates towards zero, as C does, and holds at 0.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(source);
        let mut sum = 0.0;
        let mut weights = Vec::with_capacity(end.saturating_sub(start));
        for x in start..end {
            let weight = filter((x as f64 - center + 0.5) * inv_filter_scale);
            sum += weight;
            weights.push(weight);
        }
        let fixed = |weight: f64| {
            let normalised = if sum == 0.0 { weight } else { weight / sum } * f64::from(1u32 << PRECISION_BITS);
            if normalised < 0.0 { (normalised - 0.5) as i32 } else { (normalised + 0.5) as i32 }
        };
        Taps { start, weights: weights.into_iter().map(fixed).collect() }
    };
    window.map(taps_of).collect()
}

/// Positions are summed up step by step, because Pillow does, rounding included.
fn nearest(source: usize, target: u64, window: Range<u64>) -> Vec<Taps> {
    let step = source as f64 / target as f64;
    let mut position = step * 0.5;
    let mut taps = Vec::new();
    for x in 0..window.end {
        if x >= window.start {
            taps.push(Taps { start: (position as usize).min(source - 1), weights: vec![1 << PRECISION_BITS] });
        }
        position += step;
    }
    taps
}

/// Resizes rows of `width` pixels of `C` bytes: `[H, W, C]` -> `[rows, columns, C]`, `H` and `W` being the sources of the
/// two axes.
pub fn resize<const C: usize>(source: &[u8], width: usize, columns: &Axis, rows: &Axis) -> Vec<u8> {
    let needed = rows.span();
    let n_columns = columns.taps.len();
    // [needed rows, columns, C]
    let mut between = Vec::with_capacity(needed.len() * n_columns * C);
    for row in source.chunks_exact((width * C).max(1)).skip(needed.start).take(needed.len()) {
        resize_row::<C>(row, columns, &mut between);
    }
    let line_len = n_columns * C;
    let mut result = Vec::with_capacity(rows.taps.len() * line_len);
    let mut sums = vec![0i32; line_len];
    for taps in &rows.taps {
        sums.fill(1 << (PRECISION_BITS - 1));
        let lines = between.chunks_exact(line_len.max(1)).skip(taps.start - needed.start);
        for (line, &weight) in lines.zip(&taps.weights) {
            add_weighted(&mut sums, line, weight);
        }
        result.extend(sums.iter().map(|&sum| to_u8(sum)));
    }
    result
}

fn resize_row<const C: usize>(row: &[u8], columns: &Axis, out: &mut Vec<u8>) {
    let (pixels, _) = row.as_chunks::<C>();
    for taps in &columns.taps {
        let window = pixels.get(taps.start..).unwrap_or_default();
        let mut sums = [1i32 << (PRECISION_BITS - 1); C];
        for (pixel, &weight) in window.iter().zip(&taps.weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.map(to_u8));
    }
}

fn add_weighted(sums: &mut [i32], line: &[u8], weight: i32) {
    for (sum, &value) in sums.iter_mut().zip(line) {
        *sum += i32::from(value) * weight;
    }
}

fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(filter: Filter, source: usize, target: u64) -> Axis {
        Axis::new(filter, source, target, 0..target)
    }

    #[test]
    fn same_size_is_identity() {
        let source: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Nearest] {
            assert_eq!(resize::<3>(&source, 7, &whole(filter, 7, 7), &whole(filter, 5, 5)), source, "{filter:?}");
        }
    }

    #[test]
    fn window_equals_crop_of_whole() {
        let source: Vec<u8> = (0..41 * 23).map(|i| (i * i * 7 % 256) as u8).collect();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Nearest] {
            let all = resize::<1>(&source, 41, &whole(filter, 41, 30), &whole(filter, 23, 50));
            let part = resize::<1>(&source, 41, &Axis::new(filter, 41, 30, 4..25), &Axis::new(filter, 23, 50, 11..40));
            let cropped: Vec<u8> = all.chunks(30).skip(11).take(29).flat_map(|row| row[4..25].to_vec()).collect();
            assert_eq!(part, cropped, "{filter:?}");
        }
    }

    #[test]
    fn sums_stay_within_i32_for_the_most_negative_lobes() {
        for (source, target) in [(1, 4096), (2, 3), (3, 2), (4, 5), (1000, 7), (65535, 1), (5, 64)] {
            for taps in whole(Filter::Bicubic, source, target).taps {
                let reach: i64 = taps.weights.iter().map(|&weight| i64::from(weight.abs()) * 255).sum();
                assert!(reach + (1 << 21) <= i64::from(i32::MAX), "{source} -> {target}: {reach}");
            }
        }
    }

    /// Weights of Pillow for 3 -> 2 pixels, bilinear: 2/3, 1/3 beyond the middle of the edge, worked out by hand.
    #[test]
    fn weights_of_a_small_case_are_known() {
        // scale 1.5, centers 0.75 and 2.25; distances of pixels 0, 1, (2): 0.25, 0.75, 1.75 over support 1.5.
        let taps = &whole(Filter::Bilinear, 3, 2).taps[0];
        let raw = [1.0 - 0.25 / 1.5, 1.0 - 0.75 / 1.5];
        let fixed = raw.map(|w: f64| (w / (raw[0] + raw[1]) * 4_194_304.0).round() as i32);
        assert_eq!((taps.start, &taps.weights[..2]), (0, &fixed[..]));
        assert!(taps.weights[2..].iter().all(|&weight| weight == 0));
    }
}
