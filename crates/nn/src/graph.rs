//! A convolutional network as a list of operations, without sizes and without a file format.

/// A square of input pixels that one output pixel sees, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Width and height, pixels.
    pub size: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the input, pixels.
    pub pad: usize,
}

impl Window {
    /// Height or width of the output for that of the input; none where no window fits.
    pub(crate) fn output_length(self, length: usize) -> Option<usize> {
        Some((length + 2 * self.pad).checked_sub(self.size)? / self.stride + 1)
    }
}

/// A convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// What the file calls it, and errors do.
    pub name: String,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// What one output pixel sees.
    pub window: Window,
    /// `[output][input][y][x]`.
    pub weights: Vec<f32>,
    /// One for each output channel.
    pub bias: Vec<f32>,
}

impl Conv {
    /// The weight from channel `input` at (`y`, `x`) of the kernel to channel `output`; zero
    /// where there is no such channel, as in what fills up a block.
    pub(crate) fn weight(&self, output: usize, input: usize, y: usize, x: usize) -> f32 {
        if output >= self.outputs || input >= self.inputs {
            return 0.0;
        }
        let size = self.window.size;
        self.weights[((output * self.inputs + input) * size + y) * size + x]
    }
}

/// One operation; numbers are the places of earlier nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// The input, with so many channels. The first node, and no other.
    Image(usize),
    /// A convolution.
    Conv(usize, Conv),
    /// The larger of the value and zero.
    Relu(usize),
    /// The logistic function.
    Sigmoid(usize),
    /// The largest of every 2×2 pixels.
    MaxPool(usize),
    /// Every pixel becomes 2×2.
    Double(usize),
    /// The sum of two maps of the same shape.
    Add(usize, usize),
}

impl Node {
    /// The nodes it reads.
    pub(crate) fn inputs(&self) -> Vec<usize> {
        match *self {
            Self::Image(_) => vec![],
            Self::Conv(from, _)
            | Self::Relu(from)
            | Self::Sigmoid(from)
            | Self::MaxPool(from)
            | Self::Double(from) => vec![from],
            Self::Add(left, right) => vec![left, right],
        }
    }
}

/// A network: nodes in an order in which they can be computed. The last one is the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    /// A network that so far only has its input.
    pub fn new(channels: usize) -> Self {
        Self { nodes: vec![Node::Image(channels)] }
    }

    /// Adds an operation and gives its place.
    ///
    /// # Panics
    /// When it reads what does not stand before it, or a convolution's weights do not have
    /// the length that its other numbers say.
    pub fn push(&mut self, node: Node) -> usize {
        let place = self.nodes.len();
        assert!(node.inputs().iter().all(|&input| input < place), "{node:?} reads what follows");
        if let Node::Conv(_, conv) = &node {
            let weights = conv.outputs * conv.inputs * conv.window.size * conv.window.size;
            assert_eq!(conv.weights.len(), weights, "weights of a convolution");
            assert_eq!(conv.bias.len(), conv.outputs, "biases of a convolution");
        }
        self.nodes.push(node);
        place
    }

    /// All operations, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Channels that each operation gives.
    pub(crate) fn channels(&self) -> Vec<usize> {
        let mut channels = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            channels.push(match *node {
                Node::Image(channels) => channels,
                Node::Conv(_, ref conv) => conv.outputs,
                Node::Relu(from)
                | Node::Sigmoid(from)
                | Node::MaxPool(from)
                | Node::Double(from)
                | Node::Add(from, _) => channels[from],
            });
        }
        channels
    }
}
