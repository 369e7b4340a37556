//! Convolution of any kernel and stride, straight from its definition.
//!
//! Sums of a few pixels times a few blocks of output channels stay in registers while all
//! weights pass by; every weight loaded serves all pixels of the group, every input loaded
//! all output channels. Used for 1×1, and for whatever [`super::winograd`] cannot do.

use pulp::{Simd, WithSimd};

use super::resample::Pooling;
use super::vector::{Finish, Sums, Weights, accumulate};
use crate::block::{Block, CHANNELS};
use crate::graph::{Conv, Window};
use crate::planes::Planes;

/// A convolution with its weights in the order in which they are used.
#[derive(Debug)]
pub(super) struct Direct {
    /// Blocks of input channels.
    inputs: usize,
    window: Window,
    /// `[output block][y][x][input block]`.
    weights: Vec<Weights>,
}

impl Direct {
    pub(super) fn new(conv: &Conv) -> Self {
        let inputs = conv.inputs.div_ceil(CHANNELS);
        let mut weights = Vec::new();
        for output in 0..conv.outputs.div_ceil(CHANNELS) {
            for y in 0..conv.window.size {
                for x in 0..conv.window.size {
                    weights.extend((0..inputs).map(|input| {
                        pack(|from, to| {
                            conv.weight(CHANNELS * output + to, CHANNELS * input + from, y, x)
                        })
                    }));
                }
            }
        }
        Self { inputs, window: conv.window, weights }
    }
}

/// Weights from sixteen input to sixteen output channels.
pub(super) fn pack(weight: impl Fn(usize, usize) -> f32) -> Weights {
    std::array::from_fn(|from| Block(std::array::from_fn(|to| weight(from, to))))
}

/// One convolution to be done.
pub(super) struct Run<'a> {
    pub(super) direct: &'a Direct,
    pub(super) input: &'a Planes,
    pub(super) finish: Finish<'a>,
    /// Every pixel of the result becomes 2×2.
    pub(super) doubled: bool,
    pub(super) output: &'a mut Planes,
    pub(super) pooling: Option<Pooling<'a>>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Pixels, blocks and vectors of a block: as many sums as there are registers, less
        // those for weights and input (32 with AVX-512 and NEON, 16 with AVX2).
        match S::F32_LANES {
            16 => self.all::<S, 8, 2, 1>(simd),
            8 => self.all::<S, 6, 1, 2>(simd),
            4 => self.all::<S, 6, 1, 4>(simd),
            _ => self.all::<S, 1, 1, 16>(simd),
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    fn all<S: Simd, const P: usize, const B: usize, const N: usize>(mut self, simd: S) {
        let shape = self.output.shape();
        let factor = if self.doubled { 2 } else { 1 };
        let (height, width) = (shape.height / factor, shape.width / factor);
        for y in 0..height {
            let mut block = 0;
            while block + B <= shape.blocks() {
                self.line::<S, P, B, N>(simd, block, y, width);
                block += B;
            }
            while block < shape.blocks() {
                self.line::<S, P, 1, N>(simd, block, y, width);
                block += 1;
            }
            if let Some(pooling) = &mut self.pooling {
                pooling.catch_up(simd, self.output, factor * (y + 1));
            }
        }
    }

    /// Row `y` of `B` blocks of output channels.
    #[inline(always)]
    fn line<S: Simd, const P: usize, const B: usize, const N: usize>(
        &mut self,
        simd: S,
        block: usize,
        y: usize,
        width: usize,
    ) {
        let mut x = 0;
        while x + P <= width {
            self.group::<S, P, B, N>(simd, block, y, x);
            x += P;
        }
        while x < width {
            self.group::<S, 1, B, N>(simd, block, y, x);
            x += 1;
        }
    }

    /// `P` pixels from `x` on.
    #[inline(always)]
    fn group<S: Simd, const P: usize, const B: usize, const N: usize>(
        &mut self,
        simd: S,
        block: usize,
        y: usize,
        x: usize,
    ) {
        let &Direct { inputs, window: Window { size, stride, pad }, ref weights } = self.direct;
        let corner = self.input.margin() - pad;
        let taps = size * size * inputs;
        let mut sums: Sums<S, P, B, N> = [[[simd.splat_f32s(0.0); N]; B]; P];
        let mut tap = 0;
        for ky in 0..size {
            for kx in 0..size {
                for input in 0..inputs {
                    let row = self.input.padded_row(input, corner + y * stride + ky);
                    let weights: [&Weights; B] =
                        std::array::from_fn(|b| &weights[(block + b) * taps + tap]);
                    tap += 1;
                    if stride == 1 {
                        let pixels = row[corner + kx + x..]
                            .first_chunk()
                            .expect("the margin is as wide as the pad");
                        accumulate::<S, P, B, N>(simd, &mut sums, pixels, weights);
                    } else {
                        let pixels = std::array::from_fn(|p| row[corner + kx + (x + p) * stride]);
                        accumulate::<S, P, B, N>(simd, &mut sums, &pixels, weights);
                    }
                }
            }
        }
        for b in 0..B {
            let values: [[S::f32s; N]; P] = std::array::from_fn(|p| sums[p][b]);
            let at = (block + b, y, x);
            if self.doubled {
                self.finish.put_doubled(simd, values, self.output, at);
            } else {
                self.finish.put(simd, values, self.output, at, P);
            }
        }
    }
}
