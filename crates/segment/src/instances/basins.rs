//! Which object each pixel of the foreground belongs to.
//!
//! Where the flood of the definition (see [`super`]) takes a pixel, the neighbours that it took
//! before are those that are higher, or as high and earlier in reading order. So which one the
//! pixel joins is known without a flood, and so are the basins: all pixels whose ways lead to
//! the same peak ([`super::uphill`]). Only where basins meet does the order of the flood
//! matter; these few places are sorted by height, and there basins are merged.

use super::Postprocessing;
use super::heights::{Heights, LEVELS, level};
use super::runs::{Run, Runs};
use super::uphill::{Peak, Ways};

/// Memory for reading basins, reused from frame to frame.
#[derive(Default)]
pub(super) struct Basins {
    ways: Ways,
    /// Basins by row; the label of a run is the number of its basin.
    runs: Runs,
    /// Peak of each basin by its number; the first is for background.
    peaks: Vec<Peak>,
    /// Basin that each one was merged into; itself if it stands.
    parents: Vec<u32>,
    /// Pixels of each basin, with those that were merged into it.
    areas: Vec<u32>,
    /// Places where basins meet, in reading order.
    saddles: Vec<Saddle>,
    /// Which saddle comes when.
    order: Vec<u32>,
    /// Whether each basin is high enough for an object, or the network sure enough of it.
    stands: Vec<bool>,
    /// Label of each basin.
    labels: Vec<u32>,
}

/// A pixel and a neighbour that the flood took before it, of two basins.
struct Saddle {
    at: u32,
    /// Where the neighbour is: above, left, right, below.
    side: u8,
    level: u16,
    own: u32,
    other: u32,
}

const SIDES: [u8; 4] = [0, 1, 2, 3];

impl Basins {
    /// Labels the pixels of `foreground`, which have these heights and probabilities, in reading
    /// order, where `labels` is all background; `objects` become the runs of the same label.
    /// Returns how many labels.
    pub(super) fn label(
        &mut self,
        (heights, probabilities): (&Heights, &[f32]),
        foreground: &Runs,
        parameters: &Postprocessing,
        labels: &mut [u32],
        objects: &mut Runs,
    ) -> u32 {
        let merge = parameters.merge_height * LEVELS;
        self.ways.find(heights, foreground, labels, &mut self.runs, &mut self.peaks);
        self.start();
        self.meet(heights, merge);
        self.merge(merge);
        self.judge(probabilities, parameters);
        let count = self.number(parameters);
        self.write(labels, objects);
        count
    }

    /// Every basin for itself.
    fn start(&mut self) {
        self.parents.clear();
        self.parents.extend(0..self.peaks.len() as u32);
        self.areas.clear();
        self.areas.resize(self.peaks.len(), 0);
        for run in self.runs.rows().flatten() {
            self.areas[run.label as usize] += run.to - run.from;
        }
    }

    /// Lists the places where basins meet and may merge, in reading order.
    fn meet(&mut self, heights: &Heights, merge: f32) {
        let [above, left, right, below] = SIDES;
        let width = heights.stride() as u32 - 1;
        let Self { runs, peaks, saddles, .. } = self;
        saddles.clear();
        // Notes `own`'s pixel `at` if the flood took the neighbour of basin `other` before it.
        let mut note = |y: usize, at: u32, neighbour: isize, side: u8, own: u32, other: u32| {
            let position = heights.position(at as usize, y);
            let here = heights.values()[position];
            let there = heights.values()[position.wrapping_add_signed(neighbour)];
            let is_earlier = side <= left;
            if there > here || (there == here && is_earlier) {
                let peak = peaks[own as usize].level.min(peaks[other as usize].level);
                // Merging makes peaks higher only, so what is too high already stays so.
                if f32::from(peak - level(here)) < merge {
                    saddles.push(Saddle { at, side, level: level(here), own, other });
                }
            }
        };
        let stride = heights.stride().cast_signed();
        for (y, row) in runs.rows().enumerate() {
            for pair in row.windows(2) {
                if pair[0].to == pair[1].from {
                    let (a, b) = (pair[0].label, pair[1].label);
                    note(y, pair[1].from - 1, 1, right, a, b);
                    note(y, pair[1].from, -1, left, b, a);
                }
            }
            // Both sides of the border to the next row.
            each_overlap(row, runs.row(y + 1), width, |from, to, upper, lower| {
                for at in from..to {
                    note(y, at, stride, below, upper, lower);
                    note(y + 1, at + width, -stride, above, lower, upper);
                }
            });
        }
    }

    /// Merges basins where they meet, from the highest place to the lowest, equal ones in
    /// reading order.
    fn merge(&mut self, merge: f32) {
        self.saddles.sort_unstable_by_key(|saddle| (saddle.at, saddle.side));
        let mut starts = [0_u32; LEVELS as usize + 1];
        let rank = |saddle: &Saddle| LEVELS as usize - 1 - usize::from(saddle.level);
        for saddle in &self.saddles {
            starts[rank(saddle) + 1] += 1;
        }
        for level in 1..starts.len() {
            starts[level] += starts[level - 1];
        }
        self.order.clear();
        self.order.resize(self.saddles.len(), 0);
        for (index, saddle) in self.saddles.iter().enumerate() {
            let slot = &mut starts[rank(saddle)];
            self.order[*slot as usize] = index as u32;
            *slot += 1;
        }
        for &index in &self.order {
            let Saddle { level, own, other, .. } = self.saddles[index as usize];
            let (own, other) = (root(&mut self.parents, own), root(&mut self.parents, other));
            if own == other {
                continue;
            }
            // Equal peaks: the first in reading order stands.
            let key = |basin: u32| {
                let Peak { at, level } = self.peaks[basin as usize];
                (level, u32::MAX - at)
            };
            let (higher, lower) = if key(own) > key(other) { (own, other) } else { (other, own) };
            if f32::from(self.peaks[lower as usize].level - level) < merge {
                self.parents[lower as usize] = higher;
                self.areas[higher as usize] += self.areas[lower as usize];
            }
        }
    }

    /// Finds the basins that stand: by their height, or, since smoothing takes most from the
    /// smallest, by one pixel that the network is sure of.
    fn judge(&mut self, probabilities: &[f32], parameters: &Postprocessing) {
        let seed_level = (parameters.seed_threshold * LEVELS) as u16;
        self.stands.clear();
        self.stands.extend(self.peaks.iter().map(|peak| peak.level >= seed_level));
        if parameters.sure_threshold >= 1.0 {
            return;
        }
        for run in self.runs.rows().flatten() {
            let root = root(&mut self.parents, run.label) as usize;
            if !self.stands[root] {
                let mut pixels = probabilities[run.pixels()].iter();
                self.stands[root] = pixels.any(|&value| value > parameters.sure_threshold);
            }
        }
    }

    /// Gives each basin its label; objects that do not stand or are too small become background.
    fn number(&mut self, parameters: &Postprocessing) -> u32 {
        let mut count = 0;
        self.labels.clear();
        self.labels.resize(self.peaks.len(), 0);
        // An object's first pixel is that of the first of its basins.
        for basin in 1..self.peaks.len() {
            let root = root(&mut self.parents, basin as u32) as usize;
            let is_kept = self.stands[root] && self.areas[root] >= parameters.min_area;
            if self.labels[root] == 0 && is_kept {
                count += 1;
                self.labels[root] = count;
            }
            self.labels[basin] = self.labels[root];
        }
        count
    }

    /// Writes the labels of all runs.
    fn write(&self, labels: &mut [u32], objects: &mut Runs) {
        objects.clear();
        for row in self.runs.rows() {
            // Runs of several basins of an object become one.
            let mut open = Run { from: 0, to: 0, label: 0 };
            for run in row {
                let label = self.labels[run.label as usize];
                labels[run.pixels()].fill(label);
                if label == open.label && run.from == open.to {
                    open.to = run.to;
                } else {
                    if open.label != 0 {
                        objects.push(open);
                    }
                    open = Run { label, ..*run };
                }
            }
            if open.label != 0 {
                objects.push(open);
            }
            objects.end_row();
        }
    }
}

/// Calls `found` with first pixel, pixel after the last, upper and lower label wherever two runs
/// of different labels lie one above the other; pixels are those of the upper row.
fn each_overlap(
    upper: &[Run],
    lower: &[Run],
    width: u32,
    mut found: impl FnMut(u32, u32, u32, u32),
) {
    let (mut above, mut below) = (0, 0);
    while above < upper.len() && below < lower.len() {
        let (up, down) = (upper[above], lower[below]);
        let (down_from, down_to) = (down.from - width, down.to - width);
        let (from, to) = (up.from.max(down_from), up.to.min(down_to));
        if from < to && up.label != down.label {
            found(from, to, up.label, down.label);
        }
        above += usize::from(up.to <= down_to);
        below += usize::from(down_to <= up.to);
    }
}

fn root(parents: &mut [u32], mut basin: u32) -> u32 {
    loop {
        let parent = parents[basin as usize];
        if parent == basin {
            return basin;
        }
        let grandparent = parents[parent as usize];
        parents[basin as usize] = grandparent;
        basin = grandparent;
    }
}
