//! The network between import and quantization: our ops, float weights, channels last, no batch.

use graft_bundle::graph::Window;

use crate::unary::Unary;
use crate::view::View;

/// Index into [`FloatGraph::values`].
pub type ValueId = usize;

/// The float network up to the cut.
#[derive(Clone, Debug, Default)]
pub struct FloatGraph {
    /// All tensors.
    pub values: Vec<Value>,
    /// In execution order.
    pub nodes: Vec<FloatNode>,
    /// Network input.
    pub input: ValueId,
    /// Backbone output, `[1, 1, D]`.
    pub output: ValueId,
}

/// A tensor of the network.
#[derive(Clone, Debug)]
pub struct Value {
    /// `[H, W, C]`.
    pub shape: [usize; 3],
    /// Which ONNX tensor holds the same numbers, and how; its ranges are this value's ranges.
    pub source: Option<Source>,
    /// Per channel, what the value is larger by than its source: after equalization.
    pub factors: Option<Vec<f64>>,
    /// Range, where it does not come from the source's statistics.
    pub range: Option<[f64; 2]>,
}

impl Value {
    /// A value of a shape, found in `source`.
    pub fn new(shape: [usize; 3], source: Option<Source>) -> Value {
        Value { shape, source, factors: None, range: None }
    }
}

/// Where a value is found in the ONNX graph.
#[derive(Clone, Debug)]
pub struct Source {
    /// ONNX tensor name.
    pub tensor: String,
    /// How that tensor is laid over the value.
    pub view: View,
}

/// One op.
#[derive(Clone, Debug)]
pub struct FloatNode {
    /// ONNX node that it came from.
    pub name: String,
    /// What is computed.
    pub op: FloatOp,
    /// Read.
    pub inputs: Vec<ValueId>,
    /// Written.
    pub output: ValueId,
    /// Fused activation: the result is clamped.
    pub clamp: Option<(f64, f64)>,
}

/// Convolution parameters; a fully connected layer is a 1x1 convolution on `[1, 1, C]`.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Window.
    pub window: Window,
    /// Groups.
    pub groups: usize,
    /// `[out_c, kernel_h, kernel_w, in_c / groups]`.
    pub weights: Vec<f32>,
    /// `[out_c]`.
    pub bias: Vec<f32>,
}

/// Copies elements: one tap of a window, chosen channels, zero where there is nothing to copy.
#[derive(Clone, Debug)]
pub struct Select {
    /// Window; its padding is zeros.
    pub window: Window,
    /// The one element of the window that is copied.
    pub tap: [u32; 2],
    /// Per output channel the input channel, or none for zeros. `None`: channels stay.
    pub channels: Option<Vec<Option<usize>>>,
}

/// What a node computes.
#[derive(Clone, Debug)]
pub enum FloatOp {
    /// Convolution.
    Conv(Conv),
    /// `signs[0] * a + signs[1] * b`; b may be one value per channel or one for all.
    Add {
        /// 1 or -1.
        signs: [f64; 2],
    },
    /// `a * b`, shapes as `Add`.
    Mul,
    /// Matrix by matrix, `[N, R, K] x [N, K, C] -> [N, R, C]`.
    MatMul,
    /// `exp(x)` over the sum of them along channels.
    Softmax,
    /// Mean over the window.
    AveragePool {
        /// Window.
        window: Window,
        /// Divide by the kernel's size at the edges, too.
        count_pad: bool,
    },
    /// Mean over height and width.
    GlobalMean,
    /// Largest element of the window.
    MaxPool(Window),
    /// A function of each element.
    Unary(Unary),
    /// Joined along an axis of `[H, W, C]`.
    Concat {
        /// 0, 1 or 2.
        axis: u32,
    },
    /// Nearest-neighbour enlargement.
    Upsample([u32; 2]),
    /// Linear interpolation at these rows and columns of the input, times [`POSITION_ONE`](graft_bundle::graph::POSITION_ONE).
    Resize([Vec<u32>; 2]),
    /// Padding, slicing, splitting and the like; exact, as a convolution with one 1 per output channel.
    Select(Select),
    /// Same memory, other shape.
    Reshape,
    /// Axes reordered.
    Transpose([u32; 3]),
    /// Nodes in tract's own float code; inputs and output in memory order.
    Onnx(OnnxPiece),
}

/// Nodes that tract runs.
#[derive(Clone, Debug)]
pub struct OnnxPiece {
    /// Encoded `ModelProto`.
    pub model: Vec<u8>,
    /// Its ONNX nodes, in order.
    pub nodes: Vec<PieceNode>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct PieceNode {
    /// ONNX name.
    pub node: String,
    /// Operator type.
    pub op: String,
}

impl FloatOp {
    /// True if the op moves, selects or interpolates elements only, so that output and input share scale and zero point.
    pub fn keeps_scale(&self) -> bool {
        use FloatOp::*;
        matches!(self, MaxPool(_) | Concat { .. } | Upsample(_) | Resize(_) | Select(_) | Reshape | Transpose(_))
    }

    /// True if a clamp can be fused into it.
    pub fn takes_clamp(&self) -> bool {
        use FloatOp::*;
        matches!(self, Conv(_) | Add { .. } | Mul | MatMul | AveragePool { .. } | Onnx(_))
    }
}

impl Conv {
    /// Most that the int8 weights of one output channel sum up to, each in steps of 1/127 of the largest.
    pub fn weights_reach(&self) -> f64 {
        let per_channel = (self.weights.len() / self.bias.len().max(1)).max(1);
        let reach = |weights: &[f32]| {
            let largest = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
            let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
            // Half a step each is what rounding can add.
            sum / f64::from(largest).max(f64::MIN_POSITIVE) * 127.0 + per_channel as f64 / 2.0
        };
        self.weights.chunks(per_channel).map(reach).fold(0.0, f64::max)
    }
}

/// A 1x1 window of stride 1.
pub fn point_window() -> Window {
    Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad_before: [0, 0], pad_after: [0, 0] }
}

impl FloatGraph {
    /// Height times width of a value.
    pub fn n_pixels(&self, value: ValueId) -> usize {
        self.values.get(value).map_or(0, |v| v.shape[0] * v.shape[1])
    }

    /// Multiply-accumulates of a node.
    pub fn macs(&self, node: &FloatNode) -> u64 {
        let shape = |value: ValueId| self.values.get(value).map_or([0; 3], |v| v.shape).map(|d| d as u64);
        match &node.op {
            FloatOp::Conv(conv) => {
                let [h, w, _] = shape(node.output);
                h * w * conv.weights.len() as u64
            }
            FloatOp::Select(select) => {
                let [h, w, c] = shape(node.output);
                let in_c = node.inputs.first().map_or(0, |i| shape(*i)[2]);
                let taps = select.window.kernel.map(u64::from).iter().product::<u64>();
                h * w * c * taps * if select.channels.is_some() { in_c } else { 1 }
            }
            FloatOp::GlobalMean => node.inputs.first().map_or(0, |i| shape(*i).iter().product()),
            FloatOp::AveragePool { window, .. } | FloatOp::MaxPool(window) => {
                shape(node.output).iter().product::<u64>() * window.kernel.map(u64::from).iter().product::<u64>()
            }
            FloatOp::MatMul => {
                let [n, rows, inner] = node.inputs.first().map_or([0; 3], |a| shape(*a));
                n * rows * inner * shape(node.output)[2]
            }
            FloatOp::Add { .. } | FloatOp::Mul | FloatOp::Unary(_) | FloatOp::Softmax => {
                shape(node.output).iter().product()
            }
            FloatOp::Resize(_) => 4 * shape(node.output).iter().product::<u64>(),
            _ => 0,
        }
    }

    /// How many nodes read each value; the graph's output counts as one more.
    pub fn n_readers(&self) -> Vec<usize> {
        let mut n = vec![0; self.values.len()];
        for input in self.nodes.iter().flat_map(|node| &node.inputs) {
            n[*input] += 1;
        }
        if let Some(output) = n.get_mut(self.output) {
            *output += 1;
        }
        n
    }
}
