//! How high each pixel of the foreground lies: the distance map less a share of the contact
//! map, smoothed, in whole levels.
//!
//! The order of every addition is part of the definition, so that the same maps give the same
//! heights on every machine. Blocks of the frame are computed alone, each with as many pixels
//! around it as the smoothing reaches, so that their number and order do not matter either.
//! Only the part of a block around its foreground is computed: elsewhere nobody asks.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{Maps, Postprocessing};

/// Levels in which heights are told apart. Finer than any difference that matters, and sorting
/// by them stays linear.
pub(super) const LEVELS: f32 = 4096.0;

/// Rows of a block. Small enough that frames with few objects have blocks without any, and
/// large enough that what is around a block costs little.
const ROWS: usize = 32;

/// Columns of a block: long enough for the processor to see that memory is read in a row.
/// Blocks from 16 × 64 to 64 × 64 and 32 × 256 took within 15 % of the same time.
const COLUMNS: usize = 128;

/// Levels of a frame with a border of background. A level takes the upper 13 bits, the lowest
/// three are 0 and free for whoever compares neighbours; background is 0 as a whole.
#[derive(Default)]
pub(super) struct Heights {
    width: usize,
    height: usize,
    values: Vec<u16>,
}

/// Bits below a level.
pub(super) const FREE_BITS: u32 = 3;

/// The level of a value that is not background.
pub(super) fn level(value: u16) -> u16 {
    (value >> FREE_BITS) - 1
}

impl Heights {
    /// From one row to the next in [`Heights::values`]. The border's column is to the right of
    /// a row and to the left of the next.
    pub(super) fn stride(&self) -> usize {
        self.width + 1
    }

    /// All values, a row of border first.
    pub(super) fn values(&self) -> &[u16] {
        &self.values
    }

    /// Where pixel `at` of the frame, which is in row `y`, is in [`Heights::values`].
    pub(super) fn position(&self, at: usize, y: usize) -> usize {
        at + y + self.stride()
    }

    /// The values of row `y`, without border.
    pub(super) fn row(&self, y: usize) -> &[u16] {
        &self.values[(y + 1) * self.stride()..][..self.width]
    }

    /// Computes all of them anew, in the current rayon pool.
    pub(super) fn fill(&mut self, maps: &Maps, parameters: &Postprocessing) {
        if (self.width, self.height) != (maps.width, maps.height) {
            (self.width, self.height) = (maps.width, maps.height);
            self.values.clear();
            self.values.resize((self.height + 2) * self.stride(), 0);
        }
        let (stride, height) = (self.stride(), self.height);
        let arch = Arch::new();
        self.values[stride..(height + 1) * stride]
            .par_chunks_mut(ROWS * stride)
            .enumerate()
            .for_each_init(Scratch::default, |scratch, (band, out)| {
                let rows = band * ROWS..((band + 1) * ROWS).min(height);
                arch.dispatch(
                    #[inline(always)]
                    || scratch.band(maps, parameters, rows, out),
                );
            });
    }
}

/// Memory for one block at a time.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    between: Vec<f32>,
}

impl Scratch {
    /// The levels of `rows`, one block after the other.
    #[inline(always)]
    fn band(
        &mut self,
        maps: &Maps,
        parameters: &Postprocessing,
        rows: Range<usize>,
        out: &mut [u16],
    ) {
        let stride = maps.width + 1;
        for left in (0..maps.width).step_by(COLUMNS) {
            let columns = left..(left + COLUMNS).min(maps.width);
            for line in out.chunks_exact_mut(stride) {
                line[columns.clone()].fill(0);
            }
            let found = foreground_in(maps, parameters.foreground_threshold, &rows, &columns);
            if let Some((inner_rows, inner_columns)) = found {
                let out = &mut out[(inner_rows.start - rows.start) * stride..];
                self.block(maps, parameters, inner_rows, inner_columns, out);
            }
        }
    }

    /// The levels of one block; `out` begins with its first row.
    #[inline(always)]
    fn block(
        &mut self,
        maps: &Maps,
        parameters: &Postprocessing,
        rows: Range<usize>,
        columns: Range<usize>,
        out: &mut [u16],
    ) {
        let reach = parameters.smoothing_passes as usize;
        let top = rows.start.saturating_sub(reach);
        let bottom = (rows.end + reach).min(maps.height);
        let left = columns.start.saturating_sub(reach);
        let right = (columns.end + reach).min(maps.width);
        let width = right - left;
        let pixels = (bottom - top) * width;
        if self.values.len() < pixels {
            self.values.resize(pixels, 0.0);
            self.between.resize(pixels, 0.0);
        }
        let values = &mut self.values[..pixels];
        for (y, line) in (top..bottom).zip(values.chunks_exact_mut(width)) {
            let at = y * maps.width + left;
            let maps = maps.distance[at..at + width].iter().zip(&maps.contact[at..at + width]);
            for (value, (distance, contact)) in line.iter_mut().zip(maps) {
                *value = (distance - parameters.contact_weight * contact).max(0.0);
            }
        }
        for _ in 0..reach {
            smooth(values, &mut self.between[..pixels], width);
        }
        let inside = columns.start - left..columns.end - left;
        let lines = values.chunks_exact(width).skip(rows.start - top);
        for ((y, line), out) in rows.zip(lines).zip(out.chunks_mut(maps.width + 1)) {
            let at = y * maps.width + columns.start;
            let foreground = &maps.foreground[at..at + columns.len()];
            let values = line[inside.clone()].iter().zip(foreground);
            for (out, (value, foreground)) in out[columns.clone()].iter_mut().zip(values) {
                let level = (value.min(1.0) * (LEVELS - 1.0)) as i32 as u16;
                let is_foreground = *foreground > parameters.foreground_threshold;
                *out = ((level + 1) << FREE_BITS) * u16::from(is_foreground);
            }
        }
    }
}

/// The smallest part of a block with all its foreground.
#[inline(always)]
fn foreground_in(
    maps: &Maps,
    threshold: f32,
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> Option<(Range<usize>, Range<usize>)> {
    let mut hit_columns = [false; COLUMNS];
    let mut hit_rows = [false; ROWS];
    for (y, row) in rows.clone().zip(&mut hit_rows) {
        let at = y * maps.width + columns.start;
        let foreground = &maps.foreground[at..at + columns.len()];
        let mut any = false;
        for (column, value) in hit_columns.iter_mut().zip(foreground) {
            let is_foreground = *value > threshold;
            *column |= is_foreground;
            any |= is_foreground;
        }
        *row = any;
    }
    let hit = |hits: &[bool], start: usize| {
        let first = hits.iter().position(|&hit| hit)?;
        let last = hits.iter().rposition(|&hit| hit)?;
        Some(start + first..start + last + 1)
    };
    Some((hit(&hit_rows, rows.start)?, hit(&hit_columns, columns.start)?))
}

/// One pass of [1 2 1]/4 along both axes; edges are repeated.
#[inline(always)]
fn smooth(values: &mut [f32], between: &mut [f32], width: usize) {
    let last = width - 1;
    for (row, out) in values.chunks_exact(width).zip(between.chunks_exact_mut(width)) {
        out[0] = (3.0 * row[0] + row[1.min(last)]) * 0.25;
        out[last] = (3.0 * row[last] + row[last.saturating_sub(1)]) * 0.25;
        for (out, near) in out[1..].iter_mut().zip(row.windows(3)) {
            *out = (near[0] + 2.0 * near[1] + near[2]) * 0.25;
        }
    }
    let rows = values.len() / width;
    let row = |y: usize| &between[y * width..(y + 1) * width];
    for (y, out) in values.chunks_exact_mut(width).enumerate() {
        let around = row(y.saturating_sub(1)).iter().zip(row(y)).zip(row((y + 1).min(rows - 1)));
        for (out, ((above, here), below)) in out.iter_mut().zip(around) {
            *out = (above + 2.0 * here + below) * 0.25;
        }
    }
}
