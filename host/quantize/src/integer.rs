//! From float graph and scales to the integer graph of a bundle.

use std::collections::{BTreeSet, HashMap};

use graft_bundle::BundleWriter;
use graft_bundle::graph::{DataType, Graph, MULTIPLIER_ONE, Op, Requantize, Step, Tensor, TensorId, Window};

use crate::conv_weights::{ConvInput, offset_biases, quantize_conv};
use crate::error::QuantizeError;
use crate::float_graph::{Conv, FloatGraph, FloatNode, FloatOp, Select, ValueId};
use crate::scales::Quant;

/// What one step came out as.
#[derive(Clone, Debug)]
pub struct StepNote {
    /// Index into the graph's steps.
    pub step: usize,
    /// Value that the step computes; None for what only converts.
    pub value: Option<ValueId>,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Output channels whose weights got a coarser scale, so that the sum stays in the fast form.
    pub n_coarser: usize,
    /// Output channels that need the 64-bit form of requantization.
    pub n_wide: usize,
}

/// An integer graph with its payload.
pub struct Integer {
    /// The graph.
    pub graph: Graph,
    /// Weights.
    pub writer: BundleWriter,
    /// Tensor of each value.
    pub tensors: HashMap<ValueId, TensorId>,
    /// Per step.
    pub notes: Vec<StepNote>,
}

/// What is known about a layer's input besides its scale.
pub(crate) struct Context<'a> {
    pub graph: &'a FloatGraph,
    pub quants: &'a [Quant],
    /// Mean per channel of values that convolutions read.
    pub means: &'a HashMap<ValueId, Vec<f64>>,
    /// Constant error per channel of the network's input.
    pub input_offsets: &'a [f64],
    /// Convolutions, as outputs of their nodes, that are computed in float.
    pub float: &'a BTreeSet<ValueId>,
}

/// Builds the integer graph.
///
/// # Errors
/// [`QuantizeError::Layer`] naming a layer whose numbers cannot be held.
pub(crate) fn build(context: &Context<'_>) -> Result<Integer, QuantizeError> {
    let mut builder = Builder {
        context,
        built: Integer {
            graph: Graph { tensors: vec![], steps: vec![], input: TensorId(0), output: TensorId(0) },
            writer: BundleWriter::new(),
            tensors: HashMap::new(),
            notes: vec![],
        },
    };
    builder.built.graph.input = builder.tensor(context.graph.input, None);
    for node in &context.graph.nodes {
        builder.node(node)?;
    }
    let mut built = builder.built;
    // A graph whose output is its input has no steps.
    built.graph.output = built.tensors.get(&context.graph.output).copied().unwrap_or(TensorId(0));
    Ok(built)
}

struct Builder<'a> {
    context: &'a Context<'a>,
    built: Integer,
}

impl Builder<'_> {
    fn quant(&self, value: ValueId) -> Quant {
        self.context.quants.get(value).copied().unwrap_or(Quant::i8(1.0, 0))
    }

    fn shape(&self, value: ValueId) -> [u32; 3] {
        self.context.graph.values.get(value).map_or([1; 3], |v| v.shape.map(|d| d as u32))
    }

    /// Adds the tensor of a value; `as_is` where it is held in another way than its scale says.
    fn tensor(&mut self, value: ValueId, as_is: Option<(DataType, f64)>) -> TensorId {
        let quant = self.quant(value);
        let (data_type, scale, zero_point) = match as_is {
            Some((data_type, scale)) => (data_type, scale, 0),
            None => (quant.data_type, quant.scale, quant.zero_point),
        };
        let id = self.push_tensor(Tensor { shape: self.shape(value), data_type, scale, zero_point });
        self.built.tensors.insert(value, id);
        id
    }

    /// Adds a float tensor within a node.
    fn float_tensor(&mut self, value: ValueId) -> TensorId {
        let (shape, data_type) = (self.shape(value), DataType::F32);
        self.push_tensor(Tensor { shape, data_type, scale: 1.0, zero_point: 0 })
    }

    fn push_tensor(&mut self, tensor: Tensor) -> TensorId {
        let id = TensorId(self.built.graph.tensors.len() as u32);
        self.built.graph.tensors.push(tensor);
        id
    }

    fn push(&mut self, node: &FloatNode, op: Op, output: TensorId) {
        let inputs = node.inputs.iter().filter_map(|i| self.built.tensors.get(i)).copied().collect();
        self.push_step(node, op, inputs, output);
    }

    /// A step on these tensors; those into float and out of it compute nothing.
    fn push_step(&mut self, node: &FloatNode, op: Op, inputs: Vec<TensorId>, output: TensorId) {
        let converts = matches!(op, Op::Dequantize { .. } | Op::Quantize { .. });
        let (value, macs) = if converts { (None, 0) } else { (Some(node.output), self.context.graph.macs(node)) };
        self.built.notes.push(StepNote { step: self.built.graph.steps.len(), value, macs, n_coarser: 0, n_wide: 0 });
        // Names from outside are cut: a report shows them, nothing else reads them.
        let name = node.name.chars().take(96).collect();
        self.built.graph.steps.push(Step { name, op, inputs, output });
    }

    fn node(&mut self, node: &FloatNode) -> Result<(), QuantizeError> {
        let failed = |reason: String| QuantizeError::Layer { layer: node.name.clone(), reason };
        let first = node.inputs.first().copied().unwrap_or(self.context.graph.input);
        let second = node.inputs.get(1).copied().unwrap_or(first);
        let (a, b, out) = (self.quant(first), self.quant(second), self.quant(node.output));
        let [low, high] = clamp(&out, node.clamp);
        match &node.op {
            FloatOp::Conv(conv) if self.context.float.contains(&node.output) => {
                self.float_conv(node, conv, first, [low, high])?;
            }
            FloatOp::Conv(conv) => self.conv(node, conv, first, [low, high])?,
            FloatOp::Select(select) => self.select(node, select, first),
            FloatOp::Add { signs } => {
                let factors = [signs[0] * a.scale / out.scale, signs[1] * b.scale / out.scale];
                let (multipliers, shift) = add_multipliers(factors)
                    .ok_or_else(|| failed(format!("its operands differ too much in scale ({factors:?})")))?;
                let output = self.tensor(node.output, None);
                self.push(node, Op::Add { multipliers, shift, low, high }, output);
            }
            FloatOp::Mul => {
                let multiplier = multiplier(a.scale * b.scale / out.scale).map_err(failed)?;
                let output = self.tensor(node.output, None);
                self.push(node, Op::Mul { multiplier, low, high }, output);
            }
            FloatOp::MatMul => {
                let multiplier = multiplier(a.scale * b.scale / out.scale).map_err(failed)?;
                let output = self.tensor(node.output, None);
                self.push(node, Op::MatMul { multiplier, low, high }, output);
            }
            FloatOp::Softmax => self.in_float(node, [low, high], |_| Op::FloatSoftmax),
            FloatOp::Resize(positions) => {
                let [rows, columns] = positions.each_ref().map(|positions| self.built.writer.push_u32(positions));
                let output = self.tensor(node.output, None);
                self.push(node, Op::Resize { rows, columns }, output);
            }
            FloatOp::AveragePool { window, count_pad } => {
                let multiplier = multiplier(a.scale / out.scale).map_err(failed)?;
                let output = self.tensor(node.output, None);
                self.push(
                    node,
                    Op::AveragePool { window: *window, count_pad: *count_pad, multiplier, low, high },
                    output,
                );
            }
            FloatOp::GlobalMean => self.global_mean(node, first, [low, high])?,
            FloatOp::MaxPool(window) => {
                let output = self.tensor(node.output, None);
                self.push(node, Op::MaxPool { window: *window }, output);
            }
            FloatOp::Unary(unary) => {
                // Of I16, an entry for each step that it is limited to.
                let [least, most] = if a.data_type == DataType::I8 { [-128, 127] } else { a.limits };
                let entries = (least.min(-most - 1)..=most).map(|q| {
                    let y = unary.at(a.scale * f64::from(q - a.zero_point));
                    out.quantize(if y.is_nan() { f64::NEG_INFINITY } else { y }).clamp(low, high)
                });
                let table = match out.data_type {
                    DataType::I8 => self.built.writer.push_i8(&entries.map(|q| q as i8).collect::<Vec<_>>()),
                    _ => self.built.writer.push_i16(&entries.map(|q| q as i16).collect::<Vec<_>>()),
                };
                let output = self.tensor(node.output, None);
                self.push(node, Op::Table { table }, output);
            }
            FloatOp::Concat { axis } => {
                let output = self.tensor(node.output, None);
                self.push(node, Op::Concat { axis: *axis }, output);
            }
            FloatOp::Upsample(factor) => {
                let output = self.tensor(node.output, None);
                self.push(node, Op::Upsample { factor: *factor }, output);
            }
            FloatOp::Reshape => {
                // The backbone's sums may be reshaped, too.
                let held = self.built.tensors.get(&first).and_then(|t| self.built.graph.tensors.get(t.0 as usize));
                let as_is = held.filter(|t| t.data_type != DataType::I8).map(|t| (t.data_type, t.scale));
                let output = self.tensor(node.output, as_is);
                self.push(node, Op::Reshape, output);
            }
            FloatOp::Transpose(axes) => {
                let output = self.tensor(node.output, None);
                self.push(node, Op::Transpose { axes: *axes }, output);
            }
            FloatOp::Onnx(piece) => {
                self.in_float(node, [low, high], |writer| Op::Onnx { model: writer.push(&piece.model) });
            }
        }
        Ok(())
    }

    fn conv(
        &mut self,
        node: &FloatNode,
        conv: &Conv,
        input: ValueId,
        [low, high]: [i32; 2],
    ) -> Result<(), QuantizeError> {
        let (a, out) = (self.quant(input), self.quant(node.output));
        let in_c = self.shape(input)[2] as usize;
        let empty = vec![];
        let means = self.context.means.get(&input).unwrap_or(&empty);
        let described = ConvInput { quant: a, in_c, means, offsets: self.offsets(input) };
        let failed = |reason: String| QuantizeError::Layer { layer: node.name.clone(), reason };
        let quantized = quantize_conv(conv, &described, &out).map_err(failed)?;
        let weights = self.built.writer.push_i8(&quantized.weights);
        let bias = self.built.writer.push_i32(&quantized.bias);
        let multipliers = self.built.writer.push_i32(&quantized.multipliers);
        let output = self.tensor(node.output, None);
        let requantize = Requantize { multipliers, low, high };
        let op = Op::Conv { window: conv.window, groups: conv.groups as u32, weights, bias, requantize };
        self.push(node, op, output);
        if let Some(note) = self.built.notes.last_mut() {
            (note.n_coarser, note.n_wide) = (quantized.n_coarser, quantized.n_wide);
        }
        Ok(())
    }

    /// Constant error per channel of a convolution's input.
    fn offsets(&self, input: ValueId) -> &[f64] {
        if input == self.context.graph.input { self.context.input_offsets } else { &[] }
    }

    /// The convolution as it is.
    fn float_conv(
        &mut self,
        node: &FloatNode,
        conv: &Conv,
        input: ValueId,
        [low, high]: [i32; 2],
    ) -> Result<(), QuantizeError> {
        let in_c = self.shape(input)[2] as usize;
        let bias: Vec<f32> = offset_biases(conv, in_c, self.offsets(input)).into_iter().map(|b| b as f32).collect();
        if let Some(weight) = conv.weights.iter().chain(&bias).find(|w| !w.is_finite()) {
            let reason = format!("it has a weight of {weight}");
            return Err(QuantizeError::Layer { layer: node.name.clone(), reason });
        }
        self.in_float(node, [low, high], |writer| {
            let (weights, bias) = (writer.push_f32(&conv.weights), writer.push_f32(&bias));
            Op::FloatConv { window: conv.window, groups: conv.groups as u32, weights, bias }
        });
        Ok(())
    }

    /// A float op between steps into float and one out of it, which carries the clamp.
    fn in_float(&mut self, node: &FloatNode, [low, high]: [i32; 2], op: impl FnOnce(&mut BundleWriter) -> Op) {
        let mut inputs = vec![];
        for input in &node.inputs {
            let (from, x) = (self.built.tensors.get(input).copied(), self.float_tensor(*input));
            let scale = self.quant(*input).scale as f32;
            self.push_step(node, Op::Dequantize { scale }, from.into_iter().collect(), x);
            inputs.push(x);
        }
        let y = self.float_tensor(node.output);
        let op = op(&mut self.built.writer);
        self.push_step(node, op, inputs, y);
        let output = self.tensor(node.output, None);
        let inv_scale = (1.0 / self.quant(node.output).scale) as f32;
        self.push_step(node, Op::Quantize { inv_scale, low, high }, vec![y], output);
    }

    /// One weight of 1 per output channel, and a multiplier of exactly 1.
    fn select(&mut self, node: &FloatNode, select: &Select, input: ValueId) {
        let (in_c, out_c) = (self.shape(input)[2] as usize, self.shape(node.output)[2] as usize);
        let [kh, kw] = select.window.kernel.map(|k| k as usize);
        let tap = select.tap[0] as usize * kw + select.tap[1] as usize;
        let (per_tap, groups) = if select.channels.is_some() { (in_c, 1) } else { (1, in_c) };
        let mut weights = vec![0i8; out_c * kh * kw * per_tap];
        for o in 0..out_c {
            let from = match &select.channels {
                None => Some(0),
                Some(channels) => channels.get(o).copied().flatten(),
            };
            if let Some(weight) = from.and_then(|from| weights.get_mut((o * kh * kw + tap) * per_tap + from)) {
                *weight = 1;
            }
        }
        let out = self.quant(node.output);
        let [low, high] = clamp(&out, node.clamp);
        let weights = self.built.writer.push_i8(&weights);
        let bias = self.built.writer.push_i32(&vec![0; out_c]);
        let multipliers = self.built.writer.push_i32(&vec![MULTIPLIER_ONE as i32; out_c]);
        let requantize = Requantize { multipliers, low, high };
        let output = self.tensor(node.output, None);
        self.push(node, Op::Conv { window: select.window, groups: groups as u32, weights, bias, requantize }, output);
    }

    /// As the backbone's last step an exact sum; elsewhere a mean, whose range is often far narrower than its input's:
    /// then a depthwise convolution over the whole picture, since a pool's multiplier reaches a factor of 2 only.
    fn global_mean(&mut self, node: &FloatNode, input: ValueId, [low, high]: [i32; 2]) -> Result<(), QuantizeError> {
        let failed = |reason: String| QuantizeError::Layer { layer: node.name.clone(), reason };
        let (a, out) = (self.quant(input), self.quant(node.output));
        let [h, w, c] = self.shape(input);
        let n = f64::from(h) * f64::from(w);
        if node.output == self.context.graph.output {
            let output = self.tensor(node.output, Some((DataType::I32, a.scale / n)));
            self.push(node, Op::GlobalSum, output);
            return Ok(());
        }
        let window = Window { kernel: [h, w], stride: [1, 1], dilation: [1, 1], pad_before: [0; 2], pad_after: [0; 2] };
        let factor = a.scale / out.scale;
        if factor < 1.999 {
            let multiplier = multiplier(factor).map_err(failed)?;
            let output = self.tensor(node.output, None);
            self.push(node, Op::AveragePool { window, count_pad: false, multiplier, low, high }, output);
            return Ok(());
        }
        // factor / n per element: as weight * M / 2^22 with the smallest weight that keeps M under 2^23.
        let weight = (factor / n / 1.999).ceil().clamp(1.0, 127.0);
        let multiplier = multiplier(factor / n / weight).map_err(failed)?;
        let weights = self.built.writer.push_i8(&vec![weight as i8; (h * w * c) as usize]);
        let bias = self.built.writer.push_i32(&vec![0; c as usize]);
        let multipliers = self.built.writer.push_i32(&vec![multiplier; c as usize]);
        let output = self.tensor(node.output, None);
        let requantize = Requantize { multipliers, low, high };
        self.push(node, Op::Conv { window, groups: c, weights, bias, requantize }, output);
        Ok(())
    }
}

/// Integer limits of a value with a fused clamp.
fn clamp(out: &Quant, clamp: Option<(f64, f64)>) -> [i32; 2] {
    let [low, high] = out.limits;
    match clamp {
        None => [low, high],
        Some((l, h)) => [
            if l == f64::NEG_INFINITY { low } else { out.quantize(l) },
            if h == f64::INFINITY { high } else { out.quantize(h) },
        ],
    }
}

/// M of a real factor.
fn multiplier(factor: f64) -> Result<i32, String> {
    let m = (factor * MULTIPLIER_ONE).round_ties_even();
    if (1.0..8_388_608.0).contains(&m) {
        Ok(m as i32)
    } else {
        Err(format!("a factor of {factor} has no multiplier in 1..2^23"))
    }
}

/// Multipliers of an addition and their shift for two real factors.
///
/// Within i16, which kernels add in half the time, if that leaves each off by 2^-13 at most (and a sum of two inputs by 2^-4
/// of an output step); else within 2^21, as fine as they get.
fn add_multipliers(factors: [f64; 2]) -> Option<([i32; 2], u8)> {
    let largest = factors[0].abs().max(factors[1].abs());
    let scaled = |factor: f64, shift: u8| (factor * f64::from(1u32 << shift)).round_ties_even();
    let finest = |most: i32| (1..=24u8).rev().find(|shift| scaled(largest, *shift) <= f64::from(most));
    let shift = finest(i16::MAX.into()).filter(|shift| *shift >= 12).or_else(|| finest(1 << 21))?;
    Some((factors.map(|f| scaled(f, shift) as i32), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_uses_the_finest_shift_that_fits() {
        assert_eq!(add_multipliers([0.75, -0.5]), Some(([24_576, -16_384], 15)));
        assert_eq!(add_multipliers([0.01, 0.02]), Some(([10_486, 20_972], 20)));
        assert_eq!(add_multipliers([1e-4, 1e-5]), Some(([1_678, 168], 24)));
        assert_eq!(add_multipliers([7.999, 1.0]), Some(([32_764, 4_096], 12)));
        // Too coarse within i16.
        assert_eq!(add_multipliers([8.0, 1.0]), Some(([1 << 21, 1 << 18], 18)));
        assert_eq!(add_multipliers([f64::from(1 << 21), 1.0]), None);
    }

    #[test]
    fn multipliers_outside_their_range_are_refused() {
        assert_eq!(multiplier(1.0), Ok(1 << 22));
        assert_eq!(multiplier(2.0).unwrap_err(), "a factor of 2 has no multiplier in 1..2^23");
        assert!(multiplier(1e-9).is_err());
    }
}
