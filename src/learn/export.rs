//! Writes the network as ONNX, with the sigmoid in the graph, so that any engine gives maps.
//!
//! Input `image` `[1, 1, H, W]` f32, output `maps` `[1, 12, H/2, W/2]` f32 in 0..1, where H and
//! W are symbolic multiples of 16. Opset 13, which every runtime of the last years reads.

use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, TensorData};
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::type_proto;

use super::net::{MAPS, Net};

/// Weights could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the weights of {layer}: {reason}")]
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

/// The weights of a network written by [`onnx_bytes`], put into `net`, which must have the
/// same widths.
///
/// # Errors
/// When the bytes are not such a network or its layers have other shapes.
pub fn load_weights(mut net: Net, onnx: &[u8], device: &Device) -> Result<Net, ExportError> {
    let failed = |layer: &str, reason: String| ExportError { layer: layer.into(), reason };
    let model = pb::ModelProto::decode(onnx)
        .map_err(|error| failed("the network", format!("it is not ONNX ({error})")))?;
    let weights = model.graph.map(|graph| graph.initializer).unwrap_or_default();
    let find = |name: String, shape: Vec<usize>| -> Result<TensorData, ExportError> {
        let weight = weights
            .iter()
            .find(|weight| weight.name == name)
            .ok_or_else(|| failed(&name, "it is missing".into()))?;
        let dims: Vec<usize> = weight.dims.iter().map(|&size| size as usize).collect();
        if dims != shape {
            return Err(failed(&name, format!("its shape is {dims:?}, not {shape:?}")));
        }
        let values = weight
            .raw_data
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect::<Vec<f32>>();
        Ok(TensorData::new(values, shape))
    };
    let load = |name: &str, conv: &mut Conv2d| -> Result<(), ExportError> {
        let shape = conv.weight.val().dims().to_vec();
        let weight = find(format!("{name}.weight"), shape)?;
        conv.weight = Param::from_data(weight, device);
        if let Some(bias) = &mut conv.bias {
            let shape = bias.val().dims().to_vec();
            *bias = Param::from_data(find(format!("{name}.bias"), shape)?, device);
        }
        Ok(())
    };
    load("stem", &mut net.stem)?;
    for (depth, level) in net.levels.iter_mut().enumerate() {
        load(&format!("level{depth}.enter"), &mut level.enter)?;
        load(&format!("level{depth}.refine"), &mut level.refine)?;
    }
    for (step, rise) in net.rises.iter_mut().enumerate() {
        load(&format!("rise{step}.squeeze"), &mut rise.squeeze)?;
        load(&format!("rise{step}.merge"), &mut rise.merge)?;
    }
    load("squeeze", &mut net.squeeze)?;
    load("head", &mut net.head)?;
    Ok(net)
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
        let read = |data: TensorData, layer: &str| {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Tensor;
    use burn::tensor::activation::sigmoid;

    use super::*;
    use crate::base::clock::Clock;
    use crate::domain::frame::{Pixels, Place, Shot};
    use crate::learn::net::Widths;
    use crate::segment::instances::Maps;
    use crate::segment::network::Network;
    use crate::segment::normalise::Span;
    use crate::segment::scale::Plane;

    #[test]
    fn the_exported_network_gives_in_tract_what_it_gives_in_training() {
        let device = Device::flex();
        device.seed(5);
        let net = Net::new(Widths([4, 8, 8, 12]), &device);
        let size = 128;
        let values: Vec<u16> = (0..size * size).map(|at| (at * 7919 % 1000) as u16).collect();
        let span = Span { low: 0.0, high: 1000.0 };
        let image: Vec<f32> = values.iter().map(|&value| span.apply(value)).collect();
        let image = Tensor::from_data(TensorData::new(image, [1, 1, size, size]), &device);
        let trained = sigmoid(net.forward(image)).into_data().try_to_vec::<f32>().unwrap();

        let frame = Shot {
            sequence: 0,
            captured: Clock::manual(0).now(),
            exposure_us: None,
            width: size as u32,
            height: size as u32,
            bit_depth: 16,
            pixels: Pixels::U16(values),
            pixel_size_um: None,
            place: Place::default(),
            origin: None,
            truth: None,
        };
        let frame = Arc::new(frame.into_frame().unwrap());
        let mut plane = Plane::default();
        plane.fill(&frame, span);
        let mut maps = Maps::default();
        let network = Network::new(onnx_bytes(&net).unwrap()).unwrap();
        network.run(&plane, &mut maps).unwrap();
        let half = size / 2;
        for (map, plane) in [&maps.foreground, &maps.distance, &maps.contact].iter().enumerate() {
            for (at, value) in plane.iter().enumerate() {
                let (x, y) = (at % size, at / size);
                let channel = 4 * map + 2 * (y % 2) + x % 2;
                let expected = trained[(channel * half + y / 2) * half + x / 2];
                assert!((value - expected).abs() < 1e-4, "map {map} at ({x}, {y})");
            }
        }
    }

    #[test]
    fn weights_come_back_as_they_were_written() {
        let device = Device::flex();
        let written = onnx_bytes(&Net::new(Widths([4, 8, 8, 12]), &device)).unwrap();
        let other = Net::new(Widths([4, 8, 8, 12]), &device);
        let loaded = load_weights(other, &written, &device).unwrap();
        assert_eq!(onnx_bytes(&loaded).unwrap(), written);
        let narrow = Net::new(Widths([4, 8, 8, 16]), &device);
        assert!(load_weights(narrow, &written, &device).is_err());
    }
}
