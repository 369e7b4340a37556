//! What the kernels share: multiply and accumulate, and what is done with a finished value before it
//! is stored.
//!
//! Everything here is `inline(always)`: it must become part of a function that pulp compiled
//! for the vector extension at hand.
//!
//! Products are fused: `mul_add_f32s`, never `mul_add_e_f32s`, which rounds the product where the
//! processor has no fused multiply-add, and so gives other last digits there.

use pulp::Simd;

use crate::block::{Block, CHANNELS, load, store};
use crate::planes::Planes;

/// Weights of sixteen input channels (outer) for sixteen output channels.
pub(super) type Weights = [Block; CHANNELS];

/// Sums of `P` pixels, each for `B` blocks of output channels, each of `N` vectors.
pub(super) type Sums<S, const P: usize, const B: usize, const N: usize> =
    [[[<S as Simd>::f32s; N]; B]; P];

/// Adds to `sums` what sixteen input channels of `P` pixels give.
#[inline(always)]
pub(super) fn accumulate<S: Simd, const P: usize, const B: usize, const N: usize>(
    simd: S,
    sums: &mut Sums<S, P, B, N>,
    pixels: &[Block; P],
    weights: [&Weights; B],
) {
    for k in 0..CHANNELS {
        // Weights first, then one pixel at a time: with 16 registers there is room for all
        // weights of `k`, but not for all pixels.
        let mut row = [[simd.splat_f32s(0.0); N]; B];
        for b in 0..B {
            for n in 0..N {
                row[b][n] = load::<S>(&weights[b][k], n);
            }
        }
        for p in 0..P {
            let input = simd.splat_f32s(pixels[p].0[k]);
            for b in 0..B {
                for n in 0..N {
                    sums[p][b][n] = simd.mul_add_f32s(input, row[b][n], sums[p][b][n]);
                }
            }
        }
    }
}

/// What follows a convolution and is done while its result is still in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Activation {
    #[default]
    None,
    Relu,
    Sigmoid,
}

/// What is added before the activation.
#[derive(Clone, Copy)]
pub(super) enum Addend<'a> {
    Nothing,
    Map(&'a Planes),
    /// What stood in the output before.
    Output,
}

/// The last part of a step: `activation(value + bias + add)`.
pub(super) struct Finish<'a> {
    /// One for each block of output channels, or nothing at all.
    pub(super) bias: &'a [Block],
    pub(super) add: Addend<'a>,
    pub(super) activation: Activation,
}

impl Finish<'_> {
    /// The first `count` of `values`, for output block `block` at row `y` from pixel `x` on,
    /// are finished and stored.
    #[inline(always)]
    pub(super) fn put<S: Simd, const P: usize, const N: usize>(
        &self,
        simd: S,
        mut values: [[S::f32s; N]; P],
        output: &mut Planes,
        (block, y, x): (usize, usize, usize),
        count: usize,
    ) {
        // All pixels through one stage, then the next: one test for each stage and group.
        if let Some(bias) = self.bias.get(block) {
            for p in 0..P {
                for n in 0..N {
                    values[p][n] = simd.add_f32s(values[p][n], load::<S>(bias, n));
                }
            }
        }
        let added: Option<&[Block; P]> = match self.add {
            Addend::Nothing => None,
            Addend::Map(map) => Some(map.pixels(block, y, x)),
            Addend::Output => Some(output.pixels(block, y, x)),
        };
        if let Some(added) = added {
            for p in 0..P {
                for n in 0..N {
                    values[p][n] = simd.add_f32s(values[p][n], load::<S>(&added[p], n));
                }
            }
        }
        activate(simd, self.activation, &mut values);
        let pixels: &mut [Block; P] = output.pixels_mut(block, y, x);
        for p in 0..P {
            if p < count {
                for n in 0..N {
                    store::<S>(&mut pixels[p], n, values[p][n]);
                }
            }
        }
    }

    /// As [`Self::put`], but every value is for the 2×2 pixels of an output of twice the
    /// height and width.
    #[inline(always)]
    pub(super) fn put_doubled<S: Simd, const P: usize, const N: usize>(
        &self,
        simd: S,
        values: [[S::f32s; N]; P],
        output: &mut Planes,
        (block, y, x): (usize, usize, usize),
    ) {
        for line in [2 * y, 2 * y + 1] {
            for half in 0..2 {
                let mut spread = values;
                for p in 0..P {
                    spread[p] = values[(half * P + p) / 2];
                }
                self.put(simd, spread, output, (block, line, 2 * x + half * P), P);
            }
        }
    }
}

#[inline(always)]
fn activate<S: Simd, const P: usize, const N: usize>(
    simd: S,
    activation: Activation,
    values: &mut [[S::f32s; N]; P],
) {
    match activation {
        Activation::None => {}
        Activation::Relu => {
            for p in 0..P {
                for n in 0..N {
                    values[p][n] = simd.max_f32s(values[p][n], simd.splat_f32s(0.0));
                }
            }
        }
        Activation::Sigmoid => {
            for p in 0..P {
                for n in 0..N {
                    values[p][n] = sigmoid(simd, values[p][n]);
                }
            }
        }
    }
}

/// `1 / (1 + exp(-x))` to about 1e-7.
#[inline(always)]
fn sigmoid<S: Simd>(simd: S, value: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let power = exp(simd, simd.sub_f32s(simd.splat_f32s(0.0), value));
    simd.div_f32s(one, simd.add_f32s(one, power))
}

/// `exp(x)` with x held within ±87, where neither overflow nor subnormal numbers occur.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `exp(r)` by the polynomial of Cephes (`expf.c`,
/// relative error 2e-7) and `2^n` by writing the exponent.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "as published")]
fn exp<S: Simd>(simd: S, value: S::f32s) -> S::f32s {
    // Adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const POLYNOMIAL: [f32; 6] = [
        1.987_569_15e-4,
        1.398_199_95e-3,
        8.333_451_9e-3,
        4.166_579_6e-2,
        1.666_666_55e-1,
        5.000_000_1e-1,
    ];
    let splat = |value| simd.splat_f32s(value);
    let value = simd.min_f32s(simd.max_f32s(value, splat(-87.0)), splat(87.0));
    let shifted = simd.mul_add_f32s(value, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let whole = simd.sub_f32s(shifted, splat(ROUND));
    // ln 2 in two parts, the first one exact in few bits.
    let rest = simd.mul_add_f32s(whole, splat(-0.693_359_375), value);
    let rest = simd.mul_add_f32s(whole, splat(2.121_944_4e-4), rest);
    let mut sum = splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        sum = simd.mul_add_f32s(sum, rest, splat(*coefficient));
    }
    let fraction =
        simd.add_f32s(simd.mul_add_f32s(simd.mul_f32s(sum, rest), rest, rest), splat(1.0));
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let scale = simd.add_u32s(exponent, simd.splat_u32s(1.0_f32.to_bits()));
    simd.mul_f32s(fraction, simd.transmute_f32s_u32s(scale))
}
