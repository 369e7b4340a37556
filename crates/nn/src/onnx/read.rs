//! Reads a network from ONNX, as far as [`Graph`] has its operators.
//!
//! Known are Conv (square kernel, the same padding on all sides, no groups), Relu, Sigmoid,
//! MaxPool 2×2, Resize (nearest, by two) and Add of equal shapes, in any arrangement with one
//! input and one output. Anything else is an error that names it, never a wrong result.

use std::collections::BTreeMap;

use prost::Message;

use super::message::{Attribute, FLOAT, Model, Network, Operator, Tensor};
use crate::graph::{Conv, Graph, Node, Window};

/// The network cannot be read, or has something that a [`Graph`] does not.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a protobuf of ONNX.
    #[error("it is not ONNX")]
    NotOnnx(#[from] prost::DecodeError),
    /// ONNX, but not for a [`Graph`].
    #[error("{place}: {reason}")]
    Unknown {
        /// The node, tensor or part of the file.
        place: String,
        /// What about it.
        reason: String,
    },
}

fn unknown(place: &str, reason: impl Into<String>) -> ReadError {
    ReadError::Unknown { place: place.into(), reason: reason.into() }
}

/// The network in the bytes of an ONNX file.
///
/// # Errors
/// When it is not ONNX or has something that a [`Graph`] does not.
pub fn read(bytes: &[u8]) -> Result<Graph, ReadError> {
    let model = Model::decode(bytes)?;
    let graph = model.graph.ok_or_else(|| unknown("the file", "it has no network"))?;
    let weights: BTreeMap<&str, &Tensor> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    // Files of old versions list weights among the inputs.
    let mut inputs = graph.input.iter().filter(|input| !weights.contains_key(input.name.as_str()));
    let (Some(image), None, [output]) = (inputs.next(), inputs.next(), &graph.output[..]) else {
        return Err(unknown("the network", "it must have one input and one output"));
    };
    let mut reader = Reader {
        weights,
        places: BTreeMap::from([(image.name.as_str(), 0)]),
        nodes: Graph::new(channels(&graph, &image.name)?),
    };
    for node in &graph.node {
        reader.read(node)?;
    }
    if reader.places.get(output.name.as_str()) != reader.places.values().max() {
        return Err(unknown(&output.name, "the output is not what the last node gives"));
    }
    Ok(reader.nodes)
}

/// Channels of the image, from the first convolution's weights: the declared shape may leave
/// them open.
fn channels(graph: &Network, image: &str) -> Result<usize, ReadError> {
    let first = graph.node.iter().find(|node| node.input.iter().any(|input| input == image));
    let weight = first.and_then(|node| node.input.get(1));
    let tensor = graph.initializer.iter().find(|tensor| Some(&tensor.name) == weight);
    match tensor.map(|tensor| &tensor.dims[..]) {
        Some(&[_, channels, _, _]) if channels > 0 => Ok(channels as usize),
        _ => Err(unknown(image, "it is not read by a convolution with fixed weights")),
    }
}

struct Reader<'a> {
    weights: BTreeMap<&'a str, &'a Tensor>,
    /// Which node gives the map of this name.
    places: BTreeMap<&'a str, usize>,
    nodes: Graph,
}

impl<'a> Reader<'a> {
    fn read(&mut self, node: &'a Operator) -> Result<(), ReadError> {
        let [output] = &node.output[..] else {
            return Err(unknown(&node.name, "more than one output"));
        };
        let input = |number: usize| {
            let name = node.input.get(number).map_or("", String::as_str);
            let place = self.places.get(name).copied();
            place.ok_or_else(|| unknown(&node.name, format!("no node before it gives {name:?}")))
        };
        let read = match node.op_type.as_str() {
            "Conv" => Node::Conv(input(0)?, self.conv(node)?),
            "Relu" => Node::Relu(input(0)?),
            "Sigmoid" => Node::Sigmoid(input(0)?),
            "MaxPool" => {
                expect_integers(node, "kernel_shape", &[2, 2], false)?;
                expect_integers(node, "strides", &[2, 2], false)?;
                expect_integers(node, "pads", &[0; 4], true)?;
                expect_integers(node, "dilations", &[1, 1], true)?;
                expect_integer(node, "ceil_mode", 0)?;
                expect_text(node, "auto_pad", &["NOTSET", "VALID"])?;
                Node::MaxPool(input(0)?)
            }
            "Resize" => {
                self.expect_doubling(node)?;
                Node::Double(input(0)?)
            }
            "Add" => Node::Add(input(0)?, input(1)?),
            other => return Err(unknown(&node.name, format!("operator {other}"))),
        };
        let place = self.nodes.push(read);
        self.places.insert(output, place);
        Ok(())
    }

    fn conv(&self, node: &Operator) -> Result<Conv, ReadError> {
        expect_integers(node, "dilations", &[1, 1], true)?;
        expect_integer(node, "group", 1)?;
        expect_text(node, "auto_pad", &["NOTSET"])?;
        let (dims, weights) = self.weight(node, 1)?;
        let [outputs, inputs, size, width] = dims[..] else {
            return Err(unknown(&node.name, format!("weights of shape {dims:?}")));
        };
        if size != width {
            return Err(unknown(&node.name, "a kernel that is not square"));
        }
        let stride = same(node, "strides", 2, 1)?;
        let pad = same(node, "pads", 4, 0)?;
        expect_integers(node, "kernel_shape", &[size as i64; 2], true)?;
        if stride == 0 || pad >= size || weights.is_empty() {
            return Err(unknown(&node.name, "no stride, no weights, or more padding than kernel"));
        }
        let bias = match node.input.get(2) {
            Some(name) if !name.is_empty() => self.weight(node, 2)?.1,
            _ => vec![0.0; outputs],
        };
        if bias.len() != outputs {
            return Err(unknown(&node.name, format!("{} biases", bias.len())));
        }
        let window = Window { size, stride, pad };
        Ok(Conv { name: node.name.clone(), inputs, outputs, window, weights, bias })
    }

    /// Shape and values of a fixed input.
    fn weight(&self, node: &Operator, number: usize) -> Result<(Vec<usize>, Vec<f32>), ReadError> {
        let name = node.input.get(number).map_or("", String::as_str);
        let tensor = self.weights.get(name).ok_or_else(|| {
            unknown(&node.name, format!("input {number} ({name:?}) is not fixed in the file"))
        })?;
        if tensor.data_type != FLOAT || !tensor.external_data.is_empty() {
            return Err(unknown(name, "not f32 in the file itself"));
        }
        let dims: Vec<usize> = tensor.dims.iter().map(|&size| size.max(0) as usize).collect();
        let values: Vec<f32> = if tensor.raw_data.is_empty() {
            tensor.float_data.clone()
        } else {
            let bytes = tensor.raw_data.chunks_exact(4);
            bytes.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        };
        let length = dims.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if length != Some(values.len()) {
            return Err(unknown(name, format!("{} values for shape {dims:?}", values.len())));
        }
        Ok((dims, values))
    }

    fn expect_doubling(&self, node: &Operator) -> Result<(), ReadError> {
        expect_text(node, "mode", &["nearest"])?;
        // With the default of either attribute, the pair below has to be complete.
        let text = |name, default| attribute(node, name).map_or(default, |found| &found.s[..]);
        let coordinates = text("coordinate_transformation_mode", b"half_pixel");
        let rounding = text("nearest_mode", b"round_prefer_floor");
        let doubles = matches!(
            (coordinates, rounding),
            (b"asymmetric", b"floor") | (b"half_pixel", b"round_prefer_floor")
        );
        let (_, scales) = self.weight(node, 2)?;
        if !doubles || scales != [1.0, 1.0, 2.0, 2.0] {
            return Err(unknown(&node.name, "a Resize that does not just double"));
        }
        Ok(())
    }
}

fn attribute<'a>(node: &'a Operator, name: &str) -> Option<&'a Attribute> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn wrong(node: &Operator, name: &str) -> ReadError {
    unknown(&node.name, format!("attribute {name}"))
}

/// The one value that an attribute of `count` integers repeats.
fn same(node: &Operator, name: &str, count: usize, default: usize) -> Result<usize, ReadError> {
    let Some(attribute) = attribute(node, name) else {
        return Ok(default);
    };
    match attribute.ints[..] {
        [first, ref others @ ..]
            if others.len() + 1 == count && others.iter().all(|&other| other == first) =>
        {
            usize::try_from(first).ok().ok_or_else(|| wrong(node, name))
        }
        _ => Err(wrong(node, name)),
    }
}

fn expect_integers(
    node: &Operator,
    name: &str,
    expected: &[i64],
    is_default: bool,
) -> Result<(), ReadError> {
    match attribute(node, name) {
        Some(attribute) if attribute.ints == expected => Ok(()),
        None if is_default => Ok(()),
        _ => Err(wrong(node, name)),
    }
}

fn expect_integer(node: &Operator, name: &str, expected: i64) -> Result<(), ReadError> {
    let fits = attribute(node, name).is_none_or(|attribute| attribute.i == expected);
    fits.then_some(()).ok_or_else(|| wrong(node, name))
}

/// A text attribute, whose default is the first of `allowed`.
fn expect_text(node: &Operator, name: &str, allowed: &[&str]) -> Result<(), ReadError> {
    let fits = |attribute: &Attribute| allowed.iter().any(|text| attribute.s == text.as_bytes());
    attribute(node, name).is_none_or(fits).then_some(()).ok_or_else(|| wrong(node, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Network)) -> String {
        let bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nuclei/model.onnx"));
        let mut model = Model::decode(&bytes.unwrap()[..]).unwrap();
        change(model.graph.as_mut().unwrap());
        read(&model.encode_to_vec()).unwrap_err().to_string()
    }

    fn node<'a>(graph: &'a mut Network, operator: &str) -> &'a mut Operator {
        graph.node.iter_mut().find(|node| node.op_type == operator).unwrap()
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let tanh = error(|graph| node(graph, "Sigmoid").op_type = "Tanh".into());
        assert!(tanh.contains("operator Tanh"), "{tanh}");
        let grouped = error(|graph| {
            let group = Attribute { name: "group".into(), i: 2, ..Default::default() };
            node(graph, "Conv").attribute.push(group);
        });
        assert!(grouped.contains("attribute group"), "{grouped}");
        let lopsided = error(|graph| {
            let conv = node(graph, "Conv");
            conv.attribute.iter_mut().find(|found| found.name == "pads").unwrap().ints[0] = 1;
        });
        assert!(lopsided.contains("attribute pads"), "{lopsided}");
        let linear = error(|graph| {
            let resize = node(graph, "Resize");
            resize.attribute.iter_mut().find(|found| found.name == "mode").unwrap().s =
                b"linear".to_vec();
        });
        assert!(linear.contains("attribute mode"), "{linear}");
        let overlapping = error(|graph| {
            let pool = node(graph, "MaxPool");
            pool.attribute.iter_mut().find(|found| found.name == "strides").unwrap().ints =
                vec![1, 1];
        });
        assert!(overlapping.contains("attribute strides"), "{overlapping}");
    }

    #[test]
    fn weights_that_are_cut_short_are_refused() {
        let short = error(|graph| graph.initializer[0].raw_data.truncate(8));
        assert!(short.contains("2 values for shape"), "{short}");
        assert!(read(b"not a network").is_err());
    }
}
