//! Writes the network as ONNX, with the sigmoid in the graph, so that any engine gives maps.
//!
//! Input `image` `[1, 1, H, W]` f32, output `maps` `[1, 16, H/2, W/2]` f32 in 0..1, where H and
//! W are symbolic multiples of 16. Opset 13, which every runtime of the last years reads.

use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::type_proto;

use super::net::{Layer, MAPS, Net, Plain, Widths};
use super::planes::LANES;

/// Weights could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the weights of {layer}: {reason}")]
pub struct ExportError {
    layer: String,
    reason: String,
}

/// The bytes of `model.onnx`: the network with its normalisation folded into the convolutions.
pub fn onnx_bytes(net: &Net) -> Vec<u8> {
    let convolutions = net.to_plain();
    let layers = net.layers.iter().zip(&convolutions);
    let mut graph = Graph { layers, nodes: Vec::new(), weights: Vec::new() };
    let stem = graph.conv("image");
    let stem = graph.relu(&stem);
    let mut down = Vec::new();
    let mut current = stem.clone();
    for _ in 0..3 {
        let pooled = graph.max_pool(&current);
        let entered = graph.conv(&pooled);
        let entered = graph.relu(&entered);
        let refined = graph.conv(&entered);
        let summed = graph.add(&entered, &refined);
        current = graph.relu(&summed);
        down.push(current.clone());
    }
    down.pop();
    while let Some(finer) = down.pop() {
        let squeezed = graph.conv(&current);
        let doubled = graph.doubled(&squeezed);
        let summed = graph.add(&doubled, &finer);
        let merged = graph.conv(&summed);
        current = graph.relu(&merged);
    }
    let squeezed = graph.conv(&current);
    let doubled = graph.doubled(&squeezed);
    let summed = graph.add(&doubled, &stem);
    let full = graph.relu(&summed);
    let logits = graph.conv(&full);
    graph.node("Sigmoid", &[&logits], "maps", vec![]);
    graph.into_model().encode_to_vec()
}

/// The network in bytes written by [`onnx_bytes`], of whatever widths, without normalisation.
/// One of a time when there were fewer maps gets zeros for the others.
///
/// # Errors
/// When the bytes are not such a network.
pub fn load_weights(onnx: &[u8]) -> Result<Net, ExportError> {
    let failed = |layer: &str, reason: String| ExportError { layer: layer.into(), reason };
    let model = pb::ModelProto::decode(onnx)
        .map_err(|error| failed("the network", format!("it is not ONNX ({error})")))?;
    let weights = model.graph.map(|graph| graph.initializer).unwrap_or_default();
    let find = |name: String| {
        let weight = weights.iter().find(|weight| weight.name == name);
        let weight = weight.ok_or_else(|| failed(&name, "it is missing".into()))?;
        let shape: Vec<usize> = weight.dims.iter().map(|&size| size as usize).collect();
        let values = weight.raw_data.as_chunks::<4>().0;
        let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if shape.iter().product::<usize>() != values.len() {
            return Err(failed(&name, format!("{} numbers for {shape:?}", values.len())));
        }
        Ok((shape, values))
    };
    let mut widths = [0; 4];
    for (width, layer) in
        widths.iter_mut().zip(["stem", "level0.enter", "level1.enter", "level2.enter"])
    {
        let (shape, _) = find(format!("{layer}.weight"))?;
        *width = shape.first().copied().unwrap_or(0);
        if *width == 0 || *width % LANES != 0 {
            return Err(failed(layer, format!("{shape:?} are no multiple of {LANES} channels")));
        }
    }
    let expected = Net::plain(Widths(widths), &[]);
    let mut convolutions = Vec::new();
    for layer in &expected.layers {
        let (shape, weights) = find(format!("{}.weight", layer.name))?;
        let (bias_shape, bias) = find(format!("{}.bias", layer.name))?;
        let last = layer.name == "head";
        let outputs = shape.first().copied().unwrap_or(0);
        let fits = outputs == layer.to || (last && outputs < layer.to);
        let plain = [outputs, layer.from, layer.kernel, layer.kernel];
        if !fits || shape != plain || bias_shape != [outputs] {
            return Err(failed(&layer.name, format!("{shape:?} and {bias_shape:?} do not fit")));
        }
        convolutions.push(Plain { shape: plain, weights, bias });
    }
    Ok(Net::plain(Widths(widths), &convolutions))
}

/// The graph while it is written; takes the convolutions in their order.
struct Graph<'a> {
    layers: std::iter::Zip<std::slice::Iter<'a, Layer>, std::slice::Iter<'a, Plain>>,
    nodes: Vec<pb::NodeProto>,
    weights: Vec<pb::TensorProto>,
}

impl Graph<'_> {
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

    fn conv(&mut self, input: &str) -> String {
        let (layer, plain) = self.layers.next().expect("the graph has as many as the network");
        let weight = format!("{}.weight", layer.name);
        let bias = format!("{}.bias", layer.name);
        self.weights.push(tensor(&weight, &plain.shape, &plain.weights));
        self.weights.push(tensor(&bias, &[plain.bias.len()], &plain.bias));
        let attributes = vec![
            integers("kernel_shape", &[layer.kernel; 2]),
            integers("strides", &[layer.stride; 2]),
            integers("pads", &[layer.padding(); 4]),
        ];
        self.node("Conv", &[input, &weight, &bias], &layer.name, attributes)
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

    use super::*;
    use crate::learn::pass::Pass;
    use reticle_base::clock::Clock;
    use reticle_domain::frame::{Pixels, Place, Shot};
    use reticle_segment::instances::Maps;
    use reticle_segment::network::Network;
    use reticle_segment::normalise::Span;
    use reticle_segment::scale::Plane;

    const WIDTHS: Widths = Widths([16, 32, 16, 32]);

    #[test]
    fn the_exported_network_gives_when_run_what_it_gives_in_training() {
        let mut net = Net::random(WIDTHS, 5).folded();
        let size = 128;
        let values: Vec<u16> = (0..size * size).map(|at| (at * 7919 % 1000) as u16).collect();
        let span = Span { low: 0.0, high: 1000.0 };
        let image: Vec<f32> = values.iter().map(|&value| span.apply(value)).collect();
        let mut pass = Pass::new(&net, 1, size);
        let logits = pass.forward(&mut net, &[&image], size)[0].clone();

        let frame = Shot {
            sequence: 0,
            captured: Clock::manual(0).now(),
            exposure_us: None,
            width: size as u32,
            height: size as u32,
            bit_depth: 16,
            pixels: Pixels::U16(values),
            pixel_size_um: None,
            pixel_size_source: None,
            pixel_size_note: None,
            place: Place::default(),
            origin: None,
            truth: None,
        };
        let frame = Arc::new(frame.into_frame().unwrap());
        let mut plane = Plane::default();
        plane.fill(&frame, span);
        let mut maps = Maps::default();
        let network = Network::new(onnx_bytes(&net)).unwrap();
        network.run(&plane, &mut maps).unwrap();
        let planes = [&maps.foreground, &maps.distance, &maps.contact, &maps.size];
        for (map, plane) in planes.iter().enumerate() {
            for (at, value) in plane.iter().enumerate() {
                let (x, y) = (at % size, at / size);
                let channel = 4 * map + 2 * (y % 2) + x % 2;
                let logit = logits.row(0, y / 2)[x / 2].0[channel];
                #[expect(clippy::disallowed_methods, reason = "compared within bounds")]
                let expected = 1.0 / (1.0 + (-logit).exp());
                assert!((value - expected).abs() < 1e-4, "map {map} at ({x}, {y})");
            }
        }
    }

    #[test]
    fn weights_come_back_as_they_were_written() {
        let written = onnx_bytes(&Net::random(WIDTHS, 1));
        let loaded = load_weights(&written).unwrap();
        assert_eq!(loaded.widths, WIDTHS);
        assert_eq!(onnx_bytes(&loaded), written);
        let error = load_weights(&written[..100]).unwrap_err().to_string();
        assert!(error.contains("cannot read the weights"), "{error}");
    }

    #[test]
    fn the_built_in_model_can_be_gone_on_with() {
        let package = reticle_segment::package::ModelPackage::find("nuclei").unwrap();
        let net = load_weights(package.network()).unwrap();
        assert_eq!(net.widths, Widths::default());
    }
}
