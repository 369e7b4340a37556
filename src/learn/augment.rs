//! Training crops: a random part of an image, rotated, mirrored, scaled, and with other
//! intensities, so that one set of images stands for many microscopes.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_distr::{Distribution, Normal};

use super::dataset::Pair;
use super::targets::{self, Targets};

/// Pixels around a crop that are warped with it, so that objects cut by its edge keep the
/// distances of the whole object. Half of a large nucleus.
const SURROUND: usize = 24;

/// One training example of `size × size`.
pub struct Crop {
    /// Normalised intensities, about 0 to 1.
    pub image: Vec<f32>,
    /// What the network shall say.
    pub targets: Targets,
}

/// Draws a crop of `size × size` from one of `pairs`.
///
/// # Panics
/// When `pairs` is empty.
pub fn draw(pairs: &[Pair], size: usize, rng: &mut impl Rng) -> Crop {
    // By the square root of the area: large fields hold more objects, but the small
    // ones come from more experiments.
    let pair = pairs
        .choose_weighted(rng, |pair| (pair.image.len() as f64).sqrt())
        .expect("the data set was checked to have images");
    let labels_wanted = rng.random_bool(0.9);
    let mut crop = warp(pair, size, rng);
    // Mostly crops with something in them; now and then an empty one is a lesson too.
    for _ in 0..4 {
        if !labels_wanted || crop.targets.foreground.iter().any(|&value| value > 0.0) {
            break;
        }
        crop = warp(pair, size, rng);
    }
    change_intensities(&mut crop.image, size, rng);
    crop
}

/// A random affine view: any of the 8 mirror images, ±17° of rotation, scale 2^±0.6 around
/// the image's own, since frames are segmented at theirs.
fn warp(pair: &Pair, size: usize, rng: &mut impl Rng) -> Crop {
    let canvas = size + 2 * SURROUND;
    let scale = 2_f32.powf(rng.random_range(-0.6..0.6));
    let angle = rng.random_range(-0.3_f32..0.3);
    let (sin, cos) = angle.sin_cos();
    let mirror = [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)][rng.random_range(0..4)];
    let transpose = rng.random_bool(0.5);
    // Canvas pixel (u, v), from its centre → image pixel: rotate, mirror, shrink.
    let mut to_image = [cos * mirror.0, -sin * mirror.1, sin * mirror.0, cos * mirror.1];
    if transpose {
        to_image.swap(0, 1);
        to_image.swap(2, 3);
    }
    for factor in &mut to_image {
        *factor /= scale;
    }
    let (width, height) = (pair.width as f32, pair.height as f32);
    let reach = size as f32 / (2.0 * scale);
    let centre_x = centre(width, reach, rng);
    let centre_y = centre(height, reach, rng);

    let mut image = Vec::with_capacity(size * size);
    let mut labels = vec![0_u32; canvas * canvas];
    let middle = (canvas as f32 - 1.0) / 2.0;
    for v in 0..canvas {
        for u in 0..canvas {
            let (du, dv) = (u as f32 - middle, v as f32 - middle);
            let x = centre_x + to_image[0] * du + to_image[1] * dv;
            let y = centre_y + to_image[2] * du + to_image[3] * dv;
            labels[v * canvas + u] = pair.label_at(mirrored(x, width), mirrored(y, height));
            let inside = SURROUND..SURROUND + size;
            if inside.contains(&u) && inside.contains(&v) {
                image.push(pair.intensity_at(mirrored(x, width), mirrored(y, height)));
            }
        }
    }
    let whole = targets::from_labels(&labels, canvas, canvas);
    let cut = |map: &[f32]| -> Vec<f32> {
        (SURROUND..SURROUND + size)
            .flat_map(|v| &map[v * canvas + SURROUND..v * canvas + SURROUND + size])
            .copied()
            .collect()
    };
    Crop {
        image,
        targets: Targets {
            foreground: cut(&whole.foreground),
            distance: cut(&whole.distance),
            contact: cut(&whole.contact),
        },
    }
}

/// A centre such that the view stays in the image where it can.
fn centre(length: f32, reach: f32, rng: &mut impl Rng) -> f32 {
    if length > 2.0 * reach {
        rng.random_range(reach..length - reach)
    } else {
        length / 2.0 + rng.random_range(-0.1..0.1) * length
    }
}

/// Folds a coordinate back into `0..=length-1` by reflection.
fn mirrored(position: f32, length: f32) -> f32 {
    let last = length - 1.0;
    if last <= 0.0 {
        return 0.0;
    }
    let folded = position.rem_euclid(2.0 * last);
    if folded > last { 2.0 * last - folded } else { folded }
}

/// Gamma, gain, offset, blur and noise, each within what exposure, gain and focus do.
fn change_intensities(image: &mut Vec<f32>, size: usize, rng: &mut impl Rng) {
    if rng.random_bool(0.25) {
        let passes = rng.random_range(1..=3);
        for _ in 0..passes {
            *image = blurred(image, size);
        }
    }
    let gamma = 2_f32.powf(rng.random_range(-0.7..0.7));
    let gain = rng.random_range(0.6..1.3);
    let offset = rng.random_range(-0.1..0.1);
    let noise = if rng.random_bool(0.5) { rng.random_range(0.0..0.08_f32) } else { 0.0 };
    let shading = [rng.random_range(-0.25..0.25_f32), rng.random_range(-0.25..0.25)];
    let shaded = rng.random_bool(0.3);
    let normal = Normal::new(0.0, noise).expect("a standard deviation of at least 0");
    for (at, value) in image.iter_mut().enumerate() {
        let powered = value.max(0.0).powf(gamma) + value.min(0.0);
        let mut new = powered * gain + offset;
        if shaded {
            let x = (at % size) as f32 / size as f32 - 0.5;
            let y = (at / size) as f32 / size as f32 - 0.5;
            new *= 1.0 + shading[0] * x + shading[1] * y;
        }
        if noise > 0.0 {
            new += normal.sample(rng);
        }
        *value = new;
    }
}

/// One pass of the binomial filter [1 2 1]/4 in both directions, edges repeated.
fn blurred(image: &[f32], size: usize) -> Vec<f32> {
    let mut rows = vec![0.0; image.len()];
    for y in 0..size {
        for x in 0..size {
            let left = image[y * size + x.saturating_sub(1)];
            let right = image[y * size + (x + 1).min(size - 1)];
            rows[y * size + x] = (left + 2.0 * image[y * size + x] + right) / 4.0;
        }
    }
    let mut out = vec![0.0; image.len()];
    for y in 0..size {
        let (above, below) = (y.saturating_sub(1) * size, (y + 1).min(size - 1) * size);
        for x in 0..size {
            out[y * size + x] =
                (rows[above + x] + 2.0 * rows[y * size + x] + rows[below + x]) / 4.0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn coordinates_outside_are_mirrored_inside() {
        for (position, expected) in [(-1.0, 1.0), (9.0, 9.0), (10.0, 8.0), (18.0, 0.0), (0.5, 0.5)]
        {
            assert!((mirrored(position, 10.0) - expected).abs() < 1e-6, "{position}");
        }
    }

    #[test]
    fn image_and_labels_are_warped_together() {
        // Bright where labelled: after any warp the foreground must stay the brighter part.
        let (width, height) = (64, 48);
        let labels: Vec<u32> =
            (0..width * height).map(|at| u32::from((at % width) / 16 % 2 == 1)).collect();
        let image = labels.iter().map(|&label| label as f32).collect();
        let pair = Pair::new("stripes".into(), width, height, image, labels);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..20 {
            let crop = warp(&pair, 32, &mut rng);
            let wrong = crop
                .image
                .iter()
                .zip(&crop.targets.foreground)
                .filter(|(value, foreground)| (**value > 0.5) != (**foreground > 0.5))
                .count();
            assert!(wrong < 32 * 32 / 10, "{wrong} of 1024 pixels moved apart");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_crop() {
        let pair = Pair::new("dot".into(), 40, 40, vec![0.5; 1600], vec![1; 1600]);
        let draw_one = || draw(std::slice::from_ref(&pair), 32, &mut ChaCha8Rng::seed_from_u64(3));
        assert_eq!(draw_one().image, draw_one().image);
    }
}
