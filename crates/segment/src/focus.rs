//! How sharp a frame is: steepness of the objects' edges over their contrast.
//!
//! For each object, the mean gradient along its edge is divided by its contrast to the
//! background; the inverse is the width of the edge in pixels. The score is
//! [`SHARP_EDGE_PX`] over the median width, at most 1. It needs no reference frame, does not
//! depend on gain, exposure or the number of objects, and falls when the objective leaves
//! the focal plane.

use reticle_domain::frame::Pixels;
use reticle_domain::label_image::LabelImage;
use reticle_domain::object::Object;

use super::normalise::Span;

/// Width in pixels of an edge whose score is 1. A gradient over 4 pixels cannot tell a
/// narrower one; nuclei of the virtual microscope in focus score about 0.93 with it.
const SHARP_EDGE_PX: f64 = 4.0;

/// Focus score of a frame, 0 to 1; 0 where there is no object to judge by.
pub fn score(labels: &LabelImage, objects: &[Object], pixels: &Pixels, grey: Span) -> f32 {
    let (width, height) = (labels.width() as usize, labels.height() as usize);
    let mut gradients = vec![(0.0_f64, 0_u32); objects.len() + 1];
    if width < 5 || height < 5 {
        return 0.0;
    }
    let all = labels.labels();
    for y in 2..height - 2 {
        for x in 2..width - 2 {
            let at = y * width + x;
            let label = all[at];
            if label == 0 {
                continue;
            }
            // Edge to background only: between touching objects there is no full contrast.
            let neighbours = [all[at - 1], all[at + 1], all[at - width], all[at + width]];
            let (slot_sum, slot_count) = &mut gradients[label as usize];
            if neighbours.contains(&0) && neighbours.iter().all(|&n| n == 0 || n == label) {
                *slot_sum += gradient(pixels, at, width);
                *slot_count += 1;
            }
        }
    }
    let mut sharpness: Vec<f64> = objects
        .iter()
        .filter_map(|object| {
            let (sum, count) = gradients[object.label as usize];
            let contrast = object.intensity_mean - f64::from(grey.low);
            (count >= 8 && contrast > 0.0).then(|| sum / f64::from(count) / contrast)
        })
        .collect();
    if sharpness.is_empty() {
        return 0.0;
    }
    let middle = sharpness.len() / 2;
    let (_, &mut median, _) = sharpness.select_nth_unstable_by(middle, f64::total_cmp);
    (SHARP_EDGE_PX * median).min(1.0) as f32
}

/// Grey values a pixel, over a distance of 4 pixels and 3 lines, so that noise averages out.
fn gradient(pixels: &Pixels, at: usize, width: usize) -> f64 {
    let along = |step: usize, across: usize| -> f64 {
        let sum = |centre: usize| {
            f64::from(pixels.get(centre - across))
                + f64::from(pixels.get(centre))
                + f64::from(pixels.get(centre + across))
        };
        (sum(at + 2 * step) - sum(at - 2 * step)) / 12.0
    };
    libm::hypot(along(1, width), along(width, 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure;

    /// A disc of radius 12 with an edge of the given width, on a grey background.
    fn disc(edge_px: f64, gain: f64) -> (LabelImage, Pixels) {
        let (mut labels, mut pixels) = (Vec::new(), Vec::new());
        for y in 0..64 {
            for x in 0..64 {
                let distance = libm::hypot(f64::from(x) - 32.0, f64::from(y) - 32.0);
                labels.push(u32::from(distance < 12.0));
                let inside = 1.0 / (1.0 + libm::exp((distance - 12.0) * 4.0 / edge_px));
                pixels.push((100.0 + gain * inside) as u16);
            }
        }
        (LabelImage::new(64, 64, labels).unwrap(), Pixels::U16(pixels))
    }

    fn score_of(edge_px: f64, gain: f64) -> f32 {
        let (labels, pixels) = disc(edge_px, gain);
        let objects = measure::objects(&labels, &pixels);
        score(&labels, &objects, &pixels, Span { low: 100.0, high: 1000.0 })
    }

    #[test]
    fn a_blurred_frame_scores_lower() {
        let scores = [2.0, 5.0, 9.0, 16.0].map(|edge| score_of(edge, 2000.0));
        assert!(scores.windows(2).all(|pair| pair[0] > pair[1]), "{scores:?}");
    }

    #[test]
    fn gain_does_not_change_the_score() {
        assert!((score_of(8.0, 500.0) - score_of(8.0, 30_000.0)).abs() < 0.01);
    }

    #[test]
    fn without_objects_the_score_is_zero() {
        let (_, pixels) = disc(4.0, 100.0);
        let span = Span { low: 0.0, high: 1.0 };
        assert_eq!(score(&LabelImage::empty(64, 64), &[], &pixels, span), 0.0);
    }
}
