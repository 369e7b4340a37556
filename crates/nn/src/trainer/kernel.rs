//! The convolution and the gradient of its weights: where nine tenths of the time go.
//!
//! Square kernels of odd size, stride 1, as many pixels out as in. Weights are
//! `[output block][tap][input block][input channel]` with one [`Block`] of output channels
//! each, so that both kernels read and write them in order.
//!
//! Both keep a tile of sums in registers. The convolution: 12 pixels × 16 output channels (with
//! AVX-512), over all taps and input channels, each step one load of weights and 12 products
//! with a broadcast pixel. The gradient: 16 input × 16 output channels of one tap, over
//! the pixels of some rows. Written with explicit vectors: the compiler does not find either
//! by itself.

use pulp::{Arch, Simd, WithSimd};

use crate::block::{Block, CHANNELS, load, store};
use crate::planes::{Planes, Shape};

/// Pixels of zeros around maps: as many as a kernel of 3 looks past the edge.
const MARGIN: usize = 1;

/// Zeros of so many blocks of channels, as these kernels read and write them.
pub(super) fn planes(blocks: usize, height: usize, width: usize) -> Planes {
    Planes::new(Shape { channels: CHANNELS * blocks, height, width }, MARGIN)
}

/// Size of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Edge of the kernel, 1 or 3.
    pub(super) size: usize,
    /// Blocks of input channels.
    pub(super) from: usize,
    /// Blocks of output channels.
    pub(super) to: usize,
}

impl Filter {
    /// Taps of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.size * self.size
    }

    /// Blocks that the weights take.
    pub(super) fn weight_blocks(&self) -> usize {
        self.to * self.taps() * self.from * CHANNELS
    }

    /// Where the weights of 16 input and 16 output channels at one tap begin.
    fn weights_at(&self, to: usize, tap: usize, from: usize) -> usize {
        ((to * self.taps() + tap) * self.from + from) * CHANNELS
    }
}

/// What the sums of a convolution begin with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// These, one for each output channel.
    Bias(&'a [Block]),
    /// What the output holds already.
    Output,
}

/// Convolves `input` into `output`.
pub(super) fn convolve(
    filter: Filter,
    input: &Planes,
    weights: &[Block],
    begin: Begin<'_>,
    output: &mut Planes,
) {
    check(filter, input, output);
    Arch::new().dispatch(Convolution { filter, input, weights, begin, output });
}

/// Adds to `sums` (laid out as the weights) how much each weight would change the loss, given
/// how much each output does.
pub(super) fn add_weight_gradient(
    filter: Filter,
    input: &Planes,
    gradient: &Planes,
    sums: &mut [Block],
) {
    check(filter, input, gradient);
    Arch::new().dispatch(WeightGradient { filter, input, gradient, sums });
}

/// The maps are of the filter's channels, of one size, and with the margin that kernels look into.
fn check(filter: Filter, input: &Planes, output: &Planes) {
    let (from, to) = (input.shape(), output.shape());
    assert_eq!((from.blocks(), to.blocks()), (filter.from, filter.to), "channels of a convolution");
    assert_eq!((from.height, from.width), (to.height, to.width), "size of what it gives");
    assert_eq!((input.margin(), output.margin()), (MARGIN, MARGIN), "zeros around the maps");
}

/// The weights with which a convolution takes the gradient of the output back to the input:
/// mirrored, and with input and output channels exchanged.
pub(super) fn transposed(filter: Filter, weights: &[Block]) -> (Filter, Vec<Block>) {
    let back = Filter { size: filter.size, from: filter.to, to: filter.from };
    let mut out = vec![Block::ZERO; weights.len()];
    for to in 0..filter.to {
        for tap in 0..filter.taps() {
            for from in 0..filter.from {
                let source = &weights[filter.weights_at(to, tap, from)..][..CHANNELS];
                let target = back.weights_at(from, filter.taps() - 1 - tap, to);
                let target = &mut out[target..target + CHANNELS];
                for (column, block) in source.iter().enumerate() {
                    for (row, target) in target.iter_mut().enumerate() {
                        target.0[column] = block.0[row];
                    }
                }
            }
        }
    }
    (back, out)
}

struct Convolution<'a> {
    filter: Filter,
    input: &'a Planes,
    weights: &'a [Block],
    begin: Begin<'a>,
    output: &'a mut Planes,
}

impl WithSimd for Convolution<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Registers a block takes; the tiles leave room for the weights and a broadcast.
        match S::F32_LANES {
            16 => self.run::<S, 1, 12, 8>(simd),
            8 => self.run::<S, 2, 6, 4>(simd),
            4 => self.run::<S, 4, 6, 4>(simd),
            _ => self.run::<S, CHANNELS, 1, 1>(simd),
        }
    }
}

impl Convolution<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const WIDE: usize, const NARROW: usize>(mut self, simd: S) {
        let Shape { height, width, .. } = self.output.shape();
        for y in 0..height {
            for to in 0..self.filter.to {
                let mut x = 0;
                while x < width {
                    x += match width - x {
                        left if left >= WIDE => self.tile::<S, V, WIDE>(simd, to, y, x),
                        left if left >= NARROW => self.tile::<S, V, NARROW>(simd, to, y, x),
                        left if left >= 4 => self.tile::<S, V, 4>(simd, to, y, x),
                        _ => self.tile::<S, V, 1>(simd, to, y, x),
                    };
                }
            }
        }
    }

    /// `PIXELS` outputs of one row; returns how many that were.
    #[inline(always)]
    fn tile<S: Simd, const V: usize, const PIXELS: usize>(
        &mut self,
        simd: S,
        to: usize,
        y: usize,
        x: usize,
    ) -> usize {
        let Filter { size, from, .. } = self.filter;
        let output = &mut self.output.row_mut(to, y)[x..x + PIXELS];
        let mut sums = [[simd.splat_f32s(0.0); V]; PIXELS];
        for (sums, output) in sums.iter_mut().zip(output.iter()) {
            *sums = match self.begin {
                Begin::Bias(bias) => vectors::<S, V>(&bias[to]),
                Begin::Output => vectors::<S, V>(output),
            };
        }
        let stride = self.input.columns();
        // A kernel of 1 looks at the pixel itself, one of 3 begins in the margin.
        let corner = MARGIN - size / 2;
        for tap in 0..size * size {
            let start = (y + corner + tap / size) * stride + x + corner + tap % size;
            for block in 0..from {
                let pixels = &self.input.padded_plane(block)[start..start + PIXELS];
                let weights = &self.weights[self.filter.weights_at(to, tap, block)..][..CHANNELS];
                for (channel, weights) in weights.iter().enumerate() {
                    let weights = vectors::<S, V>(weights);
                    for (sums, pixel) in sums.iter_mut().zip(pixels) {
                        let value = simd.splat_f32s(pixel.0[channel]);
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = simd.mul_add_f32s(value, weight, *sum);
                        }
                    }
                }
            }
        }
        for (sums, output) in sums.iter().zip(output) {
            keep::<S, V>(output, *sums);
        }
        PIXELS
    }
}

/// Pixels after which the gradient goes on to the next tap: enough to make loading and storing
/// the sums cheap, few enough to stay in the first-level cache.
const BAND_PIXELS: usize = 192;

struct WeightGradient<'a> {
    filter: Filter,
    input: &'a Planes,
    gradient: &'a Planes,
    sums: &'a mut [Block],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1, 16>(simd),
            8 => self.run::<S, 2, 4>(simd),
            4 => self.run::<S, 4, 4>(simd),
            _ => self.run::<S, CHANNELS, 1>(simd),
        }
    }
}

impl WeightGradient<'_> {
    #[inline(always)]
    fn run<S: Simd, const V: usize, const GROUP: usize>(self, simd: S) {
        let Filter { size, from, to } = self.filter;
        let Shape { height, width, .. } = self.input.shape();
        let stride = self.input.columns();
        let corner = MARGIN - size / 2;
        let band = (BAND_PIXELS / width).max(1);
        for top in (0..height).step_by(band) {
            let rows = top..(top + band).min(height);
            for to in 0..to {
                for block in 0..from {
                    let plane = self.input.padded_plane(block);
                    for tap in 0..size * size {
                        let at = self.filter.weights_at(to, tap, block);
                        let sums = &mut self.sums[at..at + CHANNELS];
                        for (group, sums) in sums.chunks_exact_mut(GROUP).enumerate() {
                            let mut tile = [[simd.splat_f32s(0.0); V]; GROUP];
                            for (tile, sum) in tile.iter_mut().zip(sums.iter()) {
                                *tile = vectors::<S, V>(sum);
                            }
                            for y in rows.clone() {
                                let start =
                                    (y + corner + tap / size) * stride + corner + tap % size;
                                let input = &plane[start..start + width];
                                for (pixel, gradient) in input.iter().zip(self.gradient.row(to, y))
                                {
                                    let gradient = vectors::<S, V>(gradient);
                                    let values = &pixel.0.as_chunks::<GROUP>().0[group];
                                    for (tile, &value) in tile.iter_mut().zip(values) {
                                        let value = simd.splat_f32s(value);
                                        for (sum, gradient) in tile.iter_mut().zip(gradient) {
                                            *sum = simd.mul_add_f32s(value, gradient, *sum);
                                        }
                                    }
                                }
                            }
                            for (tile, sum) in tile.iter().zip(sums) {
                                keep::<S, V>(sum, *tile);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The vectors of a block.
#[inline(always)]
fn vectors<S: Simd, const V: usize>(block: &Block) -> [S::f32s; V] {
    std::array::from_fn(|n| load::<S>(block, n))
}

/// Writes the vectors of a block.
#[inline(always)]
fn keep<S: Simd, const V: usize>(block: &mut Block, values: [S::f32s; V]) {
    for (n, value) in values.into_iter().enumerate() {
        store::<S>(block, n, value);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random_planes(blocks: usize, height: usize, width: usize, rng: &mut ChaCha8Rng) -> Planes {
        let mut planes = planes(blocks, height, width);
        for (block, y) in planes.rows() {
            planes.row_mut(block, y).fill_with(|| random_block(rng));
        }
        planes
    }

    fn random_block(rng: &mut ChaCha8Rng) -> Block {
        Block(std::array::from_fn(|_| rng.random_range(-1.0..1.0)))
    }

    /// Σ of products over all values of two stacks of planes.
    fn product(a: &Planes, b: &Planes) -> f64 {
        a.rows().map(|(block, y)| blocks_product(a.row(block, y), b.row(block, y))).sum()
    }

    fn blocks_product(a: &[Block], b: &[Block]) -> f64 {
        let pairs = a.iter().flat_map(|a| a.0).zip(b.iter().flat_map(|b| b.0));
        pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
    }

    /// By the definition, one output at a time.
    fn slow(
        filter: Filter,
        input: &Planes,
        weights: &[Block],
        to: usize,
        y: usize,
        x: usize,
    ) -> f64 {
        let stride = input.columns();
        let mut sum = 0.0;
        for tap in 0..filter.taps() {
            let (row, column) = (tap / filter.size, tap % filter.size);
            let at = (y + 1 + row - filter.size / 2) * stride + x + 1 + column - filter.size / 2;
            for from in 0..filter.from * CHANNELS {
                let weight = weights
                    [filter.weights_at(to / CHANNELS, tap, from / CHANNELS) + from % CHANNELS];
                let value = input.padded_plane(from / CHANNELS)[at].0[from % CHANNELS];
                sum += f64::from(weight.0[to % CHANNELS]) * f64::from(value);
            }
        }
        sum
    }

    #[test]
    fn a_convolution_is_what_its_definition_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (size, from, to, height, width) in
            [(3, 1, 2, 3, 27), (1, 3, 1, 2, 12), (3, 2, 1, 1, 1), (3, 1, 1, 5, 7)]
        {
            let filter = Filter { size, from, to };
            let input = random_planes(from, height, width, &mut rng);
            let mut weights = vec![Block::ZERO; filter.weight_blocks()];
            weights.fill_with(|| random_block(&mut rng));
            let bias = vec![Block([0.5; CHANNELS]); to];
            let mut output = planes(to, height, width);
            convolve(filter, &input, &weights, Begin::Bias(&bias), &mut output);
            convolve(filter, &input, &weights, Begin::Output, &mut output);
            for (block, y) in output.rows() {
                for (x, pixel) in output.row(block, y).iter().enumerate() {
                    for (lane, &value) in pixel.0.iter().enumerate() {
                        let to = block * CHANNELS + lane;
                        let expected = 0.5 + 2.0 * slow(filter, &input, &weights, to, y, x);
                        let error = (f64::from(value) - expected).abs();
                        assert!(error < 1e-4, "{filter:?} at ({x}, {y}): {value} {expected}");
                    }
                }
            }
        }
    }

    /// A convolution is linear in its input and in its weights, so its gradients are right when
    /// they give the same products: ⟨conv(x, w), g⟩ = ⟨x, back(g)⟩ = ⟨w, gradient(x, g)⟩.
    #[test]
    fn gradients_are_the_transposes_of_the_convolution() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for (size, from, to, height, width) in [(3, 2, 1, 6, 13), (1, 1, 3, 4, 5)] {
            let filter = Filter { size, from, to };
            let input = random_planes(from, height, width, &mut rng);
            let gradient = random_planes(to, height, width, &mut rng);
            let mut weights = vec![Block::ZERO; filter.weight_blocks()];
            weights.fill_with(|| random_block(&mut rng));
            let mut output = planes(to, height, width);
            let zeros = [Block::ZERO; 3];
            convolve(filter, &input, &weights, Begin::Bias(&zeros), &mut output);
            let expected = product(&output, &gradient);

            let (back, back_weights) = transposed(filter, &weights);
            let mut by_input = planes(from, height, width);
            convolve(back, &gradient, &back_weights, Begin::Bias(&zeros), &mut by_input);
            let by_input = product(&input, &by_input);
            assert!((by_input - expected).abs() < 1e-3, "{by_input} {expected}");

            let mut by_weights = vec![Block::ZERO; weights.len()];
            add_weight_gradient(filter, &input, &gradient, &mut by_weights);
            let by_weights = blocks_product(&weights, &by_weights);
            assert!((by_weights - expected).abs() < 1e-3, "{by_weights} {expected}");
        }
    }
}
