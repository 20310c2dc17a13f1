//! A second interpreter of the graph, by the definitions, without a thought for speed.

use graft_bundle::graph::{Blob, FloatFunction as F, FloatFunction2 as F2, Op, Window};
use graft_bundle::{Bundle, DataType};

/// All integers of a tensor, or all floats.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Int(Vec<i64>),
    Float(Vec<f32>),
}

impl Values {
    fn int(&self) -> &[i64] {
        match self {
            Values::Int(values) => values,
            Values::Float(_) => panic!("float"),
        }
    }

    fn float(&self) -> &[f32] {
        match self {
            Values::Float(values) => values,
            Values::Int(_) => panic!("int"),
        }
    }
}

fn round(numerator: i128, divisor: i128) -> i128 {
    let floor = numerator.div_euclid(divisor);
    let twice = 2 * numerator.rem_euclid(divisor);
    floor + i128::from(twice > divisor || (twice == divisor && floor.rem_euclid(2) == 1))
}

fn at(shape: [u32; 3], i: usize) -> [i64; 3] {
    let [_, w, c] = shape.map(|d| d as usize);
    [(i / c / w) as i64, (i / c % w) as i64, (i % c) as i64]
}

fn index(shape: [u32; 3], [h, w, c]: [i64; 3]) -> Option<usize> {
    let inside = (0..shape[0] as i64).contains(&h) && (0..shape[1] as i64).contains(&w);
    inside.then(|| ((h * shape[1] as i64 + w) * shape[2] as i64 + c) as usize)
}

/// Coordinates under the window, in row-major order.
fn under(window: &Window, [h, w, _]: [i64; 3]) -> Vec<[i64; 2]> {
    let along = |axis: usize, at: i64, tap: u32| {
        at * i64::from(window.stride[axis]) + i64::from(tap * window.dilation[axis])
            - i64::from(window.pad_before[axis])
    };
    (0..window.kernel[0])
        .flat_map(|ky| (0..window.kernel[1]).map(move |kx| [along(0, h, ky), along(1, w, kx)]))
        .collect()
}

/// Every tensor's values, by index.
pub fn evaluate(bundle: &Bundle, input: &[i8]) -> Vec<Values> {
    let graph = bundle.graph();
    let blob = |b: &Blob| bundle.blob(*b).unwrap();
    let words = |b: &Blob| blob(b).chunks(4).map(|w| [w[0], w[1], w[2], w[3]]).collect::<Vec<_>>();
    let mut values: Vec<Option<Values>> = vec![None; graph.tensors.len()];
    values[graph.input.0 as usize] = Some(Values::Int(input.iter().map(|v| i64::from(*v)).collect()));
    for step in &graph.steps {
        let tensor = |i: usize| &graph.tensors[step.inputs[i].0 as usize];
        let value = |i: usize| values[step.inputs[i].0 as usize].as_ref().unwrap();
        let out = &graph.tensors[step.output.0 as usize];
        let n = out.n_elements() as usize;
        let land = |rounded: i128, low: i32, high: i32| {
            (rounded + i128::from(out.zero_point)).clamp(low.into(), high.into()) as i64
        };
        let centred = |t: usize, i: usize| i128::from(value(t).int()[i]) - i128::from(tensor(t).zero_point);
        // Index into the second operand.
        let meets = |i: usize| match tensor(1).shape {
            shape if shape == tensor(0).shape => i,
            [1, 1, 1] => 0,
            [_, _, c] => i % c as usize,
        };
        let elements = |window: &Window, i: usize| -> Vec<usize> {
            let [h, w, c] = at(out.shape, i);
            under(window, [h, w, c]).into_iter().filter_map(|[y, x]| index(tensor(0).shape, [y, x, c])).collect()
        };
        // Input index of every weight, in the weights' order.
        let taps = |window: &Window, groups: u32, i: usize| -> Vec<Option<usize>> {
            let [h, w, oc] = at(out.shape, i);
            let per_group = i64::from(tensor(0).shape[2] / groups);
            let group = oc / i64::from(out.shape[2] / groups);
            let pixel = |[y, x]: [i64; 2]| {
                (0..per_group).map(move |c| index(tensor(0).shape, [y, x, group * per_group + c])).collect::<Vec<_>>()
            };
            under(window, [h, w, 0]).into_iter().flat_map(pixel).collect()
        };
        let ints = |f: &dyn Fn(usize) -> i64| Values::Int((0..n).map(f).collect());
        let floats = |f: &dyn Fn(usize) -> f32| Values::Float((0..n).map(f).collect());
        let moved = |f: &dyn Fn(usize) -> (usize, usize)| match value(0) {
            Values::Int(_) => ints(&|i| {
                let (t, at) = f(i);
                value(t).int()[at]
            }),
            Values::Float(_) => floats(&|i| {
                let (t, at) = f(i);
                value(t).float()[at]
            }),
        };
        let result = match &step.op {
            Op::Conv { window, groups, weights, bias, requantize } => ints(&|i| {
                let oc = i % out.shape[2] as usize;
                let taps = taps(window, *groups, i);
                let row = &blob(weights)[oc * taps.len()..][..taps.len()];
                let sum: i128 =
                    taps.iter().zip(row).map(|(at, w)| at.map_or(0, |at| centred(0, at) * i128::from(*w as i8))).sum();
                let acc = sum + i128::from(i32::from_le_bytes(words(bias)[oc]));
                let multiplier = i32::from_le_bytes(words(&requantize.multipliers)[oc]);
                land(round(acc * i128::from(multiplier), 1 << 22), requantize.low, requantize.high)
            }),
            Op::Add { multipliers, shift, low, high } => ints(&|i| {
                let sum =
                    centred(0, i) * i128::from(multipliers[0]) + centred(1, meets(i)) * i128::from(multipliers[1]);
                land(round(sum, 1 << shift), *low, *high)
            }),
            Op::Mul { multiplier, low, high } => ints(&|i| {
                land(round(centred(0, i) * centred(1, meets(i)) * i128::from(*multiplier), 1 << 22), *low, *high)
            }),
            Op::MatMul { multiplier, low, high } => ints(&|i| {
                let [n, row, column] = at(out.shape, i);
                let place = |t: usize, place: [i64; 3]| centred(t, index(tensor(t).shape, place).unwrap());
                let inner = i64::from(tensor(0).shape[2]);
                let sum: i128 = (0..inner).map(|k| place(0, [n, row, k]) * place(1, [n, k, column])).sum();
                land(round(sum * i128::from(*multiplier), 1 << 22), *low, *high)
            }),
            Op::AveragePool { window, count_pad, multiplier, low, high } => ints(&|i| {
                let elements = elements(window, i);
                let n = if *count_pad { (window.kernel[0] * window.kernel[1]) as usize } else { elements.len() };
                let sum: i128 = elements.iter().map(|at| centred(0, *at)).sum();
                land(round(sum * i128::from(*multiplier), (n as i128) << 22), *low, *high)
            }),
            Op::GlobalSum => {
                ints(&|i| (i..value(0).int().len()).step_by(n).map(|at| centred(0, at)).sum::<i128>() as i64)
            }
            Op::MaxPool { window } => {
                ints(&|i| elements(window, i).iter().map(|at| value(0).int()[*at]).max().unwrap())
            }
            Op::Table { table } => ints(&|i| {
                let (bytes, wide) = (blob(table), out.data_type == DataType::I16);
                let n = bytes.len() as i64 / if wide { 2 } else { 1 };
                let at = (value(0).int()[i].clamp(-n / 2, n / 2 - 1) + n / 2) as usize;
                if wide {
                    i16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).into()
                } else {
                    (bytes[at] as i8).into()
                }
            }),
            Op::Concat { axis } => moved(&|i| {
                let mut place = at(out.shape, i);
                for t in 0.. {
                    let size = i64::from(tensor(t).shape[*axis as usize]);
                    if place[*axis as usize] < size {
                        return (t, index(tensor(t).shape, place).unwrap());
                    }
                    place[*axis as usize] -= size;
                }
                unreachable!()
            }),
            Op::Upsample { factor } => moved(&|i| {
                let [h, w, c] = at(out.shape, i);
                (0, index(tensor(0).shape, [h / i64::from(factor[0]), w / i64::from(factor[1]), c]).unwrap())
            }),
            Op::Resize { rows, columns } => ints(&|i| {
                let [h, w, c] = at(out.shape, i);
                // The two neighbours along an axis and what each counts, of 2048.
                let along = |blob: &Blob, at: i64| {
                    let position = i64::from(u32::from_le_bytes(words(blob)[at as usize]));
                    [(position / 2048, 2048 - position % 2048), (position / 2048 + 1, position % 2048)]
                };
                let mut sum = 0;
                for (y, above) in along(rows, h) {
                    for (x, left) in along(columns, w) {
                        if above * left > 0 {
                            let pixel = value(0).int()[index(tensor(0).shape, [y, x, c]).unwrap()];
                            sum += i128::from(above * left * pixel);
                        }
                    }
                }
                round(sum, 1 << 22) as i64
            }),
            Op::Reshape => value(0).clone(),
            Op::Transpose { axes } => moved(&|i| {
                let (place, mut from) = (at(out.shape, i), [0; 3]);
                axes.iter().zip(place).for_each(|(axis, at)| from[*axis as usize] = at);
                (0, index(tensor(0).shape, from).unwrap())
            }),
            Op::Dequantize { scale } => floats(&|i| scale * centred(0, i) as f32),
            Op::Quantize { inv_scale, low, high } => {
                ints(&|i| land(f64::from(value(0).float()[i] * inv_scale).round_ties_even() as i128, *low, *high))
            }
            Op::FloatUnary { function } => floats(&|i| {
                let x = value(0).float()[i];
                match function {
                    F::Relu => x.max(0.0),
                    F::Sigmoid => 1.0 / (1.0 + libm::expf(-x)),
                    F::Tanh => libm::tanhf(x),
                    F::Exp => libm::expf(x),
                    F::Sqrt => x.sqrt(),
                    F::Abs => x.abs(),
                    F::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
                    F::Erf => libm::erff(x),
                    F::Clip(low, high) => x.clamp(*low, *high),
                }
            }),
            Op::FloatBinary { function } => floats(&|i| {
                let (a, b) = (value(0).float()[i], value(1).float()[meets(i)]);
                match function {
                    F2::Add => a + b,
                    F2::Sub => a - b,
                    F2::Mul => a * b,
                    F2::Div => a / b,
                }
            }),
            Op::FloatConv { window, groups, weights, bias } => floats(&|i| {
                let oc = i % out.shape[2] as usize;
                let taps = taps(window, *groups, i);
                let row = words(weights)[oc * taps.len()..][..taps.len()].to_vec();
                taps.iter().zip(row).fold(f32::from_le_bytes(words(bias)[oc]), |acc, (at, w)| {
                    acc + at.map_or(0.0, |at| value(0).float()[at]) * f32::from_le_bytes(w)
                })
            }),
            Op::FloatSoftmax => floats(&|i| {
                let c = out.shape[2] as usize;
                let x = &value(0).float()[i / c * c..][..c];
                let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum = x.iter().fold(0.0, |sum, x| sum + libm::expf(x - max));
                libm::expf(x[i % c] - max) / sum
            }),
            Op::FloatMean => floats(&|i| {
                let x = value(0).float();
                x[i..].iter().step_by(n).fold(0.0, |sum, x| sum + x) / (x.len() / n) as f32
            }),
            Op::Onnx { .. } => panic!("is not defined bit for bit"),
        };
        values[step.output.0 as usize] = Some(result);
    }
    values.into_iter().map(Option::unwrap).collect()
}

/// As the engine's trace shows it.
pub fn real(bundle: &Bundle, tensor: usize, values: &Values) -> Vec<f32> {
    let info = &bundle.graph().tensors[tensor];
    match values {
        Values::Float(values) => values.clone(),
        Values::Int(values) => {
            assert_ne!(info.data_type, DataType::F32);
            values.iter().map(|q| ((q - i64::from(info.zero_point)) as f64 * info.scale) as f32).collect()
        }
    }
}
