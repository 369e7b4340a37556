//! Which object each pixel of the foreground belongs to.
//!
//! Where the flood of the definition (see [`super`]) takes a pixel, its neighbours that were
//! taken before are those that are higher, or as high and earlier in reading order. So which
//! neighbour it joins is known without any flood: following the highest such neighbour leads
//! each pixel to a peak, and all pixels with the same peak are a basin. Only where basins meet
//! does the order of the flood matter; these few places are sorted by height, and there basins
//! are merged.

use super::Postprocessing;
use super::heights::{FREE_BITS, Heights, LEVELS, level};
use super::runs::{Run, Runs};

/// Memory for reading basins, reused from frame to frame.
#[derive(Default)]
pub(super) struct Basins {
    /// By number, from 1; the first is for background and stays unused. Basins are numbered in
    /// reading order of their first pixels.
    basins: Vec<Basin>,
    /// Pixels on the way to a peak.
    climb: Vec<u32>,
    /// Places where basins meet, in reading order.
    saddles: Vec<Saddle>,
    /// Which saddle comes when.
    order: Vec<u32>,
    /// Label of each basin.
    labels: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Basin {
    /// Basin that this one was merged into; itself if it stands.
    parent: u32,
    /// Number of pixels.
    area: u32,
    /// Pixel of its peak.
    peak_at: u32,
    /// Level of its peak.
    peak: u16,
}

/// A pixel and a neighbour that the flood took before it, of two basins.
struct Saddle {
    level: u16,
    own: u32,
    other: u32,
}

impl Basins {
    /// Labels the pixels of `foreground`, numbered in reading order, where `labels` is all
    /// background; `objects` become the runs of the same label. Returns how many labels.
    pub(super) fn label(
        &mut self,
        heights: &Heights,
        foreground: &Runs,
        parameters: &Postprocessing,
        labels: &mut [u32],
        objects: &mut Runs,
    ) -> u32 {
        self.find(heights, foreground, labels);
        self.meet(heights, foreground, labels, parameters.merge_height * LEVELS);
        self.merge(parameters.merge_height * LEVELS);
        let count = self.number(parameters);
        self.write(foreground, labels, objects);
        count
    }

    /// Gives each pixel the number of its basin.
    fn find(&mut self, heights: &Heights, foreground: &Runs, labels: &mut [u32]) {
        let uphill = Uphill::new(heights);
        self.basins.clear();
        self.basins.push(Basin { parent: 0, area: 0, peak_at: 0, peak: 0 });
        for (y, runs) in foreground.rows().enumerate() {
            for start in runs.iter().flat_map(Run::pixels) {
                if labels[start] != 0 {
                    continue;
                }
                self.climb.clear();
                let mut at = start;
                let mut padded = uphill.padded(start, y);
                let basin = loop {
                    self.climb.push(at as u32);
                    let way = uphill.way(padded);
                    if way == Uphill::HERE {
                        self.basins.push(Basin {
                            parent: self.basins.len() as u32,
                            area: 0,
                            peak_at: at as u32,
                            peak: level(uphill.heights[padded]),
                        });
                        break self.basins.len() as u32 - 1;
                    }
                    at = at.wrapping_add_signed(uphill.steps[way]);
                    padded = padded.wrapping_add_signed(uphill.padded_steps[way]);
                    if labels[at] != 0 {
                        break labels[at];
                    }
                };
                self.basins[basin as usize].area += self.climb.len() as u32;
                for &at in &self.climb {
                    labels[at as usize] = basin;
                }
            }
        }
    }

    /// Lists the places where basins meet and may merge, in reading order.
    fn meet(&mut self, heights: &Heights, foreground: &Runs, labels: &[u32], merge: f32) {
        let uphill = Uphill::new(heights);
        let (stride, width) = (uphill.stride, uphill.stride - 1);
        let heights = uphill.heights;
        self.saddles.clear();
        for (y, runs) in foreground.rows().enumerate() {
            for at in runs.iter().flat_map(Run::pixels) {
                let padded = uphill.padded(at, y);
                let (own, here) = (labels[at], heights[padded]);
                let label = |at: usize| labels.get(at).copied().unwrap_or(0);
                // The border is background and thus lower than any pixel.
                let neighbours = [
                    (label(at.wrapping_sub(width)), heights[padded - stride] >= here),
                    (label(at.wrapping_sub(1)), heights[padded - 1] >= here),
                    (label(at + 1), heights[padded + 1] > here),
                    (label(at + width), heights[padded + stride] > here),
                ];
                for (other, is_before) in neighbours {
                    if (other != own) & is_before {
                        let level = level(here);
                        let peak = |basin: u32| self.basins[basin as usize].peak;
                        // Merging makes peaks higher only, so what is too high already stays so.
                        if f32::from(peak(own).min(peak(other)) - level) < merge {
                            self.saddles.push(Saddle { level, own, other });
                        }
                    }
                }
            }
        }
    }

    /// Merges basins where they meet, from the highest place to the lowest.
    fn merge(&mut self, merge: f32) {
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
            let Saddle { level, own, other } = self.saddles[index as usize];
            let (own, other) = (root(&mut self.basins, own), root(&mut self.basins, other));
            if own == other {
                continue;
            }
            // Equal peaks: the first in reading order stands.
            let key = |basin: u32| {
                let basin = &self.basins[basin as usize];
                (basin.peak, u32::MAX - basin.peak_at)
            };
            let (higher, lower) = if key(own) > key(other) { (own, other) } else { (other, own) };
            if f32::from(self.basins[lower as usize].peak - level) < merge {
                self.basins[lower as usize].parent = higher;
                self.basins[higher as usize].area += self.basins[lower as usize].area;
            }
        }
    }

    /// Gives each basin its label; objects that are too low or too small become background.
    fn number(&mut self, parameters: &Postprocessing) -> u32 {
        let seed_level = (parameters.seed_threshold * LEVELS) as u16;
        let mut count = 0;
        self.labels.clear();
        self.labels.resize(self.basins.len(), 0);
        // An object's first pixel is that of the first of its basins.
        for basin in 1..self.basins.len() {
            let root = root(&mut self.basins, basin as u32) as usize;
            let Basin { area, peak, .. } = self.basins[root];
            if self.labels[root] == 0 && peak >= seed_level && area >= parameters.min_area {
                count += 1;
                self.labels[root] = count;
            }
            self.labels[basin] = self.labels[root];
        }
        count
    }

    /// Writes labels in place of the numbers of basins.
    fn write(&self, foreground: &Runs, labels: &mut [u32], objects: &mut Runs) {
        objects.clear();
        for runs in foreground.rows() {
            for run in runs {
                let mut open = Run { from: run.from, to: run.from, label: 0 };
                for (at, label) in (run.from..).zip(&mut labels[run.pixels()]) {
                    *label = self.labels[*label as usize];
                    if *label != open.label {
                        if open.label != 0 {
                            objects.push(Run { to: at, ..open });
                        }
                        open = Run { from: at, to: at, label: *label };
                    }
                }
                if open.label != 0 {
                    objects.push(Run { to: run.to, ..open });
                }
            }
            objects.end_row();
        }
    }
}

fn root(basins: &mut [Basin], mut basin: u32) -> u32 {
    loop {
        let parent = basins[basin as usize].parent;
        if parent == basin {
            return basin;
        }
        let grandparent = basins[parent as usize].parent;
        basins[basin as usize].parent = grandparent;
        basin = grandparent;
    }
}

/// The way from a pixel to its highest neighbour.
struct Uphill<'a> {
    heights: &'a [u16],
    stride: usize,
    /// By way: how far the neighbour is in an array of the frame.
    steps: [isize; 8],
    /// By way: how far the neighbour is in `heights`.
    padded_steps: [isize; 8],
}

impl<'a> Uphill<'a> {
    /// There is no higher one.
    const HERE: usize = 2;

    fn new(heights: &'a Heights) -> Self {
        let stride = heights.stride().cast_signed();
        let width = stride - 1;
        Self {
            heights: heights.values(),
            stride: heights.stride(),
            steps: [width, 1, 0, -1, -width, 0, 0, 0],
            padded_steps: [stride, 1, 0, -1, -stride, 0, 0, 0],
        }
    }

    /// Where pixel `at` of row `y` is in `heights`.
    fn padded(&self, at: usize, y: usize) -> usize {
        at + y + self.stride
    }

    /// Among equals, the neighbours that come earlier in reading order are taken before the
    /// pixel and those that come later after it; of two higher ones of the same height the
    /// first counts. The free bits of the heights say just that, so that a maximum decides.
    fn way(&self, padded: usize) -> usize {
        let around = &self.heights[padded - self.stride..=padded + self.stride];
        let middle = self.stride;
        let highest = (around[0] | 4)
            .max(around[middle - 1] | 3)
            .max(around[middle] | 2)
            .max(around[middle + 1] | 1)
            .max(around[2 * middle]);
        usize::from(highest & ((1 << FREE_BITS) - 1))
    }
}
