//! Writes the network as ONNX, with the sigmoid in the graph, so that any engine gives maps.
//!
//! Input `image` `[1, 1, H, W]` f32, output `maps` `[1, 12, H/2, W/2]` f32 in 0..1, where H and
//! W are symbolic multiples of 16. Opset 13, which every runtime of the last years reads.

use burn::nn::conv::Conv2d;
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::type_proto;

use super::net::{MAPS, Net};

/// Weights could not be read out of the network.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the weights of {layer} as f32: {reason}")]
pub struct ExportError {
    layer: String,
    reason: String,
}

/// The bytes of `model.onnx`.
///
/// # Errors
/// When a weight is not f32.
pub fn onnx_bytes(net: &Net) -> Result<Vec<u8>, ExportError> {
    let mut graph = Graph::default();
    let stem = graph.conv("stem", "image", &net.stem)?;
    let stem = graph.relu(&stem);
    let mut down = Vec::new();
    let mut current = stem.clone();
    for (depth, level) in net.levels.iter().enumerate() {
        let pooled = graph.max_pool(&current);
        let entered = graph.conv(&format!("level{depth}.enter"), &pooled, &level.enter)?;
        let entered = graph.relu(&entered);
        let refined = graph.conv(&format!("level{depth}.refine"), &entered, &level.refine)?;
        let summed = graph.add(&entered, &refined);
        current = graph.relu(&summed);
        down.push(current.clone());
    }
    down.pop();
    for (step, rise) in net.rises.iter().enumerate() {
        let finer = down.pop().expect("one level for each rise, by construction");
        let squeezed = graph.conv(&format!("rise{step}.squeeze"), &current, &rise.squeeze)?;
        let doubled = graph.doubled(&squeezed);
        let summed = graph.add(&doubled, &finer);
        let merged = graph.conv(&format!("rise{step}.merge"), &summed, &rise.merge)?;
        current = graph.relu(&merged);
    }
    let squeezed = graph.conv("squeeze", &current, &net.squeeze)?;
    let doubled = graph.doubled(&squeezed);
    let summed = graph.add(&doubled, &stem);
    let full = graph.relu(&summed);
    let logits = graph.conv("head", &full, &net.head)?;
    graph.node("Sigmoid", &[&logits], "maps", vec![]);
    Ok(graph.into_model().encode_to_vec())
}

#[derive(Default)]
struct Graph {
    nodes: Vec<pb::NodeProto>,
    weights: Vec<pb::TensorProto>,
}

impl Graph {
    fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<pb::AttributeProto>,
    ) -> String {
        self.nodes.push(pb::NodeProto {
            op_type: operator.into(),
            name: output.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..Default::default()
        });
        output.into()
    }

    /// A name no other node has.
    fn fresh(&self, operator: &str) -> String {
        format!("{operator}{}", self.nodes.len())
    }

    fn conv(&mut self, name: &str, input: &str, conv: &Conv2d) -> Result<String, ExportError> {
        let weight = format!("{name}.weight");
        let read = |data: burn::tensor::TensorData, layer: &str| {
            data.try_to_vec::<f32>()
                .map_err(|error| ExportError { layer: layer.into(), reason: format!("{error:?}") })
        };
        let shape = conv.weight.val().dims();
        let values = read(conv.weight.val().into_data(), &weight)?;
        self.weights.push(tensor(&weight, &shape, &values));
        let mut inputs = vec![input.to_owned(), weight];
        if let Some(bias) = &conv.bias {
            let name = format!("{name}.bias");
            let values = read(bias.val().into_data(), &name)?;
            self.weights.push(tensor(&name, &[values.len()], &values));
            inputs.push(name);
        }
        let padding = (conv.kernel_size[0] - conv.stride[0]) / 2;
        let padding = if conv.stride[0] == 1 { conv.kernel_size[0] / 2 } else { padding };
        let attributes = vec![
            integers("kernel_shape", &conv.kernel_size),
            integers("strides", &conv.stride),
            integers("pads", &[padding; 4]),
        ];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.node("Conv", &inputs, name, attributes))
    }

    fn relu(&mut self, input: &str) -> String {
        let name = self.fresh("relu");
        self.node("Relu", &[input], &name, vec![])
    }

    fn add(&mut self, left: &str, right: &str) -> String {
        let name = self.fresh("add");
        self.node("Add", &[left, right], &name, vec![])
    }

    fn max_pool(&mut self, input: &str) -> String {
        let name = self.fresh("pool");
        let attributes = vec![integers("kernel_shape", &[2, 2]), integers("strides", &[2, 2])];
        self.node("MaxPool", &[input], &name, attributes)
    }

    fn doubled(&mut self, input: &str) -> String {
        if !self.weights.iter().any(|weight| weight.name == "doubling") {
            self.weights.push(tensor("doubling", &[4], &[1.0, 1.0, 2.0, 2.0]));
        }
        let name = self.fresh("resize");
        let attributes = vec![
            text("mode", "nearest"),
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", "floor"),
        ];
        self.node("Resize", &[input, "", "doubling"], &name, attributes)
    }

    fn into_model(self) -> pb::ModelProto {
        pb::ModelProto {
            ir_version: 7,
            producer_name: "reticle".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 13 }],
            graph: Some(pb::GraphProto {
                name: "segmenter".into(),
                node: self.nodes,
                initializer: self.weights,
                input: vec![value(
                    "image",
                    [Size::Fixed(1), Size::Fixed(1), Size::Named("height"), Size::Named("width")],
                )],
                output: vec![value(
                    "maps",
                    [
                        Size::Fixed(1),
                        Size::Fixed(4 * MAPS),
                        Size::Named("half_height"),
                        Size::Named("half_width"),
                    ],
                )],
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn tensor(name: &str, shape: &[usize], values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.into(),
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..Default::default()
    }
}

fn integers(name: &str, values: &[usize]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.iter().map(|&value| value as i64).collect(),
        ..Default::default()
    }
}

fn text(name: &str, value: &str) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.as_bytes().to_vec(),
        ..Default::default()
    }
}

enum Size {
    Fixed(usize),
    Named(&'static str),
}

fn value(name: &str, shape: [Size; 4]) -> pb::ValueInfoProto {
    let dim = shape
        .into_iter()
        .map(|size| Dimension {
            value: Some(match size {
                Size::Fixed(size) => DimensionValue::DimValue(size as i64),
                Size::Named(name) => DimensionValue::DimParam(name.into()),
            }),
            ..Default::default()
        })
        .collect();
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(pb::TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}
