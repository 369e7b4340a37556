//! The network by its definition, in f64: what the kernels are held to in tests.

use super::graph::{Conv, Graph, Node};

/// A map as `[channel][y][x]`.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) data: Vec<f64>,
}

impl Plain {
    pub(super) fn at(&self, channel: usize, y: usize, x: usize) -> f64 {
        self.data[(channel * self.height + y) * self.width + x]
    }

    fn from_fn(
        [channels, height, width]: [usize; 3],
        value: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let mut data = Vec::with_capacity(channels * height * width);
        for channel in 0..channels {
            for y in 0..height {
                data.extend((0..width).map(|x| value(channel, y, x)));
            }
        }
        Self { channels, height, width, data }
    }

    fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }
}

/// The map of the last node.
#[expect(clippy::disallowed_methods, reason = "the engine is compared with it within bounds")]
pub(super) fn run(graph: &Graph, image: &Plain) -> Plain {
    let mut maps: Vec<Plain> = Vec::new();
    for node in graph.nodes() {
        let map = |place: usize| &maps[place];
        let each = |place: usize, function: fn(f64) -> f64| {
            let map = map(place);
            Plain { data: map.data.iter().map(|&value| function(value)).collect(), ..map.clone() }
        };
        let result = match *node {
            Node::Image(_) => image.clone(),
            Node::Conv(from, ref conv) => convolved(conv, map(from)),
            Node::Relu(from) => each(from, |value| value.max(0.0)),
            Node::Sigmoid(from) => each(from, |value| 1.0 / (1.0 + (-value).exp())),
            Node::MaxPool(from) => {
                let [channels, height, width] = map(from).shape();
                Plain::from_fn([channels, height / 2, width / 2], |c, y, x| {
                    let row = |y| map(from).at(c, y, 2 * x).max(map(from).at(c, y, 2 * x + 1));
                    row(2 * y).max(row(2 * y + 1))
                })
            }
            Node::Double(from) => {
                let [channels, height, width] = map(from).shape();
                Plain::from_fn([channels, 2 * height, 2 * width], |c, y, x| {
                    map(from).at(c, y / 2, x / 2)
                })
            }
            Node::Add(left, right) => Plain::from_fn(map(left).shape(), |c, y, x| {
                map(left).at(c, y, x) + map(right).at(c, y, x)
            }),
        };
        maps.push(result);
    }
    maps.pop().expect("a graph has a node")
}

fn convolved(conv: &Conv, input: &Plain) -> Plain {
    let length = |length| conv.window.output_length(length).expect("the window fits");
    let shape = [conv.outputs, length(input.height), length(input.width)];
    let (size, stride, pad) = (conv.window.size, conv.window.stride, conv.window.pad);
    Plain::from_fn(shape, |output, y, x| {
        let mut sum = f64::from(conv.bias[output]);
        for channel in 0..conv.inputs {
            for ky in 0..size {
                for kx in 0..size {
                    let (row, column) = (y * stride + ky, x * stride + kx);
                    let inside = (pad..pad + input.height).contains(&row)
                        && (pad..pad + input.width).contains(&column);
                    if inside {
                        sum += input.at(channel, row - pad, column - pad)
                            * f64::from(conv.weight(output, channel, ky, kx));
                    }
                }
            }
        }
        sum
    })
}
