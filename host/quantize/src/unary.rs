//! Functions of one value, as the exporter spelled them.
//!
//! Activations come as one operator or as five (`x * sigmoid(x)`, `0.5 x (1 + erf(x / sqrt 2))`, ...). All that is
//! computed element by element from one tensor and scalars is kept as an expression; at the end it is a clamp that a
//! layer absorbs, or a table of 256 entries, whatever it was made of.

/// A function of `x`.
#[derive(Clone, Debug, PartialEq)]
pub enum Unary {
    /// `x` itself.
    X,
    /// A scalar.
    Constant(f64),
    /// A function of one argument.
    Call(Function, Box<Unary>),
    /// Of two.
    Call2(Function2, Box<Unary>, Box<Unary>),
}

/// Functions of one argument, as ONNX defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Function {
    Relu,
    LeakyRelu(f64),
    Sigmoid,
    HardSigmoid(f64, f64),
    HardSwish,
    Tanh,
    Elu(f64),
    Celu(f64),
    Selu(f64, f64),
    ThresholdedRelu(f64),
    Softplus,
    Softsign,
    Gelu,
    GeluTanh,
    Mish,
    Erf,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Abs,
    Neg,
    Sign,
    Floor,
    Ceil,
    Round,
    Sin,
    Cos,
    Clip(f64, f64),
}

/// Functions of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Function2 {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Pow,
}

impl Unary {
    /// `function(self)`.
    pub fn call(self, function: Function) -> Unary {
        match self {
            Unary::Constant(c) => Unary::Constant(function.at(c)),
            other => Unary::Call(function, Box::new(other)),
        }
    }

    /// `function(a, b)`.
    pub fn call2(function: Function2, a: Unary, b: Unary) -> Unary {
        match (a, b) {
            (Unary::Constant(a), Unary::Constant(b)) => Unary::Constant(function.at(a, b)),
            (a, b) => Unary::Call2(function, Box::new(a), Box::new(b)),
        }
    }

    /// The value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        match self {
            Unary::X => x,
            Unary::Constant(c) => *c,
            Unary::Call(function, a) => function.at(a.at(x)),
            Unary::Call2(function, a, b) => function.at(a.at(x), b.at(x)),
        }
    }

    /// `Some((low, high))` if it is `clamp(x, low, high)`.
    pub fn as_clamp(&self) -> Option<(f64, f64)> {
        let narrow = |inner: &Unary, low: f64, high: f64| {
            let (l, h) = inner.as_clamp()?;
            // clamp(clamp(x, l, h), low, high); empty intersections never occur in networks and are refused.
            let (low, high) = (l.max(low), h.min(high));
            (low <= high).then_some((low, high))
        };
        match self {
            Unary::X => Some((f64::NEG_INFINITY, f64::INFINITY)),
            Unary::Call(Function::Relu, a) => narrow(a, 0.0, f64::INFINITY),
            Unary::Call(Function::Clip(low, high), a) => narrow(a, *low, *high),
            Unary::Call2(Function2::Max, a, b) => match (&**a, &**b) {
                (x, Unary::Constant(c)) | (Unary::Constant(c), x) => narrow(x, *c, f64::INFINITY),
                _ => None,
            },
            Unary::Call2(Function2::Min, a, b) => match (&**a, &**b) {
                (x, Unary::Constant(c)) | (Unary::Constant(c), x) => narrow(x, f64::NEG_INFINITY, *c),
                _ => None,
            },
            _ => None,
        }
    }

    /// `Some((a, b))` if it is `a * x + b`.
    pub fn as_affine(&self) -> Option<(f64, f64)> {
        match self {
            Unary::X => Some((1.0, 0.0)),
            Unary::Constant(c) => Some((0.0, *c)),
            Unary::Call(Function::Neg, a) => a.as_affine().map(|(a, b)| (-a, -b)),
            Unary::Call(..) => None,
            Unary::Call2(function, a, b) => {
                let ((a, b), (c, d)) = (a.as_affine()?, b.as_affine()?);
                match function {
                    Function2::Add => Some((a + c, b + d)),
                    Function2::Sub => Some((a - c, b - d)),
                    Function2::Mul if a == 0.0 => Some((b * c, b * d)),
                    Function2::Mul if c == 0.0 => Some((a * d, b * d)),
                    Function2::Div if c == 0.0 => Some((a / d, b / d)),
                    _ => None,
                }
            }
        }
    }
}

impl Function {
    /// The value at `x`, in f64.
    pub fn at(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
        let softplus = |x: f64| if x > 30.0 { x } else { libm::log1p(libm::exp(x)) };
        match self {
            Function::Relu => x.max(0.0),
            Function::LeakyRelu(alpha) => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Function::Sigmoid => sigmoid(x),
            Function::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Function::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Function::Tanh => libm::tanh(x),
            Function::Elu(alpha) => {
                if x < 0.0 {
                    alpha * libm::expm1(x)
                } else {
                    x
                }
            }
            Function::Celu(alpha) => x.max(0.0) + (alpha * libm::expm1(x / alpha)).min(0.0),
            Function::Selu(alpha, gamma) => gamma * if x > 0.0 { x } else { alpha * libm::expm1(x) },
            Function::ThresholdedRelu(alpha) => {
                if x > alpha {
                    x
                } else {
                    0.0
                }
            }
            Function::Softplus => softplus(x),
            Function::Softsign => x / (1.0 + x.abs()),
            Function::Gelu => 0.5 * x * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2)),
            Function::GeluTanh => {
                let inner = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + libm::tanh(inner))
            }
            Function::Mish => x * libm::tanh(softplus(x)),
            Function::Erf => libm::erf(x),
            Function::Exp => libm::exp(x),
            Function::Log => libm::log(x),
            Function::Sqrt => libm::sqrt(x),
            Function::Reciprocal => 1.0 / x,
            Function::Abs => x.abs(),
            Function::Neg => -x,
            Function::Sign => {
                if x == 0.0 {
                    0.0
                } else {
                    x.signum()
                }
            }
            Function::Floor => x.floor(),
            Function::Ceil => x.ceil(),
            Function::Round => x.round_ties_even(),
            Function::Sin => libm::sin(x),
            Function::Cos => libm::cos(x),
            Function::Clip(low, high) => x.max(low).min(high),
        }
    }
}

impl Function2 {
    /// The value at `(a, b)`, in f64.
    pub fn at(self, a: f64, b: f64) -> f64 {
        match self {
            Function2::Add => a + b,
            Function2::Sub => a - b,
            Function2::Mul => a * b,
            Function2::Div => a / b,
            Function2::Min => a.min(b),
            Function2::Max => a.max(b),
            Function2::Pow => libm::pow(a, b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of2(function: Function2, a: Unary, b: f64) -> Unary {
        Unary::call2(function, a, Unary::Constant(b))
    }

    #[test]
    fn a_decomposed_hard_swish_equals_the_operator() {
        let gate = of2(Function2::Add, Unary::X, 3.0).call(Function::Clip(0.0, 6.0));
        let swish = of2(Function2::Div, Unary::call2(Function2::Mul, Unary::X, gate), 6.0);
        for x in [-4.0, -1.5, 0.0, 2.0, 5.0] {
            assert!((swish.at(x) - Function::HardSwish.at(x)).abs() < 1e-12, "at {x}");
        }
        assert_eq!(swish.as_clamp(), None);
        assert_eq!(swish.as_affine(), None);
    }

    #[test]
    fn clamps_are_found_in_every_spelling() {
        let infinity = f64::INFINITY;
        assert_eq!(Unary::X.call(Function::Relu).as_clamp(), Some((0.0, infinity)));
        assert_eq!(of2(Function2::Min, Unary::X.call(Function::Relu), 6.0).as_clamp(), Some((0.0, 6.0)));
        assert_eq!(of2(Function2::Max, Unary::X, -1.0).as_clamp(), Some((-1.0, infinity)));
        assert_eq!(Unary::X.call(Function::Sigmoid).as_clamp(), None);
        assert_eq!(of2(Function2::Mul, Unary::X, 2.0).call(Function::Relu).as_clamp(), None);
    }

    #[test]
    fn affine_functions_are_found() {
        let f = of2(Function2::Div, of2(Function2::Sub, Unary::X, 127.5), 2.0);
        assert_eq!(f.as_affine(), Some((0.5, -63.75)));
        assert_eq!(Unary::call2(Function2::Mul, Unary::X, Unary::X).as_affine(), None);
    }
}
