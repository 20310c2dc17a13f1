//! Products of two activations, and softmax.

use super::*;

#[test]
fn attention_runs_on_products_of_activations() {
    let heads: &[(&str, Attribute)] = &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
    let keys: &[(&str, Attribute)] = &[("perm", Attribute::Ints(vec![0, 2, 3, 1]))];
    let mut build = Build::new("x", &[0, 6, 8]).ints("split", &[1, 6, 2, 4]).ints("joined", &[1, 6, 8]);
    for (name, perm) in [("q", heads), ("k", keys), ("v", heads)] {
        let [weights, projected, split] = ["w", "p", "s"].map(|what| format!("{name}_{what}"));
        build = build
            .random(&weights, &[8, 8])
            .node("MatMul", &["x", &weights], &projected, &[])
            .node("Reshape", &[&projected, "split"], &split, &[])
            .node("Transpose", &[&split], name, perm);
    }
    let model = build
        .node("MatMul", &["q", "k"], "scores", &[])
        .floats("half", &[], &[0.5])
        .node("Mul", &["scores", "half"], "scaled", &[])
        .node("Softmax", &["scaled"], "weights", &[])
        .node("MatMul", &["weights", "v"], "seen", &[])
        .node("Transpose", &["seen"], "turned", heads)
        .node("Reshape", &["turned", "joined"], "y", &[])
        .node("ReduceMean", &["y"], "mean", &[("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(0))])
        .model(&["mean"]);
    let report = agrees("attention", model, &[6, 8], "mean");
    let count = |op: &str| ops(&report).iter().filter(|o| **o == op).count();
    assert_eq!((count("MatMul"), count("FloatSoftmax"), count("Conv")), (2, 1, 3), "{:?}", ops(&report));
}

#[test]
fn one_second_factor_serves_all_matrices_of_the_first() {
    let model = Build::new("x", &[0, 3, 4, 4])
        .conv("x", "a", 3, 5, 3, 1, 1)
        .conv("x", "b", 3, 4, 1, 1, 1)
        .node("ReduceMean", &["b"], "second", &[("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(0))])
        .node("MatMul", &["a", "second"], "product", &[])
        .node("GlobalAveragePool", &["product"], "y", &[])
        .model(&["y"]);
    let refused = report_of("second", &model, &[3, 4, 4], "y");
    assert!(refused.is_err(), "a mean over channels is refused: {refused:?}");
    let model = Build::new("x", &[0, 3, 4, 4])
        .conv("x", "a", 3, 5, 3, 1, 1)
        .conv("x", "b", 3, 1, 1, 1, 1)
        .ints("matrix", &[4, 4])
        .node("Reshape", &["b", "matrix"], "second", &[])
        .node("MatMul", &["a", "second"], "product", &[])
        .node("GlobalAveragePool", &["product"], "y", &[])
        .model(&["y"]);
    let report = agrees("second", model, &[3, 4, 4], "y");
    assert!(ops(&report).contains(&"MatMul"));
}

#[test]
fn softmax_runs_along_any_axis() {
    for axis in [1, 2, 3, -1] {
        let model = Build::new("x", &[0, 3, 4, 5])
            .conv("x", "a", 3, 6, 3, 1, 1)
            .node("Softmax", &["a"], "s", &[("axis", Attribute::Int(axis))])
            .conv("s", "b", 6, 4, 3, 2, 1)
            .model(&["b"]);
        agrees(&format!("softmax{axis}"), model, &[3, 4, 5], "b");
    }
    for axis in [1, 2] {
        let first = Build::new("x", &[0, 3, 4, 5])
            .node("Softmax", &["x"], "s", &[("axis", Attribute::Int(axis))])
            .conv("s", "b", 3, 4, 3, 2, 1)
            .model(&["b"]);
        agrees("softmax-first", first, &[3, 4, 5], "b");
    }
    // Before opset 13: over all that follows the batch.
    let mut model = Build::new("x", &[0, 3, 4, 5])
        .conv("x", "a", 3, 6, 3, 1, 1)
        .node("Softmax", &["a"], "s", &[])
        .conv("s", "b", 6, 4, 3, 2, 1)
        .model(&["b"]);
    model.opset_import[0].version = 11;
    agrees("softmax-old", model, &[3, 4, 5], "b");
}
