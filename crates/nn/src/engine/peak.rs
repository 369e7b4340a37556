//! What the processor can do at most: the measure for the kernels.

use std::hint::black_box;
use std::time::Duration;

use pulp::{Arch, Simd, WithSimd};

use reticle_base::clock::thread_cpu;

/// Multiply-adds of each sum in a run: some milliseconds.
const LENGTH: usize = 1 << 20;

/// Runs, of which the fastest counts: the peak is what nothing else disturbed.
const RUNS: usize = 5;

/// Floating-point operations a second of one core; a multiply-add is two.
pub(super) fn flops(arch: Arch) -> f64 {
    let run = |_| {
        let start = thread_cpu();
        let sums = arch.dispatch(Chains);
        let took = thread_cpu().saturating_sub(start).max(Duration::from_nanos(1));
        (2 * sums * LENGTH) as f64 / took.as_secs_f64()
    };
    (0..RUNS).map(run).fold(0.0, f64::max)
}

/// Multiply-adds on registers alone. Gives how many numbers are summed side by side.
struct Chains;

impl WithSimd for Chains {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // As many sums as fit into the registers (32 with AVX-512 and NEON, 16 with AVX2): no fewer
        // than a processor has multiply-adds on their way, which are four cycles times two a cycle,
        // or four a cycle on large arm64 cores.
        match S::F32_LANES {
            16 | 4 => sums::<S, 24>(simd),
            _ => sums::<S, 12>(simd),
        }
    }
}

#[inline(always)]
fn sums<S: Simd, const N: usize>(simd: S) -> usize {
    // The compiler knows none of these, nor that any two are equal. Sums stay between 0 and 1.
    let unknown = |value| simd.splat_f32s(black_box(value));
    let (factor, addend) = (unknown(0.5), unknown(0.25));
    let mut sums: [S::f32s; N] = std::array::from_fn(|_| unknown(0.75));
    for _ in 0..LENGTH {
        for sum in &mut sums {
            *sum = simd.mul_add_e_f32s(*sum, factor, addend);
        }
    }
    black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
    N * S::F32_LANES
}
