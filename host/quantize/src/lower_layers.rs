//! Lowering of layers: convolutions, fully connected layers, norms, pools.

use graft_bundle::graph::Window;
use tract_onnx::pb::NodeProto;

use crate::attributes::{axis, float, int, ints, string};
use crate::float_graph::{Conv, FloatOp, point_window};
use crate::lower::{Layout, Lowering, Reason};
use crate::onnx_file::node_name;
use crate::unary::Unary;
use crate::view::View;

/// Attribute of a Softmax from before opset 13, which takes all axes from its own on as one.
pub(crate) const FLATTENED: &str = "graft_flattened";

impl Lowering<'_> {
    /// Conv over one or two spatial axes.
    pub(crate) fn conv(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let (shape, weights) = self.floats(node, 1).ok_or("its weights depend on the input")?;
        let (out_c, in_c, kernel) = match shape[..] {
            [o, i, k] => (o, i, [1, k]),
            [o, i, kh, kw] => (o, i, [kh, kw]),
            _ => {
                return Err(format!(
                    "its weights have shape {shape:?}; convolutions over one or two axes are supported"
                ));
            }
        };
        let bias = match self.input(node, 2) {
            None => vec![0.0; out_c],
            Some(_) => self.floats(node, 2).ok_or("its bias depends on the input")?.1,
        };
        // A padding in front merges into the window, if it is the only pending thing.
        let waiting = self.data(node, 0)?;
        let (data, pad) = match waiting.pad {
            Some(pad) if waiting.unary == Unary::X => (waiting, pad),
            _ => (self.solid_input(node, 0)?, [0; 4]),
        };
        let layout = spatial_layout(&data.view)?;
        let [h, w, c] = self.sizes(&data.view, &layout);
        let groups =
            usize::try_from(int(node, "group", 1)).ok().filter(|g| *g > 0).ok_or("its group is not positive")?;
        if in_c * groups != c || out_c % groups != 0 || bias.len() != out_c {
            return Err(format!("weights {shape:?} in {groups} groups do not fit {c} channels"));
        }
        let mut window = window(node, kernel, [h + (pad[0] + pad[2]) as usize, w + (pad[1] + pad[3]) as usize])?;
        for side in 0..2 {
            window.pad_before[side] += pad[side];
            window.pad_after[side] += pad[side + 2];
        }
        let [out_h, out_w] = output_size(&window, h, w)?;
        let taps = kernel[0] * kernel[1];
        // [O, I/g, kh, kw] -> [O, kh, kw, I/g]
        let mut ours = vec![0f32; weights.len()];
        for o in 0..out_c {
            for i in 0..in_c {
                for t in 0..taps {
                    ours[(o * taps + t) * in_c + i] = weights[(o * in_c + i) * taps + t];
                }
            }
        }
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        let out = [out_h, out_w, out_c];
        let view = self.view_of(data.view.axes.len(), out, &layout);
        self.emit(node, FloatOp::Conv(Conv { window, groups, weights: ours, bias }), vec![input], out, view);
        Ok(())
    }

    /// Gemm with constant weights on one vector.
    pub(crate) fn gemm(&mut self, node: &NodeProto) -> Result<(), Reason> {
        if int(node, "transA", 0) != 0 {
            return Err("its input is transposed".into());
        }
        let (shape, weights) = self.floats(node, 1).ok_or("its weights depend on the input")?;
        let [rows, columns] = shape[..] else { return Err(format!("its weights have shape {shape:?}")) };
        let (in_c, out_c, transposed) =
            if int(node, "transB", 0) != 0 { (columns, rows, true) } else { (rows, columns, false) };
        let (alpha, beta) = (float(node, "alpha", 1.0) as f32, float(node, "beta", 1.0) as f32);
        let bias = match self.input(node, 2) {
            None => vec![0.0; out_c],
            Some(_) => {
                let (_, bias) = self.floats(node, 2).ok_or("its bias depends on the input")?;
                match bias.len() {
                    1 => vec![bias[0] * beta; out_c],
                    n if n == out_c => bias.iter().map(|b| b * beta).collect(),
                    n => return Err(format!("its bias has {n} values for {out_c} outputs")),
                }
            }
        };
        let at = |o: usize, i: usize| alpha * if transposed { weights[o * in_c + i] } else { weights[i * out_c + o] };
        self.fully_connected(node, in_c, out_c, at, bias)
    }

    /// MatMul: with constant weights on the last axis, or of two tensors.
    pub(crate) fn matmul(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let Some((shape, weights)) = self.floats(node, 1) else { return self.product(node) };
        let [in_c, out_c] = shape[..] else { return Err(format!("its weights have shape {shape:?}")) };
        self.fully_connected(node, in_c, out_c, |o, i| weights[i * out_c + o], vec![0.0; out_c])
    }

    /// MatMul of two tensors that depend on the input, `[..., R, K] x [..., K, C]`.
    fn product(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let [a, b] = [self.solid_input(node, 0)?, self.solid_input(node, 1)?];
        let [a_shape, b_shape] = [a.view.shape(), b.view.shape()];
        let refused = || format!("it multiplies {a_shape:?} by {b_shape:?}");
        let ([a_before @ .., rows, _], [b_before @ .., _, columns]) = (&a_shape[..], &b_shape[..]) else {
            return Err(refused());
        };
        let n = |before: &[usize]| before.iter().product::<usize>();
        let matrix = |rank: usize| Layout { h: (0..rank - 2).collect(), w: vec![rank - 2], c: vec![rank - 1] };
        let [mut a_layout, b_layout] = [matrix(a_shape.len()), matrix(b_shape.len())];
        if n(b_before) == 1 {
            // One second factor for all: their rows are rows of one matrix.
            a_layout.w.splice(0..0, a_layout.h.drain(..));
        } else if a_before.iter().rev().ne(b_before.iter().rev()) {
            return Err(refused());
        }
        let name = node_name(node);
        let inputs = vec![self.in_memory(&a, &a_layout, &name)?, self.in_memory(&b, &b_layout, &name)?];
        let [n, all_rows, _] = self.sizes(&a.view, &a_layout);
        let rank = a_shape.len().max(b_shape.len());
        let sizes: Vec<usize> = a_before.iter().chain([rows, columns]).copied().collect();
        let axes: Vec<usize> = (rank - sizes.len()..rank).collect();
        let view = View::new(rank, &sizes, &axes);
        self.emit(node, FloatOp::MatMul, inputs, [n, all_rows, *columns], view);
        Ok(())
    }

    /// Softmax along an axis; of old models along that one and all after it.
    pub(crate) fn softmax(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let shape = data.view.shape();
        let rank = shape.len();
        let flattened = int(node, FLATTENED, 0) != 0;
        let along = axis(int(node, "axis", if flattened { 1 } else { -1 }), rank).ok_or("its axis is not there")?;
        let summed = if flattened { along..rank } else { along..along + 1 };
        let (c, w): (Vec<usize>, Vec<usize>) = (0..rank).partition(|a| summed.contains(a));
        let layout = Layout { h: vec![], w, c };
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        let axes: Vec<usize> = layout.w.iter().chain(&layout.c).copied().collect();
        let sizes: Vec<usize> = axes.iter().map(|a| shape[*a]).collect();
        let out = self.sizes(&data.view, &layout);
        self.emit(node, FloatOp::Softmax, vec![input], out, View::new(rank, &sizes, &axes));
        Ok(())
    }

    /// `[..., in_c] x [in_c, out_c]`: a 1x1 convolution; on one vector the weights take on the memory's order.
    fn fully_connected(
        &mut self,
        node: &NodeProto,
        in_c: usize,
        out_c: usize,
        weight: impl Fn(usize, usize) -> f32,
        bias: Vec<f32>,
    ) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let shape = data.view.shape();
        let rank = shape.len();
        if shape.last() != Some(&in_c) {
            return Err(format!("its input has shape {shape:?}; its weights take {in_c} values"));
        }
        let name = node_name(node);
        let n_positions: usize = shape.iter().take(rank - 1).product();
        let (input, out, view, order);
        if n_positions == 1 {
            order = data.view.memory_order();
            input = self.reshape(data.value, [1, 1, in_c], &name);
            if input != data.value {
                self.graph.values[input].source = self.graph.values[data.value].source.clone();
            }
            out = [1, 1, out_c];
            view = View::new(rank, &[out_c], &[rank - 1]);
        } else {
            let positions: Vec<usize> = (0..rank - 1).collect();
            let layout = Layout { h: vec![], w: positions.clone(), c: vec![rank - 1] };
            input = self.in_memory(&data, &layout, &name)?;
            order = (0..in_c).collect();
            out = [1, n_positions, out_c];
            let sizes: Vec<usize> = shape.iter().take(rank - 1).copied().chain([out_c]).collect();
            view = View::new(rank, &sizes, &(0..rank).collect::<Vec<_>>());
        }
        let weights = (0..out_c).flat_map(|o| order.iter().map(move |i| (o, *i))).map(|(o, i)| weight(o, i)).collect();
        self.emit(
            node,
            FloatOp::Conv(Conv { window: point_window(), groups: 1, weights, bias }),
            vec![input],
            out,
            view,
        );
        Ok(())
    }

    /// Batch norm: a factor and a sum per channel.
    pub(crate) fn batch_norm(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let mut parts = vec![];
        for input in 1..5 {
            parts.push(self.floats(node, input).ok_or("its parameters depend on the input")?.1);
        }
        let [gamma, beta, mean, variance] = &parts[..] else { return Err("it has too few parameters".into()) };
        let epsilon = float(node, "epsilon", 1e-5);
        let mut factors = vec![];
        let mut sums = vec![];
        for (((g, b), m), v) in gamma.iter().zip(beta).zip(mean).zip(variance) {
            let factor = f64::from(*g) / (f64::from(*v) + epsilon).sqrt();
            factors.push(factor);
            sums.push(f64::from(*b) - f64::from(*m) * factor);
        }
        self.affine(node, 0, 1, factors, sums)
    }

    /// `x * factors[c] + sums[c]` along one ONNX axis: into the convolution before it, else a 1x1 depthwise one.
    pub(crate) fn affine(
        &mut self,
        node: &NodeProto,
        input: usize,
        channel_axis: usize,
        factors: Vec<f64>,
        sums: Vec<f64>,
    ) -> Result<(), Reason> {
        let mut data = self.data(node, input)?;
        let rank = data.view.axes.len();
        let name = node.output.first().cloned().unwrap_or_default();
        let n = data.view.shape().get(channel_axis).copied().unwrap_or(0);
        if n != factors.len() || n != sums.len() {
            return Err(format!("{} parameters for {n} channels", factors.len()));
        }
        let out_c = self.graph.values[data.value].shape[2];
        let last = data.view.axes.get(channel_axis).and_then(|a| a.last().copied());
        // The axis is exactly the memory's innermost one.
        let innermost = n == out_c
            && data.view.axes.get(channel_axis).is_some_and(|a| a.len() <= 1)
            && (n == 1 || last == data.view.factors.len().checked_sub(1));
        if innermost && let Some(conv) = self.open_conv(&data) {
            let per_channel = conv.weights.len() / out_c.max(1);
            for (o, (factor, sum)) in factors.iter().zip(&sums).enumerate() {
                for w in conv.weights.iter_mut().skip(o * per_channel).take(per_channel) {
                    *w = (f64::from(*w) * factor) as f32;
                }
                conv.bias[o] = (f64::from(conv.bias[o]) * factor + sum) as f32;
            }
            data.sole = self.still_sole(&data, &name);
            self.found_in(&name, &data);
            self.items.insert(name, data);
            return Ok(());
        }
        data = self.solid_input(node, input)?;
        let layout = match rank {
            4 if channel_axis == 3 => Layout { h: vec![1], w: vec![2], c: vec![3] },
            4 if channel_axis == 1 => Layout::nchw(),
            3 if channel_axis == 2 => Layout { h: vec![], w: vec![1], c: vec![2] },
            3 if channel_axis == 1 => Layout { h: vec![], w: vec![2], c: vec![1] },
            1 | 2 if channel_axis == rank - 1 => Layout { h: vec![], w: vec![], c: vec![channel_axis] },
            _ => return Err(format!("its parameters run along axis {channel_axis} of {rank}")),
        };
        let shape = self.sizes(&data.view, &layout);
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        let conv = Conv {
            window: point_window(),
            groups: shape[2],
            weights: factors.iter().map(|f| *f as f32).collect(),
            bias: sums.iter().map(|s| *s as f32).collect(),
        };
        let view = self.view_of(rank, shape, &layout);
        self.emit(node, FloatOp::Conv(conv), vec![input], shape, view);
        Ok(())
    }

    /// MaxPool and AveragePool.
    pub(crate) fn pool(&mut self, node: &NodeProto, average: bool) -> Result<(), Reason> {
        if node.output.iter().skip(1).any(|o| !o.is_empty()) {
            return Err("it also returns indices".into());
        }
        let data = self.solid_input(node, 0)?;
        let layout = spatial_layout(&data.view)?;
        let [h, w, c] = self.sizes(&data.view, &layout);
        let kernel = match ints(node, "kernel_shape").unwrap_or_default() {
            [k] => [1, positive(*k)?],
            [kh, kw] => [positive(*kh)?, positive(*kw)?],
            other => return Err(format!("its kernel is {other:?}; one or two axes are supported")),
        };
        let mut window = window(node, kernel, [h, w])?;
        let count_pad = int(node, "count_include_pad", 0) != 0;
        if int(node, "ceil_mode", 0) != 0 {
            let stated = output_size(&window, h, w)?;
            for (side, size) in [h, w].into_iter().enumerate() {
                let reach = (window.kernel[side] - 1) * window.dilation[side] + 1;
                let padded = size as u32 + window.pad_before[side] + window.pad_after[side];
                let mut n = (padded - reach).div_ceil(window.stride[side]) + 1;
                // A window that starts in the padding behind does not count.
                if (n - 1) * window.stride[side] >= size as u32 + window.pad_before[side] {
                    n -= 1;
                }
                if n as usize != stated[side] {
                    if average && count_pad {
                        return Err("it rounds its size up and counts padding".into());
                    }
                    window.pad_after[side] += (n - 1) * window.stride[side] + reach - padded;
                }
            }
        }
        if average
            && count_pad
            && window.pad_before == [0, 0]
            && window.pad_after == [0, 0]
            && window.dilation != [1, 1]
        {
            return Err("it averages with gaps".into());
        }
        let [out_h, out_w] = output_size(&window, h, w)?;
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        let out = [out_h, out_w, c];
        let view = self.view_of(data.view.axes.len(), out, &layout);
        let op = if average { FloatOp::AveragePool { window, count_pad } } else { FloatOp::MaxPool(window) };
        self.emit(node, op, vec![input], out, view);
        Ok(())
    }

    /// GlobalAveragePool, GlobalMaxPool: over all axes but the first two.
    pub(crate) fn global_pool(&mut self, node: &NodeProto, maximum: bool) -> Result<(), Reason> {
        let rank = self.data(node, 0)?.view.axes.len();
        self.reduce_axes(node, (2..rank).collect(), true, maximum, false)
    }

    /// ReduceMean, ReduceSum, ReduceMax over height and width.
    pub(crate) fn reduce(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let rank = self.data(node, 0)?.view.axes.len();
        let stated = self.ints(node, 1).or_else(|| ints(node, "axes").map(<[i64]>::to_vec));
        let stated = stated.ok_or("it reduces all axes")?;
        let mut axes: Vec<usize> = stated.iter().filter_map(|a| axis(*a, rank)).collect();
        axes.sort_unstable();
        self.reduce_axes(
            node,
            axes,
            int(node, "keepdims", 1) != 0,
            node.op_type == "ReduceMax",
            node.op_type == "ReduceSum",
        )
    }

    fn reduce_axes(
        &mut self,
        node: &NodeProto,
        axes: Vec<usize>,
        keep: bool,
        maximum: bool,
        sum: bool,
    ) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let shape = data.view.shape();
        let spatial: Vec<usize> = axes.iter().copied().filter(|a| shape.get(*a) != Some(&1)).collect();
        let rest: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
        let layout = match spatial[..] {
            [] => {
                // Nothing to reduce: only axes of length 1 go away.
                let shape: Vec<usize> =
                    (0..shape.len()).filter(|a| keep || !axes.contains(a)).map(|a| shape[a]).collect();
                let view = data.view.reshaped(&shape).ok_or("shape")?;
                self.rename(node, data, view);
                return Ok(());
            }
            [w] => Layout { h: vec![], w: vec![w], c: rest.clone() },
            [h, w] => Layout { h: vec![h], w: vec![w], c: rest.clone() },
            _ => return Err(format!("it reduces axes {axes:?} of {shape:?}")),
        };
        if rest.iter().all(|a| shape.get(*a) == Some(&1)) && shape.len() < 4 {
            return Err(format!("it reduces the channels (axes {axes:?} of {shape:?})"));
        }
        let [h, w, c] = self.sizes(&data.view, &layout);
        let before = self.graph.nodes.len();
        let input = self.in_memory(&data, &layout, &node_name(node))?;
        // Reducing channels of a picture would need its data turned around: that is a layer norm, not a pool.
        if self.graph.nodes.iter().skip(before).any(|n| matches!(n.op, FloatOp::Transpose(_)))
            && shape.len() > 2
            && axes.contains(&1)
            && data.view.axes.len() == 4
        {
            return Err(format!("it reduces the channels (axes {axes:?} of {shape:?})"));
        }
        let kept: Vec<usize> = (0..shape.len()).filter(|a| keep || !axes.contains(a)).collect();
        let (sizes, places): (Vec<usize>, Vec<usize>) =
            rest.iter().filter_map(|a| Some((shape[*a], kept.iter().position(|k| k == a)?))).unzip();
        let view = View::new(kept.len(), &sizes, &places);
        let op = if maximum {
            FloatOp::MaxPool(Window { kernel: [h as u32, w as u32], ..point_window() })
        } else {
            FloatOp::GlobalMean
        };
        self.emit(node, op, vec![input], [1, 1, c], view);
        if sum {
            // The ONNX tensor holds h * w times our value: computed as a mean, read as a sum.
            let name = node.output.first().cloned().unwrap_or_default();
            if let Some(data) = self.items.get_mut(&name) {
                data.unary = Unary::call2(crate::unary::Function2::Mul, Unary::X, Unary::Constant((h * w) as f64));
                self.graph.values[data.value].source = None;
            }
        }
        Ok(())
    }
}

/// Layout of an operator that ONNX defines on `[N, C, spatial...]`.
pub(crate) fn spatial_layout(view: &View) -> Result<Layout, Reason> {
    match view.axes.len() {
        4 => Ok(Layout::nchw()),
        3 => Ok(Layout { h: vec![], w: vec![2], c: vec![1] }),
        rank => Err(format!("its input has {rank} axes; one or two spatial ones are supported")),
    }
}

/// Strides, dilations and padding of a node over an input of `size` height and width.
fn window(node: &NodeProto, kernel: [usize; 2], size: [usize; 2]) -> Result<Window, Reason> {
    let pair = |name: &str| match ints(node, name).unwrap_or_default() {
        [] => Ok([1, 1]),
        [w] => Ok([1, positive(*w)? as u32]),
        [h, w] => Ok([positive(*h)? as u32, positive(*w)? as u32]),
        other => Err(format!("its {name} are {other:?}")),
    };
    let (stride, dilation) = (pair("strides")?, pair("dilations")?);
    let kernel = [kernel[0] as u32, kernel[1] as u32];
    if kernel.contains(&0) {
        return Err("its kernel is empty".into());
    }
    let mut window = Window { kernel, stride, dilation, pad_before: [0; 2], pad_after: [0; 2] };
    let auto = string(node, "auto_pad", "NOTSET");
    match &auto[..] {
        "SAME_UPPER" | "SAME_LOWER" => {
            for side in 0..2 {
                let reach = (kernel[side] - 1) * dilation[side] + 1;
                let n = (size[side] as u32).div_ceil(stride[side]);
                let total = ((n.max(1) - 1) * stride[side] + reach).saturating_sub(size[side] as u32);
                let (less, more) = (total / 2, total - total / 2);
                (window.pad_before[side], window.pad_after[side]) =
                    if auto == "SAME_UPPER" { (less, more) } else { (more, less) };
            }
        }
        _ => {
            let pads = ints(node, "pads").unwrap_or_default();
            let pads: Vec<u32> = pads
                .iter()
                .map(|p| u32::try_from(*p))
                .collect::<Result<_, _>>()
                .map_err(|_| "its padding is negative")?;
            match pads[..] {
                [] => {}
                [left, right] => (window.pad_before[1], window.pad_after[1]) = (left, right),
                [top, left, bottom, right] => (window.pad_before, window.pad_after) = ([top, left], [bottom, right]),
                _ => return Err(format!("its padding is {pads:?}")),
            }
        }
    }
    Ok(window)
}

fn positive(value: i64) -> Result<usize, Reason> {
    usize::try_from(value).ok().filter(|v| (1..1 << 16).contains(v)).ok_or_else(|| format!("a size is {value}"))
}

/// Height and width after a window.
pub(crate) fn output_size(window: &Window, h: usize, w: usize) -> Result<[usize; 2], Reason> {
    let along = |side: usize, size: usize| {
        let reach = u64::from(window.kernel[side] - 1) * u64::from(window.dilation[side]) + 1;
        let padded = size as u64 + u64::from(window.pad_before[side]) + u64::from(window.pad_after[side]);
        padded.checked_sub(reach).map(|rest| (rest / u64::from(window.stride[side]) + 1) as usize)
    };
    match (along(0, h), along(1, w)) {
        (Some(out_h), Some(out_w)) => Ok([out_h, out_w]),
        _ => Err(format!("its {}x{} window does not fit a {h}x{w} input", window.kernel[0], window.kernel[1])),
    }
}
