//! The way from each pixel of the foreground to a peak: basins before any are merged.
//!
//! A pixel's way leads to its highest neighbour among those that the flood takes before it.
//! Rows are read one after the other. A stretch of pixels that lead along the row to the same
//! pixel gets what that pixel gets: the number of the pixel above, which is known, or a new
//! one, where it is a peak or leads down to the next row. Where those lead is seen in the end.

use pulp::Arch;

use super::heights::{FREE_BITS, Heights, level};
use super::runs::{Run, Runs};

/// The highest pixel of a basin.
#[derive(Clone, Copy)]
pub(super) struct Peak {
    /// Where it is; of several that are as high, the first.
    pub(super) at: u32,
    /// Its level.
    pub(super) level: u16,
}

/// Memory for finding ways, reused from frame to frame.
#[derive(Default)]
pub(super) struct Ways {
    /// Of the pixels of one run.
    ways: Vec<u16>,
    /// Stretches by number, from 1, in reading order of their first pixels.
    stretches: Vec<Stretch>,
    /// Basin of each stretch.
    basins: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Stretch {
    /// Pixel where it ends: a peak, or one that leads down.
    exit: u32,
    /// Stretch that follows on the way, or itself at a peak.
    next: u32,
}

/// The neighbour to which a way leads. Among equals, neighbours that come earlier in reading
/// order are taken before the pixel and those that come later after it; of two higher ones of
/// the same height, the first counts. So a maximum decides over heights with these below.
const DOWN: u16 = 0;
const RIGHT: u16 = 1;
const HERE: u16 = 2;
const LEFT: u16 = 3;
const UP: u16 = 4;

impl Ways {
    /// Cuts `foreground` into the runs of each basin. Basins are numbered from 1 in reading
    /// order of their first pixels, and `peaks` become theirs, with one for background first.
    /// `marks` has a place for each pixel of the frame; what it holds there afterwards has no
    /// meaning.
    pub(super) fn find(
        &mut self,
        heights: &Heights,
        foreground: &Runs,
        marks: &mut [u32],
        runs: &mut Runs,
        peaks: &mut Vec<Peak>,
    ) {
        self.follow(heights, foreground, marks);
        self.join(heights, marks, peaks);
        self.cut(foreground, marks, runs);
    }

    /// Marks each pixel with the number of its stretch.
    fn follow(&mut self, heights: &Heights, foreground: &Runs, marks: &mut [u32]) {
        let (stride, width) = (heights.stride(), heights.stride() - 1);
        let arch = Arch::new();
        self.stretches.clear();
        self.stretches.push(Stretch { exit: 0, next: 0 });
        for (y, runs) in foreground.rows().enumerate() {
            for run in runs {
                let length = run.pixels().len();
                if self.ways.len() < length {
                    self.ways.resize(length, HERE);
                }
                let ways = &mut self.ways[..length];
                let padded = heights.position(run.from as usize, y);
                arch.dispatch(
                    #[inline(always)]
                    || lead(&heights.values()[padded - stride..], stride, ways),
                );
                // First of the pixels that lead along the row and have no number yet.
                let mut first = run.from as usize;
                for (at, &way) in (run.from as usize..).zip(&*ways) {
                    let number = match way {
                        RIGHT => continue,
                        LEFT => marks[at - 1],
                        UP => marks[at - width],
                        way => {
                            let number = self.stretches.len() as u32;
                            let next = if way == HERE { number } else { 0 };
                            self.stretches.push(Stretch { exit: at as u32, next });
                            number
                        }
                    };
                    marks[at] = number;
                    if first < at {
                        marks[first..at].fill(number);
                    }
                    first = at + 1;
                }
            }
        }
    }

    /// Follows stretches to their peaks.
    fn join(&mut self, heights: &Heights, marks: &[u32], peaks: &mut Vec<Peak>) {
        let width = heights.stride() - 1;
        let stretches = &mut self.stretches;
        for stretch in &mut stretches[1..] {
            if stretch.next == 0 {
                stretch.next = marks[stretch.exit as usize + width];
            }
        }
        self.basins.clear();
        self.basins.resize(stretches.len(), 0);
        peaks.clear();
        peaks.push(Peak { at: 0, level: 0 });
        for start in 1..stretches.len() {
            let mut last = start;
            while stretches[last].next as usize != last {
                let next = stretches[last].next as usize;
                stretches[last].next = stretches[next].next;
                last = next;
            }
            if self.basins[last] == 0 {
                self.basins[last] = peaks.len() as u32;
                let at = stretches[last].exit;
                let height = heights.values()[heights.position(at as usize, at as usize / width)];
                peaks.push(Peak { at, level: level(height) });
            }
            self.basins[start] = self.basins[last];
        }
    }

    fn cut(&self, foreground: &Runs, marks: &[u32], runs: &mut Runs) {
        runs.clear();
        for row in foreground.rows() {
            for run in row {
                let mut open =
                    Run { label: self.basins[marks[run.from as usize] as usize], ..*run };
                for (at, mark) in (run.from..).zip(&marks[run.pixels()]) {
                    let label = self.basins[*mark as usize];
                    if label != open.label {
                        runs.push(Run { to: at, ..open });
                        open = Run { from: at, label, ..*run };
                    }
                }
                runs.push(open);
            }
            runs.end_row();
        }
    }
}

/// The ways of the pixels of a run; `heights` begin right above it.
#[inline(always)]
fn lead(heights: &[u16], stride: usize, ways: &mut [u16]) {
    let length = ways.len();
    let above = &heights[..length];
    let left = &heights[stride - 1..][..length];
    let here = &heights[stride..][..length];
    let right = &heights[stride + 1..][..length];
    let below = &heights[2 * stride..][..length];
    for (index, way) in ways.iter_mut().enumerate() {
        let highest = (above[index] | UP)
            .max(left[index] | LEFT)
            .max(here[index] | HERE)
            .max(right[index] | RIGHT)
            .max(below[index] | DOWN);
        *way = highest & ((1 << FREE_BITS) - 1);
    }
}
