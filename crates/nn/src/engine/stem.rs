//! The first convolution: from an image of few channels, any kernel and stride.
//!
//! With one channel there is nothing to put side by side in the input, so the image is first
//! split into its phases: column `x` goes to phase `x % stride` at `x / stride`. Then the
//! inputs of neighbouring output pixels lie next to each other for every tap of the kernel,
//! whatever the stride.

use pulp::{Simd, WithSimd};

use super::resample::Pooling;
use super::vector::{Finish, Sums};
use crate::block::{Block, CHANNELS, load};
use crate::graph::{Conv, Window};
use crate::planes::Planes;

/// The convolution with its weights in the order in which they are used.
#[derive(Debug)]
pub(super) struct Stem {
    channels: usize,
    window: Window,
    /// `[output block][channel][y][x]`.
    weights: Vec<Block>,
}

/// The image split into phases, with zeros around it: `[channel][y][phase][x / stride]`.
#[derive(Debug)]
pub(super) struct Phases {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
    data: Vec<f32>,
    /// For each tap of the kernel, `[channel][y][x]`, where the first output pixel finds it.
    taps: Vec<usize>,
}

impl Phases {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }
}

impl Stem {
    pub(super) fn new(conv: &Conv) -> Self {
        let size = conv.window.size;
        let mut weights = Vec::new();
        for output in 0..conv.outputs.div_ceil(CHANNELS) {
            for channel in 0..conv.inputs {
                for tap in 0..size * size {
                    let (y, x) = (tap / size, tap % size);
                    weights.push(Block(std::array::from_fn(|to| {
                        conv.weight(CHANNELS * output + to, channel, y, x)
                    })));
                }
            }
        }
        Self { channels: conv.inputs, window: conv.window, weights }
    }

    /// Room for an image of `height × width`.
    pub(super) fn phases(&self, height: usize, width: usize) -> Phases {
        let Window { stride, pad, .. } = self.window;
        let rows = height + 2 * pad;
        // One more, for the part of a stride at the right.
        let columns = (width + 2 * pad) / stride + 1;
        let data = vec![0.0; self.channels * rows * stride * columns];
        let size = self.window.size;
        let tap = |tap: usize| {
            let (channel, ky, kx) = (tap / size / size, tap / size % size, tap % size);
            ((channel * rows + ky) * stride + kx % stride) * columns + kx / stride
        };
        let taps = (0..self.channels * size * size).map(tap).collect();
        Phases { height, width, rows, columns, data, taps }
    }

    /// Splits `image`, `[channel][y][x]`.
    pub(super) fn split(&self, image: &[f32], phases: &mut Phases) {
        let Window { stride, pad, .. } = self.window;
        let &mut Phases { height, width, rows, columns, ref mut data, .. } = phases;
        assert_eq!(image.len(), self.channels * height * width, "pixels of the image");
        for (line, pixels) in image.chunks_exact(width).enumerate() {
            let row = line / height * rows + line % height + pad;
            for phase in 0..stride {
                // The first column of this phase that is in the image, not in the zeros.
                let first = (phase + stride - pad % stride) % stride;
                let start = (row * stride + phase) * columns + (first + pad) / stride;
                let (pixels, out) = (&pixels[first.min(width)..], &mut data[start..]);
                match stride {
                    2 => take_every::<2>(pixels, out),
                    4 => take_every::<4>(pixels, out),
                    _ => {
                        for (out, pixel) in out.iter_mut().zip(pixels.iter().step_by(stride)) {
                            *out = *pixel;
                        }
                    }
                }
            }
        }
    }
}

/// Every `S`-th pixel, with a distance that the compiler knows and makes vectors of.
fn take_every<const S: usize>(pixels: &[f32], out: &mut [f32]) {
    let (whole, rest) = pixels.as_chunks::<S>();
    for (out, pixels) in out.iter_mut().zip(whole) {
        *out = pixels[0];
    }
    if let Some(pixel) = rest.first() {
        out[whole.len()] = *pixel;
    }
}

/// One convolution to be done.
pub(super) struct Run<'a> {
    pub(super) stem: &'a Stem,
    pub(super) phases: &'a Phases,
    pub(super) finish: Finish<'a>,
    pub(super) output: &'a mut Planes,
    pub(super) pooling: Option<Pooling<'a>>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.all::<S, 8, 1>(simd),
            8 => self.all::<S, 4, 2>(simd),
            4 => self.all::<S, 4, 4>(simd),
            _ => self.all::<S, 1, 16>(simd),
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    fn all<S: Simd, const P: usize, const N: usize>(mut self, simd: S) {
        let shape = self.output.shape();
        for y in 0..shape.height {
            for block in 0..shape.blocks() {
                let mut x = 0;
                while x + P <= shape.width {
                    self.group::<S, P, N>(simd, block, y, x);
                    x += P;
                }
                while x < shape.width {
                    self.group::<S, 1, N>(simd, block, y, x);
                    x += 1;
                }
            }
            if let Some(pooling) = &mut self.pooling {
                pooling.catch_up(simd, self.output, y + 1);
            }
        }
    }

    /// `P` pixels from `x` on.
    #[inline(always)]
    fn group<S: Simd, const P: usize, const N: usize>(
        &mut self,
        simd: S,
        block: usize,
        y: usize,
        x: usize,
    ) {
        let Phases { columns, data, taps, .. } = self.phases;
        let stride = self.stem.window.stride;
        let data = &data[y * stride * stride * columns + x..];
        let weights = &self.stem.weights[block * taps.len()..];
        let mut sums: Sums<S, P, 1, N> = [[[simd.splat_f32s(0.0); N]; 1]; P];
        for (&tap, weights) in taps.iter().zip(weights) {
            let pixels: &[f32; P] =
                data[tap..].first_chunk().expect("the zeros are as wide as the pad");
            for n in 0..N {
                let weight = load::<S>(weights, n);
                for p in 0..P {
                    let input = simd.splat_f32s(pixels[p]);
                    sums[p][0][n] = simd.mul_add_f32s(input, weight, sums[p][0][n]);
                }
            }
        }
        let values: [[S::f32s; N]; P] = std::array::from_fn(|p| sums[p][0]);
        self.finish.put(simd, values, self.output, (block, y, x), P);
    }
}
