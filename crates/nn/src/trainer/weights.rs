//! A network as a graph that the engine runs and a file keeps, and back.
//!
//! Input `image` `[1, 1, H, W]` f32, output `maps` `[1, 16, H/2, W/2]` f32 in 0..1, where H and
//! W are symbolic multiples of 16. The sigmoid is in the graph, so that any runtime gives maps.

use super::net::Net;
use super::topology::{HEAD, IMAGE, LEVELS, Operation, Topology, Widths};
use crate::block::CHANNELS;
use crate::graph::{Conv, Graph, Node};
use crate::onnx;

/// Weights could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the weights of {layer}: {reason}")]
pub struct WeightsError {
    layer: String,
    reason: String,
}

/// The network with its normalisation folded into the convolutions.
pub fn to_graph(net: &Net) -> Graph {
    let convolutions = net.to_plain();
    let conv = |layer: usize, from| Node::Conv(from, convolutions[layer].clone());
    let mut graph = Graph::new(1);
    // The node that gives each value of the topology.
    let mut nodes = vec![IMAGE];
    for operation in Topology::new(net.widths).operations {
        nodes.push(match operation {
            Operation::Convolve { layer, from, skip } => {
                let mut node = graph.push(conv(layer, nodes[from]));
                if let Some(skip) = skip {
                    node = graph.push(Node::Add(nodes[skip], node));
                }
                graph.push(Node::Relu(node))
            }
            Operation::Pool { from } => graph.push(Node::MaxPool(nodes[from])),
            Operation::Rise { layer, from, finer, rectify } => {
                let squeezed = graph.push(conv(layer, nodes[from]));
                let doubled = graph.push(Node::Double(squeezed));
                let summed = graph.push(Node::Add(doubled, nodes[finer]));
                if rectify { graph.push(Node::Relu(summed)) } else { summed }
            }
            Operation::Head { layer, from } => {
                let logits = graph.push(conv(layer, nodes[from]));
                graph.push(Node::Sigmoid(logits))
            }
        });
    }
    graph
}

/// The bytes of `model.onnx`: the network with its normalisation folded into the convolutions.
pub fn to_onnx(net: &Net) -> Vec<u8> {
    let size = ["half_height", "half_width"];
    onnx::write(&to_graph(net), &onnx::Output { image: "image", maps: "maps", size })
}

/// The network in bytes written by [`to_onnx`], of whatever widths, without normalisation.
/// One of a time when there were fewer maps gets zeros for the others.
///
/// # Errors
/// When the bytes are not such a network.
pub fn from_onnx(bytes: &[u8]) -> Result<Net, WeightsError> {
    let failed = |layer: &str, reason: String| WeightsError { layer: layer.into(), reason };
    let graph = onnx::read(bytes).map_err(|error| failed("the network", error.to_string()))?;
    let convolutions: Vec<&Conv> = graph
        .nodes()
        .iter()
        .filter_map(|node| if let Node::Conv(_, conv) = node { Some(conv) } else { None })
        .collect();
    let find = |name: &str| -> Result<&Conv, WeightsError> {
        let found = convolutions.iter().find(|conv| conv.name == name);
        found.copied().ok_or_else(|| failed(name, "it is missing".into()))
    };
    let mut widths = [0; 4];
    for (width, layer) in widths.iter_mut().zip(LEVELS) {
        *width = find(layer)?.outputs;
        if *width == 0 || *width % CHANNELS != 0 {
            let reason = format!("{width} channels, which is no multiple of {CHANNELS}");
            return Err(failed(layer, reason));
        }
    }
    let widths = Widths(widths);
    let mut found = Vec::new();
    for expected in Topology::new(widths).convolutions {
        let conv = find(&expected.name)?;
        let is_last = expected.name == HEAD;
        let fits = conv.outputs == expected.to || (is_last && conv.outputs < expected.to);
        if !fits || (conv.inputs, conv.window) != (expected.from, expected.window()) {
            let Conv { inputs, outputs, window, .. } = conv;
            let reason = format!("{inputs} to {outputs} channels with {window:?} do not fit");
            return Err(failed(&expected.name, reason));
        }
        found.push(conv);
    }
    Ok(Net::plain(widths, &found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::trainer::pass::Pass;

    const WIDTHS: Widths = Widths([16, 32, 16, 32]);

    #[test]
    fn the_exported_network_gives_when_run_what_it_gives_in_training() {
        let mut net = Net::random(WIDTHS, 5).folded();
        let size = 128;
        let image: Vec<f32> =
            (0..size * size).map(|at| (at * 7919 % 1000) as f32 / 1000.0).collect();
        let mut pass = Pass::new(&net, 1, size);
        let logits = pass.forward(&mut net, &[&image], size)[0].clone();

        let engine = Engine::new(&onnx::read(&to_onnx(&net)).unwrap()).unwrap();
        let mut workspace = engine.workspace(size, size).unwrap();
        workspace.image_mut().copy_from_slice(&image);
        let maps = engine.run(&mut workspace);
        assert_eq!(maps.shape(), logits.shape());
        for (block, y) in maps.rows() {
            for (x, (map, logit)) in maps.row(block, y).iter().zip(logits.row(block, y)).enumerate()
            {
                for (value, logit) in map.0.iter().zip(logit.0) {
                    #[expect(clippy::disallowed_methods, reason = "compared within bounds")]
                    let expected = 1.0 / (1.0 + (-logit).exp());
                    assert!((value - expected).abs() < 1e-4, "{value} at ({x}, {y})");
                }
            }
        }
    }

    #[test]
    fn weights_come_back_as_they_were_written() {
        let written = to_onnx(&Net::random(WIDTHS, 1));
        let loaded = from_onnx(&written).unwrap();
        assert_eq!(loaded.widths, WIDTHS);
        assert_eq!(to_onnx(&loaded), written);
        let error = from_onnx(&written[..100]).unwrap_err().to_string();
        assert!(error.contains("cannot read the weights"), "{error}");
    }

    #[test]
    fn a_network_of_another_shape_is_refused_by_the_layer_that_does_not_fit() {
        let mut graph = Graph::new(1);
        for node in to_graph(&Net::random(WIDTHS, 1)).nodes().iter().skip(1) {
            let mut node = node.clone();
            if let Node::Conv(_, conv) = &mut node
                && conv.name == "rise1.merge"
            {
                conv.window.pad = 0;
            }
            graph.push(node);
        }
        let size = ["height", "width"];
        let bytes = onnx::write(&graph, &onnx::Output { image: "image", maps: "maps", size });
        let error = from_onnx(&bytes).unwrap_err().to_string();
        assert!(error.contains("rise1.merge") && error.contains("do not fit"), "{error}");
    }

    #[test]
    fn the_built_in_models_can_be_gone_on_with() {
        for (model, widths) in [("nuclei", Widths::default()), ("phase", Widths([16, 48, 64, 96]))]
        {
            let onnx = format!("{}/../../models/{model}/model.onnx", env!("CARGO_MANIFEST_DIR"));
            let net = from_onnx(&std::fs::read(onnx).unwrap()).unwrap();
            assert_eq!(net.widths, widths, "{model}");
        }
    }
}
