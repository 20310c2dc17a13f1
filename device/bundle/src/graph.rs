//! The integer graph as plain data: what is computed, not how.
//!
//! Tensors are channels-last without a batch axis (`[H, W, C]`; a vector is `[1, 1, D]`). Steps stand in execution
//! order and name their tensors by index; every tensor is written by exactly one step (the input by none). The
//! arithmetic of each op is defined in `graft-kernels` under the same name. Weights and biases lie in the payload,
//! named by byte offsets from its start, 64-byte aligned.

use serde::{Deserialize, Serialize};

/// Index into [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TensorId(pub u32);

/// The graph from input tensor to backbone output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// In execution order.
    pub steps: Vec<Step>,
    /// int8, written by the caller.
    pub input: TensorId,
    /// The backbone output; its `[D]` integers minus its zero point are normalised into the embedding.
    pub output: TensorId,
}

/// A tensor's shape, type and meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// `[H, W, C]`.
    pub shape: [u32; 3],
    /// Type of an element.
    pub data_type: DataType,
    /// Real value per integer step; for reports and tests, no kernel reads it. 1 for floats.
    pub scale: f64,
    /// Integer that stands for real zero. 0 for I32 and F32.
    pub zero_point: i32,
}

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataType {
    /// Activations.
    I8,
    /// Activations where eight bits would hurt, and backbone outputs.
    I16,
    /// Sums, as backbone output only.
    I32,
    /// Exact float: our own ops in a fixed order.
    F32,
}

impl DataType {
    /// Bytes per element.
    pub fn bytes(self) -> u32 {
        match self {
            DataType::I8 => 1,
            DataType::I16 => 2,
            DataType::I32 | DataType::F32 => 4,
        }
    }
}

/// One op with the tensors it reads and writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name of the ONNX node it came from, for reports and errors.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Read, in the op's order.
    pub inputs: Vec<TensorId>,
    /// Written.
    pub output: TensorId,
}

/// A stretch of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// From the payload's start; a multiple of 64.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What a multiplier of 1 is: they stand for M over this, 2^22.
pub const MULTIPLIER_ONE: f64 = 4_194_304.0;

/// What a pixel is: places of rows and columns are in units of its 2048th.
pub const POSITION_ONE: u32 = 2048;

/// Requantization to the output tensor: `q = clamp(zero_point + round_half_even(acc * M / 2^22), low, high)` with one
/// multiplier M in 1..2^23 per output channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requantize {
    /// `[C]` i32 little-endian multipliers.
    pub multipliers: Blob,
    /// Smallest output; carries a fused activation.
    pub low: i32,
    /// Largest output.
    pub high: i32,
}

/// Sliding window; sizes in elements, order height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Kernel size.
    pub kernel: [u32; 2],
    /// Step.
    pub stride: [u32; 2],
    /// Spacing of kernel elements; 1 is dense.
    pub dilation: [u32; 2],
    /// Padding above and left.
    pub pad_before: [u32; 2],
    /// Padding below and right.
    pub pad_after: [u32; 2],
}

/// What a step computes. Variants are frozen once released; new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Convolution, also depthwise and grouped; a fully connected layer is a 1x1 convolution on `[1, 1, C]`.
    ///
    /// `acc = bias + sum((x - zero_point_in) * w)`; padding inserts `zero_point_in`. One input.
    Conv {
        /// Window.
        window: Window,
        /// Groups; equal to input channels for depthwise.
        groups: u32,
        /// i8 `[out_c, kernel_h, kernel_w, in_c / groups]`, within -127..=127.
        weights: Blob,
        /// i32 little-endian `[out_c]`.
        bias: Blob,
        /// To the output.
        requantize: Requantize,
    },
    /// `q = clamp(zp + round_half_even(((a - zp_a) * multipliers[0] + (b - zp_b) * multipliers[1]) / 2^shift))`.
    /// Two inputs of one shape, or b of shape `[1, 1, C]`, or `[1, 1, 1]`.
    Add {
        /// In -2^21..=2^21 (negative: subtraction), one per input.
        multipliers: [i32; 2],
        /// 1..=24.
        shift: u8,
        /// Smallest output.
        low: i32,
        /// Largest output.
        high: i32,
    },
    /// `q = clamp(zp + round_half_even((a - zp_a) * (b - zp_b) * multiplier / 2^22))`, shapes as `Add`.
    Mul {
        /// In 1..2^23.
        multiplier: i32,
        /// Smallest output.
        low: i32,
        /// Largest output.
        high: i32,
    },
    /// Mean over the window: `q = clamp(zp + round_half_even(sum(x - zp_in) * multiplier / (n * 2^22)))` in i64, n the
    /// elements inside the picture (or all of the kernel if `count_pad`).
    AveragePool {
        /// Window.
        window: Window,
        /// Divide by the kernel's size at the edges, too.
        count_pad: bool,
        /// In 1..2^23.
        multiplier: i32,
        /// Smallest output.
        low: i32,
        /// Largest output.
        high: i32,
    },
    /// `sum(x - zp_in)` over height and width into I32, exact: the last step of most backbones, whose embedding is
    /// normalised anyway. `[H, W, C] -> [1, 1, C]`.
    GlobalSum,
    /// Largest element of the window inside the picture. Output scale and zero point are the input's.
    MaxPool {
        /// Window.
        window: Window,
    },
    /// `q = table[clamp(x, -n / 2, n / 2 - 1) + n / 2]`: any function of one value: activations, requantization.
    Table {
        /// Little-endian `[n]` of the output's type, I8 or I16: n is 256 for an I8 input, any even number up to 65,536 for
        /// I16.
        table: Blob,
    },
    /// Inputs joined along an axis, all with the output's scale and zero point.
    Concat {
        /// 0 height, 1 width, 2 channels.
        axis: u32,
    },
    /// Nearest-neighbour enlargement by whole factors.
    Upsample {
        /// Height and width factor.
        factor: [u32; 2],
    },
    /// The same bytes under another shape of equal length.
    Reshape,
    /// Axes of `[H, W, C]` reordered: output axis i is input axis `axes[i]`.
    Transpose {
        /// A permutation of 0, 1, 2.
        axes: [u32; 3],
    },
    /// `x = scale * (q - zero_point)` of the input tensor, one f32 multiplication.
    Dequantize {
        /// Real value per step, as f32.
        scale: f32,
    },
    /// `q = clamp(zp + round_half_even(x * inv_scale), low, high)`, the product in f32.
    Quantize {
        /// Steps per real unit, as f32.
        inv_scale: f32,
        /// Smallest output.
        low: i32,
        /// Largest output.
        high: i32,
    },
    /// Exact float function of one value (`libm`, no fused multiply-add).
    FloatUnary {
        /// Which one.
        function: FloatFunction,
    },
    /// Exact float function of two tensors, shapes as `Add`.
    FloatBinary {
        /// Which one.
        function: FloatFunction2,
    },
    /// Exact float convolution: products summed in the order kernel row, kernel column, input channel, from the bias.
    FloatConv {
        /// Window; padding inserts 0.
        window: Window,
        /// Groups.
        groups: u32,
        /// f32 little-endian `[out_c, kernel_h, kernel_w, in_c / groups]`.
        weights: Blob,
        /// f32 little-endian `[out_c]`.
        bias: Blob,
    },
    /// Softmax over channels: `exp(x - max)`, summed in order, one division each.
    FloatSoftmax,
    /// Mean over height and width, summed in row-major order, one division. `[H, W, C] -> [1, 1, C]`.
    FloatMean,
    /// Product of two activations, matrix by matrix: `[N, R, K] x [N, K, C] -> [N, R, C]`,
    /// `q = clamp(zp + round_half_even(sum((a - zp_a) * (b - zp_b)) * multiplier / 2^22))`. Two inputs; zero points of
    /// I16 are 0.
    MatMul {
        /// In 1..2^23.
        multiplier: i32,
        /// Smallest output.
        low: i32,
        /// Largest output.
        high: i32,
    },
    /// Bilinear interpolation, with weights in steps of 2^-11:
    /// `q = round_half_even(sum of the four pixels around * weight of row * weight of column / 2^22)`. Output scale and
    /// zero point are the input's.
    Resize {
        /// u32 little-endian, of each output row its place in the input times [`POSITION_ONE`], at most the last row's.
        rows: Blob,
        /// The same of columns.
        columns: Blob,
    },
    /// An ONNX model (of float32 inputs with concrete shapes, one float32 output), run by tract: not the same bits on every
    /// CPU. Inputs and output are F32; their elements in order are the model's tensors in row-major order.
    Onnx {
        /// The model, an encoded `ModelProto`, without external data.
        model: Blob,
    },
}

/// Function of one float.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum FloatFunction {
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// e^x.
    Exp,
    /// Square root.
    Sqrt,
    /// `|x|`.
    Abs,
    /// `x * clamp(x / 6 + 0.5, 0, 1)`.
    HardSwish,
    /// Gauss error function.
    Erf,
    /// `clamp(x, low, high)`.
    Clip(f32, f32),
}

/// Function of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FloatFunction2 {
    /// a + b.
    Add,
    /// a - b.
    Sub,
    /// a * b.
    Mul,
    /// a / b.
    Div,
}

/// Name of every op, for manifests and errors.
impl Op {
    /// True if every CPU computes the same bits.
    pub fn is_exact(&self) -> bool {
        !matches!(self, Op::Onnx { .. })
    }

    /// The op's name as the manifest lists it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::Add { .. } => "Add",
            Op::Mul { .. } => "Mul",
            Op::AveragePool { .. } => "AveragePool",
            Op::GlobalSum => "GlobalSum",
            Op::MaxPool { .. } => "MaxPool",
            Op::Table { .. } => "Table",
            Op::Concat { .. } => "Concat",
            Op::Upsample { .. } => "Upsample",
            Op::Reshape => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Dequantize { .. } => "Dequantize",
            Op::Quantize { .. } => "Quantize",
            Op::FloatUnary { .. } => "FloatUnary",
            Op::FloatBinary { .. } => "FloatBinary",
            Op::FloatConv { .. } => "FloatConv",
            Op::FloatSoftmax => "FloatSoftmax",
            Op::FloatMean => "FloatMean",
            Op::MatMul { .. } => "MatMul",
            Op::Resize { .. } => "Resize",
            Op::Onnx { .. } => "Onnx",
        }
    }
}

impl Tensor {
    /// Elements; saturates, so that a crafted shape cannot wrap.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().fold(1u64, |n, d| n.saturating_mul(u64::from(*d)))
    }

    /// Real value of an integer element.
    pub fn real(&self, q: i32) -> f64 {
        f64::from(q.wrapping_sub(self.zero_point)) * self.scale
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.n_elements().saturating_mul(u64::from(self.data_type.bytes()))
    }
}
