//! Tiny ONNX models for tests, built in code.

use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto,
};

/// A graph under construction.
#[derive(Default)]
pub struct Build {
    graph: GraphProto,
    seed: u32,
}

impl Build {
    /// With one float input of the given shape; 0 stands for a symbol.
    pub fn new(input: &str, shape: &[i64]) -> Build {
        let mut build = Build { seed: 7, ..Build::default() };
        build.graph.input.push(value(input, shape, 1));
        build
    }

    /// Another input.
    pub fn input(mut self, name: &str, shape: &[i64], element_type: i32) -> Build {
        self.graph.input.push(value(name, shape, element_type));
        self
    }

    /// A constant of floats.
    pub fn floats(mut self, name: &str, dims: &[i64], values: &[f32]) -> Build {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            dims: dims.to_vec(),
            data_type: 1,
            raw_data,
            ..Default::default()
        });
        self
    }

    /// A constant of seeded floats in -1..1.
    pub fn random(mut self, name: &str, dims: &[i64]) -> Build {
        let n: i64 = dims.iter().product();
        self.seed = self.seed.wrapping_add(1);
        let values: Vec<f32> = graft_bundle::manifest::seeded_bytes(self.seed)
            .take(n as usize)
            .map(|b| f32::from(b as i8) / 128.0)
            .collect();
        self.floats(name, dims, &values)
    }

    /// A constant of integers.
    pub fn ints(mut self, name: &str, values: &[i64]) -> Build {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = vec![values.len() as i64];
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            dims,
            data_type: 7,
            raw_data,
            ..Default::default()
        });
        self
    }

    /// A constant of bytes, uint8 (2) or int8 (3).
    pub fn bytes(mut self, name: &str, dims: &[i64], data_type: i32, raw_data: &[u8]) -> Build {
        let (dims, raw_data) = (dims.to_vec(), raw_data.to_vec());
        self.graph.initializer.push(TensorProto { name: name.into(), dims, data_type, raw_data, ..Default::default() });
        self
    }

    /// A node named after its output.
    pub fn node(self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Build {
        self.node_of(op, inputs, &[output], attributes)
    }

    /// A node of several outputs.
    pub fn node_of(mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> Build {
        let attribute = attributes.iter().map(|(name, a)| a.proto(name)).collect();
        self.graph.node.push(NodeProto {
            name: format!("n_{}", outputs[0]),
            op_type: op.into(),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: outputs.iter().map(|s| s.to_string()).collect(),
            attribute,
            ..Default::default()
        });
        self
    }

    #[allow(clippy::too_many_arguments)]
    /// A convolution with seeded weights, padding of `kernel / 2` and a bias.
    pub fn conv(
        self,
        input: &str,
        output: &str,
        in_c: i64,
        out_c: i64,
        kernel: i64,
        stride: i64,
        groups: i64,
    ) -> Build {
        let (w, b) = (format!("{output}_w"), format!("{output}_b"));
        let pad = kernel / 2;
        self.random(&w, &[out_c, in_c / groups, kernel, kernel]).random(&b, &[out_c]).node(
            "Conv",
            &[input, &w, &b],
            output,
            &[
                ("strides", Attribute::Ints(vec![stride; 2])),
                ("pads", Attribute::Ints(vec![pad; 4])),
                ("group", Attribute::Int(groups)),
            ],
        )
    }

    /// The model with its outputs.
    pub fn model(mut self, outputs: &[&str]) -> ModelProto {
        self.graph.output =
            outputs.iter().map(|o| ValueInfoProto { name: o.to_string(), ..Default::default() }).collect();
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            graph: Some(self.graph),
            ..Default::default()
        }
    }
}

/// An attribute's value.
#[derive(Clone)]
pub enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Text(&'static str),
}

impl Attribute {
    fn proto(&self, name: &str) -> AttributeProto {
        let base = AttributeProto { name: name.into(), ..Default::default() };
        match self.clone() {
            Attribute::Int(i) => AttributeProto { i, r#type: 2, ..base },
            Attribute::Ints(ints) => AttributeProto { ints, r#type: 7, ..base },
            Attribute::Text(s) => AttributeProto { s: s.into(), r#type: 3, ..base },
        }
    }
}

fn value(name: &str, shape: &[i64], elem_type: i32) -> ValueInfoProto {
    use tensor_shape_proto::dimension::Value;
    let dimension = |d: &i64| tensor_shape_proto::Dimension {
        value: Some(if *d == 0 { Value::DimParam("N".into()) } else { Value::DimValue(*d) }),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let r#type =
        TypeProto { value: Some(TypeValue::TensorType(TensorType { elem_type, shape })), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}
