//! The network's numbers: weights, biases and normalisations of the convolutions of
//! [`super::topology`].
//!
//! A network that starts from random weights is trained with batch normalisation after the
//! stem and every 3×3 but the head. [`Net::folded`] takes it into the convolutions: what is
//! exported has none, so that a frame's result does not depend on what else is in the batch or
//! tile. One that starts from exported weights is trained without.

use std::ops::Range;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::kernel::Filter;
use super::topology::{Convolution, Topology, Widths};
use crate::block::{Block, CHANNELS};
use crate::graph::Conv;

/// Added to a variance before its root is taken, as is usual.
pub(super) const EPSILON: f32 = 1e-5;

/// A convolution, with where its numbers are among those of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it is.
    pub convolution: Convolution,
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
    pub(super) fn filter(&self) -> Filter {
        let &Convolution { kernel, stride, from, to, .. } = &self.convolution;
        let to = to / CHANNELS;
        match stride {
            1 => Filter { size: kernel, from: from / CHANNELS, to },
            _ => Filter { size: 1, from: (from * kernel.pow(2)).div_ceil(CHANNELS), to },
        }
    }

    /// Where the weight of output channel `to`, input channel `from` and tap `tap` is: block
    /// among the layer's weights, and lane.
    fn place(&self, to: usize, from: usize, tap: usize) -> (usize, usize) {
        let filter = self.filter();
        // The stem's columns are its taps, so those count as input channels of a 1×1.
        let (from, tap) = if self.convolution.stride == 1 { (from, tap) } else { (tap, 0) };
        let block = (to / CHANNELS * filter.taps() + tap) * filter.from * CHANNELS + from;
        (block, to % CHANNELS)
    }
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
            let &Convolution { kernel, from, to, .. } = &layer.convolution;
            let inputs = from * kernel.pow(2);
            let deviation = (2.0 / inputs as f32).sqrt();
            let weights = &mut net.parameters[layer.weights.clone()];
            for to in 0..to {
                for from in 0..from {
                    for tap in 0..kernel.pow(2) {
                        let (block, lane) = layer.place(to, from, tap);
                        let value: f32 = StandardNormal.sample(&mut rng);
                        weights[block].0[lane] = deviation * value;
                    }
                }
            }
            if let Some(norm) = &layer.norm {
                net.parameters[norm.gain.clone()].fill(Block([1.0; CHANNELS]));
                net.statistics[norm.variance.clone()].fill(Block([1.0; CHANNELS]));
            }
        }
        net
    }

    /// A network of these convolutions, in order, without normalisation. Where the last one has
    /// fewer maps than the network gives, the others are zero.
    pub fn plain(widths: Widths, convolutions: &[&Conv]) -> Self {
        let mut net = Self::zeros(widths, false);
        for (layer, plain) in net.layers.iter().zip(convolutions) {
            let mut values = plain.weights.iter();
            for to in 0..plain.outputs {
                for from in 0..plain.inputs {
                    for tap in 0..plain.window.size.pow(2) {
                        let (block, lane) = layer.place(to, from, tap);
                        let value = *values.next().expect("as many weights as the shape says");
                        net.parameters[layer.weights.start + block].0[lane] = value;
                    }
                }
            }
            for (to, &value) in plain.bias.iter().enumerate() {
                net.parameters[layer.bias.start + to / CHANNELS].0[to % CHANNELS] = value;
            }
        }
        net
    }

    /// Weights and biases of each convolution, normalisation included.
    pub fn to_plain(&self) -> Vec<Conv> {
        let net = self.folded();
        net.layers
            .iter()
            .map(|layer| {
                let weights = &net.parameters[layer.weights.clone()];
                let bias = net.parameters[layer.bias.clone()].iter().flat_map(|block| block.0);
                let Convolution { name, kernel, from: inputs, to: outputs, .. } =
                    &layer.convolution;
                let mut values = Vec::with_capacity(outputs * inputs * kernel.pow(2));
                for to in 0..*outputs {
                    for from in 0..*inputs {
                        for tap in 0..kernel.pow(2) {
                            let (block, lane) = layer.place(to, from, tap);
                            values.push(weights[block].0[lane]);
                        }
                    }
                }
                Conv {
                    name: name.clone(),
                    inputs: *inputs,
                    outputs: *outputs,
                    window: layer.convolution.window(),
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
                None => bias.iter().map(|&bias| (Block([1.0; CHANNELS]), bias)).unzip(),
                Some(norm) => (0..bias.len())
                    .map(|at| {
                        let gain = self.parameters[norm.gain.start + at].0;
                        let mean = self.statistics[norm.mean.start + at].0;
                        let variance = self.statistics[norm.variance.start + at].0;
                        let factor: [f32; CHANNELS] = std::array::from_fn(|lane| {
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
        let mut layers = Layers { normalised, ..Layers::default() };
        for convolution in Topology::new(widths).convolutions {
            layers.push(convolution);
        }
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
    fn push(&mut self, convolution: Convolution) {
        let blocks = convolution.to / CHANNELS;
        let is_normalised = self.normalised && convolution.may_be_normalised;
        let mut layer = Layer { convolution, weights: 0..0, bias: 0..0, norm: None };
        let take = |end: &mut usize, blocks: usize| {
            *end += blocks;
            *end - blocks..*end
        };
        layer.weights = take(&mut self.parameters, layer.filter().weight_blocks());
        layer.bias = take(&mut self.parameters, blocks);
        layer.norm = is_normalised.then(|| Norm {
            gain: take(&mut self.parameters, blocks),
            mean: take(&mut self.statistics, blocks),
            variance: take(&mut self.statistics, blocks),
        });
        self.layers.push(layer);
    }
}
