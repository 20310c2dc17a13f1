//! A head as an ONNX graph: `embedding` int8 `[N, D]` in, `scores` f32 `[N, C]` and `label` i64 `[N]` out.
//!
//! Plain operators of opset 13. `label` is an index into the metadata's `labels`; ties go to the smaller one, as on a
//! board. Scores are f32 here and f64 there, so labels can differ where the two best scores lie within 1e-5.

use super::Exported;
use super::onnx_graph::{Element, OnnxGraph, integer};

/// The bytes of the file.
pub fn onnx(head: &Exported<'_>) -> Vec<u8> {
    let mut graph = OnnxGraph::default();
    graph.input("embedding", Element::I8, &[head.embedding_len]);
    graph.node("Cast", &["embedding"], "x", [integer("to", Element::F32 as u64)]);
    add_head(&mut graph, head, "x");
    graph.finish("graft_head", &head.metadata)
}

/// Adds the head on the embeddings `x`, f32 whole numbers `[N, D]`, with the outputs `label` and `scores`.
pub(super) fn add_head(graph: &mut OnnxGraph, head: &Exported<'_>, x: &str) {
    let (n_classes, d) = (head.n_classes, head.embedding_len);
    let mut query = x;
    if let Some(centre) = head.centre {
        graph.f32s("centre", &[d], centre.iter().map(|value| *value as f32));
        graph.node("Sub", &[x, "centre"], "centred", []);
        graph.unit_rows("centred", "unit");
        query = "unit";
    }
    let transposed = (0..d).flat_map(|i| head.matrix.iter().skip(i).step_by(d.max(1)).copied());
    graph.f32s("matrix", &[d, n_classes], transposed);
    graph.f32s("offsets", &[n_classes], head.offsets.iter().map(|value| *value as f32));
    graph.node("MatMul", &[query, "matrix"], "products", []);
    graph.node("Add", &["products", "offsets"], "scores", []);
    graph.node("ArgMax", &["scores"], "label", [integer("axis", 1), integer("keepdims", 0)]);
    graph.output("label", Element::I64, &[]);
    graph.output("scores", Element::F32, &[n_classes]);
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
}
