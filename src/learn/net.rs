//! The network: a small U-Net with a strided stem and a pixel-shuffle head.
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
//! A network that starts from random weights is trained with batch normalisation after the
//! stem and every 3×3 but the head. [`Net::folded`] takes it into the convolutions: what is
//! exported has none, so that a frame's result does not depend on what else is in the batch or
//! tile. One that starts from exported weights is trained without.

use std::ops::Range;
use std::str::FromStr;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::kernel::Shape;
use super::planes::{Block, LANES};

/// Maps the network gives, in the order of its channels: foreground, distance, contact, size.
pub const MAPS: usize = 4;

/// Width and height of an input must be multiples of this: the stem and three poolings halve.
pub const GRANULE: usize = 16;

/// Edge of the stem's kernel and its stride: a space-to-depth and a 3×3 in one.
pub const STEM: (usize, usize) = (6, 2);

/// Added to a variance before its root is taken, as is usual.
pub const EPSILON: f32 = 1e-5;

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

/// Channels are no four multiples of [`LANES`] that a network can have.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no four multiples of {LANES} up to {MOST_CHANNELS}, as in 16,32,64,96")]
pub struct WidthsError(String);

/// Channels that a level has at most: such a network takes a hundred times as long as ours.
const MOST_CHANNELS: usize = 512;

impl FromStr for Widths {
    type Err = WidthsError;

    fn from_str(text: &str) -> Result<Self, WidthsError> {
        let usable =
            |width: &usize| (LANES..=MOST_CHANNELS).contains(width) && width.is_multiple_of(LANES);
        let widths: Option<Vec<usize>> =
            text.split(',').map(|width| width.trim().parse().ok().filter(usable)).collect();
        let widths = widths.and_then(|widths| widths.try_into().ok());
        widths.map(Self).ok_or_else(|| WidthsError(text.to_owned()))
    }
}

/// A convolution, with where its numbers are among those of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
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
    /// Its weights among the parameters, laid out as [`super::kernel`] says.
    pub weights: Range<usize>,
    /// Its biases among the parameters; added after the normalisation where there is one.
    pub bias: Range<usize>,
    /// Its normalisation.
    pub norm: Option<Norm>,
}

/// Batch normalisation of a layer's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Norm {
    /// Factors after normalising, among the parameters.
    pub gain: Range<usize>,
    /// Running means, among the statistics.
    pub mean: Range<usize>,
    /// Running variances, among the statistics.
    pub variance: Range<usize>,
}

impl Layer {
    /// The convolution that the kernels run. The stem runs as a 1×1 over the
    /// pixels that its kernel sees.
    pub fn shape(&self) -> Shape {
        let to = self.to / LANES;
        match self.stride {
            1 => Shape { kernel: self.kernel, from: self.from / LANES, to },
            _ => Shape { kernel: 1, from: (self.from * self.kernel.pow(2)).div_ceil(LANES), to },
        }
    }

    /// Zeros around the input, so that a stride of 1 keeps the size and one of 2 halves it.
    pub fn padding(&self) -> usize {
        (self.kernel - self.stride) / 2
    }

    /// Where the weight of output channel `to`, input channel `from` and tap `tap` is: block
    /// among the layer's weights, and lane.
    fn place(&self, to: usize, from: usize, tap: usize) -> (usize, usize) {
        let shape = self.shape();
        // The stem's columns are its taps, so those count as input channels of a 1×1.
        let (from, tap) = if self.stride == 1 { (from, tap) } else { (tap, 0) };
        let block = (to / LANES * shape.taps() + tap) * shape.from * LANES + from;
        (block, to % LANES)
    }
}

/// Weights and biases of one convolution as ONNX has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// Output channels, input channels, kernel rows, kernel columns.
    pub shape: [usize; 4],
    /// In that order.
    pub weights: Vec<f32>,
    /// One for each output channel.
    pub bias: Vec<f32>,
}

/// The network.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    /// Its channels.
    pub widths: Widths,
    /// Its convolutions, in the order in which they run.
    pub layers: Vec<Layer>,
    /// All that is learnt.
    pub parameters: Vec<Block>,
    /// Running means and variances of the normalisations.
    pub statistics: Vec<Block>,
}

impl Net {
    /// A network with random weights and with normalisation.
    ///
    /// # Panics
    /// When a width is no multiple of 16.
    pub fn random(widths: Widths, seed: u64) -> Self {
        let mut net = Self::zeros(widths, true);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for layer in &net.layers {
            // He et al. 2015, for rectified units.
            let inputs = layer.from * layer.kernel.pow(2);
            let deviation = (2.0 / inputs as f32).sqrt();
            let weights = &mut net.parameters[layer.weights.clone()];
            for to in 0..layer.to {
                for from in 0..layer.from {
                    for tap in 0..layer.kernel.pow(2) {
                        let (block, lane) = layer.place(to, from, tap);
                        let value: f32 = StandardNormal.sample(&mut rng);
                        weights[block].0[lane] = deviation * value;
                    }
                }
            }
            if let Some(norm) = &layer.norm {
                net.parameters[norm.gain.clone()].fill(Block([1.0; LANES]));
                net.statistics[norm.variance.clone()].fill(Block([1.0; LANES]));
            }
        }
        net
    }

    /// A network of these convolutions, in order, without normalisation. Where the last one has
    /// fewer maps than [`MAPS`], the others are zero.
    pub fn plain(widths: Widths, convolutions: &[Plain]) -> Self {
        let mut net = Self::zeros(widths, false);
        for (layer, plain) in net.layers.iter().zip(convolutions) {
            let [to, from, rows, columns] = plain.shape;
            let mut values = plain.weights.iter();
            for to in 0..to {
                for from in 0..from {
                    for tap in 0..rows * columns {
                        let (block, lane) = layer.place(to, from, tap);
                        let value = *values.next().expect("as many weights as the shape says");
                        net.parameters[layer.weights.start + block].0[lane] = value;
                    }
                }
            }
            for (to, &value) in plain.bias.iter().enumerate() {
                net.parameters[layer.bias.start + to / LANES].0[to % LANES] = value;
            }
        }
        net
    }

    /// Weights and biases of each convolution, normalisation included.
    pub fn to_plain(&self) -> Vec<Plain> {
        let net = self.folded();
        net.layers
            .iter()
            .map(|layer| {
                let weights = &net.parameters[layer.weights.clone()];
                let bias = net.parameters[layer.bias.clone()].iter().flat_map(|block| block.0);
                let taps = layer.kernel.pow(2);
                let mut values = Vec::with_capacity(layer.to * layer.from * taps);
                for to in 0..layer.to {
                    for from in 0..layer.from {
                        for tap in 0..taps {
                            let (block, lane) = layer.place(to, from, tap);
                            values.push(weights[block].0[lane]);
                        }
                    }
                }
                Plain {
                    shape: [layer.to, layer.from, layer.kernel, layer.kernel],
                    weights: values,
                    bias: bias.collect(),
                }
            })
            .collect()
    }

    /// The same function without normalisation: its running statistics taken into the weights.
    pub fn folded(&self) -> Self {
        let mut folded = Self::zeros(self.widths, false);
        for (layer, target) in self.layers.iter().zip(&folded.layers) {
            let weights = &self.parameters[layer.weights.clone()];
            let bias = &self.parameters[layer.bias.clone()];
            let (factors, biases): (Vec<_>, Vec<_>) = match &layer.norm {
                None => bias.iter().map(|&bias| (Block([1.0; LANES]), bias)).unzip(),
                Some(norm) => (0..bias.len())
                    .map(|at| {
                        let gain = self.parameters[norm.gain.start + at].0;
                        let mean = self.statistics[norm.mean.start + at].0;
                        let variance = self.statistics[norm.variance.start + at].0;
                        let factor: [f32; LANES] = std::array::from_fn(|lane| {
                            gain[lane] / (variance[lane] + EPSILON).sqrt()
                        });
                        let shift = std::array::from_fn(|lane| {
                            bias[at].0[lane] - mean[lane] * factor[lane]
                        });
                        (Block(factor), Block(shift))
                    })
                    .unzip(),
            };
            let per_output = weights.len() / factors.len();
            let out = &mut folded.parameters[target.weights.clone()];
            for (at, (out, weight)) in out.iter_mut().zip(weights).enumerate() {
                let factor = factors[at / per_output].0;
                *out = Block(std::array::from_fn(|lane| weight.0[lane] * factor[lane]));
            }
            folded.parameters[target.bias.clone()].copy_from_slice(&biases);
        }
        folded
    }

    fn zeros(widths: Widths, normalised: bool) -> Self {
        let Widths([half, quarter, eighth, sixteenth]) = widths;
        assert!(widths.0.iter().all(|width| width % LANES == 0), "{widths:?} in blocks of 16");
        let mut layers = Layers { normalised, ..Layers::default() };
        layers.push("stem", STEM, 1, half, true);
        for (depth, (from, to)) in
            [(half, quarter), (quarter, eighth), (eighth, sixteenth)].into_iter().enumerate()
        {
            layers.push(&format!("level{depth}.enter"), (3, 1), from, to, true);
            layers.push(&format!("level{depth}.refine"), (3, 1), to, to, true);
        }
        for (step, (from, to)) in [(sixteenth, eighth), (eighth, quarter)].into_iter().enumerate() {
            layers.push(&format!("rise{step}.squeeze"), (1, 1), from, to, false);
            layers.push(&format!("rise{step}.merge"), (3, 1), to, to, true);
        }
        layers.push("squeeze", (1, 1), quarter, half, false);
        layers.push("head", (3, 1), half, 4 * MAPS, false);
        Self {
            widths,
            parameters: vec![Block::ZERO; layers.parameters],
            statistics: vec![Block::ZERO; layers.statistics],
            layers: layers.layers,
        }
    }
}

/// Layers while they are laid out.
#[derive(Default)]
struct Layers {
    normalised: bool,
    layers: Vec<Layer>,
    parameters: usize,
    statistics: usize,
}

impl Layers {
    fn push(
        &mut self,
        name: &str,
        (kernel, stride): (usize, usize),
        from: usize,
        to: usize,
        may_be_normalised: bool,
    ) {
        let mut layer = Layer {
            name: name.into(),
            kernel,
            stride,
            from,
            to,
            weights: 0..0,
            bias: 0..0,
            norm: None,
        };
        let take = |end: &mut usize, blocks: usize| {
            *end += blocks;
            *end - blocks..*end
        };
        layer.weights = take(&mut self.parameters, layer.shape().weight_blocks());
        layer.bias = take(&mut self.parameters, to / LANES);
        layer.norm = (self.normalised && may_be_normalised).then(|| Norm {
            gain: take(&mut self.parameters, to / LANES),
            mean: take(&mut self.statistics, to / LANES),
            variance: take(&mut self.statistics, to / LANES),
        });
        self.layers.push(layer);
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
}
