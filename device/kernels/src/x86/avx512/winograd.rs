//! 3x3 convolutions of wide pictures with a quarter of the multiplications: Winograd's F(4x4, 3x3), in integers, exact.
//!
//! Tiles of 6x6 centred inputs and the 3x3 weights are both transformed into 36 numbers per channel; their products, summed
//! over the channels, are transformed back into 4x4 sums. The transform of the weights has fractions; here each of its rows
//! is multiplied by what makes it whole, and the way back by what remains to a common divisor, so that it gives each sum
//! times 3 * 2^a * 3 * 2^b. All of it wraps in i32, and stays right modulo 2^32: times the inverse of 9, shifted by a + b,
//! it is the sum, as long as that is below 2^25, which the weights' magnitudes say at load. Where they do not, the layer is
//! packed for [`dense`](super::dense) as any other.
//!
//! Transformed inputs take 16 bits (255 * 100), weights as well (127 * 49), so that a multiply-add does half as many as of
//! bytes: what is left of a factor of 4 is 2, less the transforms. The weights take 8 times the memory, hence wide pictures
//! only: those have few channels.
//!
//! Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308, section 4.3; its matrices,
//! with rows 0, 3 and 4 of G times 24 and the others times 6.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::header::{DOUBLE, HALF, HEADER_LINES, Header, INTEGER, LANES, SATURATED, SINGLE, Target, channel_of};
use crate::conv::ConvShape;
use crate::packed::{Layer, Line, PackedConv};

/// Numbers of a transformed tile, by row and column.
const POINTS: usize = 36;
/// Sides of a tile of outputs, and of the inputs that it needs.
const OUT: usize = 4;
const IN: usize = 6;
/// Channels of one vector of inputs.
const CHANNELS: usize = 32;
/// Vectors of a block of output channels.
const VECTORS: usize = HALF / LANES;
/// Tiles whose sums are in registers together.
const TILES: usize = 8;
/// Transformed inputs of so many bytes are made at a time: they and a block of weights share the second-level cache.
const INPUT_BYTES: usize = 256 << 10;
/// Narrower pictures have too few tiles for what the weights take.
const WIDTH_MIN: usize = 24;
/// Fewer input channels win too little for the memory that their weights take.
const CHANNELS_MIN: usize = 64;
/// Weights in all, of input times output channels: larger ones come from too far away.
const WEIGHTS_MAX: usize = 256 * 256;
/// Sums below this survive the division modulo 2^32.
const SUM_LIMIT: i64 = 1 << 25;
/// 9 times this is 1 modulo 2^32.
const NINTH: i32 = 0x38E3_8E39;
/// Powers of two, beside 3, that each row of the way back has too much.
const SHIFTS: [u32; OUT] = [3, 2, 1, 1];

const _: () = assert!(NINTH.wrapping_mul(9) == 1);

/// True if layers of this shape are packed here; what is said of a shape holds for all rows of it.
pub(super) fn suits(shape: &ConvShape) -> bool {
    let window = &shape.window;
    [window.kernel, window.stride, window.dilation] == [[3; 2], [1; 2], [1; 2]]
        && shape.groups == 1
        && shape.output.w >= WIDTH_MIN
        && shape.input.c >= CHANNELS_MIN
        && shape.input.c.is_multiple_of(CHANNELS)
        && shape.output.c.is_multiple_of(HALF)
        && shape.input.c * shape.output.c <= WEIGHTS_MAX
}

/// Lines of one block of output channels.
fn block_lines(in_c: usize) -> usize {
    HEADER_LINES + POINTS * in_c / 2 * VECTORS
}

/// The first line says whether the layer could be packed here.
pub(super) fn packed_lines(shape: &ConvShape) -> usize {
    1 + shape.output.c / HALF * block_lines(shape.input.c)
}

/// Height and width in tiles.
fn tiles(shape: &ConvShape) -> [usize; 2] {
    [shape.output.h, shape.output.w].map(|side| side.div_ceil(OUT))
}

/// Tiles of one batch.
fn batch(shape: &ConvShape) -> usize {
    let n_tiles = tiles(shape).iter().product::<usize>();
    let most = (INPUT_BYTES / (POINTS * shape.input.c * size_of::<i16>())).max(TILES);
    n_tiles.div_ceil(n_tiles.div_ceil(most))
}

/// Lines of the products of [`TILES`] tiles with a block of channels.
const PRODUCT_LINES: usize = TILES * POINTS * VECTORS;

pub(super) fn scratch_lines(shape: &ConvShape) -> usize {
    PRODUCT_LINES + batch(shape) * POINTS * shape.input.c * size_of::<i16>() / size_of::<Line>()
}

/// Packs a layer, or returns false where its sums can become too large.
pub(super) fn pack(shape: &ConvShape, layer: &Layer<'_>, packed: &mut [Line]) -> bool {
    let (in_c, row_len) = (shape.input.c, shape.patch_len());
    let row_of = |channel: usize| &layer.weights[channel * row_len..][..row_len];
    if layer.sums.iter().any(|sums| sums.magnitude() * 255 >= SUM_LIMIT) {
        packed[0] = Line::ZERO;
        return false;
    }
    let (flag, blocks) = packed.split_at_mut(1);
    flag[0] = Line([1; 64]);
    for (block, first) in blocks.chunks_exact_mut(block_lines(in_c)).zip((0..shape.output.c).step_by(HALF)) {
        Header::of(layer, first, HALF, -layer.zero_point_in).write(block);
        for vector in 0..VECTORS {
            let rows = core::array::from_fn(|lane| row_of(first + channel_of(HALF, vector, lane)));
            // SAFETY: the caller vouches for the CPU (`packed::pack`).
            unsafe { pack_vector(rows, in_c, vector, &mut block[HEADER_LINES..]) };
        }
    }
    true
}

/// Transforms the weights of 16 output channels to `[points, pairs of input channels, vectors]` lines of lanes and pairs.
///
/// # Safety
/// AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_vector(rows: [&[i8]; LANES], in_c: usize, vector: usize, lines: &mut [Line]) {
    for pair in 0..in_c / 2 {
        let mut taps = [[0i16; 2 * LANES]; 9];
        for (lane, row) in rows.iter().enumerate() {
            for (tap, taps) in taps.iter_mut().enumerate() {
                let at = tap * in_c + 2 * pair;
                [taps[2 * lane], taps[2 * lane + 1]] = [row[at].into(), row[at + 1].into()];
            }
        }
        // SAFETY: 32 numbers of 16 bits are a vector, and so is a line.
        unsafe {
            let mut columns = [[_mm512_setzero_si512(); IN]; 3];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut taps_of = [_mm512_setzero_si512(); 3];
                for (y, value) in taps_of.iter_mut().enumerate() {
                    *value = _mm512_loadu_si512(taps[3 * y + x].as_ptr().cast());
                }
                *column = weight_points(taps_of);
            }
            for y in 0..IN {
                let row = weight_points([columns[0][y], columns[1][y], columns[2][y]]);
                for (x, value) in row.into_iter().enumerate() {
                    let line = &mut lines[((IN * y + x) * in_c / 2 + pair) * VECTORS + vector];
                    _mm512_store_si512(line.0.as_mut_ptr().cast(), value);
                }
            }
        }
    }
}

/// `G g` of three vectors, the rows of G whole.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn weight_points([a, b, c]: [__m512i; 3]) -> [__m512i; IN] {
    // SAFETY: passed on.
    unsafe {
        let six = _mm512_set1_epi16(6);
        let (ends, outer) = (_mm512_add_epi16(a, c), _mm512_add_epi16(a, _mm512_slli_epi16(c, 2)));
        let twice = _mm512_slli_epi16(b, 1);
        [
            _mm512_mullo_epi16(a, six),
            _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_add_epi16(ends, b)),
            _mm512_sub_epi16(b, ends),
            _mm512_add_epi16(outer, twice),
            _mm512_sub_epi16(outer, twice),
            _mm512_mullo_epi16(c, six),
        ]
    }
}

/// True if [`pack`] packed it.
pub(super) fn is_packed(packed: &[Line]) -> bool {
    packed[0].0[0] == 1
}

/// Where a layer that [`pack`] did not pack may lie.
pub(super) fn rest(packed: &[Line]) -> &[Line] {
    &packed[1..]
}

/// As [`rest`], to be written.
pub(super) fn rest_mut(packed: &mut [Line]) -> &mut [Line] {
    &mut packed[1..]
}

/// # Safety
/// AVX-512 F, BW, VL and VNNI. Lengths as `packed::conv` checks them, the shape one that [`suits`], the layer one that
/// [`is_packed`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn conv(layer: &PackedConv<'_>, scratch: &mut [Line], output: &mut [i8]) {
    let PackedConv { shape, packed, clamp, .. } = *layer;
    let in_c = shape.input.c;
    let (products, inputs) = scratch.split_at_mut(PRODUCT_LINES);
    let products: *mut __m512i = products.as_mut_ptr().cast();
    let inputs: *mut i16 = inputs.as_mut_ptr().cast();
    let [high, wide] = tiles(shape);
    let batch = batch(shape);
    // SAFETY: the CPU has the instructions; `inputs` has room for a batch, `products` for TILES tiles.
    unsafe {
        let target = Target::new(clamp);
        for start in (0..high * wide).step_by(batch) {
            let n_tiles = batch.min(high * wide - start);
            for tile in 0..n_tiles {
                let at = start + tile;
                transform_input(layer, [at / wide, at % wide], inputs.add(tile * POINTS * in_c));
            }
            for (i, block) in packed[1..].chunks_exact(block_lines(in_c)).enumerate() {
                let (header, weights) = (Header::read(block), block[HEADER_LINES..].as_ptr().cast::<__m512i>());
                // As even as can be.
                let n_groups = n_tiles.div_ceil(TILES);
                for group in 0..n_groups {
                    let tiles = group * n_tiles / n_groups..(group + 1) * n_tiles / n_groups;
                    let from = inputs.add(tiles.start * POINTS * in_c);
                    match tiles.len() {
                        8 => multiply::<8>(from, in_c, weights, products),
                        7 => multiply::<7>(from, in_c, weights, products),
                        6 => multiply::<6>(from, in_c, weights, products),
                        5 => multiply::<5>(from, in_c, weights, products),
                        4 => multiply::<4>(from, in_c, weights, products),
                        3 => multiply::<3>(from, in_c, weights, products),
                        2 => multiply::<2>(from, in_c, weights, products),
                        _ => multiply::<1>(from, in_c, weights, products),
                    }
                    for (n, tile) in tiles.enumerate() {
                        let at = [(start + tile) / wide, (start + tile) % wide];
                        let products = products.add(n * POINTS * VECTORS);
                        let place = Place { shape, at, first: i * HALF };
                        match header.form() {
                            SINGLE => transform_output::<SINGLE>(header, products, &target, &place, output),
                            SATURATED => transform_output::<SATURATED>(header, products, &target, &place, output),
                            DOUBLE => transform_output::<DOUBLE>(header, products, &target, &place, output),
                            _ => transform_output::<INTEGER>(header, products, &target, &place, output),
                        }
                    }
                }
            }
        }
    }
}

/// `B^T d` of six vectors.
///
/// # Safety
/// AVX-512 BW.
#[inline(always)]
unsafe fn input_points([d0, d1, d2, d3, d4, d5]: [__m512i; IN]) -> [__m512i; IN] {
    // SAFETY: passed on.
    unsafe {
        let even = _mm512_sub_epi16(d4, _mm512_slli_epi16(d2, 2));
        let odd = _mm512_sub_epi16(d3, _mm512_slli_epi16(d1, 2));
        let near = _mm512_sub_epi16(d4, d2);
        let far = _mm512_slli_epi16(_mm512_sub_epi16(d3, d1), 1);
        [
            _mm512_add_epi16(_mm512_slli_epi16(_mm512_sub_epi16(d0, d2), 2), near),
            _mm512_add_epi16(even, odd),
            _mm512_sub_epi16(even, odd),
            _mm512_add_epi16(near, far),
            _mm512_sub_epi16(near, far),
            _mm512_sub_epi16(_mm512_sub_epi16(d5, d3), _mm512_slli_epi16(far, 1)),
        ]
    }
}

/// Transforms the inputs of one tile to `[points, in_c]` at `to`.
///
/// # Safety
/// AVX-512 F and BW; lengths as checked; `to` has room.
#[inline(always)]
unsafe fn transform_input(layer: &PackedConv<'_>, tile: [usize; 2], to: *mut i16) {
    let PackedConv { shape, input, zero_point_in, .. } = *layer;
    let (window, dims) = (&shape.window, shape.input);
    let padding = [zero_point_in as i8; CHANNELS];
    // Places in the picture; None in the padding.
    let along = |axis: usize, size: usize| -> [Option<usize>; IN] {
        core::array::from_fn(|i| (tile[axis] * OUT + i).checked_sub(window.pad_before[axis]).filter(|at| *at < size))
    };
    let (rows, columns) = (along(0, dims.h), along(1, dims.w));
    for c in (0..dims.c).step_by(CHANNELS) {
        // SAFETY: pixels lie in the picture, and 32 channels from `c` on in a pixel.
        unsafe {
            let to = to.add(c);
            if let (Some(y), Some(x), Some(_), Some(_)) = (rows[0], columns[0], rows[IN - 1], columns[IN - 1]) {
                let first = input.as_ptr().add((y * dims.w + x) * dims.c + c);
                let at = |y: usize, x: usize| first.wrapping_add((y * dims.w + x) * dims.c);
                transform_channels(at, zero_point_in, to, dims.c);
            } else {
                let at = |y: usize, x: usize| match (rows[y], columns[x]) {
                    (Some(y), Some(x)) => input.as_ptr().wrapping_add((y * dims.w + x) * dims.c + c),
                    _ => padding.as_ptr(),
                };
                transform_channels(at, zero_point_in, to, dims.c);
            }
        }
    }
}

/// Transforms 32 channels of one tile, whose inputs lie where `at(row, column)` says.
///
/// # Safety
/// AVX-512 F and BW; 32 bytes can be read at each place; `to` has room for 36 vectors, `stride` values apart.
#[inline(always)]
unsafe fn transform_channels(at: impl Fn(usize, usize) -> *const i8, zero_point: i32, to: *mut i16, stride: usize) {
    // SAFETY: passed on.
    unsafe {
        let zero_point = _mm512_set1_epi16(zero_point as i16);
        // More than there are registers.
        let mut half = MaybeUninit::<[__m512i; POINTS]>::uninit();
        let half: *mut __m512i = half.as_mut_ptr().cast();
        for x in 0..IN {
            let mut values = [zero_point; IN];
            for (y, value) in values.iter_mut().enumerate() {
                let bytes = _mm256_loadu_si256(at(y, x).cast());
                *value = _mm512_sub_epi16(_mm512_cvtepi8_epi16(bytes), zero_point);
            }
            for (y, value) in input_points(values).into_iter().enumerate() {
                _mm512_store_si512(half.add(IN * y + x), value);
            }
        }
        for y in 0..IN {
            let mut row = [zero_point; IN];
            for (x, value) in row.iter_mut().enumerate() {
                *value = _mm512_load_si512(half.add(IN * y + x));
            }
            for (x, value) in input_points(row).into_iter().enumerate() {
                _mm512_store_si512(to.add((IN * y + x) * stride).cast(), value);
            }
        }
    }
}

/// Multiplies T tiles with a block of weights to `[T, points, vectors]` at `products`.
///
/// # Safety
/// AVX-512 F and VNNI; `from` has T tiles, `weights` a block, `products` room.
#[inline(always)]
unsafe fn multiply<const T: usize>(from: *const i16, in_c: usize, mut weights: *const __m512i, products: *mut __m512i) {
    let (pairs, n_pairs) = (from.cast::<i32>(), in_c / 2);
    for point in 0..POINTS {
        // SAFETY: passed on.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); VECTORS]; T];
            for pair in 0..n_pairs {
                let w = [_mm512_load_si512(weights), _mm512_load_si512(weights.add(1))];
                weights = weights.add(VECTORS);
                for (tile, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(*pairs.add((tile * POINTS + point) * n_pairs + pair));
                    for v in 0..VECTORS {
                        sums[v] = _mm512_dpwssd_epi32(sums[v], x, w[v]);
                    }
                }
            }
            for (tile, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    _mm512_store_si512(products.add((tile * POINTS + point) * VECTORS + v), sum);
                }
            }
        }
    }
}

/// Where a tile's sums go.
struct Place<'a> {
    shape: &'a ConvShape,
    /// Row and column of the tile.
    at: [usize; 2],
    /// Channel.
    first: usize,
}

/// `A^T m` of six vectors, each times 3 and a power of two of [`SHIFTS`].
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn sum_points([m0, m1, m2, m3, m4, m5]: [__m512i; IN]) -> [__m512i; OUT] {
    // SAFETY: passed on.
    unsafe {
        let (s12, d12) = (_mm512_add_epi32(m1, m2), _mm512_sub_epi32(m1, m2));
        let (s34, d34) = (_mm512_add_epi32(m3, m4), _mm512_sub_epi32(m3, m4));
        [
            _mm512_add_epi32(_mm512_add_epi32(m0, s34), _mm512_slli_epi32(s12, 2)),
            _mm512_add_epi32(_mm512_slli_epi32(d12, 1), d34),
            _mm512_add_epi32(s12, s34),
            _mm512_add_epi32(_mm512_add_epi32(d12, m5), _mm512_slli_epi32(d34, 1)),
        ]
    }
}

/// Transforms the products of one tile back, requantizes the sums and stores those that lie in the output.
///
/// # Safety
/// AVX-512 F, BW and VL; `products` has `[points, vectors]`; lengths as checked.
#[inline(always)]
unsafe fn transform_output<const FORM: u32>(
    header: &Header,
    products: *const __m512i,
    target: &Target,
    place: &Place<'_>,
    output: &mut [i8],
) {
    // SAFETY: passed on; what is stored lies in the output.
    unsafe {
        let ninth = _mm512_set1_epi32(NINTH);
        // More than there are registers.
        let mut half = MaybeUninit::<[[__m512i; VECTORS]; OUT * IN]>::uninit();
        let half: *mut __m512i = half.as_mut_ptr().cast();
        for v in 0..VECTORS {
            for x in 0..IN {
                let mut column = [ninth; IN];
                for (y, value) in column.iter_mut().enumerate() {
                    *value = _mm512_load_si512(products.add((IN * y + x) * VECTORS + v));
                }
                for (y, value) in sum_points(column).into_iter().enumerate() {
                    _mm512_store_si512(half.add((IN * y + x) * VECTORS + v), value);
                }
            }
        }
        let Place { shape, at, first } = place;
        let dims = shape.output;
        let n = [OUT.min(dims.h - at[0] * OUT), OUT.min(dims.w - at[1] * OUT)];
        let out = output.as_mut_ptr().add((at[0] * dims.w + at[1]) * OUT * dims.c + first);
        for (y, shift_y) in SHIFTS.into_iter().enumerate() {
            let mut sums = [[ninth; VECTORS]; OUT];
            for v in 0..VECTORS {
                let mut row = [ninth; IN];
                for (x, value) in row.iter_mut().enumerate() {
                    *value = _mm512_load_si512(half.add((IN * y + x) * VECTORS + v));
                }
                for ((value, shift_x), sums) in sum_points(row).into_iter().zip(SHIFTS).zip(&mut sums) {
                    let whole = _mm512_mullo_epi32(value, ninth);
                    let shift = _mm_cvtsi32_si128((shift_y + shift_x) as i32);
                    sums[v] = _mm512_add_epi32(_mm512_sra_epi32(whole, shift), header.start(v));
                }
            }
            header.requantize_all::<VECTORS, FORM>(&mut sums, target);
            for (x, sums) in sums.into_iter().enumerate() {
                if y < n[0] && x < n[1] {
                    target.store::<VECTORS>(sums, HALF, out.add((y * dims.w + x) * dims.c));
                }
            }
        }
    }
}
