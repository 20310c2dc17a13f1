//! Statistics of one tensor over the calibration inputs, and the range that costs least.

/// Bins over `-reach..reach`.
const BINS: usize = 4096;
/// At most so many elements of one tensor of one input enter the histogram; extremes and means see all.
const HISTOGRAM_ELEMENTS_MAX: usize = 1 << 16;

/// Of one channel.
#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    sum: f64,
    squares: f64,
    low: f32,
    high: f32,
}

/// Minimum, maximum, histogram, mean per channel.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Smallest value seen, at most 0.
    pub low: f64,
    /// Largest value seen, at least 0.
    pub high: f64,
    channels: Vec<Channel>,
    n_per_channel: u64,
    bins: Vec<u64>,
    /// The histogram covers `-reach..reach`.
    reach: f64,
}

impl Statistics {
    /// Of a tensor with `n_channels` channels; 0 for no means.
    pub fn new(n_channels: usize) -> Statistics {
        let channels = vec![Channel::default(); n_channels];
        Statistics { low: 0.0, high: 0.0, channels, n_per_channel: 0, bins: vec![0; BINS], reach: 0.0 }
    }

    /// Adds a tensor of which channel `i / inner % n_channels` is that of element `i`. False if a value is not finite.
    pub fn add(&mut self, values: &[f32], inner: usize) -> bool {
        let n_channels = self.channels.len();
        let (mut low, mut high, mut wrong) = (0f32, 0f32, 0f32);
        if n_channels > 0 && inner > 1 {
            for (i, row) in values.chunks(inner).enumerate() {
                let seen = Row::of(row);
                (low, high, wrong) = (low.min(seen.low), high.max(seen.high), wrong + seen.wrong);
                self.channels[i % n_channels].add(&seen);
            }
        } else {
            let seen = Row::of(values);
            (low, high, wrong) = (seen.low, seen.high, seen.wrong);
            for pixel in values.chunks_exact(n_channels.max(1)).filter(|_| n_channels > 0) {
                for (channel, v) in self.channels.iter_mut().zip(pixel) {
                    channel.add(&Row { sum: *v, squares: v * v, low: *v, high: *v, wrong: 0.0 });
                }
            }
        }
        if wrong.is_nan() {
            return false;
        }
        if let Some(n) = values.len().checked_div(n_channels) {
            self.n_per_channel += n as u64;
        }
        self.low = self.low.min(low.into());
        self.high = self.high.max(high.into());
        self.widen(f64::from(high.max(-low)));
        if self.reach > 0.0 {
            // An odd stride, so that no channel is met more often than another.
            let stride = (values.len() / HISTOGRAM_ELEMENTS_MAX) | 1;
            let (factor, middle) = ((BINS as f64 / 2.0 / self.reach) as f32, BINS as f32 / 2.0);
            for v in values.iter().step_by(stride) {
                let bin = ((v * factor + middle) as usize).min(BINS - 1);
                self.bins[bin] += 1;
            }
        }
        true
    }

    /// Mean per channel; zeros where nothing was seen, empty without channels.
    pub fn means(&self) -> Vec<f64> {
        let n = self.n_per_channel.max(1) as f64;
        self.channels.iter().map(|c| c.sum / n).collect()
    }

    /// Variance per channel.
    pub fn variances(&self) -> Vec<f64> {
        let n = self.n_per_channel.max(1) as f64;
        self.channels.iter().map(|c| (c.squares / n - (c.sum / n) * (c.sum / n)).max(0.0)).collect()
    }

    /// Smallest (at most 0) and largest (at least 0) value per channel; None without channels.
    pub fn channel_ranges(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        let ends = self.channels.iter().map(|c| (f64::from(c.low), f64::from(c.high)));
        (!self.channels.is_empty()).then(|| ends.unzip())
    }

    /// After the tensor's channels grew by `factors`.
    pub fn scale_means(&mut self, factors: &[f64]) {
        for (channel, factor) in self.channels.iter_mut().zip(factors) {
            channel.sum *= factor;
        }
    }

    /// Makes the histogram cover `magnitude`, joining bins in pairs.
    fn widen(&mut self, magnitude: f64) {
        if self.reach == 0.0 {
            self.reach = magnitude * (1.0 + 1e-6);
            return;
        }
        while magnitude >= self.reach {
            let old = std::mem::replace(&mut self.bins, vec![0; BINS]);
            for (i, n) in old.into_iter().enumerate() {
                self.bins[BINS / 4 + i / 2] += n;
            }
            self.reach *= 2.0;
        }
    }

    /// The range whose 8-bit form has the least mean squared error: clipping the rare extremes makes the steps of all
    /// other values finer.
    ///
    /// `[low, high]` with `low <= 0 <= high`, inside what was seen.
    pub fn best_range(&self) -> [f64; 2] {
        let mut best = [self.low, self.high];
        if self.reach == 0.0 {
            return best;
        }
        let mut least = self.error(best);
        // One end after the other, twice: the ends hardly influence each other.
        for _ in 0..2 {
            for end in 0..2 {
                let full = [self.low, self.high][end];
                for percent in 30..100 {
                    let mut range = best;
                    range[end] = full * f64::from(percent) / 100.0;
                    let error = self.error(range);
                    if error < least {
                        (least, best) = (error, range);
                    }
                }
            }
        }
        best
    }

    /// The range that leaves one value in `1 / (1 - share)` outside, on each side.
    ///
    /// `[low, high]` with `low <= 0 <= high`, inside what was seen.
    pub fn percentile_range(&self, share: f64) -> [f64; 2] {
        let n: u64 = self.bins.iter().sum();
        let outside = (n as f64 * (1.0 - share)).floor() as u64;
        let width = 2.0 * self.reach / BINS as f64;
        let mut range = [self.low, self.high];
        let mut seen = 0;
        if let Some(i) = self.bins.iter().position(|count| {
            seen += count;
            seen > outside
        }) {
            range[0] = range[0].max((i as f64 * width - self.reach).min(0.0));
        }
        seen = 0;
        if let Some(i) = self.bins.iter().rposition(|count| {
            seen += count;
            seen > outside
        }) {
            range[1] = range[1].min(((i + 1) as f64 * width - self.reach).max(0.0));
        }
        range
    }

    /// Mean squared error of 8 bits over a range: step^2 / 12 inside, the distance outside.
    fn error(&self, [low, high]: [f64; 2]) -> f64 {
        let step = (high - low) / 255.0;
        let width = 2.0 * self.reach / BINS as f64;
        let (mut sum, mut n) = (0.0, 0u64);
        for (i, count) in self.bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            let v = (i as f64 + 0.5) * width - self.reach;
            let outside = (v - high).max(low - v).max(0.0);
            let error = if outside > width { outside * outside } else { step * step / 12.0 };
            sum += error * *count as f64;
            n += count;
        }
        sum / n.max(1) as f64
    }
}

/// A stretch of one channel.
struct Row {
    sum: f32,
    squares: f32,
    low: f32,
    high: f32,
    /// NaN if a value is not finite, else 0.
    wrong: f32,
}

impl Row {
    fn of(values: &[f32]) -> Row {
        // Lanes of their own let the compiler use vectors; f32 sums of one channel of one input are exact enough.
        const LANES: usize = 16;
        let (mut sum, mut squares, mut low, mut high) = ([0f32; LANES], [0f32; LANES], [0f32; LANES], [0f32; LANES]);
        let mut add = |i: usize, v: f32| {
            sum[i] += v;
            squares[i] += v * v;
            low[i] = if v < low[i] { v } else { low[i] };
            high[i] = if v > high[i] { v } else { high[i] };
        };
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (i, v) in chunk.iter().enumerate() {
                add(i, *v);
            }
        }
        for (i, v) in rest.iter().enumerate() {
            add(i, *v);
        }
        let squares: f32 = squares.iter().sum();
        // What is not finite makes the squares so; large values do, too, and are told apart by looking again.
        let wrong = if squares.is_finite() { 0.0 } else { values.iter().fold(0.0, |wrong, v| wrong + v * 0.0) };
        Row {
            sum: sum.iter().sum(),
            squares,
            low: low.iter().fold(0.0, |m, v| m.min(*v)),
            high: high.iter().fold(0.0, |m, v| m.max(*v)),
            wrong,
        }
    }
}

impl Channel {
    fn add(&mut self, row: &Row) {
        self.sum += f64::from(row.sum);
        self.squares += f64::from(row.squares);
        self.low = self.low.min(row.low);
        self.high = self.high.max(row.high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_extremes_are_clipped_and_common_ones_kept() {
        let mut statistics = Statistics::new(0);
        let even: Vec<f32> = (0..50_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        assert!(statistics.add(&even, 0));
        assert!(statistics.best_range()[1] > 0.99);
        assert!(statistics.add(&[100.0], 0));
        assert_eq!((statistics.low, statistics.high), (0.0, 100.0));
        // One value in 50,000 at a hundred times the rest.
        assert!(statistics.best_range()[1] < 100.0);
    }

    #[test]
    fn percentiles_leave_their_share_outside() {
        let mut statistics = Statistics::new(0);
        assert_eq!(statistics.percentile_range(0.999), [0.0, 0.0]);
        let even: Vec<f32> = (0..10_000).map(|i| (i as f32 - 2000.0) / 1000.0).collect();
        assert!(statistics.add(&even, 0));
        let [low, high] = statistics.percentile_range(0.99);
        assert!((low + 1.9).abs() < 0.01 && (high - 7.9).abs() < 0.01, "{low} {high}");
        assert_eq!(statistics.percentile_range(1.0), [statistics.low, statistics.high]);
    }

    #[test]
    fn channels_are_told_apart_in_both_orders() {
        let (mut first, mut last) = (Statistics::new(2), Statistics::new(2));
        assert!(first.add(&[1.0, 2.0, 3.0, -4.0, -5.0, -6.0], 3));
        assert!(last.add(&[1.0, -4.0, 2.0, -5.0, 3.0, -6.0], 1));
        for statistics in [first, last] {
            assert_eq!(statistics.means(), [2.0, -5.0]);
            assert_eq!(statistics.channel_ranges(), Some((vec![0.0, -6.0], vec![3.0, 0.0])));
            assert!(statistics.variances().iter().all(|v| (v - 2.0 / 3.0).abs() < 1e-6));
        }
    }

    #[test]
    fn values_that_are_no_numbers_are_found() {
        assert!(!Statistics::new(0).add(&[1.0, f32::NAN], 0));
        assert!(!Statistics::new(1).add(&[f32::INFINITY; 40], 40));
    }
}
