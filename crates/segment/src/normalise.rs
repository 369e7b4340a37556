//! Grey values → the network's input: percentiles of the frame become 0 and 1, and what is far from both
//! is cut off.

use super::noise;
use reticle_domain::frame::Pixels;

/// How grey values are scaled; part of the model package, since the network learnt it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Percentile (0 to 100) that becomes 0.
    pub low_percentile: f64,
    /// Percentile (0 to 100) that becomes 1.
    pub high_percentile: f64,
    /// The span between the two counts as at least this many standard deviations of the
    /// frame's noise, and up to twice as many where the noise is correlated
    /// ([`noise::visible_sigma`]). Without it, a frame of pure noise (an empty well) would be
    /// stretched until the noise looked like nuclei.
    pub min_span_sigmas: f64,
}

/// Between these lies what the network gets. In a frame with few objects both percentiles lie in the
/// background, so that objects come out at ten times what the network has learnt, and it sees arcs in
/// their glow: 21 objects in 2048² with 8 nuclei, which are 12 when cut off at 8, and 8 from 4 down.
/// No AP of `val` changes in the third digit, wherever between 1.5 and 8 it is; 2 leaves bright nuclei
/// beside dim ones their shape. As far below 0 as above 1, for dark objects.
const RANGE: (f32, f32) = (-1.0, 2.0);

/// The grey values of one frame that become 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Becomes 0.
    pub low: f32,
    /// Becomes 1.
    pub high: f32,
}

impl Span {
    /// Scales one grey value.
    pub fn apply(&self, value: u16) -> f32 {
        self.scale(f32::from(value))
    }

    /// Scales a mean of grey values.
    pub(super) fn scale(&self, mean: f32) -> f32 {
        (mean - self.low) / (self.high - self.low)
    }

    /// What the network gets for one grey value when a frame is segmented: scaled, and cut off where
    /// it is far darker or brighter than what the network has learnt.
    pub fn input(&self, value: u16) -> f32 {
        let (least, most) = RANGE;
        self.apply(value).clamp(least, most)
    }
}

impl Normalisation {
    /// Finds the span of a frame of `width` pixels a row.
    ///
    /// Percentiles are exact (nearest rank over the whole histogram), so that the same frame
    /// has the same span on every machine. A constant frame becomes all zeros.
    pub fn span(&self, pixels: &Pixels, width: usize) -> Span {
        let histogram = histogram(pixels);
        let low = percentile(&histogram, pixels.len(), self.low_percentile);
        let high = percentile(&histogram, pixels.len(), self.high_percentile);
        // The lower half of skewed noise is weaker than the whole of it.
        let sigma = white_sigma(pixels, width).max(noise::visible_sigma(pixels, width));
        let least = (self.min_span_sigmas * sigma).max(1.0) as f32;
        Span { low, high: low + (high - low).max(least) }
    }
}

fn histogram(pixels: &Pixels) -> Vec<u32> {
    match pixels {
        Pixels::U8(values) => {
            let mut counts = vec![0; 256];
            for &value in values {
                counts[usize::from(value)] += 1;
            }
            counts
        }
        Pixels::U16(values) => {
            let mut counts = vec![0; 65_536];
            for &value in values {
                counts[usize::from(value)] += 1;
            }
            counts
        }
    }
}

/// The smallest value with at least `percent` of all pixels at or below it.
fn percentile(histogram: &[u32], pixels: usize, percent: f64) -> f32 {
    let rank = ((percent / 100.0 * pixels as f64).ceil() as u64).max(1);
    let mut seen = 0_u64;
    for (value, &count) in histogram.iter().enumerate() {
        seen += u64::from(count);
        if seen >= rank {
            return value as f32;
        }
    }
    0.0
}

/// Standard deviation of noise that is white, from the median of |Laplacian-like differences|.
///
/// The difference of a pixel and the mean of its left and right neighbours has
/// variance 1.5 σ² for white noise and is nearly zero on smooth structures; the median
/// ignores edges. 0.6745 is the median of |z| for a standard normal z.
fn white_sigma(pixels: &Pixels, width: usize) -> f64 {
    if width < 3 {
        return 0.0;
    }
    // Half grey values, so that the mean of two neighbours stays an integer.
    let mut counts = vec![0_u32; 131_072];
    let mut total = 0_usize;
    let rows = pixels.len() / width;
    // One row in four is enough for a median and keeps this under 1 ms for 1024².
    for row in (0..rows).step_by(4) {
        for column in 1..width - 1 {
            let at = row * width + column;
            let middle = 2 * i32::from(pixels.get(at));
            let sides = i32::from(pixels.get(at - 1)) + i32::from(pixels.get(at + 1));
            counts[(middle - sides).unsigned_abs() as usize] += 1;
            total += 1;
        }
    }
    let half_values = f64::from(percentile(&counts, total, 50.0));
    half_values / 2.0 / 0.6745 / 1.5_f64.sqrt()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, Normal};

    use super::*;

    const PLAIN: Normalisation =
        Normalisation { low_percentile: 1.0, high_percentile: 99.0, min_span_sigmas: 0.0 };

    #[test]
    fn percentiles_become_zero_and_one() {
        let ramp = Pixels::U16((1..=100).map(|value| value * 100).collect());
        let span = PLAIN.span(&ramp, 10);
        assert_eq!(span, Span { low: 100.0, high: 9900.0 });
        assert_eq!(span.apply(100), 0.0);
        assert_eq!(span.apply(9900), 1.0);
    }

    #[test]
    fn what_is_far_darker_or_brighter_is_cut_off() {
        let span = Span { low: 1000.0, high: 1100.0 };
        let inputs = [0, 900, 1050, 1200, 65_535].map(|value| span.input(value));
        assert_eq!(inputs, [-1.0, -1.0, 0.5, 2.0, 2.0]);
    }

    #[test]
    fn a_constant_frame_becomes_zeros() {
        let span = PLAIN.span(&Pixels::U8(vec![77; 64]), 8);
        assert_eq!(span.apply(77), 0.0);
    }

    #[test]
    fn the_noise_of_a_flat_frame_is_found_and_not_stretched() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let noise = Normal::new(1000.0_f64, 20.0).unwrap();
        let frame = Pixels::U16((0..256 * 256).map(|_| noise.sample(&mut rng) as u16).collect());
        let sigma = white_sigma(&frame, 256);
        assert!((sigma - 20.0).abs() < 1.0, "{sigma}");
        let span = Normalisation { min_span_sigmas: 10.0, ..PLAIN }.span(&frame, 256);
        assert!(span.high - span.low > 180.0, "{span:?}");
    }
}
