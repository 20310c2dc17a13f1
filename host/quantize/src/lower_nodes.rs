//! Lowering of everything that is no layer and no resizing: the dispatch, views, element-wise operators, joining and
//! selecting.

use graft_bundle::graph::Window;
use tract_onnx::pb::NodeProto;

use crate::attributes::{axis, float, int, ints, string};
use crate::float_graph::{FloatOp, Select, point_window};
use crate::lower::{Data, Layout, Lowering, Reason};
use crate::lower_layers::spatial_layout;
use crate::onnx_file::node_name;
use crate::unary::{Function, Function2, Unary};
use crate::view::View;

impl Lowering<'_> {
    /// Lowers one node that depends on the input.
    pub(crate) fn node(&mut self, node: &NodeProto) -> Result<(), Reason> {
        match &node.op_type[..] {
            "Identity" | "Dropout" => self.same(node),
            "Cast" => match int(node, "to", 1) {
                1 | 10 | 11 => self.same(node),
                to => Err(format!("it converts to data type {to}")),
            },
            "Conv" => self.conv(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "Softmax" => self.softmax(node),
            "BatchNormalization" => self.batch_norm(node),
            "MaxPool" => self.pool(node, false),
            "AveragePool" => self.pool(node, true),
            "GlobalAveragePool" => self.global_pool(node, false),
            "GlobalMaxPool" => self.global_pool(node, true),
            "ReduceMean" | "ReduceSum" | "ReduceMax" => self.reduce(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape_view(node),
            "Transpose" => self.transpose(node),
            "Add" | "Sum" => self.binary(node, Function2::Add),
            "Sub" => self.binary(node, Function2::Sub),
            "Mul" => self.binary(node, Function2::Mul),
            "Div" => self.binary(node, Function2::Div),
            "Min" => self.binary(node, Function2::Min),
            "Max" => self.binary(node, Function2::Max),
            "Pow" => self.binary(node, Function2::Pow),
            "PRelu" => self.prelu(node),
            "Clip" => self.clip(node),
            "Concat" => self.concat(node),
            "Pad" => self.pad(node),
            "Slice" => self.slice(node),
            "Split" => self.split(node),
            "Gather" => self.gather(node),
            "Resize" | "Upsample" => self.resize(node),
            "Swish" => {
                let alpha = float(node, "alpha", 1.0);
                let data = self.data(node, 0)?;
                self.apply(node, data, |x| {
                    let gate = Unary::call2(Function2::Mul, x.clone(), Unary::Constant(alpha)).call(Function::Sigmoid);
                    Unary::call2(Function2::Mul, x, gate)
                });
                Ok(())
            }
            _ => {
                let function = function(node).ok_or("the operator has no integer or exact form")?;
                let data = self.data(node, 0)?;
                // Zeros that wait around the picture must stay zeros.
                let data = if data.pad.is_some() { self.solid_input(node, 0)? } else { data };
                self.apply(node, data, |x| x.call(function));
                Ok(())
            }
        }
    }

    fn same(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let data = self.data(node, 0)?;
        let view = data.view.clone();
        self.rename(node, data, view);
        Ok(())
    }

    fn clip(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let bound = |walk: &Self, input: usize, name: &str, otherwise: f64| match walk.input(node, input) {
            None => Ok(float(node, name, otherwise)),
            Some(_) => {
                let value = walk.floats(node, input).and_then(|(_, v)| v.first().copied());
                value.map(f64::from).ok_or("its bounds depend on the input")
            }
        };
        let low = bound(self, 1, "min", f64::NEG_INFINITY)?;
        let high = bound(self, 2, "max", f64::INFINITY)?;
        if low > high {
            return Err(format!("it clips to {low}..{high}"));
        }
        if int(node, crate::qdq::STATED, 0) != 0 {
            return self.stated_clip(node, low, high);
        }
        let data = self.data(node, 0)?;
        let data = if data.pad.is_some() { self.solid_input(node, 0)? } else { data };
        self.apply(node, data, |x| x.call(Function::Clip(low, high)));
        Ok(())
    }

    /// A quantize-dequantize pair: the layer before it takes the clamp if it can, and the value's stated scale clips
    /// by itself where not.
    fn stated_clip(&mut self, node: &NodeProto, low: f64, high: f64) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let name = node.output.first().cloned().unwrap_or_default();
        let sole = self.still_sole(&data, &name);
        if data.sole {
            self.fuse(data.value, &Unary::X.call(Function::Clip(low, high)));
        }
        if data.value != self.graph.input {
            self.found_in(&name, &data);
        }
        self.items.insert(name, Data { sole, ..data });
        Ok(())
    }

    // Views.

    fn reshape_view(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let shape = node.output.first().and_then(|o| self.known.get(o)).map(|k| k.shape.clone());
        let shape = shape.ok_or("its shape is not known")?;
        let mut data = self.data(node, 0)?;
        if data.pad.is_some() {
            data = self.solid_input(node, 0)?;
        }
        let view = data.view.reshaped(&shape);
        let view = view.ok_or_else(|| format!("it makes {shape:?} of {:?}", data.view.shape()))?;
        self.rename(node, data, view);
        Ok(())
    }

    fn transpose(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let mut data = self.data(node, 0)?;
        if data.pad.is_some() {
            data = self.solid_input(node, 0)?;
        }
        let rank = data.view.axes.len();
        let perm: Vec<usize> = match ints(node, "perm") {
            Some(perm) => perm.iter().filter_map(|p| usize::try_from(*p).ok()).collect(),
            None => (0..rank).rev().collect(),
        };
        let view = data.view.transposed(&perm).ok_or_else(|| format!("it permutes {rank} axes by {perm:?}"))?;
        self.rename(node, data, view);
        Ok(())
    }

    // Two operands.

    fn binary(&mut self, node: &NodeProto, function: Function2) -> Result<(), Reason> {
        if node.input.len() != 2 {
            return Err(format!("it has {} operands; 2 are supported", node.input.len()));
        }
        for (this, other) in [(0, 1), (1, 0)] {
            if let Some((shape, values)) = self.floats(node, other) {
                return self.with_constant(node, function, this, &shape, &values);
            }
        }
        let (a, b) = (self.data(node, 0)?, self.data(node, 1)?);
        // One tensor on both sides: a function of one value, spelled out.
        if a.value == b.value && a.view == b.view && a.pad.is_none() && b.pad.is_none() {
            let unary = Unary::call2(function, a.unary.clone(), b.unary.clone());
            let together = Data { sole: false, unary: Unary::X, ..a };
            self.apply(node, together, |_| unary);
            return Ok(());
        }
        let (op, commutes) = match function {
            Function2::Add => (FloatOp::Add { signs: [1.0, 1.0] }, true),
            Function2::Sub => (FloatOp::Add { signs: [1.0, -1.0] }, false),
            Function2::Mul => (FloatOp::Mul, true),
            _ => return Err("both operands depend on the input".into()),
        };
        let (a, b) = (self.solid_input(node, 0)?, self.solid_input(node, 1)?);
        let shape_of = |d: &Data| self.graph.values[d.value].shape;
        if a.view == b.view && shape_of(&a) == shape_of(&b) {
            let shape = shape_of(&a);
            self.emit(node, op, vec![a.value, b.value], shape, a.view);
            return Ok(());
        }
        // Broadcasting: align ranks, put both in one memory order, the larger first.
        let rank = a.view.axes.len().max(b.view.axes.len());
        let (a, b) = (widened(a, rank), widened(b, rank));
        let n = |d: &Data| d.view.shape().iter().product::<usize>();
        let swap = n(&a) < n(&b);
        let (large, small) = if swap { (b, a) } else { (a, b) };
        if swap && !commutes {
            return Err("the smaller operand comes first".into());
        }
        let layout = self.layout_of(&large.view)?;
        let shape = self.sizes(&large.view, &layout);
        let small_shape = self.sizes(&small.view, &layout);
        if small_shape != shape && small_shape != [1, 1, shape[2]] && small_shape != [1, 1, 1] {
            return Err(format!("it combines {:?} and {:?}", large.view.shape(), small.view.shape()));
        }
        let name = node_name(node);
        let inputs = vec![self.in_memory(&large, &layout, &name)?, self.in_memory(&small, &layout, &name)?];
        let view = self.view_of(rank, shape, &layout);
        self.emit(node, op, inputs, shape, view);
        Ok(())
    }

    /// An operand that is a constant: one number, or one per channel.
    fn with_constant(
        &mut self,
        node: &NodeProto,
        function: Function2,
        this: usize,
        shape: &[usize],
        values: &[f32],
    ) -> Result<(), Reason> {
        let data = self.data(node, this)?;
        let data = if data.pad.is_some() { self.solid_input(node, this)? } else { data };
        let rank = data.view.axes.len();
        let ours = data.view.shape();
        let out = node.output.first().and_then(|o| self.known.get(o)).map(|k| k.shape.clone()).unwrap_or_default();
        if out.iter().filter(|d| **d > 1).ne(ours.iter().filter(|d| **d > 1)) {
            return Err(format!("a constant of shape {shape:?} enlarges {ours:?}"));
        }
        let first = values.first().copied().ok_or("a constant is empty")?;
        if values.iter().all(|v| *v == first) {
            let constant = Unary::Constant(first.into());
            let data = widened(data, out.len());
            self.apply(node, data, |x| {
                if this == 0 { Unary::call2(function, x, constant) } else { Unary::call2(function, constant, x) }
            });
            return Ok(());
        }
        // Aligned at the last axis, all but one of length 1.
        let long: Vec<usize> = (0..shape.len()).filter(|a| shape[*a] > 1).collect();
        let channel_axis = match long[..] {
            [a] => (rank + a).checked_sub(shape.len()),
            _ => None,
        };
        let axis = channel_axis.ok_or_else(|| {
            format!("a constant of shape {shape:?} meets {ours:?}; one number, or one per channel, is supported")
        })?;
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let (zeros, ones) = (vec![0.0; values.len()], vec![1.0; values.len()]);
        match (function, this) {
            (Function2::Add, _) => self.affine(node, this, axis, ones, values),
            (Function2::Sub, 0) => self.affine(node, this, axis, ones, values.iter().map(|v| -v).collect()),
            (Function2::Sub, _) => self.affine(node, this, axis, vec![-1.0; values.len()], values),
            (Function2::Mul, _) => self.affine(node, this, axis, values, zeros),
            (Function2::Div, 0) => self.affine(node, this, axis, values.iter().map(|v| 1.0 / v).collect(), zeros),
            _ => Err(format!("a constant of shape {shape:?} meets {ours:?}")),
        }
    }

    fn prelu(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let (_, slopes) = self.floats(node, 1).ok_or("its slopes depend on the input")?;
        let first = slopes.first().copied().ok_or("it has no slopes")?;
        if slopes.iter().any(|s| *s != first) {
            return Err("it has a slope per channel".into());
        }
        let data = self.data(node, 0)?;
        let data = if data.pad.is_some() { self.solid_input(node, 0)? } else { data };
        self.apply(node, data, |x| x.call(Function::LeakyRelu(first.into())));
        Ok(())
    }

    // Joining and selecting.

    fn concat(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let mut parts = vec![];
        for input in 0..node.input.len() {
            parts.push(self.solid_input(node, input)?);
        }
        let rank = parts.first().map_or(0, |p| p.view.axes.len());
        let along = axis(int(node, "axis", 1), rank).ok_or("its axis is not there")?;
        // Channels last if any part lies that way.
        let mut layout = None;
        for part in &parts {
            let found = self.layout_of(&part.view)?;
            if layout.is_none() || found.c == vec![rank - 1] {
                layout = Some(found);
            }
        }
        let layout = layout.ok_or("it joins nothing")?;
        let ours = [&layout.h, &layout.w, &layout.c].iter().position(|axes| axes.contains(&along));
        let ours = ours.ok_or_else(|| format!("it joins along axis {along} of {rank}"))?;
        let mut shape = [0; 3];
        let mut inputs = vec![];
        for part in &parts {
            let size = self.sizes(&part.view, &layout);
            shape = std::array::from_fn(|i| if i == ours { shape[i] + size[i] } else { size[i] });
            inputs.push(self.in_memory(part, &layout, &node_name(node))?);
        }
        let view = self.view_of(rank, shape, &layout);
        if let [only] = inputs[..] {
            let data = Data { value: only, view, unary: Unary::X, pad: None, sole: false };
            self.items.insert(node.output.first().cloned().unwrap_or_default(), data);
            return Ok(());
        }
        self.emit(node, FloatOp::Concat { axis: ours as u32 }, inputs, shape, view);
        Ok(())
    }

    fn pad(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let pads = self
            .ints(node, 1)
            .or_else(|| ints(node, "pads").map(<[i64]>::to_vec))
            .ok_or("its padding depends on the input")?;
        let value = match self.input(node, 2) {
            None => float(node, "value", 0.0) as f32,
            Some(_) => {
                self.floats(node, 2).and_then(|(_, v)| v.first().copied()).ok_or("its value depends on the input")?
            }
        };
        let mode = string(node, "mode", "constant");
        if mode != "constant" || value != 0.0 {
            return Err(format!(
                "it pads with {}; only zeros are supported",
                if mode == "constant" { value.to_string() } else { mode }
            ));
        }
        let mut data = self.solid_input(node, 0)?;
        let rank = data.view.axes.len();
        let mut per_axis = vec![[0i64; 2]; rank];
        let axes: Vec<usize> = match self.ints(node, 3) {
            Some(axes) => axes.iter().filter_map(|a| axis(*a, rank)).collect(),
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() || pads.iter().any(|p| !(0..1 << 16).contains(p)) {
            return Err(format!("its padding is {pads:?}"));
        }
        for (i, a) in axes.iter().enumerate() {
            per_axis[*a] = [pads[i], pads[i + axes.len()]];
        }
        let layout = self.layout_of(&data.view)?;
        let amount = |axes: &[usize]| axes.first().and_then(|a| per_axis.get(*a)).copied().unwrap_or([0, 0]);
        let [[top, bottom], [left, right], [before, after]] = [amount(&layout.h), amount(&layout.w), amount(&layout.c)];
        if per_axis.iter().flatten().sum::<i64>() != top + bottom + left + right + before + after {
            return Err(format!("it pads the batch ({pads:?})"));
        }
        let name = node_name(node);
        if before + after > 0 {
            let [h, w, c] = self.sizes(&data.view, &layout);
            let input = self.in_memory(&data, &layout, &name)?;
            let none = |n: i64| std::iter::repeat_n(None, n as usize);
            let channels: Vec<Option<usize>> = none(before).chain((0..c).map(Some)).chain(none(after)).collect();
            let shape = [h, w, channels.len()];
            let op = FloatOp::Select(Select { window: point_window(), tap: [0, 0], channels: Some(channels) });
            let view = self.view_of(rank, shape, &layout);
            self.emit(node, op, vec![input], shape, view.clone());
            data = self.data_of(node)?;
        }
        if top + bottom + left + right > 0 {
            let output = node.output.first().cloned().unwrap_or_default();
            let sole = self.still_sole(&data, &output);
            let pad = Some([top as u32, left as u32, bottom as u32, right as u32]);
            if layout == spatial_layout(&data.view)? {
                self.items.insert(output, Data { pad, sole, ..data });
            } else {
                let [h, w, c] = self.sizes(&data.view, &layout);
                let input = self.in_memory(&data, &layout, &name)?;
                let shape = [h + (top + bottom) as usize, w + (left + right) as usize, c];
                let window = Window {
                    pad_before: [top as u32, left as u32],
                    pad_after: [bottom as u32, right as u32],
                    ..point_window()
                };
                let view = self.view_of(rank, shape, &layout);
                self.emit(
                    node,
                    FloatOp::Select(Select { window, tap: [0, 0], channels: None }),
                    vec![input],
                    shape,
                    view,
                );
            }
        } else if before + after == 0 {
            let view = data.view.clone();
            self.rename(node, data, view);
        }
        Ok(())
    }

    fn data_of(&self, node: &NodeProto) -> Result<Data, Reason> {
        node.output.first().and_then(|o| self.items.get(o)).cloned().ok_or_else(|| "it has no output".into())
    }

    fn slice(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let rank = self.data(node, 0)?.view.axes.len();
        let list = |walk: &Self, input: usize, name: &str| {
            walk.ints(node, input).or_else(|| ints(node, name).map(<[i64]>::to_vec))
        };
        let starts = list(self, 1, "starts").ok_or("its starts depend on the input")?;
        let ends = list(self, 2, "ends").ok_or("its ends depend on the input")?;
        let axes = list(self, 3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.ints(node, 4).unwrap_or_else(|| vec![1; starts.len()]);
        let mut data = self.solid_input(node, 0)?;
        for (((start, end), along), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let along = axis(*along, rank).ok_or("its axis is not there")?;
            let n = data.view.shape()[along] as i64;
            if *step < 1 {
                return Err(format!("its step is {step}"));
            }
            let place = |at: i64| (if at < 0 { at.saturating_add(n) } else { at }).clamp(0, n);
            let (start, end) = (place(*start), place(*end));
            let indices: Vec<usize> = (start..end.max(start)).step_by(*step as usize).map(|i| i as usize).collect();
            data = self.take(node, data, along, &indices, *step as usize)?;
        }
        self.store(node, 0, data);
        Ok(())
    }

    fn split(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let data = self.solid_input(node, 0)?;
        let along = axis(int(node, "axis", 0), data.view.axes.len()).ok_or("its axis is not there")?;
        let mut start = 0;
        for (index, output) in node.output.iter().enumerate() {
            let n =
                self.known.get(output).and_then(|k| k.shape.get(along)).copied().ok_or("its parts are not known")?;
            let part = self.take(node, data.clone(), along, &(start..start + n).collect::<Vec<_>>(), 1)?;
            self.store(node, index, part);
            start += n;
        }
        Ok(())
    }

    fn gather(&mut self, node: &NodeProto) -> Result<(), Reason> {
        let indices = self.constant(node, 1).ok_or("its indices depend on the input")?;
        let data = self.solid_input(node, 0)?;
        let shape = data.view.shape();
        let along = axis(int(node, "axis", 0), shape.len()).ok_or("its axis is not there")?;
        let list = crate::attributes::ints_of(&indices).unwrap_or_default();
        let wanted: Option<Vec<usize>> = list.iter().map(|i| axis(*i, shape[along])).collect();
        let wanted = wanted.ok_or_else(|| format!("its indices {list:?} leave 0..{}", shape[along]))?;
        let mut data = self.take(node, data, along, &wanted, 1)?;
        let mut out: Vec<usize> = data.view.shape();
        out.splice(along..along + 1, indices.shape().iter().copied());
        data.view = data.view.reshaped(&out).ok_or("its shape")?;
        self.store(node, 0, data);
        Ok(())
    }

    /// Stores data that [`Lowering::take`] made as an output of the node.
    fn store(&mut self, node: &NodeProto, output: usize, data: Data) {
        if let Some(name) = node.output.get(output).filter(|o| !o.is_empty()) {
            if self.producer.contains_key(&data.value) && self.graph.values[data.value].source.is_none() {
                self.found_in(name, &data);
            }
            self.items.insert(name.clone(), Data { sole: false, ..data });
        }
    }

    /// The given indices along one ONNX axis; `step` apart where that axis is height or width.
    fn take(
        &mut self,
        node: &NodeProto,
        data: Data,
        along: usize,
        indices: &[usize],
        step: usize,
    ) -> Result<Data, Reason> {
        let shape = data.view.shape();
        let rank = shape.len();
        if indices.len() == shape[along] && indices.iter().enumerate().all(|(i, at)| i == *at) {
            return Ok(data);
        }
        let (Some(first), Some(last)) = (indices.first().copied(), indices.last().copied()) else {
            return Err("it selects nothing".into());
        };
        let name = node_name(node);
        // Height and width are the last two of four or more axes (or the two before the last, channels last);
        // everything else counts as channels.
        let natural = if rank == 4 { self.layout_of(&data.view)? } else { Layout { h: vec![], w: vec![], c: vec![] } };
        let side = [&natural.h, &natural.w].iter().position(|axes| axes.contains(&along));
        if let Some(side) = side {
            let [h, w, c] = self.sizes(&data.view, &natural);
            let input = self.in_memory(&data, &natural, &name)?;
            let n = shape[along];
            // The kernel is as long as the window may reach, its one tap where the slice starts.
            let kernel = (first + 1).max((n + 1).saturating_sub(indices.len() * step));
            if kernel + (indices.len() - 1) * step > n || last != first + (indices.len() - 1) * step {
                return Err(format!("it selects {} of {n} rows or columns", indices.len()));
            }
            let mut window = point_window();
            window.kernel[side] = kernel as u32;
            window.stride[side] = step as u32;
            let mut tap = [0; 2];
            tap[side] = first as u32;
            let mut out = [h, w, c];
            out[side] = indices.len();
            let value =
                self.push(&name, FloatOp::Select(Select { window, tap, channels: None }), vec![input], out, None);
            return Ok(Data {
                value,
                view: self.view_of(rank, out, &natural),
                unary: Unary::X,
                pad: None,
                sole: false,
            });
        }
        let (h, w): (Vec<usize>, Vec<usize>) = match rank {
            4 => (natural.h, natural.w),
            5 => (vec![3], vec![4]),
            3 if along != 2 && shape[2] > 1 => (vec![], vec![2]),
            _ => (vec![], vec![]),
        };
        let c: Vec<usize> = (0..rank).filter(|a| !h.contains(a) && !w.contains(a)).collect();
        let layout = Layout { h, w, c };
        let [out_h, out_w, in_c] = self.sizes(&data.view, &layout);
        // Where each channel, in ONNX order of the channel axes, lies in memory: no transposition is needed if memory
        // has height and width in front.
        let front = data.view.walk(&layout.h.iter().chain(&layout.w).chain(&layout.c).copied().collect::<Vec<_>>());
        let n_front: usize = layout.h.iter().chain(&layout.w).map(|a| data.view.axes[*a].len()).sum();
        let front = front.ok_or("its batch is not 1")?;
        let (input, place) = if View::is_memory_order(&front[..n_front]) {
            let mut stride = vec![1; data.view.factors.len()];
            for i in (0..stride.len().saturating_sub(1)).rev() {
                stride[i] = stride[i + 1] * data.view.factors[i + 1];
            }
            let mut place = vec![0usize];
            for factor in &front[n_front..] {
                place = place
                    .iter()
                    .flat_map(|p| (0..data.view.factors[*factor]).map(|i| p + i * stride[*factor]).collect::<Vec<_>>())
                    .collect();
            }
            (self.reshape(data.value, [out_h, out_w, in_c], &name), place)
        } else {
            (self.in_memory(&data, &layout, &name)?, (0..in_c).collect())
        };
        let inner: usize = layout.c.iter().filter(|a| **a > along).map(|a| shape[*a]).product();
        let outer: usize = layout.c.iter().filter(|a| **a < along).map(|a| shape[*a]).product();
        let mut channels = vec![];
        for o in 0..outer {
            for index in indices {
                for i in 0..inner {
                    channels.push(place.get((o * shape[along] + index) * inner + i).copied());
                }
            }
        }
        let out = [out_h, out_w, channels.len()];
        let op = FloatOp::Select(Select { window: point_window(), tap: [0, 0], channels: Some(channels) });
        let value = self.push(&name, op, vec![input], out, None);
        let axes: Vec<usize> = layout.h.iter().chain(&layout.w).chain(&layout.c).copied().collect();
        let sizes: Vec<usize> = axes.iter().map(|a| if *a == along { indices.len() } else { shape[*a] }).collect();
        Ok(Data { value, view: View::new(rank, &sizes, &axes), unary: Unary::X, pad: None, sole: false })
    }
}

/// The same tensor with axes of length 1 in front, up to `rank`.
fn widened(mut data: Data, rank: usize) -> Data {
    while data.view.axes.len() < rank {
        data.view.axes.insert(0, vec![]);
    }
    data
}

/// Element-wise operators of one input.
fn function(node: &NodeProto) -> Option<Function> {
    let alpha = |otherwise: f64| float(node, "alpha", otherwise);
    Some(match &node.op_type[..] {
        "Relu" => Function::Relu,
        "LeakyRelu" => Function::LeakyRelu(alpha(0.01)),
        "Sigmoid" => Function::Sigmoid,
        "HardSigmoid" => Function::HardSigmoid(alpha(0.2), float(node, "beta", 0.5)),
        "HardSwish" => Function::HardSwish,
        "Tanh" => Function::Tanh,
        "Elu" => Function::Elu(alpha(1.0)),
        "Celu" => Function::Celu(alpha(1.0)),
        // Defaults of the ONNX specification.
        "Selu" => Function::Selu(alpha(1.673_263_2), float(node, "gamma", 1.050_701)),
        "ThresholdedRelu" => Function::ThresholdedRelu(alpha(1.0)),
        "Softplus" => Function::Softplus,
        "Softsign" => Function::Softsign,
        "Gelu" if string(node, "approximate", "none") == "tanh" => Function::GeluTanh,
        "Gelu" => Function::Gelu,
        "Mish" => Function::Mish,
        "Erf" => Function::Erf,
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Sqrt" => Function::Sqrt,
        "Reciprocal" => Function::Reciprocal,
        "Abs" => Function::Abs,
        "Neg" => Function::Neg,
        "Sign" => Function::Sign,
        "Floor" => Function::Floor,
        "Ceil" => Function::Ceil,
        "Round" => Function::Round,
        "Sin" => Function::Sin,
        "Cos" => Function::Cos,
        _ => return None,
    })
}
