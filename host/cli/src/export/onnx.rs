//! A head as an ONNX graph: `embedding` int8 `[N, D]` in, `scores` f32 `[N, C]` and `label` i64 `[N]` out.
//!
//! Plain operators of opset 13. `label` is an index into the metadata's `labels`; ties go to the smaller one, as on a
//! board. Scores are f32 here and f64 there, so labels can differ where the two best scores lie within 1e-5.
//!
//! Field numbers: github.com/onnx/onnx, `onnx/onnx.proto`.

use super::Exported;
use super::protobuf::Message;

const IR_VERSION: u64 = 8;
const OPSET: u64 = 13;

/// Element types of `TensorProto.DataType`.
const FLOAT: u64 = 1;
const INT8: u64 = 3;
const INT64: u64 = 7;

/// A score length of zero, an input on the centre, is divided by this instead: 0 / tiny is 0.
const LENGTH_MIN: f32 = 1e-30;

/// The bytes of the file.
pub fn onnx(head: &Exported<'_>) -> Vec<u8> {
    let (n_classes, d) = (head.n_classes, head.embedding_len);
    let transposed = (0..d).flat_map(|i| head.matrix.iter().skip(i).step_by(d.max(1)).copied());
    let mut initializers = vec![
        tensor("matrix", &[d, n_classes], transposed),
        tensor("offsets", &[n_classes], head.offsets.iter().map(|value| *value as f32)),
    ];
    let mut nodes = vec![node("Cast", &["embedding"], "x", [integer("to", FLOAT)])];
    let mut query = "x";
    if let Some(centre) = head.centre {
        initializers.push(tensor("centre", &[d], centre.iter().map(|value| *value as f32)));
        initializers.push(tensor("length_min", &[], [LENGTH_MIN]));
        let over_components = [integers("axes", &[1]), integer("keepdims", 1)];
        nodes.extend([
            node("Sub", &["x", "centre"], "centred", []),
            node("ReduceL2", &["centred"], "length_or_zero", over_components),
            node("Max", &["length_or_zero", "length_min"], "length", []),
            node("Div", &["centred", "length"], "unit", []),
        ]);
        query = "unit";
    }
    nodes.extend([
        node("MatMul", &[query, "matrix"], "products", []),
        node("Add", &["products", "offsets"], "scores", []),
        node("ArgMax", &["scores"], "label", [integer("axis", 1), integer("keepdims", 0)]),
    ]);
    let graph = Message::default()
        .messages(1, nodes)
        .bytes(2, "graft_head")
        .messages(5, initializers)
        .message(11, &value("embedding", INT8, &[None, Some(d)]))
        .message(12, &value("label", INT64, &[None]))
        .message(12, &value("scores", FLOAT, &[None, Some(n_classes)]));
    let metadata = head.metadata.iter().map(|(key, text)| Message::default().bytes(1, key).bytes(2, text));
    Message::default()
        .number(1, IR_VERSION)
        .bytes(2, "graft")
        .bytes(3, env!("CARGO_PKG_VERSION"))
        .message(7, &graph)
        .message(8, &Message::default().bytes(1, "").number(2, OPSET))
        .messages(14, metadata)
        .0
}

/// `NodeProto` with one output.
fn node<const N: usize>(op: &str, inputs: &[&str], output: &str, attributes: [Message; N]) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
    node.bytes(2, output).bytes(3, output).bytes(4, op).messages(5, attributes)
}

/// `AttributeProto` of one whole number.
fn integer(name: &str, value: u64) -> Message {
    Message::default().bytes(1, name).number(3, value).number(20, 2)
}

/// `AttributeProto` of a list of them.
fn integers(name: &str, values: &[u64]) -> Message {
    let attribute = Message::default().bytes(1, name);
    values.iter().fold(attribute, |attribute, value| attribute.number(8, *value)).number(20, 7)
}

/// `TensorProto` of f32.
fn tensor(name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Message {
    let raw: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    let tensor = shape.iter().fold(Message::default(), |tensor, side| tensor.number(1, *side as u64));
    tensor.number(2, FLOAT).bytes(8, name).bytes(9, raw)
}

/// `ValueInfoProto`; a side of None is `N`.
fn value(name: &str, element: u64, shape: &[Option<usize>]) -> Message {
    let dims = shape.iter().map(|side| match side {
        Some(side) => Message::default().number(1, *side as u64),
        None => Message::default().bytes(2, "N"),
    });
    let tensor = Message::default().number(1, element).message(2, &Message::default().messages(1, dims));
    Message::default().bytes(1, name).message(2, &Message::default().message(1, &tensor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_wire::message::HeadChoice;

    fn has(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn each_form_has_its_operators_and_the_labels() {
        let (ncm, ridge) = (super::super::tests::head(HeadChoice::Ncm), super::super::tests::head(HeadChoice::Ridge));
        let (cosine, linear) =
            (onnx(&Exported::of(&ncm, "ncm").unwrap()), onnx(&Exported::of(&ridge, "ridge").unwrap()));
        for bytes in [&cosine, &linear] {
            assert!(has(bytes, "MatMul") && has(bytes, "ArgMax") && has(bytes, r#"["a \"b\"","ü"]"#));
        }
        assert!(has(&cosine, "ReduceL2") && !has(&linear, "ReduceL2"));
    }

    #[test]
    fn linear_heads_are_exported_and_others_are_not() {
        for (choice, linear) in
            [(HeadChoice::Lda, true), (HeadChoice::Logistic, true), (HeadChoice::Knn, false), (HeadChoice::Rp, false)]
        {
            let head = super::super::tests::head(choice);
            let exported = Exported::of(&head, "");
            assert_eq!(exported.is_some(), linear, "{choice:?}");
            assert!(exported.is_none_or(|exported| exported.centre.is_none()));
        }
    }

    #[test]
    fn a_tensor_of_no_shape_is_a_scalar() {
        assert_eq!(tensor("x", &[], [1.0]).0, [16, 1, 66, 1, b'x', 74, 4, 0, 0, 0x80, 0x3f]);
    }
}
