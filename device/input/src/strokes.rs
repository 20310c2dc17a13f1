//! `strokes`: a grey picture of one sign -> the sign alone, cropped, paper 0 and ink up to 255.
//!
//! The preprocessing of the glyph backbone. The definition, step by step, is the docstring of `models/glyphs/strokes.py`;
//! this is its twin and equals it bit for bit (the golden tests below come from `models/glyphs/make_goldens.py`).
//! Integers only, every division rounds down, so every CPU sees the same sign.
//!
//! Steps are numbered as there.

use core::fmt;

/// Shortest and longest accepted side of a picture, pixels.
pub const SIDE_MIN: usize = 16;
/// See [`SIDE_MIN`].
pub const SIDE_MAX: usize = 8192;
/// Largest accepted side of the result, pixels.
pub const SIZE_MAX: usize = 256;
/// Longer pictures are shrunk to this before anything else, pixels.
const WORK_SIDE_MAX: usize = 160;

/// Why a picture gives no strokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StrokesError {
    /// Nothing stands out from the paper.
    EmptyPicture,
    /// A side is outside [`SIDE_MIN`]`..=`[`SIDE_MAX`].
    Sides {
        /// Width seen, pixels.
        width: usize,
        /// Height seen, pixels.
        height: usize,
    },
    /// `grey` does not hold width * height bytes.
    Length {
        /// Bytes seen.
        found: usize,
        /// Bytes that the sides ask for.
        expected: usize,
    },
    /// The asked-for size is 0 or above [`SIZE_MAX`].
    Size {
        /// Size seen, pixels.
        size: usize,
    },
}

impl fmt::Display for StrokesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EmptyPicture => write!(f, "empty picture: nothing stands out from the paper"),
            Self::Sides { width, height } => {
                write!(f, "picture is {width}x{height}, sides must be {SIDE_MIN}..{SIDE_MAX}")
            }
            Self::Length { found, expected } => {
                write!(f, "picture has {found} bytes, its sides ask for {expected}")
            }
            Self::Size { size } => write!(f, "strokes size is {size}, must be 1..{SIZE_MAX}"),
        }
    }
}

impl std::error::Error for StrokesError {}

/// Finds what is drawn in a picture, crops to it and brings it to one size and contrast.
///
/// Shapes, row-major: `grey` `[height, width]`, 0 black; returns `[size, size]`, paper 0, ink up to 255. Dark on light or
/// light on dark.
///
/// # Errors
/// [`StrokesError::EmptyPicture`] if nothing stands out; the other variants if the arguments do not fit each other.
pub fn strokes(grey: &[u8], width: usize, height: usize, size: usize) -> Result<Vec<u8>, StrokesError> {
    let sides = SIDE_MIN..=SIDE_MAX;
    if !sides.contains(&width) || !sides.contains(&height) {
        return Err(StrokesError::Sides { width, height });
    }
    if grey.len() != width * height {
        return Err(StrokesError::Length { found: grey.len(), expected: width * height });
    }
    if size == 0 || size > SIZE_MAX {
        return Err(StrokesError::Size { size });
    }
    let picture = smooth(&shrink(&Plane { width, values: grey.iter().map(|&v| i32::from(v)).collect() }));
    let dark_ink = if ink_is_light(&picture) { picture.map(|v| 255 - v) } else { picture };
    let darkness = Darkness::measure(&dark_ink).ok_or(StrokesError::EmptyPicture)?;
    let low = darkness.low();
    let mask = darkness.mask(low);
    let crop = crop_square(&darkness.ink(&mask, low), &mask).ok_or(StrokesError::EmptyPicture)?;
    // Step 11.
    let out = area_average(&crop, size, size);
    let brightest = out.values.iter().copied().max().unwrap_or(0);
    if brightest == 0 {
        return Err(StrokesError::EmptyPicture);
    }
    Ok(out.values.iter().map(|&v| to_u8(rdiv(255 * v, brightest))).collect())
}

/// A row-major picture; `values.len()` is a multiple of `width`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plane {
    width: usize,
    values: Vec<i32>,
}

impl Plane {
    fn height(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    fn longest(&self) -> usize {
        self.width.max(self.height())
    }

    fn rows(&self) -> core::slice::ChunksExact<'_, i32> {
        self.values.chunks_exact(self.width.max(1))
    }

    fn map(&self, f: impl Fn(i32) -> i32) -> Plane {
        Plane { width: self.width, values: self.values.iter().map(|&v| f(v)).collect() }
    }

    fn zip(&self, other: &Plane, f: impl Fn(i32, i32) -> i32) -> Plane {
        let values = self.values.iter().zip(&other.values).map(|(&a, &b)| f(a, b)).collect();
        Plane { width: self.width, values }
    }

    /// Applies `f` to every row, then to every column of the result; `f` may change the length.
    fn rows_then_columns(&self, f: impl Fn(&[i32]) -> Vec<i32>) -> Plane {
        self.each_row(&f).transposed().each_row(&f).transposed()
    }

    fn each_row(&self, f: impl Fn(&[i32]) -> Vec<i32>) -> Plane {
        let height = self.height();
        let values: Vec<i32> = self.rows().flat_map(f).collect();
        Plane { width: values.len() / height.max(1), values }
    }

    fn transposed(&self) -> Plane {
        let columns = (0..self.width).flat_map(|x| self.values.iter().skip(x).step_by(self.width));
        Plane { width: self.height(), values: columns.copied().collect() }
    }
}

/// Step 1. Shrinks so that the longest side is at most [`WORK_SIDE_MAX`].
fn shrink(picture: &Plane) -> Plane {
    let longest = picture.longest();
    if longest <= WORK_SIDE_MAX {
        return picture.clone();
    }
    let shrunk = |side: usize| ((WORK_SIDE_MAX * side + longest / 2) / longest).max(1);
    area_average(picture, shrunk(picture.width), shrunk(picture.height()))
}

/// Averages by area to `[height, width]`; cells may be smaller than pixels.
///
/// Lengths are counted in units of 1 / (pixels * cells), so every share is an integer and nothing is rounded before the end.
fn area_average(picture: &Plane, width: usize, height: usize) -> Plane {
    let across = shares(picture.width, width);
    let mut sums = vec![0i64; width * height];
    let mut down = shares(picture.height(), height).into_iter().peekable();
    for (y, row) in picture.rows().enumerate() {
        let mut cells = vec![0i64; width];
        for share in &across {
            if let (Some(cell), Some(&value)) = (cells.get_mut(share.cell), row.get(share.pixel)) {
                *cell += share.length * i64::from(value);
            }
        }
        while let Some(share) = down.next_if(|share| share.pixel == y) {
            for (sum, cell) in sums.iter_mut().skip(share.cell * width).zip(&cells) {
                *sum += share.length * cell;
            }
        }
    }
    let area = (picture.values.len() as i64).max(1);
    let values = sums.iter().map(|&sum| i32::try_from((sum + area / 2) / area).unwrap_or(255)).collect();
    Plane { width, values }
}

/// The length that a pixel and a cell have in common.
struct Share {
    pixel: usize,
    cell: usize,
    length: i64,
}

/// All shares of `n_pixels` over `n_cells` on the same line, in order of pixel, then cell.
fn shares(n_pixels: usize, n_cells: usize) -> Vec<Share> {
    let mut out = Vec::with_capacity(n_pixels + n_cells);
    let (mut pixel, mut cell, mut at) = (0, 0, 0);
    while pixel < n_pixels && cell < n_cells {
        let (pixel_end, cell_end) = ((pixel + 1) * n_cells, (cell + 1) * n_pixels);
        let end = pixel_end.min(cell_end);
        out.push(Share { pixel, cell, length: (end - at) as i64 });
        at = end;
        pixel += usize::from(pixel_end == end);
        cell += usize::from(cell_end == end);
    }
    out
}

/// Step 2. Binomial 3x3, edges repeated.
fn smooth(picture: &Plane) -> Plane {
    let binomial = |row: &[i32]| {
        let before = row.iter().take(1).chain(row);
        let after = row.iter().skip(1).chain(row.last());
        before.zip(row).zip(after).map(|((a, b), c)| a + 2 * b + c).collect()
    };
    picture.rows_then_columns(binomial).map(|sum| (sum + 8) >> 4)
}

/// Step 3. Ink is the minority far from the local mean, so the third moment about it has the ink's sign; noise and
/// gradients are symmetric and cancel.
fn ink_is_light(s: &Plane) -> bool {
    let radius = s.longest() / 4;
    let sums = s.rows_then_columns(|row| box_sums(row, radius));
    let counts = s.map(|_| 1).rows_then_columns(|row| box_sums(row, radius));
    let means = sums.zip(&counts, |sum, count| rdiv(sum, count.max(1)));
    let cube = |(&v, &mean): (&i32, &i32)| i64::from(v - mean).pow(3);
    s.values.iter().zip(&means.values).map(cube).sum::<i64>() > 0
}

/// Sums over windows of `radius` to both sides, clipped to the row.
fn box_sums(row: &[i32], radius: usize) -> Vec<i32> {
    let mut before = vec![0];
    before.extend(row.iter().scan(0, |sum, &v| {
        *sum += v;
        Some(*sum)
    }));
    let upto = |i: usize| before.get(i.min(row.len())).copied().unwrap_or(0);
    (0..row.len()).map(|x| upto(x + radius + 1) - upto(x.saturating_sub(radius))).collect()
}

/// How much of the paper's light each pixel keeps back, 0..255, above the paper's own median.
struct Darkness {
    d: Plane,
    peak: i32,
    noise: i32,
}

impl Darkness {
    /// Steps 4 to 7; `None` if nothing stands out. `s` has dark ink.
    fn measure(s: &Plane) -> Option<Darkness> {
        let d = paper(s).zip(s, |paper, s| rdiv(255 * (paper - s), paper.max(32)).min(255));
        // Step 6.
        let mut order = d.values.clone();
        order.sort_unstable();
        let n = order.len();
        let smallest = |k: usize| order.get(k.saturating_sub(1)).copied().unwrap_or(0);
        let median = smallest(n.div_ceil(2));
        let noise = median - smallest(n.div_ceil(4));
        // Step 7.
        let peak = (smallest((n + 1).saturating_sub((n / 400).max(4))) - median).max(0);
        let stands_out = peak >= 16 + 6 * noise;
        stands_out.then(|| Darkness { d: d.map(|v| (v - median).max(0)), peak, noise })
    }

    fn low(&self) -> i32 {
        (self.peak / 4).max(3 * self.noise + 1)
    }

    /// Step 8. Hysteresis, then specks go. 1 where ink is.
    fn mask(&self, low: i32) -> Plane {
        let high = (self.peak + 1) / 2;
        let groups: Vec<Group> = groups(&self.d, low).into_iter().filter(|group| group.strongest >= high).collect();
        let largest = groups.iter().map(|group| group.total).max().unwrap_or(0);
        let mut mask = self.d.map(|_| 0);
        for i in groups.iter().filter(|group| 64 * group.total >= largest).flat_map(|group| &group.pixels) {
            if let Some(v) = mask.values.get_mut(*i) {
                *v = 1;
            }
        }
        mask
    }

    /// Step 9. Contrast-normalised ink within the mask grown by one pixel.
    fn ink(&self, mask: &Plane, low: i32) -> Plane {
        let floor = low / 2;
        let grown = mask.rows_then_columns(|row| sliding(row, 1, i32::max));
        let span = (self.peak - floor).max(1);
        let ink = self.d.map(|d| rdiv(255 * (d - floor).max(0), span).min(255));
        ink.zip(&grown, |ink, inside| ink * inside)
    }
}

/// Step 4. What the picture would be without ink: a closing, after repeating the edge outwards.
///
/// Without the extension a plain gradient would leave a dark strip at its dark edge.
fn paper(s: &Plane) -> Plane {
    let radius = ((s.longest() + 4) / 8).max(2);
    let extended = s.rows_then_columns(|row| {
        let first = row.iter().take(1).cycle().take(radius);
        let last = row.iter().rev().take(1).cycle().take(radius);
        first.chain(row).chain(last).copied().collect()
    });
    let brightest = extended.rows_then_columns(|row| sliding(row, radius, i32::max));
    let darkest = brightest.rows_then_columns(|row| sliding(row, radius, i32::min));
    darkest
        .rows_then_columns(|row| row.iter().skip(radius).take(row.len().saturating_sub(2 * radius)).copied().collect())
}

/// Maximum or minimum (`pick`) over windows of `radius` to both sides, clipped to the row.
///
/// Windows of length 1, 2, 4.. are built from two halves each; two overlapping ones make the asked-for length.
fn sliding(row: &[i32], radius: usize, pick: fn(i32, i32) -> i32) -> Vec<i32> {
    // Repeating the edge equals clipping: the value repeated lies in every window that reaches beyond.
    let edge = |v: Option<&i32>| core::iter::repeat_n(v.copied().unwrap_or(0), radius);
    let mut windows: Vec<i32> = edge(row.first()).chain(row.iter().copied()).chain(edge(row.last())).collect();
    let (mut length, asked) = (1, 2 * radius + 1);
    while length < asked {
        let step = length.min(asked - length);
        windows = windows.iter().zip(windows.iter().skip(step)).map(|(&a, &b)| pick(a, b)).collect();
        length += step;
    }
    windows
}

/// Connected pixels.
struct Group {
    strongest: i32,
    total: i64,
    pixels: Vec<usize>,
}

/// All 8-connected groups of pixels with `d >= low`; `low` is at least 1.
fn groups(d: &Plane, low: i32) -> Vec<Group> {
    let (width, height) = (d.width, d.height());
    let mut waiting: Vec<i32> = d.values.iter().map(|&v| if v >= low { v } else { 0 }).collect();
    let mut out = Vec::new();
    let mut stack = Vec::new();
    for start in 0..waiting.len() {
        // Taking a pixel sets it to 0, so each is taken once.
        let mut take = |i: usize| waiting.get_mut(i).map_or(0, core::mem::take);
        let value = take(start);
        if value == 0 {
            continue;
        }
        let mut group = Group { strongest: value, total: i64::from(value), pixels: vec![start] };
        stack.push(start);
        while let Some(i) = stack.pop() {
            let (y, x) = (i / width, i % width);
            for ny in y.saturating_sub(1)..(y + 2).min(height) {
                for nx in x.saturating_sub(1)..(x + 2).min(width) {
                    let value = take(ny * width + nx);
                    if value > 0 {
                        group.strongest = group.strongest.max(value);
                        group.total += i64::from(value);
                        group.pixels.push(ny * width + nx);
                        stack.push(ny * width + nx);
                    }
                }
            }
        }
        out.push(group);
    }
    out
}

/// Step 10. The square around the mask's box with its margin, 0 outside the picture; `None` if the mask is empty.
fn crop_square(ink: &Plane, mask: &Plane) -> Option<Plane> {
    let has_ink = |row: &[i32]| row.contains(&1);
    let columns = mask.transposed();
    let (y0, y1) = (mask.rows().position(has_ink)?, mask.rows().rposition(has_ink)?);
    let (x0, x1) = (columns.rows().position(has_ink)?, columns.rows().rposition(has_ink)?);
    let (box_width, box_height) = (x1 - x0 + 1, y1 - y0 + 1);
    let sign = box_width.max(box_height).max(8);
    let margin = (sign + 6) / 12;
    let side = sign + 2 * margin;
    // Row and column of the crop's corner, as distances above and left of the box's corner.
    let (above, left) = (margin + (sign - box_height) / 2, margin + (sign - box_width) / 2);
    let mut crop = Plane { width: side, values: vec![0; side * side] };
    for (y, row) in ink.rows().enumerate() {
        let Some(to_y) = (y + above).checked_sub(y0).filter(|&to_y| to_y < side) else {
            continue;
        };
        for (x, &v) in row.iter().enumerate() {
            let to_x = (x + left).checked_sub(x0).filter(|&to_x| to_x < side);
            if let Some(to) = to_x.and_then(|to_x| crop.values.get_mut(to_y * side + to_x)) {
                *to = v;
            }
        }
    }
    Some(crop)
}

/// `a / b` to the nearest, halves up; `a >= 0`, `b > 0`.
fn rdiv(a: i32, b: i32) -> i32 {
    (a + b / 2) / b
}

fn to_u8(v: i32) -> u8 {
    u8::try_from(v.clamp(0, 255)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// As in `models/glyphs/make_goldens.py`.
    struct Lcg(u32);

    impl Lcg {
        fn byte(&mut self) -> i32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 24) as i32
        }
    }

    /// The arguments of `picture` in `models/glyphs/make_goldens.py`.
    #[derive(Clone)]
    struct Drawing {
        width: i32,
        height: i32,
        paper: i32,
        ink: i32,
        pen: i32,
        lines: Vec<[i32; 4]>,
        gradient: (i32, i32),
        noise: i32,
        seed: u32,
        shadow_from: i32,
    }

    impl Drawing {
        fn new(width: i32, height: i32, paper: i32, ink: i32, pen: i32, lines: &[[i32; 4]]) -> Self {
            let lines = lines.to_vec();
            Drawing {
                width,
                height,
                paper,
                ink,
                pen,
                lines,
                gradient: (0, 0),
                noise: 0,
                seed: 1,
                shadow_from: i32::MAX,
            }
        }

        fn noise(self, noise: i32, seed: u32) -> Self {
            Drawing { noise, seed, ..self }
        }

        fn gradient(self, dx: i32, dy: i32) -> Self {
            Drawing { gradient: (dx, dy), ..self }
        }

        fn shadow_from(self, shadow_from: i32) -> Self {
            Drawing { shadow_from, ..self }
        }

        fn pixels(&self) -> Vec<u8> {
            let mut lcg = Lcg(self.seed);
            let mut out = Vec::new();
            for y in 0..self.height {
                for x in 0..self.width {
                    let inked = self.lines.iter().any(|&line| near(x, y, line, self.pen));
                    let mut value = if inked { self.ink } else { self.paper };
                    value += (self.gradient.0 * x + self.gradient.1 * y).div_euclid(256);
                    if x >= self.shadow_from {
                        value = (value * 3).div_euclid(4);
                    }
                    if self.noise > 0 {
                        value += lcg.byte() * self.noise / 128 - self.noise;
                    }
                    out.push(value.clamp(0, 255) as u8);
                }
            }
            out
        }

        fn strokes(&self) -> Result<Vec<u8>, StrokesError> {
            strokes(&self.pixels(), self.width as usize, self.height as usize, 48)
        }
    }

    /// FNV-1a 64 of the result.
    fn digest(result: &Result<Vec<u8>, StrokesError>) -> u64 {
        let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        result.as_ref().unwrap().iter().fold(0xcbf2_9ce4_8422_2325, fnv)
    }

    fn near(x: i32, y: i32, [x0, y0, x1, y1]: [i32; 4], pen: i32) -> bool {
        let (ax, ay, bx, by) = (x - x0, y - y0, x1 - x0, y1 - y0);
        let (length2, along) = (bx * bx + by * by, ax * bx + ay * by);
        if along <= 0 || length2 == 0 {
            return ax * ax + ay * ay <= pen * pen;
        }
        if along >= length2 {
            return (x - x1).pow(2) + (y - y1).pow(2) <= pen * pen;
        }
        let cross = i64::from(ax * by - ay * bx);
        cross * cross <= i64::from(pen * pen) * i64::from(length2)
    }

    fn k_shape(x: i32, y: i32, s: i32) -> [[i32; 4]; 4] {
        let middle = y + s / 2;
        [[x, y, x, y + s], [x + s, y, x, middle], [x, middle, x + s, y + s], [x + s, middle, x + s, middle]]
    }

    // Digests: `models/glyphs/make_goldens.py`.
    #[test]
    fn golden_plain() {
        let drawing = Drawing::new(105, 105, 255, 0, 1, &k_shape(30, 25, 50));
        assert_eq!(digest(&drawing.strokes()), 0x84e5_b6a1_d22c_33cd);
    }

    #[test]
    fn golden_light_on_dark() {
        let drawing = Drawing::new(105, 105, 20, 230, 1, &k_shape(30, 25, 50));
        assert_eq!(digest(&drawing.strokes()), 0xcf03_19fa_380b_68ef);
    }

    #[test]
    fn golden_noise() {
        let drawing = Drawing::new(120, 90, 200, 60, 2, &k_shape(35, 20, 45)).noise(20, 7);
        assert_eq!(digest(&drawing.strokes()), 0xd80f_8012_0113_30d2);
    }

    #[test]
    fn golden_gradient() {
        let drawing = Drawing::new(160, 120, 120, 20, 2, &k_shape(50, 30, 60)).gradient(160, 60).noise(6, 3);
        assert_eq!(digest(&drawing.strokes()), 0x67ea_4287_07b1_0884);
    }

    #[test]
    fn golden_shadow() {
        let drawing = Drawing::new(160, 160, 220, 70, 3, &k_shape(40, 40, 80)).noise(8, 11).shadow_from(70);
        assert_eq!(digest(&drawing.strokes()), 0xaf82_3bc8_d27f_c7ec);
    }

    #[test]
    fn golden_large() {
        let drawing = Drawing::new(400, 300, 210, 50, 6, &k_shape(100, 60, 170)).gradient(30, -40).noise(24, 5);
        assert_eq!(digest(&drawing.strokes()), 0x721a_c5c4_aaf9_b088);
    }

    #[test]
    fn golden_tall() {
        let drawing = Drawing::new(40, 333, 230, 40, 2, &k_shape(10, 150, 20)).noise(4, 9);
        assert_eq!(digest(&drawing.strokes()), 0xcb17_b6b7_b329_30a2);
    }

    #[test]
    fn golden_sign_that_touches_the_border() {
        let drawing = Drawing::new(64, 64, 250, 10, 2, &k_shape(0, 0, 63)).noise(3, 2);
        assert_eq!(digest(&drawing.strokes()), 0xbc52_3fd5_92fb_4495);
    }

    #[test]
    fn golden_smallest_picture() {
        let drawing = Drawing::new(16, 16, 255, 0, 0, &k_shape(4, 4, 8));
        assert_eq!(digest(&drawing.strokes()), 0x5fea_8495_ceba_0d51);
    }

    #[test]
    fn golden_dot() {
        let drawing = Drawing::new(50, 70, 240, 30, 1, &[[20, 30, 20, 30]]);
        assert_eq!(digest(&drawing.strokes()), 0xe2d5_eff4_3128_8f97);
    }

    #[test]
    fn golden_faint() {
        let drawing = Drawing::new(100, 100, 180, 150, 2, &k_shape(30, 30, 40)).noise(3, 13);
        assert_eq!(digest(&drawing.strokes()), 0xc47e_b4c4_25f6_68a5);
    }

    #[test]
    fn golden_specks_are_dropped() {
        let mut grey = Drawing::new(100, 100, 240, 30, 2, &k_shape(30, 30, 40)).pixels();
        for (x, y) in [(5, 5), (90, 8), (8, 93), (60, 88)] {
            grey[y * 100 + x] = 0;
        }
        assert_eq!(digest(&strokes(&grey, 100, 100, 48)), 0xab33_c276_0fc1_7813);
    }

    #[test]
    fn paper_without_ink_is_refused() {
        let refused = Err(StrokesError::EmptyPicture);
        assert_eq!(Drawing::new(61, 47, 128, 128, 0, &[]).noise(128, 17).strokes(), refused);
        assert_eq!(Drawing::new(30, 20, 90, 90, 0, &[]).strokes(), refused);
        assert_eq!(Drawing::new(100, 80, 128, 128, 0, &[]).noise(20, 19).strokes(), refused);
        assert_eq!(Drawing::new(200, 100, 20, 20, 0, &[]).gradient(250, 30).strokes(), refused);
    }

    #[test]
    fn crop_touches_its_margin_and_reaches_full_ink() {
        let out = Drawing::new(105, 105, 255, 0, 1, &k_shape(30, 25, 50)).strokes().unwrap();
        let inked: Vec<usize> = (0..48 * 48).filter(|&i| out[i] > 0).map(|i| i % 48).collect();
        assert_eq!(out.iter().max(), Some(&255));
        assert_eq!((inked.iter().min(), inked.iter().max()), (Some(&3), Some(&44)));
    }

    #[test]
    fn shifting_the_sign_on_flat_paper_changes_nothing() {
        let at = |x, y| Drawing::new(140, 130, 230, 40, 2, &k_shape(x, y, 50)).strokes().unwrap();
        assert_eq!(at(40, 40), at(53, 36));
    }

    #[test]
    fn area_average_keeps_the_mean_and_is_exact() {
        let picture = Plane { width: 3, values: vec![0, 90, 180, 30, 120, 210] };
        assert_eq!(area_average(&picture, 1, 1).values, [105]);
        assert_eq!(area_average(&picture, 2, 2).values, [30, 150, 60, 180]);
        assert_eq!(area_average(&picture, 6, 1).values, [15, 15, 105, 105, 195, 195]);
    }

    #[test]
    fn sliding_equals_the_plain_window() {
        let mut lcg = Lcg(23);
        let row: Vec<i32> = (0..37).map(|_| lcg.byte()).collect();
        for radius in 0..40 {
            let plain = |x: usize| row[x.saturating_sub(radius)..(x + radius + 1).min(37)].iter().copied();
            let (most, least): (Vec<i32>, Vec<i32>) =
                (0..37).map(|x| (plain(x).max().unwrap(), plain(x).min().unwrap())).unzip();
            assert_eq!(sliding(&row, radius, i32::max), most);
            assert_eq!(sliding(&row, radius, i32::min), least);
        }
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused_by_name() {
        let message = |grey: &[u8], width, height, size| strokes(grey, width, height, size).unwrap_err().to_string();
        assert_eq!(message(&[0; 15 * 20], 15, 20, 48), "picture is 15x20, sides must be 16..8192");
        assert_eq!(message(&[], usize::MAX, 20, 48), format!("picture is {}x20, sides must be 16..8192", usize::MAX));
        assert_eq!(message(&[0; 10], 20, 20, 48), "picture has 10 bytes, its sides ask for 400");
        assert_eq!(message(&[0; 400], 20, 20, 0), "strokes size is 0, must be 1..256");
        assert_eq!(message(&[7; 400], 20, 20, 48), "empty picture: nothing stands out from the paper");
    }

    #[test]
    fn any_bytes_give_a_picture_or_a_refusal() {
        let mut lcg = Lcg(29);
        for round in 0..300 {
            let (width, height) = (16 + lcg.byte() as usize % 60, 16 + lcg.byte() as usize % 60);
            let coarse = 1 + lcg.byte() as usize % 40;
            let cells: Vec<u8> = (0..width * height / coarse + 1).map(|_| lcg.byte() as u8).collect();
            let grey: Vec<u8> = (0..width * height).map(|i| cells[i / coarse]).collect();
            let size = 1 + lcg.byte() as usize;
            match strokes(&grey, width, height, size) {
                Ok(out) => assert_eq!((out.len(), out.iter().max()), (size * size, Some(&255)), "round {round}"),
                Err(error) => assert_eq!(error, StrokesError::EmptyPicture, "round {round}"),
            }
        }
    }
}
