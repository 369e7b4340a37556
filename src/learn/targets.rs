//! Labels → the four maps the network learns.
//!
//! | map        | value                                                             |
//! |------------|-------------------------------------------------------------------|
//! | foreground | 1 in objects, 0 outside                                           |
//! | distance   | distance to the object's edge over the largest one in that object |
//! | contact    | 1 where another object is within [`CONTACT_REACH`] pixels         |
//! | size       | diameter of the object against the model's, see [`segment::size`] |
//!
//! [`segment::size`]: reticle_segment::size
//!
//! The distance is normalised within each object, so that a small nucleus has as high a peak
//! as a large one and a single threshold separates both.

use pulp::Arch;

/// Pixels to either side of a border between two objects that count as contact.
///
/// Two: wide enough to survive the network's half-resolution stem, narrow enough to leave
/// a core in the smallest nuclei (some 8 px across).
pub const CONTACT_REACH: usize = 2;

/// The maps of one crop, each row-major with one value a pixel.
pub struct Targets {
    /// 1 in objects.
    pub foreground: Vec<f32>,
    /// Normalised distance to the edge, 0 to 1.
    pub distance: Vec<f32>,
    /// 1 near another object.
    pub contact: Vec<f32>,
    /// How large the object is, 0 to 1; 0 outside, where it means nothing.
    pub size: Vec<f32>,
}

/// Makes the maps of a label image of `width × height`, in which an object has the value
/// `size_of(label)` in the size map (an object may go on outside, so that is not measured here).
///
/// The edge of the image is not an edge of objects: what is cut there goes on outside.
pub fn from_labels(
    labels: &[u32],
    width: usize,
    height: usize,
    size_of: impl Fn(u32) -> f32,
) -> Targets {
    let squared = squared_distances(labels, width, height);
    let count = labels.iter().copied().max().unwrap_or(0) as usize;
    let mut largest = vec![0.0_f32; count + 1];
    for (&label, &distance) in labels.iter().zip(&squared) {
        let slot = &mut largest[label as usize];
        *slot = slot.max(distance);
    }
    let sizes: Vec<f32> =
        (0..=count as u32).map(|label| if label == 0 { 0.0 } else { size_of(label) }).collect();
    let distance = labels
        .iter()
        .zip(&squared)
        .map(|(&label, &distance)| match label {
            0 => 0.0,
            label => (distance / largest[label as usize].max(1.0)).sqrt(),
        })
        .collect();
    Targets {
        foreground: labels.iter().map(|&label| f32::from(u8::from(label != 0))).collect(),
        distance,
        contact: contacts(labels, width, height),
        size: labels.iter().map(|&label| sizes[label as usize]).collect(),
    }
}

/// Squared Euclidean distance of each object pixel to the nearest pixel that is not of its
/// object; 0 in the background.
///
/// Two passes (Felzenszwalb & Huttenlocher, "Distance transforms of sampled functions", 2012):
/// along columns by counting, then along rows over each run of one label by the lower
/// envelope of parabolas. Restricting the second pass to runs makes every other label a
/// wall, which one transform over the foreground cannot do.
fn squared_distances(labels: &[u32], width: usize, height: usize) -> Vec<f32> {
    // Larger than any distance inside an image, and its square is exact enough in f32.
    let far = (width + height) as f32;
    let mut vertical = vec![0.0_f32; labels.len()];
    for x in 0..width {
        let mut run = far;
        for y in 0..height {
            let at = y * width + x;
            if labels[at] == 0 {
                run = 0.0;
            } else if y > 0 && labels[at - width] != labels[at] {
                run = 1.0;
            } else {
                run += 1.0;
            }
            vertical[at] = run.min(far);
        }
        run = far;
        for y in (0..height).rev() {
            let at = y * width + x;
            if labels[at] == 0 {
                run = 0.0;
            } else if y + 1 < height && labels[at + width] != labels[at] {
                run = 1.0;
            } else {
                run += 1.0;
            }
            vertical[at] = vertical[at].min(run);
        }
    }
    let mut squared = vec![0.0_f32; labels.len()];
    let mut envelope = Envelope::default();
    for y in 0..height {
        let row = y * width..(y + 1) * width;
        let labels = &labels[row.clone()];
        let vertical = &vertical[row.clone()];
        let squared = &mut squared[row];
        let mut start = 0;
        while start < width {
            let label = labels[start];
            let end = start
                + labels[start..].iter().position(|&other| other != label).unwrap_or(width - start);
            if label != 0 {
                // Walls of height zero just outside the run, where the image has an outside.
                let walls = [
                    (start > 0).then_some(start as f32 - 1.0),
                    (end < width).then_some(end as f32),
                ];
                envelope.transform(start, &vertical[start..end], walls, &mut squared[start..end]);
            }
            start = end;
        }
    }
    squared
}

/// Lower envelope of parabolas; kept between rows so that nothing is allocated for each.
#[derive(Default)]
struct Envelope {
    /// Position and height of each parabola on the envelope.
    parabolas: Vec<(f32, f32)>,
    /// Where each begins to be the lowest.
    begins: Vec<f32>,
}

impl Envelope {
    fn transform(
        &mut self,
        start: usize,
        vertical: &[f32],
        walls: [Option<f32>; 2],
        out: &mut [f32],
    ) {
        self.parabolas.clear();
        self.begins.clear();
        if let Some(position) = walls[0] {
            self.push(position, 0.0);
        }
        for (offset, &distance) in vertical.iter().enumerate() {
            self.push((start + offset) as f32, distance * distance);
        }
        if let Some(position) = walls[1] {
            self.push(position, 0.0);
        }
        let mut current = 0;
        for (offset, out) in out.iter_mut().enumerate() {
            let x = (start + offset) as f32;
            while current + 1 < self.begins.len() && self.begins[current + 1] <= x {
                current += 1;
            }
            let (position, height) = self.parabolas[current];
            *out = (x - position).powi(2) + height;
        }
    }

    fn push(&mut self, position: f32, height: f32) {
        while let (Some(&(other, other_height)), Some(&begin)) =
            (self.parabolas.last(), self.begins.last())
        {
            let crossing = ((height + position * position) - (other_height + other * other))
                / (2.0 * (position - other));
            if crossing > begin {
                self.parabolas.push((position, height));
                self.begins.push(crossing);
                return;
            }
            self.parabolas.pop();
            self.begins.pop();
        }
        self.parabolas.push((position, height));
        self.begins.push(f32::NEG_INFINITY);
    }
}

/// 1 at object pixels with a pixel of another object within [`CONTACT_REACH`], by the
/// chessboard distance: where the smallest and the largest label in reach are not the same.
fn contacts(labels: &[u32], width: usize, height: usize) -> Vec<f32> {
    // Background must not be the smallest, nor the largest.
    let mut smallest: Vec<u32> = labels.iter().map(|label| label.wrapping_sub(1)).collect();
    let mut largest = labels.to_vec();
    let mut scratch = vec![0; labels.len()];
    Arch::new().dispatch(
        #[inline(always)]
        || {
            in_reach(&mut smallest, &mut scratch, width, height, u32::min);
            in_reach(&mut largest, &mut scratch, width, height, u32::max);
        },
    );
    let extremes = smallest.iter().zip(&largest);
    labels
        .iter()
        .zip(extremes)
        .map(|(&label, (&smallest, &largest))| {
            f32::from(u8::from(label != 0 && smallest + 1 != largest))
        })
        .collect()
}

/// Replaces each value by the extreme one within [`CONTACT_REACH`], along rows, then columns.
#[inline(always)]
fn in_reach(
    values: &mut [u32],
    scratch: &mut [u32],
    width: usize,
    height: usize,
    extreme: impl Fn(u32, u32) -> u32,
) {
    scratch.copy_from_slice(values);
    for (row, out) in scratch.chunks_exact(width).zip(values.chunks_exact_mut(width)) {
        for shift in 1..=CONTACT_REACH.min(width - 1) {
            for (out, &near) in out.iter_mut().zip(&row[shift..]) {
                *out = extreme(*out, near);
            }
            for (out, &near) in out[shift..].iter_mut().zip(row) {
                *out = extreme(*out, near);
            }
        }
    }
    scratch.copy_from_slice(values);
    for (y, out) in values.chunks_exact_mut(width).enumerate() {
        let reach = y.saturating_sub(CONTACT_REACH)..(y + CONTACT_REACH + 1).min(height);
        for near in scratch[reach.start * width..reach.end * width].chunks_exact(width) {
            for (out, &near) in out.iter_mut().zip(near) {
                *out = extreme(*out, near);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brute_force(labels: &[u32], width: usize, height: usize) -> Vec<f32> {
        let far = (width + height) as f32;
        (0..labels.len())
            .map(|at| {
                if labels[at] == 0 {
                    return 0.0;
                }
                let (x, y) = ((at % width) as f32, (at / width) as f32);
                (0..labels.len())
                    .filter(|&other| labels[other] != labels[at])
                    .map(|other| {
                        (x - (other % width) as f32).powi(2) + (y - (other / width) as f32).powi(2)
                    })
                    .fold(far * far, f32::min)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn distances_equal_those_of_the_definition(
            labels in proptest::collection::vec(0_u32..3, 9 * 7),
        ) {
            let fast = squared_distances(&labels, 9, 7);
            let slow = brute_force(&labels, 9, 7);
            for (fast, slow) in fast.iter().zip(&slow) {
                // Without any wall in sight both only have to be far.
                prop_assert!(fast == slow || (*fast >= 256.0 && *slow >= 256.0), "{fast} {slow}");
            }
        }
    }

    #[test]
    fn touching_objects_have_contact_and_a_lone_one_has_none() {
        let targets = from_labels(&[1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3], 11, 1, |_| 0.5);
        assert_eq!(targets.contact, [0., 1., 1., 1., 1., 0., 0., 0., 0., 0., 0.]);
        assert_eq!(targets.foreground[6], 0.0);
    }

    proptest! {
        #[test]
        fn contacts_are_those_of_the_definition(
            labels in proptest::collection::vec(0_u32..3, 9 * 7),
        ) {
            let contact = contacts(&labels, 9, 7);
            for at in 0..labels.len() {
                let (x, y) = (at % 9, at / 9);
                let touches = (0..labels.len()).any(|other| {
                    let reach = x.abs_diff(other % 9).max(y.abs_diff(other / 9));
                    reach <= CONTACT_REACH && labels[other] != 0 && labels[other] != labels[at]
                });
                prop_assert_eq!(contact[at] == 1.0, labels[at] != 0 && touches);
            }
        }
    }

    #[test]
    fn an_object_has_its_size_at_each_of_its_pixels() {
        let targets = from_labels(&[0, 1, 2], 3, 1, |label| label as f32 / 4.0);
        assert_eq!(targets.size, [0.0, 0.25, 0.5]);
    }

    #[test]
    fn every_object_peaks_at_one() {
        let mut labels = vec![0; 20 * 20];
        for y in 2..5 {
            for x in 2..5 {
                labels[y * 20 + x] = 1;
            }
        }
        for y in 7..18 {
            for x in 7..18 {
                labels[y * 20 + x] = 2;
            }
        }
        let targets = from_labels(&labels, 20, 20, |_| 0.5);
        for label in [1, 2] {
            let peak = targets
                .distance
                .iter()
                .zip(&labels)
                .filter(|(_, l)| **l == label)
                .map(|(d, _)| *d)
                .fold(0.0, f32::max);
            assert!((peak - 1.0).abs() < 1e-6);
        }
    }
}
