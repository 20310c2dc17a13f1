//! An ONNX graph under construction: nodes, constants, inputs and outputs in plain calls.
//!
//! Field numbers: github.com/onnx/onnx, `onnx/onnx.proto`.

use super::protobuf::Message;

const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;
/// A length of zero is divided by this instead: 0 / tiny is 0.
const LENGTH_MIN: f32 = 1e-30;

/// Element types of `TensorProto.DataType`.
#[derive(Clone, Copy)]
pub enum Element {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    I32 = 6,
    I64 = 7,
}

/// Nodes in execution order with what they read.
#[derive(Default)]
pub struct OnnxGraph {
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
}

impl OnnxGraph {
    /// A node of one output; attributes as [`integer`] and its kin make them.
    pub fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: impl IntoIterator<Item = Message>) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
        self.nodes.push(node.bytes(2, output).bytes(3, output).bytes(4, op).messages(5, attributes));
    }

    /// Nodes that scale each row of `from` `[N, D]` to length 1; a row of zeros stays.
    pub fn unit_rows(&mut self, from: &str, to: &str) {
        let [zero_or_more, least, length] =
            ["length_or_zero", "length_min", "length"].map(|what| format!("{to}_{what}"));
        self.f32s(&least, &[], [LENGTH_MIN]);
        self.node("ReduceL2", &[from], &zero_or_more, [integers("axes", [1]), integer("keepdims", 1)]);
        self.node("Max", &[&zero_or_more, &least], &length, []);
        self.node("Div", &[from, &length], to, []);
    }

    /// An f32 constant.
    pub fn f32s(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) {
        self.constant(name, Element::F32, shape, values.into_iter().flat_map(f32::to_le_bytes).collect());
    }

    /// An int8 constant.
    pub fn i8s(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = i8>) {
        self.constant(name, Element::I8, shape, values.into_iter().map(|value| value as u8).collect());
    }

    /// A uint8 constant.
    pub fn u8s(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = u8>) {
        self.constant(name, Element::U8, shape, values.into_iter().collect());
    }

    /// An int32 constant.
    pub fn i32s(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = i32>) {
        self.constant(name, Element::I32, shape, values.into_iter().flat_map(i32::to_le_bytes).collect());
    }

    /// An int64 constant with one axis.
    pub fn i64s(&mut self, name: &str, values: &[i64]) {
        self.constant(name, Element::I64, &[values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    /// An input; the batch axis comes first by itself.
    pub fn input(&mut self, name: &str, element: Element, shape: &[usize]) {
        self.inputs.push(value(name, element, shape));
    }

    /// An output, like an input.
    pub fn output(&mut self, name: &str, element: Element, shape: &[usize]) {
        self.outputs.push(value(name, element, shape));
    }

    /// The bytes of the file.
    pub fn finish(self, name: &str, metadata: &[(&str, String)]) -> Vec<u8> {
        let graph = Message::default()
            .messages(1, self.nodes)
            .bytes(2, name)
            .messages(5, self.initializers)
            .messages(11, self.inputs)
            .messages(12, self.outputs);
        let metadata = metadata.iter().map(|(key, text)| Message::default().bytes(1, key).bytes(2, text));
        Message::default()
            .number(1, IR_VERSION)
            .bytes(2, "graft")
            .bytes(3, env!("CARGO_PKG_VERSION"))
            .message(7, &graph)
            .message(8, &Message::default().bytes(1, "").number(2, OPSET))
            .messages(14, metadata)
            .0
    }

    fn constant(&mut self, name: &str, element: Element, shape: &[usize], raw: Vec<u8>) {
        self.initializers.push(tensor(name, element, shape, &raw));
    }
}

/// `AttributeProto` of one whole number.
pub fn integer(name: &str, value: u64) -> Message {
    Message::default().bytes(1, name).number(3, value).number(20, 2)
}

/// `AttributeProto` of a list of them.
pub fn integers(name: &str, values: impl IntoIterator<Item = u64>) -> Message {
    let attribute = Message::default().bytes(1, name);
    values.into_iter().fold(attribute, |attribute, value| attribute.number(8, value)).number(20, 7)
}

/// `AttributeProto` of a text.
pub fn text(name: &str, value: &str) -> Message {
    Message::default().bytes(1, name).bytes(4, value).number(20, 3)
}

/// `TensorProto`.
fn tensor(name: &str, element: Element, shape: &[usize], raw: &[u8]) -> Message {
    let tensor = shape.iter().fold(Message::default(), |tensor, side| tensor.number(1, *side as u64));
    tensor.number(2, element as u64).bytes(8, name).bytes(9, raw)
}

/// `ValueInfoProto` with `N` as first axis.
fn value(name: &str, element: Element, shape: &[usize]) -> Message {
    let sides = shape.iter().map(|side| Message::default().number(1, *side as u64));
    let dims = std::iter::once(Message::default().bytes(2, "N")).chain(sides);
    let tensor = Message::default().number(1, element as u64).message(2, &Message::default().messages(1, dims));
    Message::default().bytes(1, name).message(2, &Message::default().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_of_no_shape_is_a_scalar() {
        let scalar = tensor("x", Element::F32, &[], &1f32.to_le_bytes());
        assert_eq!(scalar.0, [16, 1, 66, 1, b'x', 74, 4, 0, 0, 0x80, 0x3f]);
    }
}
