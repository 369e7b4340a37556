//! Background that one single object encloses becomes part of it: a nucleolus is not a hole in
//! the nucleus.
//!
//! Works on runs, not on pixels: the gaps between runs are put together to regions by a
//! union-find over neighbouring rows, and each region remembers whether all its neighbours are
//! of one object. Linear in the runs.

use super::runs::{Run, Runs};

/// Memory for finding holes, reused from frame to frame.
#[derive(Default)]
pub(super) struct Holes {
    gaps: Vec<Gap>,
    /// The row before and the row at hand, gaps and runs in turn, from edge to edge.
    above: Vec<Piece>,
    here: Vec<Piece>,
}

/// A stretch of background, and its region.
#[derive(Clone, Copy)]
struct Gap {
    from: u32,
    to: u32,
    /// A gap of the same region, itself if it speaks for the region.
    parent: u32,
    /// Label around the region: [`UNKNOWN`] if none was met yet, [`OPEN`] if there are several
    /// or the edge of the frame.
    around: u32,
}

const UNKNOWN: u32 = 0;
const OPEN: u32 = u32::MAX;

/// Part of a row.
#[derive(Clone, Copy)]
struct Piece {
    /// Column after its last.
    end: u32,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Object(u32),
    Gap(u32),
}

impl Holes {
    /// Fills the holes of `objects`, which are the runs of `labels`.
    pub(super) fn fill(&mut self, objects: &Runs, labels: &mut [u32], width: usize) {
        self.gaps.clear();
        self.above.clear();
        for (y, runs) in objects.rows().enumerate() {
            self.cut(runs, (y * width) as u32, width as u32);
            self.join();
            std::mem::swap(&mut self.above, &mut self.here);
        }
        // Below the last row is the edge of the frame.
        for index in 0..self.above.len() {
            if let What::Gap(gap) = self.above[index].what {
                self.surround(gap, OPEN);
            }
        }
        for index in 0..self.gaps.len() {
            let root = self.root(index as u32);
            let Gap { from, to, .. } = self.gaps[index];
            let around = self.gaps[root as usize].around;
            if around != OPEN && around != UNKNOWN {
                labels[from as usize..to as usize].fill(around);
            }
        }
    }

    /// Cuts the row that begins at pixel `start` into gaps and runs.
    fn cut(&mut self, runs: &[Run], start: u32, width: u32) {
        self.here.clear();
        let mut end = start;
        let mut left = OPEN;
        for run in runs {
            if run.from > end {
                self.push_gap(end, run.from, start, [left, run.label]);
            }
            self.here.push(Piece { end: run.to - start, what: What::Object(run.label) });
            (end, left) = (run.to, run.label);
        }
        if end < start + width {
            self.push_gap(end, start + width, start, [left, OPEN]);
        }
    }

    fn push_gap(&mut self, from: u32, to: u32, start: u32, [left, right]: [u32; 2]) {
        let index = self.gaps.len() as u32;
        // Above the first row is the edge of the frame.
        let around = if start == 0 { OPEN } else { both(left, right) };
        self.gaps.push(Gap { from, to, parent: index, around });
        self.here.push(Piece { end: to - start, what: What::Gap(index) });
    }

    /// Tells gaps what is above and below them.
    fn join(&mut self) {
        let (mut above, mut here) = (0, 0);
        while above < self.above.len() && here < self.here.len() {
            let (up, down) = (self.above[above], self.here[here]);
            match (up.what, down.what) {
                (What::Gap(a), What::Gap(b)) => self.unite(a, b),
                (What::Gap(gap), What::Object(label)) | (What::Object(label), What::Gap(gap)) => {
                    self.surround(gap, label);
                }
                (What::Object(_), What::Object(_)) => {}
            }
            above += usize::from(up.end <= down.end);
            here += usize::from(down.end <= up.end);
        }
    }

    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            // The earlier stands: most gaps join the background around everything.
            let (first, second) = (a.min(b), a.max(b));
            self.gaps[second as usize].parent = first;
            self.surround(first, self.gaps[second as usize].around);
        }
    }

    fn surround(&mut self, gap: u32, label: u32) {
        let root = self.root(gap) as usize;
        self.gaps[root].around = both(self.gaps[root].around, label);
    }

    fn root(&mut self, mut gap: u32) -> u32 {
        loop {
            let parent = self.gaps[gap as usize].parent;
            if parent == gap {
                return gap;
            }
            let grandparent = self.gaps[parent as usize].parent;
            self.gaps[gap as usize].parent = grandparent;
            gap = grandparent;
        }
    }
}

/// What is around two stretches of background that are one.
fn both(a: u32, b: u32) -> u32 {
    match (a, b) {
        (UNKNOWN, other) | (other, UNKNOWN) => other,
        (a, b) if a == b => a,
        _ => OPEN,
    }
}
