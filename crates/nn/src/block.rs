//! Sixteen numbers side by side, and vectors of them.
//!
//! What loads and stores is `inline(always)`: it must become part of a function that pulp compiled
//! for the vector extension at hand.

use pulp::Simd;

/// Channels of a block. A count of channels is filled up to a multiple of it with zeros.
pub const CHANNELS: usize = 16;

/// Sixteen channels of one pixel, or one weight for each of sixteen output channels; on one cache
/// line. One vector of AVX-512, two of AVX2, four of NEON.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct Block(pub [f32; CHANNELS]);

impl Block {
    /// Nothing in any channel.
    pub const ZERO: Self = Self([0.0; CHANNELS]);
}

/// Vector `n` of a block.
#[inline(always)]
pub(crate) fn load<S: Simd>(block: &Block, n: usize) -> S::f32s {
    S::as_simd_f32s(&block.0).0[n]
}

/// Writes vector `n` of a block.
#[inline(always)]
pub(crate) fn store<S: Simd>(block: &mut Block, n: usize, value: S::f32s) {
    S::as_mut_simd_f32s(&mut block.0).0[n] = value;
}
