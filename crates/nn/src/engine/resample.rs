//! What is neither a convolution nor part of one: pooling, and additions, doublings and
//! activations that no convolution could take along.

use pulp::{Simd, WithSimd};

use super::vector::Finish;
use crate::block::load;
use crate::planes::Planes;

/// The largest of every 2×2 pixels of a map that is being written: a row is read as soon as it
/// is there, while the cache still has it.
pub(super) struct Pooling<'a> {
    output: &'a mut Planes,
    /// Rows of the output that are written.
    done: usize,
}

impl<'a> Pooling<'a> {
    pub(super) fn new(output: &'a mut Planes) -> Self {
        Self { output, done: 0 }
    }

    /// Goes on as far as the first `rows` rows of `input` allow.
    #[inline(always)]
    pub(super) fn catch_up<S: Simd>(&mut self, simd: S, input: &Planes, rows: usize) {
        let shape = self.output.shape();
        let until = shape.height.min(rows / 2);
        for y in self.done..until {
            for block in 0..shape.blocks() {
                let upper = input.row(block, 2 * y).chunks_exact(2);
                let lower = input.row(block, 2 * y + 1).chunks_exact(2);
                let output = self.output.row_mut(block, y).iter_mut();
                for ((output, upper), lower) in output.zip(upper).zip(lower) {
                    let output = S::as_mut_simd_f32s(&mut output.0).0;
                    for (n, output) in output.iter_mut().enumerate() {
                        let left = simd.max_f32s(load::<S>(&upper[0], n), load::<S>(&lower[0], n));
                        let right = simd.max_f32s(load::<S>(&upper[1], n), load::<S>(&lower[1], n));
                        *output = simd.max_f32s(left, right);
                    }
                }
            }
        }
        self.done = until.max(self.done);
    }
}

/// Pooling of a map that was there before.
pub(super) struct Pool<'a> {
    pub(super) input: &'a Planes,
    pub(super) output: &'a mut Planes,
}

impl WithSimd for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        Pooling::new(self.output).catch_up(simd, self.input, self.input.shape().height);
    }
}

/// A map, doubled if asked for, finished as a convolution would be.
pub(super) struct Pass<'a> {
    pub(super) input: &'a Planes,
    pub(super) finish: Finish<'a>,
    pub(super) doubled: bool,
    pub(super) output: &'a mut Planes,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.all::<S, 1>(simd),
            8 => self.all::<S, 2>(simd),
            4 => self.all::<S, 4>(simd),
            _ => self.all::<S, 16>(simd),
        }
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn all<S: Simd, const N: usize>(self, simd: S) {
        let shape = self.input.shape();
        for block in 0..shape.blocks() {
            for y in 0..shape.height {
                for (x, pixel) in self.input.row(block, y).iter().enumerate() {
                    let values: [[S::f32s; N]; 1] = [std::array::from_fn(|n| load::<S>(pixel, n))];
                    if self.doubled {
                        self.finish.put_doubled(simd, values, self.output, (block, y, x));
                    } else {
                        self.finish.put(simd, values, self.output, (block, y, x), 1);
                    }
                }
            }
        }
    }
}
