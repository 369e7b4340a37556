//! Stretches of pixels of a row: what is not background comes in few of them.

use std::ops::Range;

/// Consecutive pixels of one row, by their position in the frame, that have the same label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First pixel.
    pub(super) from: u32,
    /// Pixel after the last.
    pub(super) to: u32,
    /// Whose they are.
    pub(super) label: u32,
}

impl Run {
    /// Its pixels in an array of the whole frame.
    pub(super) fn pixels(&self) -> Range<usize> {
        self.from as usize..self.to as usize
    }
}

/// Runs in reading order.
#[derive(Default)]
pub(super) struct Runs {
    all: Vec<Run>,
    /// How many there are to the end of each row.
    ends: Vec<usize>,
}

impl Runs {
    /// Forgets all runs and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.ends.clear();
    }

    /// Adds a run to the row that is not ended yet.
    pub(super) fn push(&mut self, run: Run) {
        self.all.push(run);
    }

    /// What follows is in the next row.
    pub(super) fn end_row(&mut self) {
        self.ends.push(self.all.len());
    }

    /// The runs of each row, from the first.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[Run]> {
        (0..self.ends.len()).map(|y| self.row(y))
    }

    /// The runs of row `y`; none of a row that is not there.
    pub(super) fn row(&self, y: usize) -> &[Run] {
        let Some(&end) = self.ends.get(y) else { return &[] };
        let start = if y == 0 { 0 } else { self.ends[y - 1] };
        &self.all[start..end]
    }

    /// Adds a row: the stretches of `values`, which begin at pixel `start`, that are not 0.
    pub(super) fn push_row(&mut self, values: &[u16], start: usize) {
        /// Pixels that are looked at together: most are background.
        const CHUNK: usize = 16;
        let mut open = None;
        for (chunk, values) in values.chunks(CHUNK).enumerate() {
            let any = values.iter().fold(0, |any, value| any | value) != 0;
            if !any && open.is_none() {
                continue;
            }
            for (at, &value) in (start + chunk * CHUNK..).zip(values) {
                match (open, value != 0) {
                    (None, true) => open = Some(at as u32),
                    (Some(from), false) => {
                        self.push(Run { from, to: at as u32, label: 0 });
                        open = None;
                    }
                    _ => {}
                }
            }
        }
        if let Some(from) = open {
            self.push(Run { from, to: (start + values.len()) as u32, label: 0 });
        }
        self.end_row();
    }
}
