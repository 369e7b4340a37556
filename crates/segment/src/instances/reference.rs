//! The definition of [`super`], step by step and pixel by pixel: what the fast way must equal.

use super::{Maps, Postprocessing};
use reticle_domain::label_image::LabelImage;

/// Steps in which heights are sorted. Finer than any difference that matters, and the
/// sort stays linear.
const HEIGHT_LEVELS: f32 = 4096.0;

const NONE: u32 = u32::MAX;

/// Reads objects from maps.
pub(super) fn from_maps(maps: &Maps, parameters: &Postprocessing) -> LabelImage {
    let (width, height) = (maps.width, maps.height);
    let heights = quantised_heights(maps, parameters);
    let order = highest_first(maps, parameters, &heights);
    let mut flood = Flood::new(heights.len());
    let merge_levels = parameters.merge_height * HEIGHT_LEVELS;
    for &at in &order {
        flood.take(at as usize, width, height, &heights, merge_levels);
    }
    let seed_level = (parameters.seed_threshold * HEIGHT_LEVELS) as u16;
    let sure = |at: u32| maps.foreground[at as usize] > parameters.sure_threshold;
    let labels = flood.labels(&order, seed_level, parameters.min_area, sure);
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

/// One pass of [1 2 1]/4 along both axes; edges are repeated.
fn smooth(values: &mut [f32], scratch: &mut [f32], width: usize) {
    let last = width - 1;
    for (row, out) in values.chunks_exact(width).zip(scratch.chunks_exact_mut(width)) {
        out[0] = (3.0 * row[0] + row[1.min(last)]) * 0.25;
        out[last] = (3.0 * row[last] + row[last.saturating_sub(1)]) * 0.25;
        for (out, near) in out[1..].iter_mut().zip(row.windows(3)) {
            *out = (near[0] + 2.0 * near[1] + near[2]) * 0.25;
        }
    }
    let rows = values.len() / width;
    let row = |y: usize| &scratch[y * width..(y + 1) * width];
    for (y, out) in values.chunks_exact_mut(width).enumerate() {
        let around = row(y.saturating_sub(1)).iter().zip(row(y)).zip(row((y + 1).min(rows - 1)));
        for (out, ((above, here), below)) in out.iter_mut().zip(around) {
            *out = (above + 2.0 * here + below) * 0.25;
        }
    }
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
    fn labels(
        mut self,
        order: &[u32],
        seed_level: u16,
        min_area: u32,
        sure: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut areas = vec![0_u32; self.parent.len()];
        let mut is_sure = vec![false; self.parent.len()];
        for &at in order {
            let root = self.root(self.joined[at as usize]);
            self.joined[at as usize] = root;
            areas[root as usize] += 1;
            is_sure[root as usize] |= sure(at);
        }
        let keeps = |object: u32| {
            let object = object as usize;
            (self.peak[object] >= seed_level || is_sure[object]) && areas[object] >= min_area
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
