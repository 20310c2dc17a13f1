//! Resize and Upsample, by any factor.

use super::*;

#[test]
fn enlarging_by_nearest_pixels_agrees() {
    let model = Build::new("x", &[0, 3, 4, 4])
        .conv("x", "a", 3, 6, 3, 1, 1)
        .floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0])
        .node(
            "Resize",
            &["a", "", "scales"],
            "up",
            &[
                ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
                ("nearest_mode", Attribute::Text("floor")),
            ],
        )
        .conv("up", "b", 6, 4, 3, 2, 1)
        .model(&["b"]);
    let report = agrees("resize", model, &[3, 4, 4], "b");
    assert!(ops(&report).contains(&"Upsample"));
}

/// `[n, 4, 5]` pictures of six channels, resized to `[9, 7]`.
fn resized(attributes: &[(&'static str, &'static str)]) -> Report {
    let attributes: Vec<(&str, Attribute)> =
        attributes.iter().map(|(name, text)| (*name, Attribute::Text(text))).collect();
    let model = Build::new("x", &[0, 3, 4, 5])
        .conv("x", "a", 3, 6, 3, 1, 1)
        .ints("sizes", &[1, 6, 9, 7])
        .node("Resize", &["a", "", "", "sizes"], "large", &attributes)
        .conv("large", "b", 6, 4, 3, 2, 1)
        .model(&["b"]);
    agrees(&format!("resize-{}", attributes.len()), model, &[3, 4, 5], "b")
}

#[test]
fn resizing_by_any_factor_agrees() {
    for places in ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric"] {
        let linear = resized(&[("mode", "linear"), ("coordinate_transformation_mode", places)]);
        assert!(ops(&linear).contains(&"Resize"), "{places}");
        for rounding in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] {
            resized(&[("nearest_mode", rounding), ("coordinate_transformation_mode", places)]);
        }
    }
    let smaller = Build::new("x", &[0, 3, 9, 8])
        .conv("x", "a", 3, 6, 3, 1, 1)
        .floats("scales", &[4], &[1.0, 1.0, 0.6, 0.5])
        .node("Resize", &["a", "", "scales"], "small", &[("mode", Attribute::Text("linear"))])
        .conv("small", "b", 6, 4, 3, 1, 1)
        .model(&["b"]);
    agrees("smaller", smaller, &[3, 9, 8], "b");
}

#[test]
fn nearest_pixels_at_whole_places_are_those_of_runtimes() {
    // In real numbers these scales give whole places; in f32 some of them fall short.
    for (scale, places, rounding) in [
        (0.2, "asymmetric", "floor"),
        (1.0 / 3.0, "asymmetric", "floor"),
        (0.6, "asymmetric", "floor"),
        (1.2, "asymmetric", "floor"),
        (0.7, "half_pixel", "round_prefer_floor"),
        (0.6, "half_pixel_symmetric", "ceil"),
    ] {
        let attributes =
            [("nearest_mode", Attribute::Text(rounding)), ("coordinate_transformation_mode", Attribute::Text(places))];
        let model = Build::new("x", &[0, 3, 2, 20])
            .conv("x", "a", 3, 6, 1, 1, 1)
            .floats("scales", &[4], &[1.0, 1.0, 1.0, scale])
            .node("Resize", &["a", "", "scales"], "r", &attributes)
            .node("Flatten", &["r"], "y", &[])
            .model(&["y"]);
        let report = report_of("whole-places", &model, &[3, 2, 20], "y").unwrap();
        assert!(report.cosine_min.unwrap() > 0.998, "{scale} {places}: {:?}", report.cosine_min);
    }
}

#[test]
fn upsample_of_old_models_agrees() {
    for mode in ["nearest", "linear"] {
        let mut model = Build::new("x", &[0, 3, 4, 5])
            .conv("x", "a", 3, 6, 3, 1, 1)
            .floats("scales", &[4], &[1.0, 1.0, 2.0, 3.0])
            .node("Upsample", &["a", "scales"], "large", &[("mode", Attribute::Text(mode))])
            .conv("large", "b", 6, 4, 3, 2, 1)
            .model(&["b"]);
        model.opset_import[0].version = 9;
        let report = agrees("upsample9", model.clone(), &[3, 4, 5], "b");
        assert!(ops(&report).contains(if mode == "nearest" { &"Upsample" } else { &"Resize" }));
        // Opset 7 has the scales in an attribute.
        model.opset_import[0].version = 7;
        let node = model.graph.as_mut().unwrap().node.iter_mut().find(|n| n.op_type == "Upsample").unwrap();
        node.input.pop();
        node.attribute.push(tract_onnx::pb::AttributeProto {
            name: "scales".into(),
            r#type: 6,
            floats: vec![1.0, 1.0, 2.0, 3.0],
            ..Default::default()
        });
        agrees("upsample7", model, &[3, 4, 5], "b");
    }
}
