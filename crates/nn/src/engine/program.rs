//! From a graph to steps: which kernel does a node, and which nodes it takes along.
//!
//! A convolution takes along what follows it and what nobody else reads: a doubling (only
//! [`super::direct`] can), then an addition of a map that is there already, then an
//! activation; and a pooling of what comes out. What no convolution takes along becomes a pass
//! of its own.

use super::direct::Direct;
use super::stem::Stem;
use super::vector::Activation;
use super::winograd::Winograd;
use crate::block::{Block, CHANNELS};
use crate::graph::{Conv, Graph, Node, Window};

/// This engine cannot run the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node} of the network: {reason}")]
pub struct Unfit {
    pub(super) node: usize,
    pub(super) reason: &'static str,
}

/// What computes a step, with its weights.
#[derive(Debug)]
pub(super) enum Kernel {
    Stem(Stem),
    Winograd(Winograd),
    Direct(Direct),
    Pool,
    Pass,
}

/// One kernel and what it takes along. Maps are named by the nodes that give them.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kernel: Kernel,
    pub(super) window: Window,
    /// Input and output channels; any number, and the same, where this is none.
    pub(super) channels: Option<(usize, usize)>,
    pub(super) bias: Vec<Block>,
    pub(super) from: usize,
    pub(super) tail: Tail,
}

/// What a step takes along, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tail {
    pub(super) doubled: bool,
    pub(super) add: Option<usize>,
    pub(super) activation: Activation,
    /// The node whose map comes out.
    pub(super) to: usize,
    /// A pooling of this map, which comes out beside it.
    pub(super) pooled: Option<usize>,
}

impl Tail {
    /// Takes along node `place`, if this is possible and its other input is `ready`.
    fn take(&mut self, node: &Node, place: usize, ready: &[bool], can_double: bool) -> bool {
        let nothing_yet = self.activation == Activation::None;
        match *node {
            Node::Double(_) if can_double && nothing_yet && self.add.is_none() && !self.doubled => {
                self.doubled = true;
            }
            Node::Add(left, right) if nothing_yet && self.add.is_none() => {
                let other = if left == self.to { right } else { left };
                if !ready[other] {
                    return false;
                }
                self.add = Some(other);
            }
            Node::Relu(_) if nothing_yet => self.activation = Activation::Relu,
            Node::Sigmoid(_) if nothing_yet => self.activation = Activation::Sigmoid,
            _ => return false,
        }
        self.to = place;
        true
    }
}

/// The steps in order.
///
/// # Errors
/// When the network reads its image in any other way than by one convolution, or does not read
/// what it computes.
pub(super) fn steps(graph: &Graph) -> Result<Vec<Step>, Unfit> {
    let nodes = graph.nodes();
    let mut readers = vec![Vec::new(); nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        for input in node.inputs() {
            readers[input].push(place);
        }
    }
    let [stem] = readers[0][..] else {
        return Err(Unfit { node: 0, reason: "the image must be read once" });
    };
    // What nobody reads could be left out, but it also means that the file is not what it
    // seems to be.
    if let Some(node) = (0..nodes.len() - 1).find(|&place| readers[place].is_empty()) {
        return Err(Unfit { node, reason: "nobody reads it" });
    }
    let mut ready = vec![false; nodes.len()];
    let mut steps = Vec::new();
    // A node is taken along if its map or a later one has come out of a step.
    let mut taken = vec![false; nodes.len()];
    for (place, node) in nodes.iter().enumerate().skip(1) {
        if taken[place] {
            continue;
        }
        let from = node.inputs()[0];
        let mut tail = Tail { to: from, ..Tail::default() };
        let whole = Window { size: 1, stride: 1, pad: 0 };
        let (kernel, window) = match node {
            Node::Conv(_, conv) if place == stem => (Kernel::Stem(Stem::new(conv)), conv.window),
            _ if place == stem => {
                return Err(Unfit {
                    node: place,
                    reason: "not a convolution, but reads the image",
                });
            }
            Node::Conv(_, conv) if Winograd::fits(conv) => {
                (Kernel::Winograd(Winograd::new(conv)), conv.window)
            }
            Node::Conv(_, conv) => (Kernel::Direct(Direct::new(conv)), conv.window),
            Node::MaxPool(_) => (Kernel::Pool, Window { size: 2, stride: 2, pad: 0 }),
            _ => {
                let possible = tail.take(node, place, &ready, true);
                assert!(possible, "a pass takes any one node whose inputs stand before it");
                (Kernel::Pass, whole)
            }
        };
        tail.to = place;
        let can_double = matches!(kernel, Kernel::Direct(_));
        while !matches!(kernel, Kernel::Pool)
            && let [reader] = readers[tail.to][..]
            && tail.take(&nodes[reader], reader, &ready, can_double)
        {
            taken[reader] = true;
        }
        ready[tail.to] = true;
        // Not of the last node, whose map must be what comes out last.
        tail.pooled = readers[tail.to].iter().copied().find(|&reader| {
            let pools = matches!(nodes[reader], Node::MaxPool(_));
            let can_pool = !matches!(kernel, Kernel::Pool | Kernel::Pass);
            pools && can_pool && reader + 1 < nodes.len()
        });
        if let Some(pooled) = tail.pooled {
            taken[pooled] = true;
            ready[pooled] = true;
        }
        let (channels, bias) = match node {
            Node::Conv(_, conv) => (Some((conv.inputs, conv.outputs)), blocks(conv)),
            _ => (None, vec![]),
        };
        steps.push(Step { kernel, window, channels, bias, from, tail });
    }
    Ok(steps)
}

/// The biases, filled up with zeros.
fn blocks(conv: &Conv) -> Vec<Block> {
    let part = |bias: &[f32]| {
        Block(std::array::from_fn(|channel| bias.get(channel).copied().unwrap_or(0.0)))
    };
    conv.bias.chunks(CHANNELS).map(part).collect()
}
