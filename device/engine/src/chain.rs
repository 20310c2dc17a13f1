//! Packed convolutions that run band by band: a few rows of the last one at a time, and of those before it the rows that
//! these need, so that what lies between two of them stays in the cache and needs no place in the arena.
//!
//! Rows that the next band needs again are kept, not computed twice. A band of a convolution is a smaller convolution
//! ([`ConvShape::rows`]), so kernels know nothing of all this. Bands are planned once, at load.
//!
//! Source: Alwani, Chen, Ferdman and Milder, "Fused-layer CNN accelerators", MICRO 2016; line buffers.

use std::ops::Range;

use graft_kernels::conv::ConvShape;
use graft_kernels::packed::{self, Line, PackedConv};
use graft_kernels::{Clamp, Dims, Isa, KernelError};

use crate::program::ScratchLens;

/// What lies between two convolutions goes through the arena up to this size: it stays in the cache anyway.
const BETWEEN_BYTES_MIN: usize = 160 << 10;
/// Bytes of a band between the convolutions of a chain: with weights and input they share the second-level cache.
const BAND_BYTES: usize = 256 << 10;

/// One convolution with its packed values.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub shape: ConvShape,
    pub packed: Vec<Line>,
    pub zero_point_in: i32,
    pub clamp: Clamp,
}

/// Convolutions of which each reads what the one before it writes, and nobody else does.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    stages: Vec<Stage>,
    /// One per thread.
    parts: Vec<Part>,
}

/// Output rows that one thread computes.
#[derive(Clone, Debug)]
struct Part {
    output_len: usize,
    /// Where in the scratch the rows lie that stage `i` gives; none for the last.
    buffers: Vec<Range<usize>>,
    /// Of the last buffer.
    end: usize,
    passes: Vec<Pass>,
}

/// Some rows of one stage.
#[derive(Clone, Debug)]
struct Pass {
    stage: usize,
    shape: ConvShape,
    /// Values of the target that are moved to its beginning before.
    keep: Range<usize>,
    /// Values of the source: the chain's input, or the buffer behind the stage before.
    from: Range<usize>,
    /// Values of the target: the part's output, or the buffer behind the stage.
    to: Range<usize>,
}

/// What a chain writes to between input and output; of one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChainScratch {
    pub bands: Vec<Line>,
    pub lines: Vec<Line>,
}

impl Chain {
    /// One convolution by itself.
    pub(crate) fn new(stage: Stage, n_threads: usize) -> Self {
        let shape = stage.shape;
        let pass = Pass { stage: 0, shape, keep: 0..0, from: 0..shape.input.len(), to: 0..shape.output.len() };
        let whole = Part { output_len: shape.output.len(), buffers: vec![], end: 0, passes: vec![pass] };
        // A 1x1 convolution divides at any pixel.
        let parts = if n_threads > 1 { parts_of(&[shape.flat()], n_threads) } else { None };
        Self { parts: parts.unwrap_or_else(|| vec![whole]), stages: vec![stage] }
    }

    /// Runs `next`, which reads what this chain writes, with it; false, and nothing is changed, if that does not pay.
    pub(crate) fn join(&mut self, next: &mut Chain, n_threads: usize) -> bool {
        let (Some(last), Some(first)) = (self.stages.last(), next.stages.first()) else { return false };
        if last.shape.output.len() < BETWEEN_BYTES_MIN || last.shape.output != first.shape.input {
            return false;
        }
        let n = self.stages.len();
        self.stages.append(&mut next.stages);
        let shapes: Vec<ConvShape> = self.stages.iter().map(|stage| stage.shape).collect();
        let Some(parts) = parts_of(&shapes, n_threads) else {
            next.stages = self.stages.split_off(n);
            return false;
        };
        self.parts = parts;
        true
    }

    pub(crate) fn n_macs(&self) -> u64 {
        self.stages.iter().map(|stage| stage.shape.n_macs()).fold(0, u64::saturating_add)
    }

    pub(crate) fn packed_bytes(&self) -> usize {
        self.stages.iter().map(|stage| size_of_val(&stage.packed[..])).sum()
    }

    pub(crate) fn scratch(&self, isa: Isa) -> ScratchLens {
        let passes = self.parts.iter().flat_map(|part| &part.passes);
        let lines = passes.map(|pass| packed::scratch_lines(isa, &pass.shape)).max().unwrap_or(0);
        ScratchLens { wide: 0, bands: self.parts.iter().map(|part| part.end).max().unwrap_or(0), lines }
    }

    /// Runs it: the bits of its convolutions one after the other.
    ///
    /// `scratch` has one element per thread.
    pub(crate) fn run(
        &self,
        isa: Isa,
        input: &[i8],
        scratch: &mut [ChainScratch],
        output: &mut [i8],
    ) -> Result<(), KernelError> {
        run_parts(&self.stages, &self.parts, isa, input, scratch, output)
    }
}

/// Divides the work among threads, as evenly as rows allow, and each one's rows into bands. `None` if a band would lie
/// wholly in the padding.
fn parts_of(stages: &[ConvShape], n_threads: usize) -> Option<Vec<Part>> {
    let h = stages.last()?.output.h;
    let n = n_threads.clamp(1, h.max(1));
    (0..n).map(|i| part_of(stages, i * h / n..(i + 1) * h / n)).collect()
}

fn part_of(stages: &[ConvShape], rows: Range<usize>) -> Option<Part> {
    // The highest bands that leave the buffers small enough; in fours or pairs, as kernels like rows.
    let mut n_rows = rows.len().next_multiple_of(4);
    loop {
        let part = part_in_bands(stages, rows.clone(), n_rows)?;
        if part.end <= BAND_BYTES || n_rows <= 2 {
            return Some(part);
        }
        n_rows = (n_rows / 2).next_multiple_of(if n_rows > 8 { 4 } else { 2 });
    }
}

fn part_in_bands(stages: &[ConvShape], rows: Range<usize>, n_rows: usize) -> Option<Part> {
    let (passes, lens) = passes_of(stages, rows.clone(), n_rows)?;
    let mut end = 0;
    let buffer = |len: usize| {
        let start = end;
        end += len.next_multiple_of(size_of::<Line>());
        start..start + len
    };
    let buffers = lens.into_iter().map(buffer).collect();
    let output_len = stages.last().map_or(0, |last| rows.len() * row_len(last.output));
    Some(Part { output_len, buffers, end, passes })
}

/// The passes for these output rows in bands of `n_rows`, and the length of each buffer. `None` if a band lies wholly
/// in the padding.
fn passes_of(stages: &[ConvShape], rows: Range<usize>, n_rows: usize) -> Option<(Vec<Pass>, Vec<usize>)> {
    let mut passes = vec![];
    let n_buffers = stages.len() - 1;
    let mut lens = vec![0; n_buffers];
    // Rows in the buffer behind each stage.
    let mut held: Vec<Range<usize>> = vec![0..0; n_buffers];
    for first in rows.clone().step_by(n_rows.max(1)) {
        let mut wanted = first..rows.end.min(first + n_rows);
        // Backwards: what a stage has to compute says what it wants of the one before.
        let mut band = vec![];
        for (i, stage) in stages.iter().enumerate().rev() {
            let row_len = row_len(stage.output);
            let (keep, new, base) = match held.get_mut(i) {
                // The last stage writes to the output.
                None => (0..0, wanted.clone(), rows.start),
                Some(held) => {
                    let new = wanted.start.max(held.end)..wanted.end;
                    if new.is_empty() {
                        break;
                    }
                    let kept = wanted.start.min(held.end)..held.end;
                    let keep = kept.start - held.start..kept.end - held.start;
                    *held = wanted.start..wanted.end;
                    let len = lens.get_mut(i)?;
                    *len = (*len).max(held.len() * row_len);
                    (keep, new, held.start)
                }
            };
            let (shape, source) = stage.rows(new.clone())?;
            band.push((i, shape, source.clone(), keep.start * row_len..keep.end * row_len, new.start - base));
            wanted = source;
        }
        for (stage, shape, source, keep, at) in band.into_iter().rev() {
            let base = if stage == 0 { 0 } else { held.get(stage - 1)?.start };
            let row = row_len(shape.input);
            let from = (source.start - base) * row..(source.end - base) * row;
            let start = at * row_len(shape.output);
            passes.push(Pass { stage, keep, from, to: start..start + shape.output.len(), shape });
        }
    }
    Some((passes, lens))
}

fn row_len(dims: Dims) -> usize {
    dims.w * dims.c
}

/// Runs parts side by side; `output` begins with the first one's.
fn run_parts(
    stages: &[Stage],
    parts: &[Part],
    isa: Isa,
    input: &[i8],
    scratch: &mut [ChainScratch],
    output: &mut [i8],
) -> Result<(), KernelError> {
    let unfit = KernelError::Shapes { op: "chain" };
    match (parts, &mut *scratch) {
        ([], _) => Ok(()),
        ([part], [scratch, ..]) => part.run(stages, isa, input, scratch, output),
        _ => {
            let (parts_a, parts_b) = parts.split_at(parts.len() / 2);
            let (scratch_a, scratch_b) = scratch.split_at_mut_checked(parts_a.len()).ok_or(unfit)?;
            let n = parts_a.iter().map(|part| part.output_len).sum();
            let (output_a, output_b) = output.split_at_mut_checked(n).ok_or(unfit)?;
            let (a, b) = rayon::join(
                || run_parts(stages, parts_a, isa, input, scratch_a, output_a),
                || run_parts(stages, parts_b, isa, input, scratch_b, output_b),
            );
            a.and(b)
        }
    }
}

impl Part {
    fn run(
        &self,
        stages: &[Stage],
        isa: Isa,
        input: &[i8],
        scratch: &mut ChainScratch,
        output: &mut [i8],
    ) -> Result<(), KernelError> {
        const UNFIT: KernelError = KernelError::Shapes { op: "chain" };
        let ChainScratch { bands, lines } = scratch;
        let bands = Line::values_mut(bands);
        for pass in &self.passes {
            let stage = stages.get(pass.stage).ok_or(UNFIT)?;
            let own = self.buffers.get(pass.stage).cloned();
            // A buffer lies behind that of the stage before.
            let (before, rest) =
                bands.split_at_mut_checked(own.as_ref().map_or(self.end, |own| own.start)).ok_or(UNFIT)?;
            let source = match pass.stage.checked_sub(1) {
                None => input,
                Some(i) => self.buffers.get(i).and_then(|buffer| before.get(buffer.clone())).ok_or(UNFIT)?,
            };
            let target = match own {
                None => &mut *output,
                Some(own) => rest.get_mut(..own.len()).ok_or(UNFIT)?,
            };
            if pass.keep.end > target.len() {
                return Err(UNFIT);
            }
            target.copy_within(pass.keep.clone(), 0);
            let from = source.get(pass.from.clone()).ok_or(UNFIT)?;
            let to = target.get_mut(pass.to.clone()).ok_or(UNFIT)?;
            let &Stage { ref packed, zero_point_in, clamp, .. } = stage;
            let layer = PackedConv { shape: &pass.shape, packed, zero_point_in, clamp, input: from };
            packed::conv(isa, &layer, lines, to)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::available_isas;
    use graft_bundle::manifest::seeded_bytes;
    use graft_kernels::packed::{Layer, RowSums};
    use graft_kernels::{Requantize, Window};
    use proptest::prelude::*;

    /// Kernel, stride, dilation, padding before and after, each for both axes; output channels of a group; depthwise.
    type Drawn = ([usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2], usize, bool);

    fn drawn() -> impl Strategy<Value = Drawn> {
        let pair = |range: std::ops::RangeInclusive<usize>| [range.clone(), range];
        (pair(1..=4), pair(1..=3), pair(1..=2), pair(0..=3), pair(0..=3), 1usize..=40, any::<bool>())
    }

    fn bytes(seed: u32) -> impl Iterator<Item = i8> {
        seeded_bytes(seed).map(u8::cast_signed)
    }

    /// As many of the layers as fit one behind the other.
    fn stages_of(isa: Isa, mut input: Dims, layers: &[Drawn], seed: u32) -> Vec<Stage> {
        let mut stages = vec![];
        for (kernel, stride, dilation, pad_before, pad_after, c, is_depthwise) in layers.iter().cloned() {
            let window = Window { kernel, stride, dilation, pad_before, pad_after };
            let Some([h, w]) = window.output(input) else { continue };
            let (c, groups) = if is_depthwise && input.c > 1 { (input.c, input.c) } else { (c, 1) };
            let shape = ConvShape { input, output: Dims { h, w, c }, window, groups };
            if !packed::has_twin(isa, &shape) {
                continue;
            }
            let weights: Vec<i8> = bytes(seed ^ h as u32).map(|w| w.max(-127)).take(shape.weights_len()).collect();
            let clamp = Clamp { zero_point: 3, low: -128, high: 127 };
            let requantize = Requantize { multipliers: &vec![2_000; c], clamp };
            let sums: Vec<RowSums> = weights.chunks_exact(weights.len() / c).map(RowSums::of).collect();
            let (bias, zero_point_in) = (&vec![50; c], -5);
            let layer = Layer { weights: &weights, sums: &sums, bias, zero_point_in, requantize };
            let mut packed = vec![Line::ZERO; packed::packed_lines(isa, &shape)];
            packed::pack(isa, &shape, &layer, &mut packed).unwrap();
            stages.push(Stage { shape, packed, zero_point_in: -5, clamp });
            input = shape.output;
        }
        stages
    }

    fn run(isa: Isa, chain: &Chain, input: &[i8], n_threads: usize) -> Vec<i8> {
        let ScratchLens { bands, lines, .. } = chain.scratch(isa);
        // What an earlier chain left there.
        let one = ChainScratch { bands: vec![Line([77; 64]); bands.div_ceil(64)], lines: vec![Line([55; 64]); lines] };
        let mut output = vec![0; chain.stages.last().unwrap().shape.output.len()];
        chain.run(isa, input, &mut vec![one; n_threads], &mut output).unwrap();
        output
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn bands_give_the_bits_of_whole_layers(
            (h, w, c) in (1usize..=30, 1usize..=9, 1usize..=20),
            layers in prop::collection::vec(drawn(), 1..=5),
            (n_threads, n_rows, seed) in (1usize..=4, 1usize..=6, any::<u32>()),
        ) {
            for isa in available_isas() {
                let stages = stages_of(isa, Dims { h, w, c }, &layers, seed);
                if stages.is_empty() {
                    continue;
                }
                let input: Vec<i8> = bytes(!seed).take(h * w * c).collect();
                let whole = stages.iter().fold(input.clone(), |input, stage| run(isa, &Chain::new(stage.clone(), 1), &input, 1));
                // As planned for some threads.
                let shapes: Vec<ConvShape> = stages.iter().map(|stage| stage.shape).collect();
                if let Some(parts) = parts_of(&shapes, n_threads) {
                    let chain = Chain { stages: stages.clone(), parts };
                    prop_assert_eq!(run(isa, &chain, &input, n_threads), whole.clone(), "{}", isa);
                }
                let alone = Chain::new(stages[0].clone(), n_threads);
                prop_assert_eq!(
                    run(isa, &alone, &input, n_threads),
                    run(isa, &Chain::new(stages[0].clone(), 1), &input, 1),
                    "{}, {} threads", isa, n_threads
                );
                // In bands of any height.
                let rows = 0..stages.last().unwrap().shape.output.h;
                if let Some(part) = part_in_bands(&shapes, rows, n_rows) {
                    let chain = Chain { stages, parts: vec![part] };
                    prop_assert_eq!(run(isa, &chain, &input, 1), whole, "{}, {} rows", isa, n_rows);
                }
            }
        }
    }

    #[test]
    fn chains_grow_only_where_it_pays() {
        let layer = |c| ([3, 3], [1, 1], [1, 1], [1, 1], [1, 1], c, false);
        let Some(isa) =
            available_isas().find(|isa| !stages_of(*isa, Dims { h: 3, w: 3, c: 3 }, &[layer(4)], 0).is_empty())
        else {
            return;
        };
        let chains = |h: usize| {
            let stages = stages_of(isa, Dims { h, w: 64, c: 3 }, &[layer(64), layer(8)], 1);
            let [a, b] = stages.try_into().unwrap();
            [a, b].map(|stage: Stage| Chain::new(stage, 1))
        };
        let [mut large, mut next] = chains(128);
        assert!(large.join(&mut next, 1), "512 KB between the two");
        assert!(large.scratch(isa).bands <= BAND_BYTES && large.parts[0].passes.len() > 2);
        let [mut small, mut next] = chains(8);
        assert!(!small.join(&mut next, 1));
        assert_eq!((small.stages.len(), next.stages.len()), (1, 1), "nothing is changed");
    }
}
