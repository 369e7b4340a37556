//! 3×3 convolution with a quarter of the multiplications: Winograd's minimal filtering
//! F(4×4, 3×3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016,
//! section 4.3).
//!
//! Every output tile of 4×4 pixels is made from 6×6 input pixels `d` and the kernel `g`:
//!
//! ```text
//! Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A
//! ```
//!
//! `G g Gᵀ` is computed once. The product ⊙ is summed over input channels, so that for each
//! of the 36 places of a tile it is a product of matrices: tiles × input channels × output
//! channels. Tiles go in groups, so that both sides of the products stay in the cache.
//!
//! Rounding: with 16 to 96 channels the largest error is 1e-5 to 4e-5 for outputs up to about
//! 4, six to ten times that of the direct sum; in the maps of the shipped network 4.5e-6
//! (direct: 1.0e-6). F(6×6, 3×3) would save another fifth of the multiplications and lose
//! another digit.

use pulp::{Simd, WithSimd};

use super::direct::pack;
use super::resample::Pooling;
use super::vector::{Finish, Sums, Weights, accumulate};
use crate::block::{Block, CHANNELS, load, store};
use crate::graph::{Conv, Window};
use crate::planes::{Planes, TILE};

/// Width and height of the input of a tile.
const PATCH: usize = TILE + 2;

/// Places of a patch.
const PLACES: usize = PATCH * PATCH;

/// Tiles of a group. A multiple of every `P` below. Few, so that a group of 64 channels (two
/// arrays of 36 · 24 · 64 values) and its weights stay in a cache of 1 MiB; from 8 to 48 the
/// time differs by less than 7%, with 24 the lowest.
const GROUP: usize = 24;

/// A 3×3 convolution with stride 1 and one pixel of zeros around the input.
#[derive(Debug)]
pub(super) struct Winograd {
    /// Blocks of input channels.
    inputs: usize,
    /// Blocks of output channels.
    outputs: usize,
    /// `G g Gᵀ` as `[place][output block][input block]`.
    weights: Vec<Weights>,
}

/// Products for each pair of channels, on a map of `height × width`.
pub(super) fn products(height: usize, width: usize) -> usize {
    height.div_ceil(TILE) * width.div_ceil(TILE) * PLACES
}

/// What lies between the transforms, for one group of tiles.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `Bᵀ d B` as `[input block][place][tile]`.
    patches: Vec<Block>,
    /// Sums of products as `[output block][place][tile]`.
    products: Vec<Block>,
}

impl Scratch {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.patches[..]) + size_of_val(&self.products[..])
    }
}

/// Blocks from one place to the next: an odd number, or the 36 of a tile would all fall into
/// the same few sets of the first cache.
const PITCH: usize = GROUP + 1;

/// From the first place of a tile to the last one.
const SPREAD: usize = (PLACES - 1) * PITCH + 1;

impl Winograd {
    /// Whether it computes what `conv` asks for.
    pub(super) fn fits(conv: &Conv) -> bool {
        conv.window == Window { size: 3, stride: 1, pad: 1 }
    }

    pub(super) fn new(conv: &Conv) -> Self {
        let inputs = conv.inputs.div_ceil(CHANNELS);
        let outputs = conv.outputs.div_ceil(CHANNELS);
        let mut weights = Vec::with_capacity(PLACES * outputs * inputs);
        for place in 0..PLACES {
            let (y, x) = (place / PATCH, place % PATCH);
            for output in 0..outputs {
                weights.extend((0..inputs).map(|input| {
                    pack(|from, to| {
                        transformed(conv, CHANNELS * output + to, CHANNELS * input + from, y, x)
                    })
                }));
            }
        }
        Self { inputs, outputs, weights }
    }

    /// Makes `scratch` large enough.
    pub(super) fn reserve(&self, scratch: &mut Scratch) {
        let grow = |data: &mut Vec<Block>, blocks: usize| {
            let length = blocks * PLACES * PITCH;
            data.resize(length.max(data.len()), Block::ZERO);
        };
        grow(&mut scratch.patches, self.inputs);
        grow(&mut scratch.products, self.outputs);
    }
}

/// (`G g Gᵀ`) at (`y`, `x`), in f64 since it costs nothing here.
fn transformed(conv: &Conv, output: usize, input: usize, y: usize, x: usize) -> f32 {
    const G: [[f64; 3]; PATCH] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let mut sum = 0.0;
    for ky in 0..3 {
        for kx in 0..3 {
            sum += G[y][ky] * f64::from(conv.weight(output, input, ky, kx)) * G[x][kx];
        }
    }
    sum as f32
}

/// `Bᵀ d` for one column or row.
#[inline(always)]
fn into_patch<S: Simd>(simd: S, d: [S::f32s; PATCH]) -> [S::f32s; PATCH] {
    let (two, four) = (simd.splat_f32s(2.0), simd.splat_f32s(4.0));
    let (minus_two, minus_four) = (simd.splat_f32s(-2.0), simd.splat_f32s(-4.0));
    let minus_five = simd.splat_f32s(-5.0);
    let [d0, d1, d2, d3, d4, d5] = d;
    let even = simd.mul_add_f32s(minus_four, d2, d4);
    let odd = simd.mul_add_f32s(minus_four, d1, d3);
    let near = simd.sub_f32s(d4, d2);
    let far = simd.sub_f32s(d3, d1);
    [
        simd.mul_add_f32s(four, d0, simd.mul_add_f32s(minus_five, d2, d4)),
        simd.add_f32s(even, odd),
        simd.sub_f32s(even, odd),
        simd.mul_add_f32s(two, far, near),
        simd.mul_add_f32s(minus_two, far, near),
        simd.mul_add_f32s(four, d1, simd.mul_add_f32s(minus_five, d3, d5)),
    ]
}

/// `Aᵀ m` for one column or row.
#[inline(always)]
fn into_tile<S: Simd>(simd: S, m: [S::f32s; PATCH]) -> [S::f32s; TILE] {
    let [m0, m1, m2, m3, m4, m5] = m;
    let (sum, difference) = (simd.add_f32s(m1, m2), simd.sub_f32s(m1, m2));
    let (far_sum, far_difference) = (simd.add_f32s(m3, m4), simd.sub_f32s(m3, m4));
    [
        simd.add_f32s(simd.add_f32s(m0, sum), far_sum),
        simd.mul_add_f32s(simd.splat_f32s(2.0), far_difference, difference),
        simd.mul_add_f32s(simd.splat_f32s(4.0), far_sum, sum),
        simd.add_f32s(simd.mul_add_f32s(simd.splat_f32s(8.0), far_difference, difference), m5),
    ]
}

/// One convolution to be done.
pub(super) struct Run<'a> {
    pub(super) winograd: &'a Winograd,
    pub(super) input: &'a Planes,
    pub(super) scratch: &'a mut Scratch,
    pub(super) finish: Finish<'a>,
    pub(super) output: &'a mut Planes,
    pub(super) pooling: Option<Pooling<'a>>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
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
        let across = shape.width.div_ceil(TILE);
        let tiles = across * shape.height.div_ceil(TILE);
        for first in (0..tiles).step_by(GROUP) {
            let count = GROUP.min(tiles - first);
            for slot in 0..count {
                let (y, x) = ((first + slot) / across, (first + slot) % across);
                for block in 0..self.winograd.inputs {
                    for n in 0..N {
                        self.transform(simd, block, n, (slot, TILE * y, TILE * x));
                    }
                }
            }
            for place in 0..PLACES {
                let mut block = 0;
                while block + B <= self.winograd.outputs {
                    self.multiply::<S, P, B, N>(simd, place, block, count);
                    block += B;
                }
                while block < self.winograd.outputs {
                    self.multiply::<S, P, 1, N>(simd, place, block, count);
                    block += 1;
                }
            }
            for slot in 0..count {
                let (y, x) = ((first + slot) / across, (first + slot) % across);
                for block in 0..self.winograd.outputs {
                    self.collect::<S, N>(simd, block, (slot, TILE * y, TILE * x));
                }
            }
            if let Some(pooling) = &mut self.pooling {
                pooling.catch_up(simd, self.output, TILE * ((first + count) / across));
            }
        }
    }

    /// `Bᵀ d B` of the patch for the tile at (`y`, `x`), one vector of one block.
    #[inline(always)]
    fn transform<S: Simd>(
        &mut self,
        simd: S,
        block: usize,
        n: usize,
        (slot, y, x): (usize, usize, usize),
    ) {
        // A patch begins one pixel above and left of its tile.
        let corner = self.input.margin() - 1;
        let mut half = [[simd.splat_f32s(0.0); PATCH]; PATCH];
        for row in 0..PATCH {
            let pixels: &[Block; PATCH] = self.input.padded_row(block, corner + y + row)
                [corner + x..]
                .first_chunk()
                .expect("maps are filled up to whole tiles");
            let mut values = [simd.splat_f32s(0.0); PATCH];
            for column in 0..PATCH {
                values[column] = load::<S>(&pixels[column], n);
            }
            half[row] = into_patch(simd, values);
        }
        let patches: &mut [Block; SPREAD] = self.scratch.patches[block * PLACES * PITCH + slot..]
            .first_chunk_mut()
            .expect("the workspace has room for all blocks");
        for column in 0..PATCH {
            let mut values = [simd.splat_f32s(0.0); PATCH];
            for row in 0..PATCH {
                values[row] = half[row][column];
            }
            let values = into_patch(simd, values);
            for row in 0..PATCH {
                store::<S>(&mut patches[(row * PATCH + column) * PITCH], n, values[row]);
            }
        }
    }

    /// Sums over input channels, for one place of all tiles and `B` blocks of output channels.
    #[inline(always)]
    fn multiply<S: Simd, const P: usize, const B: usize, const N: usize>(
        &mut self,
        simd: S,
        place: usize,
        block: usize,
        count: usize,
    ) {
        let &Winograd { inputs, outputs, ref weights } = self.winograd;
        let weights: [&[Weights]; B] =
            std::array::from_fn(|b| &weights[(place * outputs + block + b) * inputs..][..inputs]);
        // Slots after `count` hold old values; what comes of them is not used.
        for slot in (0..count).step_by(P) {
            let mut sums: Sums<S, P, B, N> = [[[simd.splat_f32s(0.0); N]; B]; P];
            for input in 0..inputs {
                let pixels = self.scratch.patches[(input * PLACES + place) * PITCH + slot..]
                    .first_chunk()
                    .expect("P divides the group");
                let weights = std::array::from_fn(|b| &weights[b][input]);
                accumulate::<S, P, B, N>(simd, &mut sums, pixels, weights);
            }
            for b in 0..B {
                let place = (block + b) * PLACES + place;
                let products: &mut [Block; P] = self.scratch.products[place * PITCH + slot..]
                    .first_chunk_mut()
                    .expect("P divides the group");
                for p in 0..P {
                    for n in 0..N {
                        store::<S>(&mut products[p], n, sums[p][b][n]);
                    }
                }
            }
        }
    }

    /// `Aᵀ M A` of one tile, to the output.
    #[inline(always)]
    fn collect<S: Simd, const N: usize>(
        &mut self,
        simd: S,
        block: usize,
        (slot, y, x): (usize, usize, usize),
    ) {
        let zero = simd.splat_f32s(0.0);
        let products: &[Block; SPREAD] = self.scratch.products[block * PLACES * PITCH + slot..]
            .first_chunk()
            .expect("the workspace has room for all blocks");
        let mut tile = [[[zero; N]; TILE]; TILE];
        for n in 0..N {
            let mut half = [[zero; PATCH]; TILE];
            for column in 0..PATCH {
                let mut values = [zero; PATCH];
                for row in 0..PATCH {
                    values[row] = load::<S>(&products[(row * PATCH + column) * PITCH], n);
                }
                let values = into_tile(simd, values);
                for row in 0..TILE {
                    half[row][column] = values[row];
                }
            }
            for row in 0..TILE {
                let values = into_tile(simd, half[row]);
                for column in 0..TILE {
                    tile[row][column][n] = values[column];
                }
            }
        }
        let shape = self.output.shape();
        let columns = TILE.min(shape.width - x);
        for row in 0..TILE {
            if y + row < shape.height {
                self.finish.put(simd, tile[row], self.output, (block, y + row, x), columns);
            }
        }
    }
}
