//! Convolutions of any shape but depthwise: patches of a few pixels against blocks of 16 output channels.
//!
//! A panel of patches is gathered, then every block of weights passes over it once. A group of elements is what 32 bits
//! hold: two, widened to 16 bits, for AVX2; four with VNNI, as unsigned bytes `q + 128`, whose difference goes into the
//! starting value of the accumulators. A block holds, after its header, for every group of a patch the weights that its
//! channels have for it.

use core::arch::x86_64::*;

use super::header::{BLOCK, DOUBLE, HEADER_LINES, Header, INTEGER, LANES, SATURATED, SINGLE, Target, channel_of};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

/// Pixels of one pass: with two vectors of channels each, twelve accumulators; weights, activations and products take the
/// other four registers.
const PIXELS: usize = 6;
/// Bytes of a panel, so that it shares the first-level cache with a block of weights.
const PANEL_BYTES: usize = 16 << 10;

/// Bytes of a group of elements.
const GROUP: usize = 4;
/// What is added to elements.
const VNNI_OFFSET: i32 = 128;

/// Elements of a group.
const fn per_group(vnni: bool) -> usize {
    if vnni { 4 } else { 2 }
}

/// Groups of a patch.
fn n_groups(shape: &ConvShape, vnni: bool) -> usize {
    shape.patch_len().div_ceil(per_group(vnni))
}

fn out_per_group(shape: &ConvShape) -> usize {
    shape.output.c / shape.groups
}

/// A line of weights per group.
fn block_lines(shape: &ConvShape, vnni: bool) -> usize {
    HEADER_LINES + n_groups(shape, vnni)
}

pub(in crate::x86) fn packed_lines(shape: &ConvShape, vnni: bool) -> usize {
    shape.groups * out_per_group(shape).div_ceil(BLOCK) * block_lines(shape, vnni)
}

/// Pixels of a panel: whole passes.
fn panel_pixels(shape: &ConvShape, vnni: bool) -> usize {
    let fit = (PANEL_BYTES / (GROUP * n_groups(shape, vnni))).max(1).next_multiple_of(PIXELS);
    fit.min(shape.output.n_pixels().next_multiple_of(PIXELS))
}

pub(in crate::x86) fn scratch_lines(shape: &ConvShape, vnni: bool) -> usize {
    (panel_pixels(shape, vnni) * n_groups(shape, vnni) * GROUP).div_ceil(size_of::<Line>())
}

pub(in crate::x86) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line], vnni: bool) {
    let (patch_len, out_per_group) = (shape.patch_len(), out_per_group(shape));
    let row_of = |channel: usize| &layer.weights[channel * patch_len..][..patch_len];
    let mut blocks = packed.chunks_exact_mut(block_lines(shape, vnni));
    for group in 0..shape.groups {
        for (first, block) in (0..out_per_group).step_by(BLOCK).zip(&mut blocks) {
            let n = (out_per_group - first).min(BLOCK);
            let first = group * out_per_group + first;
            Header::of(layer, first, n, if vnni { VNNI_OFFSET } else { 0 }).write(block);
            for (group, line) in block[HEADER_LINES..].iter_mut().enumerate() {
                for (at, to) in line.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let channel = channel_of(at / LANES, at % LANES);
                    let row: &[i8] = if channel < n { row_of(first + channel) } else { &[] };
                    let weight = |i: usize| row.get(per_group(vnni) * group + i).copied().unwrap_or(0);
                    *to = if vnni {
                        [0, 1, 2, 3].map(|i| weight(i) as u8)
                    } else {
                        let [a, b] = [0, 1].map(|i| i16::from(weight(i)).to_le_bytes());
                        [a[0], a[1], b[0], b[1]]
                    };
                }
            }
        }
    }
}

/// # Safety
/// AVX2 and FMA. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx2,fma")]
pub(in crate::x86) unsafe fn dense(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    // SAFETY: passed on.
    unsafe { run::<false>(layer, scratch, output) }
}

/// # Safety
/// AVX2, FMA and AVX-VNNI. Lengths as `packed::conv` checks them.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(in crate::x86) unsafe fn dense_vnni(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    // SAFETY: passed on.
    unsafe { run::<true>(layer, scratch, output) }
}

#[inline(always)]
unsafe fn run<const VNNI: bool>(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, zero_point_in, clamp, input } = *layer;
    let (patch_bytes, out_c, out_per_group) = (GROUP * n_groups(shape, VNNI), shape.output.c, out_per_group(shape));
    let (per_panel, n_pixels) = (panel_pixels(shape, VNNI), shape.output.n_pixels());
    // SAFETY: scratch is plain bytes, as long as its lines.
    let panel = unsafe { core::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<u8>(), size_of_val(scratch)) };
    // SAFETY: the CPU has the instructions.
    let target = unsafe { Target::new(clamp) };
    for first_pixel in (0..n_pixels).step_by(per_panel) {
        let n = per_panel.min(n_pixels - first_pixel);
        let mut blocks = packed.chunks_exact(block_lines(shape, VNNI));
        for group in 0..shape.groups {
            gather::<VNNI>(shape, input, group, zero_point_in as i8, first_pixel, n, panel);
            for (first, block) in (0..out_per_group).step_by(BLOCK).zip(&mut blocks) {
                let job = Job {
                    header: Header::read(block),
                    weights: &block[HEADER_LINES..],
                    stride: out_c,
                    n_channels: (out_per_group - first).min(BLOCK),
                    target: &target,
                };
                let out = &mut output[first_pixel * out_c + group * out_per_group + first..];
                // SAFETY: the CPU has the instructions.
                unsafe {
                    match job.header.form() {
                        SINGLE => job.passes::<SINGLE, VNNI>(panel, patch_bytes, n, out),
                        SATURATED => job.passes::<SATURATED, VNNI>(panel, patch_bytes, n, out),
                        DOUBLE => job.passes::<DOUBLE, VNNI>(panel, patch_bytes, n, out),
                        _ => job.passes::<INTEGER, VNNI>(panel, patch_bytes, n, out),
                    }
                }
            }
        }
    }
}

/// One block of weights over one panel.
struct Job<'a> {
    header: &'a Header,
    /// One line per group of a patch.
    weights: &'a [Line],
    /// Bytes from one output pixel to the next.
    stride: usize,
    /// At most [`BLOCK`].
    n_channels: usize,
    target: &'a Target,
}

impl Job<'_> {
    /// # Safety
    /// AVX2 and FMA; AVX-VNNI if VNNI.
    #[inline(always)]
    unsafe fn passes<const FORM: u32, const VNNI: bool>(
        &self,
        panel: &[u8],
        patch_bytes: usize,
        n: usize,
        out: &mut [i8],
    ) {
        for first in (0..n).step_by(PIXELS) {
            // The panel is a whole number of passes; pixels past `n` are computed from what lies there and not stored.
            let patches = &panel[first * patch_bytes..][..PIXELS * patch_bytes];
            let n = PIXELS.min(n - first);
            let out = &mut out[first * self.stride..];
            assert!(out.len() >= (n - 1) * self.stride + self.n_channels && GROUP * self.weights.len() <= patch_bytes);
            // SAFETY: `patches` holds as many patches of as many groups, and `out` was just measured.
            unsafe {
                let sums = self.accumulate::<VNNI>(patches.as_ptr(), patch_bytes);
                if n == PIXELS {
                    // A loop of known length keeps the sums in registers.
                    for (p, sums) in sums.into_iter().enumerate() {
                        self.header.finish::<FORM>(
                            sums,
                            self.n_channels,
                            self.target,
                            out.as_mut_ptr().add(p * self.stride),
                        );
                    }
                } else {
                    for (p, sums) in sums.into_iter().enumerate().take(n) {
                        self.header.finish::<FORM>(
                            sums,
                            self.n_channels,
                            self.target,
                            out.as_mut_ptr().add(p * self.stride),
                        );
                    }
                }
            }
        }
    }

    /// Sums of [`PIXELS`] pixels, in registers while they grow.
    ///
    /// # Safety
    /// AVX2, AVX-VNNI if VNNI; `patches` of `patch_bytes` each, a group at least for every line of weights.
    #[inline(always)]
    unsafe fn accumulate<const VNNI: bool>(&self, patches: *const u8, patch_bytes: usize) -> [[__m256i; 2]; PIXELS] {
        unsafe {
            let mut acc = [self.header.start(); PIXELS];
            for (group, line) in self.weights.iter().enumerate() {
                let line: *const __m256i = line.0.as_ptr().cast();
                let w = [_mm256_load_si256(line), _mm256_load_si256(line.add(1))];
                for (p, acc) in acc.iter_mut().enumerate() {
                    let x =
                        _mm256_set1_epi32(patches.add(p * patch_bytes + GROUP * group).cast::<i32>().read_unaligned());
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = if VNNI {
                            _mm256_dpbusd_avx_epi32(*acc, x, w)
                        } else {
                            _mm256_add_epi32(*acc, _mm256_madd_epi16(x, w))
                        };
                    }
                }
            }
            acc
        }
    }
}

/// Copies the patches of `n` output pixels into the panel. What pads a patch to whole groups meets weights of zero.
#[inline(always)]
fn gather<const VNNI: bool>(
    shape: &ConvShape,
    input: &[i8],
    group: usize,
    zero_point: i8,
    first: usize,
    n: usize,
    panel: &mut [u8],
) {
    let (window, dims, in_per_group) = (shape.window, shape.input, shape.in_per_group());
    let channel = group * in_per_group;
    let element_bytes = GROUP / per_group(VNNI);
    let patch_bytes = GROUP * n_groups(shape, VNNI);
    let [kernel_h, kernel_w] = window.kernel;
    let is_point = window.kernel == [1, 1] && window.stride == [1, 1] && dims.n_pixels() == shape.output.n_pixels();
    if is_point && in_per_group == dims.c && patch_bytes == dims.c * element_bytes {
        // A 1x1 convolution reads its input as it lies.
        return put::<VNNI>(&input[first * dims.c..][..n * dims.c], &mut panel[..n * patch_bytes]);
    }
    // A row of the window that is dense in the input is one run where it lies inside.
    let is_run = in_per_group == dims.c && window.dilation[1] == 1;
    let run_len = kernel_w * in_per_group;
    let (mut oy, mut ox) = (first / shape.output.w, first % shape.output.w);
    for patch in panel.chunks_exact_mut(patch_bytes).take(n) {
        let column = (ox * window.stride[1]).wrapping_sub(window.pad_before[1]);
        let is_inside = is_run && column < dims.w && column + kernel_w <= dims.w;
        for (ky, to) in (0..kernel_h).zip(patch.chunks_exact_mut(run_len * element_bytes)) {
            match window.source(0, oy, ky, dims.h) {
                None => pad::<VNNI>(zero_point, to),
                Some(y) if is_inside => put::<VNNI>(&input[(y * dims.w + column) * dims.c..][..run_len], to),
                Some(y) => {
                    for (kx, to) in to.chunks_exact_mut(in_per_group * element_bytes).enumerate() {
                        match window.source(1, ox, kx, dims.w) {
                            None => pad::<VNNI>(zero_point, to),
                            Some(x) => {
                                put::<VNNI>(&input[(y * dims.w + x) * dims.c + channel..][..in_per_group], to);
                            }
                        }
                    }
                }
            }
        }
        ox += 1;
        if ox == shape.output.w {
            (oy, ox) = (oy + 1, 0);
        }
    }
}

/// Elements as they lie in a panel.
#[inline(always)]
fn put<const VNNI: bool>(from: &[i8], to: &mut [u8]) {
    if VNNI {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from as u8 ^ 0x80;
        }
    } else {
        for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
            *to = i16::from(*from).to_le_bytes();
        }
    }
}

#[inline(always)]
fn pad<const VNNI: bool>(zero_point: i8, to: &mut [u8]) {
    if VNNI {
        to.fill(zero_point as u8 ^ 0x80);
    } else {
        to.as_chunks_mut::<2>().0.fill(i16::from(zero_point).to_le_bytes());
    }
}
