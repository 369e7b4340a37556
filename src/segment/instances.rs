//! The network's maps → a label image.
//!
//! A watershed that never makes too many seeds: pixels of the foreground are taken from the
//! highest to the lowest, each joins the object of its highest neighbour, and where two
//! objects meet, the lower one is merged into the higher unless it rose at least
//! `merge_height` above the meeting point (its persistence; Edelsbrunner et al., 2002, and
//! the h-maxima of mathematical morphology). Heights are the distance map less a share of
//! the contact map, smoothed.
//!
//! One pass over the foreground, linear in its pixels. Ties are broken by position, so that
//! the same maps give the same labels everywhere.

use rayon::prelude::*;

use crate::domain::label_image::LabelImage;

/// How objects are read from the maps; part of the model package, chosen on held-out data.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postprocessing {
    /// Foreground probability above which a pixel may belong to an object.
    pub foreground_threshold: f32,
    /// Height an object must have somewhere, or it is dropped.
    pub seed_threshold: f32,
    /// Rise above the meeting point that keeps two objects apart.
    pub merge_height: f32,
    /// How much of the contact map is taken off the distance map.
    pub contact_weight: f32,
    /// Passes of a 3×3 binomial filter over the heights.
    pub smoothing_passes: u32,
    /// Smaller objects are dropped, in pixels.
    pub min_area: u32,
}

/// The maps of a frame, row-major, values 0 to 1.
#[derive(Default)]
pub struct Maps {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Probability that a pixel is in an object.
    pub foreground: Vec<f32>,
    /// Distance to the object's edge over the object's largest.
    pub distance: Vec<f32>,
    /// Probability that another object is next to it.
    pub contact: Vec<f32>,
    /// Diameter of the object as [`super::size`] has it; means nothing outside objects. Empty
    /// when the network does not give it.
    pub size: Vec<f32>,
}

/// Steps in which heights are sorted. Finer than any difference that matters, and the
/// sort stays linear.
const HEIGHT_LEVELS: f32 = 4096.0;

const NONE: u32 = u32::MAX;

/// Reads objects from maps.
pub fn from_maps(maps: &Maps, parameters: &Postprocessing) -> LabelImage {
    let (width, height) = (maps.width, maps.height);
    let heights = quantised_heights(maps, parameters);
    let order = highest_first(maps, parameters, &heights);
    let mut flood = Flood::new(heights.len());
    let merge_levels = parameters.merge_height * HEIGHT_LEVELS;
    for &at in &order {
        flood.take(at as usize, width, height, &heights, merge_levels);
    }
    let seed_level = (parameters.seed_threshold * HEIGHT_LEVELS) as u16;
    let labels = flood.labels(&order, seed_level, parameters.min_area);
    let labels = fill_holes(labels, width, height);
    LabelImage::new(width as u32, height as u32, labels)
        .expect("as many labels as the maps have pixels")
        .relabelled()
}

fn quantised_heights(maps: &Maps, parameters: &Postprocessing) -> Vec<u16> {
    let mut heights: Vec<f32> = maps
        .distance
        .iter()
        .zip(&maps.contact)
        .map(|(distance, contact)| (distance - parameters.contact_weight * contact).max(0.0))
        .collect();
    let mut scratch = vec![0.0; heights.len()];
    for _ in 0..parameters.smoothing_passes {
        smooth(&mut heights, &mut scratch, maps.width);
    }
    heights.iter().map(|height| (height.min(1.0) * (HEIGHT_LEVELS - 1.0)) as u16).collect()
}

/// One pass of [1 2 1]/4 along both axes; edges are repeated. Rows side by side in the current
/// rayon pool: each row is computed alone, so the result does not depend on how many are.
fn smooth(values: &mut [f32], scratch: &mut [f32], width: usize) {
    let last = width - 1;
    values.par_chunks_exact(width).zip(scratch.par_chunks_exact_mut(width)).for_each(
        |(row, out)| {
            out[0] = (3.0 * row[0] + row[1.min(last)]) * 0.25;
            out[last] = (3.0 * row[last] + row[last.saturating_sub(1)]) * 0.25;
            for (out, near) in out[1..].iter_mut().zip(row.windows(3)) {
                *out = (near[0] + 2.0 * near[1] + near[2]) * 0.25;
            }
        },
    );
    let rows = values.len() / width;
    let row = |y: usize| &scratch[y * width..(y + 1) * width];
    values.par_chunks_exact_mut(width).enumerate().for_each(|(y, out)| {
        let around = row(y.saturating_sub(1)).iter().zip(row(y)).zip(row((y + 1).min(rows - 1)));
        for (out, ((above, here), below)) in out.iter_mut().zip(around) {
            *out = (above + 2.0 * here + below) * 0.25;
        }
    });
}

/// Foreground pixels from the highest to the lowest, equal ones in reading order.
fn highest_first(maps: &Maps, parameters: &Postprocessing, heights: &[u16]) -> Vec<u32> {
    let is_foreground = |at: usize| maps.foreground[at] > parameters.foreground_threshold;
    let mut starts = vec![0_usize; HEIGHT_LEVELS as usize + 1];
    let level = |height: u16| HEIGHT_LEVELS as usize - 1 - usize::from(height);
    for (at, &height) in heights.iter().enumerate() {
        if is_foreground(at) {
            starts[level(height) + 1] += 1;
        }
    }
    for level in 1..starts.len() {
        starts[level] += starts[level - 1];
    }
    let mut order = vec![0_u32; starts[HEIGHT_LEVELS as usize]];
    for (at, &height) in heights.iter().enumerate() {
        if is_foreground(at) {
            let slot = &mut starts[level(height)];
            order[*slot] = at as u32;
            *slot += 1;
        }
    }
    order
}

/// Growing objects: a union-find over peaks.
struct Flood {
    /// Object each taken pixel joined, before merges; [`NONE`] if not taken yet.
    joined: Vec<u32>,
    /// Object that each object was merged into; itself if it stands.
    parent: Vec<u32>,
    /// Height of each object's peak.
    peak: Vec<u16>,
}

impl Flood {
    fn new(pixels: usize) -> Self {
        Self { joined: vec![NONE; pixels], parent: Vec::new(), peak: Vec::new() }
    }

    fn root(&mut self, mut object: u32) -> u32 {
        while self.parent[object as usize] != object {
            let grandparent = self.parent[self.parent[object as usize] as usize];
            self.parent[object as usize] = grandparent;
            object = grandparent;
        }
        object
    }

    fn take(&mut self, at: usize, width: usize, height: usize, heights: &[u16], merge: f32) {
        let (x, y) = (at % width, at / width);
        let neighbours = [
            (y > 0).then(|| at - width),
            (x > 0).then(|| at - 1),
            (x + 1 < width).then_some(at + 1),
            (y + 1 < height).then_some(at + width),
        ];
        let mut highest: Option<(u16, u32)> = None;
        let mut roots = [NONE; 4];
        for (slot, neighbour) in neighbours.into_iter().flatten().enumerate() {
            if self.joined[neighbour] != NONE {
                let root = self.root(self.joined[neighbour]);
                roots[slot] = root;
                if highest.is_none_or(|(best, _)| heights[neighbour] > best) {
                    highest = Some((heights[neighbour], root));
                }
            }
        }
        let Some((_, mut own)) = highest else {
            // Nothing higher around: a peak of its own.
            self.joined[at] = self.parent.len() as u32;
            self.parent.push(self.parent.len() as u32);
            self.peak.push(heights[at]);
            return;
        };
        for root in roots {
            // A merge just before may have changed what the root is.
            let other = if root == NONE { own } else { self.root(root) };
            if other == own {
                continue;
            }
            // Equal peaks: the one met first in reading order stands, whichever is `own`.
            let key = |object: u32| (self.peak[object as usize], u32::MAX - object);
            let (higher, lower) = if key(own) > key(other) { (own, other) } else { (other, own) };
            if f32::from(self.peak[lower as usize] - heights[at]) < merge {
                self.parent[lower as usize] = higher;
                own = self.root(own);
            }
        }
        self.joined[at] = own;
    }

    /// Labels of all pixels; objects that are too low or too small become background.
    fn labels(mut self, order: &[u32], seed_level: u16, min_area: u32) -> Vec<u32> {
        let mut areas = vec![0_u32; self.parent.len()];
        for &at in order {
            let root = self.root(self.joined[at as usize]);
            self.joined[at as usize] = root;
            areas[root as usize] += 1;
        }
        let keeps = |object: u32| {
            self.peak[object as usize] >= seed_level && areas[object as usize] >= min_area
        };
        self.joined
            .iter()
            .map(|&object| if object != NONE && keeps(object) { object + 1 } else { 0 })
            .collect()
    }
}

/// Background that one single object encloses becomes part of it: a nucleolus is not a hole
/// in the nucleus.
fn fill_holes(mut labels: Vec<u32>, width: usize, height: usize) -> Vec<u32> {
    let mut seen = vec![false; labels.len()];
    let mut region = Vec::new();
    for start in 0..labels.len() {
        // A hole begins right of a pixel of its object, so other starts need no look.
        if labels[start] != 0 || seen[start] || start % width == 0 || labels[start - 1] == 0 {
            continue;
        }
        let owner = labels[start - 1];
        let mut enclosed = true;
        region.clear();
        region.push(start);
        seen[start] = true;
        let mut next = 0;
        while next < region.len() {
            let at = region[next];
            next += 1;
            let (x, y) = (at % width, at / width);
            enclosed &= x > 0 && y > 0 && x + 1 < width && y + 1 < height;
            let neighbours = [
                (y > 0).then(|| at - width),
                (x > 0).then(|| at - 1),
                (x + 1 < width).then_some(at + 1),
                (y + 1 < height).then_some(at + width),
            ];
            for neighbour in neighbours.into_iter().flatten() {
                match labels[neighbour] {
                    0 if !seen[neighbour] => {
                        seen[neighbour] = true;
                        region.push(neighbour);
                    }
                    0 => {}
                    label => enclosed &= label == owner,
                }
            }
        }
        if enclosed {
            for &at in &region {
                labels[at] = owner;
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARAMETERS: Postprocessing = Postprocessing {
        foreground_threshold: 0.5,
        seed_threshold: 0.3,
        merge_height: 0.2,
        contact_weight: 0.0,
        smoothing_passes: 0,
        min_area: 1,
    };

    fn maps(width: usize, distance: &[f32]) -> Maps {
        Maps {
            width,
            height: distance.len() / width,
            foreground: distance.iter().map(|&value| f32::from(u8::from(value > 0.0))).collect(),
            distance: distance.to_vec(),
            contact: vec![0.0; distance.len()],
            size: vec![],
        }
    }

    #[test]
    fn two_peaks_with_a_deep_valley_are_two_objects() {
        let maps = maps(7, &[0.5, 1.0, 0.6, 0.3, 0.6, 0.9, 0.5]);
        let labels = from_maps(&maps, &PARAMETERS);
        assert_eq!(labels.count(), 2);
        assert_eq!(labels.labels()[1], 1);
        assert_eq!(labels.labels()[5], 2);
    }

    #[test]
    fn two_peaks_with_a_shallow_valley_are_one_object() {
        let maps = maps(7, &[0.5, 1.0, 0.9, 0.85, 0.9, 0.95, 0.5]);
        assert_eq!(from_maps(&maps, &PARAMETERS).count(), 1);
    }

    #[test]
    fn low_and_small_objects_are_dropped() {
        let low = maps(5, &[0.1, 0.2, 0.1, 0.0, 0.0]);
        assert_eq!(from_maps(&low, &PARAMETERS).count(), 0);
        let small = Postprocessing { min_area: 4, ..PARAMETERS };
        assert_eq!(from_maps(&maps(5, &[0.5, 0.9, 0.5, 0.0, 0.0]), &small).count(), 0);
    }

    #[test]
    fn a_hole_in_one_object_is_filled_and_a_gap_between_two_is_not() {
        #[rustfmt::skip]
        let ring = vec![
            1, 1, 1, 0, 2, 2, 2,
            1, 0, 1, 0, 2, 2, 2,
            1, 1, 1, 0, 2, 2, 2,
        ];
        let filled = fill_holes(ring, 7, 3);
        assert_eq!(filled[8], 1);
        assert_eq!(filled[10], 0);
    }

    proptest! {
        #[test]
        fn any_maps_give_contiguous_labels_inside_the_foreground(
            distance in proptest::collection::vec(0.0_f32..1.0, 16 * 9),
            foreground in proptest::collection::vec(0.0_f32..1.0, 16 * 9),
        ) {
            let maps = Maps {
                width: 16, height: 9, foreground, distance, contact: vec![0.1; 16 * 9], size: vec![],
            };
            let parameters = Postprocessing { smoothing_passes: 1, contact_weight: 0.5, ..PARAMETERS };
            let labels = from_maps(&maps, &parameters);
            prop_assert!(labels.is_contiguous());
        }
    }
}
