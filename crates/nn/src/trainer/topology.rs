//! What the network is: a small U-Net with a strided stem and a pixel-shuffle head.
//!
//! ```text
//! image 1 ─6×6 /2─► 16 ───────────────────────────────────────────► + ─3×3─► 16 maps
//!                   └─max─► 32 ═ 3×3 + residual ═ ────► + ═3×3═ ─1×1─┘ ×2
//!                           └─max─► 64 ═ ═ ────► + ═3×3═ ─1×1─┘ ×2
//!                                   └─max─► 96 ═ ═ ─1×1─┘ ×2
//! ```
//!
//! Full-resolution convolutions are what costs, so there is none: the stem halves the
//! resolution and the head gives each of four maps as 2×2 sub-pixels (channel
//! `4·map + 2·dy + dx`).
//!
//! [`Topology::new`] is the only place that knows this. Whoever lays out numbers, works off a batch
//! or writes a file goes through its convolutions and operations.

use std::str::FromStr;

use crate::block::CHANNELS;
use crate::graph::Window;

/// Maps the network gives, in the order of its channels: foreground, distance, contact, size.
pub const MAPS: usize = 4;

/// Width and height of an input must be multiples of this: the stem and three poolings halve.
pub const GRANULE: usize = 16;

/// Edge of the stem's kernel and its stride: a space-to-depth and a 3×3 in one.
pub const STEM: (usize, usize) = (6, 2);

/// Names of the convolutions that bring the picture to each of the four [`Widths`].
pub const LEVELS: [&str; 4] = ["stem", "level0.enter", "level1.enter", "level2.enter"];

/// Name of the convolution that gives the maps.
pub const HEAD: &str = "head";

/// Edge and stride of most kernels.
const THREE: (usize, usize) = (3, 1);

/// Channels at 1/2, 1/4, 1/8 and 1/16 of the frame's resolution, each a multiple of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Widths(pub [usize; 4]);

impl Default for Widths {
    /// Measured, not derived: 0.28 GMAC for 256². Twice the training steps brought more than half as
    /// many channels again at 1/4, and cost no time in use.
    fn default() -> Self {
        Self([16, 32, 64, 96])
    }
}

/// Channels are no four multiples of [`CHANNELS`] that a network can have.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no four multiples of {CHANNELS} up to {MOST_CHANNELS}, as in 16,32,64,96")]
pub struct WidthsError(String);

/// Channels that a level has at most: such a network takes a hundred times as long as ours.
const MOST_CHANNELS: usize = 512;

impl FromStr for Widths {
    type Err = WidthsError;

    fn from_str(text: &str) -> Result<Self, WidthsError> {
        let usable = |width: &usize| {
            (CHANNELS..=MOST_CHANNELS).contains(width) && width.is_multiple_of(CHANNELS)
        };
        let widths: Option<Vec<usize>> =
            text.split(',').map(|width| width.trim().parse().ok().filter(usable)).collect();
        let widths = widths.and_then(|widths| widths.try_into().ok());
        widths.map(Self).ok_or_else(|| WidthsError(text.to_owned()))
    }
}

/// A convolution, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Name in the ONNX file.
    pub name: String,
    /// Edge of the kernel.
    pub kernel: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Input channels.
    pub from: usize,
    /// Output channels.
    pub to: usize,
    /// Whether it is normalised while the network learns from random weights.
    pub may_be_normalised: bool,
}

impl Convolution {
    /// What one output pixel sees, with so many zeros around the input that a stride of 1 keeps the size and one of 2 halves it.
    pub fn window(&self) -> Window {
        let &Self { kernel, stride, .. } = self;
        Window { size: kernel, stride, pad: (kernel - stride) / 2 }
    }
}

/// The number of what an operation gives, counted from 1; the image is [`IMAGE`].
pub type Value = usize;

/// The value that the network is given.
pub const IMAGE: Value = 0;

/// One thing that is computed. `layer` is the number of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Convolved, normalised, added to `skip`, rectified.
    Convolve {
        /// The convolution.
        layer: usize,
        /// What is convolved.
        from: Value,
        /// What is added.
        skip: Option<Value>,
    },
    /// The largest of every 2×2 pixels.
    Pool {
        /// What is pooled.
        from: Value,
    },
    /// Convolved, every pixel made 2×2, added to `finer`; then rectified or not.
    Rise {
        /// The convolution.
        layer: usize,
        /// What is convolved.
        from: Value,
        /// What is added.
        finer: Value,
        /// Whether the sum is rectified.
        rectify: bool,
    },
    /// Convolved: the logits of the maps. The last operation, and no other.
    Head {
        /// The convolution.
        layer: usize,
        /// What is convolved.
        from: Value,
    },
}

/// The network: its convolutions, and what is computed, both in order.
pub struct Topology {
    /// Each is used by one operation, in this order.
    pub convolutions: Vec<Convolution>,
    /// Operation `n` gives value `n + 1`.
    pub operations: Vec<Operation>,
}

impl Topology {
    /// The network of these widths.
    ///
    /// # Panics
    /// When a width is no multiple of 16.
    pub fn new(widths: Widths) -> Self {
        let Widths([half, deeper @ ..]) = widths;
        assert!(widths.0.iter().all(|width| width % CHANNELS == 0), "{widths:?} in blocks of 16");
        let mut topology = Self { convolutions: Vec::new(), operations: Vec::new() };
        let stem = topology.convolve(LEVELS[0], STEM, (IMAGE, 1), half, None);
        let mut down = vec![(stem, half)];
        for (depth, width) in deeper.into_iter().enumerate() {
            let (from, channels) = down[depth];
            let pooled = topology.push(Operation::Pool { from });
            let (enter, refine) = (LEVELS[depth + 1], format!("level{depth}.refine"));
            let entered = topology.convolve(enter, THREE, (pooled, channels), width, None);
            let refined = topology.convolve(&refine, THREE, (entered, width), width, Some(entered));
            down.push((refined, width));
        }
        let mut current = down.pop().expect("there are four widths");
        for step in 0..2 {
            let finer = down.pop().expect("there are four widths");
            let risen = topology.rise(&format!("rise{step}.squeeze"), current, finer, false);
            let merge = format!("rise{step}.merge");
            let merged = topology.convolve(&merge, THREE, (risen, finer.1), finer.1, None);
            current = (merged, finer.1);
        }
        let full = topology.rise("squeeze", current, (stem, half), true);
        let layer = topology.convolution(HEAD, THREE, half, 4 * MAPS, false);
        topology.push(Operation::Head { layer, from: full });
        topology
    }

    fn push(&mut self, operation: Operation) -> Value {
        self.operations.push(operation);
        self.operations.len()
    }

    fn convolve(
        &mut self,
        name: &str,
        size: (usize, usize),
        (from, channels): (Value, usize),
        to: usize,
        skip: Option<Value>,
    ) -> Value {
        let layer = self.convolution(name, size, channels, to, true);
        self.push(Operation::Convolve { layer, from, skip })
    }

    fn rise(
        &mut self,
        name: &str,
        (from, channels): (Value, usize),
        (finer, to): (Value, usize),
        rectify: bool,
    ) -> Value {
        let layer = self.convolution(name, (1, 1), channels, to, false);
        self.push(Operation::Rise { layer, from, finer, rectify })
    }

    fn convolution(
        &mut self,
        name: &str,
        (kernel, stride): (usize, usize),
        from: usize,
        to: usize,
        may_be_normalised: bool,
    ) -> usize {
        let name = name.to_owned();
        self.convolutions.push(Convolution { name, kernel, stride, from, to, may_be_normalised });
        self.convolutions.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_four_multiples_of_16() {
        assert_eq!("16,32, 64,96".parse::<Widths>().unwrap(), Widths([16, 32, 64, 96]));
        for other in
            ["", "16,32,64", "16,32,64,96,96", "16,32,64,97", "0,32,64,96", "16,32,64,1024"]
        {
            let error = other.parse::<Widths>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{other}` is no four multiples")), "{error}");
        }
    }

    /// Parameters of a checkpoint and tensors of a file lie in this order.
    #[test]
    fn convolutions_are_used_in_their_order_and_read_what_is_there() {
        let Topology { convolutions, operations } = Topology::new(Widths::default());
        let mut next = 0;
        for (place, operation) in operations.iter().enumerate() {
            let (layer, read) = match *operation {
                Operation::Convolve { layer, from, skip } => {
                    (Some(layer), [from, skip.unwrap_or(from)])
                }
                Operation::Pool { from } => (None, [from; 2]),
                Operation::Rise { layer, from, finer, .. } => (Some(layer), [from, finer]),
                Operation::Head { layer, from } => (Some(layer), [from; 2]),
            };
            assert!(read.iter().all(|&value| value <= place), "{operation:?} reads what follows");
            if let Some(layer) = layer {
                assert_eq!(layer, next, "{operation:?}");
                next += 1;
            }
        }
        assert_eq!(next, convolutions.len());
    }
}
