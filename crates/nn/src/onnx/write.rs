//! Writes a network as ONNX: opset 13, which every runtime of the last years reads.

use prost::Message;

use super::message::{
    Attribute, Dimension, FLOAT, INTS, Model, Network, Operator, OperatorSet, STRING, Tensor,
    TensorShape, TensorType, Type, ValueInfo,
};
use crate::graph::{Conv, Graph, Node};

/// Name of the factors of a doubling, which all doublings share.
const DOUBLING: &str = "doubling";

/// What the file says of the network's input and output. Their heights and widths are left open.
pub struct Output<'a> {
    /// Name of the input.
    pub image: &'a str,
    /// Name of the output.
    pub maps: &'a str,
    /// What the output's height and width are called.
    pub size: [&'a str; 2],
}

/// The bytes of an ONNX file of `graph`: input `[1, channels, height, width]`, output
/// `[1, channels, …]`, both f32. Convolutions are called by their names, which must differ.
pub fn write(graph: &Graph, output: &Output<'_>) -> Vec<u8> {
    let mut file = File { nodes: Vec::new(), weights: Vec::new() };
    let mut names: Vec<String> = Vec::new();
    let last = graph.nodes().len() - 1;
    for (place, node) in graph.nodes().iter().enumerate() {
        let name = match node {
            Node::Image(_) => output.image.to_owned(),
            _ if place == last => output.maps.to_owned(),
            Node::Conv(_, conv) => conv.name.clone(),
            Node::Relu(_) => format!("relu{}", file.nodes.len()),
            Node::Sigmoid(_) => format!("sigmoid{}", file.nodes.len()),
            Node::MaxPool(_) => format!("pool{}", file.nodes.len()),
            Node::Double(_) => format!("resize{}", file.nodes.len()),
            Node::Add(..) => format!("add{}", file.nodes.len()),
        };
        let inputs: Vec<&str> = node.inputs().iter().map(|&input| names[input].as_str()).collect();
        file.add(node, &inputs, &name);
        names.push(name);
    }
    let channels = graph.channels();
    let [height, width] = output.size;
    let model = Model {
        ir_version: 7,
        producer_name: "reticle".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(Network {
            node: file.nodes,
            name: "segmenter".into(),
            initializer: file.weights,
            input: vec![value(output.image, channels[0], ["height", "width"])],
            output: vec![value(output.maps, channels[last], [height, width])],
        }),
        opset_import: vec![OperatorSet { version: 13 }],
    };
    model.encode_to_vec()
}

/// The file while it is written.
struct File {
    nodes: Vec<Operator>,
    weights: Vec<Tensor>,
}

impl File {
    fn add(&mut self, node: &Node, inputs: &[&str], name: &str) {
        match node {
            Node::Image(_) => {}
            Node::Conv(_, conv) => self.conv(conv, inputs[0], name),
            Node::Relu(_) => self.node("Relu", inputs, name, vec![]),
            Node::Sigmoid(_) => self.node("Sigmoid", inputs, name, vec![]),
            Node::MaxPool(_) => {
                let attributes =
                    vec![integers("kernel_shape", &[2, 2]), integers("strides", &[2, 2])];
                self.node("MaxPool", inputs, name, attributes);
            }
            Node::Double(_) => self.double(inputs[0], name),
            Node::Add(..) => self.node("Add", inputs, name, vec![]),
        }
    }

    fn node(&mut self, operator: &str, inputs: &[&str], name: &str, attributes: Vec<Attribute>) {
        self.nodes.push(Operator {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: operator.into(),
            attribute: attributes,
        });
    }

    /// The node has the convolution's name, also where what it gives is called otherwise.
    fn conv(&mut self, conv: &Conv, input: &str, gives: &str) {
        let Conv { name, inputs, outputs, window, weights, bias } = conv;
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let shape = [*outputs, *inputs, window.size, window.size];
        self.weights.push(tensor(&weight_name, &shape, weights));
        self.weights.push(tensor(&bias_name, &[bias.len()], bias));
        let attributes = vec![
            integers("kernel_shape", &[window.size; 2]),
            integers("strides", &[window.stride; 2]),
            integers("pads", &[window.pad; 4]),
        ];
        self.nodes.push(Operator {
            input: vec![input.into(), weight_name, bias_name],
            output: vec![gives.into()],
            name: name.clone(),
            op_type: "Conv".into(),
            attribute: attributes,
        });
    }

    fn double(&mut self, input: &str, name: &str) {
        if !self.weights.iter().any(|weight| weight.name == DOUBLING) {
            self.weights.push(tensor(DOUBLING, &[4], &[1.0, 1.0, 2.0, 2.0]));
        }
        let attributes = vec![
            text("mode", "nearest"),
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", "floor"),
        ];
        self.node("Resize", &[input, "", DOUBLING], name, attributes);
    }
}

fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: shape.iter().map(|&size| size as i64).collect(),
        data_type: FLOAT,
        name: name.into(),
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ..Tensor::default()
    }
}

fn integers(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|&value| value as i64).collect();
    Attribute { name: name.into(), ints, kind: INTS, ..Attribute::default() }
}

fn text(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), s: value.into(), kind: STRING, ..Attribute::default() }
}

/// An image or map: one, with so many channels, of open size.
fn value(name: &str, channels: usize, size: [&str; 2]) -> ValueInfo {
    let fixed = |size: usize| Dimension { size: Some(size as i64), name: None };
    let open = |name: &str| Dimension { size: None, name: Some(name.into()) };
    let dim = vec![fixed(1), fixed(channels), open(size[0]), open(size[1])];
    let tensor = TensorType { element: FLOAT, shape: Some(TensorShape { dim }) };
    ValueInfo { name: name.into(), of: Some(Type { tensor: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Window;
    use crate::onnx::read;

    fn conv(name: &str, inputs: usize, outputs: usize, size: usize) -> Conv {
        let weights = (0..outputs * inputs * size * size).map(|at| at as f32).collect();
        let bias = (0..outputs).map(|at| at as f32).collect();
        let window = Window { size, stride: 1, pad: size / 2 };
        Conv { name: name.to_owned(), inputs, outputs, window, weights, bias }
    }

    #[test]
    fn every_operation_comes_back_as_it_was_written() {
        let mut graph = Graph::new(2);
        let first = graph.push(Node::Conv(0, conv("first", 2, 3, 5)));
        let bent = graph.push(Node::Relu(first));
        let small = graph.push(Node::MaxPool(bent));
        let wide = graph.push(Node::Double(small));
        let large = graph.push(Node::Double(wide));
        let both = graph.push(Node::Add(large, wide));
        let last = graph.push(Node::Sigmoid(both));
        graph.push(Node::Conv(last, conv("second", 3, 4, 1)));
        let size = ["tall", "broad"];
        let bytes = write(&graph, &Output { image: "image", maps: "maps", size });
        assert_eq!(read(&bytes).unwrap(), graph);
    }
}
