//! Attributes of ONNX nodes, and constants as numbers.

use tract_onnx::pb::{AttributeProto, NodeProto};
use tract_onnx::prelude::{DatumType, Tensor};

/// An integer attribute to be written.
pub fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 2, i, ..Default::default() }
}

/// A list of integers to be written.
pub fn integers(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 7, ints, ..Default::default() }
}

/// A text to be written.
pub fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 3, s: text.into(), ..Default::default() }
}

/// Integer attribute.
pub fn int(node: &NodeProto, name: &str, otherwise: i64) -> i64 {
    node.attribute.iter().find(|a| a.name == name).map_or(otherwise, |a| a.i)
}

/// Float attribute.
pub fn float(node: &NodeProto, name: &str, otherwise: f64) -> f64 {
    node.attribute.iter().find(|a| a.name == name).map_or(otherwise, |a| a.f.into())
}

/// Integer list attribute; None if absent.
pub fn ints<'a>(node: &'a NodeProto, name: &str) -> Option<&'a [i64]> {
    node.attribute.iter().find(|a| a.name == name).map(|a| &a.ints[..])
}

/// String attribute.
pub fn string(node: &NodeProto, name: &str, otherwise: &str) -> String {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.map_or(otherwise.into(), |a| String::from_utf8_lossy(&a.s).into_owned())
}

/// Values of a constant as f32, in ONNX order.
pub fn floats_of(tensor: &Tensor) -> Option<Vec<f32>> {
    let cast = tensor.cast_to_dt(DatumType::F32).ok()?;
    Some(cast.to_plain_array_view::<f32>().ok()?.iter().copied().collect())
}

/// Values of a constant as i64, in ONNX order.
pub fn ints_of(tensor: &Tensor) -> Option<Vec<i64>> {
    let cast = tensor.cast_to_dt(DatumType::I64).ok()?;
    Some(cast.to_plain_array_view::<i64>().ok()?.iter().copied().collect())
}

/// An axis that may be counted from the end.
pub fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}
