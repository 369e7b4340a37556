//! How far the maps are from what they should be, and which way the logits should go.
//!
//! | map        | loss                                                                        |
//! |------------|-----------------------------------------------------------------------------|
//! | foreground | cross-entropy, and [`DICE_WEIGHT`] × Dice                                   |
//! | distance   | cross-entropy with the soft target                                          |
//! | contact    | cross-entropy                                                               |
//! | size       | [`SIZE_WEIGHT`] × cross-entropy with the soft target, on object pixels only |
//!
//! Where objects touch, the first three count [`CONTACT_WEIGHTS`] times.
//!
//! Each is a mean over the pixels that count, each with its own weight. Dice
//! (1 − 2·overlap over both sums) does not care how much background there is.

use pulp::Arch;
use rayon::prelude::*;

use super::planes::{Block, LANES, Planes};

/// What a pixel next to another object counts in foreground, distance and contact: it decides whether
/// two stay apart, and merged objects are half of all that is missed.
pub const CONTACT_WEIGHTS: [f32; 3] = [4.0, 3.0, 2.0];

/// Share of the Dice loss.
pub const DICE_WEIGHT: f32 = 0.5;

/// Share of the size: a fifth of the pixels are in objects, so that is about what a pixel of it
/// weighs in the other maps.
pub const SIZE_WEIGHT: f32 = 0.2;

/// What one image's maps should be.
pub struct Wanted {
    /// As the network gives them: lane `4·map + 2·dy + dx` of pixel (x, y) is the map at
    /// (2x + dx, 2y + dy). Row-major, `edge/2` pixels a row.
    pub maps: Vec<Block>,
    /// How much each of the four sub-pixels counts in foreground, distance and contact; one with 0
    /// counts in no map.
    pub weights: Vec<[f32; 4]>,
}

/// Sums over one image; over a batch by adding.
#[derive(Clone, Copy, Default)]
struct Part {
    foreground: f64,
    distance: f64,
    contact: f64,
    size: f64,
    overlap: f64,
    predicted: f64,
    wanted: f64,
    pixels: f64,
    object_pixels: f64,
}

/// The loss of a batch; sets the gradients of its logits.
pub fn loss(logits: &[Planes], wanted: &[Wanted], gradients: &mut [Planes]) -> f32 {
    let parts: Vec<Part> = logits
        .par_iter()
        .zip(wanted)
        .zip(gradients.par_iter_mut())
        .map(|((logits, wanted), gradients)| measure(logits, wanted, gradients))
        .collect();
    let sum = |of: fn(&Part) -> f64| parts.iter().map(of).sum::<f64>();
    let pixels = sum(|part| part.pixels).max(1.0);
    let object_pixels = sum(|part| part.object_pixels).max(1.0);
    // The ones keep a batch without objects from dividing by zero.
    let overlap = 2.0 * sum(|part| part.overlap) + 1.0;
    let both = sum(|part| part.predicted) + sum(|part| part.wanted) + 1.0;
    let shares = Shares {
        pixel: (1.0 / pixels) as f32,
        size: SIZE_WEIGHT / object_pixels as f32,
        // d(1 − overlap/both)/dp = overlap/both² − 2·wanted/both
        dice: DICE_WEIGHT * (overlap / both.powi(2)) as f32,
        dice_in_objects: DICE_WEIGHT * (overlap / both.powi(2) - 2.0 / both) as f32,
    };
    gradients
        .par_iter_mut()
        .zip(wanted)
        .for_each(|(gradients, wanted)| to_gradients(gradients, wanted, shares));
    let maps = sum(|part| part.foreground + part.distance + part.contact) / pixels;
    let dice = f64::from(DICE_WEIGHT) * (1.0 - overlap / both);
    let size = f64::from(SIZE_WEIGHT) * sum(|part| part.size) / object_pixels;
    (maps + dice + size) as f32
}

/// What a pixel's error counts in the loss.
#[derive(Clone, Copy)]
struct Shares {
    pixel: f32,
    size: f32,
    dice: f32,
    dice_in_objects: f32,
}

/// The sums of one image. Leaves the probabilities in `out`.
fn measure(logits: &Planes, wanted: &Wanted, out: &mut Planes) -> Part {
    let mut part = Part::default();
    for y in 0..logits.height {
        let row = wanted.row(y, logits.width);
        let [entropy, overlap, predicted, foreground, counting] = Arch::new().dispatch(
            #[inline(always)]
            || measure_row(logits.row(0, y), row, out.row_mut(0, y)),
        );
        let map = |lanes: &[f32; LANES], map: usize| {
            f64::from(lanes[4 * map..4 * map + 4].iter().sum::<f32>())
        };
        part.foreground += map(&entropy, 0);
        part.distance += map(&entropy, 1);
        part.contact += map(&entropy, 2);
        part.size += map(&entropy, 3);
        part.overlap += map(&overlap, 0);
        part.predicted += map(&predicted, 0);
        part.wanted += map(&foreground, 0);
        part.pixels += row.1.iter().flatten().filter(|&&weight| weight > 0.0).count() as f64;
        part.object_pixels += map(&counting, 3);
    }
    part
}

/// Weights of the maps at one pixel: those of the pixel, and for the size whether it counts and
/// is in an object.
#[inline(always)]
fn lane_weights(weights: &[f32; 4], wanted: &Block) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for sub in 0..4 {
        lanes[sub] = weights[sub];
        lanes[4 + sub] = weights[sub];
        lanes[8 + sub] = weights[sub];
        lanes[12 + sub] = if weights[sub] > 0.0 { wanted.0[sub] } else { 0.0 };
    }
    lanes
}

/// What the cross-entropies are multiplied by: [`CONTACT_WEIGHTS`] next to another object, else 1.
#[inline(always)]
fn contact_weights(wanted: &Block) -> [f32; LANES] {
    let mut lanes = [1.0; LANES];
    for (map, weight) in CONTACT_WEIGHTS.into_iter().enumerate() {
        for (lane, contact) in lanes[4 * map..4 * map + 4].iter_mut().zip(&wanted.0[8..12]) {
            *lane += (weight - 1.0) * contact;
        }
    }
    lanes
}

/// Weighted sums for each lane over one row, short enough for f32: cross-entropy, product of
/// probability and target, probability, target, and the weights. Sets the probabilities.
#[inline(always)]
fn measure_row(
    logits: &[Block],
    (wanted, weights): (&[Block], &[[f32; 4]]),
    out: &mut [Block],
) -> [[f32; LANES]; 5] {
    let mut sums = [[0.0; LANES]; 5];
    let targets = wanted.iter().zip(weights);
    for ((logits, (wanted, weights)), out) in logits.iter().zip(targets).zip(out) {
        let weights = lane_weights(weights, wanted);
        let contact = contact_weights(wanted);
        for lane in 0..LANES {
            let (probability, entropy) = cross_entropy(logits.0[lane], wanted.0[lane]);
            out.0[lane] = probability;
            sums[0][lane] += weights[lane] * contact[lane] * entropy;
            sums[1][lane] += weights[lane] * probability * wanted.0[lane];
            sums[2][lane] += weights[lane] * probability;
            sums[3][lane] += weights[lane] * wanted.0[lane];
            sums[4][lane] += weights[lane];
        }
    }
    sums
}

/// Turns probabilities into gradients of the logits.
fn to_gradients(gradients: &mut Planes, wanted: &Wanted, shares: Shares) {
    for y in 0..gradients.height {
        let row = wanted.row(y, gradients.width);
        Arch::new().dispatch(
            #[inline(always)]
            || row_to_gradients(gradients.row_mut(0, y), row, shares),
        );
    }
}

#[inline(always)]
fn row_to_gradients(
    gradients: &mut [Block],
    (wanted, weights): (&[Block], &[[f32; 4]]),
    shares: Shares,
) {
    // Of each lane: of the cross-entropy, and of Dice outside and inside objects.
    let mut share = [shares.pixel; LANES];
    share[12..].fill(shares.size);
    let mut dice = [[0.0; LANES]; 2];
    dice[0][..4].fill(shares.dice);
    dice[1][..4].fill(shares.dice_in_objects - shares.dice);
    let targets = wanted.iter().zip(weights);
    for (gradient, (wanted, weights)) in gradients.iter_mut().zip(targets) {
        let weights = lane_weights(weights, wanted);
        let contact = contact_weights(wanted);
        for lane in 0..LANES {
            let (probability, target) = (gradient.0[lane], wanted.0[lane]);
            let entropy = (probability - target) * contact[lane] * share[lane];
            // Through the sigmoid: dp/dx = p · (1 − p).
            let slope = probability * (1.0 - probability);
            let overlap = (dice[0][lane] + dice[1][lane] * target) * slope;
            gradient.0[lane] = weights[lane] * (entropy + overlap);
        }
    }
}

impl Wanted {
    /// Maps and weights of one row.
    fn row(&self, y: usize, width: usize) -> (&[Block], &[[f32; 4]]) {
        let row = y * width..(y + 1) * width;
        (&self.maps[row.clone()], &self.weights[row])
    }
}

/// Probability and binary cross-entropy of a logit with a (soft) target, in the form that
/// cannot overflow: max(x, 0) − x·t + ln(1 + e^−|x|).
#[inline(always)]
fn cross_entropy(logit: f32, target: f32) -> (f32, f32) {
    let tail = exp_of_negative(-logit.abs());
    let inverse = 1.0 / (1.0 + tail);
    let probability = if logit >= 0.0 { inverse } else { tail * inverse };
    (probability, logit.max(0.0) - logit * target + ln_of_one_plus(tail))
}

/// e^x for x ≤ 0 to 1e-5 of it, without a call, so that it is done for 16 lanes at once: 2 to a
/// whole number, written as an exponent, times 2 to the rest, by its series.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let power = x.max(-87.0) * std::f32::consts::LOG2_E;
    let shifted = power + ROUND;
    let rest = (power - (shifted - ROUND)) * std::f32::consts::LN_2;
    let series = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest
                            * (1.0 / 6.0
                                + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest / 720.0)))));
    let whole = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * whole
}

/// ln(1 + x) for x from 0 to 1 to 3e-8 (Abramowitz & Stegun, 4.1.44).
#[inline(always)]
fn ln_of_one_plus(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 8] = [
        -0.006_453_544,
        0.036_088_494,
        -0.095_329_39,
        0.167_654_07,
        -0.240_733_81,
        0.331_799_03,
        -0.499_874_12,
        0.999_996_4,
    ];
    COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * x + coefficient) * x
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn logits(rng: &mut ChaCha8Rng) -> Planes {
        let mut planes = Planes::zeros(1, 2, 3);
        for (block, y) in planes.rows() {
            planes
                .row_mut(block, y)
                .fill_with(|| Block(std::array::from_fn(|_| rng.random_range(-3.0..3.0))));
        }
        planes
    }

    fn wanted(weight: f32, rng: &mut ChaCha8Rng) -> Wanted {
        let mut map = |lane: usize| match lane / 4 {
            0 | 2 => f32::from(u8::from(rng.random_bool(0.4))),
            _ => rng.random_range(0.0..1.0),
        };
        let maps = (0..6).map(|_| Block(std::array::from_fn(&mut map))).collect();
        let mut weights = vec![[weight; 4]; 6];
        weights[5][2] = 0.0;
        Wanted { maps, weights }
    }

    #[test]
    fn gradients_are_differences_of_the_loss() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut images = [logits(&mut rng), logits(&mut rng)];
        let wanted = [wanted(1.0, &mut rng), wanted(0.3, &mut rng)];
        let mut gradients = images.clone();
        loss(&images, &wanted, &mut gradients);
        let mut scratch = images.clone();
        let step = 0.05;
        for image in 0..2 {
            for (y, x) in [(0, 0), (1, 2)] {
                for lane in 0..LANES {
                    let mut at = |offset: f32| {
                        images[image].row_mut(0, y)[x].0[lane] += offset;
                        let loss = loss(&images, &wanted, &mut scratch);
                        images[image].row_mut(0, y)[x].0[lane] -= offset;
                        loss
                    };
                    let difference = (at(step) - at(-step)) / (2.0 * step);
                    let gradient = gradients[image].row(0, y)[x].0[lane];
                    assert!(
                        (difference - gradient).abs() < 2e-5 + 0.01 * gradient.abs(),
                        "lane {lane} at ({x}, {y}): {difference} {gradient}"
                    );
                }
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "they are what it is compared with")]
    fn exponentials_and_logarithms_are_those_of_the_library() {
        for at in 0..2000 {
            let x = -0.05 * at as f32;
            let (found, expected) = (exp_of_negative(x), x.exp());
            assert!(
                (found - expected).abs() <= 1e-5 * expected + 1e-37,
                "e^{x}: {found} {expected}"
            );
            let x = at as f32 / 1999.0;
            assert!((ln_of_one_plus(x) - x.ln_1p()).abs() < 2e-7, "ln(1 + {x})");
        }
    }

    #[test]
    fn a_batch_without_objects_has_a_finite_loss() {
        let maps = [Planes::zeros(1, 2, 3)];
        let wanted = [Wanted { maps: vec![Block::ZERO; 6], weights: vec![[1.0; 4]; 6] }];
        let mut gradients = maps.clone();
        assert!(loss(&maps, &wanted, &mut gradients).is_finite());
        assert!(gradients[0].row(0, 0)[0].0.iter().all(|gradient| gradient.is_finite()));
    }
}
