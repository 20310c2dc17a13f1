//! One checked step, ready to run: the kernel's parameters, owned.

use graft_kernels::add::{AddParams, add};
use graft_kernels::conv::{ConvParams, ConvShape, conv};
use graft_kernels::float::{self, Binary, Unary};
use graft_kernels::matmul::{MatMulParams, MatMulShape, matmul};
use graft_kernels::mul::{MulParams, mul};
use graft_kernels::pool::{AverageParams, PoolShape, average_pool, global_sum, max_pool};
use graft_kernels::resize::resize;
use graft_kernels::shape::{concat_part, reshape, transpose, upsample};
use graft_kernels::table::{table, wide_table};
use graft_kernels::{Clamp, Dims, Isa, KernelError, Requantize, View, ViewMut};

use crate::arena::{Place, Rest};
use crate::chain::{Chain, ChainScratch};
use crate::error::EmbedError;
use crate::onnx::OnnxModel;
use crate::program::ScratchLens;

/// Op with everything that does not change between inferences.
#[derive(Clone, Debug)]
pub(crate) enum Kernel {
    Conv { shape: ConvShape, packed: Vec<i16>, bias: Vec<i32>, multipliers: Vec<i32>, zero_point_in: i32, clamp: Clamp },
    Chain(Chain),
    Add { dims: [Dims; 2], params: AddParams },
    Mul { dims: [Dims; 2], params: MulParams },
    MatMul { shape: MatMulShape, params: MatMulParams },
    AveragePool { shape: PoolShape, params: AverageParams },
    GlobalSum { dims: Dims, zero_point_in: i32 },
    MaxPool { shape: PoolShape },
    Table { table: Box<[i8; 256]> },
    WideTable { entries: Entries },
    Concat { axis: usize, parts: Vec<Part>, whole: Dims },
    Upsample { dims: Dims, factor: [usize; 2] },
    Resize { dims: Dims, rows: Vec<u32>, columns: Vec<u32> },
    Reshape,
    Transpose { dims: Dims, axes: [usize; 3] },
    Dequantize { scale: f32, zero_point: i32 },
    Quantize { inv_scale: f32, clamp: Clamp },
    FloatUnary { function: Unary },
    FloatBinary { function: Binary, dims: [Dims; 2] },
    FloatConv { shape: ConvShape, packed: Vec<f32>, bias: Vec<f32> },
    FloatSoftmax { dims: Dims },
    FloatMean { dims: Dims },
    Onnx(OnnxModel),
}

/// Entries of a table that is not from I8 to I8.
#[derive(Clone, Debug)]
pub(crate) enum Entries {
    I8(Vec<i8>),
    I16(Vec<i16>),
}

impl Entries {
    fn view(&self) -> View<'_> {
        match self {
            Self::I8(entries) => View::I8(entries),
            Self::I16(entries) => View::I16(entries),
        }
    }
}

/// What kernels write to between input and output.
#[derive(Clone)]
pub(crate) struct Scratch {
    pub wide: Vec<i16>,
    /// One per thread.
    pub chains: Vec<ChainScratch>,
}

/// One input of a concatenation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub dims: Dims,
    /// Where it begins along the axis.
    pub at: usize,
}

impl Kernel {
    /// Multiply-accumulates of convolutions and products of matrices; other ops cost next to nothing and count none.
    pub(crate) fn n_macs(&self) -> u64 {
        match self {
            Self::Conv { shape, .. } | Self::FloatConv { shape, .. } => shape.n_macs(),
            Self::Chain(chain) => chain.n_macs(),
            Self::MatMul { shape, .. } => shape.n_macs(),
            _ => 0,
        }
    }

    pub(crate) fn scratch(&self, isa: Isa) -> ScratchLens {
        match self {
            Self::Conv { shape, .. } => ScratchLens { wide: shape.scratch_len(), ..ScratchLens::default() },
            Self::MatMul { shape, .. } => ScratchLens { wide: shape.scratch_len(), ..ScratchLens::default() },
            Self::Chain(chain) => chain.scratch(isa),
            _ => ScratchLens::default(),
        }
    }

    /// Bytes of weights and what belongs to them.
    pub(crate) fn packed_bytes(&self) -> usize {
        match self {
            Self::Conv { packed, bias, .. } => 2 * packed.len() + 8 * bias.len(),
            Self::Chain(chain) => chain.packed_bytes(),
            Self::WideTable { entries: Entries::I8(entries) } => entries.len(),
            Self::WideTable { entries: Entries::I16(entries) } => 2 * entries.len(),
            Self::FloatConv { packed, bias, .. } => 4 * (packed.len() + bias.len()),
            Self::Onnx(model) => model.n_bytes(),
            _ => 0,
        }
    }

    /// Runs it on tensors of the arena.
    pub(crate) fn run(
        &self,
        isa: Isa,
        inputs: &[Place],
        rest: &Rest<'_>,
        scratch: &mut Scratch,
        mut output: ViewMut<'_>,
    ) -> Result<(), EmbedError> {
        let input = |i: usize| -> Result<View<'_>, KernelError> {
            inputs.get(i).and_then(|place| rest.view(*place)).ok_or(KernelError::Shapes { op: "arena" })
        };
        match self {
            Self::Conv { shape, packed, bias, multipliers, zero_point_in, clamp } => {
                let requantize = Requantize { multipliers, clamp: *clamp };
                let params = ConvParams { packed, bias, zero_point_in: *zero_point_in, requantize };
                conv(isa, shape, &params, input(0)?, &mut scratch.wide, output)
            }
            Self::Chain(chain) => match (input(0)?, output) {
                (View::I8(x), ViewMut::I8(y)) => chain.run(isa, x, &mut scratch.chains, y),
                _ => Err(KernelError::Types { op: "Conv" }),
            },
            Self::Add { dims, params } => add(isa, *dims, params, input(0)?, input(1)?, output),
            Self::Mul { dims, params } => mul(isa, *dims, params, input(0)?, input(1)?, output),
            Self::MatMul { shape, params } => {
                matmul(isa, shape, params, [input(0)?, input(1)?], &mut scratch.wide, output)
            }
            Self::AveragePool { shape, params } => average_pool(isa, shape, params, input(0)?, output),
            Self::GlobalSum { dims, zero_point_in } => global_sum(isa, *dims, *zero_point_in, input(0)?, output),
            Self::MaxPool { shape } => max_pool(isa, shape, input(0)?, output),
            Self::Table { table: entries } => match (input(0)?, output) {
                (View::I8(x), ViewMut::I8(y)) => table(isa, entries, x, y),
                _ => Err(KernelError::Types { op: "Table" }),
            },
            Self::WideTable { entries } => wide_table(isa, entries.view(), input(0)?, output),
            Self::Concat { axis, parts, whole } => {
                for (i, part) in parts.iter().enumerate() {
                    concat_part(isa, *axis, part.at, part.dims, input(i)?, *whole, output.reborrow())?;
                }
                Ok(())
            }
            Self::Upsample { dims, factor } => upsample(isa, *dims, *factor, input(0)?, output),
            Self::Resize { dims, rows, columns } => resize(isa, *dims, [rows, columns], input(0)?, output),
            Self::Reshape => reshape(isa, input(0)?, output),
            Self::Transpose { dims, axes } => transpose(isa, *dims, *axes, input(0)?, output),
            Self::Dequantize { scale, zero_point } => float::dequantize(isa, *scale, *zero_point, input(0)?, output),
            Self::Quantize { inv_scale, clamp } => float::quantize(isa, *inv_scale, *clamp, input(0)?, output),
            Self::FloatUnary { function } => float::unary(isa, *function, input(0)?, output),
            Self::FloatBinary { function, dims } => float::binary(isa, *function, *dims, input(0)?, input(1)?, output),
            Self::FloatConv { shape, packed, bias } => float::conv(isa, shape, packed, bias, input(0)?, output),
            Self::FloatSoftmax { dims } => float::softmax(isa, *dims, input(0)?, output),
            Self::FloatMean { dims } => float::mean(isa, *dims, input(0)?, output),
            Self::Onnx(model) => {
                let floats = |i: usize| match input(i)? {
                    View::F32(x) => Ok(x),
                    _ => Err(KernelError::Types { op: "Onnx" }),
                };
                let inputs = (0..inputs.len()).map(floats).collect::<Result<Vec<_>, _>>()?;
                let ViewMut::F32(output) = output else { return Err(KernelError::Types { op: "Onnx" }.into()) };
                return model.run(&inputs, output);
            }
        }
        .map_err(EmbedError::from)
    }
}
