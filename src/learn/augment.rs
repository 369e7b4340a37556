//! Training crops: a random part of an image, brought to about the model's object scale,
//! rotated, mirrored, and with other intensities, so that one set of images stands for many
//! microscopes.
//!
//! Frames are segmented at the model's scale too, where that is known or estimated; estimates
//! err, so crops err likewise. One in ten is far off, which teaches the size map (and less of the
//! others: see [`FAR`]).

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_distr::{Distribution, Normal};

use super::dataset::Pair;
use super::targets::{self, Targets};
use reticle_segment::size;

/// Pixels around a crop that are warped with it, so that objects cut by its edge keep the
/// distances of the whole object. Half of a large nucleus.
const SURROUND: usize = 32;

/// Crops are scaled by up to 2^±this beyond the model's scale.
const NEAR: f32 = 0.5;

/// The same for one crop in ten.
const WIDE: f32 = 1.6;

/// Beyond 2^±this a crop counts [`FAR_WEIGHT`] in all maps but the size: frames are brought
/// nearer than that before their objects are read.
const FAR: f32 = 0.8;

/// See [`FAR`].
const FAR_WEIGHT: f32 = 0.3;

/// Objects of a smaller diameter, in pixels of the crop, count more: as if they were this large along
/// one axis. A loss by pixels hardly sees them, and a nucleus of 8 pixels is as much to be
/// counted as one of 30.
const SMALL_PX: f32 = 18.0;

/// They count this many times at most: what has two pixels may be a slip of the pen.
const MOST: f32 = 4.0;

/// So much does the background around them, up to this many pixels away: else small objects would
/// only get larger.
const AROUND: usize = 2;

/// One crop in so many is noise and nothing else, as frames of empty wells are.
const EMPTY: u32 = 24;

/// One training example of `size × size`.
pub struct Crop {
    /// Normalised intensities, about 0 to 1.
    pub image: Vec<f32>,
    /// What the network shall say.
    pub targets: Targets,
    /// How much each pixel counts in foreground, distance and contact. One with 0 lies beyond the
    /// image and counts in no map.
    pub weights: Vec<f32>,
}

/// What crops are like.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Edge in pixels.
    pub edge: usize,
    /// Diameter that the median object of an image is brought to, in pixels of the crop.
    pub object_diameter_px: f32,
}

/// Draws a crop from one of `pairs`.
///
/// # Panics
/// When `pairs` is empty.
pub fn draw(pairs: &[Pair], view: View, rng: &mut impl Rng) -> Crop {
    if rng.random_ratio(1, EMPTY) {
        return empty(view.edge, rng);
    }
    // By the square root of the area: large fields hold more objects, but the small
    // ones come from more experiments.
    let pair = pairs
        .choose_weighted(rng, |pair| (pair.image.len() as f64).sqrt())
        .expect("the data set was checked to have images");
    let own_diameter = diameter_or_another(pair, pairs, rng).unwrap_or(view.object_diameter_px);
    let labels_wanted = rng.random_bool(0.9);
    let mut crop = warp(pair, own_diameter, view, rng);
    // Mostly crops with something in them; now and then an empty one is a lesson too.
    for _ in 0..4 {
        if !labels_wanted || crop.targets.foreground.iter().any(|&value| value > 0.0) {
            break;
        }
        crop = warp(pair, own_diameter, view, rng);
    }
    change_intensities(&mut crop.image, view.edge, rng);
    crop
}

/// Noise without objects. An empty frame's grey values are stretched until their deviation is 0.1
/// (`min_span_sigmas`), and the first percentile is 0; reduced or enlarged afterwards, it is less
/// or smoother.
fn empty(edge: usize, rng: &mut impl Rng) -> Crop {
    let deviation = rng.random_range(0.03..0.12_f32);
    let mut image = noise(edge, deviation, rng);
    let level = rng.random_range(1.5..2.5) * deviation;
    image.iter_mut().for_each(|value| *value += level);
    change_intensities(&mut image, edge, rng);
    let labels = vec![0; edge * edge];
    let targets = targets::from_labels(&labels, edge, edge, |_| 0.0);
    Crop { image, targets, weights: vec![1.0; edge * edge] }
}

/// Median object of the image; for one without objects that of another image, so that empty
/// background comes at every scale.
fn diameter_or_another(pair: &Pair, pairs: &[Pair], rng: &mut impl Rng) -> Option<f32> {
    pair.median_diameter.or_else(|| {
        let known: Vec<f32> = pairs.iter().filter_map(|pair| pair.median_diameter).collect();
        known.choose(rng).copied()
    })
}

/// A random view: scaled, turned, mirrored or not. Beyond the image its last row and column are
/// repeated, as they are when a frame does not fill its tile, and nothing is to be learnt.
fn warp(pair: &Pair, own_diameter: f32, view: View, rng: &mut impl Rng) -> Crop {
    let edge = view.edge;
    let canvas = edge + 2 * SURROUND;
    let range = if rng.random_bool(0.9) { NEAR } else { WIDE };
    let off_scale = rng.random_range(-range..range);
    let scale = view.object_diameter_px / own_diameter * off_scale.exp2();
    let (width, height) = (pair.width as f32, pair.height as f32);
    let reach_of = |turn: f32| edge as f32 / (2.0 * scale) * (turn.sin().abs() + turn.cos().abs());
    let mut turn = rng.random_range(0.0..std::f32::consts::TAU);
    if 2.0 * reach_of(turn) > width.min(height) {
        // By quarters only, so that as little as can be lies beyond the image.
        turn = (turn / std::f32::consts::FRAC_PI_2).round() * std::f32::consts::FRAC_PI_2;
    }
    let (sin, cos) = turn.sin_cos();
    let mirror = if rng.random_bool(0.5) { -1.0 } else { 1.0 };
    // Canvas pixel (u, v), from its centre → image pixel: mirror, rotate, shrink.
    let to_image = [cos * mirror, -sin, sin * mirror, cos].map(|factor| factor / scale);
    let centre_x = centre(width, reach_of(turn), rng);
    let centre_y = centre(height, reach_of(turn), rng);

    // Intensities from the level of the pyramid that is nearest in scale: what is shrunk is
    // averaged, as it is when frames are.
    let level = pair.level(1.0 / scale);
    let weight = if off_scale.abs() > FAR { FAR_WEIGHT } else { 1.0 };
    let mut image = Vec::with_capacity(edge * edge);
    let mut weights = Vec::with_capacity(edge * edge);
    let mut labels = vec![0_u32; canvas * canvas];
    let middle = (canvas as f32 - 1.0) / 2.0;
    let inner = SURROUND..SURROUND + edge;
    for v in 0..canvas {
        let dv = v as f32 - middle;
        for (u, label) in labels[v * canvas..(v + 1) * canvas].iter_mut().enumerate() {
            let du = u as f32 - middle;
            let x = centre_x + to_image[0] * du + to_image[1] * dv;
            let y = centre_y + to_image[2] * du + to_image[3] * dv;
            let (nearest_x, nearest_y) = (x.clamp(0.0, width - 1.0), y.clamp(0.0, height - 1.0));
            *label = pair.label_at(nearest_x, nearest_y);
            if inner.contains(&v) && inner.contains(&u) {
                image.push(level.intensity_at(nearest_x, nearest_y));
                let beyond = (x - nearest_x).abs().max((y - nearest_y).abs());
                weights.push(if beyond > 0.5 { 0.0 } else { weight });
            }
        }
    }
    let size_of =
        |label: u32| size::value_of(pair.diameter_of(label) * scale / view.object_diameter_px);
    let whole = targets::from_labels(&labels, canvas, canvas, size_of);
    let emphasis = emphasis(&labels, canvas, |label| pair.diameter_of(label) * scale);
    for (row, weights) in inner.zip(weights.chunks_exact_mut(edge)) {
        let factors = &emphasis[row * canvas + SURROUND..];
        weights.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor);
    }
    let cut = |map: &[f32]| -> Vec<f32> {
        (SURROUND..SURROUND + edge)
            .flat_map(|v| &map[v * canvas + SURROUND..v * canvas + SURROUND + edge])
            .copied()
            .collect()
    };
    Crop {
        image,
        targets: Targets {
            foreground: cut(&whole.foreground),
            distance: cut(&whole.distance),
            contact: cut(&whole.contact),
            size: cut(&whole.size),
        },
        weights,
    }
}

/// How many times each pixel of square `labels` counts because it is in or next to a small object.
fn emphasis(labels: &[u32], edge: usize, diameter: impl Fn(u32) -> f32) -> Vec<f32> {
    let count = labels.iter().copied().max().unwrap_or(0);
    let of: Vec<f32> = (0..=count)
        .map(|label| match label {
            0 => 1.0,
            label => (SMALL_PX / diameter(label).max(1.0)).clamp(1.0, MOST),
        })
        .collect();
    let mut emphasis = vec![1.0_f32; labels.len()];
    for (at, &label) in labels.iter().enumerate().filter(|(_, label)| of[**label as usize] > 1.0) {
        emphasis[at] = of[label as usize];
        let (x, y) = (at % edge, at / edge);
        for row in y.saturating_sub(AROUND)..(y + AROUND + 1).min(edge) {
            let near =
                row * edge + x.saturating_sub(AROUND)..row * edge + (x + AROUND + 1).min(edge);
            for (out, &other) in emphasis[near.clone()].iter_mut().zip(&labels[near]) {
                if other == 0 {
                    *out = out.max(of[label as usize]);
                }
            }
        }
    }
    emphasis
}

/// A centre such that the view stays in the image where it can.
fn centre(length: f32, reach: f32, rng: &mut impl Rng) -> f32 {
    if length > 2.0 * reach {
        rng.random_range(reach..length - reach)
    } else {
        length / 2.0 + rng.random_range(-0.1..0.1) * length
    }
}

/// Gamma, gain, offset, defocus, shading and noise, each within what exposure, gain and focus do.
fn change_intensities(image: &mut Vec<f32>, size: usize, rng: &mut impl Rng) {
    if rng.random_bool(0.15) {
        // Mostly slight: n passes are a Gaussian of √(n/2) pixels.
        let passes = [1, 1, 1, 2, 2, 3, 4][rng.random_range(0..7)];
        for _ in 0..passes {
            *image = blurred(image, size);
        }
    }
    let gamma = 2_f32.powf(rng.random_range(-0.4..0.4));
    let gain = rng.random_range(0.75..1.2);
    let offset = rng.random_range(-0.05..0.05);
    let shaded = rng.random_bool(0.15);
    let slope = [0; 2].map(|_| if shaded { rng.random_range(-0.25..0.25_f32) } else { 0.0 });
    for (y, row) in image.chunks_exact_mut(size).enumerate() {
        let down = 1.0 + slope[1] * (y as f32 / size as f32 - 0.5);
        for (x, value) in row.iter_mut().enumerate() {
            let powered = value.max(0.0).powf(gamma) + value.min(0.0);
            let shading = down + slope[0] * (x as f32 / size as f32 - 0.5);
            *value = (powered * gain + offset) * shading;
        }
    }
    if rng.random_bool(0.25) {
        add_noise(image, size, rng);
    }
}

/// Read noise, or shot noise that grows with the signal.
fn add_noise(image: &mut [f32], size: usize, rng: &mut impl Rng) {
    let deviation = rng.random_range(0.0..0.04_f32);
    let is_shot = rng.random_bool(0.4);
    let noise = noise(size, deviation, rng);
    for (value, noise) in image.iter_mut().zip(noise) {
        *value += if is_shot { noise * 1.5 * value.clamp(0.02, 1.0).sqrt() } else { noise };
    }
}

/// `size × size` normal deviates; sometimes smoothed, as noise is in frames that were enlarged.
fn noise(size: usize, deviation: f32, rng: &mut impl Rng) -> Vec<f32> {
    let normal = Normal::new(0.0, deviation).expect("a standard deviation of at least 0");
    let mut noise: Vec<f32> = (0..size * size).map(|_| normal.sample(rng)).collect();
    if rng.random_bool(0.4) {
        noise = blurred(&noise, size);
        // One pass leaves 3/8 of the deviation; half of that is given back.
        noise.iter_mut().for_each(|value| *value *= 1.9);
    }
    noise
}

/// One pass of the binomial filter [1 2 1]/4 in both directions, edges repeated.
fn blurred(image: &[f32], size: usize) -> Vec<f32> {
    let last = size - 1;
    let mut rows = vec![0.0; image.len()];
    for (row, out) in image.chunks_exact(size).zip(rows.chunks_exact_mut(size)) {
        out[0] = (3.0 * row[0] + row[1.min(last)]) / 4.0;
        out[last] = (3.0 * row[last] + row[last.saturating_sub(1)]) / 4.0;
        for (out, near) in out[1..].iter_mut().zip(row.windows(3)) {
            *out = (near[0] + 2.0 * near[1] + near[2]) / 4.0;
        }
    }
    let mut out = vec![0.0; image.len()];
    let row = |y: usize| &rows[y * size..(y + 1) * size];
    for (y, out) in out.chunks_exact_mut(size).enumerate() {
        let around = row(y.saturating_sub(1)).iter().zip(row(y)).zip(row((y + 1).min(last)));
        for (out, ((above, here), below)) in out.iter_mut().zip(around) {
            *out = (above + 2.0 * here + below) / 4.0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const VIEW: View = View { edge: 32, object_diameter_px: 16.0 };

    #[test]
    fn what_lies_beyond_the_image_does_not_count() {
        // 32 pixels of 16-pixel objects cannot fill a crop of 64 at their own scale.
        let pair = Pair::new("small".into(), 32, 32, vec![0.5; 1024], vec![1; 1024]);
        let view = View { edge: 64, object_diameter_px: 16.0 };
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for _ in 0..10 {
            let crop = warp(&pair, 16.0, view, &mut rng);
            let counting = crop.weights.iter().filter(|&&weight| weight > 0.0).count();
            assert!(counting > 0);
            if crop.weights.contains(&1.0) {
                assert!(counting < 64 * 64, "all of {counting} pixels count");
            }
        }
        let large = Pair::new("large".into(), 256, 256, vec![0.5; 65536], vec![1; 65536]);
        for _ in 0..10 {
            let crop = warp(&large, 8.0, VIEW, &mut rng);
            assert!(crop.weights.iter().all(|&weight| weight > 0.0));
        }
    }

    #[test]
    fn image_and_labels_are_warped_together() {
        // Bright where labelled: after any warp the foreground must stay the brighter part.
        let (width, height) = (128, 96);
        let labels: Vec<u32> =
            (0..width * height).map(|at| u32::from((at % width) / 16 % 2 == 1)).collect();
        let image = labels.iter().map(|&label| label as f32).collect();
        let pair = Pair::new("stripes".into(), width, height, image, labels);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..20 {
            let crop = warp(&pair, 16.0, VIEW, &mut rng);
            let wrong = crop
                .image
                .iter()
                .zip(&crop.targets.foreground)
                .filter(|(value, foreground)| (**value > 0.5) != (**foreground > 0.5))
                .count();
            assert!(wrong < 32 * 32 / 8, "{wrong} of 1024 pixels moved apart");
        }
    }

    #[test]
    fn the_size_map_tells_by_how_much_a_crop_is_off_scale() {
        // One disc of 40 pixels across, brought to 16: cut by the crop or not.
        let edge = 120;
        let labels: Vec<u32> = (0..edge * edge)
            .map(|at| {
                let (x, y) = ((at % edge) as f32 - 60.0, (at / edge) as f32 - 60.0);
                u32::from(x.hypot(y) <= 20.0)
            })
            .collect();
        let image = labels.iter().map(|&label| label as f32).collect();
        let pair = Pair::new("disc".into(), edge, edge, image, labels);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..20 {
            let crop = warp(&pair, 40.0, VIEW, &mut rng);
            let sizes = crop.targets.size.iter().zip(&crop.targets.foreground);
            let inside: Vec<f32> =
                sizes.filter(|(_, inside)| **inside > 0.0).map(|(size, _)| *size).collect();
            // 0.5 ± WIDE octaves / 6
            assert!(inside.iter().all(|size| (0.2..0.8).contains(size)), "{inside:?}");
            assert!(inside.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }

    #[test]
    fn small_objects_and_what_is_around_them_count_more() {
        let labels = [[0, 1, 0, 0, 0, 2, 2]; 7].as_flattened().to_vec();
        let found = emphasis(&labels, 7, |label| if label == 1 { 9.0 } else { 30.0 });
        assert_eq!(found, [[2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0]; 7].as_flattened());
        let found = emphasis(&labels, 7, |label| if label == 1 { 1.0 } else { 9.0 });
        assert_eq!(found, [[4.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0]; 7].as_flattened());
    }

    #[test]
    fn the_same_seed_draws_the_same_crop() {
        let pair = Pair::new("dot".into(), 40, 40, vec![0.5; 1600], vec![1; 1600]);
        let draw_one =
            || draw(std::slice::from_ref(&pair), VIEW, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(draw_one().image, draw_one().image);
    }
}
