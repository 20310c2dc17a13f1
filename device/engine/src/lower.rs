//! One step of the graph, checked, as a kernel with its parameters.

use std::borrow::Cow;

use graft_bundle::graph::{Blob, FloatFunction, FloatFunction2, Requantize, Step, Window};
use graft_bundle::{Bundle, BundleError, DataType, Op};
use graft_kernels::add::AddParams;
use graft_kernels::conv::ConvShape;
use graft_kernels::float::{self, Binary, Unary};
use graft_kernels::matmul::{MatMulParams, MatMulShape};
use graft_kernels::mul::MulParams;
use graft_kernels::packed::{self, Layer, Line, RowSums};
use graft_kernels::pool::{AverageParams, PoolShape};
use graft_kernels::resize::POSITION_BITS;
use graft_kernels::view::{Broadcast, signed};
use graft_kernels::{Clamp, Dims, Isa};

use crate::chain::{Chain, Stage};
use crate::check::{MODEL_BYTES_MAX, WINDOW_MAX, check_range, range_of};
use crate::error::Fault;
use crate::kernel::{Entries, Kernel, Part};
use crate::onnx::OnnxModel;
use crate::program::{Setup, TensorInfo};

/// Largest multiplier: below 2^23.
const MULTIPLIER_MAX: i64 = (1 << 23) - 1;
/// Largest multiplier of an addition, either sign.
const ADD_MULTIPLIER_MAX: i64 = 1 << 21;
/// Entries of a table for I8.
const TABLE_ENTRIES: usize = 256;
/// i32 accumulators stay below this.
const ACCUMULATOR_LIMIT: i64 = 1 << 31;

/// A step with its tensors at hand.
struct Lowering<'a> {
    bundle: &'a Bundle,
    isa: Isa,
    n_threads: usize,
    inputs: Vec<&'a TensorInfo>,
    output: &'a TensorInfo,
}

/// Checks `step`, whose tensor indices exist, and makes it ready to run. Weights are read into `buffer`.
pub(crate) fn lower(
    bundle: &Bundle,
    tensors: &[TensorInfo],
    step: &Step,
    setup: Setup,
    buffer: &mut Vec<u8>,
) -> Result<Kernel, Fault> {
    let tensor = |id: &graft_bundle::TensorId| {
        tensors.get(id.0 as usize).ok_or(Fault::NoTensor { found: id.0, n_tensors: tensors.len() })
    };
    let inputs = step.inputs.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
    let Setup { isa, n_threads, .. } = setup;
    let at = Lowering { bundle, isa, n_threads, inputs, output: tensor(&step.output)? };
    match &step.op {
        Op::Conv { window, groups, weights, bias, requantize } => {
            at.conv(window, *groups, *weights, *bias, requantize, buffer)
        }
        Op::Add { multipliers, shift, low, high } => at.add(*multipliers, *shift, [*low, *high]),
        Op::Mul { multiplier, low, high } => at.mul(*multiplier, [*low, *high]),
        Op::AveragePool { window, count_pad, multiplier, low, high } => {
            at.average_pool(window, *count_pad, *multiplier, [*low, *high])
        }
        Op::GlobalSum => at.global_sum(),
        Op::MaxPool { window } => at.max_pool(window),
        Op::Table { table } => at.table(*table),
        Op::Concat { axis } => at.concat(*axis),
        Op::Upsample { factor } => at.upsample(*factor),
        Op::Reshape => at.reshape(),
        Op::Transpose { axes } => at.transpose(*axes),
        Op::Dequantize { scale } => at.dequantize(*scale),
        Op::Quantize { inv_scale, low, high } => at.quantize(*inv_scale, [*low, *high]),
        Op::FloatUnary { function } => at.float_unary(*function),
        Op::FloatBinary { function } => at.float_binary(*function),
        Op::FloatConv { window, groups, weights, bias } => at.float_conv(window, *groups, *weights, *bias),
        Op::FloatSoftmax => {
            let x = at.one_float()?;
            at.expect_output(x.dims)?;
            Ok(Kernel::FloatSoftmax { dims: x.dims })
        }
        Op::FloatMean => {
            let x = at.one_float()?;
            at.expect_output(Dims { h: 1, w: 1, c: x.dims.c })?;
            Ok(Kernel::FloatMean { dims: x.dims })
        }
        Op::MatMul { multiplier, low, high } => at.matmul(*multiplier, [*low, *high]),
        Op::Resize { rows, columns } => at.resize(*rows, *columns),
        Op::Onnx { model } => at.onnx(*model),
    }
}

impl Lowering<'_> {
    fn conv(
        &self,
        window: &Window,
        groups: u32,
        weights: Blob,
        bias: Blob,
        to: &Requantize,
        buffer: &mut Vec<u8>,
    ) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x, self.output])?;
        let shape = self.conv_shape(x, window, groups)?;
        let clamp = self.clamp([to.low, to.high])?;
        let weights = signed(self.blob_with("weights", weights, shape.weights_len(), buffer)?);
        let bias = self.i32s("bias", bias, shape.output.c)?;
        let multipliers = self.i32s("multipliers", to.multipliers, shape.output.c)?;
        for multiplier in &multipliers {
            check_range("multiplier", i64::from(*multiplier), 1, MULTIPLIER_MAX)?;
        }
        // Whatever the input, |x - zero_point| is at most this; for i8 the bound does not depend on the zero point.
        let reach = match x.data_type {
            DataType::I8 => 255,
            _ => centred_reach(x),
        };
        if weights.contains(&i8::MIN) {
            return Err(Fault::Range { what: "weight", found: -128, low: -127, high: 127 });
        }
        let rows = weights.chunks_exact((weights.len() / shape.output.c).max(1));
        let sums: Vec<RowSums> = rows.map(RowSums::of).collect();
        for (channel, (sums, bias)) in sums.iter().zip(&bias).enumerate() {
            let bound = sums.magnitude().saturating_mul(reach).saturating_add(i64::from(bias.unsigned_abs()));
            if bound >= ACCUMULATOR_LIMIT {
                return Err(Fault::Accumulator { channel, bound });
            }
        }
        // The shape was checked, and the lengths follow from it.
        let unfit = |_| Fault::Window { kernel: window.kernel, input: x.shape };
        let types = [x.data_type, self.output.data_type];
        if types == [DataType::I8; 2] && packed::has_twin(self.isa, &shape) {
            let mut lines = vec![Line::ZERO; packed::packed_lines(self.isa, &shape)];
            let requantize = graft_kernels::Requantize { multipliers: &multipliers, clamp };
            let layer = Layer { weights, sums: &sums, bias: &bias, zero_point_in: x.zero_point, requantize };
            packed::pack(self.isa, &shape, &layer, &mut lines).map_err(unfit)?;
            let stage = Stage { shape, packed: lines, zero_point_in: x.zero_point, clamp };
            return Ok(Kernel::Chain(Chain::new(stage, self.n_threads)));
        }
        let mut packed = vec![0; shape.packed_len()];
        shape.pack_weights(self.isa, weights, &mut packed).map_err(unfit)?;
        Ok(Kernel::Conv { shape, packed, bias, multipliers, zero_point_in: x.zero_point, clamp })
    }

    fn add(&self, multipliers: [i32; 2], shift: u8, range: [i32; 2]) -> Result<Kernel, Fault> {
        let [a, b] = self.two()?;
        self.activations(&[a, b, self.output])?;
        let dims = self.broadcast(a, b)?;
        for multiplier in multipliers {
            check_range("multiplier", multiplier.into(), -ADD_MULTIPLIER_MAX, ADD_MULTIPLIER_MAX)?;
        }
        check_range("shift", shift.into(), 1, 24)?;
        let zero_points_in = [a.zero_point, b.zero_point];
        let params = AddParams { zero_points_in, multipliers, shift: shift.into(), clamp: self.clamp(range)? };
        Ok(Kernel::Add { dims, params })
    }

    fn mul(&self, multiplier: i32, range: [i32; 2]) -> Result<Kernel, Fault> {
        let [a, b] = self.two()?;
        self.activations(&[a, b, self.output])?;
        let dims = self.broadcast(a, b)?;
        check_range("multiplier", multiplier.into(), 1, MULTIPLIER_MAX)?;
        let zero_points_in = [a.zero_point, b.zero_point];
        Ok(Kernel::Mul { dims, params: MulParams { zero_points_in, multiplier, clamp: self.clamp(range)? } })
    }

    fn matmul(&self, multiplier: i32, range: [i32; 2]) -> Result<Kernel, Fault> {
        let [a, b] = self.two()?;
        self.activations(&[a, b, self.output])?;
        let shape = MatMulShape { n: a.dims.h, rows: a.dims.w, inner: a.dims.c, columns: b.dims.c };
        if [b.dims.h, b.dims.w] != [shape.n, shape.inner] {
            let allowed = format!("[{}, {}, any]", shape.n, shape.inner);
            return Err(Fault::Shape { what: "second input", found: b.shape, allowed });
        }
        self.expect_output(Dims { c: b.dims.c, ..a.dims })?;
        check_range("multiplier", multiplier.into(), 1, MULTIPLIER_MAX)?;
        for x in [a, b] {
            // Centred values are multiplied as i16.
            if x.data_type == DataType::I16 {
                check_range("zero point of I16", x.zero_point.into(), 0, 0)?;
            }
        }
        let bound = (shape.inner as i64).saturating_mul(centred_reach(a)).saturating_mul(centred_reach(b));
        if bound >= ACCUMULATOR_LIMIT {
            return Err(Fault::Accumulator { channel: 0, bound });
        }
        let zero_points_in = [a.zero_point, b.zero_point];
        Ok(Kernel::MatMul { shape, params: MatMulParams { zero_points_in, multiplier, clamp: self.clamp(range)? } })
    }

    fn average_pool(
        &self,
        window: &Window,
        count_pad: bool,
        multiplier: i32,
        range: [i32; 2],
    ) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x, self.output])?;
        let shape = self.pool_shape(x, window)?;
        check_range("multiplier", multiplier.into(), 1, MULTIPLIER_MAX)?;
        self.sum_fits(x, shape.window.n_taps())?;
        let params = AverageParams { count_pad, zero_point_in: x.zero_point, multiplier, clamp: self.clamp(range)? };
        Ok(Kernel::AveragePool { shape, params })
    }

    fn global_sum(&self) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x])?;
        self.expect_type("output", self.output, &[DataType::I32], "I32")?;
        self.expect_output(Dims { h: 1, w: 1, c: x.dims.c })?;
        self.sum_fits(x, x.dims.n_pixels())?;
        Ok(Kernel::GlobalSum { dims: x.dims, zero_point_in: x.zero_point })
    }

    fn max_pool(&self, window: &Window) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x, self.output])?;
        self.same_meaning(x)?;
        Ok(Kernel::MaxPool { shape: self.pool_shape(x, window)? })
    }

    fn table(&self, table: Blob) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x, self.output])?;
        self.expect_output(x.dims)?;
        let entry_bytes = u64::from(self.output.data_type.bytes());
        let n = match x.data_type {
            DataType::I8 => TABLE_ENTRIES,
            _ => {
                let n = table.bytes / entry_bytes;
                check_range("table entries", n.try_into().unwrap_or(i64::MAX), 2, i64::from(1 << 16))?;
                (n / 2 * 2) as usize
            }
        };
        let bytes = self.blob("table", table, n * entry_bytes as usize)?;
        if [x.data_type, self.output.data_type] == [DataType::I8; 2] {
            let mut entries = Box::new([0i8; TABLE_ENTRIES]);
            entries.iter_mut().zip(bytes.iter()).for_each(|(entry, byte)| *entry = *byte as i8);
            return Ok(Kernel::Table { table: entries });
        }
        let entries = match self.output.data_type {
            DataType::I8 => Entries::I8(signed(&bytes).to_vec()),
            _ => Entries::I16(bytes.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()),
        };
        Ok(Kernel::WideTable { entries })
    }

    fn concat(&self, axis: u32) -> Result<Kernel, Fault> {
        check_range("axis", axis.into(), 0, 2)?;
        let axis = axis as usize;
        let Some(first) = self.inputs.first() else {
            return Err(Fault::Inputs { found: 0, allowed: "one or more" });
        };
        let sizes = |dims: Dims| [dims.h, dims.w, dims.c];
        let mut parts = Vec::with_capacity(self.inputs.len());
        let mut at = 0usize;
        for input in &self.inputs {
            self.same_meaning(input)?;
            let others_agree = (0..3).all(|i| i == axis || sizes(input.dims).get(i) == sizes(first.dims).get(i));
            if !others_agree {
                let allowed = format!("{:?} but for axis {axis}", first.shape);
                return Err(Fault::Shape { what: "input", found: input.shape, allowed });
            }
            parts.push(Part { dims: input.dims, at });
            at = at.saturating_add(sizes(input.dims).get(axis).copied().unwrap_or(0));
        }
        let whole = match axis {
            0 => Dims { h: at, ..first.dims },
            1 => Dims { w: at, ..first.dims },
            _ => Dims { c: at, ..first.dims },
        };
        self.expect_output(whole)?;
        Ok(Kernel::Concat { axis, parts, whole })
    }

    fn upsample(&self, factor: [u32; 2]) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.same_meaning(x)?;
        for factor in factor {
            check_range("factor", factor.into(), 1, WINDOW_MAX.into())?;
        }
        let factor = factor.map(|factor| factor as usize);
        let h = x.dims.h.saturating_mul(factor[0]);
        let w = x.dims.w.saturating_mul(factor[1]);
        self.expect_output(Dims { h, w, c: x.dims.c })?;
        Ok(Kernel::Upsample { dims: x.dims, factor })
    }

    fn resize(&self, rows: Blob, columns: Blob) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.activations(&[x])?;
        self.same_meaning(x)?;
        self.expect_output(Dims { c: x.dims.c, ..self.output.dims })?;
        let positions = |what, blob, n: usize, size: usize| {
            let positions = self.words(what, blob, n, u32::from_le_bytes)?;
            let last = (size as i64 - 1) << POSITION_BITS;
            positions.iter().try_for_each(|position| check_range(what, (*position).into(), 0, last))?;
            Ok(positions)
        };
        let rows = positions("row", rows, self.output.dims.h, x.dims.h)?;
        let columns = positions("column", columns, self.output.dims.w, x.dims.w)?;
        Ok(Kernel::Resize { dims: x.dims, rows, columns })
    }

    fn reshape(&self) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.same_meaning(x)?;
        if self.output.dims.len() != x.dims.len() {
            let allowed = format!("any of {} elements", x.dims.len());
            return Err(Fault::Shape { what: "output", found: self.output.shape, allowed });
        }
        Ok(Kernel::Reshape)
    }

    fn transpose(&self, axes: [u32; 3]) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.same_meaning(x)?;
        if !(0..3).all(|axis| axes.contains(&axis)) {
            return Err(Fault::Axes { found: axes });
        }
        let axes = axes.map(|axis| axis as usize);
        let sizes = [x.dims.h, x.dims.w, x.dims.c];
        let [h, w, c] = axes.map(|axis| sizes.get(axis).copied().unwrap_or(0));
        self.expect_output(Dims { h, w, c })?;
        Ok(Kernel::Transpose { dims: x.dims, axes })
    }

    fn dequantize(&self, scale: f32) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.expect_type("input", x, &[DataType::I8, DataType::I16, DataType::I32], "I8, I16, I32")?;
        self.expect_type("output", self.output, &[DataType::F32], "F32")?;
        self.expect_output(x.dims)?;
        check_positive("scale", scale)?;
        Ok(Kernel::Dequantize { scale, zero_point: x.zero_point })
    }

    fn quantize(&self, inv_scale: f32, range: [i32; 2]) -> Result<Kernel, Fault> {
        let x = self.one()?;
        self.expect_type("input", x, &[DataType::F32], "F32")?;
        self.activations(&[self.output])?;
        self.expect_output(x.dims)?;
        check_positive("inverse scale", inv_scale)?;
        Ok(Kernel::Quantize { inv_scale, clamp: self.clamp(range)? })
    }

    fn float_unary(&self, function: FloatFunction) -> Result<Kernel, Fault> {
        let x = self.one_float()?;
        self.expect_output(x.dims)?;
        let function = match function {
            FloatFunction::Relu => Unary::Relu,
            FloatFunction::Sigmoid => Unary::Sigmoid,
            FloatFunction::Tanh => Unary::Tanh,
            FloatFunction::Exp => Unary::Exp,
            FloatFunction::Sqrt => Unary::Sqrt,
            FloatFunction::Abs => Unary::Abs,
            FloatFunction::HardSwish => Unary::HardSwish,
            FloatFunction::Erf => Unary::Erf,
            FloatFunction::Clip(low, high) if low <= high => Unary::Clip(low, high),
            FloatFunction::Clip(low, _) => {
                let allowed = "a number, at most the upper bound";
                return Err(Fault::Number { what: "lower bound", found: low.into(), allowed });
            }
        };
        Ok(Kernel::FloatUnary { function })
    }

    fn float_binary(&self, function: FloatFunction2) -> Result<Kernel, Fault> {
        let [a, b] = self.two()?;
        for (what, tensor) in [("first input", a), ("second input", b), ("output", self.output)] {
            self.expect_type(what, tensor, &[DataType::F32], "F32")?;
        }
        let function = match function {
            FloatFunction2::Add => Binary::Add,
            FloatFunction2::Sub => Binary::Sub,
            FloatFunction2::Mul => Binary::Mul,
            FloatFunction2::Div => Binary::Div,
        };
        Ok(Kernel::FloatBinary { function, dims: self.broadcast(a, b)? })
    }

    fn float_conv(&self, window: &Window, groups: u32, weights: Blob, bias: Blob) -> Result<Kernel, Fault> {
        let x = self.one_float()?;
        let shape = self.conv_shape(x, window, groups)?;
        let weights = self.f32s("weights", weights, shape.weights_len())?;
        let bias = self.f32s("bias", bias, shape.output.c)?;
        let mut packed = vec![0.0; float::packed_len(&shape)];
        float::pack_weights(&shape, &weights, &mut packed)
            .map_err(|_| Fault::Window { kernel: window.kernel, input: x.shape })?;
        Ok(Kernel::FloatConv { shape, packed, bias })
    }

    fn onnx(&self, model: Blob) -> Result<Kernel, Fault> {
        if self.inputs.is_empty() {
            return Err(Fault::Inputs { found: 0, allowed: "one or more" });
        }
        for input in &self.inputs {
            self.expect_type("input", input, &[DataType::F32], "F32")?;
        }
        self.expect_type("output", self.output, &[DataType::F32], "F32")?;
        let n_bytes = i64::try_from(model.bytes).unwrap_or(i64::MAX);
        check_range("length of the model", n_bytes, 1, MODEL_BYTES_MAX as i64)?;
        let bytes = self.blob("model", model, model.bytes as usize)?;
        let lens: Vec<usize> = self.inputs.iter().map(|input| input.dims.len()).collect();
        OnnxModel::load(&bytes, &lens, self.output.dims.len()).map(Kernel::Onnx)
    }
}

// What several ops check.
impl Lowering<'_> {
    fn one(&self) -> Result<&TensorInfo, Fault> {
        match self.inputs[..] {
            [x] => Ok(x),
            _ => Err(Fault::Inputs { found: self.inputs.len(), allowed: "one" }),
        }
    }

    fn two(&self) -> Result<[&TensorInfo; 2], Fault> {
        match self.inputs[..] {
            [a, b] => Ok([a, b]),
            _ => Err(Fault::Inputs { found: self.inputs.len(), allowed: "two" }),
        }
    }

    /// One F32 input and an F32 output.
    fn one_float(&self) -> Result<&TensorInfo, Fault> {
        let x = self.one()?;
        self.expect_type("input", x, &[DataType::F32], "F32")?;
        self.expect_type("output", self.output, &[DataType::F32], "F32")?;
        Ok(x)
    }

    /// Each I8 or I16; the last one is the output if it is ours.
    fn activations(&self, tensors: &[&TensorInfo]) -> Result<(), Fault> {
        tensors.iter().try_for_each(|tensor| {
            let what = if std::ptr::eq(*tensor, self.output) { "output" } else { "input" };
            self.expect_type(what, tensor, &[DataType::I8, DataType::I16], "I8, I16")
        })
    }

    fn expect_type(
        &self,
        what: &'static str,
        tensor: &TensorInfo,
        types: &[DataType],
        allowed: &'static str,
    ) -> Result<(), Fault> {
        let found = tensor.data_type;
        if types.contains(&found) { Ok(()) } else { Err(Fault::Type { what, found, allowed }) }
    }

    fn expect_output(&self, dims: Dims) -> Result<(), Fault> {
        if self.output.dims == dims {
            return Ok(());
        }
        let allowed = format!("{:?}", [dims.h, dims.w, dims.c]);
        Err(Fault::Shape { what: "output", found: self.output.shape, allowed })
    }

    /// Input and output have one type, scale and zero point.
    fn same_meaning(&self, x: &TensorInfo) -> Result<(), Fault> {
        let (found, input) = (self.output, x);
        if found.data_type != input.data_type {
            return Err(Fault::Type { what: "output", found: found.data_type, allowed: "the input's type" });
        }
        // Both are finite, so that equality is what it seems.
        if found.scale == input.scale && found.zero_point == input.zero_point {
            return Ok(());
        }
        let (scale, zero_point) = (input.scale, input.zero_point);
        Err(Fault::Meaning { found: found.scale, found_zero_point: found.zero_point, scale, zero_point })
    }

    fn broadcast(&self, a: &TensorInfo, b: &TensorInfo) -> Result<[Dims; 2], Fault> {
        if Broadcast::of(a.dims, b.dims).is_none() {
            let allowed = format!("{:?}, [1, 1, {}] or [1, 1, 1]", a.shape, a.dims.c);
            return Err(Fault::Shape { what: "second input", found: b.shape, allowed });
        }
        self.expect_output(a.dims)?;
        Ok([a.dims, b.dims])
    }

    fn clamp(&self, [low, high]: [i32; 2]) -> Result<Clamp, Fault> {
        let (min, max) = range_of(self.output.data_type);
        check_range("largest output", high.into(), min.into(), max.into())?;
        check_range("smallest output", low.into(), min.into(), high.into())?;
        Ok(Clamp { zero_point: self.output.zero_point, low, high })
    }

    fn conv_shape(&self, x: &TensorInfo, window: &Window, groups: u32) -> Result<ConvShape, Fault> {
        let (in_c, out_c) = (x.dims.c, self.output.dims.c);
        let n = groups as usize;
        if n == 0 || !in_c.is_multiple_of(n) || !out_c.is_multiple_of(n) {
            return Err(Fault::Groups { groups, in_c, out_c });
        }
        let window = self.window(x, window)?;
        Ok(ConvShape { input: x.dims, output: self.output.dims, window, groups: n })
    }

    fn pool_shape(&self, x: &TensorInfo, window: &Window) -> Result<PoolShape, Fault> {
        let sizes = self.window(x, window)?;
        self.expect_output(Dims { c: x.dims.c, ..self.output.dims })?;
        let shape = PoolShape { input: x.dims, output: self.output.dims, window: sizes };
        let unfit = Fault::Window { kernel: window.kernel, input: x.shape };
        if shape.is_consistent() { Ok(shape) } else { Err(unfit) }
    }

    /// Height and width of the output follow from the window; its channels are the op's to check.
    fn window(&self, x: &TensorInfo, window: &Window) -> Result<graft_kernels::Window, Fault> {
        let max = i64::from(WINDOW_MAX);
        let Window { kernel, stride, dilation, pad_before, pad_after } = *window;
        let parts = [
            ("kernel size", kernel, 1),
            ("stride", stride, 1),
            ("dilation", dilation, 1),
            ("padding", pad_before, 0),
            ("padding", pad_after, 0),
        ];
        for (what, sizes, low) in parts {
            sizes.into_iter().try_for_each(|size| check_range(what, size.into(), low, max))?;
        }
        let wide = |sizes: [u32; 2]| sizes.map(|size| size as usize);
        let sizes = graft_kernels::Window {
            kernel: wide(kernel),
            stride: wide(stride),
            dilation: wide(dilation),
            pad_before: wide(pad_before),
            pad_after: wide(pad_after),
        };
        let [h, w] = sizes.output(x.dims).ok_or(Fault::Window { kernel, input: x.shape })?;
        self.expect_output(Dims { h, w, c: self.output.dims.c })?;
        Ok(sizes)
    }

    /// Sums of `n` centred elements stay in i32.
    fn sum_fits(&self, x: &TensorInfo, n: usize) -> Result<(), Fault> {
        let bound = (n as i64).saturating_mul(centred_reach(x));
        if bound < ACCUMULATOR_LIMIT { Ok(()) } else { Err(Fault::Accumulator { channel: 0, bound }) }
    }

    fn blob(&self, what: &'static str, blob: Blob, allowed: usize) -> Result<Cow<'_, [u8]>, Fault> {
        expect_bytes(what, blob, allowed)?;
        self.bundle.blob(blob).map_err(|error| unreadable(what, error))
    }

    fn blob_with<'a>(
        &'a self,
        what: &'static str,
        blob: Blob,
        allowed: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Fault> {
        expect_bytes(what, blob, allowed)?;
        self.bundle.blob_with(blob, buffer).map_err(|error| unreadable(what, error))
    }

    fn words<T>(&self, what: &'static str, blob: Blob, n: usize, of: fn([u8; 4]) -> T) -> Result<Vec<T>, Fault> {
        let bytes = self.blob(what, blob, n.saturating_mul(4))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|word| of(*word)).collect())
    }

    fn i32s(&self, what: &'static str, blob: Blob, n: usize) -> Result<Vec<i32>, Fault> {
        self.words(what, blob, n, i32::from_le_bytes)
    }

    fn f32s(&self, what: &'static str, blob: Blob, n: usize) -> Result<Vec<f32>, Fault> {
        let values = self.words(what, blob, n, f32::from_le_bytes)?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Fault::Number { what, found: (*value).into(), allowed: "finite" }),
            None => Ok(values),
        }
    }
}

fn expect_bytes(what: &'static str, blob: Blob, allowed: usize) -> Result<(), Fault> {
    let (found, allowed) = (blob.bytes, allowed as u64);
    if found == allowed { Ok(()) } else { Err(Fault::BlobLength { what, found, allowed }) }
}

fn unreadable(what: &'static str, error: BundleError) -> Fault {
    match error {
        BundleError::Blob { offset, bytes } => Fault::BlobPlace { what, offset, bytes },
        error => Fault::Unreadable { what, reason: error.to_string() },
    }
}

/// Largest `|x - zero_point|`.
fn centred_reach(x: &TensorInfo) -> i64 {
    let ([min, max], zero_point) = (x.limits.map(i64::from), i64::from(x.zero_point));
    // The zero point itself stands in the padding, whatever the limits.
    (max - zero_point).max(zero_point - min)
}

fn check_positive(what: &'static str, value: f32) -> Result<(), Fault> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Fault::Number { what, found: value.into(), allowed: "finite and above zero" })
    }
}
