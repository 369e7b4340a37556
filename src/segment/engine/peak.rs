//! What the processor can do at most: the measure for the kernels.

use std::hint::black_box;
use std::time::Duration;

use pulp::{Arch, Simd, WithSimd};

use crate::base::clock::thread_cpu;

/// Sums that do not wait for each other: more than a processor has multiply-adds on their way (four
/// cycles, two a cycle), and few enough for sixteen registers.
const SUMS: usize = 12;

/// Multiply-adds of each sum in a run: some milliseconds.
const LENGTH: usize = 1 << 20;

/// Runs, of which the fastest counts: the peak is what nothing else disturbed.
const RUNS: usize = 5;

/// Floating-point operations a second of one core; a multiply-add is two.
pub(super) fn flops(arch: Arch) -> f64 {
    let run = |_| {
        let start = thread_cpu();
        let lanes = arch.dispatch(Chains);
        let took = thread_cpu().saturating_sub(start).max(Duration::from_nanos(1));
        (2 * SUMS * LENGTH * lanes) as f64 / took.as_secs_f64()
    };
    (0..RUNS).map(run).fold(0.0, f64::max)
}

/// Multiply-adds on registers alone. Gives how many numbers a vector has.
struct Chains;

impl WithSimd for Chains {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // Nothing here is known to the compiler, and the sums stay between 0 and 1.
        let factor = simd.splat_f32s(black_box(0.5));
        let addend = simd.splat_f32s(black_box(0.25));
        let mut sums = [simd.splat_f32s(black_box(0.75)); SUMS];
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, addend);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        S::F32_LANES
    }
}
